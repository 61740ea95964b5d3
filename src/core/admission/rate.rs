//! How fast a queue drains, and when somebody at a place in it will have a slot.
//!
//! The rate is learnt for one slot, over the time in which somebody waited: hand-overs by slot-seconds, begun with the
//! mean service time. So it holds at once when the number of slots changes, and it counts what every hand-over loses
//! and slots that do not come back.

use std::time::{Duration, Instant};

use crate::core::admission::Outcome;
use crate::core::admission::pace::{exp2, log2};

/// Memory of the rate, in services of one slot: 256 to 512 of them leave an error of a twentieth.
const WINDOW: f64 = 512.0;
/// For how many hand-overs the mean service time counts beside those that were measured.
const PRIOR: f64 = 4.0;
/// Memory of the mean service time and of the typical answer, in uses.
const USES: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Mean seconds of a use, but for those that were given up.
    mean: f64,
    uses: u32,
    /// Whether any use was not given up.
    is_known: bool,
    /// Typical time until an answer of the model, as the logarithm of its seconds to base 2.
    answer: f64,
    answers: u32,
    handed: f64,
    slot_seconds: f64,
    /// When replicas that start now are expected to be ready, in order.
    expected: Vec<Instant>,
}

/// The slots that there are, and what one more replica brings. `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) slots: Option<u32>,
    pub(super) of_a_replica: Option<u32>,
}

/// Seconds that are taken for a service while nothing is known, where something must be: to hold somebody to it.
pub(super) const GUESS: f64 = 1.0;

impl Rate {
    pub(super) fn used(&mut self, outcome: Outcome, seconds: f64) {
        // What was given up (another copy was faster, the client has left) was held for a time of its own. It is a guess,
        // where nothing better is known.
        let is_better = outcome != Outcome::GivenUp;
        if is_better && !self.is_known {
            (self.is_known, self.uses, self.mean) = (true, 0, 0.0);
        }
        if is_better == self.is_known {
            self.uses = (self.uses + 1).min(USES);
            self.mean += (seconds - self.mean) / f64::from(self.uses);
        }
        if outcome == Outcome::Answered {
            self.answers = (self.answers + 1).min(USES);
            self.answer += (log2(seconds) - self.answer) / f64::from(self.answers);
        }
    }

    /// Somebody has waited for this long, with so many slots.
    pub(super) fn backlogged(&mut self, seconds: f64, slots: Option<u32>) {
        self.slot_seconds += seconds * f64::from(slots.unwrap_or(0));
        if self.uses > 0 && self.slot_seconds > WINDOW * self.mean {
            self.slot_seconds /= 2.0;
            self.handed /= 2.0;
        }
    }

    pub(super) fn handed_over(&mut self) {
        self.handed += 1.0;
    }

    pub(super) fn expect(&mut self, mut moments: Vec<Instant>) {
        moments.sort_unstable();
        self.expected = moments;
    }

    /// What was told last, in order.
    pub(super) fn expected(&self) -> &[Instant] {
        &self.expected
    }

    /// Mean time of a use; zero before the first.
    pub(super) fn service(&self) -> Duration {
        Duration::from_secs_f64(self.mean.max(0.0))
    }

    /// Typical time until an answer, for deadlines; zero before the first. What broke at once says nothing of it, nor does a
    /// slot that was held long after its request was given up, and one slow answer says little.
    pub(super) fn answer(&self) -> Duration {
        if self.answers == 0 { Duration::ZERO } else { Duration::from_secs_f64(exp2(self.answer)) }
    }

    /// Hand-overs of one slot in a second, while somebody waits; `None` while nothing has been served.
    fn of_a_slot(&self) -> Option<f64> {
        let seconds = self.slot_seconds + PRIOR * self.mean;
        (self.uses > 0 && seconds > 0.0).then(|| (self.handed + PRIOR) / seconds)
    }

    pub(super) fn per_second(&self, slots: Option<u32>) -> Option<f64> {
        Some(self.of_a_slot()? * f64::from(slots?))
    }

    /// When this many hand-overs will have happened: of the slots there are, and of those of replicas that start.
    /// `None` when nobody knows. A replica that is late is expected after half of the time again that it is late.
    pub(super) fn reach(&self, hand_overs: f64, capacity: Capacity, now: Instant) -> Option<Duration> {
        self.reach_with(self.of_a_slot(), hand_overs, capacity, now, (1.0, 0.0))
    }

    /// The same for a promise: replicas come a tenth and a quarter of a second later than expected, as probes see them late, and
    /// while replicas start for the first time the service time is guessed.
    pub(super) fn promise(&self, hand_overs: f64, capacity: Capacity, now: Instant) -> Option<Duration> {
        let of_a_slot = self.of_a_slot().or_else(|| (!self.expected.is_empty()).then_some(1.0 / GUESS));
        self.reach_with(of_a_slot, hand_overs, capacity, now, (1.1, 0.25))
    }

    fn reach_with(
        &self,
        of_a_slot: Option<f64>,
        hand_overs: f64,
        capacity: Capacity,
        now: Instant,
        (times, plus): (f64, f64),
    ) -> Option<Duration> {
        let rate_of = |slots: u32| of_a_slot.map(|rate| rate * f64::from(slots));
        let mut slots = capacity.slots?;
        let (mut done, mut at) = (0.0, 0.0);
        for expected in &self.expected {
            let late = now.saturating_duration_since(*expected) / 2;
            let ready =
                ((expected.saturating_duration_since(now) + late).as_secs_f64() * times + plus).max(at);
            let gained = rate_of(slots).unwrap_or(0.0) * (ready - at);
            if done + gained >= hand_overs {
                break;
            }
            (done, at) = (done + gained, ready);
            let Some(more) = capacity.of_a_replica else { return Some(seconds(at)) };
            done += f64::from(more);
            slots += more;
            if done >= hand_overs {
                return Some(seconds(at));
            }
        }
        match rate_of(slots) {
            Some(rate) if rate > 0.0 => Some(seconds(at + (hand_overs - done) / rate)),
            // Nothing is known of the service time: the last replica is the best guess.
            _ if self.expected.is_empty() => None,
            _ => Some(seconds(at)),
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    // An hour is as good as never.
    Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Capacity = Capacity { slots: Some(2), of_a_replica: Some(1) };

    #[test]
    fn the_wait_is_the_place_by_the_rate_and_replicas_that_start_count_from_when_they_are_ready() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let mut rate = Rate::default();
        assert_eq!(rate.reach(1.0, ONE, now), None, "nothing is known");
        rate.expect(vec![now + ms(700)]);
        assert_eq!(rate.reach(9.0, ONE, now), Some(ms(700)), "only when replicas come");
        assert_eq!(rate.promise(3.0, ONE, now), Some(ms(1_020)), "a tenth and a quarter of a second later");
        rate.expect(Vec::new());
        (0..10).for_each(|_| rate.used(Outcome::Answered, 0.1));
        assert_eq!(rate.reach(10.0, ONE, now), Some(ms(500)));
        // 4 until then, 2 at once, and the rest twice as fast.
        rate.expect(vec![now + ms(200), now + ms(200)]);
        assert_eq!(rate.reach(10.0, ONE, now), Some(ms(300)));
        assert_eq!(rate.reach(5.0, ONE, now), Some(ms(200)));
        assert_eq!(rate.reach(2.0, ONE, now), Some(ms(100)));
        assert_eq!(rate.reach(7.0, ONE, now + ms(300)), Some(ms(150)), "late by 100 ms: 50 more");
    }

    #[test]
    fn the_rate_is_what_was_seen_and_forgets() {
        let mut rate = Rate::default();
        rate.used(Outcome::Answered, 0.1);
        assert_eq!(rate.per_second(Some(2)), Some(20.0));
        for _ in 0..1_000 {
            rate.backlogged(0.125, Some(2));
            rate.handed_over();
            rate.handed_over();
        }
        let seen = rate.per_second(Some(2)).unwrap();
        assert!((seen - 16.0).abs() < 0.3, "{seen}");
        // Half of the slots do not come back.
        for _ in 0..1_000 {
            rate.backlogged(0.125, Some(2));
            rate.handed_over();
        }
        let seen = rate.per_second(Some(2)).unwrap();
        assert!((seen - 8.0).abs() < 0.4, "{seen}");
    }

    #[test]
    fn what_was_given_up_is_a_guess_until_something_was_not() {
        let mut rate = Rate::default();
        rate.used(Outcome::GivenUp, 0.8);
        assert_eq!(rate.service(), Duration::from_millis(800));
        rate.used(Outcome::Answered, 0.1);
        assert_eq!(rate.service(), Duration::from_millis(100));
        // The slower one of two copies, again and again.
        (0..50).for_each(|_| rate.used(Outcome::GivenUp, 3.0));
        assert_eq!(rate.service(), Duration::from_millis(100));
        rate.used(Outcome::TimedOut, 0.3);
        assert_eq!(rate.service(), Duration::from_millis(200));
    }

    #[test]
    fn only_answers_say_how_long_an_answer_takes() {
        let near = |rate: &Rate| {
            let answer = rate.answer().as_secs_f64();
            assert!((0.1..0.125).contains(&answer), "{answer}");
        };
        let mut rate = Rate::default();
        (0..64).for_each(|_| rate.used(Outcome::Answered, 0.1));
        near(&rate);
        rate.used(Outcome::TimedOut, 300.0);
        rate.used(Outcome::GivenUp, 300.0);
        (0..200).for_each(|_| rate.used(Outcome::Broken, 0.001));
        near(&rate);
        assert!(rate.service() < Duration::from_secs(1), "the slots are free that soon");
    }
}
