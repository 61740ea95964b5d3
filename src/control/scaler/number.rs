//! How many replicas there should be, and why: asks the rule (`core::scale`) within the bounds that hold now
//! (`core::bounds`), at each interval, and between two when somebody would wait for too long.
//!
//! The only place where the number of a deployment changes: configuration, schedules, operators and load all meet here.
//! Works on what it is shown; the gate, the providers and the clock are `job`'s.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::startup::StartUp;
use crate::core::admission::{Load, Tally};
use crate::core::bounds::{Bounds, By, Override, Why};
use crate::core::recording::How;
use crate::core::scale::{Decision, History, Signals, at_once, decide};
use crate::core::schedule::{Window, in_force, next_change};
use crate::core::settings::{DeploymentSettings, ScaleSettings};

/// Shortest time between two looks at events: a burst of requests is answered with one, and under overload events cost little.
const SPACING: Duration = Duration::from_millis(100);

/// What is seen when the number is asked for.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The time, as timers have it.
    pub(super) now: Instant,
    /// The time, as people have it.
    pub(super) wall: Timestamp,
    /// What the gate holds.
    pub(super) load: Load,
    /// What has happened at the gate since the last look.
    pub(super) tally: Tally,
    /// How long a newcomer would wait; `None` when nobody knows.
    pub(super) projected: Option<Duration>,
    /// Requests at once on one replica; `None` is no limit.
    pub(super) limit: Option<u32>,
    /// Slots in use on replicas that serve.
    pub(super) busy: u32,
    /// Replicas that finish what they have.
    pub(super) draining: u32,
    /// What an operator has asked for.
    pub(super) hold: Option<Override>,
}

/// A decision that is to be told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decided {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) why: Why,
}

/// Those who came while nothing was ready. They wait until something is, and longer than others may: a queue of them grows
/// with the time that a start takes, not with the load.
#[derive(Debug, Default)]
struct Patient {
    /// Whether nothing was ready at the last look, and who came had to wait for that.
    cold: bool,
    /// Those who came then, and until when the newest may wait.
    count: u32,
    until: Option<Instant>,
    /// Until when some may be there who came behind them, and wait because of them.
    behind: Option<Instant>,
    /// All whose wait says nothing of the load, and how long the newest may still wait.
    waiting: u32,
    left: Duration,
    /// Most of them since the last evaluation.
    most: u32,
}

impl Patient {
    fn see(&mut self, settings: &DeploymentSettings, look: &Look) {
        let wait = settings.request.max_queue_wait;
        let cold = look.load.ready == 0 && cold_wait(settings) > wait;
        if cold || self.cold {
            // At the first look after that, few can have come that are not.
            self.count = look.load.queued;
            self.until = look.now.checked_add(cold_wait(settings));
        } else {
            // The oldest go first.
            let gone = u32::try_from(look.tally.admitted).unwrap_or(u32::MAX);
            self.count = self.count.saturating_sub(gone).min(look.load.queued);
        }
        self.cold = cold;
        let behind = self.behind.is_some_and(|until| look.now < until);
        (self.waiting, self.left) = if self.count > 0 {
            self.behind = look.now.checked_add(wait);
            let left = self.until.map(|until| until.saturating_duration_since(look.now));
            (self.count, left.unwrap_or_default())
        } else {
            (if behind { look.load.queued } else { 0 }, wait)
        };
        self.most = self.most.max(self.waiting);
    }

    fn evaluated(&mut self) {
        self.most = self.waiting;
    }
}

/// How long a request may wait that comes while nothing is ready.
fn cold_wait(settings: &DeploymentSettings) -> Duration {
    settings.capacity.cold_start_wait.unwrap_or(settings.request.max_queue_wait)
}

/// How long a request may wait that comes now.
fn longest_wait(settings: &DeploymentSettings, load: &Load) -> Duration {
    if load.ready == 0 { cold_wait(settings) } else { settings.request.max_queue_wait }
}

/// A question to the rule, for a recording.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) how: How,
    pub(super) seen: Signals,
    pub(super) from: u32,
    /// What is asked for from now on.
    pub(super) to: u32,
    /// What the rule said.
    pub(super) said: u32,
}

/// The number of one deployment and what it was worked out from.
#[derive(Debug)]
pub(super) struct Number {
    history: History,
    /// From when the history counts its time.
    since: Instant,
    /// What has happened since the last evaluation.
    tally: Tally,
    pub(super) start_up: StartUp,
    patient: Patient,
    /// Whether there is a fixed list: the gate's tally then covers all of its time, in which nobody looked.
    listed: bool,
    agenda: Option<Agenda>,
    /// When there was a request last.
    active: Option<Instant>,
    desired: u32,
    /// When it was raised last.
    raised: Instant,
    /// The operator's word at the last decision that was told; `None` before the first.
    told: Option<Option<Override>>,
    /// When an event may lead to a decision again, and whether one has come since.
    quiet_until: Option<Instant>,
    ask_again: bool,
    /// The last question to the rule, until somebody takes note of it.
    asked: Option<Asked>,
}

/// What the schedules say, until the next change.
#[derive(Debug)]
struct Agenda {
    from: Timestamp,
    window: Option<Window>,
    next: Option<Timestamp>,
}

impl Agenda {
    fn holds(&self, wall: Timestamp) -> bool {
        self.from <= wall && self.next.is_none_or(|next| wall < next)
    }
}

impl Number {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            history: History::default(),
            since: now,
            tally: Tally::default(),
            start_up: StartUp::default(),
            patient: Patient::default(),
            listed: false,
            agenda: None,
            active: None,
            desired: 0,
            raised: now,
            told: None,
            quiet_until: None,
            ask_again: false,
            asked: None,
        }
    }

    pub(super) fn desired(&self) -> u32 {
        self.desired
    }

    /// When the present number was reached, if it was from below.
    pub(super) fn raised(&self) -> Instant {
        self.raised
    }

    /// Other settings: what was worked out from the old ones does not hold.
    pub(super) fn renew(&mut self) {
        self.agenda = None;
    }

    /// A fixed list is what it is, whatever the load. Nothing is to be waited for, and nothing is learned: should the rule
    /// be asked again, it begins anew.
    pub(super) fn list(&mut self, servers: u32, now: Instant) -> Option<Decided> {
        (self.agenda, self.told, self.ask_again) = (None, None, false);
        (self.history, self.tally, self.patient) = Default::default();
        (self.active, self.listed) = (None, true);
        let changed = servers != self.desired;
        changed.then(|| self.decided(servers, Why::Listed { servers }, None, now))
    }

    /// Asks the rule, within the bounds that hold now.
    pub(super) fn evaluate(&mut self, settings: &DeploymentSettings, look: &Look) -> Option<Decided> {
        let listed = std::mem::take(&mut self.listed);
        let tally = if listed { Tally::default() } else { self.tally.join(&look.tally) };
        self.tally = Tally::default();
        self.patient.see(settings, look);
        self.quiet_until = None;
        self.ask_again = false;
        let held = look.load.busy + look.load.busy_draining + look.load.queued > 0;
        if held || tally.arrivals > 0 || self.active.is_none() {
            self.active = Some(look.now);
        }
        let bounds = self.bounds(settings, look.wall, look.hold);
        let mut seen = self.signals(settings, &bounds, &tally, look);
        (seen.cold_n, seen.cold_sum) = self.start_up.take();
        self.patient.evaluated();
        let decision = decide(&settings.scale, &mut self.history, &seen);
        let how = if self.told.is_none() { How::First } else { How::Tick };
        // The rule is not told of the last one that stays: it would take it for one that was needed.
        let least = self.least(settings, &bounds, look);
        let to = bounds.within(decision.desired).max(least);
        self.asked = Some(Asked { how, seen, from: self.desired, to, said: decision.desired });
        let held = hold_of(&bounds);
        if to == self.desired && self.told == Some(held) {
            return None;
        }
        let idle = look.now.saturating_duration_since(self.active.unwrap_or(look.now));
        let why = if to == 0 && self.desired > 0 && !idle.is_zero() {
            Why::Idle { time: idle }
        } else if to > bounds.within(decision.desired) {
            Why::LastStays { idle_time: settings.capacity.idle_time, rule: decision.reason }
        } else {
            why(&settings.scale, bounds, to, &decision, look.wall)
        };
        Some(self.decided(to, why, held, look.now))
    }

    /// The question to the rule that was asked since the last call.
    pub(super) fn take_asked(&mut self) -> Option<Asked> {
        self.asked.take()
    }

    /// Whether an event is to be looked at later: a burst of them is answered once, and what comes right after is looked
    /// at when the answer is a moment old.
    pub(super) fn puts_off(&mut self, now: Instant) -> bool {
        self.ask_again = self.quiet_until.is_some_and(|until| now < until);
        self.ask_again
    }

    /// Asks between two intervals, because somebody waits or was turned away. Only ever for more.
    pub(super) fn at_once(&mut self, settings: &DeploymentSettings, look: &Look) -> Option<Decided> {
        self.tally = self.tally.join(&look.tally);
        self.patient.see(settings, look);
        if look.load.queued == 0 && self.tally.rejected == 0 {
            return None;
        }
        self.quiet_until = Some(look.now + SPACING);
        let bounds = self.bounds(settings, look.wall, look.hold);
        let seen = self.signals(settings, &bounds, &self.tally, look);
        let decision = at_once(&settings.scale, &self.history, &seen)?;
        let to = bounds.within(decision.desired);
        if to <= self.desired {
            return None;
        }
        self.history.raised(seen.t, to);
        self.asked = Some(Asked { how: How::AtOnce, seen, from: self.desired, to, said: decision.desired });
        let held = hold_of(&bounds);
        let why = why(&settings.scale, bounds, to, &decision, look.wall);
        Some(self.decided(to, why, held, look.now))
    }

    /// Whether an event that was put off is to be looked at.
    pub(super) fn asks_again(&self, now: Instant) -> bool {
        self.ask_again && self.quiet_until.is_none_or(|until| until <= now)
    }

    /// Whether other bounds hold than at the last evaluation.
    pub(super) fn is_due(&self, wall: Timestamp) -> bool {
        let scheduled = self.agenda.as_ref().is_some_and(|agenda| !agenda.holds(wall));
        let over = self.told.flatten().is_some_and(|hold| !hold.holds(wall));
        scheduled || over
    }

    /// When to ask next, beside the interval.
    pub(super) fn alarm(&self, now: Instant, wall: Timestamp) -> Option<Instant> {
        let next = self.agenda.as_ref().and_then(|agenda| agenda.next);
        let ends = self.told.flatten().map(|hold| hold.until);
        let left = [next, ends].into_iter().flatten().min().map(|at| at.duration_since(wall));
        let timed = left.and_then(|left| now.checked_add(Duration::try_from(left).unwrap_or_default()));
        let again = self.quiet_until.filter(|_| self.ask_again);
        [timed, again].into_iter().flatten().min()
    }

    /// The bounds that hold now.
    pub(super) fn bounds(
        &mut self,
        settings: &DeploymentSettings,
        wall: Timestamp,
        hold: Option<Override>,
    ) -> Bounds {
        if self.agenda.as_ref().is_none_or(|agenda| !agenda.holds(wall)) {
            let schedules = &settings.capacity.schedules;
            let (window, next) = (in_force(schedules, wall), next_change(schedules, wall));
            self.agenda = Some(Agenda { from: wall, window, next });
        }
        let window = self.agenda.as_ref().and_then(|agenda| agenda.window.clone());
        Bounds::now(&settings.scale, window, hold, wall).at_most(settings.provider.places())
    }

    /// Fewest replicas now: where there may be none, the last one stays for a while, and while somebody waits for it.
    fn least(&self, settings: &DeploymentSettings, bounds: &Bounds, look: &Look) -> u32 {
        let idle = look.now.saturating_duration_since(self.active.unwrap_or(look.now));
        let stays = self.desired > 0 && idle < settings.capacity.idle_time;
        bounds.min.max(u32::from(look.load.queued > 0 || stays))
    }

    /// Replicas that were asked for count as starting until they admit requests. Outdated ones that still serve
    /// do the work of those, and are no more than were asked for.
    fn signals(&self, settings: &DeploymentSettings, bounds: &Bounds, tally: &Tally, look: &Look) -> Signals {
        let load = &look.load;
        let counted = Signals::of(self.desired, load, tally);
        Signals {
            t: look.now.saturating_duration_since(self.since).as_secs_f64(),
            draining: look.draining,
            inflight: look.busy,
            inflight_draining: (load.busy + load.busy_draining).saturating_sub(look.busy),
            patient: self.patient.waiting,
            patience: self.patient.left.as_secs_f64(),
            patient_avg: f64::from(self.patient.most).min(counted.queue_avg),
            c: look.limit.unwrap_or(0),
            min: bounds.min,
            max: bounds.max,
            queue_wait: longest_wait(settings, load).as_secs_f64(),
            projected_wait: look.projected.map(|wait| wait.as_secs_f64()),
            ..counted
        }
    }

    fn decided(&mut self, to: u32, why: Why, held: Option<Override>, now: Instant) -> Decided {
        let from = std::mem::replace(&mut self.desired, to);
        if to > from {
            self.raised = now;
        }
        self.told = Some(held);
        Decided { from, to, why }
    }
}

fn hold_of(bounds: &Bounds) -> Option<Override> {
    match bounds.by {
        By::Operator(hold) => Some(hold),
        By::Configuration | By::Schedule(_) => None,
    }
}

/// Whose the number is: the operator's within the operator's bounds, the schedule's where it is what the schedule asks for,
/// otherwise the rule's.
fn why(scale: &ScaleSettings, bounds: Bounds, to: u32, decision: &Decision, now: Timestamp) -> Why {
    let Bounds { min, max, by } = bounds;
    let by_rule = matches!(scale, ScaleSettings::Utilization(_)).then_some(decision.reason);
    match by {
        By::Operator(hold) => Why::Held { hold, min, max, now, rule: by_rule },
        By::Schedule(window) if to == min => Why::Scheduled { window, now, rule: decision.reason },
        By::Configuration | By::Schedule(_) => Why::Rule(decision.reason),
    }
}
