//! The rules of scaling against their formulas, written down a second time as plainly as can be: every sample is kept and
//! the largest is searched. Random ticks must give the same number to the last replica.

#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a test and its helpers fail by panicking")]

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use scoregate::core::scale::{History, Signals, decide};
use scoregate::core::settings::{ScalePolicy, ScaleSettings, UtilizationScale};

const SEEDS: u64 = 24;
const TICKS: u32 = 1500;

/// The largest of the last `span` seconds.
fn largest(all: &[(f64, f64)], t: f64, span: f64) -> f64 {
    all.iter().rev().take_while(|(at, _)| *at > t - span).map(|(_, value)| *value).fold(0.0, f64::max)
}

#[derive(Default)]
struct Utilization {
    ghosts_count: bool,
    above: f64,
    needs: Vec<(f64, f64)>,
    weight: f64,
    sum: f64,
    ghosts: f64,
}

/// Within how many seconds those who are turned away would have run at the same time.
fn together(service: f64) -> f64 {
    if service <= 1e-3 { 1.0 } else { (service / 0.3).powi(2).max(service).min(1.0) }
}

impl Utilization {
    fn want(&mut self, s: &Signals) -> f64 {
        let mut load = f64::from(s.inflight);
        if self.ghosts_count {
            if self.weight > 50.0 {
                self.weight *= (-s.dt / 300.0).exp();
                self.sum *= (-s.dt / 300.0).exp();
            }
            self.weight += s.completed as f64;
            self.sum += s.service_sum;
            let service = if self.weight > 0.0 { (self.sum / self.weight).max(1e-3) } else { 1e-3 };
            self.ghosts = self.ghosts * (-s.dt / service).exp()
                + s.rejected as f64 * (together(service) / s.dt).min(1.0);
            load += f64::from(s.queue) + self.ghosts;
        }
        let (total, slots) = (f64::from(s.ready + s.starting), f64::from(s.c));
        let want = (load / (0.7 * slots) - 1e-9).ceil().max(1.0);
        self.needs.push((s.t, want));
        if load / (total * slots) > 0.7 {
            self.above = s.t;
            want.max(total)
        } else if s.t - self.above >= 60.0 {
            total.min(largest(&self.needs, s.t, 60.0))
        } else {
            total
        }
    }
}

struct Staffing {
    /// Share of the requests that may be rejected.
    budget: Option<f64>,
    queue_wait: f64,
    weight: f64,
    sum: f64,
    ghosts: f64,
    done: f64,
    arrivals: f64,
    seconds: f64,
    fast: f64,
    slow: f64,
    cold: f64,
    moments: Option<(f64, f64)>,
    k: f64,
    sized: Vec<(f64, f64)>,
    there: Vec<(f64, f64)>,
    first: f64,
}

impl Staffing {
    fn new(budget: Option<f64>, queue_wait: f64) -> Self {
        let (sized, there) = (Vec::new(), Vec::new());
        let zero = 0.0;
        Self {
            budget,
            queue_wait,
            weight: zero,
            sum: zero,
            ghosts: zero,
            done: zero,
            arrivals: zero,
            seconds: zero,
            fast: zero,
            slow: zero,
            cold: 30.0,
            moments: None,
            k: zero,
            sized,
            there,
            first: zero,
        }
    }

    fn want(&mut self, s: &Signals) -> f64 {
        let fading = |seconds: f64| (-s.dt / seconds).exp();
        if self.first == 0.0 {
            self.first = f64::from(s.ready + s.starting);
        }
        if self.weight > 50.0 {
            self.weight *= fading(300.0);
            self.sum *= fading(300.0);
        }
        self.weight += s.completed as f64;
        self.sum += s.service_sum;
        self.done += s.completed as f64;
        let service = if self.weight > 0.0 { (self.sum / self.weight).max(1e-3) } else { 1e-3 };
        self.ghosts = self.ghosts * fading(service) + s.rejected as f64 * (together(service) / s.dt).min(1.0);
        self.arrivals += s.arrivals as f64;
        self.seconds += s.dt;
        let rate = s.arrivals as f64 / s.dt;
        // The formula leaves it open; of less than a second it would be a wild guess.
        let plain = self.arrivals / self.seconds.max(1.0);
        let next = |old: f64, constant: f64| {
            if self.seconds <= constant { plain } else { old + (1.0 - fading(constant)) * (rate - old) }
        };
        (self.fast, self.slow) = (next(self.fast, service.max(8.0)), next(self.slow, 60.0));
        let offered = self.fast.max(self.slow) * service;
        let x = s.inflight_avg + s.queue_avg + f64::from(s.inflight_draining) + self.ghosts;
        if s.cold_n > 0 {
            let n = f64::from(s.cold_n);
            self.cold += (n / 10.0).min(0.5) * (s.cold_sum / n - self.cold);
        }
        let (mut mean, mut variance) = self.moments.unwrap_or((offered, offered));
        let deviation = x - mean;
        mean += (1.0 - fading(120.0)) * deviation;
        variance += (1.0 - fading(900.0)) * (deviation * deviation - variance);
        self.moments = Some((mean, variance));
        let burstiness = (variance / mean.max(0.5)).clamp(0.3, 50.0);
        if let Some(budget) = self.budget.filter(|_| s.t > 300.0) {
            let over = s.rejected as f64 / budget - s.arrivals as f64;
            self.k = (self.k + (over / (self.slow.max(0.02) * 7200.0)).min(0.05)).clamp(-0.3, 1.0);
        }
        let spread = 1.25 * (offered.max(0.25) * burstiness).sqrt() + 2.0;
        let margin = spread * (1.0 + self.k) * (service / (service + self.queue_wait));
        self.sized.push((s.t, offered + margin));
        self.there.push((s.t, x));
        let hold = (10.0 * self.cold).clamp(120.0, 600.0);
        // What is out once stays out, also when the hold grows again.
        self.sized.retain(|(at, _)| *at > s.t - hold);
        let n = largest(&self.sized, s.t, hold).max(largest(&self.there, s.t, 60.0));
        let want = (n / f64::from(s.c) - 1e-9).ceil().max(1.0);
        let early = (4.0 * self.cold).max(3.0 * service).max(120.0);
        let is_early = s.t < early || (self.done < 30.0 && s.t < 10.0 * early);
        if is_early { want.max(self.first) } else { want }
    }
}

/// A service with a load that jumps, and replicas that take their time; nothing in it is exact, all is possible.
struct World {
    random: SmallRng,
    t: f64,
    ready: u32,
    starting: u32,
    slots: u32,
    service: f64,
    rate: f64,
    wait: f64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let service = [0.01, 0.1, 0.7, 5.0, 40.0][random.random_range(0..5)];
        let slots = random.random_range(1..9);
        let wait = [0.0, 0.5, 5.0][random.random_range(0..3)];
        Self { random, t: 0.0, ready: 3, starting: 0, slots, service, rate: 4.0, wait }
    }

    fn tick(&mut self) -> Signals {
        // Sums of these are exact.
        let dt = [0.25, 0.5, 1.0, 2.0][self.random.random_range(0..4)];
        self.t += dt;
        if self.random.random_bool(0.02) {
            self.rate = [0.0, 0.3, 4.0, 20.0, 90.0][self.random.random_range(0..5)] / self.service.max(0.2);
        }
        let arrivals = self.random.random_range(0.0..=2.0 * self.rate * dt) as u64;
        let offered = self.rate * self.service * self.random.random_range(0.5..1.5);
        let capacity = f64::from(self.ready * self.slots);
        let inflight = offered.min(capacity) as u32;
        let over = (offered - capacity).max(0.0);
        let rejected = (over * self.random.random_range(0.0..1.0)) as u64;
        let completed = arrivals.saturating_sub(rejected);
        let cold_n = if self.starting > 0 && self.random.random_bool(0.2) { self.starting } else { 0 };
        (self.ready, self.starting) = (self.ready + cold_n, self.starting - cold_n);
        Signals {
            t: self.t,
            dt,
            ready: self.ready,
            starting: self.starting,
            inflight,
            inflight_draining: u32::from(self.random.random_bool(0.1)),
            queue: over.min(50.0) as u32,
            inflight_avg: f64::from(inflight) * self.random.random_range(0.8..1.0),
            queue_avg: over.min(50.0) * self.random.random_range(0.0..1.0),
            arrivals,
            completed,
            rejected,
            service_sum: completed as f64 * self.service * self.random.random_range(0.5..1.5),
            cold_n,
            cold_sum: f64::from(cold_n) * self.random.random_range(2.0..90.0),
            c: self.slots,
            min: 1,
            max: 2000,
            queue_wait: self.wait,
            ..Signals::default()
        }
    }

    fn scale(&mut self, to: u32) {
        let have = self.ready + self.starting;
        if to >= have {
            self.starting += to - have;
        } else {
            let cancelled = self.starting.min(have - to);
            self.starting -= cancelled;
            self.ready = self.ready.min(to - self.starting);
        }
    }
}

/// How often the number changed, so that a test that compares nothing is noticed.
fn compare(policy: ScalePolicy, mut reference: impl FnMut(&World) -> Box<dyn FnMut(&Signals) -> f64>) -> u32 {
    let settings = ScaleSettings::Utilization(UtilizationScale {
        policy,
        min: 1,
        max: 2000,
        interval: Duration::from_secs(2),
        target_percent: 70,
        down_after: Duration::from_secs(60),
        count_queue: false,
    });
    let mut changes = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let mut want = reference(&world);
        let mut history = History::default();
        for tick in 0..TICKS {
            let seen = world.tick();
            let expected = want(&seen).clamp(1.0, 2000.0) as u32;
            let decision = decide(&settings, &mut history, &seen);
            let reason = &decision.reason;
            assert_eq!(decision.desired, expected, "seed {seed}, tick {tick}: {reason}; {seen:?}");
            changes += u32::from(decision.desired != seen.ready + seen.starting);
            world.scale(decision.desired);
        }
    }
    changes
}

#[test]
fn azureml_is_its_formula() {
    let changes = compare(ScalePolicy::Azureml, |_| {
        let mut rule = Utilization { ghosts_count: true, ..Utilization::default() };
        Box::new(move |seen| rule.want(seen))
    });
    assert!(changes > 300, "{changes}");
}

#[test]
fn azureml_strict_is_its_formula() {
    let changes = compare(ScalePolicy::AzuremlStrict, |_| {
        let mut rule = Utilization::default();
        Box::new(move |seen| rule.want(seen))
    });
    assert!(changes > 300, "{changes}");
}

#[test]
fn adaptive_is_its_formula() {
    for budget in [None, Some(0.1)] {
        let policy = ScalePolicy::Adaptive { reject_budget_percent: budget };
        let changes = compare(policy, |world| {
            let mut rule = Staffing::new(budget.map(|percent| percent / 100.0), world.wait);
            Box::new(move |seen| rule.want(seen))
        });
        assert!(changes > 300, "{changes}");
    }
}
