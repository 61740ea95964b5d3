//! What is told of replicas when something about them changes: to the recording always, to the ledger when a replica that
//! was ready is not, or is again.

use std::collections::BTreeMap;

use crate::control::board::{ReplicaState, ReplicaStatus};
use crate::core::admission::Standing;
use crate::core::ledger::{self, What};
use crate::core::settings::Name;
use crate::observe::ledger::Ledger;

/// What was told last, by name.
#[derive(Debug, Default)]
pub(super) struct Told {
    states: BTreeMap<String, (ReplicaState, Standing)>,
}

impl Told {
    /// Tells what has changed since the last call.
    pub(super) fn see(
        &mut self,
        (endpoint, deployment): (&Name, &Name),
        replicas: &[ReplicaStatus],
        ledger: &Ledger,
    ) {
        let recorder = ledger.recorder();
        for replica in replicas {
            let before = self.states.get(&replica.name).copied();
            if before == Some((replica.state, replica.standing)) {
                continue;
            }
            self.states.insert(replica.name.clone(), (replica.state, replica.standing));
            let (state, judged) = before.unzip();
            if state != Some(replica.state) {
                recorder.replica(endpoint, deployment, &replica.name, replica.state.as_str());
            }
            if let Some(what) = probed(state, replica).or_else(|| judgement(judged, replica)) {
                ledger.decided(endpoint, deployment, What::Standing(what));
            }
        }
        if self.states.len() == replicas.len() {
            return;
        }
        self.states.retain(|name, _| {
            let is_there = replicas.iter().any(|replica| replica.name == *name);
            if !is_there {
                recorder.replica(endpoint, deployment, name, "gone");
            }
            is_there
        });
    }
}

/// What is worth telling people: starts and ends that were asked for stand with the scale decisions.
fn probed(before: Option<ReplicaState>, replica: &ReplicaStatus) -> Option<ledger::Standing> {
    if before == Some(replica.state) {
        return None;
    }
    let said = replica.detail.as_deref();
    let because = match (before, replica.state) {
        (_, ReplicaState::Failed) => said.unwrap_or("it ended by itself"),
        (_, ReplicaState::Unready) => said.unwrap_or("its probe fails"),
        (Some(ReplicaState::Unready), ReplicaState::Ready) => "its probe succeeds again",
        _ => return None,
    };
    Some(ledger::Standing {
        replica: replica.name.clone(),
        standing: replica.state.as_str().to_owned(),
        because: because.to_owned(),
    })
}

/// What the gate has learned of it.
fn judgement(before: Option<Standing>, replica: &ReplicaStatus) -> Option<ledger::Standing> {
    let standing = replica.standing;
    if before.unwrap_or_default() == standing {
        return None;
    }
    // A replica on probation still has the reason for which it was taken out.
    let (usual, detail) = match standing {
        Standing::Good => ("it does as well as its siblings again", None),
        Standing::Probation => {
            ("its pause is over: one request at a time shows whether it has recovered", None)
        }
        Standing::Slow | Standing::Failing | Standing::Silent | Standing::Ejected => {
            ("it does worse than its siblings", replica.detail.clone())
        }
    };
    Some(ledger::Standing {
        replica: replica.name.clone(),
        standing: standing.as_str().to_owned(),
        because: detail.unwrap_or_else(|| usual.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Question;

    fn status(name: &str, state: ReplicaState) -> ReplicaStatus {
        ReplicaStatus {
            name: name.to_owned(),
            address: String::new(),
            state,
            standing: Standing::Good,
            detail: None,
            busy: 0,
            age_seconds: 0,
        }
    }

    fn judged(standing: Standing, why: &str) -> ReplicaStatus {
        ReplicaStatus { standing, detail: Some(why.to_owned()), ..status("blue-1", ReplicaState::Ready) }
    }

    #[test]
    fn a_replica_that_falters_and_comes_back_is_told_once_each() {
        let (endpoint, deployment) = (Name::parse("demo").unwrap(), Name::parse("blue").unwrap());
        let (ledger, mut told) = (Ledger::new(), Told::default());
        use ReplicaState::{Draining, Ready, Starting, Stopping, Unready};
        for state in [Starting, Ready, Unready, Unready, Ready, Draining, Stopping] {
            told.see((&endpoint, &deployment), &[status("blue-1", state)], &ledger);
        }
        let slow = "it takes 10.2 times as long as its siblings";
        let judged = [
            judged(Standing::Ejected, slow),
            judged(Standing::Probation, slow),
            judged(Standing::Probation, slow),
            status("blue-1", Ready),
        ];
        for status in [status("blue-1", Ready)].into_iter().chain(judged) {
            told.see((&endpoint, &deployment), &[status], &ledger);
        }
        told.see((&endpoint, &deployment), &[], &ledger);
        assert!(told.states.is_empty());
        let entries = ledger.find(&Question::default(), 10).entries;
        let sentences: Vec<_> = entries.iter().map(ToString::to_string).collect();
        assert_eq!(
            sentences,
            [
                "blue-1 is unready from now on, because its probe fails",
                "blue-1 is ready from now on, because its probe succeeds again",
                "blue-1 is ejected from now on, because it takes 10.2 times as long as its siblings; it is given nothing, and the \
                 others carry the load",
                "blue-1 is on probation from now on, because its pause is over: one request at a time shows whether it has \
                 recovered",
                "blue-1 is good from now on, because it does as well as its siblings again",
            ]
        );
    }
}
