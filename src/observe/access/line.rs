//! One line of the access log: the columns of Azure's traffic log (`AmlOnlineEndpointTrafficLog`), and the time of
//! each phase. Bytes of clients are cut and made valid text; the query string is left out, it may hold secrets.
//!
//! `docs/access-log.md` explains every column.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};
use serde::{Serialize, Serializer};

use super::Record;
use crate::core::identity::{AuthType, Identity};
use crate::core::settings::Name;

/// Azure's length of the column `UserAgent`, in characters.
const USER_AGENT_CHARS: usize = 70;
/// Longest request id that clients may send (reference: 100 characters).
const ID_CHARS: usize = 100;
/// Bytes of a path that are kept.
const PATH_BYTES: usize = 2_048;
/// Bytes of a method that are kept; clients may invent their own.
const METHOD_BYTES: usize = 32;

/// A record in a bounded size, with texts of its own: those of the request point into the connection's read
/// buffer and would keep all of it alive for as long as the line waits.
#[derive(Debug)]
pub(super) struct Entry {
    started_at: SystemTime,
    method: Method,
    path: Box<str>,
    version: Version,
    endpoint: Option<Name>,
    deployment: Option<Name>,
    replica: Option<Arc<str>>,
    identity: Option<Identity>,
    status: Option<StatusCode>,
    reason: Option<&'static str>,
    model_status: Option<StatusCode>,
    request_id: Option<Box<str>>,
    client_request_id: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    request_bytes: u64,
    response_bytes: u64,
    route_time: Duration,
    queue_time: Duration,
    connect_time: Duration,
    model_time: Option<Duration>,
    body_time: Duration,
    total_time: Duration,
    overhead: Option<Duration>,
}

impl Entry {
    pub(super) fn new(record: &Record) -> Self {
        let path = record.path.path();
        Self {
            started_at: record.started_at,
            method: short_method(&record.method),
            path: path[..path.floor_char_boundary(PATH_BYTES)].into(),
            version: record.version,
            endpoint: record.endpoint.clone(),
            deployment: record.deployment.clone(),
            replica: record.replica.clone(),
            identity: record.identity.clone(),
            status: record.status,
            reason: record.reason,
            model_status: record.model_status,
            request_id: record.request_id.as_ref().map(|id| text(id, ID_CHARS)),
            client_request_id: record.client_request_id.as_ref().map(|id| text(id, ID_CHARS)),
            user_agent: record.user_agent.as_ref().map(|agent| text(agent, USER_AGENT_CHARS)),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            route_time: record.route_time,
            queue_time: record.queue_time,
            connect_time: record.connect_time,
            model_time: record.model_time,
            body_time: record.body_time,
            total_time: record.total_time,
            overhead: record.overhead(),
        }
    }

    /// Appends the line, line break included.
    pub(super) fn write_to(&self, lines: &mut Vec<u8>) {
        serde_json::to_writer(&mut *lines, &Line::from(self)).expect("a line has only texts and numbers");
        lines.push(b'\n');
    }
}

/// The columns, in their order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    time: String,
    method: &'a str,
    path: &'a str,
    endpoint_name: Option<&'a str>,
    deployment_name: Option<&'a str>,
    replica: Option<&'a str>,
    protocol: &'static str,
    response_code: Option<u16>,
    response_code_reason: Option<&'static str>,
    reason: Option<&'static str>,
    model_status_code: Option<u16>,
    model_status_reason: Option<&'static str>,
    request_payload_size: u64,
    response_payload_size: u64,
    user_agent: Option<&'a str>,
    x_request_id: Option<&'a str>,
    #[serde(rename = "XMSClientRequestId")]
    x_ms_client_request_id: Option<&'a str>,
    auth_type: Option<&'static str>,
    identity_data: Option<&'a str>,
    total_duration_ms: Milliseconds,
    request_duration_ms: Milliseconds,
    response_duration_ms: Option<Milliseconds>,
    request_throttling_delay_ms: Milliseconds,
    response_throttling_delay_ms: Milliseconds,
    route_ms: Milliseconds,
    queue_ms: Milliseconds,
    connect_ms: Milliseconds,
    model_ms: Option<Milliseconds>,
    body_ms: Milliseconds,
    overhead_ms: Option<Milliseconds>,
}

impl<'a> From<&'a Entry> for Line<'a> {
    fn from(entry: &'a Entry) -> Self {
        let handed_over = entry.route_time + entry.queue_time + entry.connect_time;
        let canonical = |status: Option<StatusCode>| status.and_then(|status| status.canonical_reason());
        Self {
            time: time(entry.started_at),
            method: entry.method.as_str(),
            path: &entry.path,
            endpoint_name: entry.endpoint.as_ref().map(Name::as_str),
            deployment_name: entry.deployment.as_ref().map(Name::as_str),
            replica: entry.replica.as_deref(),
            protocol: protocol(entry.version),
            response_code: entry.status.map(|status| status.as_u16()),
            response_code_reason: canonical(entry.status),
            reason: entry.reason,
            model_status_code: entry.model_status.map(|status| status.as_u16()),
            model_status_reason: canonical(entry.model_status),
            request_payload_size: entry.request_bytes,
            response_payload_size: entry.response_bytes,
            user_agent: entry.user_agent.as_deref(),
            x_request_id: entry.request_id.as_deref(),
            x_ms_client_request_id: entry.client_request_id.as_deref(),
            auth_type: entry.identity.as_ref().map(|identity| auth_type(identity.auth)),
            identity_data: entry.identity.as_ref().and_then(|identity| identity.subject.as_deref()),
            total_duration_ms: Milliseconds(entry.total_time),
            request_duration_ms: Milliseconds(handed_over),
            response_duration_ms: entry.model_time.map(|model| Milliseconds(handed_over + model)),
            request_throttling_delay_ms: Milliseconds(entry.queue_time),
            response_throttling_delay_ms: Milliseconds(Duration::ZERO),
            route_ms: Milliseconds(entry.route_time),
            queue_ms: Milliseconds(entry.queue_time),
            connect_ms: Milliseconds(entry.connect_time),
            model_ms: entry.model_time.map(Milliseconds),
            body_ms: Milliseconds(entry.body_time),
            overhead_ms: entry.overhead.map(Milliseconds),
        }
    }
}

/// Written as milliseconds with three decimals.
struct Milliseconds(Duration);

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_micros() as f64 / 1_000.0)
    }
}

fn time(at: SystemTime) -> String {
    // A clock beyond the year 9999 has no RFC 3339 form.
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

fn text(value: &HeaderValue, chars: usize) -> Box<str> {
    // A character has at most four bytes; more is not looked at.
    let bytes = value.as_bytes();
    let bytes = &bytes[..bytes.len().min(4 * chars)];
    String::from_utf8_lossy(bytes).chars().take(chars).collect::<String>().into()
}

fn short_method(method: &Method) -> Method {
    let name = method.as_str().as_bytes();
    if name.len() <= METHOD_BYTES {
        return method.clone();
    }
    Method::from_bytes(&name[..METHOD_BYTES]).expect("a part of a method is a method")
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn auth_type(auth: AuthType) -> &'static str {
    match auth {
        AuthType::Anonymous => "None",
        AuthType::Jwt => "Jwt",
        AuthType::Key => "Key",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::observe::access::tests::record;

    fn line(record: &Record) -> (String, Value) {
        let mut bytes = Vec::new();
        Entry::new(record).write_to(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        (text, value)
    }

    #[test]
    fn a_line_says_who_what_and_how_long() {
        let (text, value) = line(&record());
        let expected = [
            ("Time", "1970-01-01T00:00:01.500Z".into()),
            ("Method", "POST".into()),
            ("Path", "/api/v1/endpoint/demo/score".into()),
            ("EndpointName", "demo".into()),
            ("DeploymentName", "blue".into()),
            ("Replica", "blue-1".into()),
            ("Protocol", "HTTP/1.1".into()),
            ("ResponseCode", 200.into()),
            ("ResponseCodeReason", "OK".into()),
            ("Reason", Value::Null),
            ("ModelStatusCode", 200.into()),
            ("RequestPayloadSize", 10.into()),
            ("ResponsePayloadSize", 20.into()),
            ("XRequestId", "r-1".into()),
            ("XMSClientRequestId", Value::Null),
            ("AuthType", "Key".into()),
            ("IdentityData", "primary".into()),
            ("TotalDurationMs", 50.025.into()),
            ("RequestDurationMs", 3.015.into()),
            ("ResponseDurationMs", 43.015.into()),
            ("RequestThrottlingDelayMs", 2.0.into()),
            ("RouteMs", 0.015.into()),
            ("QueueMs", 2.0.into()),
            ("ConnectMs", 1.0.into()),
            ("ModelMs", 40.0.into()),
            ("BodyMs", 7.0.into()),
            ("OverheadMs", 0.025.into()),
        ];
        for (column, expected) in expected {
            assert_eq!(value[column], expected, "{column} in {text}");
        }
    }

    #[test]
    fn a_query_never_reaches_the_log() {
        assert!(!line(&record()).0.contains("secret"));
    }

    #[test]
    fn hostile_bytes_make_one_line_of_valid_text_in_bounded_length() {
        let hostile =
            HeaderValue::from_bytes(&[b"\"},\\\t\xff\xfe\xc3".as_slice(), &[0xe2; 60_000]].concat()).unwrap();
        let record = Record {
            method: Method::from_bytes(&[b'X'; 5_000]).unwrap(),
            path: format!("/{}", "a".repeat(60_000)).parse().unwrap(),
            user_agent: Some(hostile.clone()),
            request_id: Some(hostile.clone()),
            client_request_id: Some(hostile),
            ..record()
        };
        let (text, value) = line(&record);
        assert_eq!(text.lines().count(), 1);
        assert!(text.len() < 5_000, "{} bytes", text.len());
        assert_eq!(value["UserAgent"].as_str().unwrap().chars().count(), USER_AGENT_CHARS);
        assert!(value["UserAgent"].as_str().unwrap().starts_with("\"},\\\t\u{fffd}"));
    }

    #[test]
    fn a_client_that_has_gone_has_no_response_code() {
        let record = Record { status: None, model_status: None, reason: Some("client_gone"), ..record() };
        let value = line(&record).1;
        assert_eq!((&value["ResponseCode"], &value["Reason"]), (&Value::Null, &Value::from("client_gone")));
    }

    #[test]
    fn every_column_is_explained_in_the_docs_and_no_other() {
        let page = include_str!("../../../docs/access-log.md");
        let rows = page.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
        let explained: Vec<&str> = rows.map(|(column, _)| column).collect();
        let text = line(&record()).0;
        // The order counts as well, which a parsed object would not keep.
        let mut columns = explained.clone();
        columns.sort_by_key(|column| text.find(&format!("\"{column}\":")));
        assert_eq!(explained, columns);
        assert!(explained.iter().all(|column| text.contains(&format!("\"{column}\":"))));
        assert_eq!(explained.len(), line(&record()).1.as_object().unwrap().len());
    }
}
