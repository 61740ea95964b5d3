//! A recording lived again: the rule asked anew with what it saw (`verify`), and a deployment in virtual time that is made of
//! the same pool and the same rule (`world`). Pure; what a recording says and how results are shown is others' part.

mod figures;
mod script;
#[cfg(test)]
mod tests;
mod world;

use std::sync::Arc;

use crate::core::recording::{How, Tick};
use crate::core::scale::{History, at_once, decide};
use crate::core::settings::DeploymentSettings;

pub use figures::{Change, Figures};
pub use script::{Arrival, Notes, Script};
pub use world::simulate;

/// Something that the rule of a deployment was told, in the order of the recording.
#[derive(Clone, Debug)]
pub enum Step {
    /// Other settings, in force from this time on (nanoseconds since the start of the run).
    Settings(u64, Arc<DeploymentSettings>),
    /// A question, and the answer that it got.
    Tick(Box<Tick<'static>>),
}

/// How the rule's answers compare with the recorded ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Questions that were asked again.
    pub questions: u64,
    /// Of those, the ones with another answer.
    pub differences: u64,
    /// The first of them.
    pub first: Option<Difference>,
    /// The recording has the rule's first question, so that it knew as much as it did then. Otherwise there may be
    /// differences until it has forgotten what was before.
    pub from_the_beginning: bool,
}

/// Another answer than the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// When, in nanoseconds since the start of the run.
    pub t: u64,
    /// What the rule said then.
    pub recorded: u32,
    /// What it says now.
    pub now: u32,
}

/// Asks the rule again, with the settings and signals that it had.
pub fn verify(steps: &[Step]) -> Verified {
    let mut verified = Verified::default();
    let mut history = History::default();
    let mut settings = None;
    for step in steps {
        let tick = match step {
            Step::Settings(_, new) => {
                settings = Some(new);
                continue;
            }
            Step::Tick(tick) => tick,
        };
        let Some(settings) = settings else { continue };
        let seen = &tick.signals;
        if tick.how == How::First {
            history = History::default();
            verified.from_the_beginning |= verified.questions == 0;
        }
        let now = if tick.how == How::AtOnce {
            let desired = at_once(&settings.scale, &history, seen).map_or(tick.from, |said| said.desired);
            history.raised(seen.t, desired);
            desired
        } else {
            decide(&settings.scale, &mut history, seen).desired
        };
        verified.questions += 1;
        let recorded = tick.said();
        if now != recorded {
            verified.differences += 1;
            let difference = Difference { t: tick.t, recorded, now };
            verified.first.get_or_insert(difference);
        }
    }
    verified
}
