//! The whole router, from settings to a running process part and back: reads as a table of contents.
//!
//! One control thread (reload, probes, scaling, admin) and the data-plane workers; a drain ends them in the order
//! workers, replicas, control.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc;

use crate::control::admin::{self, AdminContext, ReloadRequest, Reloader, Roles};
use crate::control::board::Board;
use crate::control::certificates::CertificateWatch;
use crate::control::overrides::Overrides;
use crate::control::recipe::Tools;
use crate::control::registry::{Registry, Shown, registrar};
use crate::control::reload::{self, Configurator};
use crate::control::store::{Store, StoreError};
use crate::core::declared::Declared;
use crate::core::settings::Settings;
use crate::data::listener::Listener;
use crate::data::tls::ServerTls;
use crate::data::verify::digest_of;
use crate::data::worker::{self, Shared};
use crate::data::world::Snapshot;
use crate::observe::access::AccessLog;
use crate::observe::ledger::Ledger;
use crate::observe::metrics::{self, Metrics};
use crate::observe::recording::Recorder;
use crate::provider::process::Launcher;
use crate::shutdown::{Drain, DrainTrigger, Tasks, drain};

/// Connections that the kernel holds until a worker takes them.
const BACKLOG: i32 = 4096;

/// Why the router does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The access log cannot be opened.
    #[error("{0}")]
    AccessLog(io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {hint}")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Address and port.
        address: SocketAddr,
        /// What the system said and what to do.
        hint: String,
    },
    /// The path of this program cannot be found out; replicas are started through it.
    #[error("cannot find out where this program is: {0}")]
    Program(io::Error),
    /// The recording cannot be begun.
    #[error("{0}")]
    Recording(io::Error),
    /// What is declared has a mistake.
    #[error("the state directory {folder}: {mistake}; correct the file")]
    Declared {
        /// The directory.
        folder: String,
        /// Where and what.
        mistake: String,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The settings cannot be put to work.
    #[error(transparent)]
    Settings(#[from] reload::ReloadError),
    /// A thread or runtime cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::data::tls::TlsError),
}

/// A running router. Dropping it ends everything at once.
#[derive(Debug)]
pub struct Running {
    /// Where clients call.
    pub data: SocketAddr,
    /// Where operators call.
    pub admin: SocketAddr,
    /// Where clear text is redirected to https.
    pub redirect: Option<SocketAddr>,
    /// Reloads the configuration.
    pub reload: Reloader,
    access: AccessLog,
    drain_timeout: Duration,
    trigger: DrainTrigger,
    control: JoinHandle<()>,
}

impl Running {
    /// Takes no new connections, ends what runs, at most until the drain timeout.
    pub fn drain(&self) {
        self.trigger.start(Instant::now() + self.drain_timeout);
    }

    /// Ends everything now.
    pub fn force(&self) {
        self.trigger.force();
    }

    /// Opens the access log's file anew, after it was moved away.
    pub fn reopen_log(&self) {
        self.access.reopen();
    }

    /// Waits for the end after `drain` or `force`; whether it was an orderly one.
    pub fn wait(self) -> bool {
        let orderly = self.control.join().is_ok();
        if !orderly {
            tracing::error!("the control thread panicked");
        }
        orderly
    }

    /// Whether everything has ended.
    pub fn is_finished(&self) -> bool {
        self.control.is_finished()
    }
}

/// Where what is declared through the admin API is kept, and what it is run with.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// The state directory.
    pub folder: PathBuf,
    /// A Python interpreter whose environment has the model server.
    pub python: Option<PathBuf>,
}

/// Where settings come from and what belongs to them.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The configuration file; without one there is no reload.
    pub file: Option<PathBuf>,
    /// Without one, nothing can be declared.
    pub state: Option<StateOptions>,
    /// Scheme, host and port under which clients reach the data listener, if it is not its own address.
    pub public_url: Option<String>,
}

/// Starts the router with settings.
///
/// # Errors
/// Whatever keeps it from serving: a taken port, bad certificates, a state directory in use, threads that cannot be made.
pub fn start(settings: Settings, origin: Origin) -> Result<Running, StartError> {
    let state = origin.state.map(State::open).transpose()?;
    let listen = settings.listen.clone();
    let data = bind("data", listen.address)?;
    let admin = bind("admin", settings.admin.address)?;
    let redirect = listen.tls.as_ref().and_then(|tls| tls.redirect_from);
    let redirect = redirect.map(|address| bind("redirect", address)).transpose()?;
    let tls = listen.tls.as_ref().map(ServerTls::load).transpose()?.map(Arc::new);
    let access = AccessLog::start(&settings.access_log).map_err(StartError::AccessLog)?;

    let recorder = settings.recording.as_ref().map(Recorder::start).transpose();
    let ledger = Ledger::with(recorder.map_err(StartError::Recording)?.unwrap_or_default());
    let (trigger, drain) = drain();
    let drain_timeout = settings.drain_timeout;
    let (data_address, admin_address) = (address_of(&data)?, address_of(&admin)?);
    let (reload, requests) = admin::reloader();
    if let Some(state) = &state {
        state.store.announce(&format!("http://{admin_address}"))?;
    }
    let own_url = || public_url(listen.tls.is_some(), data_address);
    let control = Control {
        public_url: origin.public_url.unwrap_or_else(own_url),
        state,
        admin,
        access: access.clone(),
        ledger: ledger.clone(),
        drain: drain.clone(),
        tls: tls.clone(),
        reload: reload.clone(),
        requests,
        file: origin.file,
        launcher: Launcher::new(std::env::current_exe().map_err(StartError::Program)?),
    };
    let redirect_address = redirect.as_ref().map(address_of).transpose()?;
    let (first, snapshots) = std_mpsc::channel();
    let (working, workers_done) = mpsc::channel(1);
    let control = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control.run(settings, &first, workers_done))
        .map_err(StartError::Thread)?;
    let snapshot =
        snapshots.recv().map_err(|_| StartError::Thread(io::Error::other("control thread ended")))??;

    let shared = Arc::new(Shared {
        snapshot,
        access: access.clone(),
        ledger,
        unrouted: Metrics::new().deployment(None, None),
        tls,
        listen: crate::core::settings::ListenSettings { address: data_address, ..listen },
        connections: AtomicU32::new(0),
        drain,
    });
    start_workers(&shared, &data, redirect.as_ref(), &working)?;
    Ok(Running {
        data: data_address,
        admin: admin_address,
        redirect: redirect_address,
        reload,
        access,
        drain_timeout,
        trigger,
        control,
    })
}

fn start_workers(
    shared: &Arc<Shared>,
    data: &TcpListener,
    redirect: Option<&TcpListener>,
    working: &mpsc::Sender<()>,
) -> Result<(), StartError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = shared.listen.workers.map_or(cores, |workers| workers.get() as usize);
    for index in 0..count {
        let mut listeners = vec![(Listener::Data, data.try_clone().map_err(StartError::Thread)?)];
        if let Some(redirect) = redirect {
            listeners.push((Listener::Redirect, redirect.try_clone().map_err(StartError::Thread)?));
        }
        let (shared, working) = (Arc::clone(shared), working.clone());
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                if let Err(error) = worker::run(&shared, listeners) {
                    tracing::error!(%error, "a worker cannot run");
                }
                // Control ends the replicas once every worker has dropped its end.
                drop(working);
            })
            .map_err(StartError::Thread)?;
    }
    Ok(())
}

/// The state directory, open.
struct State {
    store: Store,
    declared: Declared,
    tools: Tools,
    roles: Roles,
}

impl State {
    fn open(options: StateOptions) -> Result<Self, StartError> {
        let (mut store, declared) = Store::open(&options.folder)?;
        declared.check().map_err(|refusal| StartError::Declared {
            folder: store.folder().display().to_string(),
            mistake: refusal.to_string(),
        })?;
        let keys = store.admin_keys()?;
        let digest = |key: &SecretString| digest_of(key.expose_secret().as_bytes());
        let roles = Roles { writer: digest(&keys.writer), reader: digest(&keys.reader) };
        let tools = Tools::new(options.python, store.folder().join("environments"));
        Ok(Self { store, declared, tools, roles })
    }
}

/// An address that listens on all interfaces is called by loopback: from elsewhere, a name is needed anyway.
fn public_url(tls: bool, address: SocketAddr) -> String {
    let scheme = if tls { "https" } else { "http" };
    let host = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
    format!("{scheme}://{}", SocketAddr::new(host, address.port()))
}

/// What the control thread is made of.
struct Control {
    public_url: String,
    state: Option<State>,
    admin: TcpListener,
    access: AccessLog,
    ledger: Ledger,
    drain: Drain,
    tls: Option<Arc<ServerTls>>,
    reload: Reloader,
    requests: mpsc::Receiver<ReloadRequest>,
    file: Option<PathBuf>,
    launcher: Launcher,
}

type FirstSnapshot = Result<Arc<ArcSwap<Snapshot>>, StartError>;

impl Control {
    fn run(
        self,
        settings: Settings,
        first: &std_mpsc::Sender<FirstSnapshot>,
        workers_done: mpsc::Receiver<()>,
    ) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.run_on(settings, first, workers_done)),
            Err(error) => {
                // If nobody listens, the start has failed already.
                let _ = first.send(Err(StartError::Thread(error)));
            }
        }
    }

    async fn run_on(
        self,
        settings: Settings,
        first: &std_mpsc::Sender<FirstSnapshot>,
        mut workers_done: mpsc::Receiver<()>,
    ) {
        let tasks = Tasks::new();
        let board = Board::with(self.ledger.clone());
        let kept = self.state.as_ref().map(|state| Overrides::open(state.store.folder()));
        let overrides = kept.unwrap_or_default();
        let key = settings.admin.key.clone();
        let (registrar, messages) = registrar();
        let shown = Shown::nothing();
        let roles = self.state.as_ref().map(|state| state.roles);
        let registry =
            self.state.map(|state| Registry::new(state.store, state.declared, state.tools, shown.clone()));
        let (registry, unfinished) = registry.unzip();
        let declared = (registry, registrar.clone());
        let shows = (board.clone(), overrides.clone());
        let started =
            Configurator::start(&settings, self.file, shows, self.launcher, tasks.clone(), declared);
        let (reloader, snapshot) = match started {
            Ok(started) => started,
            Err(error) => {
                let _ = first.send(Err(error.into()));
                return;
            }
        };
        let admin =
            self.admin.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(self.admin));
        let admin = match admin {
            Ok(admin) => admin,
            Err(error) => {
                let _ = first.send(Err(StartError::Thread(error)));
                return;
            }
        };
        // If nobody listens, the start has failed already.
        let _ = first.send(Ok(Arc::clone(&snapshot)));
        let context = AdminContext {
            snapshot,
            board,
            overrides,
            reload: self.reload,
            access: self.access,
            ledger: self.ledger,
            key,
            roles,
            registrar: registrar.clone(),
            shown,
            public_url: self.public_url,
            stage: self.drain.clone(),
            started: Instant::now(),
            started_at: SystemTime::now(),
        };
        // Operators can watch the drain; their listener ends last.
        let (end_admin, admin_ends) = drain();
        let certificates_end = admin_ends.clone();
        let admin_tasks = Tasks::new();
        admin_tasks.spawn(async move {
            if let Err(error) = admin::serve(admin, context, admin_ends).await {
                tracing::error!(%error, "the admin listener ended");
            }
        });
        admin_tasks.spawn(metrics::upkeep(self.drain.clone()));
        if let Some(tls) = self.tls {
            admin_tasks.spawn(CertificateWatch::new(tls).run(certificates_end));
        }
        for request in unfinished.into_iter().flatten() {
            let registrar = registrar.clone();
            admin_tasks.spawn(async move {
                if let Err(error) = registrar.change(request).await {
                    tracing::error!("a deployment cannot be taken up again: {error}");
                }
            });
        }
        // Replicas live until no worker can need them any more.
        reloader
            .run(self.requests, messages, async move { while workers_done.recv().await.is_some() {} })
            .await;
        let mut drain = self.drain;
        tokio::select! {
            () = tasks.ended() => {}
            // Their keepers end the replicas that are left when this process is gone.
            () = drain.forced() => {}
        }
        end_admin.force();
        admin_tasks.ended().await;
    }
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(StartError::Thread)
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || -> io::Result<TcpListener> {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| StartError::Bind {
        what,
        address,
        hint: match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "port {} is taken by another program; stop that one or choose another port",
                    address.port()
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!("port {} needs more rights; choose one above 1023", address.port())
            }
            _ => error.to_string(),
        },
    })
}
