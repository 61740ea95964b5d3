//! Why a number of replicas was chosen: typed numbers, and the sentence that operators read.

mod plain;

use std::fmt;

use serde::Serialize;

use super::Sample;
use super::adaptive::Staffing;
use crate::core::words::{count, is_or_are, was_or_were};

pub use plain::Plain;

/// Why the number is what it is. As JSON: `kind` and the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// What the rule `adaptive` says.
    Adaptive(Staffing),
    /// Between two evaluations: at this pace the newest of those that wait would wait too long.
    AtOnce {
        /// Requests in the queue.
        waiting: u32,
        /// How long the newest of them would wait, in seconds; `None` where nothing lets it be told.
        wait: Option<f64>,
        /// Longest wait for which nothing is done before the next evaluation, in seconds.
        budget: f64,
        /// What of it counts with the policy, in slots.
        demand: f64,
        /// What that is.
        counts: Counts,
        /// Slots of one replica; 0 is no limit, and counts as one.
        slots: u32,
        /// Busy share of the slots to aim at, where the rule has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        target_percent: Option<u32>,
        /// Replicas, ready and starting together.
        total: u32,
        /// Replicas that are needed now, before the bounds.
        needed: u32,
        /// Most replicas.
        max: u32,
    },
    /// The configuration fixes the number.
    Manual {
        /// That number.
        replicas: u32,
    },
    /// There are more than the configuration allows.
    AboveMax {
        /// Replicas, ready and starting together.
        total: u32,
        /// Most replicas.
        max: u32,
    },
    /// There are fewer than the configuration asks for.
    BelowMin {
        /// Replicas, ready and starting together.
        total: u32,
        /// Fewest replicas.
        min: u32,
    },
    /// The load is not over the target, and nothing changes.
    Kept {
        /// The load.
        sample: Sample,
        /// How long fewer replicas must be enough before some are removed, in seconds.
        window: f64,
    },
    /// Fewer were enough for long.
    Lower {
        /// The load.
        sample: Sample,
        /// Most replicas that were needed in that time.
        peak: u32,
        /// How long, in seconds.
        window: f64,
    },
    /// Somebody waits, or could not, and no replica was asked for.
    NobodyThere {
        /// Requests in the queue; 0 where somebody was turned away.
        waiting: u32,
        /// The load.
        sample: Sample,
    },
    /// The load is over the target.
    Over(Sample),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adaptive(numbers) => numbers.fmt(f),
            Self::AtOnce {
                waiting,
                wait,
                budget,
                demand,
                counts,
                slots,
                target_percent,
                needed,
                max,
                total: _,
            } => {
                write_wait(f, *waiting, *wait, *budget)?;
                counts.write(f, *demand)?;
                write_replicas(f, *needed, *max, *slots, *target_percent)
            }
            Self::Manual { replicas } => {
                write!(f, "the configuration fixes the number at {}", count(*replicas, "replica"))
            }
            Self::AboveMax { total, max } => {
                write!(f, "{}, at most {max} allowed", there_are(*total))
            }
            Self::BelowMin { total, min } => {
                write!(f, "{}, at least {min} asked for", there_are(*total))
            }
            Self::Kept { sample, window } => {
                write!(f, "{sample}: ")?;
                let enough = sample.needed.max(sample.min);
                if enough < sample.total {
                    let total = sample.total;
                    write!(
                        f,
                        "{enough} would be enough, all {total} are kept until that was so for {window} s"
                    )
                } else {
                    write!(f, "{} {} enough", count(sample.total, "replica"), is_or_are(sample.total))
                }
            }
            Self::Lower { sample, peak, window } => {
                write!(
                    f,
                    "{sample}: in the last {window} s {} {} enough at any time",
                    count(*peak, "replica"),
                    was_or_were(*peak)
                )
            }
            Self::NobodyThere { waiting, sample } => {
                match *waiting {
                    0 => f.write_str("somebody was turned away")?,
                    1 => f.write_str("1 request waits")?,
                    waiting => write!(f, "{waiting} requests wait")?,
                }
                f.write_str(" and there is no replica: ")?;
                sample.write_needed(f)
            }
            Self::Over(sample) => {
                write!(f, "{sample}: ")?;
                sample.write_needed(f)
            }
        }
    }
}

/// What serving that takes.
fn write_replicas(
    f: &mut fmt::Formatter<'_>,
    needed: u32,
    max: u32,
    slots: u32,
    target_percent: Option<u32>,
) -> fmt::Result {
    write!(f, ": {}", count(needed, "replica"))?;
    if slots > 1 {
        write!(f, " with {slots} slots each")?;
    }
    if let Some(target) = target_percent {
        write!(f, ", so that at most {target} % of the slots are in use")?;
    }
    if needed > max { write!(f, "; at most {max} allowed") } else { Ok(()) }
}

/// What a policy counts as load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// What runs, waits or was turned away.
    All,
    /// What runs or waits.
    BusyAndQueued,
    /// What runs.
    Busy,
}

impl Counts {
    fn write(self, f: &mut fmt::Formatter<'_>, demand: f64) -> fmt::Result {
        let slots = (demand - 1e-9).ceil();
        let takes = count(slots.max(1.0) as u32, "slot");
        match self {
            Self::All => {
                write!(f, "; serving in time all that ran, waited or had just been turned away takes {takes}")
            }
            Self::BusyAndQueued => write!(
                f,
                "; who was turned away does not count with this policy, and serving in time all that ran or waited takes \
                 {takes}"
            ),
            Self::Busy => {
                let busy = slots.max(0.0) as u32;
                let were = if busy == 1 { "was" } else { "were" };
                write!(f, "; this policy counts only busy slots, and {busy} {were}")
            }
        }
    }
}

/// What was seen between two evaluations, and against what it is held.
fn write_wait(f: &mut fmt::Formatter<'_>, waiting: u32, wait: Option<f64>, budget: f64) -> fmt::Result {
    let newest = match waiting {
        0 => {
            f.write_str("requests had been turned away, and ")?;
            "one that came then"
        }
        1 => "the one request in the queue",
        waiting => {
            write!(f, "{waiting} requests were waiting, and ")?;
            "the newest"
        }
    };
    // Longer than a year is as good as not known.
    match wait.filter(|wait| *wait < 31_536_000.0) {
        Some(wait) => write!(
            f,
            "{newest} would have waited {} for a slot, more than {}, half of the longest wait that is allowed",
            Seconds(wait),
            Seconds(budget)
        ),
        None => write!(f, "nobody could tell how long {newest} would have to wait for a slot"),
    }
}

/// Seconds as people say them: `40 ms`, `1.5 s`.
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds < 1.0 => write!(f, "{:.0} ms", seconds * 1_000.0),
            seconds => write!(f, "{} s", (seconds * 10.0).round() / 10.0),
        }
    }
}

/// `14 busy + 3 queued over 4 slots is 425 %, over the target of 70 %`
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} busy", self.busy)?;
        if let Some(queued) = self.queued {
            write!(f, " + {queued} queued")?;
        }
        if let Some(ghosts) = self.ghosts.filter(|ghosts| *ghosts >= 0.05) {
            write!(f, " + {ghosts:.1} that were turned away and would still run")?;
        }
        if self.can_wait {
            write!(f, " (as work that can wait: {:.1})", self.load)?;
        }
        if self.slots == 0 {
            return f.write_str(" and no replica");
        }
        let plural = if self.slots == 1 { "" } else { "s" };
        let side = if self.is_over() { "over" } else { "not over" };
        let share = self.share();
        write!(
            f,
            " over {} slot{plural} is {share} %, {side} the target of {} %",
            self.slots, self.target_percent
        )
    }
}

impl Sample {
    /// The load in percent of the slots, to one decimal; rounded to the side of the target on which it is.
    fn share(&self) -> f64 {
        let tenths = self.load * 1000.0 / self.slots.max(1) as f64;
        let side = if self.is_over() { (tenths - 1e-9).ceil() } else { (tenths + 1e-9).floor() };
        side / 10.0
    }

    fn write_needed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = self.needed;
        write!(f, "{} {} needed", count(needed, "replica"), is_or_are(needed))?;
        if needed > self.max {
            write!(f, ", at most {} allowed", self.max)?;
        } else if needed < self.min {
            write!(f, ", at least {} asked for", self.min)?;
        }
        Ok(())
    }
}

fn there_are(replicas: u32) -> String {
    if replicas == 0 {
        return "there is no replica".to_owned();
    }
    format!("there {} {}", is_or_are(replicas), count(replicas, "replica"))
}
