//! When a request may be sent more than once, as far as that is arithmetic: which answers count as failures, how many
//! copies the budget has room for, and after which time an answer is late. Sends nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The replica broke the connection before the first byte of an answer.
    Broken,
    /// The replica had closed the pooled connection; sent again to the same replica.
    Stale,
    /// The replica answered 502 or 503 itself.
    Unavailable,
    /// There was no connection to the replica; nothing had been sent.
    Unreachable,
}

impl Cause {
    /// Every one, each at its number.
    pub const ALL: [Self; 4] = [Self::Broken, Self::Stale, Self::Unavailable, Self::Unreachable];

    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Stale => "stale",
            Self::Unavailable => "unavailable",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Why a request that failed and may be repeated was not, or one whose answer was late had no second copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    /// It had been sent as often as it may be.
    Attempts,
    /// Its body was not kept whole: too large, or not all there yet.
    Body,
    /// As many copies as the budget allows have been sent lately.
    Budget,
    /// No other replica had an idle slot, or somebody waited for one.
    NoIdleSlot,
    /// Its time was used up.
    Time,
}

impl Denied {
    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Body => "body",
            Self::Budget => "budget",
            Self::NoIdleSlot => "no_idle_slot",
            Self::Time => "time",
        }
    }
}

/// What became of the second copy that was sent because the answer was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hedge {
    /// The first copy answered before it.
    Lost,
    /// It failed, or neither answered.
    Failed,
    /// It was given up because another request had to wait.
    Yielded,
    /// It answered first.
    Won,
}

impl Hedge {
    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Yielded => "yielded",
            Self::Won => "won",
        }
    }
}

/// How often a request was sent, and why more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Times that it was handed to a replica, whether that could be reached or not.
    pub sent: u16,
    /// Times that it was sent again, by the number of the cause.
    pub again: [u16; Cause::ALL.len()],
    /// Why it was not sent again in the end.
    pub denied: Option<Denied>,
    /// What became of its second copy.
    pub hedge: Option<Hedge>,
    /// Why it had none although its answer was late: what stood in the way when that was looked at last.
    pub not_hedged: Option<Denied>,
}

impl Tries {
    /// Handed to a replica once more.
    pub fn hand_over(&mut self) {
        self.sent = self.sent.saturating_add(1);
    }

    /// Sent again for this cause.
    pub fn add(&mut self, cause: Cause) {
        let count = &mut self.again[cause as usize];
        *count = count.saturating_add(1);
    }

    /// How often it was sent again for which cause.
    pub fn causes(&self) -> impl Iterator<Item = (Cause, u16)> {
        Cause::ALL.into_iter().zip(self.again).filter(|(_, count)| *count > 0)
    }

    /// Whether nothing but the first try is to be told of. That a late answer had no second copy is not: where all are busy
    /// it would be told of most requests.
    pub fn is_plain(&self) -> bool {
        self.again == [0; _] && self.denied.is_none() && self.hedge.is_none()
    }
}

/// Hundredths of a copy.
const COPY: u32 = 100;
/// Copies that may be sent at once after a quiet time. So that a budget means something also at one request a minute.
pub const RESERVE: u32 = 10;

/// How many copies may be sent: a share of the requests that may be repeated, and a small reserve. Requests fill it,
/// copies empty it (after Finagle's retry budget). Shared by all workers.
#[derive(Debug)]
pub struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(RESERVE * COPY))
    }
}

impl Budget {
    /// A first copy of a request goes out.
    pub fn deposit(&self, percent: u32) {
        let more = |level: u32| (level < RESERVE * COPY).then(|| (level + percent).min(RESERVE * COPY));
        // Full is the usual case and writes nothing.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes the room of one more copy, if there is any.
    pub fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |level| level.checked_sub(COPY)).is_ok()
    }

    /// A copy for which there was room has not been sent.
    pub fn put_back(&self) {
        self.deposit(COPY);
    }
}

/// Times that are remembered.
const WINDOW: usize = 256;
/// Fewest times that say anything about the slowest twentieth.
const ENOUGH: usize = 40;
/// The quantile is worked out with the first of these, and again after this many times.
const STEP: usize = 16;

/// The 95th percentile of the last times up to the head of an answer.
#[derive(Debug, Default)]
pub struct Late {
    times: Vec<Duration>,
    /// Times seen so far.
    seen: usize,
    p95: Option<Duration>,
}

impl Late {
    /// One more time. One that was cut short counts as long as it was seen.
    pub fn note(&mut self, time: Duration) {
        if self.times.len() < WINDOW {
            self.times.push(time);
        } else {
            self.times[self.seen % WINDOW] = time;
        }
        self.seen = self.seen.wrapping_add(1);
        let is_first = self.p95.is_none();
        if self.times.len() >= ENOUGH && (is_first || self.seen.is_multiple_of(STEP)) {
            let mut sorted = self.times.clone();
            let place = sorted.len() * 95 / 100;
            self.p95 = Some(*sorted.select_nth_unstable(place).1);
        }
    }

    /// After this time an answer is later than 19 of 20; `None` while too little is known.
    pub fn p95(&self) -> Option<Duration> {
        self.p95
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_share_of_the_requests_and_a_reserve() {
        let budget = Budget::default();
        let (mut copies, requests) = (0, 1_000);
        for _ in 0..requests {
            budget.deposit(20);
            copies += u32::from(budget.withdraw());
        }
        // One percent point of slack for what the reserve still holds.
        assert!((requests / 5 + RESERVE - 1..=requests / 5 + RESERVE).contains(&copies), "{copies}");
    }

    #[test]
    fn the_reserve_does_not_grow_over_a_quiet_time_and_what_was_not_sent_comes_back() {
        let budget = Budget::default();
        for _ in 0..1_000 {
            budget.deposit(100);
        }
        assert!((0..RESERVE).all(|_| budget.withdraw()) && !budget.withdraw());
        budget.put_back();
        assert!(budget.withdraw() && !budget.withdraw());
        budget.deposit(20);
        assert!(!budget.withdraw(), "a fifth of a copy is none");
    }

    #[test]
    fn an_answer_is_late_after_nineteen_of_twenty() {
        let mut late = Late::default();
        for number in 1..=39 {
            late.note(Duration::from_millis(number));
        }
        assert_eq!(late.p95(), None, "too few");
        late.note(Duration::from_millis(40));
        assert_eq!(late.p95(), Some(Duration::from_millis(39)), "from the fortieth on");
        for number in 41..=400 {
            late.note(Duration::from_millis(number));
        }
        // The last 256 are 145 to 400.
        assert_eq!(late.p95(), Some(Duration::from_millis(145 + 256 * 95 / 100)));
        for _ in 0..WINDOW {
            late.note(Duration::from_millis(1));
        }
        assert_eq!(late.p95(), Some(Duration::from_millis(1)), "it forgets");
    }

    #[test]
    fn a_request_that_was_sent_once_has_nothing_to_tell() {
        let mut tries = Tries { sent: 1, not_hedged: Some(Denied::NoIdleSlot), ..Tries::default() };
        assert!(tries.is_plain());
        tries.add(Cause::Stale);
        tries.add(Cause::Broken);
        tries.add(Cause::Broken);
        assert!(!tries.is_plain());
        assert_eq!(tries.causes().collect::<Vec<_>>(), [(Cause::Broken, 2), (Cause::Stale, 1)]);
    }
}
