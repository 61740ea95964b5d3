//! Asking for a change and hearing what came of it: a channel from the admin listener to the configurator.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::control::operations::OperationError;
use crate::control::recipe::RecipeError;
use crate::control::store::StoreError;
use crate::core::declared::{Change, Code, Declared, Document, Refusal, version_of};
use crate::core::settings::Name;

/// Requests that may wait at once.
const WAITING: usize = 64;
/// Longest wait: a change is written to disk before it is answered.
const LONGEST: Duration = Duration::from_secs(30);

/// Changes that are made together.
#[derive(Clone, Debug, Default)]
pub struct ChangeRequest {
    /// Made at once.
    pub changes: Vec<Change>,
    /// Made when the replicas of what changed are ready.
    pub then: Vec<Change>,
    /// Versions that must still be the present ones.
    pub expected: Vec<Expected>,
    /// The deployments that it names are waited for even if nothing changes.
    pub wait: bool,
    /// The operation that asks, which may touch its own deployments.
    pub by: Option<String>,
    /// The operation that asks goes on with what the change begins.
    pub goes_on: bool,
}

impl ChangeRequest {
    /// One change.
    pub fn one(change: Change) -> Self {
        Self { changes: vec![change], ..Self::default() }
    }

    /// Deployments as they are declared, to be waited for anew, and what is to follow them.
    pub(super) fn again(endpoint: &Name, deployments: &[(&Name, &Document)], then: Vec<Change>) -> Self {
        let changes = deployments.iter().map(|(deployment, document)| Change::ReplaceDeployment {
            endpoint: endpoint.to_string(),
            deployment: deployment.to_string(),
            document: (*document).clone(),
        });
        Self { changes: changes.collect(), then, wait: true, ..Self::default() }
    }
}

/// What the sender of a change has seen.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Of which endpoint.
    pub endpoint: String,
    /// Of which of its deployments; `None` is the endpoint itself.
    pub deployment: Option<String>,
    /// The version, as in the ETag.
    pub version: u64,
}

impl Expected {
    pub(super) fn check(&self, declared: &Declared) -> Result<(), Refusal> {
        let present = declared.endpoint(&self.endpoint).and_then(|(_, endpoint)| match &self.deployment {
            None => Some(version_of(&endpoint.document)),
            Some(name) => endpoint.deployment(name).map(|(_, document)| version_of(document)),
        });
        // What is not there is refused for that.
        if present.is_none_or(|present| present == self.version) {
            return Ok(());
        }
        Err(Refusal {
            code: Code::Conflict,
            message: "another change came first; read it again and repeat yours".to_owned(),
        })
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A deployment is being changed already.
    #[error("deployment `{deployment}` is being changed by operation {operation}; wait for its end")]
    InProgress {
        /// Which.
        deployment: Name,
        /// By what.
        operation: String,
    },
    /// Nobody makes changes: the router is starting or ending.
    #[error("nobody makes changes now; the router is starting or ending")]
    NobodyThere,
    /// There is no state directory.
    #[error(
        "nothing can be changed here: the router runs without a state directory; start it with `--state DIR`"
    )]
    NoState,
    /// A deployment cannot be run on this machine.
    #[error("{0}")]
    Recipe(RecipeError),
    /// A rule is broken.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It cannot be put to work.
    #[error("{0}")]
    Settings(String),
    /// It cannot be written down; nothing has changed.
    #[error("the change cannot be written down: {0}")]
    Store(StoreError),
    /// No outcome in time; it may still come.
    #[error("the change has not been answered within 30 s; look at what is declared")]
    TooSlow,
}

/// A change that was made.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The operation that goes on, if there is one.
    pub operation: Option<String>,
}

/// What the configurator is told.
#[derive(Debug)]
pub enum Message {
    /// A change is wanted.
    Change(Box<ChangeRequest>, oneshot::Sender<Result<Outcome, ChangeError>>),
    /// The environment of a deployment has been made.
    Prepared {
        /// Of which endpoint.
        endpoint: Name,
        /// Which.
        deployment: Name,
        /// Told when it is at work.
        done: oneshot::Sender<()>,
    },
    /// An operation has come to its end and asks for what is to follow: the changes for good luck, or the way back.
    Finish {
        /// Which.
        operation: String,
        /// What is to be done.
        changes: Vec<Change>,
        /// Why it failed.
        error: Option<OperationError>,
    },
}

/// Asks for changes. Clones ask the same owner.
#[derive(Clone, Debug)]
pub struct Registrar(pub(super) mpsc::Sender<Message>);

/// The side that asks and the side that changes.
pub fn registrar() -> (Registrar, mpsc::Receiver<Message>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Registrar(sender), receiver)
}

impl Registrar {
    /// Asks for a change and waits for the outcome.
    ///
    /// # Errors
    /// Nothing has changed, or (`TooSlow`) that is not known.
    pub async fn change(&self, request: ChangeRequest) -> Result<Outcome, ChangeError> {
        let (answer, outcome) = oneshot::channel();
        let ask = async {
            let message = Message::Change(Box::new(request), answer);
            self.0.send(message).await.map_err(|_| ChangeError::NobodyThere)?;
            outcome.await.map_err(|_| ChangeError::NobodyThere)?
        };
        tokio::time::timeout(LONGEST, ask).await.unwrap_or(Err(ChangeError::TooSlow))
    }

    pub(super) async fn tell(&self, message: Message) {
        // When nobody listens the router ends.
        let _ = self.0.send(message).await;
    }
}
