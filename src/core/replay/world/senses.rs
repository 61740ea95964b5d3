//! What the rule of a simulation sees, when it is asked, and within which bounds: as `control::scaler` sees, asks and decides.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Event, World, nanos};
use crate::core::admission::{Limits, Tally};
use crate::core::bounds::{Bounds, By};
use crate::core::recording::{How, Tick};
use crate::core::replay::Step;
use crate::core::replay::figures::Change;
use crate::core::replay::script::seconds;
use crate::core::scale::{Signals, at_once, decide};
use crate::core::schedule::{in_force, next_change};
use crate::core::settings::{DeploymentSettings, ScaleSettings};

/// Shortest time between two looks at events, as a scaler has it.
const SPACING: u64 = 100_000_000;

impl World<'_> {
    /// Questions come when they came, or by the interval where that is another one.
    pub(super) fn ticks(&mut self) {
        for (index, step) in self.script.steps.iter().enumerate() {
            if let Step::Settings(t, _) = step {
                self.at(*t, Event::Settings(index));
            }
        }
        let on_time = |tick: &&&Tick<'static>| tick.how != How::AtOnce;
        let Some(first) = self.recorded.iter().find(on_time).copied() else { return };
        self.desired = first.from;
        self.at_first = first.from;
        for _ in 0..first.signals.ready.min(first.from) {
            let id = self.fleet.there_already(first.t);
            self.admit(id);
        }
        let times: Vec<u64> = self.recorded.iter().filter(on_time).map(|tick| tick.t).collect();
        let mut gaps: Vec<u64> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        gaps.sort_unstable();
        let usual = gaps.get(gaps.len() / 2).copied();
        let interval = interval(&self.settings);
        // A tenth off is what a busy machine makes of an interval.
        if usual.is_none_or(|usual| usual.abs_diff(interval) <= interval / 10) {
            times.into_iter().for_each(|t| self.at(t, Event::Tick));
        } else {
            self.interval = Some(interval);
            self.at(first.t, Event::Tick);
            self.changes_of_bounds().into_iter().for_each(|t| self.at(t, Event::Bounds));
        }
    }

    /// When other bounds held than before, in the recording.
    fn changes_of_bounds(&self) -> Vec<u64> {
        let bounds = |tick: &Tick<'_>| (tick.signals.min, tick.signals.max);
        let pairs = self.recorded.windows(2).filter(|pair| bounds(pair[0]) != bounds(pair[1]));
        if self.script.has_own_bounds { Vec::new() } else { pairs.map(|pair| pair[1].t).collect() }
    }

    /// The recorded question that was the last one by now; before the first, that one.
    fn recorded(&self) -> Option<&Tick<'static>> {
        self.recorded.get(self.last).copied()
    }

    /// What is not of the model's making is as it was recorded at this time.
    pub(super) fn follow_recording(&mut self) {
        let before = self.last;
        while self.recorded.get(self.last + 1).is_some_and(|next| next.t <= self.now) {
            self.last += 1;
        }
        if self.last != before && self.settings.request.auto_slots {
            let granted = self.pool.set_limits(self.limits(), self.instant(self.now));
            self.serve(granted);
        }
    }

    /// A limit that a router finds by itself is the recorded one: the recorded times would not change with another.
    pub(super) fn limits(&self) -> Limits {
        let request = &self.settings.request;
        let found = self.recorded().filter(|_| request.auto_slots).map(|tick| tick.signals.c);
        Limits { slots: found.map_or(request.slots, NonZeroU32::new), ..request.limits() }
    }

    /// Other settings hold from now on.
    pub(super) fn renew(&mut self, settings: &Arc<DeploymentSettings>) {
        self.settings = Arc::clone(settings);
        self.agenda = None;
        let granted = self.pool.set_limits(self.limits(), self.instant(self.now));
        self.pool.set_queueing(settings.request.queueing());
        self.serve(granted);
        // Where questions come as recorded, there is one for it.
        if self.interval.is_some() && self.active.is_some() {
            self.interval = Some(interval(settings));
            self.evaluate();
        }
    }

    /// The bounds that hold now: the recorded ones, an operator's among them, unless the settings have others.
    fn bounds(&mut self) -> Bounds {
        if let Some(tick) = self.recorded().filter(|_| !self.script.has_own_bounds) {
            let Signals { min, max, .. } = tick.signals;
            return Bounds { min, max, by: By::Configuration };
        }
        let wall = self.wall(self.now);
        let is_over = |next: &Option<Timestamp>| next.is_some_and(|next| next <= wall);
        if self.agenda.as_ref().is_none_or(|(_, next)| is_over(next)) {
            let schedules = &self.settings.capacity.schedules;
            let (window, next) = (in_force(schedules, wall), next_change(schedules, wall));
            self.agenda = Some((window, next));
            if let Some(at) = next.and_then(|next| self.nanos_until(next)).filter(|at| *at <= self.script.end)
            {
                self.at(at, Event::Bounds);
            }
        }
        let window = self.agenda.as_ref().and_then(|(window, _)| window.clone());
        Bounds::now(&self.settings.scale, window, None, wall)
    }

    fn wall(&self, at: u64) -> Timestamp {
        self.script.started.checked_add(Duration::from_nanos(at)).unwrap_or(Timestamp::MAX)
    }

    fn nanos_until(&self, at: Timestamp) -> Option<u64> {
        Duration::try_from(at.duration_since(self.script.started)).ok().map(nanos)
    }

    /// What the gate of a router would wake its scaler for, and what a scaler looks for at each event.
    pub(super) fn look_when_called(&mut self) {
        let is_called = self.pool.take_call();
        if self.now > self.script.end {
            return;
        }
        if is_called {
            self.evaluate_at_once();
        }
        if self.desired == 0 && (is_called || !self.waiting.is_empty()) {
            self.evaluate();
        }
    }

    pub(super) fn evaluate(&mut self) {
        let bounds = self.bounds();
        let seen = self.look(&bounds);
        let (cold_n, cold_sum) = self.fleet.take_starts();
        let seen = Signals { cold_n, cold_sum, ..seen };
        if seen.inflight + seen.inflight_draining + seen.queue > 0
            || seen.arrivals > 0
            || self.active.is_none()
        {
            self.active = Some(self.now);
        }
        self.tally = Tally::default();
        self.quiet_until = None;
        self.ask_again = false;
        let said = decide(&self.settings.scale, &mut self.history, &seen).desired;
        // Where there may be none, the last one stays for a while, and while somebody waits for it.
        let idle = self.now - self.active.unwrap_or(self.now);
        let stays = self.desired > 0 && idle < nanos(self.settings.capacity.idle_time);
        let least = bounds.min.max(u32::from(seen.queue > 0 || stays));
        self.follow(bounds.within(said).max(least));
    }

    /// Asks between two intervals, because somebody waits; a burst of events is answered once.
    pub(super) fn evaluate_at_once(&mut self) {
        if self.desired == 0 {
            return;
        }
        if let Some(until) = self.quiet_until.filter(|until| self.now < *until) {
            if !self.ask_again {
                self.ask_again = true;
                self.at(until, Event::AskAgain);
            }
            return;
        }
        self.ask_again = false;
        let bounds = self.bounds();
        let seen = self.look(&bounds);
        if seen.queue == 0 && seen.rejected == 0 {
            return;
        }
        self.quiet_until = Some(self.now.saturating_add(SPACING));
        let Some(said) = at_once(&self.settings.scale, &self.history, &seen) else { return };
        let to = bounds.within(said.desired);
        if to > self.desired {
            self.history.raised(seen.t, to);
            self.follow(to);
        }
    }

    fn follow(&mut self, to: u32) {
        let from = std::mem::replace(&mut self.desired, to);
        if from != to {
            self.changes.push(Change { at: seconds(self.now), from, to });
        }
        self.settle();
    }

    /// What a scaler sees now; the counts are since the last question on time.
    fn look(&mut self, bounds: &Bounds) -> Signals {
        let now = self.instant(self.now);
        self.tally = self.tally.join(&self.pool.take_tally(now));
        Signals {
            t: seconds(self.now),
            draining: self.fleet.draining(),
            c: self.pool.limit().unwrap_or(0),
            min: bounds.min,
            max: bounds.max,
            queue_wait: self.settings.request.max_queue_wait.as_secs_f64(),
            projected_wait: self.pool.outlook(now).wait.map(|wait| wait.as_secs_f64()),
            ..Signals::of(self.desired, &self.pool.load(), &self.tally)
        }
    }
}

fn interval(settings: &DeploymentSettings) -> u64 {
    match &settings.scale {
        ScaleSettings::Utilization(rule) => nanos(rule.interval).max(1_000_000),
        ScaleSettings::Manual { .. } => 1_000_000_000,
    }
}
