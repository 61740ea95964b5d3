//! That `Retry-After` is true: clients that obey it are admitted when they come back. The pool itself in virtual time,
//! with clients that know milliseconds and such that know whole seconds, in equal parts.

#![allow(
    clippy::allow_attributes,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking, and say what they measured"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use scoregate::core::admission::{
    Admission, Ask, Class, Limits, Mark, Outcome, Pool, Queueing, ReplicaId, Tenant, TicketId, Use,
};

/// What happens, at a time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Fresh,
    Return(usize),
    Finish(ReplicaId, u64),
    GiveUp(TicketId, usize),
    Starts { replicas: u64, ready: u64 },
    Ready(ReplicaId),
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    refusals: u32,
    told: u64,
    back_at: u64,
    /// Knows whole seconds only.
    coarse: bool,
    /// How it is known this time.
    mark: u64,
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    seed: u64,
    replicas: u64,
    max_queue_length: Option<u32>,
    max_wait: u64,
    service: u64,
    /// Arrivals in a second, and until when.
    fresh: f64,
    until: u64,
    /// Whether clients send their id again.
    known: bool,
    /// When how many more replicas start.
    starts: Option<(u64, u64)>,
    /// One in how many clients knows whole seconds only; 0 is none.
    coarse_in: usize,
    /// Whether a quarter is critical and another one sheddable.
    classes: bool,
    /// Nothing new comes from the one moment to the other.
    pause: (u64, u64),
    /// Those who send no id come over so many kept connections (a proxy's); 0: each over its own.
    connections: u64,
}

struct World {
    scenario: Scenario,
    random: SmallRng,
    start: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pool: Pool,
    clients: Vec<Client>,
    waiting: BTreeMap<TicketId, usize>,
    first_returns: u32,
    admitted_then: u32,
    /// How far the moment of the slot was from the one told, by the time told.
    errors: Vec<f64>,
    attempts: u64,
    served: u64,
}

const LIMIT: u32 = 1;

impl World {
    fn run(scenario: Scenario) -> Self {
        let limits = Limits { slots: NonZeroU32::new(LIMIT), max_queue_length: scenario.max_queue_length };
        let mut pool = Pool::new(limits);
        let max_wait = Duration::from_micros(scenario.max_wait);
        pool.set_queueing(Queueing { max_wait, ..Queueing::default() });
        let mut world = Self {
            scenario,
            random: SmallRng::seed_from_u64(scenario.seed),
            start: Instant::now(),
            now: 0,
            events: BinaryHeap::new(),
            pool,
            clients: Vec::new(),
            waiting: BTreeMap::new(),
            first_returns: 0,
            admitted_then: 0,
            errors: Vec::new(),
            attempts: 0,
            served: 0,
        };
        (0..scenario.replicas).for_each(|id| world.ready(ReplicaId(id)));
        world.at(0, Event::Fresh);
        if let Some((from, replicas)) = scenario.starts {
            world.at(from, Event::Starts { replicas, ready: from + 3_000_000 });
        }
        while let Some(Reverse((at, _, event))) = world.events.pop() {
            world.now = at;
            world.handle(event);
        }
        world
    }

    fn at(&mut self, at: u64, event: Event) {
        let order = self.random.random();
        self.events.push(Reverse((at, order, event)));
    }

    fn moment(&self, at: u64) -> Instant {
        self.start + Duration::from_micros(at)
    }

    /// A time of this mean, exponentially distributed.
    fn about(&mut self, mean: f64) -> u64 {
        let uniform: f64 = self.random.random_range(1e-9..1.0);
        (-uniform.ln() * mean) as u64
    }

    fn ready(&mut self, replica: ReplicaId) {
        let granted = self.pool.admit_replica(replica, self.moment(self.now));
        let starting = self.pool.expected().iter().skip(1).copied().collect();
        self.pool.expect(starting);
        granted.into_iter().for_each(|ticket| self.granted(ticket));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Fresh => {
                let number = self.clients.len();
                let coarse = number.checked_rem(self.scenario.coarse_in) == Some(0);
                self.clients.push(Client { coarse, ..Client::default() });
                self.ask(self.clients.len() - 1);
                let next = self.now + self.about(1e6 / self.scenario.fresh);
                let (from, to) = self.scenario.pause;
                let next = if (from..to).contains(&next) { to } else { next };
                if next < self.scenario.until {
                    self.at(next, Event::Fresh);
                }
            }
            Event::Return(client) => self.ask(client),
            Event::Finish(replica, since) => {
                let used = Use {
                    since: self.moment(since),
                    until: self.moment(self.now),
                    outcome: Outcome::Answered,
                    tenant: Tenant::default(),
                };
                self.served += 1;
                if let Some(ticket) = self.pool.release(replica, &used) {
                    self.granted(ticket);
                }
            }
            Event::GiveUp(ticket, client) => {
                if self.waiting.get(&ticket) == Some(&client)
                    && self.pool.expire(ticket, self.moment(self.now))
                {
                    self.waiting.remove(&ticket);
                    self.refused(ticket, client);
                }
            }
            Event::Starts { replicas, ready } => {
                self.pool.expect(vec![self.moment(ready); replicas as usize]);
                // They are a little late.
                (0..replicas).for_each(|id| self.at(ready + 200_000, Event::Ready(ReplicaId(1_000 + id))));
            }
            Event::Ready(replica) => self.ready(replica),
        }
        for ticket in self.pool.take_turned_away() {
            self.pool.verdict(ticket);
            if let Some(client) = self.waiting.remove(&ticket) {
                self.refused(ticket, client);
            }
        }
    }

    fn ask_of(&self, client: usize) -> Ask {
        let class = match client % 4 {
            0 if self.scenario.classes => Class::Critical,
            3 if self.scenario.classes => Class::Sheddable,
            _ => Class::Default,
        };
        let of_connection = !self.scenario.known;
        let mark = Mark { id: self.clients[client].mark, of_connection, ..Mark::default() };
        Ask { class, mark, ..Ask::default() }
    }

    fn ask(&mut self, client: usize) {
        self.attempts += 1;
        // One on a new connection and without an id is another one each time.
        self.clients[client].mark = match self.scenario.connections {
            _ if self.scenario.known => client as u64 + 1,
            0 => self.attempts << 32,
            connections => 1 << 63 | self.random.random_range(1..=connections),
        };
        match self.pool.admit(&self.ask_of(client), self.moment(self.now)) {
            Admission::Granted(_, replica) => self.runs(client, replica),
            Admission::Queued(ticket) => {
                self.waiting.insert(ticket, client);
                self.at(self.now + self.scenario.max_wait, Event::GiveUp(ticket, client));
            }
            Admission::Refused(ticket, _) => self.refused(ticket, client),
        }
    }

    fn granted(&mut self, ticket: TicketId) {
        let replica = self.pool.claim(ticket).unwrap();
        let client = self.waiting.remove(&ticket).unwrap();
        self.runs(client, replica);
    }

    fn runs(&mut self, client: usize, replica: ReplicaId) {
        let Client { refusals, told, back_at, .. } = self.clients[client];
        if refusals == 1 {
            self.first_returns += 1;
            self.admitted_then += 1;
            self.errors.push(self.now.abs_diff(back_at) as f64 / told as f64);
        }
        let time = self.about(self.scenario.service as f64);
        self.at(self.now + time, Event::Finish(replica, self.now));
    }

    fn refused(&mut self, ticket: TicketId, client: usize) {
        let retry = self.pool.promise(ticket, &self.ask_of(client), self.moment(self.now));
        let it = &mut self.clients[client];
        self.first_returns += u32::from(it.refusals == 1);
        it.refusals += 1;
        it.told = if it.coarse { retry.seconds * 1_000_000 } else { retry.wait.as_micros() as u64 };
        it.back_at = self.now + it.told;
        let back_at = it.back_at;
        self.at(back_at, Event::Return(client));
    }

    fn report(&mut self) -> (f64, f64) {
        self.errors.sort_by(f64::total_cmp);
        let share = f64::from(self.admitted_then) / f64::from(self.first_returns);
        let error = self.errors[self.errors.len() / 2];
        let each = self.attempts as f64 / self.served as f64;
        eprintln!(
            "{:?}: {} of {} admitted on first return ({share:.3}), median error {error:.3}, {each:.2} attempts each",
            self.scenario, self.admitted_then, self.first_returns
        );
        (share, error)
    }
}

const OVERLOAD: Scenario = Scenario {
    seed: 1,
    replicas: 5,
    max_queue_length: None,
    max_wait: 500_000,
    service: 100_000,
    // Twice what five replicas can serve.
    fresh: 100.0,
    until: 30_000_000,
    known: true,
    starts: None,
    coarse_in: 2,
    classes: false,
    pause: (0, 0),
    connections: 0,
};

#[test]
fn under_overload_nine_of_ten_are_admitted_when_they_come_back() {
    for seed in 1..4 {
        for max_queue_length in [None, Some(10), Some(50)] {
            for (replicas, service) in [(5, 100_000), (1, 20_000), (50, 1_000_000)] {
                for coarse_in in [0, 1, 2] {
                    let scenario =
                        Scenario { seed, max_queue_length, replicas, service, coarse_in, ..OVERLOAD };
                    let (share, error) = World::run(scenario).report();
                    assert!(share >= 0.9 && error <= 0.2, "{scenario:?}: {share} {error}");
                }
            }
        }
    }
}

#[test]
fn less_important_ones_are_told_when_it_is_their_turn() {
    for seed in 1..4 {
        for max_queue_length in [None, Some(10), Some(50)] {
            let scenario = Scenario { seed, max_queue_length, classes: true, ..OVERLOAD };
            let (share, _) = World::run(scenario).report();
            assert!(share >= 0.9, "{scenario:?}: {share}");
        }
    }
}

#[test]
fn replicas_that_start_are_counted_on() {
    for seed in 1..4 {
        let starts = Some((1_000_000, 8));
        let scenario = Scenario { seed, starts, fresh: 100.0, until: 20_000_000, ..OVERLOAD };
        let (share, error) = World::run(scenario).report();
        assert!(share >= 0.9 && error <= 0.2, "{scenario:?}: {share} {error}");
        // Nobody is there at first.
        let starts = Some((20_000, 8));
        let scenario = Scenario { replicas: 0, starts, max_queue_length: Some(10), ..scenario };
        let (share, _) = World::run(scenario).report();
        assert!(share >= 0.9, "{scenario:?}: {share}");
    }
}

#[test]
fn after_a_burst_clients_without_an_id_are_spread_as_well() {
    let burst = Scenario { until: 2_000_000, known: false, ..OVERLOAD };
    let (share, _) = World::run(burst).report();
    assert!(share >= 0.8, "{share}");
}

/// One replica with one slot, and so many places in the queue.
fn one_slot(places: u32, start: Instant) -> Pool {
    let mut pool = Pool::new(Limits { slots: NonZeroU32::new(1), max_queue_length: Some(places) });
    pool.set_queueing(Queueing { max_wait: Duration::from_millis(500), ..Queueing::default() });
    pool.admit_replica(ReplicaId(0), start);
    pool
}

#[test]
fn who_is_still_to_come_is_counted_although_nobody_has_waited_for_a_while() {
    let start = Instant::now();
    let at = |us: u64| start + Duration::from_micros(us);
    let ask = |id: u64| Ask { mark: Mark { id, ..Mark::default() }, ..Ask::default() };
    let used = |from: u64| Use {
        since: at(from),
        until: at(from + 200_000),
        outcome: Outcome::Answered,
        tenant: Tenant::default(),
    };
    // One slot, 200 ms each, and nobody may wait.
    let mut pool = one_slot(0, start);
    let Admission::Granted(_, replica) = pool.admit(&ask(0), start) else { panic!() };
    pool.release(replica, &used(0));
    let now = 200_000;
    let Admission::Granted(..) = pool.admit(&ask(0), at(now)) else { panic!() };
    let mut running = now;
    let mut told = Vec::new();
    for id in 1..=20 {
        let Admission::Refused(ticket, _) = pool.admit(&ask(id), at(now)) else { panic!() };
        told.push((id, now + pool.promise(ticket, &ask(id), at(now)).wait.as_micros() as u64));
    }
    let last = told[19].1;
    // Ten come back as they were told, and find the slot free: nobody waits for two seconds.
    for (id, due) in &told[..10] {
        pool.release(replica, &used(running));
        let back = pool.admit(&ask(*id), at(*due));
        assert!(matches!(back, Admission::Granted(..)), "{id}: {back:?}");
        running = *due;
    }
    // The other ten are still to come when somebody new is refused.
    let now = running + 1_000;
    let Admission::Refused(ticket, _) = pool.admit(&ask(21), at(now)) else { panic!() };
    let new = now + pool.promise(ticket, &ask(21), at(now)).wait.as_micros() as u64;
    assert!(new >= last, "told to come {} ms before the last one of those", (last - new) / 1_000);
}

#[test]
fn those_who_share_the_connections_of_a_proxy_are_not_all_told_the_same() {
    let burst =
        Scenario { until: 2_000_000, known: false, max_queue_length: Some(10), coarse_in: 0, ..OVERLOAD };
    let (own, _) = World::run(burst).report();
    for connections in [1, 5, 20] {
        let (share, _) = World::run(Scenario { connections, ..burst }).report();
        assert!(share >= own - 0.1, "{connections} connections: {share:.3}, own ones: {own:.3}");
    }
}

#[test]
fn one_that_comes_at_the_whole_seconds_that_it_was_told_has_its_place() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let ask = |id: u64| Ask { mark: Mark { id, ..Mark::default() }, ..Ask::default() };
    let mut pool = one_slot(1, start);
    let Admission::Granted(_, replica) = pool.admit(&ask(0), start) else { panic!() };
    let used = Use { since: start, until: at(100), outcome: Outcome::Answered, tenant: Tenant::default() };
    pool.release(replica, &used);
    let Admission::Granted(..) = pool.admit(&ask(0), at(100)) else { panic!() };
    let Admission::Queued(mut waits) = pool.admit(&ask(0), at(100)) else { panic!() };
    let mut told = Vec::new();
    for id in 1..=20 {
        let Admission::Refused(ticket, _) = pool.admit(&ask(id), at(100)) else { panic!() };
        let retry = pool.promise(ticket, &ask(id), at(100));
        told.push((retry.seconds, id, retry.wait));
    }
    told.sort();
    for (seconds, id, wait) in told {
        // A later one is there, and gives way to one that has kept its place. 100 ms are spent on the way.
        pool.cancel(waits, at(101 + seconds * 1_000));
        let Admission::Queued(_) = pool.admit(&ask(0), at(101 + seconds * 1_000)) else { panic!() };
        let back = pool.admit(&ask(id), at(200 + seconds * 1_000));
        let Admission::Queued(ticket) = back else { panic!("told {seconds} s, meant {wait:?}: {back:?}") };
        waits = ticket;
    }
}

#[test]
fn what_more_important_ones_took_long_ago_is_there_again() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let ask = |id: u64, class| Ask { class, mark: Mark { id, ..Mark::default() }, ..Ask::default() };
    let used = |from: u64| Use {
        since: at(from),
        until: at(from + 100),
        outcome: Outcome::Answered,
        tenant: Tenant::default(),
    };
    let mut pool = one_slot(2, start);
    // A minute of critical ones, two of which always wait.
    let Admission::Granted(_, replica) = pool.admit(&ask(0, Class::Critical), start) else { panic!() };
    for k in 0..600 {
        while let Admission::Queued(_) = pool.admit(&ask(0, Class::Critical), at(k * 100)) {}
        let next = pool.release(replica, &used(k * 100)).unwrap();
        pool.claim(next);
    }
    for k in 600..602 {
        if let Some(next) = pool.release(replica, &used(k * 100)) {
            pool.claim(next);
        }
    }
    // An hour of nothing but single ordinary ones, each of which finds the slot free.
    for k in 100..3_700 {
        let Admission::Granted(..) = pool.admit(&ask(0, Class::Default), at(k * 1_000)) else { panic!() };
        pool.release(replica, &used(k * 1_000));
    }
    // Then 13 of these at once: one runs, two wait, ten are refused. All are served in 1.3 s.
    let told = (1..=13).filter_map(|id| match pool.admit(&ask(id, Class::Default), at(3_700_000)) {
        Admission::Refused(ticket, _) => {
            Some(pool.promise(ticket, &ask(id, Class::Default), at(3_700_000)).wait)
        }
        Admission::Granted(..) | Admission::Queued(_) => None,
    });
    let last = told.max().unwrap();
    assert!(last <= Duration::from_secs(3), "{last:?}");
}
