//! The slots of a deployment's replicas: which are in use, and which one is given next. Knows no queue. What is held
//! against a replica, and what that does to its slots, is `judge`'s part.

use std::num::NonZeroU32;

use crate::core::admission::health::Health;
use crate::core::admission::knee::Knee;
use crate::core::admission::{Load, ReplicaId, pace};
use judge::Judge;

pub(super) use judge::Moment;

mod judge;

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

/// The rank of a replica with nothing in use and nothing held against it.
const IDLE: u64 = 1;

#[derive(Debug)]
struct Replica {
    id: ReplicaId,
    /// Slots in use: permits and granted tickets.
    busy: u32,
    phase: Phase,
    /// A limit of its own, while it is less than that of all.
    cap: Option<u32>,
    /// With fewer slots in use it is given more; 0 where nothing is admitted. Kept by [`Slots::recount`].
    room: u32,
    /// What [`Replica::is_whole`] says; kept like `room`.
    whole: bool,
    health: Health,
}

impl Replica {
    /// Its limit, where all have `most`.
    fn most(&self, most: u32) -> u32 {
        self.room(most).min(self.health.most())
    }

    /// The same, whatever is held against it.
    fn room(&self, most: u32) -> u32 {
        self.cap.map_or(most, |cap| cap.min(most))
    }

    /// Has all the slots that it could: what it does is what the limit brings.
    fn is_whole(&self, most: u32) -> bool {
        self.phase <= Phase::Suspended && self.most(most) == most
    }

    fn is_free(&self) -> bool {
        self.busy < self.room
    }

    /// Who is given work first: a replica on trial, then the least busy one; those that are slow or fail come last.
    fn rank(&self) -> u64 {
        if self.health.trial {
            0
        } else {
            IDLE + u64::from(self.busy) + (u64::from(self.health.is_last()) << 40)
        }
    }
}

/// What the limit is found from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Whole {
    ready: u32,
    /// With a slot in use.
    working: u32,
    /// Slots in use.
    busy: u32,
}

/// Every replica with the slots in use on it.
#[derive(Debug)]
pub(super) struct Slots {
    /// For each replica; `None` is no limit.
    limit: Option<NonZeroU32>,
    /// The limit of the settings, where the other one is found.
    given: Option<NonZeroU32>,
    auto: Option<Knee>,
    /// Sorted by id.
    replicas: Vec<Replica>,
    /// Where the next search starts: equals take turns.
    turn: usize,
    /// All but the queue, always up to date.
    load: Load,
    /// Replicas with a free slot.
    free: u32,
    /// Of the replicas that do not drain and have all their slots.
    whole: Whole,
    /// Whether a replica may be on trial.
    tries: bool,
    /// The least and the most peak of replicas that admit requests. Peaks only rise, so the first may be less.
    peaks: (f64, f64),
    judge: Judge,
}

impl Slots {
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        let mut slots = Self {
            limit,
            given: limit,
            auto: None,
            replicas: Vec::new(),
            turn: 0,
            load: Load::default(),
            free: 0,
            whole: Whole::default(),
            tries: false,
            peaks: (0.0, 0.0),
            judge: Judge::default(),
        };
        slots.recount();
        slots
    }

    /// Another limit for each replica, unless that is found.
    pub(super) fn set_limit(&mut self, limit: Option<NonZeroU32>) {
        self.given = limit;
        self.follow();
    }

    /// Whether the limit is found.
    pub(super) fn set_auto(&mut self, on: bool) {
        if on != self.auto.is_some() {
            self.auto = on.then(Knee::new);
            self.follow();
        }
    }

    /// Takes over the limit that is given or found.
    fn follow(&mut self) {
        self.limit = self.auto.as_ref().map_or(self.given, |knee| NonZeroU32::new(knee.limit()));
        self.recount();
    }

    /// Requests at once on one replica, as given or as found last; `None` is no limit.
    pub(super) fn limit(&self) -> Option<u32> {
        self.auto.as_ref().map(Knee::settled).or_else(|| self.limit.map(NonZeroU32::get))
    }

    /// So many seconds have gone by.
    pub(super) fn pass(&mut self, seconds: f64) {
        if let Some(knee) = &mut self.auto {
            knee.pass(seconds, self.whole.working, self.whole.busy);
        }
    }

    /// The replica admits requests from now on, whatever it did before.
    pub(super) fn open(&mut self, id: ReplicaId) {
        match self.find(id) {
            Ok(index) => {
                let replica = &mut self.replicas[index];
                if replica.phase != Phase::Ready {
                    replica.health.begin();
                }
                replica.phase = Phase::Ready;
            }
            Err(index) => {
                let health = Health::default();
                let replica =
                    Replica { id, busy: 0, phase: Phase::Ready, cap: None, room: 0, whole: false, health };
                self.replicas.insert(index, replica);
            }
        }
        self.recount();
    }

    /// Moves a replica on to a later phase; returns the one before, or `None` if it was as far already.
    pub(super) fn close(&mut self, id: ReplicaId, phase: Phase) -> Option<Phase> {
        let index = self.find(id).ok()?;
        let replica = &mut self.replicas[index];
        let before = (replica.phase < phase).then(|| std::mem::replace(&mut replica.phase, phase));
        self.rescue();
        self.recount();
        before
    }

    /// Another limit for one replica.
    pub(super) fn cap(&mut self, id: ReplicaId, cap: Option<u32>) {
        if let Ok(index) = self.find(id) {
            let replica = &mut self.replicas[index];
            if replica.cap.is_some() && cap.is_none() {
                // It was not judged by its times until now.
                replica.health.pace.forget();
            }
            replica.cap = cap;
            self.rescue();
            self.recount();
        }
    }

    /// Uses a free slot of the least busy replica; of equals, of a clearly faster one.
    pub(super) fn take(&mut self) -> Option<ReplicaId> {
        self.take_but(&[])
    }

    /// The same, on none of these.
    pub(super) fn take_but(&mut self, not: &[ReplicaId]) -> Option<ReplicaId> {
        if self.free == 0 {
            return None;
        }
        let turn = if self.turn < self.replicas.len() { self.turn } else { 0 };
        let is_idle = |replica: &Replica| replica.rank() == IDLE && replica.is_free();
        // None is better than an idle one where all are as fast, so that most need no search.
        let alike = !self.tries && !pace::is_before(self.peaks.0, self.peaks.1);
        let first_will_do = (alike || self.replicas.len() == 1) && not.is_empty();
        let next = self.replicas.get(turn).filter(|next| first_will_do && is_idle(next));
        let index = if next.is_some() { turn } else { self.search(turn, first_will_do, not)? };
        self.turn = index + 1;
        let replica = &mut self.replicas[index];
        replica.busy += 1;
        replica.health.trial = false;
        self.load.busy += 1;
        if replica.whole {
            self.whole.working += u32::from(replica.busy == 1);
            self.whole.busy += 1;
        }
        self.free -= u32::from(replica.busy == replica.room);
        Some(replica.id)
    }

    /// The best one that has a free slot, from `turn` on, or the first idle one.
    fn search(&self, turn: usize, first_will_do: bool, not: &[ReplicaId]) -> Option<usize> {
        let (mut best, mut least, mut fastest) = (None, u64::MAX, f64::INFINITY);
        // Plain numbers in a plain loop: where replicas are not as fast it goes over all of them, for each request.
        for part in [turn..self.replicas.len(), 0..turn] {
            for (index, replica) in part.clone().zip(&self.replicas[part]) {
                let (rank, peak) = (replica.rank(), replica.health.pace.peak());
                let is_better = rank < least || rank == least && pace::is_before(peak, fastest);
                if is_better && replica.is_free() && !not.contains(&replica.id) {
                    if rank == IDLE && first_will_do {
                        return Some(index);
                    }
                    (best, least, fastest) = (Some(index), rank, peak);
                }
            }
        }
        best
    }

    /// Where a replica is with a slot in use, until one comes or goes.
    pub(super) fn place(&self, id: ReplicaId) -> usize {
        self.find(id).expect("a replica is known while a slot of it is in use")
    }

    /// Whether a slot in use may go straight to another request: not after a shrink, nor where nothing is admitted.
    pub(super) fn may_pass_on(&self, place: usize) -> bool {
        let replica = &self.replicas[place];
        replica.busy <= replica.room
    }

    /// Ends the use of a slot.
    pub(super) fn give_back(&mut self, place: usize) {
        let replica = &mut self.replicas[place];
        self.free += u32::from(replica.busy == replica.room);
        replica.busy -= 1;
        if replica.whole {
            self.whole.working -= u32::from(replica.busy == 0);
            self.whole.busy -= 1;
        }
        match replica.phase {
            Phase::Ready | Phase::Suspended => self.load.busy -= 1,
            Phase::Draining | Phase::Gone => self.load.busy_draining -= 1,
        }
    }

    /// Whether the replica drains and is empty. One that was removed is forgotten then.
    pub(super) fn settle(&mut self, place: usize) -> bool {
        let Replica { busy, phase, .. } = self.replicas[place];
        if busy == 0 && phase == Phase::Gone {
            self.replicas.remove(place);
            self.recount();
        }
        busy == 0 && phase >= Phase::Draining
    }

    pub(super) fn any_ready(&self) -> bool {
        self.load.ready > 0
    }

    pub(super) fn any_free(&self) -> bool {
        self.free > 0
    }

    pub(super) fn is_ready(&self, id: ReplicaId) -> bool {
        self.find(id).is_ok_and(|index| self.replicas[index].phase == Phase::Ready)
    }

    /// Slots in use on a replica; 0 when unknown.
    pub(super) fn busy(&self, id: ReplicaId) -> u32 {
        self.find(id).map_or(0, |index| self.replicas[index].busy)
    }

    /// All but the queue.
    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// Counts anew, after everything but the use and the return of a slot.
    fn recount(&mut self) {
        let most = self.most();
        let mut load = Load { slots: self.limit.map(|_| 0), ..Load::default() };
        (self.free, self.tries) = (0, false);
        let mut whole = Whole::default();
        self.peaks = (f64::INFINITY, f64::NEG_INFINITY);
        for replica in &mut self.replicas {
            replica.room = if replica.phase == Phase::Ready { replica.most(most) } else { 0 };
            self.free += u32::from(replica.is_free());
            replica.whole = replica.is_whole(most);
            if replica.whole {
                whole.ready += u32::from(replica.phase == Phase::Ready);
                whole.working += u32::from(replica.busy > 0);
                whole.busy += replica.busy;
            }
            match replica.phase {
                Phase::Ready => {
                    load.ready += 1;
                    load.busy += replica.busy;
                    load.slots = load.slots.map(|slots| slots.saturating_add(replica.room));
                    self.tries |= replica.health.trial;
                    let peak = replica.health.pace.peak();
                    self.peaks = (self.peaks.0.min(peak), self.peaks.1.max(peak));
                }
                Phase::Suspended => load.busy += replica.busy,
                Phase::Draining | Phase::Gone => {
                    load.draining += 1;
                    load.busy_draining += replica.busy;
                }
            }
        }
        self.load = load;
        self.whole = whole;
    }

    /// The invariants of this part; `held` slots are in use.
    pub(super) fn check(&mut self, held: usize) {
        let used: usize = self.replicas.iter().map(|replica| replica.busy as usize).sum();
        assert_eq!(used, held, "slots in use = permits + granted tickets: {self:?}");
        assert!(self.replicas.is_sorted_by(|one, next| one.id < next.id), "sorted, each once: {self:?}");
        let kept = self.replicas.iter().any(|replica| replica.phase == Phase::Gone && replica.busy == 0);
        assert!(!kept, "an empty replica that was removed is forgotten: {self:?}");
        let counted = (self.load, self.free, self.whole);
        self.recount();
        let counts = (self.load, self.free, self.whole);
        assert_eq!(counted, counts, "the counts are those of the replicas: {self:?}");
        let usable = |replica: &Replica| replica.phase == Phase::Ready && replica.cap != Some(0);
        let is_out = |replica: &Replica| replica.most(self.most()) == 0;
        let mut usable = self.replicas.iter().filter(|replica| usable(replica)).peekable();
        assert!(usable.peek().is_none() || !usable.all(is_out), "never all out: {self:?}");
    }

    pub(super) fn find(&self, id: ReplicaId) -> Result<usize, usize> {
        self.replicas.binary_search_by_key(&id, |replica| replica.id)
    }

    fn most(&self) -> u32 {
        self.limit.map_or(u32::MAX, NonZeroU32::get)
    }
}
