//! The numbers behind a decision of the rule `adaptive`, and the sentence that operators read.

use std::fmt;

use serde::Serialize;

use crate::core::scale::signals::whole;

/// What led to the number. Rates in 1/s, times in seconds, loads in slots.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Staffing {
    /// The greater of `fast` and `slow`.
    pub arrivals_per_second: f64,
    /// Arrivals of the last seconds, in a second.
    pub fast: f64,
    /// Arrivals of the last minute, in a second.
    pub slow: f64,
    /// Mean service time.
    pub service: f64,
    /// Slots that are busy on average at that rate and service time (A).
    pub offered: f64,
    /// What ran, waited or was turned away and would still run.
    pub demand: f64,
    /// The turned away among them.
    pub ghosts: f64,
    /// Variance of the demand over its mean (Z); 1 is pure chance.
    pub burstiness: f64,
    /// The part of the margin that the queue leaves necessary: S / (S + W).
    pub may_wait: f64,
    /// Longest time in the queue (W).
    pub queue_wait: f64,
    /// What a reject budget has added to the margin, as a share of it.
    pub correction: Option<f64>,
    /// Slots beyond the offered load.
    pub margin: f64,
    /// How long the greatest need is held.
    pub hold: f64,
    /// The greatest sum of offered load and margin in that time.
    pub held: f64,
    /// The greatest demand of the last minute.
    pub recent: f64,
    /// Learned start-up time of a replica.
    pub cold: f64,
    /// Slots of one replica.
    pub slots: u32,
    /// The first replicas, as long as too little was seen to do with fewer.
    pub first: Option<u32>,
    /// Replicas asked for between two evaluations of the last minute.
    pub raised: u32,
    /// Nothing came for as long as things are held, and none has to be there.
    pub idle: bool,
    /// Requests in the queue.
    pub waiting: u32,
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// Replicas that are needed, before the bounds.
    pub needed: u32,
}

impl Staffing {
    /// Replicas that are needed, before the bounds.
    pub(super) fn needed(&self) -> u32 {
        let by_load = whole(self.held.max(self.recent) / f64::from(self.slots));
        let by_load = if self.idle { 0 } else { by_load.max(self.first.unwrap_or(0)) };
        by_load.max(self.raised).max(u32::from(self.waiting > 0 || self.min > 0))
    }

    fn replicas_for(&self, slots: f64) -> u32 {
        whole(slots / f64::from(self.slots))
    }
}

/// `offered load 4.2 (8.4 arrivals/s × 0.50 s) + margin 3.1 for burstiness 2.3 = 8 replicas; 9 were needed in the 300 s before, and are kept`
impl fmt::Display for Staffing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.idle && self.needed == 0 {
            return write!(f, "nothing came in the {:.0} s before and no replica has to be there", self.hold);
        }
        let need = self.replicas_for(self.offered + self.margin);
        write!(f, "offered load {:.1} ({:.1} arrivals/s × ", self.offered, self.arrivals_per_second)?;
        write!(
            f,
            "{:.2} s) + margin {:.1} for burstiness {:.1}",
            self.service, self.margin, self.burstiness
        )?;
        if self.slots > 1 {
            write!(f, ", over {} slots a replica,", self.slots)?;
        }
        write!(f, " = {need} {}", if need == 1 { "replica" } else { "replicas" })?;
        let held = self.replicas_for(self.held);
        if held != need {
            write!(f, "; {held} were needed in the {:.0} s before, and are kept", self.hold)?;
        }
        let recent = self.replicas_for(self.recent);
        if recent > held {
            write!(f, "; most that ran, waited or was turned away at one time in the last 60 s: {recent}")?;
        }
        if let Some(first) = self.first.filter(|first| *first > held.max(recent)) {
            write!(f, "; the first {first} stay until enough was seen to do with fewer")?;
        }
        if self.raised >= self.needed && self.raised > held.max(recent) {
            write!(f, "; {} were asked for at once in the last 60 s because requests waited", self.raised)?;
        }
        if let Some(correction) = self.correction.filter(|correction| correction.abs() >= 0.005) {
            write!(f, "; the reject budget changes the margin by {:+.0} %", correction * 100.0)?;
        }
        if self.needed > self.max {
            write!(f, "; at most {} allowed", self.max)?;
        } else if self.needed < self.min {
            write!(f, "; at least {} asked for", self.min)?;
        }
        Ok(())
    }
}
