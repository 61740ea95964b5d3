//! When requests are due: the arrivals of an open loop, known from the rate and the seed alone, whatever the answers do.
//!
//! A schedule is a cursor: requests that are due but not sent yet cost no memory, however many they are.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrivals {
    /// Evenly: request k is due k/rate after the start.
    Constant,
    /// A Poisson process: gaps are exponential with mean 1/rate.
    Poisson {
        /// Of the gaps.
        seed: u64,
    },
}

/// How long requests become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// Those of this time after the warm-up.
    Time(Duration),
    /// This many after the warm-up.
    Requests(u64),
}

/// One request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Which one it is, from 0, those of the warm-up included.
    pub(super) number: u64,
    /// After the start.
    pub(super) due: Duration,
    /// Due after the warm-up.
    pub(super) is_counted: bool,
}

/// The arrivals, in order.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Requests a second.
    rate: f64,
    warm_up: Duration,
    length: Length,
    gaps: Option<StdRng>,
    next: Arrival,
    counted: u64,
}

impl Schedule {
    /// A schedule at its first arrival. `rate` is in requests a second, positive and finite.
    pub(super) fn new(rate: f64, arrivals: Arrivals, warm_up: Duration, length: Length) -> Self {
        let gaps = match arrivals {
            Arrivals::Constant => None,
            Arrivals::Poisson { seed } => Some(StdRng::seed_from_u64(seed)),
        };
        let next = Arrival { number: 0, due: Duration::ZERO, is_counted: warm_up.is_zero() };
        Self { rate, warm_up, length, gaps, next, counted: 0 }
    }

    /// The next arrival; none when all have been taken.
    pub(super) fn peek(&self) -> Option<Arrival> {
        let over = match self.length {
            Length::Time(time) => self.next.due >= self.warm_up.saturating_add(time),
            Length::Requests(requests) => self.counted >= requests,
        };
        (!over).then_some(self.next)
    }

    /// Takes the next arrival.
    pub(super) fn advance(&mut self) {
        self.counted += u64::from(self.next.is_counted);
        let number = self.next.number + 1;
        let due = match &mut self.gaps {
            // From the number, not from the one before: rounding errors must not add up.
            None => nanoseconds(number as f64 * 1e9 / self.rate),
            Some(random) => {
                // In (0, 1], since the logarithm of 0 is infinite.
                let uniform = 1.0 - random.random::<f64>();
                self.next.due.saturating_add(nanoseconds(-uniform.ln() * 1e9 / self.rate))
            }
        };
        self.next = Arrival { number, due, is_counted: due >= self.warm_up };
    }
}

fn nanoseconds(time: f64) -> Duration {
    // The conversion saturates.
    Duration::from_nanos(time.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn all(mut schedule: Schedule) -> Vec<Arrival> {
        std::iter::from_fn(|| {
            let next = schedule.peek();
            schedule.advance();
            next
        })
        .collect()
    }

    #[test]
    fn constant_arrivals_are_due_at_exact_times() {
        let schedule = Schedule::new(200.0, Arrivals::Constant, SECOND, Length::Time(SECOND));
        let arrivals = all(schedule);
        assert_eq!(arrivals.len(), 400);
        for (k, arrival) in arrivals.iter().enumerate() {
            assert_eq!(arrival.number, k as u64);
            assert_eq!(arrival.due, Duration::from_millis(5 * k as u64));
            assert_eq!(arrival.is_counted, k >= 200);
        }
    }

    #[test]
    fn rounding_does_not_add_up() {
        let mut schedule = Schedule::new(3.0, Arrivals::Constant, Duration::ZERO, Length::Requests(u64::MAX));
        for _ in 0..3_000_000 {
            schedule.advance();
        }
        assert_eq!(schedule.peek().unwrap().due, Duration::from_secs(1_000_000));
    }

    #[test]
    fn a_number_of_requests_is_counted_after_the_warm_up() {
        let arrivals = all(Schedule::new(10.0, Arrivals::Constant, SECOND, Length::Requests(7)));
        assert_eq!(arrivals.len(), 17);
        assert_eq!(arrivals.iter().filter(|arrival| arrival.is_counted).count(), 7);
    }

    #[test]
    fn rates_below_one_a_second_have_at_least_the_first_request() {
        let arrivals = all(Schedule::new(0.1, Arrivals::Constant, Duration::ZERO, Length::Time(SECOND)));
        assert_eq!(arrivals.len(), 1);
        assert_eq!(arrivals[0].due, Duration::ZERO);
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_spread_of_their_rate() {
        let arrivals = Arrivals::Poisson { seed: 7 };
        let due: Vec<f64> = all(Schedule::new(1_000.0, arrivals, Duration::ZERO, Length::Requests(100_000)))
            .iter()
            .map(|arrival| arrival.due.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 1_000.0 - 1.0).abs() < 0.02, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{variance}");
    }

    #[test]
    fn a_seed_repeats_its_arrivals_and_another_does_not() {
        let arrivals = |seed| {
            all(Schedule::new(50.0, Arrivals::Poisson { seed }, Duration::ZERO, Length::Requests(100)))
        };
        assert_eq!(arrivals(1), arrivals(1));
        assert_ne!(arrivals(1), arrivals(2));
    }
}
