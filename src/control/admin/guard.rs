//! Who may talk to the admin listener: callers with the key, where there is one, and no page that a browser shows.
//!
//! A web page can make a browser on the same machine send requests to loopback: with its own `Origin`, or, after DNS
//! rebinding, under its own host name. Neither gets an answer.

use std::net::IpAddr;

use aws_lc_rs::{constant_time, digest};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::Failure;
use super::api::LARGEST_BODY;
use crate::core::identity::KeyDigest;

/// Routes that orchestrators call without a key.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// What the checks need to know of the listener.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// SHA-256 of the keys that may change things. With none of them, nobody is asked for a key.
    pub(super) writers: Vec<KeyDigest>,
    /// SHA-256 of the key that may look.
    pub(super) reader: Option<KeyDigest>,
    /// The listener can be reached from this machine only.
    pub(super) loopback: bool,
}

impl Guard {
    /// Lets a request through or says why not.
    pub(super) fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Failure> {
        let host = self.host(headers)?;
        same_origin(headers, host.as_ref())?;
        let length = single(headers, &CONTENT_LENGTH)?.and_then(|text| text.parse::<u64>().ok());
        if length.is_some_and(|length| length > LARGEST_BODY as u64) {
            return Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("a body has at most {LARGEST_BODY} bytes here"),
            ));
        }
        if self.writers.is_empty() || OPEN.contains(&path) {
            return Ok(());
        }
        let sent = key(headers)?;
        let is = |key: &KeyDigest| constant_time::verify_slices_are_equal(sent.as_ref(), &key.0).is_ok();
        // All are compared, so that the time tells nothing.
        let writes = self.writers.iter().fold(false, |found, key| found | is(key));
        let reads = self.reader.as_ref().is_some_and(is);
        match () {
            () if writes => Ok(()),
            () if reads && only_looks(method, path) => Ok(()),
            () if reads => Err(forbidden("the key is the reader's; changes and secrets take the writer's")),
            () => Err(unauthorized("the key is not the admin key")),
        }
    }

    fn host(&self, headers: &HeaderMap) -> Result<Option<Authority>, Failure> {
        let Some(text) = single(headers, &HOST)? else { return Ok(None) };
        let host: Authority =
            text.parse().map_err(|_| forbidden("the Host header is not a host and port"))?;
        if self.loopback && !is_local(host.host()) {
            return Err(forbidden(
                "the Host header must be an IP address or localhost, since this listener is for this machine only",
            ));
        }
        Ok(Some(host))
    }
}

fn is_local(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// A page may call only the host that it came from.
fn same_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Failure> {
    let Some(origin) = single(headers, &ORIGIN)? else { return Ok(()) };
    let caller = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    match (caller, host) {
        (Some(caller), Some(host)) if caller.eq_ignore_ascii_case(host.as_str()) => Ok(()),
        _ => Err(forbidden("the Origin header is not this listener's own")),
    }
}

/// Reading, and nothing secret.
fn only_looks(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        && !(path.starts_with("/endpoints/") && path.matches('/').count() == 3 && path.ends_with("/keys"))
}

fn unauthorized(message: &'static str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

/// SHA-256 of the key that was sent.
fn key(headers: &HeaderMap) -> Result<digest::Digest, Failure> {
    let sent = single(headers, &AUTHORIZATION)?
        .ok_or_else(|| unauthorized("this listener has a key; send \"Authorization: Bearer <key>\""))?;
    let sent = match sent.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(unauthorized("the Authorization header is not of the form \"Bearer <key>\"")),
    };
    Ok(digest::digest(&digest::SHA256, sent.as_bytes()))
}

/// The one value of a header; two values, or bytes that are no text, are an attempt to be read in two ways.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match (first.map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text)),
        _ => Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "bad_header",
            format!("the header {name} must be one plain text"),
        )),
    }
}

fn forbidden(message: &'static str) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, "forbidden", message)
}
