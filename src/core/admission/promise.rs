//! When a refused request may come back: a place of its own in the line of those of its class who were refused.
//!
//! Each refusal is promised capacity after all those before it, so that clients that obey come back one after the
//! other. One that comes back in time and is known by its mark has its old place in the queue. The less come back of
//! those who were promised something, the less is put by for the next. The line, what is told and the memory are bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::admission::{Ask, Class, Mark, Tenant, TicketId};

/// Most promises that are remembered.
const MOST: usize = 8_192;
/// Longest time that is told: beyond it nobody knows, and a client may as well ask.
const LONGEST: Duration = Duration::from_secs(60);
/// The line behind which those are not counted who will not be known when they come back: nothing would show that they
/// do not.
const FOR_UNKNOWN: Duration = Duration::from_secs(10);
/// Least share of the refused that is taken to come back.
const LEAST_FAITH: f64 = 0.01;
/// How many of those who were due that share remembers.
const MEMORY: f64 = 256.0;
/// How long after its time somebody may come, at least: clients know whole seconds only, and some wait a little more.
const LATENESS: Duration = Duration::from_secs(3);
/// How many seconds more are told at most than are meant; less than the lateness that is allowed.
const MOST_LATER: u64 = 2;
/// Over which those who come back at whole seconds are spread.
const PART: Duration = Duration::from_millis(100);
/// When nobody has waited or was refused for this long and two services, there is room for all who may still come.
const QUIET: Duration = Duration::from_secs(1);
/// What is said when nothing is known.
const UNKNOWN: Duration = Duration::from_secs(1);

/// When a refused request would be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The time until then.
    pub wait: Duration,
    /// The same in whole seconds, never less and at least 1, and up to 2 more where others come back at that moment: those
    /// who were refused together and know seconds only do not come back together.
    pub seconds: u64,
}

impl Retry {
    /// When nothing is known.
    pub const UNKNOWN: Self = Self { wait: UNKNOWN, seconds: 1 };

    /// In whole seconds, for one that does not know better.
    pub(super) fn new(wait: Duration) -> Self {
        let wait = wait.clamp(Duration::from_millis(1), LONGEST);
        Self { wait, seconds: wait.as_secs_f64().ceil() as u64 }
    }
}

/// What a class has: one line for each, as the more important one does not wait for the others.
pub(super) type ByClass = [f64; Class::COUNT];

#[derive(Clone, Copy, Debug)]
struct Promise {
    place: TicketId,
    class: Class,
    from: Instant,
    due: Instant,
    until: Instant,
    /// Did not come when it was told to, which was held against all; still has its place.
    missed: bool,
    /// When it is looked at next.
    look: Instant,
}

#[derive(Debug)]
pub(super) struct Promises {
    /// What is promised and still to come, in slot-seconds, as if all came. Each promise counts with the pace of its moment:
    /// a pace that is measured anew must not draw together those who were told with the old one and with the new one.
    lines: ByClass,
    /// Seconds of a service that the lines were made with, while that is a guess.
    guess: Option<f64>,
    /// Share of those who were promised something that came back, and is taken to come.
    faith: ByClass,
    at: Option<Instant>,
    book: BTreeMap<Mark, Promise>,
    /// When which promise is to be looked at.
    looks: BTreeSet<(Instant, Mark)>,
    /// How many of the book are whose.
    callers: BTreeMap<Tenant, usize>,
    /// How many come back in which hundred milliseconds since the first promise, if all know whole seconds only.
    returns: BTreeMap<u128, u32>,
    began: Option<Instant>,
    /// When somebody waited or was refused last, until it is quiet.
    crowded: Option<Instant>,
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            lines: [0.0; _],
            guess: None,
            faith: [1.0; _],
            at: None,
            book: BTreeMap::new(),
            looks: BTreeSet::new(),
            callers: BTreeMap::new(),
            returns: BTreeMap::new(),
            began: None,
            crowded: None,
        }
    }
}

impl Promises {
    pub(super) fn is_empty(&self) -> bool {
        self.book.is_empty()
    }

    /// The time goes on: what so many slots could serve since the last call is no longer to come.
    pub(super) fn pass(&mut self, now: Instant, slots: f64) {
        let before = self.at.replace(now).unwrap_or(now);
        self.keep(now.saturating_duration_since(before).as_secs_f64() * slots);
    }

    /// So many are served at once, by slots that are new.
    pub(super) fn serve(&mut self, slots: f64, service: Duration) {
        self.keep(slots * self.guess.unwrap_or(service.as_secs_f64()));
    }

    /// So many slot-seconds are no longer to come.
    fn keep(&mut self, slot_seconds: f64) {
        for class in Class::ALL {
            let faith = self.faith(class);
            let line = &mut self.lines[class as usize];
            *line = (*line - slot_seconds / faith).max(0.0);
        }
    }

    /// Slot-seconds until those of a class have been served who were promised something and are taken to come. Follows at
    /// once when it turns out that they do not.
    pub(super) fn line(&self, class: Class) -> f64 {
        self.lines[class as usize] * self.faith(class)
    }

    fn faith(&self, class: Class) -> f64 {
        self.faith[class as usize].max(LEAST_FAITH)
    }

    /// The seconds of a service, known or guessed. What was promised by a guess takes as long as is known now.
    pub(super) fn settle(&mut self, known: Option<f64>, guess: f64) -> f64 {
        match (known, self.guess) {
            (Some(known), Some(guess)) => {
                self.lines = self.lines.map(|line| line * known / guess);
                self.guess = None;
            }
            (None, _) => self.guess = Some(guess),
            (Some(_), None) => {}
        }
        known.unwrap_or(guess)
    }

    /// One more was promised something, which takes so many slot-seconds, where there will be so many slots.
    pub(super) fn add(&mut self, ask: &Ask, slot_seconds: f64, slots: f64) {
        let longest = if ask.mark.id == 0 { FOR_UNKNOWN } else { LONGEST };
        let most = longest.as_secs_f64() * slots.max(1.0);
        let line = &mut self.lines[ask.class as usize];
        *line = line.max((*line + slot_seconds).min(most));
    }

    /// What is told for this wait: the first whole second at which not more come back than `per_second` can be served.
    pub(super) fn rounded(&mut self, wait: Duration, per_second: f64, now: Instant) -> Retry {
        let retry = Retry::new(wait);
        let began = *self.began.get_or_insert(now);
        let since = now.saturating_duration_since(began);
        let part = |seconds: u64| (since + Duration::from_secs(seconds)).as_millis() / PART.as_millis();
        self.returns = self.returns.split_off(&part(0));
        let come = |seconds: &u64| self.returns.get(&part(*seconds)).copied().unwrap_or(0);
        let mut later = retry.seconds..=(retry.seconds + MOST_LATER).min(LONGEST.as_secs());
        let served = (per_second * PART.as_secs_f64()).max(1.0);
        let least = later.clone().min_by_key(come).unwrap_or(retry.seconds);
        let seconds = later.find(|seconds| f64::from(come(seconds)) < served).unwrap_or(least);
        *self.returns.entry(part(seconds)).or_default() += 1;
        Retry { seconds, ..retry }
    }

    /// Somebody waits or is refused.
    pub(super) fn crowded(&mut self, now: Instant) {
        self.crowded = Some(now);
    }

    /// Somebody got a slot at once. If it has been so for a while, nobody is in the way of those who come next.
    pub(super) fn idle(&mut self, now: Instant, service: impl FnOnce() -> Duration) {
        if let Some(crowded) = self.crowded
            && now.saturating_duration_since(crowded) >= QUIET + 2 * service()
        {
            self.crowded = None;
            self.lines = [0.0; _];
        }
    }

    /// When one that asks again before its time may come: as it was promised.
    pub(super) fn kept(&self, mark: Mark, now: Instant) -> Option<Duration> {
        let due = self.book.get(&mark)?.due;
        due.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Writes a promise down. When the book is full, the last one of whoever has the most in it makes room; who has as many
    /// is told a time and has no place.
    pub(super) fn write(&mut self, ask: &Ask, place: TicketId, wait: Duration, now: Instant) {
        let mark = ask.mark;
        if mark.id == 0 {
            return;
        }
        self.forget(now);
        self.take(mark);
        if self.book.len() >= MOST && !self.make_room(mark.whose) {
            return;
        }
        // Clocks and timers are not exact, and clients jitter on their own.
        let from = now + wait.mul_f64(0.9).saturating_sub(Duration::from_millis(20));
        let due = now + wait;
        let (look, until) = (due + LATENESS, due + wait.max(LATENESS));
        let promise = Promise { place, class: ask.class, from, due, until, missed: false, look };
        self.insert(mark, promise);
    }

    /// The old place of one that comes back in time. Who comes too early stays in the book.
    pub(super) fn redeem(&mut self, mark: Mark, now: Instant) -> Option<TicketId> {
        self.forget(now);
        let place = self.book.get(&mark).filter(|promise| now >= promise.from)?.place;
        self.came(mark);
        Some(place)
    }

    /// One that was promised something has a slot.
    pub(super) fn came(&mut self, mark: Mark) {
        if let Some(promise) = self.take(mark) {
            let faith = &mut self.faith[promise.class as usize];
            *faith += (1.0 - *faith) / MEMORY;
        }
    }

    fn take(&mut self, mark: Mark) -> Option<Promise> {
        let promise = self.book.remove(&mark)?;
        self.looks.remove(&(promise.look, mark));
        if let Some(count) = self.callers.get_mut(&mark.whose) {
            *count -= 1;
            if *count == 0 {
                self.callers.remove(&mark.whose);
            }
        }
        Some(promise)
    }

    /// Who did not come when it was told to is not taken to come; a promise that is over is forgotten.
    fn forget(&mut self, now: Instant) {
        while let Some((_, mark)) = self.looks.first().copied().filter(|(look, _)| *look < now) {
            let Some(promise) = self.take(mark) else { return };
            if !promise.missed {
                let faith = &mut self.faith[promise.class as usize];
                *faith -= *faith / MEMORY;
            }
            if promise.until >= now {
                self.insert(mark, Promise { missed: true, look: promise.until, ..promise });
            }
        }
    }

    fn insert(&mut self, mark: Mark, promise: Promise) {
        self.book.insert(mark, promise);
        self.looks.insert((promise.look, mark));
        *self.callers.entry(mark.whose).or_default() += 1;
    }

    fn make_room(&mut self, whose: Tenant) -> bool {
        let own = self.callers.get(&whose).copied().unwrap_or(0);
        let Some((caller, most)) = self.callers.iter().max_by_key(|(_, count)| **count) else { return false };
        if *most <= own {
            return false;
        }
        let last = self.looks.iter().rev().find(|(_, mark)| mark.whose == *caller).map(|(_, mark)| *mark);
        last.and_then(|mark| self.take(mark)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn mark(id: u64, whose: u32) -> Mark {
        Mark { id, whose: Tenant(whose) }
    }

    fn ask(id: u64, whose: u32) -> Ask {
        Ask { mark: mark(id, whose), ..Ask::default() }
    }

    #[test]
    fn nobody_takes_the_place_of_another_by_its_id() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        promises.write(&ask(7, 1), TicketId(10), SECOND, now);
        assert_eq!(promises.redeem(mark(7, 2), now + SECOND), None);
        assert_eq!(promises.redeem(mark(7, 0), now + SECOND), None);
        // Nor does it push it out by being refused as well.
        promises.write(&ask(7, 2), TicketId(11), SECOND, now);
        assert_eq!(promises.redeem(mark(7, 1), now + SECOND), Some(TicketId(10)));
        assert_eq!(promises.redeem(mark(7, 1), now + SECOND), None, "once");
        assert_eq!(promises.redeem(mark(7, 2), now + SECOND), Some(TicketId(11)));
    }

    #[test]
    fn promises_are_bounded_whoever_asks_and_however_often() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        promises.write(&ask(1, 3), TicketId(1), SECOND, now);
        for number in 0..4 * MOST as u64 {
            // New ids, one that is refused again and again, and some that come back.
            promises.write(&ask(number, 1), TicketId(3 * number), LONGEST, now);
            promises.write(&ask(1, 2), TicketId(3 * number + 1), LONGEST, now);
            promises.redeem(mark(number / 2, 1), now + LONGEST);
            assert!(promises.book.len() <= MOST && promises.looks.len() == promises.book.len());
        }
        assert_eq!(promises.callers.values().sum::<usize>(), promises.book.len());
        assert!(
            promises.book.contains_key(&mark(1, 2)),
            "who asks little is not pushed out by who asks much"
        );
        promises.write(&ask(0, 1), TicketId(1), SECOND, now);
        assert_eq!(promises.redeem(mark(0, 1), now + SECOND), None, "no id is no mark");
        promises.forget(now + 3 * LONGEST);
        assert!(promises.looks.is_empty() && promises.book.is_empty() && promises.callers.is_empty());
    }

    #[test]
    fn in_a_full_book_the_last_one_of_who_has_most_makes_room() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        for number in 1..=MOST as u64 {
            promises.write(&ask(number, 1), TicketId(number), SECOND, now + Duration::from_micros(number));
        }
        promises.write(&ask(1 << 20, 1), TicketId(0), SECOND, now + SECOND);
        assert!(!promises.book.contains_key(&mark(1 << 20, 1)), "its own are sooner due");
        promises.write(&ask(1, 2), TicketId(0), SECOND, now + SECOND);
        assert!(
            promises.book.contains_key(&mark(1, 2)) && !promises.book.contains_key(&mark(MOST as u64, 1))
        );
        assert!(promises.book.contains_key(&mark(1, 1)) && promises.book.len() == MOST);
    }
}
