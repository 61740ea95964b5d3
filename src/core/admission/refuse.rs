//! Who may wait and who is turned away, at arrival and when a turn comes; and when a refused one may come back.

use std::time::{Duration, Instant};

use crate::core::admission::queue::Waiter;
use crate::core::admission::rate::{Capacity, GUESS};
use crate::core::admission::{Admission, Ask, Pool, Prospect, Retry, Rival, TicketId};
use crate::core::scale::WAIT_BUDGET;

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The queue is as long as it may be.
    QueueFull,
    /// It would have to wait, and its deadline would pass before there were an answer; for how long, if it was refused for that
    /// on arrival.
    TooLate(Option<Duration>),
    /// Its deadline has passed, or would before there were an answer even if it did not wait.
    Hopeless,
    /// The queue was full, and its place went to a more important request, to one of a class or of a caller that had less
    /// than its share of the places, or to one that was promised it.
    GaveWay(Rival),
    /// The queue does not drain, the newest are served first, and this one is older than that by now.
    TooOld(Duration),
    /// Waited as long as it may, all replicas busy.
    WaitedTooLong,
    /// Waited as long as it may, and no replica was ready.
    NoReadyReplica,
}

/// What somebody who comes now has to expect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Tickets that wait.
    pub queued: u32,
    /// Projected wait of a newcomer behind all who wait; `None` when nobody knows.
    pub wait: Option<Duration>,
}

impl Pool {
    /// Moments at which replicas that start now are expected to be ready, instead of those told before.
    pub fn expect(&mut self, moments: Vec<Instant>) {
        self.rate.expect(moments);
    }

    /// What [`Pool::expect`] was told last, in order.
    pub fn expected(&self) -> &[Instant] {
        self.rate.expected()
    }

    /// What somebody who comes now has to expect.
    pub fn outlook(&self, now: Instant) -> Outlook {
        let queued = self.queued();
        let wait = if self.slots.any_free() { Some(Duration::ZERO) } else { self.projected(queued, now) };
        Outlook { queued, wait }
    }

    /// How long one waits who has so many before it, all slots busy.
    pub fn projected(&self, ahead: u32, now: Instant) -> Option<Duration> {
        self.rate.reach(f64::from(ahead) + 1.0, self.capacity(), now)
    }

    /// A ticket that waits has waited as long as it may; counts as rejected. False if it does not wait (any more).
    pub fn expire(&mut self, ticket: TicketId, now: Instant) -> bool {
        self.pass(now);
        let waited = self.waiting.remove(ticket).is_some();
        if waited {
            self.count_rejected();
        }
        waited
    }

    /// Tickets that were turned away since the last call: to be woken, and to ask [`Pool::verdict`].
    pub fn take_turned_away(&mut self) -> Vec<TicketId> {
        std::mem::take(&mut self.untold)
    }

    /// Denial a ticket was turned away while it waited, if it was; told once.
    pub fn verdict(&mut self, ticket: TicketId) -> Option<Denial> {
        self.turned_away.remove(&ticket)
    }

    /// When a request that was refused with this ticket may come back: after those who wait and those who were refused
    /// before it, of its class, with what the more important ones leave. If its mark is known again then, it has its place;
    /// if it asks again before, it has what it was promised.
    pub fn promise(&mut self, ticket: TicketId, ask: &Ask, now: Instant) -> Retry {
        self.pass_promises(now);
        self.promises.crowded(now);
        if let Some(wait) = self.promises.kept(ask.mark, now) {
            return Retry::new(wait);
        }
        let capacity = self.capacity();
        let left = self.waiting.left_for_each()[ask.class as usize];
        let slots = f64::from(capacity.slots.unwrap_or(0));
        let known = self.rate.per_second(Some(1));
        let per_second = known.unwrap_or(0.0) * slots * left;
        // Who waits too long is not served, but refused and promised a place as well.
        let served = match per_second * self.queueing.max_wait.as_secs_f64() {
            0.0 => f64::INFINITY,
            served => served,
        };
        let own = served.min(self.waiting.len_of(ask.class) as f64);
        let all = (served / left).min(self.waiting.ahead_of(ask.class) as f64);
        let service = self.promises.settle(known.map(f64::recip), GUESS);
        let line = self.promises.line(ask.class) / service;
        let hand_overs = ((own + 1.0) / left + line).max(all + 1.0);
        let promised = self.promised(per_second);
        let mut added = 0.0;
        let retry = self.rate.promise(hand_overs, capacity, now).map_or(Retry::UNKNOWN, |wait| {
            let coming = self.rate.expected().len() as f64 * f64::from(capacity.of_a_replica.unwrap_or(1));
            added = self.promises.add(ask, service / (promised * left), slots + coming);
            self.promises.rounded(wait, per_second / left * promised, now)
        });
        self.promises.write(ask, ticket, retry, added, now);
        retry
    }

    /// The same for a request that was refused for this reason. One that could not have been served in time by an idle
    /// replica is promised nothing: it would not be served then either.
    pub fn retry(&mut self, ticket: TicketId, why: Denial, ask: &Ask, now: Instant) -> Retry {
        if why == Denial::Hopeless { Retry::UNKNOWN } else { self.promise(ticket, ask, now) }
    }

    /// The times for which a request was refused, if that was for its deadline.
    pub fn prospect(&self, why: Denial, ask: &Ask, now: Instant) -> Option<Prospect> {
        let wait = match why {
            Denial::Hopeless => None,
            Denial::TooLate(wait) => wait,
            _ => return None,
        };
        let left = ask.deadline?.saturating_duration_since(now);
        Some(Prospect { left, wait, answer: self.rate.answer() })
    }

    /// Until when it is of use that a request waits: then its answer would come after its deadline.
    pub fn useful_until(&self, ask: &Ask) -> Option<Instant> {
        ask.deadline.map(|deadline| deadline.checked_sub(self.rate.answer()).unwrap_or(deadline))
    }

    /// A place for a request: its old one, or one behind all others.
    pub(super) fn place(&mut self, ask: &Ask, now: Instant) -> (TicketId, bool) {
        // Newest first, an old place would be the worst one.
        if !self.promises.is_empty()
            && !self.queueing.newest_first
            && let Some(ticket) = self.promises.redeem(ask.mark, now)
        {
            return (ticket, true);
        }
        (self.new_ticket(), false)
    }

    pub(super) fn new_ticket(&mut self) -> TicketId {
        let ticket = TicketId(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// Nobody has waited for a while: what was learned of the crowd is over.
    pub(super) fn calm_down(&mut self, now: Instant) {
        self.pass_promises(now);
        self.promises.keep_only_those_to_come(now);
        self.waiting.forget_turns();
    }

    /// A place in the queue, or why there is none. `returns` says that it comes back as it was told to.
    pub(super) fn enqueue(
        &mut self,
        ticket: TicketId,
        ask: &Ask,
        returns: bool,
        now: Instant,
    ) -> Result<(), Denial> {
        let waiting = self.waiting.len();
        let ahead = if returns { 0 } else { self.waiting.ahead_of(ask.class) };
        let mut projected = None;
        if ask.deadline.is_some() || !self.called_for_wait {
            projected = self.projected(u32::try_from(ahead).unwrap_or(u32::MAX), now);
        }
        let answered = now + self.rate.answer();
        if ask.deadline.is_some_and(|deadline| answered > deadline) {
            return Err(Denial::Hopeless);
        }
        let full = self.max_queue_length.map(|most| most as usize).filter(|most| waiting >= *most);
        let budget = self.queueing.max_wait.mul_f64(WAIT_BUDGET);
        if !self.called_for_wait && (full.is_some() || projected.is_none_or(|wait| wait > budget)) {
            self.called_for_wait = true;
            self.calls_control = true;
        }
        if let (Some(deadline), Some(wait)) = (ask.deadline, projected)
            && answered + wait > deadline
        {
            return Err(Denial::TooLate(Some(wait)));
        }
        if let Some(most) = full {
            let (victim, waiter) = self.waiting.make_room(ask, ticket, most).ok_or(Denial::QueueFull)?;
            self.turn_away(victim, Denial::GaveWay(Rival::of(&waiter.ask, ask)));
        }
        self.calls_control |= waiting == 0 && !self.slots.any_ready();
        self.promises.crowded(now);
        self.waiting.push(ticket, Waiter { ask: *ask, since: now });
        Ok(())
    }

    pub(super) fn refuse(&mut self, ticket: TicketId, why: Denial) -> Admission {
        if why == Denial::Hopeless {
            // More replicas would not have served it: it is no demand.
            self.tally.arrivals -= 1;
        } else {
            self.count_rejected();
        }
        Admission::Refused(ticket, why)
    }

    /// Whose turn it is. Who would have no use of an answer any more, or is too old, is turned away instead.
    pub(super) fn next(&mut self, now: Instant) -> Option<(TicketId, Waiter)> {
        let mut aside = Vec::new();
        let newest = self.queueing.newest_first && self.is_overloaded(now);
        let answered = now + self.rate.answer();
        let useless = |waiter: &Waiter| waiter.ask.deadline.is_some_and(|deadline| answered > deadline);
        let next = self.waiting.pop(newest, useless, &mut aside);
        for (ticket, _) in aside {
            self.turn_away(ticket, Denial::TooLate(None));
        }
        next
    }

    /// Whether the queue stands; turns away who is too old then.
    fn is_overloaded(&mut self, now: Instant) -> bool {
        let Some(oldest) = self.waiting.oldest() else { return false };
        let age = now.saturating_duration_since(oldest);
        let most = self.overload.note(age, now, self.queueing.max_wait, self.rate.service());
        if let Some(most) = most
            && let Some(limit) = now.checked_sub(most)
        {
            let mut aside = Vec::new();
            self.waiting.take_older(limit, &mut aside);
            for (ticket, _) in aside {
                self.turn_away(ticket, Denial::TooOld(most));
            }
        }
        self.overload.is_on()
    }

    /// The time goes on for those who were promised something, with the capacity of until now.
    pub(super) fn pass_promises(&mut self, now: Instant) {
        self.promises.pass(now, f64::from(self.slots.load().slots.unwrap_or(0)));
    }

    /// Which share of the capacity is promised. What comes back fluctuates, and so does how long it takes; the fewer are
    /// served within the longest wait, the less of that evens out. With a share of `1 − k/n` for `n` of them, the wait
    /// exceeds the longest one with a probability of about `exp(−k)` (M/M/1).
    fn promised(&self, per_second: f64) -> f64 {
        let longest = self.max_queue_length.map_or(f64::INFINITY, f64::from);
        let within_wait = (per_second * self.queueing.max_wait.as_secs_f64()).min(longest);
        (1.0 - 3.0 / within_wait.max(1.0)).clamp(0.7, 0.95)
    }

    fn turn_away(&mut self, ticket: TicketId, why: Denial) {
        self.count_rejected();
        self.turned_away.insert(ticket, why);
        self.untold.push(ticket);
    }

    fn count_rejected(&mut self) {
        self.tally.rejected += 1;
        self.slots.turned_away();
    }

    fn capacity(&self) -> Capacity {
        // Without a limit there are no slots to count; without a replica there are none either way.
        let slots = if self.slots.any_ready() { self.slots.load().slots } else { Some(0) };
        Capacity { slots, of_a_replica: self.slots.limit() }
    }
}
