//! The pool's time. An `Instant` is taken apart once for each event, and not for each thing that is counted with it: that
//! would be half of what a slot costs.

use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Clock {
    began: Option<Instant>,
    latest: Option<Instant>,
    /// From the first event to the latest.
    nanos: i64,
}

impl Clock {
    /// The time goes on to `now`. Returns the seconds since the latest event before; `None` when it is no later, since
    /// workers come with moments from before they had the lock.
    pub(super) fn pass(&mut self, now: Instant) -> Option<f64> {
        if self.latest.is_some_and(|latest| now <= latest) {
            return None;
        }
        self.latest = Some(now);
        let began = *self.began.get_or_insert(now);
        let nanos = now.saturating_duration_since(began).as_nanos() as i64;
        let passed = nanos - std::mem::replace(&mut self.nanos, nanos);
        Some(passed as f64 / 1e9)
    }

    /// The latest event.
    pub(super) fn latest(&self) -> Option<Instant> {
        self.latest
    }

    /// From the first event to the latest.
    pub(super) fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }
}
