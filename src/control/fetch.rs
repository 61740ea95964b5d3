//! Fetches a small document with one GET, over HTTP or HTTPS, within a time and a size.
//!
//! One connection for each fetch, no redirects, no pool: what is fetched is fetched once an hour. Certificates
//! are checked against the roots of the system, which are read anew each time.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest time from the look-up of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest body that is taken.
const LONGEST_BYTES: usize = 1024 * 1024;

/// An address that can be fetched. Printing it leaves the query out, which may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

impl Address {
    /// Takes an absolute http or https URL.
    ///
    /// # Errors
    /// [`FetchError::Address`].
    pub fn parse(url: &str) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Address("is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(FetchError::Address("must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or(FetchError::Address("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(FetchError::Address("must not hold a user or password"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(FetchError::Address("names no host"));
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { uri, host, port, is_tls })
    }

    /// Whether what is fetched could be changed on its way: clear text to another machine.
    pub fn is_exposed(&self) -> bool {
        let is_loopback = self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        !self.is_tls && !is_loopback
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        write!(f, "{scheme}://{authority}{}", self.uri.path())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL cannot be used.
    #[error("the URL {0}")]
    Address(&'static str),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The server broke HTTP or the connection.
    #[error("the exchange failed: {0}")]
    Exchange(#[source] hyper::Error),
    /// No TLS, or a certificate that is not trusted.
    #[error("TLS failed: {0}")]
    Handshake(#[source] io::Error),
    /// The system has no roots to trust.
    #[error("cannot check certificates: {0}")]
    Roots(#[source] rustls::Error),
    /// The server answered something else than 200; redirects are not followed.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// Not done in time.
    #[error("no complete answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The body is too long or was cut.
    #[error("the body is longer than 1 MiB or was cut off")]
    Body,
}

/// The body of the 200 answer to a GET.
///
/// # Errors
/// Anything else.
pub async fn get(address: &Address) -> Result<Bytes, FetchError> {
    get_trusting(address, system_roots).await
}

async fn get_trusting(
    address: &Address,
    tls: impl FnOnce() -> Result<ClientConfig, rustls::Error>,
) -> Result<Bytes, FetchError> {
    let whole = async {
        let stream =
            TcpStream::connect((address.host.as_str(), address.port)).await.map_err(FetchError::Connect)?;
        if !address.is_tls {
            return exchange(TokioIo::new(stream), address).await;
        }
        let connector = TlsConnector::from(Arc::new(tls().map_err(FetchError::Roots)?));
        let name = ServerName::try_from(address.host.clone())
            .map_err(|_| FetchError::Address("names a host that no certificate can name"))?;
        let stream = connector.connect(name, stream).await.map_err(FetchError::Handshake)?;
        exchange(TokioIo::new(stream), address).await
    };
    tokio::time::timeout(TIMEOUT, whole).await.unwrap_or(Err(FetchError::Timeout))
}

async fn exchange<S: Read + Write + Unpin>(stream: S, address: &Address) -> Result<Bytes, FetchError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(FetchError::Exchange)?;
    let target = address.uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = address.uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(target)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("scoregate/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Address("cannot be written as a request"))?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(FetchError::Exchange)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST_BYTES).collect().await;
        body.map(|body| body.to_bytes()).map_err(|_| FetchError::Body)
    };
    let mut answer = pin!(answer);
    // The connection may end first and leave the rest of the answer in its buffers.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

fn system_roots() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_platform_verifier()?.with_no_client_auth())
}

#[cfg(test)]
pub(crate) mod tests;
