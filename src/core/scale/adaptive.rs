//! Scaling by offered load: as many slots as are busy on average, and a margin that grows with the root of that and
//! with the burstiness that was measured, held for some start-up times.
//!
//! All of the rule is in this file; what it shares with the others (service time, turned away, start-up time) is
//! `demand`'s. The constants were chosen on recorded request traces; `docs/scaling.md` has the formulas in one piece.

mod staffing;

use super::Decision;
use super::demand::Demand;
use super::reason::Reason;
use super::signals::Signals;
use super::window::MaxWindow;
use crate::core::settings::UtilizationScale;

pub use staffing::Staffing;

/// Safety factor before the root.
const SAFETY: f64 = 1.25;
/// Slots more, whatever the load.
const MORE: f64 = 2.0;
/// Time constants of the arrival rate, in seconds.
const FAST: f64 = 8.0;
const SLOW: f64 = 60.0;
/// Time constants of mean and variance of the demand, in seconds.
const MEAN: f64 = 120.0;
const VARIANCE: f64 = 900.0;
/// Burstiness is not believed beyond these.
const CALMEST: f64 = 0.3;
const WILDEST: f64 = 50.0;
/// How long what is needed is held: so many start-up times, within bounds in seconds.
const HOLD_STARTS: f64 = 10.0;
const HOLD: (f64, f64) = (120.0, 600.0);
/// How long what really ran and waited is held, in seconds.
pub(super) const RECENT: f64 = 60.0;
/// Before so much was seen the first replicas stay, in seconds and in requests.
const LEARNING: f64 = 120.0;
const LEARNED: f64 = 30.0;
/// However few requests came, that is over after so many times as long.
const LONGEST_LEARNING: f64 = 10.0;
/// The correction from rejections begins after so long and needs about so long for its full effect, in seconds.
const CORRECTS_AFTER: f64 = 300.0;
const CORRECTS_IN: f64 = 7200.0;
/// Its bounds, and the most it grows in one evaluation.
const CORRECTION: (f64, f64) = (-0.3, 1.0);
const STEP: f64 = 0.05;
/// No interval is taken to be shorter where a rate is its count over it, in seconds.
const SHORTEST: f64 = 1e-6;

/// What the rule remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Past {
    /// The beginning.
    since: Option<f64>,
    /// The first replicas.
    first: u32,
    /// When a request came, ran or waited last.
    used: Option<f64>,
    arrivals: f64,
    seconds: f64,
    fast: f64,
    slow: f64,
    /// Mean and variance of the demand.
    moments: Option<(f64, f64)>,
    correction: f64,
    hold: MaxWindow,
    recent: MaxWindow,
}

impl Past {
    /// One evaluation. `raised` is what was asked for between two evaluations in the last minute.
    pub(super) fn decide(
        &mut self,
        rule: &UtilizationScale,
        reject_budget_percent: Option<f64>,
        demand: &Demand,
        raised: u32,
        seen: &Signals,
    ) -> Decision {
        let elapsed = self.begin(rule, seen);
        let service = demand.service();
        self.note_arrivals(seen, service);
        let offered = self.fast.max(self.slow) * service;
        let runs = seen.inflight_avg + seen.draining_avg();
        let now = demand.load(seen, runs, (seen.queue_avg, seen.patient_avg), demand.ghosts);
        let burstiness = self.burstiness(seen.dt, offered, now);
        if let Some(percent) = reject_budget_percent
            && elapsed > CORRECTS_AFTER
        {
            self.correct(seen, percent / 100.0);
        }
        let may_wait = service / (service + seen.queue_wait);
        let spread = SAFETY * (offered.max(0.25) * burstiness).sqrt() + MORE;
        let margin = spread * (1.0 + self.correction) * may_wait;
        let hold = (HOLD_STARTS * demand.cold).clamp(HOLD.0, HOLD.1);
        let held = self.hold.push(seen.t, offered + margin, hold);
        let recent = self.recent.push(seen.t, now, RECENT);
        let early = LEARNING.max(4.0 * demand.cold).max(3.0 * service);
        let learning = elapsed < early || (demand.completed < LEARNED && elapsed < LONGEST_LEARNING * early);
        let numbers = Staffing {
            arrivals_per_second: self.fast.max(self.slow),
            fast: self.fast,
            slow: self.slow,
            service,
            offered,
            demand: now,
            ghosts: demand.ghosts,
            burstiness,
            may_wait,
            queue_wait: seen.queue_wait,
            correction: reject_budget_percent.map(|_| self.correction),
            margin,
            hold,
            held,
            recent,
            cold: demand.cold,
            slots: seen.c.max(1),
            first: learning.then_some(self.first),
            raised,
            idle: self.is_idle(seen, now, hold),
            waiting: seen.queue,
            min: seen.min,
            max: seen.max,
            needed: 0,
        };
        let numbers = Staffing { needed: numbers.needed(), ..numbers };
        Decision { desired: seen.within(numbers.needed), reason: Reason::Adaptive(numbers) }
    }

    /// Demand as it is between two evaluations.
    pub(super) fn demand_now(demand: &Demand, seen: &Signals) -> f64 {
        let runs = f64::from(seen.inflight) + f64::from(seen.inflight_draining);
        let waits = (f64::from(seen.queue), f64::from(seen.patient));
        demand.load(seen, runs, waits, demand.ghosts_at(seen))
    }

    /// Seconds since the beginning.
    fn begin(&mut self, rule: &UtilizationScale, seen: &Signals) -> f64 {
        if self.first == 0 {
            // Where there was none at the beginning, what came since may be a burst's or an operator's, for a moment.
            let most = if self.since.is_none() { u32::MAX } else { rule.min };
            self.first = seen.total().min(most);
        }
        let beginning = seen.t - seen.dt.min(rule.interval.as_secs_f64());
        let since = self.since.unwrap_or(beginning);
        self.since = Some(since);
        seen.t - since
    }

    fn note_arrivals(&mut self, seen: &Signals, service: f64) {
        let new = seen.arrivals as f64;
        self.arrivals += new;
        self.seconds += seen.dt;
        // The counts of an instant are not a rate, and of the first moments not a good one.
        let plain = self.arrivals / self.seconds.max(1.0);
        for (rate, constant) in [(&mut self.fast, FAST.max(service)), (&mut self.slow, SLOW)] {
            if self.seconds <= constant {
                *rate = plain;
            } else if seen.dt < SHORTEST {
                *rate += new / constant;
            } else {
                *rate += (1.0 - (-seen.dt / constant).exp()) * (new / seen.dt - *rate);
            }
        }
    }

    /// Variance of the demand over its mean, as it is over the last minutes: 1 for arrivals by pure chance.
    fn burstiness(&mut self, dt: f64, offered: f64, now: f64) -> f64 {
        let (mut mean, mut variance) = self.moments.unwrap_or((offered, offered));
        let deviation = now - mean;
        mean += (1.0 - (-dt / MEAN).exp()) * deviation;
        variance += (1.0 - (-dt / VARIANCE).exp()) * (deviation * deviation - variance);
        self.moments = Some((mean, variance));
        (variance / mean.max(0.5)).clamp(CALMEST, WILDEST)
    }

    /// More margin after rejections, slowly less while there are fewer than the budget.
    fn correct(&mut self, seen: &Signals, budget: f64) {
        let excess = seen.rejected as f64 / budget - seen.arrivals as f64;
        let step = (excess / (self.slow.max(0.02) * CORRECTS_IN)).min(STEP);
        self.correction = (self.correction + step).clamp(CORRECTION.0, CORRECTION.1);
    }

    /// Where no replica has to be there: whether for as long as things are held there was nothing to do.
    fn is_idle(&mut self, seen: &Signals, now: f64, hold: f64) -> bool {
        if seen.arrivals > 0 || now > 1e-3 {
            self.used = Some(seen.t);
        }
        seen.min == 0 && self.used.is_none_or(|used| seen.t - used >= hold)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hold.len().max(self.recent.len())
    }
}
