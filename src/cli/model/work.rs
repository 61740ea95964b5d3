//! How long a request takes and whether it fails: draws from one seeded generator, under a limit of requests worked
//! on at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Distribution, ModelArgs};

/// The work of a model.
#[derive(Debug)]
pub(super) struct Work {
    bench: Arc<Semaphore>,
    draws: Mutex<StdRng>,
    mean: f64,
    distribution: Distribution,
    sigma: f64,
    failure_rate: f64,
}

/// What a request costs.
#[derive(Debug, PartialEq)]
pub(super) struct Draw {
    pub(super) time: Duration,
    pub(super) fails: bool,
}

impl Work {
    pub(super) fn new(args: &ModelArgs) -> Self {
        let places = usize::try_from(args.concurrency).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            bench: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            draws: Mutex::new(args.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64)),
            mean: args.service_time / 1000.0,
            distribution: args.distribution,
            sigma: args.sigma,
            failure_rate: args.failure_rate,
        }
    }

    /// A place to work; first come, first served.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.bench).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// The next request's cost.
    pub(super) fn draw(&self) -> Draw {
        let [a, b, c]: [f64; 3] = self.draws.lock().unwrap_or_else(PoisonError::into_inner).random();
        let seconds = match self.distribution {
            Distribution::Constant => self.mean,
            Distribution::Exponential => -self.mean * (1.0 - a).ln(),
            Distribution::Lognormal => {
                // Box and Muller; the shift keeps the mean.
                let normal = (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos();
                self.mean * self.sigma.mul_add(normal, -self.sigma * self.sigma / 2.0).exp()
            }
        };
        Draw {
            time: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
            fails: c < self.failure_rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ModelArgs,
    }

    fn work(flags: &str) -> Work {
        Work::new(&Line::try_parse_from(format!("model {flags}").split_whitespace()).unwrap().args)
    }

    #[test]
    fn every_distribution_keeps_the_mean() {
        for distribution in ["constant", "exponential", "lognormal"] {
            let work = work(&format!("--service-time 100 --distribution {distribution} --seed 7"));
            let total: f64 = (0..20_000).map(|_| work.draw().time.as_secs_f64()).sum();
            let mean = total / 20_000.0;
            assert!((0.097..=0.103).contains(&mean), "{distribution}: {mean}");
        }
    }

    #[test]
    fn a_seed_repeats_the_draws_and_the_failure_rate_is_kept() {
        let flags = "--service-time 5 --distribution exponential --failure-rate 0.25 --seed 1";
        let (a, b) = (work(flags), work(flags));
        let mut failures = 0;
        for _ in 0..4000 {
            let draw = a.draw();
            assert_eq!(draw, b.draw());
            failures += u32::from(draw.fails);
        }
        assert!((900..1100).contains(&failures), "{failures}");
    }

    #[test]
    fn flags_out_of_bounds_are_refused() {
        for bad in ["--failure-rate 1.1", "--service-time -1", "--service-time NaN", "--concurrency 0"] {
            let parsed = Line::try_parse_from(format!("model {bad}").split_whitespace());
            assert!(parsed.is_err(), "{bad}");
        }
    }
}
