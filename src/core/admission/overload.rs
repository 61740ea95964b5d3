//! Whether a queue stands still longer than a passing burst explains (the form of CoDel that Facebook uses for
//! requests), for `queue_order: newest_first`.
//!
//! In each interval the least age of the oldest waiter is kept. Where even that is over the target, the queue does
//! not drain: from then on the newest is served first, and who has waited twice the target is turned away.

use std::time::{Duration, Instant};

/// Shortest interval: shorter ones would see bursts only.
const SHORTEST: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Overload {
    interval_ends: Option<Instant>,
    least: Option<Duration>,
    overloaded: bool,
}

impl Overload {
    /// A slot is handed over, and the oldest waiter is `age` old. Says how old one may be from now on, while there is
    /// overload. Target: a quarter of the longest wait, or the time of one service, if that is less; interval: 20
    /// services.
    pub(super) fn note(
        &mut self,
        age: Duration,
        now: Instant,
        max_wait: Duration,
        service: Duration,
    ) -> Option<Duration> {
        let target = if service.is_zero() { max_wait / 4 } else { service.min(max_wait / 4) };
        self.least = Some(self.least.map_or(age, |least| least.min(age)));
        if self.interval_ends.is_none_or(|end| now >= end) {
            self.overloaded = self.interval_ends.is_some() && self.least.is_some_and(|least| least > target);
            self.interval_ends = now.checked_add(SHORTEST.max(service * 20));
            self.least = None;
            // The first of an interval is never turned away.
            return None;
        }
        self.overloaded.then_some(target * 2)
    }

    /// Somebody got a slot without waiting.
    pub(super) fn idle(&mut self) {
        self.least = Some(Duration::ZERO);
        self.overloaded = false;
    }

    pub(super) fn is_on(&self) -> bool {
        self.overloaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_stands_for_an_interval_is_overload_and_a_burst_is_not() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let (wait, service) = (ms(400), ms(50));
        let mut overload = Overload::default();
        assert_eq!(overload.note(ms(300), start, wait, service), None);
        assert_eq!(
            overload.note(ms(300), start + ms(900), wait, service),
            None,
            "not for a whole interval yet"
        );
        assert_eq!(
            overload.note(ms(300), start + ms(1_000), wait, service),
            None,
            "the first of an interval"
        );
        assert!(overload.is_on());
        assert_eq!(overload.note(ms(300), start + ms(1_010), wait, service), Some(ms(100)));
        overload.note(ms(20), start + ms(1_500), wait, service);
        overload.note(ms(300), start + ms(2_000), wait, service);
        assert!(!overload.is_on(), "it was short once, so it drains");
    }
}
