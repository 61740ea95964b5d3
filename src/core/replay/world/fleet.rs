//! The replicas of a simulation: which start, serve, drain and end. Chooses as `control::scaler::fleet` does: what never was
//! ready ends first, then the least busy, the newest of equals; what drains is taken back before anything is started.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::core::replay::figures::sum;
use crate::core::replay::script::seconds;

/// Weight of a new start in the mean, as a scaler weighs it.
const NEW: f64 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Starting,
    Ready,
    Draining,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Start { id: u64, ready_at: u64 },
    TakeBack(u64),
    Drain(u64),
    Remove(u64),
}

pub(super) struct Fleet {
    /// By id, with the time of the order.
    members: BTreeMap<u64, (Phase, u64)>,
    next: u64,
    /// How long the recorded starts took, and how many were used.
    starts: Vec<u64>,
    started: usize,
    median: u64,
    /// From order to end of those that are gone, in nanoseconds.
    lived: Vec<(u64, u64)>,
    /// Became ready since the last question, and how long that took in all.
    fresh: (u32, f64),
    /// Mean time of a start, in seconds, when one was seen.
    mean: Option<f64>,
}

impl Fleet {
    pub(super) fn new(starts: &[u64]) -> Self {
        let mut sorted = starts.to_vec();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        let (members, lived) = (BTreeMap::new(), Vec::new());
        Self {
            members,
            next: 1,
            starts: starts.to_vec(),
            started: 0,
            median,
            lived,
            fresh: (0, 0.0),
            mean: None,
        }
    }

    /// One that is ready when the script begins.
    pub(super) fn there_already(&mut self, now: u64) -> u64 {
        let id = self.next;
        self.next += 1;
        self.members.insert(id, (Phase::Ready, now));
        id
    }

    /// A start is over; whether the replica is still wanted.
    pub(super) fn ready(&mut self, id: u64, now: u64) -> bool {
        match self.members.get_mut(&id) {
            Some((phase @ Phase::Starting, began)) => {
                *phase = Phase::Ready;
                self.fresh.0 += 1;
                let took = seconds(now - *began);
                self.fresh.1 += took;
                self.mean = Some(self.mean.map_or(took, |mean| mean + NEW * (took - mean)));
                true
            }
            _ => false,
        }
    }

    pub(super) fn is_draining(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|(phase, _)| *phase == Phase::Draining)
    }

    pub(super) fn draining(&self) -> u32 {
        self.members.values().filter(|(phase, _)| *phase == Phase::Draining).count() as u32
    }

    /// When those will be ready that are starting, as far as can be known, the first one first.
    pub(super) fn expected(&self) -> impl Iterator<Item = u64> {
        // In the order of their ids, which is that of their beginnings.
        let starting = self.members.values().filter(|(phase, _)| *phase == Phase::Starting);
        let mean = self.mean.map(|mean| (mean * 1e9) as u64);
        starting.filter_map(move |(_, began)| Some(began.saturating_add(mean?)))
    }

    /// How many became ready since the last call, and how long they took in all, in seconds.
    pub(super) fn take_starts(&mut self) -> (u32, f64) {
        std::mem::take(&mut self.fresh)
    }

    pub(super) fn settle(&mut self, desired: u32, now: u64, busy: impl Fn(u64) -> u32) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut serving: Vec<_> = self
            .members
            .iter()
            .filter(|(_, (phase, _))| *phase != Phase::Draining)
            .map(|(id, _)| *id)
            .collect();
        serving.sort_by_key(|id| (self.members[id].0, busy(*id), Reverse(*id)));
        for id in serving.iter().take(serving.len().saturating_sub(desired as usize)) {
            if let Some(member) = self.members.get_mut(id) {
                if member.0 == Phase::Ready {
                    orders.push(Order::Drain(*id));
                }
                member.0 = Phase::Draining;
            }
        }
        let mut missing = (desired as usize).saturating_sub(serving.len());
        let mut draining: Vec<_> = self
            .members
            .iter()
            .filter(|(_, (phase, _))| *phase == Phase::Draining)
            .map(|(id, _)| *id)
            .collect();
        draining.sort_by_key(|id| Reverse((busy(*id), Reverse(*id))));
        for id in draining {
            if missing > 0 && busy(id) > 0 {
                self.members.entry(id).and_modify(|member| member.0 = Phase::Ready);
                orders.push(Order::TakeBack(id));
                missing -= 1;
            } else if busy(id) == 0
                && let Some((_, began)) = self.members.remove(&id)
            {
                self.lived.push((began, now));
                orders.push(Order::Remove(id));
            }
        }
        for _ in 0..missing {
            let id = self.next;
            self.next += 1;
            let time = self.starts.get(self.started).copied().unwrap_or(self.median);
            self.started += 1;
            self.members.insert(id, (Phase::Starting, now));
            orders.push(Order::Start { id, ready_at: now.saturating_add(time) });
        }
        orders
    }

    /// Of all together until `end`.
    pub(super) fn replica_seconds(&self, end: u64) -> f64 {
        let gone = self.lived.iter().map(|(began, gone)| gone.min(&end).saturating_sub(*began));
        let there = self.members.values().map(|(_, began)| end.saturating_sub(*began));
        sum(gone.chain(there).map(seconds))
    }
}
