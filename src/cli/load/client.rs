//! Connections: opened when a request finds none, kept for the next ones, replaced when they have closed.
//!
//! A request that was not written because its connection had closed meanwhile goes to another one. One that was written
//! is never sent again: the model may have worked on it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::failure;
use super::plan::Plan;
use super::tally::Failure;
use crate::cli::http::tls;
use crate::shutdown::Tasks;

/// Requests at once on one HTTP/2 connection: what most servers allow.
const MOST_STREAMS: usize = 100;
/// Connections on which an HTTP/2 request is tried before it fails; each of them closed before it was written.
const TRIES: u32 = 3;
/// How long a connection may need to become free after the last byte of an answer. It needs longer only if the server
/// answered without reading the request.
const SETTLING: Duration = Duration::from_millis(100);
/// Longest look-up of the name.
const LOOK_UP: Duration = Duration::from_secs(10);

type Body = Full<Bytes>;

/// All connections to the target.
pub(super) struct Client {
    addresses: Vec<SocketAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    is_http2: bool,
    idle: RefCell<Vec<http1::SendRequest<Body>>>,
    shared: RefCell<Vec<Rc<Shared>>>,
    /// One HTTP/2 connection is opened at a time, for the others to use.
    opening: Semaphore,
    opened: Cell<u64>,
    tasks: Tasks,
}

/// An HTTP/2 connection.
struct Shared {
    sender: http2::SendRequest<Body>,
    streams: Cell<usize>,
}

/// What an answer comes on, until its last byte has been read.
pub(super) enum Lease {
    Http1(http1::SendRequest<Body>),
    Http2(Stream),
}

/// One stream more on a connection while it lives.
pub(super) struct Stream(Rc<Shared>);

impl Client {
    /// A client without connections.
    ///
    /// # Errors
    /// The name of the host has no address, or there are no certificates to trust.
    pub(super) async fn new(plan: &Plan, tasks: Tasks) -> anyhow::Result<Self> {
        let (host, port) = (plan.target.host.as_str(), plan.target.port);
        let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((host, port))).await;
        let addresses: Vec<SocketAddr> = found
            .with_context(|| {
                format!("cannot find the host {host}: no answer within {} s", LOOK_UP.as_secs())
            })?
            .with_context(|| format!("cannot find the host {host}"))?
            .collect();
        let tls = if plan.target.is_tls {
            let name = ServerName::try_from(host.to_owned())
                .with_context(|| format!("{host} is no name that a certificate can have"))?;
            Some((TlsConnector::from(Arc::new(tls::client(&plan.trust, plan.is_http2)?)), name))
        } else {
            None
        };
        Ok(Self {
            addresses,
            tls,
            is_http2: plan.is_http2,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Semaphore::new(1),
            opened: Cell::new(0),
            tasks,
        })
    }

    /// Connections opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// Sends a request; the head of its answer, and what the body comes on.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<(Response<Incoming>, Lease), Failure> {
        if self.is_http2 { self.send_http2(request).await } else { self.send_http1(request).await }
    }

    /// Keeps a connection whose answer has been read to the end.
    pub(super) async fn settle(&self, lease: Lease) {
        let mut sender = match lease {
            Lease::Http1(sender) => sender,
            Lease::Http2(stream) => return drop(stream),
        };
        let is_ready =
            sender.is_ready() || matches!(tokio::time::timeout(SETTLING, sender.ready()).await, Ok(Ok(())));
        if is_ready {
            self.idle.borrow_mut().push(sender);
        }
    }

    async fn send_http1(&self, mut request: Request<Body>) -> Result<(Response<Incoming>, Lease), Failure> {
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease::Http1(sender))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failure::exchange(&error.into_error())),
                },
            }
        }
        let mut sender = self.open_http1().await?;
        let response = sender.send_request(request).await.map_err(|error| failure::exchange(&error))?;
        Ok((response, Lease::Http1(sender)))
    }

    /// The connection used last: a few are kept busy, and those that the load does not need stay unused.
    fn take_idle(&self) -> Option<http1::SendRequest<Body>> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).find(http1::SendRequest::is_ready)
    }

    async fn send_http2(&self, mut request: Request<Body>) -> Result<(Response<Incoming>, Lease), Failure> {
        let mut tries_left = TRIES;
        loop {
            let stream = self.stream().await?;
            let mut sender = stream.0.sender.clone();
            tries_left -= 1;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease::Http2(stream))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if tries_left > 0 && sender.is_closed() => request = unsent,
                    _ => return Err(failure::exchange(&error.into_error())),
                },
            }
        }
    }

    async fn stream(&self) -> Result<Stream, Failure> {
        if let Some(stream) = self.free_stream() {
            return Ok(stream);
        }
        let _turn = self.opening.acquire().await.map_err(|_| failure::closed())?;
        if let Some(stream) = self.free_stream() {
            return Ok(stream);
        }
        let shared = Rc::new(Shared { sender: self.open_http2().await?, streams: Cell::new(0) });
        self.shared.borrow_mut().push(Rc::clone(&shared));
        Ok(Stream::new(shared))
    }

    fn free_stream(&self) -> Option<Stream> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| !connection.sender.is_closed());
        let free = shared.iter().find(|connection| connection.streams.get() < MOST_STREAMS);
        free.map(|connection| Stream::new(Rc::clone(connection)))
    }

    async fn open_http1(&self) -> Result<http1::SendRequest<Body>, Failure> {
        let stream = self.connect().await?;
        match &self.tls {
            None => self.handshake_http1(stream).await,
            Some(tls) => self.handshake_http1(secure(tls, stream, false).await?).await,
        }
    }

    async fn open_http2(&self) -> Result<http2::SendRequest<Body>, Failure> {
        let stream = self.connect().await?;
        match &self.tls {
            None => self.handshake_http2(stream).await,
            Some(tls) => self.handshake_http2(secure(tls, stream, true).await?).await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect(&*self.addresses).await.map_err(|error| failure::connect(&error))?;
        self.opened.set(self.opened.get() + 1);
        // Failing here costs only time.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn handshake_http1<S>(&self, stream: S) -> Result<http1::SendRequest<Body>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| failure::exchange(&error))?;
        self.tasks.spawn_local(async move {
            // The request on it gets the error, too.
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn handshake_http2<S>(&self, stream: S) -> Result<http2::SendRequest<Body>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| failure::exchange(&error))?;
        self.tasks.spawn_local(async move {
            // The requests on it get the error, too.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

async fn secure(
    (connector, name): &(TlsConnector, ServerName<'static>),
    stream: TcpStream,
    is_http2: bool,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let stream = connector.connect(name.clone(), stream).await.map_err(|error| failure::tls(&error))?;
    if is_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(failure::no_http2());
    }
    Ok(stream)
}

impl Stream {
    fn new(shared: Rc<Shared>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self(shared)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}
