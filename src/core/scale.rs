//! How many replicas there should be: one pure function of settings, history and what is seen now.
//!
//! It decides on the number alone. Which replica is started or drained is `control::scaler`'s part; when it is
//! asked is the caller's (each interval: `decide`; at once when somebody waits too long: `at_once`). One file for each
//! rule: `azureml` and `adaptive`; what they share is `demand`.

mod adaptive;
mod azureml;
mod demand;
mod reason;
mod signals;
#[cfg(test)]
mod tests;
mod window;

use serde::Serialize;

use crate::core::settings::{ScalePolicy, ScaleSettings, UtilizationScale};
use demand::Demand;
use window::MaxWindow;

pub use adaptive::Staffing;
pub use reason::{Counts, Plain, Reason};
pub use signals::Signals;

/// Share of the longest queue wait that the newest waiter may be expected to use before replicas are asked for at once.
pub const WAIT_BUDGET: f64 = 0.5;

/// Longest time for which any rule keeps what was needed, in seconds: 20 of the longest intervals.
const LONGEST_KEPT: f64 = 72_000.0;

/// What the rules remember from one evaluation to the next; bounded, however often they are asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    demand: Demand,
    /// What was asked for between evaluations.
    raised: MaxWindow,
    /// Of the rule in force; the other begins anew when it comes into force.
    azureml: azureml::Past,
    adaptive: adaptive::Past,
}

/// How many, and why.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Replicas there should be, ready and starting together.
    pub desired: u32,
    /// Why.
    pub reason: Reason,
}

/// The load at one evaluation of a rule by utilisation, and what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Slots in use.
    pub busy: u32,
    /// Requests in the queue, where they count as load.
    pub queued: Option<u32>,
    /// Requests that were turned away and would still run, where they count as load.
    pub ghosts: Option<f64>,
    /// Whether some of those can wait, so that the load is less than all of them.
    pub can_wait: bool,
    /// Mean service time in seconds, when it is known.
    pub service: Option<f64>,
    /// All that counts as load together.
    pub load: f64,
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

/// Decides on the number of replicas, once in an interval. The bounds are those in `seen`.
///
/// While somebody waits at least one replica is needed, even where the queue is no load (`azureml-strict` of v1) and
/// none is asked for (`min` 0). Replicas without a limit of slots count as having one: azureml-fe counts busy replicas,
/// and a limit is what would tell that a replica can take more. Numbers that cannot be (not finite, negative, a clock
/// that goes backwards) are taken as the nearest that can.
pub fn decide(settings: &ScaleSettings, history: &mut History, seen: &Signals) -> Decision {
    match settings {
        ScaleSettings::Manual { replicas } => {
            *history = History::default();
            Decision { desired: *replicas, reason: Reason::Manual { replicas: *replicas } }
        }
        ScaleSettings::Utilization(rule) => by_load(rule, history, &seen.sane(history.demand.last)),
    }
}

fn by_load(rule: &UtilizationScale, history: &mut History, seen: &Signals) -> Decision {
    let History { demand, raised, azureml, adaptive } = history;
    demand.note(seen);
    match rule.policy {
        ScalePolicy::Adaptive { reject_budget_percent } => {
            *azureml = azureml::Past::default();
            let raised = raised.largest(seen.t, adaptive::RECENT) as u32;
            adaptive.decide(rule, reject_budget_percent, demand, raised, seen)
        }
        ScalePolicy::Azureml | ScalePolicy::AzuremlStrict => {
            *adaptive = adaptive::Past::default();
            let raised = raised.largest(seen.t, rule.down_after.as_secs_f64()) as u32;
            azureml.decide(rule, demand, raised, seen)
        }
    }
}

/// Decides between two evaluations, and only on more: `None` unless somebody waits or was turned away, the newest would have
/// to wait for too long, and more replicas are needed for what is there now than there are. It changes no mean and no window; the counts
/// in `seen` are what has happened since the last evaluation. Whoever follows it tells the history: [`History::raised`].
pub fn at_once(settings: &ScaleSettings, history: &History, seen: &Signals) -> Option<Decision> {
    let ScaleSettings::Utilization(rule) = settings else { return None };
    let demand = &history.demand;
    let seen = seen.sane(demand.last);
    if (seen.queue == 0 && seen.rejected == 0) || seen.total() >= seen.max {
        return None;
    }
    if seen.has_patient() && seen.total() > 0 && !demand.knows_service() {
        // Whether the first ones are enough is not known before one of them has served somebody.
        return None;
    }
    let wait = projected_wait(demand, &seen);
    let budget = WAIT_BUDGET * seen.queue_wait;
    if wait.is_some_and(|wait| wait <= budget) {
        return None;
    }
    let total = seen.total();
    let (demand, counts, needed, target_percent) = match rule.policy {
        ScalePolicy::Adaptive { .. } => {
            let load = adaptive::Past::demand_now(demand, &seen);
            (load, Counts::All, signals::whole(load / seen.slots()).max(1), None)
        }
        ScalePolicy::Azureml | ScalePolicy::AzuremlStrict => {
            let sample = Sample::take(rule, demand, demand.ghosts_at(&seen), &seen);
            let needed = sample.ask(seen.queue).map_or(total, |(asked, _)| asked);
            let counts = match (sample.queued, sample.ghosts) {
                (None, _) => Counts::Busy,
                (Some(_), None) => Counts::BusyAndQueued,
                (Some(_), Some(_)) => Counts::All,
            };
            (sample.load, counts, needed, Some(sample.target_percent))
        }
    };
    let desired = seen.within(needed);
    let waiting = seen.queue;
    let (slots, max) = (seen.c, seen.max);
    let reason =
        Reason::AtOnce { waiting, wait, budget, demand, counts, slots, target_percent, total, needed, max };
    (desired > total).then_some(Decision { desired, reason })
}

/// How long the newest waiter will wait, in seconds, if nothing changes: those before it leave at the pace of the service
/// time. `None` if nothing can be said: nobody serves, or nothing has ended yet.
fn projected_wait(demand: &Demand, seen: &Signals) -> Option<f64> {
    if seen.projected_wait.is_some_and(f64::is_finite) {
        return seen.projected_wait;
    }
    let slots = f64::from(seen.ready) * seen.slots();
    (slots > 0.0 && demand.knows_service()).then(|| f64::from(seen.queue.max(1)) * demand.service() / slots)
}

impl History {
    /// Notes that more replicas were asked for between two evaluations ([`at_once`]), so that the next evaluations keep
    /// them for as long as they keep what was needed.
    pub fn raised(&mut self, t: f64, desired: u32) {
        let t = self.demand.last.map_or(t, |last| t.max(last));
        if t.is_finite() {
            self.raised.push(t, f64::from(desired), LONGEST_KEPT);
        }
    }
}
