//! Heads on their way through: ids, hop-by-hop headers, what the model sees and what the client sees.
//!
//! Rules of ids are those of the model server and of the platform (reference §1.7).

use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Version};
use rand::RngExt as _;
use rand::rngs::SmallRng;

use crate::core::settings::Profile;
use crate::data::reject::Reject;

/// Names the deployment that is to serve, and the one that did.
pub const DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");
/// Id of a request, made by the server side.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Id of a request, made by the client.
pub const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
/// Older name of the client's id.
pub const LEGACY_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
/// Status of the model behind a 424.
pub const MODEL_STATUS: HeaderName = HeaderName::from_static("ms-azureml-model-error-statuscode");
/// Reason phrase of the model behind a 424.
pub const MODEL_REASON: HeaderName = HeaderName::from_static("ms-azureml-model-error-reason");
/// Where the time went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Which of the headers that the router cares about a message has, found in one look over all of them. Most messages have
/// few, and a lookup by name for each would cost more than everything else that is done with a head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Survey {
    present: u32,
    hosts: u32,
}

macro_rules! known {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A header that a [`Survey`] looks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Known {
            $(
                #[doc = concat!("`", $text, "`")]
                $name,
            )*
        }

        impl Known {
            /// Its name.
            pub fn name(self) -> HeaderName {
                match self {
                    $(Self::$name => HeaderName::from_static($text),)*
                }
            }

            /// For [`Survey::has_any`].
            pub const fn bit(self) -> u32 {
                1 << self as u32
            }

            fn of(name: &HeaderName) -> Option<Self> {
                match name.as_str() {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

known! {
    Authorization = "authorization",
    ClientRequestId = "x-ms-client-request-id",
    Connection = "connection",
    Deployment = "azureml-model-deployment",
    EnvoyTimeout = "x-envoy-expected-rq-timeout-ms",
    Expect = "expect",
    GrpcTimeout = "grpc-timeout",
    Host = "host",
    KeepAlive = "keep-alive",
    LegacyRequestId = "x-ms-request-id",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    RequestClass = "x-request-class",
    RequestDeadline = "x-request-deadline-ms",
    RequestId = "x-request-id",
    StainlessReadTimeout = "x-stainless-read-timeout",
    StainlessTimeout = "x-stainless-timeout",
    Te = "te",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
}

impl Survey {
    /// Looks over all headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut survey = Self::default();
        for (name, _) in headers {
            if let Some(known) = Known::of(name) {
                survey.present |= known.bit();
                survey.hosts += u32::from(known == Known::Host);
            }
        }
        survey
    }

    /// Whether there is at least one of that name.
    pub fn has(self, known: Known) -> bool {
        self.has_any(known.bit())
    }

    /// Whether there is at least one of these.
    pub fn has_any(self, bits: u32) -> bool {
        self.present & bits != 0
    }
}

/// Longest id that the model server takes; it answers 431 to a longer one.
const LONGEST_ID: usize = 100;
/// Longest client id that the managed platform lets through.
const LONGEST_MANAGED_ID: usize = 40;

/// The ids of one request, as they go to the model, back to the client and into the log.
#[derive(Clone, Debug)]
pub struct Ids {
    /// `x-request-id`.
    pub request: HeaderValue,
    /// `x-ms-client-request-id` or its older name, if the client sent one.
    pub client: Option<HeaderValue>,
    /// The client has sent the first of them.
    pub sent: bool,
}

impl Ids {
    /// What the client calls the request, also when it sends it again.
    pub fn given(&self) -> Option<&HeaderValue> {
        self.client.as_ref().or_else(|| self.sent.then_some(&self.request))
    }

    /// Makes sure that a request has ids and a trace parent, and that no id is too long.
    ///
    /// # Errors
    /// An id over 100 characters, where the profile answers like azureml-fe.
    pub fn settle(
        headers: &mut HeaderMap,
        survey: Survey,
        profile: Profile,
        rng: &mut SmallRng,
    ) -> Result<Self, Reject> {
        let managed = profile == Profile::Managed;
        let (mut sent, mut client, mut legacy) = (None, None, None);
        for (name, known, place) in [
            (&REQUEST_ID, Known::RequestId, &mut sent),
            (&CLIENT_REQUEST_ID, Known::ClientRequestId, &mut client),
            (&LEGACY_REQUEST_ID, Known::LegacyRequestId, &mut legacy),
        ] {
            if !survey.has(known) {
                continue;
            }
            let Some(value) = headers.remove(name) else { continue };
            let kept = match value.len() {
                0 => None,
                _ if managed && *name != REQUEST_ID => managed_id(&value),
                1..=LONGEST_ID => Some(value),
                _ if managed => None,
                _ => return Err(Reject::HeaderTooLong { header: static_name(name) }),
            };
            // One value, even if the client sent several.
            if let Some(id) = kept {
                headers.insert(name, id.clone());
                *place = Some(id);
            }
        }
        let is_sent = sent.is_some();
        let request = sent.unwrap_or_else(|| {
            let id = new_request_id(rng);
            headers.insert(REQUEST_ID, id.clone());
            id
        });
        if !survey.has(Known::Traceparent) {
            if survey.has(Known::Tracestate) {
                headers.remove(TRACESTATE);
            }
            headers.insert(TRACEPARENT, new_trace_parent(rng));
        }
        Ok(Self { request, client: client.or(legacy), sent: is_sent })
    }

    /// Puts the ids on an answer: on the router's own all of them, on the model's those that it left out.
    pub fn echo(&self, headers: &mut HeaderMap, survey: Survey) {
        if !survey.has(Known::RequestId) {
            headers.insert(REQUEST_ID, self.request.clone());
        }
        if !survey.has(Known::LegacyRequestId) {
            headers.insert(LEGACY_REQUEST_ID, self.client.as_ref().unwrap_or(&self.request).clone());
        }
        if let Some(client) = &self.client
            && !survey.has(Known::ClientRequestId)
        {
            headers.insert(CLIENT_REQUEST_ID, client.clone());
        }
    }
}

fn static_name(name: &HeaderName) -> &'static str {
    if *name == REQUEST_ID {
        "x-request-id"
    } else if *name == CLIENT_REQUEST_ID {
        "x-ms-client-request-id"
    } else {
        "x-ms-request-id"
    }
}

/// The managed platform's rule: letters, digits, `_` and `-`, cut to 40.
fn managed_id(value: &HeaderValue) -> Option<HeaderValue> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let id: Vec<u8> = value.as_bytes().iter().copied().filter(allowed).take(LONGEST_MANAGED_ID).collect();
    (!id.is_empty()).then(|| HeaderValue::from_bytes(&id).ok()).flatten()
}

/// Refuses heads that two servers could read in two ways (RFC 9112 §3.2, §6.1): what one of them checks, the other one
/// might not see.
///
/// # Errors
/// What is wrong.
pub fn check(headers: &HeaderMap, survey: Survey, version: Version) -> Result<(), Reject> {
    if survey.hosts > 1 || (survey.hosts == 0 && version == Version::HTTP_11) {
        return Err(Reject::BadRequest { problem: "a request needs exactly one Host header" });
    }
    if !survey.has(Known::TransferEncoding) {
        return Ok(());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let only_chunked = codings.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    if !only_chunked {
        return Err(Reject::BadRequest { problem: "the only transfer coding that is understood is chunked" });
    }
    Ok(())
}

/// A random UUID (RFC 9562, version 4).
pub fn new_request_id(rng: &mut SmallRng) -> HeaderValue {
    let bits = rng.random::<u128>() & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut text = [0u8; 36];
    write_hex(&mut text, bits, &[8, 13, 18, 23]);
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and hyphens are a header value")
}

/// A W3C trace parent that is not sampled.
fn new_trace_parent(rng: &mut SmallRng) -> HeaderValue {
    // All zero is not valid, hence the bit.
    let trace = rng.random::<u128>() | 1;
    let span = rng.random::<u64>() | 1;
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..35], trace, &[]);
    write_hex(&mut text[36..52], u128::from(span) << 64, &[]);
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and hyphens are a header value")
}

/// Writes the highest bits of `bits` as hexadecimal digits, with hyphens at these places.
fn write_hex(text: &mut [u8], bits: u128, hyphens: &[usize]) {
    let mut rest = bits;
    let mut digits = |text: &mut [u8]| {
        for byte in text {
            *byte = b"0123456789abcdef"[(rest >> 124) as usize];
            rest <<= 4;
        }
    };
    let mut begin = 0;
    for hyphen in hyphens {
        digits(&mut text[begin..*hyphen]);
        text[*hyphen] = b'-';
        begin = hyphen + 1;
    }
    digits(&mut text[begin..]);
}

/// What a request's head needs to become the head of the request to the model.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// Pass the Authorization header on.
    pub authorization: bool,
    /// Address of the client.
    pub client: &'a HeaderValue,
    /// Whether the client came over TLS.
    pub tls: bool,
}

/// Edits a request's headers for the model: hop-by-hop headers go, forwarding headers come. The Host header is set
/// when the replica is known.
pub fn to_model(
    headers: &mut HeaderMap,
    survey: Survey,
    forwarding: &Forwarding<'_>,
    authority: Option<HeaderValue>,
) {
    let wants_trailers = survey.has(Known::Te) && headers.get_all(TE).iter().any(|te| lists(te, "trailers"));
    let survey = remove_hop_by_hop(headers, survey);
    // hyper answers 100-continue itself, when the body is first asked for: after admission.
    if survey.has(Known::Expect) {
        headers.remove(EXPECT);
    }
    if survey.has(Known::Authorization) && !forwarding.authorization {
        headers.remove(AUTHORIZATION);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // The Host header is replaced later; until then its place is kept.
    let host = if survey.has(Known::Host) { headers.get(HOST).cloned() } else { authority };
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.append(FORWARDED_FOR, forwarding.client.clone());
    let scheme = if forwarding.tls { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
}

/// Removes what is for one connection only (RFC 9110 §7.6.1), and says what is left.
pub fn remove_hop_by_hop(headers: &mut HeaderMap, survey: Survey) -> Survey {
    if survey.has(Known::Connection) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for (known, name) in [
        (Known::KeepAlive, &KEEP_ALIVE),
        (Known::ProxyAuthenticate, &PROXY_AUTHENTICATE),
        (Known::ProxyAuthorization, &PROXY_AUTHORIZATION),
        (Known::ProxyConnection, &PROXY_CONNECTION),
        (Known::Te, &TE),
        (Known::TransferEncoding, &TRANSFER_ENCODING),
        (Known::Upgrade, &UPGRADE),
    ] {
        if survey.has(known) {
            headers.remove(name);
        }
    }
    // A Connection header may name any other, but there seldom is one.
    if survey.has(Known::Connection) { Survey::of(headers) } else { survey }
}

/// Edits an answer's headers for the client. `Trailer` stays: hyper sends only the trailers that it announces.
pub fn to_client(headers: &mut HeaderMap, ids: &Ids) {
    let survey = Survey::of(headers);
    let left = remove_hop_by_hop(headers, survey);
    ids.echo(headers, left);
}

fn lists(value: &HeaderValue, word: &str) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn settle(headers: &mut HeaderMap, profile: Profile) -> Result<Ids, Reject> {
        let survey = Survey::of(headers);
        Ids::settle(headers, survey, profile, &mut SmallRng::seed_from_u64(7))
    }

    #[test]
    fn a_request_without_ids_gets_a_uuid_and_a_trace_parent() {
        let mut map = HeaderMap::new();
        let ids = settle(&mut map, Profile::Aks).unwrap();
        let id = ids.request.to_str().unwrap();
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        let parent = map["traceparent"].to_str().unwrap();
        let parts: Vec<usize> = parent.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2]);
        assert!(!parent.contains("00000000"), "{parent}");
    }

    #[test]
    fn ids_of_the_client_are_kept_and_echoed() {
        let mut map =
            headers(&[("x-request-id", "r1"), ("x-ms-client-request-id", "c1"), ("traceparent", "t")]);
        let ids = settle(&mut map, Profile::Aks).unwrap();
        assert_eq!(map["traceparent"], "t");
        let mut answer = HeaderMap::new();
        ids.echo(&mut answer, Survey::default());
        assert_eq!(answer["x-request-id"], "r1");
        assert_eq!(answer["x-ms-request-id"], "c1");
        assert_eq!(answer["x-ms-client-request-id"], "c1");
    }

    #[test]
    fn without_a_client_id_the_legacy_one_is_the_request_id() {
        let ids = settle(&mut headers(&[("x-request-id", "r1")]), Profile::Aks).unwrap();
        let mut answer = HeaderMap::new();
        ids.echo(&mut answer, Survey::default());
        assert_eq!(answer["x-ms-request-id"], "r1");
        assert!(!answer.contains_key("x-ms-client-request-id"));
    }

    #[test]
    fn an_id_over_a_hundred_characters_is_refused_or_cut() {
        let long = "a".repeat(101);
        for name in ["x-request-id", "x-ms-client-request-id", "x-ms-request-id"] {
            let refused = settle(&mut headers(&[(name, &long)]), Profile::Aks);
            assert_eq!(refused.unwrap_err(), Reject::HeaderTooLong { header: name });
            let ids = settle(&mut headers(&[(name, &long)]), Profile::Managed).unwrap();
            assert!(ids.request.len() <= 40);
            assert!(ids.client.is_none_or(|id| id.len() == 40));
        }
        let fits = "a".repeat(100);
        assert!(settle(&mut headers(&[("x-request-id", &fits)]), Profile::Aks).is_ok());
    }

    #[test]
    fn what_a_connection_header_names_is_gone_and_what_the_router_adds_is_not() {
        let ids = settle(&mut headers(&[("x-request-id", "r1")]), Profile::Aks).unwrap();
        let mut answer = headers(&[("connection", "x-request-id"), ("x-request-id", "the model's")]);
        to_client(&mut answer, &ids);
        assert_eq!(answer["x-request-id"], "r1");
        let mut map = headers(&[("connection", "host"), ("host", "named.example")]);
        let (survey, client) = (Survey::of(&map), HeaderValue::from_static("127.0.0.9"));
        let forwarding = Forwarding { authorization: false, client: &client, tls: false };
        to_model(&mut map, survey, &forwarding, Some(HeaderValue::from_static("uri.example")));
        assert_eq!(map["x-forwarded-host"], "uri.example");
    }

    #[test]
    fn hop_by_hop_headers_stay_on_their_hop() {
        let mut map = headers(&[
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("authorization", "Bearer secret"),
            ("host", "demo.example.com"),
            ("x-forwarded-for", "10.0.0.1"),
            ("content-type", "application/json"),
        ]);
        let client = HeaderValue::from_static("127.0.0.9");
        let survey = Survey::of(&map);
        to_model(&mut map, survey, &Forwarding { authorization: false, client: &client, tls: true }, None);
        assert_eq!(map.insert(HOST, HeaderValue::from_static("replica:1")).unwrap(), "demo.example.com");
        let expected = headers(&[
            ("host", "replica:1"),
            ("connection", "te"),
            ("te", "trailers"),
            ("x-forwarded-host", "demo.example.com"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "127.0.0.9"),
            ("x-forwarded-proto", "https"),
            ("content-type", "application/json"),
        ]);
        assert_eq!(map, expected);
    }
}
