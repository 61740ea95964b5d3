//! Counts what became of the requests. Its size is bounded, whatever servers answer: names beyond a limit are counted
//! together.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Values;

/// Kinds of failure that are told apart.
const MOST_FAILURES: usize = 64;
/// Deployments that are told apart.
const MOST_DEPLOYMENTS: usize = 32;
/// Metrics of `Server-Timing` that are told apart.
const MOST_METRICS: usize = 16;
/// The name of what is beyond a limit.
const OTHERS: &str = "(others)";

/// What became of one request. All times are durations; due is after the start of the run.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) due: Duration,
    /// Due after the warm-up.
    pub(super) is_counted: bool,
    /// From when it was due to the last byte of its answer, or to its failure.
    pub(super) latency: Duration,
    /// Nothing if it was never sent.
    pub(super) sending: Option<Sending>,
    /// Nothing if there was none.
    pub(super) answer: Option<Answer>,
    /// Nothing if it succeeded.
    pub(super) failure: Option<Failure>,
}

/// How a request was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// How long it waited because as many requests as allowed were under way.
    pub(super) held_back: Duration,
    /// How late the generator was after that.
    pub(super) lag: Duration,
    /// From sending (opening a connection included) to the end.
    pub(super) service_time: Duration,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// From when the request was due to the head of the answer.
    pub(super) first_byte: Duration,
    pub(super) deployment: Option<String>,
    /// The metrics of `Server-Timing`.
    pub(super) server_timing: Vec<(String, Duration)>,
    /// Of answers that are read as streams.
    pub(super) stream: Option<Stream>,
}

/// A stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    pub(super) events: u64,
    /// From when the request was due.
    pub(super) first_event: Option<Duration>,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// One word.
    pub(super) code: String,
    /// Of the answer.
    pub(super) status: Option<u16>,
    /// One sentence.
    pub(super) message: String,
}

/// How many requests there are at the moment, those of the warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) sent: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    /// Of those in flight, how many will be counted.
    counted_in_flight: u64,
}

impl Live {
    /// Sent and not done.
    pub(super) fn in_flight(&self) -> u64 {
        self.sent - self.done
    }
}

/// Failures of one kind.
#[derive(Clone, Debug)]
pub(super) struct Failures {
    pub(super) count: u64,
    /// The message of the first one.
    pub(super) example: String,
}

/// What one deployment answered.
#[derive(Clone, Debug)]
pub(super) struct Deployment {
    pub(super) answers: u64,
    pub(super) succeeded: u64,
    /// Of those that succeeded.
    pub(super) latency: Values,
}

/// What became of all requests so far.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) live: Live,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) never_sent: u64,
    /// Of those that succeeded.
    pub(super) latency: Values,
    /// Of those that failed.
    pub(super) failed_latency: Values,
    /// Of those that succeeded.
    pub(super) service_time: Values,
    /// Of those that succeeded.
    pub(super) first_byte: Values,
    /// Of all that were sent.
    pub(super) lag: Values,
    /// Of those that waited for a place.
    pub(super) held_back: Values,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) failures: BTreeMap<(Option<u16>, String), Failures>,
    pub(super) deployments: BTreeMap<String, Deployment>,
    /// Of those that succeeded.
    pub(super) server_timing: BTreeMap<String, Values>,
    /// Service time without the queue and the model.
    pub(super) outside: Values,
    /// Of those that succeeded.
    pub(super) first_event: Values,
    /// Of all streams.
    pub(super) event_gaps: Values,
    /// Of those that succeeded.
    pub(super) events: Values,
    /// When the last answer ended, after the start.
    pub(super) last_end: Duration,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            live: Live::default(),
            succeeded: 0,
            failed: 0,
            never_sent: 0,
            latency: Values::new(),
            failed_latency: Values::new(),
            service_time: Values::new(),
            first_byte: Values::new(),
            lag: Values::new(),
            held_back: Values::new(),
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            deployments: BTreeMap::new(),
            server_timing: BTreeMap::new(),
            outside: Values::new(),
            first_event: Values::new(),
            event_gaps: Values::new(),
            events: Values::new(),
            last_end: Duration::ZERO,
        }
    }

    /// A request is sent; its outcome follows.
    pub(super) fn sent(&mut self, is_counted: bool) {
        self.live.sent += 1;
        self.live.counted_in_flight += u64::from(is_counted);
    }

    /// The outcome of a request that was sent.
    pub(super) fn done(&mut self, outcome: Outcome) {
        self.live.done += 1;
        self.live.counted_in_flight -= u64::from(outcome.is_counted);
        self.live.failed += u64::from(outcome.failure.is_some());
        self.count(outcome);
    }

    /// A request that was due and is not sent any more.
    pub(super) fn not_sent(&mut self, outcome: Outcome) {
        self.live.failed += 1;
        self.never_sent += u64::from(outcome.is_counted);
        self.count(outcome);
    }

    /// What is in flight is given up, and no outcome will follow.
    pub(super) fn cut(&mut self, failure: &Failure) {
        let count = std::mem::take(&mut self.live.counted_in_flight);
        self.live.failed += self.live.in_flight();
        self.live.done = self.live.sent;
        self.failed += count;
        self.fail(failure, count);
    }

    /// Time between two events of a stream.
    pub(super) fn event_gap(&mut self, gap: Duration) {
        self.event_gaps.add(gap);
    }

    fn count(&mut self, outcome: Outcome) {
        if !outcome.is_counted {
            return;
        }
        let succeeded = outcome.failure.is_none();
        self.last_end = self.last_end.max(outcome.due.saturating_add(outcome.latency));
        if let Some(sending) = &outcome.sending {
            self.lag.add(sending.lag);
            if !sending.held_back.is_zero() {
                self.held_back.add(sending.held_back);
            }
            if succeeded {
                self.service_time.add(sending.service_time);
            }
        }
        if let Some(answer) = outcome.answer {
            *self.statuses.entry(answer.status).or_default() += 1;
            self.count_answer(answer, succeeded, &outcome.latency, outcome.sending.as_ref());
        }
        if let Some(failure) = &outcome.failure {
            self.failed += 1;
            self.failed_latency.add(outcome.latency);
            self.fail(failure, 1);
        } else {
            self.succeeded += 1;
            self.latency.add(outcome.latency);
        }
    }

    fn count_answer(
        &mut self,
        answer: Answer,
        succeeded: bool,
        latency: &Duration,
        sending: Option<&Sending>,
    ) {
        if let Some(name) = answer.deployment {
            let name = bounded(&self.deployments, name, MOST_DEPLOYMENTS);
            let none = Deployment { answers: 0, succeeded: 0, latency: Values::new() };
            let deployment = self.deployments.entry(name).or_insert(none);
            deployment.answers += 1;
            if succeeded {
                deployment.succeeded += 1;
                deployment.latency.add(*latency);
            }
        }
        if !succeeded {
            return;
        }
        self.first_byte.add(answer.first_byte);
        if let Some(stream) = answer.stream {
            self.events.add_number(stream.events);
            stream.first_event.into_iter().for_each(|time| self.first_event.add(time));
        }
        // The last one counts: what is nearest to the client adds its own behind that of the model.
        let told = |name: &str| answer.server_timing.iter().rfind(|(n, _)| n == name).map(|(_, time)| *time);
        if let (Some(model), Some(sending)) = (told("model"), sending) {
            let inside = model.saturating_add(told("queue").unwrap_or_default());
            self.outside.add(sending.service_time.saturating_sub(inside));
        }
        let last: BTreeMap<String, Duration> = answer.server_timing.into_iter().collect();
        for (name, time) in last {
            let name = bounded(&self.server_timing, name, MOST_METRICS);
            self.server_timing.entry(name).or_insert_with(Values::new).add(time);
        }
    }

    fn fail(&mut self, failure: &Failure, count: u64) {
        if count == 0 {
            return;
        }
        let mut key = (failure.status, failure.code.clone());
        if !self.failures.contains_key(&key) && self.failures.len() >= MOST_FAILURES {
            key = (None, OTHERS.to_owned());
        }
        let none = || Failures { count: 0, example: failure.message.clone() };
        self.failures.entry(key).or_insert_with(none).count += count;
    }
}

/// The name itself while there is room for it.
fn bounded<T>(known: &BTreeMap<String, T>, name: String, most: usize) -> String {
    if known.contains_key(&name) || known.len() < most { name } else { OTHERS.to_owned() }
}

#[cfg(test)]
pub(super) mod tests;
