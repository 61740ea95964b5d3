//! What makes replicas exist. A provider is a task between two watch channels: it reads how many replicas
//! are wanted and writes which ones there are, level-triggered: a missed value does no harm.

pub mod fixed;
pub mod process;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::core::admission::ReplicaId;
use crate::core::settings::Authority;

/// What the scaler wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Replicas of the present template, those in `remove` not counted.
    pub replicas: u32,
    /// Replicas that have been drained (or never were ready) and are to be ended now. A provider ends a
    /// replica for no other reason, except that it is dead or everything stops.
    pub remove: BTreeSet<ReplicaId>,
}

/// The replicas that exist, in the order in which they were started.
pub type ReplicaSet = Vec<Replica>;

/// An id that no replica of this process has had before, whatever its deployment or provider.
pub fn next_replica_id() -> ReplicaId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    ReplicaId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One model server.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// Never used again for another one.
    pub id: ReplicaId,
    /// For people: `blue-3`.
    pub name: Arc<str>,
    /// Where it listens.
    pub authority: Authority,
    /// When it was started.
    pub since: Instant,
    /// What it is doing, as far as its provider knows.
    pub phase: Phase,
    /// Made from an older template; to be replaced.
    pub outdated: bool,
}

/// What a replica is doing, as far as its provider knows. Readiness is found by probes, not by providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Runs; probes tell whether it is ready.
    Running,
    /// Has been told to end.
    Stopping,
    /// Died or could not be started; the text says why. A new one follows after a pause.
    Failed(String),
}

/// Makes replicas exist.
pub trait Provider {
    /// Runs until `wanted`'s sender is gone, then ends every replica that it started, and returns when they
    /// are gone.
    fn run(
        self,
        wanted: tokio::sync::watch::Receiver<Wanted>,
        replicas: tokio::sync::watch::Sender<ReplicaSet>,
    ) -> impl Future<Output = ()> + Send;
}
