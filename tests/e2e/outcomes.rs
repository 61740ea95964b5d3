//! How the use of a slot ended, as the gate is told at every end.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::replica::{Act, Replica};
use crate::router::{Router, SCORE, blue, eventually, post};

/// Uses of the first deployment's slots that have ended, without those of which there are none.
pub(crate) async fn uses(router: &Router) -> Value {
    let state = router.state().await;
    let mut uses = state["endpoints"][0]["deployments"][0]["uses"].clone();
    uses.as_object_mut().unwrap().retain(|_, count| *count != 0);
    uses
}

/// Waits until the uses that have ended are these.
pub(crate) async fn used(router: &Router, expected: &Value) {
    let mut last = Value::Null;
    let came = tokio::time::timeout(crate::router::PATIENCE, async {
        while last != *expected {
            last = uses(router).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(came.await.is_ok(), "{last} instead of {expected}");
}

#[tokio::test]
async fn an_answer_of_the_model_is_answered_but_500_is_told_apart_and_a_gateways_is_broken() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    for (status, expected) in [
        (200, json!({"answered": 1})),
        (400, json!({"answered": 2})),
        (500, json!({"answered": 2, "failed": 1})),
        (501, json!({"answered": 3, "failed": 1})),
        (502, json!({"answered": 3, "failed": 1, "broken": 1})),
        (503, json!({"answered": 3, "failed": 1, "broken": 2})),
        (504, json!({"answered": 3, "failed": 1, "broken": 3})),
        (429, json!({"answered": 4, "failed": 1, "broken": 3})),
    ] {
        replica.act(Act::Answer(status, Bytes::from_static(b"{}"), Duration::ZERO));
        post(SCORE, "{}").send(&router).await;
        used(&router, &expected).await;
    }
}

#[tokio::test]
async fn a_replica_that_breaks_the_connection_before_or_inside_the_answer_is_broken() {
    let replica = Replica::acting(Act::Cut);
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    post(SCORE, "{}").send(&router).await.expect(502, "model_connection_broken");
    used(&router, &json!({"broken": 1})).await;
    replica.act(Act::CutInBody);
    assert!(post(SCORE, "{}").try_send(router.address()).await.is_err());
    used(&router, &json!({"broken": 2})).await;
}

#[tokio::test]
async fn a_replica_that_is_silent_before_or_inside_the_answer_has_timed_out() {
    let replica = Replica::acting(Act::Hold);
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 60")).ready().await;
    post(SCORE, "{}").send(&router).await.expect(504, "model_timeout");
    used(&router, &json!({"timed_out": 1})).await;
    replica.act(Act::Stall);
    assert!(post(SCORE, "{}").try_send(router.address()).await.is_err());
    used(&router, &json!({"timed_out": 2})).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_or_inside_the_answer_says_nothing_about_the_replica() {
    let replica = Replica::acting(Act::Hold);
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 60000")).ready().await;
    for (act, left) in [(Act::Hold, 1), (Act::Stream, 2)] {
        replica.act(act);
        let call = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
        eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
        call.abort();
        used(&router, &json!({"given_up": left})).await;
    }
}

#[tokio::test]
async fn a_client_that_sends_no_whole_body_in_time_says_nothing_about_the_replica() {
    use tokio::io::AsyncWriteExt as _;
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 60")).ready().await;
    let mut stream = tokio::net::TcpStream::connect(router.address()).await.unwrap();
    let head = format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf");
    stream.write_all(head.as_bytes()).await.unwrap();
    used(&router, &json!({"given_up": 1})).await;
}

#[tokio::test]
async fn a_replica_that_refuses_connections_is_unreachable() {
    let (one, two) = (Replica::start(), Replica::start());
    let router =
        Router::start(&blue(&[one.address(), two.address()], "max_queue_wait_ms: 20000")).ready().await;
    eventually("both ready", async || {
        (router.state().await["endpoints"][0]["deployments"][0]["ready"] == 2).then_some(())
    })
    .await;
    one.kill();
    for _ in 0..2 {
        post(SCORE, "{}").send(&router).await;
    }
    used(&router, &json!({"answered": 2, "unreachable": 1})).await;
}

/// It has one thread: no probe is answered while it computes for a client that has left.
#[tokio::test]
async fn a_replica_at_work_for_a_client_that_has_left_is_excused_until_its_time_is_up() {
    let replica = Replica::acting(Act::Hold);
    let probes =
        "        readiness_probe: { initial_delay: 0, period: 1, timeout: 1, failure_threshold: 1 }\n";
    let endpoints = blue(&[replica.address()], "request_timeout_ms: 8000") + probes;
    let router = Router::start(&endpoints).ready().await;
    replica.answer_probes(0);
    replica.act(Act::Deaf);
    let before = replica.probes().len();
    let call = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    call.abort();
    eventually("a probe that timed out", async || (replica.probes().len() >= before + 2).then_some(())).await;
    let ready = async || router.state().await["endpoints"][0]["deployments"][0]["ready"].clone();
    assert_eq!(ready().await, 1);
    eventually("unready", async || (ready().await == 0).then_some(())).await;
}
