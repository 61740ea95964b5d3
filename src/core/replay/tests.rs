//! Scripted recordings give exactly the numbers that were worked out by hand.

use std::borrow::Cow;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::config;
use crate::core::recording::{Line, Request};
use crate::core::scale::Signals;

const SECOND: f64 = 1e9;

fn settings(block: &Value) -> Arc<DeploymentSettings> {
    config::replayed(("demo", "blue"), block, &[]).unwrap_or_else(|report| panic!("{report}"))
}

fn request(at: f64, service: f64) -> Line<'static> {
    Line::Request(Request {
        t: (at * SECOND) as u64,
        e: Cow::from("demo"),
        d: Cow::from("blue"),
        c: None,
        w: 0,
        s: Some((service * SECOND) as u64),
        o: Cow::from("ok"),
    })
}

fn tick(at: f64, how: How, signals: Signals, (from, to): (u32, u32)) -> Line<'static> {
    let (e, d) = (Cow::from("demo"), Cow::from("blue"));
    Line::Tick(Tick { t: (at * SECOND) as u64, e, d, how, signals, from, to })
}

fn replica(at: f64, name: &'static str, now: &'static str) -> Line<'static> {
    let (e, d) = (Cow::from("demo"), Cow::from("blue"));
    Line::Replica { t: (at * SECOND) as u64, e, d, n: name.into(), now: now.into() }
}

/// With the settings, a first question at 0 and a replica that took a second to start.
fn script(block: &Value, more: &[Line<'static>]) -> (Script, Figures) {
    let mut lines = vec![
        Line::Settings { t: 0, e: "demo".into(), d: "blue".into(), settings: block.clone() },
        tick(0.0, How::First, Signals::default(), (0, 1)),
        replica(0.0, "blue-1", "starting"),
        replica(1.0, "blue-1", "ready"),
    ];
    lines.extend_from_slice(more);
    Script::read(&lines, |block| Ok::<_, ()>(settings(block))).unwrap()
}

fn one_replica(max_queue_wait_ms: u64) -> Value {
    json!({ "instance_count": 1, "request_settings": { "max_queue_wait_ms": max_queue_wait_ms } })
}

#[test]
fn one_slot_serves_in_order_and_turns_away_who_waits_too_long() {
    let requests = [request(2.0, 1.0), request(2.2, 1.0), request(2.6, 1.0)];
    for (longest, p99) in [(500, 400.0), (1_000, 800.0)] {
        let (script, _) = script(&one_replica(longest), &requests);
        let figures = simulate(&script, Instant::now());
        // The recording ends when the last request of its own would have: at 3.6 s.
        let expected = Figures {
            requests: 3,
            rejected: 1,
            wait_mean_ms: p99 / 2.0,
            wait_p50_ms: 0.0,
            wait_p99_ms: p99,
            replica_seconds: 3.6,
            most_replicas: 1,
            changes: 1,
            ..Figures::default()
        };
        assert_eq!(figures, expected, "{longest}");
    }
}

#[test]
fn who_leaves_the_queue_leaves_it_here_too() {
    let left = Request {
        t: 2_200_000_000,
        e: "demo".into(),
        d: "blue".into(),
        c: None,
        w: 100_000_000,
        s: None,
        o: "client_gone".into(),
    };
    let lines = [request(2.0, 1.0), Line::Request(left), request(2.6, 1.0)];
    let (script, happened) = script(&one_replica(500), &lines);
    assert_eq!((happened.left, happened.rejected), (1, 0));
    let figures = simulate(&script, Instant::now());
    assert_eq!((figures.left, figures.rejected, figures.wait_p99_ms), (1, 0, 400.0));
}

#[test]
fn a_second_replica_is_asked_for_at_once_and_takes_as_long_as_the_recorded_one() {
    let block = json!({
        "request_settings": { "max_queue_wait_ms": 5_000 },
        "scale_settings": { "type": "target_utilization", "min_instances": 1, "max_instances": 2 },
    });
    let (script, _) = script(&block, &[request(1.5, 10.0), request(1.5, 10.0)]);
    let figures = simulate(&script, Instant::now());
    // Nobody knows yet how long a request takes, so that the second one asks at once: ordered at 1.5 s, ready at 2.5 s;
    // the recording ends at 11.5 s.
    assert_eq!((figures.rejected, figures.wait_p99_ms, figures.wait_p50_ms), (0, 1_000.0, 0.0));
    assert_eq!((figures.changes, figures.turns, figures.most_replicas), (2, 0, 2));
    assert!((figures.replica_seconds - (11.5 + 10.0)).abs() < 1e-9, "{figures:?}");
}

#[test]
fn another_interval_is_followed_and_the_recorded_one_as_it_was() {
    let block = |interval: u32| {
        json!({
            "request_settings": { "max_queue_wait_ms": 60_000 },
            "scale_settings": { "type": "target_utilization", "max_instances": 2, "polling_interval": interval },
        })
    };
    let waits = |interval| {
        // The first two are known to be short, so that the next ones ask for nothing at once.
        let mut lines = vec![request(1.1, 0.1), request(1.3, 0.1), request(2.1, 30.0), request(2.1, 0.1)];
        lines.extend((1..40).map(|t| tick(f64::from(t) * 1.001, How::Tick, Signals::default(), (1, 1))));
        simulate(&script(&block(interval), &lines).0, Instant::now()).wait_p99_ms
    };
    // Asked for at the next question, at 3.003 s or at 4 s, and ready a second later.
    assert!((waits(1) - (4_003.0 - 2_100.0)).abs() < 1e-3, "{}", waits(1));
    assert!((waits(2) - (5_000.0 - 2_100.0)).abs() < 1e-3, "{}", waits(2));
}

#[test]
fn what_happened_is_counted_from_the_lines() {
    let lines = [
        request(2.0, 1.0),
        tick(3.0, How::Tick, Signals::default(), (1, 2)),
        tick(60.0, How::Tick, Signals::default(), (2, 1)),
        tick(300.0, How::Tick, Signals::default(), (1, 2)),
        replica(100.0, "blue-1", "gone"),
    ];
    let (script, happened) = script(&one_replica(500), &lines);
    assert_eq!((happened.requests, happened.changes, happened.turns), (1, 4, 1));
    assert!((happened.replica_seconds - 100.0).abs() < 1e-9, "{happened:?}");
    assert_eq!((script.starts.as_slice(), script.end), ([1_000_000_000].as_slice(), 300_000_000_000));
}

#[test]
fn the_same_questions_get_the_same_answers_and_another_one_shows() {
    let block = json!({
        "scale_settings": { "type": "target_utilization", "min_instances": 1, "max_instances": 9, "policy": "adaptive" },
    });
    let rule = settings(&block);
    let mut history = History::default();
    let mut from = 0;
    let mut steps = vec![Step::Settings(0, Arc::clone(&rule))];
    for number in 0..400_u32 {
        let busy = number % 97 / 10;
        let signals = Signals {
            t: f64::from(number) * 1.000_000_123,
            dt: 1.000_000_123,
            ready: from,
            target: from,
            inflight: busy,
            inflight_avg: f64::from(busy) * 0.77,
            arrivals: 10,
            completed: 9,
            service_sum: 1.1,
            c: 1,
            min: 1,
            max: 9,
            queue_wait: 0.5,
            ..Signals::default()
        };
        let to = decide(&rule.scale, &mut history, &signals).desired;
        let how = if number == 0 { How::First } else { How::Tick };
        // Through the text of a recording, so that no bit is lost on the way.
        let line = serde_json::to_string(&tick(f64::from(number), how, signals, (from, to))).unwrap();
        let Line::Tick(read) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!(read.signals, signals);
        steps.push(Step::Tick(Box::new(read)));
        from = to;
    }
    let verified = verify(&steps);
    assert_eq!((verified.questions, verified.differences), (400, 0));
    assert!(verified.from_the_beginning && from != 1);
    if let Some(Step::Tick(tick)) = steps.get_mut(200) {
        tick.to += 1;
    }
    let verified = verify(&steps);
    assert_eq!(verified.differences, 1);
    assert_eq!(verified.first.map(|first| first.recorded - first.now), Some(1));
}
