//! Decisions between two evaluations, and what the next evaluations make of them.

use super::*;

/// After a minute of quiet: ten replicas, 0.5 s each, five requests a second.
fn quiet(rule: &UtilizationScale) -> History {
    let mut history = History::default();
    for second in 1..=400 {
        let calm = Signals {
            arrivals: 5,
            completed: 5,
            service_sum: 2.5,
            inflight_avg: 2.5,
            ..seen(f64::from(second), 4, 3, 0)
        };
        ask(rule, &mut history, &calm);
    }
    history
}

fn policies() -> [UtilizationScale; 2] {
    [ScalePolicy::Azureml, ScalePolicy::Adaptive { reject_budget_percent: None }]
        .map(|policy| UtilizationScale { policy, max: 40, ..rule() })
}

fn between(rule: &UtilizationScale, history: &History, seen: &Signals) -> Option<Decision> {
    let seen = Signals { min: rule.min, max: rule.max, ..*seen };
    at_once(&ScaleSettings::Utilization(rule.clone()), history, &seen)
}

#[test]
fn what_a_policy_does_not_count_is_not_said_to_be_served() {
    let seen = Signals { projected_wait: Some(2.0), ..seen(1.0, 1, 1, 3) };
    let because =
        |rule: &UtilizationScale| between(rule, &History::default(), &seen).expect("more").reason.to_string();
    let busy = because(&strict());
    assert!(busy.contains("; this policy counts only busy slots, and 1 was: 2 replicas, so that"), "{busy}");
    let queued = because(&UtilizationScale { count_queue: true, ..strict() });
    assert!(queued.contains("; who was turned away does not count with this policy"), "{queued}");
    let all = because(&rule());
    assert!(
        all.contains("; serving in time all that ran, waited or had just been turned away takes"),
        "{all}"
    );
}

#[test]
fn who_would_wait_too_long_is_a_reason_to_act_at_once() {
    let [azureml, adaptive] = policies();
    // 4 slots, 0.5 s each: the last of 12 would wait 1.5 s.
    let burst = seen(400.4, 4, 4, 12);
    let decision = between(&azureml, &quiet(&azureml), &burst).expect("more");
    assert_eq!(decision.desired, 23);
    assert_eq!(
        decision.reason.to_string(),
        "12 requests were waiting, and the newest would have waited 1.5 s for a slot, more than 250 ms, half of the longest \
         wait that is allowed; serving in time all that ran, waited or had just been turned away takes 16 slots: 23 replicas, so \
         that at most 70 % of the slots are in use"
    );
    assert_eq!(between(&adaptive, &quiet(&adaptive), &burst).map(|decision| decision.desired), Some(16));
    let few = UtilizationScale { max: 6, ..adaptive };
    assert_eq!(between(&few, &quiet(&few), &burst).map(|decision| decision.desired), Some(6));
}

#[test]
fn nothing_happens_where_nobody_waits_too_long_or_enough_are_starting() {
    for rule in policies() {
        let history = quiet(&rule);
        // One of four slots is free after 0.125 s on average.
        assert_eq!(between(&rule, &history, &seen(400.4, 4, 4, 1)), None);
        assert_eq!(between(&rule, &history, &seen(400.4, 4, 9, 0)), None);
        let soon = Signals { starting: 30, ..seen(400.4, 4, 4, 12) };
        assert_eq!(between(&rule, &history, &soon), None);
        // Whoever knows better is believed.
        let told = Signals { projected_wait: Some(0.1), ..seen(400.4, 4, 4, 12) };
        assert_eq!(between(&rule, &history, &told), None);
        let told = Signals { projected_wait: Some(0.3), ..seen(400.4, 4, 9, 1) };
        assert!(between(&rule, &history, &told).is_some());
    }
    let fixed = ScaleSettings::Manual { replicas: 1 };
    assert_eq!(at_once(&fixed, &History::default(), &seen(1.0, 0, 0, 9)), None);
}

#[test]
fn the_first_who_waits_for_nobody_does_not_wait_for_the_interval() {
    for rule in policies() {
        let rule = UtilizationScale { min: 0, ..rule };
        let decision = between(&rule, &History::default(), &seen(0.0, 0, 0, 1)).expect("one");
        assert!((1..=2).contains(&decision.desired));
        assert!(
            decision
                .reason
                .to_string()
                .contains("nobody could tell how long the one request in the queue would have to wait"),
            "{}",
            decision.reason
        );
    }
}

#[test]
fn to_the_letter_the_queue_is_no_reason() {
    let strict = UtilizationScale { max: 40, ..strict() };
    assert_eq!(between(&strict, &quiet(&strict), &seen(400.4, 8, 4, 30)), None);
    // Nobody there is.
    assert_eq!(
        between(&strict, &quiet(&strict), &seen(400.4, 0, 0, 1)).map(|decision| decision.desired),
        Some(1)
    );
}

#[test]
fn what_was_asked_for_at_once_is_kept_as_if_it_had_been_needed() {
    for rule in policies() {
        let mut history = quiet(&rule);
        history.raised(400.4, 30);
        let mut at = |second: u32, total: u32| {
            let calm = Signals {
                arrivals: 5,
                completed: 5,
                service_sum: 2.5,
                inflight_avg: 2.5,
                ..seen(f64::from(second), total, 3, 0)
            };
            ask(&rule, &mut history, &calm)
        };
        let kept: Vec<_> = (401..=460).map(|second| at(second, 30).desired).collect();
        assert!(kept.iter().all(|desired| *desired == 30), "{kept:?}");
        assert!(at(461, 30).desired < 10);
    }
}
