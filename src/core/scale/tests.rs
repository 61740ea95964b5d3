//! The documented rule by example, and what must hold for every load.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Decision, History, Observed, Reason, decide};
use crate::core::settings::{ScaleSettings, UtilizationScale};

const MINUTE: Duration = Duration::from_secs(60);

fn rule() -> UtilizationScale {
    UtilizationScale {
        min: 1,
        max: 10,
        interval: Duration::from_secs(1),
        target_percent: 70,
        down_after: MINUTE,
        count_queue: true,
    }
}

fn seen(now: Instant, total: u32, busy: u32, queued: u32) -> Observed {
    Observed { now, ready: total, starting: 0, slots_per_replica: Some(1), busy, queued }
}

fn once(rule: UtilizationScale, seen: &Observed) -> Decision {
    decide(&ScaleSettings::Utilization(rule), &mut History::default(), seen)
}

#[test]
fn over_the_target_scales_up_at_once_and_says_why() {
    let now = Instant::now();
    let decision = once(rule(), &seen(now, 4, 14, 3));
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
    assert_eq!(once(rule, &seen(Instant::now(), 1, 200, 0)).desired, 286);
}

#[test]
fn v1_does_not_count_the_queue() {
    let v1 = UtilizationScale { count_queue: false, ..rule() };
    let decision = once(v1, &seen(Instant::now(), 4, 2, 50));
    assert_eq!(decision.desired, 4);
    assert_eq!(
        decision.reason.to_string(),
        "2 busy over 4 slots is 50 %, not over the target of 70 %: 3 would be enough, all 4 are kept until that \
         was so for 60 s"
    );
}

#[test]
fn starting_replicas_are_not_asked_for_twice() {
    let now = Instant::now();
    let waiting = Observed { starting: 4, ..seen(now, 1, 1, 2) };
    assert_eq!(once(rule(), &waiting).desired, 5);
}

#[test]
fn whoever_waits_for_nobody_gets_a_replica_even_if_the_queue_is_no_load() {
    let v1 = UtilizationScale { min: 0, count_queue: false, ..rule() };
    let decision = once(v1, &seen(Instant::now(), 0, 0, 3));
    assert_eq!(decision.desired, 1);
    let text = decision.reason.to_string();
    assert_eq!(text, "3 requests wait and there is no replica: 1 replica is needed");
}

#[test]
fn the_last_replica_stays_while_somebody_waits_for_it() {
    // Without a queue in the load (v1) a replica that takes long to start looks idle.
    let settings = ScaleSettings::Utilization(UtilizationScale { min: 0, count_queue: false, ..rule() });
    let (start, mut history) = (Instant::now(), History::default());
    let mut at = |second: u64, queued: u32| {
        let starting =
            Observed { ready: 0, starting: 1, ..seen(start + Duration::from_secs(second), 0, 0, queued) };
        decide(&settings, &mut history, &starting).desired
    };
    let while_waiting: Vec<u32> = (0..=90).map(|second| at(second, 1)).collect();
    assert!(while_waiting.iter().all(|desired| *desired == 1));
    assert_eq!((at(149, 0), at(150, 0)), (1, 0));
}

#[test]
fn slots_without_a_limit_count_as_one_a_replica() {
    let unlimited = Observed { slots_per_replica: None, ..seen(Instant::now(), 2, 7, 0) };
    assert_eq!(once(rule(), &unlimited).desired, 10);
}

#[test]
fn exactly_at_the_target_is_not_over_it() {
    let now = Instant::now();
    assert_eq!(once(rule(), &seen(now, 10, 7, 0)).desired, 10);
    let many = UtilizationScale { max: 2000, ..rule() };
    assert_eq!(once(many.clone(), &seen(now, 1000, 700, 0)).desired, 1000);
    let over = once(many, &seen(now, 1000, 701, 0));
    assert_eq!(over.desired, 1002);
    assert!(over.reason.to_string().contains("is 70.1 %, over the target"), "{}", over.reason);
}

#[test]
fn bounds_win_at_once() {
    let now = Instant::now();
    let many = once(rule(), &seen(now, 12, 0, 0));
    assert_eq!(
        (many.desired, many.reason.to_string().as_str()),
        (10, "there are 12 replicas, at most 10 allowed")
    );
    let few = once(UtilizationScale { min: 3, ..rule() }, &seen(now, 1, 0, 0));
    assert_eq!(
        (few.desired, few.reason.to_string().as_str()),
        (3, "there is 1 replica, at least 3 asked for")
    );
}

#[test]
fn down_goes_to_the_greatest_need_of_the_window() {
    let start = Instant::now();
    let settings = ScaleSettings::Utilization(rule());
    let mut history = History::default();
    // Over the target at 0 s; then little, but 4 busy (6 needed) at 30 s.
    let mut total = 5;
    let mut changes = Vec::new();
    for second in 0..=100 {
        let busy = [(0, 5), (30, 4)].iter().find(|(at, _)| *at == second).map_or(1, |(_, busy)| *busy);
        let decision =
            decide(&settings, &mut history, &seen(start + Duration::from_secs(second), total, busy, 0));
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
    let decision =
        decide(&ScaleSettings::Manual { replicas: 3 }, &mut history, &seen(Instant::now(), 9, 9, 9));
    assert_eq!(decision, Decision { desired: 3, reason: Reason::Manual { replicas: 3 } });
    assert_eq!(decision.reason.to_string(), "the configuration fixes the number at 3 replicas");
}

#[test]
fn nonsense_does_not_panic() {
    let nonsense = UtilizationScale { min: 9, max: 2, target_percent: 0, ..rule() };
    let now = Instant::now();
    for slots_per_replica in [None, Some(0), Some(u32::MAX)] {
        for all in [0, u32::MAX] {
            let seen = Observed { now, ready: all, starting: all, slots_per_replica, busy: all, queued: all };
            let decision = once(nonsense.clone(), &seen);
            assert_eq!(decision.desired, 2);
            assert!(!decision.reason.to_string().is_empty());
        }
    }
}

fn rules() -> impl Strategy<Value = UtilizationScale> {
    (0..5u32, 0..20u32, 1..=100u32, 0..90u64, any::<bool>()).prop_map(
        |(min, more, target_percent, down, queue)| UtilizationScale {
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
fn steps() -> impl Strategy<Value = Vec<(u64, u32, u32)>> {
    prop::collection::vec((0..20_000u64, 0..=100u32, prop_oneof![3 => Just(0), 1 => 0..30u32]), 1..80)
}

proptest! {
    /// A second way to the same rule: all samples kept, the maximum searched.
    #[test]
    fn agrees_with_the_whole_history(rule in rules(), slots in 1..9u32, steps in steps()) {
        let settings = ScaleSettings::Utilization(rule.clone());
        let (mut now, mut total, mut history) = (Instant::now(), rule.min, History::default());
        let mut all: Vec<(Instant, u32)> = Vec::new();
        let mut above = None;
        for (pause, share, queued) in steps {
            now += Duration::from_millis(pause);
            let busy = total * slots * share / 100;
            let seen = Observed { slots_per_replica: Some(slots), ..seen(now, total, busy, queued) };
            let load = f64::from(busy + if rule.count_queue { queued } else { 0 });
            let over = load * 100.0 > f64::from(total * slots * rule.target_percent);
            if over || above.is_none() {
                above = Some(now);
            }
            // Divisions of whole numbers below 10,000 are exact to far more than this.
            let exact = load * 100.0 / f64::from(rule.target_percent * slots) - 1e-9;
            let need = (exact.ceil() as u32).max(u32::from(queued > 0)).clamp(rule.min, rule.max);
            all.push((now, need));
            let peak = all.iter().filter(|(at, _)| *at == now || now - *at < rule.down_after).map(|(_, need)| *need).max();
            let below_for = now - above.expect("set above");
            let expected = if total == 0 && queued > 0 {
                need
            } else if over {
                total.max(need)
            } else if below_for >= rule.down_after {
                total.min(peak.expect("the sample itself"))
            } else {
                total
            };
            let decision = decide(&settings, &mut history, &seen);
            prop_assert_eq!(decision.desired, expected.max(rule.min).min(rule.max), "{}", decision.reason);
            prop_assert!(history.needs.len() <= (rule.max - rule.min + 1) as usize);
            total = decision.desired;
        }
    }

    #[test]
    fn more_load_never_gives_fewer_replicas(
        rule in rules(), slots in 1..9u32, steps in steps(), more in (0..20u32, 0..20u32)
    ) {
        let settings = ScaleSettings::Utilization(rule.clone());
        let (mut now, mut total, mut history) = (Instant::now(), rule.min, History::default());
        for (pause, share, queued) in steps {
            now += Duration::from_millis(pause);
            let less = Observed {
                slots_per_replica: Some(slots),
                ..seen(now, total, total * slots * share / 100, queued)
            };
            let higher = Observed { busy: less.busy + more.0, queued: queued + more.1, ..less };
            let with_more = decide(&settings, &mut history.clone(), &higher).desired;
            let decision = decide(&settings, &mut history, &less);
            prop_assert!(with_more >= decision.desired, "{with_more} < {}: {}", decision.desired, decision.reason);
            total = decision.desired;
        }
    }

    /// One number, once the window is over, for ever.
    #[test]
    fn a_stable_load_does_not_flap(rule in rules(), slots in 1..9u32, load in 0..100u32, from in 0..30u32) {
        let settings = ScaleSettings::Utilization(rule);
        let (start, mut total, mut history) = (Instant::now(), from, History::default());
        let mut changes = Vec::new();
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            let busy = load.min(total * slots);
            let seen = Observed { slots_per_replica: Some(slots), ..seen(now, total, busy, load - busy) };
            let desired = decide(&settings, &mut history, &seen).desired;
            if desired != total {
                changes.push((second, desired));
            }
            total = desired;
        }
        // Up while a v1 queue empties into new slots, then at most one step down.
        let downs = changes.windows(2).filter(|two| two[1].1 < two[0].1).count();
        prop_assert!(downs <= 1, "{changes:?}");
        prop_assert!(changes.iter().all(|(second, _)| *second <= 90), "{changes:?}");
    }
}
