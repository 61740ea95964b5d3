//! Asking for a reload and waiting for its outcome: a channel from whoever wants one to whoever owns the configuration.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Requests that may wait at once; one reload answers each, so a few are plenty.
const WAITING: usize = 8;
/// Longest wait for the outcome: reading a file, and keys from a slow network disk.
const LONGEST: Duration = Duration::from_secs(30);

/// Asks for reloads. Clones ask the same owner.
#[derive(Clone, Debug)]
pub struct Reloader(mpsc::Sender<ReloadRequest>);

/// One request for a reload; it must be answered.
#[derive(Debug)]
pub struct ReloadRequest(oneshot::Sender<Result<u64, String>>);

/// Why there is no new generation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// Nobody reloads: the router is starting or ending.
    #[error("nobody reloads the configuration now; the router is starting or ending")]
    NobodyThere,
    /// The configuration has errors and the old one stays; the text is the report, with places.
    #[error("{0}")]
    Rejected(String),
    /// No outcome in time; it may still come.
    #[error("the reload has not ended within 30 s; GET /state shows the generation that is in use")]
    TooSlow,
}

/// The side that asks and the side that reloads.
pub fn reloader() -> (Reloader, mpsc::Receiver<ReloadRequest>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Reloader(sender), receiver)
}

impl Reloader {
    /// Asks for a reload now and waits for the new generation.
    ///
    /// # Errors
    /// The old configuration is still in use, or (`TooSlow`) that is not known.
    pub async fn reload(&self) -> Result<u64, ReloadError> {
        let (answer, outcome) = oneshot::channel();
        let ask = async {
            self.0.send(ReloadRequest(answer)).await.map_err(|_| ReloadError::NobodyThere)?;
            outcome.await.map_err(|_| ReloadError::NobodyThere)?.map_err(ReloadError::Rejected)
        };
        tokio::time::timeout(LONGEST, ask).await.unwrap_or(Err(ReloadError::TooSlow))
    }
}

impl ReloadRequest {
    /// Says what came of it: the new generation, or the report of what is wrong.
    pub fn answer(self, outcome: Result<u64, String>) {
        // Who asked may have gone.
        let _ = self.0.send(outcome);
    }
}
