//! The largest value of the last seconds, in bounded memory.

use std::collections::VecDeque;

/// Most values that are kept; at one in a second it is more than an hour in which every value is less than the one
/// before.
pub(super) const MOST: usize = 4096;

/// Sums and differences of times are not exact; nobody means less than this, in seconds.
pub(super) const INSTANT: f64 = 1e-6;

/// Values that could still become the largest, oldest and largest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MaxWindow {
    values: VecDeque<(f64, f64)>,
}

impl MaxWindow {
    /// Notes a value and tells the largest of the last `span` seconds, which may be another span each time. A value that is
    /// as old as the span is out; the new one always counts. Times must not go backwards.
    pub(super) fn push(&mut self, t: f64, value: f64, span: f64) -> f64 {
        while self.values.back().is_some_and(|(_, earlier)| *earlier <= value) {
            self.values.pop_back();
        }
        let full = self.values.len() >= MOST;
        match self.values.back_mut().filter(|_| full) {
            // Rather hold a larger value for longer than forget it.
            Some(newest) => newest.0 = t,
            None => self.values.push_back((t, value)),
        }
        while self.values.len() > 1 && self.values.front().is_some_and(|(at, _)| *at <= t - span + INSTANT) {
            self.values.pop_front();
        }
        self.values.front().map_or(value, |(_, largest)| *largest)
    }

    /// The largest of the last `span` seconds that is known; 0 if none is.
    pub(super) fn largest(&self, t: f64, span: f64) -> f64 {
        let known = self.values.iter().find(|(at, _)| *at > t - span + INSTANT);
        known.map_or(0.0, |(_, largest)| *largest)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}
