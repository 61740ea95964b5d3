//! Who a caller is and whether that is enough: pure rules over what a credential says.
//!
//! Finding out what a credential says (digests, signatures) is `data::verify`'s part.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use claims::{Grant, judge};

use crate::core::admission::Tenant;

mod claims;

/// SHA-256 of a key. Printing it shows nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest(pub [u8; 32]);

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(..)")
    }
}

/// Rules for the tokens (JWT) of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtSettings {
    /// Where the verification keys come from.
    pub keys: JwtKeys,
    /// Accepted `iss`; empty accepts any.
    pub issuers: Vec<String>,
    /// Accepted `aud`; a token must name one of them. Empty accepts any.
    pub audiences: Vec<String>,
    /// How far clocks may differ, for `exp` and `nbf`.
    pub leeway: Duration,
    /// Claims that a caller must have, with the accepted values; an array claim needs one of them.
    /// A caller without is known but not allowed: 403.
    pub required_claims: BTreeMap<String, Vec<String>>,
}

/// Where verification keys come from.
#[derive(Clone, Debug, PartialEq)]
pub enum JwtKeys {
    /// In the configuration, read at load.
    Static(Vec<JwtKey>),
    /// A JWKS file, read again when it changes.
    JwksFile(PathBuf),
    /// A JWKS at a URL, fetched again on the period and when a token names an unknown key.
    JwksUrl {
        /// http or https.
        url: String,
        /// Time between two fetches.
        refresh: Duration,
    },
}

/// One verification key with the one algorithm that it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtKey {
    /// Matched with the token's `kid` when both have one.
    pub kid: Option<String>,
    /// Fixed by the configuration, never by a token.
    pub algorithm: JwtAlgorithm,
    /// Secret or PEM of the public key; never printed.
    pub material: Arc<[u8]>,
    /// Where it comes from, fit to print: `env:NAME`, `file:PATH`, or `inline`.
    pub origin: String,
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Signature algorithms that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// Ed25519.
    EdDsa,
    /// P-256 with SHA-256.
    Es256,
    /// P-384 with SHA-384.
    Es384,
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PKCS#1 with SHA-256.
    Rs256,
    /// RSA PKCS#1 with SHA-384.
    Rs384,
    /// RSA PKCS#1 with SHA-512.
    Rs512,
}

/// A caller who may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What kind of credential it was (column `AuthType` of the traffic log).
    pub auth: AuthType,
    /// Who: `primary`, `secondary`, a client's name, a token's `sub`, or nothing. Cut to 100 bytes, fit to print.
    pub subject: Option<Arc<str>>,
    /// Whom its requests are counted for.
    pub caller: Caller,
}

impl Identity {
    /// A caller of an endpoint that asks nothing.
    pub const ANONYMOUS: Self = Self { auth: AuthType::Anonymous, subject: None, caller: Caller::Anybody };
}

/// Whom requests are counted for: what has limits and a fair share of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Nobody in particular.
    #[default]
    Anybody,
    /// The bearer of a token: the begin of the SHA-256 of issuer and subject. Tokens without a subject are one caller for
    /// each issuer.
    Bearer([u8; 16]),
    /// A client, by its place in [`AuthSettings::clients`](crate::core::settings::AuthSettings::clients).
    Client(u32),
    /// The endpoint's own keys. They are one caller: a limit that a change of keys doubled would be none.
    Key,
}

impl Caller {
    /// Its place in [`AuthSettings::clients`](crate::core::settings::AuthSettings::clients), if it is a client.
    pub fn client(self) -> Option<usize> {
        match self {
            Self::Client(place) => usize::try_from(place).ok(),
            Self::Anybody | Self::Bearer(_) | Self::Key => None,
        }
    }

    /// Whose fair share its requests take. Bearers may come to share one, one pair in two thousand million.
    pub fn tenant(self) -> Tenant {
        match self {
            Self::Anybody => Tenant(0),
            Self::Key => Tenant(1),
            Self::Client(place) => Tenant(place.saturating_add(2)),
            Self::Bearer([a, b, c, d, ..]) => Tenant(u32::from_le_bytes([a, b, c, d]) | 1 << 31),
        }
    }
}

/// Kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthType {
    /// None asked.
    Anonymous,
    /// One of the endpoint's keys.
    Key,
    /// A token.
    Jwt,
}

/// Why a caller may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// 403: known, but lacks a required claim.
    #[error("the credential is valid but lacks a claim that this endpoint requires")]
    Forbidden,
    /// 401: wrong key, or a token that fails its check.
    #[error("the credential is not valid for this endpoint")]
    Invalid,
    /// 401: not `Authorization: Bearer …`.
    #[error("the Authorization header is not of the form \"Bearer <key or token>\"")]
    Malformed,
    /// 401: no Authorization header.
    #[error("no Authorization header; send \"Authorization: Bearer <key or token>\"")]
    Missing,
    /// 401: `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// 401: `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
}
