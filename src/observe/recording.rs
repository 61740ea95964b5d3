//! The recording: one line for each request and each question to a scale rule, in files of a bounded number and size.
//!
//! Lossy rather than blocking, like the access log, whose way to the disk it shares; what is lost is said in the file. What
//! lines mean is `core::recording`'s part, when a new file begins is `files`'.

mod files;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::core::recording::{How, Line, Request, Tick};
use crate::core::scale::Signals;
use crate::core::settings::{Name, RecordingSettings};
use crate::observe::access::Record;
use crate::observe::lines::Lines;
use crate::observe::lines::queue::Queue;
use files::Files;

/// Bytes that may wait for the writer: some 25,000 requests.
const QUEUE: usize = 4 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The settings line of each deployment, with which every file begins.
type Heads = Arc<Mutex<BTreeMap<(Name, Name), Vec<u8>>>>;

/// Takes what is to be recorded; clones write to the same files. When the last one is dropped, what is queued is written.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Option<Arc<Running>>);

#[derive(Debug)]
struct Running {
    start: Instant,
    heads: Heads,
    lines: Lines,
}

impl Recorder {
    /// Makes the folder, begins a file and starts the writer's thread.
    ///
    /// # Errors
    /// The folder or the file cannot be made (the error names it), or there is no thread to be had.
    pub fn start(settings: &RecordingSettings) -> io::Result<Self> {
        Self::start_at(settings, Instant::now(), SystemTime::now(), QUEUE)
    }

    fn start_at(
        settings: &RecordingSettings,
        start: Instant,
        on_the_wall: SystemTime,
        bound: usize,
    ) -> io::Result<Self> {
        let heads = Heads::default();
        let queue = Arc::new(Queue::new(bound));
        let files = Files::begin(settings, on_the_wall, Arc::clone(&heads), Arc::clone(&queue))?;
        let lines = Lines::start(("the recording", "recording"), queue, files, None)?;
        Ok(Self(Some(Arc::new(Running { start, heads, lines }))))
    }

    /// Takes everything and writes nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether anything is written.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A request has ended.
    pub fn request(&self, record: &Record) {
        if let Some(running) = &self.0 {
            running.request(record);
        }
    }

    /// These settings hold for a deployment from now on.
    pub fn settings(&self, endpoint: &Name, deployment: &Name, settings: impl FnOnce() -> Value) {
        let Some(running) = &self.0 else { return };
        let (e, d) = (Cow::from(endpoint.as_str()), Cow::from(deployment.as_str()));
        let line = Line::Settings { t: running.now(), e, d, settings: settings() };
        let mut text = Vec::new();
        write(&line, &mut text);
        // First, so that a file which begins in between says it twice and not never.
        running.heads().insert((endpoint.clone(), deployment.clone()), text.clone());
        running.lines.queue.push(&text);
    }

    /// A deployment is gone.
    pub fn forget(&self, endpoint: &Name, deployment: &Name) {
        if let Some(running) = &self.0 {
            running.heads().remove(&(endpoint.clone(), deployment.clone()));
        }
    }

    /// A rule was asked; `said` is what it said, `to` what is asked for.
    pub fn tick(
        &self,
        (endpoint, deployment): (&Name, &Name),
        how: How,
        signals: &Signals,
        (from, to, said): (u32, u32, u32),
    ) {
        if let Some(running) = &self.0 {
            let (e, d) = (Cow::from(endpoint.as_str()), Cow::from(deployment.as_str()));
            let (signals, said) = (*signals, (said != to).then_some(said));
            running.push(&Line::Tick(Tick { t: running.now(), e, d, how, signals, from, to, said }));
        }
    }

    /// A replica is something else from now on.
    pub fn replica(&self, endpoint: &Name, deployment: &Name, name: &str, now: &str) {
        if let Some(running) = &self.0 {
            let (e, d) = (Cow::from(endpoint.as_str()), Cow::from(deployment.as_str()));
            running.push(&Line::Replica { t: running.now(), e, d, n: name.into(), now: now.into() });
        }
    }

    /// Lines that were not written so far.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |running| running.lines.queue.lost())
    }
}

impl Running {
    fn now(&self) -> u64 {
        // The runtime's clock, which tests can pause, is not asked: workers do not have one at hand.
        nanos(self.start.elapsed())
    }

    #[cold]
    fn request(&self, record: &Record) {
        let (Some(endpoint), Some(deployment)) = (&record.endpoint, &record.deployment) else { return };
        if record.route_time.is_zero() {
            // It never asked for a slot.
            return;
        }
        let asked = (record.started + record.route_time).saturating_duration_since(self.start);
        let held = record.total_time.saturating_sub(record.route_time + record.queue_time);
        self.push(&Line::Request(Request {
            t: nanos(asked),
            e: endpoint.as_str().into(),
            d: deployment.as_str().into(),
            w: nanos(record.queue_time),
            s: record.replica.is_some().then(|| nanos(held)),
            o: record.reason.unwrap_or("ok").into(),
        }));
    }

    fn push(&self, line: &Line<'_>) {
        let done = SCRATCH.try_with(|scratch| {
            let mut text = scratch.borrow_mut();
            text.clear();
            write(line, &mut text);
            self.lines.queue.push(&text);
        });
        if done.is_err() {
            // A thread that is ending has no scratch any more.
            let mut text = Vec::new();
            write(line, &mut text);
            self.lines.queue.push(&text);
        }
    }

    fn heads(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Name, Name), Vec<u8>>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(line: &Line<'_>, text: &mut Vec<u8>) {
    serde_json::to_writer(&mut *text, line).expect("a line is numbers and texts");
    text.push(b'\n');
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
