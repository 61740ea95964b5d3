//! Counters of callers: whose they are, that all workers count together, and that they are bounded.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::core::quota::{Period, Quota, Rate};

const WALL: Duration = Duration::from_secs(1_795_273_200);

fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + WALL
}

/// An endpoint whose clients are `batch` and `live`.
fn settings(batch: Option<Allowance>, default: Allowance) -> EndpointSettings {
    let text = "endpoints: [{name: demo, auth_mode: key, clients: [{name: batch, key: batch-key-0123456789}, \
        {name: live, key: live-key-0123456789}], deployments: [{name: blue, replicas: ['http://127.0.0.1:1']}]}]";
    let loaded = crate::config::parse_with("test", text, std::path::Path::new("/"), &|_| None).unwrap();
    let mut settings = EndpointSettings::clone(&loaded.settings.endpoints[0]);
    settings.default_limits = default;
    settings.auth.clients[0].limits = batch;
    settings
}

fn quota(requests: u64) -> Allowance {
    let requests = NonZeroU64::new(requests).unwrap();
    Allowance { quota: Some(Quota { requests, per: Period::Day }), ..Allowance::default() }
}

fn concurrency(limit: u32) -> Allowance {
    Allowance { concurrency: NonZeroU32::new(limit), ..Allowance::default() }
}

fn bearer(number: u32) -> Caller {
    let mut digest = [0; 16];
    digest[..4].copy_from_slice(&number.to_le_bytes());
    Caller::Bearer(digest)
}

/// How many of a caller's requests pass, up to 100 that end at once.
fn passes(limiter: &Limiter, caller: Caller) -> usize {
    let now = Instant::now();
    let one = |_: &i32| limiter.admit(caller, now, wall()).is_none_or(|(_, answer)| answer.is_ok());
    (0..100).take_while(one).count()
}

#[test]
fn every_caller_has_the_limits_that_are_meant_for_it() {
    let limiter = Limiter::new(&settings(Some(quota(3)), quota(5)), None).unwrap();
    assert_eq!(passes(&limiter, Caller::Client(0)), 3);
    assert_eq!(passes(&limiter, Caller::Client(1)), 5);
    assert_eq!(passes(&limiter, Caller::Key), 5);
    assert_eq!((passes(&limiter, bearer(1)), passes(&limiter, bearer(2))), (5, 5));
    assert_eq!(passes(&limiter, Caller::Anybody), 100);
    // Not again.
    for caller in [Caller::Client(0), Caller::Client(1), Caller::Key, bearer(1), bearer(2)] {
        assert_eq!(passes(&limiter, caller), 0);
    }
    let free = Limiter::new(&settings(Some(Allowance::default()), quota(5)), None).unwrap();
    assert_eq!(passes(&free, Caller::Client(0)), 100);
    let mut nobody = settings(None, Allowance::default());
    nobody.auth.clients.clear();
    assert!(Limiter::new(&nobody, None).is_none());
}

#[test]
fn what_was_used_is_carried_over_by_name() {
    let first = Limiter::new(&settings(Some(quota(3)), quota(5)), None).unwrap();
    assert_eq!((passes(&first, Caller::Client(0)), passes(&first, bearer(1))), (3, 5));
    assert_eq!(passes(&first, Caller::Key), 5);
    let mut next = settings(Some(quota(10)), quota(6));
    next.auth.clients.reverse();
    let second = Limiter::new(&next, Some(&first)).unwrap();
    assert_eq!(passes(&second, Caller::Client(1)), 7, "`batch` is the second one now");
    assert_eq!(passes(&second, Caller::Client(0)), 6, "`live` has called nobody");
    assert_eq!((passes(&second, bearer(1)), passes(&second, Caller::Key)), (1, 1));
    // A request that began before ends for the one after.
    let limited = Limiter::new(&settings(None, concurrency(1)), None).unwrap();
    let held = limited.admit(bearer(7), Instant::now(), wall()).unwrap().1.unwrap();
    let renewed = Limiter::new(&settings(None, concurrency(1)), Some(&limited)).unwrap();
    assert_eq!(passes(&renewed, bearer(7)), 0);
    drop((limited, held));
    assert_eq!(passes(&renewed, bearer(7)), 100);
}

#[test]
fn all_workers_together_let_exactly_the_quota_pass() {
    for caller in [Caller::Client(0), Caller::Key, bearer(1)] {
        let limiter = Limiter::new(&settings(None, quota(1_000)), None).unwrap();
        let passed = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let answer = limiter.admit(caller, Instant::now(), wall()).unwrap().1;
                        passed.fetch_add(u32::from(answer.is_ok()), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.load(Ordering::Relaxed), 1_000);
    }
}

#[test]
fn counters_are_not_forgotten_while_they_are_needed() {
    let limiter = Limiter::new(&settings(None, quota(2)), None).unwrap();
    let (now, bearers) = (Instant::now(), &limiter.bearers);
    for number in 0..50 {
        assert_eq!(passes(&limiter, bearer(number)), 2);
    }
    for number in 0..50 {
        assert_eq!(passes(&limiter, bearer(number)), 0, "all are in the middle of their day");
    }
    assert_eq!(bearers.len(), 50);
    // A day later each new one lets some old ones go.
    let tomorrow = wall() + Duration::from_secs(86_400);
    for number in 100..120 {
        let held = limiter.admit(bearer(number), now, tomorrow).unwrap().1.unwrap();
        drop(held);
    }
    assert_eq!(bearers.len(), 20);
}

#[test]
fn those_for_whom_there_is_no_room_share_their_limits() {
    let (bearers, now, unix) = (Bearers::default(), Instant::now(), WALL);
    let terms = Terms::new(&quota(2), &Name::parse("demo").unwrap(), None).unwrap();
    let ask = |number: u8, unix| {
        let used = bearers.find_among([number; 16], 3, now, unix);
        terms.ask(&used, now, unix).unwrap().1.is_ok()
    };
    for number in 0..3 {
        assert!(ask(number, unix));
    }
    // Two requests for all others together, and the three go on as before.
    assert!(ask(3, unix) && ask(4, unix) && !ask(5, unix) && !ask(3, unix));
    assert!(ask(0, unix) && !ask(0, unix));
    assert_eq!(bearers.len(), 3);
    let tomorrow = unix + Duration::from_secs(86_400);
    assert!(ask(5, tomorrow) && ask(5, tomorrow) && !ask(5, tomorrow));
}

/// Counters that are retired at the moment when they are asked are not used: one request too many would pass.
#[test]
fn nothing_is_lost_when_counters_are_retired_while_they_are_asked() {
    let bearers = Bearers::default();
    let (now, unix) = (Instant::now(), WALL);
    let terms = Terms::new(&quota(1), &Name::parse("demo").unwrap(), None).unwrap();
    let before = bearers.find([1; 16], now, unix);
    // Somebody else comes, and the first one has used nothing yet.
    drop(bearers.find([2; 16], now, unix));
    assert!(terms.ask(&before, now, unix).is_none());
    let after = bearers.find([1; 16], now, unix);
    assert!(!Arc::ptr_eq(&before, &after));
    assert!(terms.ask(&after, now, unix).unwrap().1.is_ok());
    assert!(terms.ask(&after, now, unix).unwrap().1.is_err());
}

#[test]
fn many_bearers_from_all_sides_keep_exact_counts() {
    let limiter = Limiter::new(&settings(None, concurrency(2)), None).unwrap();
    let running = (0..20).map(|_| AtomicU32::new(0)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (limiter, running) = (&limiter, &running);
            scope.spawn(move || {
                for round in 0..2_000_u32 {
                    let number = (round * 7 + thread * 3) % 20;
                    let (_, answer) = limiter.admit(bearer(number), Instant::now(), wall()).unwrap();
                    if let Ok(held) = answer {
                        let count = &running[number as usize];
                        assert!(count.fetch_add(1, Ordering::SeqCst) < 2, "never more than two at once");
                        count.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                }
            });
        }
    });
    assert!(limiter.bearers.len() <= 20);
}

#[test]
fn the_answer_tells_of_the_limits() {
    let allowed = Allowance { rate: Some(Rate::new(NonZeroU32::new(2_000).unwrap(), None)), ..quota(9) };
    let limiter = Limiter::new(&settings(Some(allowed), Allowance::default()), None).unwrap();
    let now = Instant::now();
    let (told, _held) = limiter.admit(Caller::Client(0), now, wall()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(POLICY, HeaderValue::from_static("\"tokens\";q=1"));
    told.mark(&mut headers, now, wall());
    let policies: Vec<_> = headers.get_all(POLICY).iter().collect();
    assert_eq!(policies, ["\"tokens\";q=1", "\"rate\";q=2;w=1, \"quota\";q=9;w=86400"]);
    assert_eq!(headers[LEFT], "\"rate\";r=1;t=1, \"quota\";r=8;t=32400");
    assert!(limiter.admit(Caller::Client(1), now, wall()).is_none());
}
