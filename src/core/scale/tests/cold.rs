//! While nothing is ready, and as long as those wait who came then; and intervals of other lengths.

use super::*;

fn policies() -> [UtilizationScale; 2] {
    [ScalePolicy::Azureml, ScalePolicy::Adaptive { reject_budget_percent: None }]
        .map(|policy| UtilizationScale { policy, max: 1000, ..rule() })
}

/// Three requests a second, and a replica that takes long to start.
fn starting(second: u32) -> Signals {
    let (queue, queue_wait) = (3 * second, 300.0);
    let waits = Signals {
        arrivals: 3,
        queue_avg: f64::from(queue),
        queue_wait,
        ..seen(f64::from(second), 0, 0, queue)
    };
    Signals { starting: 1, patient: queue, patient_avg: f64::from(queue), patience: 300.0, ..waits }
}

#[test]
fn a_queue_that_fills_while_nothing_is_ready_is_work_and_not_a_replica_each() {
    for rule in policies() {
        let rule = UtilizationScale { min: 0, ..rule };
        // Nothing is known of the service time, or it is 0.1 s.
        for known in [0, 100] {
            let mut history = History::default();
            let before = Signals { completed: known, service_sum: 0.1 * known as f64, ..seen(0.0, 0, 0, 0) };
            ask(&rule, &mut history, &before);
            for second in 1..=250 {
                let seen = starting(second);
                let decision = ask(&rule, &mut history, &seen);
                assert!((1..=2).contains(&decision.desired), "after {second} s: {}", decision.reason);
                let seen = Signals { min: 0, max: 1000, ..seen };
                let now = at_once(&ScaleSettings::Utilization(rule.clone()), &history, &seen);
                assert!(now.is_none_or(|now| now.desired <= 2), "after {second} s: {now:?}");
            }
        }
    }
}

#[test]
fn who_waits_longer_than_others_may_is_work_until_he_is_served() {
    for rule in policies() {
        let mut history = History::default();
        for second in 1..=40 {
            // 300 waited when the first was ready; three of 0.3 s come and four are served each second.
            let queue = 300 - second;
            let serves = Signals {
                arrivals: 3,
                completed: 3,
                service_sum: 0.9,
                inflight_avg: 1.0,
                queue_avg: f64::from(queue),
                ..seen(f64::from(second), 1, 1, queue)
            };
            let patient = queue - 1;
            let seen = Signals { patient, patient_avg: f64::from(patient), patience: 200.0, ..serves };
            let decision = ask(&rule, &mut history, &seen);
            assert!(decision.desired <= 5, "after {second} s: {}", decision.reason);
        }
    }
}

#[test]
fn rejections_of_a_long_interval_did_not_all_come_at_once() {
    // A hundred requests a second of 0.1 s, of which one is rejected.
    let each = |seconds: u32| {
        let count = 100 * u64::from(seconds);
        Signals {
            dt: f64::from(seconds),
            arrivals: count,
            completed: count,
            service_sum: count as f64 * 0.1,
            rejected: u64::from(seconds),
            inflight_avg: 10.0,
            queue_wait: 0.0,
            ..seen(0.0, 20, 10, 0)
        }
    };
    for rule in policies() {
        for seconds in [1, 60] {
            let mut history = History::default();
            for number in 1..=10 {
                let seen = Signals { t: f64::from(number * seconds), ..each(seconds) };
                let decision = ask(&rule, &mut history, &seen);
                assert!(decision.desired <= 20, "each {seconds} s: {}", decision.reason);
            }
            let waits = Signals { t: f64::from(11 * seconds), queue: 1, min: 1, max: 1000, ..each(seconds) };
            let told = Signals { projected_wait: Some(1.0), ..waits };
            let now = at_once(&ScaleSettings::Utilization(rule.clone()), &history, &told);
            assert_eq!(now, None, "each {seconds} s");
        }
    }
}

#[test]
fn who_was_turned_away_is_a_reason_as_good_as_who_waits() {
    let rule = ScaleSettings::Utilization(rule());
    let away = Signals { rejected: 3, max: 10, projected_wait: Some(1.0), ..seen(1.0, 2, 2, 0) };
    let decision = at_once(&rule, &History::default(), &away).expect("more");
    let text = decision.reason.to_string();
    assert!(
        text.starts_with("requests had been turned away, and one that came then would have waited 1 s for a slot, more than 250 ms"),
        "{text}"
    );
    assert_eq!(at_once(&rule, &History::default(), &Signals { rejected: 0, ..away }), None);
    assert_eq!(at_once(&rule, &History::default(), &Signals { projected_wait: Some(0.0), ..away }), None);
}

#[test]
fn what_ran_on_draining_replicas_counts_as_long_as_it_did() {
    let [_, adaptive] = policies();
    let at = |inflight_draining_avg| {
        let seen = Signals { inflight_draining: 2, inflight_draining_avg, ..seen(1.0, 1, 0, 0) };
        let Reason::Adaptive(numbers) = once(&adaptive, &seen).reason else { unreachable!() };
        numbers.demand
    };
    assert_eq!((at(None), at(Some(7.5))), (2.0, 7.5));
}

#[test]
fn the_first_fleet_is_what_was_there_or_asked_for_and_not_for_ever() {
    let [_, adaptive] = policies();
    let first = |before: u32, after: u32, t: f64| {
        let mut history = History::default();
        ask(&adaptive, &mut history, &seen(0.0, before, 0, 0));
        ask(&adaptive, &mut history, &seen(1.0, after, 0, 0));
        let Reason::Adaptive(numbers) = ask(&adaptive, &mut history, &seen(t, after, 0, 0)).reason else {
            unreachable!()
        };
        numbers.first
    };
    assert_eq!(first(8, 8, 2.0), Some(8), "what was there stays");
    assert_eq!(first(0, 80, 2.0), Some(1), "what a burst has asked for meanwhile does not");
    // Not one request came, in all that time.
    assert_eq!((first(8, 8, 1190.0), first(8, 8, 1210.0)), (Some(8), None));
}

#[test]
fn from_zero_one_replica_is_enough_for_what_has_a_slot_in_it() {
    let v2 = UtilizationScale { count_queue: true, ..strict() };
    for rule in [rule(), strict(), v2].map(|rule| UtilizationScale { min: 0, ..rule }) {
        // What a request takes is not known, or it is five seconds.
        for known in [0, 100] {
            let mut history = History::default();
            let before = Signals { completed: known, service_sum: 5.0 * known as f64, ..seen(0.0, 0, 0, 0) };
            ask(&rule, &mut history, &before);
            let patient = |queue, c| Signals {
                arrivals: u64::from(queue),
                patient: queue,
                patience: 300.0,
                c,
                ..seen(400.0, 0, 0, queue)
            };
            for seen in [patient(1, 1), Signals { starting: 1, t: 401.0, ..patient(1, 1) }, patient(4, 4)] {
                let decision = ask(&rule, &mut history.clone(), &seen);
                assert_eq!(decision.desired, 1, "{known} {seen:?}: {}", decision.reason);
            }
        }
    }
    let two = Signals { arrivals: 2, patient: 2, patience: 300.0, ..seen(1.0, 0, 0, 2) };
    let before = Signals { completed: 100, service_sum: 500.0, ..seen(0.0, 0, 0, 0) };
    let mut history = History::default();
    ask(&rule(), &mut history, &before);
    assert_eq!(ask(&rule(), &mut history, &two).desired, 3, "two have no slot in one");
}

#[test]
fn from_zero_one_replica_is_enough_for_all_who_can_wait_while_nobody_knows_what_they_take() {
    let v2 = UtilizationScale { count_queue: true, ..strict() };
    for rule in [rule(), v2].map(|rule| UtilizationScale { min: 0, ..rule }) {
        let decided = |known: u64, rejected| {
            let mut history = History::default();
            let before = Signals { completed: known, service_sum: 5.0 * known as f64, ..seen(0.0, 0, 0, 0) };
            ask(&rule, &mut history, &before);
            // Four wait for a start, and have no slot in one replica.
            let waiting =
                Signals { arrivals: 4, patient: 4, patience: 300.0, rejected, ..seen(1.0, 0, 0, 4) };
            ask(&rule, &mut history, &waiting).desired
        };
        assert_eq!((decided(0, 0), decided(0, 7)), (1, 1), "{rule:?}");
        assert!(decided(100, 0) > 1, "{rule:?}");
    }
}

#[test]
fn who_could_not_wait_has_asked_all_the_same() {
    for (rule, expected) in [(rule(), 2), (strict(), 1)] {
        let rule = UtilizationScale { min: 0, ..rule };
        let refused = Signals { arrivals: 1, rejected: 1, queue_wait: 0.0, ..seen(1.0, 0, 0, 0) };
        let decision = once(&rule, &refused);
        assert_eq!(decision.desired, expected);
        let reason = decision.reason.to_string();
        assert!(reason.contains("turned away") && reason.contains("no replica"), "{reason}");
        assert_eq!(once(&rule, &Signals { arrivals: 0, rejected: 0, ..refused }).desired, 0);
    }
}
