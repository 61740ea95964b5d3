//! What every rule learns from what passes by: how long a request holds a slot, what was turned away, how long a
//! replica takes to start.

use super::signals::Signals;

/// Start-up time that is assumed before one was seen, in seconds.
const START_UP: f64 = 30.0;

/// Time constant of the mean service time, in seconds.
const MEMORY: f64 = 300.0;

/// Requests that the mean service time is made of at least, before older ones fade.
const ENOUGH: f64 = 50.0;

/// Shortest service time that is counted with, in seconds.
const SHORTEST: f64 = 1e-3;

/// Means that fade, all by the evaluations' own clock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Demand {
    /// The last evaluation.
    pub(super) last: Option<f64>,
    /// Requests that ended, ever.
    pub(super) completed: f64,
    /// Requests that were turned away and would still run had they been let in; fades as they would end.
    pub(super) ghosts: f64,
    /// Learned start-up time of a replica, in seconds.
    pub(super) cold: f64,
    /// Mean service time in seconds; 0 before a request has ended.
    mean: f64,
    weight: f64,
    sum: f64,
}

impl Default for Demand {
    fn default() -> Self {
        Self { last: None, completed: 0.0, ghosts: 0.0, cold: START_UP, mean: 0.0, weight: 0.0, sum: 0.0 }
    }
}

impl Demand {
    /// Takes in one evaluation.
    pub(super) fn note(&mut self, seen: &Signals) {
        self.last = Some(seen.t);
        if self.weight > ENOUGH {
            let kept = (-seen.dt / MEMORY).exp();
            self.weight *= kept;
            self.sum *= kept;
        }
        self.weight += seen.completed as f64;
        self.sum += seen.service_sum;
        self.completed += seen.completed as f64;
        if self.weight > 0.0 {
            self.mean = self.sum / self.weight;
        }
        self.ghosts = self.ghosts * (-seen.dt / self.service()).exp() + seen.rejected as f64;
        if seen.cold_n > 0 {
            let new = f64::from(seen.cold_n);
            self.cold += (new / 10.0).min(0.5) * (seen.cold_sum / new - self.cold);
        }
    }

    /// Mean service time in seconds, never 0.
    pub(super) fn service(&self) -> f64 {
        self.mean.max(SHORTEST)
    }

    /// Whether any request has ended, so that the service time is known.
    pub(super) fn knows_service(&self) -> bool {
        self.mean > 0.0
    }

    /// The ghosts as they are some time after the last evaluation.
    pub(super) fn ghosts_at(&self, seen: &Signals) -> f64 {
        let passed = self.last.map_or(0.0, |last| (seen.t - last).max(0.0));
        self.ghosts * (-passed / self.service()).exp() + seen.rejected as f64
    }
}
