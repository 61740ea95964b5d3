//! What the synthetic model server counts. A request is in flight from its head to the last byte of its answer, or
//! until its client is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

/// Counters; all relaxed, since they are only read for people and tests.
#[derive(Debug)]
pub(super) struct Stats {
    start: Instant,
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
    /// Microseconds from the start to when the first of those in flight began; 0 when there is none.
    busy_since: AtomicU64,
    /// Microseconds with a request in flight, up to the last moment without one.
    busy: AtomicU64,
}

/// The counters at a moment.
#[derive(Debug, PartialEq, Serialize)]
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
    /// Milliseconds since the start with a request in flight.
    pub(super) busy_ms: f64,
    /// Milliseconds since the start.
    pub(super) up_ms: f64,
}

/// One request in flight; counted down when dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    stats: Arc<Stats>,
    done: bool,
}

impl Stats {
    /// Nothing has happened yet.
    pub(super) fn new() -> Self {
        let zero = AtomicU64::default;
        Self {
            start: Instant::now(),
            in_flight: zero(),
            max_in_flight: zero(),
            served: zero(),
            failed: zero(),
            abandoned: zero(),
            busy_since: zero(),
            busy: zero(),
        }
    }

    /// Microseconds since the start; never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// A request has begun.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_in_flight.fetch_max(now, Ordering::Relaxed);
        if now == 1 {
            self.busy_since.store(self.now(), Ordering::Relaxed);
        }
        InFlight { stats: Arc::clone(self), done: false }
    }

    /// The counters now.
    pub(super) fn counts(&self) -> Counts {
        let now = self.now();
        let since = self.busy_since.load(Ordering::Relaxed);
        let running = if since == 0 { 0 } else { now.saturating_sub(since) };
        Counts {
            busy_ms: (self.busy.load(Ordering::Relaxed) + running) as f64 / 1000.0,
            up_ms: now as f64 / 1000.0,
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
        // The server has one thread, so nobody begins or ends between these.
        if self.stats.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            let since = self.stats.busy_since.swap(0, Ordering::Relaxed);
            self.stats.busy.fetch_add(self.stats.now().saturating_sub(since), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_busy_from_the_first_beginning_to_the_last_end() {
        let stats = Arc::new(Stats::new());
        assert_eq!(stats.counts().busy_ms, 0.0);
        let first = stats.begin();
        let second = stats.begin();
        while stats.counts().busy_ms < 2.0 {
            std::thread::yield_now();
        }
        drop(first);
        let until_first = stats.counts().busy_ms;
        while stats.counts().busy_ms < until_first + 1.0 {
            std::thread::yield_now();
        }
        drop(second);
        let busy = stats.counts().busy_ms;
        assert!(busy >= until_first + 1.0);
        std::thread::yield_now();
        assert_eq!(stats.counts().busy_ms, busy, "idle time does not count");
    }

    #[test]
    fn each_request_ends_once_and_the_greatest_number_stays() {
        let stats = Arc::new(Stats::new());
        let mut first = stats.begin();
        let second = stats.begin();
        first.finish();
        drop(first);
        drop(second);
        drop(stats.begin());
        let counts = stats.counts();
        let numbers =
            (counts.in_flight, counts.max_in_flight, counts.served, counts.failed, counts.abandoned);
        assert_eq!(numbers, (0, 2, 1, 0, 2));
        assert!(counts.busy_ms <= counts.up_ms);
    }
}
