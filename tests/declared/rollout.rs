//! Changes under traffic: whoever calls notices nothing.

use http::Method;
use serde_json::{Value, json};

use crate::admin::{Client, Router, model, score};
use crate::process::Connection;

#[tokio::test]
async fn a_safe_rollout_loses_no_request() {
    let router = Router::start("declared-rollout").await;
    router.with_blue("shop").await;
    let key = router.primary_key("shop").await;
    let client = Client::start(&router, "shop", key.clone());

    let blue = "/endpoints/shop/deployments/blue";
    let answer = router.call(Method::PATCH, blue, json!({ "instance_count": 2 })).await;
    let operation = router.ended(&answer.operation().unwrap()).await;
    assert_eq!((&operation["kind"], &operation["status"]), (&json!("scale"), &json!("Succeeded")));
    assert_eq!(router.get(blue).await["replicas_ready"], 2);

    router.change(Method::POST, "/endpoints/shop/deployments", model("green")).await;
    assert_eq!(router.get("/endpoints/shop/traffic").await, json!({ "blue": 100, "green": 0 }));
    let mut connection = Connection::open(router.process.data).await.unwrap();
    assert_eq!(score(&mut connection, "shop", &key, Some("green")).await.unwrap(), (200, "green".into()));

    for (traffic, green) in [(json!({ "blue": 90, "green": 10 }), 20), (json!({ "green": 100 }), 200)] {
        router.change(Method::PUT, "/endpoints/shop/traffic", traffic).await;
        let mut by_green = 0;
        for _ in 0..200 {
            let (status, by) = score(&mut connection, "shop", &key, None).await.unwrap();
            assert_eq!(status, 200);
            by_green += u32::from(by == "green");
        }
        // The other client takes turns as well.
        assert!(by_green.abs_diff(green) <= 4, "{by_green} of 200 are not {green}");
    }
    router.change(Method::DELETE, blue, Value::Null).await;
    client.more(20).await;
    client.stop().await;
    let gone = router.call(Method::GET, blue, Value::Null).await;
    gone.refused(404, "deployment_not_found", "`green`");
    router.change(Method::DELETE, "/endpoints/shop", Value::Null).await;
    assert_eq!(score(&mut connection, "shop", &key, None).await.unwrap().0, 404);
    assert_eq!(router.get("/endpoints").await, json!({ "value": [] }));
    assert!(router.process.terminate().await.success());
}

#[tokio::test]
async fn an_update_replaces_replicas_one_for_one_and_loses_no_request() {
    let router = Router::start("declared-update").await;
    router.with_blue("shop").await;
    let key = router.primary_key("shop").await;
    let client = Client::start(&router, "shop", key);
    let blue = "/endpoints/shop/deployments/blue";
    let before = router.get(blue).await["replica_status"][0]["name"].clone();
    router.change(Method::PATCH, blue, json!({ "environment_variables": { "VERSION": 2 } })).await;
    client.more(20).await;
    client.stop().await;
    let view = router.get(blue).await;
    assert_eq!(view["environment_variables"], json!({ "VERSION": "2" }));
    let names: Vec<&Value> = view["replica_status"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert!(!names.contains(&&before) || names.len() > 1, "{before} was not replaced: {names:?}");
}

#[tokio::test]
async fn edited_files_are_another_version_of_the_same_document() {
    let router = Router::start("declared-content").await;
    let file = router.folder.path().join("model.bin");
    std::fs::write(&file, "one").unwrap();
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let mut blue = model("blue");
    blue["model"] = json!({ "path": file });
    router.change(Method::POST, "/endpoints/shop/deployments?all_traffic=true", blue.clone()).await;
    let path = "/endpoints/shop/deployments/blue";
    let same = router.call(Method::PUT, path, blue.clone()).await;
    assert_eq!((same.status(), same.operation()), (200, None), "nothing has changed");
    std::fs::write(&file, "another").unwrap();
    let before = router.get(path).await["replica_status"][0]["name"].clone();
    router.change(Method::PUT, path, blue).await;
    let names = router.get(path).await["replica_status"].clone();
    assert!(names.as_array().unwrap().iter().any(|replica| replica["name"] != before), "{names}");
}

#[tokio::test]
async fn keys_without_a_meaning_here_are_kept_and_told_once() {
    let router = Router::start("declared-no-effect").await;
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let file = router.folder.path().join("blue.yml");
    let mut blue = model("blue");
    blue["instance_type"] = json!("Standard_DS3_v2");
    std::fs::write(&file, blue.to_string()).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_scoregate"))
        .args([
            "ml",
            "online-deployment",
            "create",
            "-e",
            "shop",
            "-o",
            "tsv",
            "--query",
            "instance_type",
            "-f",
        ])
        .arg(&file)
        .env("SCOREGATE_STATE", crate::admin::state(router.folder.path()))
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "Standard_DS3_v2\n");
    assert_eq!(text(&output.stderr), "no effect here: instance_type\n");
}

#[tokio::test]
async fn an_endpoint_is_applied_as_a_whole_and_what_is_left_out_goes() {
    let router = Router::start("declared-apply").await;
    let endpoint = |traffic| json!({ "name": "shop", "auth_mode": "key", "traffic": traffic });
    let apply = async |traffic, deployments: Value| {
        let body = json!({ "endpoint": endpoint(traffic), "deployments": deployments });
        router.change(Method::PUT, "/apply", body).await;
    };
    apply(json!({ "blue": 100 }), json!([model("blue")])).await;
    assert_eq!(router.get("/endpoints/shop/traffic").await, json!({ "blue": 100 }));
    let key = router.primary_key("shop").await;
    let client = Client::start(&router, "shop", key);
    apply(json!({ "blue": 100, "green": 0 }), json!([model("blue"), model("green")])).await;
    apply(json!({ "blue": 90, "green": 10 }), json!([model("blue"), model("green")])).await;
    apply(json!({ "green": 100 }), json!([model("green")])).await;
    client.more(20).await;
    client.stop().await;
    assert_eq!(router.get("/endpoints/shop/traffic").await, json!({ "green": 100 }));
    let names = router.get("/endpoints/shop/deployments").await;
    assert_eq!(names["value"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn events_tell_of_a_change_as_it_happens() {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let router = Router::start("declared-events").await;
    let mut stream = tokio::net::TcpStream::connect(router.process.admin).await.unwrap();
    let key = router.key("admin.key");
    let request = format!("GET /events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    // The head is there before anything happens.
    assert!(lines.next_line().await.unwrap().unwrap().contains("200"));
    router.with_blue("shop").await;
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let line = lines.next_line().await.unwrap().unwrap();
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data).unwrap();
        let ended = event["status"] == "Succeeded";
        seen.push(event);
        if ended {
            break;
        }
    }
    let kinds: Vec<&str> = seen.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"declared") && kinds.contains(&"operation"), "{seen:?}");
    assert_eq!(seen.last().unwrap()["deployment"], "blue");
}
