//! Long operations: a change that has been accepted and goes on until its replicas are ready, or gone, or have failed.
//! Written by the control plane, read by the admin listener; the newest thousand are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use crate::control::recipe::RecipeError;
use crate::core::declared::Change;
use crate::core::settings::Name;

/// Most operations that are remembered. One that runs is never forgotten: a deployment has one at most.
const REMEMBERED: usize = 1000;
/// Events that a slow reader may be behind before it misses some.
const EVENTS: usize = 256;
/// Most readers of events at once.
const READERS: usize = 16;

/// What kind of change it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// A new deployment.
    Create,
    /// The end of deployments.
    Delete,
    /// Another number of replicas.
    Scale,
    /// Another document.
    Update,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OperationStatus {
    /// The router ended before it was done.
    Canceled,
    /// It did not succeed; `error` says why.
    Failed,
    /// It goes on.
    InProgress,
    /// It is done.
    Succeeded,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperationError {
    /// For programs: Azure's word where it has one.
    pub code: String,
    /// For people.
    pub message: String,
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Its name in URLs.
    pub id: String,
    /// What kind of change it is.
    pub kind: OperationKind,
    /// The endpoint.
    pub endpoint: Name,
    /// The deployment, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Name>,
    /// How far it has come.
    pub status: OperationStatus,
    /// What it is doing, for people.
    pub phase: String,
    /// Replicas that are ready.
    pub replicas_ready: u32,
    /// Replicas that it waits for.
    pub replicas_wanted: u32,
    /// When it began (RFC 3339).
    pub started_at: String,
    /// When it ended (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<OperationError>,
    /// Deployments that no other operation may touch meanwhile.
    #[serde(skip)]
    pub(crate) touches: Vec<Name>,
}

impl Operation {
    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.status == OperationStatus::InProgress
    }

    /// One that begins now.
    pub(crate) fn new(kind: OperationKind, endpoint: &Name, touches: Vec<Name>) -> Self {
        Self {
            id: format!("{:016x}", rand::random::<u64>()),
            kind,
            endpoint: endpoint.clone(),
            deployment: match touches.as_slice() {
                [one] => Some(one.clone()),
                _ => None,
            },
            status: OperationStatus::InProgress,
            phase: "accepted".to_owned(),
            replicas_ready: 0,
            replicas_wanted: 0,
            started_at: jiff::Timestamp::now().to_string(),
            ended_at: None,
            error: None,
            touches,
        }
    }

    /// The start of a declared deployment that failed before it began.
    pub(crate) fn failed(endpoint: &Name, deployment: &Name, error: &RecipeError) -> Self {
        let mut operation = Self::new(OperationKind::Create, endpoint, vec![deployment.clone()]);
        operation.end(Some(OperationError { code: error.code.to_owned(), message: error.message.clone() }));
        operation
    }

    /// Ends it now.
    pub(crate) fn end(&mut self, error: Option<OperationError>) {
        self.status = if error.is_some() { OperationStatus::Failed } else { OperationStatus::Succeeded };
        self.phase = if error.is_some() { "failed" } else { "done" }.to_owned();
        self.ended_at = Some(jiff::Timestamp::now().to_string());
        self.error = error;
    }

    /// Its deployments have been ready.
    pub(crate) fn proven(&self) -> Change {
        Change::Proven {
            endpoint: self.endpoint.to_string(),
            deployments: self.touches.iter().map(ToString::to_string).collect(),
        }
    }

    /// Ends it, because of something that people are told.
    pub(crate) fn cancel(&mut self, why: &str) {
        self.status = OperationStatus::Canceled;
        why.clone_into(&mut self.phase);
        self.ended_at = Some(jiff::Timestamp::now().to_string());
    }

    fn is_about(&self, endpoint: &Name, deployment: &Name) -> bool {
        self.endpoint == *endpoint && self.touches.contains(deployment)
    }
}

/// Something that happened, for `GET /events`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// What is declared has changed.
    Declared {
        /// Of the state.
        generation: u64,
    },
    /// An operation began, went on or ended.
    Operation(Box<Operation>),
}

/// All operations.
#[derive(Clone, Debug)]
pub struct Operations {
    list: Arc<Mutex<VecDeque<Operation>>>,
    events: broadcast::Sender<Event>,
    /// Places for readers of events: each holds a connection of the admin listener.
    readers: Arc<Semaphore>,
}

impl Default for Operations {
    fn default() -> Self {
        let readers = Arc::new(Semaphore::new(READERS));
        Self { list: Arc::default(), events: broadcast::channel(EVENTS).0, readers }
    }
}

impl Operations {
    /// What happens from now on, and the place that goes with it; `None` when all places are taken.
    pub fn events(&self) -> Option<(broadcast::Receiver<Event>, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.readers).try_acquire_owned().ok()?;
        Some((self.events.subscribe(), place))
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody need listen.
        let _ = self.events.send(event);
    }

    /// Remembers one that begins.
    pub(crate) fn begin(&self, operation: Operation) {
        self.tell(Event::Operation(Box::new(operation.clone())));
        let mut list = self.lock();
        if list.len() >= REMEMBERED
            && let Some(oldest) = list.iter().position(|old| !old.is_running())
        {
            list.remove(oldest);
        }
        list.push_back(operation);
    }

    /// Changes one; tells if anything has changed that people see.
    pub(crate) fn update(&self, id: &str, change: impl FnOnce(&mut Operation)) {
        let told = {
            let mut list = self.lock();
            let Some(operation) = list.iter_mut().find(|operation| operation.id == id) else { return };
            let view = |o: &Operation| (o.status, o.phase.clone(), o.replicas_ready, o.replicas_wanted);
            let before = view(operation);
            change(operation);
            (view(operation) != before).then(|| operation.clone())
        };
        if let Some(operation) = told {
            self.tell(Event::Operation(Box::new(operation)));
        }
    }

    /// One by its id.
    pub fn get(&self, id: &str) -> Option<Operation> {
        self.lock().iter().find(|operation| operation.id == id).cloned()
    }

    /// All that are remembered, the newest last.
    pub fn all(&self) -> Vec<Operation> {
        self.lock().iter().cloned().collect()
    }

    /// The newest about a deployment.
    pub fn last_about(&self, endpoint: &Name, deployment: &Name) -> Option<Operation> {
        self.lock().iter().rev().find(|operation| operation.is_about(endpoint, deployment)).cloned()
    }

    /// The one that runs and touches a deployment.
    pub fn running(&self, endpoint: &Name, deployment: &Name) -> Option<Operation> {
        self.lock().iter().rev().find(|o| o.is_running() && o.is_about(endpoint, deployment)).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Operation>> {
        // A panic elsewhere leaves a whole list: every write is one push or one field.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
