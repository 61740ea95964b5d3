//! The gate of a deployment: the pool of `core::admission` under one lock, with wakers, futures and guards.
//!
//! Hand-over, not notification: a release gives its slot to the first waiter under the lock and wakes exactly
//! that one after unlocking. Nothing awaits, logs or calls out under the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

#[cfg(all(test, model_check))]
use loom::sync::{Mutex, MutexGuard};
use slab::Slab;
#[cfg(not(all(test, model_check)))]
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::core::admission::{
    Ask, Denial, Limits, Load, Outcome, Outlook, Pool, Prospect, Queueing, ReplicaId, Report, Retry, Tally,
    TicketId,
};
use crate::core::settings::Authority;
use crate::data::gate::deadline::Deadline;

pub use acquire::{Acquire, Permit};
pub use wanted::Wanted;

mod acquire;
mod deadline;
mod wanted;

/// What a permit points to: a replica as the data plane sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Never used again for another replica.
    pub id: ReplicaId,
    /// For people: `blue-3`.
    pub name: Arc<str>,
    /// Where it listens.
    pub authority: Authority,
    /// `host:port`, as it goes into the Host header.
    pub host: http::HeaderValue,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub why: Denial,
    /// When to come back.
    pub retry: Retry,
    /// The times that did not fit together, if it was refused for its deadline.
    pub prospect: Option<Prospect>,
}

/// Admission of one deployment, shared by all workers and the control plane; carried from one snapshot to the
/// next by name.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    events: Notify,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    /// What each replica that was admitted and not removed is.
    targets: BTreeMap<ReplicaId, Arc<Target>>,
    /// Of tickets that wait. Taken out when the ticket is granted; wakers are dropped after unlocking, because
    /// that can drop a task and with it another permit of this gate.
    wakers: BTreeMap<TicketId, Waker>,
    suspects: Vec<ReplicaId>,
    /// Of each of a replica's slots that is held by a request that was given up, until when the replica may be at work on it.
    given_up: BTreeMap<ReplicaId, Vec<Instant>>,
    /// How the uses of slots ended, by the number of the outcome.
    ended: [u64; Outcome::ALL.len()],
    /// Of second copies, which make way when somebody has to wait.
    copies: Slab<Waker>,
}

impl Gate {
    /// A gate without replicas.
    pub fn new(limits: Limits) -> Arc<Self> {
        let state = State {
            pool: Pool::new(limits),
            targets: BTreeMap::new(),
            wakers: BTreeMap::new(),
            suspects: Vec::new(),
            given_up: BTreeMap::new(),
            ended: [0; _],
            copies: Slab::new(),
        };
        Arc::new(Self { state: Mutex::new(state), events: Notify::new() })
    }

    /// Other limits, at once: waiters get slots that become free by it; a shrink takes nothing away.
    pub fn set_limits(&self, limits: Limits) {
        self.change(|state| state.pool.set_limits(limits, now()));
    }

    /// Another way to keep the queue, at once.
    pub fn set_queueing(&self, queueing: Queueing) {
        self.lock().pool.set_queueing(queueing);
    }

    /// When replicas that start now are expected to be ready, instead of what was told before: for projected waits and
    /// for `Retry-After`. To be told anew when one of them is ready.
    pub fn expect(&self, moments: Vec<Instant>) {
        self.lock().pool.expect(moments);
    }

    /// What [`Self::expect`] was told last, in order.
    pub fn expected(&self) -> Vec<Instant> {
        self.lock().pool.expected().to_vec()
    }

    /// What a newcomer has to expect.
    pub fn outlook(&self, now: Instant) -> Outlook {
        self.lock().pool.outlook(now)
    }

    /// The replica admits requests from now on; the oldest waiters get its slots at once. Also takes a draining
    /// or suspended one back.
    pub fn admit(&self, target: &Arc<Target>) {
        self.change(|state| {
            state.targets.insert(target.id, Arc::clone(target));
            state.pool.admit_replica(target.id, now())
        });
    }

    /// The same, with a limit of its own from the first moment on; see [`Self::cap`].
    pub fn admit_capped(&self, target: &Arc<Target>, cap: u32) {
        self.change(|state| {
            state.targets.insert(target.id, Arc::clone(target));
            state.pool.admit_capped(target.id, cap, now())
        });
    }

    /// The replica admits nothing from now on; what runs on it goes on. Unknown ids are ignored.
    pub fn drain(&self, id: ReplicaId) {
        self.change(|state| state.pool.drain(id, now()));
    }

    /// The replica is gone: like `drain`, and forgotten when its last permit is dropped.
    pub fn remove(&self, id: ReplicaId) {
        self.change(|state| {
            state.targets.remove(&id);
            state.suspects.retain(|suspect| *suspect != id);
            state.pool.remove(id, now())
        });
    }

    /// Slots in use on a replica; 0 when unknown.
    pub fn busy(&self, id: ReplicaId) -> u32 {
        self.lock().pool.busy(id)
    }

    /// Whether a replica may be at work: it has a request that somebody still waits for, or one that was given up (its
    /// client left, another copy won) before its time was up, and which the replica may still compute. One that holds on to
    /// others only has been silent for longer than it may be.
    pub fn is_working(&self, id: ReplicaId) -> bool {
        let (state, now) = (self.lock(), now());
        let given_up = state.given_up.get(&id).map_or(&[][..], Vec::as_slice);
        let overdue = given_up.iter().filter(|until| **until <= now).count();
        state.pool.busy(id) as usize > overdue
    }

    /// Whether any replica admits requests.
    pub fn any_ready(&self) -> bool {
        self.lock().pool.any_ready()
    }

    /// What is held now.
    pub fn load(&self) -> Load {
        self.lock().pool.load()
    }

    /// How many uses of slots ended in which way since the gate was made, in the order of [`Outcome::ALL`].
    pub fn ended(&self) -> [u64; Outcome::ALL.len()] {
        self.lock().ended
    }

    /// Replicas that the data plane could not connect to since the last call; they admit nothing until
    /// `admit` is called for them.
    pub fn take_suspects(&self) -> Vec<ReplicaId> {
        std::mem::take(&mut self.lock().suspects)
    }

    /// Wakes the control plane: somebody waits and no replica admits or the projected wait is too long, a draining
    /// replica has become empty, a replica is suspected, or a `review` is due. Level-triggered: look at `load`, `busy`,
    /// `take_suspects` and `review` after each wake.
    pub fn events(&self) -> &Notify {
        &self.events
    }

    /// Asks for a slot; waits at most `max_wait` from `now` on. The first poll takes a free slot or a ticket.
    pub fn acquire(self: &Arc<Self>, now: Instant, max_wait: Duration, ask: Ask) -> Acquire {
        Acquire::new(Arc::clone(self), now, Deadline::new(now, max_wait), ask)
    }

    /// A slot at once on a replica that is none of `not`, and only if nobody waits: for second copies of requests.
    pub fn take_idle(self: &Arc<Self>, now: Instant, not: &[ReplicaId], ask: Ask) -> Option<Permit> {
        let mut state = self.lock();
        let (place, replica) = state.pool.take_idle(not, now)?;
        let target = state.target(replica);
        drop(state);
        Some(Permit::new(Arc::clone(self), target, place, None, now, ask))
    }

    /// Ready when somebody waits for a slot: second copies of requests make way then.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted::new(self)
    }

    /// A limit of its own for one replica, where it is less than that of all; see [`Pool::cap`].
    pub fn cap(&self, id: ReplicaId, cap: Option<u32>) {
        self.change(|state| state.pool.cap(id, cap, now()));
    }

    /// Whether replicas that fail or are far slower than their siblings lose slots for it; they do unless told otherwise.
    pub fn set_passive_health(&self, on: bool) {
        self.change(|state| state.pool.set_passive_health(on, now()));
    }

    /// Whether the limit of a replica is found from what passes by, instead of that of the settings.
    pub fn set_auto_limit(&self, on: bool) {
        self.change(|state| state.pool.set_auto_limit(on, now()));
    }

    /// Requests at once on one replica, as given or as found; `None` is no limit.
    pub fn limit(&self) -> Option<u32> {
        self.lock().pool.limit()
    }

    /// Has the pool look at the replicas' health, and says how each one stands that admits requests. For the one scaler of
    /// the deployment, each second and at each event.
    pub fn review(&self, now: Instant) -> Vec<Report> {
        let mut standings = Vec::new();
        self.change(|state| {
            let granted = state.pool.review(now);
            standings = state.pool.standings();
            granted
        });
        standings
    }

    /// What has happened since the last call. For the one scaler of the deployment.
    pub fn take_tally(&self, now: Instant) -> Tally {
        self.lock().pool.take_tally(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock but a broken invariant, and then the others must still be able to end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a change and wakes, after unlocking, exactly those to whom it gave a slot.
    fn change<Granted>(&self, change: impl FnOnce(&mut State) -> Granted)
    where
        Granted: IntoIterator<Item = TicketId>,
    {
        let mut state = self.lock();
        let mut granted = change(&mut state).into_iter();
        let Some(first) = granted.next() else {
            self.unlock(state);
            return;
        };
        // A release wakes one at most, and must not allocate for it.
        let first = state.wakers.remove(&first);
        let others: Vec<Waker> = granted.filter_map(|ticket| state.wakers.remove(&ticket)).collect();
        self.unlock(state);
        first.into_iter().chain(others).for_each(Waker::wake);
    }

    /// Unlocks, wakes those who were turned away, and passes on the pool's call for the control plane, if there is one.
    fn unlock(&self, mut state: MutexGuard<'_, State>) {
        if !state.pool.has_news() {
            return;
        }
        let call = state.pool.take_call();
        let turned_away = state.pool.take_turned_away().into_iter();
        let wakers: Vec<Waker> = turned_away.filter_map(|ticket| state.wakers.remove(&ticket)).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if call {
            self.events.notify_one();
        }
    }
}

/// The runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl State {
    fn target(&self, id: ReplicaId) -> Arc<Target> {
        Arc::clone(self.targets.get(&id).expect("slots are granted on replicas that were not removed"))
    }

    fn report(&mut self, id: ReplicaId) {
        if self.targets.contains_key(&id) && !self.suspects.contains(&id) {
            self.suspects.push(id);
        }
    }
}

#[cfg(test)]
#[cfg(model_check)]
mod model;
#[cfg(test)]
#[cfg(not(model_check))]
mod stress;
#[cfg(test)]
#[cfg(not(model_check))]
mod tests;
