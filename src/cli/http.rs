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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[tokio::test]
    async fn an_answer_over_tls_is_read_if_its_server_is_trusted() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target =
            Target::parse(&format!("https://localhost:{}/x", listener.local_addr().unwrap().port())).unwrap();
        let server = async {
            // Who does not trust the server ends the handshake.
            let mut refused = listener.accept().await.unwrap().0;
            assert!(acceptor.accept(&mut refused).await.is_err());
            drop(refused);
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let client = async {
            let request = || Request::get("/x").body(Full::default()).unwrap();
            let longest = Duration::from_secs(60);
            let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let stranger = Trust::Only(other.cert.pem().into_bytes());
            assert!(send(&target, &stranger, request(), longest).await.is_err());
            let trust = Trust::Only(made.cert.pem().into_bytes());
            send(&target, &trust, request(), longest).await.unwrap()
        };
        let ((), answer) = tokio::join!(server, client);
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"ok"[..]));
    }
}
