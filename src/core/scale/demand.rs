//! What every rule learns from what passes by: how long a request holds a slot, what was turned away, how long a
//! replica takes to start.

use super::signals::Signals;

/// Start-up time that is assumed before one was seen, in seconds.
const START_UP: f64 = 30.0;

/// Time constant of the mean service time, in seconds.
const MEMORY: f64 = 300.0;

/// Requests that the mean service time is made of at least, before older ones fade.
const ENOUGH: f64 = 50.0;

/// Time in which those who are turned away would have begun to run at the same time, in seconds: the formula was chosen
/// with evaluations that far apart.
const TICK: f64 = 1.0;

/// Mean service time from which on that holds, in seconds: requests that take less follow each other within a [`TICK`], and
/// counted as together they would make many times the replicas that they need.
const TOGETHER: f64 = 0.3;

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
        self.ghosts = self.ghosts * (-seen.dt / self.service()).exp() + self.turned_away(seen);
        if seen.cold_n > 0 {
            let new = f64::from(seen.cold_n);
            self.cold += (new / 10.0).min(0.5) * (seen.cold_sum / new - self.cold);
        }
    }

    /// Mean service time in seconds, never 0.
    pub(super) fn service(&self) -> f64 {
        self.mean.max(SHORTEST)
    }

    /// What runs, waits and was turned away, as load. Each of them needs a slot, but patient ones only have to be served in
    /// time, and until then keep busy what there is. As long as there are any, the load is no more than the work that comes,
    /// and theirs spread over the time that they may still wait.
    pub(super) fn load(&self, seen: &Signals, runs: f64, (waits, patient): (f64, f64), ghosts: f64) -> f64 {
        let all = runs + waits + ghosts;
        if !seen.has_patient() {
            all
        } else if self.knows_service() {
            let service = self.service();
            let comes = seen.arrivals as f64 / seen.dt.max(TICK);
            all.min(service * (comes + patient / seen.patience.max(service)))
        } else {
            // One replica is needed, and nobody knows more before it has served somebody.
            runs + if seen.ready == 0 { waits.min(1.0) } else { 0.0 }
        }
    }

    /// Whether any request has ended, so that the service time is known.
    pub(super) fn knows_service(&self) -> bool {
        self.mean > 0.0
    }

    /// The ghosts as they are some time after the last evaluation.
    pub(super) fn ghosts_at(&self, seen: &Signals) -> f64 {
        let passed = self.last.map_or(0.0, |last| (seen.t - last).max(0.0));
        self.ghosts * (-passed / self.service()).exp() + self.turned_away(seen)
    }

    /// How many of those who were turned away since the last evaluation would run at the same time. Behind a queue that filled
    /// while nothing was ready nobody has a chance, however little there is to do: there they count as they would follow
    /// each other.
    fn turned_away(&self, seen: &Signals) -> f64 {
        let service = self.service().min(TICK);
        let together = if seen.has_patient() {
            service
        } else if self.knows_service() {
            (TICK * (service / TOGETHER).powi(2)).clamp(service, TICK)
        } else {
            TICK
        };
        let rejected = seen.rejected as f64;
        if seen.dt > together { rejected * together / seen.dt } else { rejected }
    }
}
