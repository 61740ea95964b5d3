//! Key sets from files and URLs: first load, rotation, outage, refresh for an unknown key.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::SystemTime;

use http::{HeaderValue, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::control::fetch::tests::Server;
use crate::core::identity::{AuthError, JwtSettings};
use crate::core::settings::{AuthMode, AuthSettings};
use crate::data::verify::testkeys::{RSA, Signer, sign};
use crate::data::verify::{TokenCache, Verifier};
use crate::shutdown::{Tasks, drain};

fn verifier(keys: JwtKeys) -> Verifier {
    let rules = JwtSettings {
        keys,
        issuers: Vec::new(),
        audiences: Vec::new(),
        leeway: Duration::ZERO,
        required_claims: [].into(),
    };
    Verifier::new(&AuthSettings {
        mode: AuthMode::Jwt,
        keys: Vec::new(),
        clients: Vec::new(),
        jwt: Some(rules),
    })
    .unwrap()
}

fn url_verifier(url: String, refresh: Duration) -> Verifier {
    verifier(JwtKeys::JwksUrl { url, refresh })
}

fn accepts(verifier: &Verifier, signer: &Signer, kid: &str) -> bool {
    let token = signer.token(Some(kid), &json!({"exp": 2}));
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    match verifier.verify(Some(&value), 1, &mut TokenCache::new()) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, AuthError::Invalid);
            false
        }
    }
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

#[tokio::test]
async fn a_set_at_a_url_is_kept_through_failures_and_follows_a_rotation() {
    let tasks = Tasks::new();
    let (trigger, listener) = drain();
    let mut server = Server::start(&tasks).await;
    server.answer(StatusCode::OK, &set(&[RSA[0].jwk("a")]));
    let verifier = url_verifier(server.url(), Duration::from_millis(1));
    tasks.spawn(keep(Arc::clone(verifier.jwks().unwrap()), listener));

    server.asked_twice().await;
    assert!(accepts(&verifier, &RSA[0], "a"));
    assert!(!accepts(&verifier, &RSA[1], "b"));

    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, "{}"),
        (StatusCode::OK, "not json"),
        (StatusCode::OK, r#"{"keys": []}"#),
        (StatusCode::FOUND, ""),
    ] {
        server.answer(status, body);
        server.asked_twice().await;
        assert!(accepts(&verifier, &RSA[0], "a"), "{status} {body}");
    }

    server.answer(StatusCode::OK, &set(&[RSA[1].jwk("b")]));
    server.asked_twice().await;
    assert!(accepts(&verifier, &RSA[1], "b"));
    assert!(!accepts(&verifier, &RSA[0], "a"));

    drop(verifier);
    trigger.force();
    server.stop();
    timeout(Duration::from_secs(5), tasks.ended()).await.unwrap();
}

#[tokio::test]
async fn the_task_ends_with_its_verifier() {
    let tasks = Tasks::new();
    let (_trigger, listener) = drain();
    let verifier = verifier(JwtKeys::JwksFile("/nowhere/keys.json".into()));
    tasks.spawn(keep(Arc::clone(verifier.jwks().unwrap()), listener));
    tokio::task::yield_now().await;
    assert_eq!(tasks.len(), 1);
    drop(verifier);
    timeout(Duration::from_secs(5), tasks.ended()).await.unwrap();
}

/// Answers in the given order, then with 503, and notes the seconds at which it was asked.
struct Script {
    begin: Instant,
    answers: RefCell<VecDeque<String>>,
    asked: RefCell<Vec<u64>>,
}

impl Script {
    fn new<const N: usize>(answers: [String; N]) -> Self {
        Self { begin: Instant::now(), answers: RefCell::new(answers.into()), asked: RefCell::default() }
    }

    async fn run(&self, verifier: &Verifier, period: u64, seconds: u64) {
        let address = Address::parse("http://127.0.0.1/").unwrap();
        let mut keeper = Keeper { slot: verifier.jwks().unwrap(), taken: None };
        let fetch = || async {
            self.asked.borrow_mut().push((Instant::now() - self.begin).as_secs());
            let answer = self.answers.borrow_mut().pop_front();
            answer.map(Bytes::from).ok_or(FetchError::Status(StatusCode::SERVICE_UNAVAILABLE))
        };
        let run = keeper.follow_url(&address, Duration::from_secs(period), fetch);
        assert!(timeout(Duration::from_secs(seconds), run).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_with_growing_pauses() {
    let verifier = url_verifier("http://127.0.0.1/".into(), Duration::from_secs(3600));
    let script = Script::new([]);
    script.run(&verifier, 3600, 250).await;
    assert_eq!(*script.asked.borrow(), [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
}

#[tokio::test(start_paused = true)]
async fn unknown_key_ids_bring_a_fetch_forward_at_most_every_ten_seconds() {
    let verifier = url_verifier("http://127.0.0.1/".into(), Duration::from_secs(3600));
    let rotated = set(&[RSA[0].jwk("a"), RSA[1].jwk("b")]);
    let script = Script::new([set(&[RSA[0].jwk("a")]), rotated.clone(), rotated.clone(), rotated]);
    let flood = async {
        sleep(Duration::from_secs(3)).await;
        assert!(!accepts(&verifier, &RSA[1], "b"));
        sleep(Duration::from_secs(8)).await;
        assert!(accepts(&verifier, &RSA[1], "b"));
        for _ in 0..200 {
            assert!(!accepts(&verifier, &RSA[1], "none"));
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(script.run(&verifier, 3600, 35), flood);
    assert_eq!(*script.asked.borrow(), [0, 10, 20, 30]);
    assert!(accepts(&verifier, &RSA[1], "b"));
}

#[tokio::test(start_paused = true)]
async fn an_equal_set_leaves_cached_tokens_alone() {
    let verifier = url_verifier("http://127.0.0.1/".into(), Duration::from_secs(3600));
    let same = set(&[RSA[0].jwk("a")]);
    let token = RSA[0].token(None, &json!({"exp": 2}));
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    let mut cache = TokenCache::new();
    let script = Script::new([same.clone(), same]);
    let asking = async {
        for _ in 0..3 {
            sleep(Duration::from_secs(1)).await;
            verifier.verify(Some(&value), 1, &mut cache).unwrap();
        }
    };
    tokio::join!(script.run(&verifier, 2, 4), asking);
    assert_eq!((script.asked.borrow()[..2].to_vec(), cache.len()), (vec![0, 2], 1));
}

#[tokio::test(start_paused = true)]
async fn a_file_is_followed_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let secret = |kid: &str| json!({"kty": "oct", "alg": "HS256", "kid": kid, "k": "c2VjcmV0"});
    let tasks = Tasks::new();
    let (trigger, listener) = drain();
    let verifier = verifier(JwtKeys::JwksFile(path.clone()));
    tasks.spawn(keep(Arc::clone(verifier.jwks().unwrap()), listener));
    let accepts = |kid| {
        let key = EncodingKey::from_secret(b"secret");
        let token = sign(Algorithm::HS256, &key, Some(kid), &json!({"exp": 2}));
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        verifier.verify(Some(&value), 1, &mut TokenCache::new()).is_ok()
    };
    let period = || sleep(FILE_PERIOD + Duration::from_millis(1));

    period().await;
    assert!(verifier.jwks().unwrap().is_empty());
    std::fs::write(&path, set(&[secret("a")])).unwrap();
    period().await;
    assert!(accepts("a") && !accepts("b"));

    // Same length and same time of change: only the content tells.
    let changed = std::fs::metadata(&path).unwrap().modified().unwrap_or(SystemTime::UNIX_EPOCH);
    std::fs::write(&path, set(&[secret("b")])).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
    period().await;
    assert!(accepts("b") && !accepts("a"));

    for bad in ["", "{", r#"{"keys": []}"#] {
        std::fs::write(&path, bad).unwrap();
        period().await;
        assert!(accepts("b"), "{bad:?}");
    }
    std::fs::remove_file(&path).unwrap();
    period().await;
    assert!(accepts("b"));

    trigger.force();
    tasks.ended().await;
}
