//! A worker: one thread with a runtime of its own that accepts connections and serves them to their end.
//!
//! All workers listen on the same socket, so an idle one accepts first. What is `Rc` here belongs to one worker; what
//! is `Arc` crosses threads.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use hyper_util::server::conn::auto;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::core::settings::ListenSettings;
use crate::data::body::{self, Leftovers};
use crate::data::cork::Cork;
use crate::data::listener::{self, Listener, LocalExecutor};
use crate::data::peer::{Patience, Peers};
use crate::data::record::Sinks;
use crate::data::signal::Signal;
use crate::data::tls::ServerTls;
use crate::data::upstream::Upstream;
use crate::data::verify::TokenCache;
use crate::data::world::Snapshot;
use crate::observe::access::AccessLog;
use crate::observe::ledger::Ledger;
use crate::observe::metrics::DeploymentMetrics;
use crate::shutdown::{Drain, Tasks};

/// How long after a drain's end what was cut may take to send its last words.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The present snapshot.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where access-log lines go.
    pub access: AccessLog,
    /// Where decisions are remembered.
    pub ledger: Ledger,
    /// Counts requests that belong to no endpoint.
    pub unrouted: Arc<DeploymentMetrics>,
    /// Certificates; `None` is clear text.
    pub tls: Option<Arc<ServerTls>>,
    /// Limits of the listener.
    pub listen: ListenSettings,
    /// Open client connections.
    pub connections: AtomicU32,
    /// When to stop.
    pub drain: Drain,
}

/// One worker's own.
#[derive(Debug)]
pub struct Worker {
    /// How clients' connections are served.
    pub http: auto::Builder<LocalExecutor>,
    /// Connections from clients.
    pub peers: Peers,
    /// Where small writes wait for each other.
    pub cork: Rc<Cork>,
    /// Connections to replicas.
    pub upstream: Rc<Upstream>,
    /// Where records go.
    pub sinks: Rc<Sinks>,
    /// Tokens that have been verified.
    pub tokens: RefCell<TokenCache>,
    /// Draws for ids.
    pub rng: RefCell<SmallRng>,
    /// When to stop: what is true at this moment.
    pub drain: Drain,
    /// The drain has begun: wakes this worker's tasks.
    pub draining: Rc<Signal>,
    /// What still waits must end now.
    pub drain_over: Rc<Signal>,
    /// Takes bodies whose request has been answered.
    pub leftovers: Leftovers,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
}

impl Worker {
    fn new(shared: &Shared, tasks: &Tasks, leftovers: Leftovers) -> Rc<Self> {
        let cork = Cork::new();
        let sinks = Sinks {
            access: shared.access.clone(),
            ledger: shared.ledger.worker(),
            unrouted: Arc::clone(&shared.unrouted),
        };
        Rc::new(Self {
            http: listener::http(&shared.listen),
            peers: Peers::default(),
            upstream: Upstream::new(tasks, &cork),
            cork,
            sinks: Rc::new(sinks),
            tokens: RefCell::new(TokenCache::new()),
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            drain: shared.drain.clone(),
            draining: Signal::new(),
            drain_over: Signal::new(),
            leftovers,
            snapshot: RefCell::new(Cache::new(Arc::clone(&shared.snapshot))),
        })
    }

    /// The snapshot that a request which begins now sees to its end.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.snapshot.borrow_mut().load())
    }
}

/// Runs a worker on this thread until the drain is over.
///
/// # Errors
/// The runtime or the listener cannot be made.
pub fn run(shared: &Arc<Shared>, listeners: Vec<(Listener, std::net::TcpListener)>) -> io::Result<()> {
    let runtime: LocalRuntime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        // The worker ends with its clients' connections; what works for them ends with it.
        let (clients, helpers) = (Tasks::new(), Tasks::new());
        let (leftovers, bodies) = mpsc::unbounded_channel();
        let worker = Worker::new(shared, &helpers, leftovers);
        helpers.spawn_local(discard_leftovers(bodies, helpers.clone()));
        let cork = Rc::clone(&worker.cork);
        helpers.spawn_local(async move { cork.run().await });
        helpers.spawn_local(pass_on(shared.drain.clone(), Rc::clone(&worker)));
        for (kind, listener) in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            clients.spawn_local(listener::accept(
                Rc::clone(&worker),
                Arc::clone(shared),
                kind,
                listener,
                clients.clone(),
            ));
        }
        let patience = Patience { head: shared.listen.header_timeout, write: shared.listen.write_timeout };
        let sweep = async {
            let mut tick = tokio::time::interval(patience.interval());
            loop {
                tick.tick().await;
                let now = Instant::now();
                worker.upstream.sweep(now);
                worker.peers.sweep(now, patience);
            }
        };
        let mut drain = shared.drain.clone();
        let end = async {
            drain.over().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = clients.ended() => {}
            () = end => tracing::warn!(connections = clients.len(), "the drain is over; cutting what is left"),
            () = sweep => {}
        }
        Ok(())
    })
}

/// Tells this worker's tasks of the drain.
async fn pass_on(mut drain: Drain, worker: Rc<Worker>) {
    drain.started().await;
    worker.draining.give();
    drain.over().await;
    worker.drain_over.give();
}

/// Reads on in bodies whose request has been answered.
async fn discard_leftovers(mut bodies: UnboundedReceiver<hyper::body::Incoming>, tasks: Tasks) {
    while let Some(incoming) = bodies.recv().await {
        tasks.spawn_local(body::discard(incoming));
    }
}

/// A place among the connections; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Shared>);

impl Place {
    /// Takes a place, if there is one.
    pub fn take(shared: &Arc<Shared>) -> Option<Self> {
        let limit = shared.listen.max_connections.get();
        let taken = shared
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < limit).then_some(open + 1));
        taken.is_ok().then(|| Self(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
