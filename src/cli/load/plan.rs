//! What a run will do: the arguments, checked and put together, with the files that they name read.
//!
//! Keys, header values and the query of the URL are secrets: no error names them, and nothing here can be printed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use secrecy::{ExposeSecret, SecretString};

use super::args::LoadArgs;
use super::schedule::{Arrivals, Length};
use crate::cli::http::{target::Target, tls::Trust};
use crate::data::files::read_small;

/// The header by which a request asks for a deployment and an answer names the one that gave it.
pub(super) const DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");
/// What the synthetic model of the demo takes, as many other models do.
const BODY: &str = r#"{"data": [[1, 2, 3, 4]]}"#;
/// How long a run is when nothing says it.
const DURATION: Duration = Duration::from_secs(10);
/// Largest body that is read from a file.
const LARGEST: u64 = 64 * 1024 * 1024;

/// What a run will do.
pub(super) struct Plan {
    pub(super) target: Target,
    /// As requests name it.
    pub(super) uri: Uri,
    pub(super) method: Method,
    pub(super) body: Bytes,
    /// Of every request.
    pub(super) headers: HeaderMap,
    /// Values of the Authorization header, used in turn.
    pub(super) keys: Vec<HeaderValue>,
    /// Values of the deployment header, used in turn.
    pub(super) deployments: Vec<HeaderValue>,
    /// Requests a second.
    pub(super) rate: f64,
    pub(super) arrivals: Arrivals,
    pub(super) warm_up: Duration,
    pub(super) length: Length,
    pub(super) max_in_flight: usize,
    /// From when a request is due to the last byte of its answer.
    pub(super) timeout: Duration,
    pub(super) is_stream: bool,
    pub(super) is_http2: bool,
    pub(super) trust: Trust,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    /// A file cannot be read.
    #[error("cannot read {} ({flag}): {error}", path.display())]
    File { flag: &'static str, path: PathBuf, error: io::Error },
    /// The arguments are wrong.
    #[error("{0}")]
    Usage(String),
}

impl Plan {
    /// Checks the arguments and reads the files that they name. `key` is what the environment has.
    pub(super) fn new(args: &LoadArgs, key: Option<SecretString>) -> Result<Self, PlanError> {
        let mut target = Target::parse(args.url.expose_secret()).map_err(PlanError::Usage)?;
        let mut headers = HeaderMap::new();
        for (at, header) in args.header.iter().enumerate() {
            let (name, value) = custom_header(at + 1, header.expose_secret())?;
            headers.append(name, value);
        }
        // The host goes where the protocol wants it.
        if let Some(host) = headers.remove(HOST) {
            target.authority =
                host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()).ok_or_else(|| {
                    usage("--header 'Host: …': the value must be a host name, with or without a port")
                })?;
        }
        let keys = keys(args, key, &headers)?;
        let deployments = deployments(&args.deployment, &headers)?;
        let trust = match (&args.ca, args.insecure) {
            (None, false) => Trust::System,
            _ if !target.is_tls => {
                return Err(usage("--ca and --insecure are for https:// URLs only; this one is http://"));
            }
            (None, true) => Trust::Any,
            (Some(path), _) => Trust::Only(read("--ca", path, read_small)?),
        };
        let body = match (&args.data, &args.data_file) {
            _ if args.get => Bytes::new(),
            (Some(text), _) => Bytes::from(text.clone()),
            (None, Some(path)) => Bytes::from(read("--data-file", path, read_body)?),
            (None, None) => Bytes::from_static(BODY.as_bytes()),
        };
        let mut default = |name: HeaderName, value: &'static str| {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        };
        if !args.get {
            default(CONTENT_TYPE, "application/json");
        }
        default(ACCEPT, if args.stream { "text/event-stream" } else { "*/*" });
        default(USER_AGENT, concat!("scoregate/", env!("CARGO_PKG_VERSION")));
        let (uri, host) =
            target.uri_and_host(args.http2).map_err(|error| usage(&format!("the URL: {error}")))?;
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        let arrivals = match args.poisson {
            true => Arrivals::Poisson { seed: args.seed.unwrap_or_else(rand::random) },
            false => Arrivals::Constant,
        };
        Ok(Self {
            target,
            uri,
            method: if args.get { Method::GET } else { Method::POST },
            body,
            headers,
            keys,
            deployments,
            rate: args.rate,
            arrivals,
            warm_up: args.warm_up,
            length: match args.requests {
                Some(requests) => Length::Requests(requests),
                None => Length::Time(args.duration.unwrap_or(DURATION)),
            },
            max_in_flight: args.max_in_flight.get() as usize,
            timeout: args.timeout,
            is_stream: args.stream,
            is_http2: args.http2,
            trust,
        })
    }

    /// The headers of a request. Every key meets every deployment, since the deployments turn once a round of keys.
    pub(super) fn headers_of(&self, number: u64) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(key) = pick(&self.keys, number) {
            headers.insert(AUTHORIZATION, key.clone());
        }
        if let Some(deployment) = pick(&self.deployments, number / self.keys.len().max(1) as u64) {
            headers.insert(DEPLOYMENT, deployment.clone());
        }
        headers
    }
}

fn pick<T>(all: &[T], number: u64) -> Option<&T> {
    let at = number.checked_rem(all.len() as u64)?;
    all.get(usize::try_from(at).ok()?)
}

fn custom_header(at: usize, text: &str) -> Result<(HeaderName, HeaderValue), PlanError> {
    let wrong = |what: &str| usage(&format!("--header number {at} {what}"));
    let (name, value) =
        text.split_once(':').ok_or_else(|| wrong("has no colon: it must be 'Name: value'"))?;
    let name: HeaderName = name
        .trim()
        .parse()
        .map_err(|_| wrong("has a name that no header can have: it must be 'Name: value'"))?;
    if [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
        return Err(wrong(&format!("is {name}, which follows from the other flags and cannot be set")));
    }
    let mut value: HeaderValue = value
        .trim()
        .parse()
        .map_err(|_| wrong(&format!("({name}) has a value with characters that a header cannot hold")))?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn keys(
    args: &LoadArgs,
    environment: Option<SecretString>,
    headers: &HeaderMap,
) -> Result<Vec<HeaderValue>, PlanError> {
    let is_given = !args.key.is_empty() || args.key_file.is_some();
    if headers.contains_key(AUTHORIZATION) {
        return match is_given {
            true => Err(usage("either --key and --key-file, or --header 'Authorization: …', not both")),
            false => Ok(Vec::new()),
        };
    }
    let mut keys = Vec::new();
    for (at, key) in args.key.iter().enumerate() {
        keys.push(bearer(key.expose_secret(), || format!("--key number {}", at + 1))?);
    }
    if let Some(path) = &args.key_file {
        let bytes = read("--key-file", path, read_small)?;
        let name = || format!("--key-file {}", path.display());
        let text = String::from_utf8(bytes).map_err(|_| usage(&format!("{} is not text", name())))?;
        for (line, key) in text.lines().enumerate().filter(|(_, key)| !key.trim().is_empty()) {
            keys.push(bearer(key, || format!("{} line {}", name(), line + 1))?);
        }
        if text.trim().is_empty() {
            return Err(usage(&format!("{} holds no key: it must have one a line", name())));
        }
    }
    if let Some(key) = environment.filter(|_| !is_given) {
        keys.push(bearer(key.expose_secret(), || "the variable SCOREGATE_KEY".to_owned())?);
    }
    Ok(keys)
}

fn bearer(key: &str, source: impl Fn() -> String) -> Result<HeaderValue, PlanError> {
    let key = key.trim();
    if key.is_empty() {
        return Err(usage(&format!("{} is empty", source())));
    }
    let value = HeaderValue::try_from(format!("Bearer {key}"));
    let mut value =
        value.map_err(|_| usage(&format!("{} has characters that a header cannot hold", source())))?;
    value.set_sensitive(true);
    Ok(value)
}

fn deployments(names: &[String], headers: &HeaderMap) -> Result<Vec<HeaderValue>, PlanError> {
    if !names.is_empty() && headers.contains_key(DEPLOYMENT) {
        return Err(usage(&format!("either --deployment or --header '{DEPLOYMENT}: …', not both")));
    }
    let value = |name: &String| {
        let value = HeaderValue::from_str(name).ok().filter(|value| !value.is_empty());
        value.ok_or_else(|| usage(&format!("--deployment {name:?} is no name that a header can hold")))
    };
    names.iter().map(value).collect()
}

fn read(
    flag: &'static str,
    path: &Path,
    reader: impl FnOnce(&Path) -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, PlanError> {
    reader(path).map_err(|error| PlanError::File { flag, path: path.to_owned(), error })
}

fn read_body(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: opening a named pipe waits for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut body = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut body)?;
    if body.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 64 MiB"));
    }
    Ok(body)
}

fn usage(text: &str) -> PlanError {
    PlanError::Usage(text.to_owned())
}

#[cfg(test)]
mod tests;
