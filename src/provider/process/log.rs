//! The last lines of a deployment's replicas, for operators who ask for them. Bounded in lines and bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Most lines that are kept.
const LINES: usize = 5_000;
/// Most bytes that are kept.
const BYTES: usize = 1024 * 1024;

/// Lines of all replicas of one deployment, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct LogTail(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl LogTail {
    /// Adds a line of a replica.
    pub(super) fn push(&self, replica: &str, line: &str) {
        let line = format!("{replica}: {line}\n");
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.lines.len() > LINES || kept.bytes > BYTES {
            let oldest = kept.lines.pop_front().map_or(0, |line| line.len());
            kept.bytes -= oldest;
        }
    }

    /// At most so many of the last lines, as one text.
    pub fn tail(&self, lines: usize) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = kept.lines.len().saturating_sub(lines);
        kept.lines.iter().skip(skipped).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_both_bounds() {
        let log = LogTail::default();
        for number in 0..LINES + 10 {
            log.push("blue-1", &number.to_string());
        }
        assert_eq!(log.tail(2), "blue-1: 5008\nblue-1: 5009\n");
        assert_eq!(log.tail(usize::MAX).lines().count(), LINES);
        log.push("blue-2", &"x".repeat(BYTES - 100));
        assert!(log.tail(usize::MAX).len() <= BYTES);
        assert!(log.tail(1).starts_with("blue-2: xxx"));
        assert_eq!(log.tail(0), "");
    }
}
