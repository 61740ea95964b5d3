//! One line of the access log: the columns of Azure's traffic log (`AmlOnlineEndpointTrafficLog`), and the time of
//! each phase. Bytes of clients are cut and made valid text; the query string is left out, it may hold secrets.
//!
//! Every request pays for its line, so it is put together by hand from ready pieces.
//! `docs/access-log.md` explains every column.

use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode, Version};

use super::Record;
use super::text::{ROOM, client_text, milliseconds, number, text, three_digits};
use crate::core::identity::AuthType;
use crate::core::settings::Name;

#[cfg(test)]
mod tests;

/// Azure's length of the column `UserAgent`, in characters.
const USER_AGENT_CHARS: usize = 70;
/// Longest request id that clients may send (reference: 100 characters).
const ID_CHARS: usize = 100;
/// Bytes of a path that are kept.
const PATH_BYTES: usize = 2_048;
/// Bytes of a method that are kept; clients may invent their own.
const METHOD_BYTES: usize = 32;

/// Where a thread puts lines together. It grows to the length of the longest line, which is bounded since all
/// texts of a record are.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    line: Vec<u8>,
    clock: Clock,
}

impl Scratch {
    /// The line of a record, line break included.
    pub(super) fn line(&mut self, record: &Record) -> &[u8] {
        self.line.clear();
        write(&mut self.line, &mut self.clock, record);
        &self.line
    }
}

/// Appends the columns in their order. A key comes with what separates it from the value before.
fn write(line: &mut Vec<u8>, clock: &mut Clock, record: &Record) {
    line.extend_from_slice(br#"{"Time":""#);
    clock.write(line, record.started_at);
    line.extend_from_slice(br#"","Method":""#);
    // The bytes that a method may have need no escape.
    let method = record.method.as_str().as_bytes();
    line.extend_from_slice(&method[..method.len().min(METHOD_BYTES)]);
    line.extend_from_slice(br#"","Path":""#);
    let path = record.path.path();
    text(line, &path[..path.floor_char_boundary(PATH_BYTES)]);
    line.push(b'"');
    plain(line, br#","EndpointName":""#, record.endpoint.as_ref().map(Name::as_str));
    plain(line, br#","DeploymentName":""#, record.deployment.as_ref().map(Name::as_str));
    quoted(line, br#","Replica":""#, record.replica.as_deref());
    match record.tries.sent {
        1 => line.extend_from_slice(br#","Attempts":1"#),
        sent => {
            line.extend_from_slice(br#","Attempts":"#);
            number(line, sent.into());
        }
    }
    protocol(line, record.version);
    match record.status {
        // The usual case in one piece.
        Some(StatusCode::OK) => line.extend_from_slice(br#","ResponseCode":200,"ResponseCodeReason":"OK""#),
        status => {
            line.extend_from_slice(br#","ResponseCode":"#);
            code(line, status);
            plain(line, br#","ResponseCodeReason":""#, phrase(status));
        }
    }
    quoted(line, br#","Reason":""#, record.reason);
    match record.model_status {
        Some(StatusCode::OK) => line.extend_from_slice(br#","ModelStatusCode":200,"ModelStatusReason":"OK""#),
        status => {
            line.extend_from_slice(br#","ModelStatusCode":"#);
            code(line, status);
            plain(line, br#","ModelStatusReason":""#, phrase(status));
        }
    }
    line.extend_from_slice(br#","RequestPayloadSize":"#);
    number(line, record.request_bytes);
    line.extend_from_slice(br#","ResponsePayloadSize":"#);
    number(line, record.response_bytes);
    client_quoted(line, br#","UserAgent":""#, record.user_agent.as_ref(), USER_AGENT_CHARS);
    client_quoted(line, br#","XRequestId":""#, record.request_id.as_ref(), ID_CHARS);
    client_quoted(line, br#","XMSClientRequestId":""#, record.client_request_id.as_ref(), ID_CHARS);
    let subject = record.identity.as_ref().and_then(|identity| identity.subject.as_deref());
    auth_type(line, record.identity.as_ref().map(|identity| identity.auth));
    quoted(line, br#","IdentityData":""#, subject);
    times(line, record);
    line.extend_from_slice(b"}\n");
}

/// The columns from `TotalDurationMs` on.
fn times(line: &mut Vec<u8>, record: &Record) {
    let handed_over = record.route_time + record.queue_time + record.connect_time;
    milliseconds(line, br#","TotalDurationMs":000.000 "#, record.total_time);
    milliseconds(line, br#","RequestDurationMs":000.000 "#, handed_over);
    some_milliseconds(
        line,
        br#","ResponseDurationMs":000.000 "#,
        record.model_time.map(|model| handed_over + model),
    );
    milliseconds(line, br#","RequestThrottlingDelayMs":000.000 "#, record.queue_time);
    milliseconds(line, br#","ResponseThrottlingDelayMs":0.000,"RouteMs":000.000 "#, record.route_time);
    milliseconds(line, br#","QueueMs":000.000 "#, record.queue_time);
    milliseconds(line, br#","ConnectMs":000.000 "#, record.connect_time);
    some_milliseconds(line, br#","ModelMs":000.000 "#, record.model_time);
    milliseconds(line, br#","BodyMs":000.000 "#, record.body_time);
    some_milliseconds(line, br#","OverheadMs":000.000 "#, record.overhead());
}

/// A key and text that needs no escape, such as a name or a phrase of the standard, or `null`. The key comes with the
/// quote of the text.
#[inline]
fn plain<const N: usize>(line: &mut Vec<u8>, key: &[u8; N], value: Option<&str>) {
    line.extend_from_slice(key);
    let Some(value) = value else { return null(line, 1) };
    line.extend_from_slice(value.as_bytes());
    line.push(b'"');
}

/// The same with any text of our own.
#[inline]
fn quoted<const N: usize>(line: &mut Vec<u8>, key: &[u8; N], value: Option<&str>) {
    line.extend_from_slice(key);
    let Some(value) = value else { return null(line, 1) };
    text(line, value);
    line.push(b'"');
}

/// The same with text of a client.
#[inline]
fn client_quoted<const N: usize>(
    line: &mut Vec<u8>,
    key: &[u8; N],
    value: Option<&HeaderValue>,
    chars: usize,
) {
    line.extend_from_slice(key);
    let Some(value) = value else { return null(line, 1) };
    client_text(line, value, chars);
    line.push(b'"');
}

/// `null` instead of the last bytes.
#[inline]
fn null(line: &mut Vec<u8>, instead: usize) {
    line.truncate(line.len() - instead);
    line.extend_from_slice(b"null");
}

/// The standard's phrase for a status.
fn phrase(status: Option<StatusCode>) -> Option<&'static str> {
    status.and_then(|status| status.canonical_reason())
}

fn code(line: &mut Vec<u8>, status: Option<StatusCode>) {
    match status {
        // A status has three digits.
        Some(status) => {
            line.extend_from_slice(&three_digits(status.as_u16().into()).to_le_bytes());
            line.pop();
        }
        None => line.extend_from_slice(b"null"),
    }
}

#[inline]
fn some_milliseconds<const N: usize>(line: &mut Vec<u8>, key: &[u8; N], time: Option<Duration>) {
    if let Some(time) = time {
        return milliseconds(line, key, time);
    }
    line.extend_from_slice(key);
    null(line, ROOM);
}

/// Writes times of day; works one out only when the second changes.
#[derive(Debug, Default)]
struct Clock {
    /// Since 1970.
    second: Option<u64>,
    /// The text of that second, up to the decimal point.
    text: [u8; 20],
}

impl Clock {
    /// RFC 3339 with milliseconds.
    fn write(&mut self, line: &mut Vec<u8>, at: SystemTime) {
        let Ok(since) = at.duration_since(SystemTime::UNIX_EPOCH) else {
            return line.extend_from_slice(in_full(at).as_bytes());
        };
        if self.second != Some(since.as_secs()) {
            let text = in_full(at);
            let Some(known) = text.as_bytes().first_chunk() else { return };
            (self.second, self.text) = (Some(since.as_secs()), *known);
        }
        line.extend_from_slice(&self.text);
        let end = three_digits(since.subsec_millis()) | u32::from(b'Z') << 24;
        line.extend_from_slice(&end.to_le_bytes());
    }
}

#[cold]
fn in_full(at: SystemTime) -> String {
    // A clock beyond the year 9999 has no RFC 3339 form.
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// The column as one piece.
fn protocol(line: &mut Vec<u8>, version: Version) {
    match version {
        Version::HTTP_09 => line.extend_from_slice(br#","Protocol":"HTTP/0.9""#),
        Version::HTTP_10 => line.extend_from_slice(br#","Protocol":"HTTP/1.0""#),
        Version::HTTP_2 => line.extend_from_slice(br#","Protocol":"HTTP/2""#),
        Version::HTTP_3 => line.extend_from_slice(br#","Protocol":"HTTP/3""#),
        _ => line.extend_from_slice(br#","Protocol":"HTTP/1.1""#),
    }
}

/// The column as one piece.
fn auth_type(line: &mut Vec<u8>, auth: Option<AuthType>) {
    match auth {
        None => line.extend_from_slice(br#","AuthType":null"#),
        Some(AuthType::Anonymous) => line.extend_from_slice(br#","AuthType":"None""#),
        Some(AuthType::Jwt) => line.extend_from_slice(br#","AuthType":"Jwt""#),
        Some(AuthType::Key) => line.extend_from_slice(br#","AuthType":"Key""#),
    }
}
