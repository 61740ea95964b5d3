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
        // Who fails quickly must not come first for that: siblings are known by the peaks of their times.
        let seconds = seconds.max(2.0 * self.judge.service);
        let beside = self.errors_beside(index);
        let health = &mut self.replicas[index].health;
        health.pace.note_aside(seconds, at);
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
