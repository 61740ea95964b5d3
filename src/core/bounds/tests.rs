//! Whose bounds win, and the sentences.

use super::*;
use crate::core::settings::{ScalePolicy, UtilizationScale};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOON: &str = "2026-11-23T12:00:00Z";

fn window(min: u32) -> Window {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    Window { name: "office".into(), min, until: at("2026-11-23T17:00:00Z"), zone }
}

fn hold(min: Option<u32>, max: Option<u32>) -> Override {
    Override { min, max, until: at("2026-11-23T13:12:00Z") }
}

fn by_load(min: u32, max: u32) -> ScaleSettings {
    ScaleSettings::Utilization(UtilizationScale {
        policy: ScalePolicy::Azureml,
        min,
        max,
        interval: Duration::from_secs(1),
        target_percent: 70,
        down_after: Duration::from_secs(20),
        count_queue: true,
    })
}

fn bounds(scale: &ScaleSettings, window: Option<Window>, hold: Option<Override>) -> (u32, u32) {
    let Bounds { min, max, .. } = Bounds::now(scale, window, hold, at(NOON));
    (min, max)
}

#[test]
fn an_operator_goes_before_a_schedule_and_a_schedule_before_the_configuration() {
    let scale = by_load(1, 10);
    for (scheduled, held, expected) in [
        (None, None, (1, 10)),
        (Some(4), None, (4, 10)),
        (Some(40), None, (10, 10)),
        (Some(4), Some((Some(2), Some(2))), (2, 2)),
        (Some(4), Some((Some(12), Some(12))), (12, 12)),
        (Some(4), Some((Some(6), None)), (6, 10)),
        (Some(4), Some((Some(12), None)), (12, 12)),
        (Some(4), Some((None, Some(6))), (4, 6)),
        (Some(4), Some((None, Some(2))), (2, 2)),
        (None, Some((Some(5), Some(3))), (3, 3)),
    ] {
        let held = held.map(|(min, max)| hold(min, max));
        assert_eq!(bounds(&scale, scheduled.map(window), held), expected, "{scheduled:?} {held:?}");
    }
}

#[test]
fn a_fixed_number_moves_for_an_operator_only() {
    let scale = ScaleSettings::Manual { replicas: 2 };
    assert_eq!(bounds(&scale, Some(window(5)), None), (2, 2));
    assert_eq!(bounds(&scale, None, Some(hold(Some(5), Some(5)))), (5, 5));
    assert_eq!(bounds(&scale, None, Some(hold(None, Some(1)))), (1, 1));
}

#[test]
fn who_set_the_bounds_is_known_and_an_end_is_an_end() {
    let scale = by_load(1, 10);
    let by = |window, hold| Bounds::now(&scale, window, hold, at(NOON)).by;
    assert_eq!(by(Some(window(1)), None), By::Configuration, "it asks for nothing more");
    assert_eq!(by(Some(window(2)), None), By::Schedule(window(2)));
    let held = hold(Some(3), Some(3));
    assert_eq!(by(Some(window(2)), Some(held)), By::Operator(held));
    assert_eq!(by(None, Some(Override { until: at(NOON), ..held })), By::Configuration);
}

#[test]
fn the_sentences_say_who_and_until_when() {
    let rule = Reason::BelowMin { total: 1, min: 3 };
    let now = at(NOON);
    let held = Why::Held { hold: hold(Some(3), Some(3)), min: 3, max: 3, now, rule: Some(rule) };
    assert_eq!(
        held.to_string(),
        "held at 3 by an operator until 13:12 UTC: there is 1 replica, at least 3 asked for"
    );
    let short = Override { until: at("2026-11-23T12:01:30.7Z"), ..hold(Some(3), Some(3)) };
    let held = Why::Held { hold: short, min: 3, max: 3, now, rule: None };
    assert_eq!(held.to_string(), "held at 3 by an operator until 12:01:30 UTC");
    let until = Override { until: at("2026-11-25T08:00:00Z"), ..hold(Some(2), None) };
    let held = Why::Held { hold: until, min: 2, max: 9, now, rule: None };
    assert_eq!(held.to_string(), "held between 2 and 9 by an operator until 2026-11-25 08:00 UTC");
    let scheduled = Why::Scheduled { window: window(3), now, rule };
    assert_eq!(
        scheduled.to_string(),
        "at least 3 by the schedule `office` until 18:00 CET: there is 1 replica, at least 3 asked for"
    );
    let stays = Why::LastStays { idle_time: Duration::from_secs(300), rule };
    assert!(
        stays.to_string().starts_with("the last replica stays until nobody has asked for 5 min: there is")
    );
    let idle = Why::Idle { time: Duration::from_secs(300) };
    assert_eq!(idle.to_string(), "no request for 5 min: no replica is needed");
}

#[test]
fn an_override_is_spoken_without_the_words_of_the_program() {
    for (held, spoken) in [
        ((Some(3), Some(3)), "exactly 3"),
        ((Some(2), Some(4)), "2 to 4"),
        ((Some(2), None), "at least 2"),
        ((None, Some(4)), "at most 4"),
    ] {
        assert_eq!(hold(held.0, held.1).to_string(), format!("{spoken} until 2026-11-23T13:12:00Z"));
    }
}

#[test]
fn times_are_spoken_in_two_units_and_never_short_of_the_truth() {
    for (millis, spoken) in [
        (0, "0 s"),
        (1, "1 s"),
        (59_000, "59 s"),
        (60_000, "1 min"),
        (61_000, "1 min 1 s"),
        (3_599_500, "1 h"),
        (7_260_000, "2 h 1 min"),
        (90_000_000, "1 d 1 h"),
    ] {
        assert_eq!(Spoken(Duration::from_millis(millis)).to_string(), spoken, "{millis}");
    }
}
