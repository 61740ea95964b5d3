//! Limits of callers: who is refused, with what answer, and when not any more.

use http::StatusCode;

use crate::replica::{Act, Replica};
use crate::router::{KEY, Router, SCORE, blue, eventually, get, post};

const BATCH: &str = "batch-key-0123456789";

/// `demo` with the endpoint's key, the client `batch` with these limits, and these default limits.
fn limited(replica: &Replica, batch: &str, default: &str) -> String {
    let auth = format!(
        "keys: {{ primary: {KEY} }}\n    clients: [{{ name: batch, key: {BATCH}, limits: {{ {batch} }} }}]\n    \
         default_limits: {{ {default} }}"
    );
    blue(
        &[replica.address()],
        "max_queue_wait_ms: 60000, request_timeout_ms: 60000, max_concurrent_requests_per_instance: 0",
    )
    .replace("auth_mode: none", &auth)
}

#[tokio::test]
async fn a_burst_passes_and_the_next_one_is_told_when() {
    let replica = Replica::start();
    // One request in 1,000 seconds: this test is not as slow.
    let router = Router::start(&limited(&replica, "requests_per_second: 0.001, burst: 3", "")).ready().await;
    for left in ["2", "1", "0"] {
        let reply = post(SCORE, "{}").bearer(BATCH).send(&router).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert_eq!(reply.header("ratelimit-policy"), "\"rate\";q=3;w=3000");
        assert!(reply.header("ratelimit").starts_with(&format!("\"rate\";r={left};t=")), "{reply:?}");
    }
    let reply = post(SCORE, "{}").bearer(BATCH).send(&router).await;
    reply.expect(429, "rate_limited");
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    let millis: u64 = reply.header("retry-after-ms").parse().unwrap();
    assert!((900..=1_000).contains(&seconds) && millis.div_ceil(1_000) == seconds, "{reply:?}");
    assert!(reply.header("ratelimit").starts_with("\"rate\";r=0;t="), "{reply:?}");
    let error = &reply.json()["error"];
    assert_eq!(
        (&error["setting"], &error["limit"], &error["burst"], &error["retry_after_ms"]),
        (&"requests_per_second".into(), &0.001.into(), &3.into(), &millis.into())
    );
    // Whoever has no limits hears of none, and nobody without a key is counted.
    let reply = post(SCORE, "{}").bearer(KEY).send(&router).await;
    assert_eq!((reply.status, reply.header("ratelimit-policy")), (StatusCode::OK, ""));
    let reply = post(SCORE, "{}").bearer("no-key-at-all-0123456789").send(&router).await;
    reply.expect(401, "unauthorized");
    assert_eq!((replica.served(), reply.header("ratelimit")), (4, ""));

    let log = router.access_log(6).await;
    assert_eq!((&log[3]["IdentityData"], &log[3]["Reason"]), (&"batch".into(), &"rate_limited".into()));
    let metrics = get("/metrics").send_to(router.admin()).await.text();
    for line in [
        r#"scoregate_client_requests_total{endpoint="demo",client="batch"}"#,
        r#"scoregate_limited_total{endpoint="demo",client="batch",reason="rate_limited"}"#,
        r#"scoregate_rejects_total{endpoint="demo",deployment="",code="429",reason="rate_limited"}"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    for secret in [BATCH, KEY] {
        let shown = format!("{log:?}{metrics}{}", router.state().await);
        assert!(!shown.contains(secret));
    }
}

#[tokio::test]
async fn as_many_at_once_as_may_be_however_they_end() {
    let replica = Replica::acting(Act::Hold);
    let router = Router::start(&limited(&replica, "concurrency: 2", "")).ready().await;
    let call = || tokio::spawn(post(SCORE, "{}").bearer(BATCH).try_send(router.address()));
    let in_flight = async |count: u32| {
        eventually("at the replica", async || (replica.in_flight() == count).then_some(())).await;
    };
    let (first, second) = (call(), call());
    in_flight(2).await;
    let refused = post(SCORE, "{}").bearer(BATCH).send(&router).await;
    refused.expect(429, "too_many_concurrent");
    assert_eq!((refused.header("retry-after"), &refused.json()["error"]["limit"]), ("1", &2.into()));
    assert_eq!(refused.header("ratelimit-policy"), "\"concurrency\";q=2;qu=\"concurrent-requests\"");
    assert_eq!(refused.header("ratelimit"), "\"concurrency\";r=0");
    // The endpoint's own key has limits of its own, which are none.
    let other = tokio::spawn(post(SCORE, "{}").bearer(KEY).try_send(router.address()));
    in_flight(3).await;
    replica.release(3);
    for call in [first, second, other] {
        assert_eq!(call.await.unwrap().unwrap().status, StatusCode::OK);
    }
    // As soon as the last byte is there.
    replica.act(Act::ok("{}"));
    router.reload(&limited(&replica, "concurrency: 1", "")).await.unwrap();
    for _ in 0..50 {
        assert_eq!(post(SCORE, "{}").bearer(BATCH).send(&router).await.status, StatusCode::OK);
    }
    router.reload(&limited(&replica, "concurrency: 2", "")).await.unwrap();
    // A client that hangs up, a model that breaks off, an answer that never begins.
    replica.act(Act::Hold);
    for _ in 0..2 {
        let call = call();
        in_flight(1).await;
        call.abort();
        let _ = call.await;
        in_flight(0).await;
    }
    for act in [Act::Cut, Act::CutInBody] {
        replica.act(act);
        for _ in 0..3 {
            let _ = post(SCORE, "{}").bearer(BATCH).try_send(router.address()).await;
        }
    }
    replica.act(Act::ok("{}"));
    eventually("both places are free", async || {
        let reply = post(SCORE, "{}").bearer(BATCH).send(&router).await;
        // The call itself takes one of the two.
        (reply.header("ratelimit") == "\"concurrency\";r=1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_workers_let_exactly_the_quota_pass_and_a_reload_keeps_the_count() {
    let replica = Replica::start();
    let quota =
        |requests: u32| limited(&replica, "", &format!("quota: {{ requests: {requests}, per: month }}"));
    let router = Router::start(&quota(40)).ready().await;
    let call = || tokio::spawn(post(SCORE, "{}").bearer(KEY).try_send(router.address()));
    let mut passed = 0;
    for call in (0..60).map(|_| call()).collect::<Vec<_>>() {
        let reply = call.await.unwrap().unwrap();
        match reply.status {
            StatusCode::OK => passed += 1,
            _ => reply.expect(429, "quota_exceeded"),
        }
    }
    assert_eq!((passed, replica.served()), (40, 40));
    router.reload(&quota(40)).await.unwrap();
    let refused = post(SCORE, "{}").bearer(KEY).send(&router).await;
    refused.expect(429, "quota_exceeded");
    assert_eq!(refused.json()["error"]["per"], "month");
    assert!(refused.header("ratelimit").starts_with("\"quota\";r=0;t="), "{refused:?}");
    // `batch` has limits of its own, and they are none.
    assert_eq!(post(SCORE, "{}").bearer(BATCH).send(&router).await.status, StatusCode::OK);
    router.reload(&quota(42)).await.unwrap();
    for status in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(post(SCORE, "{}").bearer(KEY).send(&router).await.status, status);
    }
}

#[tokio::test]
async fn each_bearer_of_a_token_is_counted_by_itself() {
    const SECRET: &str = "a-shared-secret-of-32-characters";
    let replica = Replica::start();
    let auth = format!(
        "auth_mode: jwt\n    jwt: {{ audiences: [demo], keys: [{{ algorithm: HS256, secret: {SECRET} }}] }}\n    \
         default_limits: {{ quota: {{ requests: 2, per: month }} }}"
    );
    let router =
        Router::start(&blue(&[replica.address()], "").replace("auth_mode: none", &auth)).ready().await;
    let token = |sub: &str, id: u32| {
        let claims = serde_json::json!({ "aud": "demo", "exp": 4_000_000_000_u64, "sub": sub, "jti": id });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    for sub in ["ann", "bob"] {
        // Another token is not another bearer.
        for (id, status) in [(1, 200), (2, 200), (1, 429), (3, 429)] {
            let reply = post(SCORE, "{}").bearer(&token(sub, id)).send(&router).await;
            assert_eq!(reply.status.as_u16(), status, "{sub} {id}");
        }
    }
}
