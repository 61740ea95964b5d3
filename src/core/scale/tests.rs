//! Each rule by example, and what must hold for every load.

mod adaptive;
mod between;
mod cold;
mod limits;

use std::time::Duration;

use proptest::prelude::*;

use super::{Decision, History, Reason, Signals, at_once, decide};
use crate::core::settings::{ScalePolicy, ScaleSettings, UtilizationScale};

const MINUTE: Duration = Duration::from_secs(60);

fn rule() -> UtilizationScale {
    UtilizationScale {
        policy: ScalePolicy::Azureml,
        min: 1,
        max: 10,
        interval: Duration::from_secs(1),
        target_percent: 70,
        down_after: MINUTE,
        count_queue: true,
    }
}

/// One slot a replica, no bounds but those of the rule that is asked.
fn seen(t: f64, total: u32, inflight: u32, queue: u32) -> Signals {
    Signals { t, dt: 1.0, ready: total, inflight, queue, c: 1, queue_wait: 0.5, ..Signals::default() }
}

fn ask(rule: &UtilizationScale, history: &mut History, seen: &Signals) -> Decision {
    let seen = Signals { min: rule.min, max: rule.max, ..*seen };
    decide(&ScaleSettings::Utilization(rule.clone()), history, &seen)
}

fn once(rule: &UtilizationScale, seen: &Signals) -> Decision {
    ask(rule, &mut History::default(), seen)
}

fn strict() -> UtilizationScale {
    UtilizationScale { policy: ScalePolicy::AzuremlStrict, count_queue: false, ..rule() }
}

#[test]
fn over_the_target_scales_up_at_once_and_says_why() {
    let decision = once(&rule(), &seen(0.0, 4, 14, 3));
    assert_eq!(decision.desired, 10);
    assert_eq!(
        decision.reason.to_string(),
        "14 busy + 3 queued over 4 slots is 425 %, over the target of 70 %: 25 replicas are needed, at most 10 \
         allowed"
    );
}

#[test]
fn the_published_sizing_example_gives_286_replicas() {
    // 20 requests a second of 10 s each at 70 %.
    let rule = UtilizationScale { max: 1000, ..rule() };
    assert_eq!(once(&rule, &seen(0.0, 1, 200, 0)).desired, 286);
}

#[test]
fn to_the_letter_v1_counts_neither_the_queue_nor_what_was_turned_away() {
    let decision = once(&strict(), &Signals { rejected: 40, ..seen(0.0, 4, 2, 50) });
    assert_eq!(decision.desired, 4);
    assert_eq!(
        decision.reason.to_string(),
        "2 busy over 4 slots is 50 %, not over the target of 70 %: 3 would be enough, all 4 are kept until that \
         was so for 60 s"
    );
    let v2 = UtilizationScale { count_queue: true, ..strict() };
    assert_eq!(once(&v2, &Signals { rejected: 40, ..seen(0.0, 4, 2, 3) }).desired, 8);
}

#[test]
fn what_was_turned_away_counts_for_as_long_as_it_would_have_run() {
    let mut history = History::default();
    let first = Signals { completed: 10, service_sum: 20.0, rejected: 3, ..seen(1.0, 4, 2, 0) };
    let decision = ask(&rule(), &mut history, &first);
    assert_eq!(decision.desired, 8);
    assert_eq!(
        decision.reason.to_string(),
        "2 busy + 0 queued + 3.0 that were turned away and would still run over 4 slots is 125 %, over the target of 70 %: \
         8 replicas are needed"
    );
    // 2 s each: after another 2 s a third of them would still run.
    let later = ask(&rule(), &mut history, &Signals { dt: 2.0, ..seen(3.0, 8, 2, 0) });
    let Reason::Kept { sample, .. } = later.reason else { unreachable!("{later:?}") };
    let ghosts = sample.ghosts.expect("they count");
    assert!((ghosts - 3.0 / std::f64::consts::E).abs() < 1e-9, "{ghosts}");
}

#[test]
fn starting_replicas_are_not_asked_for_twice() {
    let waiting = Signals { starting: 4, ..seen(0.0, 1, 1, 2) };
    assert_eq!(once(&rule(), &waiting).desired, 5);
}

#[test]
fn whoever_waits_for_nobody_gets_a_replica_even_if_the_queue_is_no_load() {
    for policy in [
        ScalePolicy::AzuremlStrict,
        ScalePolicy::Azureml,
        ScalePolicy::Adaptive { reject_budget_percent: None },
    ] {
        let from_zero = UtilizationScale { min: 0, count_queue: false, policy, ..rule() };
        assert!(once(&from_zero, &seen(0.0, 0, 0, 3)).desired > 0);
    }
    let decision = once(&UtilizationScale { min: 0, ..strict() }, &seen(0.0, 0, 0, 3));
    assert_eq!(decision.desired, 1);
    let text = decision.reason.to_string();
    assert_eq!(text, "3 requests wait and there is no replica: 1 replica is needed");
}

#[test]
fn the_last_replica_stays_while_somebody_waits_for_it() {
    // Without a queue in the load a replica that takes long to start looks idle.
    let rule = UtilizationScale { min: 0, ..strict() };
    let mut history = History::default();
    let mut at = |second: u32, queue: u32| {
        let starting = Signals { starting: 1, ..seen(f64::from(second), 0, 0, queue) };
        ask(&rule, &mut history, &starting).desired
    };
    let while_waiting: Vec<u32> = (0..=90).map(|second| at(second, 1)).collect();
    assert!(while_waiting.iter().all(|desired| *desired == 1));
    assert_eq!((at(149, 0), at(150, 0)), (1, 0));
}

#[test]
fn slots_without_a_limit_count_as_one_a_replica() {
    assert_eq!(once(&rule(), &Signals { c: 0, ..seen(0.0, 2, 7, 0) }).desired, 10);
}

#[test]
fn exactly_at_the_target_is_not_over_it() {
    assert_eq!(once(&rule(), &seen(0.0, 10, 7, 0)).desired, 10);
    let many = UtilizationScale { max: 2000, ..rule() };
    assert_eq!(once(&many, &seen(0.0, 1000, 700, 0)).desired, 1000);
    let over = once(&many, &seen(0.0, 1000, 701, 0));
    assert_eq!(over.desired, 1002);
    assert!(over.reason.to_string().contains("is 70.1 %, over the target"), "{}", over.reason);
}

#[test]
fn bounds_win_at_once() {
    let many = once(&rule(), &seen(0.0, 12, 0, 0));
    assert_eq!(
        (many.desired, many.reason.to_string().as_str()),
        (10, "there are 12 replicas, at most 10 allowed")
    );
    let few = once(&UtilizationScale { min: 3, ..rule() }, &seen(0.0, 1, 0, 0));
    assert_eq!(
        (few.desired, few.reason.to_string().as_str()),
        (3, "there is 1 replica, at least 3 asked for")
    );
}

#[test]
fn down_goes_to_the_greatest_need_of_the_window() {
    let mut history = History::default();
    // Over the target at 0 s; then little, but 4 busy (6 needed) at 30 s.
    let mut total = 5;
    let mut changes = Vec::new();
    for second in 0..=100 {
        let busy = [(0, 5), (30, 4)].iter().find(|(at, _)| *at == second).map_or(1, |(_, busy)| *busy);
        let decision = ask(&rule(), &mut history, &seen(f64::from(second), total, busy, 0));
        if decision.desired != total {
            changes.push((second, decision.desired));
            if second == 60 {
                let text = decision.reason.to_string();
                let end = "in the last 60 s 6 replicas were enough at any time";
                assert!(text.ends_with(end), "{text}");
            }
        }
        total = decision.desired;
    }
    assert_eq!(changes, [(0, 8), (60, 6), (90, 2)]);
}

#[test]
fn manual_is_the_number_of_the_configuration() {
    let mut history = History::default();
    let decision = decide(&ScaleSettings::Manual { replicas: 3 }, &mut history, &seen(0.0, 9, 9, 9));
    assert_eq!(decision, Decision { desired: 3, reason: Reason::Manual { replicas: 3 } });
    assert_eq!(decision.reason.to_string(), "the configuration fixes the number at 3 replicas");
}

fn rules() -> impl Strategy<Value = UtilizationScale> {
    let policy = prop_oneof![Just(ScalePolicy::Azureml), Just(ScalePolicy::AzuremlStrict)];
    (0..5u32, 0..20u32, 1..=100u32, 0..90u64, any::<bool>(), policy).prop_map(
        |(min, more, target_percent, down, queue, policy)| UtilizationScale {
            policy,
            min,
            max: min + more,
            target_percent,
            down_after: Duration::from_secs(down),
            count_queue: queue,
            ..rule()
        },
    )
}

/// Milliseconds since the last evaluation, busy share of the slots in percent, queued.
fn steps() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
    prop::collection::vec((0..20_000u32, 0..=100u32, prop_oneof![3 => Just(0), 1 => 0..30u32]), 1..80)
}

proptest! {
    /// A second way to the same rule: all samples kept, the maximum searched, in whole numbers.
    #[test]
    fn agrees_with_the_whole_history(rule in rules(), slots in 1..9u32, steps in steps()) {
        let (mut now, mut total, mut history) = (0, rule.min, History::default());
        let mut all: Vec<(u32, u32)> = Vec::new();
        let mut above = None;
        let down_after = rule.down_after.as_millis() as u32;
        for (pause, share, queue) in steps {
            now += pause;
            let busy = total * slots * share / 100;
            let seen = Signals { c: slots, dt: 0.0, ..seen(f64::from(now) / 1000.0, total, busy, queue) };
            let counts = rule.policy == ScalePolicy::Azureml || rule.count_queue;
            let load = busy + if counts { queue } else { 0 };
            let over = load * 100 > total * slots * rule.target_percent;
            if over || above.is_none() {
                above = Some(now);
            }
            let need = (load * 100).div_ceil(rule.target_percent * slots).max(u32::from(queue > 0));
            let need = need.clamp(rule.min, rule.max);
            all.push((now, need));
            let peak = all.iter().filter(|(at, _)| *at == now || now - *at < down_after).map(|(_, need)| *need).max();
            let below_for = now - above.expect("set above");
            let expected = if total == 0 && queue > 0 {
                need
            } else if over {
                total.max(need)
            } else if below_for >= down_after {
                total.min(peak.expect("the sample itself"))
            } else {
                total
            };
            let decision = ask(&rule, &mut history, &seen);
            prop_assert_eq!(decision.desired, expected.max(rule.min).min(rule.max), "{}", decision.reason);
            prop_assert!(history.azureml.len() <= (rule.max - rule.min + 1) as usize);
            total = decision.desired;
        }
    }

    /// One number, once the window is over, for ever.
    #[test]
    fn a_stable_load_does_not_flap(rule in rules(), slots in 1..9u32, load in 0..100u32, from in 0..30u32) {
        let (mut total, mut history) = (from, History::default());
        let mut changes = Vec::new();
        for second in 0..300 {
            let busy = load.min(total * slots);
            let seen = Signals { c: slots, ..seen(f64::from(second), total, busy, load - busy) };
            let desired = ask(&rule, &mut history, &seen).desired;
            if desired != total {
                changes.push((second, desired));
            }
            total = desired;
        }
        // Up while a queue that is no load empties into new slots, then at most one step down.
        let downs = changes.windows(2).filter(|two| two[1].1 < two[0].1).count();
        prop_assert!(downs <= 1, "{changes:?}");
        prop_assert!(changes.iter().all(|(second, _)| *second <= 90), "{changes:?}");
    }
}
