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
        Ask { class, mark: Mark { id: self.clients[client].mark, ..Mark::default() }, ..Ask::default() }
    }

    fn ask(&mut self, client: usize) {
        self.attempts += 1;
        // One on a new connection and without an id is another one each time.
        self.clients[client].mark = if self.scenario.known { client as u64 + 1 } else { self.attempts << 32 };
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
