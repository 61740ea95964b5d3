//! Slow start: how many slots a replica that has just become ready gets, for models whose first requests are slow.
//!
//! Pure: the time since it became ready is an argument. Who is ramped and when is asked again is `control::scaler`'s part.

use std::num::NonZeroU32;
use std::time::Duration;

/// Shortest time between two steps: with many slots, several are given at a time.
const SHORTEST_STEP: Duration = Duration::from_millis(100);

/// A replica's limit on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Slots it has for now.
    pub cap: u32,
    /// How long after it became ready it is to be asked again.
    pub next: Duration,
}

/// The limit `elapsed` after a replica became ready, or `None` once it has all its slots (and where it has one only, or no
/// limit). HAProxy's rule for `slowstart`: `max(1, limit × elapsed / warm_up)`.
pub fn step(limit: Option<NonZeroU32>, warm_up: Duration, elapsed: Duration) -> Option<Step> {
    let limit = limit?.get();
    if limit == 1 || elapsed >= warm_up {
        return None;
    }
    let (limit, whole) = (u128::from(limit), warm_up.as_nanos());
    let given = limit * elapsed.as_nanos() / whole;
    // Rounded up: asked any earlier, there would be nothing new.
    let more = u64::try_from((whole * (given.max(1) + 1)).div_ceil(limit)).unwrap_or(u64::MAX);
    let next = Duration::from_nanos(more).max(elapsed + SHORTEST_STEP).min(warm_up);
    Some(Step { cap: u32::try_from(given.max(1)).unwrap_or(u32::MAX), next })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARM_UP: Duration = Duration::from_secs(20);

    fn at(limit: u32, seconds: f64) -> Option<(u32, f64)> {
        let step = step(NonZeroU32::new(limit), WARM_UP, Duration::from_secs_f64(seconds));
        step.map(|step| (step.cap, step.next.as_secs_f64()))
    }

    #[test]
    fn slots_grow_from_one_to_all_over_the_time() {
        assert_eq!(at(4, 0.0), Some((1, 10.0)));
        assert_eq!(at(4, 9.99), Some((1, 10.09)));
        assert_eq!(at(4, 10.0), Some((2, 15.0)));
        assert_eq!(at(4, 15.0), Some((3, 20.0)));
        assert_eq!(at(4, 20.0), None);
    }

    #[test]
    fn whoever_follows_the_steps_sees_every_one_once() {
        for limit in [2, 3, 7, 64] {
            let (mut elapsed, mut caps) = (Duration::ZERO, Vec::new());
            while let Some(step) = step(NonZeroU32::new(limit), WARM_UP, elapsed) {
                assert!(step.next > elapsed);
                caps.push(step.cap);
                elapsed = step.next;
            }
            assert_eq!(caps, (1..limit).collect::<Vec<_>>());
        }
    }

    #[test]
    fn many_slots_come_several_at_a_time() {
        let (mut elapsed, mut steps) = (Duration::ZERO, 0);
        while let Some(step) = step(NonZeroU32::new(1_000_000), WARM_UP, elapsed) {
            (elapsed, steps) = (step.next, steps + 1);
        }
        assert_eq!(steps, 200);
    }

    #[test]
    fn nothing_grows_where_there_is_nothing_to_grow() {
        assert_eq!(at(1, 0.0), None);
        assert_eq!(at(0, 0.0), None, "no limit");
        assert_eq!(step(NonZeroU32::new(4), Duration::ZERO, Duration::ZERO), None);
    }
}
