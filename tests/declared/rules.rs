//! Who may change what, and which changes are refused.

use http::Method;
use serde_json::{Value, json};

use crate::admin::{Router, model};

#[tokio::test]
async fn a_change_that_loses_a_race_is_a_conflict() {
    let router = Router::start("declared-race").await;
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let etag = router.get("/endpoints/shop").await["etag"].as_str().unwrap().to_owned();
    let key = router.key("admin.key");
    let change = async |text: &str| {
        let body = json!({ "description": text });
        router
            .call_with(&key, Method::PATCH, "/endpoints/shop", &[("if-match", &format!("\"{etag}\""))], body)
            .await
    };
    change("first").await.good();
    change("second").await.refused(409, "conflict", "another change came first");
    assert_eq!(router.get("/endpoints/shop").await["description"], "first");
}

#[tokio::test]
async fn the_reader_looks_and_changes_nothing_and_sees_no_secret() {
    let router = Router::start("declared-reader").await;
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let reader = router.key("reader.key");
    let ask = async |method, path: &str, body| router.call_with(&reader, method, path, &[], body).await;
    ask(Method::GET, "/endpoints/shop", Value::Null).await.good();
    ask(Method::GET, "/state", Value::Null).await.good();
    for (method, path, body) in [
        (Method::POST, "/endpoints", json!({ "name": "other" })),
        (Method::DELETE, "/endpoints/shop", Value::Null),
        (Method::GET, "/endpoints/shop/keys", Value::Null),
        (Method::POST, "/endpoints/shop/token", Value::Null),
        (Method::POST, "/reload", Value::Null),
    ] {
        ask(method, path, body).await.refused(403, "forbidden", "the writer's");
    }
    let nobody =
        router.call_with("a-wrong-key-0123456789", Method::GET, "/endpoints", &[], Value::Null).await;
    nobody.refused(401, "unauthorized", "not the admin key");
}

#[tokio::test]
async fn what_stands_in_the_file_is_changed_there() {
    let file = "endpoints: [{name: filed, auth_mode: none, deployments: [{name: blue, replicas: ['http://127.0.0.1:9']}]}]";
    let router = Router::with_file("declared-file", file).await;
    let filed = router.get("/endpoints/filed").await;
    assert_eq!((&filed["owner"], &filed["auth_mode"]), (&json!("file"), &json!("none")));
    for (method, path, body) in [
        (Method::PATCH, "/endpoints/filed", json!({ "description": "x" })),
        (Method::DELETE, "/endpoints/filed", Value::Null),
        (Method::POST, "/endpoints", json!({ "name": "Filed" })),
        (Method::POST, "/endpoints/filed/deployments", model("green")),
        (Method::PUT, "/apply", json!({ "endpoint": { "name": "filed" } })),
    ] {
        router.call(method, path, body).await.refused(409, "owned_by_file", "configuration file");
    }
    // The other way round: a file that names what is declared is refused as a whole.
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let both = file.replace("name: filed", "name: shop");
    std::fs::write(router.folder.path().join("scoregate.yaml"), both).unwrap();
    let reload = router.call(Method::POST, "/reload", Value::Null).await;
    reload.refused(
        422,
        "configuration_rejected",
        "endpoint shop stands in the configuration file and in the state",
    );
}

#[tokio::test]
async fn a_router_without_a_state_directory_says_so() {
    let file = "endpoints: [{name: filed, auth_mode: none, deployments: [{name: blue, replicas: ['http://127.0.0.1:9']}]}]\n\
        listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}";
    let process = crate::process::RouterProcess::serve("declared-stateless", file, ("X", "x")).await;
    let mut connection = crate::process::Connection::open(process.admin).await.unwrap();
    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"{\"name\": \"shop\"}"));
    let request = http::Request::post("/endpoints").body(body).unwrap();
    let answer = crate::admin::Answer(connection.call(request).await.unwrap());
    answer.refused(409, "no_state", "--state");
}

#[tokio::test]
async fn mistakes_are_told_in_the_words_of_the_document() {
    let router = Router::start("declared-mistakes").await;
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let deployments = "/endpoints/shop/deployments";
    let with = |key: &str, value: Value| {
        let mut document = model("blue");
        document[key] = value;
        document
    };
    for (document, part) in [
        (with("instance_cuont", json!(2)), "did you mean `instance_count`?"),
        (with("instance_count", json!(0)), "instance_count"),
        (with("request_settings", json!({ "request_timeout": 1 })), "request_timeout_ms"),
        (
            with(
                "scale_settings",
                json!({ "type": "target_utilization", "min_instances": 5, "max_instances": 2 }),
            ),
            "min_instances",
        ),
        (
            with("scale_settings", json!({ "type": "target_utilization", "policy": "best" })),
            "`azureml-strict`",
        ),
        (
            with("scale_settings", json!({ "type": "target_utilization", "reject_budget_percentage": 0.1 })),
            "only for the policy `adaptive`",
        ),
        (with("liveness_probe", json!({ "period": "often" })), "period"),
    ] {
        router.call(Method::POST, deployments, document).await.refused(400, "invalid", part);
    }
    let none = json!({ "name": "blue" });
    assert_eq!(router.call(Method::POST, deployments, none).await.status(), 400);
    let traffic = router.call(Method::PUT, "/endpoints/shop/traffic", json!({ "blue": 100 })).await;
    traffic.refused(400, "invalid", "no such deployment");
    assert_eq!(router.get(deployments).await, json!({ "value": [] }));
    for (path, body) in [("/endpoints", json!([])), ("/endpoints", json!("x"))] {
        router.call(Method::POST, path, body).await.refused(400, "invalid", "JSON object");
    }
}
