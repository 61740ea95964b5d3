//! Passive health: what the ends of requests say of a replica beside its siblings, and what that does to its slots.
//!
//! Failures weigh by how rare they are among the good siblings: where all fail alike it is the model or its input, and
//! nothing is held against anybody. Whoever is worse loses slots first and all of them only while the good ones carry
//! the load, or when it answers nothing at all; never the last one. Slots are taken away at once and given back by
//! [`Slots::review`] only, whose caller hands them out.

mod erred;
mod review;
mod siblings;

use std::time::{Duration, Instant};

use super::{Phase, Slots};
use crate::core::admission::ReplicaId;
use crate::core::admission::health::{GUILTY, Health, SUSPECT};
use crate::core::admission::pace::exp2;
use crate::core::admission::standing::{Report, Standing, Why};
use crate::core::admission::tally::{Outcome, Use};

/// Share of the good siblings' slots that the load may take when a replica is taken out.
const TARGET: f64 = 0.9;
/// First pause before a trial.
const PAUSE: Duration = Duration::from_secs(1);
/// Far slower: this many times its siblings, in powers of two (3 times), beyond what chance explains.
const FAR_SLOWER: f64 = 1.585;
/// Share of failures that the best replica is thought to have.
const RARE: f64 = 0.02;

/// What is known of the deployment as a whole.
#[derive(Debug)]
pub(super) struct Judge {
    on: bool,
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
    /// How many were turned away since the last measurement, and between that and the one before.
    turned_away: [u32; 2],
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            on: true,
            now: None,
            asked: 0,
            answers: 0,
            measured: None,
            rate: None,
            service: 0.0,
            spread: 0.25,
            turned_away: [0; 2],
        }
    }
}

/// What the pool knows of the end of a use.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Moment {
    /// How long the slot was held, in seconds.
    pub(in super::super) seconds: f64,
    /// When that was, in seconds since the pool's first event.
    pub(in super::super) at: f64,
    /// Somebody waits for the slot.
    pub(in super::super) waited: bool,
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

    /// A request is not given a slot in its time.
    pub(in super::super) fn turned_away(&mut self) {
        self.judge.turned_away[0] = self.judge.turned_away[0].saturating_add(1);
    }

    /// The use of a slot ends, before it is given back. Whether a review is due.
    pub(in super::super) fn note(&mut self, place: usize, used: &Use, moment: Moment) -> bool {
        self.judge.now = Some(used.until);
        let is_whole = self.replicas[place].whole;
        let found = match &mut self.auto {
            Some(knee) if used.outcome == Outcome::Answered && is_whole => {
                knee.answered(moment.waited, self.whole.ready, self.judge.spread)
            }
            _ => false,
        };
        found | self.judge_use(place, used, moment)
    }

    /// A request that the replica had before it was taken out ends while it is tried again: says nothing new of it.
    fn end_old(&mut self, index: usize, used: &Use) {
        let health = &mut self.replicas[index].health;
        health.old = health.old.saturating_sub(1);
        health.overdue -= u32::from(used.outcome == Outcome::TimedOut && health.overdue > 0);
        self.recount();
    }

    fn judge_use(&mut self, index: usize, used: &Use, moment: Moment) -> bool {
        if self.replicas[index].health.is_from_before(used.since) {
            self.end_old(index, used);
            return false;
        }
        match used.outcome {
            Outcome::Answered => self.answered(index, used.until, moment),
            Outcome::Failed => self.erred(index, used.until, moment),
            Outcome::GivenUp => {
                let health = &mut self.replicas[index].health;
                // The trial has shown nothing.
                health.trial = health.standing == Standing::Probation && health.cap == 1;
                self.tries |= health.trial;
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
        let health = &mut self.replicas[index].health;
        health.overdue += 1;
        !health.is_from_before(since) && self.failed(index, now.saturating_duration_since(since))
    }

    fn answered(&mut self, index: usize, until: Instant, Moment { seconds, at, .. }: Moment) -> bool {
        let is_timed = self.replicas[index].health.is_tried_for_speed() && !self.is_warming_up(index);
        let reference = if is_timed { self.middle(|other| other != index) } else { None };
        let judge = &mut self.judge;
        let health = &mut self.replicas[index].health;
        judge.answers += 1;
        judge.spread += (health.pace.note(seconds, at) - judge.spread) / 64.0;
        health.age();
        self.peaks.1 = self.peaks.1.max(health.pace.peak());
        health.remember(false);
        health.errors.good();
        health.heard = true;
        if health.standing == Standing::Good {
            judge.service += (seconds - judge.service) / if judge.service > 0.0 { 32.0 } else { 1.0 };
        }
        if health.is_clean() {
            return false;
        }
        health.relieve();
        let times = reference.map(|reference| health.pace.at_first_sight() - reference);
        if let Some(times) = times
            && times > FAR_SLOWER + self.chance(index)
        {
            let why = Why::Slow { times: exp2(times) };
            self.take_out(index, Standing::Slow, Some(why), until);
            self.recount();
            return true;
        }
        // The others can wait for the next second: one that goes on failing would call at each answer.
        matches!(
            self.replicas[index].health.standing,
            Standing::Good | Standing::Probation | Standing::Silent
        )
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
        // What fails now on one that is out was given to it before.
        let is_out = matches!(health.standing, Standing::Ejected | Standing::Silent);
        if health.score >= SUSPECT && !is_out {
            health.halve(held);
        }
        let guilty = health.score >= GUILTY || on_trial;
        if guilty && health.standing != Standing::Ejected {
            health.blame(Standing::Failing, why, now);
            if self.can_spare(index, TARGET) {
                // A trial that costs a client its time-out comes the later.
                self.replicas[index].health.eject(why, PAUSE.max(2 * took), now);
            } else if is_out {
                self.replicas[index].health.cap = 1;
            }
        }
        self.recount();
        true
    }

    /// The standing of each replica that admits requests.
    pub(in super::super) fn reports(&self) -> Vec<Report> {
        let is_new = |health: &Health| self.judge.now.is_none_or(|now| health.is_new(now));
        let ready = self.replicas.iter().filter(|replica| replica.phase == Phase::Ready);
        ready
            .map(|replica| {
                let health = &replica.health;
                Report {
                    replica: replica.id,
                    standing: health.standing,
                    since: health.since,
                    why: health.why,
                    is_new: is_new(health),
                }
            })
            .collect()
    }
}
