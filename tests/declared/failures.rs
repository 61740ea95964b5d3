//! Deployments that do not come to life, and updates that fail.

use http::Method;
use serde_json::{Value, json};

use crate::admin::{Client, Router, broken, model};

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
    refused.refused(400, "invalid", "has failed");
    let logs = router.get("/endpoints/shop/deployments/green/logs?tail=1").await;
    assert!(logs["content"].as_str().unwrap().ends_with("no model here\n"), "{logs}");
    // Repaired, it may.
    router.change(Method::PUT, "/endpoints/shop/deployments/green", model("green")).await;
    router.change(Method::PUT, "/endpoints/shop/traffic", json!({ "blue": 90, "green": 10 })).await;
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
