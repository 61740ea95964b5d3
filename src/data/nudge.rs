//! A waker that passes on only what happens while somebody waits.
//!
//! The halves of a hyper connection wake each other even when one task polls both, and even for what nobody waits for;
//! each such wake would poll the whole connection once more, which costs about as much as a tenth of a request.
//!
//! Nothing is lost. A wake within the poll between `hush` and `listen` is kept for `listen`; one after it is passed on,
//! whatever thread it comes from: a slot is often given by another worker. Only wakes that come from within `quietly`, on
//! the same thread, can be forgotten.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// Nobody listens, and nothing came.
const HUSHED: u8 = 0;
/// Nobody listens, and something came.
const MISSED: u8 = 1;
/// The task is woken.
const LISTENING: u8 = 2;

thread_local! {
    /// Whose wakes from this thread `quietly` holds back.
    static QUIET: Cell<*const Bell> = const { Cell::new(ptr::null()) };
    /// Whether it has held one back.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// See the module.
#[derive(Debug)]
pub struct Nudge {
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Bell {
    task: Mutex<Option<Waker>>,
    state: AtomicU8,
}

impl Nudge {
    /// Keeps wakes until the first `listen`.
    pub fn new() -> Self {
        let bell = Arc::new(Bell::default());
        Self { waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Keeps the wakes to come; what is returned is for the poll that follows. What came since the last `listen` was passed
    /// on; what came since the last `hush` is forgotten, so that only what polls everything anyway may hush twice.
    #[must_use]
    pub fn hush(&self) -> Context<'_> {
        self.bell.state.store(HUSHED, Ordering::Release);
        Context::from_waker(&self.waker)
    }

    /// From now on, and for what was kept, wakes reach this task.
    pub fn listen(&self, cx: &Context<'_>) {
        let mut task = self.bell.task();
        match &mut *task {
            Some(task) => task.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        drop(task);
        if self.bell.state.swap(LISTENING, Ordering::AcqRel) == MISSED {
            cx.waker().wake_by_ref();
        }
    }

    /// Wakes whoever listens.
    pub fn ring(&self) {
        self.waker.wake_by_ref();
    }

    /// Does something, and forgets the wakes that it gave itself if it says that nobody needs them.
    pub fn quietly<T>(&self, act: impl FnOnce() -> T, is_needless: impl FnOnce(&T) -> bool) -> T {
        let quiet = Quiet { bell: QUIET.replace(Arc::as_ptr(&self.bell)), held: HELD.replace(false) };
        let outcome = act();
        let held = HELD.get();
        drop(quiet);
        if held && !is_needless(&outcome) {
            self.ring();
        }
        outcome
    }
}

/// What was quiet before, restored also after a panic.
struct Quiet {
    bell: *const Bell,
    held: bool,
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(self.bell);
        HELD.set(self.held);
    }
}

impl Default for Nudge {
    fn default() -> Self {
        Self::new()
    }
}

impl Bell {
    fn task(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if ptr::eq(QUIET.get(), Arc::as_ptr(self)) {
            HELD.set(true);
            return;
        }
        let kept = self.state.compare_exchange(HUSHED, MISSED, Ordering::AcqRel, Ordering::Acquire);
        if kept == Err(LISTENING) {
            // Cloned, because a wake may drop tasks and come back here.
            let task = self.task().clone();
            if let Some(task) = task {
                task.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counting() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn a_wake_within_the_poll_is_kept_and_one_after_it_is_passed_on() {
        let (count, waker) = counting();
        let wakes = || count.0.load(Ordering::Relaxed);
        let nudge = Nudge::new();
        let inner = nudge.hush().waker().clone();
        inner.wake_by_ref();
        inner.wake_by_ref();
        assert_eq!(wakes(), 0);
        nudge.listen(&Context::from_waker(&waker));
        assert_eq!(wakes(), 1);
        inner.wake_by_ref();
        assert_eq!(wakes(), 2);
        let _ = nudge.hush();
        nudge.listen(&Context::from_waker(&waker));
        assert_eq!(wakes(), 2, "nothing happened since");
    }

    #[test]
    fn needless_wakes_are_forgotten_and_no_others() {
        let (count, waker) = counting();
        let nudge = Nudge::new();
        let inner = nudge.hush().waker().clone();
        nudge.quietly(|| inner.wake_by_ref(), |()| true);
        nudge.listen(&Context::from_waker(&waker));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        let _ = nudge.hush();
        inner.wake_by_ref();
        nudge.quietly(|| inner.wake_by_ref(), |()| true);
        nudge.listen(&Context::from_waker(&waker));
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "the first one was before");
        let _ = nudge.hush();
        nudge.quietly(|| inner.wake_by_ref(), |()| false);
        nudge.listen(&Context::from_waker(&waker));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_wake_from_another_thread_is_never_lost() {
        const ROUNDS: usize = 50_000;
        let (count, waker) = counting();
        let nudge = Nudge::new();
        let inner = nudge.hush().waker().clone();
        let (go, wakes) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            while wakes.recv().is_ok() {
                inner.wake_by_ref();
            }
        });
        for round in 0..ROUNDS {
            let _ = nudge.hush();
            go.send(()).unwrap();
            // The other thread wakes at some moment of this.
            nudge.quietly(|| std::hint::black_box(round), |_| true);
            for _ in 0..round % 500 {
                std::hint::spin_loop();
            }
            nudge.listen(&Context::from_waker(&waker));
            let begin = std::time::Instant::now();
            while count.0.load(Ordering::Acquire) <= round {
                assert!(begin.elapsed() < std::time::Duration::from_secs(10), "lost in round {round}");
                std::thread::yield_now();
            }
        }
        drop(go);
        other.join().unwrap();
    }
}
