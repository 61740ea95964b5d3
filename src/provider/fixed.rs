//! Replicas that somebody else runs: a list of addresses. Nothing is started or ended; an address that leaves the
//! list stays, outdated, until the scaler has drained and removed it.

use std::time::Instant;

use tokio::sync::watch;

use super::{Phase, Provider, Replica, ReplicaSet, Wanted, next_replica_id};
use crate::core::settings::{FixedSettings, Name};

/// Publishes a list of addresses as replicas.
#[derive(Debug)]
pub struct Fixed {
    deployment: Name,
    settings: watch::Receiver<FixedSettings>,
}

impl Fixed {
    /// Replicas are called after the deployment, `blue-1` and so on. When the sender of the settings is gone, the
    /// last ones stay.
    pub fn new(deployment: Name, settings: watch::Receiver<FixedSettings>) -> Self {
        Self { deployment, settings }
    }
}

impl Provider for Fixed {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>, replicas: watch::Sender<ReplicaSet>) {
        let mut named = 0;
        let mut settings_live = true;
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let removed = wanted.borrow_and_update().remove.clone();
            replicas.send_if_modified(|set| {
                let before = set.clone();
                set.retain(|replica| !removed.contains(&replica.id));
                list(set, &settings, &self.deployment, &mut named);
                *set != before
            });
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { break },
                changed = self.settings.changed(), if settings_live => settings_live = changed.is_ok(),
            }
        }
        replicas.send_replace(ReplicaSet::new());
    }
}

/// Brings the set in line with the list. An address that is listed twice is one replica: two would double its
/// slots. One that was removed although it is listed comes back under a new id and is probed anew.
fn list(set: &mut ReplicaSet, settings: &FixedSettings, deployment: &Name, named: &mut u64) {
    for replica in set.iter_mut() {
        replica.outdated = !settings.replicas.contains(&replica.authority);
    }
    for authority in &settings.replicas {
        if set.iter().any(|replica| replica.authority == *authority) {
            continue;
        }
        *named += 1;
        set.push(Replica {
            id: next_replica_id(),
            name: format!("{deployment}-{named}").into(),
            authority: authority.clone(),
            since: Instant::now(),
            phase: Phase::Running,
            outdated: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::Authority;
    use crate::shutdown::Tasks;

    fn settings(ports: &[u16]) -> FixedSettings {
        let authority = |port: &u16| Authority { host: "127.0.0.1".into(), port: *port };
        FixedSettings { replicas: ports.iter().map(authority).collect() }
    }

    struct Running {
        settings: watch::Sender<FixedSettings>,
        wanted: watch::Sender<Wanted>,
        replicas: watch::Receiver<ReplicaSet>,
        tasks: Tasks,
    }

    impl Running {
        fn start(ports: &[u16]) -> Self {
            let (settings, on_settings) = watch::channel(settings(ports));
            let (wanted, on_wanted) = watch::channel(Wanted::default());
            let (publish, replicas) = watch::channel(ReplicaSet::new());
            let tasks = Tasks::new();
            tasks.spawn(Fixed::new(Name::parse("blue").unwrap(), on_settings).run(on_wanted, publish));
            Self { settings, wanted, replicas, tasks }
        }

        /// The next set that differs, as (port, outdated).
        async fn next(&mut self) -> Vec<(u16, bool)> {
            self.replicas.changed().await.unwrap();
            self.replicas.borrow_and_update().iter().map(|r| (r.authority.port, r.outdated)).collect()
        }

        fn id(&self, port: u16) -> crate::core::admission::ReplicaId {
            self.replicas.borrow().iter().find(|r| r.authority.port == port).unwrap().id
        }
    }

    #[tokio::test]
    async fn a_listed_address_is_one_replica_with_a_lasting_id() {
        let mut run = Running::start(&[1, 2, 1]);
        assert_eq!(run.next().await, [(1, false), (2, false)]);
        let first = run.id(1);
        run.settings.send(settings(&[3, 1, 2])).unwrap();
        assert_eq!(run.next().await, [(1, false), (2, false), (3, false)]);
        assert_eq!(run.id(1), first);
        assert_eq!(&*run.replicas.borrow()[2].name, "blue-3");
    }

    #[tokio::test]
    async fn an_address_that_left_the_list_stays_until_it_is_removed() {
        let mut run = Running::start(&[1, 2]);
        run.next().await;
        run.settings.send(settings(&[2])).unwrap();
        assert_eq!(run.next().await, [(1, true), (2, false)]);
        run.wanted.send(Wanted { replicas: 1, remove: [run.id(1)].into() }).unwrap();
        assert_eq!(run.next().await, [(2, false)]);
    }

    #[tokio::test]
    async fn a_listed_address_that_was_removed_comes_back_under_a_new_id() {
        let mut run = Running::start(&[1]);
        run.next().await;
        let first = run.id(1);
        run.wanted.send(Wanted { replicas: 1, remove: [first].into() }).unwrap();
        assert_eq!(run.next().await, [(1, false)]);
        assert_ne!(run.id(1), first);
    }

    #[tokio::test]
    async fn it_ends_with_an_empty_set_when_nobody_wants_anything() {
        let mut run = Running::start(&[1]);
        run.next().await;
        drop(run.wanted);
        run.tasks.ended().await;
        assert!(run.replicas.borrow().is_empty());
    }
}
