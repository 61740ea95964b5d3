//! The promises of the pool one by one.

use super::*;

mod floods;
mod model;
mod order;

/// The time does not matter to who is served.
fn now() -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *START
}

fn used() -> Use {
    Use { since: now(), until: now(), outcome: Outcome::Answered, tenant: Tenant::default() }
}

fn limits(slots: u32, max_queue_length: Option<u32>) -> Limits {
    Limits { slots: NonZeroU32::new(slots), max_queue_length }
}

fn pool(slots: u32, replicas: u64) -> Pool {
    let mut pool = Pool::new(limits(slots, None));
    for id in 0..replicas {
        assert_eq!(pool.admit_replica(ReplicaId(id), now()), []);
    }
    pool
}

fn granted(pool: &mut Pool) -> (TicketId, ReplicaId) {
    match pool.admit(&Ask::default(), now()) {
        Admission::Granted(ticket, replica) => (ticket, replica),
        other => panic!("no slot: {other:?} {pool:?}"),
    }
}

fn queued(pool: &mut Pool) -> TicketId {
    match pool.admit(&Ask::default(), now()) {
        Admission::Queued(ticket) => ticket,
        other => panic!("not queued: {other:?} {pool:?}"),
    }
}

#[test]
fn ties_take_turns() {
    let mut pool = pool(4, 3);
    let order: Vec<u64> = (0..6).map(|_| granted(&mut pool).1.0).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    let mut idle = self::pool(4, 3);
    let order: Vec<u64> = (0..4)
        .map(|_| {
            let (_, replica) = granted(&mut idle);
            idle.release(replica, &used());
            replica.0
        })
        .collect();
    assert_eq!(order, [0, 1, 2, 0], "one request at a time goes round too");
}

#[test]
fn the_least_busy_replica_is_taken() {
    let mut pool = pool(4, 3);
    let held: Vec<_> = (0..9).map(|_| granted(&mut pool).1).collect();
    let two: Vec<_> = held.iter().filter(|replica| replica.0 == 2).collect();
    pool.release(*two[0], &used());
    pool.release(*two[1], &used());
    assert_eq!((granted(&mut pool).1.0, granted(&mut pool).1.0), (2, 2));
}

#[test]
fn without_a_limit_only_a_missing_replica_makes_wait() {
    let mut pool = pool(0, 0);
    let first = queued(&mut pool);
    let second = queued(&mut pool);
    assert_eq!(pool.admit_replica(ReplicaId(7), now()), [first, second]);
    for _ in 0..1_000 {
        granted(&mut pool);
    }
    assert_eq!(pool.load().slots, None);
    assert_eq!(pool.load().busy, 1_002);
}

#[test]
fn the_queue_is_bounded() {
    let mut pool = pool(1, 1);
    pool.set_limits(limits(1, Some(2)), now());
    granted(&mut pool);
    let first = queued(&mut pool);
    queued(&mut pool);
    assert!(matches!(pool.admit(&Ask::default(), now()), Admission::Refused(_, Denial::QueueFull)));
    pool.cancel(first, now());
    queued(&mut pool);
    assert!(matches!(pool.admit(&Ask::default(), now()), Admission::Refused(_, Denial::QueueFull)));
}

#[test]
fn a_shrink_takes_nothing_away_and_is_honoured_by_releases() {
    let mut pool = pool(3, 1);
    let replica = ReplicaId(0);
    for _ in 0..3 {
        granted(&mut pool);
    }
    let waits = queued(&mut pool);
    assert_eq!(pool.set_limits(limits(1, None), now()), []);
    assert_eq!(pool.busy(replica), 3);
    assert_eq!((pool.release(replica, &used()), pool.release(replica, &used())), (None, None));
    assert_eq!(pool.release(replica, &used()), Some(waits));
    assert_eq!(pool.busy(replica), 1);
}

#[test]
fn a_draining_replica_calls_when_it_is_empty_and_only_then() {
    let mut pool = pool(2, 1);
    let (_, replica) = granted(&mut pool);
    granted(&mut pool);
    pool.drain(replica, now());
    assert!(!pool.take_call());
    pool.release(replica, &used());
    assert!(!pool.take_call());
    pool.release(replica, &used());
    assert!(pool.take_call());
    pool.drain(replica, now());
    assert!(!pool.take_call(), "draining twice is no news");
    queued(&mut pool);
    assert!(pool.take_call(), "somebody waits and no replica admits");
    queued(&mut pool);
    assert!(!pool.take_call(), "the first one has called");
}

#[test]
fn the_last_replica_that_stops_calls_when_somebody_waits() {
    let mut pool = pool(1, 2);
    granted(&mut pool);
    granted(&mut pool);
    queued(&mut pool);
    assert!(pool.take_call(), "somebody waits and nobody knows how long");
    pool.drain(ReplicaId(0), now());
    assert!(!pool.take_call(), "there is another one");
    pool.suspend(ReplicaId(1), now());
    assert!(pool.take_call());
}

#[test]
fn a_removed_replica_is_forgotten_with_its_last_permit() {
    let mut pool = pool(2, 1);
    let (_, replica) = granted(&mut pool);
    granted(&mut pool);
    let waits = queued(&mut pool);
    pool.remove(replica, now());
    assert_eq!(pool.release(replica, &used()), None, "its slots are not handed on");
    assert_eq!(pool.load().draining, 1);
    pool.release(replica, &used());
    assert_eq!(pool.load(), Load { queued: 1, slots: Some(0), ..Load::default() });
    assert_eq!(pool.admit_replica(ReplicaId(1), now()), [waits]);
}

#[test]
fn a_grant_that_was_not_claimed_leaves_a_replica_that_stops() {
    let mut pool = pool(1, 1);
    let (_, replica) = granted(&mut pool);
    let first = queued(&mut pool);
    let second = queued(&mut pool);
    assert_eq!(pool.release(replica, &used()), Some(first));
    assert_eq!(pool.remove(replica, now()), []);
    assert_eq!(pool.claim(first), None);
    assert_eq!(pool.admit_replica(ReplicaId(1), now()), [first], "before those who came later");
    assert_eq!(pool.cancel(first, now()), Some(second));
}

#[test]
fn a_suspect_loses_its_slots_and_the_request_keeps_its_place() {
    let mut pool = pool(1, 2);
    let (first, dead) = granted(&mut pool);
    let (_, alive) = granted(&mut pool);
    let later = queued(&mut pool);
    assert_eq!(pool.suspect(first, dead, &Ask::default(), now()), []);
    assert!(pool.take_call());
    assert_eq!(pool.release(alive, &used()), Some(first));
    assert_eq!(pool.admit_replica(dead, now()), [later]);
}
