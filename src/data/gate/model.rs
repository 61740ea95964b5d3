//! Model check of the gate with loom: every order of two or three threads, by `.ci/model`, in seconds.
//!
//! A lost wake-up shows as a deadlock, which loom reports. A wait without an end needs no timer; a wait of zero
//! is over at the first poll and so races a release with the end of a wait.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::*;
use crate::core::admission::Class;

fn target(id: u64) -> Arc<Target> {
    Arc::new(Target {
        id: ReplicaId(id),
        name: "blue".into(),
        authority: Authority { host: "127.0.0.1".into(), port: 9 },
        host: http::HeaderValue::from_static("127.0.0.1:9"),
    })
}

fn gate(replicas: u64) -> Arc<Gate> {
    let gate = Gate::new(Limits { slots: NonZeroU32::new(1), max_queue_length: None });
    (1..=replicas).for_each(|id| gate.admit(&target(id)));
    gate
}

fn poll_once(acquire: &mut Acquire) -> Poll<Result<Permit, Refusal>> {
    Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits for as long as it takes.
fn permit(gate: &Arc<Gate>) -> Permit {
    block_on(gate.acquire(Instant::now(), Duration::MAX, Ask::default()))
        .expect("no longest wait, no longest queue")
}

fn held(gate: &Arc<Gate>) -> Permit {
    match poll_once(&mut gate.acquire(Instant::now(), Duration::MAX, Ask::default())) {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("no permit: {other:?}"),
    }
}

fn assert_empty(gate: &Gate) {
    let load = gate.load();
    assert_eq!((load.busy, load.busy_draining, load.queued), (0, 0, 0), "{load:?}");
    assert!(gate.lock().wakers.is_empty(), "no waker is left behind");
}

#[test]
fn a_ticket_that_is_dropped_passes_the_slot_on() {
    loom::model(|| {
        let gate = gate(1);
        let first = held(&gate);
        let leaves = thread::spawn({
            let gate = Arc::clone(&gate);
            move || drop(poll_once(&mut gate.acquire(Instant::now(), Duration::MAX, Ask::default())))
        });
        let stays = thread::spawn({
            let gate = Arc::clone(&gate);
            move || drop(permit(&gate))
        });
        drop(first);
        leaves.join().unwrap();
        stays.join().unwrap();
        assert_empty(&gate);
    });
}

#[test]
fn two_that_wait_get_the_slot_one_after_the_other() {
    loom::model(|| {
        let gate = gate(1);
        let in_use = Arc::new(AtomicUsize::new(1));
        let first = held(&gate);
        let waits = || {
            let (gate, in_use) = (Arc::clone(&gate), Arc::clone(&in_use));
            thread::spawn(move || {
                let permit = permit(&gate);
                assert_eq!(in_use.fetch_add(1, Ordering::AcqRel), 0, "two at once on one slot");
                in_use.fetch_sub(1, Ordering::AcqRel);
                drop(permit);
            })
        };
        let (one, two) = (waits(), waits());
        in_use.fetch_sub(1, Ordering::AcqRel);
        drop(first);
        one.join().unwrap();
        two.join().unwrap();
        assert_empty(&gate);
    });
}

#[test]
fn a_new_replica_is_never_missed() {
    loom::model(|| {
        let gate = gate(0);
        let waits = || {
            let gate = Arc::clone(&gate);
            thread::spawn(move || drop(permit(&gate)))
        };
        let (one, two) = (waits(), waits());
        gate.admit(&target(1));
        one.join().unwrap();
        two.join().unwrap();
        assert_empty(&gate);
    });
}

#[test]
fn the_end_of_a_wait_races_a_release() {
    loom::model(|| {
        let gate = gate(1);
        let first = held(&gate);
        let gives_up = thread::spawn({
            let gate = Arc::clone(&gate);
            move || match poll_once(&mut gate.acquire(Instant::now(), Duration::ZERO, Ask::default())) {
                Poll::Ready(Ok(permit)) => drop(permit),
                Poll::Ready(Err(refusal)) => assert_eq!(refusal.why, Denial::WaitedTooLong),
                Poll::Pending => panic!("it waits although it may not"),
            }
        });
        let stays = thread::spawn({
            let gate = Arc::clone(&gate);
            move || drop(permit(&gate))
        });
        drop(first);
        gives_up.join().unwrap();
        stays.join().unwrap();
        assert_empty(&gate);
    });
}

#[test]
fn a_grant_on_a_replica_that_is_removed_is_not_lost() {
    loom::model(|| {
        let gate = gate(1);
        let first = held(&gate);
        let waits = thread::spawn({
            let gate = Arc::clone(&gate);
            move || drop(permit(&gate))
        });
        drop(first);
        gate.remove(ReplicaId(1));
        gate.admit(&target(2));
        waits.join().unwrap();
        assert_empty(&gate);
    });
}

#[test]
fn a_suspect_gets_the_slot_of_a_replica_that_is_admitted() {
    loom::model(|| {
        let gate = gate(1);
        let dead = held(&gate);
        let again = thread::spawn(move || drop(block_on(dead.suspect()).expect("waits until it is served")));
        let waits = thread::spawn({
            let gate = Arc::clone(&gate);
            move || drop(permit(&gate))
        });
        gate.admit(&target(2));
        again.join().unwrap();
        waits.join().unwrap();
        assert_eq!(gate.take_suspects(), [ReplicaId(1)]);
        assert_empty(&gate);
    });
}

#[test]
fn one_that_gives_way_is_told_and_nobody_is_lost() {
    loom::model(|| {
        let gate = gate(1);
        gate.set_limits(Limits { slots: NonZeroU32::new(1), max_queue_length: Some(1) });
        let first = held(&gate);
        let waits = |class| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || {
                let ask = Ask { class, ..Ask::default() };
                block_on(gate.acquire(Instant::now(), Duration::MAX, ask)).map(drop).map_err(|no| no.why)
            })
        };
        let (critical, sheddable) = (waits(Class::Critical), waits(Class::Sheddable));
        drop(first);
        let refused = sheddable.join().unwrap().err();
        assert!(matches!(refused, None | Some(Denial::GaveWay(_) | Denial::QueueFull)), "{refused:?}");
        assert_eq!(critical.join().unwrap(), Ok(()));
        assert_empty(&gate);
    });
}
