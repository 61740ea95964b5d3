//! What requests bring: names in the path, JSON bodies, the version that a change expects. Everything else is refused in the
//! one form that all errors have.

use std::collections::HashMap;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HOST, IF_MATCH};
use serde_json::Value;

use super::super::Failure;
use crate::control::registry::Expected;
use crate::core::declared::Document;

/// Largest body, in bytes: many times the largest document that makes sense.
pub(in crate::control::admin) const LARGEST_BODY: usize = 1024 * 1024;

/// The names in the path, and the query.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) endpoint: String,
    /// Empty where the path names none.
    pub(super) deployment: String,
    pub(super) query: HashMap<String, String>,
    /// The listener as the caller called it.
    pub(super) host: String,
    if_match: Option<u64>,
}

impl Target {
    /// What the caller says it has seen.
    pub(super) fn expected(&self) -> Vec<Expected> {
        let deployment = (!self.deployment.is_empty()).then(|| self.deployment.clone());
        let expected = |version| Expected { endpoint: self.endpoint.clone(), deployment, version };
        self.if_match.map(expected).into_iter().collect()
    }

    /// A number of the query.
    pub(super) fn number(&self, key: &str, most: u64) -> Result<Option<u64>, Failure> {
        let Some(text) = self.query.get(key) else { return Ok(None) };
        match text.parse::<u32>() {
            // More than there are is all there are.
            Ok(number) => Ok(Some(u64::from(number).min(most))),
            Err(_) => Err(invalid(format!("`{key}` must be a number"))),
        }
    }

    /// A switch of the query: on where it is named without a value.
    pub(super) fn switch(&self, key: &str) -> Result<bool, Failure> {
        match self.query.get(key).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(invalid(format!("`{key}` must be true or false"))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Path(mut names) = path.map_err(|_| invalid("the path is not UTF-8 text"))?;
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|_| invalid("the query is not of the form key=value&key=value"))?;
        let mut take = |key| names.remove(key).unwrap_or_default();
        Ok(Self {
            endpoint: take("endpoint"),
            deployment: take("deployment"),
            query,
            host: text(parts, &HOST).unwrap_or_default(),
            if_match: version(parts)?,
        })
    }
}

fn text(parts: &Parts, name: &http::HeaderName) -> Option<String> {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// `If-Match: "VERSION"` or `*`.
fn version(parts: &Parts) -> Result<Option<u64>, Failure> {
    match text(parts, &IF_MATCH).as_deref() {
        None if !parts.headers.contains_key(IF_MATCH) => Ok(None),
        Some("*") => Ok(None),
        other => {
            let number = other.and_then(|text| u64::from_str_radix(text.trim().trim_matches('"'), 16).ok());
            number.map(Some).ok_or_else(|| invalid("`If-Match` is not a version that was given out here"))
        }
    }
}

/// A JSON object.
#[derive(Debug)]
pub(super) struct Body(pub(super) Document);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        object(&bytes(request, state).await?)
    }
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Failure> {
    let kind = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
    if kind.is_some_and(|kind| !kind.windows(4).any(|word| word == b"json")) {
        let message = "the body must be JSON; send \"Content-Type: application/json\"";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let message = format!("the body cannot be read; at most {LARGEST_BODY} bytes are taken");
        Failure::new(rejection.status(), "body_unreadable", message)
    })
}

fn object(bytes: &[u8]) -> Result<Body, Failure> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(document)) => Ok(Body(document)),
        Ok(_) => Err(invalid("the body must be a JSON object")),
        Err(error) => Err(invalid(format!("the body is not JSON: {error}"))),
    }
}

/// A JSON object, or nothing.
#[derive(Debug)]
pub(super) struct MaybeBody(pub(super) Option<Body>);

impl<S: Send + Sync> FromRequest<S> for MaybeBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = bytes(request, state).await?;
        if bytes.is_empty() { Ok(Self(None)) } else { Ok(Self(Some(object(&bytes)?))) }
    }
}

impl Body {
    /// A text, if it is there and not null.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Failure> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(format!("`{key}` must be a text"))),
        }
    }

    /// Refuses keys that mean nothing.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Failure> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(_) => Err(invalid(format!("the body may have {}", crate::core::suggest::list(known)))),
        }
    }
}

pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "invalid", message)
}
