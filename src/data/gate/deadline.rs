//! The longest wait of one request. The timer is made only when the request must wait: most never do.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The moment at which a request waits no longer.
#[derive(Debug)]
pub(super) struct Deadline {
    wait: Wait,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A longest wait and since when. Not added up before somebody waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) since: std::time::Instant,
    pub(super) longest: Duration,
}

impl Deadline {
    pub(super) fn new(wait: Wait) -> Self {
        Self { wait, timer: None }
    }

    /// For a second wait of the same request.
    pub(super) fn wait(&self) -> Wait {
        self.wait
    }

    /// Ready when it has passed; at once, without a timer, if it has passed before the first wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            let Wait { since, longest } = self.wait;
            // Longer than the clock can count is never.
            let Some(at) = Instant::from_std(since).checked_add(longest) else { return Poll::Pending };
            if at <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer = Some(Box::pin(tokio::time::sleep_until(at)));
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }
}
