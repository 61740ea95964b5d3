//! What is counted where; and outcomes for the tests of reports.

use super::*;

pub(in crate::cli::load) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A success by this deployment after this time.
pub(in crate::cli::load) fn success(deployment: &str, latency: Duration) -> Outcome {
    Outcome {
        due: Duration::from_secs(1),
        is_counted: true,
        latency,
        sending: Some(Sending { held_back: Duration::ZERO, lag: ms(0), service_time: latency }),
        answer: Some(Answer {
            status: 200,
            first_byte: latency,
            deployment: Some(deployment.to_owned()),
            server_timing: Vec::new(),
            stream: None,
        }),
        failure: None,
    }
}

/// An answer that is a refusal.
pub(in crate::cli::load) fn refusal(status: u16, code: &str, message: &str) -> Outcome {
    let mut outcome = success("blue", ms(1));
    outcome.answer.as_mut().unwrap().status = status;
    outcome.failure = Some(Failure { code: code.into(), status: Some(status), message: message.into() });
    outcome
}

/// Sends and ends these.
pub(in crate::cli::load) fn tally(outcomes: impl IntoIterator<Item = Outcome>) -> Tally {
    let mut tally = Tally::new();
    for outcome in outcomes {
        tally.sent(outcome.is_counted);
        tally.done(outcome);
    }
    tally
}

#[test]
fn successes_and_failures_are_kept_apart() {
    let tally =
        tally([success("blue", ms(20)), success("green", ms(40)), refusal(503, "queue_full", "full")]);
    assert_eq!((tally.succeeded, tally.failed), (2, 1));
    assert_eq!(tally.latency.count(), 2);
    assert_eq!(tally.failed_latency.count(), 1);
    assert_eq!(tally.statuses, BTreeMap::from([(200, 2), (503, 1)]));
    assert_eq!((tally.deployments["blue"].answers, tally.deployments["blue"].succeeded), (2, 1));
    assert_eq!(tally.last_end, ms(1_040));
}

#[test]
fn the_warm_up_is_only_live() {
    let tally = tally([Outcome { is_counted: false, ..refusal(503, "draining", "ends") }]);
    assert_eq!((tally.live.sent, tally.live.done, tally.live.failed), (1, 1, 1));
    assert_eq!((tally.succeeded, tally.failed, tally.statuses.len(), tally.failures.len()), (0, 0, 0, 0));
}

#[test]
fn each_kind_of_failure_keeps_its_first_message() {
    let tally = tally(["first", "second"].map(|message| refusal(503, "queue_full", message)));
    let failures = &tally.failures[&(Some(503), "queue_full".to_owned())];
    assert_eq!((failures.count, failures.example.as_str()), (2, "first"));
}

#[test]
fn names_from_servers_are_bounded() {
    let many = (0..1_000).map(|k| {
        let mut outcome = refusal(503, &format!("code_{k}"), "m");
        outcome.answer.as_mut().unwrap().deployment = Some(format!("deployment_{k}"));
        outcome
    });
    let mut tally = tally(many);
    assert_eq!(tally.failures.len(), MOST_FAILURES + 1);
    assert_eq!(tally.deployments.len(), MOST_DEPLOYMENTS + 1);
    assert_eq!(tally.failures.values().map(|failures| failures.count).sum::<u64>(), 1_000);
    let mut timed = success("a", ms(1));
    timed.answer.as_mut().unwrap().server_timing = (0..1_000).map(|k| (format!("m{k}"), ms(1))).collect();
    tally.sent(true);
    tally.done(timed);
    assert_eq!(tally.server_timing.len(), MOST_METRICS + 1);
}

#[test]
fn what_is_outside_the_server_is_what_it_does_not_tell() {
    let mut outcome = success("blue", ms(30));
    outcome.answer.as_mut().unwrap().server_timing = vec![("queue".into(), ms(5)), ("model".into(), ms(20))];
    let tally = tally([outcome]);
    assert!((tally.outside.milliseconds_at(0.5) - 5.0).abs() < 0.01);
    assert!((tally.server_timing["model"].milliseconds_at(0.5) - 20.0).abs() < 0.02);
}

#[test]
fn what_is_cut_counts_as_failed() {
    let mut tally = Tally::new();
    for is_counted in [false, true, true] {
        tally.sent(is_counted);
    }
    tally.cut(&Failure { code: "interrupted".into(), status: None, message: "m".into() });
    assert_eq!((tally.failed, tally.live.in_flight(), tally.live.failed), (2, 0, 3));
    assert_eq!(tally.failures[&(None, "interrupted".to_owned())].count, 2);
}

#[test]
fn requests_that_are_never_sent_fail_with_their_waiting() {
    let mut tally = Tally::new();
    let failure = Failure { code: "not_sent".into(), status: None, message: "m".into() };
    tally.not_sent(Outcome {
        sending: None,
        answer: None,
        failure: Some(failure),
        ..success("", ms(60_000))
    });
    assert_eq!((tally.never_sent, tally.failed, tally.lag.count()), (1, 1, 0));
    assert!(tally.failed_latency.milliseconds_at(0.5) >= 60_000.0);
}
