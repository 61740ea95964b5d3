//! Which status a client sees, and what the answer says.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::replica::{Act, Replica};
use crate::router::{Router, SCORE, blue, call, eventually, get, post};

fn managed(endpoints: &str) -> String {
    endpoints.replace("auth_mode: none", "auth_mode: none\n    profile: managed")
}

fn answer(status: u16) -> Act {
    Act::Answer(status, Bytes::from_static(b"from the model"), Duration::ZERO)
}

#[tokio::test]
async fn the_models_own_code_passes_but_for_500() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    for (model, client) in
        [(200, 200), (201, 201), (400, 400), (404, 404), (429, 429), (500, 502), (503, 503), (599, 599)]
    {
        replica.act(answer(model));
        let reply = post(SCORE, "{}").send(&router).await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (client, "from the model"));
    }
    for status in [204, 304] {
        replica.act(Act::Answer(status, Bytes::new(), Duration::ZERO));
        let reply = post(SCORE, "{}").send(&router).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (status, 0));
    }
}

#[tokio::test]
async fn the_managed_profile_answers_424_and_says_what_the_model_said() {
    let replica = Replica::start();
    let router = Router::start(&managed(&blue(&[replica.address()], ""))).ready().await;
    for model in [201, 400, 500] {
        replica.act(answer(model));
        let reply = post(SCORE, "{}").send(&router).await;
        assert_eq!(reply.status, StatusCode::FAILED_DEPENDENCY);
        assert_eq!(reply.header("ms-azureml-model-error-statuscode"), model.to_string());
        assert!(!reply.header("ms-azureml-model-error-reason").is_empty());
        assert_eq!(reply.text(), "from the model");
    }
    replica.act(answer(200));
    let reply = post(SCORE, "{}").send(&router).await;
    assert_eq!((reply.status, reply.header("ms-azureml-model-error-statuscode")), (StatusCode::OK, ""));
}

#[tokio::test]
async fn every_kind_of_overload_has_a_code_of_its_own() {
    let replica = Replica::acting(Act::Hold);
    let settings = "max_queue_wait_ms: 60, max_queue_length: 1, request_timeout_ms: 60000";
    for (endpoints, status) in
        [(blue(&[replica.address()], settings), 503), (managed(&blue(&[replica.address()], settings)), 429)]
    {
        let router = Router::start(&endpoints).ready().await;
        let address = router.address();
        let running = tokio::spawn(post(SCORE, "{}").send_to(address));
        eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
        let queued = tokio::spawn(post(SCORE, "{}").send_to(address));
        eventually("request in the queue", async || {
            (router.state().await["endpoints"][0]["deployments"][0]["queue"]["length"] == 1).then_some(())
        })
        .await;
        let full = post(SCORE, "{}").send(&router).await;
        full.expect(status, "queue_full");
        assert_eq!(full.header("retry-after"), "1");
        assert_eq!(full.header("retry-after-ms"), full.json()["error"]["retry_after_ms"].to_string());
        let late = queued.await.unwrap();
        late.expect(status, "queue_timeout");
        assert_eq!(late.json()["error"]["limit"], 60);
        assert!(late.json()["error"]["waited_ms"].as_u64().unwrap() >= 60);
        assert_eq!(late.header("azureml-model-deployment"), "blue");
        replica.release(1);
        assert_eq!(running.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_critical_request_takes_the_place_of_another_and_a_deadline_is_heeded() {
    let replica = Replica::acting(Act::Hold);
    let settings = "max_queue_wait_ms: 60000, max_queue_length: 1, request_timeout_ms: 60000";
    let classes = "classes: { header: trust }\n    auth_mode: none";
    let endpoints = blue(&[replica.address()], settings).replace("auth_mode: none", classes);
    let router = Router::start(&endpoints).ready().await;
    let address = router.address();
    let running = tokio::spawn(post(SCORE, "{}").send_to(address));
    eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    let queued = tokio::spawn(post(SCORE, "{}").send_to(address));
    eventually("request in the queue", async || {
        (router.state().await["endpoints"][0]["deployments"][0]["queue"]["length"] == 1).then_some(())
    })
    .await;
    let late = post(SCORE, "{}").header("x-request-deadline-ms", "0").send(&router).await;
    late.expect(503, "deadline_unmeetable");
    let garbage = post(SCORE, "{}").header("x-request-deadline-ms", "soon").header("x-request-id", "bad");
    garbage.send(&router).await.expect(400, "bad_request");
    let told = get("/explain?request=bad").send_to(router.admin()).await.json()["value"][0].clone();
    let sentence = told["sentence"].as_str().unwrap();
    assert!(sentence.contains("400 at once: x-request-deadline-ms must be a number"), "{told}");
    let critical = tokio::spawn(post(SCORE, "{}").header("x-request-class", "critical").send_to(address));
    let shed = queued.await.unwrap();
    shed.expect(503, "shed");
    assert!(!shed.header("retry-after").is_empty());
    replica.release(2);
    assert_eq!(running.await.unwrap().status, StatusCode::OK);
    assert_eq!(critical.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn without_a_ready_replica_the_answer_says_so() {
    let address = crate::replica::unused_address();
    let router = Router::start(&blue(&[address], "max_queue_wait_ms: 30"));
    let reply = post(SCORE, "{}").send(&router).await;
    reply.expect(503, "no_ready_replica");
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(reply.json()["error"]["setting"], "max_queue_wait_ms");
}

#[tokio::test]
async fn a_refusal_at_a_cold_start_names_the_limit_that_held() {
    let address = crate::replica::unused_address();
    let router = Router::start(&blue(&[address], "max_queue_wait_ms: 30, cold_start_wait_ms: 60"));
    let reply = post(SCORE, "{}").header("x-request-id", "cold").send(&router).await;
    reply.expect(503, "no_ready_replica");
    let error = reply.json()["error"].clone();
    assert_eq!((&error["setting"], &error["limit"]), (&"cold_start_wait_ms".into(), &60.into()));
    let told = get("/explain?request=cold").send_to(router.admin()).await.json()["value"][0].clone();
    let sentence = told["sentence"].as_str().unwrap();
    assert!(sentence.contains("waits for at most 60 ms (cold_start_wait_ms)"), "{told}");
    assert_eq!(told["retry_after_ms"].to_string(), reply.header("retry-after-ms"));
    assert_eq!(told["retry_after_seconds"].to_string(), reply.header("retry-after"));
}

#[tokio::test]
async fn a_model_that_is_too_slow_is_504() {
    let replica = Replica::acting(Act::Hold);
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 50")).ready().await;
    let reply = post(SCORE, "{}").send(&router).await;
    reply.expect(504, "model_timeout");
    assert_eq!(reply.json()["error"]["limit"], 50);
    // The request to the model is given up: the replica sees its connection end.
    eventually("request cancelled", async || (replica.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_model_that_breaks_the_connection_is_502() {
    let replica = Replica::acting(Act::Cut);
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    post(SCORE, "{}").send(&router).await.expect(502, "model_connection_broken");
    assert_eq!(replica.served(), 1, "a request that was sent is not sent again");
}

#[tokio::test]
async fn a_model_that_breaks_off_in_its_answer_breaks_the_clients_answer() {
    let replica = Replica::acting(Act::CutInBody);
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let reply = post(SCORE, "{}").try_send(router.address()).await;
    assert!(reply.is_err(), "{reply:?}");
    let log = router.access_log(1).await;
    assert!(log.iter().any(|line| line["Reason"] == "model_connection_broken"), "{log:?}");
}

#[tokio::test]
async fn what_came_before_an_answer_broke_off_reaches_the_client() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let replica = Replica::acting(Act::CutInBody);
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(router.address()).await.unwrap();
        stream.write_all(format!("GET {SCORE} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        let _ = stream.read_to_end(&mut seen).await;
        assert!(seen.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&seen));
    }
}

#[tokio::test]
async fn a_client_that_leaves_at_once_is_logged_too() {
    use std::io::Write as _;
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let request = format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
    for _ in 0..50 {
        // Often closed before the router has taken the connection.
        let mut stream = std::net::TcpStream::connect(router.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
    }
    let log = router.access_log(50).await;
    assert_eq!(log.len(), 50);
}

#[tokio::test]
async fn a_model_that_falls_silent_in_its_answer_is_cut_off() {
    let replica = Replica::acting(Act::Stall);
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 50")).ready().await;
    let reply = post(SCORE, "{}").try_send(router.address()).await;
    assert!(reply.is_err(), "{reply:?}");
    eventually("request cancelled", async || (replica.in_flight() == 0).then_some(())).await;
    let log = router.access_log(1).await;
    assert!(log.iter().any(|line| line["Reason"] == "model_timeout"), "{log:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_declared_or_not() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "max_body_bytes: 1000")).ready().await;
    let reply = post(SCORE, vec![b'x'; 1001]).send(&router).await;
    reply.expect(413, "body_too_large");
    assert_eq!(replica.served(), 0);
    let chunked = format!(
        "POST {SCORE} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n258\r\n{0}\r\n258\r\n{0}\r\n0\r\n\r\n",
        "y".repeat(600)
    );
    let answer = crate::forwarding::exchange(router.address(), chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(post(SCORE, vec![b'x'; 1000]).send(&router).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_id_that_is_too_long_is_431() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    for header in ["x-request-id", "x-ms-client-request-id", "x-ms-request-id"] {
        let reply = post(SCORE, "{}").header(header, &"a".repeat(101)).send(&router).await;
        reply.expect(431, "header_too_long");
        let reply = post(SCORE, "{}").header(header, &"a".repeat(100)).send(&router).await;
        assert_eq!(reply.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_replica_that_hangs_with_a_request_is_found_out() {
    let replica = Replica::acting(Act::Hold);
    let settings = "request_timeout_ms: 100, max_queue_wait_ms: 100";
    let probes =
        "        readiness_probe: { initial_delay: 0, period: 1, timeout: 1, failure_threshold: 1 }\n";
    let router = Router::start(&(blue(&[replica.address()], settings) + probes)).ready().await;
    // Nothing moves any more, not even the connection of the request that is given up.
    replica.answer_probes(0);
    replica.act(Act::Deaf);
    post(SCORE, "{}").send(&router).await.expect(504, "model_timeout");
    post(SCORE, "{}").send(&router).await.expect(503, "queue_timeout");
    eventually("unready", async || {
        let deployment = router.state().await["endpoints"][0]["deployments"][0].clone();
        (deployment["ready"] == 0 && deployment["replicas"][0]["state"] == "unready").then_some(())
    })
    .await;
    post(SCORE, "{}").send(&router).await.expect(503, "no_ready_replica");
}

#[tokio::test]
async fn a_model_that_does_not_take_a_large_body_is_not_the_clients_fault() {
    let replica = Replica::acting(Act::Deaf);
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 300")).ready().await;
    // More than all buffers on the way hold.
    post(SCORE, vec![b'x'; 60_000_000]).send(&router).await.expect(504, "model_timeout");
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_is_told_so() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 100")).ready().await;
    let mut stream = tokio::net::TcpStream::connect(router.address()).await.unwrap();
    let head =
        format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("client_too_slow"), "{answer}");
}

/// The parts of a `Server-Timing` header, in milliseconds.
fn timing(header: &str) -> Vec<(&str, f64)> {
    header
        .split(", ")
        .filter_map(|part| part.split_once(";dur="))
        .map(|(n, d)| (n, d.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn server_timing_tells_queue_model_and_router_where_it_is_on() {
    let replica = Replica::acting(Act::after(50));
    let endpoints =
        blue(&[replica.address()], "max_concurrent_requests_per_instance: 1, max_queue_wait_ms: 20000");
    let router =
        Router::start(&endpoints.replace("    deployments:", "    server_timing: true\n    deployments:"));
    let router = router.ready().await;
    let calls = tokio::join!(post(SCORE, "{}").send(&router), post(SCORE, "{}").send(&router));
    let mut queued = Vec::new();
    for reply in [&calls.0, &calls.1] {
        let parts = timing(reply.header("server-timing"));
        let of = |name| parts.iter().find(|part| part.0 == name).map_or(0.0, |part| part.1);
        assert!(
            parts.iter().map(|part| part.0).eq(["queue", "connect", "model", "router"]
                .into_iter()
                .filter(|name| *name != "connect" || of("connect") > 0.0)),
            "{parts:?}"
        );
        assert!(of("model") >= 50.0, "{parts:?}");
        queued.push(of("queue"));
    }
    queued.sort_by(f64::total_cmp);
    assert!(queued[0] < 50.0 && queued[1] >= 50.0, "one waits for the other: {queued:?}");
    let refused = post("/api/v1/endpoint/demo/nothing", "{}").send(&router).await;
    assert_eq!(refused.header("server-timing"), "", "no endpoint, no setting");
    let refused = call(Method::PUT, SCORE).send(&router).await;
    let parts = timing(refused.header("server-timing"));
    assert!(parts.iter().map(|part| part.0).eq(["queue", "router"]), "{parts:?}");
    let slow = Replica::acting(Act::after(60_000));
    let endpoints = blue(&[slow.address()], "request_timeout_ms: 50");
    let router =
        Router::start(&endpoints.replace("    deployments:", "    server_timing: true\n    deployments:"));
    let late = post(SCORE, "{}").send(&router.ready().await).await;
    let parts = timing(late.header("server-timing"));
    assert!(parts.iter().all(|part| part.0 != "router"), "the model took that time: {parts:?}");
    let silent = Router::start(&blue(&[replica.address()], "")).ready().await;
    assert_eq!(post(SCORE, "{}").send(&silent).await.header("server-timing"), "");
}
