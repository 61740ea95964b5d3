//! Every decision can be asked why, and lived again: a real router with real replicas, its ledger, its events, its recording.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking, and their tasks end with the test"
)]

#[path = "support/process.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod process;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use process::{Connection, RouterProcess};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

/// Longest time that a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests at once: one runs, two wait, the others are turned away.
const BURST: usize = 8;

fn configuration(recording: &Path) -> String {
    format!(
        r#"
listen: {{ address: "127.0.0.1:0", workers: 2 }}
admin: {{ address: "127.0.0.1:0" }}
access_log: "off"
recording: {{ directory: "{}" }}
endpoints:
  - name: demo
    auth_mode: none
    deployments:
      - name: blue
        request_settings: {{ max_queue_wait_ms: 5000, max_queue_length: 2 }}
        scale_settings: {{ type: target_utilization, min_instances: 1, max_instances: 3 }}
        liveness_probe: {{ initial_delay: 0, period: 1 }}
        readiness_probe: {{ initial_delay: 0, period: 1 }}
        process:
          command: ["{{scoregate}}", model, --service-time, "700"]
          ports: 23000-23199
          stop_timeout_s: 1
"#,
        recording.display()
    )
}

async fn ready(router: &RouterProcess) -> Result<StatusCode, String> {
    let mut connection = Connection::open(router.data).await?;
    Ok(connection.call(Request::get("/readyz").body(Full::default()).unwrap()).await?.status())
}

async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// The program with these arguments: whether it succeeded, and what it printed.
async fn scoregate(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
    let output = command.args(arguments).env_remove("SCOREGATE_ADMIN").output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.success(), format!("{}{errors}", String::from_utf8_lossy(&output.stdout)))
}

async fn explain(router: &RouterProcess, arguments: &[&str]) -> String {
    let admin = format!("http://{}", router.admin);
    let all = [&["explain", "--state", "/nowhere", "--admin", &admin], arguments].concat();
    let (is_well, text) = scoregate(&all).await;
    assert!(is_well, "{text}");
    text
}

/// Reads the events until all of these texts were in one.
async fn event(stream: &mut TcpStream, texts: &[&str]) {
    let mut heard = String::new();
    let reading = async {
        let mut bytes = [0; 4096];
        while !texts.iter().all(|text| heard.contains(text)) {
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the events have ended: {heard}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    let is_in_time = tokio::time::timeout(PATIENCE, reading).await.is_ok();
    assert!(is_in_time, "no events with {texts:?}: {heard}");
}

/// Sends them at once; the ids of those that were served and of those that were not.
async fn burst(router: &RouterProcess) -> (Vec<String>, Vec<String>) {
    let mut calls = JoinSet::new();
    for number in 0..BURST {
        let (id, mut connection) = (format!("burst-{number}"), Connection::open(router.data).await.unwrap());
        calls.spawn(async move {
            let request = Request::post("/api/v1/endpoint/demo/score").header("x-request-id", &id);
            let answer = connection.call(request.body(Full::new(Bytes::from("{}"))).unwrap()).await.unwrap();
            (id, answer.status())
        });
    }
    let (mut served, mut refused) = (Vec::new(), Vec::new());
    while let Some(call) = calls.join_next().await {
        let (id, status) = call.unwrap();
        match status {
            StatusCode::OK => served.push(id),
            StatusCode::SERVICE_UNAVAILABLE => refused.push(id),
            other => panic!("{id}: {other}"),
        }
    }
    (served, refused)
}

#[tokio::test]
async fn a_router_says_why_and_its_recording_can_be_lived_again() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    let router = RouterProcess::serve("explain", &configuration(&recording), ("UNUSED", "")).await;
    eventually("a ready replica", async || (ready(&router).await == Ok(StatusCode::OK)).then_some(())).await;
    let mut events = TcpStream::connect(router.admin).await.unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    event(&mut events, &["text/event-stream"]).await;

    let (served, refused) = burst(&router).await;
    assert!(!served.is_empty() && !refused.is_empty(), "{served:?} {refused:?}");
    event(&mut events, &["\"type\":\"rejects\"", "\"type\":\"decision\"", "blue: from 1 to "]).await;
    drop(events);

    let text = explain(&router, &["--request", &refused[0], "-o", "table"]).await;
    for part in [
        "was refused with 503 at once: ",
        " of blue was busy and 2 others waited, as many as may",
        "come back in",
    ] {
        assert!(
            text.contains(part) || text.contains(&part.replace("was busy", "were busy")),
            "{part}: {text}"
        );
    }
    let text = explain(&router, &["--request", &served[0], "-o", "table"]).await;
    let expected =
        "went to blue by its turn in the traffic, of which blue has 100 % now, and had a slot of blue-";
    assert!(text.contains(expected) && text.contains("answered with 200"), "{text}");
    let scaled = async || {
        let text = explain(&router, &["--endpoint", "demo", "--kind", "scale", "-o", "table"]).await;
        // The rule may have been asked in the middle of the burst.
        (text.contains("blue: from 1 to ") && text.contains(" to 3 replicas, because ")).then_some(())
    };
    eventually("a scale-up", scaled).await;
    let json = explain(&router, &["--deployment", "blue", "--kind", "scale"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["value"][0]["reason"].is_object(), "{json}");
    let text = explain(&router, &["--request", "nobody", "-o", "table"]).await;
    assert!(text.contains("Nothing is remembered") && text.contains("of at most 2048"), "{text}");

    assert!(router.terminate().await.success());
    replayed(&recording).await;
}

async fn replayed(recording: &Path) {
    let files: Vec<_> = std::fs::read_dir(recording).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let file = file.to_str().unwrap();
    let set = "request_settings.max_queue_length=100";
    let (is_well, text) = scoregate(&["replay", file, "--set", set, "-o", "json"]).await;
    assert!(is_well, "{text}");
    let replayed: Value = serde_json::from_str(&text).unwrap();
    let blue = &replayed["deployments"][0];
    assert_eq!(blue["verified"]["differences"], 0, "{text}");
    assert_eq!(blue["verified"]["from_the_beginning"], true);
    assert!(blue["verified"]["questions"].as_u64().unwrap() > 1, "{text}");
    for column in ["happened", "simulated", "changed"] {
        assert_eq!(blue[column]["requests"], BURST, "{text}");
    }
    assert!(blue["happened"]["rejected"].as_u64().unwrap() > blue["changed"]["rejected"].as_u64().unwrap());
    assert_eq!(blue["simulated"]["most_replicas"], 3, "{text}");
    let (_, table) = scoregate(&["replay", file, "-o", "table"]).await;
    assert!(table.contains("demo/blue: ") && table.contains("answers that it gave."), "{table}");
    let wrong = scoregate(&["replay", file, "--set", "scale_settings.polcy=adaptive"]).await;
    assert!(!wrong.0 && wrong.1.contains("polcy"), "{}", wrong.1);
    let idle = scoregate(&["replay", file, "--set", "scale_settings.warm_up_time=5"]).await;
    assert!(!idle.0 && idle.1.contains("`scale_settings.warm_up_time` has no effect"), "{}", idle.1);
}
