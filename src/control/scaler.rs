//! The task of one deployment that ties provider, probes, gate and rule together: when it works and when it ends.
//!
//! What it does at each event is `job`'s part; which replica serves and which must go is `fleet`'s (pure); how
//! many there should be is `core::scale`'s (pure).

mod fleet;
mod hands;
mod job;
mod number;
mod probes;
mod ramps;
mod sources;
mod startup;
#[cfg(test)]
mod tests;
mod told;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::control::board::Board;
use crate::control::health::Health;
use crate::control::overrides::Overrides;
use crate::core::admission::ReplicaId;
use crate::core::settings::{DeploymentSettings, Name, ScaleSettings};
use crate::data::gate::Gate;
use crate::provider::ReplicaSet;
use crate::shutdown::{Drain, Stage, Tasks};
use job::Job;

pub use hands::{Hands, Machinery};

/// Time between two looks at everything when nothing happens: how late a start timeout may be noticed, and how
/// old the board may be.
const REFRESH: Duration = Duration::from_secs(1);

/// Time between two looks at the gate while a deployment ends; it must be empty twice. A request that chose the
/// deployment from an older snapshot reaches the gate within it.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// The scaler of one deployment.
#[derive(Debug)]
pub struct Scaler<H> {
    /// The endpoint that the deployment is part of.
    pub endpoint: Name,
    /// Where its requests are admitted. The scaler writes its replicas; limits are the reload's to set.
    pub gate: Arc<Gate>,
    /// What operators see.
    pub board: Board,
    /// What operators have asked for.
    pub overrides: Overrides,
    /// Where providers and probes run.
    pub tasks: Tasks,
    /// The end of the process.
    pub drain: Drain,
    /// Longest time that a deployment that was removed goes on serving what it has.
    pub drain_timeout: Duration,
    /// Starts providers and probes.
    pub hands: H,
}

/// What providers and probes tell.
#[derive(Debug)]
enum News {
    Set(u64, ReplicaSet),
    Ended(u64),
    Health(ReplicaId, Health),
}

/// Unbounded, and short all the same: probes and providers speak a few times a second at most, and nothing in
/// the loop that reads it waits.
type Inbox = mpsc::UnboundedSender<News>;

#[derive(Debug)]
enum Event {
    Alarm,
    Gate,
    Hold,
    News(News),
    Refresh,
    Settings,
    Tick,
}

impl<H: Hands> Scaler<H> {
    /// Runs until the deployment is removed (the sender of `settings` is gone) or the drain begins. Then it goes
    /// on until nothing is queued and running, at most for `drain_timeout` or until the end of the drain, ends
    /// the replicas and returns when they are gone.
    pub async fn run(self, mut settings: watch::Receiver<Arc<DeploymentSettings>>) {
        let (inbox, mut news) = mpsc::unbounded_channel();
        let mut drain = self.drain.clone();
        let first = Arc::clone(&settings.borrow_and_update());
        let mut clock = Clock::new(&first.scale);
        let mut job = Job::new(self, first, settings.clone(), inbox);
        job.record_settings();
        job.start_provider();
        let deadline = job.serve(&mut news, &mut settings, &mut clock, &mut drain).await;
        job.wind_down(&mut news, &mut clock, &mut drain, deadline).await;
        job.end(&mut news).await;
    }
}

/// When the rule is asked, and when everything is looked at in any case.
struct Clock {
    tick: Interval,
    refresh: Interval,
}

impl Clock {
    fn new(scale: &ScaleSettings) -> Self {
        let period = match scale {
            ScaleSettings::Manual { .. } => REFRESH,
            ScaleSettings::Utilization(rule) => rule.interval.max(Duration::from_millis(1)),
        };
        Self { tick: every(period), refresh: every(REFRESH) }
    }

    async fn next(
        &mut self,
        gate: &Gate,
        news: &mut mpsc::UnboundedReceiver<News>,
        alarm: Option<Instant>,
    ) -> Event {
        let alarm = async {
            match alarm {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = alarm => Event::Alarm,
            Some(news) = news.recv() => Event::News(news),
            () = gate.events().notified() => Event::Gate,
            _ = self.tick.tick() => Event::Tick,
            _ = self.refresh.tick() => Event::Refresh,
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl<H: Hands> Job<H> {
    /// Works until the end is asked for; the time at which what still runs is cut.
    async fn serve(
        &mut self,
        news: &mut mpsc::UnboundedReceiver<News>,
        settings: &mut watch::Receiver<Arc<DeploymentSettings>>,
        clock: &mut Clock,
        drain: &mut Drain,
    ) -> Instant {
        let gate = Arc::clone(&self.parts.gate);
        let mut hold = self.hold.clone();
        loop {
            let alarm = self.alarm();
            let event = tokio::select! {
                event = clock.next(&gate, news, alarm) => event,
                Ok(()) = hold.changed() => Event::Hold,
                changed = settings.changed() => match changed {
                    Ok(()) => Event::Settings,
                    Err(_removed) => return Instant::now() + self.parts.drain_timeout,
                },
                () = drain.started() => return match drain.stage() {
                    Stage::Draining { deadline } => deadline.into(),
                    Stage::Forced | Stage::Running => Instant::now(),
                },
            };
            if matches!(event, Event::Settings) {
                self.settings = Arc::clone(&settings.borrow_and_update());
                *clock = Clock::new(&self.settings.scale);
            }
            self.on(event);
        }
    }

    /// Goes on as ever until nothing is queued and running, or the deadline.
    async fn wind_down(
        &mut self,
        news: &mut mpsc::UnboundedReceiver<News>,
        clock: &mut Clock,
        drain: &mut Drain,
        deadline: Instant,
    ) {
        let gate = Arc::clone(&self.parts.gate);
        let mut looks = every(LAST_LOOK);
        let mut empty = 0;
        while empty < 2 {
            let alarm = self.alarm();
            tokio::select! {
                event = clock.next(&gate, news, alarm) => self.on(event),
                _ = looks.tick() => {
                    let load = gate.load();
                    let is_empty = load.busy == 0 && load.busy_draining == 0 && load.queued == 0;
                    empty = if is_empty { empty + 1 } else { 0 };
                }
                () = tokio::time::sleep_until(deadline) => return,
                () = drain.over() => return,
            }
        }
    }
}
