//! Azure's rollout tutorials as users run them: the scripts of `examples` against a router with a state directory, whose
//! replicas are Microsoft's model server with scikit-learn models. Clients call from the first deployment to the end of the
//! last one, and not one request may fail.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail tests")]

#[path = "support/process.rs"]
#[expect(dead_code, reason = "other tests start routers with a file")]
mod process;
#[path = "support/python.rs"]
mod python;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use process::{Connection, RouterProcess};

/// Longest time for a whole script on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the two models call themselves.
const MODELS: [&str; 2] = ["forest", "ridge"];
/// Clients that call at the same time.
const CLIENTS: usize = 2;
/// Between an answer and the next request of a client: replicas have two cores or so between them.
const PAUSE: Duration = Duration::from_millis(20);

/// Stands for `az`. It stops the script after the command that makes the first deployment, until clients call, and before
/// the one that deletes the endpoint, until they have ended. Without the folder, the test has ended, too.
const AZ: &str = r#"#!/usr/bin/env bash
folder=$(dirname "$0")
say_and_await() { touch "$folder/$1"; while [[ -d $folder && ! -e $folder/$2 ]]; do sleep 0.05; done; }
case "$*" in $LAST) say_and_await ending stopped ;; esac
"$SCOREGATE" "$@"
code=$?
case "$*" in $FIRST) say_and_await begun calling ;; esac
exit $code
"#;

#[tokio::test]
async fn the_safe_rollout_loses_no_request() {
    let (first, last) = ("ml online-deployment create --name blue *", "ml online-endpoint delete *");
    rollout("safe-rollout", &[], first, last).await;
}

#[tokio::test]
async fn the_safe_rollout_with_the_files_of_kubernetes_loses_no_request() {
    let (first, last) = ("ml online-deployment create --name blue *", "ml online-endpoint delete *");
    rollout("safe-rollout", &["kubernetes"], first, last).await;
}

#[tokio::test]
async fn the_declarative_rollout_loses_no_request() {
    rollout("declarative-rollout", &[], "ml endpoint create *", "ml endpoint delete *").await;
}

#[tokio::test]
async fn the_controlled_rollout_loses_no_request() {
    let first = "ml endpoint realtime create-version *versiona*";
    rollout("controlled-rollout", &[], first, "ml endpoint realtime delete -n*").await;
}

/// Runs a script from begin to end. `first` and `last` are the patterns of its commands between which clients call.
async fn rollout(script: &str, arguments: &[&str], first: &str, last: &str) {
    let name = [&[script], arguments].concat().join("-");
    let endpoint = name.replace("rollout", "test");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let router = start(&name, &state).await;
    let mut running = Script::start(
        &name,
        script,
        arguments,
        &folder,
        &[
            ("ENDPOINT_NAME", endpoint.as_ref()),
            ("FIRST", first.as_ref()),
            ("LAST", last.as_ref()),
            ("SCOREGATE_STATE", state.as_os_str()),
        ],
    );

    let admin = Admin { router: &router, key: fs::read_to_string(state.join("admin.key")).unwrap() };
    running.until("begun", || {}).await;
    let sample = fs::read(python::environment().example("tutorials/model-1/sample-request.json")).unwrap();
    let mut clients = Clients::start(&router, &admin, &endpoint, sample.into()).await;
    running.say("calling");
    running.until("ending", || clients.check()).await;
    let answers = timeout(PATIENCE, clients.stop()).await.expect("both models answer");
    running.say("stopped");

    let ended = timeout(PATIENCE, running.child.wait()).await.expect("the script ends").unwrap();
    running.expect_success(ended);
    assert!(answers.keys().eq(MODELS), "both models are to have answered, and no other: {answers:?}");
    assert_eq!(admin.get(&format!("/endpoints/{endpoint}")).await.status(), 404);
    assert!(router.terminate().await.success());
}

/// A router on free ports, with a state directory and the Python of the examples.
async fn start(name: &str, state: &Path) -> RouterProcess {
    python::environment();
    let interpreter = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state"]).arg(state);
    command.arg("--python").arg(interpreter);
    RouterProcess::start(&format!("tutorial-{name}"), command).await
}

/// A running script.
struct Script {
    child: Child,
    log: PathBuf,
    signals: PathBuf,
}

impl Script {
    fn start(
        name: &str,
        script: &str,
        arguments: &[&str],
        folder: &TempDir,
        variables: &[(&str, &OsStr)],
    ) -> Self {
        let az = folder.path().join("az");
        fs::write(&az, AZ).unwrap();
        fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).unwrap();
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tutorial-{name}.out"));
        let output = File::create(&log).unwrap();
        let child = Command::new("bash")
            .arg(python::environment().example(&format!("{script}.sh")))
            .args(arguments)
            .env("AZ", az)
            .env("SCOREGATE", env!("CARGO_BIN_EXE_scoregate"))
            .envs(variables.iter().copied())
            .env_remove("SCOREGATE_ADMIN")
            .env_remove("SCOREGATE_ADMIN_KEY")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, log, signals: folder.path().to_path_buf() }
    }

    /// Tells the script to go on.
    fn say(&self, signal: &str) {
        File::create(self.signals.join(signal)).unwrap();
    }

    /// Waits until the script says so; fails the test if it ends instead.
    async fn until(&mut self, signal: &str, mut check: impl FnMut()) {
        let file = self.signals.join(signal);
        let waiting = async {
            while !file.exists() {
                check();
                if let Some(ended) = self.child.try_wait().unwrap() {
                    self.expect_success(ended);
                    panic!("{} has ended before {signal:?}", self.log.display());
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("not {signal:?} within {PATIENCE:?}: {}", fs::read_to_string(&self.log).unwrap());
        }
    }

    #[track_caller]
    fn expect_success(&self, ended: ExitStatus) {
        assert!(ended.success(), "{ended}; the script said:\n{}", fs::read_to_string(&self.log).unwrap());
    }
}

/// Asks the router as its operator.
struct Admin<'r> {
    router: &'r RouterProcess,
    key: String,
}

impl Admin<'_> {
    async fn get(&self, path: &str) -> Response<Bytes> {
        let request = Request::get(path).header("authorization", format!("Bearer {}", self.key.trim()));
        let mut connection = Connection::open(self.router.admin).await.unwrap();
        connection.call(request.body(Full::default()).unwrap()).await.unwrap()
    }

    async fn text(&self, path: &str, key: &str) -> String {
        let answer = self.get(path).await;
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        body[key].as_str().unwrap_or_else(|| panic!("no {key:?} in {body}")).to_owned()
    }
}

/// Clients that call one time after the other and end at the first answer that is not right.
struct Clients {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<BTreeMap<String, u32>, String>>,
}

impl Clients {
    async fn start(router: &RouterProcess, admin: &Admin<'_>, endpoint: &str, body: Bytes) -> Self {
        let key = admin.text(&format!("/endpoints/{endpoint}/keys"), "primaryKey").await;
        let uri: Uri = admin.text(&format!("/endpoints/{endpoint}"), "scoring_uri").await.parse().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let request = move || {
            Request::post(uri.path())
                .header("authorization", format!("Bearer {key}"))
                .header("content-type", "application/json")
                .body(Full::new(body.clone()))
                .expect("a valid request")
        };
        let mut tasks = JoinSet::new();
        for _ in 0..CLIENTS {
            tasks.spawn(call(router.data, request.clone(), Arc::clone(&stop)));
        }
        Self { stop, tasks }
    }

    /// Fails the test if a client has ended.
    fn check(&mut self) {
        if let Some(ended) = self.tasks.try_join_next() {
            panic!("a client ended: {ended:?}");
        }
    }

    /// Lets every client go on until both models have answered it; how often each model has answered.
    async fn stop(mut self) -> BTreeMap<String, u32> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        while let Some(ended) = self.tasks.join_next().await {
            for (model, count) in ended.expect("clients do not panic").expect("no request fails") {
                *all.entry(model).or_default() += count;
            }
        }
        all
    }
}

/// One client; an error is the first answer that is not right.
async fn call(
    router: SocketAddr,
    request: impl Fn() -> Request<Full<Bytes>>,
    stop: Arc<AtomicBool>,
) -> Result<BTreeMap<String, u32>, String> {
    let mut connection = Connection::open(router).await?;
    let mut answers = BTreeMap::new();
    // The second model has all traffic in the end, so both have answered soon.
    while !stop.load(Ordering::Relaxed) || answers.len() < MODELS.len() {
        let answer = connection.call(request()).await?;
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        match body["model"].as_str().filter(|_| answer.status() == 200) {
            Some(model) => *answers.entry(model.to_owned()).or_default() += 1,
            None => return Err(format!("after {answers:?}: {answer:?}")),
        }
        sleep(PAUSE).await;
    }
    Ok(answers)
}
