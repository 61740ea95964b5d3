//! Answers: errors of changes with their status codes, and what is told of operations.

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::super::{AdminContext, Failure};
use super::OPENAPI;
use crate::control::registry::ChangeError;
use crate::control::store::StoreError;
use crate::core::declared::{Code, Refusal};

/// Where a long operation is followed, in Azure's word.
const OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            Code::Invalid | Code::NoKeys | Code::NoTokens => StatusCode::BAD_REQUEST,
            Code::DeploymentNotFound | Code::EndpointNotFound => StatusCode::NOT_FOUND,
            Code::AlreadyExists
            | Code::Conflict
            | Code::DeploymentIsDefault
            | Code::DeploymentHasTraffic
            | Code::OwnedByFile => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code.as_str(), refusal.message)
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        match error {
            ChangeError::Refused(refusal) => refusal.into(),
            ChangeError::InProgress { .. } => {
                Self::new(StatusCode::CONFLICT, "operation_in_progress", message)
            }
            ChangeError::NobodyThere => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message),
            ChangeError::NoState => Self::new(StatusCode::CONFLICT, "no_state", message),
            ChangeError::Recipe(error) => Self::new(StatusCode::BAD_REQUEST, error.code, message),
            ChangeError::Settings(_) => Self::new(StatusCode::BAD_REQUEST, "invalid", message),
            ChangeError::Store(StoreError::Unfit { .. }) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid", message)
            }
            ChangeError::Store(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "store_failed", message),
            ChangeError::TooSlow => Self::new(StatusCode::GATEWAY_TIMEOUT, "slow", message),
        }
    }
}

/// A view with its version; with an operation that goes on, `busy` is the status, otherwise `done`.
pub(super) fn changed(
    view: Value,
    (done, busy): (StatusCode, StatusCode),
    operation: Option<&str>,
    host: &str,
) -> Response {
    let status = if operation.is_some() { busy } else { done };
    let etag = view
        .get("etag")
        .and_then(Value::as_str)
        .and_then(|etag| HeaderValue::from_str(&format!("\"{etag}\"")).ok());
    let mut response = (status, Json(view)).into_response();
    let headers = response.headers_mut();
    if let Some(etag) = etag {
        headers.insert(ETAG, etag);
    }
    if let Some(id) = operation
        && let Ok(url) = HeaderValue::from_str(&format!("http://{host}/operations/{id}"))
    {
        headers.insert(OPERATION, url);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A view that was only asked for.
pub(super) fn seen(view: Value) -> Response {
    changed(view, (StatusCode::OK, StatusCode::OK), None, "")
}

pub(super) async fn operations(Shared(context): Shared<AdminContext>) -> Response {
    Json(json!({ "value": context.shown.operations.all() })).into_response()
}

pub(super) async fn operation(
    Shared(context): Shared<AdminContext>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Failure> {
    let found = path.ok().and_then(|Path(id)| context.shown.operations.get(&id));
    let found = found.ok_or_else(|| {
        Failure::new(
            StatusCode::NOT_FOUND,
            "operation_not_found",
            "there is no such operation, or it is long over",
        )
    })?;
    let mut response = Json(&found).into_response();
    if found.is_running() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
