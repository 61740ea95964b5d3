//! What a line says, and that writing it by hand says the same as serde does.

use std::sync::Arc;

use http::{Method, Version};
use proptest::prelude::*;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::*;
use crate::core::identity::Identity;
use crate::core::retry::Tries;
use crate::observe::access::tests::record;

fn line(record: &Record) -> (String, Value) {
    let text = String::from_utf8(Scratch::default().line(record).to_vec()).unwrap();
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
        ("Attempts", 1.into()),
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
    let page = include_str!("../../../../docs/access-log.md");
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

/// Bytes with many of those that need care, in all lengths around a word and around the limits.
fn header() -> impl Strategy<Value = Option<HeaderValue>> {
    let careful =
        prop::sample::select(b"\"\\\t /\x7f\x80\xa0\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xffu".as_slice());
    let byte = || prop_oneof![3 => b'a'..=b'z', 1 => any::<u8>(), 1 => careful.clone()];
    let bytes =
        prop_oneof![prop::collection::vec(b'!'..=b'~', 0..120), prop::collection::vec(byte(), 0..450)];
    prop::option::of(bytes.prop_filter_map("control bytes", |bytes| HeaderValue::from_bytes(&bytes).ok()))
}

fn path() -> impl Strategy<Value = http::uri::PathAndQuery> {
    let any_length = prop_oneof![Just(""), Just("a"), Just("\u{20ac}")].prop_map(|unit| unit.repeat(2_040));
    let text = prop_oneof!["[a-z\"{}%/]{0,20}", "\\PC{0,40}"];
    (any_length, text).prop_filter_map("no path", |(long, text)| format!("/{long}{text}").parse().ok())
}

fn text_of_ours() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of(prop_oneof!["[a-z-]{0,20}", any::<String>()].prop_map(Arc::from))
}

fn status() -> impl Strategy<Value = Option<StatusCode>> {
    prop::option::of((100..1_000u16).prop_map(|code| StatusCode::from_u16(code).unwrap()))
}

/// Up to thirty years: the model's floats have no exact microseconds beyond three hundred.
fn duration() -> impl Strategy<Value = Duration> {
    let nanos = prop_oneof![
        Just(0),
        0..1_000u64,
        0..10_000_000u64,
        0..10_000_000_000u64,
        0..1_000_000_000_000_000_000u64
    ];
    nanos.prop_map(Duration::from_nanos)
}

/// Before 1970, the years of use, and beyond what has a text.
fn wall_clock() -> impl Strategy<Value = SystemTime> {
    let seconds = prop_oneof![0..5u64, 1_700_000_000..1_900_000_000u64, 0..400_000_000_000u64];
    (seconds, 0..1_000_000_000u32, prop::bool::weighted(0.9)).prop_map(|(seconds, nanos, after)| {
        let away = Duration::new(seconds, nanos);
        let epoch = SystemTime::UNIX_EPOCH;
        if after { epoch + away } else { epoch - away }
    })
}

fn records() -> impl Strategy<Value = Record> {
    let method =
        "[A-Za-z!#$%&'*+.^_`|~0-9-]{1,40}".prop_map(|name| Method::from_bytes(name.as_bytes()).unwrap());
    let version = prop::sample::select(vec![
        Version::HTTP_09,
        Version::HTTP_10,
        Version::HTTP_11,
        Version::HTTP_2,
        Version::HTTP_3,
    ]);
    let auth = prop::sample::select(vec![AuthType::Anonymous, AuthType::Jwt, AuthType::Key]);
    let identity = prop::option::of((auth, text_of_ours()))
        .prop_map(|who| who.map(|(auth, subject)| Identity { auth, subject }));
    let name = || prop::option::of("[a-z]{3,32}".prop_map(|name| Name::parse(&name).unwrap()));
    let reason = prop::option::of(prop::sample::select(vec!["queue_full", "client_gone"]));
    let sizes = (any::<u64>(), 0..100_000u64, any::<u16>());
    let names = (name(), name(), text_of_ours(), identity);
    let headers = (header(), header(), header());
    let times = (duration(), duration(), duration(), prop::option::of(duration()), duration(), duration());
    let first = (wall_clock(), method, path(), version, names);
    (first, status(), reason, status(), headers, sizes, times).prop_map(
        |(first, status, reason, model_status, headers, sizes, times)| {
            let (started_at, method, path, version, (endpoint, deployment, replica, identity)) = first;
            Record {
                started: std::time::Instant::now(),
                started_at,
                method,
                path,
                version,
                endpoint,
                deployment,
                replica,
                tries: Tries { sent: sizes.2, ..Tries::default() },
                identity,
                status,
                reason,
                model_status,
                request_id: headers.0,
                client_request_id: headers.1,
                user_agent: headers.2,
                request_bytes: sizes.0,
                response_bytes: sizes.1,
                route_time: times.0,
                queue_time: times.1,
                connect_time: times.2,
                model_time: times.3,
                body_time: times.4,
                total_time: times.5,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_line_says_what_serde_would_say(records in prop::collection::vec(records(), 1..4)) {
        // One scratch for all, as in a thread.
        let mut scratch = Scratch::default();
        for record in &records {
            let text = str::from_utf8(scratch.line(record)).unwrap();
            let object = text.strip_suffix('\n').expect("a line break");
            prop_assert!(!object.contains(['\n', '\r']), "{text}");
            let model = serde_json::to_string(&Line::from(record)).unwrap();
            let value: Value = serde_json::from_str(object).unwrap();
            prop_assert_eq!(&value, &serde_json::from_str::<Value>(&model).unwrap(), "{}", text);
            // The texts of ours are as long as this test makes them; the rest has limits.
            let ours = record.replica.iter().chain(record.identity.iter().flat_map(|who| &who.subject));
            let ours: usize = ours.map(|text| text.len()).sum();
            prop_assert!(text.len() <= 2 * PATH_BYTES + 6 * ours + 2_700, "{} bytes", text.len());
        }
    }
}

/// The model: the columns in their order, put together the plain way by serde.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    time: String,
    method: String,
    path: &'a str,
    endpoint_name: Option<&'a str>,
    deployment_name: Option<&'a str>,
    replica: Option<&'a str>,
    attempts: u16,
    protocol: &'static str,
    response_code: Option<u16>,
    response_code_reason: Option<&'static str>,
    reason: Option<&'static str>,
    model_status_code: Option<u16>,
    model_status_reason: Option<&'static str>,
    request_payload_size: u64,
    response_payload_size: u64,
    user_agent: Option<String>,
    x_request_id: Option<String>,
    #[serde(rename = "XMSClientRequestId")]
    x_ms_client_request_id: Option<String>,
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

impl<'a> From<&'a Record> for Line<'a> {
    fn from(record: &'a Record) -> Self {
        let handed_over = record.route_time + record.queue_time + record.connect_time;
        let path = record.path.path();
        let text = |value: &Option<HeaderValue>, chars| value.as_ref().map(|value| text(value, chars));
        let canonical = |status: Option<StatusCode>| status.and_then(|status| status.canonical_reason());
        Self {
            time: time(record.started_at),
            method: record.method.as_str().chars().take(METHOD_BYTES).collect(),
            path: &path[..path.floor_char_boundary(PATH_BYTES)],
            endpoint_name: record.endpoint.as_ref().map(Name::as_str),
            deployment_name: record.deployment.as_ref().map(Name::as_str),
            replica: record.replica.as_deref(),
            attempts: record.tries.sent,
            protocol: protocol(record.version),
            response_code: record.status.map(|status| status.as_u16()),
            response_code_reason: canonical(record.status),
            reason: record.reason,
            model_status_code: record.model_status.map(|status| status.as_u16()),
            model_status_reason: canonical(record.model_status),
            request_payload_size: record.request_bytes,
            response_payload_size: record.response_bytes,
            user_agent: text(&record.user_agent, USER_AGENT_CHARS),
            x_request_id: text(&record.request_id, ID_CHARS),
            x_ms_client_request_id: text(&record.client_request_id, ID_CHARS),
            auth_type: record.identity.as_ref().map(|identity| auth_type(identity.auth)),
            identity_data: record.identity.as_ref().and_then(|identity| identity.subject.as_deref()),
            total_duration_ms: Milliseconds(record.total_time),
            request_duration_ms: Milliseconds(handed_over),
            response_duration_ms: record.model_time.map(|model| Milliseconds(handed_over + model)),
            request_throttling_delay_ms: Milliseconds(record.queue_time),
            response_throttling_delay_ms: Milliseconds(Duration::ZERO),
            route_ms: Milliseconds(record.route_time),
            queue_ms: Milliseconds(record.queue_time),
            connect_ms: Milliseconds(record.connect_time),
            model_ms: record.model_time.map(Milliseconds),
            body_ms: Milliseconds(record.body_time),
            overhead_ms: record.overhead().map(Milliseconds),
        }
    }
}

struct Milliseconds(Duration);

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_micros() as f64 / 1_000.0)
    }
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

fn text(value: &HeaderValue, chars: usize) -> String {
    // A character has at most four bytes; more is not looked at.
    let bytes = value.as_bytes();
    let bytes = &bytes[..bytes.len().min(4 * chars)];
    String::from_utf8_lossy(bytes).chars().take(chars).collect()
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
