//! What a run has shown, as numbers: the JSON of a pipe, and what `table` writes for people. Times are in milliseconds
//! unless a name says otherwise; what was not seen is null.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::generator::Ending;
use super::histogram::{Summary, Values};
use super::plan::Plan;
use super::schedule::{Arrivals, Length};
use super::tally::Tally;

/// What a run has shown. The warm-up is in none of its numbers, except `connections_opened`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// Without its query.
    pub(super) target: String,
    /// A signal ended the run early.
    pub(super) interrupted: bool,
    /// Requests a second that were to be sent.
    pub(super) rate: f64,
    /// Requests a second that succeeded, until the last answer.
    pub(super) achieved_rate: f64,
    /// Of the random gaps.
    pub(super) seed: Option<u64>,
    /// How long requests became due.
    pub(super) seconds: f64,
    /// Not counted.
    pub(super) warm_up_seconds: f64,
    pub(super) requests: Requests,
    /// Of successes, from when they were due to the last byte.
    pub(super) latency_ms: Option<Summary>,
    /// Of successes, from sending to the last byte.
    pub(super) service_time_ms: Option<Summary>,
    /// Of successes, from when they were due to the head of the answer.
    pub(super) first_byte_ms: Option<Summary>,
    /// Of failures, from when they were due to the failure.
    pub(super) failed_latency_ms: Option<Summary>,
    pub(super) generator: Generator,
    /// Answers by status code.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Most frequent first.
    pub(super) failures: Vec<Failures>,
    /// By the header of the answers.
    pub(super) deployments: Vec<Deployment>,
    /// What the `Server-Timing` of successes says.
    pub(super) server_timing_ms: BTreeMap<String, Summary>,
    /// Of successes whose `Server-Timing` has `model`: service time without `model` and `queue`.
    pub(super) outside_ms: Option<Summary>,
    /// With `--stream`.
    pub(super) stream: Option<Stream>,
    /// Why the numbers should be doubted.
    pub(super) warnings: Vec<String>,
}

/// Requests that were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Requests {
    pub(super) due: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Of those that failed.
    pub(super) never_sent: u64,
}

/// The generator itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Generator {
    /// How late it sent what it could have sent.
    pub(super) lag_ms: Option<Summary>,
    /// How long requests waited because `--max-in-flight` were under way; those that did not wait are left out.
    pub(super) held_back_ms: Option<Summary>,
    pub(super) connections_opened: u64,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failures {
    pub(super) code: String,
    pub(super) status: Option<u16>,
    pub(super) count: u64,
    /// The message of the first one.
    pub(super) example: String,
}

/// What one deployment answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Deployment {
    pub(super) name: String,
    pub(super) answers: u64,
    /// Of all answers that name a deployment, 0 to 1.
    pub(super) share: f64,
    pub(super) succeeded: u64,
    /// Of successes.
    pub(super) latency_ms: Option<Summary>,
}

/// Streams that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Stream {
    /// From when the request was due.
    pub(super) first_event_ms: Option<Summary>,
    /// Between two events; those of streams that failed later are in it.
    pub(super) event_gap_ms: Option<Summary>,
    pub(super) events_per_request: Option<Summary>,
}

impl Report {
    /// Puts the report together.
    pub(super) fn new(plan: &Plan, tally: &Tally, ending: Ending, connections_opened: u64) -> Self {
        let seconds = seconds_due(plan, ending);
        let until_last = tally.last_end.saturating_sub(plan.warm_up).as_secs_f64();
        let mut report = Self {
            target: plan.target.to_string(),
            interrupted: ending.is_interrupted,
            rate: plan.rate,
            achieved_rate: thousandths(tally.succeeded as f64 / seconds.max(until_last).max(1e-3)),
            seed: match plan.arrivals {
                Arrivals::Constant => None,
                Arrivals::Poisson { seed } => Some(seed),
            },
            seconds: thousandths(seconds),
            warm_up_seconds: plan.warm_up.as_secs_f64(),
            requests: Requests {
                due: tally.succeeded + tally.failed,
                succeeded: tally.succeeded,
                failed: tally.failed,
                never_sent: tally.never_sent,
            },
            latency_ms: tally.latency.milliseconds(),
            service_time_ms: tally.service_time.milliseconds(),
            first_byte_ms: tally.first_byte.milliseconds(),
            failed_latency_ms: tally.failed_latency.milliseconds(),
            generator: Generator {
                lag_ms: tally.lag.milliseconds(),
                held_back_ms: tally.held_back.milliseconds(),
                connections_opened,
            },
            statuses: tally.statuses.clone(),
            failures: failures(tally),
            deployments: deployments(tally),
            server_timing_ms: (tally.server_timing.iter())
                .filter_map(|(name, times)| Some((name.clone(), times.milliseconds()?)))
                .collect(),
            outside_ms: tally.outside.milliseconds(),
            stream: plan.is_stream.then(|| Stream {
                first_event_ms: tally.first_event.milliseconds(),
                event_gap_ms: tally.event_gaps.milliseconds(),
                events_per_request: tally.events.numbers(),
            }),
            warnings: Vec::new(),
        };
        report.warnings = warnings(&report, plan.max_in_flight);
        report
    }
}

/// How long counted requests became due.
fn seconds_due(plan: &Plan, ending: Ending) -> f64 {
    let until = ending.due_until.saturating_sub(plan.warm_up);
    let planned = match plan.length {
        Length::Time(time) => time,
        Length::Requests(requests) => {
            Duration::try_from_secs_f64(requests as f64 / plan.rate).unwrap_or(Duration::MAX)
        }
    };
    if ending.is_interrupted { until.min(planned).as_secs_f64() } else { planned.as_secs_f64() }
}

fn failures(tally: &Tally) -> Vec<Failures> {
    let all = tally.failures.iter().map(|((status, code), failures)| Failures {
        code: code.clone(),
        status: *status,
        count: failures.count,
        example: failures.example.clone(),
    });
    let mut all: Vec<Failures> = all.collect();
    all.sort_by_key(|failures| std::cmp::Reverse(failures.count));
    all
}

fn deployments(tally: &Tally) -> Vec<Deployment> {
    let answers: u64 = tally.deployments.values().map(|deployment| deployment.answers).sum();
    let all = tally.deployments.iter().map(|(name, deployment)| Deployment {
        name: name.clone(),
        answers: deployment.answers,
        share: (deployment.answers as f64 / answers as f64 * 1e4).round() / 1e4,
        succeeded: deployment.succeeded,
        latency_ms: deployment.latency.milliseconds(),
    });
    all.collect()
}

fn warnings(report: &Report, places: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let median = report.latency_ms.map(|latency| latency.p50);
    if let Some(lag) = report.generator.lag_ms.filter(|lag| is_doubtful(lag.p99, median)) {
        warnings.push(format!(
            "the generator was late (p99 {:.2} ms): the latencies contain its own delay; use a lower rate, a machine \
             with less to do, or several generators",
            lag.p99
        ));
    }
    if let Some(held_back) = report.generator.held_back_ms {
        warnings.push(format!(
            "{} requests waited up to {:.0} ms because {places} were under way (--max-in-flight); the latencies \
             contain that",
            held_back.count, held_back.max
        ));
    }
    warnings
}

/// More than 10 % of the median latency, or more than 1 ms and 1 % of it. All in milliseconds.
fn is_doubtful(lag: f64, median: Option<f64>) -> bool {
    median.is_some_and(|median| lag > median / 10.0) || lag > 1.0 && lag > median.unwrap_or(0.0) / 100.0
}

fn thousandths(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// The 50th and 99th percentile so far, in milliseconds, for the line of progress.
pub(super) fn so_far(latency: &Values) -> Option<(f64, f64)> {
    (latency.count() > 0).then(|| (latency.milliseconds_at(0.5), latency.milliseconds_at(0.99)))
}

#[cfg(test)]
pub(super) mod tests;
