//! A router with a state directory, its admin API, and clients of its endpoints.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::process::{Connection, RouterProcess};

/// Longest time for something to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running router and its folder.
pub(crate) struct Router {
    pub(crate) process: RouterProcess,
    pub(crate) folder: TempDir,
}

impl Router {
    /// Starts with nothing declared.
    pub(crate) async fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = serve(name, folder.path(), None).await;
        Self { process, folder }
    }

    /// Starts with a configuration file beside the state directory.
    pub(crate) async fn with_file(name: &str, configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scoregate.yaml");
        std::fs::write(&file, configuration).unwrap();
        let process = serve(name, folder.path(), Some(&file)).await;
        Self { process, folder }
    }

    /// What a key file of the state directory holds.
    pub(crate) fn key(&self, file: &str) -> String {
        std::fs::read_to_string(state(self.folder.path()).join(file)).unwrap().trim().to_owned()
    }

    /// Calls the admin API with the writer's key.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        self.call_with(&self.key("admin.key"), method, path, &[], body).await
    }

    pub(crate) async fn call_with(
        &self,
        key: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        request = request
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let mut connection = Connection::open(self.process.admin).await.unwrap();
        Answer(connection.call(request.body(Full::new(body)).unwrap()).await.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, Value::Null).await.good()
    }

    /// Makes a change and waits for the end of its operation.
    pub(crate) async fn change(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, body).await;
        match answer.operation() {
            Some(id) => {
                let operation = self.ended(&id).await;
                assert_eq!(operation["status"], "Succeeded", "{operation}");
            }
            None => _ = answer.good(),
        }
        answer.json()
    }

    /// Waits for the end of an operation.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        eventually(&format!("the end of operation {id}"), async || {
            let operation = self.get(&format!("/operations/{id}")).await;
            (operation["status"] != "InProgress").then_some(operation)
        })
        .await
    }

    /// Declares an endpoint with deployment blue, which has all traffic.
    pub(crate) async fn with_blue(&self, endpoint: &str) {
        self.change(Method::POST, "/endpoints", json!({ "name": endpoint })).await;
        let path = format!("/endpoints/{endpoint}/deployments?all_traffic=true");
        self.change(Method::POST, &path, model("blue")).await;
    }

    pub(crate) async fn primary_key(&self, endpoint: &str) -> String {
        self.get(&format!("/endpoints/{endpoint}/keys")).await["primaryKey"].as_str().unwrap().to_owned()
    }

    /// One request to an endpoint: its status and the deployment that answered.
    pub(crate) async fn score(
        &self,
        endpoint: &str,
        credential: &str,
        deployment: Option<&str>,
    ) -> (u16, String) {
        let mut connection = Connection::open(self.process.data).await.unwrap();
        score(&mut connection, endpoint, credential, deployment).await.unwrap()
    }
}

/// The state directory of a test.
pub(crate) fn state(folder: &Path) -> std::path::PathBuf {
    folder.join("state")
}

/// Starts the program on free ports, with the state directory in `folder`.
pub(crate) async fn serve(name: &str, folder: &Path, file: Option<&Path>) -> RouterProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
    command.arg("serve").args(file).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state"]);
    command.arg(state(folder));
    RouterProcess::start(name, command).await
}

/// A deployment that runs scoregate's own model server.
pub(crate) fn model(name: &str) -> Value {
    json!({
        "name": name, "instance_count": 1,
        "process": { "command": ["{scoregate}", "model", "--port", "{port}"], "stop_timeout_s": 5 },
        "readiness_probe": { "initial_delay": 0, "period": 1 },
    })
}

/// A deployment whose command ends at once.
pub(crate) fn broken(name: &str) -> Value {
    let mut document = model(name);
    document["process"]["command"] = json!(["sh", "-c", "echo no model here >&2; exit 3"]);
    document
}

/// An answer of the admin API.
pub(crate) struct Answer(pub(crate) Response<Bytes>);

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.0.body()).unwrap_or_else(|error| panic!("{error}: {:?}", self.0))
    }

    /// The body of an answer that is no refusal.
    #[track_caller]
    pub(crate) fn good(&self) -> Value {
        assert!(self.0.status().is_success(), "{:?}", self.0);
        self.json()
    }

    /// A refusal with this status and code, whose message holds this.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str, part: &str) {
        assert_eq!(self.status(), status, "{:?}", self.0);
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }

    /// The operation that goes on.
    #[track_caller]
    pub(crate) fn operation(&self) -> Option<String> {
        self.good();
        let url = self.0.headers().get("azure-asyncoperation")?.to_str().unwrap();
        Some(url.rsplit('/').next().unwrap().to_owned())
    }
}

/// Sends one request; its status and the deployment that answered.
pub(crate) async fn score(
    connection: &mut Connection,
    endpoint: &str,
    credential: &str,
    deployment: Option<&str>,
) -> Result<(u16, String), String> {
    let mut request = Request::post(format!("/api/v1/endpoint/{endpoint}/score"))
        .header("authorization", format!("Bearer {credential}"))
        .header("content-type", "application/json");
    if let Some(deployment) = deployment {
        request = request.header("azureml-model-deployment", deployment);
    }
    let answer = connection.call(request.body(Full::new(Bytes::from_static(b"{}"))).unwrap()).await?;
    let by = answer.headers().get("azureml-model-deployment").map(|name| name.to_str().unwrap().to_owned());
    Ok((answer.status().as_u16(), by.unwrap_or_default()))
}

/// A client that calls an endpoint all the time and remembers what did not succeed.
pub(crate) struct Client {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: JoinSet<Vec<String>>,
}

impl Client {
    pub(crate) fn start(router: &Router, endpoint: &str, key: String) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (address, endpoint) = (router.process.data, endpoint.to_owned());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let outcome = async {
                    let mut connection = Connection::open(address).await?;
                    score(&mut connection, &endpoint, &key, None).await
                };
                match outcome.await {
                    Ok((200, _)) => _ = count.fetch_add(1, Ordering::Relaxed),
                    other => failures.push(format!("{other:?}")),
                }
                sleep(Duration::from_millis(5)).await;
            }
            failures
        });
        Self { stop, answered, task }
    }

    /// Waits until so many more requests have been answered.
    pub(crate) async fn more(&self, requests: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + requests;
        eventually("answers", async || (self.answered.load(Ordering::Relaxed) >= goal).then_some(())).await;
    }

    /// Stops; no request must have failed.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.task.join_next().await.unwrap().unwrap();
        assert_eq!(failures, Vec::<String>::new());
        assert!(self.answered.load(Ordering::Relaxed) > 0);
    }
}

/// Waits for a condition.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
