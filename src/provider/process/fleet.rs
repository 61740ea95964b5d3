//! Which replicas of a process provider there are, and what must be done next. No process is touched here, and
//! time is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::admission::ReplicaId;
use crate::core::settings::ProcessSettings;
use crate::provider::{Phase, Replica, ReplicaSet, Wanted};

/// Pause after the first failure; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A replica that lived this long was good; failures before it are forgotten.
const GOOD_LIFE: Duration = Duration::from_secs(60);
/// Starts in a row that find their port taken and are repeated on another one without a pause.
const PORT_RETRIES: u32 = 3;

/// Replicas in the order of their start.
#[derive(Debug, Default)]
pub(super) struct Fleet(Vec<Member>);

#[derive(Debug)]
struct Member {
    replica: Replica,
    template: Arc<ProcessSettings>,
    /// Failures in a row before this replica.
    failures: u32,
    /// When a failed one is to be replaced.
    retry: Option<Instant>,
}

/// What must be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Replicas to end.
    pub(super) stop: Vec<ReplicaId>,
    /// Replicas to start: for each one the failures in a row at its place.
    pub(super) start: Vec<u32>,
}

impl Fleet {
    /// Compares what there is with what is wanted, and takes note of the steps that follow from it.
    pub(super) fn plan(&mut self, wanted: &Wanted, template: &ProcessSettings, now: Instant) -> Plan {
        let mut plan = Plan::default();
        for Member { replica, template: made_from, .. } in &mut self.0 {
            replica.outdated = !made_from.runs_the_same(template);
            if replica.phase == Phase::Running && wanted.remove.contains(&replica.id) {
                replica.phase = Phase::Stopping;
                plan.stop.push(replica.id);
            }
        }
        // A failed one keeps its place, so that its pause is kept, unless nobody wants the place.
        self.0.retain(|member| {
            let unwanted = member.replica.outdated || wanted.remove.contains(&member.replica.id);
            !(member.has_failed() && unwanted)
        });
        let mut present = self.0.iter().filter(|member| member.counts()).count();
        let wanted = usize::try_from(wanted.replicas).unwrap_or(usize::MAX);
        while present > wanted {
            let Some(last_failed) = self.0.iter().rposition(Member::has_failed) else { break };
            self.0.remove(last_failed);
            present -= 1;
        }
        self.0.retain(|member| {
            let due = member.retry.is_some_and(|retry| retry <= now);
            if due {
                plan.start.push(member.failures);
            }
            !due
        });
        plan.start.extend(std::iter::repeat_n(0, wanted.saturating_sub(present)));
        plan
    }

    /// A replica has been started.
    pub(super) fn started(&mut self, replica: Replica, template: Arc<ProcessSettings>, failures: u32) {
        self.0.push(Member { replica, template, failures, retry: None });
    }

    /// A replica has ended, or could not be started. `port_taken`: another program has its port. Returns the
    /// replica when it was not to end.
    pub(super) fn ended(
        &mut self,
        id: ReplicaId,
        reason: String,
        port_taken: bool,
        now: Instant,
    ) -> Option<&Replica> {
        let index = self.0.iter().position(|member| member.replica.id == id)?;
        if self.0[index].replica.phase == Phase::Stopping {
            self.0.remove(index);
            return None;
        }
        let member = &mut self.0[index];
        let good = now.saturating_duration_since(member.replica.since) >= GOOD_LIFE;
        member.failures = if good { 1 } else { member.failures.saturating_add(1) };
        let at_once = port_taken && member.failures <= PORT_RETRIES;
        member.retry = Some(if at_once { now } else { now + pause(member.failures) });
        member.replica.phase = Phase::Failed(reason);
        Some(&member.replica)
    }

    /// Everything is to end.
    pub(super) fn stop_all(&mut self) {
        self.0.retain(|member| !member.has_failed());
        for member in &mut self.0 {
            member.replica.phase = Phase::Stopping;
        }
    }

    /// When the next failed replica is to be replaced.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.0.iter().filter_map(|member| member.retry).min()
    }

    /// As others see it.
    pub(super) fn replicas(&self) -> ReplicaSet {
        self.0.iter().map(|member| member.replica.clone()).collect()
    }
}

impl Member {
    fn has_failed(&self) -> bool {
        matches!(self.replica.phase, Phase::Failed(_))
    }

    /// Whether it holds one of the wanted places.
    fn counts(&self) -> bool {
        !self.replica.outdated && self.replica.phase != Phase::Stopping
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::core::settings::Authority;

    fn template(program: &str) -> ProcessSettings {
        ProcessSettings {
            command: vec![program.to_owned()],
            directory: None,
            environment: BTreeMap::new(),
            ports: (1, 2),
            start_timeout: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(1),
        }
    }

    fn wanted(replicas: u32, remove: &[u64]) -> Wanted {
        Wanted { replicas, remove: remove.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>() }
    }

    /// A fleet with running replicas 1 to `count`, all made from `old`.
    fn fleet(count: u64, now: Instant) -> Fleet {
        let mut fleet = Fleet::default();
        for id in 1..=count {
            start(&mut fleet, id, 0, now);
        }
        fleet
    }

    fn start(fleet: &mut Fleet, id: u64, failures: u32, now: Instant) {
        let replica = Replica {
            id: ReplicaId(id),
            name: "blue-1".into(),
            authority: Authority { host: "127.0.0.1".into(), port: 1 },
            since: now,
            phase: Phase::Running,
            outdated: false,
        };
        fleet.started(replica, template("old").into(), failures);
    }

    fn plan(stop: &[u64], start: &[u32]) -> Plan {
        Plan { stop: stop.iter().copied().map(ReplicaId).collect(), start: start.to_vec() }
    }

    #[test]
    fn missing_replicas_are_started_and_surplus_ones_left_alone() {
        let now = Instant::now();
        assert_eq!(fleet(1, now).plan(&wanted(3, &[]), &template("old"), now), plan(&[], &[0, 0]));
        assert_eq!(fleet(3, now).plan(&wanted(1, &[]), &template("old"), now), plan(&[], &[]));
    }

    #[test]
    fn a_removed_replica_is_stopped_once_replaced_at_once_and_stays_until_it_has_ended() {
        let now = Instant::now();
        let mut fleet = fleet(2, now);
        let wanted = wanted(2, &[1]);
        assert_eq!(fleet.plan(&wanted, &template("old"), now), plan(&[1], &[0]));
        start(&mut fleet, 3, 0, now);
        assert_eq!(fleet.plan(&wanted, &template("old"), now), plan(&[], &[]));
        assert_eq!(fleet.replicas()[0].phase, Phase::Stopping);
        fleet.ended(ReplicaId(1), "exit code 0".into(), false, now);
        assert_eq!(fleet.replicas().iter().map(|r| r.id.0).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn another_template_outdates_and_is_filled_up_and_the_old_one_again_restores() {
        let now = Instant::now();
        let mut fleet = fleet(2, now);
        assert_eq!(fleet.plan(&wanted(2, &[]), &template("new"), now), plan(&[], &[0, 0]));
        assert!(fleet.replicas().iter().all(|r| r.outdated && r.phase == Phase::Running));
        assert_eq!(fleet.plan(&wanted(2, &[]), &template("old"), now), plan(&[], &[]));
        assert!(fleet.replicas().iter().all(|r| !r.outdated));
    }

    #[test]
    fn the_pause_doubles_up_to_its_limit_and_a_good_life_resets_it() {
        let mut now = Instant::now();
        let mut fleet = fleet(1, now);
        let mut pauses = Vec::new();
        for id in 1..=9 {
            fleet.ended(ReplicaId(id), "exit code 3".into(), false, now);
            let retry = fleet.next_retry().unwrap();
            pauses.push((retry - now).as_millis());
            let just_before = retry.checked_sub(Duration::from_millis(1)).unwrap();
            assert_eq!(fleet.plan(&wanted(1, &[]), &template("old"), just_before), plan(&[], &[]));
            now = retry;
            let failures = u32::try_from(id).unwrap();
            assert_eq!(fleet.plan(&wanted(1, &[]), &template("old"), now), plan(&[], &[failures]));
            start(&mut fleet, id + 1, failures, now);
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        now += GOOD_LIFE;
        fleet.ended(ReplicaId(10), "exit code 3".into(), false, now);
        assert_eq!(fleet.next_retry().unwrap() - now, FIRST_PAUSE);
    }

    #[test]
    fn a_taken_port_is_retried_at_once_but_not_for_ever() {
        let now = Instant::now();
        let mut fleet = fleet(1, now);
        for id in 1..=3_u32 {
            fleet.ended(ReplicaId(id.into()), "in use".into(), true, now);
            assert_eq!(fleet.plan(&wanted(1, &[]), &template("old"), now), plan(&[], &[id]));
            start(&mut fleet, u64::from(id) + 1, id, now);
        }
        fleet.ended(ReplicaId(4), "in use".into(), true, now);
        assert!(fleet.next_retry().unwrap() > now);
    }

    #[test]
    fn a_failed_replica_that_nobody_wants_is_given_up() {
        let now = Instant::now();
        for (wanted, template) in [
            (wanted(0, &[]), template("old")),
            (wanted(0, &[1]), template("old")),
            (wanted(0, &[]), template("new")),
        ] {
            let mut fleet = fleet(1, now);
            fleet.ended(ReplicaId(1), "exit code 3".into(), false, now);
            assert_eq!(fleet.plan(&wanted, &template, now), plan(&[], &[]));
            assert!(fleet.replicas().is_empty());
        }
    }
}
