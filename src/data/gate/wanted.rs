//! How second copies of requests learn that a first one has to wait.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::data::gate::Gate;

/// Ready when somebody waits for a slot of the gate.
#[derive(Debug)]
pub struct Wanted<'a> {
    gate: &'a Gate,
    /// In the gate's list, once it has been polled.
    place: Option<usize>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(gate: &'a Gate) -> Self {
        Self { gate, place: None }
    }
}

impl Future for Wanted<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.gate.lock();
        if state.pool.load().queued > 0 {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let (place, old) = match self.place {
            Some(place) => (place, Some(mem::replace(&mut state.copies[place], waker))),
            None => (state.copies.insert(waker), None),
        };
        // Before the waker is dropped: that can drop a task and with it a permit of this gate.
        drop(state);
        drop(old);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let old = self.gate.lock().copies.remove(place);
        drop(old);
    }
}
