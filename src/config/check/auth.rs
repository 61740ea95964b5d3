//! Rules of credentials: which ones a mode needs, and whether keys and token rules can work.

use std::sync::Arc;

use jsonwebtoken::DecodingKey;

use super::{Check, items, seconds, texts};
use crate::config::diagnostic::Place;
use crate::config::field::{At, Field};
use crate::config::file::{self, Algorithm};
use crate::config::secret::SecretRef;
use crate::core::identity::{JwtAlgorithm, JwtKey, JwtKeys, JwtSettings};
use crate::core::settings::{AuthMode, AuthSettings, Key};

impl From<file::AuthMode> for AuthMode {
    fn from(mode: file::AuthMode) -> Self {
        match mode {
            file::AuthMode::Key => Self::Key,
            file::AuthMode::Jwt | file::AuthMode::AmlToken | file::AuthMode::AadToken => Self::Jwt,
            file::AuthMode::KeyOrJwt => Self::KeyOrJwt,
            file::AuthMode::None => Self::None,
        }
    }
}

impl From<Algorithm> for JwtAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::EdDSA => Self::EdDsa,
            Algorithm::ES256 => Self::Es256,
            Algorithm::ES384 => Self::Es384,
            Algorithm::HS256 => Self::Hs256,
            Algorithm::HS384 => Self::Hs384,
            Algorithm::HS512 => Self::Hs512,
            Algorithm::RS256 => Self::Rs256,
            Algorithm::RS384 => Self::Rs384,
            Algorithm::RS512 => Self::Rs512,
        }
    }
}

impl Check<'_> {
    pub(super) fn auth(&mut self, endpoint: &file::Endpoint, label: &str, place: Place) -> AuthSettings {
        let mode = endpoint.auth_mode.value().map_or(AuthMode::Key, |mode| (*mode).into());
        // What a mode needs is unknown when the mode itself is wrong.
        let known = !matches!(endpoint.auth_mode, Field::Bad);
        let wants_keys = matches!(mode, AuthMode::Key | AuthMode::KeyOrJwt);
        let wants_jwt = matches!(mode, AuthMode::Jwt | AuthMode::KeyOrJwt);
        if known {
            let keys = endpoint.keys.given().map(|at| at.place);
            let no_client = match &endpoint.clients {
                Field::Absent => true,
                Field::Bad => false,
                Field::Given(at) => at.value.is_empty(),
            };
            let no_key = endpoint.keys.is_absent() && no_client;
            self.needed("keys", wants_keys, no_key, keys, label, place);
            let clients = endpoint.clients.given().map(|at| at.place);
            self.needed("clients", wants_keys, false, clients, label, place);
            let jwt = endpoint.jwt.given().map(|at| at.place);
            self.needed("jwt", wants_jwt, endpoint.jwt.is_absent(), jwt, label, place);
        }
        let keys = endpoint.keys.given().map(|at| self.keys(at)).unwrap_or_default();
        let jwt = endpoint.jwt.given().and_then(|at| self.jwt(at));
        let clients = self.clients(&endpoint.clients, &keys);
        AuthSettings {
            mode,
            clients: if wants_keys { clients } else { Vec::new() },
            keys: if wants_keys { keys } else { Vec::new() },
            jwt: jwt.filter(|_| wants_jwt),
        }
    }

    /// A block that the mode needs must be there; one that it does not need is probably a mistake.
    fn needed(
        &mut self,
        key: &str,
        wanted: bool,
        absent: bool,
        at: Option<Place>,
        label: &str,
        owner: Place,
    ) {
        if wanted && absent && !self.is_misspelled(owner, key) {
            let help = match key {
                "keys" => {
                    "add `keys: {primary: env:NAME}`, or `auth_mode: none` to let anybody call; the mode is `key` \
                    where none is given"
                }
                _ => "add `jwt:` with one of `keys`, `jwks_file` and `jwks_url`",
            };
            self.error(owner, format!("`{key}` is missing in {label}, whose `auth_mode` needs it"), help);
        }
        if let (false, Some(place)) = (wanted, at) {
            let message =
                format!("`{key}` has no effect, because the `auth_mode` of {label} does not use it");
            self.warning(place, message, "set `auth_mode`, or remove the block");
        }
    }

    fn keys(&mut self, at: &At<file::Keys>) -> Vec<Key> {
        if at.value.primary.is_absent() {
            self.missing(at.place, "primary", "`keys`");
        }
        let primary = at.value.primary.given().and_then(|at| self.key(at));
        let secondary = at.value.secondary.given().and_then(|at| self.key(at));
        if let (Some(first), Some(second), Some(place)) =
            (&primary, &secondary, at.value.secondary.given().map(|at| at.place))
            && first.digest == second.digest
        {
            self.error(
                place,
                "`secondary` is the same key as `primary`",
                "two keys are for changing one at a time",
            );
        }
        primary.into_iter().chain(secondary).collect()
    }

    fn jwt(&mut self, at: &At<file::Jwt>) -> Option<JwtSettings> {
        let At { value: jwt, place } = at;
        if items(&jwt.audiences).is_empty() && jwt.audiences.is_absent() {
            let message =
                "`audiences` is not given: tokens that were issued for other services are accepted too";
            self.warning(*place, message, "name the audience of this endpoint");
        }
        if let (Some(at), true) = (jwt.jwks_refresh_s.given(), jwt.jwks_url.is_absent()) {
            self.error(
                at.place,
                "`jwks_refresh_s` is only for `jwks_url`",
                "remove it; a file is read when it changes",
            );
        }
        let required_claims = jwt.required_claims.value().map(|claims| {
            claims.0.iter().map(|(claim, values)| (claim.value.clone(), texts(values))).collect()
        });
        Some(JwtSettings {
            keys: self.jwt_keys(jwt, *place)?,
            issuers: texts(&jwt.issuers),
            audiences: texts(&jwt.audiences),
            leeway: seconds(&jwt.leeway_s, 60),
            required_claims: required_claims.unwrap_or_default(),
        })
    }

    fn jwt_keys(&mut self, jwt: &file::Jwt, place: Place) -> Option<JwtKeys> {
        let given = [!jwt.keys.is_absent(), !jwt.jwks_file.is_absent(), !jwt.jwks_url.is_absent()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            let help = "give exactly one of `keys`, `jwks_file` and `jwks_url`";
            self.error(
                place,
                "`jwt` does not say with which keys tokens are verified, or says it twice",
                help,
            );
            return None;
        }
        if jwt.jwks_file.given().is_some() {
            return Some(JwtKeys::JwksFile(self.file(&jwt.jwks_file, "jwks_file", place)));
        }
        if let Some(at) = jwt.jwks_url.given() {
            self.jwks_url(at);
            let refresh = seconds(&jwt.jwks_refresh_s, 300);
            return Some(JwtKeys::JwksUrl { url: at.value.clone(), refresh });
        }
        let keys = self.list(&jwt.keys, "keys", "`jwt`", place);
        let keys: Vec<_> = keys.into_iter().map(|at| self.jwt_key(at)).collect();
        Some(JwtKeys::Static(keys.into_iter().collect::<Option<_>>()?))
    }

    fn jwks_url(&mut self, at: &At<String>) {
        let uri: Option<http::Uri> = at.value.parse().ok();
        let host = uri.as_ref().and_then(http::Uri::host);
        match (uri.as_ref().and_then(http::Uri::scheme_str), host) {
            (Some("https"), Some(_)) => {}
            (Some("http"), Some("localhost" | "127.0.0.1" | "[::1]")) => {}
            (Some("http"), Some(_)) => {
                let message =
                    "`jwks_url` is fetched without TLS: whoever can change the answer can sign tokens";
                self.warning(at.place, message, "use https");
            }
            _ => {
                let message =
                    format!("`jwks_url` must be an http or https URL, not `{}`", self.source.quote(at.place));
                self.error(at.place, message, "such as `https://login.example.com/keys`");
            }
        }
    }

    fn jwt_key(&mut self, at: &At<file::JwtKey>) -> Option<JwtKey> {
        let At { value: key, place } = at;
        if key.algorithm.is_absent() {
            self.missing(*place, "algorithm", "this entry of `keys`");
        }
        let algorithm = *key.algorithm.value()?;
        let symmetric = matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        let (wanted, name, other, other_name) = if symmetric {
            (&key.secret, "secret", &key.public_key, "public_key")
        } else {
            (&key.public_key, "public_key", &key.secret, "secret")
        };
        if let Some(at) = other.given() {
            self.error(at.place, format!("`{other_name}` is not for {algorithm:?}"), format!("use `{name}`"));
        } else if wanted.is_absent() {
            self.missing(*place, name, &format!("this entry of `keys`, which is for {algorithm:?}"));
        }
        let material = self.material(wanted.given()?, algorithm)?;
        let (material, origin) = material;
        Some(JwtKey { kid: key.kid.value().cloned(), algorithm: algorithm.into(), material, origin })
    }

    /// Reads a key and tries it, so that a wrong file is found here and not by the first caller.
    fn material(&mut self, at: &At<SecretRef>, algorithm: Algorithm) -> Option<(Arc<[u8]>, String)> {
        let secret = self.secret(at)?;
        let bytes = secret.bytes();
        let usable = match algorithm {
            Algorithm::EdDSA => DecodingKey::from_ed_pem(bytes).is_ok(),
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(bytes).is_ok(),
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => {
                DecodingKey::from_rsa_pem(bytes).is_ok()
            }
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                self.secret_length(at.place, bytes.len(), algorithm);
                true
            }
        };
        if !usable {
            let message = format!("this is not the PEM of a public key for {algorithm:?}");
            self.error(at.place, message, "it begins with `-----BEGIN PUBLIC KEY-----`");
        }
        Some((bytes.into(), secret.origin.clone()))
    }

    /// RFC 7518 §3.2: a secret must be at least as long as the hash.
    fn secret_length(&mut self, place: Place, length: usize, algorithm: Algorithm) {
        let needed = match algorithm {
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => 32,
        };
        let message = format!("the secret has {length} bytes; RFC 7518 asks for {needed} with {algorithm:?}");
        if length < crate::config::secret::SHORTEST_KEY {
            self.error(place, message, "make one with `openssl rand -hex 32`");
        } else if length < needed {
            self.warning(place, message, "make one with `openssl rand -hex 32`");
        }
    }
}
