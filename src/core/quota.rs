//! Limits of one caller of an endpoint: how many requests at once, how many a second (GCRA), how many in a calendar window.
//!
//! Pure: times are arguments. Who a caller is and where its counters are kept is `data::quota`'s part.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

pub use counters::{Counters, Left, Standing};
pub use window::{Period, Window};

mod counters;
mod fields;
#[cfg(test)]
mod tests;
mod window;

/// What a caller may do. A limit that is not there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests at once.
    pub concurrency: Option<NonZeroU32>,
    /// Requests a second.
    pub rate: Option<Rate>,
    /// Requests in a window of the calendar.
    pub quota: Option<Quota>,
}

impl Allowance {
    /// Whether it limits nothing.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// A rate with bursts, as GCRA sees it (ITU-T I.371, Annex A): requests are due one interval apart, and may come as many
/// intervals early as make a burst. In any span of time t no more than burst + rate × t pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    thousandths: NonZeroU32,
    burst: NonZeroU32,
    interval: Duration,
}

impl Rate {
    /// A rate in thousandths of a request a second. Without a burst, as much as one second brings, at least one.
    pub fn new(thousandths: NonZeroU32, burst: Option<NonZeroU32>) -> Self {
        let one_second = NonZeroU32::new(thousandths.get().div_ceil(1_000)).unwrap_or(NonZeroU32::MIN);
        // Upwards to whole nanoseconds, so that the rate is never exceeded.
        let nanoseconds = 1_000_000_000_000_u64.div_ceil(thousandths.get().into());
        Self { thousandths, burst: burst.unwrap_or(one_second), interval: Duration::from_nanos(nanoseconds) }
    }

    /// Thousandths of a request a second.
    pub fn thousandths(self) -> NonZeroU32 {
        self.thousandths
    }

    /// Requests a second.
    pub fn per_second(self) -> f64 {
        f64::from(self.thousandths.get()) / 1000.0
    }

    /// Requests that may come at the same moment.
    pub fn burst(self) -> NonZeroU32 {
        self.burst
    }

    /// Time between two requests.
    pub fn interval(self) -> Duration {
        self.interval
    }

    /// How far before its turn a request may come.
    fn tolerance(self) -> Duration {
        self.interval * (self.burst.get() - 1)
    }
}

/// So many requests in each window of the calendar (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a window.
    pub requests: NonZeroU64,
    /// Which windows.
    pub per: Period,
}

/// A limit that refuses a request, and when it will not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Which one; the one that refuses longest, if there are several.
    pub limit: Limit,
    /// When to come back.
    pub retry: Duration,
}

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests at once.
    Concurrency(NonZeroU32),
    /// Requests in a window.
    Quota(Quota),
    /// Requests a second.
    Rate(Rate),
}

impl Limit {
    /// The code of the answer that it causes.
    pub fn code(self) -> &'static str {
        match self {
            Self::Concurrency(_) => "too_many_concurrent",
            Self::Quota(_) => "quota_exceeded",
            Self::Rate(_) => "rate_limited",
        }
    }
}
