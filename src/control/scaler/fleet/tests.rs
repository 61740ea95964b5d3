//! The fleet without a runtime: a made-up gate, provider and clock.

use std::collections::BTreeMap;

use super::*;
use crate::control::board::ReplicaState;
use crate::core::admission::{Report, Standing, Why};
use crate::core::settings::Authority;

const PATIENCE: Duration = Duration::from_secs(5);

/// A fleet with what surrounds it: the provider's set, and what runs on each replica.
struct World {
    now: Instant,
    fleet: Fleet,
    set: Vec<Replica>,
    fixed: bool,
    busy: BTreeMap<ReplicaId, u32>,
}

impl World {
    fn new(fixed: bool) -> Self {
        let (now, fleet) = (Instant::now(), Fleet::default());
        Self { now, fleet, set: Vec::new(), fixed, busy: BTreeMap::new() }
    }

    /// So many replicas, numbered from 0; all ready.
    fn ready(count: u64) -> Self {
        let mut world = Self::new(false);
        (0..count).for_each(|id| world.start(id));
        (0..count).for_each(|id| world.says(id, Health::Ready));
        world
    }

    fn start(&mut self, id: u64) {
        self.set.push(Replica {
            id: ReplicaId(id),
            name: format!("blue-{id}").into(),
            authority: Authority { host: "127.0.0.1".into(), port: 9 },
            since: self.now,
            phase: Phase::Running,
            outdated: false,
        });
        self.see();
    }

    fn see(&mut self) -> Vec<Order> {
        self.fleet.see(self.set.iter().map(|replica| (replica, self.fixed)))
    }

    fn outdate(&mut self) {
        self.set.iter_mut().for_each(|replica| replica.outdated = true);
        self.see();
    }

    fn says(&mut self, id: u64, health: Health) {
        self.fleet.report(ReplicaId(id), health, self.now, PATIENCE);
    }

    fn busy(&mut self, id: u64, busy: u32) {
        self.busy.insert(ReplicaId(id), busy);
    }

    /// Settles, and lets the provider end what is to be removed. What was ordered, as text.
    fn settle(&mut self, desired: u32) -> String {
        let mut texts = Vec::new();
        loop {
            let orders = self.fleet.settle(desired, self.now, |id| self.busy.get(&id).copied().unwrap_or(0));
            if orders.is_empty() {
                break;
            }
            texts.extend(orders.iter().map(|order| match order {
                Order::Admit(target) => format!("admit {}", target.id.0),
                Order::Drain(id) => format!("drain {}", id.0),
                Order::Remove(id) => format!("remove {}", id.0),
            }));
        }
        let remove = self.fleet.wanted(desired).remove;
        self.set.retain(|replica| !remove.contains(&replica.id));
        self.see();
        texts.join(", ")
    }

    fn state(&self, id: u64) -> ReplicaState {
        let name = format!("blue-{id}");
        let statuses = self.fleet.statuses(self.now, |_| 0);
        statuses.into_iter().find(|status| status.name == name).expect("exists").state
    }
}

#[test]
fn victims_are_never_ready_then_unready_then_idle_then_least_busy_and_newest_first() {
    let mut world = World::ready(6);
    world.start(6);
    world.says(5, Health::Unready("503".into()));
    world.busy(0, 1);
    world.busy(1, 2);
    world.busy(2, 1);
    let mut order = Vec::new();
    for desired in (0..7).rev() {
        let text = world.settle(desired);
        let first = text.split(',').next().unwrap();
        order.push(first.strip_prefix("drain ").expect("a victim").parse::<u64>().unwrap());
    }
    assert_eq!(order, [6, 5, 4, 3, 2, 0, 1]);
}

#[test]
fn a_victim_is_ended_when_it_is_empty_and_not_before() {
    let mut world = World::ready(2);
    world.busy(0, 1);
    world.busy(1, 1);
    assert_eq!(world.settle(1), "drain 1");
    assert_eq!(world.fleet.wanted(1), Wanted { replicas: 2, remove: BTreeSet::new() });
    assert_eq!(world.state(1), ReplicaState::Draining);
    assert_eq!(world.settle(1), "");
    world.busy(1, 0);
    assert_eq!(world.settle(1), "remove 1");
    assert_eq!(world.fleet.wanted(1), Wanted { replicas: 1, remove: BTreeSet::new() });
    assert_eq!(world.set.len(), 1);
}

#[test]
fn what_is_to_be_removed_stays_asked_for_until_it_has_gone() {
    let mut world = World::ready(2);
    world.fleet.settle(1, world.now, |_| 0);
    world.fleet.settle(1, world.now, |_| 0);
    let wanted = Wanted { replicas: 1, remove: BTreeSet::from([ReplicaId(1)]) };
    assert_eq!(world.fleet.wanted(1), wanted);
    world.set[1].phase = Phase::Stopping;
    world.see();
    assert_eq!(world.fleet.wanted(1), wanted);
    assert_eq!(world.state(1), ReplicaState::Stopping);
}

#[test]
fn returning_load_takes_victims_back_before_new_ones_are_started() {
    let mut world = World::ready(3);
    (0..3).for_each(|id| world.busy(id, 1));
    assert_eq!(world.settle(1), "drain 2, drain 1");
    assert_eq!(world.settle(2), "admit 1");
    assert_eq!(world.fleet.wanted(2).replicas, 3);
    assert_eq!(world.settle(4), "admit 2");
    assert_eq!(world.fleet.wanted(4).replicas, 4);
}

#[test]
fn old_replicas_serve_until_new_ones_are_ready_one_for_one() {
    let mut world = World::ready(2);
    world.outdate();
    assert_eq!(world.settle(2), "");
    assert_eq!(world.fleet.wanted(2).replicas, 2, "the old ones are not counted");
    world.start(2);
    world.start(3);
    assert_eq!(world.settle(2), "");
    world.says(2, Health::Ready);
    assert_eq!(world.settle(2), "drain 1, remove 1");
    world.says(3, Health::Ready);
    assert_eq!(world.settle(2), "drain 0, remove 0");
    assert_eq!(world.set.len(), 2);
}

#[test]
fn an_old_replica_that_drains_comes_back_when_the_new_one_fails() {
    let mut world = World::ready(1);
    world.busy(0, 1);
    world.outdate();
    world.start(1);
    world.says(1, Health::Ready);
    assert_eq!(world.settle(1), "drain 0");
    world.says(1, Health::Unready("500".into()));
    assert_eq!(world.settle(1), "admit 0");
}

#[test]
fn old_replicas_that_never_were_ready_go_at_once() {
    let mut world = World::new(false);
    world.start(0);
    world.outdate();
    assert_eq!(world.settle(1), "drain 0, remove 0");
}

#[test]
fn a_dead_process_is_ended_when_empty_or_after_the_patience() {
    let mut world = World::ready(2);
    world.busy(0, 1);
    world.says(0, Health::Dead("no answer".into()));
    assert_eq!(world.settle(2), "");
    assert_eq!(world.fleet.wanted(2).replicas, 2, "the next one waits for it to end");
    world.says(0, Health::Ready);
    world.now += PATIENCE;
    assert_eq!(world.settle(2), "remove 0");
    assert_eq!(world.fleet.wanted(2).replicas, 2);
    assert_eq!(world.set.len(), 1);
}

#[test]
fn a_dead_server_of_a_list_is_only_unready() {
    let mut world = World::new(true);
    world.start(0);
    world.says(0, Health::Ready);
    world.says(0, Health::Dead("no answer".into()));
    assert_eq!(world.settle(1), "");
    assert_eq!(world.state(0), ReplicaState::Unready);
}

#[test]
fn servers_taken_out_of_a_list_go_when_another_is_ready() {
    let mut world = World::new(true);
    (0..3).for_each(|id| world.start(id));
    (0..2).for_each(|id| world.says(id, Health::Ready));
    world.set[0].outdated = true;
    world.set[1].outdated = true;
    world.see();
    assert_eq!(world.settle(1), "");
    world.says(2, Health::Ready);
    assert_eq!(world.settle(1), "drain 1, drain 0, remove 0, remove 1");
}

#[test]
fn whoever_is_not_ready_in_time_is_given_up_and_replaced() {
    let mut world = World::ready(1);
    world.start(1);
    world.says(1, Health::Unready("connection refused".into()));
    let timeout = Duration::from_secs(60);
    world.now += timeout - Duration::from_millis(1);
    assert!(world.fleet.give_up(world.now, timeout).is_empty());
    world.now += Duration::from_millis(1);
    assert_eq!(world.fleet.give_up(world.now, timeout), ["blue-1".into()]);
    let wanted = world.fleet.wanted(2);
    assert_eq!(wanted, Wanted { replicas: 2, remove: BTreeSet::from([ReplicaId(1)]) });
    let status = world.fleet.statuses(world.now, |_| 0).pop().expect("it exists");
    let detail = status.detail.expect("a reason");
    assert_eq!(detail, "not ready within 60 s of its start: connection refused");
}

#[test]
fn a_failed_or_vanished_process_leaves_the_gate() {
    let mut world = World::ready(2);
    world.set[0].phase = Phase::Failed("exit code 1".into());
    assert_eq!(world.see(), [Order::Remove(ReplicaId(0))]);
    assert_eq!(world.state(0), ReplicaState::Failed);
    assert_eq!(world.fleet.wanted(2).replicas, 2);
    world.set.remove(1);
    assert_eq!(world.see(), [Order::Remove(ReplicaId(1))]);
}

#[test]
fn a_suspect_is_admitted_at_its_next_success() {
    let mut world = World::ready(1);
    world.fleet.suspect(ReplicaId(0));
    assert_eq!(world.state(0), ReplicaState::Unready);
    let order = world.fleet.report(ReplicaId(0), Health::Ready, world.now, PATIENCE);
    assert!(matches!(order, Some(Order::Admit(_))), "{order:?}");
    assert_eq!(world.state(0), ReplicaState::Ready);
}

/// What the gate says of a replica.
fn report(world: &World, id: u64, standing: Standing, since: Instant) -> Report {
    let why = Some(Why::Failed { failed: 3, of: 4 });
    let since = (standing != Standing::Good).then_some(since);
    assert!(since.is_none_or(|since| since <= world.now));
    Report { replica: ReplicaId(id), standing, since, why, is_new: false }
}

impl World {
    /// Asks for a replacement and settles. What was ordered.
    fn replace(&mut self, desired: u32, most: u32) -> (u32, String) {
        let replacing = self.fleet.replace(desired, most, self.now, PATIENCE);
        let dying = replacing.order.map(|order| match order {
            Order::Drain(id) => format!("drain {}", id.0),
            other => panic!("{other:?}"),
        });
        let orders = self.settle(desired + replacing.extra);
        (replacing.extra, [dying.unwrap_or_default(), orders].join("; "))
    }
}

#[test]
fn a_bad_process_is_replaced_before_it_is_ended() {
    let mut world = World::ready(2);
    let since = world.now;
    let bad =
        |world: &World| [report(world, 0, Standing::Ejected, since), report(world, 1, Standing::Good, since)];
    let news = world.fleet.stand(&bad(&world));
    assert_eq!(news, ["the standing of blue-0 goes from good to ejected (3 of its last 4 requests failed)"]);
    assert!(world.fleet.stand(&bad(&world)).is_empty());
    assert_eq!(world.replace(2, 4), (0, "; ".into()), "it may recover in a moment");
    world.now += Duration::from_secs(10);
    assert_eq!(world.replace(2, 4), (1, "; ".into()));
    assert_eq!(world.fleet.wanted(3).replicas, 3);
    world.start(2);
    assert_eq!(world.replace(2, 4), (1, "; ".into()), "the new one is not ready yet");
    world.says(2, Health::Ready);
    let (extra, orders) = world.replace(2, 4);
    assert!(extra == 0 && orders.starts_with("; drain 0"), "{extra} {orders}");
    let status = world.fleet.statuses(world.now, |_| 0);
    assert!(status.iter().all(|replica| replica.name != "blue-0"), "{status:?}");
}

#[test]
fn one_that_recovers_stays_and_the_new_one_goes() {
    let mut world = World::ready(2);
    let since = world.now;
    world.now += Duration::from_secs(20);
    world.fleet.stand(&[report(&world, 0, Standing::Slow, since)]);
    assert_eq!(world.replace(2, 4).0, 1);
    world.start(2);
    world.fleet.stand(&[report(&world, 0, Standing::Good, since)]);
    let (extra, orders) = world.replace(2, 4);
    assert!(extra == 0 && orders.starts_with("; drain 2"), "{extra} {orders}");
}

#[test]
fn one_that_is_slow_and_new_may_warm_up() {
    let mut world = World::ready(2);
    let since = world.now;
    world.now += Duration::from_secs(20);
    let why = Some(Why::Slow { times: 10.0 });
    let slow = |is_new| Report {
        replica: ReplicaId(0),
        standing: Standing::Ejected,
        since: Some(since),
        why,
        is_new,
    };
    world.fleet.stand(&[slow(true)]);
    assert_eq!(world.replace(2, 4).0, 0);
    world.fleet.stand(&[slow(false)]);
    assert_eq!(world.replace(2, 4).0, 1);
}

#[test]
fn at_most_replicas_the_bad_one_goes_first_and_only_when_it_is_out() {
    let mut world = World::ready(2);
    let since = world.now;
    world.now += Duration::from_secs(20);
    world.busy(0, 1);
    world.fleet.stand(&[report(&world, 0, Standing::Failing, since)]);
    assert_eq!(world.replace(2, 2), (0, "; ".into()), "it is needed");
    world.fleet.stand(&[report(&world, 0, Standing::Ejected, since)]);
    assert_eq!(world.replace(2, 2), (0, "drain 0; ".into()));
    assert_eq!(world.fleet.wanted(2).replicas, 2);
    world.busy(0, 0);
    assert_eq!(world.replace(2, 2).1, "; remove 0");
}

#[test]
fn replacements_are_rare_and_servers_of_a_list_are_left_alone() {
    let mut world = World::ready(3);
    let since = world.now;
    world.now += Duration::from_secs(20);
    let all: Vec<Report> = (0..3).map(|id| report(&world, id, Standing::Slow, since)).collect();
    world.fleet.stand(&all);
    assert_eq!(world.replace(3, 8).0, 1, "one at a time");
    world.set.retain(|replica| replica.id != ReplicaId(0));
    world.see();
    assert_eq!(world.replace(2, 8).0, 0, "the next one waits");
    world.now += Duration::from_secs(60);
    assert_eq!(world.replace(2, 8).0, 1);

    let mut fixed = World::new(true);
    fixed.start(0);
    fixed.says(0, Health::Ready);
    fixed.fleet.stand(&[report(&fixed, 0, Standing::Ejected, fixed.now)]);
    fixed.now += Duration::from_secs(99);
    assert_eq!(fixed.replace(1, 1).0, 0);
    assert_eq!(fixed.replace(1, 4).0, 0);
}
