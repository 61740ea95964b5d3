//! What becomes of those who wait and of those who run when replicas come and go, and when limits change.

use std::time::Instant;

use crate::core::admission::slots::Phase;
use crate::core::admission::{Limits, Pool, Queueing, ReplicaId, Report, TicketId};

impl Pool {
    /// The replica admits requests from now on, also if it was draining or suspended. Returns the tickets that
    /// got its slots.
    pub fn admit_replica(&mut self, replica: ReplicaId, now: Instant) -> Vec<TicketId> {
        self.open(replica, None, now)
    }

    /// The same with a limit of its own from the first moment on; see [`Pool::cap`].
    pub fn admit_capped(&mut self, replica: ReplicaId, cap: u32, now: Instant) -> Vec<TicketId> {
        self.open(replica, Some(cap), now)
    }

    fn open(&mut self, replica: ReplicaId, cap: Option<u32>, now: Instant) -> Vec<TicketId> {
        self.pass(now);
        let before = self.slots.load().slots;
        self.slots.open(replica);
        if cap.is_some() {
            self.slots.cap(replica, cap);
        }
        let after = self.slots.load().slots;
        if after > before {
            let more = f64::from(after.unwrap_or(0) - before.unwrap_or(0));
            self.promises.serve(more, self.rate.service());
        }
        self.hand_out(now)
    }

    /// The replica admits nothing until it is admitted again. Returns tickets that moved to another replica.
    pub fn suspend(&mut self, replica: ReplicaId, now: Instant) -> Vec<TicketId> {
        self.stop(replica, Phase::Suspended, now)
    }

    /// Like [`Pool::suspend`], and the control plane is called when the replica is empty.
    pub fn drain(&mut self, replica: ReplicaId, now: Instant) -> Vec<TicketId> {
        self.stop(replica, Phase::Draining, now)
    }

    /// Like [`Pool::drain`], and the replica is forgotten when it is empty.
    pub fn remove(&mut self, replica: ReplicaId, now: Instant) -> Vec<TicketId> {
        self.stop(replica, Phase::Gone, now)
    }

    /// Other limits. Slots that become free by it go to those who wait, in their order; these are returned. A shrink
    /// takes nothing away.
    pub fn set_limits(&mut self, limits: Limits, now: Instant) -> Vec<TicketId> {
        self.pass(now);
        self.slots.set_limit(limits.slots);
        self.max_queue_length = limits.max_queue_length;
        self.hand_out(now)
    }

    /// Another way to keep the queue, from now on; who waits goes on waiting.
    pub fn set_queueing(&mut self, queueing: Queueing) {
        self.waiting.share_fairly(queueing.fair_share);
        self.queueing = queueing;
    }

    /// Another limit for this one replica, while it is less than that of the deployment: a replica that warms up or that is
    /// not to be trusted. `None` is no limit of its own; with 0 it is given nothing. Returns tickets that got slots.
    pub fn cap(&mut self, replica: ReplicaId, cap: Option<u32>, now: Instant) -> Vec<TicketId> {
        self.pass(now);
        self.slots.cap(replica, cap);
        self.hand_out(now)
    }

    /// Whether replicas that fail or are far slower than their siblings lose slots for it; they do unless told otherwise.
    /// Returns tickets that got slots.
    pub fn set_passive_health(&mut self, on: bool, now: Instant) -> Vec<TicketId> {
        self.pass(now);
        self.slots.set_health(on);
        self.hand_out(now)
    }

    /// Whether the limit of a replica is found from what passes by; that of the settings is not used then. Returns tickets
    /// that got slots.
    pub fn set_auto_limit(&mut self, on: bool, now: Instant) -> Vec<TicketId> {
        self.pass(now);
        self.slots.set_auto(on);
        self.hand_out(now)
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
        self.hand_out(now)
    }

    /// The standing of each replica that admits requests.
    pub fn standings(&self) -> Vec<Report> {
        self.slots.reports()
    }

    /// Ends admission to a replica. Who was granted a slot there and has not claimed it goes back to its place:
    /// sent to a replica that cannot be reached or ends, it would only fail there.
    pub(super) fn stop(&mut self, replica: ReplicaId, phase: Phase, now: Instant) -> Vec<TicketId> {
        self.pass(now);
        let before = self.slots.close(replica, phase);
        if before == Some(Phase::Ready) {
            let lost: Vec<_> = self.granted.extract_if(.., |_, grant| grant.replica == replica).collect();
            for (ticket, grant) in lost {
                self.slots.give_back(self.slots.place(replica));
                self.back_to_place(ticket, grant.waiter);
            }
        }
        let is_empty = self.slots.find(replica).is_ok_and(|place| self.slots.settle(place));
        self.calls_control |= is_empty && before.is_some();
        let granted = self.hand_out(now);
        self.calls_control |= before == Some(Phase::Ready) && !self.waiting.is_empty() && !self.any_ready();
        granted
    }
}
