//! Connections to replicas: one pool for each worker, one HTTP/1 exchange at a time on a connection.
//!
//! It decides when a slot is free again. A permit belongs to the connection that carries the request: it is released
//! when the answer has been read to its last byte, or, if the request was given up before (client gone, time-out), when
//! the replica has let go of it. For that the connection is closed for writing, which tells the replica, and read until
//! the replica ends its side. A model server that cannot cancel, as the real one cannot, would otherwise be sent a second
//! request while it still works on the first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedSender};
use tower::{Service, ServiceExt as _};

use crate::core::admission::{Outcome, ReplicaId};
use crate::core::settings::Authority;
use crate::data::again::Again;
use crate::data::body::{Progress, RequestBody, Upload};
use crate::data::cork::Cork;
use crate::data::gate::{Permit, Target};
use crate::data::upstream::connection::{Connection, Failure};
use crate::shutdown::Tasks;

mod connection;
mod stream;
#[cfg(test)]
#[cfg(not(model_check))]
mod tests;

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
    idle: RefCell<BTreeMap<ReplicaId, Vec<Idle>>>,
    cork: Rc<Cork>,
    tasks: Tasks,
    /// Takes connections whose request was given up.
    given_up: UnboundedSender<(Box<Connection>, Permit)>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// Limits of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time for opening a connection.
    pub connect_timeout: Duration,
    /// When it begins.
    pub now: Instant,
    /// When the head of the answer must be there.
    pub until: Instant,
}

/// What one exchange took, also if it is given up.
#[derive(Debug, Default)]
pub struct Trip {
    /// Opening connections.
    pub connect_time: Cell<Duration>,
    /// Times that it was sent again, because the replica had closed a pooled connection.
    pub stale: Cell<u16>,
}

/// A connection in use and the slot that goes with it. Dropped, they go to where the replica is watched until it lets go.
#[derive(Debug)]
struct Hold {
    held: Option<(Carrier, Permit)>,
    upstream: Rc<Upstream>,
}

/// Who moves a connection's bytes.
#[derive(Debug)]
enum Carrier {
    /// Whoever reads the answer.
    Reader(Box<Connection>),
    /// A task, because the request's body is not through yet: it must get on also while the client does not read the answer.
    Task(Shared),
}

/// Empty once the task is to end.
type Shared = Rc<RefCell<Option<Box<Connection>>>>;

impl Carrier {
    fn end(self) -> Option<Box<Connection>> {
        match self {
            Self::Reader(connection) => Some(connection),
            Self::Task(shared) => {
                let connection = shared.borrow_mut().take()?;
                connection.ring();
                Some(connection)
            }
        }
    }
}

impl Hold {
    fn new(upstream: &Rc<Upstream>, connection: Box<Connection>, permit: Permit) -> Self {
        Self { held: Some((Carrier::Reader(connection), permit)), upstream: Rc::clone(upstream) }
    }

    fn carrier(&mut self) -> &mut Carrier {
        &mut self.held.as_mut().expect("taken only at the end").0
    }

    fn target(&self) -> &Arc<Target> {
        self.held.as_ref().expect("taken only at the end").1.target()
    }

    /// How the use of the slot has gone so far.
    fn outcome(&mut self, outcome: Outcome) {
        self.held.as_mut().expect("taken only at the end").1.outcome(outcome);
    }

    /// Sends the request and waits for the head of its answer.
    async fn exchange(&mut self, request: Outgoing, until: Instant) -> Result<Response<Incoming>, Failure> {
        match self.carrier() {
            Carrier::Reader(connection) => connection.exchange(request, until).await,
            Carrier::Task(_) => unreachable!("there is a task only when there is an answer"),
        }
    }

    /// From now on a task moves the connection's bytes.
    fn hand_over(self) -> Self {
        let upstream = Rc::clone(&self.upstream);
        let (connection, permit) = self.end();
        let shared: Shared = Rc::new(RefCell::new(connection));
        let of_task = Rc::clone(&shared);
        upstream.tasks.spawn_local(async move {
            std::future::poll_fn(|cx| match of_task.borrow_mut().as_mut() {
                Some(connection) => connection.poll_alone(cx),
                None => Poll::Ready(()),
            })
            .await;
        });
        Self { held: Some((Carrier::Task(shared), permit)), upstream }
    }

    fn end(mut self) -> (Option<Box<Connection>>, Permit) {
        let (carrier, permit) = self.held.take().expect("taken only at the end");
        (carrier.end(), permit)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some((carrier, permit)) = self.held.take()
            && let Some(connection) = carrier.end()
        {
            // When the worker ends nobody takes it, and the connection ends here.
            let _ = self.upstream.given_up.send((connection, permit));
        }
    }
}

/// A request to a replica.
pub type Outgoing = Box<Request<RequestBody>>;

/// Denial there is no answer.
#[derive(Debug)]
pub enum SendError {
    /// The replica could not be reached; nothing was sent, and permit and request are as good as new.
    Connect(Permit, Outgoing, io::Error),
    /// The connection was lost, or what came back is not HTTP.
    Exchange(hyper::Error),
    /// The head of the answer was not there in time.
    TimedOut,
}

/// An answer whose body is still on its connection.
#[derive(Debug)]
pub struct Answer {
    /// Head and body as the replica sent them; the body is read through `exchange`.
    pub response: Response<Incoming>,
    /// To be finished when the body has been read to its end.
    pub exchange: Exchange,
}

/// A request's hold on its connection and slot. `finish` frees both; dropping it instead gives the request up.
#[derive(Debug)]
pub struct Exchange {
    hold: Hold,
    upload: Rc<Progress>,
    /// What a whole answer says about the replica.
    verdict: Outcome,
}

/// What an answer with this status says about the replica: that of a gateway is not the model's own, and a protocol that
/// nobody asked for is none.
fn verdict(status: StatusCode) -> Outcome {
    match status {
        StatusCode::SWITCHING_PROTOCOLS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Broken,
        StatusCode::INTERNAL_SERVER_ERROR => Outcome::Failed,
        _ => Outcome::Answered,
    }
}

impl Exchange {
    /// The replica that answers.
    pub fn target(&self) -> &Arc<Target> {
        self.hold.target()
    }

    /// The next frame of the answer's body.
    pub fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.hold.carrier() {
            Carrier::Reader(connection) => connection.poll_frame(incoming, cx),
            Carrier::Task(_) => Pin::new(incoming).poll_frame(cx),
        }
    }

    /// Ready when the replica has sent nothing for `limit` since `last`; to be asked while a frame is waited for.
    pub fn poll_stalled(&mut self, cx: &mut Context<'_>, last: Instant, limit: Duration) -> Poll<()> {
        match self.hold.carrier() {
            Carrier::Reader(connection) => connection.poll_stalled(cx, last, limit),
            Carrier::Task(shared) => match shared.borrow_mut().as_mut() {
                Some(connection) => connection.poll_stalled(cx, last, limit),
                None => Poll::Pending,
            },
        }
    }

    /// The answer ends before its last byte, by the replica's doing.
    pub fn fail(mut self, outcome: Outcome) {
        self.hold.outcome(outcome);
    }

    /// The answer has been read to its last byte: the slot is free, and the connection may be used again.
    pub fn finish(self, now: Instant) {
        let upstream = Rc::clone(&self.hold.upstream);
        let (connection, mut permit) = self.hold.end();
        permit.outcome(self.verdict);
        // A replica may answer before it has read all of the request; such a connection is still busy.
        if let Some(mut connection) = connection
            && self.upload.state() == Upload::Complete
            && connection.is_free()
        {
            let idle = Idle { connection, since: now };
            upstream.idle.borrow_mut().entry(permit.target().id).or_default().push(idle);
        }
        // Last, so that the next request finds the connection.
        drop(permit);
    }
}

impl Upstream {
    /// No connections yet. What watches over given-up requests runs as `tasks`.
    pub fn new(tasks: &Tasks, cork: &Rc<Cork>) -> Rc<Self> {
        let (given_up, mut connections) = mpsc::unbounded_channel();
        let watches = tasks.clone();
        tasks.spawn_local(async move {
            while let Some((connection, permit)) = connections.recv().await {
                watches.spawn_local(let_go(connection, permit));
            }
        });
        Rc::new(Self { idle: RefCell::default(), cork: Rc::clone(cork), tasks: tasks.clone(), given_up })
    }

    /// Sends a request to the replica of the permit and waits for the head of the answer.
    ///
    /// A pooled connection that turns out to be closed is replaced by a fresh one if nothing of the request has been
    /// written, or if it may be sent again. That happens once: who knows whether the replica had closed it long ago, or
    /// because of this request?
    pub async fn send(
        self: &Rc<Self>,
        permit: Permit,
        request: Outgoing,
        again: Option<&Again<'_>>,
        limits: Limits,
        trip: &Trip,
    ) -> Result<Answer, SendError> {
        let (mut permit, mut request) = (permit, request);
        let upload = request.body().progress();
        let mut pooled = self.checkout(permit.target().id, limits.now);
        loop {
            let is_fresh = pooled.is_none();
            let connection = match pooled.take() {
                Some(connection) => connection,
                // Boxed, so that requests on a pooled connection do not carry the room that it needs.
                None => match Box::pin(self.open(&permit, limits, trip)).await {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) => {
                        permit.outcome(Outcome::Broken);
                        return Err(SendError::Exchange(error));
                    }
                    Err(error) => {
                        permit.outcome(Outcome::Unreachable);
                        if Instant::now() < limits.until {
                            return Err(SendError::Connect(permit, request, error));
                        }
                        tracing::debug!(%error, "no time left to connect");
                        return Err(SendError::TimedOut);
                    }
                },
            };
            let mut hold = Hold::new(self, connection, permit);
            let mut error = match hold.exchange(request, limits.until).await {
                Ok(response) => {
                    let verdict = verdict(response.status());
                    if verdict != Outcome::Answered {
                        // Known now, even if the client leaves before the end.
                        hold.outcome(verdict);
                    }
                    let hold = if upload.state() == Upload::Running { hold.hand_over() } else { hold };
                    return Ok(Answer { response, exchange: Exchange { hold, upload, verdict } });
                }
                Err(Failure::TimedOut) => {
                    if !upload.waits_for_client() {
                        hold.outcome(Outcome::TimedOut);
                    }
                    return Err(SendError::TimedOut);
                }
                Err(Failure::Broken(error)) => error,
            };
            let unsent = if is_fresh { None } else { Self::unsent(&mut error, again, &hold, trip) };
            let Some(unsent) = unsent else {
                if matches!(upload.state(), Upload::Complete | Upload::Running) {
                    hold.outcome(Outcome::Broken);
                }
                return Err(SendError::Exchange(error.into_error()));
            };
            (permit, request) = (hold.end().1, unsent);
            // The others have been idle for longer, so they are closed as well or will break in the same way.
            self.idle.borrow_mut().remove(&permit.target().id);
        }
    }

    /// The request for another connection, when a pooled one has failed.
    fn unsent(
        error: &mut TrySendError<Request<RequestBody>>,
        again: Option<&Again<'_>>,
        hold: &Hold,
        trip: &Trip,
    ) -> Option<Outgoing> {
        if let Some(request) = error.take_message() {
            return Some(Box::new(request));
        }
        let again = again?;
        // Why it may not be is told by whoever asks for the next copy.
        if again.attempts() == 0 || again.pay().is_err() {
            return None;
        }
        again.count();
        let copy = again.copy(&hold.target().host)?;
        trip.stale.update(|stale| stale.saturating_add(1));
        Some(copy)
    }

    /// Opens a connection to the replica of a permit.
    async fn open(
        &self,
        permit: &Permit,
        limits: Limits,
        trip: &Trip,
    ) -> io::Result<hyper::Result<Box<Connection>>> {
        let began = Instant::now();
        let timeout = limits.connect_timeout.min(limits.until.saturating_duration_since(began));
        let stream = Connector { timeout }.oneshot(permit.target().authority.clone()).await;
        trip.connect_time.update(|time| time + began.elapsed());
        Ok(Connection::open(self.cork.replica(stream?)).await)
    }

    /// The most recently used idle connection, if it is not too old. Whether it is still open shows when it is used.
    fn checkout(&self, replica: ReplicaId, now: Instant) -> Option<Box<Connection>> {
        let idle = self.idle.borrow_mut().get_mut(&replica)?.pop()?;
        (now.saturating_duration_since(idle.since) < IDLE_LIMIT).then_some(idle.connection)
    }

    /// Closes connections that have been idle for too long; to be called about once a second.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| now.saturating_duration_since(idle.since) < IDLE_LIMIT);
            !connections.is_empty()
        });
    }
}

/// Waits for the replica to let go of a request that was given up.
async fn let_go(connection: Box<Connection>, mut permit: Permit) {
    permit.give_up(connection.until());
    let rest = async {
        let Some(mut stream) = connection.into_stream().await else { return Ok(()) };
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
    if tokio::time::timeout(LINGER_LIMIT, rest).await.is_err() {
        tracing::warn!(
            replica = %permit.target().name,
            "still busy {} s after its request was given up; its slot is taken as free",
            LINGER_LIMIT.as_secs()
        );
    }
    drop(permit);
}
