//! When a series of probe results becomes a verdict. Pure: time is an argument.

use std::time::Instant;

use crate::core::settings::ProbeSettings;

/// One probe's results so far.
#[derive(Debug)]
pub(super) struct ProbeState {
    settings: ProbeSettings,
    /// When failures begin to count.
    counts_from: Instant,
    verdict: Option<Change>,
    was_good: bool,
    successes: u32,
    failures: u32,
}

/// A verdict, new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Good,
    Bad,
}

impl ProbeState {
    /// No verdict yet. `started` is when the replica was first watched.
    pub(super) fn new(settings: ProbeSettings, started: Instant) -> Self {
        let counts_from = started + settings.initial_delay;
        Self { settings, counts_from, verdict: None, was_good: false, successes: 0, failures: 0 }
    }

    /// Takes a result into account. Failures before the initial delay is over count only if the probe was good once
    /// or `has_started` says so.
    pub(super) fn observe(&mut self, success: bool, has_started: bool, now: Instant) -> Option<Change> {
        let (count, threshold, verdict) = if success {
            self.failures = 0;
            (&mut self.successes, self.settings.success_threshold, Change::Good)
        } else {
            self.successes = 0;
            if now < self.counts_from && !self.was_good && !has_started {
                return None;
            }
            (&mut self.failures, self.settings.failure_threshold, Change::Bad)
        };
        *count = count.saturating_add(1);
        if *count < threshold.get() || self.verdict == Some(verdict) {
            return None;
        }
        Some(self.settle(verdict == Change::Good))
    }

    /// Sets the verdict, whatever the thresholds.
    pub(super) fn settle(&mut self, good: bool) -> Change {
        let verdict = if good { Change::Good } else { Change::Bad };
        (self.successes, self.failures) = (0, 0);
        self.was_good |= good;
        self.verdict = Some(verdict);
        verdict
    }

    /// Whether the verdict is good.
    pub(super) fn is_good(&self) -> bool {
        self.verdict == Some(Change::Good)
    }

    /// Whether it ever was.
    pub(super) fn was_good(&self) -> bool {
        self.was_good
    }

    pub(super) fn settings(&self) -> &ProbeSettings {
        &self.settings
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    const DELAY: Duration = Duration::from_secs(10);

    fn state(successes: u32, failures: u32, start: Instant) -> ProbeState {
        let settings = ProbeSettings {
            initial_delay: DELAY,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            success_threshold: NonZeroU32::new(successes).unwrap(),
            failure_threshold: NonZeroU32::new(failures).unwrap(),
        };
        ProbeState::new(settings, start)
    }

    /// Verdicts after each result, `+` a success and `-` a failure, after the initial delay.
    fn verdicts(state: &mut ProbeState, results: &str, now: Instant) -> Vec<Option<Change>> {
        results.chars().map(|result| state.observe(result == '+', false, now)).collect()
    }

    #[test]
    fn verdicts_change_at_the_thresholds_and_only_in_a_row() {
        let start = Instant::now();
        let mut state = state(2, 3, start);
        let (good, bad) = (Some(Change::Good), Some(Change::Bad));
        let now = start + DELAY;
        assert_eq!(verdicts(&mut state, "+-++", now), [None, None, None, good]);
        assert_eq!(verdicts(&mut state, "++--+---", now), [None, None, None, None, None, None, None, bad]);
        assert_eq!(verdicts(&mut state, "--+-++", now), [None, None, None, None, None, good]);
    }

    #[test]
    fn failures_before_the_initial_delay_do_not_count_but_successes_do() {
        let start = Instant::now();
        let mut state = state(1, 1, start);
        assert_eq!(state.observe(false, false, start), None);
        assert_eq!(state.observe(false, false, start + DELAY), Some(Change::Bad));
        let mut early = self::state(1, 1, start);
        assert_eq!(early.observe(true, false, start), Some(Change::Good));
        assert_eq!(early.observe(false, false, start), Some(Change::Bad), "it was good, so failures count");
    }

    #[test]
    fn a_replica_that_has_started_has_no_initial_delay() {
        let start = Instant::now();
        assert_eq!(state(1, 1, start).observe(false, true, start), Some(Change::Bad));
    }
}
