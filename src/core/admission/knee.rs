//! How many requests at once are worth giving to a replica: the knee of its throughput over its limit, found from what
//! passes by. Nothing is sent for it, and no limit is tried that nobody waits for.
//!
//! A window is so many answers at one limit. While requests wait, its throughput is that of the limit (Little's law holds
//! however answers bunch up). The limit doubles while that brings a good part of what it could; then the smallest limit
//! that is nearly as good as the best is looked for between those that were seen; then it stays, with a look at the
//! neighbours now and then, and begins anew when the throughput has changed.

use std::collections::BTreeMap;

/// Doubling the limit must bring this much throughput to be worth the longer service times.
const WORTH: f64 = 1.2;
/// The limit that is looked for has this share of the best throughput.
const ENOUGH: f64 = 0.95;
/// A window says something of its limit when so much of it was in use on average.
const FULL: f64 = 0.85;
/// The throughput has changed when two windows in a row are off by this share.
const CHANGED: f64 = 0.25;
/// Windows between two looks at the neighbours.
const REST: u32 = 16;
/// Every so many looks one goes down, which costs throughput while it lasts: less than 1 % of all.
const DOWN: u32 = 4;
/// No limit is larger.
const MOST: u32 = 1024;
/// Answers of the shortest window, and of the longest one beside what is in flight.
const WINDOW: (f64, f64) = (32.0, 512.0);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Doubles, starting from a throughput.
    Climb(Option<f64>),
    /// Looks between what was seen.
    Search,
    /// Stays, for so many windows; with the windows in a row that were off, and the looks until now.
    Steady { windows: u32, off: u32, looks: u32 },
    /// Looks at a neighbour of this limit.
    Look { from: u32, looks: u32 },
}

/// Sums of a window.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Time of replicas that had work, in seconds.
    working: f64,
    /// The same times what each one had.
    held: f64,
    answers: u32,
    /// Of these, so many whose slot went straight to a request that waited.
    waited: u32,
}

/// The search for one deployment's limit.
#[derive(Debug)]
pub(super) struct Knee {
    limit: u32,
    /// What the last search has found.
    found: Option<u32>,
    stage: Stage,
    /// Answers each second of one replica, by limit.
    seen: BTreeMap<u32, f64>,
    window: Window,
    /// Answers to pass over: they were given work under another limit.
    skip: u32,
}

impl Knee {
    /// Begins with one request at a time.
    pub(super) fn new() -> Self {
        Self {
            limit: 1,
            found: None,
            stage: Stage::Climb(None),
            seen: BTreeMap::new(),
            window: Window::default(),
            skip: 0,
        }
    }

    /// The limit that is to hold now.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// The limit that was found last, whatever is tried now; on the way to the first one, how far it has come.
    pub(super) fn settled(&self) -> u32 {
        self.found.unwrap_or(self.limit)
    }

    /// So many seconds have gone by with so many replicas that have work and slots in use.
    pub(super) fn pass(&mut self, seconds: f64, working: u32, held: u32) {
        self.window.working += seconds * f64::from(working);
        self.window.held += seconds * f64::from(held);
    }

    /// An answer. `waited`: somebody waits for its slot; `ready`: replicas; `spread`: variance of the logarithm of service
    /// times, to base 2. Whether the limit is another one now.
    pub(super) fn answered(&mut self, waited: bool, ready: u32, spread: f64) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            if self.skip == 0 {
                self.window = Window::default();
            }
            return false;
        }
        self.window.answers += 1;
        self.window.waited += u32::from(waited);
        let in_flight = f64::from(self.limit) * f64::from(ready.max(1));
        // What is nearly as good is harder to tell than what is far better.
        let care = if self.stage == Stage::Search { 2.0 } else { 1.0 };
        if f64::from(self.window.answers) < care * window(spread).max(3.0 * in_flight) {
            return false;
        }
        let Window { working, held, answers, waited } = std::mem::take(&mut self.window);
        if working <= 0.0 {
            return false;
        }
        let before = self.limit;
        let is_full = held / working >= FULL * f64::from(self.limit);
        let is_wanted = u64::from(waited) * 8 >= u64::from(answers);
        self.step(f64::from(answers) / working, is_full, is_wanted);
        if self.limit != before {
            self.skip = before.max(self.limit).saturating_mul(ready.max(1));
        }
        self.limit != before
    }

    /// A window with so many answers each second.
    fn step(&mut self, rate: f64, is_full: bool, is_wanted: bool) {
        if let Stage::Look { from, looks } = self.stage {
            self.compare(rate, is_full, from, looks);
            return;
        }
        if !is_full {
            return;
        }
        match self.stage {
            Stage::Climb(before) => {
                self.seen.insert(self.limit, rate);
                if before.is_some_and(|before| rate < WORTH * before) || self.limit >= MOST {
                    self.search();
                } else if is_wanted {
                    self.stage = Stage::Climb(Some(rate));
                    self.limit = (self.limit * 2).min(MOST);
                }
            }
            Stage::Search => {
                self.seen.insert(self.limit, rate);
                self.search();
            }
            Stage::Steady { windows, off, looks } => self.stay(rate, is_wanted, (windows + 1, off, looks)),
            Stage::Look { .. } => {}
        }
    }

    /// The smallest limit that is nearly as good as the best, if no other between it and the next smaller one that was seen
    /// is worth a try; that other otherwise.
    fn search(&mut self) {
        let best = self.seen.values().copied().fold(0.0, f64::max);
        let enough = self.seen.iter().find(|(_, rate)| **rate >= ENOUGH * best);
        let high = enough.map_or(self.limit, |(limit, _)| *limit);
        let low = self.seen.range(..high).next_back().map_or(0, |(limit, _)| *limit);
        if high - low > (high / 8).max(1) {
            self.stage = Stage::Search;
            self.limit = u32::midpoint(low, high);
        } else {
            self.stage = Stage::Steady { windows: 0, off: 0, looks: 0 };
            self.limit = high;
            self.found = Some(high);
        }
    }

    fn stay(&mut self, rate: f64, is_wanted: bool, (windows, off, looks): (u32, u32, u32)) {
        let known = self.seen.entry(self.limit).or_insert(rate);
        let off = if (rate / *known - 1.0).abs() > CHANGED { off + 1 } else { 0 };
        if off >= 2 {
            self.seen = BTreeMap::from([(self.limit, rate)]);
            self.stage = Stage::Climb(None);
            return;
        }
        if off == 0 {
            *known += (rate - *known) * 0.2;
        }
        self.stage = Stage::Steady { windows, off, looks };
        let step = (self.limit / 4).max(1);
        if windows >= REST && is_wanted {
            self.stage = Stage::Look { from: self.limit, looks: looks + 1 };
            let down = (looks + 1).is_multiple_of(DOWN) && self.limit > step;
            self.limit = if down { self.limit - step } else { (self.limit + step).min(MOST) };
        }
    }

    /// What the neighbour has shown: more is worth it if it brings half of what it could, less if nearly nothing is lost.
    fn compare(&mut self, rate: f64, is_full: bool, from: u32, looks: u32) {
        let known = self.seen.get(&from).copied().unwrap_or(rate);
        let more = f64::from(self.limit) / f64::from(from) - 1.0;
        if is_full && more > 0.0 && rate > known * (1.0 + more / 2.0) {
            self.seen = BTreeMap::from([(from, known), (self.limit, rate)]);
            self.stage = Stage::Climb(None);
        } else if is_full && more < 0.0 && rate >= known * ENOUGH {
            self.seen.insert(self.limit, rate);
            self.seen.retain(|limit, _| *limit <= from);
            self.search();
        } else {
            self.limit = from;
            self.stage = Stage::Steady { windows: 0, off: 0, looks };
        }
    }
}

/// Answers that make a window: so many that its throughput is off by 6 % (one standard error), were the service times
/// lognormal.
fn window(spread: f64) -> f64 {
    let variance = spread * std::f64::consts::LN_2 * std::f64::consts::LN_2;
    (variance.min(3.0).exp_m1() / (0.06 * 0.06)).clamp(WINDOW.0, WINDOW.1)
}

#[cfg(test)]
mod tests;
