//! Replicas that start slowly: which of them have not all their slots yet, and when the next ones come.
//!
//! How many slots at which time is `core::ramp`'s decision.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::core::admission::ReplicaId;
use crate::core::ramp::step;

/// The replicas of one deployment on their way to all their slots.
#[derive(Debug, Default)]
pub(super) struct Ramps {
    /// When each became ready, and what it has now.
    rising: BTreeMap<ReplicaId, (Instant, u32)>,
    next: Option<Instant>,
}

impl Ramps {
    /// A replica has just become ready. What it may have is known from now on; all at once where nothing slows it down.
    pub(super) fn begin(
        &mut self,
        id: ReplicaId,
        now: Instant,
        limit: Option<NonZeroU32>,
        warm_up: Duration,
    ) {
        let Some(step) = step(limit, warm_up, Duration::ZERO) else { return };
        self.rising.insert(id, (now, step.cap));
        self.note(now + step.next);
    }

    /// What a replica may have that is admitted again on its way.
    pub(super) fn cap(&self, id: ReplicaId) -> Option<u32> {
        self.rising.get(&id).map(|(_, cap)| *cap)
    }

    /// The replica is gone.
    pub(super) fn end(&mut self, id: ReplicaId) {
        self.rising.remove(&id);
    }

    /// What has changed by now: limits of their own, or `None` for those that have all their slots from now on.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        limit: Option<NonZeroU32>,
        warm_up: Duration,
    ) -> Vec<(ReplicaId, Option<u32>)> {
        let mut changes = Vec::new();
        let mut next: Option<Instant> = None;
        self.rising.retain(|id, (since, cap)| {
            let Some(step) = step(limit, warm_up, now.saturating_duration_since(*since)) else {
                changes.push((*id, None));
                return false;
            };
            if step.cap != *cap {
                *cap = step.cap;
                changes.push((*id, Some(step.cap)));
            }
            let at = *since + step.next;
            next = Some(next.map_or(at, |next| next.min(at)));
            true
        });
        self.next = next;
        changes
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    fn note(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}
