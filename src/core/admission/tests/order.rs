//! The order of the queue: classes, callers, deadlines, newest first, and who is turned away.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ask(class: Class) -> Ask {
    Ask { class, ..Ask::default() }
}

fn of(tenant: u32) -> Ask {
    Ask { tenant: Tenant(tenant), ..Ask::default() }
}

fn waits(pool: &mut Pool, ask: &Ask, at: Instant) -> TicketId {
    match pool.admit(ask, at) {
        Admission::Queued(ticket) => ticket,
        other => panic!("not queued: {other:?} {pool:?}"),
    }
}

/// A use of a slot of this length that ends now.
fn use_of(time: Duration, until: Instant, tenant: Tenant) -> Use {
    Use { since: until - time, until, outcome: Outcome::Answered, tenant }
}

#[test]
fn every_class_has_its_share_and_the_rest_goes_to_the_most_important() {
    let mut pool = pool(1, 1);
    granted(&mut pool);
    let mut classes = BTreeMap::new();
    for class in Class::ALL {
        for _ in 0..200 {
            classes.insert(waits(&mut pool, &ask(class), now()), class);
        }
    }
    let mut served = [0; Class::COUNT];
    for _ in 0..200 {
        let ticket = pool.release(ReplicaId(0), &used()).unwrap();
        served[classes[&ticket] as usize] += 1;
        pool.claim(ticket);
    }
    // A fifth, a twentieth, and the rest; a claim must be whole before it is served.
    assert!(served[1] >= 33 && served[2] >= 9 && served[0] >= 150, "{served:?}");
}

#[test]
fn a_full_queue_has_a_place_for_what_matters_more() {
    let mut pool = pool(1, 1);
    pool.set_limits(limits(1, Some(2)), now());
    granted(&mut pool);
    let older = waits(&mut pool, &ask(Class::Sheddable), now());
    let newer = waits(&mut pool, &ask(Class::Sheddable), now());
    let ordinary = waits(&mut pool, &ask(Class::Default), now());
    assert_eq!(pool.take_turned_away(), [newer], "the newest of the least important class");
    assert_eq!(pool.verdict(newer), Some(Denial::GaveWay(Rival::MoreImportant { class: Class::Default })));
    assert_eq!(pool.claim(newer), None);
    let critical = waits(&mut pool, &ask(Class::Critical), now());
    assert_eq!(pool.take_turned_away(), [older]);
    assert!(matches!(pool.admit(&ask(Class::Default), now()), Admission::Refused(_, Denial::QueueFull)));
    assert_eq!(pool.cancel(older, now()), None, "it left before it was told");
    assert_eq!(pool.verdict(older), None);
    assert_eq!(pool.release(ReplicaId(0), &used()), Some(critical));
    pool.claim(critical);
    assert_eq!(pool.release(ReplicaId(0), &used()), Some(ordinary));
    let tally = pool.take_tally(now());
    assert_eq!((tally.arrivals, tally.rejected, tally.admitted), (6, 3, 3));
}

#[test]
fn a_deadline_is_looked_at_on_arrival_and_again_when_the_turn_comes() {
    let start = now();
    let mut pool = pool(1, 1);
    let until = |after: u64| Ask { deadline: Some(start + ms(after)), ..Ask::default() };
    // A service takes 100 ms.
    granted(&mut pool);
    pool.release(ReplicaId(0), &use_of(ms(100), start, Tenant::default()));
    assert!(matches!(pool.admit(&until(0), start), Admission::Refused(_, Denial::Hopeless)), "it has passed");
    let at_once = pool.admit(&until(50), start);
    assert!(matches!(at_once, Admission::Granted(..)), "only the model knows whether it is in time");
    assert!(matches!(pool.admit(&until(190), start), Admission::Refused(_, Denial::TooLate(Some(_)))));
    let first = waits(&mut pool, &until(210), start);
    let Admission::Refused(_, why) = pool.admit(&until(290), start) else { panic!("it would be too late") };
    let Some(Prospect { left, wait: Some(wait), answer }) = pool.prospect(why, &until(290), start) else {
        panic!("the times that led to it: {why:?}");
    };
    assert_eq!(left, ms(290));
    assert!(wait >= ms(150) && answer >= ms(90) && wait + answer > left, "{wait:?} {answer:?}");
    let second = waits(&mut pool, &until(310), start);
    let patient = waits(&mut pool, &Ask::default(), start);
    let later = start + ms(100);
    assert_eq!(pool.release(ReplicaId(0), &use_of(ms(100), later, Tenant::default())), Some(first));
    pool.claim(first);
    // That one took longer than projected: the second can no longer be answered in time.
    let late = start + ms(250);
    assert_eq!(pool.release(ReplicaId(0), &use_of(ms(150), late, Tenant::default())), Some(patient));
    assert_eq!(pool.take_turned_away(), [second]);
    assert_eq!(pool.verdict(second), Some(Denial::TooLate(None)));
    let tally = pool.take_tally(late);
    assert_eq!(
        (tally.arrivals, tally.rejected),
        (7, 3),
        "demand but for the one that no replica could have served"
    );
}

#[test]
fn who_comes_last_is_first_while_the_queue_stands_and_the_old_are_turned_away() {
    let mut pool = pool(1, 1);
    pool.set_queueing(Queueing { max_wait: ms(400), newest_first: true, fair_share: false });
    granted(&mut pool);
    let start = now();
    let mut came = BTreeMap::new();
    let mut waited = Vec::new();
    // Twice as many as can be served, 10 ms each, for two seconds.
    for turn in 0..400 {
        let at = start + ms(5) * turn;
        came.insert(waits(&mut pool, &Ask::default(), at), at);
        if turn % 2 == 1 {
            let ticket = pool.release(ReplicaId(0), &use_of(ms(10), at, Tenant::default())).unwrap();
            pool.claim(ticket);
            waited.push(at - came[&ticket]);
        }
    }
    let (begin, overloaded) = waited.split_at(100);
    assert!(begin[..15].is_sorted(), "first come, first served at the beginning: {begin:?}");
    assert!(overloaded.iter().all(|waited| *waited <= ms(20)), "{overloaded:?}");
    assert!(pool.load().queued <= 5, "an age limit of two services: {}", pool.load().queued);
    let turned_away = pool.take_turned_away();
    let is_told = |why| matches!(why, Some(Denial::TooOld(limit)) if limit.abs_diff(ms(20)) < ms(1));
    assert!(turned_away.iter().all(|ticket| is_told(pool.verdict(*ticket))));
}

/// Slot-seconds of two callers whose requests take this long each, while both always wait.
fn contend(pool: &mut Pool, times: [Duration; 2], uses: usize) -> [Duration; 2] {
    let mut at = now();
    let mut who = BTreeMap::new();
    let mut had = [Duration::ZERO; 2];
    granted(pool);
    for tenant in [0, 1, 0, 1] {
        who.insert(waits(pool, &of(tenant), at), tenant);
    }
    let mut running = use_of(ms(1), at, Tenant(9));
    for _ in 0..uses {
        let ticket = pool.release(ReplicaId(0), &running).unwrap();
        pool.claim(ticket);
        let tenant = who[&ticket];
        who.insert(waits(pool, &of(tenant), at), tenant);
        let time = times[tenant as usize];
        had[tenant as usize] += time;
        at += time;
        running = use_of(time, at, Tenant(tenant));
    }
    had
}

#[test]
fn callers_get_equal_slot_seconds_and_not_equal_requests() {
    let mut fair = pool(1, 1);
    fair.set_queueing(Queueing { fair_share: true, ..Queueing::default() });
    let [short, long] = contend(&mut fair, [ms(10), ms(100)], 1_000);
    let ratio = short.as_secs_f64() / long.as_secs_f64();
    assert!((0.97..1.03).contains(&ratio), "{short:?} {long:?}");
    let mut fifo = pool(1, 1);
    let [short, long] = contend(&mut fifo, [ms(10), ms(100)], 1_000);
    assert!(long > short * 9, "without it, requests are equal: {short:?} {long:?}");
}

#[test]
fn nobody_saves_up_shares_while_away() {
    let mut pool = pool(1, 1);
    pool.set_queueing(Queueing { fair_share: true, ..Queueing::default() });
    contend(&mut pool, [ms(10), ms(10)], 100);
    // A third one comes after a second in which it had nothing: its turns alternate with those of the others.
    let late: Vec<TicketId> = (0..20).map(|_| waits(&mut pool, &of(2), now())).collect();
    let mut turns = 0;
    for turn in 0..4 {
        let tenant = Tenant(if turn == 0 { 0 } else { 2 });
        let ticket = pool.release(ReplicaId(0), &use_of(ms(10), now(), tenant)).unwrap();
        pool.claim(ticket);
        turns += usize::from(late.contains(&ticket));
    }
    assert!((1..=2).contains(&turns), "{turns} of 4 turns in a row");
}

#[test]
fn fair_shares_can_be_switched_while_somebody_waits() {
    let mut pool = pool(1, 1);
    granted(&mut pool);
    let tickets: Vec<TicketId> = (0..3).map(|_| queued(&mut pool)).collect();
    pool.set_queueing(Queueing { fair_share: true, ..Queueing::default() });
    pool.cancel(tickets[1], now());
    assert_eq!(pool.release(ReplicaId(0), &used()), Some(tickets[0]));
    pool.claim(tickets[0]);
    pool.set_queueing(Queueing::default());
    assert_eq!(pool.release(ReplicaId(0), &used()), Some(tickets[2]));
}

#[test]
fn a_projected_wait_over_half_the_longest_calls_once_until_the_next_look() {
    let start = now();
    let mut pool = pool(1, 1);
    pool.set_queueing(Queueing { max_wait: ms(500), ..Queueing::default() });
    granted(&mut pool);
    pool.release(ReplicaId(0), &use_of(ms(100), start, Tenant::default()));
    granted(&mut pool);
    waits(&mut pool, &Ask::default(), start);
    waits(&mut pool, &Ask::default(), start);
    assert_eq!(pool.outlook(start).wait, Some(ms(300)));
    assert!(!pool.take_call(), "200 ms are projected");
    waits(&mut pool, &Ask::default(), start);
    assert!(pool.take_call(), "300 ms are projected");
    waits(&mut pool, &Ask::default(), start);
    assert!(!pool.take_call());
    pool.take_tally(start);
    waits(&mut pool, &Ask::default(), start);
    assert!(pool.take_call());
    pool.take_tally(start);
    pool.expect((0..8).map(|_| start + ms(100)).collect());
    waits(&mut pool, &Ask::default(), start);
    assert!(!pool.take_call(), "eight replicas start");
    assert_eq!(pool.expected(), [start + ms(100); 8]);
}

#[test]
fn the_tally_is_exact_over_every_change() {
    let start = now();
    let mut pool = pool(1, 2);
    granted(&mut pool);
    granted(&mut pool);
    let first = waits(&mut pool, &Ask::default(), start);
    waits(&mut pool, &Ask::default(), start);
    // Two run and two wait for 1 s; then one of the two runs on a replica that drains, for two.
    pool.drain(ReplicaId(1), start + ms(1_000));
    pool.set_limits(limits(2, None), start + ms(2_000));
    pool.claim(first);
    pool.cap(ReplicaId(0), Some(1), start + ms(2_500));
    pool.admit_replica(ReplicaId(1), start + ms(3_000));
    let tally = pool.take_tally(start + ms(4_000));
    let close = |one: f64, other: f64| assert!((one - other).abs() < 1e-9, "{tally:?}");
    close(tally.seconds, 4.0);
    close(tally.queued_time, 2.0 + 2.0 + 1.0);
    close(tally.busy_time, 2.0 + 1.0 + 2.0 + 4.0);
    close(tally.busy_draining_time, 2.0);
    assert_eq!((tally.arrivals, tally.admitted, tally.rejected), (4, 4, 0));
}

#[test]
fn a_slot_that_was_handed_over_and_not_used_costs_nothing() {
    let mut pool = pool(1, 1);
    pool.set_queueing(Queueing { fair_share: true, ..Queueing::default() });
    granted(&mut pool);
    let leaves = waits(&mut pool, &of(1), now());
    let [first, second] = [2, 1].map(|tenant| waits(&mut pool, &of(tenant), now()));
    assert_eq!(pool.release(ReplicaId(0), &use_of(ms(10), now(), Tenant(9))), Some(leaves));
    // Tags are equal again, and the lower key is first.
    assert_eq!(pool.cancel(leaves, now()), Some(second), "it was not charged for what it gave back");
    assert_eq!(pool.cancel(second, now()), Some(first));
}

#[test]
fn who_finds_the_queue_full_calls() {
    let start = now();
    let mut pool = Pool::new(Limits { slots: NonZeroU32::new(1), max_queue_length: Some(1) });
    pool.set_queueing(Queueing { max_wait: ms(60_000), ..Queueing::default() });
    pool.admit_replica(ReplicaId(0), start);
    granted(&mut pool);
    pool.release(ReplicaId(0), &use_of(ms(100), start, Tenant::default()));
    granted(&mut pool);
    waits(&mut pool, &Ask::default(), start);
    assert!(!pool.take_call());
    assert!(matches!(pool.admit(&Ask::default(), start), Admission::Refused(_, Denial::QueueFull)));
    assert!(pool.take_call());
}

#[test]
fn a_use_that_failed_at_once_says_nothing_of_the_service_time() {
    let start = now();
    let mut pool = pool(1, 1);
    for outcome in [Outcome::Answered, Outcome::Broken, Outcome::Unreachable] {
        granted(&mut pool);
        pool.release(ReplicaId(0), &Use { outcome, ..use_of(ms(100), start, Tenant::default()) });
    }
    let tally = pool.take_tally(start);
    assert_eq!((tally.completed, tally.service_sum), (1, 0.1));
}
