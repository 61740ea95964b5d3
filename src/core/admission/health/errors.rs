//! What a replica's answers with 500 say. A model gives them for input that it does not like as well as when it is broken,
//! so that single ones say nothing: only a row of them, beside siblings that answer otherwise meanwhile. Siblings are
//! known to who asks (`slots::judge`).

/// A row that chance makes as rarely as this is the replica's doing: the natural logarithm of 3·10⁸ to one. Five, where
/// the siblings give 2 %.
const CHANCE: f64 = 19.5;
/// Share of 500s that the best siblings are thought to give.
const RARE: f64 = 0.02;
/// Where siblings give as many, it is the model or its input.
const COMMON: f64 = 0.1;

/// The answers of one replica, as far as they tell 500 from others.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::core::admission) struct Errors {
    /// The last 32, the latest lowest; 1 is a 500.
    recent: u32,
    seen: u32,
    /// All that were no 500.
    good: u64,
    /// 500s since the last other answer, but for those before which no sibling had answered otherwise since the one
    /// before: a replica that alone is free gets all the bad input.
    row: u32,
    /// Other answers of the siblings at the last one that counted.
    witnessed: u64,
}

impl Errors {
    /// An answer that was no 500.
    pub(in crate::core::admission) fn good(&mut self) {
        self.remember(0);
        self.good += 1;
        self.row = 0;
    }

    /// A 500, when all replicas together had given so many other answers.
    pub(in crate::core::admission) fn error(&mut self, all_good: u64) {
        self.remember(1);
        let others = all_good.saturating_sub(self.good);
        if others > self.witnessed {
            self.witnessed = others;
            self.row += 1;
        }
    }

    fn remember(&mut self, error: u32) {
        self.recent = self.recent << 1 | error;
        self.seen = (self.seen + 1).min(u32::BITS);
    }

    /// 500s among the last answers, and how many these are.
    pub(in crate::core::admission) fn record(&self) -> (u32, u32) {
        (self.recent.count_ones(), self.seen)
    }

    /// 500s in a row that count.
    pub(in crate::core::admission) fn row(&self) -> u32 {
        self.row
    }

    /// Whether the row is the replica's doing, beside siblings with this record.
    pub(in crate::core::admission) fn is_broken(&self, (errors, seen): (u32, u32)) -> bool {
        let share = (f64::from(errors) + 0.5) / (f64::from(seen) + 1.0);
        share < COMMON && f64::from(self.row) * -share.max(RARE).ln() >= CHANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(length: u64) -> Errors {
        let mut errors = Errors::default();
        (1..=length).for_each(|others| errors.error(others));
        errors
    }

    #[test]
    fn the_more_errors_the_siblings_give_the_longer_a_row_must_be() {
        for (siblings, least) in [((0, 96), 5), ((0, 32), 5), ((5, 96), 7), ((9, 96), 9), ((0, 5), 8)] {
            assert!(row(least).is_broken(siblings), "{siblings:?}");
            assert!(!row(least - 1).is_broken(siblings), "{siblings:?}");
        }
        for siblings in [(10, 96), (96, 96), (4, 32), (0, 3), (0, 0)] {
            assert!(!row(1_000).is_broken(siblings), "{siblings:?}");
        }
    }

    #[test]
    fn a_row_ends_with_another_answer_and_counts_only_beside_siblings_that_answer() {
        let mut errors = row(9);
        errors.good();
        assert_eq!(errors.row(), 0);
        // The one good answer was its own.
        (0..20).for_each(|_| errors.error(10));
        assert_eq!(errors.row(), 0);
        errors.error(11);
        errors.error(11);
        assert_eq!((errors.row(), errors.record()), (1, (31, 32)));
    }
}
