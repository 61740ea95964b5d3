//! The replicas of one deployment: which of them serve, which finish what they have, which are to be ended.
//!
//! Pure: it is told what the provider, the probes and the gate say, and answers with orders for the gate and
//! the provider. How many there should be is `core::scale`'s decision.

mod member;
mod replacement;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::board::ReplicaStatus;
use crate::control::health::Health;
use crate::core::admission::ReplicaId;
use crate::data::gate::Target;
use crate::provider::{Phase, Replica, Wanted};
use member::{Condition, Member, Role};
use replacement::Replacement;

/// What is to be done at the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Admit(Arc<Target>),
    Drain(ReplicaId),
    Remove(ReplicaId),
}

/// A replica that begins to serve, cold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fresh {
    pub(super) id: ReplicaId,
    /// How long its start took, where scoregate has started it.
    pub(super) took: Option<Duration>,
}

/// All replicas that exist, by the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    members: BTreeMap<ReplicaId, Member>,
    fresh: Option<Fresh>,
    replacement: Replacement,
}

impl Fleet {
    /// What the providers say. The second of each pair tells whether somebody else runs it.
    pub(super) fn see<'a>(&mut self, set: impl IntoIterator<Item = (&'a Replica, bool)>) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut seen = BTreeSet::new();
        for (replica, fixed) in set {
            seen.insert(replica.id);
            let member =
                self.members.entry(replica.id).or_insert_with(|| Member::new(replica.clone(), fixed));
            if member.replica.phase == Phase::Running && replica.phase != Phase::Running {
                orders.push(Order::Remove(replica.id));
            }
            member.replica = replica.clone();
        }
        let gone: Vec<_> = self.members.keys().copied().filter(|id| !seen.contains(id)).collect();
        for id in gone {
            self.members.remove(&id);
            orders.push(Order::Remove(id));
        }
        orders
    }

    /// What a probe says. A dead process may finish its requests until `now + patience`.
    pub(super) fn report(
        &mut self,
        id: ReplicaId,
        health: Health,
        now: Instant,
        patience: Duration,
    ) -> Option<Order> {
        let member = self.members.get_mut(&id).filter(|member| member.is_live())?;
        let first = !member.was_ready();
        match health {
            Health::Ready => {
                // A server that somebody else runs may have served for long when it is seen first; one that comes back
                // may have been started anew.
                let back = std::mem::take(&mut member.was_down) && !first;
                let took = now.saturating_duration_since(member.replica.since);
                self.fresh = match (member.fixed, first) {
                    (false, true) => Some(Fresh { id, took: Some(took) }),
                    (true, false) if back => Some(Fresh { id, took: None }),
                    (true | false, _) => None,
                };
                member.condition = Condition::Ready;
                return (member.role == Role::Serving).then(|| Order::Admit(Arc::clone(&member.target)));
            }
            Health::Dead(why) if !member.fixed => {
                member.condition.worsen(why);
                if !matches!(member.role, Role::Dying(_)) {
                    member.role = Role::Dying(now + patience);
                }
            }
            Health::Dead(why) | Health::Unready(why) => member.condition.worsen(why),
        }
        member.was_down = true;
        Some(Order::Drain(id))
    }

    /// Whether the last report was the first success of a replica that serves cold.
    pub(super) fn take_fresh(&mut self) -> Option<Fresh> {
        self.fresh.take()
    }

    /// The name of one that has not been given up.
    pub(super) fn live_name(&self, id: ReplicaId) -> Option<Arc<str>> {
        let member = self.members.get(&id).filter(|member| member.is_live())?;
        Some(Arc::clone(&member.replica.name))
    }

    /// The data plane could not connect to it, and the gate has suspended it.
    pub(super) fn suspect(&mut self, id: ReplicaId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.condition.worsen("a connection to it could not be opened".to_owned());
        }
    }

    /// Gives up processes that were not ready `timeout` after their start. Their names.
    pub(super) fn give_up(&mut self, now: Instant, timeout: Duration) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        for member in self.members.values_mut().filter(|member| member.is_live() && !member.fixed) {
            let late = now.saturating_duration_since(member.replica.since) >= timeout;
            if late && let Condition::Starting(why) = &mut member.condition {
                let last = why.take().map(|why| format!(": {why}")).unwrap_or_default();
                *why = Some(format!("not ready within {} s of its start{last}", timeout.as_secs_f64()));
                member.role = Role::Leaving;
                names.push(Arc::clone(&member.replica.name));
            }
        }
        names
    }

    /// Brings the roles in line with the number that is desired: drains what is too much, takes back what is
    /// needed again, ends what is empty. To be called until there is no order: draining is what shows whether
    /// a replica is empty.
    pub(super) fn settle(
        &mut self,
        desired: u32,
        now: Instant,
        busy: impl Fn(ReplicaId) -> u32,
    ) -> Vec<Order> {
        let mut orders = Vec::new();
        for member in self.members.values_mut().filter(|member| member.is_live()) {
            let late = matches!(member.role, Role::Dying(end) if now >= end);
            if member.role != Role::Serving && (late || busy(member.replica.id) == 0) {
                member.role = Role::Leaving;
                orders.push(Order::Remove(member.replica.id));
            }
        }
        self.balance(false, desired, &busy, &mut orders);
        let goal = self.outdated_goal(desired);
        self.balance(true, goal, &busy, &mut orders);
        orders
    }

    /// Outdated replicas that must go on serving: what the present ones cannot do yet. One that never was ready
    /// helps nobody.
    fn outdated_goal(&self, desired: u32) -> u32 {
        let count = |wanted: &dyn Fn(&Member) -> bool| {
            self.members.values().filter(|member| member.serves() && wanted(member)).count()
        };
        let useful = count(&|member| member.replica.outdated && member.was_ready());
        let ready = count(&|member| !member.replica.outdated && member.condition == Condition::Ready);
        let only_fixed = self.members.values().all(|member| member.fixed);
        let goal = if !only_fixed {
            (desired as usize).saturating_sub(ready)
        } else if ready > 0 {
            // Whoever takes a server out of the list wants it to be left alone, not replaced.
            0
        } else {
            useful
        };
        u32::try_from(goal).unwrap_or(u32::MAX)
    }

    fn balance(
        &mut self,
        outdated: bool,
        goal: u32,
        busy: &impl Fn(ReplicaId) -> u32,
        orders: &mut Vec<Order>,
    ) {
        let of_group = |member: &&mut Member| member.is_live() && member.replica.outdated == outdated;
        let group = self.members.values_mut().filter(of_group);
        let (mut serving, mut draining) = (Vec::new(), Vec::new());
        for member in group {
            match member.role {
                Role::Serving => serving.push(member),
                Role::Draining => draining.push(member),
                Role::Dying(_) | Role::Leaving => {}
            }
        }
        let goal = goal as usize;
        let useless = serving.iter().filter(|member| outdated && !member.was_ready()).count();
        let surplus = serving.len().saturating_sub(goal).max(useless);
        serving.sort_by_cached_key(|member| member.worth(busy(member.replica.id)));
        for member in serving.iter_mut().take(surplus) {
            member.role = Role::Draining;
            orders.push(Order::Drain(member.replica.id));
        }
        let shortage = goal.saturating_sub(serving.len());
        draining.sort_by_cached_key(|member| Reverse(member.worth(busy(member.replica.id))));
        for member in draining.into_iter().filter(|member| member.was_ready()).take(shortage) {
            member.role = Role::Serving;
            if member.condition == Condition::Ready {
                orders.push(Order::Admit(Arc::clone(&member.target)));
            }
        }
    }

    /// What is wanted of the provider. Replicas that drain count as long as they exist: the one that takes the
    /// place of a dead one is started when that one has ended, so that there are never more than allowed.
    pub(super) fn wanted(&self, desired: u32) -> Wanted {
        let remove = self.leaving().map(|member| member.replica.id).collect();
        let present = self.members.values().filter(|member| member.is_live() && !member.replica.outdated);
        let existing = u32::try_from(present.count()).unwrap_or(u32::MAX);
        Wanted { replicas: desired.max(existing), remove }
    }

    fn leaving(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.role == Role::Leaving)
    }

    /// Replicas that are to be probed.
    pub(super) fn live(&self) -> impl Iterator<Item = &Replica> {
        self.members.values().filter(|member| member.is_live()).map(|member| &member.replica)
    }

    /// When each replica that was never ready was started.
    pub(super) fn starting(&self) -> impl Iterator<Item = Instant> {
        let serving = self.members.values().filter(|member| member.serves() && !member.fixed);
        serving.filter(|member| !member.was_ready()).map(|member| member.replica.since)
    }

    /// Replicas that serve, and those that will.
    pub(super) fn serving(&self) -> u32 {
        let serving = self.members.values().filter(|member| member.serves() && !member.replica.outdated);
        u32::try_from(serving.count()).unwrap_or(u32::MAX)
    }

    /// Replicas that finish what they have.
    pub(super) fn draining(&self) -> u32 {
        let leaving = |member: &&Member| member.is_live() && member.role != Role::Serving;
        u32::try_from(self.members.values().filter(leaving).count()).unwrap_or(u32::MAX)
    }

    /// Whether somebody else runs it.
    pub(super) fn is_fixed(&self, id: ReplicaId) -> bool {
        self.members.get(&id).is_some_and(|member| member.fixed)
    }

    /// Replicas of the present template or list.
    pub(super) fn present(&self) -> u32 {
        u32::try_from(self.live().filter(|replica| !replica.outdated).count()).unwrap_or(u32::MAX)
    }

    /// Slots in use on replicas that serve, those that fail their probes for the moment included.
    pub(super) fn busy(&self, busy: impl Fn(ReplicaId) -> u32) -> u32 {
        self.members
            .values()
            .filter(|member| member.serves())
            .fold(0, |sum, member| sum.saturating_add(busy(member.replica.id)))
    }

    /// What operators see, in the order of start.
    pub(super) fn statuses(&self, now: Instant, busy: impl Fn(ReplicaId) -> u32) -> Vec<ReplicaStatus> {
        self.members.values().map(|member| member.status(now, busy(member.replica.id))).collect()
    }

    /// Every replica, whatever it does.
    pub(super) fn ids(&self) -> impl Iterator<Item = ReplicaId> {
        self.members.keys().copied()
    }
}
