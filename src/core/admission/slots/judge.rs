//! Passive health: what the ends of requests say of a replica beside its siblings, and what that does to its slots.
//!
//! Failures weigh by how rare they are among the good siblings: where all fail alike it is the model or its input, and
//! nothing is held against anybody. Whoever is worse loses slots first and all of them only while the good ones carry
//! the load, or when it answers nothing at all; never the last one. Slots are taken away at once and given back by
//! [`Slots::review`] only, whose caller hands them out.

use std::time::{Duration, Instant};

use super::{Phase, Slots};
use crate::core::admission::ReplicaId;
use crate::core::admission::health::{GUILTY, SUSPECT};
use crate::core::admission::pace::{exp2, log2};
use crate::core::admission::standing::{Report, Standing, Why};
use crate::core::admission::tally::{Outcome, Use};

/// Share of the good siblings' slots that the load may take when a replica is taken out.
const TARGET: f64 = 0.9;
/// First pause before a trial.
const PAUSE: Duration = Duration::from_secs(1);
/// Far slower: this many times its siblings, in powers of two (3 times), beyond what chance explains.
const FAR_SLOWER: f64 = 1.585;
/// As fast again: less than twice its siblings.
const AS_FAST: f64 = 1.0;
/// A replica may be silent for so many times the usual service time, and for a second in any case.
const PATIENCE: f64 = 10.0;
/// Share of failures that the best replica is thought to have.
const RARE: f64 = 0.02;
/// Time over which the load is averaged, in seconds.
const SPAN: f64 = 5.0;

/// What is known of the deployment as a whole.
#[derive(Debug)]
pub(super) struct Judge {
    on: bool,
    began: Option<Instant>,
    now: Option<Instant>,
    /// Requests that asked for a slot, and answers, since the beginning.
    asked: u64,
    answers: u64,
    /// The last measurement, and what had asked until then.
    measured: Option<(Instant, u64)>,
    /// Requests that ask each second, smoothed.
    rate: Option<f64>,
    /// Seconds of an answer of a good replica, smoothed; 0 before the first one.
    service: f64,
    /// Variance of service times on one replica, in powers of two.
    spread: f64,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            on: true,
            began: None,
            now: None,
            asked: 0,
            answers: 0,
            measured: None,
            rate: None,
            service: 0.0,
            spread: 0.25,
        }
    }
}

/// The good siblings of a replica.
struct Siblings {
    any: bool,
    slots: f64,
    /// Share of their last requests that failed.
    failing: f64,
}

impl Slots {
    /// Whether anything is held against anybody.
    pub(in super::super) fn set_health(&mut self, on: bool) {
        self.judge.on = on;
        if !on {
            let now = self.judge.now;
            for replica in &mut self.replicas {
                replica.health.score = 0.0;
                replica.health.cap = u32::MAX;
                now.into_iter().for_each(|now| replica.health.acquit(now));
            }
            self.recount();
        }
    }

    /// A request asks for a slot.
    pub(in super::super) fn asked(&mut self) {
        self.judge.asked += 1;
    }

    /// The use of a slot ends, before it is given back; `waited` tells whether somebody waits for it. Whether a review is
    /// due.
    pub(in super::super) fn note(&mut self, id: ReplicaId, used: &Use, waited: bool) -> bool {
        let Ok(index) = self.find(id) else { return false };
        self.judge.now = Some(used.until);
        let found = match &mut self.auto {
            Some(knee) if used.outcome == Outcome::Answered => {
                knee.answered(waited, self.load.ready, self.judge.spread)
            }
            _ => false,
        };
        found | self.judge_use(index, used)
    }

    fn judge_use(&mut self, index: usize, used: &Use) -> bool {
        match used.outcome {
            Outcome::Answered => self.answered(index, used),
            Outcome::GivenUp => {
                let health = &mut self.replicas[index].health;
                // The trial has shown nothing.
                health.trial = health.standing == Standing::Probation && health.cap == 1;
                false
            }
            Outcome::TimedOut if self.replicas[index].health.overdue > 0 => {
                self.replicas[index].health.overdue -= 1;
                false
            }
            Outcome::Broken | Outcome::TimedOut | Outcome::Unreachable => self.failed(index, used.time()),
        }
    }

    /// A request on the replica is given up for its time, and still holds its slot. Whether a review is due.
    pub(in super::super) fn overdue(&mut self, id: ReplicaId, since: Instant, now: Instant) -> bool {
        let Ok(index) = self.find(id) else { return false };
        self.judge.now = Some(now);
        self.replicas[index].health.overdue += 1;
        self.failed(index, now.saturating_duration_since(since))
    }

    fn answered(&mut self, index: usize, used: &Use) -> bool {
        let seconds = used.time().as_secs_f64();
        let began = *self.judge.began.get_or_insert(used.until);
        let at = used.until.saturating_duration_since(began).as_secs_f64();
        let reference = if self.replicas[index].health.standing == Standing::Probation {
            self.reference(index)
        } else {
            None
        };
        let judge = &mut self.judge;
        let health = &mut self.replicas[index].health;
        judge.answers += 1;
        judge.spread += (health.pace.note(seconds, at) - judge.spread) / 64.0;
        health.remember(false);
        health.heard = true;
        if health.standing == Standing::Good {
            judge.service += (seconds - judge.service) / if judge.service > 0.0 { 32.0 } else { 1.0 };
        }
        if health.is_clean() {
            return false;
        }
        health.relieve();
        if let Some(reference) = reference
            && log2(seconds) > reference + FAR_SLOWER
        {
            let why = Why::Slow { times: exp2(log2(seconds) - reference) };
            health.eject(Some(why), PAUSE, used.until);
            self.recount();
            return true;
        }
        // The others can wait for the next second: one that goes on failing would call at each answer.
        matches!(health.standing, Standing::Good | Standing::Probation | Standing::Silent)
    }

    fn failed(&mut self, index: usize, took: Duration) -> bool {
        let now = self.judge.now.expect("set by the caller");
        self.replicas[index].health.remember(true);
        if !self.judge.on || self.replicas[index].phase != Phase::Ready {
            return false;
        }
        let siblings = self.siblings(index);
        if !siblings.any {
            return false;
        }
        let most = self.replicas[index].most(self.most());
        let replica = &mut self.replicas[index];
        let held = if most == u32::MAX { replica.busy } else { most };
        let health = &mut replica.health;
        let why = Some(health.failures());
        health.accuse((0.5 / siblings.failing.max(RARE)).ln().max(0.0));
        let on_trial = health.standing == Standing::Probation;
        if health.score >= SUSPECT {
            health.halve(held);
        }
        let guilty = health.score >= GUILTY || on_trial;
        if guilty && health.standing != Standing::Ejected {
            health.blame(Standing::Failing, why, now);
            if self.can_spare(index, TARGET) {
                // A trial that costs a client its time-out comes the later.
                self.replicas[index].health.eject(why, PAUSE.max(2 * took), now);
            }
        }
        self.recount();
        true
    }

    /// Gives back what was taken, takes what is not needed, tries again what has had its pause. To be called each second,
    /// and whenever asked for; slots may be free afterwards.
    pub(in super::super) fn review(&mut self, now: Instant) {
        self.judge.now = Some(now);
        self.judge.measure(now);
        self.follow();
        if self.judge.on {
            for index in 0..self.replicas.len() {
                if self.replicas[index].phase == Phase::Ready {
                    self.progress(index, now);
                }
            }
            self.rescue();
        }
        self.recount();
    }

    fn progress(&mut self, index: usize, now: Instant) {
        let limit = self.most();
        let answers = self.judge.answers;
        let slow = self.slowness(index);
        let health = &self.replicas[index].health;
        let why = health.why;
        match health.standing {
            Standing::Good => {
                self.replicas[index].health.grow(limit);
                if let Some(times) = slow.filter(|slow| *slow > FAR_SLOWER + self.chance(index)) {
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
            Standing::Ejected => {
                // What it still holds may never end.
                if health.may_try(now) && self.replicas[index].busy == 0 {
                    self.replicas[index].health.try_again();
                } else if !self.can_spare(index, 1.0) {
                    self.take_back(index, why, now);
                }
            }
            Standing::Probation => {
                self.replicas[index].health.grow(limit);
                if self.replicas[index].health.has_passed() {
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
        }
        replica.health.heard = false;
    }

    /// Taken out if the others carry the load, otherwise given work last.
    fn take_out(&mut self, index: usize, standing: Standing, why: Option<Why>, now: Instant) {
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
        let spare = self.can_spare(index, TARGET);
        let replica = &mut self.replicas[index];
        if replica.busy == 0 || replica.health.heard {
            return;
        }
        let (since, before) = *replica.health.quiet.get_or_insert((now, answers));
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        if seconds >= patience && answers >= before + 3 && spare {
            replica.health.blame(Standing::Silent, Some(Why::Silent { seconds }), now);
            replica.health.cap = 0;
        }
    }

    /// Never all out: when no replica may be given anything, those that were taken out are.
    pub(super) fn rescue(&mut self) {
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

    /// Whether the good siblings carry the load without this one, up to a share of their slots. Whoever answers nothing
    /// carries nothing, and is missed by nobody.
    fn can_spare(&self, index: usize, share: f64) -> bool {
        let siblings = self.siblings(index);
        let offered = self.judge.offered().unwrap_or_else(|| self.load.busy.into());
        siblings.any && (self.replicas[index].health.is_barren() || siblings.slots * share >= offered)
    }

    fn siblings(&self, index: usize) -> Siblings {
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

    /// Typical time of the siblings that are given work, as a logarithm: the middle one's.
    fn reference(&self, index: usize) -> Option<f64> {
        let others = self.replicas.iter().enumerate().filter(|(other, replica)| {
            *other != index && replica.phase == Phase::Ready && replica.health.standing != Standing::Ejected
        });
        let mut times: Vec<f64> = others.filter_map(|(_, replica)| replica.health.pace.typical()).collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len().saturating_sub(1) / 2).copied()
    }

    /// How many times slower than its siblings it is, as a logarithm.
    fn slowness(&self, index: usize) -> Option<f64> {
        let own = self.replicas[index].health.pace.typical()?;
        Some(own - self.reference(index)?)
    }

    /// By how much a replica may seem slower by chance: three standard errors.
    fn chance(&self, index: usize) -> f64 {
        3.0 * (self.judge.spread / self.replicas[index].health.pace.count.max(1.0)).sqrt()
    }

    /// The standing of each replica that admits requests.
    pub(in super::super) fn reports(&self) -> Vec<Report> {
        let ready = self.replicas.iter().filter(|replica| replica.phase == Phase::Ready);
        ready
            .map(|replica| {
                let health = &replica.health;
                Report {
                    replica: replica.id,
                    standing: health.standing,
                    since: health.since,
                    why: health.why,
                }
            })
            .collect()
    }
}

impl Judge {
    /// How many requests ask each second.
    fn measure(&mut self, now: Instant) {
        let (at, before) = self.measured.unwrap_or((now, self.asked));
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        // Reviews that follow each other closely would measure noise.
        if self.measured.is_some() && seconds < 0.5 {
            return;
        }
        self.measured = Some((now, self.asked));
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
