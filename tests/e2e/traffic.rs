//! Which deployment serves.

use http::StatusCode;

use crate::replica::Replica;
use crate::router::{Router, SCORE, post};

async fn blue_and_green(traffic: &str) -> (Router, Replica, Replica) {
    let (blue, green) = (Replica::start(), Replica::start());
    let endpoints = format!(
        "  - name: demo\n    auth_mode: none\n    {traffic}\n    deployments:\n      - name: blue\n        \
         replicas: [\"http://{}\"]\n      - name: green\n        replicas: [\"http://{}\"]\n",
        blue.address(),
        green.address()
    );
    let router = Router::start(&endpoints).ready().await;
    // Both are needed from the first request on.
    for name in ["blue", "green"] {
        crate::router::eventually("replica ready", async || {
            let reply = post(SCORE, "{}").header("azureml-model-deployment", name).send(&router).await;
            (reply.status == StatusCode::OK).then_some(())
        })
        .await;
    }
    (router, blue, green)
}

#[tokio::test]
async fn one_percent_of_two_hundred_requests_is_two_and_the_answer_says_who_served() {
    let (router, blue, green) = blue_and_green("traffic: { green: 1 }\n    default: blue").await;
    let before = (blue.served(), green.served());
    for _ in 0..200 {
        let reply = post(SCORE, "{}").send(&router).await;
        let served = green.served() + blue.served();
        assert!(matches!(reply.header("azureml-model-deployment"), "blue" | "green"), "after {served}");
    }
    assert_eq!((blue.served() - before.0, green.served() - before.1), (198, 2));
}

#[tokio::test]
async fn the_header_goes_straight_to_a_deployment_even_at_zero_percent() {
    let (router, _, green) = blue_and_green("traffic: { blue: 100 }").await;
    let before = green.served();
    for name in ["green", "GREEN"] {
        let reply = post(SCORE, "{}").header("azureml-model-deployment", name).send(&router).await;
        assert_eq!(reply.header("azureml-model-deployment"), "green");
    }
    assert_eq!(green.served() - before, 2);
}

#[tokio::test]
async fn an_unknown_deployment_is_told_with_the_known_names() {
    let (router, blue, green) = blue_and_green("traffic: { blue: 100 }").await;
    let before = (blue.served(), green.served());
    let both = post(SCORE, "{}")
        .header("azureml-model-deployment", "blue")
        .header("azureml-model-deployment", "green");
    both.send(&router).await.expect(404, "unknown_deployment");
    let reply = post(SCORE, "{}").header("azureml-model-deployment", "red").send(&router).await;
    reply.expect(404, "unknown_deployment");
    assert_eq!(reply.json()["error"]["deployments"], serde_json::json!(["blue", "green"]));
    assert_eq!((blue.served(), green.served()), before, "never a silent fallback");
}

#[tokio::test]
async fn without_any_weight_only_the_header_works() {
    let (router, ..) = blue_and_green("traffic: {}").await;
    post(SCORE, "{}").send(&router).await.expect(404, "no_traffic");
}
