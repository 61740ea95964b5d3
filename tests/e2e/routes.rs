//! Which paths, hosts and methods lead where.

use http::{Method, StatusCode};

use crate::replica::Replica;
use crate::router::{Router, SCORE, blue, call, get, post};

#[tokio::test]
async fn every_documented_form_of_the_scoring_url_reaches_the_model() {
    let replica = Replica::start();
    let endpoints = blue(&[replica.address()], "")
        .replace("    deployments:", "    scoring_route: /v1/predict\n    deployments:");
    let router = Router::start(&endpoints).ready().await;
    for (path, host, seen) in [
        ("/api/v1/endpoint/demo/score?a=1&b=%20", None, "/score?a=1&b=%20"),
        ("/api/v1/service/demo/score", None, "/score"),
        ("/api/v1/endpoint/demo/swagger.json?version=3", None, "/swagger.json?version=3"),
        ("/api/v1/service/demo/swagger.json", None, "/swagger.json"),
        ("/score", Some("demo.westeurope.inference.example"), "/score"),
        ("/swagger.json", Some("Demo.westeurope.inference.example:8080"), "/swagger.json"),
        ("/score", None, "/score"),
        ("/v1/predict?x", None, "/score?x"),
    ] {
        let mut request = post(path, "{}");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let reply = request.send(&router).await;
        assert_eq!(reply.status, StatusCode::OK, "{path} {host:?} {}", reply.text());
        assert_eq!(replica.requests().last().unwrap().path, seen, "{path} {host:?}");
    }
}

#[tokio::test]
async fn a_deployment_may_have_a_scoring_path_of_its_own() {
    let replica = Replica::start();
    let endpoints = blue(&[replica.address()], "").trim_end().to_owned()
        + "\n        inference_config:\n          scoring_route: { path: \"/v1/models/half:predict\" }\n          \
           liveness_route: { path: / }\n          readiness_route: { path: / }\n";
    let router = Router::start(&endpoints).ready().await;
    post(SCORE, "{}").send(&router).await;
    assert_eq!(replica.requests().last().unwrap().path, "/v1/models/half:predict");
}

#[tokio::test]
async fn paths_that_lead_nowhere_say_so() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    for path in [
        "/api/v1/endpoint/other/score",
        "/api/v1/endpoint/demo/",
        "/api/v1/endpoint/demo/score/",
        "/api/v1/endpoint/demo",
        "/api/v1/",
        "/favicon.ico",
        "/metrics",
        "//score",
    ] {
        let reply = post(path, "{}").send(&router).await;
        reply.expect(404, "unknown_route");
        assert_eq!(reply.header("x-request-id").len(), 36, "{path}");
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn with_several_endpoints_the_short_path_needs_the_host() {
    let (one, two) = (Replica::start(), Replica::start());
    let endpoints =
        blue(&[one.address()], "") + &blue(&[two.address()], "").replace("name: demo", "name: other");
    let router = Router::start(&endpoints).ready().await;
    post("/score", "{}").send(&router).await.expect(404, "unknown_route");
    let reply = post("/score", "{}").header("host", "other.example").send(&router).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!((one.served(), two.served()), (0, 1));
}

#[tokio::test]
async fn the_routers_own_paths_answer() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(get(path).send(&router).await.status, StatusCode::OK, "{path}");
    }
    post("/healthz", "").send(&router).await.expect(405, "method_not_allowed");
}

#[tokio::test]
async fn a_router_without_a_ready_replica_is_not_ready() {
    let address = crate::replica::unused_address();
    let router = Router::start(&blue(&[address], ""));
    assert_eq!(get("/healthz").send(&router).await.status, StatusCode::OK);
    assert_eq!(get("/readyz").send(&router).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn methods_other_than_get_and_post_are_refused_without_asking_the_model() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE] {
        let reply = call(method, SCORE).send(&router).await;
        reply.expect(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), "GET, HEAD, POST");
    }
    assert_eq!(get(SCORE).send(&router).await.status, StatusCode::OK);
    let reply = call(Method::HEAD, SCORE).send(&router).await;
    assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 0));
    assert_eq!(replica.served(), 2);
}

#[tokio::test]
async fn a_cors_policy_answers_preflights_and_marks_answers() {
    let replica = Replica::start();
    let endpoints = blue(&[replica.address()], "").replace(
        "    deployments:",
        "    cors: { allow_origins: [\"https://app.example\"], max_age_s: 60 }\n    deployments:",
    );
    let router = Router::start(&endpoints).ready().await;
    let preflight = |origin: &str| {
        call(Method::OPTIONS, SCORE)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization")
    };
    let reply = preflight("https://app.example").send(&router).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    assert_eq!(reply.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(reply.header("access-control-allow-headers"), "authorization");
    assert_eq!(reply.header("access-control-max-age"), "60");
    let stranger = preflight("https://evil.example").send(&router).await;
    assert_eq!(stranger.header("access-control-allow-origin"), "");
    let answer = post(SCORE, "{}").header("origin", "https://app.example").send(&router).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(replica.served(), 1, "preflights are not for the model");
}
