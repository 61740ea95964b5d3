//! The snapshot: the one immutable view of the configuration that a request sees, with the live parts that
//! outlast it (gates, turn counters, verifiers, metric handles) behind `Arc`s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::core::retry::{Budget, Late};
use crate::core::route::Routes;
use crate::core::settings::{DeploymentSettings, EndpointSettings, Settings};
use crate::core::wait::{LongestWait, WaitSetting};
use crate::data::gate::Gate;
use crate::data::quota::Limiter;
use crate::data::verify::Verifier;
use crate::observe::metrics::DeploymentMetrics;

/// One generation of the configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every reload, from 1.
    pub generation: u64,
    /// What the file said.
    pub settings: Arc<Settings>,
    /// Where paths and hosts lead.
    pub routes: Routes,
    /// Same order as in the settings.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// An endpoint, live.
#[derive(Debug)]
pub struct Endpoint {
    /// What the file said.
    pub settings: Arc<EndpointSettings>,
    /// Same order as in the settings.
    pub deployments: Vec<Arc<Deployment>>,
    /// Knows the endpoint's keys; carried on while the settings of authentication stay the same.
    pub verifier: Arc<Verifier>,
    /// Limits of its callers; `None` where nobody has any. What was used is carried on.
    pub limiter: Option<Arc<Limiter>>,
    /// Handles of the metrics of requests that never came to a deployment.
    pub metrics: Arc<DeploymentMetrics>,
    /// Requests that were split so far; carried from one snapshot to the next.
    pub turn: Arc<AtomicU64>,
}

impl Endpoint {
    /// The deployment whose turn it is, or `None` if none takes traffic.
    pub fn next(&self) -> Option<&Arc<Deployment>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.settings.traffic.pick(turn).and_then(|index| self.deployments.get(index))
    }

    /// A deployment by its name; case does not matter, as the original's SDK sends names in lower case.
    pub fn named(&self, name: &[u8]) -> Option<&Arc<Deployment>> {
        self.deployments.iter().find(|d| d.settings.name.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The names of the deployments.
    pub fn names(&self) -> Vec<String> {
        self.deployments.iter().map(|d| d.settings.name.to_string()).collect()
    }
}

/// What second copies of a deployment's requests go by.
#[derive(Debug, Default)]
pub struct Copies {
    /// How many there may be.
    pub budget: Budget,
    /// When an answer is late; kept only where second copies are sent by it.
    pub late: Mutex<Late>,
}

/// A deployment, live.
#[derive(Debug)]
pub struct Deployment {
    /// What the file said.
    pub settings: Arc<DeploymentSettings>,
    /// Its name, as it goes into the answer's header.
    pub header: http::HeaderValue,
    /// The model's path for scores.
    pub scoring: http::Uri,
    /// The model's path for the description of its interface.
    pub swagger: http::Uri,
    /// Carried from one snapshot to the next by name.
    pub gate: Arc<Gate>,
    /// What second copies of requests go by; carried like the gate.
    pub copies: Arc<Copies>,
    /// Handles of its metrics; carried like the gate.
    pub metrics: Arc<DeploymentMetrics>,
}

impl Deployment {
    /// Longest time in the queue for a request that comes now: where replicas may all be gone, one that comes while none is
    /// ready waits for a start, and not only for a slot. Looks at the gate only where it makes a difference.
    pub fn longest_wait(&self) -> LongestWait {
        match self.settings.capacity.cold_start_wait {
            Some(time) if !self.gate.any_ready() => LongestWait { time, setting: WaitSetting::ColdStart },
            Some(_) | None => {
                LongestWait { time: self.settings.request.max_queue_wait, setting: WaitSetting::Queue }
            }
        }
    }
}
