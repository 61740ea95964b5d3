//! Finds out who a caller is from the Authorization header: keys by digest, tokens by signature.
//!
//! Synchronous and without I/O. What the claims of a good token are worth is decided in `core::identity`; keys
//! that come from a file or URL are put into the [`JwksSlot`] by the control plane.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value, json};

use crate::core::identity::{
    AuthError, AuthType, Caller, Identity, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, KeyDigest, judge,
};
use crate::core::settings::{AuthMode, AuthSettings};

pub use cache::TokenCache;
pub use keyset::{JwksSlot, VerifyKey};
pub use last::LastKey;

mod cache;
mod keyset;
mod last;

/// Longest key or token that is looked at.
const LONGEST_CREDENTIAL: usize = 16 * 1024;

/// Denial there is no verifier for some settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// A token key cannot be used.
    #[error("the {algorithm:?} key from {origin} {problem}")]
    Key {
        /// Where the key comes from.
        origin: String,
        /// What it should be good for.
        algorithm: JwtAlgorithm,
        /// Half a sentence.
        problem: &'static str,
    },
    /// The mode takes tokens and there are no rules for them.
    #[error("the authentication mode takes tokens, but there are no rules for tokens")]
    NoTokenRules,
}

/// Who may call one endpoint. Shared by all workers.
#[derive(Debug)]
pub struct Verifier {
    mode: AuthMode,
    keys: Vec<(KeyDigest, Identity)>,
    tokens: Option<Tokens>,
}

#[derive(Debug)]
struct Tokens {
    rules: JwtSettings,
    slot: Arc<JwksSlot>,
}

impl Verifier {
    /// A verifier for one endpoint. Keys of a JWKS are not there yet: give [`Self::jwks`] to `control::jwks`.
    ///
    /// # Errors
    /// A key that is none, named by its origin.
    pub fn new(settings: &AuthSettings) -> Result<Self, VerifierError> {
        let takes_keys = matches!(settings.mode, AuthMode::Key | AuthMode::KeyOrJwt);
        let takes_tokens = matches!(settings.mode, AuthMode::Jwt | AuthMode::KeyOrJwt);
        let keys = if takes_keys { identities(settings) } else { Vec::new() };
        let tokens = match &settings.jwt {
            Some(rules) if takes_tokens => Some(Tokens::new(rules)?),
            None if takes_tokens => return Err(VerifierError::NoTokenRules),
            _ => None,
        };
        Ok(Self { mode: settings.mode, keys, tokens })
    }

    /// A verifier for changed settings of the same endpoint. It begins with the JWKS keys that this one has if
    /// they come from the same place, so that a reload refuses nobody until the next fetch.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renewed(&self, settings: &AuthSettings) -> Result<Self, VerifierError> {
        let next = Self::new(settings)?;
        if let (Some(old), Some(new)) = (self.jwks(), next.jwks())
            && same_place(old.source(), new.source())
        {
            new.take_over(old);
        }
        Ok(next)
    }

    /// The slot that the control plane keeps filled; `None` when no keys come from a JWKS.
    pub fn jwks(&self) -> Option<&Arc<JwksSlot>> {
        let slot = &self.tokens.as_ref()?.slot;
        (!matches!(slot.source(), JwtKeys::Static(_))).then_some(slot)
    }

    /// Like [`Self::verify`], and refuses a request with more than one Authorization header. A key that the connection
    /// used before is known by `last`.
    ///
    /// # Errors
    /// Denial the caller may not pass.
    pub fn authorize(
        self: &Arc<Self>,
        headers: &HeaderMap,
        now_unix: u64,
        cache: &mut TokenCache,
        last: &LastKey,
    ) -> Result<Identity, AuthError> {
        if self.mode == AuthMode::None {
            return Ok(Identity::ANONYMOUS);
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let first = values.next().ok_or(AuthError::Missing)?;
        if values.next().is_some() {
            return Err(AuthError::Malformed);
        }
        if let Some(identity) = last.identity(self, first) {
            return Ok(identity);
        }
        let identity = self.verify(Some(first), now_unix, cache)?;
        if identity.auth == AuthType::Key {
            last.remember(self, first, &identity);
        }
        Ok(identity)
    }

    /// Who the caller is, at a time in seconds since 1970. `authorization` must be the only such header.
    ///
    /// # Errors
    /// Denial the caller may not pass.
    pub fn verify(
        &self,
        authorization: Option<&HeaderValue>,
        now_unix: u64,
        cache: &mut TokenCache,
    ) -> Result<Identity, AuthError> {
        if self.mode == AuthMode::None {
            return Ok(Identity::ANONYMOUS);
        }
        let credential = bearer(authorization.ok_or(AuthError::Missing)?)?;
        let digest = digest_of(credential);
        if let Some(identity) = self.matching_key(&digest) {
            return Ok(identity);
        }
        match &self.tokens {
            Some(tokens) if looks_like_token(credential) => {
                tokens.verify(credential, digest, now_unix, cache)
            }
            _ => Err(AuthError::Invalid),
        }
    }

    fn matching_key(&self, presented: &KeyDigest) -> Option<Identity> {
        let mut found = None;
        // To the end in any case: the time must not tell which key it was.
        for (digest, identity) in &self.keys {
            if verify_slices_are_equal(&digest.0, &presented.0).is_ok() {
                found = found.or(Some(identity));
            }
        }
        found.cloned()
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        if let Some(tokens) = &self.tokens {
            tokens.slot.abandon();
        }
    }
}

impl Tokens {
    fn new(rules: &JwtSettings) -> Result<Self, VerifierError> {
        let keys = match &rules.keys {
            JwtKeys::Static(keys) => keys.iter().map(static_key).collect::<Result<_, _>>()?,
            JwtKeys::JwksFile(_) | JwtKeys::JwksUrl { .. } => Vec::new(),
        };
        Ok(Self { rules: rules.clone(), slot: Arc::new(JwksSlot::new(rules.keys.clone(), keys)) })
    }

    fn verify(
        &self,
        token: &[u8],
        digest: KeyDigest,
        now: u64,
        cache: &mut TokenCache,
    ) -> Result<Identity, AuthError> {
        let keys = self.slot.load();
        let place = (digest.0, keys.generation);
        if let Some(grant) = cache.get(&place) {
            return grant.at(now).cloned();
        }
        let claims = keys.open(token).map_err(|refused| {
            if refused == keyset::Refused::UnknownKey {
                self.slot.want_refresh();
            }
            AuthError::Invalid
        })?;
        let grant = judge(&claims, &self.rules, now)?.counted_for(bearer_of(&claims));
        let identity = grant.at(now)?.clone();
        cache.insert(place, grant);
        Ok(identity)
    }
}

/// SHA-256 of a key as a client presents it.
pub fn digest_of(key: &[u8]) -> KeyDigest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key).as_ref());
    KeyDigest(bytes)
}

/// Whose each key is.
fn identities(settings: &AuthSettings) -> Vec<(KeyDigest, Identity)> {
    let name = |place| match place {
        0 => "primary".into(),
        1 => "secondary".into(),
        _ => format!("key {}", place + 1).into(),
    };
    let identity = |name: Arc<str>, caller| Identity { auth: AuthType::Key, subject: Some(name), caller };
    let own = settings.keys.iter().enumerate();
    let own = own.map(|(place, key)| (key.digest, identity(name(place), Caller::Key)));
    let clients = (0..).zip(&settings.clients).flat_map(|(place, client)| {
        let identity = identity(client.name.as_str().into(), Caller::Client(place));
        client.keys.iter().map(move |key| (key.digest, identity.clone()))
    });
    own.chain(clients).collect()
}

/// The caller that these claims stand for. Issuers do not know of each other's subjects, so both count; a list in JSON,
/// because no two pairs have the same one.
fn bearer_of(claims: &Map<String, Value>) -> Caller {
    let pair = json!([claims.get("iss"), claims.get("sub")]).to_string();
    let mut start = [0; 16];
    start.copy_from_slice(&digest_of(pair.as_bytes()).0[..16]);
    Caller::Bearer(start)
}

/// The credential of `Bearer <credential>` (RFC 6750 §2.1; the scheme in any case, RFC 9110 §11.1).
fn bearer(value: &HeaderValue) -> Result<&[u8], AuthError> {
    let (scheme, rest) = value.as_bytes().split_at_checked(6).ok_or(AuthError::Malformed)?;
    let credential = rest.trim_ascii();
    let spaced = rest.first() == Some(&b' ');
    if !scheme.eq_ignore_ascii_case(b"bearer") || !spaced || credential.is_empty() {
        return Err(AuthError::Malformed);
    }
    if credential.len() > LONGEST_CREDENTIAL {
        return Err(AuthError::Invalid);
    }
    // A header value has no other white space.
    if credential.contains(&b' ') || credential.contains(&b'\t') {
        return Err(AuthError::Malformed);
    }
    Ok(credential)
}

fn looks_like_token(credential: &[u8]) -> bool {
    credential.iter().filter(|byte| **byte == b'.').count() == 2
}

fn static_key(key: &JwtKey) -> Result<VerifyKey, VerifierError> {
    let error =
        |problem| VerifierError::Key { origin: key.origin.clone(), algorithm: key.algorithm, problem };
    let material = &key.material;
    let decoding = match key.algorithm {
        JwtAlgorithm::Hs256 | JwtAlgorithm::Hs384 | JwtAlgorithm::Hs512 => {
            Ok(DecodingKey::from_secret(material))
        }
        _ if contains(material, b"PRIVATE KEY") => {
            return Err(error("is a private key; give the public one, this program must not have the other"));
        }
        JwtAlgorithm::EdDsa => DecodingKey::from_ed_pem(material),
        JwtAlgorithm::Es256 | JwtAlgorithm::Es384 => DecodingKey::from_ec_pem(material),
        JwtAlgorithm::Rs256 | JwtAlgorithm::Rs384 | JwtAlgorithm::Rs512 => {
            DecodingKey::from_rsa_pem(material)
        }
    };
    // The parser's own error may quote what it read.
    let decoding = decoding.map_err(|_| error("is not a public key in PEM of the kind that it needs"))?;
    VerifyKey::new(key.kid.clone(), key.algorithm, decoding).map_err(error)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn same_place(a: &JwtKeys, b: &JwtKeys) -> bool {
    match (a, b) {
        (JwtKeys::JwksFile(a), JwtKeys::JwksFile(b)) => a == b,
        (JwtKeys::JwksUrl { url: a, .. }, JwtKeys::JwksUrl { url: b, .. }) => a == b,
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod testkeys;
#[cfg(test)]
mod tests;
