//! From accept to hyper: TLS, protocol choice, time limits, and the end of a connection.
//!
//! A drain loses nothing that was accepted: what waits at the socket is still taken, a connection that is idle gets a
//! second for one more request (answered with `Connection: close`), and one with a request ends after its answer.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::core::settings::ListenSettings;
use crate::data::peer::Peer;
use crate::data::proxy;
use crate::data::worker::{Place, Shared, Worker};
use crate::observe::metrics::count_refused_connection;
use crate::shutdown::Tasks;

/// Longest TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long an idle connection may still send a request when a drain begins.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests at once on one HTTP/2 connection; the value that RFC 9113 recommends as the least is 100.
const MAX_STREAMS: u32 = 256;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Requests, over TLS if there are certificates.
    Data,
    /// Clear text that is sent on to https.
    Redirect,
}

/// Accepts connections until the drain begins, then takes what still waits at the socket and ends.
pub async fn accept(
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    kind: Listener,
    listener: TcpListener,
    tasks: Tasks,
) {
    let mut drain = shared.drain.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = drain.started() => break,
        };
        match accepted {
            Ok((stream, address)) => welcome(&worker, &shared, kind, stream, address, &tasks),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The runtime may not know yet of connections that wait at the socket; closing it would reset them.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, address)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            welcome(&worker, &shared, kind, stream, address, &tasks);
        }
    }
}

/// Serves a connection, if there is a place for it.
fn welcome(
    worker: &Rc<Worker>,
    shared: &Arc<Shared>,
    kind: Listener,
    stream: TcpStream,
    address: SocketAddr,
    tasks: &Tasks,
) {
    match Place::take(shared) {
        Some(place) => {
            let connection = Connection { worker: Rc::clone(worker), shared: Arc::clone(shared), kind };
            tasks.spawn_local(connection.serve(stream, address, place));
        }
        None => count_refused_connection(),
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

struct Connection {
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    kind: Listener,
}

impl Connection {
    async fn serve(self, stream: TcpStream, address: SocketAddr, _place: Place) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let stream = self.worker.cork.client(stream);
        match (&self.shared.tls, self.kind) {
            (Some(tls), Listener::Data) => {
                // Boxed, like the connection itself: a task is moved when it is made, and lives as long as its client.
                let handshake = Box::pin(TlsAcceptor::from(Arc::clone(tls.config())).accept(stream));
                match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
                    Ok(Ok(stream)) => Box::pin(self.converse(stream, address, true)).await,
                    Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
                }
            }
            _ => self.converse(stream, address, false).await,
        }
    }

    async fn converse<T>(self, stream: T, address: SocketAddr, tls: bool)
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let worker = self.worker;
        let peer = Peer::new(address, tls, Instant::now());
        let io = TokioIo::new(ClientStream { stream, peer: Rc::clone(&peer) });
        let (of_peer, of_worker) = (Rc::clone(&peer), Rc::clone(&worker));
        let ended = match self.kind {
            Listener::Data => {
                let service = service_fn(move |request| {
                    proxy::handle(Rc::clone(&of_worker), Rc::clone(&of_peer), request)
                });
                let connection = Box::pin(worker.http.serve_connection(io, service));
                drive(connection, &worker, &peer, |connection| connection.graceful_shutdown()).await
            }
            Listener::Redirect => {
                let port = self.shared.listen.address.port();
                let service = service_fn(move |request: Request<Incoming>| {
                    of_peer.begin(request.version());
                    of_peer.end(Instant::now());
                    std::future::ready(Ok::<_, Infallible>(redirect(&request, port)))
                });
                let connection = Box::pin(worker.http.serve_connection(io, service));
                drive(connection, &worker, &peer, |connection| connection.graceful_shutdown()).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, error, "connection ended early");
        }
    }
}

/// How clients' connections are served: HTTP/1.1 and HTTP/2, whichever the client speaks.
pub fn http(listen: &ListenSettings) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(listen.header_timeout)
        .keep_alive_timeout(HANDSHAKE_LIMIT);
    builder
}

/// Moves a connection until it ends or has been silent for too long. When a drain begins it may take one more request and
/// is then closed gracefully.
async fn drive<C, E>(
    mut connection: Pin<Box<C>>,
    worker: &Rc<Worker>,
    peer: &Rc<Peer>,
    close: impl FnOnce(Pin<&mut C>),
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let _seat = worker.peers.add(peer);
    if let Some(ended) = worker.draining.or(std::pin::pin!(heard(connection.as_mut(), peer))).await {
        return ended;
    }
    if let Ok(ended) = tokio::time::timeout(LAST_REQUEST, heard(connection.as_mut(), peer)).await {
        return ended;
    }
    close(connection.as_mut());
    heard(connection.as_mut(), peer).await
}

/// Moves a connection until it ends or its peer has been silent for too long.
async fn heard<C, E>(mut connection: Pin<&mut C>, peer: &Peer) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut peer.nudge.hush()) {
            return Poll::Ready(ended);
        }
        peer.nudge.listen(cx);
        peer.poll_silenced(cx).map(Ok)
    })
    .await
}

/// 308 to the same path over https.
fn redirect(request: &Request<Incoming>, port: u16) -> Response<http_body_util::Empty<bytes::Bytes>> {
    let mut response = Response::new(http_body_util::Empty::new());
    let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location = host.map(|host| match port {
        443 => format!("https://{}{path}", host.host()),
        port => format!("https://{}:{port}{path}", host.host()),
    });
    match location.and_then(|location| HeaderValue::try_from(location).ok()) {
        Some(location) => {
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(http::header::LOCATION, location);
        }
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}

/// Runs HTTP/2's per-stream tasks on this thread. They end with their connection, which is a tracked task.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    #[expect(clippy::disallowed_methods, reason = "ends with its connection, which is tracked")]
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A client's stream that tells its peer while it cannot be written. hyper does not poll a body while its client is not
/// reading, so nothing else would ever free the slot that such a client holds.
struct ClientStream<T> {
    stream: T,
    peer: Rc<Peer>,
}

impl<T> ClientStream<T> {
    fn watched<R>(&self, polled: Poll<R>) -> Poll<R> {
        self.peer.takes_data(polled.is_ready());
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ClientStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watched(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.watched(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.watched(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watched(polled)
    }
}
