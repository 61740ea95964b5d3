//! The providers of one deployment: the present one and, after the kind was changed by a reload, the earlier
//! ones until their last replica has gone.

use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use tokio::sync::watch;

use super::hands::Hands;
use super::{Inbox, News};
use crate::core::settings::{DeploymentSettings, ProviderSettings};
use crate::provider::{Replica, ReplicaSet, Wanted};
use crate::shutdown::Tasks;

/// Running providers; the last one is the present one.
#[derive(Debug, Default)]
pub(super) struct Sources {
    list: Vec<Source>,
    started: u64,
}

#[derive(Debug)]
struct Source {
    number: u64,
    kind: Discriminant<ProviderSettings>,
    fixed: bool,
    /// `None` once it has been told to end.
    wanted: Option<watch::Sender<Wanted>>,
    set: ReplicaSet,
}

impl Sources {
    /// Starts a provider unless one of that kind is the present one.
    pub(super) fn start<H: Hands>(
        &mut self,
        hands: &H,
        settings: &watch::Receiver<Arc<DeploymentSettings>>,
        tasks: &Tasks,
        inbox: &Inbox,
    ) {
        let provider = &settings.borrow().provider;
        let kind = discriminant(provider);
        if self.list.last().is_some_and(|present| present.kind == kind && present.wanted.is_some()) {
            return;
        }
        self.started += 1;
        let (wanted, wanted_receiver) = watch::channel(Wanted::default());
        let (set_sender, set) = watch::channel(ReplicaSet::new());
        tasks.spawn(hands.provide(settings.clone(), wanted_receiver, set_sender));
        tasks.spawn(forward(self.started, set, inbox.clone()));
        self.list.push(Source {
            number: self.started,
            kind,
            fixed: matches!(provider, ProviderSettings::Fixed(_)),
            wanted: Some(wanted),
            set: ReplicaSet::new(),
        });
    }

    /// A provider's replicas have changed.
    pub(super) fn set(&mut self, number: u64, set: ReplicaSet) {
        if let Some(source) = self.list.iter_mut().find(|source| source.number == number) {
            source.set = set;
        }
    }

    /// A provider has ended. Whether nobody had told it to.
    pub(super) fn ended(&mut self, number: u64) -> bool {
        let index = self.list.iter().position(|source| source.number == number);
        index.is_some_and(|index| self.list.remove(index).wanted.is_some())
    }

    /// All replicas; those of earlier providers are outdated, whatever these say.
    pub(super) fn replicas(&self) -> Vec<(Replica, bool)> {
        let last = self.list.len().saturating_sub(1);
        let mut all = Vec::new();
        for (index, source) in self.list.iter().enumerate() {
            for replica in &source.set {
                let outdated = replica.outdated || index != last;
                all.push((Replica { outdated, ..replica.clone() }, source.fixed));
            }
        }
        all
    }

    /// Tells the providers what is wanted. Earlier ones are ended when nothing of theirs is needed any more; a
    /// fixed list is told nothing before, because it would only list anew what is taken out.
    pub(super) fn want(&mut self, wanted: &Wanted) {
        let last = self.list.len().saturating_sub(1);
        for (index, source) in self.list.iter_mut().enumerate() {
            let is_earlier = index != last;
            if is_earlier && source.set.iter().all(|replica| wanted.remove.contains(&replica.id)) {
                source.wanted = None;
            }
            if is_earlier && source.fixed {
                continue;
            }
            let Some(sender) = &source.wanted else { continue };
            let replicas = if is_earlier { 0 } else { wanted.replicas };
            let next = Wanted { replicas, remove: wanted.remove.clone() };
            sender.send_if_modified(|value| {
                let changed = *value != next;
                *value = next;
                changed
            });
        }
    }

    /// Tells all to end.
    pub(super) fn end(&mut self) {
        for source in &mut self.list {
            source.wanted = None;
        }
    }

    /// Whether all have ended.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Brings what a provider says into the scaler's one inbox.
async fn forward(number: u64, mut set: watch::Receiver<ReplicaSet>, inbox: Inbox) {
    while set.changed().await.is_ok() {
        let now = set.borrow_and_update().clone();
        if inbox.send(News::Set(number, now)).is_err() {
            return;
        }
    }
    // Nobody listens any more when the scaler was cut, and that is fine.
    let _ = inbox.send(News::Ended(number));
}
