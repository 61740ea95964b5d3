//! Replicas that misbehave, in virtual time: a pool, a Poisson stream of requests, and replicas with manners of their
//! own. One seed gives one run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::core::admission::{
    Admission, Ask, Limits, Outcome, Pool, ReplicaId, Standing, Tenant, TicketId, Use, Why,
};

/// How a replica treats its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::core::admission) enum Manner {
    /// Answers after so many milliseconds on average; the spread of the logarithm comes second.
    Serves(f64, f64),
    /// The same with so many at once: beyond the knee the time grows with their number.
    Batches(f64, f64, u32),
    /// Breaks this share of the requests after so many milliseconds; serves the others in 100 ms.
    Fails(f64, f64),
    /// Answers this share of the requests with 500 after so many milliseconds; serves the others in 100 ms.
    Errs(f64, f64),
    /// Answers this share of the requests after so many milliseconds, the others after so many.
    Mixed(f64, f64, f64),
    /// Answers so many requests after so many milliseconds, and then like the others.
    Warms(u64, f64),
    /// Takes requests and never answers.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// With the number of the outcome.
    Finish(TicketId, ReplicaId, u64, usize),
    TimeOut(TicketId, ReplicaId, u64),
    GiveUp(TicketId),
    Review,
}

/// What came of the requests of one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::core::admission) struct Account {
    pub(in crate::core::admission) taken: u64,
    pub(in crate::core::admission) good: u64,
    pub(in crate::core::admission) bad: u64,
}

/// Microseconds since the start.
pub(in crate::core::admission) struct World {
    pub(in crate::core::admission) pool: Pool,
    pub(in crate::core::admission) manners: Vec<Manner>,
    pub(in crate::core::admission) accounts: Vec<Account>,
    pub(in crate::core::admission) rejected: u64,
    /// Requests each second.
    pub(in crate::core::admission) rate: f64,
    pub(in crate::core::admission) now: u64,
    random: SmallRng,
    start: Instant,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    waiting: BTreeSet<TicketId>,
    running: BTreeMap<ReplicaId, u32>,
}

const TIME_OUT: u64 = 5_000_000;
const LONGEST_WAIT: u64 = 500_000;

impl World {
    pub(in crate::core::admission) fn new(slots: u32, rate: f64, manners: &[Manner], seed: u64) -> Self {
        let limits = Limits { slots: NonZeroU32::new(slots), max_queue_length: Some(1_000) };
        let mut pool = Pool::new(limits);
        let start = Instant::now();
        for id in 0..manners.len() {
            pool.admit_replica(ReplicaId(id as u64), start);
        }
        let mut world = Self {
            pool,
            manners: manners.to_vec(),
            accounts: vec![Account::default(); manners.len()],
            rejected: 0,
            rate,
            now: 0,
            random: SmallRng::seed_from_u64(seed),
            start,
            events: BinaryHeap::new(),
            scheduled: 0,
            waiting: BTreeSet::new(),
            running: BTreeMap::new(),
        };
        world.after(0, Event::Arrive);
        world.after(1_000_000, Event::Review);
        world
    }

    fn after(&mut self, pause: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + pause, self.scheduled, event)));
    }

    pub(in crate::core::admission) fn moment(&self, at: u64) -> Instant {
        self.start + Duration::from_micros(at)
    }

    /// Goes on for so many seconds.
    pub(in crate::core::admission) fn run(&mut self, seconds: u64) {
        let end = self.now + seconds * 1_000_000;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > end {
                self.scheduled += 1;
                self.events.push(Reverse((at, self.scheduled, event)));
                break;
            }
            self.now = at;
            self.on(event);
            if self.pool.take_call() {
                let granted = self.pool.review(self.moment(at));
                self.granted(granted);
            }
        }
        self.now = end;
    }

    fn on(&mut self, event: Event) {
        let now = self.moment(self.now);
        match event {
            Event::Arrive => self.arrive(now),
            Event::GiveUp(ticket) => {
                if self.waiting.remove(&ticket) {
                    self.rejected += 1;
                    assert!(self.pool.expire(ticket, now));
                }
            }
            Event::Finish(_, replica, since, outcome) => {
                let outcome = Outcome::ALL[outcome];
                let good = outcome == Outcome::Answered;
                let account = &mut self.accounts[replica.0 as usize];
                *(if good { &mut account.good } else { &mut account.bad }) += 1;
                *self.running.get_mut(&replica).unwrap() -= 1;
                let used = Use { since: self.moment(since), until: now, outcome, tenant: Tenant::default() };
                let next = self.pool.release(replica, &used);
                self.granted(next);
            }
            Event::TimeOut(_, replica, since) => {
                self.accounts[replica.0 as usize].bad += 1;
                self.pool.overdue(replica, self.moment(since), now);
            }
            Event::Review => {
                self.after(1_000_000, Event::Review);
                let granted = self.pool.review(now);
                self.granted(granted);
            }
        }
    }

    fn arrive(&mut self, now: Instant) {
        let gap = -self.random.random_range(f64::EPSILON..1.0).ln() / self.rate;
        self.after((gap * 1e6) as u64, Event::Arrive);
        match self.pool.admit(&Ask::default(), now) {
            Admission::Granted(ticket, replica) => self.send(ticket, replica),
            Admission::Queued(ticket) => {
                self.waiting.insert(ticket);
                self.after(LONGEST_WAIT, Event::GiveUp(ticket));
            }
            Admission::Refused(..) => self.rejected += 1,
        }
    }

    fn granted(&mut self, tickets: impl IntoIterator<Item = TicketId>) {
        for ticket in tickets {
            assert!(self.waiting.remove(&ticket));
            let replica = self.pool.claim(ticket).unwrap();
            self.send(ticket, replica);
        }
    }

    fn send(&mut self, ticket: TicketId, replica: ReplicaId) {
        let running = self.running.entry(replica).or_default();
        *running += 1;
        let running = *running;
        self.accounts[replica.0 as usize].taken += 1;
        let (ms, outcome) = match self.manners[replica.0 as usize] {
            Manner::Serves(ms, spread) => (ms * self.lognormal(spread), Outcome::Answered),
            Manner::Batches(ms, spread, knee) => {
                let crowd = f64::from(running.max(knee)) / f64::from(knee);
                (ms * self.lognormal(spread) * crowd, Outcome::Answered)
            }
            Manner::Fails(share, ms) if self.random.random_bool(share) => (ms, Outcome::Broken),
            Manner::Errs(share, ms) if self.random.random_bool(share) => (ms, Outcome::Failed),
            Manner::Fails(..) | Manner::Errs(..) => (100.0, Outcome::Answered),
            Manner::Mixed(share, some, others) => {
                let ms = if self.random.random_bool(share) { some } else { others };
                (ms * self.lognormal(0.2), Outcome::Answered)
            }
            Manner::Warms(count, ms) => {
                let cold = self.accounts[replica.0 as usize].taken <= count;
                (if cold { ms } else { 100.0 } * self.lognormal(0.2), Outcome::Answered)
            }
            Manner::Stopped => {
                self.after(TIME_OUT, Event::TimeOut(ticket, replica, self.now));
                return;
            }
        };
        self.after((ms * 1e3) as u64, Event::Finish(ticket, replica, self.now, outcome as usize));
    }

    /// With mean 1.
    fn lognormal(&mut self, spread: f64) -> f64 {
        let (u, v) = (self.random.random_range(f64::EPSILON..1.0), self.random.random_range(0.0..1.0));
        let normal = (-2.0 * f64::ln(u)).sqrt() * (std::f64::consts::TAU * v).cos();
        (spread * normal - spread * spread / 2.0).exp()
    }

    pub(in crate::core::admission) fn standing(&self, replica: usize) -> Standing {
        self.pool.standings()[replica].standing
    }

    /// Share of the requests that replica has had.
    fn share(&self, replica: usize) -> f64 {
        let all: u64 = self.accounts.iter().map(|account| account.taken).sum();
        self.accounts[replica].taken as f64 / all as f64
    }

    /// Share of good answers among all requests that have ended.
    fn good(&self) -> f64 {
        let good: u64 = self.accounts.iter().map(|account| account.good).sum();
        let bad: u64 = self.accounts.iter().map(|account| account.bad).sum();
        good as f64 / (good + bad + self.rejected) as f64
    }
}

const WELL: Manner = Manner::Serves(100.0, 0.3);

#[test]
fn a_slow_replica_gets_little_and_comes_back_when_it_is_fast_again() {
    for (load, slots) in [(0.2, 1), (0.6, 1), (0.6, 4)] {
        let rate = 40.0 * load * f64::from(slots);
        let mut world = World::new(slots, rate, &[WELL, WELL, WELL, Manner::Serves(1000.0, 0.3)], 1);
        world.run(120);
        assert!(world.share(3) <= 0.03, "at {load}, {slots}: {} {:?}", world.share(3), world.accounts);
        let report = world.pool.standings()[3];
        assert_eq!(report.standing, Standing::Ejected, "{report:?}");
        assert!(
            matches!(report.why, Some(Why::Slow { times }) if (5.0..20.0).contains(&times)),
            "{report:?}"
        );
        world.manners[3] = WELL;
        world.run(90);
        world.accounts.fill(Account::default());
        world.run(30);
        assert_eq!(world.standing(3), Standing::Good);
        assert!(world.share(3) > 0.15, "{:?}", world.accounts);
    }
}

#[test]
fn a_slow_replica_works_where_the_others_cannot_carry_the_load() {
    let mut world = World::new(1, 40.0, &[WELL, WELL, WELL, Manner::Serves(1000.0, 0.3)], 2);
    world.run(60);
    assert_eq!(world.standing(3), Standing::Slow);
    assert!(world.accounts[3].good >= 40, "{:?}", world.accounts);
}

#[test]
fn a_failing_replica_is_taken_out_after_two_failures() {
    for (seed, slots) in [(3, 1), (4, 4)] {
        let failing = Manner::Fails(1.0, 2.0);
        let mut world = World::new(slots, 24.0, &[WELL, WELL, WELL, failing], seed);
        world.run(1);
        assert!(world.accounts[3].bad <= 4, "{:?}", world.accounts);
        world.run(59);
        assert!(world.good() >= 0.99, "{slots}: {} {:?}", world.good(), world.accounts);
        world.manners[3] = WELL;
        world.run(70);
        assert_eq!(world.standing(3), Standing::Good);
    }
}

#[test]
fn a_replica_that_only_fails_is_missed_by_nobody_even_under_full_load() {
    let mut world = World::new(1, 29.0, &[WELL, WELL, WELL, Manner::Fails(1.0, 1.0)], 5);
    world.run(60);
    assert!(world.accounts[3].bad <= 25, "{:?}", world.accounts);
    let good: u64 = world.accounts.iter().map(|account| account.good).sum();
    assert!(good as f64 >= 0.9 * 29.0 * 60.0, "{:?} {}", world.accounts, world.rejected);
}

#[test]
fn a_stopped_replica_costs_few_requests() {
    for (slots, rate) in [(1, 20.0), (4, 80.0)] {
        let mut world = World::new(slots, rate, &[WELL; 4], 6);
        world.run(10);
        world.manners[3] = Manner::Stopped;
        world.run(50);
        assert!(world.accounts[3].bad <= u64::from(slots) + 1, "{:?}", world.accounts);
        assert!(world.good() >= 0.99, "{slots}: {} {:?}", world.good(), world.accounts);
        assert!(
            matches!(world.standing(3), Standing::Silent | Standing::Ejected),
            "{}",
            world.standing(3).as_str()
        );
    }
}

#[test]
fn where_all_fail_alike_nobody_is_blamed() {
    // The model fails for some inputs, for most, for all.
    for (share, seed) in [(0.1, 7), (0.3, 8), (0.6, 9), (1.0, 10)] {
        let mut world = World::new(2, 40.0, &[Manner::Fails(share, 80.0); 4], seed);
        world.run(20);
        let mut out = 0;
        for _ in 0..100 {
            world.run(1);
            out += (0..4).filter(|id| world.standing(*id) == Standing::Ejected).count();
            assert!(world.pool.load().slots >= Some(4), "{share}: {:?}", world.pool.standings());
        }
        assert!(out <= 8, "{share}: {out} of 400 replica-seconds out");
    }
}

#[test]
fn a_replica_that_answers_500_to_everything_is_taken_out_and_comes_back() {
    // From the beginning and after a while; quickly and as slowly as others; at little load and at much.
    for (seed, slots, rate) in [(20, 1, 20.0), (21, 1, 27.0), (22, 4, 40.0), (23, 4, 100.0)] {
        for (ms, before) in [(1.0, 0), (100.0, 0), (1.0, 30), (100.0, 30)] {
            let erring = Manner::Errs(1.0, ms);
            let mut world = World::new(slots, rate, &[WELL; 4], seed);
            world.manners[3] = if before == 0 { erring } else { WELL };
            world.run(before);
            world.manners[3] = erring;
            world.accounts.fill(Account::default());
            world.rejected = 0;
            world.run(60);
            assert!(
                world.accounts[3].bad as f64 <= 0.01 * 60.0 * rate,
                "{rate}, {ms}, {before}: {:?}",
                world.accounts
            );
            let report = world.pool.standings()[3];
            assert!(
                matches!(report.why, Some(Why::Erred { row }) if row >= 5)
                    && report.standing == Standing::Ejected,
                "{report:?}"
            );
            world.manners[3] = WELL;
            world.run(70);
            assert_eq!(world.standing(3), Standing::Good);
        }
    }
}

#[test]
fn replicas_that_begin_to_answer_500_one_after_the_other_are_all_taken_out() {
    let mut world = World::new(1, 8.0, &[WELL; 4], 24);
    world.run(20);
    for id in [1, 2, 3] {
        world.manners[id] = Manner::Errs(1.0, 10.0);
        world.run(20);
        assert!(
            matches!(world.standing(id), Standing::Ejected | Standing::Probation),
            "{:?}",
            world.accounts
        );
    }
    world.accounts.fill(Account::default());
    world.run(60);
    assert!(world.accounts[1..].iter().all(|account| account.bad <= 3), "{:?}", world.accounts);
}

#[test]
fn a_model_that_answers_500_to_some_input_loses_no_replica() {
    for (replicas, slots) in [(2, 1), (4, 1), (4, 4), (16, 2)] {
        for (share, ms, seed) in [
            (0.01, 1.0, 30),
            (0.05, 1.0, 31),
            (0.05, 100.0, 32),
            (0.08, 1.0, 33),
            (0.15, 1.0, 34),
            (0.5, 1.0, 35),
            (1.0, 1.0, 36),
        ] {
            let rate = 6.0 * f64::from(slots) * replicas as f64;
            let mut world = World::new(slots, rate, &vec![Manner::Errs(share, ms); replicas], seed);
            for _ in 0..200 {
                world.run(1);
                let all_well = (0..replicas).all(|id| world.standing(id) != Standing::Ejected);
                assert!(all_well, "{replicas}, {share}: {:?}", world.pool.standings());
            }
        }
    }
}

#[test]
fn a_burst_of_bad_input_takes_no_replica_out() {
    for seed in 40..45 {
        let mut world = World::new(1, 24.0, &[WELL; 4], seed);
        world.run(30);
        for _ in 0..20 {
            world.manners.fill(Manner::Errs(0.7, 1.0));
            world.run(2);
            assert!((0..4).all(|id| world.standing(id) != Standing::Ejected), "{:?}", world.pool.standings());
            world.manners.fill(WELL);
            world.run(8);
        }
    }
}

#[test]
fn three_of_four_that_fail_leave_the_work_to_the_good_one() {
    let failing = Manner::Fails(1.0, 5.0);
    let mut world = World::new(1, 5.0, &[failing, WELL, failing, failing], 11);
    world.run(60);
    world.accounts.fill(Account::default());
    world.run(60);
    assert!(world.accounts[1].good as f64 >= 0.9 * 5.0 * 60.0 * 0.9, "{:?}", world.accounts);
}

#[test]
fn without_passive_health_nobody_is_taken_out() {
    let mut world = World::new(1, 20.0, &[WELL, WELL, WELL, Manner::Fails(1.0, 50.0)], 12);
    world.pool.set_passive_health(false, world.start);
    world.run(20);
    assert_eq!(world.standing(3), Standing::Good);
    assert!(world.share(3) > 0.2, "{:?}", world.accounts);
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        Just(WELL),
        (1.0..3000.0, 0.0..1.5).prop_map(|(ms, spread)| Manner::Serves(ms, spread)),
        (0.0..=1.0, 1.0..500.0).prop_map(|(share, ms)| Manner::Fails(share, ms)),
        (0.0..=1.0, 1.0..500.0).prop_map(|(share, ms)| Manner::Errs(share, ms)),
        Just(Manner::Stopped),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The pool's own checks say that it is never all out and that nobody waits while a slot is free; whoever behaves
    /// again is good again.
    #[test]
    fn whatever_they_do_they_come_back(
        manners in prop::collection::vec(manner(), 1..6),
        slots in 1..4_u32,
        rate in 1.0..100.0,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(slots, rate, &manners, seed);
        world.run(40);
        world.rate = 20.0;
        for (id, before) in manners.iter().enumerate() {
            // What was stopped keeps its slots: nobody lets go of them here.
            if *before != Manner::Stopped {
                world.manners[id] = WELL;
            }
        }
        world.run(200);
        for (id, before) in manners.iter().enumerate() {
            if *before != Manner::Stopped && manners.iter().all(|manner| *manner != Manner::Stopped) {
                prop_assert_eq!(world.standing(id), Standing::Good, "{:?}", world.pool.standings());
            }
        }
    }
}

/// Something that asks and answers by hand, in milliseconds.
struct Hand {
    pool: Pool,
    start: Instant,
}

impl Hand {
    fn new(slots: u32, replicas: u64) -> Self {
        let start = Instant::now();
        let mut pool = Pool::new(Limits { slots: NonZeroU32::new(slots), max_queue_length: Some(1_000) });
        for id in 0..replicas {
            pool.admit_replica(ReplicaId(id), start);
        }
        Self { pool, start }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn take(&mut self, ms: u64) -> ReplicaId {
        match self.pool.admit(&Ask::default(), self.at(ms)) {
            Admission::Granted(_, replica) => replica,
            other => panic!("no slot: {other:?}"),
        }
    }

    fn end(&mut self, replica: ReplicaId, since: u64, until: u64, outcome: Outcome) {
        let used = Use { since: self.at(since), until: self.at(until), outcome, tenant: Tenant::default() };
        assert_eq!(self.pool.release(replica, &used), None);
    }

    fn standing(&self, replica: usize) -> Standing {
        self.pool.standings()[replica].standing
    }
}

#[test]
fn failures_of_what_was_in_flight_give_an_ejected_replica_nothing() {
    let mut hand = Hand::new(8, 3);
    let held: Vec<ReplicaId> = (0..15).map(|_| hand.take(0)).collect();
    for (ms, replica) in (1..).zip(held.iter().filter(|replica| replica.0 != 0)) {
        hand.end(*replica, 0, ms, Outcome::Answered);
    }
    let now = hand.at(100);
    hand.pool.review(now);
    for replica in held.iter().filter(|replica| replica.0 == 0) {
        hand.end(*replica, 0, 200, Outcome::Broken);
    }
    assert_eq!(hand.standing(0), Standing::Ejected);
    assert_eq!(hand.pool.load().slots, Some(16));
    for ms in 201..251 {
        let replica = hand.take(ms);
        assert_ne!(replica, ReplicaId(0));
        hand.end(replica, ms, ms + 1, Outcome::Answered);
    }
}

#[test]
fn one_that_answers_500_quickly_is_not_first_where_one_request_comes_after_the_other() {
    // The siblings were slow once, and are known by that for a while.
    for peaks in [[1, 40, 40, 40], [1, 1, 1, 40], [1, 1, 20, 40]] {
        let mut hand = Hand::new(4, 4);
        let first: Vec<_> = (0..4).map(|_| hand.take(0)).collect();
        for replica in first {
            hand.end(replica, 0, peaks[replica.0 as usize], Outcome::Answered);
        }
        let mut errors = 0;
        for ms in (50..650).step_by(2) {
            let replica = hand.take(ms);
            let outcome = if replica.0 == 0 { Outcome::Failed } else { Outcome::Answered };
            errors += u32::from(outcome == Outcome::Failed);
            hand.end(replica, ms, ms + 1, outcome);
        }
        assert!(errors <= 6, "{peaks:?}: {errors} of 300, {:?}", hand.pool.standings());
    }
}

/// A client alone sends what the model answers with 500 as each fourth request, then as each third, then as each second
/// one: replicas take turns, so that it is always the same that has it.
fn eject_three_of_four(hand: &mut Hand) -> u64 {
    let mut now = 0;
    for (every, rounds) in [(1_000, 200), (4, 20), (3, 15), (2, 10)] {
        for number in 1..=rounds {
            now += 50;
            let replica = hand.take(now);
            let outcome = if number % every == 0 { Outcome::Failed } else { Outcome::Answered };
            hand.end(replica, now, now + 10, outcome);
            let at = hand.at(now);
            assert!(hand.pool.review(at).is_empty());
        }
    }
    now
}

/// `rate` requests each second of 100 ms each, for so many seconds, with a review each second. Returns those that were refused.
fn load(hand: &mut Hand, from: u64, rate: u64, seconds: u64, outcome: fn(ReplicaId) -> Outcome) -> u64 {
    let (mut running, mut waiting, mut refused) = (Vec::new(), BTreeMap::new(), 0);
    for ms in 0..seconds * 1_000 {
        let now = from + ms;
        let at = hand.at(now);
        let mut granted = if ms % 1_000 == 999 { hand.pool.review(at) } else { Vec::new() };
        for (replica, since) in running.extract_if(.., |(_, since)| *since + 100 <= now).collect::<Vec<_>>() {
            let (since, outcome) = (hand.at(since), outcome(replica));
            let used = Use { since, until: at, outcome, tenant: Tenant::default() };
            granted.extend(hand.pool.release(replica, &used));
        }
        for ticket in granted {
            waiting.remove(&ticket);
            running.push((hand.pool.claim(ticket).unwrap(), now));
        }
        for ticket in waiting.extract_if(.., |_, since| *since + 500 <= now).map(|(ticket, _)| ticket) {
            hand.pool.expire(ticket, at);
            refused += 1;
        }
        if ms % (1_000 / rate) == 0 {
            match hand.pool.admit(&Ask::default(), at) {
                Admission::Granted(_, replica) => running.push((replica, now)),
                Admission::Queued(ticket) => _ = waiting.insert(ticket, now),
                Admission::Refused(..) => refused += 1,
            }
        }
    }
    refused
}

#[test]
fn replicas_that_bad_input_of_one_client_took_out_are_there_when_others_need_them() {
    let mut hand = Hand::new(1, 4);
    hand.pool.set_limits(Limits { slots: NonZeroU32::new(1), max_queue_length: Some(10) }, hand.start);
    let now = eject_three_of_four(&mut hand);
    let out = (0..4).filter(|id| hand.standing(*id) == Standing::Ejected).count();
    assert_eq!(out, 3, "{:?}", hand.pool.standings());
    let refused = load(&mut hand, now + 1, 25, 3, |_| Outcome::Answered);
    assert!(refused <= 12, "{refused} of 75 refused: {:?}", hand.pool.standings());
}

#[test]
fn one_that_answers_500_is_tried_once_a_second_at_most_while_there_is_too_much_to_do() {
    for (rate, ms) in [(29.0, 1.0), (40.0, 1.0), (40.0, 100.0), (80.0, 1.0)] {
        let mut world = World::new(1, rate, &[WELL, WELL, WELL, Manner::Errs(1.0, ms)], 25);
        world.run(60);
        assert!(world.accounts[3].bad <= 60 + 5, "{rate}, {ms}: {:?}", world.accounts);
        let good: u64 = world.accounts.iter().map(|account| account.good).sum();
        assert!(good as f64 >= 0.9 * rate.min(30.0) * 60.0, "{rate}, {ms}: {:?}", world.accounts);
    }
}

#[test]
fn a_failing_replica_with_many_slots_costs_few_requests_where_all_are_in_use() {
    for (rate, ms) in [(290.0, 50.0), (310.0, 20.0), (400.0, 200.0)] {
        for seed in 1..3 {
            let mut world = World::new(8, rate, &[WELL; 4], seed);
            world.run(10);
            world.accounts.fill(Account::default());
            world.manners[3] = Manner::Fails(1.0, ms);
            world.run(30);
            assert!(world.accounts[3].bad <= 30, "{rate}, {ms}: {:?}", world.accounts);
        }
    }
}

#[test]
fn a_slow_trial_takes_nobody_out_who_is_the_last_one() {
    let mut hand = Hand::new(4, 3);
    let mut ms = 0;
    let mut step = |hand: &mut Hand, outcome: fn(u64) -> Option<Outcome>| {
        let replica = hand.take(ms);
        if let Some(outcome) = outcome(replica.0) {
            hand.end(replica, ms, ms + 100, outcome);
        }
        ms += 100;
        let now = hand.at(ms);
        assert!(hand.pool.review(now).is_empty());
        ms
    };
    // The first one is slow, the second one stops while that is on trial, and the third one is drained.
    for _ in 0..12 {
        step(&mut hand, |_| Some(Outcome::Answered));
    }
    while hand.standing(0) != Standing::Ejected {
        step(&mut hand, |id| Some(if id == 0 { Outcome::Broken } else { Outcome::Answered }));
    }
    while hand.standing(0) != Standing::Probation {
        step(&mut hand, |_| Some(Outcome::Answered));
    }
    let trial = hand.take(0);
    assert_eq!(trial, ReplicaId(0));
    let mut until = 0;
    while hand.standing(1) != Standing::Silent {
        until = step(&mut hand, |id| (id != 1).then_some(Outcome::Answered));
    }
    let now = hand.at(until);
    hand.pool.drain(ReplicaId(2), now);
    hand.end(trial, until - 1_500, until, Outcome::Answered);
    assert_ne!(hand.pool.load().slots, Some(0), "{:?}", hand.pool.standings());
}

#[test]
fn one_that_failed_is_not_kept_out_for_a_slow_answer() {
    let manners = [
        Manner::Serves(300.0, 0.3),
        Manner::Serves(300.0, 1.5),
        Manner::Mixed(0.5, 1.0, 300.0),
        Manner::Mixed(0.9, 5.0, 300.0),
        Manner::Mixed(0.2, 5.0, 300.0),
    ];
    for (seed, manner) in (1..7).flat_map(|seed| manners.map(|manner| (seed, manner))) {
        let mut world = World::new(4, 15.0, &[manner; 4], seed);
        world.run(20);
        world.manners[3] = Manner::Fails(1.0, 1.0);
        world.run(3);
        world.manners[3] = manner;
        world.run(20);
        let out = (0..100).filter(|_| {
            world.run(1);
            (0..4).any(|id| world.standing(id) == Standing::Ejected)
        });
        let out = out.count();
        assert!(out <= 2, "{manner:?} {seed}: {out} s, {:?}", world.pool.standings());
    }
}

#[test]
fn a_long_request_from_before_does_not_keep_a_replica_from_its_trial() {
    let mut hand = Hand::new(4, 3);
    let mut ms = 0;
    let long = (0..3).map(|_| hand.take(0)).collect::<Vec<_>>();
    assert_eq!(long, [0, 1, 2].map(ReplicaId));
    let mut taken = [0; 3];
    let mut step = |hand: &mut Hand, breaks: bool| {
        let replica = hand.take(ms);
        taken[replica.0 as usize] += 1;
        let outcome = if breaks && replica.0 == 0 { Outcome::Broken } else { Outcome::Answered };
        hand.end(replica, ms, ms + 100, outcome);
        ms += 100;
        assert!(ms < 60_000, "{:?}", hand.pool.standings());
        let now = hand.at(ms);
        assert!(hand.pool.review(now).is_empty());
        (ms, taken[0])
    };
    (0..12).for_each(|_| _ = step(&mut hand, false));
    while hand.standing(0) != Standing::Ejected {
        step(&mut hand, true);
    }
    let (began, before) = step(&mut hand, false);
    while hand.standing(0) != Standing::Good {
        let (ms, now) = step(&mut hand, false);
        assert!(now <= before + 3 && ms < began + 5_000, "one at a time: {:?}", hand.pool.standings());
        assert!(hand.pool.busy(ReplicaId(0)) == 1);
    }
    // Its end, on the other hand, shows nothing.
    while hand.standing(0) != Standing::Ejected {
        step(&mut hand, true);
    }
    let mut until = 0;
    while hand.standing(0) != Standing::Probation {
        (until, _) = step(&mut hand, false);
    }
    hand.end(ReplicaId(0), 0, until, Outcome::Broken);
    assert_eq!((hand.standing(0), hand.pool.load().slots), (Standing::Probation, Some(9)));
}

#[test]
fn a_new_replica_may_warm_up_by_its_first_requests() {
    for (seed, count, ms) in (1..5).flat_map(|seed| [(seed, 10, 1000.0), (seed, 40, 600.0)]) {
        let mut world = World::new(4, 40.0, &[WELL; 4], seed);
        world.run(30);
        let now = world.moment(world.now);
        world.manners.push(Manner::Warms(count, ms));
        world.accounts.push(Account::default());
        let granted = world.pool.admit_replica(ReplicaId(4), now);
        world.granted(granted);
        let mut seconds = 0;
        while world.accounts[4].good < count {
            world.run(1);
            seconds += 1;
            assert!(seconds < 100, "{count}, {ms}: {:?}", world.accounts);
        }
        world.run(10);
        let good = (0..100).filter(|_| {
            world.run(1);
            world.standing(4) == Standing::Good
        });
        assert!(good.count() >= 95, "{count}, {ms}: {:?}", world.pool.standings()[4]);
    }
}
