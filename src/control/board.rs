//! What the control plane knows of each deployment, for operators to see. Written by the deployment's own task,
//! read by the admin listener.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::admission::Standing;
use crate::core::bounds::{Bounds, By};
use crate::core::ledger::to_millisecond;
use crate::core::settings::Name;
use crate::observe::ledger::{Ledger, unix_seconds};
use crate::provider::process::LogTail;

/// What is known of one deployment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// Replicas there should be.
    pub desired: u32,
    /// Within which numbers that is decided, where it is decided at all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bounds: Option<BoundsStatus>,
    /// The last decision that changed `desired` (or the first one).
    pub last_decision: Option<DecisionStatus>,
    /// Every replica that exists.
    pub replicas: Vec<ReplicaStatus>,
}

/// Fewest and most replicas at the moment, and whose word that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundsStatus {
    /// Fewest replicas.
    pub min_instances: u32,
    /// Most replicas.
    pub max_instances: u32,
    /// Whose they are.
    pub by: BoundsBy,
    /// Name of the schedule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schedule: Option<String>,
    /// When they end, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
}

/// Whose bounds they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundsBy {
    /// The configuration's.
    Configuration,
    /// A schedule's.
    Schedule,
    /// An operator's.
    Operator,
}

impl From<&Bounds> for BoundsStatus {
    fn from(bounds: &Bounds) -> Self {
        let (by, schedule, until) = match &bounds.by {
            By::Configuration => (BoundsBy::Configuration, None, None),
            By::Schedule(window) => (BoundsBy::Schedule, Some(window.name.clone()), Some(window.until)),
            By::Operator(hold) => (BoundsBy::Operator, None, Some(hold.until)),
        };
        Self { min_instances: bounds.min, max_instances: bounds.max, by, schedule, until }
    }
}

/// A scale decision, as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecisionStatus {
    /// Seconds since 1970.
    pub at_unix_seconds: f64,
    /// Replicas before.
    pub from: u32,
    /// Replicas asked for.
    pub to: u32,
    /// A sentence with the numbers that led to it.
    pub reason: String,
}

impl DecisionStatus {
    /// A decision at a wall-clock time.
    pub fn new(at: SystemTime, from: u32, to: u32, reason: String) -> Self {
        let at_unix_seconds = to_millisecond(unix_seconds(at));
        Self { at_unix_seconds, from, to, reason }
    }
}

/// One replica, as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Name, such as `blue-3`.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// What it is doing.
    pub state: ReplicaState,
    /// How it has done beside its siblings.
    #[serde(default)]
    pub standing: Standing,
    /// Why it is not ready or not in good standing, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Requests on it.
    pub busy: u32,
    /// Seconds since it was started.
    pub age_seconds: u64,
}

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Runs and has never been ready.
    Starting,
    /// Admits requests.
    Ready,
    /// Was ready; its probe fails or it could not be reached.
    Unready,
    /// Admits nothing and finishes what it has.
    Draining,
    /// Has been told to end.
    Stopping,
    /// Died or did not start; another follows after a pause.
    Failed,
}

impl ReplicaState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Ready, Self::Unready, Self::Draining, Self::Stopping, Self::Failed];

    /// As it is written in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        }
    }
}

/// The status of every deployment, by endpoint and deployment name.
#[derive(Clone, Debug, Default)]
pub struct Board {
    statuses: Arc<Mutex<BTreeMap<(Name, Name), DeploymentStatus>>>,
    logs: Arc<Mutex<BTreeMap<(Name, Name), LogTail>>>,
    ledger: Ledger,
}

impl Board {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empty, with a ledger to which decisions go.
    pub fn with(ledger: Ledger) -> Self {
        Self { ledger, ..Self::default() }
    }

    /// Where decisions go.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Replaces what is known of a deployment.
    pub fn put(&self, endpoint: &Name, deployment: &Name, status: DeploymentStatus) {
        self.lock().insert((endpoint.clone(), deployment.clone()), status);
    }

    /// Forgets a deployment.
    pub fn remove(&self, endpoint: &Name, deployment: &Name) {
        self.logs().remove(&(endpoint.clone(), deployment.clone()));
        self.lock().remove(&(endpoint.clone(), deployment.clone()));
    }

    /// Where the lines of a deployment's replicas go from now on.
    pub fn keep_log(&self, endpoint: &Name, deployment: &Name, log: LogTail) {
        self.logs().insert((endpoint.clone(), deployment.clone()), log);
    }

    /// The last lines of a deployment's replicas.
    pub fn log(&self, endpoint: &Name, deployment: &Name) -> Option<LogTail> {
        self.logs().get(&(endpoint.clone(), deployment.clone())).cloned()
    }

    /// What is known of a deployment.
    pub fn get(&self, endpoint: &Name, deployment: &Name) -> Option<DeploymentStatus> {
        self.lock().get(&(endpoint.clone(), deployment.clone())).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Name, Name), DeploymentStatus>> {
        // A panic elsewhere leaves a whole map: every write is one insert.
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Name, Name), LogTail>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
