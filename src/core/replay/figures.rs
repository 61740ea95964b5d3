//! What is told of a stretch of time, whether it was lived or simulated.

use serde::Serialize;

/// A change that turns the one before it back within so many seconds is a turn.
const TURN: f64 = 120.0;

/// The number of replicas asked for was changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// When, in seconds since the start of the run.
    pub at: f64,
    /// Before.
    pub from: u32,
    /// After.
    pub to: u32,
}

/// What happened, or would have happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Requests that asked for a slot.
    pub requests: u64,
    /// Of those, the ones that were refused.
    pub rejected: u64,
    /// Of those, the ones whose client left while it waited.
    pub left: u64,
    /// Mean wait of those that had a slot, in milliseconds.
    pub wait_mean_ms: f64,
    /// The wait that half of them did not exceed, in milliseconds.
    pub wait_p50_ms: f64,
    /// The wait that 99 of 100 of them did not exceed, in milliseconds.
    pub wait_p99_ms: f64,
    /// Seconds of all replicas together, from the order to the end of each.
    pub replica_seconds: f64,
    /// Most replicas asked for.
    pub most_replicas: u32,
    /// Changes of the number of replicas asked for.
    pub changes: u64,
    /// Of those, the ones that turn back the one before within 120 s.
    pub turns: u64,
}

impl Figures {
    /// From the waits of those that had a slot (in nanoseconds, in any order), the number asked for in the beginning and its
    /// changes (in order of time); the counts and replica-seconds are left to the caller.
    pub(crate) fn of(mut waits: Vec<u64>, at_first: u32, changes: &[Change]) -> Self {
        waits.sort_unstable();
        // The nearest rank: the smallest that is not exceeded by so many of a hundred.
        let percentile = |of_hundred: usize| {
            let rank = (waits.len() * of_hundred).div_ceil(100).max(1);
            waits.get(rank - 1).map_or(0.0, |wait| *wait as f64 / 1e6)
        };
        let sum = sum(waits.iter().map(|wait| *wait as f64 / 1e6));
        let turns = changes.windows(2).filter(|pair| {
            let (one, next) = (pair[0], pair[1]);
            (one.to > one.from) != (next.to > next.from) && next.at - one.at <= TURN
        });
        Self {
            wait_mean_ms: if waits.is_empty() { 0.0 } else { sum / waits.len() as f64 },
            wait_p50_ms: percentile(50),
            wait_p99_ms: percentile(99),
            most_replicas: changes.iter().map(|change| change.to).fold(at_first, u32::max),
            changes: changes.len() as u64,
            turns: turns.count() as u64,
            ..Self::default()
        }
    }
}

/// The sum of nothing is 0; the standard library's is -0.0.
pub(super) fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |sum, number| sum + number)
}
