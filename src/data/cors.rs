//! Cross-origin answers (Fetch standard): which origin is told what. Nothing is ever refused here; a browser that is
//! told nothing refuses by itself.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::core::settings::CorsSettings;

/// An origin that may read the answer.
#[derive(Debug)]
pub struct AllowedOrigin(HeaderValue);

impl AllowedOrigin {
    /// Says so in an answer.
    pub fn mark(self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.0);
        headers.append(VARY, HeaderValue::from_static("origin"));
        let exposed =
            "azureml-model-deployment, retry-after, x-request-id, x-ms-request-id, x-ms-client-request-id";
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }
}

/// The origin of a request, if it may read the answer.
pub fn allow(policy: &CorsSettings, headers: &HeaderMap) -> Option<AllowedOrigin> {
    let origin = headers.get(ORIGIN)?;
    if policy.allow_origins.iter().any(|allowed| allowed == "*") {
        return Some(AllowedOrigin(HeaderValue::from_static("*")));
    }
    let known = policy.allow_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
    known.then(|| AllowedOrigin(origin.clone()))
}

/// The answer to a preflight. The origin is marked like on any other answer.
pub fn preflight(policy: &CorsSettings, headers: &HeaderMap) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if allow(policy, headers).is_none() {
        return response;
    }
    let allowed = if policy.allow_headers.is_empty() {
        headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned()
    } else {
        HeaderValue::from_str(&policy.allow_headers.join(", ")).ok()
    };
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
    if let Some(allowed) = allowed {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(policy.max_age.as_secs()));
    response
}
