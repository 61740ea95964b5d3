//! Whether one replica may have requests (readiness) and whether it is alive (liveness), by HTTP probes. Says what
//! it sees; what follows from it is the scaler's business.
//!
//! The state machine is `state`, the schedule is `watch`, one probe on the wire is `probe`.

mod probe;
mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::probe::{Failure, probe};
use self::state::{Change, ProbeState};
use crate::core::settings::{Authority, ProbeSettings, ReplicaRoutes};

/// Pause between the first probes of a replica that is not ready; grows up to the period.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What the probes say of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// May have requests.
    Ready,
    /// May not have requests; the text says why.
    Unready(String),
    /// Must be replaced; the text says why.
    Dead(String),
}

/// Probes a replica and reports each change, until it is found dead (after that report) or the future is dropped.
///
/// - `is_busy`: whether the replica may be at work, on requests that somebody waits for or did a moment ago. A probe that
///   times out meanwhile says nothing: the real model server answers probes only between two requests.
/// - `recheck`: the data plane could not reach the replica, which admits nothing until it is reported ready. The
///   replica is probed now, and the result is reported even if it is no change.
pub async fn watch(
    target: Authority,
    routes: ReplicaRoutes,
    liveness: ProbeSettings,
    readiness: ProbeSettings,
    is_busy: impl Fn() -> bool,
    recheck: Arc<Notify>,
    mut report: impl FnMut(Health),
) {
    let mut watch = Watch::new(target, routes, liveness, readiness);
    loop {
        let rechecks = tokio::select! {
            () = tokio::time::sleep_until(watch.next()) => false,
            () = recheck.notified() => true,
        };
        let health = watch.round(rechecks, &is_busy).await;
        let dead = matches!(health, Some(Health::Dead(_)));
        health.into_iter().for_each(&mut report);
        if dead {
            return;
        }
    }
}

/// The two probes of a replica and when each is due.
struct Watch {
    target: Authority,
    routes: ReplicaRoutes,
    liveness: ProbeState,
    readiness: ProbeState,
    alive_due: Instant,
    ready_due: Instant,
    /// Pause before the next readiness probe while the replica is not ready.
    pause: Duration,
}

impl Watch {
    fn new(
        target: Authority,
        routes: ReplicaRoutes,
        liveness: ProbeSettings,
        readiness: ProbeSettings,
    ) -> Self {
        let now = Instant::now();
        Self {
            alive_due: now + liveness.initial_delay,
            ready_due: now,
            pause: FIRST_PAUSE,
            liveness: ProbeState::new(liveness, now.into_std()),
            readiness: ProbeState::new(readiness, now.into_std()),
            target,
            routes,
        }
    }

    fn next(&self) -> Instant {
        self.ready_due.min(self.alive_due)
    }

    /// Sends the probes that are due; one request serves both when their paths are the same.
    async fn round(&mut self, recheck: bool, is_busy: &impl Fn() -> bool) -> Option<Health> {
        let now = Instant::now();
        let alive_due = self.alive_due <= now;
        let ready_due = recheck || self.ready_due <= now;
        let same = self.routes.liveness == self.routes.readiness;
        let mut readiness = None;
        if ready_due {
            let mut timeout = self.readiness.settings().timeout;
            if same && alive_due {
                timeout = timeout.max(self.liveness.settings().timeout);
            }
            let result = probe(&self.target, &self.routes.readiness, timeout).await;
            // A success is a sign of life at any time; a failure counts when its time has come.
            if same
                && (alive_due || result.is_ok())
                && let Some(dead) = self.alive(&result, is_busy)
            {
                return Some(dead);
            }
            readiness = self.ready(result, recheck, is_busy);
        }
        if alive_due && !(same && ready_due) {
            let timeout = self.liveness.settings().timeout;
            let result = probe(&self.target, &self.routes.liveness, timeout).await;
            if let Some(dead) = self.alive(&result, is_busy) {
                return Some(dead);
            }
        }
        readiness
    }

    fn alive(&mut self, result: &Result<(), Failure>, is_busy: &impl Fn() -> bool) -> Option<Health> {
        let now = Instant::now();
        self.alive_due = now + self.liveness.settings().period;
        let failure = match result {
            Err(failure) if failure.timed_out && is_busy() => return None,
            result => result.as_ref().err(),
        };
        // A replica that has been ready has started; its first minutes excuse nothing any more.
        let change = self.liveness.observe(failure.is_none(), self.readiness.was_good(), now.into_std());
        let Some((Change::Bad, failure)) = change.zip(failure) else { return None };
        Some(Health::Dead(format!("liveness probe {}: {}", self.routes.liveness, failure.reason)))
    }

    fn ready(
        &mut self,
        result: Result<(), Failure>,
        recheck: bool,
        is_busy: &impl Fn() -> bool,
    ) -> Option<Health> {
        let now = Instant::now();
        let excused = !recheck && result.as_ref().is_err_and(|failure| failure.timed_out) && is_busy();
        let mut change = None;
        if !excused {
            change = self.readiness.observe(result.is_ok(), false, now.into_std());
            if recheck {
                // The data plane's failure and this one, from two sides, are enough; so is this success.
                change = Some(self.readiness.settle(result.is_ok()));
            }
        }
        if change == Some(Change::Bad) {
            self.pause = FIRST_PAUSE;
        }
        let period = self.readiness.settings().period;
        let pause = if self.readiness.is_good() { period } else { self.pause.min(period) };
        self.pause = self.pause.saturating_mul(3) / 2;
        self.ready_due = now + pause;
        match (change?, result) {
            (Change::Good, _) => Some(Health::Ready),
            (Change::Bad, Err(failure)) => Some(Health::Unready(format!(
                "readiness probe {}: {}",
                self.routes.readiness, failure.reason
            ))),
            (Change::Bad, Ok(())) => None,
        }
    }
}
