//! The lines that a simulator writes, and what is wrong with one.

use serde::Deserialize;

use super::fields;
use crate::core::scale::Signals;

/// The first line. What else is in it is not needed here.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Config {
    #[serde(rename = "type")]
    _kind: Kind,
    /// Time between two evaluations, in seconds.
    pub(super) tick: f64,
    /// Fewest replicas.
    pub(super) min: u32,
    /// Most replicas.
    pub(super) max: u32,
    /// Longest time in the queue, in seconds.
    pub(super) queue_wait: f64,
    /// Busy share of the slots to aim at.
    #[serde(default = "seventy_percent")]
    target_utilization: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Config,
}

fn seventy_percent() -> f64 {
    0.7
}

impl Config {
    /// Busy share of the slots to aim at, in percent.
    pub(super) fn target_percent(&self) -> u32 {
        (self.target_utilization * 100.0).round() as u32
    }
}

/// Reads the first line.
pub(super) fn config(text: &[u8]) -> Result<Config, String> {
    let config: Config = serde_json::from_slice(text).map_err(|_| fields::config(text))?;
    // A day, for both: nobody means more.
    within("tick", config.tick, 0.001, 86_400.0)?;
    within("queue_wait", config.queue_wait, 0.0, 86_400.0)?;
    within("target_utilization", config.target_utilization, 0.01, 1.0)?;
    Ok(config)
}

/// Reads an evaluation; `last` is the time of the one before.
pub(super) fn tick(text: &[u8], last: Option<f64>) -> Result<Signals, String> {
    let seen: Signals = serde_json::from_slice(text).map_err(|_| fields::tick(text))?;
    if seen.dt <= 0.0 {
        return Err(format!("`dt` is {}; it must be more than 0", seen.dt));
    }
    if let Some(last) = last.filter(|last| *last >= seen.t) {
        return Err(format!("`t` is {}, and was {last} in the line before; it must grow", seen.t));
    }
    match seen.negative() {
        Some((name, sum)) => Err(format!("`{name}` is {sum}; it must not be less than 0")),
        None => Ok(seen),
    }
}

fn within(name: &str, number: f64, least: f64, most: f64) -> Result<(), String> {
    if (least..=most).contains(&number) {
        return Ok(());
    }
    Err(format!("`{name}` is {number}; it must be from {least} to {most}"))
}
