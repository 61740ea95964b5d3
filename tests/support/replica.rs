//! A scripted replica: a real HTTP/1.1 server in the test's own process that does what the test says and counts what it
//! has in flight, so that it can bear witness against the router.
//!
//! It has one thread of its own: hyper closes the socket of a cancelled request a moment before it drops the handler,
//! and on several threads the next request could be counted in that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// What the replica does with a scoring request. Probes (`/` and `/live`) have answers of their own.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers with this status and body after a time.
    Answer(u16, Bytes, Duration),
    /// Waits until the test calls `release`, then answers 200.
    Hold,
    /// Answers at once without reading the request's body.
    AnswerUnread(u16),
    /// Answers and closes the connection, as the real model server does.
    AnswerAndClose,
    /// Closes the connection without an answer.
    Cut,
    /// Hangs: does not read the body, and does not even notice when the connection ends.
    Deaf,
    /// Sends the head and one chunk, then breaks off.
    CutInBody,
    /// Sends the head and one chunk, then nothing more.
    Stall,
    /// Streams what the test sends with `stream`.
    Stream,
    /// Sends a chunk and these trailers.
    Trailers(&'static str, &'static str),
}

impl Act {
    /// 200 with this body, at once.
    pub(crate) fn ok(body: &'static str) -> Self {
        Self::Answer(200, Bytes::from_static(body.as_bytes()), Duration::ZERO)
    }

    /// 200 after this time.
    pub(crate) fn after(milliseconds: u64) -> Self {
        Self::Answer(200, Bytes::from_static(b"{}"), Duration::from_millis(milliseconds))
    }
}

/// A request as the replica saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body.
    pub(crate) body: Bytes,
    /// Which connection it came on, from 1.
    pub(crate) connection: u64,
}

#[derive(Debug)]
struct Shared {
    act: Mutex<Act>,
    seen: Mutex<Vec<Seen>>,
    /// Answers that wait for `release`.
    released: watch::Sender<u64>,
    holding: AtomicU64,
    streams: Mutex<Vec<mpsc::UnboundedSender<Frame<Bytes>>>>,
    in_flight: AtomicU32,
    max_in_flight: AtomicU32,
    served: AtomicU64,
    /// Status of each probe's answer; 200 where there is none.
    probe_status: Mutex<BTreeMap<String, u16>>,
    /// Probes that are still answered before they hang.
    probes_left: watch::Sender<u64>,
    probes: Mutex<Vec<Seen>>,
    connections: AtomicU64,
    open: Mutex<BTreeSet<u64>>,
}

/// A running replica; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Replica {
    address: SocketAddr,
    shared: Arc<Shared>,
    kill: watch::Sender<bool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Replica {
    /// Starts one that answers 200 at once.
    pub(crate) fn start() -> Self {
        Self::acting(Act::ok("{\"ok\":true}"))
    }

    /// Starts one that does this.
    pub(crate) fn acting(act: Act) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), act)
    }

    /// Starts one at an address.
    pub(crate) fn at(address: SocketAddr, act: Act) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            act: Mutex::new(act),
            seen: Mutex::default(),
            released: watch::Sender::new(0),
            holding: AtomicU64::new(0),
            streams: Mutex::default(),
            in_flight: AtomicU32::new(0),
            max_in_flight: AtomicU32::new(0),
            served: AtomicU64::new(0),
            probe_status: Mutex::default(),
            probes_left: watch::Sender::new(u64::MAX),
            probes: Mutex::default(),
            connections: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let kill = watch::Sender::new(false);
        let address = listener.local_addr().unwrap();
        let (served, killed) = (Arc::clone(&shared), kill.subscribe());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                accept(TcpListener::from_std(listener).unwrap(), served, killed).await;
            });
        });
        Self { address, shared, kill, thread: Mutex::new(Some(thread)) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it does this.
    pub(crate) fn act(&self, act: Act) {
        *self.shared.act.lock().unwrap() = act;
    }

    /// From now on it answers probes of this path with this status.
    pub(crate) fn probe_status(&self, path: &str, status: u16) {
        self.shared.probe_status.lock().unwrap().insert(path.to_owned(), status);
    }

    /// It answers this many probes more; others hang until there are more again.
    pub(crate) fn answer_probes(&self, count: u64) {
        self.shared.probes_left.send_replace(count);
    }

    /// The probes that it has seen, answered or not.
    pub(crate) fn probes(&self) -> Vec<Seen> {
        self.shared.probes.lock().unwrap().clone()
    }

    /// Lets `count` held requests go, oldest first.
    pub(crate) fn release(&self, count: u64) {
        self.shared.released.send_modify(|released| *released += count);
    }

    /// Streams that `stream` reaches.
    pub(crate) fn open_streams(&self) -> usize {
        self.shared.streams.lock().unwrap().len()
    }

    /// Sends a frame to every open stream.
    pub(crate) fn stream(&self, data: &'static str) {
        for stream in &*self.shared.streams.lock().unwrap() {
            let _ = stream.send(Frame::data(Bytes::from_static(data.as_bytes())));
        }
    }

    /// Ends every open stream.
    pub(crate) fn end_streams(&self) {
        self.shared.streams.lock().unwrap().clear();
    }

    /// Scoring requests it works on now.
    pub(crate) fn in_flight(&self) -> u32 {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// The most it ever worked on at once.
    pub(crate) fn max_in_flight(&self) -> u32 {
        self.shared.max_in_flight.load(Ordering::SeqCst)
    }

    /// Scoring requests that it has seen.
    pub(crate) fn served(&self) -> u64 {
        self.shared.served.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// The scoring requests it has seen, in order of arrival.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Stops listening and cuts every connection; both have happened when it returns.
    pub(crate) fn kill(&self) {
        self.kill.send_replace(true);
        if let Some(thread) = self.thread.lock().unwrap().take() {
            thread.join().unwrap();
        }
        self.shared.open.lock().unwrap().clear();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address where nothing listens.
pub(crate) fn unused_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut kill: watch::Receiver<bool>) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => continue },
            _ = kill.wait_for(|kill| *kill) => return,
        };
        let (shared, mut kill) = (Arc::clone(&shared), kill.clone());
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        shared.open.lock().unwrap().insert(number);
        tokio::spawn(async move {
            let served = Arc::clone(&shared);
            let service = service_fn(move |request| serve(Arc::clone(&served), number, request));
            let deaf = matches!(*shared.act.lock().unwrap(), Act::Deaf);
            let connection =
                http1::Builder::new().half_close(deaf).serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                _ = kill.wait_for(|kill| *kill) => {}
            }
            shared.open.lock().unwrap().remove(&number);
        });
    }
}

/// One more in flight while it lives.
#[derive(Debug)]
struct InFlight(Arc<Shared>);

impl InFlight {
    fn new(shared: &Arc<Shared>) -> Self {
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.max_in_flight.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("as the script says")]
struct Scripted;

async fn serve(
    shared: Arc<Shared>,
    connection: u64,
    request: Request<Incoming>,
) -> Result<Response<Scenario>, Scripted> {
    if matches!(request.uri().path(), "/" | "/live") {
        return Ok(probed(&shared, connection, request).await);
    }
    let guard = InFlight::new(&shared);
    shared.served.fetch_add(1, Ordering::SeqCst);
    let act = shared.act.lock().unwrap().clone();
    let (head, body) = request.into_parts();
    let unread = matches!(act, Act::AnswerUnread(_) | Act::Deaf);
    let (unread_body, body) = if unread {
        (Some(body), Bytes::new())
    } else {
        (None, body.collect().await.map_err(|_| Scripted)?.to_bytes())
    };
    shared.seen.lock().unwrap().push(Seen {
        method: head.method,
        path: head.uri.to_string(),
        headers: head.headers,
        body,
        connection,
    });
    match act {
        Act::Answer(status, body, delay) => {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            Ok(respond(status, Scenario { chunks: vec![Frame::data(body)], ..Scenario::new(guard) }))
        }
        Act::AnswerUnread(status) => Ok(respond(status, Scenario::chunk("{}", Some(guard)))),
        Act::AnswerAndClose => {
            let mut response = respond(200, Scenario::chunk("{}", Some(guard)));
            response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            Ok(response)
        }
        Act::Hold => {
            let place = shared.holding.fetch_add(1, Ordering::SeqCst);
            let mut released = shared.released.subscribe();
            released.wait_for(|released| *released > place).await.map_err(|_| Scripted)?;
            Ok(respond(200, Scenario::chunk("{}", Some(guard))))
        }
        Act::Cut => Err(Scripted),
        Act::Deaf => {
            let _unread = unread_body;
            std::future::pending::<()>().await;
            Err(Scripted)
        }
        Act::CutInBody => {
            Ok(respond(200, Scenario { ending: Ending::Breaking, ..Scenario::chunk("part", Some(guard)) }))
        }
        Act::Stall => {
            Ok(respond(200, Scenario { ending: Ending::Never, ..Scenario::chunk("part", Some(guard)) }))
        }
        Act::Stream => {
            let (sender, receiver) = mpsc::unbounded_channel();
            shared.streams.lock().unwrap().push(sender);
            let mut response =
                respond(200, Scenario { ending: Ending::Stream(receiver), ..Scenario::new(guard) });
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
            Ok(response)
        }
        Act::Trailers(name, value) => {
            let mut trailers = HeaderMap::new();
            trailers.insert(name, HeaderValue::from_static(value));
            let ending = Ending::Trailers(trailers);
            let mut response = respond(200, Scenario { ending, ..Scenario::chunk("data", Some(guard)) });
            response.headers_mut().insert("trailer", HeaderValue::from_static(name));
            Ok(response)
        }
    }
}

async fn probed(shared: &Shared, connection: u64, request: Request<Incoming>) -> Response<Scenario> {
    let (head, _) = request.into_parts();
    let path = head.uri.to_string();
    let seen = Seen {
        method: head.method,
        path: path.clone(),
        headers: head.headers,
        body: Bytes::new(),
        connection,
    };
    shared.probes.lock().unwrap().push(seen);
    let mut left = shared.probes_left.subscribe();
    if left.wait_for(|left| *left > 0).await.is_ok() {
        shared.probes_left.send_modify(|left| *left = left.saturating_sub(1));
    }
    let status = shared.probe_status.lock().unwrap().get(&path).copied().unwrap_or(200);
    respond(status, Scenario::chunk("Healthy", None))
}

fn respond(status: u16, body: Scenario) -> Response<Scenario> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// The body of an answer; its request is in flight as long as it lives.
#[derive(Debug)]
struct Scenario {
    chunks: Vec<Frame<Bytes>>,
    ending: Ending,
    _guard: Option<InFlight>,
}

#[derive(Debug)]
enum Ending {
    Breaking,
    Broken,
    Done,
    Never,
    Stream(mpsc::UnboundedReceiver<Frame<Bytes>>),
    Trailers(HeaderMap),
}

impl Scenario {
    fn new(guard: InFlight) -> Self {
        Self { chunks: Vec::new(), ending: Ending::Done, _guard: Some(guard) }
    }

    fn chunk(text: &'static str, guard: Option<InFlight>) -> Self {
        let chunks = vec![Frame::data(Bytes::from_static(text.as_bytes()))];
        Self { chunks, ending: Ending::Done, _guard: guard }
    }
}

impl Body for Scenario {
    type Data = Bytes;
    type Error = Scripted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Scripted>>> {
        if let Some(chunk) = self.chunks.pop() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        match std::mem::replace(&mut self.ending, Ending::Done) {
            // Once pending, so that what came before has been sent.
            Ending::Breaking => {
                cx.waker().wake_by_ref();
                self.ending = Ending::Broken;
                Poll::Pending
            }
            Ending::Broken => Poll::Ready(Some(Err(Scripted))),
            Ending::Done => Poll::Ready(None),
            Ending::Never => {
                self.ending = Ending::Never;
                Poll::Pending
            }
            Ending::Stream(mut frames) => {
                let polled = frames.poll_recv(cx).map(|frame| frame.map(Ok));
                self.ending = Ending::Stream(frames);
                polled
            }
            Ending::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && matches!(self.ending, Ending::Done)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let bytes: usize = self.chunks.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        match self.ending {
            Ending::Done => http_body::SizeHint::with_exact(bytes as u64),
            _ => http_body::SizeHint::default(),
        }
    }
}
