//! What a scaler does at each event: a thin shell that asks the pure parts (`core::scale`, `fleet`) and carries
//! out what they say at the gate, the providers, the probes and the board. Nothing in it waits, but for the end.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::fleet::{Fleet, Order};
use super::hands::Hands;
use super::probes::{Probes, Probing};
use super::sources::Sources;
use super::{Event, Inbox, News, Scaler};
use crate::control::board::{DecisionStatus, DeploymentStatus};
use crate::control::health::Health;
use crate::core::admission::ReplicaId;
use crate::core::scale::{History, Observed, decide};
use crate::core::settings::{DeploymentSettings, ProviderSettings, ScaleSettings};
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
    history: History,
    desired: u32,
    last_decision: Option<DecisionStatus>,
}

impl<H: Hands> Job<H> {
    pub(super) fn new(
        parts: Scaler<H>,
        settings: Arc<DeploymentSettings>,
        updates: watch::Receiver<Arc<DeploymentSettings>>,
        inbox: Inbox,
    ) -> Self {
        Self {
            parts,
            settings,
            updates,
            inbox,
            sources: Sources::default(),
            probes: Probes::default(),
            fleet: Fleet::default(),
            history: History::default(),
            desired: 0,
            last_decision: None,
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
        self.parts.board.remove(&self.parts.endpoint, &self.settings.name);
    }

    /// Takes in what has happened, then looks at everything anew: a missed event does no harm.
    pub(super) fn on(&mut self, event: Event) {
        // First: a probe that reports a success along with a suspicion is the newer of the two.
        for id in self.parts.gate.take_suspects() {
            self.fleet.suspect(id);
            self.probes.recheck(id);
        }
        match event {
            Event::Gate => {}
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
                self.start_provider();
                // What an earlier kind of provider runs is outdated from now on.
                self.see();
                self.evaluate();
            }
            Event::Tick => self.evaluate(),
        }
        self.review();
        if self.is_fixed() || self.is_cold() {
            self.evaluate();
        }
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

    /// Somebody waits and nothing was asked for: the next evaluation may be far away.
    fn is_cold(&self) -> bool {
        self.desired == 0 && self.parts.gate.load().queued > 0
    }

    fn see(&mut self) {
        let replicas = self.sources.replicas();
        let orders = self.fleet.see(replicas.iter().map(|(replica, fixed)| (replica, *fixed)));
        self.carry_out(orders);
    }

    fn report(&mut self, id: ReplicaId, health: Health) {
        if let Health::Dead(why) = &health {
            let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
            tracing::warn!(%endpoint, %deployment, replica = id.0, "a replica is dead: {why}");
            // The probe has ended with it. Whoever cannot be replaced may come back, and is asked anew.
            if self.fleet.is_fixed(id) {
                self.probes.end(id);
            }
        }
        let order = self.fleet.report(id, health, now(), self.settings.request.timeout);
        self.carry_out(order);
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
        let most = match &self.settings.scale {
            ScaleSettings::Manual { replicas } => *replicas,
            ScaleSettings::Utilization(rule) => rule.max,
        };
        let replacing = self.fleet.replace(self.desired, most, now(), self.settings.request.timeout);
        if let Some(name) = replacing.chosen {
            let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
            tracing::warn!(%endpoint, %deployment, "{name} serves badly and is replaced");
        }
        self.carry_out(replacing.order);
        replacing.extra
    }

    fn carry_out(&self, orders: impl IntoIterator<Item = Order>) {
        for order in orders {
            match order {
                Order::Admit(target) => self.parts.gate.admit(&target),
                Order::Drain(id) => self.parts.gate.drain(id),
                Order::Remove(id) => self.parts.gate.remove(id),
            }
        }
    }

    /// Asks the rule. A fixed list is what it is, whatever the load.
    fn evaluate(&mut self) {
        if self.is_fixed() {
            let listed = self.fleet.present();
            if listed != self.desired {
                self.decided(listed, format!("servers in the configuration: {listed}"));
            }
            return;
        }
        let seen = self.observe();
        let decision = decide(&self.settings.scale, &mut self.history, &seen);
        if decision.desired != self.desired || self.last_decision.is_none() {
            self.decided(decision.desired, decision.reason.to_string());
        }
    }

    /// Replicas that were asked for count as starting until they admit requests. Outdated ones that still serve
    /// do the work of those, and are no more than were asked for.
    fn observe(&self) -> Observed {
        let gate = &self.parts.gate;
        let load = gate.load();
        let ready = load.ready.min(self.desired);
        Observed {
            now: now(),
            ready,
            starting: self.desired - ready,
            slots_per_replica: gate.limit(),
            busy: self.fleet.busy(|id| gate.busy(id)),
            queued: load.queued,
        }
    }

    fn decided(&mut self, to: u32, reason: String) {
        let from = std::mem::replace(&mut self.desired, to);
        let (endpoint, deployment) = (&self.parts.endpoint, &self.settings.name);
        if from != to {
            tracing::info!(%endpoint, %deployment, "from {from} to {to} replicas: {reason}");
            count_scale_decision(endpoint, deployment, from, to);
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
        let desired = self.desired + self.replace();
        let gate = &self.parts.gate;
        loop {
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
    }

    fn publish(&self) {
        let gate = &self.parts.gate;
        let status = DeploymentStatus {
            desired: self.desired,
            last_decision: self.last_decision.clone(),
            replicas: self.fleet.statuses(now(), |id| gate.busy(id)),
        };
        self.parts.board.put(&self.parts.endpoint, &self.settings.name, status);
    }
}

/// The runtime's clock, which tests can pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
