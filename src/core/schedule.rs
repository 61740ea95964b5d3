//! Schedules: at which times a deployment has at least so many replicas (`scale_settings.schedules`).
//!
//! A window begins whenever the cron expression matches and lasts for a fixed time. Whether one is in force is worked out
//! from the present time alone, so that a router that starts in the middle of a window knows it as well. What is done
//! with the number is decided in `core::bounds`; the time is an argument.

#[cfg(test)]
mod tests;

use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use croner::time::days_in_month;
use croner::{Cron, CronPattern, Weekday};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Fields of an expression, in their order, and what each may hold.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of the week", "0 to 7 (0 and 7 are Sunday) or SUN to SAT"),
];

/// Windows that follow each other without a gap are told as one, up to this many of them.
const MOST_JOINED: u32 = 100;

/// At least so many replicas at certain times.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// For people.
    pub name: Option<String>,
    /// Fewest replicas in a window.
    pub min: u32,
    /// How long a window lasts. Time that passes, not wall-clock hours: a day on which the clocks change makes no
    /// window longer.
    pub duration: Duration,
    text: String,
    cron: Cron,
    zone: TimeZone,
}

/// Why a text is no cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It has not five fields.
    #[error("it must have five fields and has {0}: minute, hour, day of the month, month, day of the week")]
    Fields(usize),
    /// A field cannot be understood.
    #[error(
        "the {field} `{text}` is not understood; it may be {may_be}, `*`, a range `1-5`, a step `*/2`, or a list of these"
    )]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        text: String,
        /// What it may hold.
        may_be: &'static str,
    },
    /// No day is like that, such as February 30.
    #[error("it never comes: there is no such day")]
    Never,
}

/// A window that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Name of the schedule, or its cron expression.
    pub name: String,
    /// Fewest replicas until then.
    pub min: u32,
    /// When it ends.
    pub until: Timestamp,
    /// The zone in which people read that time.
    pub zone: TimeZone,
}

impl Schedule {
    /// A schedule by a cron expression of five fields in a time zone. Where clocks are put forward, a time that is
    /// left out counts as the first moment after it; where they are put back, a time that comes twice counts once,
    /// unless the expression means every hour (as cron does).
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn new(cron: &str, zone: TimeZone, duration: Duration, min: u32) -> Result<Self, CronError> {
        let parsed = parse(cron)?;
        if !comes(&parsed.pattern) {
            return Err(CronError::Never);
        }
        let schedule = Self { name: None, min, duration, text: cron.trim().to_owned(), cron: parsed, zone };
        // Whether it ever comes does not depend on when one asks.
        schedule.next_start(Timestamp::UNIX_EPOCH).ok_or(CronError::Never)?;
        Ok(schedule)
    }

    /// The same with a name.
    #[must_use]
    pub fn named(self, name: Option<String>) -> Self {
        Self { name, ..self }
    }

    /// The expression.
    pub fn cron(&self) -> &str {
        &self.text
    }

    /// Name of the time zone, such as `Europe/Berlin`.
    pub fn time_zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// When the window that holds this time ends; `None` between two windows. Its first moment is part of a window, its
    /// end is not.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let start = self.cron.find_previous_occurrence(&now.to_zoned(self.zone.clone()), true).ok()?;
        let mut end = self.end_of(start.timestamp()).filter(|end| *end > now)?;
        let mut last = start.timestamp();
        for _ in 0..MOST_JOINED {
            let Some(next) = self.next_start(last).filter(|next| *next <= end) else { break };
            let Some(later) = self.end_of(next) else { break };
            (last, end) = (next, later);
        }
        Some(end)
    }

    /// The first time after this one at which a window begins.
    pub fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()?;
        Some(next.timestamp())
    }

    fn end_of(&self, start: Timestamp) -> Option<Timestamp> {
        start.checked_add(self.duration).ok()
    }
}

/// Of the windows in force, the one that asks for most; of equals, the one that lasts longest.
pub fn in_force(schedules: &[Schedule], now: Timestamp) -> Option<Window> {
    let windows = schedules.iter().filter_map(|schedule| {
        let name = schedule.name.as_ref().unwrap_or(&schedule.text).clone();
        let (until, zone) = (schedule.until(now)?, schedule.zone.clone());
        Some(Window { name, min: schedule.min, until, zone })
    });
    windows.max_by_key(|window| (window.min, window.until))
}

/// The first time after this one at which a window begins or ends: until then, [`in_force`] says the same.
pub fn next_change(schedules: &[Schedule], now: Timestamp) -> Option<Timestamp> {
    let changes = schedules.iter().filter_map(|schedule| {
        let start = schedule.next_start(now);
        [start, schedule.until(now)].into_iter().flatten().min()
    });
    changes.min()
}

/// Whether there is such a day: the days of 28 years are all that a calendar has, and a search for one that never comes would
/// go through thousands of years.
fn comes(pattern: &CronPattern) -> bool {
    // January 1, 2000 was a Saturday.
    let mut weekday = Weekday::Saturday;
    for year in 2000..2028 {
        for month in 1..=12 {
            let is_asked = pattern.month_match(month).unwrap_or(false);
            let days = days_in_month(year, month);
            for day in (1..=days).filter(|_| is_asked) {
                if pattern.day_match(year, month, day, weekday.shift(day as i32 - 1)).unwrap_or(false) {
                    return true;
                }
            }
            weekday = weekday.shift(days as i32);
        }
    }
    false
}

fn parse(text: &str) -> Result<Cron, CronError> {
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    if fields.len() != FIELDS.len() {
        return Err(CronError::Fields(fields.len()));
    }
    for (index, (field, may_be)) in FIELDS.iter().enumerate() {
        let mut alone = ["*"; FIELDS.len()];
        alone[index] = fields[index];
        if parser.parse(&alone.join(" ")).is_err() {
            return Err(CronError::Field { field, text: fields[index].to_owned(), may_be });
        }
    }
    parser.parse(&fields.join(" ")).map_err(|_| CronError::Never)
}
