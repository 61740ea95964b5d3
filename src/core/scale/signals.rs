//! What the rules see: one line of numbers for each evaluation, the same for a live gate and for a simulation.
//!
//! It only makes hostile numbers harmless; what the numbers mean for the replicas is the rules' part.

use serde::{Deserialize, Serialize};

/// Largest time or sum of times that is believed, in seconds; some 30,000 years.
const LONGEST: f64 = 1e12;

/// What the scaler sees at an evaluation. Times are seconds, counts and sums are since the evaluation before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    pub draining: u32,
    /// Replicas asked for last.
    pub target: u32,
    /// Slots in use on replicas that are not draining, now.
    pub inflight: u32,
    /// Slots in use on draining replicas, now.
    pub inflight_draining: u32,
    /// Requests in the queue, now.
    pub queue: u32,
    /// Mean of `inflight` over `dt`; its value now if `dt` is 0.
    pub inflight_avg: f64,
    /// Mean of `queue` over `dt`; its value now if `dt` is 0.
    pub queue_avg: f64,
    /// Most in `inflight` and `queue` together.
    pub peak: u32,
    /// Requests that asked for a slot, the rejected ones included.
    pub arrivals: u64,
    /// Requests that got a slot.
    pub admitted: u64,
    /// Requests that ended.
    pub completed: u64,
    /// Requests that were refused or waited too long.
    pub rejected: u64,
    /// How long the completed ones held their slots, in all.
    pub service_sum: f64,
    /// Replicas that became ready.
    pub cold_n: u32,
    /// How long those took from the order to the first admission, in all.
    pub cold_sum: f64,
    /// Slots of one replica; 0 is no limit, and counts as one.
    pub c: u32,
    /// Fewest replicas, as it is in force now.
    pub min: u32,
    /// Most replicas, as it is in force now.
    pub max: u32,
    /// Longest time in the queue.
    pub queue_wait: f64,
    /// How long the newest of those that wait will wait, where somebody knows it better than by the mean.
    pub projected_wait: Option<f64>,
}

impl Signals {
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

    /// The same with a clock that never goes backwards from `last`, and without numbers that no arithmetic survives.
    pub(super) fn sane(self, last: Option<f64>) -> Self {
        let t = if self.t.is_finite() { self.t.clamp(-LONGEST, LONGEST) } else { 0.0 };
        let last = last.unwrap_or(t);
        Self {
            t: t.max(last),
            dt: positive(self.dt),
            inflight_avg: positive(self.inflight_avg),
            queue_avg: positive(self.queue_avg),
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
