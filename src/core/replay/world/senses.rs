//! What the rule of a simulation sees, and when it is asked: as `control::scaler` sees and asks, at the recorded times.

use std::num::NonZeroU32;

use super::{Event, World, nanos};
use crate::core::admission::Tally;
use crate::core::recording::How;
use crate::core::replay::Step;
use crate::core::replay::script::seconds;
use crate::core::scale::Signals;
use crate::core::settings::ScaleSettings;

impl World<'_> {
    /// Questions come when they came, or by the interval where that is another one.
    pub(super) fn ticks(&mut self) {
        let mut recorded = Vec::new();
        for (index, step) in self.script.steps.iter().enumerate() {
            match step {
                Step::Settings(t, _) => self.at(*t, Event::Settings(index)),
                Step::Tick(tick) if tick.how != How::AtOnce => recorded.push(tick),
                Step::Tick(_) => {}
            }
        }
        let Some(first) = recorded.first() else { return };
        self.desired = first.from;
        for _ in 0..first.signals.ready.min(first.from) {
            let id = self.fleet.there_already(first.t);
            self.admit(id);
        }
        let gaps = recorded.windows(2).map(|pair| pair[1].t - pair[0].t);
        let mut gaps: Vec<u64> = gaps.collect();
        gaps.sort_unstable();
        let usual = gaps.get(gaps.len() / 2).copied();
        let interval = match &self.settings.scale {
            ScaleSettings::Utilization(rule) => nanos(rule.interval).max(1_000_000),
            ScaleSettings::Manual { .. } => 1_000_000_000,
        };
        // A tenth off is what a busy machine makes of an interval.
        if usual.is_none_or(|usual| usual.abs_diff(interval) <= interval / 10) {
            recorded.iter().for_each(|tick| self.at(tick.t, Event::Tick));
        } else {
            self.interval = Some(interval);
            self.at(first.t, Event::Tick);
        }
    }

    /// What a scaler sees now; the counts are since the last question on time.
    pub(super) fn look(&mut self) -> Signals {
        let new = self.pool.take_tally(self.instant(self.now));
        add(&mut self.tally, &new);
        let (load, tally) = (self.pool.load(), &self.tally);
        let ready = load.ready.min(self.desired);
        let mean =
            |sum: f64, now: u32| if tally.seconds > 0.0 { sum / tally.seconds } else { f64::from(now) };
        let (min, max) = match &self.settings.scale {
            ScaleSettings::Manual { replicas } => (*replicas, *replicas),
            ScaleSettings::Utilization(rule) => (rule.min, rule.max),
        };
        Signals {
            t: seconds(self.now),
            dt: tally.seconds,
            ready,
            starting: self.desired - ready,
            draining: load.draining,
            target: self.desired,
            inflight: load.busy,
            inflight_draining: load.busy_draining,
            queue: load.queued,
            inflight_avg: mean(tally.busy_time, load.busy),
            queue_avg: mean(tally.queued_time, load.queued),
            peak: tally.peak,
            arrivals: tally.arrivals,
            admitted: 0,
            completed: tally.completed,
            rejected: tally.rejected,
            service_sum: tally.service_sum,
            cold_n: 0,
            cold_sum: 0.0,
            c: self.settings.request.slots.map_or(0, NonZeroU32::get),
            min,
            max,
            queue_wait: self.settings.request.max_queue_wait.as_secs_f64(),
            projected_wait: None,
            ..Signals::default()
        }
    }
}

fn add(sum: &mut Tally, next: &Tally) {
    sum.at = next.at;
    sum.seconds += next.seconds;
    sum.arrivals += next.arrivals;
    sum.rejected += next.rejected;
    sum.completed += next.completed;
    sum.service_sum += next.service_sum;
    sum.busy_time += next.busy_time;
    sum.busy_draining_time += next.busy_draining_time;
    sum.queued_time += next.queued_time;
    sum.peak = sum.peak.max(next.peak);
}
