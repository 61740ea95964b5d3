//! A replica beside its siblings: how often the good ones fail, how fast the others are, and whether the good ones carry
//! the load without it.

use std::time::Instant;

use super::super::{Phase, Slots};
use super::Judge;
use crate::core::admission::standing::Standing;

/// Time over which the load is averaged, in seconds.
const SPAN: f64 = 5.0;

/// The good siblings of a replica.
pub(super) struct Siblings {
    pub(super) any: bool,
    pub(super) slots: f64,
    /// Share of their last requests that failed.
    pub(super) failing: f64,
}

impl Slots {
    /// Whether the good siblings carry the load without this one, up to a share of their slots. Whoever answers nothing
    /// carries nothing, and is missed by nobody.
    pub(super) fn can_spare(&self, index: usize, share: f64) -> bool {
        let siblings = self.siblings(index);
        siblings.any && (self.replicas[index].health.is_barren() || self.is_carried(&siblings, share))
    }

    /// Whether there is too much to do for the good siblings of one that answered 500: they have too few slots, or no
    /// fewer requests were turned away within a second than trials of all such replicas may cost.
    pub(super) fn is_missed(&self, index: usize) -> bool {
        let ready = self.replicas.iter().filter(|replica| replica.phase == Phase::Ready);
        let trials = ready.filter(|replica| replica.health.is_doubtful()).count();
        let lost = self.judge.turned_away.into_iter().max().unwrap_or(0);
        lost as usize >= trials || !self.is_carried(&self.siblings(index), 1.0)
    }

    /// Whether the load takes no more than a share of these slots.
    fn is_carried(&self, by: &Siblings, share: f64) -> bool {
        let offered = self.judge.offered().unwrap_or_else(|| self.load.busy.into());
        by.slots * share >= offered
    }

    pub(super) fn siblings(&self, index: usize) -> Siblings {
        let limit = self.most();
        let mut siblings = Siblings { any: false, slots: 0.0, failing: 0.0 };
        let (mut failed, mut seen) = (0, 0);
        for (other, replica) in self.replicas.iter().enumerate() {
            let most = replica.most(limit);
            if other != index && replica.phase == Phase::Ready && replica.health.is_good() && most > 0 {
                let record = replica.health.record();
                (failed, seen) = (failed + record.0, seen + record.1);
                siblings.any = true;
                siblings.slots += f64::from(most);
            }
        }
        siblings.failing = f64::from(failed) / f64::from(seen.max(1));
        siblings
    }

    /// 500s among the last answers of the siblings that are given work, and how many these are. Those that are already
    /// known to be bad do not count; those that are only suspected do, since bad input makes all suspects alike.
    pub(super) fn errors_beside(&self, index: usize) -> (u32, u32) {
        let mut record = (0, 0);
        for (other, replica) in self.replicas.iter().enumerate() {
            let counts =
                matches!(replica.health.standing, Standing::Good | Standing::Slow | Standing::Silent);
            if other != index && replica.phase == Phase::Ready && counts {
                let (errors, seen) = replica.health.errors.record();
                record = (record.0 + errors, record.1 + seen);
            }
        }
        record
    }

    /// Typical time of those replicas that are given work, as a logarithm: the middle one's, the faster one of two.
    pub(super) fn middle(&self, counts: impl Fn(usize) -> bool) -> Option<f64> {
        let given_work = self.replicas.iter().enumerate().filter(|(index, replica)| {
            counts(*index) && replica.phase == Phase::Ready && replica.health.standing != Standing::Ejected
        });
        let mut times: Vec<f64> =
            given_work.filter_map(|(_, replica)| replica.health.pace.typical()).collect();
        times.sort_unstable_by(f64::total_cmp);
        times.get(times.len().saturating_sub(1) / 2).copied()
    }

    /// How many times slower than the middle one it is, as a logarithm.
    pub(super) fn slowness(&self, index: usize, middle: Option<f64>) -> Option<f64> {
        Some(self.replicas[index].health.pace.typical()? - middle?)
    }

    /// Too young to be called slow, or with slots that still grow.
    pub(super) fn is_warming_up(&self, index: usize) -> bool {
        let replica = &self.replicas[index];
        replica.health.is_young() || replica.cap.is_some()
    }

    /// By how much a replica may seem slower by chance: three standard errors.
    pub(super) fn chance(&self, index: usize) -> f64 {
        3.0 * (self.judge.spread / self.replicas[index].health.pace.count.max(1.0)).sqrt()
    }
}

impl Judge {
    /// How many requests ask each second.
    pub(super) fn measure(&mut self, now: Instant) {
        let (at, before) = self.measured.unwrap_or((now, self.asked));
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        // Reviews that follow each other closely would measure noise.
        if self.measured.is_some() && seconds < 0.5 {
            return;
        }
        self.measured = Some((now, self.asked));
        self.turned_away = [0, self.turned_away[0]];
        if seconds > 0.0 {
            let rate = (self.asked - before) as f64 / seconds;
            let old = self.rate.unwrap_or(rate);
            self.rate = Some(old + (rate - old) * seconds / (SPAN + seconds));
        }
    }

    /// Slots that all who ask would take on good replicas (Little's law), the rejected included; `None` before that was
    /// measured.
    fn offered(&self) -> Option<f64> {
        self.rate.filter(|_| self.service > 0.0).map(|rate| rate * self.service)
    }
}
