//! From settings to a snapshot, again and again: what is new is started, what stayed is carried over, what is gone is
//! ended once nobody needs it. A configuration that is not valid changes nothing. What is declared through the admin API is
//! part of it (`changes`).

mod changes;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::control::admin::ReloadRequest;
use crate::control::board::Board;
use crate::control::jwks;
use crate::control::overrides::Overrides;
use crate::control::registry::{Message, Registrar, Registry};
use crate::control::scaler::{Machinery, Scaler};
use crate::core::route::Routes;
use crate::core::settings::{DeploymentSettings, EndpointSettings, Name, Settings};
use crate::data::gate::Gate;
use crate::data::quota::Limiter;
use crate::data::verify::{Verifier, VerifierError};
use crate::data::world::{Copies, Deployment, Endpoint, Snapshot};
use crate::observe::metrics::{self, Metrics};
use crate::provider::process::{Launcher, LogTail};
use crate::shutdown::{self, Drain, DrainTrigger, Tasks};

/// How often the file is looked at. Polling, since a mounted ConfigMap changes by swapping a symlink.
const LOOK: Duration = Duration::from_secs(1);

/// Why settings cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// An endpoint stands in the file and is declared through the admin API as well.
    #[error(
        "endpoint {0} stands in the configuration file and in the state directory; remove it from one of them"
    )]
    DeclaredTwice(Name),
    /// Two endpoints have the same route.
    #[error("endpoints {0} and {1} have the same `scoring_route`")]
    RouteTwice(Name, Name),
    /// The file has errors; each with its place.
    #[error("{0}")]
    File(String),
    /// There is no file to read again.
    #[error("there is no configuration file to reload; start with `scoregate serve FILE`")]
    NoFile,
    /// A verification key of an endpoint cannot be used.
    #[error("endpoint {endpoint}: {source}")]
    Verifier {
        /// Whose.
        endpoint: Name,
        /// Why.
        source: VerifierError,
    },
}

/// The task of one deployment, and what outlasts a snapshot.
#[derive(Debug)]
struct Live {
    settings: watch::Sender<Arc<DeploymentSettings>>,
    gate: Arc<Gate>,
    copies: Arc<Copies>,
}

/// Owns the snapshot and the tasks of all deployments.
#[derive(Debug)]
pub struct Configurator {
    file: Option<PathBuf>,
    seen: Option<u64>,
    /// What the file says; endpoints that are declared elsewhere are not in it.
    from_file: Settings,
    registry: Option<Registry>,
    registrar: Registrar,
    snapshot: Arc<ArcSwap<Snapshot>>,
    live: HashMap<(Name, Name), Live>,
    metrics: Metrics,
    /// What the listeners were opened with.
    started_with: Settings,
    board: Board,
    overrides: Overrides,
    launcher: Launcher,
    drain_timeout: Duration,
    /// Replicas outlive the drain of the data plane: they end when no worker can need them any more.
    end_replicas: DrainTrigger,
    replicas_end: Drain,
    tasks: Tasks,
}

impl Configurator {
    /// Puts the first settings to work.
    ///
    /// # Errors
    /// A verification key that cannot be used.
    pub fn start(
        settings: &Settings,
        file: Option<PathBuf>,
        (board, overrides): (Board, Overrides),
        launcher: Launcher,
        tasks: Tasks,
        declared: (Option<Registry>, Registrar),
    ) -> Result<(Self, Arc<ArcSwap<Snapshot>>), ReloadError> {
        let empty = Snapshot {
            generation: 0,
            settings: Arc::new(Settings { endpoints: Vec::new(), ..settings.clone() }),
            routes: Routes::default(),
            endpoints: Vec::new(),
        };
        let snapshot = Arc::new(ArcSwap::from_pointee(empty));
        let seen = file.as_deref().and_then(fingerprint);
        let live = HashMap::new();
        let (end_replicas, replicas_end) = shutdown::drain();
        let mut this = Self {
            file,
            seen,
            from_file: settings.clone(),
            registry: declared.0,
            registrar: declared.1,
            snapshot: Arc::clone(&snapshot),
            live,
            metrics: Metrics::new(),
            started_with: settings.clone(),
            board,
            overrides,
            launcher,
            drain_timeout: settings.drain_timeout,
            end_replicas,
            replicas_end,
            tasks,
        };
        let settings = this.with_declared(settings, None)?;
        this.apply(settings)?;
        Ok((this, snapshot))
    }

    /// Serves requests for reloads and watches the file until the workers are done, then ends every deployment.
    pub async fn run(
        mut self,
        mut requests: mpsc::Receiver<ReloadRequest>,
        mut messages: mpsc::Receiver<Message>,
        workers_done: impl Future<Output = ()>,
    ) {
        let mut look = tokio::time::interval(LOOK);
        let mut workers_done = std::pin::pin!(workers_done);
        loop {
            let request = tokio::select! {
                () = workers_done.as_mut() => break,
                Some(request) = requests.recv() => Some(request),
                Some(message) = messages.recv() => {
                    self.on(message);
                    continue;
                }
                _ = look.tick() => match self.file_changed() {
                    true => None,
                    false => continue,
                },
            };
            let result = self.reload().map_err(|error| error.to_string());
            metrics::count_reload(result.is_ok());
            match &result {
                Ok(generation) => tracing::info!(generation, "configuration reloaded"),
                Err(error) => tracing::error!("configuration not reloaded, the old one stays:\n{error}"),
            }
            if let Some(request) = request {
                request.answer(result);
            }
        }
        self.end_replicas.start(Instant::now());
        self.live.clear();
    }

    fn file_changed(&self) -> bool {
        let now = self.file.as_deref().and_then(fingerprint);
        // A file that is gone for a moment, while it is replaced, is no change.
        now.is_some() && now != self.seen
    }

    fn reload(&mut self) -> Result<u64, ReloadError> {
        let file = self.file.clone().ok_or(ReloadError::NoFile)?;
        self.seen = fingerprint(&file);
        let load = if self.registry.is_some() { config::load_part } else { config::load };
        let loaded = load(&file).map_err(|report| ReloadError::File(report.to_string()))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let settings = self.with_declared(&loaded.settings, None)?;
        let generation = self.apply(settings)?;
        self.from_file = loaded.settings;
        Ok(generation)
    }

    /// Makes the next snapshot. Everything that can fail comes first.
    fn apply(&mut self, settings: Settings) -> Result<u64, ReloadError> {
        let old = self.snapshot.load_full();
        warn_of_what_needs_a_restart(&self.started_with, &settings);
        let mut verifiers = Vec::with_capacity(settings.endpoints.len());
        for endpoint in &settings.endpoints {
            verifiers.push(self.verifier(&old, endpoint)?);
        }
        self.launcher.hide(settings.secret_variables());
        let generation = old.generation + 1;
        let endpoints: Vec<Arc<Endpoint>> = settings
            .endpoints
            .iter()
            .zip(verifiers)
            .map(|(endpoint, verifier)| Arc::new(self.endpoint(&old, endpoint, verifier)))
            .collect();
        let routes = Routes::new(settings.endpoints.iter().map(Arc::as_ref));
        self.snapshot.store(Arc::new(Snapshot {
            generation,
            settings: Arc::new(settings),
            routes,
            endpoints,
        }));
        // Only now, when no new request can come to them.
        let snapshot = self.snapshot.load();
        self.live.retain(|(endpoint, deployment), _| {
            let stays = snapshot.endpoints.iter().any(|e| {
                e.settings.name == *endpoint && e.deployments.iter().any(|d| d.settings.name == *deployment)
            });
            if !stays && let Some(written) = self.overrides.forget(endpoint, deployment) {
                self.tasks.spawn(written);
            }
            stays
        });
        Ok(generation)
    }

    /// The verifier of before while the rules are the same, so that fetched keys and verified tokens stay; with other
    /// rules, at least the keys that were fetched from the same place.
    fn verifier(&self, old: &Snapshot, endpoint: &EndpointSettings) -> Result<Arc<Verifier>, ReloadError> {
        let before = old.endpoints.iter().find(|before| before.settings.name == endpoint.name);
        let made = match before {
            Some(before) if before.settings.auth == endpoint.auth => return Ok(Arc::clone(&before.verifier)),
            Some(before) => before.verifier.renewed(&endpoint.auth),
            None => Verifier::new(&endpoint.auth),
        };
        let verifier =
            made.map_err(|source| ReloadError::Verifier { endpoint: endpoint.name.clone(), source })?;
        if let Some(slot) = verifier.jwks() {
            self.tasks.spawn(jwks::keep(Arc::clone(slot), self.replicas_end.clone()));
        }
        let verifier = Arc::new(verifier);
        Ok(verifier)
    }

    fn endpoint(
        &mut self,
        old: &Snapshot,
        settings: &Arc<EndpointSettings>,
        verifier: Arc<Verifier>,
    ) -> Endpoint {
        let before = old.endpoints.iter().find(|before| before.settings.name == settings.name);
        let turn = match before {
            Some(before) => Arc::clone(&before.turn),
            // Several routers that start at once need not all begin with the same deployment.
            None => Arc::new(AtomicU64::new(u64::from(rand::random::<u32>()))),
        };
        let deployments =
            settings.deployments.iter().map(|d| Arc::new(self.deployment(&settings.name, d))).collect();
        let metrics = self.metrics.deployment(Some(&settings.name), None);
        let limiter = Limiter::new(settings, before.and_then(|before| before.limiter.as_deref()));
        Endpoint { settings: Arc::clone(settings), deployments, verifier, limiter, metrics, turn }
    }

    fn deployment(&mut self, endpoint: &Name, settings: &Arc<DeploymentSettings>) -> Deployment {
        let key = (endpoint.clone(), settings.name.clone());
        let live = self.live.entry(key).or_insert_with(|| {
            let gate = Gate::new(settings.request.limits());
            let log = LogTail::default();
            self.board.keep_log(endpoint, &settings.name, log.clone());
            let (sender, receiver) = watch::channel(Arc::clone(settings));
            let scaler = Scaler {
                endpoint: endpoint.clone(),
                gate: Arc::clone(&gate),
                board: self.board.clone(),
                overrides: self.overrides.clone(),
                tasks: self.tasks.clone(),
                drain: self.replicas_end.clone(),
                drain_timeout: self.drain_timeout,
                hands: Machinery { launcher: self.launcher.clone(), log },
            };
            self.tasks.spawn(scaler.run(receiver));
            Live { settings: sender, gate, copies: Arc::default() }
        });
        live.gate.set_limits(settings.request.limits());
        live.gate.set_queueing(settings.request.queueing());
        live.gate.set_auto_limit(settings.request.auto_slots);
        live.gate.set_passive_health(settings.passive_health);
        live.settings.send_if_modified(|present| {
            let changed = present != settings;
            if changed {
                present.clone_from(settings);
            }
            changed
        });
        // `config` lets only paths pass.
        let path = |path: &String| http::Uri::try_from(path.as_str()).unwrap_or_default();
        Deployment {
            scoring: path(&settings.routes.scoring),
            swagger: path(&settings.routes.swagger),
            settings: Arc::clone(settings),
            header: http::HeaderValue::from_str(settings.name.as_str()).expect("a name is a header value"),
            gate: Arc::clone(&live.gate),
            copies: Arc::clone(&live.copies),
            metrics: self.metrics.deployment(Some(endpoint), Some(&settings.name)),
        }
    }
}

fn warn_of_what_needs_a_restart(old: &Settings, new: &Settings) {
    for (what, changed) in [
        ("listen", old.listen != new.listen),
        ("admin", old.admin != new.admin),
        ("access_log", old.access_log != new.access_log),
        ("recording", old.recording != new.recording),
        ("drain_timeout_ms", old.drain_timeout != new.drain_timeout),
    ] {
        if changed {
            tracing::warn!("a change of `{what}` takes effect at the next start only");
        }
    }
}

/// A number that changes when the file's content does.
fn fingerprint(file: &Path) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    // What is no regular file may keep a reader waiting for ever.
    let text = std::fs::metadata(file)
        .ok()
        .filter(std::fs::Metadata::is_file)
        .and_then(|_| std::fs::read(file).ok())?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Some(hasher.finish())
}
