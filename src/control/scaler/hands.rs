//! What a scaler works with: something that makes replicas exist and something that probes them. The seam
//! between the scaler and the concrete providers and probes, which tests replace.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::control::health::{self, Health};
use crate::core::settings::{DeploymentSettings, ProviderSettings};
use crate::provider::fixed::Fixed;
use crate::provider::process::{Launcher, LogTail, Process};
use crate::provider::{Provider, Replica, ReplicaSet, Wanted};

/// Starts providers and probes.
pub trait Hands: Send + 'static {
    /// A provider of the kind that the settings name, as in [`crate::provider::Provider::run`]: ends when
    /// `wanted`'s sender is gone and every replica has ended. Other settings of the same kind come by `settings`,
    /// whose sender may be gone long before; ids of replicas are never used twice at one gate, not by another
    /// kind of provider either.
    fn provide(
        &self,
        settings: watch::Receiver<Arc<DeploymentSettings>>,
        wanted: watch::Receiver<Wanted>,
        replicas: watch::Sender<ReplicaSet>,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// The time, as people have it: schedules and overrides go by it.
    fn wall_clock(&self) -> Timestamp;

    /// Probes one replica until it is found dead or the future is dropped. Reports each change, and the next result after each `recheck`
    /// even if it changes nothing.
    fn probe(
        &self,
        replica: Replica,
        settings: Arc<DeploymentSettings>,
        is_busy: impl Fn() -> bool + Send + Sync + 'static,
        recheck: Arc<Notify>,
        report: impl FnMut(Health) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// The real ones: fixed lists, child processes, HTTP probes.
#[derive(Clone, Debug)]
pub struct Machinery {
    /// Shared by all deployments, because they share the ports of the machine.
    pub launcher: Launcher,
    /// What the replicas of this deployment print.
    pub log: LogTail,
}

impl Hands for Machinery {
    fn wall_clock(&self) -> Timestamp {
        Timestamp::now()
    }

    fn provide(
        &self,
        settings: watch::Receiver<Arc<DeploymentSettings>>,
        wanted: watch::Receiver<Wanted>,
        replicas: watch::Sender<ReplicaSet>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (launcher, log) = (self.launcher.clone(), self.log.clone());
        let first = Arc::clone(&settings.borrow());
        let name = first.name.clone();
        async move {
            match first.provider.clone() {
                ProviderSettings::Fixed(fixed) => {
                    let (updates, own) = watch::channel(fixed);
                    let kind = |all: &ProviderSettings| match all {
                        ProviderSettings::Fixed(fixed) => Some(fixed.clone()),
                        ProviderSettings::Process(_) => None,
                    };
                    tokio::select! {
                        () = Fixed::new(name, own).run(wanted, replicas) => {}
                        () = pass_on(settings, &updates, kind) => {}
                    }
                }
                ProviderSettings::Process(process) => {
                    let (updates, own) = watch::channel(process);
                    let kind = |all: &ProviderSettings| match all {
                        ProviderSettings::Process(process) => Some(process.clone()),
                        ProviderSettings::Fixed(_) => None,
                    };
                    tokio::select! {
                        () = Process::new(name, own, launcher, log).run(wanted, replicas) => {}
                        () = pass_on(settings, &updates, kind) => {}
                    }
                }
            }
        }
    }

    fn probe(
        &self,
        replica: Replica,
        settings: Arc<DeploymentSettings>,
        is_busy: impl Fn() -> bool + Send + Sync + 'static,
        recheck: Arc<Notify>,
        report: impl FnMut(Health) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (routes, liveness) = (settings.routes.clone(), settings.liveness.clone());
        health::watch(
            replica.authority,
            routes,
            liveness,
            settings.readiness.clone(),
            is_busy,
            recheck,
            report,
        )
    }
}

/// Gives a provider its part of each new version of the settings. Never ends, so that the provider does.
async fn pass_on<T: PartialEq>(
    mut settings: watch::Receiver<Arc<DeploymentSettings>>,
    updates: &watch::Sender<T>,
    kind: impl Fn(&ProviderSettings) -> Option<T>,
) {
    while settings.changed().await.is_ok() {
        let Some(next) = kind(&settings.borrow_and_update().provider) else { continue };
        updates.send_if_modified(|value| {
            let changed = *value != next;
            *value = next;
            changed
        });
    }
    std::future::pending::<()>().await;
}
