//! What a scaler does at each event: a thin shell that asks the pure parts (`core::scale`, `fleet`) and carries
//! out what they say at the gate, the providers, the probes and the board. Nothing in it waits, but for the end.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::fleet::{Fleet, Order};
use super::hands::Hands;
use super::number::{Asked, Decided, Look, Number};
use super::probes::{Probes, Probing};
use super::ramps::Ramps;
use super::sources::Sources;
use super::told::Told;
use super::{Event, Inbox, News, Scaler};
use crate::config;
use crate::control::board::{BoundsStatus, DecisionStatus, DeploymentStatus};
use crate::control::health::Health;
use crate::core::admission::ReplicaId;
use crate::core::bounds::Override;
use crate::core::ledger::{Scale, Standing, What};
use crate::core::settings::{DeploymentSettings, ProviderSettings};
use crate::observe::metrics::count_scale_decision;

/// The state of a running scaler.
pub(super) struct Job<H> {
    pub(super) parts: Scaler<H>,
    pub(super) settings: Arc<DeploymentSettings>,
    /// For providers; the loop has its own.
    updates: watch::Receiver<Arc<DeploymentSettings>>,
    inbox: Inbox,
    sources: Sources,
    probes: Probes,
    fleet: Fleet,
    number: Number,
    ramps: Ramps,
    pub(super) hold: watch::Receiver<Option<Override>>,
    expected: Vec<std::time::Instant>,
    last_decision: Option<DecisionStatus>,
    told: Told,
}

impl<H: Hands> Job<H> {
    pub(super) fn new(
        parts: Scaler<H>,
        settings: Arc<DeploymentSettings>,
        updates: watch::Receiver<Arc<DeploymentSettings>>,
        inbox: Inbox,
    ) -> Self {
        let hold = parts.overrides.follow(&parts.endpoint, &settings.name);
        Self {
            parts,
            settings,
            updates,
            inbox,
            sources: Sources::default(),
            probes: Probes::default(),
            fleet: Fleet::default(),
            number: Number::new(now()),
            ramps: Ramps::default(),
            hold,
            expected: Vec::new(),
            last_decision: None,
            told: Told::default(),
        }
    }

    /// Ends every replica and waits until they are gone.
    pub(super) async fn end(&mut self, news: &mut mpsc::UnboundedReceiver<News>) {
        for id in self.fleet.ids() {
            self.parts.gate.remove(id);
        }
        self.probes = Probes::default();
        self.sources.end();
        while !self.sources.is_empty() {
            match news.recv().await {
                Some(News::Set(number, set)) => {
                    self.sources.set(number, set);
                    self.see();
                    self.publish();
                }
                Some(News::Ended(number)) => _ = self.sources.ended(number),
                Some(News::Health(..)) => {}
                None => break,
            }
        }
        let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
        self.parts.board.ledger().recorder().forget(endpoint, deployment);
        self.parts.board.remove(endpoint, deployment);
    }

    /// Takes in what has happened, then looks at everything anew: a missed event does no harm.
    pub(super) fn on(&mut self, event: Event) {
        // First: a probe that reports a success along with a suspicion is the newer of the two.
        for id in self.parts.gate.take_suspects() {
            self.fleet.suspect(id);
            self.probes.recheck(id);
        }
        let is_held = matches!(event, Event::Hold);
        let is_called = matches!(event, Event::Gate);
        match event {
            Event::Gate => self.at_once(),
            Event::Alarm | Event::Hold => {}
            Event::News(News::Set(number, set)) => {
                self.sources.set(number, set);
                self.see();
            }
            Event::News(News::Ended(number)) => {
                if self.sources.ended(number) {
                    let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
                    tracing::error!(%endpoint, %deployment, "the provider has ended by itself; it is started again");
                }
                self.see();
            }
            Event::News(News::Health(id, health)) => self.report(id, health),
            Event::Refresh => {
                self.start_provider();
                self.probes.renew(self.fleet.live(), &self.settings);
            }
            Event::Settings => {
                self.record_settings();
                self.start_provider();
                // What an earlier kind of provider runs is outdated from now on.
                self.see();
                self.number.renew();
                self.evaluate();
            }
            Event::Tick => self.evaluate(),
        }
        self.review();
        if self.is_fixed() || self.is_cold(is_called) || is_held || self.number.is_due(self.wall()) {
            self.evaluate();
        }
        if self.number.asks_again(now()) {
            self.at_once();
        }
        self.warm();
        self.settle();
        self.publish();
    }

    /// Also starts one again that has ended by itself.
    pub(super) fn start_provider(&mut self) {
        let parts = &self.parts;
        self.sources.start(&parts.hands, &self.updates, &parts.tasks, &self.inbox);
    }

    fn is_fixed(&self) -> bool {
        matches!(self.settings.provider, ProviderSettings::Fixed(_))
    }

    /// Nothing was asked for, and somebody waits or may have been turned away at once: the next evaluation may be far away.
    fn is_cold(&self, is_called: bool) -> bool {
        self.number.desired() == 0 && (is_called || self.parts.gate.load().queued > 0)
    }

    fn see(&mut self) {
        let replicas = self.sources.replicas();
        let orders = self.fleet.see(replicas.iter().map(|(replica, fixed)| (replica, *fixed)));
        self.carry_out(orders);
    }

    fn report(&mut self, id: ReplicaId, health: Health) {
        if let Health::Dead(why) = &health {
            self.tell_dead(id, why);
            // The probe has ended with it. Whoever cannot be replaced may come back, and is asked anew.
            if self.fleet.is_fixed(id) {
                self.probes.end(id);
            }
        }
        let order = self.fleet.report(id, health, now(), self.settings.request.timeout);
        if let Some(fresh) = self.fleet.take_fresh() {
            if let Some(took) = fresh.took {
                self.number.start_up.learn(took);
            }
            let (settings, slots) = (&self.settings, self.slots());
            self.ramps.begin(fresh.id, now(), slots, settings.capacity.warm_up);
        }
        self.carry_out(order);
    }

    /// One of a list is told of when it is unready: nobody ends it.
    fn tell_dead(&self, id: ReplicaId, why: &str) {
        let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
        let Some(name) = self.fleet.live_name(id) else { return };
        tracing::warn!(%endpoint, %deployment, replica = %name, "a replica is dead: {why}");
        if !self.fleet.is_fixed(id) {
            let (replica, standing, because) = (name.to_string(), "dead".to_owned(), why.to_owned());
            let what = What::Standing(Standing { replica, standing, because });
            self.parts.board.ledger().decided(endpoint, deployment, what);
        }
    }

    /// What the gate has learned of the replicas.
    fn review(&mut self) {
        let standings = self.parts.gate.review(now());
        for news in self.fleet.stand(&standings) {
            let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
            tracing::info!(%endpoint, %deployment, "{news}");
        }
    }

    /// How many replicas there should be beside those that are desired, for one that serves badly.
    fn replace(&mut self) -> u32 {
        let hold = *self.hold.borrow();
        let most = self.number.bounds(&self.settings, self.wall(), hold).max;
        let replacing = self.fleet.replace(self.number.desired(), most, now(), self.settings.request.timeout);
        if let Some(name) = replacing.chosen {
            let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
            tracing::warn!(%endpoint, %deployment, "{name} serves badly and is replaced");
        }
        self.carry_out(replacing.order);
        replacing.extra
    }

    fn carry_out(&mut self, orders: impl IntoIterator<Item = Order>) {
        let gate = &self.parts.gate;
        for order in orders {
            match order {
                Order::Admit(target) => match self.ramps.cap(target.id) {
                    Some(cap) => gate.admit_capped(&target, cap),
                    None => gate.admit(&target),
                },
                Order::Drain(id) => gate.drain(id),
                Order::Remove(id) => {
                    self.ramps.end(id);
                    gate.remove(id);
                }
            }
        }
    }

    /// Gives replicas that start slowly the slots that they may have by now.
    fn warm(&mut self) {
        let (slots, warm_up) = (self.slots(), self.settings.capacity.warm_up);
        for (id, cap) in self.ramps.follow(now(), slots, warm_up) {
            self.parts.gate.cap(id, cap);
        }
    }

    /// Requests at once on one replica, as given or as found.
    fn slots(&self) -> Option<NonZeroU32> {
        self.parts.gate.limit().and_then(NonZeroU32::new)
    }

    /// When to look again, if nothing happens before.
    pub(super) fn alarm(&self) -> Option<Instant> {
        let asks = self.number.alarm(now(), self.wall());
        [asks, self.ramps.next()].into_iter().flatten().min().map(Instant::from_std)
    }

    /// The time, as people have it.
    fn wall(&self) -> jiff::Timestamp {
        self.parts.hands.wall_clock()
    }

    /// Asks the rule. A fixed list is what it is, whatever the load.
    fn evaluate(&mut self) {
        let decided = if self.is_fixed() {
            self.number.list(self.fleet.present(), now())
        } else {
            let look = self.look();
            self.number.evaluate(&self.settings, &look)
        };
        self.record();
        self.tell(decided);
    }

    /// Asks whether more are needed before the next evaluation.
    fn at_once(&mut self) {
        if self.is_fixed() || self.number.desired() == 0 || self.number.puts_off(now()) {
            return;
        }
        let look = self.look();
        let decided = self.number.at_once(&self.settings, &look);
        self.record();
        self.tell(decided);
    }

    /// For a recording, if there is one: what the rule was asked and what it said.
    fn record(&mut self) {
        let Some(Asked { how, seen, from, to, said }) = self.number.take_asked() else { return };
        let whose = (&self.parts.endpoint, &self.settings.name);
        self.parts.board.ledger().recorder().tick(whose, how, &seen, (from, to, said));
    }

    /// For a recording, if there is one: what holds from now on.
    pub(super) fn record_settings(&self) {
        let recorder = self.parts.board.ledger().recorder();
        recorder.settings(&self.parts.endpoint, &self.settings.name, || config::recorded(&self.settings));
    }

    fn look(&self) -> Look {
        let (gate, now) = (&self.parts.gate, now());
        Look {
            now,
            wall: self.wall(),
            load: gate.load(),
            tally: gate.take_tally(now),
            projected: gate.outlook(now).wait,
            limit: gate.limit(),
            busy: self.fleet.busy(|id| gate.busy(id)),
            draining: self.fleet.draining(),
            hold: *self.hold.borrow(),
        }
    }

    fn tell(&mut self, decided: Option<Decided>) {
        let Some(Decided { from, to, why }) = decided else { return };
        let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
        let reason = why.to_string();
        if from != to {
            tracing::info!(%endpoint, %deployment, "from {from} to {to} replicas: {reason}");
            count_scale_decision(endpoint, deployment, from, to);
        }
        let scale = Scale::decided(from, to, &why);
        // That there is nothing yet and need not be was nobody's decision.
        if to > 0 || from > 0 || self.last_decision.is_some() {
            self.parts.board.ledger().decided(endpoint, deployment, What::Scale(scale));
        }
        self.last_decision = Some(DecisionStatus::new(SystemTime::now(), from, to, reason));
    }

    /// Brings gate, provider and probes in line with what is known now.
    fn settle(&mut self) {
        if let ProviderSettings::Process(process) = &self.settings.provider {
            for name in self.fleet.give_up(now(), process.start_timeout) {
                let (endpoint, timeout) = (&self.parts.endpoint, process.start_timeout.as_secs_f64());
                tracing::warn!(%endpoint, "{name} was not ready within {timeout} s of its start and is ended");
            }
        }
        let desired = self.number.desired().saturating_add(self.replace());
        loop {
            let gate = Arc::clone(&self.parts.gate);
            let orders = self.fleet.settle(desired, now(), |id| gate.busy(id));
            if orders.is_empty() {
                break;
            }
            self.carry_out(orders);
        }
        self.sources.want(&self.fleet.wanted(desired));
        let parts = &self.parts;
        let probing =
            Probing { hands: &parts.hands, gate: &parts.gate, tasks: &parts.tasks, inbox: &self.inbox };
        self.probes.follow(self.fleet.live(), &self.settings, &probing);
        self.expect();
    }

    /// Tells the gate when replicas will be ready that are starting, and those that are asked for and not yet there.
    fn expect(&mut self) {
        let missing = self.number.desired().saturating_sub(self.fleet.serving());
        let missing = if self.is_fixed() { 0 } else { missing as usize };
        let asked = std::iter::repeat_n(self.number.raised(), missing);
        let expected = self.number.start_up.expected(self.fleet.starting().chain(asked));
        if expected != self.expected {
            self.parts.gate.expect(expected.clone());
            self.expected = expected;
        }
    }

    fn publish(&mut self) {
        let look = (!self.is_fixed()).then(|| (self.wall(), *self.hold.borrow()));
        let bounds = look.map(|(wall, hold)| self.number.bounds(&self.settings, wall, hold));
        let gate = &self.parts.gate;
        let status = DeploymentStatus {
            desired: self.number.desired(),
            bounds: bounds.as_ref().map(BoundsStatus::from),
            last_decision: self.last_decision.clone(),
            replicas: self.fleet.statuses(now(), |id| gate.busy(id)),
        };
        let whose = (&self.parts.endpoint, &self.settings.name);
        self.told.see(whose, &status.replicas, self.parts.board.ledger());
        self.parts.board.put(&self.parts.endpoint, &self.settings.name, status);
    }
}

/// The runtime's clock, which tests can pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
