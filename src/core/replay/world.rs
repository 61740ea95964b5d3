//! A deployment in virtual time: the pool and the scale rule of the router, replicas that start and serve as recorded.
//!
//! The model: the k-th start takes as long as the k-th that was recorded, later ones the median; a request holds its slot as
//! long as it did; a replica that is one too many is the one that a scaler would choose. Probes, crashes, retries and
//! clients that come back are not in it.

mod fleet;
mod senses;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::fleet::{Fleet, Order};
use super::Step;
use super::figures::{Change, Figures};
use super::script::{Script, seconds};
use crate::core::admission::{Admission, Ask, Outcome, Pool, ReplicaId, Tally, Tenant, TicketId, Use};
use crate::core::scale::{Decision, History, Signals, at_once, decide};
use crate::core::settings::DeploymentSettings;

/// Something that is going to happen; of things at one time, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Done { replica: u64, since: u64 },
    Ready(u64),
    Settings(usize),
    Tick,
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
        world.on(event);
        world.look_when_cold();
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
    /// Between two questions, where it is not the recorded one.
    interval: Option<u64>,
    /// What was counted since the last question on time.
    tally: Tally,
    asked_between: bool,
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
            interval: None,
            tally: Tally::default(),
            asked_between: false,
            waits: Vec::new(),
            changes: Vec::new(),
            rejected: 0,
            left: 0,
        };
        world.pool.set_queueing(world.settings.request.queueing());
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
                self.settle();
            }
            Event::Ready(replica) => {
                if self.fleet.ready(replica, self.now) {
                    self.admit(replica);
                }
            }
            Event::Settings(index) => {
                if let Some(Step::Settings(_, settings)) = self.script.steps.get(index) {
                    self.settings = Arc::clone(settings);
                    let granted = self.pool.set_limits(settings.request.limits(), now);
                    self.pool.set_queueing(settings.request.queueing());
                    self.serve(granted);
                }
            }
            Event::Tick => {
                self.evaluate();
                // One after the other, so that a recording of years takes time and not memory.
                let next = self.interval.map(|interval| self.now.saturating_add(interval));
                if let Some(next) = next.filter(|next| *next <= self.script.end) {
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
                let longest = nanos(self.settings.request.max_queue_wait);
                self.at(self.now.saturating_add(longest), Event::Expires(ticket));
                if let Some(patience) = self.script.arrivals[index].patience {
                    self.at(self.now.saturating_add(patience), Event::Leaves(ticket));
                }
                self.evaluate_at_once();
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

    /// Somebody waits and nothing was asked for: a scaler does not wait for its interval then.
    fn look_when_cold(&mut self) {
        if self.desired == 0 && !self.waiting.is_empty() && self.now <= self.script.end {
            self.evaluate();
        }
    }

    fn evaluate(&mut self) {
        let seen = self.look();
        let (cold_n, cold_sum) = self.fleet.take_starts();
        let seen = Signals { cold_n, cold_sum, ..seen };
        self.tally = Tally::default();
        self.asked_between = false;
        let said = decide(&self.settings.scale, &mut self.history, &seen);
        self.follow(said);
    }

    fn evaluate_at_once(&mut self) {
        if self.asked_between {
            return;
        }
        let seen = self.look();
        if let Some(said) = at_once(&self.settings.scale, &self.history, &seen) {
            self.asked_between = true;
            self.history.raised(seen.t, said.desired);
            self.follow(said);
        }
    }

    fn follow(&mut self, said: Decision) {
        let from = std::mem::replace(&mut self.desired, said.desired);
        if from != said.desired {
            self.changes.push(Change { at: seconds(self.now), from, to: said.desired });
        }
        self.settle();
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
    }

    fn figures(self) -> Figures {
        Figures {
            requests: self.script.arrivals.len() as u64,
            rejected: self.rejected,
            left: self.left,
            replica_seconds: self.fleet.replica_seconds(self.script.end),
            ..Figures::of(self.waits, &self.changes)
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
