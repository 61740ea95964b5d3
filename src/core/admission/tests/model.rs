//! The pool against a naive model that follows its choices.

use proptest::prelude::*;

use super::*;
use crate::core::admission::queue::{LONGEST_PASSED_OVER, places};

#[derive(Clone, Debug)]
enum Step {
    Admit(Class),
    Expire(usize),
    Claim(usize),
    Cancel(usize),
    Release(usize),
    Suspect(usize),
    Open(u64),
    Close(u64, Phase),
    Limits(u32, Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let phase = prop_oneof![Just(Phase::Suspended), Just(Phase::Draining), Just(Phase::Gone)];
    prop_oneof![
        8 => prop::sample::select(&Class::ALL).prop_map(Step::Admit),
        1 => any::<usize>().prop_map(Step::Expire),
        4 => any::<usize>().prop_map(Step::Claim),
        2 => any::<usize>().prop_map(Step::Cancel),
        5 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Suspect),
        2 => (0u64..5).prop_map(Step::Open),
        1 => (0u64..5, phase).prop_map(|(id, phase)| Step::Close(id, phase)),
        1 => (0u32..4, prop::option::of(0u32..6)).prop_map(|(slots, queue)| Step::Limits(slots, queue)),
    ]
}

/// Everything in plain lists. Which of the least busy replicas is taken is the pool's choice; the model follows
/// and says whether it was allowed.
#[derive(Debug)]
struct Model {
    limits: Limits,
    replicas: BTreeMap<ReplicaId, Phase>,
    /// By class, oldest first.
    queue: Vec<(Class, TicketId)>,
    /// Hand-overs in a row that went to others while somebody of the class waited.
    passed_over: [usize; Class::COUNT],
    /// At how many hand-overs one of the class waited, and how often it came before a more important one.
    waited: [u32; Class::COUNT],
    due: [u32; Class::COUNT],
    classes: BTreeMap<TicketId, Class>,
    granted: Vec<(TicketId, ReplicaId)>,
    permits: Vec<(TicketId, ReplicaId)>,
    last: Option<TicketId>,
}

impl Model {
    fn busy(&self, id: ReplicaId) -> u32 {
        self.granted.iter().chain(&self.permits).filter(|(_, on)| *on == id).count().try_into().unwrap()
    }

    /// How busy the least busy replica with a free slot is.
    fn least(&self) -> Option<u32> {
        let most = self.limits.slots.map_or(u32::MAX, NonZeroU32::get);
        let ready = self.replicas.iter().filter(|(_, phase)| **phase == Phase::Ready);
        ready.map(|(id, _)| self.busy(*id)).filter(|busy| *busy < most).min()
    }

    fn may_take(&self, id: ReplicaId) {
        assert_eq!(self.replicas[&id], Phase::Ready);
        assert_eq!(Some(self.busy(id)), self.least(), "the least busy one with a free slot");
    }

    /// These tickets got slots, in this order, each of them the oldest of a class whose turn it may be, and nobody
    /// else.
    fn follow(&mut self, pool: &Pool, granted: impl IntoIterator<Item = TicketId>) {
        for ticket in granted {
            let class = self.classes[&ticket];
            let oldest = self.queue.iter().position(|(of, _)| *of == class).unwrap();
            assert_eq!(self.queue[oldest].1, ticket, "first come, first served");
            // A fifth and a twentieth of the hand-overs at which one of it waited, and no more.
            if oldest > 0 {
                self.due[class as usize] += 1;
                let most = self.waited[class as usize] * [0, 20, 5][class as usize];
                assert!(self.due[class as usize] * 100 <= most, "{class:?} is not due: {self:?}");
            }
            for (of, waited) in Class::ALL.into_iter().zip(&mut self.waited) {
                *waited += u32::from(self.queue.iter().any(|(other, _)| *other == of));
            }
            self.queue.remove(oldest);
            for other in Class::ALL {
                let passed_over = &mut self.passed_over[other as usize];
                *passed_over = if other == class { 0 } else { *passed_over + 1 };
            }
            self.forget_classes_without_waiters();
            let longest = [2, 6, LONGEST_PASSED_OVER];
            assert!(
                self.passed_over.iter().zip(longest).all(|(now, most)| *now <= most),
                "starves: {self:?}"
            );
            let replica = pool.granted[&ticket].replica;
            self.may_take(replica);
            self.granted.push((ticket, replica));
        }
        assert!(self.queue.is_empty() || self.least().is_none(), "nobody waits while a slot is free");
    }

    fn forget_classes_without_waiters(&mut self) {
        for class in Class::ALL {
            if !self.queue.iter().any(|(of, _)| *of == class) {
                self.passed_over[class as usize] = 0;
            }
        }
    }

    fn queue(&mut self, ticket: TicketId) {
        self.queue.push((self.classes[&ticket], ticket));
        self.queue.sort();
    }

    fn close(&mut self, id: ReplicaId, phase: Phase) {
        let Some(known) = self.replicas.get_mut(&id) else { return };
        *known = (*known).max(phase);
        let (back, kept) = self.granted.drain(..).partition(|(_, on)| *on == id);
        self.granted = kept;
        let back: Vec<(TicketId, ReplicaId)> = back;
        back.into_iter().for_each(|(ticket, _)| self.queue(ticket));
    }

    /// The newest of the least important class that has more than its share of the places gives way, to a more important
    /// request or to one whose class has less.
    fn victim(&self, class: Class) -> Option<TicketId> {
        let places = places(self.limits.max_queue_length? as usize);
        let count = |class: Class| self.queue.iter().filter(|(of, _)| *of == class).count();
        let lacks = count(class) < places[class as usize];
        let gives = |of: Class| count(of) > places[of as usize] && (of > class || of < class && lacks);
        self.queue.iter().rev().find(|(of, _)| gives(*of)).map(|(_, ticket)| *ticket)
    }

    fn admit(&mut self, pool: &mut Pool, class: Class) {
        let full = self.limits.max_queue_length.is_some_and(|most| self.queue.len() >= most as usize);
        let waits = !self.queue.is_empty() || self.least().is_none();
        let victim = self.victim(class).filter(|_| full);
        match pool.admit(&Ask { class, ..Ask::default() }, now()) {
            Admission::Granted(ticket, replica) => {
                assert!(!waits && self.last < Some(ticket));
                self.may_take(replica);
                self.classes.insert(ticket, class);
                self.permits.push((ticket, replica));
                self.last = Some(ticket);
            }
            Admission::Queued(ticket) => {
                assert!(waits && (!full || victim.is_some()) && self.last < Some(ticket));
                if let Some(victim) = victim {
                    assert_eq!(pool.take_turned_away(), [victim]);
                    assert!(matches!(pool.verdict(victim), Some(Denial::GaveWay(_))));
                    assert_eq!(pool.verdict(victim), None);
                    self.queue.retain(|(_, ticket)| *ticket != victim);
                    self.forget_classes_without_waiters();
                }
                self.classes.insert(ticket, class);
                self.queue(ticket);
                self.last = Some(ticket);
            }
            Admission::Refused(_, why) => {
                assert!(waits && full && victim.is_none());
                assert_eq!(why, Denial::QueueFull);
            }
        }
        assert_eq!(pool.take_turned_away(), []);
    }

    fn step(&mut self, pool: &mut Pool, step: &Step) {
        match *step {
            Step::Admit(class) => self.admit(pool, class),
            Step::Expire(at) if !self.queue.is_empty() => {
                let (_, ticket) = self.queue.remove(at % self.queue.len());
                self.forget_classes_without_waiters();
                assert!(pool.expire(ticket, now()) && !pool.expire(ticket, now()));
            }
            Step::Claim(at) if !self.granted.is_empty() => {
                let (ticket, replica) = self.granted.swap_remove(at % self.granted.len());
                assert_eq!(pool.claim(ticket), Some(replica));
                self.permits.push((ticket, replica));
            }
            Step::Cancel(at) if self.queue.len() + self.granted.len() > 0 => {
                let at = at % (self.queue.len() + self.granted.len());
                let ticket = if at < self.queue.len() {
                    assert_eq!(pool.claim(self.queue[at].1), None);
                    let (_, ticket) = self.queue.remove(at);
                    self.forget_classes_without_waiters();
                    ticket
                } else {
                    self.granted.swap_remove(at - self.queue.len()).0
                };
                let next = pool.cancel(ticket, now());
                self.follow(pool, next);
            }
            Step::Release(at) if !self.permits.is_empty() => {
                let (_, replica) = self.permits.swap_remove(at % self.permits.len());
                let next = pool.release(replica, &used());
                self.follow(pool, next);
            }
            Step::Suspect(at) if !self.permits.is_empty() => {
                let (ticket, replica) = self.permits.swap_remove(at % self.permits.len());
                self.close(replica, Phase::Suspended);
                self.queue(ticket);
                let granted = pool.suspect(
                    ticket,
                    replica,
                    &Ask { class: self.classes[&ticket], ..Ask::default() },
                    now(),
                );
                self.follow(pool, granted);
            }
            Step::Open(id) => {
                self.replicas.insert(ReplicaId(id), Phase::Ready);
                let granted = pool.admit_replica(ReplicaId(id), now());
                self.follow(pool, granted);
            }
            Step::Close(id, phase) => {
                let id = ReplicaId(id);
                self.close(id, phase);
                let granted = match phase {
                    Phase::Draining => pool.drain(id, now()),
                    Phase::Gone => pool.remove(id, now()),
                    Phase::Ready | Phase::Suspended => pool.suspend(id, now()),
                };
                self.follow(pool, granted);
            }
            Step::Limits(slots, queue) => {
                self.limits = limits(slots, queue);
                let granted = pool.set_limits(self.limits, now());
                self.follow(pool, granted);
            }
            Step::Expire(_) | Step::Claim(_) | Step::Cancel(_) | Step::Release(_) | Step::Suspect(_) => {}
        }
        let gone: Vec<_> = self.replicas.keys().copied().filter(|id| self.busy(*id) == 0).collect();
        self.replicas.retain(|id, phase| *phase != Phase::Gone || !gone.contains(id));
        self.compare(pool);
    }

    fn compare(&self, pool: &Pool) {
        let mut load = Load { queued: self.queue.len().try_into().unwrap(), ..Load::default() };
        for (id, phase) in &self.replicas {
            assert_eq!(pool.busy(*id), self.busy(*id));
            let draining = *phase >= Phase::Draining;
            load.ready += u32::from(*phase == Phase::Ready);
            load.draining += u32::from(draining);
            *(if draining { &mut load.busy_draining } else { &mut load.busy }) += self.busy(*id);
        }
        load.slots = self.limits.slots.map(|slots| slots.get() * load.ready);
        assert_eq!(pool.load(), load);
        let waiting = pool.waiting.tickets().map(|(ticket, waiter)| (waiter.ask.class, ticket));
        assert!(waiting.eq(self.queue.iter().copied()));
    }
}

proptest! {
    #[test]
    fn the_pool_does_what_a_naive_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let mut pool = Pool::new(limits(1, None));
        let mut model = Model {
            limits: limits(1, None),
            replicas: BTreeMap::new(),
            queue: Vec::new(),
            passed_over: [0; Class::COUNT],
            waited: [0; Class::COUNT],
            due: [0; Class::COUNT],
            classes: BTreeMap::new(),
            granted: Vec::new(),
            permits: Vec::new(),
            last: None,
        };
        for step in &steps {
            model.step(&mut pool, step);
        }
        for id in 0..5 {
            model.step(&mut pool, &Step::Close(id, Phase::Gone));
        }
        while model.queue.len() + model.granted.len() + model.permits.len() > 0 {
            model.step(&mut pool, &Step::Cancel(0));
            model.step(&mut pool, &Step::Release(0));
        }
        prop_assert_eq!(pool.load(), Load { slots: model.limits.slots.map(|_| 0), ..Load::default() });
    }
}
