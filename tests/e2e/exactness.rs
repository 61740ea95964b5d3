//! Slots are exact, and the replicas themselves say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};

use crate::replica::{Act, Replica};
use crate::router::{Router, SCORE, blue, eventually, post};

fn queue_length(state: &serde_json::Value) -> u64 {
    state["endpoints"][0]["deployments"][0]["queue"]["length"].as_u64().unwrap()
}

async fn queued(router: &Router, count: u64) {
    eventually("length of the queue", async || (queue_length(&router.state().await) == count).then_some(()))
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_ticket() {
    let replica = Replica::acting(Act::Hold);
    let settings = "max_queue_wait_ms: 60000, request_timeout_ms: 60000";
    let router = Router::start(&blue(&[replica.address()], settings)).ready().await;
    let first = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    // A small body has arrived whole; of a larger one some is still to come.
    for size in [2, 30_000] {
        let leaving = tokio::spawn(post(SCORE, vec![b'x'; size]).try_send(router.address()));
        queued(&router, 1).await;
        leaving.abort();
        queued(&router, 0).await;
    }
    replica.release(1);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(replica.served(), 1);
    let log = router.access_log(3).await;
    assert_eq!(log.iter().filter(|line| line["Reason"] == "client_gone").count(), 2, "{log:?}");
}

#[tokio::test]
async fn a_client_that_leaves_during_its_request_cancels_it_at_the_replica() {
    let replica = Replica::acting(Act::Hold);
    let settings = "max_queue_wait_ms: 60000, request_timeout_ms: 60000";
    let router = Router::start(&blue(&[replica.address()], settings)).ready().await;
    let leaving = tokio::spawn(post(SCORE, "{}").try_send(router.address()));
    eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    let waiting = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    queued(&router, 1).await;
    leaving.abort();
    eventually("next at the replica", async || (replica.served() == 2).then_some(())).await;
    replica.release(2);
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
    assert_eq!(replica.max_in_flight(), 1, "the next came only when the replica had let go");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_loses_its_slot() {
    use tokio::io::AsyncWriteExt as _;
    // More than hyper and the system take in for a client that does not read.
    let large = Act::Answer(200, vec![b'x'; 30_000_000].into(), Duration::ZERO);
    let replica = Replica::acting(large);
    let endpoints = blue(&[replica.address()], "max_queue_wait_ms: 60000, request_timeout_ms: 60000");
    let top = "listen: { address: \"127.0.0.1:0\", workers: 2, write_timeout_ms: 100 }";
    let router = Router::start_with(top, &endpoints).ready().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(router.address()).await.unwrap();
    deaf.write_all(format!("GET {SCORE} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    eventually("request at the replica", async || (replica.served() == 1).then_some(())).await;
    replica.act(Act::ok("{}"));
    let reply = post(SCORE, "{}").send(&router).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(replica.max_in_flight(), 1);
}

#[tokio::test]
async fn a_limit_of_zero_is_no_limit() {
    let replica = Replica::acting(Act::Hold);
    let router =
        Router::start(&blue(&[replica.address()], "max_concurrent_requests_per_instance: 0")).ready().await;
    let calls: Vec<_> = (0..30).map(|_| tokio::spawn(post(SCORE, "{}").send_to(router.address()))).collect();
    eventually("all at the replica", async || (replica.in_flight() == 30).then_some(())).await;
    replica.release(30);
    for call in calls {
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn the_queue_is_first_come_first_served() {
    let replica = Replica::acting(Act::Hold);
    let settings = "max_queue_wait_ms: 60000, request_timeout_ms: 60000";
    let router = Router::start(&blue(&[replica.address()], settings)).ready().await;
    let mut calls = Vec::new();
    for number in 0..6u64 {
        let body = format!("{number}");
        calls.push(tokio::spawn(post(SCORE, body).send_to(router.address())));
        if number == 0 {
            eventually("first at the replica", async || (replica.in_flight() == 1).then_some(())).await;
        } else {
            queued(&router, number).await;
        }
    }
    replica.release(6);
    for call in calls {
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
    }
    let order: Vec<String> =
        replica.requests().iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
    assert_eq!(order, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_replica_that_joins_serves_the_queue_at_once() {
    let one = Replica::acting(Act::Hold);
    let two = Replica::start();
    let settings = "max_queue_wait_ms: 60000, request_timeout_ms: 60000";
    let router = Router::start(&blue(&[one.address()], settings)).ready().await;
    let held = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    eventually("request at the replica", async || (one.in_flight() == 1).then_some(())).await;
    let waiting = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    queued(&router, 1).await;
    router.reload(&blue(&[one.address(), two.address()], settings)).await.unwrap();
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
    assert_eq!((one.in_flight(), two.served()), (1, 1));
    one.release(1);
    assert_eq!(held.await.unwrap().status, StatusCode::OK);
}

/// How many requests the storm sends; `SCOREGATE_STORM` raises it.
fn storm_size() -> u64 {
    std::env::var("SCOREGATE_STORM").ok().and_then(|size| size.parse().ok()).unwrap_or(6_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_one_slot_never_sees_two_at_once_under_three_times_its_capacity() {
    // Two replicas, 12 clients that always have a request out: at least three times what two slots serve, since most
    // of them wait; a third of the clients hang up at a random moment.
    let replicas = [Replica::acting(Act::after(1)), Replica::acting(Act::after(1))];
    let addresses: Vec<_> = replicas.iter().map(Replica::address).collect();
    let router = Router::start(&blue(&addresses, "max_queue_wait_ms: 20000")).ready().await;
    let address = router.address();
    let total = storm_size();
    let (sent, left) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..12)
        .map(|seed| {
            let (sent, left) = (Arc::clone(&sent), Arc::clone(&left));
            tokio::spawn(async move {
                let mut rng = SmallRng::seed_from_u64(seed);
                while sent.fetch_add(1, Ordering::Relaxed) < total {
                    let call = post(SCORE, "{}").try_send(address);
                    if rng.random_ratio(1, 3) {
                        let patience = Duration::from_micros(rng.random_range(0..8_000));
                        if tokio::time::timeout(patience, call).await.is_err() {
                            left.fetch_add(1, Ordering::Relaxed);
                        }
                    } else {
                        let reply = call.await.unwrap();
                        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    for replica in &replicas {
        assert_eq!(replica.max_in_flight(), 1, "of {} requests", replica.served());
    }
    assert!(left.load(Ordering::Relaxed) > total / 20, "only {left:?} clients hung up");
    eventually("every slot free again", async || {
        (router.state().await["endpoints"][0]["deployments"][0]["slots"]["busy"] == 0).then_some(())
    })
    .await;
}
