//! The commands as users type them: the program itself, its output, its exit code, what it leaves behind.
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

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};

use replica::{Act, Replica};
use router::{call, eventually, get, post};

fn scoregate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
    command.args(arguments).stdin(Stdio::null()).env_remove("SCOREGATE_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    scoregate(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running command; killed when it is dropped.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = scoregate(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The rest of the first line that begins with this word.
    fn line(&mut self, word: &str) -> String {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("no line begins with {word}");
    }

    fn address(&mut self, word: &str) -> SocketAddr {
        self.line(word).trim_start_matches("http://").parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn children_of(parent: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything but is in brackets: state, then parent.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        if after.split(' ').nth(1) == Some(parent.to_string().as_str()) {
            found.extend(Pid::from_raw(id));
            found.extend(children_of(id.cast_unsigned()));
        }
    }
    found
}

/// Whether a process has ended. One that nobody has waited for, as under a first process that does not, has ended too.
fn has_ended(id: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, after)| after.starts_with('Z'))
}

const DEMO: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

struct Demo {
    running: Running,
    data: SocketAddr,
    admin: SocketAddr,
    key: String,
}

async fn demo() -> Demo {
    let mut running = Running::start(&DEMO);
    let (data, admin) = (running.address("data"), running.address("admin"));
    let key = running.line("key");
    eventually("both deployments ready", async || {
        let state = get("/state").send_to(admin).await.json();
        let deployments = state["endpoints"][0]["deployments"].as_array()?.clone();
        deployments.iter().all(|deployment| deployment["ready"].as_u64() > Some(0)).then_some(())
    })
    .await;
    Demo { running, data, admin, key }
}

#[tokio::test]
async fn the_demo_splits_pins_and_needs_its_key() {
    let demo = demo().await;
    let mut green = 0;
    for _ in 0..50 {
        let reply = post(router::SCORE, "{}").bearer(&demo.key).send_to(demo.data).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        green += usize::from(reply.header("azureml-model-deployment") == "green");
    }
    assert_eq!(green, 5, "10 % of 50");
    let pinned = post(router::SCORE, "{}").bearer(&demo.key).header("azureml-model-deployment", "green");
    assert_eq!(pinned.send_to(demo.data).await.header("azureml-model-deployment"), "green");
    post(router::SCORE, "{}").send_to(demo.data).await.expect(401, "unauthorized");
    assert!(!get("/state").send_to(demo.admin).await.text().contains(&demo.key));
}

#[tokio::test]
async fn the_demo_scales_up_under_load_and_leaves_no_process_behind() {
    let mut demo = demo().await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let (stop, key, data) = (std::sync::Arc::clone(&stop), demo.key.clone(), demo.data);
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Refusals are what an overloaded demo answers until it has grown.
                    let _ = post(router::SCORE, "{}").bearer(&key).try_send(data).await;
                }
            })
        })
        .collect();
    eventually("blue at four replicas", async || {
        let state = get("/state").send_to(demo.admin).await.json();
        (state["endpoints"][0]["deployments"][0]["ready"] == 4).then_some(())
    })
    .await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let children = children_of(demo.running.child.id());
    assert!(children.len() >= 5, "{children:?}");
    demo.running.signal(Signal::TERM);
    assert!(demo.running.child.wait().unwrap().success());
    assert!(children.iter().all(|child| has_ended(*child)), "{children:?}");
}

#[tokio::test]
async fn not_even_sigkill_leaves_a_process_behind() {
    let mut demo = demo().await;
    let children = children_of(demo.running.child.id());
    assert!(children.len() >= 2, "{children:?}");
    demo.running.child.kill().unwrap();
    demo.running.child.wait().unwrap();
    eventually("all children gone", async || children.iter().all(|child| has_ended(*child)).then_some(()))
        .await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = run(&["serve", "--listen", &address.to_string(), "--admin", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains(&format!("port {} is taken", address.port())), "{error}");
}

#[test]
fn check_tells_every_mistake_with_its_place_and_exits_with_1() {
    let output = run(&["check", concat!(env!("CARGO_MANIFEST_DIR"), "/config/broken.yaml")]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stderr);
    assert_eq!(report.matches("broken.yaml:").count(), 10, "{report}");
}

#[test]
fn check_prints_what_a_file_means() {
    let output = run(&["check", concat!(env!("CARGO_MANIFEST_DIR"), "/config/minimal.yaml")]);
    assert_eq!(output.status.code(), Some(0));
    let meaning = text(&output.stdout);
    assert!(
        meaning.contains("request_timeout_ms: 5000") && meaning.contains("max_queue_wait_ms: 500"),
        "{meaning}"
    );
}

#[test]
fn wrong_arguments_exit_with_2_and_missing_files_with_1() {
    assert_eq!(run(&["check"]).status.code(), Some(2));
    assert_eq!(run(&["serve", "--admin", "0.0.0.0:1"]).status.code(), Some(2));
    let missing = run(&["serve", "/nowhere/scoregate.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/nowhere/scoregate.yaml"));
    let nobody = run(&["status", "--admin", &format!("http://{}", replica::unused_address())]);
    assert_eq!(nobody.status.code(), Some(1));
}

#[tokio::test]
async fn a_sidecar_passes_every_path_on_and_enforces_the_limit() {
    let replica = Replica::acting(Act::Hold);
    let upstream = format!("http://{}", replica.address());
    let mut sidecar = Running::start(&[
        "sidecar",
        "--upstream",
        &upstream,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--max-concurrent",
        "1",
        "--max-queue-wait",
        "60000",
        "--access-log",
        "off",
    ]);
    let (data, admin) = (sidecar.address("data"), sidecar.address("admin"));
    let first = tokio::spawn(post("/v1/chat?x=1", "{}").bearer("for the model").send_to(data));
    eventually("first at the model", async || (replica.in_flight() == 1).then_some(())).await;
    let second = tokio::spawn(call(Method::DELETE, "/healthz").send_to(data));
    eventually("second in the queue", async || {
        let state = get("/state").send_to(admin).await.json();
        (state["endpoints"][0]["deployments"][0]["queue"]["length"] == 1).then_some(())
    })
    .await;
    replica.release(2);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
    let seen: Vec<_> =
        replica.requests().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    assert_eq!(seen, ["POST /v1/chat?x=1", "DELETE /healthz"]);
    assert_eq!(replica.requests()[0].headers["authorization"], "Bearer for the model");
    assert_eq!(replica.max_in_flight(), 1);
    assert_eq!(get("/readyz").send_to(admin).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_sidecar_takes_its_settings_from_the_environment() {
    let replica = Replica::start();
    let child = Command::new(env!("CARGO_BIN_EXE_scoregate"))
        .arg("sidecar")
        .env("SCOREGATE_UPSTREAM", format!("http://{}", replica.address()))
        .env("SCOREGATE_LISTEN", "127.0.0.1:0")
        .env("SCOREGATE_ADMIN", "127.0.0.1:0")
        .env("SCOREGATE_MAX_CONCURRENT", "7")
        .env("SCOREGATE_MAX_QUEUE_WAIT", "1234")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let mut sidecar = Running { child, lines };
    let admin = {
        sidecar.address("data");
        sidecar.address("admin")
    };
    let deployment = get("/state").send_to(admin).await.json()["endpoints"][0]["deployments"][0].clone();
    assert_eq!(deployment["slots"]["per_replica"], 7);
    assert_eq!(deployment["queue"]["max_wait_ms"], 1234);
}

#[tokio::test]
async fn status_shows_a_running_router() {
    let demo = demo().await;
    let output = run(&["status", "--admin", &format!("http://{}", demo.admin)]);
    assert_eq!(output.status.code(), Some(0));
    // In a pipe it is JSON.
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(state["endpoints"][0]["name"], "demo");
}

#[tokio::test]
async fn signals_reload_drain_and_force() {
    let replica = Replica::acting(Act::Hold);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scoregate.yaml");
    let configuration = |name: &str| {
        let endpoints =
            router::blue(&[replica.address()], "request_timeout_ms: 600000").replace("demo", name);
        format!("drain_timeout_ms: 600000\naccess_log: off\nendpoints:\n{endpoints}")
    };
    std::fs::write(&file, configuration("demo")).unwrap();
    let mut arguments = DEMO.to_vec();
    arguments.insert(1, file.to_str().unwrap());
    let mut running = Running::start(&arguments);
    let (data, admin) = (running.address("data"), running.address("admin"));
    std::fs::write(&file, configuration("other")).unwrap();
    running.signal(Signal::HUP);
    eventually("the new name", async || {
        (get("/state").send_to(admin).await.json()["endpoints"][0]["name"] == "other").then_some(())
    })
    .await;

    let held = tokio::spawn(post("/api/v1/endpoint/other/score", "{}").try_send(data));
    eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    running.signal(Signal::TERM);
    eventually("draining", async || {
        (get("/state").send_to(admin).await.json()["stage"] == "draining").then_some(())
    })
    .await;
    assert!(running.child.try_wait().unwrap().is_none(), "a drain waits for the request");
    running.signal(Signal::TERM);
    let status = tokio::task::spawn_blocking(move || running.child.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    // The request was cut, with an answer if there was time for one.
    assert!(held.await.unwrap().map_or(true, |reply| reply.status == StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test]
async fn replicas_do_not_inherit_the_keys_of_clients() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scoregate.yaml");
    let configuration = "access_log: off\nendpoints:\n  - name: demo\n    keys: { primary: env:CLIENT_KEY }\n    \
        deployments:\n      - name: blue\n        environment_variables: { MODEL_COLOUR: blue }\n        process:\n          \
        directory: .\n          command: [sh, -c, \"env > environment; exec {scoregate} model --port {port}\"]\n";
    std::fs::write(&file, configuration).unwrap();
    let mut command = scoregate(&DEMO);
    command.arg(&file).env("CLIENT_KEY", router::KEY).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let mut running = Running { child, lines };
    let data = running.address("data");
    eventually("an answer", async || {
        let reply = post(router::SCORE, "{}").bearer(router::KEY).try_send(data).await.ok()?;
        (reply.status == StatusCode::OK).then_some(())
    })
    .await;
    let environment = std::fs::read_to_string(folder.path().join("environment")).unwrap();
    assert!(environment.contains("MODEL_COLOUR=blue\n") && environment.contains("PORT="), "{environment}");
    assert!(!environment.contains(router::KEY), "{environment}");
}

#[test]
fn decide_answers_line_by_line_and_ends_with_its_reader() {
    use std::io::Write as _;
    let first = r#"{"type":"config","tick":1,"c":1,"min":1,"max":9,"queue_wait":0.5}"#;
    let tick = |t: u32| {
        format!(
            r#"{{"t":{t},"dt":1,"ready":2,"starting":0,"inflight":2,"queue":4,"inflight_avg":2,"queue_avg":1,"arrivals":6,"completed":0,"rejected":0,"service_sum":0,"c":1,"min":1,"max":9}}"#
        )
    };
    let mut decide = scoregate(&["decide", "--policy", "azureml"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = decide.stdin.take().unwrap();
    let mut answers = BufReader::new(decide.stdout.take().unwrap());
    writeln!(input, "{first}").unwrap();
    let mut answer = String::new();
    // A simulator waits for each answer before it goes on.
    for t in 1..4 {
        writeln!(input, "{}", tick(t)).unwrap();
        answer.clear();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.starts_with(r#"{"replicas":9,"reason":"2 busy + 4 queued"#), "{answer}");
    }
    drop(answers);
    writeln!(input, "{}", tick(4)).unwrap();
    drop(input);
    let quiet = decide.wait_with_output().unwrap();
    assert_eq!((quiet.status.code(), text(&quiet.stderr).as_str()), (Some(0), ""));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ticks.jsonl");
    std::fs::write(&file, format!("{first}\n{}\n{{\"t\":2}}\n", tick(1))).unwrap();
    let bad = scoregate(&["decide"]).stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
    assert_eq!(text(&bad.stderr), "scoregate: line 3: `dt` is missing\n");
    assert_eq!(text(&bad.stdout).lines().count(), 1);
}
