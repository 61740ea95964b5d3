//! Which replica is replaced because it serves badly, by the standing that the gate gives it. One at a time, and rarely:
//! what makes a replica bad may make its successor bad as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::member::{Condition, Member, Role};
use super::{Fleet, Order};
use crate::core::admission::{ReplicaId, Report, Standing, Why};

/// A replica is replaced when it has been bad for so long: most that recover do so within a few trials.
const LASTS: Duration = Duration::from_secs(10);
/// Time between the first two replacements; twice as long after each one.
const PAUSE: Duration = Duration::from_secs(60);
/// Longest time between two; without any for as long, the first pause holds again.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The replacement that is under way, and when there may be another.
#[derive(Debug, Default)]
pub(super) struct Replacement {
    of: Option<ReplicaId>,
    next: Option<Instant>,
    pause: Duration,
}

/// What is to be done for a replica that serves badly.
#[derive(Debug, Default)]
pub(in super::super) struct Replacing {
    /// Replicas beyond those that are desired.
    pub(in super::super) extra: u32,
    pub(in super::super) order: Option<Order>,
    /// Which one was chosen now.
    pub(in super::super) chosen: Option<Arc<str>>,
}

impl Fleet {
    /// What the gate thinks of the replicas; those whose standing has changed, as sentences.
    pub(in super::super) fn stand(&mut self, reports: &[Report]) -> Vec<String> {
        let mut news = Vec::new();
        for report in reports {
            let Some(member) = self.members.get_mut(&report.replica) else { continue };
            let before = member.report.replace(*report).map_or(Standing::Good, |report| report.standing);
            if before != report.standing {
                let why = report.why.map(|why| format!(" ({why})")).unwrap_or_default();
                let (name, from, to) = (&member.replica.name, before.as_str(), report.standing.as_str());
                news.push(format!("the standing of {name} goes from {from} to {to}{why}"));
            }
        }
        news
    }

    /// A process that has been bad for long counts as not there: another one is started first, and the bad one is then the
    /// first to be ended as one too many. Where there are as many as may be, it is ended first, once the others carry the
    /// load. Those that somebody else runs are left alone.
    pub(in super::super) fn replace(
        &mut self,
        desired: u32,
        most: u32,
        now: Instant,
        patience: Duration,
    ) -> Replacing {
        let chosen = self.choose(now);
        let good = self.members.values().filter(|member| member.is_useful() && !member.is_bad()).count();
        let mut replacing = Replacing::default();
        let Some(member) = self.replacement.of.and_then(|id| self.members.get_mut(&id)) else {
            return replacing;
        };
        replacing.chosen = chosen.then(|| Arc::clone(&member.replica.name));
        if desired < most {
            replacing.extra = u32::from(good < desired as usize);
        } else if member.standing() == Standing::Ejected {
            member.role = Role::Dying(now + patience);
            replacing.order = Some(Order::Drain(member.replica.id));
        }
        replacing
    }

    /// Ends what is over and chooses the next one. Whether there is a new one.
    fn choose(&mut self, now: Instant) -> bool {
        let is_candidate = |member: &Member| {
            member.is_useful() && member.is_bad() && !member.is_warming_up() && !member.fixed
        };
        let members = &self.members;
        let this = &mut self.replacement;
        this.of = this.of.filter(|id| members.get(id).is_some_and(is_candidate));
        if this.of.is_some() || this.next.is_some_and(|next| now < next) {
            return false;
        }
        let lasting = members.values().filter(|member| is_candidate(member)).filter_map(|member| {
            let since = member.report?.since?;
            (now.saturating_duration_since(since) >= LASTS).then_some((since, member.replica.id))
        });
        let Some((_, id)) = lasting.min() else { return false };
        let calm = this.next.is_none_or(|next| now.saturating_duration_since(next) >= LONGEST_PAUSE);
        this.pause = if calm { PAUSE } else { (this.pause * 2).min(LONGEST_PAUSE) };
        this.next = Some(now + this.pause);
        this.of = Some(id);
        true
    }
}

impl Member {
    /// Serves what is wanted now, and could.
    fn is_useful(&self) -> bool {
        self.serves() && !self.replica.outdated && self.condition == Condition::Ready
    }

    pub(super) fn standing(&self) -> Standing {
        self.report.map_or(Standing::Good, |report| report.standing)
    }

    /// Slow, but so new that this may pass; its successor would have to warm up as well.
    fn is_warming_up(&self) -> bool {
        self.report.is_some_and(|report| report.is_new && matches!(report.why, Some(Why::Slow { .. })))
    }

    pub(super) fn is_bad(&self) -> bool {
        self.standing().is_bad()
    }
}
