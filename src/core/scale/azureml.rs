//! Scaling by utilisation, the rule that azureml-fe documents; what counts as load is the policy's choice.
//!
//! “How to use the inference router”: busy over total, target 70 %; up within about a second; down after about a
//! minute in v1 and 20 intervals in v2. The size of a step is not published; it is taken from the sizing formula of
//! the same page, `replicas = ceil(concurrent / target / slots)`:
//!
//! ```text
//! need   = ceil(load / (target × slots of one replica))
//! total  = ready + starting
//! load / (total × slots) > target          : desired = max(total, need), at once
//! not over for `down_after` or longer      : desired = min(total, greatest need in that time)
//! otherwise                                : desired = total
//! always                                   : min ≤ desired ≤ max
//! ```
//!
//! Where nothing serves yet, one replica is enough for those who can wait for it and have a slot in it (`is_first`).

use super::demand::Demand;
use super::reason::Reason;
use super::signals::{Signals, whole};
use super::window::{INSTANT, MaxWindow};
use super::{Decision, Sample};
use crate::core::settings::{ScalePolicy, UtilizationScale};

/// What the rule remembers: at most one need for each number of replicas between the bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Past {
    /// The last evaluation at which the load was over the target, or the beginning.
    above: Option<f64>,
    /// The needs of the last `down_after`.
    needs: MaxWindow,
}

impl Past {
    /// One evaluation. `raised` is what was asked for between two evaluations, and is kept as if it had been needed.
    pub(super) fn decide(
        &mut self,
        rule: &UtilizationScale,
        demand: &Demand,
        raised: u32,
        seen: &Signals,
    ) -> Decision {
        let sample = Sample::take(rule, demand, demand.ghosts, seen);
        let over = sample.is_over();
        let peak = self.note(rule, seen, over, sample.within(sample.needed));
        let lower = peak.map(|peak| peak.max(seen.within(raised))).filter(|peak| *peak < sample.total);
        let window = rule.down_after.as_secs_f64();
        let total = sample.total;
        let (asked, reason) = if let Some(found) = sample.ask(seen.queue) {
            found
        } else if total < seen.min {
            (seen.min, Reason::BelowMin { total, min: seen.min })
        } else if total > seen.max {
            (seen.max, Reason::AboveMax { total, max: seen.max })
        } else if let Some(peak) = lower {
            (peak, Reason::Lower { sample, peak, window })
        } else {
            (total, Reason::Kept { sample, window })
        };
        Decision { desired: seen.within(asked), reason }
    }

    /// Notes one evaluation. The greatest need of the last `down_after`, if the load was not over for that long.
    fn note(&mut self, rule: &UtilizationScale, seen: &Signals, over: bool, need: u32) -> Option<u32> {
        // Counts may cover hours in which nobody asked this rule; that was no time below the target.
        let beginning = seen.t - seen.dt.min(rule.interval.as_secs_f64());
        let above = if over { seen.t } else { self.above.unwrap_or(beginning) };
        self.above = Some(above);
        let window = rule.down_after.as_secs_f64();
        let peak = self.needs.push(seen.t, f64::from(need), window) as u32;
        (!over && seen.t - above >= window - INSTANT).then_some(peak)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.needs.len()
    }
}

impl Sample {
    pub(super) fn take(rule: &UtilizationScale, demand: &Demand, ghosts: f64, seen: &Signals) -> Self {
        let strict = rule.policy == ScalePolicy::AzuremlStrict;
        let queued = (!strict || rule.count_queue).then_some(seen.queue);
        let ghosts = (!strict).then_some(ghosts);
        let waits = queued.map_or((0.0, 0.0), |queued| (f64::from(queued), f64::from(seen.patient)));
        let load = demand.load(seen, f64::from(seen.inflight), waits, ghosts.unwrap_or(0.0));
        let target_percent = rule.target_percent.max(1);
        let target = f64::from(target_percent) / 100.0;
        let one = seen.slots();
        let load = if is_first(demand, seen, one) { load.min(target * one) } else { load };
        let for_load = whole(load / (target * one));
        // Nobody can wait where the longest wait is zero: who was turned away there has asked all the same.
        let asked = seen.queue > 0 || (seen.total() == 0 && seen.rejected > 0);
        Self {
            busy: seen.inflight,
            queued,
            ghosts,
            can_wait: seen.has_patient(),
            service: demand.knows_service().then(|| demand.service()),
            load,
            total: seen.total(),
            slots: u64::from(seen.total()) * u64::from(seen.c.max(1)),
            target_percent,
            needed: for_load.max(u32::from(asked)),
            min: seen.min,
            max: seen.max,
        }
    }

    /// More replicas, if more are needed than there are.
    pub(super) fn ask(self, waiting: u32) -> Option<(u32, Reason)> {
        // Where those who were turned away count as load, `Over` says how many there were.
        let uncounted = self.ghosts.is_none() && self.needed > 0;
        if self.total == 0 && (waiting > 0 || uncounted) {
            return Some((self.needed, Reason::NobodyThere { waiting, sample: self }));
        }
        self.is_over().then(|| (self.total.max(self.needed), Reason::Over(self)))
    }

    /// Whether the load is a greater share of the slots than the target.
    pub fn is_over(&self) -> bool {
        if self.slots == 0 {
            return self.needed > 0;
        }
        self.load / self.slots as f64 > f64::from(self.target_percent) / 100.0
    }

    /// A number brought between the bounds; the upper one wins if they contradict each other.
    fn within(&self, replicas: u32) -> u32 {
        replicas.max(self.min).min(self.max)
    }
}

/// Whether one replica is enough to begin with: those who wait can wait until something serves, and have a slot in one, or
/// nobody knows what they take. A share of the slots that are busy says nothing before there are any.
fn is_first(demand: &Demand, seen: &Signals, one: f64) -> bool {
    let all = u64::from(seen.queue).saturating_add(seen.rejected);
    let nothing_serves = seen.ready == 0 && seen.inflight == 0;
    nothing_serves && seen.has_patient() && (all as f64 <= one || !demand.knows_service())
}
