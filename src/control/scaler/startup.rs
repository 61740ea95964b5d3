//! How long replicas of a deployment take from their start to their first readiness, as far as it was seen.

use std::time::{Duration, Instant};

/// Weight of a new start in the mean, as in the rule `adaptive`: one slow start among many is not the rule.
const NEW: f64 = 0.1;

/// The learned time, and the starts that nobody has counted yet.
#[derive(Debug, Default)]
pub(super) struct StartUp {
    mean: Option<f64>,
    count: u32,
    sum: f64,
}

impl StartUp {
    /// A replica has become ready for the first time, so long after its start. The first one is believed, later ones move
    /// the mean.
    pub(super) fn learn(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.count += 1;
        self.sum += took;
        self.mean = Some(self.mean.map_or(took, |mean| mean + NEW * (took - mean)));
    }

    /// How many starts there were since the last call, and how long they took in all, in seconds.
    pub(super) fn take(&mut self) -> (u32, f64) {
        (std::mem::take(&mut self.count), std::mem::take(&mut self.sum))
    }

    /// When replicas will be ready that were started at these times; nothing before the first one was.
    pub(super) fn expected(&self, started: impl Iterator<Item = Instant>) -> Vec<Instant> {
        let Some(mean) = self.mean.and_then(|mean| Duration::try_from_secs_f64(mean).ok()) else {
            return Vec::new();
        };
        let mut moments: Vec<Instant> = started.filter_map(|at| at.checked_add(mean)).collect();
        moments.sort_unstable();
        moments
    }
}
