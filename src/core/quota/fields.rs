//! Allowance and standing as values of the header fields `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-11).

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{Allowance, Limit, Rate, Standing};
use crate::core::words::count;

impl Allowance {
    /// Value of `RateLimit-Policy`: for each limit its name, how many requests (`q`), and in how many seconds (`w`).
    pub fn policy(&self) -> String {
        let mut items = Items(String::new());
        if let Some(rate) = self.rate {
            let (quota, window) = rate.advertised();
            items.add(format_args!(r#""rate";q={quota};w={window}"#));
        }
        if let Some(quota) = self.quota {
            items.add(format_args!(r#""quota";q={};w={}"#, quota.requests, quota.per.seconds()));
        }
        if let Some(limit) = self.concurrency {
            items.add(format_args!(r#""concurrency";q={limit};qu="concurrent-requests""#));
        }
        items.0
    }
}

impl Rate {
    /// As whole requests in whole seconds: the shortest time in which a whole burst is due.
    pub(super) fn advertised(self) -> (u64, u64) {
        let (rate, burst) = (u64::from(self.thousandths.get()), u64::from(self.burst.get()));
        let window = (burst * 1_000).div_ceil(rate).max(1);
        (rate * window / 1_000, window)
    }
}

impl Standing {
    /// Value of `RateLimit`: for each limit how many requests are left (`r`) and in how many seconds there are more (`t`).
    pub fn field(&self) -> String {
        let mut items = Items(String::new());
        for (name, left) in [("rate", self.rate), ("quota", self.quota)] {
            if let Some(left) = left {
                items.add(format_args!(r#""{name}";r={};t={}"#, left.remaining, whole_seconds(left.reset)));
            }
        }
        if let Some(left) = self.concurrency {
            items.add(format_args!(r#""concurrency";r={left}"#));
        }
        items.0
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrency(limit) => write!(f, "{} at once", count(limit.get(), "request")),
            Self::Quota(quota) => {
                write!(
                    f,
                    "{} in one {} (UTC)",
                    count(quota.requests.get() as f64, "request"),
                    quota.per.as_str()
                )
            }
            Self::Rate(rate) => {
                write!(
                    f,
                    "{} a second, {} at the same moment",
                    count(rate.per_second(), "request"),
                    rate.burst()
                )
            }
        }
    }
}

/// A list of RFC 9651.
struct Items(String);

impl Items {
    fn add(&mut self, item: fmt::Arguments<'_>) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        self.0.write_fmt(item).expect("a string takes everything");
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
