//! What holds for every rule and every number, however hostile.

use super::*;
use crate::core::scale::window::MOST;

fn any_policy() -> impl Strategy<Value = ScalePolicy> {
    prop_oneof![
        Just(ScalePolicy::Azureml),
        Just(ScalePolicy::AzuremlStrict),
        Just(ScalePolicy::Adaptive { reject_budget_percent: None }),
        Just(ScalePolicy::Adaptive { reject_budget_percent: Some(0.1) }),
    ]
}

fn wild() -> impl Strategy<Value = f64> {
    prop_oneof![
        3 => 0.0..100.0,
        1 => prop::sample::select(vec![
            0.0, -0.0, -1.0, 1e-300, 1e300, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY, f64::NEG_INFINITY,
        ]),
    ]
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..50u32, 1 => Just(u32::MAX)]
}

fn sum() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..100u64, 1 => Just(u64::MAX)]
}

/// Numbers that no honest gate would tell.
fn hostile() -> impl Strategy<Value = Signals> {
    let times = (wild(), wild(), wild(), wild(), wild(), wild(), wild(), prop::option::of(wild()));
    let patient = (count(), wild(), wild(), prop::option::of(wild()));
    let counts = (count(), count(), count(), count(), count(), count());
    let all = (times, counts, (sum(), sum(), sum()), (0..9u32, 0..20u32), patient);
    all.prop_map(|(times, counts, sums, bounds, patient)| Signals {
        t: times.0,
        dt: times.1,
        ready: counts.0,
        starting: counts.1,
        draining: 0,
        target: 0,
        inflight: counts.2,
        inflight_draining: counts.3,
        inflight_draining_avg: patient.3,
        queue: counts.4,
        patient: patient.0,
        patience: patient.1,
        patient_avg: patient.2,
        inflight_avg: times.2,
        queue_avg: times.3,
        peak: u32::MAX,
        arrivals: sums.0,
        admitted: sums.0,
        completed: sums.1,
        rejected: sums.2,
        service_sum: times.4,
        cold_n: counts.5,
        cold_sum: times.5,
        c: counts.5,
        min: bounds.0,
        max: bounds.0 + bounds.1,
        queue_wait: times.6,
        projected_wait: times.7,
    })
}

/// All numbers of a decision; JSON has no others than finite ones.
fn assert_finite(decision: &Decision) {
    let text = serde_json::to_string(decision).expect("JSON");
    let known_absent = ["queued", "ghosts", "service", "wait", "correction", "first"];
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (key, value) in value["reason"].as_object().expect("an object") {
        let inner = value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value));
        for (key, value) in inner.chain([(key.as_str(), value)]) {
            assert!(!value.is_null() || known_absent.contains(&key), "{key} is not a number: {text}");
        }
    }
    let sentence = decision.reason.to_string();
    assert!(!sentence.is_empty() && !sentence.contains("NaN") && !sentence.contains("inf"), "{sentence}");
}

proptest! {
    #[test]
    fn no_number_leads_out_of_the_bounds(
        policy in any_policy(), all in prop::collection::vec((hostile(), 0..200u32), 1..60)
    ) {
        let settings = ScaleSettings::Utilization(UtilizationScale { policy, ..rule() });
        let mut history = History::default();
        for (seen, raise) in all {
            let bounds = seen.min..=seen.max;
            let decision = decide(&settings, &mut history, &seen);
            prop_assert!(bounds.contains(&decision.desired), "{decision:?}");
            assert_finite(&decision);
            if let Some(raised) = at_once(&settings, &history, &seen) {
                prop_assert!(bounds.contains(&raised.desired), "{raised:?}");
                prop_assert!(raised.desired > seen.total());
                assert_finite(&raised);
            }
            history.raised(seen.t, raise);
            prop_assert!(history.demand.cold.is_finite());
        }
    }

    #[test]
    fn more_load_never_gives_fewer_replicas(
        rule in rules(), slots in 1..9u32, steps in steps(), more in (0..20u32, 0..20u32, 0..20u64)
    ) {
        let (mut now, mut total, mut history) = (0.0, rule.min, History::default());
        for (pause, share, queue) in steps {
            now += f64::from(pause) / 1000.0;
            let less = Signals { c: slots, completed: 1, service_sum: 5.0, ..seen(now, total, total * slots * share / 100, queue) };
            let higher = Signals {
                inflight: less.inflight + more.0, queue: less.queue + more.1, rejected: more.2, ..less
            };
            let with_more = ask(&rule, &mut history.clone(), &higher).desired;
            let decision = ask(&rule, &mut history, &less);
            prop_assert!(with_more >= decision.desired, "{with_more} < {}: {}", decision.desired, decision.reason);
            total = decision.desired;
        }
    }

    /// Never fewer than what ran and waited at any evaluation of the last minute; a longer queue and more slots on each
    /// replica never need more of them.
    #[test]
    fn adaptive_covers_what_was_there(
        steps in prop::collection::vec((0..40u64, 0..60u32, 0..9u32, 0..30u64), 1..120), slots in 1..9u32, wait in 0..8u32
    ) {
        let rule = UtilizationScale {
            policy: ScalePolicy::Adaptive { reject_budget_percent: None }, max: 10_000, ..rule()
        };
        let (mut one, mut longer, mut wider) = (History::default(), History::default(), History::default());
        for (second, (arrivals, inflight, queue, completed)) in steps.into_iter().enumerate() {
            let seen = Signals {
                arrivals, completed, service_sum: completed as f64 * 0.7, c: slots, queue_wait: f64::from(wait),
                inflight_avg: f64::from(inflight), queue_avg: f64::from(queue), ..seen(second as f64 + 1.0, 1, inflight, queue)
            };
            let desired = ask(&rule, &mut one, &seen).desired;
            prop_assert!(desired * slots >= inflight + queue);
            let with_longer = ask(&rule, &mut longer, &Signals { queue_wait: seen.queue_wait + 1.0, ..seen }).desired;
            prop_assert!(with_longer <= desired);
            let with_wider = ask(&rule, &mut wider, &Signals { c: slots + 1, ..seen }).desired;
            prop_assert!(with_wider <= desired);
        }
    }
}

/// A load that only falls is the worst for windows of maxima.
#[test]
fn memory_is_bounded() {
    let budget = ScalePolicy::Adaptive { reject_budget_percent: Some(0.1) };
    for (policy, dt) in [ScalePolicy::Azureml, ScalePolicy::AzuremlStrict, budget]
        .into_iter()
        .flat_map(|policy| [0.0, 1e-4, 0.1].map(|dt| (policy, dt)))
    {
        let rule =
            UtilizationScale { policy, max: u32::MAX, down_after: Duration::from_secs(72_000), ..rule() };
        let mut history = History::default();
        for step in 0..2 * MOST as u32 {
            let load = 1_000_000 - step;
            let falling = Signals {
                dt,
                inflight_avg: f64::from(load),
                arrivals: u64::from(load),
                completed: 1,
                service_sum: 0.1,
                ..seen(f64::from(step) * dt, 1, load, 1)
            };
            ask(&rule, &mut history, &falling);
            history.raised(falling.t, load);
        }
        let lengths = [history.azureml.len(), history.adaptive.len(), history.raised.len()];
        assert!(lengths.iter().all(|length| *length <= MOST), "{lengths:?}");
        assert!(lengths.contains(&MOST), "the test fills them: {lengths:?}");
    }
}

#[test]
fn a_clock_that_goes_backwards_stands_still() {
    for policy in [ScalePolicy::Azureml, ScalePolicy::Adaptive { reject_budget_percent: None }] {
        let rule = UtilizationScale { policy, ..rule() };
        let (mut back, mut still) = (History::default(), History::default());
        // Old enough to know the load; told an earlier time, it would begin to learn anew.
        for (step, t) in [1000.0, 1500.0, 20.0, 21.0, 1499.0, 1501.0, 1600.0].into_iter().enumerate() {
            let seen = Signals { completed: 40, service_sum: 20.0, ..seen(t, 9, 6 - step as u32, 0) };
            let latest = Signals { t: if step > 1 { t.max(1500.0) } else { t }, ..seen };
            assert_eq!(
                ask(&rule, &mut back, &seen),
                ask(&rule, &mut still, &latest),
                "{policy:?}, step {step}"
            );
        }
    }
}
