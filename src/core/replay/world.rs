//! A deployment in virtual time: the pool and the scale rule of the router, replicas that start and serve as recorded.
//!
//! The model: the k-th start takes as long as the k-th that was recorded, later ones the median; a request holds its slot as
//! long as it did; a replica that is one too many is the one that a scaler would choose. `docs/explain.md` says what is not
//! in it.

mod fleet;
mod senses;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::fleet::{Fleet, Order};
use super::Step;
use super::figures::{Change, Figures};
use super::script::{Script, nanos};
use crate::core::admission::{Admission, Ask, Outcome, Pool, ReplicaId, Tally, Tenant, TicketId, Use};
use crate::core::recording::Tick;
use crate::core::scale::History;
use crate::core::schedule::Window;
use crate::core::settings::DeploymentSettings;

/// Something that is going to happen; of things at one time, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Done {
        replica: u64,
        since: u64,
    },
    Ready(u64),
    Settings(usize),
    Tick,
    /// Other bounds hold, between two ticks.
    Bounds,
    /// An event that was put off is looked at.
    AskAgain,
    Leaves(TicketId),
    Expires(TicketId),
    Arrives(usize),
}

/// Lives the script with the settings in its steps; `origin` is what the pool takes for its beginning.
pub fn simulate(script: &Script, origin: Instant) -> Figures {
    let Some(first) = script.steps.iter().find_map(settings) else { return Figures::default() };
    let mut world = World::new(script, Arc::clone(first), origin);
    while let Some(Reverse((at, event, _))) = world.events.pop() {
        world.now = at;
        world.follow_recording();
        world.on(event);
        world.look_when_called();
    }
    world.figures()
}

fn settings(step: &Step) -> Option<&Arc<DeploymentSettings>> {
    match step {
        Step::Settings(_, settings) => Some(settings),
        Step::Tick(_) => None,
    }
}

struct World<'a> {
    script: &'a Script,
    settings: Arc<DeploymentSettings>,
    origin: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, Event, u64)>>,
    counted: u64,
    pool: Pool,
    fleet: Fleet,
    /// Requests that wait, with the time at which they asked.
    waiting: HashMap<TicketId, (usize, u64)>,
    history: History,
    desired: u32,
    at_first: u32,
    /// The recorded questions, and which of them was the last.
    recorded: Vec<&'a Tick<'static>>,
    last: usize,
    /// What the schedules say, until the next change; where the bounds are not the recorded ones.
    agenda: Option<(Option<Window>, Option<Timestamp>)>,
    /// When there was a request last, as far as the questions on time saw.
    active: Option<u64>,
    /// When an event may lead to a decision again, and whether one has come since.
    quiet_until: Option<u64>,
    ask_again: bool,
    /// Between two questions, where it is not the recorded one.
    interval: Option<u64>,
    /// What was counted since the last question on time.
    tally: Tally,
    waits: Vec<u64>,
    changes: Vec<Change>,
    rejected: u64,
    left: u64,
}

impl<'a> World<'a> {
    fn new(script: &'a Script, settings: Arc<DeploymentSettings>, origin: Instant) -> Self {
        let mut world = Self {
            pool: Pool::new(settings.request.limits()),
            settings,
            script,
            origin,
            now: 0,
            events: BinaryHeap::new(),
            counted: 0,
            fleet: Fleet::new(&script.starts),
            waiting: HashMap::new(),
            history: History::default(),
            desired: 0,
            at_first: 0,
            recorded: script.ticks().collect(),
            last: 0,
            agenda: None,
            active: None,
            quiet_until: None,
            ask_again: false,
            interval: None,
            tally: Tally::default(),
            waits: Vec::new(),
            changes: Vec::new(),
            rejected: 0,
            left: 0,
        };
        world.pool.set_limits(world.limits(), origin);
        world.pool.set_queueing(world.settings.request.queueing());
        // A replica of the model is never worse than the others, however the recorded times fall.
        world.pool.set_passive_health(false, origin);
        world.pool.take_tally(origin);
        for (index, arrival) in script.arrivals.iter().enumerate() {
            world.at(arrival.at, Event::Arrives(index));
        }
        world.ticks();
        world
    }

    fn at(&mut self, at: u64, event: Event) {
        self.counted += 1;
        self.events.push(Reverse((at, event, self.counted)));
    }

    fn instant(&self, at: u64) -> Instant {
        self.origin + Duration::from_nanos(at)
    }

    fn on(&mut self, event: Event) {
        let now = self.instant(self.now);
        match event {
            Event::Done { replica, since } => {
                let id = ReplicaId(replica);
                let used = Use {
                    since: self.instant(since),
                    until: now,
                    outcome: Outcome::Answered,
                    tenant: Tenant::default(),
                };
                let next = self.pool.release(id, &used);
                self.serve(next);
                if self.fleet.is_draining(replica) {
                    self.settle();
                }
            }
            Event::Ready(replica) => {
                if self.fleet.ready(replica, self.now) {
                    self.admit(replica);
                    self.expect();
                }
            }
            Event::Settings(index) => {
                if let Some(Step::Settings(_, settings)) = self.script.steps.get(index) {
                    self.renew(settings);
                }
            }
            Event::Bounds => self.evaluate(),
            Event::AskAgain => {
                if self.ask_again && self.quiet_until.is_none_or(|until| until <= self.now) {
                    self.evaluate_at_once();
                }
            }
            Event::Tick => {
                self.evaluate();
                // One after the other, so that a long recording takes time and not memory.
                let next = self.interval.map(|interval| self.now.saturating_add(interval));
                if let Some(next) = next.filter(|next| *next > self.now && *next <= self.script.end) {
                    self.at(next, Event::Tick);
                }
            }
            Event::Leaves(ticket) => {
                if self.waiting.remove(&ticket).is_some() {
                    let next = self.pool.cancel(ticket, now);
                    self.left += 1;
                    self.serve(next);
                }
            }
            Event::Expires(ticket) => {
                if self.waiting.contains_key(&ticket) && self.pool.expire(ticket, now) {
                    self.waiting.remove(&ticket);
                    self.rejected += 1;
                }
            }
            Event::Arrives(index) => self.arrive(index, now),
        }
        // Nobody comes back in a recording, so that nothing is promised.
        for ticket in self.pool.take_turned_away() {
            self.pool.verdict(ticket);
            self.waiting.remove(&ticket);
            self.rejected += 1;
        }
    }

    fn arrive(&mut self, index: usize, now: Instant) {
        match self.pool.admit(&Ask::default(), now) {
            Admission::Granted(_, replica) => self.begin(index, self.now, replica),
            Admission::Queued(ticket) => {
                self.waiting.insert(ticket, (index, self.now));
                let longest = nanos(self.longest_wait());
                self.at(self.now.saturating_add(longest), Event::Expires(ticket));
                if let Some(patience) = self.script.arrivals[index].patience {
                    self.at(self.now.saturating_add(patience), Event::Leaves(ticket));
                }
            }
            Admission::Refused(..) => self.rejected += 1,
        }
    }

    /// Those that were granted a slot take it.
    fn serve(&mut self, granted: impl IntoIterator<Item = TicketId>) {
        for ticket in granted {
            if let Some(replica) = self.pool.claim(ticket)
                && let Some((index, asked)) = self.waiting.remove(&ticket)
            {
                self.begin(index, asked, replica);
            }
        }
    }

    fn begin(&mut self, index: usize, asked: u64, replica: ReplicaId) {
        self.waits.push(self.now - asked);
        let done = self.now.saturating_add(self.script.arrivals[index].service);
        self.at(done, Event::Done { replica: replica.0, since: self.now });
    }

    fn admit(&mut self, replica: u64) {
        let granted = self.pool.admit_replica(ReplicaId(replica), self.instant(self.now));
        self.serve(granted);
    }

    /// As `data::world::Deployment` has it: one that comes while no replica is ready waits for a start.
    fn longest_wait(&self) -> Duration {
        match self.settings.capacity.cold_start_wait {
            Some(cold) if !self.pool.any_ready() => cold,
            Some(_) | None => self.settings.request.max_queue_wait,
        }
    }

    /// Starts, takes back, drains and ends replicas until there are as many as are asked for.
    fn settle(&mut self) {
        for order in self.fleet.settle(self.desired, self.now, |id| self.pool.busy(ReplicaId(id))) {
            match order {
                Order::Start { id, ready_at } => self.at(ready_at, Event::Ready(id)),
                Order::TakeBack(id) => self.admit(id),
                Order::Drain(id) => {
                    let granted = self.pool.drain(ReplicaId(id), self.instant(self.now));
                    self.serve(granted);
                }
                Order::Remove(id) => {
                    let granted = self.pool.remove(ReplicaId(id), self.instant(self.now));
                    self.serve(granted);
                }
            }
        }
        self.expect();
    }

    /// Tells the pool when replicas will be ready that are starting.
    fn expect(&mut self) {
        let moments: Vec<_> = self.fleet.expected().map(|at| self.instant(at)).collect();
        if moments != self.pool.expected() {
            self.pool.expect(moments);
        }
    }

    fn figures(self) -> Figures {
        Figures {
            requests: self.script.arrivals.len() as u64,
            rejected: self.rejected,
            left: self.left,
            replica_seconds: self.fleet.replica_seconds(self.script.end),
            ..Figures::of(self.waits, self.at_first, &self.changes)
        }
    }
}
