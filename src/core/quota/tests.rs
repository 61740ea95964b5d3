//! Limits against models that are too simple to be wrong.

use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// 2026-11-21 14:59:30 UTC.
const NOW: Duration = Duration::from_secs(1_795_273_170);

fn rate(thousandths: u32, burst: u32) -> Rate {
    Rate::new(NonZeroU32::new(thousandths).unwrap(), NonZeroU32::new(burst))
}

fn quota(requests: u64, per: Period) -> Quota {
    Quota { requests: NonZeroU64::new(requests).unwrap(), per }
}

fn concurrency(limit: u32) -> Allowance {
    Allowance { concurrency: NonZeroU32::new(limit), ..Allowance::default() }
}

fn admits(counters: &mut Counters, allowed: &Allowance, now: Instant, unix: Duration) -> bool {
    counters.admit(allowed, now, unix).is_ok()
}

#[test]
fn a_burst_passes_and_then_one_each_interval() {
    let allowed = Allowance { rate: Some(rate(10_000, 3)), ..Allowance::default() };
    let (mut counters, start) = (Counters::default(), Instant::now());
    let tenth = Duration::from_millis(100);
    for _ in 0..3 {
        assert_eq!(counters.admit(&allowed, start, NOW), Ok(()));
    }
    let denied = counters.admit(&allowed, start, NOW).unwrap_err();
    assert_eq!((denied.limit.code(), denied.retry), ("rate_limited", tenth));
    let just_before = start + tenth - Duration::from_nanos(1);
    assert_eq!(
        counters.admit(&allowed, just_before, NOW).map_err(|denied| denied.retry),
        Err(Duration::from_nanos(1))
    );
    assert!(admits(&mut counters, &allowed, start + tenth, NOW));
    assert!(!admits(&mut counters, &allowed, start + tenth, NOW));
    // Three are there again after the three that were borrowed.
    let left = counters.standing(&allowed, start + 4 * tenth, NOW).rate.unwrap();
    assert_eq!((left.remaining, left.reset), (3, Duration::ZERO));
}

#[test]
fn the_answer_to_a_refusal_is_true() {
    let allowed = Allowance {
        rate: Some(rate(333, 2)),
        quota: Some(quota(3, Period::Hour)),
        concurrency: NonZeroU32::new(10),
    };
    let (mut counters, start) = (Counters::default(), Instant::now());
    let (mut passed, mut after) = (0, Duration::ZERO);
    while passed < 7 {
        match counters.admit(&allowed, start + after, NOW + after) {
            Ok(()) => passed += 1,
            Err(denied) => {
                assert!(!admits(
                    &mut counters,
                    &allowed,
                    start + after + denied.retry - Duration::from_nanos(1),
                    NOW + after + denied.retry - Duration::from_nanos(1)
                ));
                after += denied.retry;
                assert!(
                    admits(&mut counters, &allowed, start + after, NOW + after),
                    "{denied:?} at {after:?}"
                );
                passed += 1;
            }
        }
    }
    // Three up to 15:00, three up to 16:00, and one after that.
    assert_eq!(after, Duration::from_secs(3_630));
}

#[test]
fn a_refused_request_uses_nothing() {
    let allowed = Allowance { concurrency: NonZeroU32::new(1), ..Allowance::default() };
    let allowed = Allowance { rate: Some(rate(1_000, 2)), quota: Some(quota(2, Period::Day)), ..allowed };
    let (mut counters, now) = (Counters::default(), Instant::now());
    assert!(admits(&mut counters, &allowed, now, NOW));
    for _ in 0..10 {
        let denied = counters.admit(&allowed, now, NOW).unwrap_err();
        assert_eq!(denied.limit.code(), "too_many_concurrent");
    }
    let standing = counters.standing(&allowed, now, NOW);
    assert_eq!(standing.field(), r#""rate";r=1;t=1, "quota";r=1;t=32430, "concurrency";r=0"#);
    counters.end();
    assert!(admits(&mut counters, &allowed, now, NOW));
    assert_eq!(counters.admit(&allowed, now, NOW).unwrap_err().limit.code(), "quota_exceeded");
}

#[test]
fn fields_name_every_limit() {
    let all = Allowance {
        concurrency: NonZeroU32::new(4),
        rate: Some(rate(10_000, 20)),
        quota: Some(quota(100_000, Period::Day)),
    };
    assert_eq!(
        all.policy(),
        r#""rate";q=20;w=2, "quota";q=100000;w=86400, "concurrency";q=4;qu="concurrent-requests""#
    );
    let advertised = |rate: Rate| rate.advertised();
    assert_eq!(advertised(rate(10_000, 1)), (10, 1));
    assert_eq!(advertised(rate(500, 1)), (1, 2));
    assert_eq!(advertised(rate(3_000, 10)), (12, 4));
    assert_eq!(Rate::new(NonZeroU32::new(2_500).unwrap(), None).burst().get(), 3);
    assert_eq!(Rate::new(NonZeroU32::MIN, None).interval(), Duration::from_secs(1_000));
}

#[test]
fn windows_are_those_of_the_calendar() {
    let window = |per: Period, unix| {
        let window = per.window(Duration::from_secs(unix));
        (window.from, window.until)
    };
    assert_eq!(window(Period::Minute, 61), (60, 120));
    assert_eq!(window(Period::Hour, 3_599), (0, 3_600));
    assert_eq!(window(Period::Day, 86_400), (86_400, 172_800));
    // date -u -d 2024-02-01 +%s
    let (february, march) = (1_706_745_600, 1_709_251_200);
    assert_eq!(march - february, 29 * 86_400);
    for second in [february, february + 86_400, march - 1] {
        assert_eq!(window(Period::Month, second), (february, march));
    }
    assert_eq!(window(Period::Month, 0), (0, 31 * 86_400));
    for per in [Period::Minute, Period::Hour, Period::Day, Period::Month] {
        assert!(per.window(Duration::MAX).until > per.window(Duration::MAX).from);
    }
}

#[test]
fn a_clock_that_is_set_back_gives_nothing_twice() {
    let allowed = Allowance { quota: Some(quota(1, Period::Hour)), ..Allowance::default() };
    let (mut counters, now) = (Counters::default(), Instant::now());
    let three = Duration::from_secs(1_795_273_200);
    let before = three - Duration::from_secs(1);
    assert!(admits(&mut counters, &allowed, now, before));
    assert!(admits(&mut counters, &allowed, now, three));
    // Over the edge and back again and again.
    for unix in [before, three, before, three + Duration::from_secs(3_599)] {
        assert!(!admits(&mut counters, &allowed, now, unix), "{unix:?}");
    }
    // A clock that was years ahead: what was used is used, and the next hour is a new one.
    let past = three - Duration::from_secs(365 * 86_400);
    assert_eq!(counters.admit(&allowed, now, past).unwrap_err().retry, Duration::from_secs(3_600));
    assert!(admits(&mut counters, &allowed, now, past + Duration::from_secs(3_600)));
}

#[test]
fn counters_are_at_rest_when_new_ones_would_do() {
    let allowed = Allowance {
        rate: Some(rate(1_000, 5)),
        quota: Some(quota(9, Period::Minute)),
        concurrency: NonZeroU32::new(9),
    };
    let (mut counters, now) = (Counters::default(), Instant::now());
    assert!(counters.at_rest(now, NOW));
    assert!(admits(&mut counters, &allowed, now, NOW));
    let second = Duration::from_secs(1);
    assert!(!counters.at_rest(now + 60 * second, NOW + 60 * second), "one runs");
    counters.end();
    assert!(!counters.at_rest(now + 29 * second, NOW + 29 * second), "the minute is not over");
    assert!(!counters.at_rest(now, NOW + 60 * second), "the burst is not whole");
    assert!(counters.at_rest(now + second, NOW + 30 * second));
}

#[test]
fn other_limits_go_on_with_what_was_used() {
    let (mut counters, now) = (Counters::default(), Instant::now());
    let wide = Allowance {
        rate: Some(rate(1_000, 50)),
        quota: Some(quota(50, Period::Day)),
        concurrency: NonZeroU32::new(50),
    };
    for _ in 0..40 {
        assert!(admits(&mut counters, &wide, now, NOW));
    }
    let narrow = Allowance {
        rate: Some(rate(1_000, 10)),
        quota: Some(quota(10, Period::Hour)),
        concurrency: NonZeroU32::new(10),
    };
    assert_eq!(
        counters.standing(&narrow, now, NOW).field(),
        r#""rate";r=0;t=31, "quota";r=0;t=30, "concurrency";r=0"#
    );
    assert_eq!(counters.standing(&wide, now, NOW).concurrency, Some(10));
    assert!(admits(&mut counters, &Allowance::default(), now, NOW));
}

#[test]
fn the_largest_and_the_smallest_limits_do_not_overflow() {
    let (far, unix) = (Instant::now(), Duration::MAX);
    for thousandths in [1, u32::MAX] {
        let allowed = Allowance {
            rate: Some(rate(thousandths, u32::MAX)),
            quota: Some(quota(u64::MAX, Period::Month)),
            concurrency: NonZeroU32::new(u32::MAX),
        };
        let mut counters = Counters::default();
        (counters.running, counters.used) = (u32::MAX - 1, u64::MAX - 1);
        assert!(admits(&mut counters, &allowed, far, unix));
        assert!(!admits(&mut counters, &allowed, far, Duration::ZERO));
        counters.standing(&allowed, far, unix).field();
        allowed.policy();
    }
}

/// Arrivals: steps in nanoseconds, back as well.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(prop_oneof![Just(0), -2_000_000..30_000_000_i64, 0..900_000_000_i64], 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_burst_and_rate_times_time(
        thousandths in 500..2_000_000_u32, burst in 1..20_u32, steps in steps(),
    ) {
        let allowed = Allowance { rate: Some(rate(thousandths, burst)), ..Allowance::default() };
        let (mut counters, base) = (Counters::default(), Instant::now() + Duration::from_secs(3_600));
        let interval = allowed.rate.unwrap().interval().as_nanos() as i128;
        let (mut at, mut latest, mut level, mut passed) = (0_i128, 0_i128, 0_i128, Vec::new());
        let mut forward = true;
        let mut told = None;
        for step in steps {
            // Some come back at the very moment that they were told, and pass.
            let obeys = told.take_if(|_| step % 2 == 0);
            at = (at + obeys.unwrap_or_else(|| i128::from(step))).max(0);
            let now = base + Duration::from_nanos(at as u64);
            // The same as a bucket that leaks, as long as the clock has not gone back.
            forward &= at >= latest;
            let by_bucket = forward.then(|| {
                level = (level - (at - latest)).max(0);
                latest = at;
                level <= interval * i128::from(burst - 1)
            });
            let answer = counters.admit(&allowed, now, NOW);
            let by_gcra = answer.is_ok();
            prop_assert!(by_gcra || obeys.is_none());
            told = answer.err().map(|denied| denied.retry.as_nanos() as i128);
            if let Some(by_bucket) = by_bucket {
                prop_assert_eq!(by_gcra, by_bucket);
            }
            if by_gcra {
                level += interval;
                passed.push(at);
            }
        }
        for (first, from) in passed.iter().enumerate() {
            for (last, to) in passed.iter().enumerate().skip(first) {
                // Exact: count ≤ burst + rate × time, in thousandths of a request and nanoseconds.
                let count = (last - first + 1) as i128;
                // Where the clock has gone back, the span is none.
                let room = (to - from).max(0) * i128::from(thousandths);
                prop_assert!((count - i128::from(burst)) * 1_000_000_000_000 <= room);
            }
        }
    }

    #[test]
    fn a_window_lets_its_quota_pass(
        requests in 1..20_u64, hourly in any::<bool>(), steps in prop::collection::vec(0..2_000_u64, 1..300),
    ) {
        let (per, length) = if hourly { (Period::Hour, 3_600) } else { (Period::Minute, 60) };
        let allowed = Allowance { quota: Some(quota(requests, per)), ..Allowance::default() };
        let (mut counters, now) = (Counters::default(), Instant::now());
        let (mut at, mut naive) = (NOW.as_secs(), std::collections::BTreeMap::<u64, u64>::new());
        for step in steps {
            at += step / 40;
            let passed = naive.entry(at / length).or_default();
            let expected = *passed < requests;
            prop_assert_eq!(admits(&mut counters, &allowed, now, Duration::from_secs(at)), expected);
            *passed += u64::from(expected);
            let left = counters.standing(&allowed, now, Duration::from_secs(at)).quota.unwrap();
            prop_assert_eq!(left.remaining, requests - *passed);
            prop_assert_eq!(left.reset.as_secs(), length - at % length);
        }
    }

    #[test]
    fn as_many_at_once_as_may_be(limit in 1..10_u32, begins in prop::collection::vec(any::<bool>(), 1..200)) {
        let (allowed, mut counters, now) = (concurrency(limit), Counters::default(), Instant::now());
        let mut running = 0;
        for begins in begins {
            if begins {
                prop_assert_eq!(admits(&mut counters, &allowed, now, NOW), running < limit);
                running = limit.min(running + 1);
            } else {
                counters.end();
                running = running.saturating_sub(1);
            }
            prop_assert_eq!(counters.standing(&allowed, now, NOW).concurrency, Some(limit - running));
        }
    }
}
