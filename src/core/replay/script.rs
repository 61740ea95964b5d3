//! What a recording says of one deployment, in order: what the simulation gets from outside, and what happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::Step;
use super::figures::{Change, Figures, sum};
use crate::core::recording::{Line, Tick};
use crate::core::schedule::Schedule;
use crate::core::settings::{DeploymentSettings, ScaleSettings};

/// A request from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it asks, in nanoseconds since the start of the run.
    pub at: u64,
    /// How long it holds a slot.
    pub service: u64,
    /// How long its client waits in the queue before it leaves; `None` as long as it must.
    pub patience: Option<u64>,
}

/// The lines of one deployment as they come, in any order; no more is kept of each than is needed.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    requests: Vec<Asked>,
    steps: Vec<(u64, Noted)>,
    /// The settings that were noted last, among the steps.
    settings: Option<usize>,
    lives: BTreeMap<String, Life>,
    end: u64,
}

#[derive(Clone, Debug)]
enum Noted {
    Settings(Value),
    Tick(Box<Tick<'static>>),
}

/// A request that was recorded.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: u64,
    wait: u64,
    service: Option<u64>,
    /// Its client left before it had a slot.
    is_left: bool,
}

/// What has become of a replica.
#[derive(Clone, Debug)]
struct Life {
    began: u64,
    ready: Option<u64>,
    gone: Option<u64>,
}

/// One deployment, as the simulation gets it. Times are nanoseconds since the start of the run.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// When the run began, as people have it: schedules go by it.
    pub started: Timestamp,
    /// Requests, in order of time.
    pub arrivals: Vec<Arrival>,
    /// Settings and questions, in order of time; the questions' times are the simulation's.
    pub steps: Vec<Step>,
    /// How long the starts took that were seen, in their order.
    pub starts: Vec<u64>,
    /// The end.
    pub end: u64,
    /// What the settings in the steps were made of.
    blocks: Vec<Value>,
    /// Other bounds hold than the recorded ones.
    pub(super) has_own_bounds: bool,
}

impl Notes {
    /// Takes a line in.
    pub fn take(&mut self, line: Line<'static>) {
        self.end = self.end.max(line.span().map_or(0, |(_, end)| end));
        match line {
            Line::Request(request) => self.requests.push(Asked {
                at: request.t,
                wait: request.w,
                service: request.s,
                is_left: request.s.is_none() && request.o == "client_gone",
            }),
            Line::Settings { t, settings, .. } => self.settings(t, settings),
            Line::Tick(mut tick) => {
                // Everybody knows whose notes these are.
                (tick.e, tick.d) = ("".into(), "".into());
                self.steps.push((tick.t, Noted::Tick(Box::new(tick))));
            }
            Line::Replica { t, n, now, .. } => {
                let born = Life { began: t, ready: None, gone: None };
                let life = self.lives.entry(n.into_owned()).or_insert(born);
                match &*now {
                    "ready" => _ = life.ready.get_or_insert(t),
                    "gone" => life.gone = Some(t),
                    _ => {}
                }
            }
            Line::Recording { .. } | Line::Lost { .. } => {}
        }
    }

    /// Each file begins with them, so that many say the same.
    fn settings(&mut self, t: u64, block: Value) {
        let last = self.settings.and_then(|index| self.steps.get(index));
        if !last.is_some_and(|(_, step)| matches!(step, Noted::Settings(before) if *before == block)) {
            self.settings = Some(self.steps.len());
            self.steps.push((t, Noted::Settings(block)));
        }
    }

    /// What is lived again of a run that began then, and what happened; `settings` makes settings of a block.
    ///
    /// # Errors
    /// That of `settings`.
    pub fn script<E>(
        mut self,
        started: Timestamp,
        mut settings: impl FnMut(&Value) -> Result<Arc<DeploymentSettings>, E>,
    ) -> Result<(Script, Figures), E> {
        self.requests.sort_by_key(|request| request.at);
        // What was said first at a time comes first: the order of the recording is kept.
        self.steps.sort_by_key(|(t, _)| *t);
        let mut script = Script { started, end: self.end, ..Script::default() };
        for (t, step) in self.steps {
            script.steps.push(match step {
                Noted::Tick(tick) => Step::Tick(tick),
                Noted::Settings(block) => {
                    let made = settings(&block)?;
                    script.blocks.push(block);
                    Step::Settings(t, made)
                }
            });
        }
        let mut starts: Vec<_> = self
            .lives
            .values()
            .filter_map(|life| Some((life.began, life.ready?.saturating_sub(life.began))))
            .collect();
        // One that was there when the recording began was not started in it.
        starts.retain(|(_, time)| *time > 0);
        starts.sort_unstable();
        script.starts = starts.into_iter().map(|(_, time)| time).collect();
        script.arrivals = arrivals(&self.requests);
        let happened = happened(&self.requests, &script, self.lives.values());
        Ok((script, happened))
    }
}

impl Script {
    /// Other settings made of the recorded blocks, in their order.
    ///
    /// # Errors
    /// That of `settings`.
    pub fn others<E>(
        &self,
        settings: impl FnMut(&Value) -> Result<Arc<DeploymentSettings>, E>,
    ) -> Result<Vec<Arc<DeploymentSettings>>, E> {
        self.blocks.iter().map(settings).collect()
    }

    /// The same with settings of [`Script::others`]. The recorded bounds, an operator's among them, hold no longer where
    /// these have others.
    #[must_use]
    pub fn with(mut self, others: Vec<Arc<DeploymentSettings>>) -> Self {
        let mut others = others.into_iter();
        for step in &mut self.steps {
            if let Step::Settings(_, settings) = step
                && let Some(other) = others.next()
            {
                self.has_own_bounds |= bounds(settings) != bounds(&other);
                *settings = other;
            }
        }
        self
    }

    /// The questions, in order of time.
    pub(super) fn ticks(&self) -> impl DoubleEndedIterator<Item = &Tick<'static>> {
        self.steps.iter().filter_map(|step| match step {
            Step::Tick(tick) => Some(&**tick),
            Step::Settings(..) => None,
        })
    }

    /// The changes that were recorded.
    pub fn changes(&self) -> Vec<Change> {
        let ticks = self.ticks().filter(|tick| tick.from != tick.to);
        ticks.map(|tick| Change { at: seconds(tick.t), from: tick.from, to: tick.to }).collect()
    }
}

/// What says how many replicas there may be, whatever the load.
fn bounds(settings: &DeploymentSettings) -> (u32, u32, &[Schedule]) {
    let (min, max) = match &settings.scale {
        ScaleSettings::Manual { replicas } => (*replicas, *replicas),
        ScaleSettings::Utilization(rule) => (rule.min, rule.max),
    };
    (min, max, &settings.capacity.schedules)
}

/// A request that had no slot would have taken as long as one that had: theirs are used in turn.
fn arrivals(requests: &[Asked]) -> Vec<Arrival> {
    let known: Vec<u64> = requests.iter().filter_map(|request| request.service).collect();
    let mut turn = known.iter().copied().cycle();
    let arrival = |request: &Asked| Arrival {
        at: request.at,
        service: request.service.or_else(|| turn.next()).unwrap_or(0),
        patience: request.is_left.then_some(request.wait),
    };
    requests.iter().map(arrival).collect()
}

fn happened<'a>(requests: &[Asked], script: &Script, lives: impl Iterator<Item = &'a Life>) -> Figures {
    let waits = requests.iter().filter(|request| request.service.is_some()).map(|request| request.wait);
    let without_slot = || requests.iter().filter(|request| request.service.is_none());
    let left = without_slot().filter(|request| request.is_left).count() as u64;
    let lived = lives.map(|life| seconds(life.gone.unwrap_or(script.end).saturating_sub(life.began)));
    let at_first = script.ticks().next().map_or(0, |tick| tick.from);
    Figures {
        requests: requests.len() as u64,
        rejected: without_slot().count() as u64 - left,
        left,
        replica_seconds: sum(lived),
        ..Figures::of(waits.collect(), at_first, &script.changes())
    }
}

pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
