//! One run: events on a virtual clock, a small scaler around the real rule, a provider with faults, and the
//! promises, which are checked after every event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use scoregate::core::admission::{Admission, Ask, Limits, Outcome, Pool, ReplicaId, Tenant, TicketId, Use};
use scoregate::core::scale::{History, Signals, decide};
use scoregate::core::settings::{ScalePolicy, ScaleSettings, UtilizationScale};

use crate::requests::{Place, Requests};

/// Arrivals end here; what is there goes on.
const END: u64 = 80_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) arrived: u64,
    pub(crate) served: u64,
    pub(crate) refused: u64,
    pub(crate) timed_out: u64,
    pub(crate) left_waiting: u64,
    pub(crate) left_running: u64,
    pub(crate) cut: u64,
    pub(crate) unreachable: u64,
    pub(crate) ups: u64,
    pub(crate) downs: u64,
    pub(crate) taken_back: u64,
    pub(crate) deaths: u64,
    pub(crate) flaps: u64,
    pub(crate) limits: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        self.arrived += more.arrived;
        self.served += more.served;
        self.refused += more.refused;
        self.timed_out += more.timed_out;
        self.left_waiting += more.left_waiting;
        self.left_running += more.left_running;
        self.cut += more.cut;
        self.unreachable += more.unreachable;
        self.ups += more.ups;
        self.downs += more.downs;
        self.taken_back += more.taken_back;
        self.deaths += more.deaths;
        self.flaps += more.flaps;
        self.limits += more.limits;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    Claim(TicketId),
    Finish(TicketId, ReplicaId),
    GiveUp(TicketId),
    Leave(TicketId),
    Started(ReplicaId),
    Recheck(ReplicaId),
    Trouble,
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Suspended,
    Draining,
}

#[derive(Clone, Copy, Debug)]
struct Replica {
    state: State,
    /// False between its death and the moment at which somebody notices.
    alive: bool,
    /// Most requests it may have: the limit, or what it had when the limit fell, until that has ended.
    allowed: u32,
}

pub(crate) struct World {
    random: SmallRng,
    start: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    limits: Limits,
    pool: Pool,
    requests: Requests,
    replicas: BTreeMap<ReplicaId, Replica>,
    made: u64,
    rule: UtilizationScale,
    history: History,
    desired: u32,
    /// Mean milliseconds between two arrivals; changes.
    pace: u64,
    service: u64,
    totals: Totals,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let limits = Limits { slots: NonZeroU32::new(random.random_range(1..4)), max_queue_length: None };
        let min = random.random_range(0..3);
        let rule = UtilizationScale {
            policy: ScalePolicy::Azureml,
            min,
            max: random.random_range(min.max(1)..8),
            interval: Duration::from_secs(1),
            target_percent: random.random_range(40..=100),
            down_after: Duration::from_secs(random.random_range(1..15)),
            count_queue: random.random_bool(0.7),
        };
        let service = [30, 300, 3000, 8000][random.random_range(0..4)];
        let mut world = Self {
            random,
            start: Instant::now(),
            now: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            limits,
            pool: Pool::new(limits),
            requests: Requests::default(),
            replicas: BTreeMap::new(),
            made: 0,
            rule,
            history: History::default(),
            desired: 0,
            pace: 300,
            service,
            totals: Totals::default(),
        };
        for event in [Event::Tick, Event::Arrive, Event::Trouble] {
            world.after(0, event);
        }
        world
    }

    pub(crate) fn run(mut self) -> Totals {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            self.on(event);
            if self.pool.take_call() {
                self.called();
            }
            self.check();
        }
        let totals = self.totals;
        assert_eq!(self.requests.counts(), (0, 0), "nobody is left behind");
        let ended = totals.served + totals.refused + totals.timed_out + totals.cut;
        assert_eq!(totals.arrived, ended + totals.left_waiting + totals.left_running, "{totals:?}");
        totals
    }

    fn after(&mut self, pause: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + pause, self.scheduled, event)));
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Arrive => self.arrive(),
            Event::Claim(ticket) => self.claim(ticket),
            Event::Finish(ticket, replica) => self.finish(ticket, replica),
            Event::GiveUp(ticket) | Event::Leave(ticket) => {
                self.leave(ticket, matches!(event, Event::GiveUp(_)));
            }
            Event::Started(id) | Event::Recheck(id) => self.probe(id),
            Event::Trouble => self.trouble(),
            Event::Tick => {
                self.evaluate();
                if self.now < END || self.requests.counts().1 > 0 {
                    self.after(1000, Event::Tick);
                }
            }
        }
    }

    fn moment(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    // Requests.

    fn arrive(&mut self) {
        if self.now >= END {
            return;
        }
        let pause = self.random.random_range(0..=2 * self.pace);
        self.after(pause, Event::Arrive);
        self.totals.arrived += 1;
        let ticket = match self.pool.admit(&Ask::default(), self.moment()) {
            Admission::Refused(..) => {
                assert!(self.requests.is_anybody_waiting() || self.limits.max_queue_length == Some(0));
                self.totals.refused += 1;
                return;
            }
            Admission::Granted(ticket, replica) => {
                assert!(!self.requests.is_anybody_waiting(), "{ticket:?} has overtaken");
                self.send(ticket, replica);
                ticket
            }
            Admission::Queued(ticket) => {
                self.requests.put(ticket, Place::Waiting);
                ticket
            }
        };
        let longest = self.random.random_range(100..4000);
        self.after(longest, Event::GiveUp(ticket));
        if self.random.random_bool(0.1) {
            let patience = self.random.random_range(0..3000);
            self.after(patience, Event::Leave(ticket));
        }
    }

    /// Slots were handed over; each worker notices a little later.
    fn granted(&mut self, tickets: impl IntoIterator<Item = TicketId>) {
        let tickets: Vec<_> = tickets.into_iter().collect();
        self.requests.granted(&tickets);
        for ticket in tickets {
            let pause = self.random.random_range(0..5);
            self.after(pause, Event::Claim(ticket));
        }
    }

    fn claim(&mut self, ticket: TicketId) {
        if self.requests.place(ticket) != Some(Place::Granted) {
            return;
        }
        match self.pool.claim(ticket) {
            Some(replica) => self.send(ticket, replica),
            // Its replica stopped before it looked.
            None => self.requests.put(ticket, Place::Waiting),
        }
    }

    fn send(&mut self, ticket: TicketId, id: ReplicaId) {
        if self.replicas.get(&id).is_some_and(|replica| replica.alive) {
            self.requests.put(ticket, Place::Running(id));
            let time = self.random.random_range(1..=2 * self.service);
            self.after(time, Event::Finish(ticket, id));
            return;
        }
        self.totals.unreachable += 1;
        self.requests.put(ticket, Place::Waiting);
        let granted = self.pool.suspect(ticket, id, &Ask::default(), self.moment());
        if let Some(replica) = self.replicas.get_mut(&id)
            && replica.state == State::Ready
        {
            replica.state = State::Suspended;
        }
        self.granted(granted);
        self.after(20, Event::Recheck(id));
        self.after(4000, Event::GiveUp(ticket));
    }

    fn finish(&mut self, ticket: TicketId, replica: ReplicaId) {
        if self.requests.place(ticket) == Some(Place::Running(replica)) {
            self.totals.served += 1;
            self.release(ticket, replica);
        }
    }

    fn release(&mut self, ticket: TicketId, replica: ReplicaId) {
        self.requests.end(ticket);
        let now = self.moment();
        let used = Use { since: now, until: now, outcome: Outcome::Answered, tenant: Tenant::default() };
        let next = self.pool.release(replica, &used);
        self.granted(next);
    }

    fn leave(&mut self, ticket: TicketId, is_timeout: bool) {
        match self.requests.place(ticket) {
            Some(Place::Waiting | Place::Granted) => {
                self.requests.end(ticket);
                let next = self.pool.cancel(ticket, self.moment());
                self.granted(next);
                *(if is_timeout { &mut self.totals.timed_out } else { &mut self.totals.left_waiting }) += 1;
            }
            Some(Place::Running(replica)) if !is_timeout => {
                self.totals.left_running += 1;
                self.release(ticket, replica);
            }
            Some(Place::Running(_)) | None => {}
        }
    }

    // Replicas.

    fn probe(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        if !replica.alive {
            self.replicas.remove(&id);
            let granted = self.pool.remove(id, self.moment());
            self.granted(granted);
            self.reconcile();
        } else if matches!(replica.state, State::Starting | State::Suspended) {
            replica.state = State::Ready;
            let granted = self.pool.admit_replica(id, self.moment());
            self.granted(granted);
        }
    }

    fn trouble(&mut self) {
        if self.now >= END {
            return;
        }
        let pause = self.random.random_range(200..4000);
        self.after(pause, Event::Trouble);
        if self.random.random_bool(0.3) {
            self.pace = [50, 200, 800, 3000][self.random.random_range(0..4)];
        }
        let ids: Vec<_> = self.replicas.keys().copied().collect();
        let victim = (!ids.is_empty()).then(|| ids[self.random.random_range(0..ids.len())]);
        match (self.random.random_range(0..4), victim) {
            (0, Some(id)) => self.die(id),
            (1, Some(id)) => self.flap(id),
            (2, _) => self.change_limits(),
            _ => {}
        }
    }

    fn die(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id).filter(|replica| replica.alive) else { return };
        replica.alive = false;
        self.totals.deaths += 1;
        for ticket in self.requests.running_on(id) {
            self.totals.cut += 1;
            self.release(ticket, id);
        }
        let notice = self.random.random_range(0..800);
        self.after(notice, Event::Recheck(id));
    }

    fn flap(&mut self, id: ReplicaId) {
        let replica = self.replicas.get_mut(&id).filter(|replica| replica.state == State::Ready);
        let Some(replica) = replica else { return };
        replica.state = State::Suspended;
        self.totals.flaps += 1;
        let granted = self.pool.suspend(id, self.moment());
        self.granted(granted);
        let pause = self.random.random_range(10..3000);
        self.after(pause, Event::Recheck(id));
    }

    fn change_limits(&mut self) {
        self.totals.limits += 1;
        let queue = self.random.random_bool(0.5).then(|| self.random.random_range(0..20));
        self.limits =
            Limits { slots: NonZeroU32::new(self.random.random_range(1..4)), max_queue_length: queue };
        let slots = self.slots();
        for (id, replica) in &mut self.replicas {
            replica.allowed = slots.max(self.pool.busy(*id));
        }
        let granted = self.pool.set_limits(self.limits, self.moment());
        self.granted(granted);
    }

    fn slots(&self) -> u32 {
        self.limits.slots.map_or(u32::MAX, NonZeroU32::get)
    }

    // The scaler.

    fn called(&mut self) {
        if self.desired == 0 && self.pool.load().queued > 0 {
            self.evaluate();
        } else {
            self.reconcile();
        }
    }

    fn evaluate(&mut self) {
        let load = self.pool.load();
        let tally = self.pool.take_tally(self.moment());
        let seen = Signals {
            t: self.now as f64 / 1000.0,
            c: self.limits.slots.map_or(0, NonZeroU32::get),
            min: self.rule.min,
            max: self.rule.max,
            queue_wait: 4.0,
            ..Signals::of(self.desired, &load, &tally)
        };
        let decision = decide(&ScaleSettings::Utilization(self.rule.clone()), &mut self.history, &seen);
        let bounds = self.rule.min..=self.rule.max;
        assert!(bounds.contains(&decision.desired), "{decision:?} is outside of {bounds:?}");
        assert!(
            decision.desired > 0 || load.queued == 0,
            "somebody waits and nothing is started: {decision:?}"
        );
        self.totals.ups += u64::from(decision.desired > self.desired);
        self.totals.downs += u64::from(decision.desired < self.desired);
        self.desired = decision.desired;
        self.reconcile();
    }

    fn reconcile(&mut self) {
        let of = |world: &Self, state: State| -> Vec<ReplicaId> {
            let matching = world.replicas.iter().filter(|(_, replica)| replica.state == state);
            matching.map(|(id, _)| *id).collect()
        };
        let draining = of(self, State::Draining);
        let serving = self.replicas.len() - draining.len();
        let desired = self.desired as usize;
        let mut missing = desired.saturating_sub(serving);
        for id in draining {
            if self.pool.busy(id) == 0 {
                self.replicas.remove(&id);
                let granted = self.pool.remove(id, self.moment());
                self.granted(granted);
            } else if missing > 0 {
                missing -= 1;
                self.totals.taken_back += 1;
                self.set_state(id, State::Ready);
                let granted = self.pool.admit_replica(id, self.moment());
                self.granted(granted);
            }
        }
        (0..missing).for_each(|_| self.start_replica());
        let mut victims = of(self, State::Starting);
        victims.extend(of(self, State::Suspended));
        let mut ready = of(self, State::Ready);
        ready.sort_by_key(|id| self.pool.busy(*id));
        victims.extend(ready);
        for id in victims.into_iter().take(serving.saturating_sub(desired)) {
            self.set_state(id, State::Draining);
            let granted = self.pool.drain(id, self.moment());
            self.granted(granted);
            if self.pool.busy(id) == 0 {
                self.replicas.remove(&id);
                let granted = self.pool.remove(id, self.moment());
                self.granted(granted);
            }
        }
    }

    fn set_state(&mut self, id: ReplicaId, state: State) {
        self.replicas.get_mut(&id).expect("it exists").state = state;
    }

    fn start_replica(&mut self) {
        let id = ReplicaId(self.made);
        self.made += 1;
        self.replicas.insert(id, Replica { state: State::Starting, alive: true, allowed: self.slots() });
        let slow = self.random.random_bool(0.1);
        let time = if slow { 20_000 } else { self.random.random_range(50..3000) };
        self.after(time, Event::Started(id));
    }

    // The promises.

    fn check(&mut self) {
        let slots = self.slots();
        let mut free = 0;
        let mut busy = 0;
        let mut running = 0;
        for (id, replica) in &mut self.replicas {
            let used = self.pool.busy(*id);
            replica.allowed = slots.max(replica.allowed.min(used));
            assert!(used <= replica.allowed, "{id:?} has {used} requests, {} allowed", replica.allowed);
            let on_it = self.requests.running_on(*id).len();
            assert!(on_it <= used as usize, "{on_it} run on {id:?}, which counts {used}");
            free += u32::from(replica.state == State::Ready && used < slots);
            busy += used;
            running += on_it;
        }
        let load = self.pool.load();
        let (waiting, all) = self.requests.counts();
        assert_eq!(busy, load.busy + load.busy_draining, "slots in use are on replicas that exist");
        assert_eq!(all, (load.queued + busy) as usize, "every request waits or has one slot");
        assert!(running <= busy as usize && waiting <= load.queued as usize);
        assert!(load.queued == 0 || free == 0, "{} wait while {free} replicas have room", load.queued);
        let serving = self.replicas.values().filter(|replica| replica.state != State::Draining).count();
        assert!(serving <= self.desired as usize, "{serving} replicas, {} asked for", self.desired);
    }
}
