//! Replicas that are child processes of this one. Decides what is started, ended and restarted (`fleet`), on
//! which port (`port`); how one process lives and ends is in `child`. Whether a replica is ready is not known here.

mod child;
mod fleet;
mod log;
mod output;
mod port;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use self::child::{Ended, Order};
use self::fleet::Fleet;
pub use self::log::LogTail;
use self::port::{Port, Ports};
use super::{Phase, Provider, Replica, ReplicaSet, Wanted, next_replica_id};
use crate::core::admission::ReplicaId;
use crate::core::settings::{Authority, Name, ProcessSettings};
use crate::shutdown::Tasks;

/// Processes that are started before others of the thread have their turn: starting one takes about a millisecond.
const STARTS: usize = 4;

/// Replicas listen on the loopback address.
const HOST: &str = "127.0.0.1";

/// What all process providers share: the program that starts replicas, and the ports that are in use.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    ports: Ports,
    /// Environment variables that replicas do not get.
    hidden: Arc<ArcSwap<BTreeSet<String>>>,
}

impl Launcher {
    /// `program` is the absolute path of scoregate itself (`std::env::current_exe`): it starts replicas by its
    /// subcommand `launch`, and it is what `{scoregate}` stands for.
    pub fn new(program: PathBuf) -> Self {
        Self { program, ports: Ports::default(), hidden: Arc::default() }
    }

    /// Replicas that are started from now on do not inherit these environment variables, which hold secrets of the
    /// router's clients.
    pub fn hide(&self, variables: BTreeSet<String>) {
        self.hidden.store(Arc::new(variables));
    }
}

/// Keeps child processes alive for one deployment.
#[derive(Debug)]
pub struct Process {
    deployment: Name,
    settings: watch::Receiver<ProcessSettings>,
    launcher: Launcher,
    log: LogTail,
}

impl Process {
    /// Replicas are called after the deployment, `blue-1` and so on. Another command, directory or environment
    /// outdates the replicas that exist; other settings hold for the replicas that are started from then on.
    /// When the sender of the settings is gone, the last ones stay.
    /// What replicas print goes into the log and into `log`.
    pub fn new(
        deployment: Name,
        settings: watch::Receiver<ProcessSettings>,
        launcher: Launcher,
        log: LogTail,
    ) -> Self {
        Self { deployment, settings, launcher, log }
    }
}

impl Provider for Process {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>, replicas: watch::Sender<ReplicaSet>) {
        let (report, mut ended) = mpsc::channel(16);
        let template = Arc::new(self.settings.borrow_and_update().clone());
        let mut state = State {
            deployment: self.deployment,
            launcher: self.launcher,
            log: self.log,
            template,
            fleet: Fleet::default(),
            stops: HashMap::new(),
            started: 0,
            tasks: Tasks::new(),
            report,
        };
        let mut settings_live = true;
        loop {
            let now_wanted = wanted.borrow_and_update().clone();
            let is_done = state.reconcile(&now_wanted);
            publish(&replicas, state.fleet.replicas());
            if !is_done {
                tokio::task::yield_now().await;
                continue;
            }
            let retry = state.fleet.next_retry();
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { break },
                changed = self.settings.changed(), if settings_live => {
                    settings_live = changed.is_ok();
                    state.template = Arc::new(self.settings.borrow_and_update().clone());
                }
                Some(ended) = ended.recv() => state.ended(ended),
                () = at(retry) => {}
            }
        }
        state.fleet.stop_all();
        publish(&replicas, state.fleet.replicas());
        state.stop_all(ended).await;
        publish(&replicas, ReplicaSet::new());
    }
}

struct State {
    deployment: Name,
    launcher: Launcher,
    log: LogTail,
    template: Arc<ProcessSettings>,
    fleet: Fleet,
    /// Dropping one stops its replica.
    stops: HashMap<ReplicaId, oneshot::Sender<()>>,
    /// Replicas started so far, for their names.
    started: u64,
    tasks: Tasks,
    report: mpsc::Sender<Ended>,
}

impl State {
    /// Starts and stops what is to be; false if there is more to start.
    fn reconcile(&mut self, wanted: &Wanted) -> bool {
        let plan = self.fleet.plan(wanted, &self.template, Instant::now());
        for id in plan.stop {
            self.stops.remove(&id);
        }
        let is_done = plan.start.len() <= STARTS;
        for failures in plan.start.into_iter().take(STARTS) {
            self.start(failures);
        }
        is_done
    }

    fn start(&mut self, failures: u32) {
        self.started += 1;
        let port = self.launcher.ports.take(self.template.ports);
        let replica = Replica {
            id: next_replica_id(),
            name: format!("{}-{}", self.deployment, self.started).into(),
            authority: Authority { host: HOST.to_owned(), port: port.as_ref().map_or(0, Port::number) },
            since: Instant::now(),
            phase: Phase::Running,
            outdated: false,
        };
        let (id, name) = (replica.id, Arc::clone(&replica.name));
        self.fleet.started(replica, Arc::clone(&self.template), failures);
        let Some(port) = port else {
            let (first, last) = self.template.ports;
            let reason = format!("no free port from {first} to {last}; give the deployment a wider range");
            self.ended(Ended { id, reason, port_taken: false });
            return;
        };
        tracing::info!(replica = %name, port = port.number(), "replica starts");
        let order = Order {
            id,
            name,
            port,
            settings: Arc::clone(&self.template),
            program: self.launcher.program.clone(),
            hidden: self.launcher.hidden.load_full(),
            log: self.log.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        self.stops.insert(id, stop);
        let report = self.report.clone();
        self.tasks.spawn(async move {
            // An error means that the provider is gone; then nobody asks.
            let _ = report.send(child::run(order, stopped).await).await;
        });
    }

    fn ended(&mut self, ended: Ended) {
        self.stops.remove(&ended.id);
        let failed = self.fleet.ended(ended.id, ended.reason, ended.port_taken, Instant::now());
        if let Some(Replica { name, phase: Phase::Failed(reason), .. }) = failed {
            tracing::warn!(replica = %name, reason, "replica failed");
        }
    }

    /// Ends all replicas at the same time and waits until they are gone.
    async fn stop_all(mut self, ended: mpsc::Receiver<Ended>) {
        self.stops.clear();
        // Without a receiver no task waits to report.
        drop(ended);
        self.tasks.ended().await;
    }
}

fn publish(replicas: &watch::Sender<ReplicaSet>, now: ReplicaSet) {
    replicas.send_if_modified(|known| {
        let changed = *known != now;
        if changed {
            *known = now;
        }
        changed
    });
}

/// Completes at a time; never, when there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
