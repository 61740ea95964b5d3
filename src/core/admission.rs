//! Who gets a slot and who waits: the pure state of one deployment.
//!
//! A waiting request belongs to the deployment, not to a replica: a slot that becomes free goes to the ticket whose
//! turn it is in the same step, so nobody waits while a slot is free. Whose turn it is says `queue`; who is turned
//! away, and when it may come back, `refuse`. Shared by all workers under one short lock (`data::gate`), which adds
//! longest waits, wakers, futures and guards; the time is always an argument.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use clock::Clock;
use overload::Overload;
use promise::Promises;
use queue::{Queue, Waiter};
use rate::Rate;
use slots::{Moment, Phase, Slots};

pub use ask::{Ask, Class, Mark, Tenant};
pub use promise::Retry;
pub use refuse::{Denial, Outlook};
pub use rival::{Prospect, Rival};
pub use standing::{Report, Standing, Why};
pub use tally::{Outcome, Tally, Use};

mod ask;
mod clock;
mod health;
mod knee;
mod overload;
mod pace;
mod promise;
mod queue;
mod rate;
mod refuse;
mod replicas;
mod rival;
mod shares;
mod slots;
mod standing;
mod tally;

/// One running model server, for as long as it runs; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub u64);

/// The place of a request in the line: the smaller came earlier. A request that got a slot keeps it, so that it
/// can come back to it with [`Pool::suspect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TicketId(u64);

/// Limits of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at once on one replica; `None` is no limit.
    pub slots: Option<NonZeroU32>,
    /// Most tickets in the queue; `None` is no limit.
    pub max_queue_length: Option<u32>,
}

/// How a deployment's queue is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queueing {
    /// Longest wait; zero is not known. A newcomer that is projected to wait longer calls the control plane.
    pub max_wait: Duration,
    /// Newest first while the queue does not drain, and an age limit; otherwise the oldest first.
    pub newest_first: bool,
    /// Callers that wait at the same time get equal shares of slot-seconds.
    pub fair_share: bool,
}

/// What the pool holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Replicas that admit requests.
    pub ready: u32,
    /// Replicas that finish what they have and admit nothing.
    pub draining: u32,
    /// Slots in use on replicas that are not draining (permits and granted tickets).
    pub busy: u32,
    /// Slots in use on draining replicas.
    pub busy_draining: u32,
    /// Slots of the replicas that admit requests; `None` is no limit.
    pub slots: Option<u32>,
    /// Tickets that wait for a slot.
    pub queued: u32,
}

/// The answer to a request that asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has a slot on this replica: a permit, to be given back with [`Pool::release`].
    Granted(TicketId, ReplicaId),
    /// It waits; [`Pool::claim`] turns the ticket into a permit once it is granted.
    Queued(TicketId),
    /// It may not wait. [`Pool::promise`] says when it may come back.
    Refused(TicketId, Denial),
}

/// A slot that was handed to one that waited, who has not claimed it yet.
#[derive(Clone, Copy, Debug)]
struct Grant {
    replica: ReplicaId,
    waiter: Waiter,
}

/// Slots and queue of one deployment.
#[derive(Debug)]
pub struct Pool {
    slots: Slots,
    max_queue_length: Option<u32>,
    queueing: Queueing,
    waiting: Queue,
    /// Tickets that hold a slot and were not claimed yet; only on replicas that admit requests.
    granted: BTreeMap<TicketId, Grant>,
    /// Tickets that were turned away while they waited, and do not know it yet.
    turned_away: BTreeMap<TicketId, Denial>,
    /// Those of them that nobody was told of yet.
    untold: Vec<TicketId>,
    permits: usize,
    next_ticket: u64,
    calls_control: bool,
    /// That the projected wait is too long was said since the last look at the tally.
    called_for_wait: bool,
    clock: Clock,
    tally: Tally,
    rate: Rate,
    overload: Overload,
    promises: Promises,
}

impl Pool {
    /// A pool without replicas.
    pub fn new(limits: Limits) -> Self {
        Self {
            slots: Slots::new(limits.slots),
            max_queue_length: limits.max_queue_length,
            queueing: Queueing::default(),
            waiting: Queue::default(),
            granted: BTreeMap::new(),
            turned_away: BTreeMap::new(),
            untold: Vec::new(),
            permits: 0,
            next_ticket: 0,
            calls_control: false,
            called_for_wait: false,
            clock: Clock::default(),
            tally: Tally::default(),
            rate: Rate::default(),
            overload: Overload::default(),
            promises: Promises::default(),
        }
    }

    /// A request asks for a slot: one of the least busy replica, or a place in the queue. That is its old one if it was
    /// refused before and comes back when it was told to, and otherwise behind all others.
    pub fn admit(&mut self, ask: &Ask, now: Instant) -> Admission {
        self.pass(now);
        self.tally.arrivals += 1;
        self.slots.asked();
        if ask.deadline.is_some_and(|deadline| deadline <= now) {
            let ticket = self.new_ticket();
            return self.refuse(ticket, Denial::Hopeless);
        }
        let (ticket, returns) = self.place(ask, now);
        // While somebody waits no slot is free, and nobody may overtake.
        let slot = if self.waiting.is_empty() { self.slots.take() } else { None };
        let admission = if let Some(replica) = slot {
            self.permits += 1;
            self.tally.admitted += 1;
            if self.queueing.newest_first {
                self.overload.idle();
            }
            if self.promises.is_quiet(now, || self.rate.service()) {
                self.calm_down(now);
            }
            if !self.promises.is_empty() {
                // One that was too early for its promise.
                self.promises.came(ask.mark, now);
            }
            Admission::Granted(ticket, replica)
        } else if let Err(why) = self.enqueue(ticket, ask, returns, now) {
            return self.refuse(ticket, why);
        } else {
            Admission::Queued(ticket)
        };
        self.tally.peak = self.tally.peak.max(self.held());
        self.check();
        admission
    }

    /// A slot of a replica that is none of `not`, and only if nobody waits for it: for second copies of requests (retries,
    /// hedges), which must not take anything away from first ones.
    pub fn take_idle(&mut self, not: &[ReplicaId], now: Instant) -> Option<(TicketId, ReplicaId)> {
        self.pass(now);
        let replica = if self.waiting.is_empty() { self.slots.take_but(not)? } else { return None };
        let ticket = self.new_ticket();
        self.permits += 1;
        self.tally.admitted += 1;
        self.check();
        Some((ticket, replica))
    }

    /// Turns a granted ticket into a permit; `None` while it waits, and when it was turned away.
    pub fn claim(&mut self, ticket: TicketId) -> Option<ReplicaId> {
        let Grant { replica, .. } = self.granted.remove(&ticket)?;
        self.permits += 1;
        self.check();
        Some(replica)
    }

    /// A permit ends. The ticket whose turn it is gets the slot and is returned.
    pub fn release(&mut self, replica: ReplicaId, used: &Use) -> Option<TicketId> {
        self.pass(used.until);
        let seconds = used.time().as_secs_f64();
        self.tally.note(used.outcome, seconds);
        self.rate.used(used.outcome, seconds);
        self.waiting.settle(used);
        self.permits -= 1;
        let place = self.slots.place(replica);
        let moment = Moment { seconds, at: self.clock.seconds(), waited: !self.waiting.is_empty() };
        self.calls_control |= self.slots.note(place, used, moment);
        let next = self.free(replica, place, used.until);
        self.check();
        next
    }

    /// A ticket is given up. If it was granted, its slot goes to the ticket whose turn it is, which is returned.
    pub fn cancel(&mut self, ticket: TicketId, now: Instant) -> Option<TicketId> {
        self.pass(now);
        if self.waiting.remove(ticket).is_some() || self.turned_away.remove(&ticket).is_some() {
            return None;
        }
        let Grant { replica, waiter } = self.granted.remove(&ticket)?;
        self.waiting.refund(&waiter.ask);
        let next = self.free(replica, self.slots.place(replica), now);
        self.check();
        next
    }

    /// A permit ends because its replica could not be reached: the replica is suspended, and the request has its
    /// old place in the queue again, however long the queue is. Returns tickets that were granted, which may be
    /// this one.
    pub fn suspect(
        &mut self,
        ticket: TicketId,
        replica: ReplicaId,
        ask: &Ask,
        now: Instant,
    ) -> Vec<TicketId> {
        self.pass(now);
        self.calls_control = true;
        self.permits -= 1;
        self.slots.give_back(self.slots.place(replica));
        self.back_to_place(ticket, Waiter { ask: *ask, since: now });
        self.stop(replica, Phase::Suspended, now)
    }

    /// What has happened since the last call, up to `now`.
    pub fn take_tally(&mut self, now: Instant) -> Tally {
        self.pass(now);
        self.called_for_wait = false;
        self.tally.at = self.clock.latest();
        let next = Tally { peak: self.held(), at: self.tally.at, ..Tally::default() };
        std::mem::replace(&mut self.tally, next)
    }

    /// Requests that run on replicas that are not draining, and those that wait.
    fn held(&self) -> u32 {
        self.slots.load().busy + self.queued()
    }

    /// The time goes on to `now`: what is held is summed up until then.
    fn pass(&mut self, now: Instant) {
        let Some(seconds) = self.clock.pass(now) else { return };
        let (load, queued) = (self.slots.load(), self.queued());
        self.tally.pass(seconds, load, queued);
        if queued > 0 {
            self.rate.backlogged(seconds, load.slots);
        }
        self.slots.pass(seconds);
        if self.promises.any() {
            self.pass_promises(now);
        }
    }

    /// Whether the control plane must look, since the last call: a queue began while no replica admits, somebody is
    /// projected to wait too long (once until the next tally), the last replica stopped while somebody waits, one that
    /// drains became empty, one is suspected, or [`Pool::review`] is due.
    pub fn take_call(&mut self) -> bool {
        std::mem::take(&mut self.calls_control)
    }

    /// Whether [`Pool::take_call`] or [`Pool::take_turned_away`] has something to tell; most changes have not.
    pub fn has_news(&self) -> bool {
        self.calls_control || !self.untold.is_empty()
    }

    /// Whether any replica admits requests.
    pub fn any_ready(&self) -> bool {
        self.slots.any_ready()
    }

    /// Slots in use on a replica; 0 when unknown.
    pub fn busy(&self, replica: ReplicaId) -> u32 {
        self.slots.busy(replica)
    }

    /// What is held now.
    pub fn load(&self) -> Load {
        Load { queued: self.queued(), ..*self.slots.load() }
    }

    fn queued(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    /// A slot is used no longer: it goes to the ticket whose turn it is, or back. `place` is the replica's.
    fn free(&mut self, replica: ReplicaId, place: usize, now: Instant) -> Option<TicketId> {
        if !self.waiting.is_empty()
            && self.slots.may_pass_on(place)
            && let Some(ticket) = self.grant_next(replica, now)
        {
            self.rate.handed_over();
            return Some(ticket);
        }
        self.slots.give_back(place);
        self.calls_control |= self.slots.settle(place);
        None
    }

    /// Gives free slots to those who wait until there are no more of either.
    fn hand_out(&mut self, now: Instant) -> Vec<TicketId> {
        let mut granted = Vec::new();
        while !self.waiting.is_empty()
            && let Some(replica) = self.slots.take()
        {
            match self.grant_next(replica, now) {
                Some(ticket) => granted.push(ticket),
                None => self.slots.give_back(self.slots.place(replica)),
            }
        }
        self.check();
        granted
    }

    /// A slot that was taken on this replica goes to the ticket whose turn it is.
    fn grant_next(&mut self, replica: ReplicaId, now: Instant) -> Option<TicketId> {
        let (ticket, waiter) = self.next(now)?;
        self.waiting.charge(&waiter.ask, self.rate.service());
        if !self.promises.is_empty() {
            self.promises.came(waiter.ask.mark, now);
        }
        self.granted.insert(ticket, Grant { replica, waiter });
        self.tally.admitted += 1;
        Some(ticket)
    }

    /// One that had a slot waits again.
    fn back_to_place(&mut self, ticket: TicketId, waiter: Waiter) {
        self.tally.admitted = self.tally.admitted.saturating_sub(1);
        self.waiting.refund(&waiter.ask);
        self.waiting.push(ticket, waiter);
    }

    /// The invariants, after every change in debug builds. That no slot is taken beyond the limit of a replica
    /// is left to the tests: after a shrink there may be more in use.
    fn check(&mut self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.slots.check(self.permits + self.granted.len());
        assert!(self.waiting.is_empty() || !self.slots.any_free(), "waits while a slot is free: {self:?}");
        for (ticket, Grant { replica, .. }) in &self.granted {
            assert!(!self.waiting.contains(*ticket), "granted and waiting: {self:?}");
            assert!(self.slots.is_ready(*replica), "granted where nothing is admitted: {self:?}");
        }
        let also_waits = |ticket: &TicketId| self.waiting.contains(*ticket);
        assert!(!self.turned_away.keys().any(also_waits), "turned away and waiting: {self:?}");
    }
}

#[cfg(test)]
mod tests;
