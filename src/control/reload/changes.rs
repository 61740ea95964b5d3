//! Changes of what is declared through the admin API, one after the other: worked out, written down, put to work, and followed
//! to their end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Configurator, ReloadError};
use crate::control::board::Board;
use crate::control::operations::{Operation, OperationError};
use crate::control::registry::{
    Before, ChangeError, ChangeRequest, Job, Message, Outcome, Plan, Progress, Registry,
};
use crate::core::declared::Change;
use crate::core::settings::{EndpointSettings, Name, Settings};
use crate::data::verify::Verifier;
use crate::data::world::Snapshot;

impl Configurator {
    /// The settings of a file with the endpoints that are declared, or that a plan would declare.
    pub(super) fn with_declared(
        &self,
        file: &Settings,
        plan: Option<&Plan>,
    ) -> Result<Settings, ReloadError> {
        let mut all = file.clone();
        let declared: Vec<_> = match (plan, &self.registry) {
            (Some(plan), _) => Registry::endpoints_of(plan).cloned().collect(),
            (None, Some(registry)) => registry.endpoints().cloned().collect(),
            (None, None) => Vec::new(),
        };
        for endpoint in declared {
            for other in &all.endpoints {
                if other.name.as_str().eq_ignore_ascii_case(endpoint.name.as_str()) {
                    return Err(ReloadError::DeclaredTwice(endpoint.name.clone()));
                }
                if endpoint.scoring_route.is_some() && endpoint.scoring_route == other.scoring_route {
                    return Err(ReloadError::RouteTwice(other.name.clone(), endpoint.name.clone()));
                }
            }
            all.endpoints.push(endpoint);
        }
        Ok(all)
    }

    pub(super) fn on(&mut self, message: Message) {
        match message {
            Message::Change(request, answer) => {
                let outcome = self.change(&request, None);
                if let Err(error) = &outcome {
                    tracing::info!("a change was refused: {error}");
                }
                // Who asked may have gone.
                let _ = answer.send(outcome);
            }
            Message::Prepared { endpoint, deployment, done } => {
                let known =
                    self.registry.as_mut().is_some_and(|registry| registry.prepared(&endpoint, &deployment));
                if known && let Err(error) = self.renew() {
                    tracing::error!(%endpoint, %deployment, "the deployment cannot be put to work: {error}");
                }
                let _ = done.send(());
            }
            Message::Finish { operation, changes, error } => self.finish(&operation, changes, error),
        }
    }

    /// Puts to work what has changed in the registry without a change of what is declared.
    fn renew(&mut self) -> Result<u64, ReloadError> {
        let settings = self.with_declared(&self.from_file, None)?;
        self.apply(settings)
    }

    /// Makes a change: worked out, written down, put to work. `by` is the operation that asks for it and goes on with it.
    fn change(&mut self, request: &ChangeRequest, by: Option<&str>) -> Result<Outcome, ChangeError> {
        let foreign = self.from_file.endpoints.iter().map(|e| e.name.as_str().to_ascii_lowercase()).collect();
        let registry = self.registry.as_ref().ok_or(ChangeError::NoState)?;
        let plan = registry.plan(request, foreign)?;
        let refused = |error: ReloadError| ChangeError::Settings(error.to_string());
        let settings = self.with_declared(&self.from_file, Some(&plan)).map_err(refused)?;
        // What can fail comes before it is written down.
        let old = self.snapshot.load_full();
        for endpoint in settings.endpoints.iter().filter(|endpoint| is_new(&old, endpoint)) {
            Verifier::new(&endpoint.auth).map_err(|source| {
                refused(ReloadError::Verifier { endpoint: endpoint.name.clone(), source })
            })?;
        }
        let registry = self.registry.as_mut().ok_or(ChangeError::NoState)?;
        let job = registry.commit(plan)?;
        let before = job.as_ref().map(|job| before(&self.board, &old, job)).unwrap_or_default();
        self.apply(settings).map_err(refused)?;
        let operation =
            job.filter(|_| by.is_none() || request.goes_on).map(|job| self.begin(job, before, by));
        Ok(Outcome { operation })
    }

    /// Begins an operation, or the next part of one.
    fn begin(&self, job: Job, before: BTreeMap<Name, Before>, by: Option<&str>) -> String {
        let operations =
            self.registry.as_ref().expect("whoever has a job has a registry").operations().clone();
        let touches: Vec<Name> = job.deployments.iter().map(|target| target.name.clone()).collect();
        if let Some(id) = by {
            operations.update(id, |operation| operation.touches.extend(touches.iter().cloned()));
        }
        let id = by.map(str::to_owned).unwrap_or_else(|| {
            let operation = Operation::new(job.kind, &job.endpoint, touches);
            let id = operation.id.clone();
            operations.begin(operation);
            id
        });
        let progress = Progress {
            id: id.clone(),
            job,
            board: self.board.clone(),
            snapshot: Arc::clone(&self.snapshot),
            operations,
            registrar: self.registrar.clone(),
            drain: self.replicas_end.clone(),
            before,
        };
        self.tasks.spawn(progress.run());
        id
    }

    fn declares(&self, endpoint: &Name) -> bool {
        self.registry.as_ref().is_some_and(|registry| registry.declares(endpoint))
    }

    /// What removes from an operation's endpoint what was kept to follow.
    fn forget(&self, id: &str) -> Option<Change> {
        let registry = self.registry.as_ref()?;
        let endpoint = registry.operations().get(id)?.endpoint;
        registry.has_pending(&endpoint).then(|| Change::Forget { endpoint: endpoint.to_string() })
    }

    /// What follows an operation that has come to its end.
    fn finish(&mut self, id: &str, changes: Vec<Change>, error: Option<OperationError>) {
        let Some(operations) = self.registry.as_ref().map(|registry| registry.operations().clone()) else {
            return;
        };
        // One that was canceled has nothing to follow.
        if !operations.get(id).is_some_and(|operation| operation.is_running()) {
            return;
        }
        let goes_on = error.is_none();
        let mut error = error;
        let forget: Vec<Change> = self.forget(id).into_iter().collect();
        let proven = operations.get(id).filter(|operation| goes_on && self.declares(&operation.endpoint));
        let proven: Vec<Change> = proven.map(|operation| operation.proven()).into_iter().collect();
        let changes = [proven, changes, forget.clone()].concat();
        if !changes.is_empty() {
            let by = Some(id.to_owned());
            let request = ChangeRequest { changes, goes_on, by, ..ChangeRequest::default() };
            match self.change(&request, Some(id)) {
                Ok(Outcome { operation: Some(_) }) => return,
                Ok(Outcome { operation: None }) => {}
                Err(refusal) => {
                    tracing::error!(operation = id, "what follows the operation cannot be done: {refusal}");
                    let refused =
                        || OperationError { code: "refused".to_owned(), message: refusal.to_string() };
                    match &mut error {
                        Some(error) => {
                            error.message.push_str("; and what was there before could not come back: ");
                            error.message.push_str(&refusal.to_string());
                        }
                        none => *none = Some(refused()),
                    }
                    let request =
                        ChangeRequest { changes: forget, by: request.by, ..ChangeRequest::default() };
                    if let Err(error) = self.change(&request, Some(id)) {
                        tracing::error!(operation = id, "it cannot be forgotten either: {error}");
                    }
                }
            }
        }
        operations.update(id, |operation| operation.end(error));
    }
}

/// Whether an endpoint is authenticated by other rules than until now.
fn is_new(old: &Snapshot, endpoint: &EndpointSettings) -> bool {
    !old.endpoints.iter().any(|e| e.settings.name == endpoint.name && e.settings.auth == endpoint.auth)
}

/// What the deployments of a job ran until now.
fn before(board: &Board, old: &Snapshot, job: &Job) -> BTreeMap<Name, Before> {
    let endpoint = old.endpoints.iter().find(|endpoint| endpoint.settings.name == job.endpoint);
    let deployments = endpoint.into_iter().flat_map(|endpoint| &endpoint.deployments);
    let of_job = deployments.filter(|d| job.deployments.iter().any(|target| target.name == d.settings.name));
    let before = of_job.map(|deployment| {
        let name = deployment.settings.name.clone();
        let status = board.get(&job.endpoint, &name).unwrap_or_default();
        let replicas = status.replicas.into_iter().map(|replica| replica.name).collect();
        (name, Before { provider: deployment.settings.provider.clone(), replicas })
    });
    before.collect()
}
