//! Windows of the calendar: a minute, an hour, a day or a month, from its first second to its last, in UTC.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// First second of the year 9999; a clock that says more is taken to say this. Calendars end soon after.
const LATEST: u64 = 253_370_764_800;

/// Length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// 60 seconds.
    Minute,
    /// 3,600 seconds.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first to the last day of a month.
    Month,
}

impl Period {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Its length in seconds; that of the longest month.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Month => 31 * 86_400,
        }
    }

    /// The window that holds a time since 1970.
    pub fn window(self, unix: Duration) -> Window {
        let now = unix.as_secs().min(LATEST);
        let (from, until) = match self {
            Self::Minute | Self::Hour | Self::Day => {
                let from = now - now % self.seconds();
                (from, from + self.seconds())
            }
            Self::Month => month(now),
        };
        Window { per: self, from, until }
    }
}

/// One window, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What it is.
    pub per: Period,
    /// Its first second.
    pub from: u64,
    /// The first second after it.
    pub until: u64,
}

impl Window {
    /// Time from now to its end.
    pub fn left(&self, unix: Duration) -> Duration {
        Duration::from_secs(self.until).saturating_sub(unix)
    }

    pub(super) fn holds(&self, unix: Duration) -> bool {
        (self.from..self.until).contains(&unix.as_secs())
    }
}

fn month(now: u64) -> (u64, u64) {
    let now = i64::try_from(now).ok().and_then(|now| Timestamp::from_second(now).ok());
    let date = now.expect("not after LATEST").to_zoned(TimeZone::UTC).date();
    let after = date.last_of_month().tomorrow().expect("not after LATEST");
    (second(date.first_of_month()), second(after))
}

fn second(midnight: Date) -> u64 {
    let zoned = midnight.to_zoned(TimeZone::UTC).expect("UTC has every midnight");
    u64::try_from(zoned.timestamp().as_second()).expect("not before 1970")
}
