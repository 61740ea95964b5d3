//! The longest wait of one request. The timer is made only when the request must wait: most never do.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The moment at which a request waits no longer: its longest wait is over, or no answer would be in time.
#[derive(Debug)]
pub(super) struct Deadline {
    /// `None` is never: the wait is longer than the clock can count.
    at: Option<Instant>,
    /// Until when it is of use to wait, if that is known.
    useful: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn new(now: std::time::Instant, max_wait: Duration) -> Self {
        Self::at(Instant::from_std(now).checked_add(max_wait))
    }

    pub(super) fn at(at: Option<Instant>) -> Self {
        Self { at, useful: None, timer: None }
    }

    /// For a second wait of the same request.
    pub(super) fn moment(&self) -> Option<Instant> {
        self.at
    }

    /// Until when it is of use to wait, as far as it is known now.
    pub(super) fn useful_until(&mut self, useful: Option<std::time::Instant>) {
        self.useful = useful.map(Instant::from_std);
    }

    /// Whether the wait ends because it is of no use any more.
    pub(super) fn is_useless(&self) -> bool {
        self.useful.is_some_and(|useful| self.at.is_none_or(|at| useful < at))
    }

    /// Ready when it has passed; at once, without a timer, if it has passed before the first wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = if self.is_useless() { self.useful } else { self.at };
        let Some(at) = end else { return Poll::Pending };
        if self.timer.is_none() && at <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}
