//! The lines of a recording: what passed a router's gates, and what its scale rules saw and said. One JSON object a line;
//! `docs/explain.md` describes them for readers.
//!
//! Times are whole nanoseconds since the start of the run, on a clock that never goes back. There is no payload in it, no
//! credential and no id of a request.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::bounds::MOST;
use crate::core::scale::Signals;

/// Version of the format; a reader refuses others.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "snake_case")]
pub enum Line<'a> {
    /// The first of each file.
    Recording {
        /// [`FORMAT`].
        format: u32,
        /// Version of the program.
        scoregate: Cow<'a, str>,
        /// When the run began, in seconds since 1970; the same in all its files.
        started_unix_seconds: f64,
        /// Counts the files of the run from 0.
        file: u64,
    },
    /// The settings of a deployment: at the beginning of each file, and when they change.
    Settings {
        /// When they came into force.
        t: u64,
        /// Endpoint.
        e: Cow<'a, str>,
        /// Deployment.
        d: Cow<'a, str>,
        /// `profile`, and `request_settings`, `scale_settings`, `instance_count` as in a configuration file.
        settings: Value,
    },
    /// A request that asked for a slot; written when it has ended.
    Request(Request<'a>),
    /// The rule was asked.
    Tick(Tick<'a>),
    /// A replica is something else from now on.
    Replica {
        /// When that was seen.
        t: u64,
        /// Endpoint.
        e: Cow<'a, str>,
        /// Deployment.
        d: Cow<'a, str>,
        /// Its name.
        n: Cow<'a, str>,
        /// What it is: `starting`, `ready`, `unready`, `draining`, `stopping`, `failed`, `gone`.
        now: Cow<'a, str>,
    },
    /// Lines that were to stand before this one and do not.
    Lost {
        /// How many since the start of the run.
        lines: u64,
    },
}

impl Line<'_> {
    /// When that began which it tells of, and when it was over; `None` where it tells of no time.
    pub fn span(&self) -> Option<(u64, u64)> {
        match self {
            Self::Request(Request { t, w, s, .. }) => {
                Some((*t, t.saturating_add(*w).saturating_add(s.unwrap_or(0))))
            }
            Self::Tick(tick) => Some((tick.t, tick.t)),
            Self::Settings { t, .. } | Self::Replica { t, .. } => Some((*t, *t)),
            Self::Recording { .. } | Self::Lost { .. } => None,
        }
    }

    /// The member that no router can have written, with its number.
    pub fn odd(&self) -> Option<(&'static str, u32)> {
        let Self::Tick(Tick { signals, from, to, said, .. }) = self else { return None };
        let numbers = [
            ("from", *from),
            ("to", *to),
            ("said", said.unwrap_or(0)),
            ("signals.ready", signals.ready),
            ("signals.starting", signals.starting),
            ("signals.target", signals.target),
            ("signals.min", signals.min),
            ("signals.max", signals.max),
        ];
        numbers.into_iter().find(|(_, number)| *number > MOST)
    }
}

/// A request that asked for a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// When it asked.
    pub t: u64,
    /// Endpoint.
    pub e: Cow<'a, str>,
    /// Deployment.
    pub d: Cow<'a, str>,
    /// How long it waited for a slot, or until it was refused one or left.
    pub w: u64,
    /// How long it then took to the last byte of its answer; absent if it had no slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s: Option<u64>,
    /// How it ended: `ok`, or a reason code as in the access log.
    pub o: Cow<'a, str>,
}

/// The rule was asked: what it saw, and what it said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tick<'a> {
    /// When.
    pub t: u64,
    /// Endpoint.
    pub e: Cow<'a, str>,
    /// Deployment.
    pub d: Cow<'a, str>,
    /// What asked.
    pub how: How,
    /// What the rule saw.
    pub signals: Signals,
    /// What was asked for before.
    pub from: u32,
    /// What is asked for from now on: within the bounds that hold, and not without the last replica before its time.
    pub to: u32,
    /// What the rule said, where it is not that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<u32>,
}

impl Tick<'_> {
    /// What the rule said.
    pub fn said(&self) -> u32 {
        self.said.unwrap_or(self.to)
    }
}

/// What asks the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The first question of a deployment's task: the rule knows nothing of before.
    First,
    /// The interval, or a change of settings.
    Tick,
    /// An event between two intervals ([`crate::core::scale::at_once`]).
    AtOnce,
}
