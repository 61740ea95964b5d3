//! The end of the process: who may still work, until when, and who waits for whom.
//!
//! `Drain` is the signal that everything holds; `Tasks` is the only way to spawn, so that nothing is forgotten.

use std::time::Instant;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Normal work.
    Running,
    /// No new work; what runs may end until the deadline.
    Draining {
        /// When what still runs is cut.
        deadline: Instant,
    },
    /// Everything ends now.
    Forced,
}

/// The side that decides.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<Stage>);

/// The side that listens.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Stage>);

/// A connected pair, in stage `Running`.
pub fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Begins the drain; later calls only make it stricter.
    pub fn start(&self, deadline: Instant) {
        self.0.send_if_modified(|stage| {
            let first = *stage == Stage::Running;
            if first {
                *stage = Stage::Draining { deadline };
            }
            first
        });
    }

    /// Ends everything now.
    pub fn force(&self) {
        self.0.send_replace(Stage::Forced);
    }
}

impl Drain {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Whether new work is refused.
    pub fn is_draining(&self) -> bool {
        self.stage() != Stage::Running
    }

    /// Completes when the drain has begun (or everything is gone).
    pub async fn started(&mut self) {
        // An error means that the trigger is gone, which is an end as well.
        let _ = self.0.wait_for(|stage| *stage != Stage::Running).await;
    }

    /// Completes when what still runs must end: the deadline has passed or the end is forced.
    pub async fn over(&mut self) {
        self.started().await;
        if let Stage::Draining { deadline } = self.stage() {
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                _ = self.0.wait_for(|stage| *stage == Stage::Forced) => {}
            }
        }
    }

    /// Completes when everything is to end now.
    pub async fn forced(&mut self) {
        // Without a trigger nobody will ever force.
        if self.0.wait_for(|stage| *stage == Stage::Forced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tasks that the end waits for.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task on this runtime.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.0.track_future(future));
    }

    /// Starts a task on this thread (inside a `LocalSet` or local runtime).
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn spawn_local<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        tokio::task::spawn_local(self.0.track_future(future));
    }

    /// Completes when every task has ended.
    pub async fn ended(&self) {
        self.0.close();
        self.0.wait().await;
    }

    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all tasks have ended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
