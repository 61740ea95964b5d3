//! Follows an operation to its end: environments are made, replicas become ready or fail, or are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::request::{Message, Registrar};
use super::{Job, Target};
use crate::control::board::{Board, BoundsBy, BoundsStatus, DeploymentStatus, ReplicaState};
use crate::control::operations::{OperationError, Operations};
use crate::control::recipe::prepare;
use crate::core::declared::Change;
use crate::core::settings::{DeploymentSettings, Name, ProviderSettings, ScaleSettings};
use crate::data::world::Snapshot;
use crate::shutdown::Drain;

/// Time between two looks at the board.
const LOOK: Duration = Duration::from_millis(50);
/// Replicas that may fail one after the other before the deployment has failed.
const ATTEMPTS: usize = 3;
/// Longest wait for servers that somebody else runs.
const FIXED: Duration = Duration::from_secs(60);
/// How much longer than the start timeout of a replica: the last one may be started late.
const MARGIN: Duration = Duration::from_secs(30);

/// Follows one operation.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Which.
    pub(crate) id: String,
    pub(crate) job: Job,
    pub(crate) board: Board,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) operations: Operations,
    pub(crate) registrar: Registrar,
    pub(crate) drain: Drain,
    /// What its deployments ran before, and on which replicas.
    pub(crate) before: BTreeMap<Name, Before>,
}

/// What a deployment ran before a change.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) provider: ProviderSettings,
    pub(crate) replicas: BTreeSet<String>,
}

impl Progress {
    /// Runs until the operation has ended; then the configurator is told what is to follow.
    pub(crate) async fn run(mut self) {
        let mut drain = self.drain.clone();
        let outcome = tokio::select! {
            outcome = self.follow() => outcome,
            // Whoever ends the router sees to what is left.
            () = drain.started() => {
                return self.operations.update(&self.id, |operation| operation.cancel("the router ends"));
            }
        };
        let (changes, error) = match outcome {
            Ok(()) => (std::mem::take(&mut self.job.then), None),
            Err(error) => (self.way_back(), Some(error)),
        };
        self.registrar.tell(Message::Finish { operation: self.id, changes, error }).await;
    }

    /// What was there before comes back, so that it goes on serving, after a restart as well.
    fn way_back(&self) -> Vec<Change> {
        let changed =
            self.job.deployments.iter().filter_map(|target| Some((target, target.before.as_ref()?)));
        let back = changed.map(|(target, document)| Change::ReplaceDeployment {
            endpoint: self.job.endpoint.to_string(),
            deployment: target.name.to_string(),
            document: document.clone(),
        });
        let endpoint = self.job.before.iter().map(|document| Change::ReplaceEndpoint {
            endpoint: self.job.endpoint.to_string(),
            document: document.clone(),
        });
        back.chain(endpoint).collect()
    }

    async fn follow(&mut self) -> Result<(), OperationError> {
        let targets = std::mem::take(&mut self.job.deployments);
        let outcome = self.follow_all(&targets).await;
        self.job.deployments = targets;
        outcome
    }

    async fn follow_all(&mut self, targets: &[Target]) -> Result<(), OperationError> {
        for target in targets {
            if target.environment.is_none() && !target.resumes {
                continue;
            }
            if let Some(environment) = &target.environment {
                prepare(environment, |phase| self.phase(phase)).await.map_err(|error| OperationError {
                    code: error.code.to_owned(),
                    message: error.to_string(),
                })?;
            }
            if target.resumes {
                // Should it not come to life any more, its successor need not wait for it.
                let _ = self.ready(&target.name).await;
            }
            self.remember_replicas(&target.name);
            let (done, at_work) = oneshot::channel();
            let (endpoint, deployment) = (self.job.endpoint.clone(), target.name.clone());
            self.registrar.tell(Message::Prepared { endpoint, deployment, done }).await;
            // An error means that the deployment is not declared any more, which `ready` will find.
            let _ = at_work.await;
        }
        for target in targets.iter().filter(|target| !target.ends) {
            self.ready(&target.name).await?;
        }
        for target in targets.iter().filter(|target| target.ends) {
            self.phase(&format!("waiting until the replicas of {} are gone", target.name));
            while self.board.get(&self.job.endpoint, &target.name).is_some() {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    fn phase(&self, phase: &str) {
        self.operations.update(&self.id, |operation| phase.clone_into(&mut operation.phase));
    }

    /// Between the change and now, the old command may have been started again.
    fn remember_replicas(&mut self, deployment: &Name) {
        let status = self.board.get(&self.job.endpoint, deployment);
        if let (Some(before), Some(status)) = (self.before.get_mut(deployment), status) {
            before.replicas.extend(status.replicas.into_iter().map(|replica| replica.name));
        }
    }

    fn settings(&self, deployment: &Name) -> Option<Arc<DeploymentSettings>> {
        let snapshot = self.snapshot.load();
        let endpoint = snapshot.endpoints.iter().find(|e| e.settings.name == self.job.endpoint)?;
        let deployment = endpoint.deployments.iter().find(|d| d.settings.name == *deployment)?;
        Some(Arc::clone(&deployment.settings))
    }

    /// Waits until the replicas of the present document are ready.
    async fn ready(&self, deployment: &Name) -> Result<(), OperationError> {
        self.phase(&format!("waiting for the replicas of {deployment}"));
        let Some(settings) = self.settings(deployment) else { return Err(gone(deployment)) };
        let (wanted, patience) = wanted(&settings);
        let end = Instant::now() + patience;
        let none = BTreeSet::new();
        let outdated = match self.before.get(deployment) {
            Some(before) if settings.provider.replaces(&before.provider) => &before.replicas,
            _ => &none,
        };
        let mut failed: Vec<(String, String)> = Vec::new();
        let mut known: Option<BTreeSet<String>> = None;
        loop {
            let status = self.board.get(&self.job.endpoint, deployment).unwrap_or_default();
            let of = |state| {
                let replicas = status.replicas.iter().filter(move |replica| replica.state == state);
                replicas.filter(|replica| !outdated.contains(&replica.name))
            };
            let ready = u32::try_from(of(ReplicaState::Ready).count()).unwrap_or(u32::MAX);
            self.operations.update(&self.id, |operation| {
                (operation.replicas_ready, operation.replicas_wanted) = (ready, wanted);
            });
            if is_enough(ready, wanted, &settings.scale, status.bounds.as_ref()) {
                return Ok(());
            }
            let failures = of(ReplicaState::Failed);
            let known =
                known.get_or_insert_with(|| failures.clone().map(|replica| replica.name.clone()).collect());
            for replica in failures.filter(|replica| !known.contains(&replica.name)) {
                if failed.iter().all(|(name, _)| *name != replica.name) {
                    failed.push((replica.name.clone(), replica.detail.clone().unwrap_or_default()));
                }
            }
            if failed.len() >= ATTEMPTS && ready == 0 {
                return Err(crashed(deployment, &failed));
            }
            if Instant::now() > end {
                return Err(late(deployment, patience, &status));
            }
            if self.settings(deployment).is_none() {
                return Err(gone(deployment));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How many replicas are to be ready, and how long that may take.
fn wanted(settings: &DeploymentSettings) -> (u32, Duration) {
    let patience = match &settings.provider {
        ProviderSettings::Fixed(_) => FIXED,
        ProviderSettings::Process(process) => process.start_timeout + MARGIN,
    };
    match &settings.scale {
        ScaleSettings::Manual { replicas } => (*replicas, patience),
        ScaleSettings::Utilization(rule) => (rule.min, patience),
    }
}

/// Whether so many ready replicas are what the document asks for, or what an operator has made of it for a while.
fn is_enough(ready: u32, wanted: u32, scale: &ScaleSettings, bounds: Option<&BoundsStatus>) -> bool {
    if let Some(held) = bounds.filter(|bounds| bounds.by == BoundsBy::Operator) {
        // One at least shows that it can live, where the document asks for any and the operator allows one.
        return ready >= held.min_instances.max(wanted.min(1)).min(held.max_instances);
    }
    let exact = matches!(scale, ScaleSettings::Manual { .. });
    ready == wanted || (ready > wanted && !exact)
}

fn gone(deployment: &Name) -> OperationError {
    OperationError {
        code: "OperationCanceled".to_owned(),
        message: format!("deployment {deployment} was deleted meanwhile"),
    }
}

/// Azure's names (reference §9.4).
fn crashed(deployment: &Name, failed: &[(String, String)]) -> OperationError {
    let last = failed.last().map_or("", |(_, detail)| detail);
    // The real model server ends with 3 when init() fails or the script is missing.
    let code =
        if last.starts_with("exit code 3") { "UserScriptInitFailed" } else { "DeploymentCrashLoopBackOff" };
    OperationError {
        code: code.to_owned(),
        message: format!(
            "{} replicas of {deployment} ended one after the other; the last: {last}",
            failed.len()
        ),
    }
}

fn late(deployment: &Name, patience: Duration, status: &DeploymentStatus) -> OperationError {
    let detail =
        status.replicas.iter().find_map(|replica| replica.detail.as_deref()).unwrap_or("no reason is known");
    OperationError {
        code: "ResourceNotReady".to_owned(),
        message: format!(
            "the replicas of {deployment} were not ready within {} s: {detail}",
            patience.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_allows_is_enough_and_none_where_none_has_to_be_there() {
        let held = |min_instances, max_instances| {
            let by = BoundsBy::Operator;
            Some(BoundsStatus { min_instances, max_instances, by, schedule: None, until: None })
        };
        let scale = ScaleSettings::Manual { replicas: 0 };
        let enough =
            |ready, wanted, held: Option<BoundsStatus>| is_enough(ready, wanted, &scale, held.as_ref());
        // `min_instances: 0` and `scoregate scale --max 3`.
        assert!(enough(0, 0, held(0, 3)));
        assert!(!enough(1, 0, held(2, 3)));
        // One shows that it can live.
        assert!(!enough(0, 2, held(0, 3)));
        assert!(enough(1, 2, held(0, 3)));
        assert!(enough(0, 2, held(0, 0)));
    }
}
