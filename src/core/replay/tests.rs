//! Scripted recordings give exactly the numbers that were worked out by hand.

use std::borrow::Cow;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::config;
use crate::core::bounds::Bounds;
use crate::core::recording::{Line, Request};
use crate::core::scale::Signals;

mod jump;

const SECOND: f64 = 1e9;

/// A Saturday.
const STARTED: &str = "2026-11-21T07:59:00Z";

fn settings(block: &Value) -> Arc<DeploymentSettings> {
    config::replayed(("demo", "blue"), block, &[]).unwrap_or_else(|report| panic!("{report}"))
}

fn request(at: f64, service: f64) -> Line<'static> {
    Line::Request(Request {
        t: (at * SECOND) as u64,
        e: Cow::from("demo"),
        d: Cow::from("blue"),
        w: 0,
        s: Some((service * SECOND) as u64),
        o: Cow::from("ok"),
    })
}

fn tick(at: f64, how: How, signals: Signals, (from, to): (u32, u32)) -> Line<'static> {
    let (e, d) = (Cow::from("demo"), Cow::from("blue"));
    Line::Tick(Tick { t: (at * SECOND) as u64, e, d, how, signals, from, to, said: None })
}

fn replica(at: f64, name: &'static str, now: &'static str) -> Line<'static> {
    let (e, d) = (Cow::from("demo"), Cow::from("blue"));
    Line::Replica { t: (at * SECOND) as u64, e, d, n: name.into(), now: now.into() }
}

/// What a rule with these settings sees when nothing happens.
fn quiet(block: &Value) -> Signals {
    let settings = settings(block);
    let Bounds { min, max, .. } = Bounds::now(&settings.scale, None, None, jiff::Timestamp::default());
    Signals { c: settings.request.slots.map_or(0, std::num::NonZeroU32::get), min, max, ..Signals::default() }
}

/// With the settings, a first question at 0 and a replica that took a second to start.
fn script(block: &Value, more: &[Line<'static>]) -> (Script, Figures) {
    read(lines(block, more))
}

fn lines(block: &Value, more: &[Line<'static>]) -> Vec<Line<'static>> {
    let mut lines = vec![
        Line::Settings { t: 0, e: "demo".into(), d: "blue".into(), settings: block.clone() },
        tick(0.0, How::First, quiet(block), (0, 1)),
        replica(0.0, "blue-1", "starting"),
        replica(1.0, "blue-1", "ready"),
    ];
    lines.extend_from_slice(more);
    lines
}

fn read(lines: Vec<Line<'static>>) -> (Script, Figures) {
    let mut notes = Notes::default();
    lines.into_iter().for_each(|line| notes.take(line));
    notes.script(STARTED.parse().unwrap(), |block| Ok::<_, ()>(settings(block))).unwrap()
}

/// What becomes of these lines.
fn lived(lines: Vec<Line<'static>>) -> Figures {
    simulate(&read(lines).0, Instant::now())
}

/// The script with other values for some settings.
fn with(script: Script, changes: &[(&str, Value)]) -> Script {
    let changes: Vec<_> = changes.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect();
    let others = script.others(|block| config::replayed(("demo", "blue"), block, &changes)).unwrap();
    script.with(others)
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
    let (script, _) = script(&block, &[request(1.0, 8.0), request(9.5, 10.0), request(9.5, 10.0)]);
    let figures = simulate(&script, Instant::now());
    // A request is known to take 8 s, longer than anybody waits, so that the third one asks at once: ordered at 9.5 s, ready
    // at 10.5 s; the recording ends at 19.5 s.
    assert_eq!((figures.rejected, figures.wait_p99_ms, figures.wait_p50_ms), (0, 1_000.0, 0.0));
    assert_eq!((figures.changes, figures.turns, figures.most_replicas), (2, 0, 2));
    assert!((figures.replica_seconds - (19.5 + 10.0)).abs() < 1e-9, "{figures:?}");
}

#[test]
fn an_event_that_comes_right_after_another_is_looked_at_a_moment_later() {
    let block = json!({
        "request_settings": { "max_queue_wait_ms": 1_100 },
        "scale_settings": { "type": "target_utilization", "min_instances": 1, "max_instances": 8 },
    });
    // At 9.5 s two more are ordered for the one that waits. Those that come 50 ms later would wait for longer than anybody
    // may; the others that they need are ordered at 9.6 s, when 100 ms have passed, and are ready a second later.
    let mut lines = vec![request(1.0, 8.0), request(9.5, 10.0), request(9.5, 10.0)];
    lines.extend((0..5).map(|_| request(9.55, 10.0)));
    let figures = simulate(&script(&block, &lines).0, Instant::now());
    assert_eq!((figures.changes, figures.most_replicas, figures.rejected), (3, 8, 0), "{figures:?}");
    assert!((figures.wait_p99_ms - 1_050.0).abs() < 1e-6, "{figures:?}");
}

#[test]
fn who_is_turned_away_at_once_is_a_reason_as_in_a_router() {
    let block = json!({
        "request_settings": { "max_queue_wait_ms": 500, "max_queue_length": 0 },
        "scale_settings": { "type": "target_utilization", "min_instances": 1, "max_instances": 2 },
    });
    // Nobody may wait. The third one is turned away and has a second replica ordered, which takes a second; it serves the last.
    let requests = [request(1.0, 8.0), request(9.5, 10.0), request(9.6, 10.0), request(10.7, 10.0)];
    let figures = lived(lines(&block, &requests));
    assert_eq!((figures.rejected, figures.most_replicas), (1, 2), "{figures:?}");
}

/// One request, a long silence, another; a question each second, and no replica need be there.
fn to_zero(more: &Value) -> (Value, Vec<Line<'static>>) {
    let mut block = json!({
        "request_settings": { "max_queue_wait_ms": 500, "cold_start_wait_ms": 30_000 },
        "scale_settings": { "type": "target_utilization", "min_instances": 0, "max_instances": 1, "idle_time": 60 },
    });
    for (key, value) in more.as_object().unwrap() {
        block["scale_settings"][key] = value.clone();
    }
    let mut lines = vec![request(2.0, 0.5), request(200.0, 0.5)];
    lines.extend((1..220).map(|t| tick(f64::from(t), How::Tick, quiet(&block), (1, 1))));
    (block, lines)
}

#[test]
fn the_last_replica_stays_for_its_time_and_who_comes_to_none_waits_for_a_start() {
    let (block, lines) = to_zero(&json!({}));
    let (script, _) = script(&block, &lines);
    let figures = simulate(&script, Instant::now());
    // Nothing is asked for at 0; both requests order one and wait a second for it, though nobody waits for a slot for so
    // long. The first replica goes 60 s after the last question that saw a request, at 3 s; the recording ends at 219 s.
    assert_eq!(
        (figures.rejected, figures.wait_p50_ms, figures.wait_p99_ms),
        (0, 1_000.0, 1_000.0),
        "{figures:?}"
    );
    assert_eq!((figures.changes, figures.turns), (3, 1), "{figures:?}");
    assert!((figures.replica_seconds - (61.0 + 19.0)).abs() < 1e-9, "{figures:?}");
    let longer = simulate(&with(script.clone(), &[("scale_settings.idle_time", json!(300))]), Instant::now());
    assert_eq!((longer.changes, longer.wait_p50_ms), (1, 0.0), "{longer:?}");
    let impatient =
        simulate(&with(script, &[("request_settings.cold_start_wait_ms", json!(100))]), Instant::now());
    assert_eq!(impatient.rejected, 2, "{impatient:?}");
}

#[test]
fn who_comes_to_none_and_may_not_wait_has_one_started_before_the_next_question() {
    let block = json!({
        "request_settings": { "max_queue_length": 0 },
        "scale_settings": { "type": "target_utilization", "min_instances": 0, "max_instances": 1 },
    });
    // The first one is turned away at 2.1 s, and nobody waits. A replica takes a second, and is there for the second one; had
    // it been ordered at the next question, at 3 s, it would not.
    let mut lines = vec![request(2.1, 0.5), request(3.2, 0.5)];
    lines.extend((1..10).map(|t| tick(f64::from(t), How::Tick, quiet(&block), (0, 0))));
    let figures = simulate(&script(&block, &lines).0, Instant::now());
    assert_eq!((figures.rejected, figures.changes, figures.most_replicas), (1, 1, 1), "{figures:?}");
}

#[test]
fn what_held_in_the_recording_holds_here_and_schedules_where_they_are_others() {
    let block = json!({
        "scale_settings": { "type": "target_utilization", "min_instances": 1, "max_instances": 5 },
    });
    // An operator asks for three for a while.
    let ticks = (1..300).map(|t| {
        let min = if (100..200).contains(&t) { 3 } else { 1 };
        tick(f64::from(t), How::Tick, Signals { min, ..quiet(&block) }, (1, 1))
    });
    let (script, _) = script(&block, &ticks.collect::<Vec<_>>());
    let held = simulate(&script, Instant::now());
    assert_eq!((held.changes, held.most_replicas), (3, 3), "{held:?}");
    // A minute after the start, for a minute.
    let window = json!([{ "cron": "0 8 * * *", "duration": 60, "min_instances": 4 }]);
    let changes = [
        ("scale_settings.schedules", window),
        // Questions come every 50 s then, and the change does not wait for one.
        ("scale_settings.polling_interval", json!(50)),
    ];
    let scheduled = simulate(&with(script, &changes), Instant::now());
    assert_eq!(scheduled.most_replicas, 4, "{scheduled:?}");
    // One from 0 to 300 s, three more from 60 s until the rule has let go of them (20 intervals later).
    assert!((scheduled.replica_seconds - (299.0 + 3.0 * 239.0)).abs() < 1e-6, "{scheduled:?}");
}

#[test]
fn a_limit_that_was_found_is_the_recorded_one() {
    let block = json!({
        "instance_count": 1,
        "request_settings": { "max_concurrent_requests_per_instance": "auto", "max_queue_wait_ms": 5_000 },
    });
    let mut lines: Vec<_> = [2.0, 2.0, 5.0, 5.0].map(|t| request(t, 1.0)).to_vec();
    lines.push(tick(1.0, How::Tick, Signals { c: 1, ..quiet(&block) }, (1, 1)));
    lines.push(tick(4.0, How::Tick, Signals { c: 2, ..quiet(&block) }, (1, 1)));
    let figures = simulate(&script(&block, &lines).0, Instant::now());
    // One after the other, and later two at once.
    assert_eq!((figures.wait_mean_ms, figures.wait_p99_ms), (250.0, 1_000.0), "{figures:?}");
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
        let seen = quiet(&block(interval));
        lines.extend((1..40).map(|t| tick(f64::from(t) * 1.001, How::Tick, seen, (1, 1))));
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
fn the_last_replica_that_stays_is_no_change_and_the_rule_is_still_asked() {
    let (block, _) = to_zero(&json!({}));
    // The rule needs none, and one stays.
    let tick = |t: u32| {
        let Line::Tick(asked) = tick(f64::from(t), How::Tick, quiet(&block), (1, 1)) else { unreachable!() };
        Line::Tick(Tick { said: Some(0), ..asked })
    };
    let mut lines =
        vec![Line::Settings { t: 0, e: "demo".into(), d: "blue".into(), settings: block.clone() }];
    lines.extend((1..50).map(tick));
    let (script, happened) = read(lines);
    assert_eq!((happened.changes, happened.turns, happened.most_replicas), (0, 0, 1));
    assert!(happened.replica_seconds.is_sign_positive(), "{happened:?}");
    let verified = verify(&script.steps);
    assert_eq!((verified.questions, verified.differences), (49, 0), "{verified:?}");
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
