//! Credentials of an endpoint: its two keys, and the tokens of `auth_mode: aml_token`.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use jsonwebtoken::{EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::super::{AdminContext, Failure};
use super::input::{Body, MaybeBody, Target, invalid};
use super::view::{Found, Views};
use crate::control::registry::{ChangeRequest, ISSUER, issues_tokens};
use crate::control::store::new_key;
use crate::core::declared::{Change, Code, DeclaredEndpoint, KEY_LENGTH, Refusal, WhichKey};
use crate::core::settings::Name;

/// Life of a token when nobody says otherwise, and the longest, in seconds.
const TOKEN_LIFE: u64 = 3_600;
const LONGEST_LIFE: u64 = 86_400;
/// The endpoint, if it is declared here.
fn declared<'v>(views: &'v Views<'_>, name: &str) -> Result<(&'v Name, &'v DeclaredEndpoint), Refusal> {
    match views.find(name)? {
        Found::Declared(name, endpoint) => Ok((name, endpoint)),
        Found::File(settings) => Err(Refusal {
            code: Code::OwnedByFile,
            message: format!(
                "endpoint `{}` stands in the configuration file, and so do its credentials",
                settings.name
            ),
        }),
    }
}

fn with_keys<'v>(views: &'v Views<'_>, name: &str) -> Result<&'v DeclaredEndpoint, Refusal> {
    let (name, endpoint) = declared(views, name)?;
    let mode = endpoint.document.get("auth_mode").and_then(Value::as_str).unwrap_or("key");
    let takes_keys = ["key", "key_or_jwt"].iter().any(|known| mode.eq_ignore_ascii_case(known));
    takes_keys.then_some(endpoint).ok_or_else(|| Refusal {
        code: Code::NoKeys,
        message: format!(
            "endpoint `{name}` does not use keys for authentication; its `auth_mode` is `{mode}`"
        ),
    })
}

fn both(endpoint: &DeclaredEndpoint) -> Response {
    let secrets = &endpoint.secrets;
    let keys = json!({
        "primaryKey": secrets.primary.expose_secret(), "secondaryKey": secrets.secondary.expose_secret(),
    });
    Json(keys).into_response()
}

pub(super) async fn list(Shared(context): Shared<AdminContext>, target: Target) -> Result<Response, Failure> {
    Ok(both(with_keys(&Views::of(&context), &target.endpoint)?))
}

/// A new key, unless another one than the present one is given: the SDK sends the present one (see `azure-ai-ml`).
pub(super) async fn regenerate(
    Shared(context): Shared<AdminContext>,
    target: Target,
    body: Body,
) -> Result<Response, Failure> {
    body.only(&["keyType", "keyValue"])?;
    let which = match body.text("keyType")?.map(str::to_ascii_lowercase).as_deref() {
        Some("primary") => WhichKey::Primary,
        Some("secondary") => WhichKey::Secondary,
        _ => return Err(invalid("`keyType` must be `primary` or `secondary`")),
    };
    let views = Views::of(&context);
    let endpoint = with_keys(&views, &target.endpoint)?;
    let present = match which {
        WhichKey::Primary => &endpoint.secrets.primary,
        WhichKey::Secondary => &endpoint.secrets.secondary,
    };
    let given = body.text("keyValue")?.filter(|key| !key.is_empty() && *key != present.expose_secret());
    let key: SecretString = match given {
        None => new_key(),
        Some(key) if KEY_LENGTH.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            key.into()
        }
        Some(_) => {
            let (shortest, longest) = (KEY_LENGTH.start(), KEY_LENGTH.end());
            let message = format!("`keyValue` must have {shortest} to {longest} visible ASCII characters");
            return Err(invalid(message));
        }
    };
    let change = Change::SetKey { endpoint: target.endpoint.clone(), which, key };
    context.registrar.change(ChangeRequest::one(change)).await?;
    list(Shared(context), target).await
}

/// A token for callers of the endpoint. `expires_in_s` says how long it is good for.
pub(super) async fn token(
    Shared(context): Shared<AdminContext>,
    target: Target,
    MaybeBody(body): MaybeBody,
) -> Result<Response, Failure> {
    let life = match &body {
        None => TOKEN_LIFE,
        Some(body) => {
            body.only(&["expires_in_s"])?;
            let given = body.0.get("expires_in_s").filter(|value| !value.is_null());
            let life = given.map_or(Some(TOKEN_LIFE), Value::as_u64);
            life.filter(|life| (1..=LONGEST_LIFE).contains(life))
                .ok_or_else(|| invalid(format!("`expires_in_s` must be a number from 1 to {LONGEST_LIFE}")))?
        }
    };
    let views = Views::of(&context);
    let (name, endpoint) = declared(&views, &target.endpoint)?;
    if !issues_tokens(&endpoint.document) {
        return Err(Refusal {
            code: Code::NoTokens,
            message: format!("endpoint `{name}` issues no tokens; that takes `auth_mode: aml_token` and no `jwt` of its own"),
        }
        .into());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claims = json!({
        "iss": ISSUER, "aud": name.as_str(), "sub": "aml_token", "iat": now, "exp": now + life, "jti": new_key().expose_secret(),
    });
    let key = EncodingKey::from_secret(endpoint.secrets.signing.expose_secret().as_bytes());
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).map_err(|error| {
        Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "token_failed", error.to_string())
    })?;
    Ok(Json(json!({
        "accessToken": token, "tokenType": "Bearer",
        "expiryTimeUtc": now + life, "refreshAfterTimeUtc": now + life / 2,
    }))
    .into_response())
}
