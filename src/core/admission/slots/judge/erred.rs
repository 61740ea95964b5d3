//! What an answer with 500 does to the standing of its replica.

use std::time::{Duration, Instant};

use super::super::{Phase, Slots};
use super::{Moment, TARGET};
use crate::core::admission::standing::{Standing, Why};

/// First pause before a trial: what makes a model answer so does not pass in a second.
const PAUSE: Duration = Duration::from_secs(4);

impl Slots {
    /// An answer with 500: as good as any other, unless it is one of a row that its siblings do not have.
    pub(super) fn erred(&mut self, index: usize, until: Instant, Moment { seconds, at, .. }: Moment) -> bool {
        let beside = self.errors_beside(index);
        let good = self.replicas.iter().filter(|other| other.phase == Phase::Ready && other.health.is_good());
        let worst = good.map(|other| other.health.pace.peak()).fold(f64::NEG_INFINITY, f64::max);
        let health = &mut self.replicas[index].health;
        // Who fails quickly must not come first for that, or its siblings have nothing to show beside it.
        health.pace.note_aside(seconds, at, worst);
        self.peaks.1 = self.peaks.1.max(health.pace.peak());
        health.remember(false);
        health.errors.error(self.judge.answers);
        health.heard = true;
        let is_judged = self.judge.on && self.replicas[index].phase == Phase::Ready;
        let health = &mut self.replicas[index].health;
        if is_judged && health.errors.is_broken(beside) {
            if health.standing != Standing::Ejected {
                let why = Some(Why::Erred { row: health.errors.row() });
                self.replicas[index].health.blame(Standing::Failing, why, until);
                if self.can_spare(index, TARGET) {
                    self.replicas[index].health.eject(why, PAUSE, until);
                }
                self.recount();
            }
            return true;
        }
        if health.is_clean() {
            return false;
        }
        health.relieve();
        matches!(health.standing, Standing::Good | Standing::Probation | Standing::Silent)
    }
}
