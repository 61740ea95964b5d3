//! One request's way through the gate: the wait for a slot, and the slot while it is held.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use crate::core::admission::{Admission, Ask, Denial, Outcome, TicketId, Use};
use crate::data::gate::deadline::Deadline;
use crate::data::gate::{Gate, Refusal, Target, now};

/// A future that ends with a permit. Dropped while it waits, it gives up its ticket; dropped after the slot was
/// granted, it passes the slot on. Polled again after its end, it asks anew.
#[derive(Debug)]
pub struct Acquire {
    gate: Arc<Gate>,
    ask: Ask,
    /// When it asked; for the time of the first poll, which follows at once.
    asked: Instant,
    deadline: Deadline,
    /// From the first poll that must wait until the end of the wait.
    ticket: Option<TicketId>,
}

impl Acquire {
    pub(super) fn new(gate: Arc<Gate>, asked: Instant, deadline: Deadline, ask: Ask) -> Self {
        Self { gate, ask, asked, deadline, ticket: None }
    }

    /// Whether it has taken a ticket and waits (false before the first poll).
    pub fn is_queued(&self) -> bool {
        self.ticket.is_some()
    }

    /// Takes a slot or a ticket, or looks whether the ticket was granted. Goes on with a ticket that waits.
    fn look(&mut self, cx: &Context<'_>) -> ControlFlow<Result<Permit, Refusal>, TicketId> {
        let mut state = self.gate.lock();
        let admission = match self.ticket {
            None => state.pool.admit(&self.ask, self.asked),
            Some(ticket) => match (state.pool.claim(ticket), state.pool.verdict(ticket)) {
                (Some(replica), _) => Admission::Granted(ticket, replica),
                (None, Some(why)) => Admission::Refused(ticket, why),
                (None, None) => Admission::Queued(ticket),
            },
        };
        match admission {
            Admission::Granted(place, replica) => {
                let target = state.target(replica);
                drop(state);
                let since = if self.ticket.is_none() { self.asked } else { now() };
                ControlFlow::Break(Ok(self.permit(place, target, since)))
            }
            Admission::Queued(ticket) => {
                let known = state.wakers.get(&ticket).is_some_and(|waker| waker.will_wake(cx.waker()));
                let old = if known { None } else { state.wakers.insert(ticket, cx.waker().clone()) };
                self.ticket = Some(ticket);
                self.deadline.useful_until(state.pool.useful_until(&self.ask));
                // They leave the list themselves. Nobody is in it but where second copies are sent.
                let copies: Vec<Waker> = state.copies.iter().map(|(_, copy)| copy.clone()).collect();
                self.gate.unlock(state);
                drop(old);
                copies.into_iter().for_each(Waker::wake);
                ControlFlow::Continue(ticket)
            }
            Admission::Refused(ticket, why) => {
                let now = if self.ticket.take().is_none() { self.asked } else { now() };
                let retry = state.pool.retry(ticket, why, &self.ask, now);
                let prospect = state.pool.prospect(why, &self.ask, now);
                // Gone already for one that was turned away, but for a poll that came in between.
                let waker = state.wakers.remove(&ticket);
                // A refusal is demand, and may be all that there is.
                self.gate.unlock(state);
                drop(waker);
                ControlFlow::Break(Err(Refusal { why, retry, prospect }))
            }
        }
    }

    /// The longest wait is over, or the deadline is near: gives up the ticket, unless it was granted in the meantime.
    fn give_up(&mut self, ticket: TicketId) -> Result<Permit, Refusal> {
        let mut state = self.gate.lock();
        if let Some(replica) = state.pool.claim(ticket) {
            let target = state.target(replica);
            drop(state);
            return Ok(self.permit(ticket, target, now()));
        }
        self.ticket = None;
        let now = now();
        state.pool.expire(ticket, now);
        let waker = state.wakers.remove(&ticket);
        let end = match state.pool.any_ready() {
            _ if self.deadline.is_useless() => Denial::TooLate(None),
            true => Denial::WaitedTooLong,
            false => Denial::NoReadyReplica,
        };
        let why = state.pool.verdict(ticket).unwrap_or(end);
        let retry = state.pool.retry(ticket, why, &self.ask, now);
        let prospect = state.pool.prospect(why, &self.ask, now);
        drop(state);
        drop(waker);
        Err(Refusal { why, retry, prospect })
    }

    fn permit(&mut self, place: TicketId, target: Arc<Target>, since: Instant) -> Permit {
        self.ticket = None;
        Permit::new(Arc::clone(&self.gate), target, place, self.deadline.moment(), since, self.ask)
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match this.look(cx) {
            ControlFlow::Break(answer) => Poll::Ready(answer),
            ControlFlow::Continue(ticket) => {
                ready!(this.deadline.poll(cx));
                Poll::Ready(this.give_up(ticket))
            }
        }
    }
}

impl Drop for Acquire {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.leave(ticket);
        }
    }
}

impl Acquire {
    #[cold]
    fn leave(&self, ticket: TicketId) {
        let mut waker = None;
        self.gate.change(|state| {
            waker = state.wakers.remove(&ticket);
            state.pool.cancel(ticket, now())
        });
    }
}

/// A held slot; dropping it releases the slot.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    target: Arc<Target>,
    place: TicketId,
    wait_until: Option<tokio::time::Instant>,
    ask: Ask,
    since: Instant,
    /// What is known of how it ends; the client has left until something else is said.
    outcome: Outcome,
    /// False once the slot was given back by `suspect`.
    held: bool,
    /// Once nobody waits for it any more: until when the replica may go on with it.
    given_up: Option<Instant>,
}

impl Permit {
    pub(super) fn new(
        gate: Arc<Gate>,
        target: Arc<Target>,
        place: TicketId,
        wait_until: Option<tokio::time::Instant>,
        since: Instant,
        ask: Ask,
    ) -> Self {
        let outcome = Outcome::GivenUp;
        Self { gate, target, place, wait_until, ask, since, outcome, held: true, given_up: None }
    }

    /// How the use of the slot has gone, as far as it is known; the last word counts. A time-out counts at once: the
    /// replica may hold the slot for long.
    pub fn outcome(&mut self, outcome: Outcome) {
        let before = std::mem::replace(&mut self.outcome, outcome);
        if outcome == Outcome::TimedOut && before != outcome {
            let (id, since) = (self.target.id, self.since);
            self.gate.change(|state| {
                state.pool.overdue(id, since, now());
                None
            });
        }
    }

    /// The replica that the slot is on.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Nobody waits for the request any more; its slot stays taken until the replica has let go of it. It may be at work
    /// until `until`, but one whose time was up has had its time.
    pub fn give_up(&mut self, until: Instant) {
        if self.given_up.is_none() {
            let until = if self.outcome == Outcome::TimedOut { now() } else { until };
            self.given_up = Some(until);
            self.gate.lock().given_up.entry(self.target.id).or_default().push(until);
        }
    }

    /// The replica could not be reached: it admits nothing more until the control plane admits it again. Slot and place
    /// in the queue are kept, for [`Self::suspect`] when the request needs another slot.
    pub fn report(&self) {
        let id = self.target.id;
        self.gate.change(|state| {
            state.report(id);
            state.pool.suspend(id, now())
        });
        self.gate.events.notify_one();
    }

    /// The replica could not be reached: it admits nothing more until the control plane admits it again, and the
    /// request asks for another slot with its old place in the queue and its old longest wait.
    pub fn suspect(mut self) -> Acquire {
        self.held = false;
        let id = self.target.id;
        self.gate.change(|state| {
            state.ended[Outcome::Unreachable as usize] += 1;
            let granted = state.pool.suspect(self.place, id, &self.ask, now());
            state.report(id);
            granted
        });
        let deadline = Deadline::at(self.wait_until);
        let gate = Arc::clone(&self.gate);
        Acquire { gate, ask: self.ask, asked: self.since, deadline, ticket: Some(self.place) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            let id = self.target.id;
            let used =
                Use { since: self.since, until: now(), outcome: self.outcome, tenant: self.ask.tenant };
            self.gate.change(|state| {
                state.ended[self.outcome as usize] += 1;
                if let Some(until) = self.given_up
                    && let Some(given_up) = state.given_up.get_mut(&id)
                {
                    if let Some(index) = given_up.iter().position(|other| *other == until) {
                        given_up.swap_remove(index);
                    }
                    if given_up.is_empty() {
                        state.given_up.remove(&id);
                    }
                }
                state.pool.release(id, &used)
            });
        }
    }
}
