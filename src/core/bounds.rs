//! Within which bounds the number of replicas is decided now, and whose they are: an operator's word goes before a
//! schedule, a schedule before the configuration, and all of them before what the rule would like.
//!
//! Pure: the time is an argument. The number itself is `core::scale`'s decision; here is only what it may be, and the
//! sentence that tells operators why.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::core::scale::{Plain, Reason};
use crate::core::schedule::Window;
use crate::core::settings::ScaleSettings;

/// An operator's word for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Fewest replicas; `None` leaves them as they are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min: Option<u32>,
    /// Most replicas; `None` leaves them as they are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max: Option<u32>,
    /// When it ends by itself.
    pub until: Timestamp,
}

/// Most replicas that the configuration or an operator can ask for.
pub const MOST: u32 = 1000;

/// Longest time for which an operator can ask: 30 days. For longer there is the configuration.
pub const LONGEST: Duration = Duration::from_secs(30 * 86_400);

impl Override {
    /// Whether its numbers are ones that can be asked for: from 1 to [`MOST`], and the fewest not more than the most.
    pub fn is_possible(&self) -> bool {
        let fits = |number: Option<u32>| number.is_none_or(|number| (1..=MOST).contains(&number));
        let in_order = self.min.zip(self.max).is_none_or(|(min, max)| min <= max);
        fits(self.min) && fits(self.max) && in_order
    }

    /// The greatest of its numbers.
    pub fn most(&self) -> Option<u32> {
        self.min.max(self.max)
    }

    /// Whether it still holds.
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

/// `exactly 3 until 2026-11-23T13:12:00Z`.
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => write!(f, "exactly {min}")?,
            (Some(min), Some(max)) => write!(f, "{min} to {max}")?,
            (Some(min), None) => write!(f, "at least {min}")?,
            (None, Some(max)) => write!(f, "at most {max}")?,
            (None, None) => f.write_str("as many as before")?,
        }
        write!(f, " until {}", self.until)
    }
}

/// Whose the bounds are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The configuration's.
    Configuration,
    /// A schedule has raised the lower one.
    Schedule(Window),
    /// An operator has set them.
    Operator(Override),
}

/// Within which numbers is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas, not less than `min`.
    pub max: u32,
    /// Whose they are.
    pub by: By,
}

impl Bounds {
    /// The bounds that hold now. A schedule only ever raises the lower one, at most to the upper one. An operator's bound is
    /// taken as it is, and moves the other one out of its way where that one was not given.
    pub fn now(
        scale: &ScaleSettings,
        window: Option<Window>,
        hold: Option<Override>,
        now: Timestamp,
    ) -> Self {
        let (mut min, max) = match scale {
            ScaleSettings::Manual { replicas } => (*replicas, *replicas),
            ScaleSettings::Utilization(rule) => (rule.min.min(rule.max), rule.max),
        };
        if let Some(hold) = hold.filter(|hold| hold.holds(now)) {
            let scheduled = window.map_or(min, |window| min.max(window.min).min(max));
            let (min, max) = match (hold.min, hold.max) {
                (Some(low), Some(high)) => (low.min(high), high),
                (Some(low), None) => (low, max.max(low)),
                (None, Some(high)) => (scheduled.min(high), high),
                (None, None) => (scheduled, max),
            };
            return Self { min, max, by: By::Operator(hold) };
        }
        let by = match window {
            Some(window) if window.min > min && max > min => {
                min = window.min.min(max);
                By::Schedule(window)
            }
            _ => By::Configuration,
        };
        Self { min, max, by }
    }

    /// The same with room for so many replicas only: an operator's word may be older than the settings.
    pub fn at_most(self, places: u32) -> Self {
        Self { min: self.min.min(places), max: self.max.min(places), by: self.by }
    }

    /// A number brought between the bounds.
    pub fn within(&self, replicas: u32) -> u32 {
        replicas.clamp(self.min.min(self.max), self.max)
    }
}

/// Why the number is what it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// No rule: the list of servers is what it is.
    Listed {
        /// Servers in it.
        servers: u32,
    },
    /// Nobody has asked for long, and no replica need be there.
    Idle {
        /// How long.
        time: Duration,
    },
    /// Nobody may be needed, and the last replica stays for a while.
    LastStays {
        /// How long after the last request.
        idle_time: Duration,
        /// What the rule says.
        rule: Reason,
    },
    /// What the rule says, within the bounds of the configuration.
    Rule(Reason),
    /// A schedule is in force and asks for this number.
    Scheduled {
        /// The window.
        window: Window,
        /// When it was decided.
        now: Timestamp,
        /// What the rule says within the bounds.
        rule: Reason,
    },
    /// An operator has set bounds.
    Held {
        /// The operator's word.
        hold: Override,
        /// Fewest replicas with it.
        min: u32,
        /// Most replicas with it.
        max: u32,
        /// When it was decided.
        now: Timestamp,
        /// What the rule says within the bounds; `None` where there is no rule.
        rule: Option<Reason>,
    },
}

impl Why {
    /// What the rule says, where there is one.
    pub fn rule(&self) -> Option<&Reason> {
        match self {
            Self::Listed { .. } | Self::Idle { .. } => None,
            Self::LastStays { rule, .. } | Self::Rule(rule) | Self::Scheduled { rule, .. } => Some(rule),
            Self::Held { rule, .. } => rule.as_ref(),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, self.rule().map(|rule| rule as &dyn fmt::Display))
    }
}

/// The same for people who do not know the words of the rules.
#[derive(Clone, Copy, Debug)]
pub struct PlainWhy<'a> {
    /// Why.
    pub why: &'a Why,
    /// Replicas asked for before.
    pub from: u32,
}

impl fmt::Display for PlainWhy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.why.rule().map(|reason| Plain { reason, from: self.from });
        self.why.write(f, rule.as_ref().map(|rule| rule as &dyn fmt::Display))
    }
}

impl Why {
    /// Whose word it is, and what the rule says, in whatever words.
    fn write(&self, f: &mut fmt::Formatter<'_>, rule: Option<&dyn fmt::Display>) -> fmt::Result {
        self.write_whose(f)?;
        let Some(rule) = rule else { return Ok(()) };
        f.write_str(if matches!(self, Self::Rule(_)) { "" } else { ": " })?;
        rule.fmt(f)
    }

    /// What stands before the rule's words: nothing, where it decides alone.
    fn write_whose(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed { servers } => write!(f, "servers in the configuration: {servers}"),
            Self::Idle { time } => {
                write!(f, "no request for {}: no replica is needed", Spoken(*time))
            }
            Self::LastStays { idle_time, .. } => {
                write!(f, "the last replica stays until nobody has asked for {}", Spoken(*idle_time))
            }
            Self::Rule(_) => Ok(()),
            Self::Scheduled { window, now, rule: _ } => {
                let until = Until { at: window.until, now: *now, zone: &window.zone };
                write!(f, "at least {} by the schedule `{}` {until}", window.min, window.name)
            }
            Self::Held { hold, min, max, now, rule: _ } => {
                let until = Until { at: hold.until, now: *now, zone: &TimeZone::UTC };
                if min == max {
                    write!(f, "held at {min} by an operator {until}")?;
                } else {
                    write!(f, "held between {min} and {max} by an operator {until}")?;
                }
                if let Some(asked) = hold.most().filter(|asked| asked > max) {
                    write!(f, ", who asked for {asked}, but `process.ports` has {max} only")?;
                }
                Ok(())
            }
        }
    }
}

/// `until 16:00 UTC`, with the date where it is another day than that of the decision. Not how long that is: the sentence is
/// read later.
struct Until<'a> {
    at: Timestamp,
    now: Timestamp,
    zone: &'a TimeZone,
}

impl fmt::Display for Until<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, now) = (self.at.to_zoned(self.zone.clone()), self.now.to_zoned(self.zone.clone()));
        let form = match (at.date() == now.date(), at.second()) {
            (true, 0) => "%H:%M %Z",
            (true, _) => "%H:%M:%S %Z",
            (false, 0) => "%Y-%m-%d %H:%M %Z",
            (false, _) => "%Y-%m-%d %H:%M:%S %Z",
        };
        write!(f, "until {}", at.strftime(form))
    }
}

/// The two largest units of a time.
pub struct Spoken(pub Duration);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded up: what is not over is not shown as over.
        let seconds = self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0);
        let pairs = [(86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")];
        match pairs.into_iter().find(|(large, ..)| seconds >= *large) {
            None => write!(f, "{seconds} s"),
            Some((large, name, small, small_name)) => {
                write!(f, "{} {name}", seconds / large)?;
                match seconds % large / small {
                    0 => Ok(()),
                    rest => write!(f, " {rest} {small_name}"),
                }
            }
        }
    }
}
