//! What a recording says of one deployment, in order: what the simulation gets from outside, and what happened.

use std::collections::{BTreeMap, HashMap};

use super::Step;
use super::figures::{Change, Figures};
use crate::core::recording::{Line, Request};

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

/// One deployment, as the simulation gets it. Times are nanoseconds since the start of the run.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Requests, in order of time.
    pub arrivals: Vec<Arrival>,
    /// Settings and questions, in order of time; the questions' times are the simulation's.
    pub steps: Vec<Step>,
    /// How long the starts took that were seen, in their order.
    pub starts: Vec<u64>,
    /// The end.
    pub end: u64,
}

/// What has become of a replica.
#[derive(Default)]
struct Life {
    began: u64,
    ready: Option<u64>,
    gone: Option<u64>,
}

impl Script {
    /// Takes the lines of one deployment, in any order; `settings` makes settings of a block. Also tells what happened.
    ///
    /// # Errors
    /// That of `settings`.
    pub fn read<E>(
        lines: &[Line<'static>],
        mut settings: impl FnMut(
            &serde_json::Value,
        ) -> Result<std::sync::Arc<crate::core::settings::DeploymentSettings>, E>,
    ) -> Result<(Self, Figures), E> {
        let (mut script, mut lives) = (Self::default(), BTreeMap::<String, Life>::new());
        let (mut requests, mut steps, mut before) = (Vec::new(), Vec::new(), None);
        for line in lines {
            match line {
                Line::Request(request) => requests.push(request),
                // Each file begins with them, so that many say the same.
                Line::Settings { t, settings: block, .. } if before != Some(block) => {
                    before = Some(block);
                    steps.push((*t, Step::Settings(*t, settings(block)?)));
                }
                Line::Tick(tick) => steps.push((tick.t, Step::Tick(Box::new(tick.clone())))),
                Line::Replica { t, n, now, .. } => {
                    let life =
                        lives.entry(n.to_string()).or_insert_with(|| Life { began: *t, ..Life::default() });
                    match &**now {
                        "ready" => _ = life.ready.get_or_insert(*t),
                        "gone" => life.gone = Some(*t),
                        _ => {}
                    }
                }
                Line::Settings { .. } | Line::Recording { .. } | Line::Lost { .. } => {}
            }
            script.end = script.end.max(ended(line));
        }
        requests.sort_by_key(|request| request.t);
        // What was said first at a time comes first: the order of the recording is kept.
        steps.sort_by_key(|(t, _)| *t);
        script.steps = steps.into_iter().map(|(_, step)| step).collect();
        let mut starts: Vec<_> = lives
            .values()
            .filter_map(|life| Some((life.began, life.ready?.saturating_sub(life.began))))
            .collect();
        // One that was there when the recording began was not started in it.
        starts.retain(|(_, time)| *time > 0);
        starts.sort_unstable();
        script.starts = starts.into_iter().map(|(_, time)| time).collect();
        script.arrivals = arrivals(&requests);
        let happened = happened(&requests, &script, lives.values());
        Ok((script, happened))
    }

    /// The changes that were recorded.
    pub fn changes(&self) -> Vec<Change> {
        let ticks = self.steps.iter().filter_map(|step| match step {
            Step::Tick(tick) if tick.from != tick.to => Some(tick),
            Step::Tick(_) | Step::Settings(..) => None,
        });
        ticks.map(|tick| Change { at: seconds(tick.t), from: tick.from, to: tick.to }).collect()
    }
}

/// When the last thing that a line tells of was over.
fn ended(line: &Line<'_>) -> u64 {
    match line {
        Line::Request(request) => request.t.saturating_add(request.w).saturating_add(request.s.unwrap_or(0)),
        Line::Tick(tick) => tick.t,
        Line::Settings { t, .. } | Line::Replica { t, .. } => *t,
        Line::Recording { .. } | Line::Lost { .. } => 0,
    }
}

/// A request that had no slot would have taken as long as one that had: theirs are used in turn.
fn arrivals(requests: &[&Request<'_>]) -> Vec<Arrival> {
    let known: Vec<u64> = requests.iter().filter_map(|request| request.s).collect();
    let mut turn = known.iter().copied().cycle();
    let arrival = |request: &&Request<'_>| Arrival {
        at: request.t,
        service: request.s.or_else(|| turn.next()).unwrap_or(0),
        patience: is_left(request).then_some(request.w),
    };
    requests.iter().map(arrival).collect()
}

/// Whether its client left before it had a slot.
fn is_left(request: &Request<'_>) -> bool {
    request.s.is_none() && request.o == "client_gone"
}

fn happened<'a>(
    requests: &[&Request<'_>],
    script: &Script,
    lives: impl Iterator<Item = &'a Life>,
) -> Figures {
    let waits = requests.iter().filter(|request| request.s.is_some()).map(|request| request.w).collect();
    let mut by_end: HashMap<bool, u64> = HashMap::new();
    for request in requests.iter().filter(|request| request.s.is_none()) {
        *by_end.entry(is_left(request)).or_default() += 1;
    }
    let lived = lives.map(|life| seconds(life.gone.unwrap_or(script.end).saturating_sub(life.began)));
    Figures {
        requests: requests.len() as u64,
        rejected: by_end.get(&false).copied().unwrap_or_default(),
        left: by_end.get(&true).copied().unwrap_or_default(),
        replica_seconds: lived.sum(),
        ..Figures::of(waits, &script.changes())
    }
}

pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
