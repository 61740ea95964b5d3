//! What the synthetic model server counts. A request is in flight from its head to the last byte of its answer, or
//! until its client is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters; all relaxed, since they are only read for people and tests.
#[derive(Debug, Default)]
pub(super) struct Stats {
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
}

/// The counters at a moment.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Requests now.
    pub(super) in_flight: u64,
    /// Most requests at once since the start.
    pub(super) max_in_flight: u64,
    /// Requests answered to the last byte, those that failed included.
    pub(super) served: u64,
    /// Requests answered with 500.
    pub(super) failed: u64,
    /// Requests whose client went before the last byte.
    pub(super) abandoned: u64,
}

/// One request in flight; counted down when dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    stats: Arc<Stats>,
    done: bool,
}

impl Stats {
    /// A request has begun.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_in_flight.fetch_max(now, Ordering::Relaxed);
        InFlight { stats: Arc::clone(self), done: false }
    }

    /// The counters now.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            max_in_flight: self.max_in_flight.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            abandoned: self.abandoned.load(Ordering::Relaxed),
        }
    }
}

impl InFlight {
    /// It is going to be answered with 500.
    pub(super) fn fail(&self) {
        self.stats.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Its last byte has been handed over.
    pub(super) fn finish(&mut self) {
        self.done = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let end = if self.done { &self.stats.served } else { &self.stats.abandoned };
        end.fetch_add(1, Ordering::Relaxed);
        self.stats.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_ends_once_and_the_greatest_number_stays() {
        let stats = Arc::new(Stats::default());
        let mut first = stats.begin();
        let second = stats.begin();
        first.finish();
        drop(first);
        drop(second);
        drop(stats.begin());
        let expected = Counts { in_flight: 0, max_in_flight: 2, served: 1, failed: 0, abandoned: 2 };
        assert_eq!(stats.counts(), expected);
    }
}
