//! The keys that tokens are verified with, and the slot in which the control plane replaces them.
//!
//! A key brings its algorithm with it; what a token says of itself only chooses among the keys. Where keys come
//! from and when they are fetched again is decided in `control::jwks`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, VerificationAlgorithm,
};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::identity::{JwtAlgorithm, JwtKeys};

/// Generations are never used twice in a process, so that a cached token fits one key set only.
static NEXT_GENERATION: AtomicU64 = AtomicU64::new(1);

/// One key, checked, with the one algorithm that it is for.
#[derive(Clone)]
pub struct VerifyKey {
    kid: Option<String>,
    key: DecodingKey,
    algorithm: Algorithm,
    /// Checks the algorithm and nothing else: claims are judged in `core::identity`.
    validation: Validation,
}

impl VerifyKey {
    /// A key that really is one for its algorithm.
    ///
    /// # Errors
    /// What is wrong with it, as half a sentence without any of its content.
    pub fn new(kid: Option<String>, algorithm: JwtAlgorithm, key: DecodingKey) -> Result<Self, &'static str> {
        let algorithm = match algorithm {
            JwtAlgorithm::EdDsa => Algorithm::EdDSA,
            JwtAlgorithm::Es256 => Algorithm::ES256,
            JwtAlgorithm::Es384 => Algorithm::ES384,
            JwtAlgorithm::Hs256 => Algorithm::HS256,
            JwtAlgorithm::Hs384 => Algorithm::HS384,
            JwtAlgorithm::Hs512 => Algorithm::HS512,
            JwtAlgorithm::Rs256 => Algorithm::RS256,
            JwtAlgorithm::Rs384 => Algorithm::RS384,
            JwtAlgorithm::Rs512 => Algorithm::RS512,
        };
        if key.family() != algorithm.family() {
            return Err("is not of the kind that its algorithm needs");
        }
        match algorithm {
            Algorithm::ES256 => check_point(&key, &ECDSA_P256_SHA256_FIXED, "is no point of the curve P-256"),
            Algorithm::ES384 => check_point(&key, &ECDSA_P384_SHA384_FIXED, "is no point of the curve P-384"),
            Algorithm::EdDSA => check_point(&key, &ED25519, "is no Ed25519 public key"),
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => check_modulus(&key),
            _ => check_secret(&key),
        }?;
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Ok(Self { kid, key, algorithm, validation })
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn check_point(
    key: &DecodingKey,
    algorithm: &'static dyn VerificationAlgorithm,
    problem: &'static str,
) -> Result<(), &'static str> {
    let point = key.try_get_as_bytes().map_err(|_| problem)?;
    ParsedPublicKey::new(algorithm, point).map(drop).map_err(|_| problem)
}

/// 2048 to 8192 bits, which is what verification takes; said here, because there it is a refusal of every token.
fn check_modulus(key: &DecodingKey) -> Result<(), &'static str> {
    match Jwk::from_decoding_key(key, None).map(|jwk| jwk.algorithm) {
        // Base64url without padding: four characters for three bytes.
        Ok(AlgorithmParameters::RSA(rsa)) if (256..=1024).contains(&(rsa.n.len() * 3 / 4)) => Ok(()),
        Ok(AlgorithmParameters::RSA(_)) => Err("is an RSA key of fewer than 2048 or more than 8192 bits"),
        _ => Err("is no RSA public key"),
    }
}

fn check_secret(key: &DecodingKey) -> Result<(), &'static str> {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(secret) if !secret.is_empty() => Ok(()),
        _ => Err("is empty"),
    }
}

/// Denial no key of a set opens a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no token, or no key verifies it.
    Invalid,
    /// It names a key that is not in the set, which may be out of date.
    UnknownKey,
}

/// An immutable set of keys.
#[derive(Debug)]
pub(super) struct KeySet {
    pub(super) generation: u64,
    keys: Arc<[VerifyKey]>,
}

impl KeySet {
    fn new(keys: Arc<[VerifyKey]>) -> Self {
        Self { generation: NEXT_GENERATION.fetch_add(1, Ordering::Relaxed), keys }
    }

    /// The claims of a token that one of the keys has signed.
    pub(super) fn open(&self, token: &[u8]) -> Result<Map<String, Value>, Refused> {
        let header = decode_header(token).map_err(|_| Refused::Invalid)?;
        // RFC 7515 §4.1.11: extensions that must be understood, and none is.
        if header.crit.is_some() {
            return Err(Refused::Invalid);
        }
        let fits = |key: &&VerifyKey| {
            key.algorithm == header.alg
                && (key.kid.is_none() || header.kid.is_none() || key.kid == header.kid)
        };
        for key in self.keys.iter().filter(fits) {
            if let Ok(token) = decode(token, &key.key, &key.validation) {
                return Ok(token.claims);
            }
        }
        let known = header.kid.is_none() || self.keys.iter().any(|key| key.kid == header.kid);
        Err(if known { Refused::Invalid } else { Refused::UnknownKey })
    }
}

/// Where the keys of one verifier are, and how workers and the control plane meet over them.
#[derive(Debug)]
pub struct JwksSlot {
    source: JwtKeys,
    keys: ArcSwap<KeySet>,
    filled: Notify,
    wanted: Notify,
    abandoned: CancellationToken,
}

impl JwksSlot {
    pub(super) fn new(source: JwtKeys, keys: Vec<VerifyKey>) -> Self {
        Self {
            source,
            keys: ArcSwap::from_pointee(KeySet::new(keys.into())),
            filled: Notify::new(),
            wanted: Notify::new(),
            abandoned: CancellationToken::new(),
        }
    }

    /// Where the keys come from.
    pub fn source(&self) -> &JwtKeys {
        &self.source
    }

    /// Puts other keys in place of all; tokens that were verified with the old ones are verified again.
    pub fn replace(&self, keys: Vec<VerifyKey>) {
        self.keys.store(Arc::new(KeySet::new(keys.into())));
        self.filled.notify_waiters();
    }

    /// Completes when there are keys; for a start that wants to wait for the first ones, with a limit of its own.
    pub async fn loaded(&self) {
        loop {
            // Before the look, so that keys that come between the two are not missed.
            let filled = self.filled.notified();
            if !self.is_empty() {
                return;
            }
            filled.await;
        }
    }

    /// Keys in it; none means that every token is refused.
    pub fn len(&self) -> usize {
        self.keys.load().keys.len()
    }

    /// Whether there is no key yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Completes when a token has named a key that is not here. Many tokens before the call count as one.
    pub async fn refresh_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Completes when the verifier is gone, so that nobody reads the keys any more.
    pub async fn abandoned(&self) {
        self.abandoned.cancelled().await;
    }

    pub(super) fn load(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.keys.load()
    }

    pub(super) fn want_refresh(&self) {
        self.wanted.notify_one();
    }

    pub(super) fn abandon(&self) {
        self.abandoned.cancel();
    }

    /// Starts with the keys of a slot before it. The generation is a new one, because other rules go with it.
    pub(super) fn take_over(&self, before: &Self) {
        self.keys.store(Arc::new(KeySet::new(before.load().keys.clone())));
    }
}
