//! How fast a replica is: a peak-sensitive average that says who is given work first, and a typical time that is compared
//! with that of its siblings. Both live in powers of two, where a decay is a subtraction and an outlier weighs little.

/// Time in which a peak loses all but 1/e, in seconds (Linkerd's default).
const DECAY: f64 = 10.0;
/// How much a peak loses each second, in powers of two.
const LOSS: f64 = std::f64::consts::LOG2_E / DECAY;
/// A replica comes before another that is less busy by nothing, if it is faster by this much in powers of two (1.5 times).
/// Below it the two take turns.
const CLEARLY: f64 = 0.585;
/// Requests that the typical time remembers.
const MEMORY: f64 = 16.0;

/// What is known of one replica's service times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Logarithm of the peak-sensitive average, plus what it would have lost since the beginning of time. All lose the
    /// same, so that these can be compared at any time without a clock.
    peak: f64,
    /// Seconds of its last change.
    at: f64,
    /// Logarithm of the typical time in seconds.
    typical: f64,
    /// Requests that it was learned from, up to the memory.
    pub(super) count: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { peak: f64::NEG_INFINITY, at: 0.0, typical: 0.0, count: 0.0 }
    }
}

impl Pace {
    /// A request took so many seconds and ended `at` seconds after the beginning. Returns how far it was from the typical
    /// one, squared.
    pub(super) fn note(&mut self, seconds: f64, at: f64) -> f64 {
        let log = log2(seconds);
        self.note_peak(seconds, log, at);
        let off = if self.count > 0.0 { log - self.typical } else { 0.0 };
        self.count = (self.count + 1.0).min(MEMORY);
        self.typical = if self.count > 1.0 { self.typical + off / self.count } else { log };
        off * off
    }

    /// The same for a request whose time is not to be compared with others: counts only for who is given work first, and
    /// nobody with a peak up to `worst` comes after it.
    pub(super) fn note_aside(&mut self, seconds: f64, at: f64, worst: f64) {
        self.note_peak(seconds, log2(seconds), at);
        self.peak = self.peak.max(worst);
    }

    /// Up at once, down with time: `rtt·w + s·(1 − w)`, `w = e^(−Δt/τ)`.
    fn note_peak(&mut self, seconds: f64, log: f64, at: f64) {
        let loss = at * LOSS;
        if log + loss >= self.peak {
            self.peak = log + loss;
        } else {
            let weight = exp2((self.at - at).min(0.0) * LOSS);
            self.peak = log2(exp2(self.peak - loss) + seconds * (1.0 - weight)) + loss;
        }
        self.at = at;
    }

    /// To be compared with others' by [`is_before`]. Never gets less.
    pub(super) fn peak(&self) -> f64 {
        self.peak
    }

    /// Logarithm of its typical time, once a few requests have shown it.
    pub(super) fn typical(&self) -> Option<f64> {
        (self.count >= 3.0).then_some(self.typical)
    }

    /// The same, however few have shown it.
    pub(super) fn at_first_sight(&self) -> f64 {
        self.typical
    }

    /// Forgets the typical time: it may have changed.
    pub(super) fn forget(&mut self) {
        self.count = 0.0;
    }
}

/// Whether a replica with this peak is to be given work before one with the other, which is as busy.
pub(super) fn is_before(peak: f64, other: f64) -> bool {
    peak + CLEARLY < other
}

/// The logarithm to base 2, straight between powers of two: off by 0.086 at most, and never by a call.
pub(super) fn log2(value: f64) -> f64 {
    // Below a nanosecond nothing was measured.
    value.max(1e-9).to_bits() as f64 / MANTISSA - BIAS
}

/// The inverse of [`log2`].
pub(super) fn exp2(log: f64) -> f64 {
    f64::from_bits(((log.max(-1000.0) + BIAS) * MANTISSA) as u64)
}

const MANTISSA: f64 = (1_u64 << 52) as f64;
const BIAS: f64 = 1023.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_near_and_inverse() {
        for value in [1e-6, 0.003, 0.1, 1.0, 1.5, 7.0, 300.0] {
            assert!((log2(value) - f64::log2(value)).abs() < 0.087, "{value}");
            assert!((exp2(log2(value)) / value - 1.0).abs() < 1e-9, "{value}");
        }
        assert!(log2(0.0).is_finite() && exp2(f64::NEG_INFINITY) < 1e-200);
    }

    #[test]
    fn a_peak_rises_at_once_and_decays() {
        let now = |pace: &Pace, at: f64| exp2(pace.peak - at * LOSS);
        let mut pace = Pace::default();
        pace.note(0.1, 0.0);
        pace.note(2.0, 1.0);
        assert!((now(&pace, 1.0) - 2.0).abs() < 1e-6, "at once");
        let idle = now(&pace, 11.0);
        assert!((0.65..0.82).contains(&idle), "to 1/e of 2 s after 10 s: {idle}");
        pace.note(0.1, 11.0);
        let after = now(&pace, 11.0);
        assert!((0.7..0.95).contains(&after), "2/e + 0.1·(1 − 1/e): {after}");
    }

    #[test]
    fn one_outlier_says_little_of_the_typical_time() {
        let mut pace = Pace::default();
        (0..20).for_each(|second| _ = pace.note(0.1, f64::from(second)));
        pace.note(30.0, 21.0);
        assert!(exp2(pace.typical().unwrap()) < 0.16, "{pace:?}");
        let mut other = Pace::default();
        other.note(0.1, 21.0);
        assert!(
            is_before(other.peak, pace.peak) && !is_before(pace.peak, other.peak),
            "but it comes last for a while"
        );
    }
}
