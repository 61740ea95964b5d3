//! What has happened at a gate since somebody looked last: the scaler's sensor.

use std::time::{Duration, Instant};

use crate::core::admission::{Load, Tenant};

/// How the use of a slot ended, as the router saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With an answer of the model, whatever it says (4xx, and 5xx that do not mean that the replica is broken).
    Answered,
    /// With the answer 500, of which nobody knows whether the model or its input is broken, or this replica of it.
    Failed,
    /// The replica broke the connection, or its answer says that it is broken (502, 503, 504 of its own).
    Broken,
    /// No answer within the time allowed.
    TimedOut,
    /// No connection to the replica.
    Unreachable,
    /// The client left; says nothing about the replica.
    GivenUp,
}

impl Outcome {
    /// Every one, each at its number.
    pub const ALL: [Self; 6] =
        [Self::Answered, Self::Failed, Self::Broken, Self::TimedOut, Self::Unreachable, Self::GivenUp];

    /// Its word in metrics and state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Broken => "broken",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::GivenUp => "given_up",
        }
    }
}

/// One use of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// When the slot was taken.
    pub since: Instant,
    /// When it was free again.
    pub until: Instant,
    /// How it ended.
    pub outcome: Outcome,
    /// Whose request it was.
    pub tenant: Tenant,
}

impl Use {
    /// How long the slot was held.
    pub fn time(&self) -> Duration {
        self.until.saturating_duration_since(self.since)
    }
}

/// Counts and sums since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Up to here the sums go; `None` where nothing was asked yet.
    pub at: Option<Instant>,
    /// Time that the sums cover, in seconds.
    pub seconds: f64,
    /// Requests that asked for a slot.
    pub arrivals: u64,
    /// Slots that were given, also to those who waited and have not claimed theirs yet, and to second copies.
    pub admitted: u64,
    /// Of the arrivals, the ones that were refused or waited too long.
    pub rejected: u64,
    /// Uses of slots that ended, but for those that failed at once: how long these took says nothing of the next ones.
    pub completed: u64,
    /// How long these were held, in seconds.
    pub service_sum: f64,
    /// Slots in use on replicas that are not draining, over the time, in slot-seconds.
    pub busy_time: f64,
    /// Slots in use on draining replicas, over the time.
    pub busy_draining_time: f64,
    /// Requests in the queue, over the time.
    pub queued_time: f64,
    /// Most requests that ran or waited at once, but for those on draining replicas.
    pub peak: u32,
}

impl Tally {
    /// What has happened in this time and in the one that followed.
    #[must_use]
    pub fn join(self, later: &Self) -> Self {
        Self {
            at: later.at.or(self.at),
            seconds: self.seconds + later.seconds,
            arrivals: self.arrivals + later.arrivals,
            admitted: self.admitted + later.admitted,
            rejected: self.rejected + later.rejected,
            completed: self.completed + later.completed,
            service_sum: self.service_sum + later.service_sum,
            busy_time: self.busy_time + later.busy_time,
            busy_draining_time: self.busy_draining_time + later.busy_draining_time,
            queued_time: self.queued_time + later.queued_time,
            peak: self.peak.max(later.peak),
        }
    }

    /// What was held for so many seconds.
    pub(super) fn pass(&mut self, seconds: f64, held: &Load, queued: u32) {
        self.seconds += seconds;
        self.busy_time += seconds * f64::from(held.busy);
        self.busy_draining_time += seconds * f64::from(held.busy_draining);
        self.queued_time += seconds * f64::from(queued);
    }

    /// A use of so many seconds ended. A replica that answers 502 in a millisecond would make all requests look short.
    pub(super) fn note(&mut self, outcome: Outcome, seconds: f64) {
        let counts = !matches!(outcome, Outcome::Broken | Outcome::Unreachable);
        self.completed += u64::from(counts);
        self.service_sum += if counts { seconds } else { 0.0 };
    }
}
