//! A request that may be sent more than once: again after a failure, or a second time because its answer is late.
//!
//! Copies go only into idle slots of other replicas, within the time and the budget; each holds a permit of its own, and
//! what loses is given up like a request whose client has left. Nothing here waits for a slot.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::core::admission::ReplicaId;
use crate::core::retry::{Cause, Denied, Hedge, Tries};
use crate::core::settings::{HedgeAfter, RepeatSettings};
use crate::data::again::Again;
use crate::data::gate::Permit;
use crate::data::upstream::{Answer, Limits, Outgoing, SendError, Trip, Upstream};
use crate::data::world::Deployment;

/// What a try came to.
type Sent = Result<Answer, SendError>;

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
        let first = match self.settings().hedge {
            None => self.upstream.send(permit, request, Some(self.again), self.limits, self.trip).await,
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
            self.again.count();
            self.tries.add(cause);
            let again = permit.target();
            tracing::warn!(replica = %target.name, cause = cause.as_str(), again = %again.name, "sends a request again");
            target = Arc::clone(again);
            let next = self.upstream.send(permit, copy, Some(self.again), limits, self.trip).await;
            if is_answer(&next) {
                return next;
            }
            cause = failure(&next).unwrap_or(Cause::Unreachable);
            discard(next);
        }
        first
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
        let mut first = std::pin::pin!(upstream.send(permit, request, Some(again), limits, trip));
        let began = Instant::now();
        let sent = match late {
            None => first.await,
            Some(late) => {
                let late = tokio::time::Instant::from_std(began) + late;
                match tokio::time::timeout_at(late, &mut first).await {
                    Ok(sent) => sent,
                    Err(_) => self.race(first, tried).await,
                }
            }
        };
        if hedge == HedgeAfter::P95 && is_answer(&sent) {
            // Where the second copy won, the first one would have needed longer still.
            self.deployment.copies.late.lock().unwrap_or_else(PoisonError::into_inner).note(began.elapsed());
        }
        sent
    }

    /// Sends a second copy beside the first, if there is room. The other one is given up when one has answered.
    async fn race(
        &mut self,
        mut first: Pin<&mut impl Future<Output = Sent>>,
        tried: &mut Vec<ReplicaId>,
    ) -> Sent {
        let Ok((permit, copy, limits)) = self.copy(tried) else { return first.await };
        let trip = Trip::default();
        let mut second = Box::pin(self.upstream.send(permit, copy, Some(self.again), limits, &trip));
        let (end, sent) = tokio::select! {
            biased;
            sent = &mut first => {
                if is_answer(&sent) {
                    (Hedge::Lost, sent)
                } else {
                    let other = second.as_mut().await;
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
        Ok(answer) => match answer.response.status() {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Some(Cause::Unavailable),
            _ => None,
        },
        Err(SendError::Exchange(_)) => Some(Cause::Broken),
        // A first copy goes back to the queue.
        Err(SendError::Connect(..) | SendError::TimedOut) => None,
    }
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
