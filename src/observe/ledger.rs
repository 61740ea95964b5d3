//! The ledger: the last decisions, each with why, until newer ones of its kind push it out.
//!
//! A worker puts what it has decided into rings of its own, as it is; it becomes an [`Entry`] when somebody asks. What the
//! control plane decides is told to those who listen as well. Memory is bounded: [`ROUTES`], [`REJECTS`] and [`RETRIES`]
//! records for each worker, some 1 MiB, and [`CONTROL`] entries of each other kind in all.

mod passed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::core::ledger::{Entry, Kind, Question, Ring, What, to_millisecond};
use crate::core::settings::Name;
use crate::observe::access::Record;
use crate::observe::recording::Recorder;
use passed::{Passed, Round};

pub use passed::{Refused, Story};

/// Requests that went to a replica once, for each worker.
pub const ROUTES: usize = 1_024;
/// Requests that had none, for each worker.
pub const REJECTS: usize = 1_024;
/// Requests that were sent more than once or would have been, for each worker.
pub const RETRIES: usize = 256;
/// Entries of each other kind.
pub const CONTROL: usize = 256;
/// Entries that a slow listener may be behind before it misses some.
const EVENTS: usize = 256;

/// All decisions that are remembered; clones share them.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    workers: Mutex<Vec<Arc<WorkerLedger>>>,
    control: Mutex<BTreeMap<Kind, Ring<Arc<Entry>>>>,
    recorder: Recorder,
    events: broadcast::Sender<Arc<Entry>>,
}

/// One worker's part. Its lock is taken by somebody else only while a question is answered.
#[derive(Debug)]
pub struct WorkerLedger {
    rings: Mutex<Rings>,
    recorder: Recorder,
}

#[derive(Debug)]
struct Rings {
    routes: Round,
    rejects: Round,
    retries: Round,
}

/// How much there is of a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Entries that are kept.
    pub entries: usize,
    /// Entries that are kept at most.
    pub most: usize,
    /// Entries since the start, those that are gone included.
    pub passed: u64,
    /// The oldest that is kept, in seconds since 1970.
    pub oldest_unix_seconds: Option<f64>,
}

/// The answer to a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The newest that were asked for, the oldest of them first.
    pub entries: Vec<Entry>,
    /// What there is, by kind.
    pub kept: BTreeMap<Kind, Kept>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// Empty, and nothing is recorded.
    pub fn new() -> Self {
        Self::with(Recorder::off())
    }

    /// Empty; what passes by goes to this recording as well.
    pub fn with(recorder: Recorder) -> Self {
        let events = broadcast::channel(EVENTS).0;
        Self(Arc::new(Shared { workers: Mutex::default(), control: Mutex::default(), recorder, events }))
    }

    /// Where what passes by is recorded.
    pub fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// Rings for one more worker.
    pub fn worker(&self) -> Arc<WorkerLedger> {
        let (routes, rejects, retries) = (Round::new(ROUTES), Round::new(REJECTS), Round::new(RETRIES));
        let rings = Mutex::new(Rings { routes, rejects, retries });
        let worker = Arc::new(WorkerLedger { rings, recorder: self.0.recorder.clone() });
        lock(&self.0.workers).push(Arc::clone(&worker));
        worker
    }

    /// Remembers a decision of the control plane and tells it to those who listen.
    pub fn decided(&self, endpoint: &Name, deployment: &Name, what: What) {
        let at_unix_seconds = unix_seconds(SystemTime::now());
        let (endpoint, deployment) = (Some(endpoint.to_string()), Some(deployment.to_string()));
        self.0.keep(Entry { at_unix_seconds, endpoint, deployment, what });
    }

    /// What the control plane decides from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.0.events.subscribe()
    }

    /// The newest `last` entries that are asked for.
    pub fn find(&self, question: &Question, last: usize) -> Found {
        let mut found = Found::default();
        for worker in lock(&self.0.workers).iter() {
            let asked = worker.find(question, last, &mut found);
            // A worker waits for its lock at each request: what takes time is done without it.
            found.entries.extend(asked.iter().map(Passed::entry));
        }
        for (kind, ring) in lock(&self.0.control).iter() {
            let oldest = ring.iter().next().map(|entry| entry.at_unix_seconds);
            found.note(*kind, ring.iter().len(), (ring.most(), ring.passed()), oldest);
            let asked = ring.iter().rev().filter(|entry| question.takes(entry));
            found.entries.extend(asked.take(last).map(|entry| Entry::clone(entry)));
        }
        found.entries.sort_by(|one, next| one.at_unix_seconds.total_cmp(&next.at_unix_seconds));
        let surplus = found.entries.len().saturating_sub(last);
        found.entries.drain(..surplus);
        found
    }

    /// How many of a kind there were so far, and the newest of those beyond `seen`, at most `most`.
    pub fn since(&self, kind: Kind, seen: u64, most: usize) -> (u64, Vec<Entry>) {
        let question = Question { kind: Some(kind), ..Question::default() };
        let passed = |found: &Found| found.kept.get(&kind).map_or(0, |kept| kept.passed);
        let total = passed(&self.find(&question, 0));
        let new = usize::try_from(total.saturating_sub(seen)).unwrap_or(usize::MAX).min(most);
        if new == 0 { (total, Vec::new()) } else { (total, self.find(&question, new).entries) }
    }
}

impl Shared {
    fn keep(&self, entry: Entry) {
        let entry = Arc::new(entry);
        let kind = entry.kind();
        lock(&self.control).entry(kind).or_insert_with(|| Ring::new(CONTROL)).push(Arc::clone(&entry));
        // Nobody need listen.
        let _ = self.events.send(entry);
    }
}

impl WorkerLedger {
    /// Remembers a request that has ended, for which it takes the names out of its record.
    pub fn take(&self, record: &mut Record) {
        self.recorder.request(record);
        let mut rings = lock(&self.rings);
        let round = match &record.replica {
            None => &mut rings.rejects,
            Some(_) if record.tries.is_plain() => &mut rings.routes,
            Some(_) => &mut rings.retries,
        };
        round.take(record);
    }

    /// Copies of what is asked for; `found` is told how much there is.
    fn find(&self, question: &Question, last: usize, found: &mut Found) -> Vec<Passed> {
        let mut copies = Vec::new();
        let rings = lock(&self.rings);
        for (kind, round) in
            [(Kind::Route, &rings.routes), (Kind::Reject, &rings.rejects), (Kind::Retry, &rings.retries)]
        {
            let oldest = round.oldest().map(|passed| unix_seconds(passed.at()));
            found.note(kind, round.newest_first().len(), round.size(), oldest);
            if question.kind.is_some_and(|asked| asked != kind) {
                continue;
            }
            let asked = round.newest_first().filter(|passed| passed.is_asked(question));
            copies.extend(asked.take(last).cloned());
        }
        copies
    }
}

impl Found {
    fn note(&mut self, kind: Kind, entries: usize, (most, passed): (usize, u64), oldest: Option<f64>) {
        let kept = self.kept.entry(kind).or_default();
        kept.entries += entries;
        kept.most += most;
        kept.passed += passed;
        kept.oldest_unix_seconds = match (kept.oldest_unix_seconds, oldest.map(to_millisecond)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A panic elsewhere leaves whole rings: every write is one push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
