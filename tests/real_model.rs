//! Real models on Microsoft's model server behind the router: right answers, through keys, traffic and scaling.
//!
//! Each test runs an example as users do: its own `scoregate.yaml`, only the listeners moved to free ports.

#![allow(clippy::allow_attributes, clippy::panic, reason = "helpers of tests fail tests")]

#[path = "support/process.rs"]
#[allow(dead_code, reason = "shared with tests that use other parts")]
mod process;
#[path = "support/python.rs"]
mod python;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use process::{Connection, RouterProcess};

/// Longest time for a number of replicas to come about: scaling down takes 20 s of low load a step, starting a
/// replica some seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const KEY: &str = "a-key-of-the-tests-0123456789";

/// Phrasings that the model never saw, and the entries that they are about.
const QUESTIONS: [(&str, &str); 8] = [
    ("Is it possible to restart my service and lose no requests?", "restart-without-downtime"),
    ("What is the right way to replace an old API key with a new one?", "rotate-api-keys"),
    ("My web page cannot call the API because of a CORS policy error", "cors-error"),
    ("Should I answer 401 unauthorized or 403 forbidden?", "status-401-403"),
    ("How do the liveness probe and the readiness probe differ?", "liveness-readiness"),
    ("How can a database column be renamed with no downtime?", "database-migration"),
    ("How can I trace a single request across all services?", "distributed-tracing"),
    ("On which metric should I scale the number of replicas up?", "autoscaling"),
];

#[tokio::test]
async fn faq_is_answered_without_a_failure_while_replicas_go_from_one_to_three_and_back() {
    let router = start("faq").await;
    let mut seen = BTreeSet::new();
    until(&router, "one ready replica", |state| ready(state, &mut seen) == Some(1)).await;

    // One client asks from start to end, so that scaling down happens under traffic, too.
    let mut trickle = Load::start(router.data, 1, Duration::from_millis(200));
    let mut flood = Load::start(router.data, 6, Duration::ZERO);
    until(&router, "three ready replicas", |state| {
        trickle.check();
        flood.check();
        ready(state, &mut seen) == Some(3)
    })
    .await;
    let before = flood.answered();
    until(&router, "500 answers from three replicas", |_| {
        trickle.check();
        flood.check();
        flood.answered() >= before + 500
    })
    .await;
    flood.stop().await;

    until(&router, "one ready replica again", |state| {
        trickle.check();
        ready(state, &mut seen) == Some(1)
    })
    .await;
    assert!(trickle.stop().await > 20, "the trickle did not last through the scaling");

    assert!(router.terminate().await.success());
    assert!(seen.len() >= 3, "three replicas have three addresses: {seen:?}");
    for address in seen {
        assert!(TcpStream::connect(&address).await.is_err(), "a replica is left behind at {address}");
    }
}

#[tokio::test]
async fn digits_are_classified_by_the_deployment_that_traffic_or_header_chooses() {
    let router = start("digits").await;
    until(&router, "a ready replica of both deployments", |state| {
        deployments(state).all(|deployment| {
            deployment["replicas"]
                .as_array()
                .is_some_and(|replicas| replicas.iter().any(|replica| replica["state"] == "ready"))
        })
    })
    .await;
    let sample = std::fs::read(python::environment().example("digits").join("sample-request.json")).unwrap();
    let sample = Bytes::from(sample);
    let mut connection = Connection::open(router.data).await.unwrap();

    for (deployment, model) in [("blue", "logistic"), ("green", "svc")] {
        let mut request = score("digits", sample.clone());
        request.headers_mut().insert("azureml-model-deployment", deployment.parse().unwrap());
        let answer = connection.call(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
        assert_eq!(answer.headers()["azureml-model-deployment"], deployment);
        assert_eq!(answer.headers()["x-ms-server-version"], "azmlinfsrv/1.5.1");
        let body = body(&answer);
        assert_eq!(body["model"], model);
        assert_eq!(body["digits"][0]["digit"], 7);
        assert_eq!(body["digits"][1]["digit"], 2);
    }

    let mut green = 0;
    for _ in 0..200 {
        let answer = connection.call(score("digits", sample.clone())).await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
        let by_green = answer.headers()["azureml-model-deployment"] == "green";
        assert_eq!(body(&answer)["model"], if by_green { "svc" } else { "logistic" });
        green += u32::from(by_green);
    }
    assert!((18..=22).contains(&green), "green is to have 10 % of 200 requests, it had {green}");

    let answer = connection.call(score("digits", r#"{"images": [[1, 2, 3]]}"#)).await.unwrap();
    assert_eq!(answer.status(), 400, "the model's own refusal passes through");
    assert_eq!(body(&answer)["error"], "images[0] must be a list of 64 numbers from 0 to 16");

    let mut request = score("digits", sample);
    request.headers_mut().remove("authorization");
    assert_eq!(connection.call(request).await.unwrap().status(), 401);

    assert!(router.terminate().await.success());
}

/// Starts an example on free ports.
async fn start(example: &str) -> RouterProcess {
    let folder = python::environment().example(example);
    let configuration =
        std::fs::read_to_string(folder.join("scoregate.yaml")).expect("the example is complete");
    // The copy lies in another folder, and relative paths begin at the file's.
    let (before, after) = ("directory: .\n", format!("directory: {folder:?}\n"));
    assert!(configuration.contains(before), "the example no longer says `directory: .`");
    let configuration = configuration.replace(before, &after);
    let listeners =
        "listen: { address: \"127.0.0.1:0\" }\nadmin: { address: \"127.0.0.1:0\" }\naccess_log: \"off\"\n";
    let secret = format!("{}_KEY", example.to_uppercase());
    let configuration = format!("{listeners}{configuration}");
    RouterProcess::serve(&format!("real-model-{example}"), &configuration, (&secret, KEY)).await
}

/// A request to score, with the key.
fn score(endpoint: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("/api/v1/endpoint/{endpoint}/score"))
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a valid request")
}

fn body(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {:?}", answer.body()))
}

/// Looks at the state until it is as it should be.
async fn until(router: &RouterProcess, what: &str, mut is_so: impl FnMut(&Value) -> bool) {
    let mut last = Value::Null;
    let looking = async {
        loop {
            last = router.state().await;
            if is_so(&last) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(PATIENCE, looking).await.is_err() {
        panic!("no {what} within {PATIENCE:?}; log: {}; state: {last:#}", router.log().display());
    }
}

/// The deployments of the only endpoint.
fn deployments(state: &Value) -> impl Iterator<Item = &Value> {
    state["endpoints"][0]["deployments"].as_array().into_iter().flatten()
}

/// How many replicas the only deployment has if all of them are ready, and collects their addresses.
fn ready(state: &Value, seen: &mut BTreeSet<String>) -> Option<usize> {
    let replicas = deployments(state).next()?["replicas"].as_array()?;
    seen.extend(replicas.iter().filter_map(|replica| replica["address"].as_str()).map(str::to_owned));
    replicas.iter().all(|replica| replica["state"] == "ready").then_some(replicas.len())
}

/// Clients that ask one question after the other and end at the first answer that is not right.
struct Load {
    progress: Arc<Progress>,
    clients: JoinSet<Result<(), String>>,
}

#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    answered: AtomicU64,
}

impl Load {
    /// Starts clients that pause between an answer and the next question.
    fn start(router: SocketAddr, clients: usize, pause: Duration) -> Self {
        let progress = Arc::new(Progress::default());
        let clients = (0..clients).map(|first| ask(router, first, pause, Arc::clone(&progress))).collect();
        Self { progress, clients }
    }

    /// Fails the test if a client has ended.
    fn check(&mut self) {
        if let Some(ended) = self.clients.try_join_next() {
            panic!("a client ended: {ended:?}");
        }
    }

    /// Lets every client finish its question; the number of right answers.
    async fn stop(mut self) -> u64 {
        self.progress.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            assert_eq!(ended.expect("clients do not panic"), Ok(()));
        }
        self.answered()
    }

    fn answered(&self) -> u64 {
        self.progress.answered.load(Ordering::Relaxed)
    }
}

/// One client; an error is the first answer that is not right.
async fn ask(
    router: SocketAddr,
    first: usize,
    pause: Duration,
    progress: Arc<Progress>,
) -> Result<(), String> {
    let mut connection = Connection::open(router).await?;
    for (question, entry) in QUESTIONS.iter().cycle().skip(first) {
        if progress.stop.load(Ordering::Relaxed) {
            break;
        }
        let answer = connection.call(score("faq", json!({ "question": question }).to_string())).await?;
        let id = |body: &Value| body["matches"][0]["id"].as_str().map(str::to_owned);
        let right = answer.status() == 200
            && answer.headers().get("azureml-model-deployment").is_some_and(|name| name == "blue")
            && serde_json::from_slice(answer.body()).ok().as_ref().and_then(id).as_deref() == Some(entry);
        if !right {
            return Err(format!("{question:?} is to find {entry}: {answer:?}"));
        }
        progress.answered.fetch_add(1, Ordering::Relaxed);
        sleep(pause).await;
    }
    Ok(())
}
