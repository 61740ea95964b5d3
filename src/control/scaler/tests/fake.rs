//! A provider and probes that do what a test tells them, on the runtime's clock.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::control::health::Health;
use crate::control::scaler::Hands;
use crate::core::admission::ReplicaId;
use crate::core::settings::{
    Authority, CapacitySettings, DeploymentKind, DeploymentSettings, FixedSettings, Name, ProbeSettings,
    ProcessSettings, ProviderSettings, RepeatSettings, ReplicaRoutes, RequestSettings, ScalePolicy,
    ScaleSettings, UtilizationScale,
};
use crate::provider::{Phase, Replica, ReplicaSet, Wanted};

/// From start to the first success of the probe.
pub(super) const START: Duration = Duration::from_secs(3);

#[derive(Clone, Default)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    poke: Arc<Notify>,
}

#[derive(Default)]
struct State {
    started: u64,
    kill: Vec<ReplicaId>,
    removed: Vec<ReplicaId>,
    quit: bool,
    /// What the probe of each replica finds.
    found: BTreeMap<ReplicaId, watch::Sender<Health>>,
    never_ready: bool,
    rechecks: u32,
    providers: i32,
    began: Option<tokio::time::Instant>,
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn started(&self) -> u64 {
        self.lock().started
    }

    /// Those that were ended because they are not wanted any more.
    pub(super) fn removed(&self) -> Vec<ReplicaId> {
        self.lock().removed.clone()
    }

    pub(super) fn rechecks(&self) -> u32 {
        self.lock().rechecks
    }

    /// Providers that have not ended.
    pub(super) fn providers(&self) -> i32 {
        self.lock().providers
    }

    pub(super) fn new_ones_never_become_ready(&self, never: bool) {
        self.lock().never_ready = never;
    }

    pub(super) fn find(&self, id: u64, health: Health) {
        self.lock().found[&ReplicaId(id)].send_replace(health);
    }

    /// Ends a process as if it had crashed.
    pub(super) fn kill(&self, id: u64) {
        self.lock().kill.push(ReplicaId(id));
        self.poke.notify_one();
    }

    /// Ends the provider as if it had a bug.
    pub(super) fn quit(&self) {
        self.lock().quit = true;
        self.poke.notify_one();
    }

    fn start(&self, authority: Option<Authority>) -> Replica {
        let mut state = self.lock();
        let id = ReplicaId(state.started);
        state.started += 1;
        let health = if state.never_ready { Health::Unready("503".into()) } else { Health::Ready };
        state.found.insert(id, watch::channel(health).0);
        Replica {
            id,
            name: format!("blue-{}", id.0).into(),
            authority: authority.unwrap_or_else(|| Authority { host: "127.0.0.1".into(), port: 9 }),
            since: tokio::time::Instant::now().into_std(),
            phase: Phase::Running,
            outdated: false,
        }
    }

    fn follow(&self, provider: &ProviderSettings, wanted: &Wanted, set: &mut ReplicaSet) {
        let unwanted = set.iter().map(|replica| replica.id).filter(|id| wanted.remove.contains(id));
        self.lock().removed.extend(unwanted);
        set.retain(|replica| !wanted.remove.contains(&replica.id) && !self.lock().kill.contains(&replica.id));
        match provider {
            ProviderSettings::Fixed(fixed) => {
                for replica in set.iter_mut() {
                    replica.outdated = !fixed.replicas.contains(&replica.authority);
                }
                for authority in &fixed.replicas {
                    if !set.iter().any(|replica| replica.authority == *authority) {
                        set.push(self.start(Some(authority.clone())));
                    }
                }
            }
            ProviderSettings::Process(_) => {
                while set.iter().filter(|replica| !replica.outdated).count() < wanted.replicas as usize {
                    set.push(self.start(None));
                }
            }
        }
    }
}

/// What the clock on the wall says when a test begins: a Monday morning in winter. Not a whole second, so that what
/// happens at one is not found by a look that happens each second.
pub(super) const BEGIN: &str = "2026-11-23T06:59:00.3Z";

impl Hands for Fake {
    fn wall_clock(&self) -> jiff::Timestamp {
        let begin: jiff::Timestamp = BEGIN.parse().unwrap();
        let now = tokio::time::Instant::now();
        let passed = now.duration_since(*self.lock().began.get_or_insert(now));
        begin + passed
    }

    fn provide(
        &self,
        mut settings: watch::Receiver<Arc<DeploymentSettings>>,
        mut wanted: watch::Receiver<Wanted>,
        replicas: watch::Sender<ReplicaSet>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let fake = self.clone();
        async move {
            fake.lock().providers += 1;
            let mut set = ReplicaSet::new();
            let mut template = settings.borrow_and_update().provider.clone();
            let mut configured = true;
            while !std::mem::take(&mut fake.lock().quit) {
                let now = wanted.borrow_and_update().clone();
                fake.follow(&template, &now, &mut set);
                replicas.send_replace(set.clone());
                tokio::select! {
                    changed = wanted.changed() => if changed.is_err() { break },
                    () = fake.poke.notified() => {}
                    changed = settings.changed(), if configured => {
                        configured = changed.is_ok();
                        let next = settings.borrow_and_update().provider.clone();
                        let same_kind = std::mem::discriminant(&next) == std::mem::discriminant(&template);
                        if same_kind && next != template {
                            set.iter_mut().for_each(|replica| replica.outdated = true);
                            template = next;
                        }
                    }
                }
            }
            replicas.send_replace(Vec::new());
            fake.lock().providers -= 1;
        }
    }

    fn probe(
        &self,
        replica: Replica,
        _settings: Arc<DeploymentSettings>,
        _is_busy: impl Fn() -> bool + Send + Sync + 'static,
        recheck: Arc<Notify>,
        mut report: impl FnMut(Health) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let fake = self.clone();
        async move {
            tokio::time::sleep(START).await;
            let mut found = fake.lock().found[&replica.id].subscribe();
            loop {
                let health = found.borrow_and_update().clone();
                report(health.clone());
                if matches!(health, Health::Dead(_)) {
                    return;
                }
                tokio::select! {
                    _ = found.changed() => {}
                    () = recheck.notified() => fake.lock().rechecks += 1,
                }
            }
        }
    }
}

/// Scaled from `min` to 4 each second, one slot a replica, down after 60 s, v2.
pub(super) fn settings(min: u32) -> DeploymentSettings {
    let one = NonZeroU32::MIN;
    let probe = ProbeSettings {
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        success_threshold: one,
        failure_threshold: one,
    };
    DeploymentSettings {
        name: Name::parse("blue").unwrap(),
        kind: DeploymentKind::Treatment,
        request: RequestSettings {
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            slots: Some(one),
            auto_slots: false,
            max_queue_wait: Duration::from_secs(10),
            max_queue_length: None,
            max_body_bytes: 1,
            repeat: RepeatSettings::default(),
            newest_first: false,
            fair_share: false,
        },
        scale: ScaleSettings::Utilization(UtilizationScale {
            policy: ScalePolicy::Azureml,
            min,
            max: 4,
            interval: Duration::from_secs(1),
            target_percent: 70,
            down_after: Duration::from_secs(60),
            count_queue: true,
        }),
        capacity: CapacitySettings::default(),
        liveness: probe.clone(),
        readiness: probe,
        provider: process("model"),
        routes: ReplicaRoutes {
            scoring: "/score".into(),
            swagger: "/swagger.json".into(),
            liveness: "/".into(),
            readiness: "/".into(),
            pass_through: false,
        },
        forward_authorization: false,
        passive_health: true,
    }
}

pub(super) fn process(command: &str) -> ProviderSettings {
    ProviderSettings::Process(ProcessSettings {
        command: vec![command.into()],
        directory: None,
        environment: BTreeMap::new(),
        ports: (9000, 9099),
        start_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(5),
    })
}

pub(super) fn fixed(ports: &[u16]) -> ProviderSettings {
    let authority = |port: &u16| Authority { host: "127.0.0.1".into(), port: *port };
    ProviderSettings::Fixed(FixedSettings { replicas: ports.iter().map(authority).collect() })
}
