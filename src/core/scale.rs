//! How many replicas there should be: one pure function of settings, history and what is seen now.
//!
//! It decides on the number alone. Which replica is started or drained is `control::scaler`'s part; when it is
//! asked is the caller's (each interval, and at once when somebody waits and nothing was started).

mod reason;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::core::settings::{ScaleSettings, UtilizationScale};

pub use reason::Reason;

/// What the scaler sees at an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// The time of the evaluation.
    pub now: Instant,
    /// Replicas that admit requests.
    pub ready: u32,
    /// Replicas asked for that are not ready yet.
    pub starting: u32,
    /// Slots on one replica; `None` is no limit (then a busy slot counts as if a replica had one slot).
    pub slots_per_replica: Option<u32>,
    /// Slots in use on replicas that are not draining.
    pub busy: u32,
    /// Requests in the queue.
    pub queued: u32,
}

/// What the rule remembers from one evaluation to the next; at most one entry for each number of replicas
/// between the bounds, however often it is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The last evaluation at which the load was over the target, or the first one of all.
    above: Option<Instant>,
    /// The needs of the last `down_after`, oldest first, without those that a later one reaches or exceeds: the
    /// first is the greatest.
    needs: VecDeque<(Instant, u32)>,
}

/// How many, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Replicas there should be, ready and starting together.
    pub desired: u32,
    /// Why.
    pub reason: Reason,
}

/// The load at one evaluation and what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Sample {
    /// Slots in use.
    pub busy: u32,
    /// Requests in the queue, where they count as load.
    pub queued: Option<u32>,
    /// Replicas, ready and starting together.
    pub total: u32,
    /// Slots of all of them.
    pub slots: u64,
    /// Busy share of the slots to aim at.
    pub target_percent: u32,
    /// Replicas with which the load would be at the target, before the bounds.
    pub needed: u32,
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
}

/// Decides on the number of replicas.
///
/// Scaling by load is the rule that azureml-fe documents (“How to use the inference router”: v1 busy replicas
/// over replicas, v2 with the queue; target 70 %; up within about a second; down after about a minute in v1 and
/// 20 intervals in v2). The size of a step is not published; it is taken from the sizing formula of the same
/// page, `replicas = ceil(concurrent / target / slots)`:
///
/// ```text
/// load   = busy (+ queued, v2)
/// need   = ceil(load / (target × slots of one replica))
/// total  = ready + starting
/// load / (total × slots) > target          : desired = max(total, need), at once
/// not over for `down_after` or longer      : desired = min(total, greatest need in that time)
/// otherwise                                : desired = total
/// always                                   : min ≤ desired ≤ max
/// ```
///
/// Replicas without a limit of slots count as having one: azureml-fe counts busy replicas, and a limit is what
/// would tell that a replica can take more. While somebody waits at least one replica is needed, even where the
/// queue is no load (v1) and none is asked for (`min` 0). All in whole numbers: nothing is lost to rounding.
pub fn decide(settings: &ScaleSettings, history: &mut History, seen: &Observed) -> Decision {
    match settings {
        ScaleSettings::Manual { replicas } => {
            *history = History::default();
            Decision { desired: *replicas, reason: Reason::Manual { replicas: *replicas } }
        }
        ScaleSettings::Utilization(rule) => by_utilization(rule, history, seen),
    }
}

fn by_utilization(rule: &UtilizationScale, history: &mut History, seen: &Observed) -> Decision {
    let sample = Sample::take(rule, seen);
    let total = sample.total;
    let over = sample.is_over();
    let peak = history.note(seen.now, over, sample.within(sample.needed), rule.down_after);
    let nobody = total == 0 && seen.queued > 0;
    let (asked, reason) = if nobody {
        (sample.needed, Reason::NobodyThere { waiting: seen.queued, sample })
    } else if over {
        (total.max(sample.needed), Reason::Over(sample))
    } else if total < rule.min {
        (rule.min, Reason::BelowMin { total, min: rule.min })
    } else if total > rule.max {
        (rule.max, Reason::AboveMax { total, max: rule.max })
    } else if let Some(peak) = peak.filter(|peak| *peak < total) {
        (peak, Reason::Lower { sample, peak, window: rule.down_after })
    } else {
        (total, Reason::Kept { sample, window: rule.down_after })
    };
    Decision { desired: sample.within(asked), reason }
}

impl Sample {
    fn take(rule: &UtilizationScale, seen: &Observed) -> Self {
        let slots_per_replica = u64::from(seen.slots_per_replica.unwrap_or(1).max(1));
        let target_percent = rule.target_percent.max(1);
        let total = seen.ready.saturating_add(seen.starting);
        let queued = rule.count_queue.then_some(seen.queued);
        let load = u64::from(seen.busy) + u64::from(queued.unwrap_or(0));
        let for_load = (load * 100).div_ceil(u64::from(target_percent) * slots_per_replica);
        let needed = for_load.max(u64::from(seen.queued > 0));
        Self {
            busy: seen.busy,
            queued,
            total,
            slots: u64::from(total) * slots_per_replica,
            target_percent,
            needed: u32::try_from(needed).unwrap_or(u32::MAX),
            min: rule.min,
            max: rule.max,
        }
    }

    /// Busy slots and, where it counts, the queue.
    pub fn load(&self) -> u64 {
        u64::from(self.busy) + u64::from(self.queued.unwrap_or(0))
    }

    /// Whether the load is a greater share of the slots than the target.
    pub fn is_over(&self) -> bool {
        u128::from(self.load()) * 100 > u128::from(self.slots) * u128::from(self.target_percent)
    }

    /// A number brought between the bounds; the upper one wins if they contradict each other.
    fn within(&self, replicas: u32) -> u32 {
        replicas.max(self.min).min(self.max)
    }
}

impl History {
    /// Notes one evaluation. The greatest need of the last `window`, if the load was not over for that long.
    fn note(&mut self, now: Instant, over: bool, need: u32, window: Duration) -> Option<u32> {
        let above = if over { now } else { self.above.unwrap_or(now) };
        self.above = Some(above);
        while self.needs.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= window) {
            self.needs.pop_front();
        }
        while self.needs.back().is_some_and(|(_, earlier)| *earlier <= need) {
            self.needs.pop_back();
        }
        self.needs.push_back((now, need));
        let peak = self.needs.front().map(|(_, need)| *need);
        peak.filter(|_| !over && now.saturating_duration_since(above) >= window)
    }
}
