//! One probe task for each replica that runs, and none for others.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hands::Hands;
use super::{Inbox, News};
use crate::core::admission::ReplicaId;
use crate::core::settings::DeploymentSettings;
use crate::data::gate::Gate;
use crate::provider::Replica;
use crate::shutdown::Tasks;

/// The probes of one deployment; dropping one ends its task.
#[derive(Debug, Default)]
pub(super) struct Probes {
    running: BTreeMap<ReplicaId, Probe>,
}

#[derive(Debug)]
struct Probe {
    settings: Arc<DeploymentSettings>,
    recheck: Arc<Notify>,
    _end: DropGuard,
}

impl Probes {
    /// Starts what is missing and ends what is not in `replicas`.
    pub(super) fn follow<'a, H: Hands>(
        &mut self,
        replicas: impl Iterator<Item = &'a Replica>,
        settings: &Arc<DeploymentSettings>,
        probing: &Probing<'_, H>,
    ) {
        let mut before = std::mem::take(&mut self.running);
        for replica in replicas {
            let probe = before.remove(&replica.id).unwrap_or_else(|| probing.start(replica, settings));
            self.running.insert(replica.id, probe);
        }
    }

    /// Ends the probes that ask in another way than the settings say, so that [`Self::follow`] starts them anew.
    /// Outdated replicas are asked as before: what is new may be unknown to them.
    pub(super) fn renew<'a>(
        &mut self,
        replicas: impl Iterator<Item = &'a Replica>,
        settings: &DeploymentSettings,
    ) {
        for replica in replicas.filter(|replica| !replica.outdated) {
            let other = |probe: &Probe| !probes_alike(&probe.settings, settings);
            if self.running.get(&replica.id).is_some_and(other) {
                self.running.remove(&replica.id);
            }
        }
    }

    /// Ends the probe of a replica; the next [`Self::follow`] starts another if it is still there.
    pub(super) fn end(&mut self, id: ReplicaId) {
        self.running.remove(&id);
    }

    /// Has a replica probed now.
    pub(super) fn recheck(&self, id: ReplicaId) {
        if let Some(probe) = self.running.get(&id) {
            probe.recheck.notify_one();
        }
    }
}

fn probes_alike(one: &DeploymentSettings, other: &DeploymentSettings) -> bool {
    one.routes == other.routes && one.liveness == other.liveness && one.readiness == other.readiness
}

/// What a probe needs to be started.
pub(super) struct Probing<'a, H> {
    pub(super) hands: &'a H,
    pub(super) gate: &'a Arc<Gate>,
    pub(super) tasks: &'a Tasks,
    pub(super) inbox: &'a Inbox,
}

impl<H: Hands> Probing<'_, H> {
    fn start(&self, replica: &Replica, settings: &Arc<DeploymentSettings>) -> Probe {
        let id = replica.id;
        let (gate, inbox) = (Arc::clone(self.gate), self.inbox.clone());
        let recheck = Arc::new(Notify::new());
        let end = CancellationToken::new();
        let probe = self.hands.probe(
            replica.clone(),
            Arc::clone(settings),
            move || gate.is_working(id),
            Arc::clone(&recheck),
            move |health| {
                // The scaler is gone only when the probe is about to be.
                let _ = inbox.send(News::Health(id, health));
            },
        );
        let ended = end.clone();
        self.tasks.spawn(async move {
            let _ = ended.run_until_cancelled(probe).await;
        });
        Probe { settings: Arc::clone(settings), recheck, _end: end.drop_guard() }
    }
}
