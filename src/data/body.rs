//! Bodies on their way through: counted, bounded, never collected.
//!
//! `RequestBody` goes to the model and knows how far the client has come with it. `AnswerBody` goes to the client,
//! holds the request's slot until the last byte has been read from the replica, and closes the request's record.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc::UnboundedSender;

use crate::core::admission::Outcome;
use crate::data::again::Kept;
use crate::data::peer::Peer;
use crate::data::record::OpenRecord;
use crate::data::upstream::Exchange;

/// Most that is read of a body while its request waits in the queue.
///
/// Reading on is what shows that a client has left: hyper sees the end of a connection only while it reads from it.
const READ_AHEAD: usize = 64 * 1024;

/// Most that is read of a body whose request has been answered already, and for how long.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// How far the client has come with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// All of it has arrived.
    Complete,
    /// The client left.
    Gone,
    /// What the client sent is not a body.
    Malformed,
    /// Some is still to come.
    Running,
    /// It is larger than it may be.
    TooLarge,
}

/// What is known of a request's body, for the request's own task.
#[derive(Debug)]
pub struct Progress {
    state: Cell<Upload>,
    bytes: Cell<u64>,
    /// The model's side has asked for more than the client has sent.
    starved: Cell<bool>,
}

impl Progress {
    /// How far the client has come.
    pub fn state(&self) -> Upload {
        self.state.get()
    }

    /// Whether it is the client that is waited for, and not the replica that takes no more.
    pub fn waits_for_client(&self) -> bool {
        self.state() == Upload::Running && self.starved.get()
    }

    /// Bytes that have been passed on.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

/// A request's body on its way to the model.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Option<Incoming>,
    ahead: VecDeque<Frame<Bytes>>,
    ahead_bytes: usize,
    limit: u64,
    arrived: u64,
    progress: Rc<Progress>,
    /// Whose body it is.
    peer: Option<Rc<Peer>>,
    /// Where the rest goes when the request is answered before all of it has arrived.
    leftovers: Option<Leftovers>,
    /// Gets what arrives, if the request may be sent again.
    kept: Option<Rc<Kept>>,
}

/// Takes bodies whose request has been answered already.
///
/// Somebody has to read them on for a while: a client that is still sending when its connection is closed sees a
/// reset instead of the answer.
pub type Leftovers = UnboundedSender<Incoming>;

impl RequestBody {
    /// A body without a limit yet. What is left of it goes to `leftovers`; without, its connection is closed.
    pub fn new(incoming: Incoming, peer: Rc<Peer>, leftovers: Option<Leftovers>) -> Self {
        let state = if incoming.is_end_stream() { Upload::Complete } else { Upload::Running };
        let mut body = Self::with_state(state);
        body.incoming = Some(incoming);
        body.peer = Some(peer);
        body.leftovers = leftovers;
        body
    }

    /// Sets the most bytes that it may have.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// No body.
    pub fn empty() -> Self {
        Self::with_state(Upload::Complete)
    }

    fn with_state(state: Upload) -> Self {
        Self {
            incoming: None,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            limit: u64::MAX,
            arrived: 0,
            progress: Rc::new(Progress {
                state: Cell::new(state),
                bytes: Cell::new(0),
                starved: Cell::new(false),
            }),
            peer: None,
            leftovers: None,
            kept: None,
        }
    }

    /// A body that is there already.
    pub fn whole(pieces: impl Iterator<Item = Bytes>) -> Self {
        let mut body = Self::with_state(Upload::Complete);
        body.ahead = pieces.map(Frame::data).collect();
        body
    }

    /// Keeps what arrives from now on.
    pub fn keep(&mut self, kept: &Rc<Kept>) {
        self.kept = Some(Rc::clone(kept));
    }

    /// How far the client has come; stays true after the body has gone to the connection.
    pub fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }

    /// Reads on while the request waits: ready only when the body is broken or too large.
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Upload> {
        while self.progress.state() == Upload::Running && self.ahead_bytes < READ_AHEAD {
            match ready!(self.poll_incoming(cx)) {
                Some(Ok(frame)) => {
                    self.ahead_bytes += frame.data_ref().map_or(0, Bytes::len);
                    self.ahead.push_back(frame);
                }
                Some(Err(_)) | None => break,
            }
        }
        match self.progress.state() {
            state @ (Upload::Gone | Upload::Malformed | Upload::TooLarge) => Poll::Ready(state),
            // While more may come, the client's connection wakes this task when it ends.
            Upload::Complete | Upload::Running => Poll::Pending,
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (Some(incoming), Some(peer)) = (&mut self.incoming, &self.peer) else { return Poll::Ready(None) };
        // hyper wakes the client's half for more, also when this was the last frame.
        let (polled, _) = peer.nudge.quietly(
            || (Pin::new(&mut *incoming).poll_frame(cx), incoming.is_end_stream()),
            |(_, is_last)| *is_last,
        );
        self.progress.starved.set(polled.is_pending());
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let malformed = is_malformed(&error);
                self.progress.state.set(if malformed { Upload::Malformed } else { Upload::Gone });
                return Poll::Ready(Some(Err(BodyError::Client(error))));
            }
            None => {
                self.progress.state.set(Upload::Complete);
                return Poll::Ready(None);
            }
        };
        if incoming.is_end_stream() {
            self.progress.state.set(Upload::Complete);
        }
        self.arrived += frame.data_ref().map_or(0, Bytes::len) as u64;
        if self.arrived > self.limit {
            self.progress.state.set(Upload::TooLarge);
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        }
        if let Some(kept) = &self.kept {
            kept.keep(&frame);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !matches!(self.progress.state(), Upload::Running | Upload::TooLarge) {
            return;
        }
        if let (Some(incoming), Some(leftovers)) = (self.incoming.take(), &self.leftovers) {
            // Nobody takes them when the worker ends; then the connection ends as well.
            let _ = leftovers.send(incoming);
        }
    }
}

/// Whether a body ended because its coding is wrong. Everything else means that the client has gone.
fn is_malformed(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), InvalidData | InvalidInput);
        }
        source = cause.source();
    }
    false
}

/// Reads what is left of a body and throws it away, up to a bound in bytes and time.
pub async fn discard(mut incoming: Incoming) {
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = incoming.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES {
                break;
            }
        }
    };
    // What is not read by then is cut off.
    let _ = tokio::time::timeout(DISCARD_TIME, read).await;
}

/// Denial a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client left, or sent what is not a body.
    #[error("the client's body broke off")]
    Client(#[source] hyper::Error),
    /// The replica broke the connection in the middle of its answer.
    #[error("the model's answer broke off")]
    Model(#[source] hyper::Error),
    /// The replica sent nothing for the request timeout.
    #[error("the model's answer stalled")]
    Stalled,
    /// Larger than `max_body_bytes`.
    #[error("the body is larger than it may be")]
    TooLarge,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match self.ahead.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(self.poll_incoming(cx)),
        };
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.progress.bytes.set(self.progress.bytes() + bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let ahead: u64 = self.ahead.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

/// What is expected of an answer's body.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// When its head came.
    pub heard: Instant,
    /// Longest silence between two frames.
    pub stall_limit: Duration,
}

/// An answer's body on its way to the client.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
    /// None for what leaves no trace.
    record: Option<OpenRecord>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box would cost an allocation for each answer of a model")]
enum Source {
    /// The router's own answer.
    Own(Option<Bytes>),
    /// The model's answer.
    Model(ModelBody),
}

#[derive(Debug)]
struct ModelBody {
    incoming: Incoming,
    /// Gone once the last byte has been read.
    exchange: Option<Exchange>,
    /// Longest silence between two frames.
    stall_limit: Duration,
    /// When the head or the last frame came.
    heard: Instant,
    /// How it broke off, until what came before is on its way to the client.
    broken: Option<BodyError>,
}

impl AnswerBody {
    /// An answer that the router made.
    pub fn own(bytes: Bytes, record: Option<OpenRecord>) -> Self {
        Self { source: Source::Own((!bytes.is_empty()).then_some(bytes)), record }
    }

    /// An answer of the model whose head came at `heard`.
    pub fn model(answer: Incoming, exchange: Exchange, terms: Terms, record: OpenRecord) -> Self {
        let Terms { heard, stall_limit } = terms;
        let mut body =
            ModelBody { incoming: answer, exchange: Some(exchange), stall_limit, heard, broken: None };
        let mut record = record;
        if body.incoming.is_end_stream() {
            body.finish(&mut record, heard);
        }
        Self { source: Source::Model(body), record: Some(record) }
    }
}

impl ModelBody {
    fn fail(&mut self, outcome: Outcome) {
        if let Some(exchange) = self.exchange.take() {
            exchange.fail(outcome);
        }
    }

    fn finish(&mut self, record: &mut OpenRecord, now: Instant) {
        record.complete(now);
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(now);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut OpenRecord,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        let Poll::Ready(frame) = exchange.poll_frame(&mut self.incoming, cx) else {
            ready!(exchange.poll_stalled(cx, self.heard, self.stall_limit));
            record.broken("model_timeout");
            self.fail(Outcome::TimedOut);
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        self.heard = Instant::now();
        match frame {
            Some(Ok(frame)) => {
                record.add_response_bytes(frame.data_ref().map_or(0, Bytes::len) as u64);
                if self.incoming.is_end_stream() {
                    self.finish(record, self.heard);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                record.broken("model_connection_broken");
                self.fail(Outcome::Broken);
                // hyper forgets what it has not written when a body fails. Not ready, it writes first.
                self.broken = Some(BodyError::Model(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                self.finish(record, self.heard);
                Poll::Ready(None)
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { source, record } = &mut *self;
        match source {
            Source::Own(bytes) => {
                let Some(bytes) = bytes.take() else { return Poll::Ready(None) };
                if let Some(record) = record {
                    record.add_response_bytes(bytes.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Model(body) => {
                let record = record.as_mut().expect("a model's answer has a record");
                body.poll(cx, record)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Model(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Model(body) => body.incoming.size_hint(),
        }
    }
}
