//! Reload and drain under load: nothing that was accepted is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::replica::{Act, Replica};
use crate::router::{Router, SCORE, blue, eventually, get, post};

/// Clients that call on and on until told to stop; they count answers and note every failure.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(count: usize, address: std::net::SocketAddr, refused_is_the_end: bool) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..count)
            .map(|_| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                tokio::spawn(async move {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match keep_calling(address, &stop, &answered).await {
                            Ok(()) => {}
                            Err(failure) if failure == "refused" && refused_is_the_end => break,
                            Err(failure) => failures.push(failure),
                        }
                    }
                    failures
                })
            })
            .collect();
        Self { stop, answered, tasks }
    }

    async fn reach(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        eventually("answers", async || (self.answered.load(Ordering::Relaxed) >= goal).then_some(())).await;
    }

    async fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.unwrap());
        }
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

/// Calls on one connection for as long as the router keeps it open.
async fn keep_calling(
    address: std::net::SocketAddr,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Result<(), String> {
    use http_body_util::BodyExt as _;
    let Ok(stream) = tokio::net::TcpStream::connect(address).await else { return Err("refused".to_owned()) };
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    while !stop.load(Ordering::Relaxed) {
        let body = http_body_util::Full::new(bytes::Bytes::from_static(b"{}"));
        let request = http::Request::post(SCORE).header("host", "x").body(body).unwrap();
        let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        let closes = response.headers().contains_key("connection");
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
        }
        answered.fetch_add(1, Ordering::Relaxed);
        if closes {
            return Ok(());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_reloads_under_load_lose_nothing_and_counts_carry_over() {
    let replicas = [Replica::acting(Act::after(2)), Replica::acting(Act::after(2))];
    let addresses: Vec<_> = replicas.iter().map(Replica::address).collect();
    let router = Router::start(&blue(&addresses, "max_queue_wait_ms: 20000")).ready().await;
    let clients = Clients::start(8, router.address(), false);
    for round in 1..=10 {
        clients.reach(20).await;
        // Every other round takes one of the two replicas away and brings it back.
        let used = if round % 2 == 0 { &addresses[..] } else { &addresses[..1] };
        let generation = router.reload(&blue(used, &format!("max_queue_wait_ms: {}", 20000 + round))).await;
        assert_eq!(generation, Ok(round + 1));
    }
    clients.reach(20).await;
    let (answered, failures) = clients.finish().await;
    assert_eq!(failures, Vec::<String>::new(), "of {answered}");
    let served: u64 = replicas.iter().map(Replica::served).sum();
    assert_eq!(served, answered);
    assert!(replicas.iter().all(|replica| replica.max_in_flight() == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_nothing() {
    let replica = Replica::acting(Act::after(2));
    let router = Router::start(&blue(&[replica.address()], "max_queue_wait_ms: 20000")).ready().await;
    let clients = Clients::start(8, router.address(), true);
    clients.reach(50).await;
    tokio::task::spawn_blocking(move || router.drain()).await.unwrap();
    let (answered, failures) = clients.finish().await;
    assert_eq!(failures, Vec::<String>::new(), "of {answered}");
    assert_eq!(replica.served(), answered);
}

#[tokio::test]
async fn a_drain_waits_for_a_stream_and_says_that_it_is_not_ready() {
    let replica = Replica::acting(Act::Hold);
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 60000")).ready().await;
    let running = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    router.running().drain();
    let ready = get("/readyz").send_to(router.admin()).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    replica.release(1);
    let reply = running.await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (StatusCode::OK, "close"));
}

#[tokio::test]
async fn an_idle_connection_may_send_one_more_request_when_a_drain_begins() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let mut stream = tokio::net::TcpStream::connect(router.address()).await.unwrap();
    let request = format!("GET {SCORE} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 4096];
    assert!(stream.read(&mut first).await.unwrap() > 0);
    router.running().drain();
    eventually("draining", async || (router.state().await["stage"] == "draining").then_some(())).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.contains("connection: close\r\n"), "{rest}");
}

#[tokio::test]
async fn a_reload_takes_effect_at_once_and_keeps_the_turn_of_the_traffic() {
    let (one, two) = (Replica::start(), Replica::start());
    let endpoints = |key: &str| {
        format!(
            "  - name: demo\n    keys: {{ primary: {key}-0123456789 }}\n    traffic: {{ green: 1 }}\n    default: blue\n    \
             deployments:\n      - name: blue\n        replicas: [\"http://{}\"]\n      - name: green\n        \
             replicas: [\"http://{}\"]\n",
            one.address(),
            two.address()
        )
    };
    let router = Router::start(&endpoints("first-key")).ready().await;
    eventually("both ready", async || {
        let state = router.state().await;
        let deployments = state["endpoints"][0]["deployments"].as_array()?.clone();
        deployments.iter().all(|deployment| deployment["ready"] == 1).then_some(())
    })
    .await;
    let keys = ["first-key", "other-key"];
    for round in 0..10 {
        let (key, old) = (keys[(round + 1) % 2], keys[round % 2]);
        router.reload(&endpoints(key)).await.unwrap();
        post(SCORE, "{}")
            .bearer(&format!("{old}-0123456789"))
            .send(&router)
            .await
            .expect(401, "unauthorized");
        for _ in 0..20 {
            let reply = post(SCORE, "{}").bearer(&format!("{key}-0123456789")).send(&router).await;
            assert_eq!(reply.status, StatusCode::OK);
        }
    }
    assert_eq!((one.served(), two.served()), (198, 2));
}

#[tokio::test]
async fn a_higher_limit_frees_those_who_wait() {
    let replica = Replica::acting(Act::Hold);
    let settings =
        "max_queue_wait_ms: 60000, request_timeout_ms: 60000, max_concurrent_requests_per_instance: ";
    let endpoints = |limit: u32| blue(&[replica.address()], &format!("{settings}{limit}"));
    let router = Router::start(&endpoints(1)).ready().await;
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(post(SCORE, "{}").send_to(router.address()))).collect();
    eventually("one at the replica, one in the queue", async || {
        let deployment = router.state().await["endpoints"][0]["deployments"][0].clone();
        (deployment["queue"]["length"] == 1 && replica.in_flight() == 1).then_some(())
    })
    .await;
    router.reload(&endpoints(2)).await.unwrap();
    eventually("both at the replica", async || (replica.in_flight() == 2).then_some(())).await;
    replica.release(2);
    for call in calls {
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn the_deadline_of_a_drain_answers_those_who_still_wait() {
    let replica = Replica::acting(Act::Hold);
    let endpoints = blue(&[replica.address()], "request_timeout_ms: 60000, max_queue_wait_ms: 60000");
    let router = Router::start_with("drain_timeout_ms: 100", &endpoints).ready().await;
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(post(SCORE, "{}").send_to(router.address()))).collect();
    eventually("one at the replica, one in the queue", async || {
        let state = router.state().await;
        let deployment = &state["endpoints"][0]["deployments"][0];
        (deployment["queue"]["length"] == 1 && deployment["slots"]["busy"] == 1).then_some(())
    })
    .await;
    tokio::task::spawn_blocking(move || router.drain()).await.unwrap();
    for call in calls {
        call.await.unwrap().expect(503, "draining");
    }
}

#[tokio::test]
async fn an_invalid_file_changes_nothing_and_says_where() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let report = router.reload("  - name: demo\n    deploymentz: []\n").await.unwrap_err();
    assert!(report.contains("deploymentz") && report.contains("scoregate.yaml:"), "{report}");
    assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
    assert_eq!(router.state().await["generation"], 1);
}

#[tokio::test]
async fn a_change_of_the_file_is_noticed() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let text = std::fs::read_to_string(router.file()).unwrap().replace("name: demo", "name: other");
    // Renamed into place, as an editor or a mounted ConfigMap does.
    let fresh = router.folder().join("fresh.yaml");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, router.file()).unwrap();
    eventually("new name served", async || {
        let reply = post("/api/v1/endpoint/other/score", "{}").send(&router).await;
        (reply.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(router.state().await["generation"], 2);
}

#[tokio::test]
async fn a_request_that_waits_for_a_removed_deployment_is_still_served() {
    let (one, two) = (Replica::acting(Act::Hold), Replica::start());
    let settings = "max_queue_wait_ms: 60000, request_timeout_ms: 60000";
    let router = Router::start(&blue(&[one.address()], settings)).ready().await;
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(post(SCORE, "{}").send_to(router.address()))).collect();
    eventually("one at the replica, one in the queue", async || {
        (router.state().await["endpoints"][0]["deployments"][0]["queue"]["length"] == 1).then_some(())
    })
    .await;
    router.reload(&blue(&[two.address()], settings).replace("name: blue", "name: green")).await.unwrap();
    one.release(2);
    for call in calls {
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!((one.served(), two.served()), (2, 0));
    tokio::time::timeout(Duration::from_secs(20), post(SCORE, "{}").send(&router)).await.unwrap();
    assert_eq!(two.served(), 1);
}
