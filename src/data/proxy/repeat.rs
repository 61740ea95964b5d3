//! A request that may be sent more than once: again after a failure, or a second time because its answer is late.
//!
//! Copies go only into idle slots of other replicas, within the time and the budget; each holds a permit of its own, and
//! what loses is given up like a request whose client has left. Nothing here waits for a slot.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Response, StatusCode, response};
use hyper::body::Incoming;

use crate::core::admission::ReplicaId;
use crate::core::retry::{Cause, Denied, Hedge, Tries};
use crate::core::settings::{HedgeAfter, RepeatSettings};
use crate::data::again::Again;
use crate::data::gate::{Permit, Target};
use crate::data::upstream::{Answer, Exchange, Limits, Outgoing, SendError, Trip, Upstream};
use crate::data::world::Deployment;

/// Shortest time after which an answer is late, however fast the others came.
const SOONEST: Duration = Duration::from_millis(1);

/// Most that is read of a failed answer before the next replica is asked, and for how long.
const MOST_READ: usize = 64 * 1024;
const READ_TIME: Duration = Duration::from_millis(100);

/// What a try came to.
type Sent = Result<Reply, SendError>;

/// What a replica has answered.
pub(super) enum Reply {
    /// Its body is still on its connection.
    Open(Answer),
    /// It failed and the request was sent again: its slot was not held for that time.
    Closed(Response<Bytes>, Arc<Target>),
}

/// The body of a reply.
pub(super) enum Rest {
    Open(Incoming, Exchange),
    Closed(Bytes),
}

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Open(answer) => answer.response.status(),
            Self::Closed(response, _) => response.status(),
        }
    }

    pub(super) fn target(&self) -> &Arc<Target> {
        match self {
            Self::Open(answer) => answer.exchange.target(),
            Self::Closed(_, target) => target,
        }
    }

    pub(super) fn into_parts(self) -> (response::Parts, Rest) {
        match self {
            Self::Open(Answer { response, exchange }) => {
                let (head, incoming) = response.into_parts();
                (head, Rest::Open(incoming, exchange))
            }
            Self::Closed(response, _) => {
                let (head, bytes) = response.into_parts();
                (head, Rest::Closed(bytes))
            }
        }
    }
}

/// One request on its way to one replica after the other.
pub(super) struct Course<'a> {
    pub(super) upstream: &'a Rc<Upstream>,
    pub(super) deployment: &'a Deployment,
    pub(super) again: &'a Again<'a>,
    /// Of the first try; all end when it must.
    pub(super) limits: Limits,
    pub(super) trip: &'a Trip,
    pub(super) tries: &'a mut Tries,
}

impl Course<'_> {
    /// Sends the request until there is an answer that is no failure or it may be sent no more; then the first failure
    /// counts.
    pub(super) async fn run(mut self, permit: Permit, request: Outgoing) -> Sent {
        let mut target = Arc::clone(permit.target());
        let mut tried = vec![target.id];
        let mut first = match self.settings().hedge {
            None => self.send(permit, request, self.limits).await,
            Some(hedge) => self.hedged(permit, request, hedge, &mut tried).await,
        };
        let Some(mut cause) = failure(&first) else { return first };
        loop {
            let copy = if self.again.attempts() > 0 { self.copy(&mut tried) } else { Err(Denied::Attempts) };
            let (permit, copy, limits) = match copy {
                Ok(copy) => copy,
                Err(denied) => {
                    // Where nothing is ever sent again there is nothing to tell.
                    self.tries.denied = (self.settings().attempts > 0).then_some(denied);
                    break;
                }
            };
            first = set_aside(first, limits.until).await;
            self.again.count();
            self.tries.add(cause);
            let again = permit.target();
            tracing::warn!(replica = %target.name, cause = cause.as_str(), again = %again.name, "sends a request again");
            target = Arc::clone(again);
            let next = self.send(permit, copy, limits).await;
            if is_answer(&next) {
                return next;
            }
            cause = match (failure(&next), &next) {
                (Some(cause), _) => cause,
                (None, Err(SendError::Connect(..))) => Cause::Unreachable,
                (None, _) => {
                    self.tries.denied = Some(Denied::Time);
                    break;
                }
            };
            discard(next);
        }
        first
    }

    async fn send(&self, permit: Permit, request: Outgoing, limits: Limits) -> Sent {
        self.upstream.send(permit, request, Some(self.again), limits, self.trip).await.map(Reply::Open)
    }

    /// Sends the request, and a second copy when there is no answer after a while.
    async fn hedged(
        &mut self,
        permit: Permit,
        request: Outgoing,
        hedge: HedgeAfter,
        tried: &mut Vec<ReplicaId>,
    ) -> Sent {
        let late = match hedge {
            HedgeAfter::Time(time) => Some(time),
            HedgeAfter::P95 => self.p95(),
        };
        let (upstream, again, limits, trip) = (self.upstream, self.again, self.limits, self.trip);
        let first = std::pin::pin!(async {
            upstream.send(permit, request, Some(again), limits, trip).await.map(Reply::Open)
        });
        let began = Instant::now();
        let sent = match late {
            None => first.await,
            Some(late) => self.outlast(first, began, late, tried).await,
        };
        if hedge == HedgeAfter::P95 && is_answer(&sent) {
            // Where the second copy won, the first one would have needed longer still.
            self.deployment.copies.late.lock().unwrap_or_else(PoisonError::into_inner).note(began.elapsed());
        }
        sent
    }

    /// Waits for the first copy, and sends a second one when that is late and there is room. Room is looked for again when
    /// twice, four, eight times as long has passed: seldom, and yet before the answer is twice as late as when it came.
    async fn outlast(
        &mut self,
        mut first: Pin<&mut impl Future<Output = Sent>>,
        began: Instant,
        late: Duration,
        tried: &mut Vec<ReplicaId>,
    ) -> Sent {
        let mut late = late.max(SOONEST);
        loop {
            if let Ok(sent) = tokio::time::timeout_at((began + late).into(), &mut first).await {
                return sent;
            }
            match self.copy(tried) {
                Ok(copy) => {
                    self.tries.not_hedged = None;
                    return self.race(first, copy).await;
                }
                Err(Denied::Time) => return first.await,
                Err(denied) => self.tries.not_hedged = Some(denied),
            }
            late *= 2;
        }
    }

    /// Sends a second copy beside the first. The other one is given up when one has answered.
    async fn race(
        &mut self,
        mut first: Pin<&mut impl Future<Output = Sent>>,
        (permit, copy, limits): (Permit, Outgoing, Limits),
    ) -> Sent {
        let trip = Trip::default();
        let (upstream, again) = (self.upstream, self.again);
        let mut second = Box::pin(async {
            upstream.send(permit, copy, Some(again), limits, &trip).await.map(Reply::Open)
        });
        let (end, sent) = tokio::select! {
            biased;
            sent = &mut first => {
                if is_answer(&sent) {
                    (Hedge::Lost, sent)
                } else {
                    let (sent, other) = tokio::join!(set_aside(sent, limits.until), second.as_mut());
                    let (end, sent, other) =
                        if is_answer(&other) { (Hedge::Won, other, sent) } else { (Hedge::Failed, sent, other) };
                    discard(other);
                    (end, sent)
                }
            }
            sent = &mut second => {
                if is_answer(&sent) {
                    (Hedge::Won, sent)
                } else {
                    discard(sent);
                    (Hedge::Failed, first.await)
                }
            }
            () = self.deployment.gate.wanted() => {
                drop(second);
                (Hedge::Yielded, first.await)
            }
        };
        self.tries.hedge = Some(end);
        self.trip.stale.update(|stale| stale.saturating_add(trip.stale.get()));
        sent
    }

    /// A slot for one more copy on a replica that has not had the request, and the copy.
    fn copy(&mut self, tried: &mut Vec<ReplicaId>) -> Result<(Permit, Outgoing, Limits), Denied> {
        let now = Instant::now();
        if now >= self.limits.until {
            return Err(Denied::Time);
        }
        self.again.pay()?;
        let Some(permit) = self.deployment.gate.take_idle(now, tried, self.again.ask()) else {
            self.again.pay_back();
            return Err(Denied::NoIdleSlot);
        };
        tried.push(permit.target().id);
        let copy = self.again.copy(&permit.target().host).ok_or(Denied::Body)?;
        self.tries.hand_over();
        Ok((permit, copy, Limits { now, ..self.limits }))
    }

    fn p95(&self) -> Option<Duration> {
        self.deployment.copies.late.lock().unwrap_or_else(PoisonError::into_inner).p95()
    }

    fn settings(&self) -> &RepeatSettings {
        &self.deployment.settings.request.repeat
    }
}

/// Whether it is an answer for the client, and not one that makes another replica be asked.
fn is_answer(sent: &Sent) -> bool {
    sent.is_ok() && failure(sent).is_none()
}

/// Why another replica may be asked, if it may: nothing of an answer has gone to the client, and the time is not used up.
fn failure(sent: &Sent) -> Option<Cause> {
    match sent {
        Ok(reply) => match reply.status() {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Some(Cause::Unavailable),
            _ => None,
        },
        Err(SendError::Exchange(_)) => Some(Cause::Broken),
        // A first copy goes back to the queue.
        Err(SendError::Connect(..) | SendError::TimedOut) => None,
    }
}

/// Frees what a failed try holds while others are made, and keeps what the client is told if those fail as well. A
/// replica that could not be reached is reported now.
async fn set_aside(sent: Sent, until: Instant) -> Sent {
    match sent {
        Ok(Reply::Open(answer)) => {
            let target = Arc::clone(answer.exchange.target());
            Ok(Reply::Closed(read(answer, until).await, target))
        }
        Err(SendError::Connect(permit, request, error)) => {
            permit.report();
            Err(SendError::Connect(permit, request, error))
        }
        sent => sent,
    }
}

/// Reads an answer to its end and frees its slot. One that is too long or does not come is given up, and loses its body.
async fn read(answer: Answer, until: Instant) -> Response<Bytes> {
    let Answer { response, mut exchange } = answer;
    let (mut head, mut incoming) = response.into_parts();
    let body = async {
        let mut body = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| exchange.poll_frame(&mut incoming, cx)).await {
            if let Ok(data) = frame.ok()?.into_data() {
                body.extend_from_slice(&data);
            }
            if body.len() > MOST_READ {
                return None;
            }
        }
        Some(body.freeze())
    };
    let until = until.min(Instant::now() + READ_TIME);
    let body = tokio::time::timeout_at(until.into(), body).await.ok().flatten();
    if body.is_some() {
        exchange.finish(Instant::now());
    } else {
        for name in [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE] {
            head.headers.remove(name);
        }
    }
    Response::from_parts(head, body.unwrap_or_default())
}

/// Nobody wants what a copy came to.
fn discard(sent: Sent) {
    if let Err(SendError::Connect(permit, _, error)) = sent {
        let target = permit.target();
        tracing::warn!(replica = %target.name, address = %target.authority, %error, "cannot connect");
        // Second copies have no place in the queue.
        drop(permit.suspect());
    }
}
