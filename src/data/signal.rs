//! A signal inside one worker: given once, heard by every task that waits for it.
//!
//! A request listens to the end of the drain for as long as it runs. With a `tokio::sync::watch` that costs more than the
//! rest of its decisions; here it is a flag, and a place in a list once the request has to wait.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// A signal of one worker.
#[derive(Debug, Default)]
pub struct Signal {
    given: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

impl Signal {
    /// Not given yet.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Whether it was given.
    pub fn is_given(&self) -> bool {
        self.given.get()
    }

    /// Gives it, for good, and wakes all who wait.
    pub fn give(&self) {
        self.given.set(true);
        let mut waiting = self.waiting.take();
        waiting.drain().for_each(Waker::wake);
    }

    /// Someone who waits for it.
    pub fn listener(self: &Rc<Self>) -> Listener {
        Listener { signal: Rc::clone(self), place: None }
    }

    /// Runs a future until the signal is given; `None` when that comes first.
    pub async fn or<F: Future + Unpin>(self: &Rc<Self>, mut future: F) -> Option<F::Output> {
        let mut listener = self.listener();
        std::future::poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => listener.poll(cx).map(|()| None),
        })
        .await
    }
}

/// Waits for a signal.
#[derive(Debug)]
pub struct Listener {
    signal: Rc<Signal>,
    /// In the signal's list, while it is not given.
    place: Option<usize>,
}

impl Listener {
    /// Ready once the signal is given.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.signal.is_given() {
            return Poll::Ready(());
        }
        let mut waiting = self.signal.waiting.borrow_mut();
        match self.place.and_then(|place| waiting.get_mut(place)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.place = Some(waiting.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll(&mut self, cx)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        // Dropped after the borrow: the last handle of a task drops the task, and with it perhaps another listener.
        let waker = self.signal.waiting.borrow_mut().try_remove(place);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn everyone_who_waits_is_woken_once_and_nobody_else() {
        let signal = Signal::new();
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut listeners: Vec<Listener> = (0..3).map(|_| signal.listener()).collect();
        for listener in &mut listeners {
            assert!(listener.poll(&cx).is_pending());
            assert!(listener.poll(&cx).is_pending());
        }
        listeners.pop();
        signal.give();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        assert!(listeners.iter_mut().all(|listener| listener.poll(&cx).is_ready()));
        let mut cut = std::pin::pin!(signal.or(std::future::pending::<()>()));
        assert_eq!(cut.as_mut().poll(&mut cx), Poll::Ready(None));
        let mut done = std::pin::pin!(signal.or(std::future::ready(7)));
        assert_eq!(done.as_mut().poll(&mut cx), Poll::Ready(Some(7)));
    }

    #[test]
    fn who_stops_waiting_leaves_no_trace() {
        let signal = Signal::new();
        let mut listener = signal.listener();
        assert!(listener.poll(&Context::from_waker(Waker::noop())).is_pending());
        drop(listener);
        assert!(signal.waiting.borrow().is_empty());
    }
}
