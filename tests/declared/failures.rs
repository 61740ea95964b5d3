//! Deployments that do not come to life, and updates that fail.

use http::Method;
use serde_json::{Value, json};

use crate::admin::{Client, Router, broken, eventually, model, serve, state};
use crate::process::RouterProcess;

#[tokio::test]
async fn a_deployment_that_fails_says_why_and_takes_no_traffic() {
    let router = Router::start("declared-failed").await;
    router.with_blue("shop").await;
    let answer =
        router.call(Method::POST, "/endpoints/shop/deployments?all_traffic=true", broken("green")).await;
    let operation = router.ended(&answer.operation().unwrap()).await;
    assert_eq!(operation["status"], "Failed");
    assert_eq!(operation["error"]["code"], "UserScriptInitFailed");
    assert!(operation["error"]["message"].as_str().unwrap().contains("no model here"), "{operation}");
    let green = router.get("/endpoints/shop/deployments/green").await;
    assert_eq!((&green["provisioning_state"], &green["error"]), (&json!("Failed"), &operation["error"]));
    assert_eq!(router.get("/endpoints/shop/traffic").await, json!({ "blue": 100, "green": 0 }));
    let traffic = json!({ "blue": 90, "green": 10 });
    let refused = router.call(Method::PUT, "/endpoints/shop/traffic", traffic).await;
    refused.refused(400, "invalid", "has not been ready yet");
    let logs = router.get("/endpoints/shop/deployments/green/logs?tail=1").await;
    assert!(logs["content"].as_str().unwrap().ends_with("no model here\n"), "{logs}");
    // Repaired, it may.
    router.change(Method::PUT, "/endpoints/shop/deployments/green", model("green")).await;
    router.change(Method::PUT, "/endpoints/shop/traffic", json!({ "blue": 90, "green": 10 })).await;
}

#[tokio::test]
async fn a_deployment_that_still_starts_is_given_no_traffic() {
    let router = Router::start("declared-starting").await;
    router.with_blue("shop").await;
    let mut green = model("green");
    green["process"]["command"] = json!(["sleep", "100"]);
    router.call(Method::POST, "/endpoints/shop/deployments", green).await.good();
    let traffic = router.call(Method::PUT, "/endpoints/shop/traffic", json!({ "green": 100 })).await;
    traffic.refused(400, "invalid", "has not been ready yet");
    // Nobody has to wait for its end.
    router.change(Method::DELETE, "/endpoints/shop/deployments/green", Value::Null).await;
    router.call(Method::GET, "/endpoints/shop/deployments/green", Value::Null).await.refused(
        404,
        "deployment_not_found",
        "`blue`",
    );
}

#[tokio::test]
async fn a_router_that_dies_in_an_update_that_fails_comes_back_with_what_was_good() {
    let router = Router::start("declared-mid-update").await;
    router.with_blue("shop").await;
    let key = router.primary_key("shop").await;
    let blue = "/endpoints/shop/deployments/blue";
    let before = router.get(blue).await;
    let mut bad = model("blue");
    bad["process"]["command"] = json!(["sh", "-c", "sleep 1; exit 3"]);
    assert!(router.call(Method::PUT, blue, bad).await.operation().is_some());
    let Router { process, folder } = router;
    process.kill().await;
    let router = Router { process: serve("declared-mid-update", folder.path(), None).await, folder };
    eventually("an answer of the old replicas", async || {
        (router.score("shop", &key, None).await.0 == 200).then_some(())
    })
    .await;
    let client = Client::start(&router, "shop", key);
    eventually("the end of the update", async || {
        (router.get(blue).await["provisioning_state"] == "Failed").then_some(())
    })
    .await;
    client.more(20).await;
    client.stop().await;
    let after = router.get(blue).await;
    assert_eq!((&after["process"], &after["etag"]), (&before["process"], &before["etag"]));
}

#[tokio::test]
async fn a_deployment_that_failed_is_not_a_success_after_a_restart() {
    let router = Router::start("declared-still-failed").await;
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let answer = router.call(Method::POST, "/endpoints/shop/deployments", broken("blue")).await;
    router.ended(&answer.operation().unwrap()).await;
    let Router { process, folder } = router;
    process.kill().await;
    let router = Router { process: serve("declared-still-failed", folder.path(), None).await, folder };
    let traffic = router.call(Method::PUT, "/endpoints/shop/traffic", json!({ "blue": 100 })).await;
    traffic.refused(400, "invalid", "has not been ready yet");
    eventually("a failure", async || {
        let state = router.get("/endpoints/shop/deployments/blue").await["provisioning_state"].clone();
        assert_ne!(state, "Succeeded");
        (state == "Failed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_replaces_no_replica_can_be_changed() {
    let router = Router::start("declared-in-place").await;
    router.with_blue("shop").await;
    let blue = "/endpoints/shop/deployments/blue";
    let name = router.get(blue).await["replica_status"][0]["name"].clone();
    router.change(Method::PATCH, blue, json!({ "process": { "start_timeout_s": 7 } })).await;
    router.change(Method::PATCH, blue, json!({ "request_settings": { "max_queue_wait_ms": 0 } })).await;
    assert_eq!(router.get(blue).await["replica_status"][0]["name"], name);
    // A list of servers grows.
    let itself = format!("http://{}", router.process.data);
    let listed = |urls: &[&str]| json!({ "name": "listed", "replicas": urls, "readiness_probe": { "initial_delay": 0, "period": 1 } });
    router.change(Method::POST, "/endpoints/shop/deployments", listed(&[&itself])).await;
    let other = itself.replace("127.0.0.1", "localhost");
    router.change(Method::PUT, "/endpoints/shop/deployments/listed", listed(&[&itself, &other])).await;
    assert_eq!(router.get("/endpoints/shop/deployments/listed").await["replicas_ready"], 2);
}

#[tokio::test]
async fn a_whole_that_fails_changes_nothing_of_what_was_there() {
    let router = Router::start("declared-whole-fails").await;
    router.with_blue("shop").await;
    let before = router.get("/endpoints/shop").await;
    let endpoint = json!({ "name": "shop", "auth_mode": "none", "traffic": { "blue": 100 } });
    let body = json!({ "endpoint": endpoint, "deployments": [broken("blue")] });
    let answer = router.call(Method::PUT, "/apply", body.clone()).await;
    assert_eq!(router.ended(&answer.operation().unwrap()).await["status"], "Failed");
    let after = router.get("/endpoints/shop").await;
    assert_eq!((&after["auth_mode"], &after["etag"]), (&json!("key"), &before["etag"]));
    let key = router.key("admin.key");
    let late =
        router.call_with(&key, Method::PUT, "/apply", &[("if-match", "\"0000000000000000\"")], body).await;
    late.refused(409, "conflict", "another change came first");
}

#[tokio::test]
async fn an_update_that_fails_leaves_the_old_replicas_serving_and_the_old_document() {
    let router = Router::start("declared-rollback").await;
    router.with_blue("shop").await;
    let key = router.primary_key("shop").await;
    let client = Client::start(&router, "shop", key);
    let blue = "/endpoints/shop/deployments/blue";
    let before = router.get(blue).await;
    let answer = router.call(Method::PUT, blue, broken("blue")).await;
    let operation = answer.operation().unwrap();
    let again = router.call(Method::PATCH, blue, json!({ "instance_count": 3 })).await;
    again.refused(409, "operation_in_progress", &operation);
    let operation = router.ended(&operation).await;
    assert_eq!((&operation["kind"], &operation["status"]), (&json!("update"), &json!("Failed")));
    client.more(20).await;
    client.stop().await;
    let after = router.get(blue).await;
    assert_eq!(after["provisioning_state"], "Failed");
    assert_eq!(after["process"], before["process"]);
    assert_eq!(after["etag"], before["etag"]);
    assert_eq!(after["replicas_ready"], 1);
    // The next one that works makes it good again.
    router.change(Method::PATCH, blue, json!({ "environment_variables": { "A": "1" } })).await;
    let healed = router.get(blue).await;
    assert_eq!((&healed["provisioning_state"], healed.get("error")), (&json!("Succeeded"), None));
    router.call(Method::DELETE, blue, Value::Null).await.refused(409, "deployment_has_traffic", "100 %");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>/dev/full", "sh", env!("CARGO_BIN_EXE_scoregate"), "serve"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state"]);
    command.arg(state(folder.path()));
    let process = RouterProcess::start("declared-full-log", command).await;
    let router = Router { process, folder };
    router.with_blue("shop").await;
    let key = router.primary_key("shop").await;
    assert_eq!(router.score("shop", &key, None).await, (200, "blue".into()));
}
