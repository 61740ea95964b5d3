//! What the rules see: one line of numbers for each evaluation, the same for a live gate and for a simulation.
//!
//! It only makes hostile numbers harmless; what the numbers mean for the replicas is the rules' part.

use crate::core::admission::{Load, Tally};
use serde::{Deserialize, Serialize};

/// Largest time or sum of times that is believed, in seconds; some 30,000 years.
const LONGEST: f64 = 1e12;

/// What the scaler sees at an evaluation. Times are seconds, counts and sums are since the evaluation before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// The time, from any beginning.
    pub t: f64,
    /// Time since the evaluation before.
    pub dt: f64,
    /// Replicas that admit requests.
    pub ready: u32,
    /// Replicas asked for that are not ready yet.
    pub starting: u32,
    /// Replicas that finish what they have and get nothing new.
    #[serde(default)]
    pub draining: u32,
    /// Replicas asked for last.
    #[serde(default)]
    pub target: u32,
    /// Slots in use on replicas that are not draining, now.
    pub inflight: u32,
    /// Slots in use on draining replicas, now.
    #[serde(default)]
    pub inflight_draining: u32,
    /// Mean of `inflight_draining` over `dt`, where somebody keeps it; otherwise its value now is taken.
    #[serde(default)]
    pub inflight_draining_avg: Option<f64>,
    /// Requests in the queue, now.
    pub queue: u32,
    /// Those of them that came while nothing was ready, and wait longer than others may.
    #[serde(default)]
    pub patient: u32,
    /// How long the newest of these may still wait.
    #[serde(default)]
    pub patience: f64,
    /// Mean of `inflight` over `dt`; its value now if `dt` is 0.
    pub inflight_avg: f64,
    /// Mean of `queue` over `dt`; its value now if `dt` is 0.
    pub queue_avg: f64,
    /// The patient ones in `queue_avg`.
    #[serde(default)]
    pub patient_avg: f64,
    /// Most in `inflight` and `queue` together.
    #[serde(default)]
    pub peak: u32,
    /// Requests that asked for a slot, the rejected ones included.
    pub arrivals: u64,
    /// Requests that got a slot.
    #[serde(default)]
    pub admitted: u64,
    /// Requests that ended.
    pub completed: u64,
    /// Requests that were refused or waited too long.
    pub rejected: u64,
    /// How long the completed ones held their slots, in all.
    pub service_sum: f64,
    /// Replicas that became ready.
    #[serde(default)]
    pub cold_n: u32,
    /// How long those took from the order to the first admission, in all.
    #[serde(default)]
    pub cold_sum: f64,
    /// Slots of one replica; 0 is no limit, and counts as one.
    pub c: u32,
    /// Fewest replicas, as it is in force now.
    pub min: u32,
    /// Most replicas, as it is in force now.
    pub max: u32,
    /// Longest time in the queue.
    #[serde(default)]
    pub queue_wait: f64,
    /// How long the newest of those that wait will wait, where somebody knows it better than by the mean.
    #[serde(default)]
    pub projected_wait: Option<f64>,
}

impl Signals {
    /// A mean, a sum or a length of time that is less than nothing, which cannot be.
    pub fn negative(&self) -> Option<(&'static str, f64)> {
        let all = [
            ("dt", self.dt),
            ("inflight_draining_avg", self.inflight_draining_avg.unwrap_or(0.0)),
            ("patience", self.patience),
            ("inflight_avg", self.inflight_avg),
            ("queue_avg", self.queue_avg),
            ("patient_avg", self.patient_avg),
            ("service_sum", self.service_sum),
            ("cold_sum", self.cold_sum),
            ("queue_wait", self.queue_wait),
            ("projected_wait", self.projected_wait.unwrap_or(0.0)),
        ];
        all.into_iter().find(|(_, number)| *number < 0.0)
    }

    /// What a gate holds and has counted, where so many replicas are asked for. Those that were asked for count as starting
    /// until they admit requests. Time, bounds and limits are the caller's to add.
    pub fn of(target: u32, load: &Load, tally: &Tally) -> Self {
        let ready = load.ready.min(target);
        let mean =
            |sum: f64, now: u32| if tally.seconds > 0.0 { sum / tally.seconds } else { f64::from(now) };
        Self {
            dt: tally.seconds,
            ready,
            starting: target - ready,
            target,
            inflight: load.busy,
            inflight_draining: load.busy_draining,
            inflight_draining_avg: Some(mean(tally.busy_draining_time, load.busy_draining)),
            queue: load.queued,
            inflight_avg: mean(tally.busy_time, load.busy),
            queue_avg: mean(tally.queued_time, load.queued),
            peak: tally.peak,
            arrivals: tally.arrivals,
            admitted: tally.admitted,
            completed: tally.completed,
            rejected: tally.rejected,
            service_sum: tally.service_sum,
            ..Self::default()
        }
    }

    /// Replicas, ready and starting together.
    pub fn total(&self) -> u32 {
        self.ready.saturating_add(self.starting)
    }

    /// A number brought between the bounds; the upper one wins if they contradict each other.
    pub fn within(&self, replicas: u32) -> u32 {
        replicas.max(self.min).min(self.max)
    }

    /// Slots of one replica, as load is measured in them.
    pub(super) fn slots(&self) -> f64 {
        f64::from(self.c.max(1))
    }

    /// Whether any that are or were in the queue are patient.
    pub(super) fn has_patient(&self) -> bool {
        self.patient > 0 || self.patient_avg > 0.0
    }

    /// Mean slots in use on draining replicas.
    pub(super) fn draining_avg(&self) -> f64 {
        self.inflight_draining_avg.unwrap_or_else(|| f64::from(self.inflight_draining))
    }

    /// The same with a clock that never goes backwards from `last`, and without numbers that no arithmetic survives.
    pub(super) fn sane(self, last: Option<f64>) -> Self {
        let t = if self.t.is_finite() { self.t.clamp(-LONGEST, LONGEST) } else { 0.0 };
        let last = last.unwrap_or(t);
        Self {
            t: t.max(last),
            dt: positive(self.dt),
            inflight_avg: positive(self.inflight_avg),
            queue_avg: positive(self.queue_avg),
            inflight_draining_avg: self.inflight_draining_avg.map(positive),
            patience: positive(self.patience),
            patient_avg: positive(self.patient_avg),
            service_sum: positive(self.service_sum),
            cold_sum: positive(self.cold_sum),
            queue_wait: positive(self.queue_wait),
            ..self
        }
    }
}

fn positive(number: f64) -> f64 {
    if number.is_nan() { 0.0 } else { number.clamp(0.0, LONGEST) }
}

/// The whole number of replicas that is enough, but for the last rounding errors; as many as there can be if it is more.
pub(super) fn whole(replicas: f64) -> u32 {
    (replicas - 1e-9).ceil() as u32
}
