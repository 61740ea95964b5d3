//! Waits to the microsecond. Tokio's own timers have a resolution of one millisecond, which at 1,000 requests a second
//! is the whole gap between two of them; so this is a timer of the kernel (`timerfd`).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer.
pub(super) struct Pacer(AsyncFd<OwnedFd>);

impl Pacer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The system has no file descriptor left.
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types that give away another descriptor each time; an OwnedFd does not"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Completes after this time. It may be dropped before.
    ///
    /// # Errors
    /// The system refuses, which it has no reason to.
    pub(super) async fn wait(&self, time: Duration) -> io::Result<()> {
        // A timer set to 0 is one that never rings.
        let time = Timespec::try_from(time.max(Duration::from_nanos(1))).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: time };
        // Setting it also takes back an earlier ring that nobody has read.
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| {
                let mut rings = [0; 8];
                Ok(rustix::io::read(timer.get_ref(), &mut rings)?)
            });
            // Otherwise the readiness was that of an earlier ring.
            if let Ok(read) = read {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_never_rings_early_also_after_a_wait_that_was_dropped() {
        let pacer = Pacer::new().unwrap();
        for _ in 0..20 {
            let dropped = tokio::time::timeout(Duration::ZERO, pacer.wait(Duration::from_micros(1))).await;
            // Long enough for the timer to ring unheard, often.
            tokio::task::yield_now().await;
            drop(dropped);
            let (start, time) = (Instant::now(), Duration::from_millis(2));
            pacer.wait(time).await.unwrap();
            assert!(start.elapsed() >= time);
        }
        pacer.wait(Duration::ZERO).await.unwrap();
    }
}
