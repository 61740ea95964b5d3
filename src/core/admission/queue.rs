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

#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: [Line; Class::COUNT],
    length: usize,
    /// What each class has a claim on, in hundredths of a hand-over.
    claims: [u32; Class::COUNT],
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

    /// Takes out the one that matters least among those that matter less than a request of this class, or, for one
    /// that has an older place, than that place. The newest of a class matters least.
    pub(super) fn make_room(&mut self, class: Class, place: TicketId) -> Option<(TicketId, Waiter)> {
        let lowest = Class::ALL.into_iter().rev().find(|class| !self.lines[*class as usize].is_empty())?;
        let (newest, _) = self.lines[lowest as usize].last_key_value()?;
        let newest = *newest;
        if lowest < class || (lowest == class && newest < place) {
            return None;
        }
        self.take(lowest, newest).map(|waiter| (newest, waiter))
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
            self.claims[class as usize] = 0;
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

    fn count_turn(&mut self, served: Class) {
        for class in Class::ALL {
            let claim = &mut self.claims[class as usize];
            if class == served {
                *claim = claim.saturating_sub(100);
            } else if !self.lines[class as usize].is_empty() {
                *claim += SHARES[class as usize];
            }
        }
    }
}
