//! kill -9 at random moments of a script that changes what is declared: afterwards there is what was before a change or what
//! it makes, and replicas that match.

use std::time::Duration;

use http::Method;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::admin::{Router, eventually, model, serve};
use crate::process::Connection;

/// Deaths in one run; `KILLS=200` for more.
const KILLS: usize = 12;

#[tokio::test]
async fn killed_at_any_moment_the_state_is_one_of_two_and_replicas_match_it() {
    let kills = std::env::var("KILLS").map_or(KILLS, |text| text.parse().expect("KILLS is a number"));
    let seed =
        std::env::var("SEED").map_or_else(|_| rand::random(), |text| text.parse().expect("SEED is a number"));
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut router = Router::start("declared-crash").await;
    router.with_blue("shop").await;
    let mut step = 0;
    for kill in 0..kills {
        let before = declared(&router).await;
        let (method, path, body) = change(step);
        // From before the change reaches the router to after its answer.
        let moment = Duration::from_micros(rng.random_range(0..40_000));
        let asked = ask(&router, method, path, &body);
        let answered = tokio::select! {
            answered = asked => {
                tokio::time::sleep(moment / 4).await;
                answered
            }
            () = tokio::time::sleep(moment) => false,
        };
        let Router { process, folder } = router;
        process.kill().await;
        router = Router { process: serve("declared-crash", folder.path(), None).await, folder };
        let after = declared(&router).await;
        let expected = expected(&before, step);
        let place = format!("death {kill} (SEED={seed}), step {step}: {path}");
        assert!(
            after == expected || (!answered && after == before),
            "{place}: {after} is neither {before} nor {expected}"
        );
        match_replicas(&router, &after, &place).await;
        step = if after == expected { step + 1 } else { step };
    }
}

#[tokio::test]
async fn what_is_to_follow_a_change_follows_after_a_restart_as_well() {
    let router = Router::start("declared-pending").await;
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let mut slow = model("blue");
    slow["process"]["command"] = json!(["sh", "-c", "sleep 1; exec {scoregate} model --port {port}"]);
    let created = router.call(Method::POST, "/endpoints/shop/deployments?all_traffic=true", slow).await;
    assert!(created.operation().is_some());
    assert_eq!(router.get("/endpoints/shop/traffic").await, json!({ "blue": 0 }));
    let Router { process, folder } = router;
    process.kill().await;
    let router = Router { process: serve("declared-pending", folder.path(), None).await, folder };
    let view = router.get("/endpoints/shop").await;
    assert_eq!(view["pending"], json!({ "wait": ["blue"], "traffic": { "blue": 100 } }));
    eventually("traffic", async || {
        let endpoint = router.get("/endpoints/shop").await;
        (endpoint["traffic"] == json!({ "blue": 100 }) && endpoint.get("pending").is_none()).then_some(())
    })
    .await;
}

/// The script: scale, a second deployment, traffic, back, and from the beginning.
fn change(step: usize) -> (Method, &'static str, Value) {
    let blue = "/endpoints/shop/deployments/blue";
    match step % 6 {
        0 => (Method::PATCH, blue, json!({ "instance_count": 2 })),
        1 => (Method::POST, "/endpoints/shop/deployments", model("green")),
        2 => (Method::PUT, "/endpoints/shop/traffic", json!({ "blue": 90, "green": 10 })),
        3 => (Method::PUT, "/endpoints/shop/traffic", json!({ "blue": 100 })),
        4 => (Method::DELETE, "/endpoints/shop/deployments/green", Value::Null),
        _ => (Method::PATCH, blue, json!({ "instance_count": 1 })),
    }
}

/// What a step makes of the state.
fn expected(before: &Value, step: usize) -> Value {
    let mut after = before.clone();
    match step % 6 {
        0 => after["replicas"]["blue"] = json!(2),
        1 => {
            after["replicas"]["green"] = json!(1);
            after["traffic"]["green"] = json!(0);
        }
        2 => after["traffic"] = json!({ "blue": 90, "green": 10 }),
        3 => after["traffic"] = json!({ "blue": 100, "green": 0 }),
        4 => {
            for key in ["replicas", "traffic"] {
                after[key].as_object_mut().unwrap().remove("green");
            }
        }
        _ => after["replicas"]["blue"] = json!(1),
    }
    after
}

/// Traffic and wanted replicas as the router tells them.
async fn declared(router: &Router) -> Value {
    let all = router.get("/endpoints/shop/deployments").await;
    let replicas = all["value"].as_array().unwrap().iter();
    let replicas: serde_json::Map<String, Value> =
        replicas.map(|d| (d["name"].as_str().unwrap().to_owned(), d["instance_count"].clone())).collect();
    json!({ "replicas": replicas, "traffic": router.get("/endpoints/shop/traffic").await })
}

/// Whether the change was answered well before the death.
async fn ask(router: &Router, method: Method, path: &str, body: &Value) -> bool {
    let Ok(mut connection) = Connection::open(router.process.admin).await else { return false };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {}", router.key("admin.key")))
        .header("content-type", "application/json");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = request.body(http_body_util::Full::new(body.into())).unwrap();
    connection.call(request).await.is_ok_and(|answer| answer.status().is_success())
}

async fn match_replicas(router: &Router, declared: &Value, place: &str) {
    eventually(&format!("replicas as declared, {place}"), async || {
        let all = router.get("/endpoints/shop/deployments").await;
        let all = all["value"].as_array().unwrap().clone();
        let ready =
            all.iter().all(|d| d["replicas_ready"] == declared["replicas"][d["name"].as_str().unwrap()]);
        ready.then_some(())
    })
    .await;
}
