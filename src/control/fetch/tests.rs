//! Fetches from a real server on loopback: good answers, bad ones, too large and too slow ones.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::shutdown::Tasks;

type Answer = Arc<Mutex<(StatusCode, Bytes)>>;

/// An HTTP server on the loopback that gives one answer to everything, until it is told another one.
pub(crate) struct Server {
    port: u16,
    answer: Answer,
    asked: mpsc::UnboundedReceiver<()>,
    end: CancellationToken,
}

impl Server {
    pub(crate) async fn start(tasks: &Tasks) -> Self {
        Self::start_with(tasks, None).await
    }

    async fn start_with(tasks: &Tasks, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer: Answer = Arc::new(Mutex::new((StatusCode::OK, Bytes::new())));
        let (ask, asked) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        let serve = {
            let (answer, tasks, end) = (Arc::clone(&answer), tasks.clone(), end.clone());
            async move {
                while let Some(Ok((stream, _))) = end.run_until_cancelled(listener.accept()).await {
                    let (answer, ask, tls) = (Arc::clone(&answer), ask.clone(), tls.clone());
                    tasks.spawn(async move {
                        match tls {
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(TokioIo::new(stream), answer, ask).await;
                                }
                            }
                            None => serve(TokioIo::new(stream), answer, ask).await,
                        }
                    });
                }
            }
        };
        tasks.spawn(serve);
        Self { port, answer, asked, end }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/keys?tenant=secret", self.port)
    }

    pub(crate) fn answer(&self, status: StatusCode, body: &str) {
        *self.answer.lock().unwrap() = (status, Bytes::copy_from_slice(body.as_bytes()));
    }

    /// Completes when a request has come after all earlier ones, and one more: by then a client that asks again
    /// and again has made use of the first one's answer.
    pub(crate) async fn asked_twice(&mut self) {
        while self.asked.try_recv().is_ok() {}
        for _ in 0..3 {
            self.asked.recv().await.unwrap();
        }
    }

    pub(crate) fn stop(&self) {
        self.end.cancel();
    }
}

async fn serve<S>(stream: S, answer: Answer, ask: mpsc::UnboundedSender<()>)
where
    S: Read + Write + Unpin,
{
    let service = service_fn(|_| {
        let (status, body) = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let _ = ask.send(());
        let response = Response::builder().status(status).body(Full::new(body)).unwrap();
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
}

#[test]
fn only_plain_http_addresses_are_taken() {
    for bad in
        ["", "keys", "/keys", "ftp://a/", "file:///etc/passwd", "http://", "http://u:p@a/", "http://a b/"]
    {
        assert!(Address::parse(bad).is_err(), "{bad:?}");
    }
    let address = Address::parse("https://[::1]/keys?code=secret").unwrap();
    assert_eq!((address.host.as_str(), address.port, address.is_tls), ("::1", 443, true));
    assert_eq!(address.to_string(), "https://[::1]/keys");
    assert!(!format!("{address:?}").contains("secret"));
}

#[test]
fn clear_text_is_exposed_unless_it_stays_on_the_machine() {
    for (url, is_exposed) in [
        ("http://issuer.example/", true),
        ("http://10.0.0.1/", true),
        ("http://localhost.example/", true),
        ("https://issuer.example/", false),
        ("http://LOCALHOST:1/", false),
        ("http://127.0.0.9/", false),
        ("http://[::1]/", false),
    ] {
        assert_eq!(Address::parse(url).unwrap().is_exposed(), is_exposed, "{url}");
    }
}

#[tokio::test]
async fn only_a_whole_small_200_is_an_answer() {
    let tasks = Tasks::new();
    let server = Server::start(&tasks).await;
    let address = Address::parse(&server.url()).unwrap();
    let longest = "x".repeat(LONGEST_BYTES);
    server.answer(StatusCode::OK, &longest);
    assert_eq!(get(&address).await.unwrap(), longest);
    server.answer(StatusCode::OK, &format!("{longest}x"));
    assert!(matches!(get(&address).await, Err(FetchError::Body)));
    server.answer(StatusCode::NOT_FOUND, "no");
    assert!(matches!(get(&address).await, Err(FetchError::Status(StatusCode::NOT_FOUND))));
    server.stop();
    tasks.ended().await;
    assert!(matches!(get(&address).await, Err(FetchError::Connect(_))));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let tasks = Tasks::new();
    tasks.spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").await.unwrap();
    });
    assert!(matches!(get(&Address::parse(&address).unwrap()).await, Err(FetchError::Body)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left_after_the_timeout() {
    // Never accepted: the system completes the connection, and the paused clock runs when nothing else can.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    assert!(matches!(get(&address).await, Err(FetchError::Timeout)));
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], signing_key.into())
        .unwrap();
    let tasks = Tasks::new();
    let server = Server::start_with(&tasks, Some(TlsAcceptor::from(Arc::new(config)))).await;
    server.answer(StatusCode::OK, "keys");
    let address = Address::parse(&format!("https://localhost:{}/", server.port)).unwrap();
    let trusting = |trusted: bool| {
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(cert.der().clone()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
    };
    assert_eq!(get_trusting(&address, || trusting(true)).await.unwrap(), "keys");
    assert!(matches!(get_trusting(&address, || trusting(false)).await, Err(FetchError::Handshake(_))));
    server.stop();
    tasks.ended().await;
}
