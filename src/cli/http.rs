//! One HTTP/1.1 request on a connection of its own, with or without TLS: what the commands need that ask a router
//! something. `scoregate load` keeps connections and has a client for that; where it goes and whom it trusts is shared.

pub(super) mod target;
pub(super) mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::target::Target;
use self::tls::Trust;
use crate::data::files::read_small;

/// Largest answer that is read: several thousand replicas, or the logs of one.
const LARGEST: usize = 64 * 1024 * 1024;
/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Nobody is there: the one failure that has a remedy of its own.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {0}")]
pub(super) struct NoConnection(String, #[source] std::io::Error);

/// The system's certificates, or those of this file.
pub(super) fn trust(ca: Option<&Path>) -> anyhow::Result<Trust> {
    let Some(path) = ca else { return Ok(Trust::System) };
    read_small(path).map(Trust::Only).with_context(|| format!("cannot read {} (--ca)", path.display()))
}

/// Sends the request, whose URI is a path, and reads the answer to its end.
pub(super) async fn send(
    target: &Target,
    trust: &Trust,
    mut request: Request<Full<Bytes>>,
    longest: Duration,
) -> anyhow::Result<Answer> {
    let host = HeaderValue::from_str(target.authority.as_str())?;
    request.headers_mut().entry(HOST).or_insert(host);
    let stream = connect(target).await?;
    let exchange = async {
        if !target.is_tls {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(target.host.clone())
            .with_context(|| format!("{} is no name that a certificate can have", target.host))?;
        let connector = TlsConnector::from(Arc::new(tls::client(trust, false)?));
        exchange(connector.connect(name, stream).await.context("no trusted TLS connection")?, request).await
    };
    tokio::time::timeout(longest, exchange)
        .await
        .map_err(|_| anyhow!("no answer within {} s", longest.as_secs()))
        .and_then(|answer| answer)
        .with_context(|| format!("{}:{}", target.host, target.port))
}

async fn connect(target: &Target) -> anyhow::Result<TcpStream> {
    let address = (target.host.as_str(), target.port);
    let place = || format!("{}:{}", target.host, target.port);
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = connected
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| NoConnection(place(), error))?;
    // Failing here costs only time.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| anyhow!(error))?;
        anyhow::Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    let mut answer = std::pin::pin!(answer);
    // The connection may end before its last answer has been read.
    tokio::select! {
        answer = answer.as_mut() => answer,
        _ = connection => answer.await,
    }
    .context("what answers does not speak HTTP as scoregate does")
}
