//! What is held against one replica, and how far its slots are lowered for it. Knows no siblings: who compares it with
//! them (`slots::judge`) says how much a failure weighs, and when it may be taken out.

mod errors;

use std::time::{Duration, Instant};

use crate::core::admission::pace::Pace;
use crate::core::admission::standing::{Standing, Why};
use errors::Errors;

/// Longest pause between two trials of a replica that does not recover.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A replica that has been good for as long begins with the shortest pause again.
const FORGIVEN: Duration = Duration::from_secs(60);
/// Above this something is held against a replica: its slots are halved at each failure.
pub(super) const SUSPECT: f64 = 3.0;
/// At this it is taken out: odds of e^6 = 400 to 1 that it fails more often than its siblings.
pub(super) const GUILTY: f64 = 6.0;
/// What a good answer takes off: ln(0.98/0.5), the odds of an answer from a replica that fails half of its requests
/// against one that fails 2 %.
const RELIEF: f64 = 0.67;

/// First answers of a replica, which may be slow because it loads and compiles what it needs.
const YOUNG: u32 = 16;
/// Answers and time after which it has warmed up, if it ever does.
const WARM: (u32, Duration) = (64, Duration::from_secs(60));
/// Longest pause between two trials until then.
const SHORT_PAUSE: Duration = Duration::from_secs(4);
/// Answers after which a replica that may seem slow by chance is not.
const CERTAIN: u32 = 16;

/// One replica's record.
#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) standing: Standing,
    pub(super) why: Option<Why>,
    /// Since when it is not good.
    pub(super) since: Option<Instant>,
    /// Most requests that it is given.
    pub(super) cap: u32,
    /// Logarithm of the odds that it fails more often than its siblings.
    pub(super) score: f64,
    pub(super) pace: Pace,
    pub(super) errors: Errors,
    /// Its next request shows whether it has recovered, and comes before all others.
    pub(super) trial: bool,
    /// It has answered, so that its slots may grow.
    pub(super) grows: bool,
    /// It has answered since the last review.
    pub(super) heard: bool,
    /// First review at which it had work and had not answered; with the answers of all until then.
    pub(super) quiet: Option<(Instant, u64)>,
    /// Requests that timed out and still hold their slots.
    pub(super) overdue: u32,
    /// Slots that what was given to it before it was taken out holds while it is on probation.
    pub(super) old: u32,
    /// When it was taken out last.
    out_at: Option<Instant>,
    /// Answers since it was opened.
    answers: u32,
    /// First review since then.
    opened_at: Option<Instant>,
    /// How fast it was when it was taken out last, as a logarithm.
    last: f64,
    /// Good answers in a row while on probation.
    passed: u32,
    /// The last 32 requests, the latest lowest; 1 is a failure.
    recent: u32,
    seen: u32,
    trials: u32,
    retry_at: Option<Instant>,
    good_since: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            standing: Standing::Good,
            why: None,
            since: None,
            cap: u32::MAX,
            score: 0.0,
            pace: Pace::default(),
            errors: Errors::default(),
            trial: false,
            grows: false,
            heard: false,
            quiet: None,
            overdue: 0,
            old: 0,
            out_at: None,
            answers: 0,
            opened_at: None,
            last: f64::NEG_INFINITY,
            passed: 0,
            recent: 0,
            seen: 0,
            trials: 0,
            retry_at: None,
            good_since: None,
        }
    }
}

impl Health {
    /// It is given work after it was not there, and has to warm up.
    pub(super) fn begin(&mut self) {
        self.answers = 0;
        self.opened_at = None;
    }

    /// One more answer. How fast it was when it was young says nothing of how fast it is.
    pub(super) fn age(&mut self) {
        self.answers = self.answers.saturating_add(1);
        if self.answers == YOUNG {
            self.pace.forget();
        }
    }

    /// The time goes on.
    pub(super) fn pass(&mut self, now: Instant) {
        self.opened_at.get_or_insert(now);
    }

    /// Too young to be called slow.
    pub(super) fn is_young(&self) -> bool {
        self.answers < YOUNG
    }

    /// Young, or there for less than a minute.
    pub(super) fn is_new(&self, now: Instant) -> bool {
        self.is_young() || self.opened_at.is_none_or(|at| now.saturating_duration_since(at) < WARM.1)
    }

    /// Remembers how a request ended.
    pub(super) fn remember(&mut self, failed: bool) {
        self.recent = self.recent << 1 | u32::from(failed);
        self.seen = (self.seen + 1).min(u32::BITS);
    }

    /// Failures among the last requests, and how many these are.
    pub(super) fn record(&self) -> (u32, u32) {
        (self.recent.count_ones(), self.seen)
    }

    /// The last eight, as a reason.
    pub(super) fn failures(&self) -> Why {
        Why::Failed { failed: (self.recent & 0xff).count_ones(), of: self.seen.min(8) }
    }

    /// It has given no answer, or none but 500, for so long that nothing would be lost without it.
    pub(super) fn is_barren(&self) -> bool {
        self.recent.trailing_ones() >= 4 || self.errors.row() >= 5
    }

    /// Nothing is held against it, so that an answer changes nothing.
    pub(super) fn is_clean(&self) -> bool {
        self.standing == Standing::Good && self.cap == u32::MAX && self.score == 0.0
    }

    /// Others can be trusted with its work.
    pub(super) fn is_good(&self) -> bool {
        self.standing == Standing::Good && self.score < SUSPECT
    }

    /// Is given work only when no other has a free slot.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.standing, Standing::Slow | Standing::Failing)
    }

    /// A failure that speaks against it by so much.
    pub(super) fn accuse(&mut self, weight: f64) {
        self.score = (self.score + weight).min(2.0 * GUILTY);
    }

    /// A good answer. Its slots grow at the next review.
    pub(super) fn relieve(&mut self) {
        self.score = (self.score - RELIEF).max(0.0);
        self.passed += u32::from(self.standing == Standing::Probation);
        self.grows = true;
    }

    /// Half of what it may have now, one at least; who is given nothing stays so.
    pub(super) fn halve(&mut self, most: u32) {
        self.cap = self.cap.min((most / 2).max(1));
    }

    /// Twice of what it may have, up to the limit of all.
    pub(super) fn grow(&mut self, limit: u32) {
        if std::mem::take(&mut self.grows) && self.cap != u32::MAX {
            let cap = self.cap.saturating_mul(2).max(1);
            self.cap = if cap >= limit || cap > 1 << 16 { u32::MAX } else { cap };
        }
    }

    /// Not good from now on, but given work.
    pub(super) fn blame(&mut self, standing: Standing, why: Option<Why>, now: Instant) {
        self.standing = standing;
        self.why = why.or(self.why);
        self.since.get_or_insert(now);
        self.trial = false;
        self.old = 0;
        self.passed = 0;
    }

    /// Given nothing until a pause is over, which grows with each trial that fails: `first`, twice as long, and so on.
    /// Where it was slow it grows only with a trial that was not faster than the one before, and little at first.
    pub(super) fn eject(&mut self, why: Option<Why>, first: Duration, now: Instant) {
        if self.good_since.is_some_and(|good| now.saturating_duration_since(good) >= FORGIVEN) {
            self.trials = 0;
        }
        self.good_since = None;
        self.blame(Standing::Ejected, why, now);
        self.cap = 0;
        self.grows = false;
        self.out_at = Some(now);
        let is_slow = matches!(self.why, Some(Why::Slow { .. }));
        if is_slow {
            // Faster than the last time: it gets on.
            self.trials -= u32::from(self.pace.at_first_sight() < self.last && self.trials > 0);
            self.last = self.pace.at_first_sight();
        }
        let longest = if is_slow && self.answers < WARM.0 { SHORT_PAUSE } else { LONGEST_PAUSE };
        self.retry_at = Some(now + (first * (1 << self.trials)).min(longest));
        self.trials = (self.trials + 1).min(6);
    }

    /// Whether the pause is over.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.standing == Standing::Ejected && self.retry_at.is_some_and(|at| now >= at)
    }

    /// It was taken out, or is tried again, for what bad input looks like as well.
    pub(super) fn is_doubtful(&self) -> bool {
        let is_out = matches!(self.standing, Standing::Ejected | Standing::Probation);
        is_out && matches!(self.why, Some(Why::Erred { .. }))
    }

    /// Whether it was taken out at least so long ago.
    pub(super) fn is_out_for(&self, pause: Duration, now: Instant) -> bool {
        self.out_at.is_some_and(|at| now.saturating_duration_since(at) >= pause)
    }

    /// One request at a time from now on, beside so many from before.
    pub(super) fn try_again(&mut self, old: u32) {
        self.standing = Standing::Probation;
        self.cap = 1;
        self.old = old;
        self.trial = true;
        self.score = 0.0;
        self.pace.forget();
    }

    /// Whether a request that was given to it then shows nothing of its recovery.
    pub(super) fn is_from_before(&self, since: Instant) -> bool {
        self.standing == Standing::Probation && self.out_at.is_some_and(|at| since <= at)
    }

    /// Slots that it may use, for whatever.
    pub(super) fn most(&self) -> u32 {
        self.cap.saturating_add(self.old)
    }

    /// Whether its answers show how fast it is again: it was taken out for that.
    pub(super) fn is_tried_for_speed(&self) -> bool {
        self.standing == Standing::Probation && matches!(self.why, Some(Why::Slow { .. }))
    }

    /// Whether it has shown that it is good, which takes more answers where it still seems slow.
    pub(super) fn has_passed(&self, is_slow: bool) -> bool {
        let enough = if is_slow { CERTAIN } else { 2 };
        self.standing == Standing::Probation && self.cap == u32::MAX && self.passed >= enough
    }

    /// Nothing is held against it any more.
    pub(super) fn acquit(&mut self, now: Instant) {
        self.standing = Standing::Good;
        self.why = None;
        self.since = None;
        self.good_since = Some(now);
        self.quiet = None;
        self.passed = 0;
        self.old = 0;
        self.trial = false;
    }
}

#[cfg(test)]
pub(super) mod tests;
