//! What one caller has used of its allowance, and whether the next request may pass.

use std::time::{Duration, Instant};

use super::{Allowance, Denied, Limit, Quota, Rate, Window};

/// When the request of a caller that is at its limit of requests at once may come back: nobody knows when one of them ends.
const ANY_MOMENT: Duration = Duration::from_secs(1);

/// What a caller has used. Kept when its allowance changes.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub(super) running: u32,
    /// When the next request would be due if requests came evenly: GCRA's theoretical arrival time.
    due: Option<Instant>,
    window: Option<Window>,
    /// Requests in the window.
    pub(super) used: u64,
}

impl Counters {
    /// Takes a request on, or says which limit refuses it; a request that is refused uses nothing. `unix` is the time since
    /// 1970 at the moment `now`. What is taken on must be [`Self::end`]ed.
    ///
    /// # Errors
    /// The limit that refuses longest.
    pub fn admit(&mut self, allowed: &Allowance, now: Instant, unix: Duration) -> Result<(), Denied> {
        let denied = [
            allowed.quota.and_then(|quota| self.quota_denies(quota, unix)),
            allowed.rate.and_then(|rate| self.rate_denies(rate, now)),
            allowed
                .concurrency
                .filter(|limit| self.running >= limit.get())
                .map(|limit| Denied { limit: Limit::Concurrency(limit), retry: ANY_MOMENT }),
        ];
        if let Some(denied) = denied.into_iter().flatten().max_by_key(|denied| denied.retry) {
            return Err(denied);
        }
        self.running = self.running.saturating_add(1);
        if allowed.quota.is_some() {
            self.used = self.used.saturating_add(1);
        }
        if let Some(rate) = allowed.rate {
            let turn = self.due.map_or(now, |due| due.max(now));
            self.due = turn.checked_add(rate.interval).or(self.due);
        }
        Ok(())
    }

    /// A request that was taken on has ended.
    pub fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// What is left.
    pub fn standing(&mut self, allowed: &Allowance, now: Instant, unix: Duration) -> Standing {
        Standing {
            concurrency: allowed.concurrency.map(|limit| limit.get().saturating_sub(self.running)),
            rate: allowed.rate.map(|rate| self.rate_left(rate, now)),
            quota: allowed.quota.map(|quota| {
                let window = self.roll(quota, unix);
                Left { remaining: quota.requests.get().saturating_sub(self.used), reset: window.left(unix) }
            }),
        }
    }

    /// Whether nothing would change if they were new.
    pub fn at_rest(&self, now: Instant, unix: Duration) -> bool {
        let spent = self.used > 0 && self.window.is_some_and(|window| unix.as_secs() < window.until);
        self.running == 0 && self.due.is_none_or(|due| due <= now) && !spent
    }

    fn quota_denies(&mut self, quota: Quota, unix: Duration) -> Option<Denied> {
        let window = self.roll(quota, unix);
        (self.used >= quota.requests.get())
            .then(|| Denied { limit: Limit::Quota(quota), retry: window.left(unix) })
    }

    /// Goes on to the present window. A clock that is set back does not give the quota twice.
    fn roll(&mut self, quota: Quota, unix: Duration) -> Window {
        if let Some(window) = self.window
            && window.per == quota.per
            && window.holds(unix)
        {
            return window;
        }
        let present = quota.per.window(unix);
        match self.window {
            // Back over the edge by a correction of the clock: the window has begun already.
            Some(window) if window.per == present.per && window.from == present.until => return window,
            Some(window) if window.per == present.per && window.from < present.from => self.used = 0,
            // Far back, so the clock was wrong before; or windows of another length. What was used stays used.
            _ => {}
        }
        self.window = Some(present);
        present
    }

    fn rate_denies(&self, rate: Rate, now: Instant) -> Option<Denied> {
        let early = self.early(now).saturating_sub(rate.tolerance());
        (!early.is_zero()).then_some(Denied { limit: Limit::Rate(rate), retry: early })
    }

    fn rate_left(&self, rate: Rate, now: Instant) -> Left {
        let (early, room) = (self.early(now), rate.interval * rate.burst.get());
        let remaining = room.saturating_sub(early).as_nanos() / rate.interval.as_nanos();
        let reset = match remaining {
            0 => early.saturating_sub(rate.tolerance()),
            _ => early,
        };
        Left { remaining: u64::try_from(remaining).unwrap_or(u64::MAX), reset }
    }

    /// How long before its turn a request would come now.
    fn early(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }
}

/// What is left of each limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests that may still begin while the others run.
    pub concurrency: Option<u32>,
    /// Of the burst. Resets when one request may pass, or, if one may, when the whole burst may.
    pub rate: Option<Left>,
    /// Of the quota. Resets at the end of the window.
    pub quota: Option<Left>,
}

/// What is left of a limit that grows again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Requests.
    pub remaining: u64,
    /// Time until there are more.
    pub reset: Duration,
}
