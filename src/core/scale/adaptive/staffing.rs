//! The numbers behind a decision of the rule `adaptive`, and the sentence that operators read.

use std::fmt;

use serde::Serialize;

use crate::core::scale::signals::whole;
use crate::core::words::was_or_were;

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

    /// Whether no replica is needed because nothing came.
    pub(in crate::core::scale) fn has_no_need(&self) -> bool {
        self.idle && self.needed == 0
    }

    /// Replicas for what comes on average, and what is put by for chance.
    pub(in crate::core::scale) fn on_average(&self) -> u32 {
        self.replicas_for(self.offered + self.margin)
    }

    /// Replicas for what there was at one time, where that decided.
    pub(in crate::core::scale) fn peak(&self) -> Option<u32> {
        let recent = self.replicas_for(self.recent);
        (recent > self.replicas_for(self.held)).then_some(recent)
    }

    /// What was needed before, where it is still kept.
    pub(in crate::core::scale) fn write_held(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.replicas_for(self.held);
        if held == self.on_average() {
            return Ok(());
        }
        write!(f, "; {held} {} needed in the {:.0} s before, and ", was_or_were(held), self.hold)?;
        f.write_str(if held == 1 { "is kept" } else { "are kept" })
    }

    /// What else had a say.
    pub(in crate::core::scale) fn write_others(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_load = self.replicas_for(self.held).max(self.replicas_for(self.recent));
        if let Some(first) = self.first.filter(|first| *first > by_load) {
            write!(f, "; the first {first} stay until enough was seen to do with fewer")?;
        }
        if self.raised >= self.needed && self.raised > by_load {
            let raised = self.raised;
            write!(
                f,
                "; {raised} {} asked for at once in the last 60 s because requests waited",
                was_or_were(raised)
            )?;
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

    fn replicas_for(&self, slots: f64) -> u32 {
        whole(slots / f64::from(self.slots))
    }
}

/// `offered load 4.2 (8.4 arrivals/s × 0.50 s) + margin 3.1 for burstiness 2.3 = 8 replicas; 9 were needed in the 300 s before, and are kept`
impl fmt::Display for Staffing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_no_need() {
            return write!(f, "nothing came in the {:.0} s before and no replica has to be there", self.hold);
        }
        let need = self.on_average();
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
        self.write_held(f)?;
        if let Some(peak) = self.peak() {
            write!(f, "; most that ran, waited or was turned away at one time in the last 60 s: {peak}")?;
        }
        self.write_others(f)
    }
}
