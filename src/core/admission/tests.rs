//! The pool against a naive model that follows its choices, and the promises one by one.

use proptest::prelude::*;

use super::*;

/// The time does not matter to who is served.
fn now() -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *START
}

fn used() -> Use {
    Use { since: now(), until: now(), outcome: Outcome::Answered, tenant: Tenant::default() }
}

fn limits(slots: u32, max_queue_length: Option<u32>) -> Limits {
    Limits { slots: NonZeroU32::new(slots), max_queue_length }
}

fn pool(slots: u32, replicas: u64) -> Pool {
    let mut pool = Pool::new(limits(slots, None));
    for id in 0..replicas {
        assert_eq!(pool.admit_replica(ReplicaId(id)), []);
    }
    pool
}

fn granted(pool: &mut Pool) -> (TicketId, ReplicaId) {
    match pool.admit(&Ask::default(), now()) {
        Admission::Granted(ticket, replica) => (ticket, replica),
        other => panic!("no slot: {other:?} {pool:?}"),
    }
}

fn queued(pool: &mut Pool) -> TicketId {
    match pool.admit(&Ask::default(), now()) {
        Admission::Queued(ticket) => ticket,
        other => panic!("not queued: {other:?} {pool:?}"),
    }
}

#[test]
fn ties_take_turns() {
    let mut pool = pool(4, 3);
    let order: Vec<u64> = (0..6).map(|_| granted(&mut pool).1.0).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    let mut idle = self::pool(4, 3);
    let order: Vec<u64> = (0..4)
        .map(|_| {
            let (_, replica) = granted(&mut idle);
            idle.release(replica, &used());
            replica.0
        })
        .collect();
    assert_eq!(order, [0, 1, 2, 0], "one request at a time goes round too");
}

#[test]
fn the_least_busy_replica_is_taken() {
    let mut pool = pool(4, 3);
    let held: Vec<_> = (0..9).map(|_| granted(&mut pool).1).collect();
    let two: Vec<_> = held.iter().filter(|replica| replica.0 == 2).collect();
    pool.release(*two[0], &used());
    pool.release(*two[1], &used());
    assert_eq!((granted(&mut pool).1.0, granted(&mut pool).1.0), (2, 2));
}

#[test]
fn without_a_limit_only_a_missing_replica_makes_wait() {
    let mut pool = pool(0, 0);
    let first = queued(&mut pool);
    let second = queued(&mut pool);
    assert_eq!(pool.admit_replica(ReplicaId(7)), [first, second]);
    for _ in 0..1_000 {
        granted(&mut pool);
    }
    assert_eq!(pool.load().slots, None);
    assert_eq!(pool.load().busy, 1_002);
}

#[test]
fn the_queue_is_bounded() {
    let mut pool = pool(1, 1);
    pool.set_limits(limits(1, Some(2)));
    granted(&mut pool);
    let first = queued(&mut pool);
    queued(&mut pool);
    assert_eq!(pool.admit(&Ask::default(), now()), Admission::Refused);
    pool.cancel(first, now());
    queued(&mut pool);
    assert_eq!(pool.admit(&Ask::default(), now()), Admission::Refused);
}

#[test]
fn a_shrink_takes_nothing_away_and_is_honoured_by_releases() {
    let mut pool = pool(3, 1);
    let replica = ReplicaId(0);
    for _ in 0..3 {
        granted(&mut pool);
    }
    let waits = queued(&mut pool);
    assert_eq!(pool.set_limits(limits(1, None)), []);
    assert_eq!(pool.busy(replica), 3);
    assert_eq!((pool.release(replica, &used()), pool.release(replica, &used())), (None, None));
    assert_eq!(pool.release(replica, &used()), Some(waits));
    assert_eq!(pool.busy(replica), 1);
}

#[test]
fn a_draining_replica_calls_when_it_is_empty_and_only_then() {
    let mut pool = pool(2, 1);
    let (_, replica) = granted(&mut pool);
    granted(&mut pool);
    pool.drain(replica);
    assert!(!pool.take_call());
    pool.release(replica, &used());
    assert!(!pool.take_call());
    pool.release(replica, &used());
    assert!(pool.take_call());
    pool.drain(replica);
    assert!(!pool.take_call(), "draining twice is no news");
    queued(&mut pool);
    assert!(pool.take_call(), "somebody waits and no replica admits");
    queued(&mut pool);
    assert!(!pool.take_call(), "the first one has called");
}

#[test]
fn the_last_replica_that_stops_calls_when_somebody_waits() {
    let mut pool = pool(1, 2);
    granted(&mut pool);
    granted(&mut pool);
    queued(&mut pool);
    pool.drain(ReplicaId(0));
    assert!(!pool.take_call(), "there is another one");
    pool.suspend(ReplicaId(1));
    assert!(pool.take_call());
}

#[test]
fn a_removed_replica_is_forgotten_with_its_last_permit() {
    let mut pool = pool(2, 1);
    let (_, replica) = granted(&mut pool);
    granted(&mut pool);
    let waits = queued(&mut pool);
    pool.remove(replica);
    assert_eq!(pool.release(replica, &used()), None, "its slots are not handed on");
    assert_eq!(pool.load().draining, 1);
    pool.release(replica, &used());
    assert_eq!(pool.load(), Load { queued: 1, slots: Some(0), ..Load::default() });
    assert_eq!(pool.admit_replica(ReplicaId(1)), [waits]);
}

#[test]
fn a_grant_that_was_not_claimed_leaves_a_replica_that_stops() {
    let mut pool = pool(1, 1);
    let (_, replica) = granted(&mut pool);
    let first = queued(&mut pool);
    let second = queued(&mut pool);
    assert_eq!(pool.release(replica, &used()), Some(first));
    assert_eq!(pool.remove(replica), []);
    assert_eq!(pool.claim(first), None);
    assert_eq!(pool.admit_replica(ReplicaId(1)), [first], "before those who came later");
    assert_eq!(pool.cancel(first, now()), Some(second));
}

#[test]
fn a_suspect_loses_its_slots_and_the_request_keeps_its_place() {
    let mut pool = pool(1, 2);
    let (first, dead) = granted(&mut pool);
    let (_, alive) = granted(&mut pool);
    let later = queued(&mut pool);
    assert_eq!(pool.suspect(first, dead), []);
    assert!(pool.take_call());
    assert_eq!(pool.release(alive, &used()), Some(first));
    assert_eq!(pool.admit_replica(dead), [later]);
}

#[derive(Clone, Debug)]
enum Step {
    Admit,
    Claim(usize),
    Cancel(usize),
    Release(usize),
    Suspect(usize),
    Open(u64),
    Close(u64, Phase),
    Limits(u32, Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let phase = prop_oneof![Just(Phase::Suspended), Just(Phase::Draining), Just(Phase::Gone)];
    prop_oneof![
        8 => Just(Step::Admit),
        4 => any::<usize>().prop_map(Step::Claim),
        2 => any::<usize>().prop_map(Step::Cancel),
        5 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Suspect),
        2 => (0u64..5).prop_map(Step::Open),
        1 => (0u64..5, phase).prop_map(|(id, phase)| Step::Close(id, phase)),
        1 => (0u32..4, prop::option::of(0u32..6)).prop_map(|(slots, queue)| Step::Limits(slots, queue)),
    ]
}

/// Everything in plain lists. Which of the least busy replicas is taken is the pool's choice; the model follows
/// and says whether it was allowed.
#[derive(Debug)]
struct Model {
    limits: Limits,
    replicas: BTreeMap<ReplicaId, Phase>,
    queue: Vec<TicketId>,
    granted: Vec<(TicketId, ReplicaId)>,
    permits: Vec<(TicketId, ReplicaId)>,
    last: Option<TicketId>,
}

impl Model {
    fn busy(&self, id: ReplicaId) -> u32 {
        self.granted.iter().chain(&self.permits).filter(|(_, on)| *on == id).count().try_into().unwrap()
    }

    /// How busy the least busy replica with a free slot is.
    fn least(&self) -> Option<u32> {
        let most = self.limits.slots.map_or(u32::MAX, NonZeroU32::get);
        let ready = self.replicas.iter().filter(|(_, phase)| **phase == Phase::Ready);
        ready.map(|(id, _)| self.busy(*id)).filter(|busy| *busy < most).min()
    }

    fn may_take(&self, id: ReplicaId) {
        assert_eq!(self.replicas[&id], Phase::Ready);
        assert_eq!(Some(self.busy(id)), self.least(), "the least busy one with a free slot");
    }

    /// The oldest tickets got slots, in this order, and nobody else.
    fn follow(&mut self, pool: &Pool, granted: impl IntoIterator<Item = TicketId>) {
        for ticket in granted {
            assert_eq!(self.queue.remove(0), ticket, "first come, first served");
            let replica = pool.granted[&ticket];
            self.may_take(replica);
            self.granted.push((ticket, replica));
        }
        assert!(self.queue.is_empty() || self.least().is_none(), "nobody waits while a slot is free");
    }

    fn queue(&mut self, ticket: TicketId) {
        self.queue.push(ticket);
        self.queue.sort();
    }

    fn close(&mut self, id: ReplicaId, phase: Phase) {
        let Some(known) = self.replicas.get_mut(&id) else { return };
        *known = (*known).max(phase);
        let (back, kept) = self.granted.drain(..).partition(|(_, on)| *on == id);
        self.granted = kept;
        let back: Vec<(TicketId, ReplicaId)> = back;
        back.into_iter().for_each(|(ticket, _)| self.queue(ticket));
    }

    fn admit(&mut self, pool: &mut Pool) {
        let full = self.limits.max_queue_length.is_some_and(|most| self.queue.len() >= most as usize);
        let waits = !self.queue.is_empty() || self.least().is_none();
        match pool.admit(&Ask::default(), now()) {
            Admission::Granted(ticket, replica) => {
                assert!(!waits && self.last < Some(ticket));
                self.may_take(replica);
                self.permits.push((ticket, replica));
                self.last = Some(ticket);
            }
            Admission::Queued(ticket) => {
                assert!(waits && !full && self.last < Some(ticket));
                self.queue(ticket);
                self.last = Some(ticket);
            }
            Admission::Refused => assert!(waits && full),
        }
    }

    fn step(&mut self, pool: &mut Pool, step: &Step) {
        match *step {
            Step::Admit => self.admit(pool),
            Step::Claim(at) if !self.granted.is_empty() => {
                let (ticket, replica) = self.granted.swap_remove(at % self.granted.len());
                assert_eq!(pool.claim(ticket), Some(replica));
                self.permits.push((ticket, replica));
            }
            Step::Cancel(at) if self.queue.len() + self.granted.len() > 0 => {
                let at = at % (self.queue.len() + self.granted.len());
                let ticket = if at < self.queue.len() {
                    assert_eq!(pool.claim(self.queue[at]), None);
                    self.queue.remove(at)
                } else {
                    self.granted.swap_remove(at - self.queue.len()).0
                };
                let next = pool.cancel(ticket, now());
                self.follow(pool, next);
            }
            Step::Release(at) if !self.permits.is_empty() => {
                let (_, replica) = self.permits.swap_remove(at % self.permits.len());
                let next = pool.release(replica, &used());
                self.follow(pool, next);
            }
            Step::Suspect(at) if !self.permits.is_empty() => {
                let (ticket, replica) = self.permits.swap_remove(at % self.permits.len());
                self.close(replica, Phase::Suspended);
                self.queue(ticket);
                let granted = pool.suspect(ticket, replica);
                self.follow(pool, granted);
            }
            Step::Open(id) => {
                self.replicas.insert(ReplicaId(id), Phase::Ready);
                let granted = pool.admit_replica(ReplicaId(id));
                self.follow(pool, granted);
            }
            Step::Close(id, phase) => {
                let id = ReplicaId(id);
                self.close(id, phase);
                let granted = match phase {
                    Phase::Draining => pool.drain(id),
                    Phase::Gone => pool.remove(id),
                    Phase::Ready | Phase::Suspended => pool.suspend(id),
                };
                self.follow(pool, granted);
            }
            Step::Limits(slots, queue) => {
                self.limits = limits(slots, queue);
                let granted = pool.set_limits(self.limits);
                self.follow(pool, granted);
            }
            Step::Claim(_) | Step::Cancel(_) | Step::Release(_) | Step::Suspect(_) => {}
        }
        let gone: Vec<_> = self.replicas.keys().copied().filter(|id| self.busy(*id) == 0).collect();
        self.replicas.retain(|id, phase| *phase != Phase::Gone || !gone.contains(id));
        self.compare(pool);
    }

    fn compare(&self, pool: &Pool) {
        let mut load = Load { queued: self.queue.len().try_into().unwrap(), ..Load::default() };
        for (id, phase) in &self.replicas {
            assert_eq!(pool.busy(*id), self.busy(*id));
            let draining = *phase >= Phase::Draining;
            load.ready += u32::from(*phase == Phase::Ready);
            load.draining += u32::from(draining);
            *(if draining { &mut load.busy_draining } else { &mut load.busy }) += self.busy(*id);
        }
        load.slots = self.limits.slots.map(|slots| slots.get() * load.ready);
        assert_eq!(pool.load(), load);
        assert!(pool.waiting.iter().eq(&self.queue));
    }
}

proptest! {
    #[test]
    fn the_pool_does_what_a_naive_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let mut pool = Pool::new(limits(1, None));
        let mut model = Model {
            limits: limits(1, None),
            replicas: BTreeMap::new(),
            queue: Vec::new(),
            granted: Vec::new(),
            permits: Vec::new(),
            last: None,
        };
        for step in &steps {
            model.step(&mut pool, step);
        }
        for id in 0..5 {
            model.step(&mut pool, &Step::Close(id, Phase::Gone));
        }
        while model.queue.len() + model.granted.len() + model.permits.len() > 0 {
            model.step(&mut pool, &Step::Cancel(0));
            model.step(&mut pool, &Step::Release(0));
        }
        prop_assert_eq!(pool.load(), Load { slots: model.limits.slots.map(|_| 0), ..Load::default() });
    }
}
