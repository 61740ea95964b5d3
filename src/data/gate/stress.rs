//! Many threads that ask, hold, hang up and lose replicas at random: no replica ever has two at once.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const THREADS: u64 = 6;
const REQUESTS: u32 = 15_000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits until the answer is there, or hangs up after `polls`.
fn wait(mut acquire: Acquire, polls: Option<u32>) -> Option<Result<Permit, Refusal>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut polled = 0;
    loop {
        match Pin::new(&mut acquire).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return Some(answer),
            Poll::Pending if polls == Some(polled) => return None,
            Poll::Pending => polled += 1,
        }
        if polls.is_none() {
            thread::park();
        } else {
            thread::yield_now();
        }
    }
}

fn requests(gate: &Arc<Gate>, seed: u64, in_use: &[AtomicBool], served: &AtomicUsize) {
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..REQUESTS {
        let max_wait = if random.random_bool(0.1) { Duration::ZERO } else { Duration::MAX };
        let polls = random.random_bool(0.4).then(|| random.random_range(0..3));
        let mut answer = wait(gate.acquire(Instant::now(), max_wait, Ask::default()), polls);
        if random.random_bool(0.01)
            && let Some(Ok(permit)) = answer
        {
            answer = wait(permit.suspect(), polls);
        }
        let Some(Ok(permit)) = answer else { continue };
        let in_use = &in_use[usize::try_from(permit.target().id.0).unwrap()];
        assert!(!in_use.swap(true, Ordering::AcqRel), "two requests at once on a replica with one slot");
        if random.random_bool(0.3) {
            thread::yield_now();
        }
        served.fetch_add(1, Ordering::Relaxed);
        in_use.store(false, Ordering::Release);
    }
}

#[test]
fn a_replica_with_one_slot_never_has_two_requests() {
    let gate = Gate::new(Limits { slots: NonZeroU32::new(1), max_queue_length: None });
    let targets: Vec<_> = (0..2).map(tests::target).collect();
    let in_use = [AtomicBool::new(false), AtomicBool::new(false)];
    let served = AtomicUsize::new(0);
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|seed| {
                scope.spawn({
                    let (gate, in_use, served) = (&gate, &in_use, &served);
                    move || requests(gate, seed, in_use, served)
                })
            })
            .collect();
        // The control plane: drains one or the other, and takes suspects and drained ones back.
        let control = scope.spawn(|| {
            for turn in 0.. {
                if !running.load(Ordering::Acquire) {
                    break;
                }
                gate.drain(targets[turn % 2].id);
                gate.take_suspects();
                thread::yield_now();
                targets.iter().for_each(|target| gate.admit(target));
                thread::yield_now();
            }
        });
        let ends: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        running.store(false, Ordering::Release);
        control.join().unwrap();
        assert!(ends.iter().all(Result::is_ok), "a worker failed");
    });
    assert!(served.into_inner() > 1_000, "most requests are served");
    targets.iter().for_each(|target| gate.admit(target));
    assert_eq!(gate.load(), Load { ready: 2, slots: Some(2), ..Load::default() }, "nothing is left behind");
    assert!(gate.lock().wakers.is_empty());
}
