//! Far more than can be served, for a minute of virtual time: what is told afterwards is true, and nobody starves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const SECOND: u64 = 1_000_000;

/// One slot that serves 50 requests a second, a queue, and clients that wait half a second. Times in microseconds.
struct Flood {
    pool: Pool,
    start: Instant,
    running: BinaryHeap<Reverse<(u64, u64)>>,
    served: Vec<Ask>,
    waiting: BTreeMap<TicketId, (u64, Ask)>,
    /// Who was told to come back while it waited, and when.
    told: Vec<(Ask, u64)>,
}

impl Flood {
    fn new(most: u32) -> Self {
        let start = now();
        let mut pool = Pool::new(limits(1, Some(most)));
        pool.set_queueing(Queueing { max_wait: Duration::from_millis(500), ..Queueing::default() });
        pool.admit_replica(ReplicaId(0), start);
        Self {
            pool,
            start,
            running: BinaryHeap::new(),
            served: Vec::new(),
            waiting: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    fn at(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }

    fn finish_until(&mut self, us: u64) {
        while let Some(Reverse((end, began))) = self.running.peek().copied().filter(|next| next.0.0 <= us) {
            self.running.pop();
            let (since, until) = (self.at(began), self.at(end));
            let used = Use { since, until, outcome: Outcome::Answered, tenant: Tenant::default() };
            if let Some(ticket) = self.pool.release(ReplicaId(0), &used) {
                let (_, ask) = self.waiting.remove(&ticket).unwrap();
                self.pool.claim(ticket);
                self.run(ask, end);
            }
            self.turn_away(end);
        }
        let now = self.at(us);
        let late: Vec<TicketId> =
            self.waiting.iter().filter(|(_, (since, _))| since + 500_000 <= us).map(|(id, _)| *id).collect();
        for ticket in late {
            let (_, ask) = self.waiting.remove(&ticket).unwrap();
            self.pool.expire(ticket, now);
            let retry = self.pool.promise(ticket, &ask, now);
            self.told.push((ask, us + retry.wait.as_micros() as u64));
        }
    }

    fn turn_away(&mut self, us: u64) {
        let now = self.at(us);
        for ticket in self.pool.take_turned_away() {
            let (_, ask) = self.waiting.remove(&ticket).unwrap();
            let why = self.pool.verdict(ticket).unwrap();
            let retry = self.pool.retry(ticket, why, &ask, now);
            self.told.push((ask, us + retry.wait.as_micros() as u64));
        }
    }

    fn run(&mut self, ask: Ask, us: u64) {
        self.served.push(ask);
        let service = 15_000 + (self.served.len() as u64 * 7_919) % 10_000;
        self.running.push(Reverse((us + service, us)));
    }

    /// `None` when it is served or waits.
    fn ask(&mut self, ask: Ask, us: u64) -> Option<Retry> {
        self.finish_until(us);
        let now = self.at(us);
        let told = match self.pool.admit(&ask, now) {
            Admission::Granted(..) => {
                self.run(ask, us);
                None
            }
            Admission::Queued(ticket) => {
                self.waiting.insert(ticket, (us, ask));
                None
            }
            Admission::Refused(ticket, why) => Some(self.pool.retry(ticket, why, &ask, now)),
        };
        self.turn_away(us);
        told
    }

    /// Twenty come at once: one runs, ten wait, nine are refused. The longest time that one is told.
    fn burst(&mut self, from: u64) -> Duration {
        let told = (0..20).filter_map(|k| {
            self.ask(
                Ask { mark: Mark { id: 1 << 40 | (from + k), ..Mark::default() }, ..Ask::default() },
                from + k,
            )
        });
        told.map(|retry| retry.wait).max().unwrap()
    }

    fn served(&self, which: impl Fn(&Ask) -> bool) -> usize {
        self.served.iter().filter(|ask| which(ask)).count()
    }
}

fn asks(id: u64) -> Ask {
    Ask { mark: Mark { id, ..Mark::default() }, ..Ask::default() }
}

/// The last of nine behind ten that wait: 0.2 s for those, and 9 at the promised share of 50 in a second.
const TRUE: Duration = Duration::from_millis(600);

#[test]
fn those_who_never_come_back_are_not_waited_for() {
    for known in [true, false] {
        for rate in [500, 4_000] {
            let mut flood = Flood::new(10);
            let mut told = Duration::ZERO;
            for k in 0..rate * 60 {
                let ask = asks(if known { k + 1 } else { 0 });
                told = flood.ask(ask, k * SECOND / rate).map_or(told, |retry| retry.wait);
            }
            // Nothing shows that those do not come back who would not be known.
            assert!(told <= Duration::from_secs(if known { 4 } else { 15 }), "{rate}/s, {known}: {told:?}");
            let after = flood.burst(70 * SECOND);
            assert!(after <= TRUE, "{rate}/s, {known}: {after:?}");
        }
    }
}

#[test]
fn who_asks_again_and_again_keeps_what_it_was_promised() {
    let mut flood = Flood::new(10);
    let (mut marks, mut next, mut told) = ([0; 60], 0, Duration::ZERO);
    for step in 0..600 {
        for (client, mark) in (0..).zip(&mut marks) {
            if *mark == 0 {
                next += 1;
                *mark = next;
            }
            match flood.ask(asks(*mark), step * 100_000 + client * 1_600) {
                None => *mark = 0,
                Some(retry) => told = retry.wait,
            }
        }
    }
    assert!(told <= Duration::from_secs(3), "60 clients and 50 served in a second: {told:?}");
    let after = flood.burst(70 * SECOND);
    assert!(after <= TRUE, "{after:?}");
}

#[test]
fn a_deadline_that_nobody_could_meet_is_no_demand_and_is_promised_nothing() {
    let mut flood = Flood::new(10);
    (0..100).for_each(|k| _ = flood.ask(Ask::default(), k * 25_000));
    flood.finish_until(3 * SECOND);
    flood.pool.take_tally(flood.at(3 * SECOND));
    for k in 0..20_000 {
        let us = 3 * SECOND + k * 1_000;
        flood.ask(
            Ask {
                mark: Mark { id: k + 1, ..Mark::default() },
                deadline: Some(flood.at(us)),
                ..Ask::default()
            },
            us,
        );
    }
    let tally = flood.pool.take_tally(flood.at(23 * SECOND));
    assert_eq!((tally.arrivals, tally.rejected), (0, 0));
    let after = flood.burst(23 * SECOND);
    assert!(after <= TRUE, "{after:?}");
}

#[test]
fn every_class_has_its_share_of_a_short_queue() {
    for most in [2, 5, 10, 20, 1_000] {
        let mut flood = Flood::new(most);
        for k in 0..12_000 {
            let class = if k % 4 == 3 { Class::Default } else { Class::Critical };
            flood.ask(Ask { class, ..Ask::default() }, k * 5_000);
        }
        let all = flood.served.len() as f64;
        let share = flood.served(|ask| ask.class == Class::Default) as f64 / all;
        assert!((0.19..=0.21).contains(&share) && all > 2_900.0, "{most} places: {share} of {all}");
    }
}

#[test]
fn a_caller_that_floods_a_short_queue_takes_nothing_from_others() {
    for most in [10, 20, 1_000] {
        let mut flood = Flood::new(most);
        flood.pool.set_queueing(Queueing { fair_share: true, ..flood.pool.queueing });
        for k in 0..25_200 {
            let tenant = Tenant(u32::from(k % 21 == 20));
            flood.ask(Ask { tenant, ..Ask::default() }, k * SECOND / 420);
        }
        let other = flood.served(|ask| ask.tenant == Tenant(1));
        assert!(other > 1_100 && flood.served.len() > 2_900, "{most} places: {other} of 1200 asked");
    }
}

#[test]
fn a_class_behind_others_is_told_when_its_own_share_comes_to_it() {
    // Ordinary traffic of twice the capacity; sheddable requests get a twentieth, 2.5 in a second.
    let mut flood = Flood::new(10);
    let mut back: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
    let (mut returned, mut refused, mut waits) = (0, 0, Vec::new());
    for k in 0..6_000 {
        let us = k * 10_000;
        flood.ask(asks(10_000 + k), us);
        let due: Vec<u64> = back.iter().filter(|(_, (at, _))| *at <= us).map(|(mark, _)| *mark).collect();
        let fresh = (k > 500 && k < 2_000 && k % 25 == 0).then_some(k);
        for mark in due.into_iter().chain(fresh) {
            let times = back.remove(&mark).map_or(0, |(_, times)| times + 1);
            let told = flood.ask(Ask { class: Class::Sheddable, ..asks(mark) }, us + 1);
            returned += u32::from(times == 1);
            refused += u32::from(times == 1 && told.is_some());
            if let Some(retry) = told {
                waits.push(retry.wait);
                back.insert(mark, (us + retry.wait.as_micros() as u64, times));
            }
        }
        for (ask, at) in std::mem::take(&mut flood.told) {
            if ask.class == Class::Sheddable {
                back.insert(ask.mark.id, (at, 1));
            }
        }
    }
    assert!(refused * 5 <= returned && returned > 20, "{refused} of {returned} refused again: {waits:?}");
    // 25 more than were served in that time.
    let longest = waits.into_iter().max().unwrap();
    assert!(longest >= Duration::from_secs(6) && longest <= Duration::from_secs(40), "{longest:?}");
}
