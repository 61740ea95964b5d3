//! The last so many of something, in memory that is taken once.

use std::collections::VecDeque;

/// The last so many of a kind. Its memory is taken once.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    kept: VecDeque<T>,
    most: usize,
    passed: u64,
}

impl<T> Ring<T> {
    /// Keeps the last `most`, which is at least one.
    pub fn new(most: usize) -> Self {
        Self { kept: VecDeque::with_capacity(most.max(1)), most: most.max(1), passed: 0 }
    }

    /// Takes one, for which the oldest goes when there is no room.
    pub fn push(&mut self, one: T) {
        if self.kept.len() == self.most {
            self.kept.pop_front();
        }
        self.kept.push_back(one);
        self.passed += 1;
    }

    /// Those that are kept, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.kept.iter()
    }

    /// How many are kept at most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many there have been, those that are gone included.
    pub fn passed(&self) -> u64 {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_keeps_the_last_and_no_more() {
        let mut ring = Ring::new(3);
        let room = ring.kept.capacity();
        for number in 0..1_000 {
            ring.push(number);
            assert!(ring.iter().len() <= 3 && ring.kept.capacity() == room);
        }
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [997, 998, 999]);
        assert_eq!((ring.passed(), ring.most()), (1_000, 3));
    }
}
