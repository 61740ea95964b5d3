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
#[path = "explain/refusals.rs"]
mod refusals;
#[path = "support/replica.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod replica;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use process::{Connection, RouterProcess};
use replica::{Act, Replica};
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

/// A router in front of these servers, once all are ready. Whatever is not said of requests is `settings`.
async fn in_front_of(name: &str, replicas: &[&Replica], settings: &str) -> RouterProcess {
    let urls: Vec<_> = replicas.iter().map(|replica| format!("\"http://{}\"", replica.address())).collect();
    let configuration = format!(
        r#"
listen: {{ address: "127.0.0.1:0", workers: 2 }}
admin: {{ address: "127.0.0.1:0" }}
access_log: "off"
endpoints:
  - name: demo
    auth_mode: none
    deployments:
      - name: blue
        replicas: [{}]
        request_settings: {{ {settings} }}
"#,
        urls.join(", ")
    );
    let router = RouterProcess::serve(name, &configuration, ("UNUSED", "")).await;
    let all_ready = async || {
        let state = router.state().await;
        (state["endpoints"][0]["deployments"][0]["ready"] == replicas.len()).then_some(())
    };
    eventually("all replicas ready", all_ready).await;
    router
}

/// The status of the answer to a request with this id.
async fn score(router: &RouterProcess, id: &str) -> u16 {
    let mut connection = Connection::open(router.data).await.unwrap();
    let request = Request::post("/api/v1/endpoint/demo/score").header("x-request-id", id);
    connection.call(request.body(Full::new(Bytes::from("{}"))).unwrap()).await.unwrap().status().as_u16()
}

/// Its entries, asked for as JSON.
async fn entries(router: &RouterProcess, arguments: &[&str]) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&explain(router, arguments).await).unwrap();
    answer["value"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_request_that_was_sent_again_says_why_and_one_that_was_not_says_why_not() {
    let (breaks, good) = (Replica::acting(Act::Cut), Replica::start());
    let router = in_front_of("explain-retry", &[&breaks, &good], "idempotent: true").await;
    let mut events = TcpStream::connect(router.admin).await.unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    event(&mut events, &["text/event-stream"]).await;
    let mut sent = 0;
    while breaks.served() == 0 {
        sent += 1;
        assert_eq!(score(&router, &format!("r-{sent}")).await, 200);
    }
    breaks.act(Act::ok("{}"));
    event(&mut events, &["\"type\":\"retries\"", "the 2nd replica that was tried"]).await;
    drop(events);

    let id = format!("r-{sent}");
    let text = explain(&router, &["--request", &id, "-o", "table"]).await;
    let replica = router.state().await["endpoints"][0]["deployments"][0]["replicas"]
        .as_array()
        .and_then(|replicas| {
            let port = good.address().port().to_string();
            replicas.iter().find(|replica| replica["address"].as_str().unwrap().ends_with(&port)).cloned()
        })
        .unwrap();
    let name = replica["name"].as_str().unwrap();
    let expected = format!(
        "and had a slot of {name} at once, the 2nd replica that was tried, because the first broke the connection; \
         answered with 200 after"
    );
    assert!(text.contains(&expected), "{expected}: {text}");
    let found = entries(&router, &["--kind", "retry"]).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["request"], &found[0]["again"]["broken"]), (&id.into(), &1.into()));
    assert_eq!(
        (&found[0]["attempts"], &found[0]["replica"], &found[0]["share_now"]),
        (&2.into(), &name.into(), &100.0.into())
    );

    // Both are broken: it is sent to the other one, and no more. A connection that was kept may have taken one send more.
    breaks.act(Act::Cut);
    good.act(Act::Cut);
    assert_eq!(score(&router, "lost").await, 502);
    let text = explain(&router, &["--request", "lost", "-o", "table"]).await;
    let expected = "the replica broke the connection (502) after ";
    let why = "; it had been sent to another replica once, because the first broke the connection, and was not sent again: ";
    assert!(text.contains(expected) && text.contains(why), "{text}");
    let found = entries(&router, &["--kind", "retry", "--last", "1"]).await;
    assert!(["no_idle_slot", "attempts"].contains(&found[0]["not_again"].as_str().unwrap()), "{found:?}");
    assert_eq!(found[0]["status"], 502);
}

#[tokio::test]
async fn a_second_copy_that_answered_first_is_told() {
    let (slow, good) = (Replica::acting(Act::Hold), Replica::start());
    let settings = "idempotent: true, hedge: { after_ms: 50 }";
    let router = in_front_of("explain-hedge", &[&slow, &good], settings).await;
    let mut sent = 0;
    while slow.served() == 0 {
        sent += 1;
        assert_eq!(score(&router, &format!("r-{sent}")).await, 200);
    }
    let text = explain(&router, &["--request", &format!("r-{sent}"), "--kind", "retry", "-o", "table"]).await;
    let (way, end) = (
        "with its second copy; answered with 200",
        "its answer was late, and the second copy answered first",
    );
    assert!(text.contains(way) && text.contains(end), "{text}");
    assert_eq!(entries(&router, &["--kind", "retry"]).await[0]["second_copy"], "won");
}

#[tokio::test]
async fn a_replica_that_answers_500_is_taken_out_and_comes_back_with_a_reason_each_time() {
    let (broken, good) = (Replica::start(), [Replica::start(), Replica::start(), Replica::start()]);
    let all = [&broken, &good[0], &good[1], &good[2]];
    let router = in_front_of("explain-standing", &all, "max_queue_wait_ms: 20000").await;
    for number in 0..80 {
        assert_eq!(score(&router, &format!("before-{number}")).await, 200);
    }
    broken.act(Act::Answer(500, Bytes::new(), Duration::ZERO));
    let (mut bad, before) = (0, broken.served());
    for number in 0..600 {
        bad += u32::from(score(&router, &format!("during-{number}")).await != 200);
    }
    assert!(
        bad <= 6,
        "{bad} of 600 were answered by the broken one, which has had {}",
        broken.served() - before
    );
    let standing = async |word: &str| {
        let found = entries(&router, &["--kind", "standing", "--last", "100"]).await;
        found.into_iter().rev().find(|entry| entry["standing"] == word)
    };
    // One after the other they may all have gone to the others, which are not slower for it; four at once need all.
    let out = async || {
        let one = async |number| score(&router, &format!("beside-{number}")).await;
        tokio::join!(one(1), one(2), one(3), one(4));
        standing("ejected").await
    };
    let told = eventually("told that it is out", out).await;
    let sentence = told["sentence"].as_str().unwrap().to_owned();
    assert!(
        sentence.contains("is ejected from now on, because its last 5 answers were all 500, and hardly any of its siblings' were"),
        "{sentence}"
    );
    let name = told["replica"].as_str().unwrap().to_owned();
    broken.act(Act::ok("{}"));
    let back = async || {
        score(&router, "after").await;
        standing("good").await
    };
    let told = eventually("told that it is good again", back).await;
    let sentences: Vec<_> = entries(&router, &["--kind", "standing", "--last", "100"]).await;
    let of_it = sentences.iter().filter(|entry| entry["replica"] == *name);
    let words: Vec<_> = of_it.map(|entry| entry["standing"].as_str().unwrap()).collect();
    assert_eq!(
        (told["replica"].as_str(), words.first(), words.last()),
        (Some(&*name), Some(&"ejected"), Some(&"good"))
    );
    assert_eq!(sentences.len(), words.len(), "nothing is told of the others: {sentences:?}");
    let table = explain(&router, &["--kind", "standing", "-o", "table"]).await;
    assert!(table.contains("is on probation from now on, because its pause is over"), "{table}");
    assert!(table.contains("is good from now on, because it does as well as its siblings again"), "{table}");

    // Where all answer 500 it is the model.
    all.iter().for_each(|replica| replica.act(Act::Answer(500, Bytes::new(), Duration::ZERO)));
    for number in 0..100 {
        assert_eq!(score(&router, &format!("all-{number}")).await, 502);
    }
    assert_eq!(entries(&router, &["--kind", "standing", "--last", "100"]).await.len(), sentences.len());
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
