//! The order of those who wait. Which slot they get, and whether they may wait at all, is the pool's part.
//!
//! Within a class it is first come, first served, unless the pool is told otherwise. Between classes the more
//! important one is first, but each of the others has a guaranteed share of the hand-overs: whenever it is passed
//! over, its claim grows by that share, and a whole claim is served before anybody else. So the first of a class
//! waits at most [`LONGEST_PASSED_OVER`] hand-overs, however much of the other classes comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::core::admission::shares::Shares;
use crate::core::admission::{Ask, Class, TicketId, Use};

/// Guaranteed shares in percent, by class. What is left, 75 % at least, goes to the first class that waits; a fifth
/// keeps ordinary traffic alive under a flood of critical requests, a twentieth lets nothing starve.
const SHARES: [u32; Class::COUNT] = [0, 20, 5];

/// How many places of a queue each class keeps while others want them: its share, and at least one where there are enough.
/// The rest is the first one's.
pub(super) fn places(most: usize) -> [usize; Class::COUNT] {
    let share = |class: Class| most.saturating_mul(SHARES[class as usize] as usize).div_euclid(100).max(1);
    let default = share(Class::Default).min(most.saturating_sub(1));
    let sheddable = share(Class::Sheddable).min(most.saturating_sub(1 + default));
    [most - default - sheddable, default, sheddable]
}

/// Hand-overs after which the first of a class has had its turn, in the worst case: a twentieth, and one turn of a
/// class above that became due at the same moment.
#[cfg(test)]
pub(super) const LONGEST_PASSED_OVER: usize = 22;

/// One that waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Waiter {
    pub(super) ask: Ask,
    /// Since when it has waited this time.
    pub(super) since: Instant,
}

type Line = BTreeMap<TicketId, Waiter>;

/// Hand-overs that the share of each class remembers.
const MEMORY: u32 = 128;

#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: [Line; Class::COUNT],
    length: usize,
    /// What each class has a claim on, in hundredths of a hand-over.
    claims: [u32; Class::COUNT],
    /// Which share of the hand-overs each class had of late.
    had: [f64; Class::COUNT],
    /// How many of them that is learned from.
    turns: u32,
    /// Where callers have equal shares.
    shares: Option<Shares>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many are served before the next one of this class, as far as classes go.
    pub(super) fn ahead_of(&self, class: Class) -> usize {
        self.lines[..=class as usize].iter().map(Line::len).sum()
    }

    /// How many of this class wait.
    pub(super) fn len_of(&self, class: Class) -> usize {
        self.lines[class as usize].len()
    }

    pub(super) fn contains(&self, ticket: TicketId) -> bool {
        self.lines.iter().any(|line| line.contains_key(&ticket))
    }

    pub(super) fn push(&mut self, ticket: TicketId, waiter: Waiter) {
        let Ask { class, tenant, .. } = waiter.ask;
        if let Some(shares) = &mut self.shares {
            shares.push(class, tenant, ticket);
        }
        self.length += usize::from(self.lines[class as usize].insert(ticket, waiter).is_none());
    }

    pub(super) fn remove(&mut self, ticket: TicketId) -> Option<Waiter> {
        let class = Class::ALL.into_iter().find(|class| self.lines[*class as usize].contains_key(&ticket))?;
        self.take(class, ticket)
    }

    /// Whose turn it is, oldest or newest first; who is `useless` by now is put aside instead.
    pub(super) fn pop(
        &mut self,
        newest: bool,
        useless: impl Fn(&Waiter) -> bool,
        aside: &mut Vec<(TicketId, Waiter)>,
    ) -> Option<(TicketId, Waiter)> {
        loop {
            let class = self.next_class()?;
            let line = &self.lines[class as usize];
            let ticket = match &self.shares {
                Some(shares) => shares.next(class, newest),
                None if newest => line.last_key_value().map(|(ticket, _)| *ticket),
                None => line.first_key_value().map(|(ticket, _)| *ticket),
            }?;
            let waiter = *line.get(&ticket)?;
            if useless(&waiter) {
                self.take(class, ticket);
                aside.push((ticket, waiter));
                continue;
            }
            self.count_turn(class);
            self.take(class, ticket);
            return Some((ticket, waiter));
        }
    }

    /// What a slot that was handed to this one will cost its caller.
    pub(super) fn charge(&mut self, ask: &Ask, usual: Duration) {
        if let Some(shares) = &mut self.shares {
            shares.charge(ask.class, ask.tenant, usual);
        }
    }

    /// What a slot has cost its caller.
    pub(super) fn settle(&mut self, used: &Use) {
        if let Some(shares) = &mut self.shares {
            shares.settle(used.tenant, used.time());
        }
    }

    /// A slot that was handed to this one was not used.
    pub(super) fn refund(&mut self, ask: &Ask) {
        if let Some(shares) = &mut self.shares {
            shares.refund(ask.tenant);
        }
    }

    /// Takes out one for a newcomer to a queue of at most `most`: of a less important class, or of another one while the
    /// newcomer's has less than its share of the places. No class is taken below its share, so that each has somebody whose
    /// claim grows. Otherwise one of its own class that is to be served after it.
    pub(super) fn make_room(
        &mut self,
        ask: &Ask,
        place: TicketId,
        most: usize,
    ) -> Option<(TicketId, Waiter)> {
        let places = places(most);
        let is_over = |class: &Class| self.len_of(*class) > places[*class as usize];
        let from_above = self.len_of(ask.class) < places[ask.class as usize];
        let mut others = Class::ALL.into_iter().rev().filter(|class| *class > ask.class || from_above);
        let (class, victim) = match others.find(|class| *class != ask.class && is_over(class)) {
            Some(class) => (class, self.least(class)?),
            None => (ask.class, self.later(ask, place)?),
        };
        self.take(class, victim).map(|waiter| (victim, waiter))
    }

    /// The one that matters least in a class: the newest, where callers have equal shares of the one that most wait of.
    fn least(&self, class: Class) -> Option<TicketId> {
        match &self.shares {
            Some(shares) => shares.most_waiting(class).map(|(_, newest)| newest),
            None => self.lines[class as usize].last_key_value().map(|(ticket, _)| *ticket),
        }
    }

    /// The one of the same class that makes room for one with this place: the newest, if it came later. Where callers have
    /// equal shares, the newest of a caller that has more than the newcomer's, or of the same caller.
    fn later(&self, ask: &Ask, place: TicketId) -> Option<TicketId> {
        let Some(shares) = &self.shares else {
            return self.least(ask.class).filter(|newest| *newest > place);
        };
        let (own, newest) = shares.waiting(ask.class, ask.tenant);
        let other = shares.most_waiting(ask.class).filter(|(count, _)| *count > own + 1);
        other.map(|(_, newest)| newest).or_else(|| newest.filter(|newest| *newest > place))
    }

    /// When the one that has waited longest came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lines.iter().filter_map(Line::first_key_value).map(|(_, waiter)| waiter.since).min()
    }

    /// Takes out all that came before a moment, from the front.
    pub(super) fn take_older(&mut self, than: Instant, aside: &mut Vec<(TicketId, Waiter)>) {
        for class in Class::ALL {
            while let Some((&ticket, &waiter)) = self.lines[class as usize].first_key_value()
                && waiter.since < than
            {
                self.take(class, ticket);
                aside.push((ticket, waiter));
            }
        }
    }

    /// Whether callers have equal shares; those who wait keep their tickets.
    pub(super) fn share_fairly(&mut self, fair: bool) {
        if !fair {
            self.shares = None;
        } else if self.shares.is_none() {
            let mut shares = Shares::default();
            for (ticket, waiter) in self.lines.iter().flatten() {
                shares.push(waiter.ask.class, waiter.ask.tenant, *ticket);
            }
            self.shares = Some(shares);
        }
    }

    #[cfg(test)]
    pub(super) fn tickets(&self) -> impl Iterator<Item = (TicketId, &Waiter)> {
        self.lines.iter().flatten().map(|(ticket, waiter)| (*ticket, waiter))
    }

    fn take(&mut self, class: Class, ticket: TicketId) -> Option<Waiter> {
        let line = &mut self.lines[class as usize];
        let waiter = line.remove(&ticket)?;
        self.length -= 1;
        if line.is_empty() {
            // Less than a turn is kept, or a class that asks all the time and has few places would lose it each time.
            self.claims[class as usize] = self.claims[class as usize].min(99);
        }
        if let Some(shares) = &mut self.shares {
            shares.remove(class, waiter.ask.tenant, ticket);
        }
        Some(waiter)
    }

    fn next_class(&self) -> Option<Class> {
        let mut waiting = Class::ALL.into_iter().filter(|class| !self.lines[*class as usize].is_empty());
        let first = waiting.next()?;
        // The first one may have a whole claim of its own: it is served in any case.
        let due = |class: &Class| self.claims[*class as usize] >= 100;
        if due(&first) { Some(first) } else { Some(waiting.find(due).unwrap_or(first)) }
    }

    /// Which share of the hand-overs is there for each class: what the more important ones leave, and what the others are
    /// guaranteed is not there, as far as they have it. Its own guarantee in any case.
    pub(super) fn left_for_each(&self) -> [f64; Class::COUNT] {
        Class::ALL.map(|class| {
            let guaranteed = |class: Class| f64::from(SHARES[class as usize]) / 100.0;
            let others = Class::ALL.into_iter().filter(|other| *other != class);
            let taken = others.map(|other| {
                let had = self.had[other as usize];
                if other < class { had } else { had.min(guaranteed(other)) }
            });
            (1.0 - taken.sum::<f64>()).max(guaranteed(class))
        })
    }

    /// What each class had of late says nothing any more.
    pub(super) fn forget_turns(&mut self) {
        self.turns = 0;
        self.had = [0.0; _];
    }

    fn count_turn(&mut self, served: Class) {
        self.turns = (self.turns + 1).min(MEMORY);
        for class in Class::ALL {
            let had = &mut self.had[class as usize];
            *had += (f64::from(u8::from(class == served)) - *had) / f64::from(self.turns);
            let claim = &mut self.claims[class as usize];
            if !self.lines[class as usize].is_empty() {
                *claim += SHARES[class as usize];
            }
            if class == served {
                *claim = claim.saturating_sub(100);
            }
        }
    }
}
