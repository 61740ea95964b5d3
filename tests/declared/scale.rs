//! The number of replicas by an operator's word and down to zero, with real processes.

use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::admin::{Router, eventually, model, serve, state};

const OVERRIDE: &str = "/endpoints/shop/deployments/blue/override";

/// Replicas of the first deployment that are ready, and what is known of its bounds.
async fn seen(router: &Router) -> (u64, Value) {
    let state = router.get("/state").await;
    let blue = &state["endpoints"][0]["deployments"][0];
    (blue["ready"].as_u64().unwrap(), blue["bounds"].clone())
}

async fn ready(router: &Router, replicas: u64) {
    eventually("that many replicas", async || (seen(router).await.0 == replicas).then_some(())).await;
}

async fn command(router: &Router, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
    command.args(["scale", "-e", "shop", "-d", "blue", "--state"]).arg(state(router.folder.path()));
    command.args(arguments).output().await.unwrap()
}

#[tokio::test]
async fn an_operator_sets_a_number_for_a_while_that_outlives_a_restart() {
    let router = Router::start("declared-override").await;
    router.with_blue("shop").await;
    let output = command(&router, &["--replicas", "3", "--for", "2h"]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with("shop/blue: 3 replicas until ") && said.contains("(in 2 h)"), "{said}");
    let output = command(&router, &["--replicas", "3", "--for", "3h"]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("(in 3 h); this replaces 3 replicas until "), "{said}");
    assert!(!said.contains('.'), "no fraction of a second: {said}");
    ready(&router, 3).await;
    let reason =
        router.get("/state").await["endpoints"][0]["deployments"][0]["last_decision"]["reason"].clone();
    assert!(reason.as_str().unwrap().starts_with("held at 3 by an operator until "), "{reason}");
    // What is declared stays as it is, and may change meanwhile.
    assert_eq!(router.get("/endpoints/shop/deployments/blue").await["instance_count"], 1);
    router
        .change(Method::POST, "/endpoints/shop/deployments/blue/scale", json!({ "instance_count": 2 }))
        .await;
    assert_eq!(seen(&router).await.0, 3);

    let Router { process, folder } = router;
    process.kill().await;
    let router = Router { process: serve("declared-override", folder.path(), None).await, folder };
    ready(&router, 3).await;
    assert_eq!(seen(&router).await.1["by"], "operator");
    assert!(router.get(OVERRIDE).await["seconds_left"].as_u64().unwrap() > 7000);

    let reader = router.key("reader.key");
    for method in [Method::PUT, Method::DELETE] {
        let answer = router.call_with(&reader, method, OVERRIDE, &[], json!({})).await;
        answer.refused(403, "forbidden", "reader");
    }
    let seen_by_reader = router.call_with(&reader, Method::GET, OVERRIDE, &[], Value::Null).await;
    assert_eq!(seen_by_reader.good()["min_instances"], 3);
    assert!(command(&router, &["--clear"]).await.status.success());
    ready(&router, 2).await;
    router.call(Method::GET, OVERRIDE, Value::Null).await.refused(404, "override_not_found", "blue");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let file = "endpoints: [{name: shop, auth_mode: none, deployments: [{name: blue, replicas: ['http://127.0.0.1:9']}]}]";
    let router = Router::with_file("declared-override-refused", file).await;
    let two = json!({ "instance_count": 2, "duration": 60 });
    router.call(Method::PUT, OVERRIDE, two.clone()).await.refused(409, "not_scalable", "the list `replicas`");
    let elsewhere = OVERRIDE.replace("blue", "green");
    router.call(Method::PUT, &elsewhere, two).await.refused(
        404,
        "deployment_not_found",
        "no such deployment",
    );
    for (body, part) in [
        (json!({ "instance_count": 2 }), "when it ends"),
        (json!({ "duration": 60 }), "either `instance_count`"),
        (json!({ "instance_count": 0, "duration": 60 }), "from 1 to 1000"),
        (json!({ "min_instances": 3, "max_instances": 2, "duration": 60 }), "`min_instances` is 3"),
        (json!({ "instance_count": 2, "min_instances": 2, "duration": 60 }), "either `instance_count`"),
        (json!({ "instance_count": 2, "until": "2020-01-01T00:00:00Z" }), "in the next 30 days"),
        (json!({ "instance_count": 2, "until": "soon" }), "with its offset"),
        (json!({ "instance_count": 2, "duration": 60, "why": "x" }), "`until`"),
    ] {
        router.call(Method::PUT, OVERRIDE, body).await.refused(400, "invalid", part);
    }
    let output = command(&router, &["--replicas", "3"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[tokio::test]
async fn from_zero_a_request_waits_for_a_replica_to_start() {
    let router = Router::start("declared-zero").await;
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let mut blue = model("blue");
    blue.as_object_mut().unwrap().remove("instance_count");
    blue["scale_settings"] = json!({
        "type": "target_utilization", "min_instances": 0, "max_instances": 2, "idle_time": 1,
        "schedules": [{ "cron": "0 8 29 2 *", "duration": 60, "min_instances": 1 }],
    });
    router.change(Method::POST, "/endpoints/shop/deployments?all_traffic=true", blue).await;
    let key = router.primary_key("shop").await;
    assert_eq!(seen(&router).await.0, 0);
    // Longer than the queue's 500 ms on a busy machine, and never refused for it.
    assert_eq!(router.score("shop", &key, None).await, (200, "blue".to_owned()));
    assert!(seen(&router).await.0 >= 1);
}
