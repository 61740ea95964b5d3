//! Reads a JSON Web Key Set (RFC 7517) and decides which of its keys may verify tokens, each with one algorithm.
//!
//! A key that is unknown, unfit or meant for something else is left out; it does not spoil the others.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;

use crate::control::jwks::JwksError;
use crate::core::identity::JwtAlgorithm;
use crate::data::verify::VerifyKey;

/// Most keys of a set; a token without a key id is tried with each one.
const MOST_KEYS: usize = 100;

/// How much a source is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// A file of the operator, which may hold secrets.
    File,
    /// A URL that others can read as well, so that a symmetric key in it is no secret.
    Url,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// The usable keys of a set, at least one.
pub(super) fn parse(content: &[u8], trust: Trust) -> Result<Vec<VerifyKey>, JwksError> {
    // The parser's own error may quote what it read.
    let Document { keys: entries } = serde_json::from_slice(content)
        .map_err(|error| JwksError::Form { line: error.line(), column: error.column() })?;
    let count = entries.len();
    let mut keys = Vec::new();
    for (place, entry) in entries.into_iter().take(MOST_KEYS).enumerate() {
        match read_key(entry, trust) {
            Ok(key) => keys.push(key),
            Err(reason) => tracing::debug!(place, reason, "key of a key set skipped"),
        }
    }
    if count > MOST_KEYS {
        tracing::warn!(keys = count, "key set cut to its first {MOST_KEYS} keys");
    }
    if keys.is_empty() { Err(JwksError::NoKeys { skipped: count }) } else { Ok(keys) }
}

fn read_key(entry: Value, trust: Trust) -> Result<VerifyKey, &'static str> {
    let jwk: Jwk = serde_json::from_value(entry).map_err(|_| "is no JSON Web Key")?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("is not for signatures");
    }
    if jwk.common.key_operations.as_ref().is_some_and(|uses| !uses.contains(&KeyOperations::Verify)) {
        return Err("is not for verification");
    }
    if trust == Trust::Url && matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
        return Err("is symmetric and comes from a URL");
    }
    let algorithm = algorithm(&jwk).ok_or("is of a kind that is not supported")?;
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "has parts that are no base64url")?;
    VerifyKey::new(jwk.common.key_id, algorithm, key)
}

/// The algorithm that a key names, or the usual one of its kind. A name that does not go with the kind gives none.
fn algorithm(jwk: &Jwk) -> Option<JwtAlgorithm> {
    let named = jwk.common.key_algorithm;
    match (&jwk.algorithm, named) {
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Some(JwtAlgorithm::Rs256),
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS384)) => Some(JwtAlgorithm::Rs384),
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS512)) => Some(JwtAlgorithm::Rs512),
        (AlgorithmParameters::EllipticCurve(key), _) => match (&key.curve, named) {
            (EllipticCurve::P256, None | Some(KeyAlgorithm::ES256)) => Some(JwtAlgorithm::Es256),
            (EllipticCurve::P384, None | Some(KeyAlgorithm::ES384)) => Some(JwtAlgorithm::Es384),
            _ => None,
        },
        (AlgorithmParameters::OctetKeyPair(key), None | Some(KeyAlgorithm::EdDSA)) => {
            (key.curve == EllipticCurve::Ed25519).then_some(JwtAlgorithm::EdDsa)
        }
        (AlgorithmParameters::OctetKey(_), Some(KeyAlgorithm::HS256)) => Some(JwtAlgorithm::Hs256),
        (AlgorithmParameters::OctetKey(_), Some(KeyAlgorithm::HS384)) => Some(JwtAlgorithm::Hs384),
        (AlgorithmParameters::OctetKey(_), Some(KeyAlgorithm::HS512)) => Some(JwtAlgorithm::Hs512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::Algorithm;
    use serde_json::json;

    use super::*;
    use crate::data::verify::testkeys::{RSA, Signer};

    /// `kid` and algorithm of what is taken, as the debug form prints them.
    fn taken(keys: &Value, trust: Trust) -> Vec<String> {
        let content = json!({ "keys": keys }).to_string();
        parse(content.as_bytes(), trust).map_or_else(
            |error| vec![error.to_string()],
            |keys| keys.iter().map(|key| format!("{key:?}")).collect(),
        )
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn without(mut key: Value, name: &str) -> Value {
        key.as_object_mut().unwrap().remove(name);
        key
    }

    #[test]
    fn a_key_without_an_algorithm_has_the_usual_one_of_its_kind() {
        let kinds = [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA].map(Signer::new);
        let mut keys: Vec<_> = kinds.iter().map(|signer| without(signer.jwk("k"), "alg")).collect();
        keys.push(without(RSA[0].jwk("k"), "alg"));
        let taken = taken(&json!(keys), Trust::Url);
        for (key, algorithm) in taken.iter().zip(["ES256", "ES384", "EdDSA", "RS256"]) {
            assert!(key.contains(algorithm), "{key}");
        }
        assert_eq!(taken.len(), 4);
    }

    #[test]
    fn an_unfit_key_is_left_out_and_spoils_no_other() {
        let good = RSA[0].jwk("good");
        let p256 = Signer::new(Algorithm::ES256).jwk("p256");
        let unfit = [
            with(good.clone(), "use", json!("enc")),
            with(good.clone(), "key_ops", json!(["sign"])),
            with(good.clone(), "alg", json!("PS256")),
            with(good.clone(), "alg", json!("HS256")),
            with(good.clone(), "alg", json!("RSA-OAEP")),
            with(good.clone(), "n", json!("AQAB")),
            with(good.clone(), "n", json!("!")),
            with(p256.clone(), "alg", json!("ES384")),
            with(p256.clone(), "crv", json!("P-521")),
            with(p256.clone(), "crv", json!("P-384")),
            with(p256, "x", json!("AAAA")),
            json!({"kty": "OKP", "crv": "X25519", "x": "AAAA"}),
            json!({"kty": "new", "kid": "x"}),
            json!({}),
            json!("text"),
            json!({"kty": "oct", "alg": "HS256", "k": "c2VjcmV0"}),
        ];
        for key in unfit {
            let taken = taken(&json!([key, good]), Trust::Url);
            assert!(taken.len() == 1 && taken[0].contains("good"), "{key} gave {taken:?}");
        }
    }

    #[test]
    fn a_symmetric_key_is_taken_from_a_file_only_and_only_with_its_algorithm() {
        let key = json!({"kty": "oct", "alg": "HS256", "k": "c2VjcmV0", "kid": "s"});
        let none = "it holds no usable key (1 skipped)";
        assert!(taken(&json!([key]), Trust::File)[0].contains("HS256"));
        assert_eq!(taken(&json!([key]), Trust::Url), [none]);
        assert_eq!(taken(&json!([without(key, "alg")]), Trust::File), [none]);
    }

    #[test]
    fn what_is_no_set_is_an_error() {
        for content in ["", "[]", "{}", "{\"keys\": 1}", "<html>"] {
            assert!(
                matches!(parse(content.as_bytes(), Trust::Url), Err(JwksError::Form { .. })),
                "{content}"
            );
        }
        assert!(matches!(parse(b"{\"keys\": []}", Trust::Url), Err(JwksError::NoKeys { skipped: 0 })));
    }

    #[test]
    fn a_set_is_bounded() {
        let keys = vec![RSA[0].jwk("k"); MOST_KEYS + 1];
        assert_eq!(taken(&json!(keys), Trust::Url).len(), MOST_KEYS);
    }
}
