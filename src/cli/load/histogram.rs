//! Histograms of times and of numbers, with three significant digits, and what a report tells of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time that is told apart from longer ones, in microseconds: a day.
const LONGEST: u64 = 24 * 60 * 60 * 1_000_000;

/// Values, kept in microseconds where they are times. Some 100 KB at most.
#[derive(Clone, Debug)]
pub(super) struct Values(Histogram<u64>);

/// What a report tells of many times, in milliseconds, or of many numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// How many there are.
    pub(super) count: u64,
    /// Arithmetic mean.
    pub(super) mean: f64,
    /// Median.
    pub(super) p50: f64,
    /// 75 % are at most this.
    pub(super) p75: f64,
    /// 90 % are at most this.
    pub(super) p90: f64,
    /// 99 % are at most this.
    pub(super) p99: f64,
    /// 99.9 % are at most this.
    pub(super) p99_9: f64,
    /// The largest.
    pub(super) max: f64,
}

impl Values {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Histogram::new(3).expect("three digits are allowed"))
    }

    /// Adds a time.
    pub(super) fn add(&mut self, time: Duration) {
        self.add_number(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
    }

    /// Adds a number.
    pub(super) fn add_number(&mut self, number: u64) {
        // It fails only where the histogram cannot grow, and within a day it can.
        let _ = self.0.record(number.min(LONGEST));
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The least value that this share (0 to 1) is not above, in milliseconds; 0 if there are none.
    pub(super) fn milliseconds_at(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// Times in milliseconds; none if there are none.
    pub(super) fn milliseconds(&self) -> Option<Summary> {
        self.summary(1e3)
    }

    /// Numbers as they are; none if there are none.
    pub(super) fn numbers(&self) -> Option<Summary> {
        self.summary(1.0)
    }

    fn summary(&self, unit: f64) -> Option<Summary> {
        let at = |share| self.0.value_at_quantile(share) as f64 / unit;
        (!self.0.is_empty()).then(|| Summary {
            count: self.0.len(),
            mean: (self.0.mean() / unit * 1e3).round() / 1e3,
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.0.max() as f64 / unit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut values = Values::new();
        (1..=1_000).for_each(|k| values.add(Duration::from_millis(k)));
        let summary = values.milliseconds().unwrap();
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.001;
        assert_eq!(summary.count, 1_000);
        assert!(
            near(summary.mean, 500.5) && near(summary.p50, 500.0) && near(summary.p75, 750.0),
            "{summary:?}"
        );
        assert!(
            near(summary.p90, 900.0) && near(summary.p99, 990.0) && near(summary.p99_9, 999.0),
            "{summary:?}"
        );
        assert!(near(summary.max, 1_000.0), "{summary:?}");
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert!(Values::new().milliseconds().is_none());
    }

    #[test]
    fn times_beyond_a_day_count_as_a_day() {
        let mut values = Values::new();
        values.add(Duration::MAX);
        assert!(values.milliseconds().unwrap().max > 86_000_000.0);
    }
}
