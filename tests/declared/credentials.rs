//! Keys and tokens: new ones work at once, old ones no longer.

use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Value, json};

use crate::admin::{Router, eventually, model, score};
use crate::process::Connection;

#[tokio::test]
async fn a_regenerated_key_works_at_once_and_the_old_one_no_longer() {
    let router = Router::start("declared-keys").await;
    router.with_blue("shop").await;
    let keys = async || {
        let keys = router.get("/endpoints/shop/keys").await;
        ["primaryKey", "secondaryKey"].map(|key| keys[key].as_str().unwrap().to_owned())
    };
    // One connection, which remembers the last key.
    let mut connection = Connection::open(router.process.data).await.unwrap();
    let mut status = async |key: &str| score(&mut connection, "shop", key, None).await.unwrap().0;
    let [first, second] = keys().await;
    assert_eq!((status(&second).await, status(&first).await), (200, 200));
    // The SDK sends the present key; it means a new one.
    for value in [Value::Null, json!(""), json!(first)] {
        let [before, _] = keys().await;
        assert_eq!(status(&before).await, 200);
        let body = json!({ "keyType": "Primary", "keyValue": value.as_str().map(|_| before.clone()) });
        router.change(Method::POST, "/endpoints/shop/keys/regenerate", body).await;
        let [after, same] = keys().await;
        assert_eq!((status(&before).await, status(&after).await, status(&second).await), (401, 200, 200));
        assert_eq!(same, second);
    }
    let own = json!({ "keyType": "secondary", "keyValue": "my-own-key-0123456789" });
    router.change(Method::POST, "/endpoints/shop/keys/regenerate", own).await;
    assert_eq!((status("my-own-key-0123456789").await, status(&second).await), (200, 401));
    for (body, part) in [
        (json!({ "keyType": "third" }), "keyType"),
        (json!({ "keyType": "primary", "keyValue": "short" }), "16 to 256 visible"),
        (json!({ "keyType": "primary", "key": "x" }), "`keyType`, `keyValue`"),
    ] {
        let answer = router.call(Method::POST, "/endpoints/shop/keys/regenerate", body).await;
        answer.refused(400, "invalid", part);
    }
    let token = router.call(Method::POST, "/endpoints/shop/token", Value::Null).await;
    token.refused(400, "no_tokens", "aml_token");
}

#[tokio::test]
async fn a_token_works_until_its_expiry_and_not_after() {
    let router = Router::start("declared-token").await;
    for name in ["shop", "other"] {
        router.change(Method::POST, "/endpoints", json!({ "name": name, "auth_mode": "aml_token" })).await;
        let path = format!("/endpoints/{name}/deployments?all_traffic=true");
        router.change(Method::POST, &path, model("blue")).await;
    }
    router.call(Method::GET, "/endpoints/shop/keys", Value::Null).await.refused(
        400,
        "no_keys",
        "does not use keys",
    );
    let token = router.change(Method::POST, "/endpoints/shop/token", json!({ "expires_in_s": 3 })).await;
    assert_eq!(token["tokenType"], "Bearer");
    let (expiry, refresh) =
        (token["expiryTimeUtc"].as_u64().unwrap(), token["refreshAfterTimeUtc"].as_u64().unwrap());
    assert!(refresh <= expiry);
    let token = token["accessToken"].as_str().unwrap();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // A busy machine may need longer than the token lives; then there is nothing to be seen of its life.
    let (status, _) = router.score("shop", token, None).await;
    assert!(status == 200 || now() >= expiry, "{status}");
    assert_eq!(router.score("other", token, None).await.0, 401, "a token is for one endpoint");
    eventually("the token's end", async || (now() > expiry).then_some(())).await;
    assert_eq!(router.score("shop", token, None).await.0, 401);
    // One that lives long enough works for certain.
    let token = router.change(Method::POST, "/endpoints/shop/token", json!({})).await;
    let life = token["expiryTimeUtc"].as_u64().unwrap() - now();
    assert!(Duration::from_secs(life) > Duration::from_secs(3_500), "{life}");
    assert_eq!(router.score("shop", token["accessToken"].as_str().unwrap(), None).await.0, 200);
}
