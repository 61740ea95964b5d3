//! Requests that are sent more than once, and those that must not be. The replicas count.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::outcomes::used;
use crate::replica::{Act, Replica};
use crate::router::{Call, Router, SCORE, blue, eventually, get, post};

const DECLARED: &str = "idempotent: true, max_queue_wait_ms: 20000, request_timeout_ms: 60000";

/// Metrics are those of the process, so that each router has a deployment of another name.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A router in front of these replicas, once all are ready.
async fn router(replicas: &[&Replica], settings: &str) -> Router {
    let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.address()).collect();
    let name = format!("name: blue-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let router = Router::start(&blue(&addresses, settings).replace("name: blue", &name)).ready().await;
    eventually("all ready", async || {
        let state = router.state().await;
        (state["endpoints"][0]["deployments"][0]["ready"] == addresses.len()).then_some(())
    })
    .await;
    router
}

/// A metric of the deployment, 0 if it is not there.
async fn metric(router: &Router, name: &str, label: &str) -> u64 {
    let deployment = router.state().await["endpoints"][0]["deployments"][0]["name"].clone();
    let text = get("/metrics").send_to(router.admin()).await.text();
    let start = format!("scoregate_{name}{{endpoint=\"demo\",deployment={deployment},{label}}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |value| value.parse().unwrap())
}

/// Waits until no slot is in use.
async fn all_free(router: &Router) {
    eventually("all slots free", async || {
        (router.state().await["endpoints"][0]["deployments"][0]["slots"]["busy"] == 0).then_some(())
    })
    .await;
}

async fn in_flight(replicas: &[&Replica], expected: u32) {
    eventually("in flight at the replicas", async || {
        (replicas.iter().map(|replica| replica.in_flight()).sum::<u32>() == expected).then_some(())
    })
    .await;
}

fn served(replicas: &[&Replica]) -> u64 {
    replicas.iter().map(|replica| replica.served()).sum()
}

/// Sends the same request until the first of the replicas has had one; all must be answered with 200.
async fn until_reached(router: &Router, replica: &Replica, call: impl Fn() -> Call) {
    for _ in 0..10 {
        assert_eq!(call().send(router).await.status, StatusCode::OK);
        if replica.served() > 0 {
            return;
        }
    }
    panic!("no request came to the replica");
}

fn unavailable() -> Act {
    Act::Answer(503, Bytes::from_static(b"not now"), Duration::ZERO)
}

#[tokio::test]
async fn a_declared_request_that_broke_is_answered_by_another_replica() {
    let (broken, good) = (Replica::acting(Act::Cut), Replica::start());
    let router = router(&[&broken, &good], DECLARED).await;
    until_reached(&router, &broken, || post(SCORE, "{\"x\": 1}").header("x-mine", "1")).await;
    let (first, second) = (&broken.requests()[0], good.requests().pop().unwrap());
    assert_eq!((&first.method, &first.path, &first.body), (&second.method, &second.path, &second.body));
    let headers = |seen: &crate::replica::Seen| {
        let mut headers = seen.headers.clone();
        headers.remove("host");
        headers
    };
    assert_eq!(headers(first), headers(&second), "the same request, its id included");
    assert_eq!(second.headers["host"], good.address().to_string());
    let log = router.access_log(1).await;
    let line = log.iter().find(|line| line["Attempts"] == 2).unwrap();
    assert_eq!((&line["ResponseCode"], &line["ModelStatusCode"]), (&json!(200), &json!(200)));
    assert_eq!(metric(&router, "retries_total", "reason=\"broken\"").await, 1);
    used(&router, &json!({"answered": good.served(), "broken": 1})).await;
    all_free(&router).await;
}

#[tokio::test]
async fn a_post_that_may_have_been_computed_is_never_sent_twice() {
    for act in [Act::Cut, unavailable()] {
        let replicas = [Replica::acting(act.clone()), Replica::acting(act)];
        let replicas: Vec<&Replica> = replicas.iter().collect();
        // Whatever else is set, without the declaration.
        let settings = "retry: { attempts: 10, budget_percentage: 100 }, hedge: { after_ms: 1 }";
        let router = router(&replicas, settings).await;
        for number in 1..=6 {
            assert!(post(SCORE, "{}").send(&router).await.status.is_server_error());
            assert_eq!(served(&replicas), number, "one each");
        }
        replicas[0].act(Act::after(50));
        replicas[1].act(Act::after(50));
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
        assert_eq!(served(&replicas), 7, "no second copy");
    }
}

#[tokio::test]
async fn a_get_may_always_be_sent_again() {
    for act in [Act::Cut, unavailable()] {
        let (broken, good) = (Replica::acting(act), Replica::start());
        let router = router(&[&broken, &good], "").await;
        until_reached(&router, &broken, || get(SCORE)).await;
        all_free(&router).await;
    }
}

#[tokio::test]
async fn a_body_is_sent_again_whole_or_not_at_all() {
    const MOST: usize = 64 * 1024;
    let (broken, good) = (Replica::acting(Act::Cut), Replica::start());
    let router = router(&[&broken, &good], DECLARED).await;
    until_reached(&router, &broken, || post(SCORE, vec![b'x'; MOST])).await;
    assert!(good.requests().iter().all(|seen| seen.body == vec![b'x'; MOST]));
    let before = served(&[&broken, &good]);
    good.act(Act::Cut);
    post(SCORE, vec![b'x'; MOST + 1]).send(&router).await.expect(502, "model_connection_broken");
    assert_eq!(served(&[&broken, &good]), before + 1);
    assert_eq!(metric(&router, "retries_denied_total", "reason=\"body\"").await, 1);
}

#[tokio::test]
async fn when_all_are_broken_retries_stay_within_the_budget() {
    let replicas = [(); 4].map(|()| Replica::acting(Act::Cut));
    let replicas: Vec<&Replica> = replicas.iter().collect();
    let router = router(&replicas, DECLARED).await;
    let requests = 60;
    for _ in 0..requests {
        post(SCORE, "{}").send(&router).await.expect(502, "model_connection_broken");
    }
    let sent = served(&replicas);
    assert!(sent <= requests + requests / 5 + 10, "{sent} for {requests} requests");
    assert!(sent > requests + 10, "{sent}: the budget is used");
    assert!(metric(&router, "retries_denied_total", "reason=\"budget\"").await > 0);
    assert_eq!(metric(&router, "retries_total", "reason=\"broken\"").await, sent - requests);
    all_free(&router).await;
}

#[tokio::test]
async fn no_request_is_sent_more_often_than_it_may_be() {
    let replicas = [(); 4].map(|()| Replica::acting(Act::Cut));
    let replicas: Vec<&Replica> = replicas.iter().collect();
    let router = router(&replicas, DECLARED).await;
    post(SCORE, "{}").send(&router).await.expect(502, "model_connection_broken");
    assert_eq!(served(&replicas), 3);
    assert!(replicas.iter().all(|replica| replica.served() <= 1), "each time another replica");
    assert_eq!(metric(&router, "retries_denied_total", "reason=\"attempts\"").await, 1);
}

#[tokio::test]
async fn a_retry_takes_only_an_idle_slot() {
    let replicas = [Replica::acting(Act::Hold), Replica::acting(Act::Hold)];
    let replicas: Vec<&Replica> = replicas.iter().collect();
    let router = router(&replicas, DECLARED).await;
    let held = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    in_flight(&replicas, 1).await;
    let (busy, idle) =
        if replicas[0].in_flight() == 1 { (replicas[0], replicas[1]) } else { (replicas[1], replicas[0]) };
    idle.act(Act::Cut);
    post(SCORE, "{}").send(&router).await.expect(502, "model_connection_broken");
    assert_eq!((busy.served(), idle.served()), (1, 1));
    assert_eq!(metric(&router, "retries_denied_total", "reason=\"no_idle_slot\"").await, 1);
    busy.release(1);
    assert_eq!(held.await.unwrap().status, StatusCode::OK);
    all_free(&router).await;
}

#[tokio::test]
async fn when_every_try_fails_the_client_gets_the_first_failure() {
    let replicas = [Replica::acting(unavailable()), Replica::acting(unavailable())];
    let replicas: Vec<&Replica> = replicas.iter().collect();
    let router = router(&replicas, DECLARED).await;
    let reply = post(SCORE, "{}").send(&router).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (503, "not now"));
    assert_eq!(served(&replicas), 2);
    let line = router.access_log(1).await.remove(0);
    assert_eq!((&line["Attempts"], &line["ModelStatusCode"]), (&json!(2), &json!(503)));
    used(&router, &json!({"broken": 2})).await;
    all_free(&router).await;
}

#[tokio::test]
async fn what_is_no_failure_is_not_sent_again() {
    let replicas = [Replica::start(), Replica::start()];
    let replicas: Vec<&Replica> = replicas.iter().collect();
    let settings = "idempotent: true, request_timeout_ms: 80, max_queue_wait_ms: 20000";
    let router = router(&replicas, settings).await;
    for (act, status) in [
        (Act::Answer(500, Bytes::new(), Duration::ZERO), Some(502)),
        (Act::Answer(504, Bytes::new(), Duration::ZERO), Some(504)),
        (Act::Answer(429, Bytes::new(), Duration::ZERO), Some(429)),
        // The time is used up, and part of an answer has gone out.
        (Act::Hold, Some(504)),
        (Act::CutInBody, None),
    ] {
        let before = served(&replicas);
        replicas.iter().for_each(|replica| replica.act(act.clone()));
        let reply = post(SCORE, "{}").try_send(router.address()).await.ok();
        assert_eq!(reply.map(|reply| reply.status.as_u16()), status, "{act:?}");
        assert_eq!(served(&replicas), before + 1, "{act:?}");
        all_free(&router).await;
    }
}

#[tokio::test]
async fn a_retry_that_finds_no_server_goes_on_to_the_next_replica() {
    let (broken, dead, good) = (Replica::acting(Act::Cut), Replica::start(), Replica::start());
    let router = router(&[&broken, &dead, &good], DECLARED).await;
    dead.kill();
    until_reached(&router, &broken, || post(SCORE, "{}")).await;
    all_free(&router).await;
}

/// Requests whose second copy came to this.
async fn hedges(router: &Router, result: &str) -> u64 {
    metric(router, "hedges_total", &format!("result=\"{result}\"")).await
}

#[tokio::test]
async fn a_late_answer_is_overtaken_by_a_second_copy() {
    let (slow, good) = (Replica::acting(Act::Hold), Replica::start());
    let router = router(&[&slow, &good], &format!("{DECLARED}, hedge: {{ after_ms: 100 }}")).await;
    until_reached(&router, &slow, || post(SCORE, "{}")).await;
    // The connection to the slow one is closed, and its slot is free.
    in_flight(&[&slow], 0).await;
    all_free(&router).await;
    assert_eq!(hedges(&router, "won").await, 1);
    assert!(router.access_log(1).await.iter().any(|line| line["Attempts"] == 2));
    assert_eq!(slow.served(), 1);
}

#[tokio::test]
async fn the_first_of_two_answers_counts_and_the_other_is_given_up() {
    let replicas = [Replica::acting(Act::Hold), Replica::acting(Act::Hold)];
    let both: Vec<&Replica> = replicas.iter().collect();
    let router = router(&both, &format!("{DECLARED}, hedge: {{ after_ms: 20 }}")).await;
    for (winner, ended) in [(0, 1), (1, 2)] {
        let call = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
        in_flight(&both, 2).await;
        // Also what was given up has a place in the line.
        both[winner].release(ended);
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
        in_flight(&both, 0).await;
        used(&router, &json!({"answered": ended, "given_up": ended})).await;
    }
    assert_eq!(hedges(&router, "won").await + hedges(&router, "lost").await, 2);
    let names: Vec<_> = router.access_log(2).await.iter().map(|line| line["Replica"].clone()).collect();
    assert_ne!(names[0], names[1], "the one that answered");
}

/// The second copy finds all slots busy at first, and goes out when one is idle.
#[tokio::test]
async fn a_late_answer_has_its_second_copy_when_a_slot_becomes_idle() {
    let replicas = [Replica::acting(Act::Hold), Replica::acting(Act::Hold)];
    let both: Vec<&Replica> = replicas.iter().collect();
    let router = router(&both, &format!("{DECLARED}, hedge: {{ after_ms: 20 }}")).await;
    let calls = [0, 1].map(|_| tokio::spawn(post(SCORE, "{}").send_to(router.address())));
    in_flight(&both, 2).await;
    // Past the first look, at which there is nothing idle.
    tokio::time::sleep(Duration::from_millis(100)).await;
    replicas[0].act(Act::ok("{}"));
    replicas[0].release(1);
    for call in calls {
        assert_eq!(call.await.unwrap().status, StatusCode::OK, "one by its own replica, one by that as well");
    }
    assert_eq!((replicas[0].served(), replicas[1].served()), (2, 1));
    assert_eq!(hedges(&router, "won").await, 1);
    in_flight(&both, 0).await;
    all_free(&router).await;
}

#[tokio::test]
async fn a_late_answer_without_a_second_copy_is_counted_by_the_reason() {
    let only = Replica::acting(Act::after(50));
    let router = router(&[&only], &format!("{DECLARED}, hedge: {{ after_ms: 1 }}")).await;
    eventually("a look for an idle slot", async || {
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
        (hedges(&router, "no_idle_slot").await > 0).then_some(())
    })
    .await;
    assert_eq!(
        metric(&router, "retries_denied_total", "reason=\"no_idle_slot\"").await,
        0,
        "nothing has failed"
    );
}

#[tokio::test]
async fn a_second_copy_makes_way_for_a_request_that_would_wait() {
    let replicas = [Replica::acting(Act::Hold), Replica::acting(Act::Hold)];
    let both: Vec<&Replica> = replicas.iter().collect();
    let router = router(&both, &format!("{DECLARED}, hedge: {{ after_ms: 20 }}")).await;
    let first = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    in_flight(&both, 2).await;
    let second = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    eventually("the request at a replica", async || (served(&both) == 3).then_some(())).await;
    both.iter().for_each(|replica| replica.release(3));
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
    assert!(both.iter().all(|replica| replica.max_in_flight() == 1));
    assert_eq!(hedges(&router, "yielded").await, 1);
    assert_eq!(served(&both), 3, "nor is one sent while somebody waits");
    all_free(&router).await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_every_copy() {
    let replicas = [Replica::acting(Act::Hold), Replica::acting(Act::Hold)];
    let both: Vec<&Replica> = replicas.iter().collect();
    let router = router(&both, &format!("{DECLARED}, hedge: {{ after_ms: 20 }}")).await;
    let call = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    in_flight(&both, 2).await;
    call.abort();
    in_flight(&both, 0).await;
    all_free(&router).await;
    used(&router, &json!({"given_up": 2})).await;
    let line = router.access_log(1).await.remove(0);
    assert_eq!((&line["Attempts"], &line["Reason"]), (&json!(2), &json!("client_gone")));
}

#[tokio::test]
async fn a_stream_that_has_begun_is_not_late() {
    let replicas = [Replica::acting(Act::Stream), Replica::acting(Act::Stream)];
    let both: Vec<&Replica> = replicas.iter().collect();
    let router = router(&both, &format!("{DECLARED}, hedge: {{ after_ms: 400 }}")).await;
    let call = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    let streams = || both.iter().map(|replica| replica.open_streams()).sum::<usize>();
    eventually("a stream", async || (streams() == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    both.iter().for_each(|replica| replica.stream("data: 1\n\n"));
    both.iter().for_each(|replica| replica.end_streams());
    assert_eq!(call.await.unwrap().text(), "data: 1\n\n");
    assert_eq!(served(&both), 1);
}

#[tokio::test]
async fn a_measured_time_says_when_an_answer_is_late() {
    let (slow, good) = (Replica::start(), Replica::start());
    let router = router(&[&slow, &good], &format!("{DECLARED}, hedge: {{ after: p95 }}")).await;
    for _ in 0..64 {
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
    }
    slow.act(Act::Hold);
    let before = slow.served();
    eventually("a request at the slow one", async || {
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
        (slow.served() > before).then_some(())
    })
    .await;
    in_flight(&[&slow], 0).await;
    all_free(&router).await;
}

/// Among replicas that break, refuse, hang and answer, whatever becomes of each request: no replica ever has two at once, and
/// in the end no slot is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_slot_is_lost_or_used_twice_whatever_happens() {
    let acts = [Act::Cut, unavailable(), Act::Hold, Act::after(3), Act::after(3), Act::CutInBody];
    let replicas = acts.map(Replica::acting);
    let all: Vec<&Replica> = replicas.iter().collect();
    let settings = "idempotent: true, retry: { budget_percentage: 100 }, hedge: { after_ms: 2 }, \
                    max_queue_wait_ms: 100, request_timeout_ms: 30";
    let router = router(&all, settings).await;
    let address = router.address();
    let callers = (0..12).map(|caller| {
        tokio::spawn(async move {
            for number in 0..25u64 {
                let call = post(SCORE, "{}").try_send(address);
                // Some leave at any moment.
                let patience = if number % 3 == 0 { (caller * 7 + number) % 20 } else { 10_000 };
                let _ = tokio::time::timeout(Duration::from_millis(patience), call).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    in_flight(&all, 0).await;
    all_free(&router).await;
    assert!(all.iter().all(|replica| replica.max_in_flight() <= 1));
    assert!(served(&all) > 100);
}

/// The replica may have closed a pooled connection before it saw the request, or because of it; nobody can tell.
#[tokio::test]
async fn a_pooled_connection_that_breaks_is_replaced_only_where_that_does_no_harm() {
    for (settings, again) in [("", 0), ("idempotent: true", 1)] {
        let replica = Replica::start();
        let top = "listen: { address: \"127.0.0.1:0\", workers: 1 }";
        let router = Router::start_with(top, &blue(&[replica.address()], settings)).ready().await;
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
        replica.act(Act::Cut);
        post(SCORE, "{}").send(&router).await.expect(502, "model_connection_broken");
        assert_eq!(replica.served(), 2 + again, "{settings}");
        let line = router.access_log(2).await.remove(1);
        assert_eq!(line["Attempts"], 1 + again, "{settings}");
    }
}

/// Nothing is promised by a pooled connection, so each of them could cost one more copy.
#[tokio::test]
async fn however_many_pooled_connections_break_one_request_is_sent_twice_at_most() {
    const POOLED: u32 = 8;
    for (settings, copies) in [
        ("idempotent: true", 1),
        ("idempotent: true, retry: { attempts: 0 }", 0),
        ("idempotent: true, retry: { attempts: 1 }", 1),
    ] {
        let replica = Replica::acting(Act::Hold);
        let top = "listen: { address: \"127.0.0.1:0\", workers: 1 }";
        let name = format!("name: pooled-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let settings = format!("{settings}, max_concurrent_requests_per_instance: {POOLED}");
        let config = blue(&[replica.address()], &settings).replace("name: blue", &name);
        let router = Router::start_with(top, &config).ready().await;
        let callers: Vec<_> =
            (0..POOLED).map(|_| tokio::spawn(post(SCORE, "{}").send_to(router.address()))).collect();
        in_flight(&[&replica], POOLED).await;
        replica.release(POOLED.into());
        for caller in callers {
            assert_eq!(caller.await.unwrap().status, StatusCode::OK);
        }
        all_free(&router).await;
        let before = replica.served();
        replica.act(Act::Cut);
        post(SCORE, "{}").send(&router).await.expect(502, "model_connection_broken");
        assert_eq!(replica.served(), before + 1 + copies, "{settings}");
        assert_eq!(metric(&router, "retries_total", "reason=\"stale\"").await, copies, "{settings}");
        let log = router.access_log(POOLED as usize + 1).await;
        assert_eq!(log.last().unwrap()["Attempts"], 1 + copies, "{settings}");
    }
}

/// Each request breaks the connection that the one before has left in the pool.
#[tokio::test]
async fn pooled_connections_that_break_are_paid_from_the_budget() {
    let replica = Replica::start();
    let top = "listen: { address: \"127.0.0.1:0\", workers: 1 }";
    let name = format!("name: pooled-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let config = blue(&[replica.address()], "idempotent: true").replace("name: blue", &name);
    let router = Router::start_with(top, &config).ready().await;
    let requests = 60;
    for _ in 0..requests / 2 {
        replica.act(Act::ok("{}"));
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
        replica.act(Act::Cut);
        post(SCORE, "{}").send(&router).await.expect(502, "model_connection_broken");
    }
    let sent = replica.served();
    assert!(sent > requests && sent <= requests + requests / 5 + 10, "{sent} for {requests} requests");
    assert!(metric(&router, "retries_denied_total", "reason=\"budget\"").await > 0);
}

#[tokio::test]
async fn what_has_failed_holds_no_slot_while_another_replica_is_asked() {
    let (broken, slow) = (Replica::acting(unavailable()), Replica::acting(Act::Hold));
    let router = router(&[&broken, &slow], DECLARED).await;
    for _ in 0..10 {
        let call = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
        in_flight(&[&slow], 1).await;
        eventually("one slot in use", async || {
            (router.state().await["endpoints"][0]["deployments"][0]["slots"]["busy"] == 1).then_some(())
        })
        .await;
        slow.release(1);
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
        if broken.served() > 0 {
            return;
        }
    }
    panic!("no request came to the broken one");
}

#[tokio::test]
async fn of_a_failure_too_long_to_keep_the_client_gets_the_status() {
    let long = || Act::Answer(503, Bytes::from(vec![b'x'; 100_000]), Duration::ZERO);
    let replicas = [Replica::acting(long()), Replica::acting(long())];
    let router = router(&[&replicas[0], &replicas[1]], DECLARED).await;
    let reply = post(SCORE, "{}").send(&router).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (503, ""));
    let single = self::router(&[&replicas[0]], DECLARED).await;
    let reply = post(SCORE, "{}").send(&single).await;
    assert_eq!((reply.status.as_u16(), reply.text().len()), (503, 100_000));
}
