//! Connections to replicas: one pool for each worker, one HTTP/1 exchange at a time on a connection.
//!
//! It decides when a slot is free again. A permit belongs to the connection that carries the request: it is released
//! when the answer has been read to its last byte, or, if the request was given up before (client gone, time-out), when
//! the replica has let go of it. For that the connection is closed for writing, which tells the replica, and read until
//! the replica ends its side. A model server that cannot cancel, as the real one cannot, would otherwise be sent a second
//! request while it still works on the first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tower::{Service, ServiceExt as _};

use crate::core::admission::ReplicaId;
use crate::core::settings::Authority;
use crate::data::body::{Progress, RequestBody, Upload};
use crate::data::gate::Permit;
use crate::shutdown::Tasks;

/// An idle connection is closed after this time: less than the 5 s after which uvicorn and node close theirs, since a
/// connection that the replica closes first can take a request down with it.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// How long a replica may hold on to a request that was given up, before its slot is taken as free: the real model
/// server's own WORKER_TIMEOUT.
const LINGER_LIMIT: Duration = Duration::from_secs(300);

/// Most of an answer to nobody that is read. A replica that sends more has not noticed that nobody wants it, and is told
/// by a reset.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// Opens connections to replicas.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Longest time for one attempt.
    pub timeout: Duration,
}

impl Service<Authority> for Connector {
    type Response = TcpStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, authority: Authority) -> Self::Future {
        let timeout = self.timeout;
        Box::pin(async move {
            let connect = TcpStream::connect((authority.host.as_str(), authority.port));
            let stream = tokio::time::timeout(timeout, connect)
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connect timed out"))??;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Upstream {
    idle: RefCell<HashMap<ReplicaId, Vec<Idle>>>,
    tasks: Tasks,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    /// To the connection's driver: permits of requests that were given up.
    given_up: UnboundedSender<Permit>,
}

/// A permit that goes to the driver of its connection when it is dropped.
#[derive(Debug)]
struct Hold {
    permit: Option<Permit>,
    given_up: UnboundedSender<Permit>,
}

impl Hold {
    fn new(permit: Permit, connection: &Connection) -> Self {
        Self { permit: Some(permit), given_up: connection.given_up.clone() }
    }

    fn into_permit(mut self) -> Permit {
        self.permit.take().expect("taken only here and at drop")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            // Without a driver the connection is gone, and the permit is released here.
            let _ = self.given_up.send(permit);
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum SendError {
    /// The replica could not be reached; nothing was sent, and permit and request are as good as new.
    Connect(Permit, Box<Request<RequestBody>>, io::Error),
    /// The connection was lost, or what came back is not HTTP.
    Exchange(hyper::Error),
}

/// An answer whose body is still on its connection.
#[derive(Debug)]
pub struct Answer {
    /// Head and body as the replica sent them.
    pub response: Response<Incoming>,
    /// To be finished when the body has been read to its end.
    pub exchange: Exchange,
}

/// A request's hold on its connection and slot. `finish` frees both; dropping it instead gives the request up.
#[derive(Debug)]
pub struct Exchange {
    upstream: Rc<Upstream>,
    connection: Connection,
    hold: Hold,
    upload: Rc<Progress>,
}

impl Exchange {
    /// The answer has been read to its last byte: the slot is free, and the connection may be used again.
    pub fn finish(self, now: Instant) {
        let Self { upstream, connection, hold, upload } = self;
        let permit = hold.into_permit();
        // A replica may answer before it has read all of the request; such a connection is still busy.
        if !connection.sender.is_closed() && upload.state() == Upload::Complete {
            let idle = Idle { connection, since: now };
            upstream.idle.borrow_mut().entry(permit.target().id).or_default().push(idle);
        }
        // Last, so that the next request finds the connection.
        drop(permit);
    }
}

impl Upstream {
    /// No connections yet; their drivers run as `tasks`.
    pub fn new(tasks: Tasks) -> Rc<Self> {
        Rc::new(Self { idle: RefCell::default(), tasks })
    }

    /// Sends a request to the replica of the permit and waits for the head of the answer. `connected` is called with the
    /// time that opening a connection took.
    ///
    /// A pooled connection that turns out to be closed is replaced by a fresh one as long as nothing of the request has
    /// been written, or if it is safe and empty (GET or HEAD without a body).
    pub async fn send(
        self: &Rc<Self>,
        permit: Permit,
        request: Request<RequestBody>,
        connect_timeout: Duration,
        mut connected: impl FnMut(Duration),
    ) -> Result<Answer, SendError> {
        let (mut permit, mut request) = (permit, request);
        let upload = request.body().progress();
        let replica = permit.target().id;
        while let Some(mut connection) = self.checkout(replica).await {
            let copy = copy_if_safe(&request);
            let hold = Hold::new(permit, &connection);
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answer(response, connection, hold, upload)),
                Err(mut error) => {
                    let Some(unsent) = error.take_message().or(copy) else {
                        return Err(SendError::Exchange(error.into_error()));
                    };
                    (permit, request) = (hold.into_permit(), unsent);
                }
            }
        }
        let began = Instant::now();
        let stream = Connector { timeout: connect_timeout }.oneshot(permit.target().authority.clone()).await;
        connected(began.elapsed());
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => return Err(SendError::Connect(permit, Box::new(request), error)),
        };
        let mut connection = self.open(stream).await.map_err(SendError::Exchange)?;
        let hold = Hold::new(permit, &connection);
        match connection.sender.send_request(request).await {
            Ok(response) => Ok(self.answer(response, connection, hold, upload)),
            Err(error) => Err(SendError::Exchange(error)),
        }
    }

    /// A connection on a stream, with its driver running.
    async fn open(&self, stream: TcpStream) -> hyper::Result<Connection> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(ReplicaStream { stream, deaf: false })).await?;
        let (given_up, permits) = mpsc::unbounded_channel();
        self.tasks.spawn_local(drive(connection, permits));
        Ok(Connection { sender, given_up })
    }

    fn answer(
        self: &Rc<Self>,
        response: Response<Incoming>,
        connection: Connection,
        hold: Hold,
        upload: Rc<Progress>,
    ) -> Answer {
        Answer { response, exchange: Exchange { upstream: Rc::clone(self), connection, hold, upload } }
    }

    /// The most recently used idle connection that is still open.
    async fn checkout(&self, replica: ReplicaId) -> Option<Connection> {
        loop {
            let idle = self.idle.borrow_mut().get_mut(&replica)?.pop()?;
            let mut connection = idle.connection;
            if connection.sender.is_ready() || connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    /// Closes connections that have been idle for too long; to be called about once a second.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| !idle.connection.sender.is_closed() && now - idle.since < IDLE_LIMIT);
            !connections.is_empty()
        });
    }
}

/// A copy of a request that may be sent twice: GET and HEAD without a body.
fn copy_if_safe(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let safe = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
    if !safe || !http_body::Body::is_end_stream(request.body()) {
        return None;
    }
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// A stream on which a failed write is no failure yet. A replica may answer and close before it has read all of a
/// request; hyper would stop at the failed write and never read that answer.
#[derive(Debug)]
struct ReplicaStream {
    stream: TcpStream,
    deaf: bool,
}

impl ReplicaStream {
    fn heed(&mut self, polled: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Err(_)) => {
                self.deaf = true;
                // Reading tells what became of the connection.
                Poll::Ready(Ok(length))
            }
            polled => polled,
        }
    }
}

impl AsyncRead for ReplicaStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ReplicaStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(data.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.heed(polled, data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|part| part.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(length));
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.heed(polled, length)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Moves a connection's bytes until it ends, then waits for the replica to let go of a request that was given up.
async fn drive(
    mut connection: http1::Connection<TokioIo<ReplicaStream>, RequestBody>,
    mut permits: UnboundedReceiver<Permit>,
) {
    // What went wrong is told to whoever waits for the answer.
    let _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let mut stream = connection.into_parts().io.into_inner();
    // Nothing comes when the last request was finished and the connection is no longer pooled.
    let Some(mut permit) = permits.recv().await else { return };
    permit.give_up();
    let let_go = async {
        stream.shutdown().await?;
        let (mut rest, mut bytes) = ([0u8; 4096], 0);
        while bytes < LINGER_BYTES {
            match stream.read(&mut rest).await? {
                0 => break,
                count => bytes += count,
            }
        }
        io::Result::Ok(())
    };
    if tokio::time::timeout(LINGER_LIMIT, let_go).await.is_err() {
        tracing::warn!(
            replica = %permit.target().name,
            "still busy {} s after its request was given up; its slot is taken as free",
            LINGER_LIMIT.as_secs()
        );
    }
    drop(permit);
}
