//! A waker that passes on only what happens while somebody waits.
//!
//! The halves of a hyper connection wake each other even when one task polls both, and even for what nobody waits for;
//! each such wake would poll the whole connection once more, which costs about as much as a tenth of a request.
//!
//! Nothing is lost. Everything that wakes a connection runs on its worker's thread, so a wake comes either within the
//! poll between `hush` and `listen`, where it is kept for `listen`, or after it, where it is passed on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// See the module.
#[derive(Debug)]
pub struct Nudge {
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Bell {
    task: Mutex<Option<Waker>>,
    listens: AtomicBool,
    missed: AtomicBool,
}

impl Nudge {
    /// Keeps wakes until the first `listen`.
    pub fn new() -> Self {
        let bell = Arc::new(Bell::default());
        Self { waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Forgets the wakes that were kept and keeps those to come; what is returned is for the poll that follows.
    #[must_use]
    pub fn hush(&self) -> Context<'_> {
        self.bell.listens.store(false, Ordering::Relaxed);
        self.bell.missed.store(false, Ordering::Relaxed);
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
        self.bell.listens.store(true, Ordering::Relaxed);
        if self.bell.missed.swap(false, Ordering::Relaxed) {
            cx.waker().wake_by_ref();
        }
    }

    /// Does something, and forgets its wakes if it says that nobody needs them.
    pub fn quietly<T>(&self, act: impl FnOnce() -> T, is_needless: impl FnOnce(&T) -> bool) -> T {
        let missed = self.bell.missed.load(Ordering::Relaxed);
        let outcome = act();
        if is_needless(&outcome) {
            self.bell.missed.store(missed, Ordering::Relaxed);
        }
        outcome
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
        if self.listens.load(Ordering::Relaxed) {
            // Cloned, because a wake may drop tasks and come back here.
            let task = self.task().clone();
            if let Some(task) = task {
                task.wake();
            }
        } else {
            self.missed.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

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
}
