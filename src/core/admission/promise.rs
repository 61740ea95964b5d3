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
/// How many seconds more are told at most than are meant, beside a quarter of those: the longer the line, the more were
/// refused in an instant.
const MOST_LATER: u64 = 2;
/// Over which those who come back at whole seconds are spread.
const PART: Duration = Duration::from_millis(100);
/// When nobody has waited or was refused for this long and two services, only those who are told to come later count.
const QUIET: Duration = Duration::from_secs(1);
/// What is said when nothing is known.
const UNKNOWN: Duration = Duration::from_secs(1);

/// When a refused request would be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The time until then.
    pub wait: Duration,
    /// The same in whole seconds, never less and at least 1, and some more where others come back at that moment: those
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
    /// What it added to the line.
    slot_seconds: f64,
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
    /// Whether a line may be more than 0: most requests need to know no more.
    any: bool,
    /// Seconds of a service that the lines were made with, while that is a guess.
    guess: Option<f64>,
    /// Share of those who were promised something that came back, and is taken to come.
    faith: ByClass,
    at: Option<Instant>,
    book: BTreeMap<Mark, Promise>,
    /// When which promise is to be looked at.
    looks: BTreeSet<(Instant, Mark)>,
    /// Those of each caller, and the callers by their number.
    callers: BTreeMap<Tenant, BTreeSet<(Instant, Mark)>>,
    counts: BTreeSet<(usize, Tenant)>,
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
            any: false,
            guess: None,
            faith: [1.0; _],
            at: None,
            book: BTreeMap::new(),
            looks: BTreeSet::new(),
            callers: BTreeMap::new(),
            counts: BTreeSet::new(),
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
        // Workers bring their moments in any order.
        let before = self.at.unwrap_or(now);
        self.at = Some(now.max(before));
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
        self.any = self.lines != [0.0; _];
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

    /// One more was promised something, which takes so many slot-seconds, where there will be so many slots. Returns what is
    /// counted of it.
    pub(super) fn add(&mut self, ask: &Ask, slot_seconds: f64, slots: f64) -> f64 {
        let longest = if ask.mark.id == 0 { FOR_UNKNOWN } else { LONGEST };
        let most = longest.as_secs_f64() * slots.max(1.0);
        let line = &mut self.lines[ask.class as usize];
        self.any = true;
        let before = *line;
        *line = before.max((before + slot_seconds).min(most));
        *line - before
    }

    /// What is told for this wait: the first whole second at which not more come back than `per_second` can be served.
    pub(super) fn rounded(&mut self, wait: Duration, per_second: f64, now: Instant) -> Retry {
        let retry = Retry::new(wait);
        let began = *self.began.get_or_insert(now);
        let since = now.saturating_duration_since(began);
        let part = |seconds: u64| (since + Duration::from_secs(seconds)).as_millis() / PART.as_millis();
        self.returns = self.returns.split_off(&part(0));
        let come = |seconds: &u64| self.returns.get(&part(*seconds)).copied().unwrap_or(0);
        let most_later = MOST_LATER + retry.seconds / 4;
        let mut later = retry.seconds..=(retry.seconds + most_later).min(LONGEST.as_secs());
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

    /// Whether nobody has waited or was refused for a while, now that somebody got a slot at once. Told once.
    pub(super) fn is_quiet(&mut self, now: Instant, service: impl FnOnce() -> Duration) -> bool {
        let Some(since) = self.crowded.map(|crowded| now.saturating_duration_since(crowded)) else {
            return false;
        };
        let is_quiet = since >= QUIET && since >= QUIET + 2 * service();
        if is_quiet {
            self.crowded = None;
        }
        is_quiet
    }

    /// Nobody is in the way of those who come next, but those who were told to come later. The time must have been passed.
    pub(super) fn keep_only_those_to_come(&mut self, now: Instant) {
        let mut to_come = ByClass::default();
        for promise in self.book.values().filter(|promise| promise.due > now) {
            to_come[promise.class as usize] += promise.slot_seconds;
        }
        for (line, to_come) in self.lines.iter_mut().zip(to_come) {
            *line = line.min(to_come);
        }
    }

    /// Whether anything is promised that is still to come.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// When one that asks again before its time may come: as it was promised. On a connection somebody else may come as well.
    pub(super) fn kept(&self, mark: Mark, now: Instant) -> Option<Duration> {
        if mark.of_connection {
            return None;
        }
        let due = self.book.get(&mark)?.due;
        due.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Writes a promise down, which added so much to the line. When the book is full, the last one of whoever has the most in
    /// it makes room; who has as many is told a time and has no place.
    pub(super) fn write(
        &mut self,
        ask: &Ask,
        place: TicketId,
        retry: Retry,
        slot_seconds: f64,
        now: Instant,
    ) {
        let mark = ask.mark;
        if mark.id == 0 {
            return;
        }
        self.forget(now);
        self.take(mark);
        if self.book.len() >= MOST && !self.make_room(mark.whose) {
            return;
        }
        let Retry { wait, seconds } = retry;
        // Clocks and timers are not exact, and clients jitter on their own.
        let from = now + wait.mul_f64(0.9).saturating_sub(Duration::from_millis(20));
        let told = now + wait.max(Duration::from_secs(seconds));
        let (look, until) = (told + LATENESS, told + wait.max(LATENESS));
        let class = ask.class;
        let due = now + wait;
        let promise = Promise { place, class, slot_seconds, from, due, until, missed: false, look };
        self.insert(mark, promise);
    }

    /// The old place of one that comes back in time. Who comes too early stays in the book.
    pub(super) fn redeem(&mut self, mark: Mark, now: Instant) -> Option<TicketId> {
        self.forget(now);
        let place = self.book.get(&mark).filter(|promise| now >= promise.from)?.place;
        self.came(mark, now);
        Some(place)
    }

    /// One that was promised something has a slot, or comes for it. Before its time it is no longer to come then.
    pub(super) fn came(&mut self, mark: Mark, now: Instant) {
        if let Some(promise) = self.take(mark) {
            if now < promise.from {
                let line = &mut self.lines[promise.class as usize];
                *line = (*line - promise.slot_seconds).max(0.0);
            }
            let faith = &mut self.faith[promise.class as usize];
            *faith += (1.0 - *faith) / MEMORY;
        }
    }

    fn take(&mut self, mark: Mark) -> Option<Promise> {
        let promise = self.book.remove(&mark)?;
        self.looks.remove(&(promise.look, mark));
        self.change(mark.whose, |of_caller| _ = of_caller.remove(&(promise.look, mark)));
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
        self.change(mark.whose, |of_caller| _ = of_caller.insert((promise.look, mark)));
    }

    fn change(&mut self, whose: Tenant, change: impl FnOnce(&mut BTreeSet<(Instant, Mark)>)) {
        let of_caller = self.callers.entry(whose).or_default();
        self.counts.remove(&(of_caller.len(), whose));
        change(of_caller);
        if of_caller.is_empty() {
            self.callers.remove(&whose);
        } else {
            self.counts.insert((of_caller.len(), whose));
        }
    }

    fn make_room(&mut self, whose: Tenant) -> bool {
        let own = self.callers.get(&whose).map_or(0, BTreeSet::len);
        let Some((_, caller)) = self.counts.last().copied().filter(|(most, _)| *most > own) else {
            return false;
        };
        let last = self.callers.get(&caller).and_then(BTreeSet::last).map(|(_, mark)| *mark);
        last.and_then(|mark| self.take(mark)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn mark(id: u64, whose: u32) -> Mark {
        Mark { id, whose: Tenant(whose), of_connection: false }
    }

    fn ask(id: u64, whose: u32) -> Ask {
        Ask { mark: mark(id, whose), ..Ask::default() }
    }

    #[test]
    fn nobody_takes_the_place_of_another_by_its_id() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        promises.write(&ask(7, 1), TicketId(10), Retry::new(SECOND), 1.0, now);
        assert_eq!(promises.redeem(mark(7, 2), now + SECOND), None);
        assert_eq!(promises.redeem(mark(7, 0), now + SECOND), None);
        // Nor does it push it out by being refused as well.
        promises.write(&ask(7, 2), TicketId(11), Retry::new(SECOND), 1.0, now);
        assert_eq!(promises.redeem(mark(7, 1), now + SECOND), Some(TicketId(10)));
        assert_eq!(promises.redeem(mark(7, 1), now + SECOND), None, "once");
        assert_eq!(promises.redeem(mark(7, 2), now + SECOND), Some(TicketId(11)));
    }

    #[test]
    fn promises_are_bounded_whoever_asks_and_however_often() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        promises.write(&ask(1, 3), TicketId(1), Retry::new(SECOND), 1.0, now);
        for number in 0..4 * MOST as u64 {
            // New ids, one that is refused again and again, and some that come back.
            promises.write(&ask(number, 1), TicketId(3 * number), Retry::new(LONGEST), 1.0, now);
            promises.write(&ask(1, 2), TicketId(3 * number + 1), Retry::new(LONGEST), 1.0, now);
            promises.redeem(mark(number / 2, 1), now + LONGEST);
            assert!(promises.book.len() <= MOST && promises.looks.len() == promises.book.len());
        }
        assert_eq!(promises.callers.values().map(BTreeSet::len).sum::<usize>(), promises.book.len());
        assert_eq!(promises.counts.len(), promises.callers.len());
        assert!(
            promises.book.contains_key(&mark(1, 2)),
            "who asks little is not pushed out by who asks much"
        );
        promises.write(&ask(0, 1), TicketId(1), Retry::new(SECOND), 1.0, now);
        assert_eq!(promises.redeem(mark(0, 1), now + SECOND), None, "no id is no mark");
        promises.forget(now + 4 * LONGEST);
        assert!(promises.looks.is_empty() && promises.book.is_empty() && promises.callers.is_empty());
    }

    #[test]
    fn in_a_full_book_the_last_one_of_who_has_most_makes_room() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        for number in 1..=MOST as u64 {
            promises.write(
                &ask(number, 1),
                TicketId(number),
                Retry::new(SECOND),
                1.0,
                now + Duration::from_micros(number),
            );
        }
        promises.write(&ask(1 << 20, 1), TicketId(0), Retry::new(SECOND), 1.0, now + SECOND);
        assert!(!promises.book.contains_key(&mark(1 << 20, 1)), "its own are sooner due");
        promises.write(&ask(1, 2), TicketId(0), Retry::new(SECOND), 1.0, now + SECOND);
        assert!(
            promises.book.contains_key(&mark(1, 2)) && !promises.book.contains_key(&mark(MOST as u64, 1))
        );
        assert!(promises.book.contains_key(&mark(1, 1)) && promises.book.len() == MOST);
    }

    #[test]
    fn no_more_than_a_minute_is_told() {
        let retry = Retry::new(100 * SECOND);
        assert_eq!((retry.wait, retry.seconds), (LONGEST, 60));
        let mut promises = Promises::default();
        let told = (0..1_000).map(|_| promises.rounded(LONGEST, 1.0, Instant::now()).seconds);
        assert_eq!(told.max(), Some(60));
    }

    #[test]
    fn the_longer_the_time_the_further_those_who_were_refused_together_are_spread() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        let mut told = |wait| (0..12).map(|_| promises.rounded(wait, 10.0, now).seconds).collect::<Vec<_>>();
        assert_eq!(told(2 * SECOND), [2, 3, 4, 2, 3, 4, 2, 3, 4, 2, 3, 4], "in turn where all are taken");
        assert_eq!(told(20 * SECOND)[..8], [20, 21, 22, 23, 24, 25, 26, 27]);
    }

    #[test]
    fn who_is_as_late_again_has_its_place_and_is_not_waited_for() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        promises.write(&ask(7, 1), TicketId(10), Retry::new(10 * SECOND), 1.0, now);
        promises.add(&ask(7, 1), 1.0, 1.0);
        promises.forget(now + 13 * SECOND);
        assert_eq!(promises.line(Class::Default), 1.0);
        promises.forget(now + 14 * SECOND);
        assert!(promises.line(Class::Default) < 1.0, "it did not come");
        assert_eq!(promises.redeem(mark(7, 1), now + 20 * SECOND), Some(TicketId(10)));
        promises.write(&ask(8, 1), TicketId(11), Retry::new(10 * SECOND), 1.0, now);
        assert_eq!(promises.redeem(mark(8, 1), now + 21 * SECOND), None, "longer than that");
    }

    #[test]
    fn who_comes_before_its_time_is_no_longer_to_come() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        for id in [1, 2] {
            let added = promises.add(&ask(id, 1), 0.5, 1.0);
            promises.write(&ask(id, 1), TicketId(id), Retry::new(10 * SECOND), added, now);
        }
        promises.came(mark(1, 1), now + SECOND);
        assert_eq!(promises.line(Class::Default), 0.5);
        // In its time, what it takes is what the time takes off.
        promises.came(mark(2, 1), now + 10 * SECOND);
        assert_eq!(promises.line(Class::Default), 0.5);
    }

    #[test]
    fn what_was_promised_by_a_guess_takes_as_long_as_is_known_later() {
        let mut promises = Promises::default();
        assert_eq!(promises.settle(None, 1.0), 1.0);
        (0..10).for_each(|id| _ = promises.add(&ask(id, 1), 1.0, 10.0));
        promises.serve(2.0, Duration::ZERO);
        assert_eq!(promises.line(Class::Default), 8.0, "two slots have taken two");
        assert_eq!((promises.settle(Some(0.1), 1.0), promises.line(Class::Default)), (0.1, 0.8));
        assert_eq!((promises.settle(Some(0.2), 1.0), promises.line(Class::Default)), (0.2, 0.8));
    }

    #[test]
    fn moments_that_come_in_another_order_are_not_counted_twice() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        promises.pass(now, 1.0);
        (0..9).for_each(|id| _ = promises.add(&ask(id, 1), 1.0, 10.0));
        for at in [2, 1, 2, 1, 3] {
            promises.pass(now + at * SECOND, 1.0);
        }
        assert_eq!(promises.line(Class::Default), 6.0);
    }
}
