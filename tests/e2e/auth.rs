//! Who may call.

use http::StatusCode;

use crate::replica::Replica;
use crate::router::{KEY, Router, SCORE, blue, post};

fn with_keys(replica: &Replica) -> String {
    blue(&[replica.address()], "").replace(
        "auth_mode: none",
        &format!("keys: {{ primary: \"{KEY}\", secondary: \"file:secondary.key\" }}"),
    )
}

async fn router(endpoints: &str) -> Router {
    Router::start(endpoints).ready().await
}

#[tokio::test]
async fn both_keys_are_valid_and_nothing_else_is() {
    let replica = Replica::start();
    // The second key comes from a file beside the configuration.
    let secondary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secondary.path(), "other-key-0123456789\n").unwrap();
    let endpoints = with_keys(&replica).replace("secondary.key", secondary.path().to_str().unwrap());
    let router = router(&endpoints).await;
    for key in [KEY, "other-key-0123456789"] {
        assert_eq!(post(SCORE, "{}").bearer(key).send(&router).await.status, StatusCode::OK);
    }
    let missing = post(SCORE, "{}").send(&router).await;
    missing.expect(401, "unauthorized");
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    let wrong = [
        format!("Bearer {KEY}x"),
        format!("Bearer {}", &KEY[1..]),
        format!("Basic {KEY}"),
        "Bearer".to_owned(),
        String::new(),
        KEY.to_owned(),
    ];
    for value in &wrong {
        post(SCORE, "{}").header("authorization", value).send(&router).await.expect(401, "unauthorized");
    }
    let twice = post(SCORE, "{}").bearer(KEY).bearer(KEY).send(&router).await;
    twice.expect(401, "unauthorized");
    assert_eq!(replica.served(), 2);
}

#[tokio::test]
async fn the_model_does_not_see_the_credential_unless_the_deployment_asks_for_it() {
    let replica = Replica::start();
    let endpoints =
        blue(&[replica.address()], "").replace("auth_mode: none", &format!("keys: {{ primary: \"{KEY}\" }}"));
    let router = router(&endpoints).await;
    post(SCORE, "{}").bearer(KEY).send(&router).await;
    assert!(!replica.requests().last().unwrap().headers.contains_key("authorization"));
    let asking = endpoints.replace("- name: blue", "- name: blue\n        forward_authorization: true");
    router.reload(&asking).await.unwrap();
    post(SCORE, "{}").bearer(KEY).send(&router).await;
    assert_eq!(replica.requests().last().unwrap().headers["authorization"], format!("Bearer {KEY}"));
}

#[tokio::test]
async fn secrets_show_nowhere() {
    let replica = Replica::start();
    let endpoints =
        blue(&[replica.address()], "").replace("auth_mode: none", &format!("keys: {{ primary: \"{KEY}\" }}"));
    let router = router(&endpoints).await;
    let path = format!("{SCORE}?key={KEY}");
    post(&path, "{}").bearer(KEY).send(&router).await;
    let shown = [
        router.state().await.to_string(),
        format!("{:?}", router.access_log(1).await),
        crate::router::get("/metrics").send_to(router.admin()).await.text(),
        format!("{:?}", scoregate::config::load(&router.file()).unwrap().settings),
        scoregate::config::effective(&scoregate::config::load(&router.file()).unwrap().settings),
    ];
    for text in shown {
        assert!(!text.contains(KEY), "{text}");
    }
}

mod tokens {
    use std::time::{SystemTime, UNIX_EPOCH};

    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "a-shared-secret-of-32-characters";

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    fn token(claims: &Value) -> String {
        encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    fn with_jwt(replica: &Replica) -> String {
        blue(&[replica.address()], "").replace(
            "auth_mode: none",
            &format!(
                "auth_mode: jwt\n    jwt:\n      issuers: [me]\n      audiences: [demo]\n      leeway_s: 0\n      \
                 required_claims: {{ roles: [scorer] }}\n      keys:\n        - {{ algorithm: HS256, secret: {SECRET} }}"
            ),
        )
    }

    #[tokio::test]
    async fn a_token_is_judged_by_signature_time_issuer_audience_and_rights() {
        let replica = Replica::start();
        let router = router(&with_jwt(&replica)).await;
        let good = json!({"iss": "me", "aud": "demo", "exp": now() + 600, "roles": ["scorer"], "sub": "ann"});
        let with = |key: &str, value: Value| {
            let mut claims = good.clone();
            claims[key] = value;
            token(&claims)
        };
        for _ in 0..2 {
            let reply = post(SCORE, "{}").bearer(&token(&good)).send(&router).await;
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        }
        for bad in [
            with("iss", json!("you")),
            with("aud", json!("other")),
            with("exp", json!(now() - 5)),
            with("exp", Value::Null),
            with("nbf", json!(now() + 600)),
            token(&good) + "x",
        ] {
            post(SCORE, "{}").bearer(&bad).send(&router).await.expect(401, "unauthorized");
        }
        let stranger = with("roles", json!(["reader"]));
        let reply = post(SCORE, "{}").bearer(&stranger).send(&router).await;
        reply.expect(403, "forbidden");
        assert_eq!(reply.header("www-authenticate"), "");
        assert_eq!(replica.served(), 2);
        let log = router.access_log(2).await;
        assert_eq!(log[0]["IdentityData"], "ann");
    }

    /// A signing key, and the set that publishes its public half.
    fn published(kid: &str) -> (EncodingKey, Value) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        (key, json!({ "keys": [jwk] }))
    }

    #[tokio::test]
    async fn keys_of_a_key_set_file_are_taken_up_when_it_changes() {
        let replica = Replica::start();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        let (first, first_set) = published("one");
        let (second, second_set) = published("two");
        std::fs::write(&file, first_set.to_string()).unwrap();
        let jwt = format!("auth_mode: jwt\n    jwt: {{ audiences: [demo], jwks_file: {} }}", file.display());
        let router = router(&blue(&[replica.address()], "").replace("auth_mode: none", &jwt)).await;
        let claims = json!({"aud": "demo", "exp": now() + 600});
        let token = |kid: &str, key| {
            let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
            encode(&header, &claims, key).unwrap()
        };
        let (old, new) = (token("one", &first), token("two", &second));
        crate::router::eventually("keys loaded", async || {
            (post(SCORE, "{}").bearer(&old).send(&router).await.status == StatusCode::OK).then_some(())
        })
        .await;
        post(SCORE, "{}").bearer(&new).send(&router).await.expect(401, "unauthorized");
        // What is no key set changes nothing.
        std::fs::write(&file, "{").unwrap();
        assert_eq!(post(SCORE, "{}").bearer(&old).send(&router).await.status, StatusCode::OK);
        std::fs::write(&file, second_set.to_string()).unwrap();
        crate::router::eventually("keys replaced", async || {
            (post(SCORE, "{}").bearer(&new).send(&router).await.status == StatusCode::OK).then_some(())
        })
        .await;
        post(SCORE, "{}").bearer(&old).send(&router).await.expect(401, "unauthorized");
    }
}
