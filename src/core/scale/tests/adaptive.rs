//! The rule `adaptive` by example. That it equals its formulas is `tests/rules.rs`'s part.

use super::*;

fn adaptive() -> UtilizationScale {
    UtilizationScale { policy: ScalePolicy::Adaptive { reject_budget_percent: None }, max: 100, ..rule() }
}

/// So many seconds of the same.
fn steady(
    history: &mut History,
    rule: &UtilizationScale,
    seconds: std::ops::Range<u32>,
    each: &Signals,
) -> Decision {
    let mut last = None;
    for second in seconds {
        last = Some(ask(rule, history, &Signals { t: f64::from(second) + 1.0, ..*each }));
    }
    last.expect("a second at least")
}

fn busy() -> Signals {
    Signals { arrivals: 8, completed: 8, service_sum: 4.0, inflight_avg: 4.0, ..seen(0.0, 8, 4, 0) }
}

#[test]
fn its_sentence_has_the_numbers() {
    let mut history = History::default();
    let decision = steady(&mut history, &adaptive(), 0..100, &busy());
    assert_eq!(
        decision.reason.to_string(),
        "offered load 4.0 (8.0 arrivals/s × 0.50 s) + margin 2.2 for burstiness 0.9 = 7 replicas; the first 8 stay \
         until enough was seen to do with fewer"
    );
    let decision = steady(&mut history, &adaptive(), 100..600, &busy());
    let text = decision.reason.to_string();
    assert!(text.starts_with("offered load 4.0 (8.0 arrivals/s × 0.50 s) + margin 1."), "{text}");
    // What was held at first is no more; the calm is believed by and by.
    let Reason::Adaptive(numbers) = decision.reason else { unreachable!("{decision:?}") };
    assert_eq!((decision.desired, numbers.hold, numbers.first), (7, 300.0, None));
    assert!((0.3..0.7).contains(&numbers.burstiness), "{numbers:?}");
}

#[test]
fn what_is_turned_away_is_demand() {
    let mut history = History::default();
    let away = Signals { rejected: 8, completed: 0, service_sum: 0.0, inflight_avg: 0.0, ..busy() };
    steady(&mut history, &adaptive(), 0..300, &busy());
    let text = steady(&mut history, &adaptive(), 300..340, &away).reason.to_string();
    assert!(
        text.ends_with("; most that ran, waited or was turned away at one time in the last 60 s: 10"),
        "{text}"
    );
    let Reason::Adaptive(numbers) = steady(&mut history, &adaptive(), 340..341, &away).reason else {
        unreachable!()
    };
    // 8 a second, 0.5 s each, and a whole second between two looks: 8 (1 + e^-2 + …).
    assert!((9.2..9.3).contains(&numbers.ghosts), "{numbers:?}");
}

#[test]
fn start_up_is_learned_and_holds_longer() {
    let mut history = History::default();
    steady(&mut history, &adaptive(), 0..10, &Signals { cold_n: 5, cold_sum: 250.0, ..busy() });
    assert!((49.0..50.0).contains(&history.demand.cold), "{}", history.demand.cold);
    let Reason::Adaptive(numbers) = steady(&mut history, &adaptive(), 10..11, &busy()).reason else {
        unreachable!()
    };
    assert!((490.0..500.0).contains(&numbers.hold), "{numbers:?}");
}

#[test]
fn rejections_over_the_budget_widen_the_margin() {
    let budget =
        UtilizationScale { policy: ScalePolicy::Adaptive { reject_budget_percent: Some(0.1) }, ..adaptive() };
    let mut history = History::default();
    steady(&mut history, &budget, 0..400, &busy());
    let bad = Signals { rejected: 1, ..busy() };
    let Reason::Adaptive(after) = steady(&mut history, &budget, 400..440, &bad).reason else {
        unreachable!()
    };
    let correction = after.correction.expect("there is a budget");
    assert!((0.5..=1.0).contains(&correction), "{correction}");
    let text = steady(&mut history, &budget, 440..441, &bad).reason.to_string();
    assert!(text.contains("the reject budget changes the margin by +"), "{text}");
    let Reason::Adaptive(later) = steady(&mut history, &budget, 441..6000, &busy()).reason else {
        unreachable!()
    };
    assert!(later.correction.expect("there is a budget") < correction - 0.3, "{later:?}");
}

#[test]
fn where_none_has_to_be_there_none_stays_after_the_hold() {
    let rule = UtilizationScale { min: 0, ..adaptive() };
    let mut history = History::default();
    steady(&mut history, &rule, 0..200, &busy());
    let idle = seen(0.0, 8, 0, 0);
    assert!(steady(&mut history, &rule, 200..499, &idle).desired > 0);
    let decision = steady(&mut history, &rule, 499..520, &idle);
    assert_eq!(decision.desired, 0);
    assert_eq!(
        decision.reason.to_string(),
        "nothing came in the 300 s before and no replica has to be there"
    );
    assert!(
        steady(&mut history, &rule, 520..521, &Signals { queue: 1, arrivals: 1, ..seen(0.0, 0, 0, 0) })
            .desired
            > 0
    );
    // With a floor of one the margin stays.
    let mut history = History::default();
    assert_eq!(steady(&mut history, &adaptive(), 0..900, &Signals { ready: 1, ..idle }).desired, 1);
}
