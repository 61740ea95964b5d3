//! The promises of the gate, with a clock that stands still until it is told to move.

use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::core::admission::{Class, Mark, Rival};

const WAIT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::MAX;

fn limits(slots: u32, max_queue_length: Option<u32>) -> Limits {
    Limits { slots: NonZeroU32::new(slots), max_queue_length }
}

pub(super) fn target(id: u64) -> Arc<Target> {
    Arc::new(Target {
        id: ReplicaId(id),
        name: format!("blue-{id}").into(),
        authority: Authority { host: "127.0.0.1".into(), port: 9 },
        host: http::HeaderValue::from_static("127.0.0.1:9"),
    })
}

fn gate(slots: u32, replicas: u64) -> Arc<Gate> {
    let gate = Gate::new(limits(slots, None));
    (0..replicas).for_each(|id| gate.admit(&target(id)));
    gate
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Counts how often a waiter is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request that waits, with its bell.
struct Waiter {
    acquire: Acquire,
    bell: Arc<Bell>,
}

impl Waiter {
    fn new(gate: &Arc<Gate>, max_wait: Duration) -> Self {
        let mut waiter =
            Self { acquire: gate.acquire(now(), max_wait, Ask::default()), bell: Arc::default() };
        assert!(!waiter.acquire.is_queued());
        assert!(waiter.poll().is_pending());
        assert!(waiter.acquire.is_queued());
        waiter
    }

    fn poll(&mut self) -> Poll<Result<Permit, Refusal>> {
        let waker = Waker::from(Arc::clone(&self.bell));
        Pin::new(&mut self.acquire).poll(&mut Context::from_waker(&waker))
    }

    fn permit(&mut self) -> Permit {
        match self.poll() {
            Poll::Ready(Ok(permit)) => permit,
            other => panic!("no permit: {other:?}"),
        }
    }
}

fn held(gate: &Arc<Gate>) -> Permit {
    held_for(gate, Duration::ZERO)
}

fn held_for(gate: &Arc<Gate>, max_wait: Duration) -> Permit {
    let mut acquire = gate.acquire(now(), max_wait, Ask::default());
    match Pin::new(&mut acquire).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("no permit: {other:?}"),
    }
}

/// Whether the control plane has been called since the last time.
fn called(gate: &Gate) -> bool {
    pin!(gate.events().notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn assert_empty(gate: &Gate) {
    let load = gate.load();
    assert_eq!((load.busy, load.busy_draining, load.queued), (0, 0, 0), "{load:?}");
    assert!(gate.lock().wakers.is_empty(), "no waker is left behind");
}

#[test]
fn guards_cross_threads() {
    fn crosses<T: Send + 'static>() {}
    crosses::<Permit>();
    crosses::<Acquire>();
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_is_taken_at_once_and_released_by_drop() {
    let gate = gate(1, 1);
    let permit = gate.acquire(now(), WAIT, Ask::default()).await.unwrap();
    assert_eq!(&*permit.target().name, "blue-0");
    assert_eq!(gate.busy(ReplicaId(0)), 1);
    drop(permit);
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_is_kept_to_the_millisecond() {
    let gate = gate(1, 1);
    let _permit = held(&gate);
    let start = tokio::time::Instant::now();
    assert_eq!(gate.acquire(now(), WAIT, Ask::default()).await.unwrap_err().why, Denial::WaitedTooLong);
    let waited = tokio::time::Instant::now() - start;
    assert!(waited >= WAIT && waited <= WAIT + Duration::from_millis(1), "{waited:?}");
    assert_eq!(gate.load().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_counts_from_the_given_moment() {
    let gate = gate(1, 1);
    let _permit = held(&gate);
    let arrived = now();
    tokio::time::advance(Duration::from_millis(400)).await;
    assert_eq!(gate.acquire(arrived, WAIT, Ask::default()).await.unwrap_err().why, Denial::WaitedTooLong);
    assert!(now() - arrived < WAIT + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn without_a_replica_the_refusal_says_so() {
    let gate = gate(1, 0);
    assert_eq!(gate.acquire(now(), WAIT, Ask::default()).await.unwrap_err().why, Denial::NoReadyReplica);
    gate.admit(&target(1));
    let _permit = held(&gate);
    let waits = Waiter::new(&gate, WAIT);
    gate.drain(ReplicaId(1));
    assert_eq!(waits.acquire.await.unwrap_err().why, Denial::NoReadyReplica, "what counts is the end");
    assert_eq!(gate.load().queued, 0);
}

#[test]
fn a_request_without_a_place_calls_control_as_one_that_waits_does() {
    let gate = Gate::new(limits(1, Some(0)));
    let mut asks = pin!(gate.acquire(now(), WAIT, Ask::default()));
    let answer = asks.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(answer, Poll::Ready(Err(Refusal { why: Denial::QueueFull, .. }))), "{answer:?}");
    assert!(called(&gate), "nobody else might come");
}

#[test]
fn no_wait_is_refused_at_once_without_a_timer() {
    // No runtime here: a timer would panic.
    let gate = gate(1, 1);
    let permit = held(&gate);
    let mut acquire = gate.acquire(Instant::now(), Duration::ZERO, Ask::default());
    let mut cx = Context::from_waker(Waker::noop());
    let answer = Pin::new(&mut acquire).poll(&mut cx);
    assert!(matches!(answer, Poll::Ready(Err(Refusal { why: Denial::WaitedTooLong, .. }))), "{answer:?}");
    drop(permit);
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let gate = gate(1, 1);
    gate.set_limits(limits(1, Some(1)));
    let _permit = held(&gate);
    let waits = Waiter::new(&gate, WAIT);
    assert_eq!(gate.acquire(now(), WAIT, Ask::default()).await.unwrap_err().why, Denial::QueueFull);
    drop(waits);
    assert_eq!(gate.acquire(now(), WAIT, Ask::default()).await.unwrap_err().why, Denial::WaitedTooLong);
}

fn waiting_for(gate: &Arc<Gate>, ask: Ask) -> Waiter {
    let mut waiter = Waiter { acquire: gate.acquire(now(), WAIT, ask), bell: Arc::default() };
    assert!(waiter.poll().is_pending());
    waiter
}

#[tokio::test(start_paused = true)]
async fn who_gives_way_is_woken_and_told_when_to_come_back() {
    let gate = gate(1, 1);
    gate.set_limits(limits(1, Some(1)));
    let permit = held(&gate);
    tokio::time::advance(Duration::from_millis(200)).await;
    drop(permit);
    let permit = held(&gate);
    let mark = Mark { id: 7, ..Mark::default() };
    let mut gives_way = waiting_for(&gate, Ask { class: Class::Sheddable, mark, ..Ask::default() });
    let mut stays = waiting_for(&gate, Ask { class: Class::Critical, ..Ask::default() });
    assert_eq!((gives_way.bell.rung(), stays.bell.rung()), (1, 0));
    let Poll::Ready(Err(refusal)) = gives_way.poll() else { panic!("it waits on") };
    assert_eq!(refusal.why, Denial::GaveWay(Rival::MoreImportant { class: Class::Critical }));
    // The one that waits now, and itself: two services.
    assert_eq!(refusal.retry, Retry { wait: Duration::from_millis(400), seconds: 1 });
    drop(permit);
    let permit = stays.permit();
    // It comes back in time, and a newer one gives way to it.
    tokio::time::advance(refusal.retry.wait).await;
    let mut newer = waiting_for(&gate, Ask { class: Class::Sheddable, ..Ask::default() });
    let mut back = waiting_for(&gate, Ask { class: Class::Sheddable, mark, ..Ask::default() });
    let Poll::Ready(Err(refusal)) = newer.poll() else { panic!("it waits on") };
    assert_eq!(refusal.why, Denial::GaveWay(Rival::Promised));
    drop(permit);
    drop(back.permit());
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_it_is_told_leaves_nothing_behind() {
    let gate = gate(1, 1);
    gate.set_limits(limits(1, Some(1)));
    let permit = held(&gate);
    let gives_way = waiting_for(&gate, Ask { class: Class::Sheddable, ..Ask::default() });
    let mut stays = waiting_for(&gate, Ask::default());
    drop(gives_way);
    drop(permit);
    drop(stays.permit());
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_cannot_be_met_any_more_ends_the_wait_at_once() {
    let gate = gate(1, 1);
    let mut permit = held(&gate);
    tokio::time::advance(Duration::from_millis(100)).await;
    permit.outcome(Outcome::Answered);
    drop(permit);
    let permit = held(&gate);
    let deadline = Some(now() + Duration::from_millis(250));
    let mut hurried = waiting_for(&gate, Ask { deadline, ..Ask::default() });
    let mut patient = waiting_for(&gate, Ask::default());
    tokio::time::advance(Duration::from_millis(145)).await;
    assert!(hurried.poll().is_pending(), "an answer takes 100 ms");
    tokio::time::advance(Duration::from_millis(10)).await;
    assert_eq!(hurried.bell.rung(), 1);
    let Poll::Ready(Err(refusal)) = hurried.poll() else { panic!("it waits on") };
    assert_eq!((refusal.why, gate.load().queued), (Denial::TooLate(None), 1));
    let prospect = refusal.prospect.expect("the times that led to it");
    assert!(prospect.left <= prospect.answer && prospect.wait.is_none(), "{prospect:?}");
    drop(permit);
    drop(patient.permit());
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_freed_slot_wakes_the_oldest_waiter_and_nobody_else() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    let mut waiters: Vec<Waiter> = (0..3).map(|_| Waiter::new(&gate, WAIT)).collect();
    drop(permit);
    for turn in 0..3 {
        let rung: Vec<usize> = waiters.iter().map(|waiter| waiter.bell.rung()).collect();
        assert_eq!(rung, [1, usize::from(turn > 0), usize::from(turn > 1)]);
        drop(waiters[turn].permit());
    }
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_new_request_does_not_overtake_a_granted_waiter() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    let mut first = Waiter::new(&gate, LONG);
    drop(permit);
    let mut second = Waiter::new(&gate, LONG);
    drop(first.permit());
    drop(second.permit());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_gives_up_its_ticket() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    let first = Waiter::new(&gate, WAIT);
    let mut second = Waiter::new(&gate, WAIT);
    let bell = Arc::clone(&first.bell);
    drop(first);
    assert_eq!(gate.load().queued, 1);
    drop(permit);
    assert_eq!((bell.rung(), second.bell.rung()), (0, 1));
    drop(second.permit());
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_after_the_grant_passes_the_slot_on() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    let first = Waiter::new(&gate, WAIT);
    let mut second = Waiter::new(&gate, WAIT);
    drop(permit);
    assert_eq!((first.bell.rung(), second.bell.rung()), (1, 0));
    drop(first);
    assert_eq!(second.bell.rung(), 1);
    drop(second.permit());
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_grant_wins_over_the_end_of_the_wait() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    let mut waits = Waiter::new(&gate, WAIT);
    drop(permit);
    tokio::time::advance(WAIT * 2).await;
    drop(waits.permit());
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn the_waker_of_the_last_poll_is_woken() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    let mut waits = Waiter::new(&gate, WAIT);
    let old = std::mem::take(&mut waits.bell);
    assert!(waits.poll().is_pending());
    assert_eq!(Arc::strong_count(&old), 1, "the old waker is not kept");
    drop(permit);
    assert_eq!((old.rung(), waits.bell.rung()), (0, 1));
}

/// A waker whose drop ends another request of the same gate, as the drop of a task may.
struct LastHold(#[expect(dead_code, reason = "held for its drop")] Waiter);

impl Wake for LastHold {
    fn wake(self: Arc<Self>) {}
}

#[tokio::test(start_paused = true)]
async fn wakers_are_dropped_after_unlocking() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    // Without an end: a timer would hold the waker too.
    let mut acquire = gate.acquire(now(), LONG, Ask::default());
    for _ in 0..2 {
        let waker = Waker::from(Arc::new(LastHold(Waiter::new(&gate, WAIT))));
        assert!(Pin::new(&mut acquire).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(acquire);
    drop(permit);
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_becomes_ready_serves_the_queue_at_once() {
    let gate = gate(2, 0);
    let mut waiters: Vec<Waiter> = (0..3).map(|_| Waiter::new(&gate, WAIT)).collect();
    assert!(called(&gate), "somebody waits and no replica admits");
    gate.admit(&target(1));
    let rung: Vec<usize> = waiters.iter().map(|waiter| waiter.bell.rung()).collect();
    assert_eq!(rung, [1, 1, 0]);
    let _first = waiters[0].permit();
    let _second = waiters[1].permit();
    assert!(waiters[2].poll().is_pending());
    assert!(!called(&gate));
}

#[tokio::test(start_paused = true)]
async fn a_draining_replica_admits_nothing_calls_when_empty_and_can_come_back() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    gate.drain(ReplicaId(0));
    let mut waits = Waiter::new(&gate, WAIT);
    assert!(called(&gate), "somebody waits and no replica admits");
    drop(permit);
    assert_eq!(waits.bell.rung(), 0);
    assert!(called(&gate), "drained");
    gate.admit(&target(0));
    assert_eq!(waits.bell.rung(), 1);
    drop(waits.permit());
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_removed_replica_hands_nothing_on() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    let waits = Waiter::new(&gate, WAIT);
    gate.remove(ReplicaId(0));
    assert_eq!(gate.load().busy_draining, 1);
    drop(permit);
    assert_eq!(waits.bell.rung(), 0);
    assert_eq!(gate.load(), Load { queued: 1, slots: Some(0), ..Load::default() });
    gate.drain(ReplicaId(0));
    assert_eq!(gate.busy(ReplicaId(0)), 0, "unknown by now");
}

#[tokio::test(start_paused = true)]
async fn a_grant_on_a_replica_that_is_removed_moves_to_another() {
    let gate = gate(1, 1);
    let permit = held(&gate);
    let mut waits = Waiter::new(&gate, WAIT);
    drop(permit);
    gate.remove(ReplicaId(0));
    assert!(waits.poll().is_pending());
    gate.admit(&target(1));
    assert_eq!(waits.bell.rung(), 2);
    assert_eq!(waits.permit().target().id, ReplicaId(1));
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn other_limits_apply_at_once() {
    let gate = gate(1, 1);
    let first = held(&gate);
    let mut waiters: Vec<Waiter> = (0..3).map(|_| Waiter::new(&gate, WAIT)).collect();
    gate.set_limits(limits(3, None));
    let rung: Vec<usize> = waiters.iter().map(|waiter| waiter.bell.rung()).collect();
    assert_eq!(rung, [1, 1, 0]);
    let (second, third) = (waiters[0].permit(), waiters[1].permit());
    gate.set_limits(limits(1, None));
    drop(first);
    drop(second);
    assert_eq!(waiters[2].bell.rung(), 0, "a shrink is waited out");
    drop(third);
    assert_eq!(waiters[2].bell.rung(), 1);
    gate.set_limits(limits(0, None));
    let _unlimited: Vec<Permit> = (0..100).map(|_| held(&gate)).collect();
    assert_eq!(gate.load().busy, 101);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_is_reported_and_the_request_keeps_its_place_and_its_wait() {
    let gate = gate(1, 2);
    let start = now();
    let dead = held_for(&gate, WAIT);
    let alive = held(&gate);
    let mut later = Waiter::new(&gate, LONG);
    tokio::time::advance(Duration::from_millis(300)).await;

    let id = dead.target().id;
    let mut again = Waiter { acquire: dead.suspect(), bell: Arc::default() };
    assert!(again.acquire.is_queued() && again.poll().is_pending());
    assert!(called(&gate));
    assert_eq!(gate.take_suspects(), [id]);
    assert_eq!(gate.take_suspects(), []);
    assert_eq!(gate.load(), Load { ready: 1, busy: 1, slots: Some(1), queued: 2, ..Load::default() });

    drop(alive);
    assert_eq!((again.bell.rung(), later.bell.rung()), (1, 0), "its place is the older one");
    let alive = again.permit();
    assert!(later.poll().is_pending());

    let last = alive.suspect();
    assert_eq!(last.await.unwrap_err().why, Denial::NoReadyReplica);
    let waited = now() - start;
    assert!(
        waited >= WAIT && waited <= WAIT + Duration::from_millis(1),
        "the wait is the old one: {waited:?}"
    );
    gate.admit(&target(0));
    drop(later.permit());
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_takes_a_free_slot_elsewhere_even_when_its_wait_is_over() {
    let gate = gate(1, 2);
    let dead = held(&gate);
    let id = dead.target().id;
    let permit = dead.suspect().await.unwrap();
    assert_ne!(permit.target().id, id);
    drop(permit);
    assert_empty(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_was_removed_is_not_reported() {
    let gate = gate(2, 1);
    let (one, two) = (held(&gate), held(&gate));
    drop(one.suspect());
    gate.remove(ReplicaId(0));
    drop(two.suspect());
    assert_eq!(gate.take_suspects(), []);
    assert_eq!(gate.load(), Load { slots: Some(0), ..Load::default() });
}

#[tokio::test(start_paused = true)]
async fn a_second_copy_learns_that_somebody_waits_and_leaves_no_trace() {
    let gate = gate(1, 1);
    let _held = gate.acquire(now(), LONG, Ask::default()).await.unwrap();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut cx = Context::from_waker(&waker);
    let [mut gone, mut copy] = [(); 2].map(|()| Box::pin(gate.wanted()));
    for wanted in [&mut gone, &mut copy] {
        assert!(wanted.as_mut().poll(&mut cx).is_pending());
        assert!(wanted.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(gate.lock().copies.len(), 2);
    drop(gone);
    let mut waits = pin!(gate.acquire(now(), LONG, Ask::default()));
    assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(bell.0.load(Ordering::Relaxed), 1, "only the one that is left");
    assert!(copy.as_mut().poll(&mut cx).is_ready());
    drop(copy);
    assert!(gate.lock().copies.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replica_may_be_at_work_on_what_was_given_up_until_its_time_is_up() {
    let gate = gate(3, 1);
    let id = ReplicaId(0);
    let time = Duration::from_secs(60);
    let [mut left, mut late, mut answered] = [(); 3].map(|()| held(&gate));
    late.outcome(Outcome::TimedOut);
    late.give_up(now() + time);
    assert!(gate.is_working(id), "for those who wait for the others");
    left.give_up(now() + time);
    drop(answered);
    assert!(gate.is_working(id), "a client that has left does not stop it");
    tokio::time::advance(time - Duration::from_millis(1)).await;
    assert!(gate.is_working(id));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!gate.is_working(id), "it had its time");
    answered = held(&gate);
    assert!(gate.is_working(id));
    answered.outcome(Outcome::TimedOut);
    answered.give_up(now() + time);
    assert!(!gate.is_working(id), "a time-out excuses nothing");
    drop((left, late, answered));
    assert!(!gate.is_working(id) && gate.lock().given_up.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_reported_admits_nothing_and_the_request_keeps_its_place() {
    let gate = gate(2, 1);
    let permit = held_for(&gate, LONG);
    permit.report();
    assert_eq!((gate.load().ready, gate.busy(ReplicaId(0))), (0, 1));
    assert_eq!(gate.take_suspects(), [ReplicaId(0)]);
    tokio::time::timeout(WAIT, gate.events().notified()).await.expect("control is woken");
    let mut later = Waiter::new(&gate, LONG);
    let mut again = Waiter { acquire: permit.suspect(), bell: Arc::default() };
    assert!(again.poll().is_pending());
    gate.set_limits(limits(1, None));
    gate.admit(&target(0));
    let permit = again.permit();
    assert!(later.poll().is_pending(), "it came later");
    drop(permit);
    drop(later.permit());
    assert_empty(&gate);
}
