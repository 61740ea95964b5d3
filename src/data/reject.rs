//! The answers that the router makes itself: one table of reason, code and status per profile.
//!
//! `docs/status-codes.md` is this table for readers; a test keeps the two the same.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::core::admission::{Denial, Retry};
use crate::core::identity::AuthError;
use crate::core::quota::{Denied, Limit};
use crate::core::settings::{Profile, RequestSettings};
use crate::core::wait::{LongestWait, until_return};
use crate::core::words::count;
use crate::data::gate::Refusal;

/// `Retry-After` in milliseconds, as Azure's and OpenAI's clients read it before the other one.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Why the router answers instead of the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Reject {
    /// The head is not one that can be passed on.
    BadRequest {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The credential is missing, wrong or not enough.
    Auth(AuthError),
    /// The request's body is not well-formed.
    BodyMalformed,
    /// The request's body is over the limit.
    BodyTooLarge {
        /// `max_body_bytes`.
        limit: u64,
    },
    /// The client left before the request was complete. Nobody sees this answer; it is for log and metrics.
    ClientGone,
    /// The answer would come after the request's deadline, or the deadline has passed.
    DeadlineUnmeetable {
        /// Time in the queue.
        waited: Duration,
        /// When to come back.
        retry: Retry,
    },
    /// The body did not arrive within the request timeout.
    ClientTooSlow {
        /// `request_timeout_ms`.
        limit: Duration,
    },
    /// The router ends before it could serve the request.
    Draining,
    /// The caller is over one of its limits.
    Limited(Denied),
    /// An id header over 100 characters.
    HeaderTooLong {
        /// Its name.
        header: &'static str,
    },
    /// Not GET, HEAD, POST (or OPTIONS, where the endpoint has a CORS policy).
    MethodNotAllowed {
        /// Value of the Allow header.
        allow: &'static str,
    },
    /// The replica closed or reset the connection, or its answer is not HTTP.
    ModelBroke,
    /// No answer from the model within the request timeout.
    ModelTimeout {
        /// `request_timeout_ms`.
        limit: Duration,
    },
    /// No replica was ready within the longest wait.
    NoReadyReplica {
        /// Time in the queue.
        waited: Duration,
        /// How long it could wait, and by which setting.
        limit: LongestWait,
        /// When to come back.
        retry: Retry,
    },
    /// No deployment has a share of the traffic.
    NoTraffic {
        /// The deployments that the header may name.
        known: Vec<String>,
    },
    /// The queue is as long as it may be.
    QueueFull {
        /// `max_queue_length`.
        limit: u32,
        /// When to come back.
        retry: Retry,
    },
    /// All replicas were busy for the longest wait.
    QueueTimeout {
        /// Time in the queue.
        waited: Duration,
        /// How long it could wait, and by which setting.
        limit: LongestWait,
        /// When to come back.
        retry: Retry,
    },
    /// Turned away for others: a more important request had no place in the full queue, or the queue does not drain and
    /// the newest requests are served first.
    Shed {
        /// Time in the queue.
        waited: Duration,
        /// When to come back.
        retry: Retry,
    },
    /// The header names a deployment that is not there.
    UnknownDeployment {
        /// The deployments that there are.
        known: Vec<String>,
    },
    /// The path leads nowhere.
    UnknownRoute,
}

impl Reject {
    /// What a refusal of the gate is to the client, after a wait of at most `limit`.
    pub fn refused(
        Refusal { why, retry, .. }: Refusal,
        waited: Duration,
        limit: LongestWait,
        limits: &RequestSettings,
    ) -> Self {
        match why {
            Denial::QueueFull => {
                Self::QueueFull { limit: limits.max_queue_length.unwrap_or(u32::MAX), retry }
            }
            Denial::TooLate(_) | Denial::Hopeless => Self::DeadlineUnmeetable { waited, retry },
            Denial::GaveWay(_) | Denial::TooOld(_) => Self::Shed { waited, retry },
            Denial::WaitedTooLong => Self::QueueTimeout { waited, limit, retry },
            Denial::NoReadyReplica => Self::NoReadyReplica { waited, limit, retry },
        }
    }

    /// The code in the body, in metrics and in the access log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } => "bad_request",
            Self::Auth(AuthError::Forbidden) => "forbidden",
            Self::Auth(_) => "unauthorized",
            Self::BodyMalformed => "body_malformed",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::ClientGone => "client_gone",
            Self::ClientTooSlow { .. } => "client_too_slow",
            Self::DeadlineUnmeetable { .. } => "deadline_unmeetable",
            Self::Draining => "draining",
            Self::Limited(denied) => denied.limit.code(),
            Self::HeaderTooLong { .. } => "header_too_long",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::ModelBroke => "model_connection_broken",
            Self::ModelTimeout { .. } => "model_timeout",
            Self::NoReadyReplica { .. } => "no_ready_replica",
            Self::NoTraffic { .. } => "no_traffic",
            Self::QueueFull { .. } => "queue_full",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::Shed { .. } => "shed",
            Self::UnknownDeployment { .. } => "unknown_deployment",
            Self::UnknownRoute => "unknown_route",
        }
    }

    /// The status (reference: documented tables of azureml-fe and of managed endpoints).
    pub fn status(&self, profile: Profile) -> StatusCode {
        let managed = profile == Profile::Managed;
        match self {
            Self::Auth(AuthError::Forbidden) => StatusCode::FORBIDDEN,
            Self::Auth(_) => StatusCode::UNAUTHORIZED,
            Self::BadRequest { .. } | Self::BodyMalformed => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            // nginx's code for it.
            Self::ClientGone => StatusCode::from_u16(499).expect("499 is a status code"),
            Self::ClientTooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::HeaderTooLong { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::ModelBroke | Self::NoReadyReplica { .. } if managed => StatusCode::FAILED_DEPENDENCY,
            Self::ModelBroke => StatusCode::BAD_GATEWAY,
            Self::ModelTimeout { .. } if managed => StatusCode::REQUEST_TIMEOUT,
            Self::ModelTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::DeadlineUnmeetable { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Shed { .. }
                if managed =>
            {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::DeadlineUnmeetable { .. }
            | Self::NoReadyReplica { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Shed { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoTraffic { .. } | Self::UnknownDeployment { .. } | Self::UnknownRoute => {
                StatusCode::NOT_FOUND
            }
        }
    }

    /// When coming back makes sense.
    pub(super) fn retry(&self) -> Option<Retry> {
        match self {
            Self::Limited(denied) => Some(exactly(denied.retry)),
            Self::Draining => Some(Retry::UNKNOWN),
            Self::DeadlineUnmeetable { retry, .. }
            | Self::NoReadyReplica { retry, .. }
            | Self::QueueFull { retry, .. }
            | Self::QueueTimeout { retry, .. }
            | Self::Shed { retry, .. } => Some(*retry),
            _ => None,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Auth(error) => error.to_string(),
            Self::BadRequest { problem } => (*problem).to_owned(),
            Self::BodyMalformed => "the request body is not well-formed".to_owned(),
            Self::BodyTooLarge { limit } => format!("the request body is larger than {limit} bytes"),
            Self::ClientGone => "the client left before its request was complete".to_owned(),
            Self::ClientTooSlow { limit } => {
                format!("the request body did not arrive within {} ms", limit.as_millis())
            }
            Self::DeadlineUnmeetable { .. } => {
                "the request cannot be answered before its deadline; it was not sent to the model".to_owned()
            }
            Self::Draining => "the router is shutting down; send the request again".to_owned(),
            Self::Limited(Denied { limit, retry }) => match limit {
                Limit::Concurrency(_) => format!("over the limit of {limit}; come back when one has ended"),
                Limit::Quota(_) | Limit::Rate(_) => {
                    format!(
                        "over the limit of {limit}; come back in {} ms",
                        until_return(exactly(*retry).wait)
                    )
                }
            },
            Self::HeaderTooLong { header } => format!("{header} must not exceed 100 characters"),
            Self::MethodNotAllowed { allow } => format!("the method is not allowed here; allowed: {allow}"),
            Self::ModelBroke => "the model server broke the connection before it had answered".to_owned(),
            Self::ModelTimeout { limit } => {
                format!("the model did not answer within {} ms", limit.as_millis())
            }
            Self::NoReadyReplica { waited, limit, .. } => format!(
                "no replica was ready; waited {} ms of at most {} ms",
                waited.as_millis(),
                limit.time.as_millis()
            ),
            Self::NoTraffic { known } => format!(
                "no deployment takes traffic; name one in the azureml-model-deployment header: {}",
                known.join(", ")
            ),
            Self::QueueFull { limit, .. } => {
                let requests = count(*limit, "request");
                format!("all replicas are busy and the queue holds {requests}, its limit")
            }
            Self::QueueTimeout { waited, limit, .. } => format!(
                "all replicas were busy; waited {} ms of at most {} ms",
                waited.as_millis(),
                limit.time.as_millis()
            ),
            Self::Shed { .. } => {
                "all replicas are busy, and this request gave way to others; send it again later".to_owned()
            }
            Self::UnknownDeployment { known } => {
                format!("no such deployment at this endpoint; there are: {}", known.join(", "))
            }
            Self::UnknownRoute => {
                "no such route; endpoints answer at /api/v1/endpoint/<name>/score and .../swagger.json"
                    .to_owned()
            }
        }
    }

    /// The limit that was hit, how long the request waited, and the like, for programs.
    fn details(&self) -> Value {
        let ms = |d: &Duration| d.as_millis() as u64;
        match self {
            Self::BodyTooLarge { limit } => json!({"setting": "max_body_bytes", "limit": limit}),
            Self::ClientTooSlow { limit } | Self::ModelTimeout { limit } => {
                json!({"setting": "request_timeout_ms", "limit": ms(limit)})
            }
            Self::Limited(Denied { limit, .. }) => match limit {
                Limit::Concurrency(limit) => json!({"setting": "concurrency", "limit": limit}),
                Limit::Quota(quota) => json!({
                    "setting": "quota", "limit": quota.requests, "per": quota.per.as_str(),
                }),
                Limit::Rate(rate) => json!({
                    "setting": "requests_per_second", "limit": rate.per_second(), "burst": rate.burst(),
                }),
            },
            Self::DeadlineUnmeetable { waited, .. } | Self::Shed { waited, .. } => {
                json!({"waited_ms": ms(waited)})
            }
            Self::NoReadyReplica { waited, limit, .. } | Self::QueueTimeout { waited, limit, .. } => {
                json!({
                    "setting": limit.setting, "limit": ms(&limit.time), "waited_ms": ms(waited),
                })
            }
            Self::NoTraffic { known } | Self::UnknownDeployment { known } => json!({"deployments": known}),
            Self::QueueFull { limit, .. } => {
                json!({"setting": "max_queue_length", "limit": limit, "waited_ms": 0})
            }
            Self::Auth(_)
            | Self::BadRequest { .. }
            | Self::BodyMalformed
            | Self::ClientGone
            | Self::Draining
            | Self::HeaderTooLong { .. }
            | Self::MethodNotAllowed { .. }
            | Self::ModelBroke
            | Self::UnknownRoute => Value::Null,
        }
    }

    /// The whole answer.
    pub fn response(&self, profile: Profile) -> Response<Bytes> {
        let mut error = json!({"code": self.code(), "message": self.message()});
        let details = self.details();
        if let (Value::Object(error), Value::Object(details)) = (&mut error, details) {
            error.extend(details);
        }
        let retry = self.retry();
        if let Some(retry) = retry {
            error["retry_after_ms"] = until_return(retry.wait).into();
        }
        let mut response = Response::new(Bytes::from(json!({ "error": error }).to_string()));
        *response.status_mut() = self.status(profile);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(retry) = retry {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry.seconds));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(until_return(retry.wait)));
        }
        match self {
            Self::Auth(error) if *error != AuthError::Forbidden => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::MethodNotAllowed { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            _ => {}
        }
        response
    }
}

/// A time that is known, and no guess to be spread.
fn exactly(wait: Duration) -> Retry {
    Retry { wait, seconds: until_return(wait).div_ceil(1_000) }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use super::*;
    use crate::core::ledger::{Entry, Rejection, What};
    use crate::core::quota::{Period, Quota, Rate};
    use crate::core::wait::WaitSetting;

    fn limited(limit: Limit) -> Reject {
        Reject::Limited(Denied { limit, retry: Duration::from_secs(1) })
    }

    fn every_reject() -> Vec<Reject> {
        let ms = Duration::from_millis(500);
        let limit = LongestWait { time: ms, setting: WaitSetting::ColdStart };
        let retry = Retry { wait: Duration::from_micros(2_300_100), seconds: 3 };
        vec![
            Reject::Auth(AuthError::Missing),
            Reject::Auth(AuthError::Forbidden),
            Reject::UnknownRoute,
            Reject::UnknownDeployment { known: vec!["blue".into()] },
            Reject::NoTraffic { known: vec!["blue".into()] },
            Reject::MethodNotAllowed { allow: "GET, HEAD, POST" },
            Reject::HeaderTooLong { header: "x-request-id" },
            Reject::BadRequest { problem: "two Host headers" },
            Reject::BodyMalformed,
            Reject::ClientGone,
            Reject::BodyTooLarge { limit: 10 },
            Reject::ClientTooSlow { limit: ms },
            Reject::QueueFull { limit: 3, retry },
            Reject::QueueTimeout { waited: ms, limit, retry },
            Reject::DeadlineUnmeetable { waited: ms, retry },
            Reject::Shed { waited: ms, retry },
            Reject::NoReadyReplica { waited: ms, limit, retry },
            Reject::ModelTimeout { limit: ms },
            Reject::ModelBroke,
            Reject::Draining,
            limited(Limit::Concurrency(NonZeroU32::MIN)),
            limited(Limit::Rate(Rate::new(NonZeroU32::MIN, None))),
            limited(Limit::Quota(Quota { requests: NonZeroU64::MIN, per: Period::Day })),
        ]
    }

    #[test]
    fn the_page_of_status_codes_is_this_table() {
        let page = include_str!("../../docs/status-codes.md");
        for reject in every_reject() {
            let row = format!(
                "| `{}` | {} | {} | {} |",
                reject.code(),
                reject.status(Profile::Aks).as_u16(),
                reject.status(Profile::Managed).as_u16(),
                match (&reject, reject.retry()) {
                    (_, None) => "–",
                    (Reject::Draining, _) => "1 s",
                    (Reject::Limited(Denied { limit: Limit::Quota(_) | Limit::Rate(_), .. }), _) => {
                        "when one may pass"
                    }
                    (Reject::Limited(_), _) => "1 s",
                    (_, Some(_)) => "true",
                },
            );
            assert!(page.contains(&row), "docs/status-codes.md lacks the row\n{row}");
            assert_eq!(reject.status(Profile::Aks), reject.status(Profile::AksV1));
        }
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, every_reject().len(), "docs/status-codes.md has rows that the table lacks");
    }

    #[test]
    fn nobody_is_told_to_come_back_too_early() {
        let after = |retry| {
            let limit = Limit::Concurrency(NonZeroU32::MIN);
            let response = Reject::Limited(Denied { limit, retry }).response(Profile::Aks);
            let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
            (header(RETRY_AFTER), header(RETRY_AFTER_MS))
        };
        let told = |seconds: &str, millis: &str| (seconds.to_owned(), millis.to_owned());
        assert_eq!(after(Duration::from_nanos(1)), told("1", "1"));
        assert_eq!(after(Duration::ZERO), told("1", "1"));
        assert_eq!(after(Duration::from_nanos(1_000_000_001)), told("2", "1001"));
        assert_eq!(after(Duration::from_secs(3_600)), told("3600", "3600000"));
    }

    #[test]
    fn every_reason_can_be_explained() {
        for reject in every_reject().into_iter().filter(|reject| reject.code() != "client_gone") {
            let rejection = Rejection {
                request: "one".to_owned(),
                client_request: None,
                chosen: None,
                reason: reject.code().to_owned(),
                status: Some(503),
                queue_ms: 0.0,
                seen: None,
                grounds: None,
                retry_after_ms: None,
                retry_after_seconds: None,
            };
            let what = What::Reject(rejection);
            let entry = Entry { at_unix_seconds: 0.0, endpoint: None, deployment: None, what };
            let sentence = entry.to_string();
            assert!(!sentence.contains(reject.code()), "a bare code: {sentence}");
        }
    }

    #[test]
    fn every_answer_is_json_with_code_and_message() {
        for reject in every_reject() {
            let body: Value = serde_json::from_slice(reject.response(Profile::Aks).body()).unwrap();
            assert_eq!(body["error"]["code"], reject.code());
            assert!(body["error"]["message"].as_str().is_some_and(|m| m.len() > 10));
        }
    }

    #[test]
    fn when_to_come_back_is_told_in_seconds_and_in_milliseconds() {
        for reject in every_reject() {
            let response = reject.response(Profile::Managed);
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
            let body: Value = serde_json::from_slice(response.body()).unwrap();
            let told =
                (header("retry-after"), header("retry-after-ms"), body["error"]["retry_after_ms"].as_u64());
            match reject.retry() {
                None => assert_eq!(told, (None, None, None), "{reject:?}"),
                Some(Retry::UNKNOWN) => assert_eq!(told, (Some("1"), Some("1000"), Some(1_000))),
                Some(_) => assert_eq!(told, (Some("3"), Some("2301"), Some(2_301))),
            }
        }
    }
}
