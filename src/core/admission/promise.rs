//! When a refused request may come back: a place of its own in the line of those who were refused.
//!
//! Each refusal is promised capacity after all those before it, so that clients that obey come back one after the
//! other. One that comes back in time and is known by its mark has its old place in the queue. The less come back of
//! those who were promised something, the less is put by for the next. In memory, promises are bounded.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::core::admission::{Mark, TicketId};

/// Most promises that are remembered.
const MOST: usize = 8_192;
/// Least share of the refused that is taken to come back.
const LEAST_FAITH: f64 = 0.1;
/// How long after its time somebody may come, at least: clients know whole seconds only, and some wait a little more.
const LATENESS: Duration = Duration::from_secs(3);
/// What is said when nothing is known.
const UNKNOWN: Duration = Duration::from_secs(1);

/// When a refused request would be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The time until then.
    pub wait: Duration,
    /// The same in whole seconds, never less and at least 1. Which way it is rounded is spread evenly, so that clients
    /// that know seconds only do not come back together.
    pub seconds: u64,
}

impl Retry {
    /// When nothing is known.
    pub const UNKNOWN: Self = Self { wait: UNKNOWN, seconds: 1 };

    /// The `draw` of 0 to 1 says where to between the next two seconds it is rounded.
    pub(super) fn new(wait: Duration, draw: f64) -> Self {
        let wait = wait.max(Duration::from_millis(1));
        let exact = wait.as_secs_f64();
        let spread = if exact <= 1.0 { 0.0 } else { draw };
        Self { wait, seconds: (exact + spread).ceil() as u64 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    place: TicketId,
    from: Instant,
    until: Instant,
}

#[derive(Debug)]
pub(super) struct Promises {
    /// Promised hand-overs that are still to come.
    line: f64,
    /// Share of those who were promised something that came back.
    faith: f64,
    at: Option<Instant>,
    book: BTreeMap<Mark, Promise>,
    /// The book in the order in which it was written.
    written: VecDeque<(Mark, TicketId)>,
}

impl Default for Promises {
    fn default() -> Self {
        Self { line: 0.0, faith: 1.0, at: None, book: BTreeMap::new(), written: VecDeque::new() }
    }
}

impl Promises {
    pub(super) fn is_empty(&self) -> bool {
        self.book.is_empty()
    }

    /// The time goes on: what could be served since the last call is no longer to come.
    pub(super) fn pass(&mut self, now: Instant, per_second: f64) {
        let before = self.at.replace(now).unwrap_or(now);
        self.keep(now.saturating_duration_since(before).as_secs_f64() * per_second);
    }

    /// So much of what was promised is served.
    pub(super) fn keep(&mut self, hand_overs: f64) {
        self.line = (self.line - hand_overs).max(0.0);
    }

    /// How many were promised something that is to come.
    pub(super) fn line(&self) -> f64 {
        self.line
    }

    /// One more was promised something.
    pub(super) fn add(&mut self) {
        self.line += self.faith.max(LEAST_FAITH);
    }

    pub(super) fn write(&mut self, mark: Mark, place: TicketId, wait: Duration, now: Instant) {
        if mark.id == 0 {
            return;
        }
        self.forget(now);
        // Clocks and timers are not exact, and clients jitter on their own.
        let from = now + wait.mul_f64(0.9).saturating_sub(Duration::from_millis(20));
        let until = now + wait + wait.max(LATENESS);
        self.book.insert(mark, Promise { place, from, until });
        self.written.push_back((mark, place));
    }

    /// The old place of one that comes back in time. Who comes too early stays in the book, until the next refusal.
    pub(super) fn redeem(&mut self, mark: Mark, now: Instant) -> Option<TicketId> {
        self.forget(now);
        let promise = *self.book.get(&mark)?;
        if now < promise.from {
            return None;
        }
        self.book.remove(&mark);
        self.faith += (1.0 - self.faith) / 64.0;
        (now <= promise.until).then_some(promise.place)
    }

    /// Promises that are over, and the oldest ones if there are too many.
    fn forget(&mut self, now: Instant) {
        while let Some((mark, place)) = self.written.front().copied() {
            let known = self.book.get(&mark).filter(|promise| promise.place == place);
            if known.is_some_and(|promise| promise.until >= now) && self.written.len() < MOST {
                break;
            }
            if known.is_some() {
                self.book.remove(&mark);
                self.faith -= self.faith / 64.0;
            }
            self.written.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::admission::Tenant;

    const SECOND: Duration = Duration::from_secs(1);

    fn mark(id: u64, whose: u32) -> Mark {
        Mark { id, whose: Tenant(whose) }
    }

    #[test]
    fn nobody_takes_the_place_of_another_by_its_id() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        promises.write(mark(7, 1), TicketId(10), SECOND, now);
        assert_eq!(promises.redeem(mark(7, 2), now + SECOND), None);
        assert_eq!(promises.redeem(mark(7, 0), now + SECOND), None);
        // Nor does it push it out by being refused as well.
        promises.write(mark(7, 2), TicketId(11), SECOND, now);
        assert_eq!(promises.redeem(mark(7, 1), now + SECOND), Some(TicketId(10)));
        assert_eq!(promises.redeem(mark(7, 1), now + SECOND), None, "once");
        assert_eq!(promises.redeem(mark(7, 2), now + SECOND), Some(TicketId(11)));
    }

    #[test]
    fn promises_are_bounded_whoever_asks_and_however_often() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        for number in 0..4 * MOST as u64 {
            // New ids, one that is refused again and again, and some that come back.
            promises.write(mark(number, 1), TicketId(3 * number), 3_600 * SECOND, now);
            promises.write(mark(1, 2), TicketId(3 * number + 1), 3_600 * SECOND, now);
            promises.redeem(mark(number / 2, 1), now + 3_600 * SECOND);
            assert!(promises.written.len() <= MOST && promises.book.len() <= MOST);
        }
        promises.write(mark(0, 1), TicketId(1), SECOND, now);
        assert_eq!(promises.redeem(mark(0, 1), now + SECOND), None, "no id is no mark");
        promises.forget(now + 3 * 3_600 * SECOND);
        assert!(promises.written.is_empty() && promises.book.is_empty());
    }
}
