//! Names of what goes wrong: one word each, as in the access log, and one sentence that a terminal does not obey.

use std::error::Error;
use std::io;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::tally::Failure;

/// Longest code and message that are kept, in characters.
const LONGEST_CODE: usize = 60;
const LONGEST_MESSAGE: usize = 200;

/// No connection.
pub(super) fn connect(error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection_refused",
        _ => "connect_failed",
    };
    new(code, None, &format!("cannot connect: {error}"))
}

/// A connection, and no trust.
pub(super) fn tls(error: &io::Error) -> Failure {
    new("tls_failed", None, &error.to_string())
}

/// The server has no HTTP/2.
pub(super) fn no_http2() -> Failure {
    new("tls_failed", None, "the server does not offer HTTP/2; leave --http2 out")
}

/// The run is over.
pub(super) fn closed() -> Failure {
    new("connection_closed", None, "the client is closed")
}

/// No head of an answer.
pub(super) fn exchange(error: &hyper::Error) -> Failure {
    let reset = caused_by_reset(error);
    let code = match () {
        () if reset => "connection_reset",
        () if error.is_parse() => "protocol_error",
        () if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            "connection_closed"
        }
        () => "exchange_failed",
    };
    new(code, None, &chain(error))
}

/// A head, and a body that breaks off.
pub(super) fn body(error: &hyper::Error, status: StatusCode) -> Failure {
    new("answer_cut", Some(status), &chain(error))
}

/// The stream ended, but not where events do.
pub(super) fn stream_cut(status: StatusCode) -> Failure {
    new("stream_cut", Some(status), "the stream ended within an event")
}

/// A good answer with --stream that is none.
pub(super) fn no_events(status: StatusCode, content_type: &str) -> Failure {
    let message = format!("the answer ({content_type}) held no event; leave --stream out if it is no stream");
    new("no_events", Some(status), &message)
}

/// Too late.
pub(super) fn timeout(limit: Duration, missing: &str) -> Failure {
    new("timeout", None, &format!("{missing} {limit:?} after the request was due (--timeout)"))
}

/// Too late before it was sent.
pub(super) fn not_sent(limit: Duration, places: usize) -> Failure {
    let message = format!("{places} requests were under way (--max-in-flight) for {limit:?} (--timeout)");
    new("not_sent", None, &message)
}

/// The user ended the run.
pub(super) fn interrupted() -> Failure {
    new("interrupted", None, "the run was ended before the answer was complete")
}

/// An answer that is no success, by what its head and (the beginning of) its body say.
pub(super) fn status(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let told = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(code) = told("ms-azureml-model-error-statuscode") {
        let reason = told("ms-azureml-model-error-reason").unwrap_or("no reason");
        return new("model_error", Some(status), &format!("the model answered {code}: {reason}"));
    }
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let error = json.as_ref().and_then(|json| json.get("error"));
    let text = |name: &str| error.and_then(|error| error.get(name)).and_then(Value::as_str);
    let beginning = String::from_utf8_lossy(body);
    let message = text("message").unwrap_or_else(|| match beginning.trim() {
        "" => status.canonical_reason().unwrap_or("no body"),
        beginning => beginning,
    });
    match text("code").filter(|code| !code.is_empty()) {
        Some(code) => new(code, Some(status), message),
        None => new(&format!("status_{}", status.as_u16()), Some(status), message),
    }
}

fn new(code: &str, status: Option<StatusCode>, message: &str) -> Failure {
    Failure {
        code: printable(code, LONGEST_CODE),
        status: status.map(|status| status.as_u16()),
        message: printable(message, LONGEST_MESSAGE),
    }
}

/// Texts may come from servers; a terminal must not obey them.
pub(super) fn printable(text: &str, longest: usize) -> String {
    let cut = text.chars().nth(longest).is_some();
    let kept = text.chars().take(longest).map(|c| if c.is_control() { '\u{fffd}' } else { c });
    kept.chain(cut.then_some('…')).collect()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn chain(error: &hyper::Error) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn caused_by_reset(error: &hyper::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, headers: &[(&'static str, &'static str)], body: &str) -> Failure {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        status(StatusCode::from_u16(code).unwrap(), &headers.collect(), body.as_bytes())
    }

    #[test]
    fn the_page_explains_every_code_of_this_file() {
        let page = include_str!("../../../docs/load.md");
        let source = include_str!("failure.rs");
        let production = source.split("#[cfg(test)]").next().unwrap();
        let words = production.split('"').skip(1).step_by(2);
        let codes: Vec<&str> = words
            .filter(|word| word.contains('_') && word.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()))
            .collect();
        assert!(codes.len() > 10, "{codes:?}");
        for code in codes {
            assert!(page.contains(&format!("`{code}`")), "docs/load.md does not explain `{code}`");
        }
    }

    #[test]
    fn the_routers_own_answers_have_their_code() {
        let body = r#"{"error":{"code":"queue_full","message":"all replicas are busy","limit":3}}"#;
        let failure = of(503, &[], body);
        assert_eq!((failure.code.as_str(), failure.status), ("queue_full", Some(503)));
        assert_eq!(failure.message, "all replicas are busy");
    }

    #[test]
    fn the_errors_of_a_model_are_told_from_the_headers() {
        let headers =
            [("ms-azureml-model-error-statuscode", "500"), ("ms-azureml-model-error-reason", "broken")];
        let failure = of(424, &headers, "whatever");
        assert_eq!(
            (failure.code.as_str(), failure.message.as_str()),
            ("model_error", "the model answered 500: broken")
        );
    }

    #[test]
    fn other_answers_are_called_by_their_status() {
        for (body, message) in
            [("", "Bad Gateway"), ("<h1>no</h1>", "<h1>no</h1>"), (r#"{"error":"x"}"#, r#"{"error":"x"}"#)]
        {
            let failure = of(502, &[], body);
            assert_eq!((failure.code.as_str(), failure.message.as_str()), ("status_502", message));
        }
    }

    #[test]
    fn texts_are_short_and_harmless() {
        let failure = of(500, &[], &format!("\u{1b}[2J{}", "x".repeat(10_000)));
        assert!(!failure.message.contains('\u{1b}'));
        assert_eq!(failure.message.chars().count(), LONGEST_MESSAGE + 1);
    }
}
