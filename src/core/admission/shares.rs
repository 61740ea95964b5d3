//! Whose turn it is where several callers wait: equal shares of slot-seconds, whatever a request of each costs.
//!
//! Start-time fair queueing over callers: each has a tag, the slot-seconds that it was charged; the lowest one is
//! next. A hand-over is charged at once with what the caller's requests take on average and put right when the slot
//! is free again. One that begins to wait begins at the tag of the last one served, so that nobody saves up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::admission::{Class, Tenant, TicketId};

/// Accounts; callers beyond share one with others, so that memory is bounded whoever calls.
const ACCOUNTS: u32 = 1024;

#[derive(Debug, Default)]
struct Account {
    /// Slot-nanoseconds charged so far.
    tag: u64,
    /// Mean time of a use in nanoseconds; 0 before the first.
    mean: u64,
    /// Hand-overs that were charged with an estimate, and the sum of these.
    open: u32,
    estimated: u64,
    waiting: [BTreeSet<TicketId>; Class::COUNT],
}

impl Account {
    /// One hand-over less is open; what it was charged with, on average, if any is.
    fn close(&mut self) -> Option<u64> {
        let estimate = self.estimated.checked_div(u64::from(self.open))?;
        self.open -= 1;
        self.estimated -= estimate;
        Some(estimate)
    }

    fn is_idle(&self) -> bool {
        self.open == 0 && self.waiting.iter().all(BTreeSet::is_empty)
    }
}

#[derive(Debug, Default)]
pub(super) struct Shares {
    accounts: BTreeMap<u32, Account>,
    /// Those that wait in each class, the one to be served first in front.
    active: [BTreeSet<(u64, u32)>; Class::COUNT],
    /// The same by how many wait, the one that most wait of at the end.
    crowds: [BTreeSet<(usize, u32)>; Class::COUNT],
    /// The tag of the one served last in each class.
    clock: [u64; Class::COUNT],
}

impl Shares {
    pub(super) fn push(&mut self, class: Class, tenant: Tenant, ticket: TicketId) {
        let (key, class) = (key(tenant), class as usize);
        if !self.accounts.contains_key(&key) {
            self.forget_idle();
        }
        let account = self.accounts.entry(key).or_default();
        if account.waiting.iter().all(BTreeSet::is_empty) {
            account.tag = account.tag.max(self.clock[class]);
        }
        let before = account.waiting[class].len();
        account.waiting[class].insert(ticket);
        let after = account.waiting[class].len();
        self.active[class].insert((account.tag, key));
        self.count(class, key, before, after);
    }

    pub(super) fn remove(&mut self, class: Class, tenant: Tenant, ticket: TicketId) {
        let (key, class) = (key(tenant), class as usize);
        let Some(account) = self.accounts.get_mut(&key) else { return };
        let before = account.waiting[class].len();
        account.waiting[class].remove(&ticket);
        let after = account.waiting[class].len();
        if after == 0 {
            self.active[class].remove(&(account.tag, key));
        }
        self.count(class, key, before, after);
    }

    fn count(&mut self, class: usize, key: u32, before: usize, after: usize) {
        let crowds = &mut self.crowds[class];
        crowds.remove(&(before, key));
        if after > 0 {
            crowds.insert((after, key));
        }
    }

    /// How many wait of this class and caller, and the newest of them.
    pub(super) fn waiting(&self, class: Class, tenant: Tenant) -> (usize, Option<TicketId>) {
        let waiting = self.accounts.get(&key(tenant)).map(|account| &account.waiting[class as usize]);
        waiting.map_or((0, None), |waiting| (waiting.len(), waiting.last().copied()))
    }

    /// The same of the caller that most wait of in a class.
    pub(super) fn most_waiting(&self, class: Class) -> Option<(usize, TicketId)> {
        let (count, key) = self.crowds[class as usize].last()?;
        let newest = self.accounts.get(key)?.waiting[class as usize].last()?;
        Some((*count, *newest))
    }

    /// The ticket whose turn it is in this class: the oldest or the newest of the caller that has had least.
    pub(super) fn next(&self, class: Class, newest: bool) -> Option<TicketId> {
        let (_, key) = self.active[class as usize].first()?;
        let waiting = &self.accounts.get(key)?.waiting[class as usize];
        if newest { waiting.last() } else { waiting.first() }.copied()
    }

    /// A slot was handed to this caller, who was next; `usual` is what a use takes on average for all.
    pub(super) fn charge(&mut self, class: Class, tenant: Tenant, usual: Duration) {
        let key = key(tenant);
        let Some(account) = self.accounts.get_mut(&key) else { return };
        self.clock[class as usize] = self.clock[class as usize].max(account.tag);
        let estimate = if account.mean == 0 { nanos(usual) } else { account.mean };
        account.open += 1;
        account.estimated += estimate;
        let tag = account.tag.saturating_add(estimate);
        self.retag(key, tag);
    }

    /// A use of a slot has ended. Slots that nobody waited for are free of charge.
    pub(super) fn settle(&mut self, tenant: Tenant, used: Duration) {
        let key = key(tenant);
        let Some(account) = self.accounts.get_mut(&key) else { return };
        let used = nanos(used);
        account.mean = if account.mean == 0 { used } else { (account.mean * 7 + used) / 8 };
        if let Some(estimate) = account.close() {
            let tag = (account.tag + used).saturating_sub(estimate);
            self.retag(key, tag);
        }
    }

    /// A slot that was handed to this caller was not used.
    pub(super) fn refund(&mut self, tenant: Tenant) {
        let key = key(tenant);
        let Some(account) = self.accounts.get_mut(&key) else { return };
        if let Some(estimate) = account.close() {
            let tag = account.tag.saturating_sub(estimate);
            self.retag(key, tag);
        }
    }

    fn retag(&mut self, key: u32, tag: u64) {
        let Some(account) = self.accounts.get_mut(&key) else { return };
        let old = std::mem::replace(&mut account.tag, tag);
        for (waiting, active) in account.waiting.iter().zip(&mut self.active) {
            active.remove(&(old, key));
            if !waiting.is_empty() {
                active.insert((tag, key));
            }
        }
    }

    /// Accounts of callers that have nothing here and owe nothing are not needed.
    fn forget_idle(&mut self) {
        let clock = self.clock.iter().copied().max().unwrap_or(0);
        if self.accounts.len() >= ACCOUNTS as usize / 2 {
            self.accounts.retain(|_, account| !account.is_idle() || account.tag > clock);
        }
    }
}

fn key(tenant: Tenant) -> u32 {
    tenant.0 % ACCOUNTS
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 1024).min(u64::MAX / 1024)
}
