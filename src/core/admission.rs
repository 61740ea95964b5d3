//! Who gets a slot and who waits: the pure state of one deployment.
//!
//! A waiting request belongs to the deployment, not to a replica: a slot that becomes free goes to the oldest
//! ticket in the same step, so nobody waits while a slot is free. Shared by all workers under one short lock
//! (`data::gate`), which adds longest waits, wakers, futures and guards; the time is always an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Instant;

use slots::{Phase, Slots};

pub use ask::{Ask, Class, Tenant};
pub use standing::{Report, Standing, Why};
pub use tally::{Outcome, Tally, Use};

mod ask;
mod health;
mod knee;
mod pace;
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
    /// The queue is as long as it may be.
    Refused,
}

/// Slots and queue of one deployment.
#[derive(Debug)]
pub struct Pool {
    slots: Slots,
    max_queue_length: Option<u32>,
    waiting: BTreeSet<TicketId>,
    /// Tickets that hold a slot and were not claimed yet; only on replicas that admit requests.
    granted: BTreeMap<TicketId, ReplicaId>,
    permits: usize,
    next_ticket: u64,
    calls_control: bool,
    tally: Tally,
}

impl Pool {
    /// A pool without replicas.
    pub fn new(limits: Limits) -> Self {
        Self {
            slots: Slots::new(limits.slots),
            max_queue_length: limits.max_queue_length,
            waiting: BTreeSet::new(),
            granted: BTreeMap::new(),
            permits: 0,
            next_ticket: 0,
            calls_control: false,
            tally: Tally::default(),
        }
    }

    /// A request asks for a slot: one of the least busy replica, or a place at the end of the queue.
    pub fn admit(&mut self, _ask: &Ask, now: Instant) -> Admission {
        self.pass(now);
        self.tally.arrivals += 1;
        self.slots.asked();
        let ticket = TicketId(self.next_ticket);
        // While somebody waits no slot is free, and nobody may overtake.
        let slot = if self.waiting.is_empty() { self.slots.take() } else { None };
        let admission = if let Some(replica) = slot {
            self.permits += 1;
            Admission::Granted(ticket, replica)
        } else if self.max_queue_length.is_some_and(|most| self.waiting.len() >= most as usize) {
            self.tally.rejected += 1;
            return Admission::Refused;
        } else {
            self.calls_control |= self.waiting.is_empty() && !self.slots.any_ready();
            self.waiting.insert(ticket);
            Admission::Queued(ticket)
        };
        self.next_ticket += 1;
        self.tally.peak = self.tally.peak.max(self.held());
        self.check();
        admission
    }

    /// A slot of a replica that is none of `not`, and only if nobody waits for it: for second copies of requests (retries,
    /// hedges), which must not take anything away from first ones.
    pub fn take_idle(&mut self, not: &[ReplicaId], now: Instant) -> Option<(TicketId, ReplicaId)> {
        self.pass(now);
        let replica = if self.waiting.is_empty() { self.slots.take_but(not)? } else { return None };
        let ticket = TicketId(self.next_ticket);
        self.next_ticket += 1;
        self.permits += 1;
        self.check();
        Some((ticket, replica))
    }

    /// Turns a granted ticket into a permit; `None` while it waits.
    pub fn claim(&mut self, ticket: TicketId) -> Option<ReplicaId> {
        let replica = self.granted.remove(&ticket)?;
        self.permits += 1;
        self.check();
        Some(replica)
    }

    /// A permit ends. The oldest ticket gets the slot and is returned.
    pub fn release(&mut self, replica: ReplicaId, used: &Use) -> Option<TicketId> {
        self.pass(used.until);
        self.tally.note(used);
        self.permits -= 1;
        self.calls_control |= self.slots.note(replica, used, !self.waiting.is_empty());
        let next = self.free(replica);
        self.check();
        next
    }

    /// A ticket that waits has waited as long as it may; counts as rejected. False if it does not wait (any more).
    pub fn expire(&mut self, ticket: TicketId, now: Instant) -> bool {
        self.pass(now);
        let waited = self.waiting.remove(&ticket);
        self.tally.rejected += u64::from(waited);
        waited
    }

    /// A ticket is given up. If it was granted, its slot goes to the oldest ticket, which is returned.
    pub fn cancel(&mut self, ticket: TicketId, now: Instant) -> Option<TicketId> {
        self.pass(now);
        if self.waiting.remove(&ticket) {
            return None;
        }
        let replica = self.granted.remove(&ticket)?;
        let next = self.free(replica);
        self.check();
        next
    }

    /// A permit ends because its replica could not be reached: the replica is suspended, and the request has its
    /// old place in the queue again, however long the queue is. Returns tickets that were granted, which may be
    /// this one.
    pub fn suspect(&mut self, ticket: TicketId, replica: ReplicaId) -> Vec<TicketId> {
        self.calls_control = true;
        self.permits -= 1;
        self.slots.give_back(replica);
        self.waiting.insert(ticket);
        self.stop(replica, Phase::Suspended)
    }

    /// The replica admits requests from now on, also if it was draining or suspended. Returns the tickets that
    /// got its slots.
    pub fn admit_replica(&mut self, replica: ReplicaId) -> Vec<TicketId> {
        self.slots.open(replica);
        self.hand_out()
    }

    /// The replica admits nothing until it is admitted again. Returns tickets that moved to another replica.
    pub fn suspend(&mut self, replica: ReplicaId) -> Vec<TicketId> {
        self.stop(replica, Phase::Suspended)
    }

    /// Like [`Pool::suspend`], and the control plane is called when the replica is empty.
    pub fn drain(&mut self, replica: ReplicaId) -> Vec<TicketId> {
        self.stop(replica, Phase::Draining)
    }

    /// Like [`Pool::drain`], and the replica is forgotten when it is empty.
    pub fn remove(&mut self, replica: ReplicaId) -> Vec<TicketId> {
        self.stop(replica, Phase::Gone)
    }

    /// Other limits. Slots that become free by it go to the oldest tickets, which are returned; a shrink takes
    /// nothing away.
    pub fn set_limits(&mut self, limits: Limits) -> Vec<TicketId> {
        self.slots.set_limit(limits.slots);
        self.max_queue_length = limits.max_queue_length;
        self.hand_out()
    }

    /// Another limit for this one replica, while it is less than that of the deployment: a replica that warms up or that is
    /// not to be trusted. `None` is no limit of its own; with 0 it is given nothing. Returns tickets that got slots.
    pub fn cap(&mut self, replica: ReplicaId, cap: Option<u32>) -> Vec<TicketId> {
        self.slots.cap(replica, cap);
        self.hand_out()
    }

    /// Whether replicas that fail or are far slower than their siblings lose slots for it; they do unless told otherwise.
    /// Returns tickets that got slots.
    pub fn set_passive_health(&mut self, on: bool) -> Vec<TicketId> {
        self.slots.set_health(on);
        self.hand_out()
    }

    /// Whether the limit of a replica is found from what passes by; that of the settings is not used then. Returns tickets
    /// that got slots.
    pub fn set_auto_limit(&mut self, on: bool) -> Vec<TicketId> {
        self.slots.set_auto(on);
        self.hand_out()
    }

    /// Requests at once on one replica, as given or as found; `None` is no limit.
    pub fn limit(&self) -> Option<u32> {
        self.slots.limit()
    }

    /// A request on the replica is given up because it takes too long; its slot stays taken until [`Pool::release`].
    pub fn overdue(&mut self, replica: ReplicaId, since: Instant, now: Instant) {
        self.pass(now);
        self.calls_control |= self.slots.overdue(replica, since, now);
    }

    /// Looks at the replicas' health: gives slots back, and tries again what was taken out. To be called each second, and
    /// after each call for the control plane. Returns tickets that got slots.
    pub fn review(&mut self, now: Instant) -> Vec<TicketId> {
        self.pass(now);
        self.slots.review(now);
        self.hand_out()
    }

    /// The standing of each replica that admits requests.
    pub fn standings(&self) -> Vec<Report> {
        self.slots.reports()
    }

    /// What has happened since the last call, up to `now`.
    pub fn take_tally(&mut self, now: Instant) -> Tally {
        self.pass(now);
        let next = Tally { peak: self.held(), ..Tally::since(now) };
        std::mem::replace(&mut self.tally, next)
    }

    /// Requests that run on replicas that are not draining, and those that wait.
    fn held(&self) -> u32 {
        let load = self.load();
        load.busy + load.queued
    }

    /// The time goes on to `now`: what is held is summed up until then.
    fn pass(&mut self, now: Instant) {
        if self.tally.is_at(now) {
            return;
        }
        let load = self.load();
        self.tally.pass(now, &load);
        self.slots.pass(now);
    }

    /// Whether the control plane must look, since the last call: a queue began while no replica admits, the last
    /// one stopped while somebody waits, one that drains became empty, one is suspected, or [`Pool::review`] is due.
    pub fn take_call(&mut self) -> bool {
        std::mem::take(&mut self.calls_control)
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
        let queued = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        Load { queued, ..self.slots.load() }
    }

    /// A slot is used no longer: it goes to the oldest ticket, or back.
    fn free(&mut self, replica: ReplicaId) -> Option<TicketId> {
        if !self.waiting.is_empty()
            && self.slots.may_pass_on(replica)
            && let Some(ticket) = self.waiting.pop_first()
        {
            self.granted.insert(ticket, replica);
            return Some(ticket);
        }
        self.slots.give_back(replica);
        self.calls_control |= self.slots.settle(replica);
        None
    }

    /// Gives free slots to the oldest tickets until there are no more of either.
    fn hand_out(&mut self) -> Vec<TicketId> {
        let mut granted = Vec::new();
        while !self.waiting.is_empty()
            && let Some(replica) = self.slots.take()
        {
            let oldest = self.waiting.pop_first();
            self.granted.extend(oldest.map(|ticket| (ticket, replica)));
            granted.extend(oldest);
        }
        self.check();
        granted
    }

    /// Ends admission to a replica. Who was granted a slot there and has not claimed it goes back to its place:
    /// sent to a replica that cannot be reached or ends, it would only fail there.
    fn stop(&mut self, replica: ReplicaId, phase: Phase) -> Vec<TicketId> {
        let before = self.slots.close(replica, phase);
        if before == Some(Phase::Ready) {
            for (ticket, _) in self.granted.extract_if(.., |_, on| *on == replica) {
                self.slots.give_back(replica);
                self.waiting.insert(ticket);
            }
        }
        self.calls_control |= self.slots.settle(replica) && before.is_some();
        let granted = self.hand_out();
        self.calls_control |= before == Some(Phase::Ready) && !self.waiting.is_empty() && !self.any_ready();
        granted
    }

    /// The invariants, after every change in debug builds. That no slot is taken beyond the limit of a replica
    /// is left to the tests: after a shrink there may be more in use.
    fn check(&mut self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.slots.check(self.permits + self.granted.len());
        assert!(self.waiting.is_empty() || !self.slots.any_free(), "waits while a slot is free: {self:?}");
        for (ticket, replica) in &self.granted {
            assert!(!self.waiting.contains(ticket), "granted and waiting: {self:?}");
            assert!(self.slots.is_ready(*replica), "granted where nothing is admitted: {self:?}");
        }
    }
}

#[cfg(test)]
mod tests;
