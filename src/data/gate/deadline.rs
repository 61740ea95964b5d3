//! The longest wait of one request. The timer is made only when the request must wait: most never do.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The moment at which a request waits no longer.
#[derive(Debug)]
pub(super) struct Deadline {
    /// `None` is never: the wait is longer than the clock can count.
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn new(now: std::time::Instant, max_wait: Duration) -> Self {
        Self::at(Instant::from_std(now).checked_add(max_wait))
    }

    pub(super) fn at(at: Option<Instant>) -> Self {
        Self { at, timer: None }
    }

    /// For a second wait of the same request.
    pub(super) fn moment(&self) -> Option<Instant> {
        self.at
    }

    /// Ready when it has passed; at once, without a timer, if it has passed before the first wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if self.timer.is_none() && at <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        timer.as_mut().poll(cx)
    }
}
