//! The slots of a deployment's replicas: which are in use, and which one is given next. Knows no queue.

use std::num::NonZeroU32;

use crate::core::admission::{Load, ReplicaId};

/// What a replica may be given. Only [`Slots::open`] leads back to an earlier phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Admits requests.
    Ready,
    /// Admits nothing until it is opened again.
    Suspended,
    /// Admits nothing, and is reported when it is empty.
    Draining,
    /// Admits nothing, and is reported and forgotten when it is empty.
    Gone,
}

#[derive(Debug)]
struct Replica {
    id: ReplicaId,
    /// Slots in use: permits and granted tickets.
    busy: u32,
    phase: Phase,
    /// A limit of its own, while it is less than that of all.
    cap: Option<u32>,
}

impl Replica {
    /// Its limit, where all have `most`.
    fn most(&self, most: u32) -> u32 {
        self.cap.map_or(most, |cap| cap.min(most))
    }
}

/// Every replica with the slots in use on it.
#[derive(Debug)]
pub(super) struct Slots {
    /// For each replica; `None` is no limit.
    pub(super) limit: Option<NonZeroU32>,
    /// Sorted by id.
    replicas: Vec<Replica>,
    /// Where the next search starts: equally busy replicas take turns.
    turn: usize,
}

impl Slots {
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        Self { limit, replicas: Vec::new(), turn: 0 }
    }

    /// The replica admits requests from now on, whatever it did before.
    pub(super) fn open(&mut self, id: ReplicaId) {
        match self.find(id) {
            Ok(index) => self.replicas[index].phase = Phase::Ready,
            Err(index) => {
                self.replicas.insert(index, Replica { id, busy: 0, phase: Phase::Ready, cap: None });
            }
        }
    }

    /// Moves a replica on to a later phase; returns the one before, or `None` if it was as far already.
    pub(super) fn close(&mut self, id: ReplicaId, phase: Phase) -> Option<Phase> {
        let index = self.find(id).ok()?;
        let replica = &mut self.replicas[index];
        (replica.phase < phase).then(|| std::mem::replace(&mut replica.phase, phase))
    }

    /// Another limit for one replica.
    pub(super) fn cap(&mut self, id: ReplicaId, cap: Option<u32>) {
        if let Ok(index) = self.find(id) {
            self.replicas[index].cap = cap;
        }
    }

    /// Uses a free slot of the least busy replica.
    pub(super) fn take(&mut self) -> Option<ReplicaId> {
        self.take_but(&[])
    }

    /// The same, on none of these.
    pub(super) fn take_but(&mut self, not: &[ReplicaId]) -> Option<ReplicaId> {
        let most = self.most();
        let (before, from) = self.replicas.split_at(self.turn.min(self.replicas.len()));
        let mut least = most;
        let mut found = None;
        'search: for (part, first) in [(from, before.len()), (before, 0)] {
            for (offset, replica) in part.iter().enumerate() {
                if replica.busy < least
                    && replica.phase == Phase::Ready
                    && replica.busy < replica.most(most)
                    && !not.contains(&replica.id)
                {
                    least = replica.busy;
                    found = Some(first + offset);
                    if least == 0 {
                        break 'search;
                    }
                }
            }
        }
        let index = found?;
        self.turn = index + 1;
        self.replicas[index].busy += 1;
        Some(self.replicas[index].id)
    }

    /// Whether a slot in use may go straight to another request: not after a shrink, nor where nothing is admitted.
    pub(super) fn may_pass_on(&self, id: ReplicaId) -> bool {
        self.find(id).is_ok_and(|index| {
            let replica = &self.replicas[index];
            replica.phase == Phase::Ready && replica.busy <= replica.most(self.most())
        })
    }

    /// Ends the use of a slot.
    pub(super) fn give_back(&mut self, id: ReplicaId) {
        let index = self.find(id).expect("a replica is known while a slot of it is in use");
        self.replicas[index].busy -= 1;
    }

    /// Whether the replica drains and is empty. One that was removed is forgotten then.
    pub(super) fn settle(&mut self, id: ReplicaId) -> bool {
        let Ok(index) = self.find(id) else { return false };
        let Replica { busy, phase, .. } = self.replicas[index];
        if busy == 0 && phase == Phase::Gone {
            self.replicas.remove(index);
        }
        busy == 0 && phase >= Phase::Draining
    }

    pub(super) fn any_ready(&self) -> bool {
        self.replicas.iter().any(|replica| replica.phase == Phase::Ready)
    }

    pub(super) fn any_free(&self) -> bool {
        let most = self.most();
        self.replicas.iter().any(|replica| replica.phase == Phase::Ready && replica.busy < replica.most(most))
    }

    pub(super) fn is_ready(&self, id: ReplicaId) -> bool {
        self.find(id).is_ok_and(|index| self.replicas[index].phase == Phase::Ready)
    }

    /// Slots in use on a replica; 0 when unknown.
    pub(super) fn busy(&self, id: ReplicaId) -> u32 {
        self.find(id).map_or(0, |index| self.replicas[index].busy)
    }

    /// All but the queue.
    pub(super) fn load(&self) -> Load {
        let mut load = Load::default();
        for replica in &self.replicas {
            match replica.phase {
                Phase::Ready => {
                    load.ready += 1;
                    load.busy += replica.busy;
                }
                Phase::Suspended => load.busy += replica.busy,
                Phase::Draining | Phase::Gone => {
                    load.draining += 1;
                    load.busy_draining += replica.busy;
                }
            }
        }
        load.slots = self.limit.map(|slots| {
            let ready = self.replicas.iter().filter(|replica| replica.phase == Phase::Ready);
            ready.map(|replica| replica.most(slots.get())).fold(0, u32::saturating_add)
        });
        load
    }

    /// The invariants of this part; `held` slots are in use.
    pub(super) fn check(&self, held: usize) {
        let used: usize = self.replicas.iter().map(|replica| replica.busy as usize).sum();
        assert_eq!(used, held, "slots in use = permits + granted tickets: {self:?}");
        assert!(self.replicas.is_sorted_by(|one, next| one.id < next.id), "sorted, each once: {self:?}");
        let kept = self.replicas.iter().any(|replica| replica.phase == Phase::Gone && replica.busy == 0);
        assert!(!kept, "an empty replica that was removed is forgotten: {self:?}");
    }

    fn find(&self, id: ReplicaId) -> Result<usize, usize> {
        self.replicas.binary_search_by_key(&id, |replica| replica.id)
    }

    fn most(&self) -> u32 {
        self.limit.map_or(u32::MAX, NonZeroU32::get)
    }
}
