//! Why a number of replicas was chosen: typed numbers, and the sentence that operators read.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Sample;

/// Why the number is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
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
        /// How long fewer replicas must be enough before some are removed.
        window: Duration,
    },
    /// Fewer were enough for long.
    Lower {
        /// The load.
        sample: Sample,
        /// Most replicas that were needed in that time.
        peak: u32,
        /// How long.
        window: Duration,
    },
    /// Somebody waits and no replica was asked for.
    NobodyThere {
        /// Requests in the queue.
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
                    let seconds = window.as_secs_f64();
                    write!(
                        f,
                        "{enough} would be enough, all {} are kept until that was so for ",
                        sample.total
                    )?;
                    write!(f, "{seconds} s")
                } else {
                    write!(f, "{} enough", is_or_are(sample.total))
                }
            }
            Self::Lower { sample, peak, window } => {
                let seconds = window.as_secs_f64();
                write!(f, "{sample}: in the last {seconds} s {} enough at any time", was_or_were(*peak))
            }
            Self::NobodyThere { waiting, sample } => {
                let verb = if *waiting == 1 { "waits" } else { "wait" };
                write!(f, "{} {verb} and there is no replica: ", count(*waiting, "request"))?;
                sample.write_needed(f)
            }
            Self::Over(sample) => {
                write!(f, "{sample}: ")?;
                sample.write_needed(f)
            }
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
        let (load, slots) = (u128::from(self.load()) * 1000, u128::from(self.slots.max(1)));
        let tenths = if self.is_over() { load.div_ceil(slots) } else { load / slots };
        tenths as f64 / 10.0
    }

    fn write_needed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = self.needed;
        write!(f, "{} needed", is_or_are(needed))?;
        if needed > self.max {
            write!(f, ", at most {} allowed", self.max)?;
        } else if needed < self.min {
            write!(f, ", at least {} asked for", self.min)?;
        }
        Ok(())
    }
}

fn count(number: u32, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn is_or_are(replicas: u32) -> String {
    format!("{} {}", count(replicas, "replica"), if replicas == 1 { "is" } else { "are" })
}

fn was_or_were(replicas: u32) -> String {
    format!("{} {}", count(replicas, "replica"), if replicas == 1 { "was" } else { "were" })
}

fn there_are(replicas: u32) -> String {
    format!("there {} {}", if replicas == 1 { "is" } else { "are" }, count(replicas, "replica"))
}
