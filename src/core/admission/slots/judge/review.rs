//! What a review does: one step of each replica from one standing to the next, and the promise that never all are out.

use std::time::Instant;

use super::super::{Phase, Slots};
use super::{FAR_SLOWER, PAUSE, TARGET};
use crate::core::admission::health::SUSPECT;
use crate::core::admission::pace::exp2;
use crate::core::admission::standing::{Standing, Why};

/// As fast again: less than twice its siblings.
const AS_FAST: f64 = 1.0;
/// A replica may be silent for so many times the usual service time, and for a second in any case.
const PATIENCE: f64 = 10.0;

impl Slots {
    /// Gives back what was taken, takes what is not needed, tries again what has had its pause. To be called each second,
    /// and whenever asked for; slots may be free afterwards.
    pub(in super::super::super) fn review(&mut self, now: Instant) {
        self.judge.now = Some(now);
        self.judge.measure(now);
        self.follow();
        if self.judge.on {
            let middle = self.middle(|_| true);
            for index in 0..self.replicas.len() {
                if self.replicas[index].phase == Phase::Ready {
                    self.progress(index, now, middle);
                }
            }
            self.rescue();
        }
        self.recount();
    }

    fn progress(&mut self, index: usize, now: Instant, middle: Option<f64>) {
        let limit = self.most();
        let answers = self.judge.answers;
        let slow = self.slowness(index, middle);
        let is_warm = !self.is_warming_up(index);
        self.replicas[index].health.pass(now);
        let health = &self.replicas[index].health;
        let why = health.why;
        match health.standing {
            Standing::Good => {
                self.replicas[index].health.grow(limit);
                if let Some(times) = slow.filter(|slow| is_warm && *slow > FAR_SLOWER + self.chance(index)) {
                    let why = Some(Why::Slow { times: exp2(times) });
                    self.take_out(index, Standing::Slow, why, now);
                } else {
                    self.listen(index, now, answers);
                }
            }
            Standing::Failing | Standing::Slow => {
                let is_over = match health.standing {
                    Standing::Slow => slow.is_some_and(|slow| slow < AS_FAST),
                    _ => health.score < SUSPECT,
                };
                self.replicas[index].health.grow(limit);
                if is_over {
                    self.replicas[index].health.acquit(now);
                } else if self.can_spare(index, TARGET) {
                    self.replicas[index].health.eject(None, PAUSE, now);
                }
            }
            Standing::Silent => {
                if health.heard || self.replicas[index].busy == 0 || !self.can_spare(index, 1.0) {
                    self.replicas[index].health.cap = u32::MAX;
                    self.replicas[index].health.acquit(now);
                }
            }
            Standing::Ejected => self.reconsider(index, now, why),
            Standing::Probation => {
                self.replicas[index].health.grow(limit);
                let health = &self.replicas[index].health;
                let is_slow = health.is_tried_for_speed() && slow.is_none_or(|slow| slow > FAR_SLOWER);
                if health.has_passed(is_slow) {
                    self.replicas[index].health.acquit(now);
                }
            }
        }
        let replica = &mut self.replicas[index];
        if replica.busy == 0 || replica.health.heard {
            replica.health.quiet = None;
        }
        if replica.busy == 0 {
            replica.health.overdue = 0;
            replica.health.old = 0;
        }
        replica.health.heard = false;
    }

    /// One that was taken out is tried again after its pause, or given work again because it is needed.
    fn reconsider(&mut self, index: usize, now: Instant, why: Option<Why>) {
        let replica = &self.replicas[index];
        let (busy, health) = (replica.busy, &replica.health);
        // Bad input looks like a model that is broken. Where that costs clients their slots, an answer with 500 each
        // second is the lesser loss.
        let is_early = health.is_doubtful() && health.is_out_for(PAUSE, now) && self.is_missed(index);
        // What it holds for longer than its time may never end.
        let has_room = busy < replica.room(self.most()) && health.overdue == 0;
        if has_room && (is_early || health.may_try(now)) {
            self.replicas[index].health.try_again(busy);
        } else if !self.can_spare(index, 1.0) {
            self.take_back(index, why, now);
        }
    }

    /// Taken out if the others carry the load, otherwise given work last.
    pub(super) fn take_out(&mut self, index: usize, standing: Standing, why: Option<Why>, now: Instant) {
        let spare = self.can_spare(index, TARGET);
        let health = &mut self.replicas[index].health;
        if spare { health.eject(why, PAUSE, now) } else { health.blame(standing, why, now) }
    }

    /// One that was taken out is needed.
    fn take_back(&mut self, index: usize, why: Option<Why>, now: Instant) {
        let health = &mut self.replicas[index].health;
        let is_slow = matches!(why, Some(Why::Slow { .. }));
        health.cap = if is_slow { u32::MAX } else { 1 };
        health.blame(if is_slow { Standing::Slow } else { Standing::Failing }, None, now);
    }

    /// Nothing new goes to a replica that has not answered for long while its siblings did.
    fn listen(&mut self, index: usize, now: Instant, answers: u64) {
        let patience = (PATIENCE * self.judge.service).max(1.0);
        let replica = &mut self.replicas[index];
        if replica.busy == 0 || replica.health.heard {
            return;
        }
        let (since, before) = *replica.health.quiet.get_or_insert((now, answers));
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        if seconds >= patience && answers >= before + 3 && self.can_spare(index, TARGET) {
            let health = &mut self.replicas[index].health;
            health.blame(Standing::Silent, Some(Why::Silent { seconds }), now);
            health.cap = 0;
        }
    }

    /// Never all out: when no replica may be given anything, those that were taken out are.
    pub(in super::super) fn rescue(&mut self) {
        let Some(now) = self.judge.now else { return };
        let most = self.most();
        let mut usable =
            self.replicas.iter().filter(|replica| replica.phase == Phase::Ready && replica.cap != Some(0));
        if usable.any(|replica| replica.most(most) > 0) {
            return;
        }
        for index in 0..self.replicas.len() {
            let health = &mut self.replicas[index].health;
            match health.standing {
                Standing::Ejected => {
                    let why = health.why;
                    self.take_back(index, why, now);
                }
                Standing::Silent => {
                    health.cap = u32::MAX;
                    health.acquit(now);
                }
                Standing::Good | Standing::Slow | Standing::Failing | Standing::Probation => {}
            }
        }
    }
}
