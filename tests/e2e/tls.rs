//! TLS: names, versions, protocols, reload, redirect.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::replica::Replica;
use crate::router::{Router, SCORE, blue, eventually, get};

/// Writes a certificate for a name and its key; the certificate.
fn write_certificate(folder: &Path, file: &str, name: &str) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join(format!("{file}.key")), signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join(format!("{file}.pem")), cert.pem()).unwrap();
    cert.der().clone()
}

fn client(roots: &[CertificateDer<'static>], protocol: &[u8]) -> TlsConnector {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
    name: &'static str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    connector.connect(ServerName::try_from(name).unwrap(), stream).await
}

async fn score(stream: TlsStream<TcpStream>) -> StatusCode {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(SCORE).header("host", "x").body(Empty::<bytes::Bytes>::new()).unwrap();
    sender.send_request(request).await.unwrap().status()
}

struct Served {
    router: Router,
    one: CertificateDer<'static>,
    two: CertificateDer<'static>,
    folder: tempfile::TempDir,
    _replica: Replica,
}

fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let one = write_certificate(folder.path(), "one", "one.example");
    let two = write_certificate(folder.path(), "two", "two.example");
    let replica = Replica::start();
    let path = folder.path().display();
    let top = format!(
        "drain_timeout_ms: 3600000\nlisten:\n  address: \"127.0.0.1:0\"\n  workers: 1\n  tls:\n    redirect_from: \"127.0.0.1:0\"\n    certificates:\n      \
         - {{ certificate: {path}/one.pem, key: {path}/one.key }}\n      \
         - {{ certificate: {path}/two.pem, key: {path}/two.key }}\n"
    );
    let router = Router::start_with(&top, &blue(&[replica.address()], "max_queue_wait_ms: 20000"));
    Served { router, one, two, folder, _replica: replica }
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_requests_are_served() {
    let served = served();
    let address = served.router.address();
    // Each connector trusts one certificate only, so a wrong one fails the handshake.
    let (one, two) = (client(&[served.one], b"http/1.1"), client(&[served.two], b"http/1.1"));
    assert_eq!(score(connect(&one, address, "one.example").await.unwrap()).await, StatusCode::OK);
    assert_eq!(score(connect(&two, address, "two.example").await.unwrap()).await, StatusCode::OK);
    assert!(connect(&one, address, "two.example").await.is_err());
    let seen = served._replica.requests();
    assert_eq!(seen[0].headers["x-forwarded-proto"], "https");
}

#[tokio::test]
async fn a_drain_without_requests_does_not_wait_for_its_deadline() {
    let served = served();
    let client = client(std::slice::from_ref(&served.one), b"http/1.1");
    let status = score(connect(&client, served.router.address(), "one.example").await.unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    let drained = tokio::task::spawn_blocking(move || served.router.drain());
    // The deadline is an hour away.
    tokio::time::timeout(Duration::from_secs(60), drained).await.expect("it ends by itself").unwrap();
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn() {
    let served = served();
    let stream =
        connect(&client(&[served.one], b"h2"), served.router.address(), "one.example").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("https://demo.example{SCORE}"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "{\"ok\":true}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let served = served();
    let address = served.router.address();
    let open = connect(&client(&[served.one], b"http/1.1"), address, "one.example").await.unwrap();
    let fresh_certificate = write_certificate(served.folder.path(), "one", "one.example");
    let fresh = client(std::slice::from_ref(&fresh_certificate), b"http/1.1");
    let stream =
        eventually("new certificate", async || connect(&fresh, address, "one.example").await.ok()).await;
    assert_eq!(score(stream).await, StatusCode::OK);
    // What is no certificate changes nothing: until the next good one is served, the last good one is.
    std::fs::write(served.folder.path().join("one.pem"), "not a certificate").unwrap();
    let next = write_certificate(served.folder.path(), "next", "one.example");
    let either = client(&[fresh_certificate, next.clone()], b"http/1.1");
    let next = client(&[next], b"http/1.1");
    assert_eq!(score(connect(&either, address, "one.example").await.unwrap()).await, StatusCode::OK);
    for file in ["key", "pem"] {
        std::fs::copy(
            served.folder.path().join(format!("next.{file}")),
            served.folder.path().join(format!("one.{file}")),
        )
        .unwrap();
    }
    eventually("next certificate", async || {
        connect(&either, address, "one.example").await.unwrap();
        connect(&next, address, "one.example").await.ok()
    })
    .await;
    assert_eq!(score(open).await, StatusCode::OK, "a connection from before still works");
}

#[tokio::test]
async fn clear_text_is_sent_on_to_https() {
    let served = served();
    let redirect = served.router.running().redirect.unwrap();
    let reply = get("/score?a=1").header("host", "one.example").send_to(redirect).await;
    assert_eq!(reply.status, StatusCode::PERMANENT_REDIRECT);
    let port = served.router.address().port();
    assert_eq!(reply.header("location"), format!("https://one.example:{port}/score?a=1"));
}
