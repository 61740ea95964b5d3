//! Keys and tokens of every kind, and the ways to forge them.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

use super::testkeys::{RSA, Signer, sign};
use super::*;
use crate::core::settings::{ClientSettings, Key, Name};

const NOW: u64 = 1_800_000_000;

fn key(text: &str) -> Key {
    Key { digest: digest_of(text.as_bytes()), origin: "inline".into() }
}

fn jwt_key(kid: Option<&str>, algorithm: JwtAlgorithm, material: &str) -> JwtKey {
    let material = material.as_bytes().into();
    JwtKey { kid: kid.map(str::to_owned), algorithm, material, origin: "env:TOKEN_KEY".into() }
}

fn rules(keys: JwtKeys) -> JwtSettings {
    JwtSettings {
        keys,
        issuers: Vec::new(),
        audiences: Vec::new(),
        leeway: Duration::ZERO,
        required_claims: [].into(),
    }
}

fn settings(mode: AuthMode, keys: JwtKeys) -> AuthSettings {
    AuthSettings {
        mode,
        keys: vec![key("first"), key("second")],
        clients: Vec::new(),
        jwt: Some(rules(keys)),
    }
}

fn with_keys(keys: Vec<JwtKey>) -> Verifier {
    Verifier::new(&settings(AuthMode::Jwt, JwtKeys::Static(keys))).unwrap()
}

fn ask(verifier: &Verifier, header: &str) -> Result<Identity, AuthError> {
    let value = HeaderValue::from_str(header).unwrap();
    verifier.verify(Some(&value), NOW, &mut TokenCache::new())
}

fn bear(verifier: &Verifier, credential: &str) -> Result<Identity, AuthError> {
    ask(verifier, &format!("Bearer {credential}"))
}

fn who(auth: AuthType, subject: &str) -> Result<Identity, AuthError> {
    let caller = match auth {
        AuthType::Jwt => bearer_of(json!({ "sub": subject }).as_object().unwrap()),
        AuthType::Anonymous | AuthType::Key => Caller::Key,
    };
    Ok(Identity { auth, subject: Some(subject.into()), caller })
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW + 100})
}

#[test]
fn both_keys_are_valid_and_no_other() {
    let verifier = Verifier::new(&AuthSettings { jwt: None, ..settings(AuthMode::Key, no_keys()) }).unwrap();
    assert_eq!(bear(&verifier, "first"), who(AuthType::Key, "primary"));
    assert_eq!(bear(&verifier, "second"), who(AuthType::Key, "secondary"));
    for wrong in ["First", "firs", "first1", "third", "a.b.c"] {
        assert_eq!(bear(&verifier, wrong), Err(AuthError::Invalid), "{wrong}");
    }
    assert_eq!(verifier.verify(None, NOW, &mut TokenCache::new()), Err(AuthError::Missing));
}

fn no_keys() -> JwtKeys {
    JwtKeys::Static(Vec::new())
}

#[test]
fn the_header_has_one_form() {
    let verifier = Verifier::new(&settings(AuthMode::Key, no_keys())).unwrap();
    for good in ["Bearer first", "bearer first", "BEARER   first"] {
        assert!(ask(&verifier, good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "first",
        "Bearer",
        "Bearer ",
        "Bearerfirst",
        "Basic first",
        "Bearer first second",
        "Bearer\tfirst",
    ] {
        assert_eq!(ask(&verifier, bad), Err(AuthError::Malformed), "{bad:?}");
    }
}

#[test]
fn an_overlong_credential_is_not_looked_at() {
    let with_key = |length| {
        let text = "x".repeat(length);
        let settings = AuthSettings { keys: vec![key(&text)], ..settings(AuthMode::Key, no_keys()) };
        bear(&Verifier::new(&settings).unwrap(), &text).map(|who| who.auth)
    };
    assert_eq!(with_key(LONGEST_CREDENTIAL), Ok(AuthType::Key));
    assert_eq!(with_key(LONGEST_CREDENTIAL + 1), Err(AuthError::Invalid));
}

fn authorize(verifier: &Arc<Verifier>, last: &LastKey, headers: &[&str]) -> Result<Identity, AuthError> {
    let mut map = HeaderMap::new();
    for header in headers {
        map.append(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
    }
    verifier.authorize(&map, NOW, &mut TokenCache::new(), last)
}

#[test]
fn two_authorization_headers_are_refused() {
    let verifier = Arc::new(Verifier::new(&settings(AuthMode::Key, no_keys())).unwrap());
    let last = LastKey::default();
    assert_eq!(authorize(&verifier, &last, &[]), Err(AuthError::Missing));
    assert!(authorize(&verifier, &last, &["Bearer first"]).is_ok());
    assert_eq!(authorize(&verifier, &last, &["Bearer first"; 2]), Err(AuthError::Malformed));
}

#[test]
fn the_last_key_of_a_connection_passes_again_but_no_other_and_nowhere_else() {
    let rules = AuthSettings { jwt: None, ..settings(AuthMode::Key, no_keys()) };
    let verifier = Arc::new(Verifier::new(&rules).unwrap());
    let last = LastKey::default();
    for _ in 0..2 {
        assert_eq!(authorize(&verifier, &last, &["Bearer first"]), who(AuthType::Key, "primary"));
    }
    assert!(
        last.identity(&verifier, &HeaderValue::from_static("Bearer first")).is_some(),
        "it is not looked up"
    );
    for wrong in ["Bearer firsT", "Bearer firs", "Bearer first1", "Bearer "] {
        assert!(authorize(&verifier, &last, &[wrong]).is_err(), "{wrong}");
    }
    assert_eq!(authorize(&verifier, &last, &["Bearer second"]), who(AuthType::Key, "secondary"));
    // The same endpoint after a change of keys, or another one.
    let other = Arc::new(Verifier::new(&AuthSettings { keys: Vec::new(), ..rules }).unwrap());
    assert_eq!(authorize(&other, &last, &["Bearer second"]), Err(AuthError::Invalid));
    assert!(!format!("{last:?}").contains("Bearer"), "{last:?}");
}

#[test]
fn every_caller_has_counters_of_its_own() {
    let client = |name: &str, keys: &[&str]| ClientSettings {
        name: Name::parse(name).unwrap(),
        keys: keys.iter().map(|text| key(text)).collect(),
        class: None,
        limits: None,
    };
    let rules = AuthSettings {
        clients: vec![client("batch", &["third"]), client("live", &["fourth", "fifth"])],
        ..settings(AuthMode::Key, no_keys())
    };
    let verifier = Verifier::new(&rules).unwrap();
    let caller = |key: &str| bear(&verifier, key).map(|who| (who.subject.unwrap().to_string(), who.caller));
    assert_eq!(caller("first").map(|who| who.1), Ok(Caller::Key));
    assert_eq!(caller("second").map(|who| who.1), Ok(Caller::Key));
    assert_eq!(caller("third"), Ok(("batch".to_owned(), Caller::Client(0))));
    for key in ["fourth", "fifth"] {
        assert_eq!(caller(key), Ok(("live".to_owned(), Caller::Client(1))));
    }
    assert_eq!(rules.client(Caller::Client(1)).map(|client| client.name.as_str()), Some("live"));
    assert_eq!(rules.client(Caller::Key), None);
    let bearer = |claims: &Value| bearer_of(claims.as_object().unwrap());
    // Subjects that begin alike, or say the same of another issuer.
    let long = "a".repeat(120);
    let claims = [
        json!({ "iss": "x", "sub": "a" }),
        json!({ "iss": "y", "sub": "a" }),
        json!({ "iss": "x", "sub": "\"a" }),
        json!({ "sub": "a" }),
        json!({ "iss": "x" }),
        json!({ "sub": format!("{long}1") }),
        json!({ "sub": format!("{long}2") }),
    ];
    for (place, one) in claims.iter().enumerate() {
        for (other, two) in claims.iter().enumerate() {
            assert_eq!(bearer(one) == bearer(two), place == other, "{one} {two}");
        }
    }
    assert_eq!(bearer(&claims[0]), bearer(&json!({ "sub": "a", "iss": "x", "exp": 1 })));
    let tenants = [Caller::Anybody, Caller::Key, Caller::Client(0), Caller::Client(1), bearer(&claims[0])];
    let tenants: std::collections::HashSet<_> = tenants.map(Caller::tenant).into();
    assert_eq!(tenants.len(), 5);
}

#[test]
fn an_open_endpoint_ignores_the_header() {
    let verifier = Verifier::new(&settings(AuthMode::None, no_keys())).unwrap();
    assert_eq!(ask(&verifier, "nonsense"), Ok(Identity::ANONYMOUS));
    assert_eq!(verifier.verify(None, NOW, &mut TokenCache::new()), Ok(Identity::ANONYMOUS));
}

#[test]
fn every_algorithm_opens_the_tokens_of_its_own_key() {
    let signers = [
        (JwtAlgorithm::Es256, Signer::new(Algorithm::ES256)),
        (JwtAlgorithm::Es384, Signer::new(Algorithm::ES384)),
        (JwtAlgorithm::EdDsa, Signer::new(Algorithm::EdDSA)),
    ];
    for (algorithm, signer) in &signers {
        let verifier = with_keys(vec![jwt_key(None, *algorithm, &signer.public_pem)]);
        assert_eq!(
            bear(&verifier, &signer.token(None, &claims())),
            who(AuthType::Jwt, "alice"),
            "{algorithm:?}"
        );
        let other = Signer::new(signer.algorithm);
        assert_eq!(bear(&verifier, &other.token(None, &claims())), Err(AuthError::Invalid), "{algorithm:?}");
    }
    for (ours, theirs) in [
        (JwtAlgorithm::Rs256, Algorithm::RS256),
        (JwtAlgorithm::Rs384, Algorithm::RS384),
        (JwtAlgorithm::Rs512, Algorithm::RS512),
    ] {
        let verifier = with_keys(vec![jwt_key(None, ours, &RSA[0].public_pem)]);
        let token = |signer: &Signer| sign(theirs, &signer.key, None, &claims());
        assert_eq!(bear(&verifier, &token(&RSA[0])), who(AuthType::Jwt, "alice"), "{ours:?}");
        assert_eq!(bear(&verifier, &token(&RSA[1])), Err(AuthError::Invalid), "{ours:?}");
    }
    for (ours, theirs) in [
        (JwtAlgorithm::Hs256, Algorithm::HS256),
        (JwtAlgorithm::Hs384, Algorithm::HS384),
        (JwtAlgorithm::Hs512, Algorithm::HS512),
    ] {
        let verifier = with_keys(vec![jwt_key(None, ours, "a secret")]);
        let token =
            |secret: &str| sign(theirs, &EncodingKey::from_secret(secret.as_bytes()), None, &claims());
        assert_eq!(bear(&verifier, &token("a secret")), who(AuthType::Jwt, "alice"), "{ours:?}");
        assert_eq!(bear(&verifier, &token("a secrets")), Err(AuthError::Invalid), "{ours:?}");
    }
}

#[test]
fn the_token_does_not_choose_the_algorithm() {
    let verifier = with_keys(vec![jwt_key(None, JwtAlgorithm::Rs256, &RSA[0].public_pem)]);
    let confused = EncodingKey::from_secret(RSA[0].public_pem.as_bytes());
    assert_eq!(bear(&verifier, &sign(Algorithm::HS256, &confused, None, &claims())), Err(AuthError::Invalid));
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let token = sign(algorithm, &RSA[0].key, None, &claims());
        assert_eq!(bear(&verifier, &token), Err(AuthError::Invalid), "{algorithm:?}");
    }
    // {"alg":"none"} and its spellings, with the payload {"exp":9999999999}.
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0", "e30"] {
        for signature in ["", "AAAA"] {
            let token = format!("{header}.eyJleHAiOjk5OTk5OTk5OTl9.{signature}");
            assert_eq!(bear(&verifier, &token), Err(AuthError::Invalid), "{token}");
        }
    }
}

#[test]
fn a_changed_token_is_refused() {
    let verifier = with_keys(vec![jwt_key(None, JwtAlgorithm::Rs256, &RSA[0].public_pem)]);
    let (good, other) = (RSA[0].token(None, &claims()), RSA[0].token(None, &json!({"exp": NOW + 999})));
    let parts: Vec<_> = good.split('.').zip(other.split('.')).collect();
    let mixed = format!("{}.{}.{}", parts[0].0, parts[1].1, parts[2].0);
    for bad in [mixed, good.replace('.', ".."), format!("{good}A"), ".".repeat(2), "ä.ö.ü".into()] {
        let value = HeaderValue::from_bytes(format!("Bearer {bad}").as_bytes()).unwrap();
        let answer = verifier.verify(Some(&value), NOW, &mut TokenCache::new());
        assert_eq!(answer, Err(AuthError::Invalid), "{bad}");
    }
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    let verifier = with_keys(vec![jwt_key(None, JwtAlgorithm::Hs256, "s")]);
    let header = Header { crit: Some(vec!["b64".into()]), ..Header::new(Algorithm::HS256) };
    let token = encode(&header, &claims(), &EncodingKey::from_secret(b"s")).unwrap();
    assert_eq!(bear(&verifier, &token), Err(AuthError::Invalid));
}

#[test]
fn the_key_id_chooses_the_key() {
    let keys = ["a", "b"].map(|kid| jwt_key(Some(kid), JwtAlgorithm::Hs256, kid));
    let verifier = with_keys(keys.into());
    let token = |kid, secret: &str| {
        sign(Algorithm::HS256, &EncodingKey::from_secret(secret.as_bytes()), kid, &claims())
    };
    assert!(bear(&verifier, &token(Some("b"), "b")).is_ok());
    assert!(bear(&verifier, &token(None, "b")).is_ok());
    assert_eq!(bear(&verifier, &token(Some("a"), "b")), Err(AuthError::Invalid));
    let without = with_keys(vec![jwt_key(None, JwtAlgorithm::Hs256, "b")]);
    assert!(bear(&without, &token(Some("any"), "b")).is_ok());
}

#[test]
fn key_or_token_takes_both() {
    let keys = JwtKeys::Static(vec![jwt_key(None, JwtAlgorithm::Hs256, "s")]);
    let token = sign(Algorithm::HS256, &EncodingKey::from_secret(b"s"), None, &claims());
    let both = Verifier::new(&settings(AuthMode::KeyOrJwt, keys.clone())).unwrap();
    assert_eq!(bear(&both, "second"), who(AuthType::Key, "secondary"));
    assert_eq!(bear(&both, &token), who(AuthType::Jwt, "alice"));
    let tokens_only = Verifier::new(&settings(AuthMode::Jwt, keys.clone())).unwrap();
    assert_eq!(bear(&tokens_only, "first"), Err(AuthError::Invalid));
    let keys_only = Verifier::new(&settings(AuthMode::Key, keys)).unwrap();
    assert_eq!(bear(&keys_only, &token), Err(AuthError::Invalid));
}

#[test]
fn a_cached_token_is_refused_when_its_time_or_its_key_is_over() {
    let slot_settings = settings(AuthMode::Jwt, JwtKeys::JwksFile(PathBuf::from("keys.json")));
    let verifier = Verifier::new(&slot_settings).unwrap();
    let slot = verifier.jwks().unwrap();
    let key =
        |secret: &[u8]| VerifyKey::new(None, JwtAlgorithm::Hs256, DecodingKey::from_secret(secret)).unwrap();
    slot.replace(vec![key(b"s")]);
    let token =
        sign(Algorithm::HS256, &EncodingKey::from_secret(b"s"), None, &json!({"exp": NOW + 5, "nbf": NOW}));
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    let mut cache = TokenCache::new();
    let mut at = |now| verifier.verify(Some(&value), now, &mut cache).map(|who| who.auth);
    assert_eq!(at(NOW), Ok(AuthType::Jwt));
    assert_eq!(at(NOW + 4), Ok(AuthType::Jwt));
    assert_eq!(at(NOW + 5), Err(AuthError::Expired));
    assert_eq!(at(NOW - 1), Err(AuthError::NotYetValid));
    slot.replace(vec![key(b"other")]);
    assert_eq!(at(NOW), Err(AuthError::Invalid));
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_cache_spares_the_signature_and_keeps_endpoints_apart() {
    let keys = || JwtKeys::Static(vec![jwt_key(None, JwtAlgorithm::Hs256, "s")]);
    let lax = Verifier::new(&settings(AuthMode::Jwt, keys())).unwrap();
    let strict_rules = JwtSettings { audiences: vec!["strict".into()], ..rules(keys()) };
    let strict =
        Verifier::new(&AuthSettings { jwt: Some(strict_rules), ..settings(AuthMode::Jwt, keys()) }).unwrap();
    let token = sign(Algorithm::HS256, &EncodingKey::from_secret(b"s"), None, &claims());
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    let mut cache = TokenCache::new();
    for _ in 0..3 {
        assert!(lax.verify(Some(&value), NOW, &mut cache).is_ok());
        assert_eq!(strict.verify(Some(&value), NOW, &mut cache), Err(AuthError::Invalid));
    }
    assert_eq!(cache.len(), 1);
    // The kept grant answers even when what it was made from is another: proof that nothing is verified twice.
    let generation = lax.tokens.as_ref().unwrap().slot.load().generation;
    let kept = json!({"sub": "kept", "exp": NOW + 1});
    let other = judge(kept.as_object().unwrap(), &rules(keys()), NOW).unwrap();
    let other = other.counted_for(bearer_of(kept.as_object().unwrap()));
    cache.insert((digest_of(token.as_bytes()).0, generation), other);
    assert_eq!(lax.verify(Some(&value), NOW, &mut cache), who(AuthType::Jwt, "kept"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_id_asks_for_a_refresh_and_a_bad_signature_does_not() {
    let source = JwtKeys::JwksUrl { url: "http://127.0.0.1/".into(), refresh: Duration::from_secs(3600) };
    let verifier = Verifier::new(&settings(AuthMode::Jwt, source)).unwrap();
    let slot = verifier.jwks().unwrap();
    let known = DecodingKey::from_secret(b"s");
    slot.replace(vec![VerifyKey::new(Some("a".into()), JwtAlgorithm::Hs256, known).unwrap()]);
    let wanted = async || tokio::time::timeout(Duration::from_secs(1), slot.refresh_wanted()).await.is_ok();
    let token = |kid| sign(Algorithm::HS256, &EncodingKey::from_secret(b"x"), kid, &claims());
    assert_eq!(bear(&verifier, &token(Some("a"))), Err(AuthError::Invalid));
    assert_eq!(bear(&verifier, &token(None)), Err(AuthError::Invalid));
    assert!(!wanted().await);
    for _ in 0..100 {
        assert_eq!(bear(&verifier, &token(Some("new"))), Err(AuthError::Invalid));
    }
    assert!(wanted().await);
    assert!(!wanted().await);
}

#[tokio::test(start_paused = true)]
async fn the_first_keys_can_be_waited_for() {
    let verifier = Verifier::new(&settings(AuthMode::Jwt, JwtKeys::JwksFile("keys.json".into()))).unwrap();
    let slot = verifier.jwks().unwrap();
    let key = VerifyKey::new(None, JwtAlgorithm::Hs256, DecodingKey::from_secret(b"s")).unwrap();
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, slot.loaded()).await.is_err());
    let later = async {
        tokio::time::sleep(second).await;
        slot.replace(vec![key]);
    };
    let waiting = tokio::time::timeout(2 * second, slot.loaded());
    assert!(tokio::join!(waiting, later).0.is_ok());
    slot.loaded().await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_verifier_keeps_fetched_keys_of_the_same_place_only() {
    let source =
        |url: &str, refresh| JwtKeys::JwksUrl { url: url.into(), refresh: Duration::from_secs(refresh) };
    let old = Verifier::new(&settings(AuthMode::Jwt, source("http://127.0.0.1/a", 1))).unwrap();
    let key = VerifyKey::new(None, JwtAlgorithm::Hs256, DecodingKey::from_secret(b"s")).unwrap();
    old.jwks().unwrap().replace(vec![key]);
    let same = old.renewed(&settings(AuthMode::Jwt, source("http://127.0.0.1/a", 2))).unwrap();
    let token = sign(Algorithm::HS256, &EncodingKey::from_secret(b"s"), None, &claims());
    assert!(bear(&same, &token).is_ok());
    let other = old.renewed(&settings(AuthMode::Jwt, source("http://127.0.0.1/b", 1))).unwrap();
    assert_eq!(bear(&other, &token), Err(AuthError::Invalid));
    let slot = Arc::clone(old.jwks().unwrap());
    drop(old);
    tokio::time::timeout(Duration::from_secs(5), slot.abandoned()).await.unwrap();
}

#[test]
fn a_bad_key_is_named_by_its_origin_and_never_shown() {
    let ed = Signer::new(Algorithm::EdDSA);
    let p256 = Signer::new(Algorithm::ES256);
    let cut = &RSA[0].public_pem[..RSA[0].public_pem.len() / 2];
    for (algorithm, material) in [
        (JwtAlgorithm::Rs256, "hunter2"),
        (JwtAlgorithm::Rs256, cut),
        (JwtAlgorithm::Rs256, &ed.public_pem),
        (JwtAlgorithm::Es256, &RSA[0].public_pem),
        (JwtAlgorithm::Es384, &p256.public_pem),
        (JwtAlgorithm::EdDsa, &p256.public_pem),
        (JwtAlgorithm::Rs256, &RSA[0].private_pem),
        (JwtAlgorithm::Es256, &p256.private_pem),
        (JwtAlgorithm::Hs256, ""),
    ] {
        let keys = JwtKeys::Static(vec![jwt_key(None, algorithm, material)]);
        let settings = settings(AuthMode::Jwt, keys);
        let error = Verifier::new(&settings).unwrap_err().to_string();
        assert!(error.contains("env:TOKEN_KEY"), "{error}");
        let secret = material.lines().nth(1).unwrap_or("hunter2");
        assert!(!error.contains(secret), "{error}");
        assert!(!format!("{settings:?}").contains(secret));
    }
    let verifier = with_keys(vec![jwt_key(None, JwtAlgorithm::Hs256, "hunter2")]);
    assert!(!format!("{verifier:?}").contains("hunter2"));
    let missing = AuthSettings { jwt: None, ..settings(AuthMode::Jwt, no_keys()) };
    assert_eq!(Verifier::new(&missing).unwrap_err(), VerifierError::NoTokenRules);
}
