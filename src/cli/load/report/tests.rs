//! The shape of the JSON, which programs rely on, and when a report warns.

use clap::Parser;

use super::*;
use crate::cli::load::args::LoadArgs;
use crate::cli::load::tally::tests::{ms, refusal, success, tally};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    load: LoadArgs,
}

const ENDING: Ending = Ending { is_interrupted: false, due_until: Duration::from_secs(11) };

fn plan(arguments: &[&str]) -> Plan {
    let all = ["load", "http://127.0.0.1:8080/score?code=hush"].into_iter().chain(arguments.iter().copied());
    Plan::new(&Line::try_parse_from(all).unwrap().load, None).ok().unwrap()
}

/// Three successes and two failures.
pub(in crate::cli::load) fn report(arguments: &[&str]) -> Report {
    let outcomes = [
        success("blue", ms(20)),
        success("blue", ms(30)),
        success("green", ms(40)),
        refusal(503, "queue_full", "all replicas are busy"),
        refusal(503, "queue_full", "another"),
    ];
    Report::new(&plan(arguments), &tally(outcomes), ENDING, 2)
}

#[test]
fn the_json_has_these_names() {
    let json = serde_json::to_value(report(&["--stream", "--poisson", "--seed", "7"])).unwrap();
    let names: Vec<&String> = json.as_object().unwrap().keys().collect();
    let mut expected = [
        "target",
        "interrupted",
        "rate",
        "achieved_rate",
        "seed",
        "seconds",
        "warm_up_seconds",
        "requests",
        "latency_ms",
        "service_time_ms",
        "first_byte_ms",
        "failed_latency_ms",
        "generator",
        "statuses",
        "failures",
        "deployments",
        "server_timing_ms",
        "outside_ms",
        "stream",
        "warnings",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    let page = include_str!("../../../../docs/load.md");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/load.md does not explain `{name}`");
    }
    assert_eq!(json["target"], "http://127.0.0.1:8080/score");
    assert_eq!(json["seed"], 7);
    assert_eq!(json["requests"], serde_json::json!({"due": 5, "succeeded": 3, "failed": 2, "never_sent": 0}));
    assert_eq!(json["statuses"], serde_json::json!({"200": 3, "503": 2}));
    assert_eq!(
        json["failures"],
        serde_json::json!([{"code": "queue_full", "status": 503, "count": 2, "example": "all replicas are busy"}])
    );
    assert_eq!(json["deployments"][0]["name"], "blue");
    assert_eq!(json["deployments"][0]["share"], 0.8);
    assert_eq!(json["outside_ms"], serde_json::Value::Null);
    for name in ["count", "mean", "p50", "p75", "p90", "p99", "p99_9", "max"] {
        assert!(json["latency_ms"][name].is_number(), "{name}");
    }
}

#[test]
fn rates_are_of_the_time_in_which_requests_were_due() {
    assert_eq!((report(&[]).seconds, report(&[]).achieved_rate), (10.0, 0.3));
    let cut = Ending { is_interrupted: true, due_until: Duration::from_secs(3) };
    let report = Report::new(&plan(&[]), &tally([success("blue", ms(20))]), cut, 1);
    assert_eq!((report.seconds, report.achieved_rate, report.interrupted), (2.0, 0.5, true));
    let report = Report::new(&plan(&["--requests", "100"]), &tally([]), ENDING, 1);
    assert_eq!((report.seconds, report.achieved_rate), (2.0, 0.0));
}

#[test]
fn a_late_generator_and_a_full_one_are_warned_about() {
    assert!(report(&[]).warnings.is_empty());
    let mut late = success("blue", ms(20));
    late.sending.as_mut().unwrap().lag = ms(3);
    late.sending.as_mut().unwrap().held_back = ms(500);
    let report = Report::new(&plan(&[]), &tally([late]), ENDING, 1);
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    assert!(report.warnings[0].contains("the generator was late (p99 3.00 ms)"), "{:?}", report.warnings);
    assert!(report.warnings[1].contains("--max-in-flight"), "{:?}", report.warnings);
}

#[test]
fn lateness_matters_in_proportion() {
    for (lag, median, doubtful) in [
        (0.05, 0.4, true),
        (0.05, 2.0, false),
        (0.9, 20.0, false),
        (1.1, 20.0, true),
        (1.1, 5_000.0, false),
        (0.0, 0.0, false),
    ] {
        assert_eq!(is_doubtful(lag, Some(median)), doubtful, "{lag} of {median}");
    }
    assert!(!is_doubtful(0.9, None) && is_doubtful(1.1, None));
}
