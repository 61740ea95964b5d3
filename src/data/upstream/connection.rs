//! One HTTP/1 connection to a replica, moved by whoever uses it.
//!
//! hyper's connection is polled inside the request's own task, not in a task of its own: a frame then needs one wake
//! instead of three. Two things make that cheap. The channels between hyper's halves are polled without a waker, since
//! the connection that fills them is always polled first. And the connection itself is polled with a waker that passes
//! on only what happens while somebody waits: hyper's halves also wake each other, and a pooled connection would wake
//! the task that used it last.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Sleep;

use crate::data::body::RequestBody;
use crate::data::cork::CorkedStream;
use crate::data::nudge::Nudge;
use crate::data::upstream::Outgoing;
use crate::data::upstream::stream::ReplicaStream;

/// hyper's half that moves bytes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is boxed with its connection, and nearly always open")]
enum Wire {
    Open(http1::Connection<TokioIo<ReplicaStream>, RequestBody>),
    /// hyper has ended it, and has told so whoever waits.
    Ended(ReplicaStream),
    /// Only within `Wire::end`.
    Changing,
}

impl Wire {
    /// Moves what can be moved.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Open(open) = self {
            // What went wrong is told to whoever waits for the answer.
            let _ = ready!(open.poll_without_shutdown(cx));
            self.end();
        }
        Poll::Ready(())
    }

    /// Takes hyper's half apart, which gives back a request that was not sent.
    fn end(&mut self) {
        *self = match std::mem::replace(self, Self::Changing) {
            Self::Open(open) => Self::Ended(open.into_parts().io.into_inner()),
            ended => ended,
        };
    }
}

/// A connection that carries one exchange at a time.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<RequestBody>,
    wire: Wire,
    nudge: Nudge,
    /// One timer for all exchanges. Moving it to a later time costs next to nothing, so it is not stopped between them.
    patience: Pin<Box<Sleep>>,
    /// When the head of the last answer had to be there.
    until: Instant,
}

/// Denial an exchange has no answer.
pub(super) enum Failure {
    /// The connection is of no use; the request comes back if nothing of it was written.
    Broken(Box<TrySendError<Request<RequestBody>>>),
    /// No head of an answer came in time.
    TimedOut,
}

impl Connection {
    /// A connection on a stream.
    pub(super) async fn open(stream: CorkedStream) -> hyper::Result<Box<Self>> {
        let (sender, open) = http1::handshake(TokioIo::new(ReplicaStream::new(stream))).await?;
        let patience = Box::pin(tokio::time::sleep(Duration::ZERO));
        let until = Instant::now();
        Ok(Box::new(Self { sender, wire: Wire::Open(open), nudge: Nudge::new(), patience, until }))
    }

    /// Whether the next request may be sent.
    pub(super) fn is_free(&mut self) -> bool {
        if !self.sender.is_ready() {
            self.drive();
        }
        self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the answer, at most until `until`.
    pub(super) async fn exchange(
        &mut self,
        request: Outgoing,
        until: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        self.until = until;
        self.patience.as_mut().reset(until.into());
        let mut answer = std::pin::pin!(self.sender.try_send_request(*request));
        std::future::poll_fn(|cx| {
            // Field by field, since the answer's future is made from `self.sender`.
            drive(&mut self.wire, &self.nudge);
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Poll::Ready(answer.map_err(|error| Failure::Broken(Box::new(error))));
            }
            // Also wakes this task when it was the answer that had used up its share of the runtime's time.
            if self.patience.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Failure::TimedOut));
            }
            self.nudge.listen(cx);
            Poll::Pending
        })
        .await
    }

    /// When the head of the answer must be there.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// The next frame of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let _ = self.nudge.hush();
        let mut unheard = Context::from_waker(Waker::noop());
        let mut polled = Pin::new(&mut *incoming).poll_frame(&mut unheard);
        if polled.is_pending() {
            self.drive();
            polled = Pin::new(incoming).poll_frame(&mut unheard);
        }
        if polled.is_pending() {
            self.nudge.listen(cx);
        }
        polled
    }

    /// Moves bytes for a task that does nothing else; ready when there is nothing more to move.
    pub(super) fn poll_alone(&mut self, cx: &Context<'_>) -> Poll<()> {
        let polled = self.wire.poll(&mut self.nudge.hush());
        if polled.is_pending() {
            self.nudge.listen(cx);
        }
        polled
    }

    /// Wakes whoever moves the bytes.
    pub(super) fn ring(&self) {
        self.nudge.ring();
    }

    /// Ready when nothing has come for `limit` since `last`; to be asked while a frame is waited for.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>, last: Instant, limit: Duration) -> Poll<()> {
        while self.patience.as_mut().poll(cx).is_ready() {
            let until = tokio::time::Instant::from_std(last) + limit;
            if until <= tokio::time::Instant::now() {
                return Poll::Ready(());
            }
            self.patience.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// The stream, once hyper has taken notice that nobody waits for an answer.
    pub(super) async fn into_stream(self) -> Option<ReplicaStream> {
        let Self { sender, mut wire, .. } = self;
        drop(sender);
        std::future::poll_fn(|cx| wire.poll(cx)).await;
        match wire {
            Wire::Ended(stream) => Some(stream),
            Wire::Open(_) | Wire::Changing => None,
        }
    }

    fn drive(&mut self) {
        drive(&mut self.wire, &self.nudge);
    }
}

/// Moves what can be moved, without waking anybody for what it did itself.
fn drive(wire: &mut Wire, nudge: &Nudge) {
    // Whether it has ended shows in the answer.
    let _ = wire.poll(&mut nudge.hush());
}
