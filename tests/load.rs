//! `scoregate load` against servers that do exactly what they were told to, so that the truth about them is known.
//!
//! Times are asserted from below only: a slow machine makes everything later, and nothing earlier.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking, and their tasks end with the test"
)]

#[path = "support/replica.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod replica;
#[path = "support/router.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod router;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use replica::{Act, Replica};
use router::{Router, SCORE, blue, eventually};

/// A running generator; killed when it is dropped.
struct Load(Child);

/// What a generator left behind.
struct Done {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Load {
    /// Starts one without a warm-up, aimed at `/score`.
    fn start(address: impl Display, arguments: &[&str]) -> Self {
        Self::at(&format!("http://{address}/score"), arguments)
    }

    /// Starts one without a warm-up.
    fn at(url: &str, arguments: &[&str]) -> Self {
        Self::plain(&[&[url, "--warm-up", "0s"], arguments].concat())
    }

    /// Starts one with these arguments only.
    fn plain(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
        command.arg("load").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.env_remove("SCOREGATE_LOG").env_remove("SCOREGATE_KEY").spawn().unwrap())
    }

    fn interrupt(&self) {
        kill_process(Pid::from_raw(self.0.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    }

    /// Waits for the end. Both outputs are far smaller than a pipe.
    async fn done(mut self) -> Done {
        let read = move || {
            let (mut stdout, mut stderr) = (String::new(), String::new());
            let status = self.0.wait().unwrap();
            self.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
            self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            Done { status, stdout, stderr }
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Done {
    fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{}", self.status))
    }

    /// The report, of a generator that ended with this code.
    #[track_caller]
    fn report(&self, code: i32) -> Value {
        assert_eq!(self.code(), code, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A number of a report, named by its path.
#[track_caller]
fn number(report: &Value, path: &str) -> f64 {
    let value = report.pointer(path).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number at {path}: {report:#}"))
}

#[tokio::test]
async fn a_known_delay_is_measured() {
    let replica = Replica::acting(Act::after(20));
    let report =
        Load::start(replica.address(), &["--rate", "100", "--requests", "50"]).done().await.report(0);
    assert_eq!(report["requests"], json!({"due": 50, "succeeded": 50, "failed": 0, "never_sent": 0}));
    assert_eq!(report["statuses"], json!({"200": 50}));
    assert_eq!(report["failures"], json!([]));
    for time in ["latency_ms", "service_time_ms", "first_byte_ms"] {
        assert_eq!(number(&report, &format!("/{time}/count")), 50.0, "{time}");
        assert!(number(&report, &format!("/{time}/p50")) >= 20.0, "{time}: {report:#}");
        assert!(number(&report, &format!("/{time}/p50")) < 10_000.0, "{time}: {report:#}");
    }
    assert_eq!(number(&report, "/generator/lag_ms/count"), 50.0);
    let seen = replica.requests();
    assert_eq!(seen.len(), 50);
    assert_eq!(seen[0].body, r#"{"data": [[1, 2, 3, 4]]}"#);
    assert_eq!(seen[0].headers["content-type"], "application/json");
    assert_eq!(seen[0].headers["host"], replica.address().to_string());
}

#[tokio::test]
async fn requests_that_are_due_in_a_stall_show_its_whole_length() {
    // Request k is due 5k ms after the start, and nobody gets an answer in the first second.
    for places in [1_000, 4] {
        let replica = Replica::acting(Act::Hold);
        let most = places.to_string();
        let load = Load::start(
            replica.address(),
            &["--rate", "200", "--requests", "200", "--max-in-flight", most.as_str()],
        );
        eventually("the first request", async || (replica.in_flight() > 0).then_some(())).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        replica.release(200);
        let report = load.done().await.report(0);
        assert_eq!(number(&report, "/requests/succeeded"), 200.0);
        for (percentile, least) in [("p50", 499.0), ("p75", 749.0), ("p90", 899.0), ("max", 999.0)] {
            let latency = number(&report, &format!("/latency_ms/{percentile}"));
            assert!(latency >= least, "{percentile} with {places} places: {report:#}");
        }
        assert!(replica.max_in_flight() <= places);
        if places == 4 {
            // Those after the first four waited in the generator, which is told and is not called its lateness.
            assert!(number(&report, "/generator/held_back_ms/count") >= 100.0, "{report:#}");
            assert!(number(&report, "/generator/held_back_ms/max") >= 900.0, "{report:#}");
            assert!(report["warnings"].to_string().contains("--max-in-flight"), "{report:#}");
        }
    }
}

#[tokio::test]
async fn the_warm_up_is_sent_and_not_counted() {
    let replica = Replica::start();
    let url = format!("http://{}/score", replica.address());
    let arguments = [url.as_str(), "--rate", "100", "--requests", "10", "--warm-up", "200ms"];
    let report = Load::plain(&arguments).done().await.report(0);
    assert_eq!(number(&report, "/requests/due"), 10.0);
    assert_eq!(replica.served(), 30);
}

#[tokio::test]
async fn refusals_are_counted_by_status_and_reason() {
    let body = json!({"error": {"code": "queue_full", "message": "all replicas are busy", "limit": 3}});
    let replica = Replica::acting(Act::Answer(503, body.to_string().into(), Duration::ZERO));
    let report = Load::start(replica.address(), &["--rate", "100", "--requests", "8"]).done().await.report(1);
    assert_eq!(report["statuses"], json!({"503": 8}));
    let failure =
        json!({"code": "queue_full", "status": 503, "count": 8, "example": "all replicas are busy"});
    assert_eq!(report["failures"], json!([failure]));
    assert_eq!(report["latency_ms"], Value::Null);
    assert_eq!(number(&report, "/failed_latency_ms/count"), 8.0);
}

#[tokio::test]
async fn failures_without_an_answer_are_told_apart() {
    let arguments = ["--rate", "100", "--requests", "3", "--timeout", "300ms"];
    let cases = [
        (Act::Cut, "connection_closed"),
        (Act::Hold, "timeout"),
        (Act::CutInBody, "answer_cut"),
        (Act::Stall, "timeout"),
    ];
    for (act, code) in cases {
        let replica = Replica::acting(act);
        let arguments = if code == "timeout" { &arguments[..] } else { &arguments[..4] };
        let report = Load::start(replica.address(), arguments).done().await.report(1);
        assert_eq!(report["failures"][0]["code"], code, "{report:#}");
        assert_eq!(number(&report, "/failures/0/count"), 3.0, "{report:#}");
        if code == "timeout" {
            assert!(number(&report, "/failed_latency_ms/p50") >= 300.0, "{report:#}");
        }
    }
    let no_http2 = Replica::start();
    let load = Load::start(no_http2.address(), &[&arguments[..4], &["--http2"]].concat());
    assert_eq!(number(&load.done().await.report(1), "/requests/failed"), 3.0);
    let report = Load::start(replica::unused_address(), &arguments[..4]).done().await.report(1);
    assert_eq!(report["failures"][0]["code"], "connection_refused", "{report:#}");
}

#[tokio::test]
async fn connections_are_kept_and_closed_ones_are_replaced() {
    let arguments = ["--rate", "200", "--requests", "20", "--max-in-flight", "1"];
    let replica = Replica::start();
    let report = Load::start(replica.address(), &arguments).done().await.report(0);
    assert_eq!(number(&report, "/generator/connections_opened"), 1.0);
    replica.act(Act::AnswerAndClose);
    let report = Load::start(replica.address(), &arguments).done().await.report(0);
    assert_eq!(number(&report, "/requests/succeeded"), 20.0);
    assert_eq!(number(&report, "/generator/connections_opened"), 20.0);
}

#[tokio::test]
async fn keys_and_deployments_are_used_in_turn_and_keys_are_never_printed() {
    let replica = Replica::acting(Act::Answer(401, "{}".into(), Duration::ZERO));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "hush-two\n\nhush-three\n").unwrap();
    let file = file.to_str().unwrap();
    let load = Load::start(
        replica.address(),
        &[
            "--requests",
            "12",
            "--rate",
            "500",
            "--key",
            "hush-one",
            "--key-file",
            file,
            "--deployment",
            "blue",
            "--deployment",
            "green",
            "--header",
            "x-tenant: hush-four",
            "--data",
            "[]",
        ],
    );
    let done = load.done().await;
    done.report(1);
    assert!(!done.stdout.contains("hush") && !done.stderr.contains("hush"), "{}{}", done.stdout, done.stderr);
    let mut pairs = BTreeMap::new();
    for seen in replica.requests() {
        let text = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
        assert_eq!((text("x-tenant").as_str(), &seen.body[..]), ("hush-four", &b"[]"[..]));
        *pairs.entry((text("authorization"), text("azureml-model-deployment"))).or_insert(0) += 1;
    }
    assert_eq!(pairs.len(), 6, "{pairs:?}");
    assert!(pairs.values().all(|count| *count == 2), "{pairs:?}");
}

#[tokio::test]
async fn streams_are_timed_by_their_events() {
    let replica = Replica::acting(Act::Stream);
    let load = Load::start(replica.address(), &["--stream", "--rate", "100", "--requests", "3"]);
    eventually("all streams", async || (replica.open_streams() == 3).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Events that are cut anywhere, and a comment, which is none.
    for piece in ["da", "ta: 1\n", "\n: alive\n\nid: 7\nda", "ta: 2\r\n\r", "\ndata: 3\n\n"] {
        replica.stream(piece);
    }
    replica.end_streams();
    let report = load.done().await.report(0);
    assert_eq!(replica.requests()[0].headers["accept"], "text/event-stream");
    assert_eq!(number(&report, "/stream/events_per_request/p50"), 3.0);
    assert_eq!(number(&report, "/stream/events_per_request/max"), 3.0);
    assert_eq!(number(&report, "/stream/event_gap_ms/count"), 6.0);
    assert_eq!(number(&report, "/stream/first_event_ms/count"), 3.0);
    assert!(number(&report, "/stream/first_event_ms/p50") >= 100.0, "{report:#}");
    assert!(number(&report, "/stream/first_event_ms/p50") <= number(&report, "/latency_ms/p50"));
}

#[tokio::test]
async fn streams_that_break_off_or_are_none_have_failed() {
    let replica = Replica::acting(Act::Stream);
    let arguments = ["--stream", "--rate", "100", "--requests", "2"];
    let load = Load::start(replica.address(), &arguments);
    eventually("both streams", async || (replica.open_streams() == 2).then_some(())).await;
    replica.stream("data: 1\n\ndata: 2\n");
    replica.end_streams();
    assert_eq!(load.done().await.report(1)["failures"][0]["code"], "stream_cut");
    for (act, code) in [(Act::CutInBody, "answer_cut"), (Act::ok("{}"), "no_events")] {
        replica.act(act);
        let report = Load::start(replica.address(), &arguments).done().await.report(1);
        assert_eq!(report["failures"][0]["code"], code, "{report:#}");
        assert_eq!(number(&report, "/failures/0/count"), 2.0);
    }
}

/// Serves this head and an empty body to all comers, one after the other, until the test ends.
fn canned(head: &'static str) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut read) = (stream.unwrap(), Vec::new());
            while !read.windows(2).any(|end| end == b"]}") {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(size) => read.extend_from_slice(&buffer[..size]),
                }
            }
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{head}content-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

#[tokio::test]
async fn what_the_server_says_about_its_time_is_reported() {
    let address = canned("Server-Timing: queue;dur=1.5, model;dur=2\r\nServer-Timing: router;dur=0.042\r\n");
    let report = Load::start(address, &["--rate", "100", "--requests", "10"]).done().await.report(0);
    for (name, time) in [("queue", 1.5), ("model", 2.0), ("router", 0.042)] {
        assert_eq!(number(&report, &format!("/server_timing_ms/{name}/count")), 10.0);
        let p99 = number(&report, &format!("/server_timing_ms/{name}/p99"));
        assert!((p99 / time - 1.0).abs() < 0.01, "{name}: {report:#}");
    }
    assert_eq!(number(&report, "/outside_ms/count"), 10.0);
}

#[tokio::test]
async fn a_signal_ends_the_run_and_shows_what_was_seen() {
    let replica = Replica::acting(Act::Hold);
    let load = Load::start(replica.address(), &["--rate", "100", "--duration", "1h"]);
    eventually("some requests", async || (replica.in_flight() >= 3).then_some(())).await;
    load.interrupt();
    replica.release(1_000_000);
    let report = load.done().await.report(0);
    assert_eq!(report["interrupted"], true);
    assert!(number(&report, "/requests/succeeded") >= 3.0);
    assert_eq!(number(&report, "/requests/failed"), 0.0, "{report:#}");
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_answers() {
    let replica = Replica::acting(Act::Hold);
    let mut load = Load::start(replica.address(), &["--rate", "100", "--duration", "1h"]);
    eventually("some requests", async || (replica.in_flight() >= 3).then_some(())).await;
    // Two signals at once may be seen as one.
    eventually("the end", async || {
        load.interrupt();
        load.0.try_wait().unwrap().map(|_| ())
    })
    .await;
    let report = load.done().await.report(1);
    assert_eq!(report["failures"][0]["code"], "interrupted");
    assert!(number(&report, "/requests/failed") >= 3.0, "{report:#}");
}

#[tokio::test]
async fn a_routers_traffic_split_becomes_visible() {
    let (first, second) = (Replica::start(), Replica::start());
    let router = Router::start(&format!(
        "  - name: demo\n    auth_mode: none\n    traffic: {{ blue: 80, green: 20 }}\n    deployments:\n      \
         - {{ name: blue, replicas: [\"http://{}\"] }}\n      - {{ name: green, replicas: [\"http://{}\"] }}\n",
        first.address(),
        second.address()
    ));
    let router = router.ready().await;
    let url = format!("http://{}{SCORE}", router.address());
    let report = Load::at(&url, &["--rate", "100", "--requests", "50"]).done().await.report(0);
    let named = |at: usize| report["deployments"][at]["name"].as_str().unwrap();
    assert_eq!((named(0), named(1)), ("blue", "green"));
    assert_eq!(number(&report, "/deployments/0/answers"), 40.0, "{report:#}");
    assert_eq!(number(&report, "/deployments/0/share"), 0.8);
    assert_eq!(number(&report, "/deployments/1/latency_ms/count"), 10.0);
}

#[tokio::test]
async fn https_and_http2_work_and_trust_only_what_they_are_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.path().join("one.key"), signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("one.pem"), cert.pem()).unwrap();
    let replica = Replica::start();
    let top = format!(
        "listen:\n  address: \"127.0.0.1:0\"\n  workers: 1\n  tls:\n    certificates:\n      \
         - {{ certificate: {path}/one.pem, key: {path}/one.key }}\n"
    );
    let router = Router::start_with(&top, &blue(&[replica.address()], "max_queue_wait_ms: 20000"));
    let url = format!("https://{}{SCORE}", router.address());
    let ca = format!("{path}/one.pem");
    for arguments in [&["--ca", ca.as_str()][..], &["--insecure"], &["--insecure", "--http2"]] {
        let load = Load::at(&url, &[&["--rate", "100", "--requests", "10"], arguments].concat());
        let report = load.done().await.report(0);
        assert_eq!(number(&report, "/requests/succeeded"), 10.0, "{arguments:?}");
    }
    let report = Load::at(&url, &["--requests", "2"]).done().await.report(1);
    assert_eq!(report["failures"][0]["code"], "tls_failed", "{report:#}");
}

#[tokio::test]
async fn http2_without_tls_shares_one_connection() {
    let replica = Replica::acting(Act::after(20));
    let router = Router::start(&blue(&[replica.address()], "max_queue_wait_ms: 20000")).ready().await;
    let url = format!("http://{}{SCORE}", router.address());
    let report = Load::at(&url, &["--http2", "--rate", "200", "--requests", "50"]).done().await.report(0);
    assert_eq!(number(&report, "/requests/succeeded"), 50.0);
    assert_eq!(number(&report, "/generator/connections_opened"), 1.0, "{report:#}");
}

#[tokio::test]
async fn a_table_is_for_people_and_random_arrivals_can_be_repeated() {
    let replica = Replica::start();
    let arguments = ["--poisson", "--seed", "7", "--rate", "500", "--requests", "20", "--output", "table"];
    let done = Load::start(replica.address(), &arguments).done().await;
    assert_eq!(done.code(), 0);
    assert!(done.stdout.contains("Poisson arrivals (seed 7)"), "{}", done.stdout);
    assert!(done.stdout.contains("20 requests: 20 succeeded (100 %)"), "{}", done.stdout);
    assert!(done.stdout.contains("latency (from due)"), "{}", done.stdout);
    assert_eq!(done.stderr, "", "no progress where there is no terminal");
}

#[tokio::test]
async fn wrong_arguments_exit_with_2_and_what_is_not_there_with_1() {
    for arguments in [&["--rate", "0"][..], &["--requests", "1", "--duration", "1s"], &["--insecure"]] {
        let done = Load::start("127.0.0.1:1", arguments).done().await;
        assert_eq!((done.code(), done.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    }
    let done = Load::start("127.0.0.1:1", &["--key-file", "/nowhere/keys"]).done().await;
    assert_eq!(done.code(), 1);
    assert!(done.stderr.contains("cannot read /nowhere/keys (--key-file)"), "{}", done.stderr);
}
