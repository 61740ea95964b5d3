//! The synthetic model server, as a process: what it answers, counts, and how it ends.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Model {
    process: Child,
    address: String,
}

impl Model {
    fn start(flags: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_scoregate"))
            .args(["model", "--port", "0"])
            .args(flags.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("model server on http://").unwrap().to_owned();
        Self { process, address }
    }

    /// Sends a request (line and headers without the last blank lines) and leaves the answer to come.
    async fn send(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }

    async fn get(&self, head: &str) -> String {
        read(self.send(head).await).await
    }

    async fn stats(&self) -> Value {
        json(&self.get("GET /stats HTTP/1.1").await)
    }

    async fn until(&self, condition: impl Fn(&Value) -> bool) {
        let waiting = async {
            while !condition(&self.stats().await) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("in time");
    }

    fn terminate(&self) {
        kill_process(Pid::from_raw(self.process.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn read(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn json(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn routes_answer_as_the_real_server_does() {
    let model = Model::start("--name blue-1 --response-size 500");
    let health = model.get("GET / HTTP/1.1").await;
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n") && health.ends_with("\r\n\r\nHealthy"), "{health}");

    let score = model.get("GET /score?a=1 HTTP/1.1\r\nx-ms-client-request-id: mine").await;
    for header in [
        "x-ms-run-function-failed: False",
        "x-ms-run-fn-exec-ms: ",
        "x-ms-request-id: mine",
        "x-request-id: ",
    ] {
        assert!(score.contains(header), "{header} in {score}");
    }
    assert_eq!(score.split_once("\r\n\r\n").unwrap().1.len(), 500);
    assert_eq!(json(&score)["replica"], "blue-1");

    assert!(json(&model.get("GET /swagger.json HTTP/1.1").await)["paths"]["/score"].is_object());
    let refused = model.get("PUT /score HTTP/1.1").await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    assert_eq!(json(&refused)["message"], "The method is not allowed for the requested URL.");
    assert!(model.get("GET /no HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
    let long = format!("GET /score HTTP/1.1\r\nx-request-id: {}", "i".repeat(101));
    assert!(model.get(&long).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn it_counts_what_is_in_flight_and_works_on_a_few_at_once() {
    let model = Model::start("--service-time 400 --concurrency 2");
    let begin = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(model.send("GET /score HTTP/1.1").await);
    }
    for client in clients {
        assert!(read(client).await.starts_with("HTTP/1.1 200 "));
    }
    assert!(begin.elapsed() >= Duration::from_millis(800), "two rounds of two");
    let stats = model.stats().await;
    assert_eq!(
        (&stats["in_flight"], &stats["max_in_flight"], &stats["served"]),
        (&0.into(), &4.into(), &4.into())
    );
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let model = Model::start("--service-time 3600000");
    let client = model.send("POST /score HTTP/1.1\r\ncontent-length: 0").await;
    model.until(|stats| stats["in_flight"] == 1).await;
    drop(client);
    model.until(|stats| stats["in_flight"] == 0 && stats["abandoned"] == 1).await;
}

#[tokio::test]
async fn failures_are_500_with_the_header_that_says_so() {
    let model = Model::start("--failure-rate 1");
    let failed = model.get("GET /score HTTP/1.1").await;
    assert!(failed.starts_with("HTTP/1.1 500 "), "{failed}");
    assert!(failed.contains("x-ms-run-function-failed: True") && !failed.contains("exec-ms"), "{failed}");
    assert_eq!(model.stats().await["failed"], 1);
}

#[tokio::test]
async fn events_come_one_by_one_and_hold_the_request_to_the_last() {
    let model = Model::start("--sse-events 2 --sse-interval 1000");
    let mut stream = model.send("GET /score HTTP/1.1\r\naccept: text/event-stream").await;
    let mut text = String::new();
    while !text.contains("\"event\":0") {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    assert!(text.contains("content-type: text/event-stream") && !text.contains("\"event\":1"), "{text}");
    assert_eq!(model.stats().await["in_flight"], 1);
    text.push_str(&read(stream).await);
    assert!(text.contains("\"event\":1") && text.ends_with("0\r\n\r\n"), "{text}");
    assert_eq!(model.stats().await["served"], 1);
}

#[tokio::test]
async fn at_first_the_port_is_open_and_answers_wait() {
    let begin = Instant::now();
    let model = Model::start("--startup-delay 300");
    assert!(model.get("GET / HTTP/1.1").await.contains("Healthy"));
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn sigterm_finishes_what_runs() {
    let mut model = Model::start("--service-time 300");
    let client = model.send("GET /score HTTP/1.1").await;
    model.until(|stats| stats["in_flight"] == 1).await;
    model.terminate();
    assert!(read(client).await.starts_with("HTTP/1.1 200 "));
    assert!(model.process.wait().unwrap().success());
}
