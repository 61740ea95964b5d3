//! Numbers of things as people say them.

use std::fmt;

/// A number and its noun: `1 request`, `2.5 requests`.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    number: f64,
    noun: &'static str,
}

/// So many of these; `noun` is the word for one.
pub fn count(number: impl Into<f64>, noun: &'static str) -> Count {
    Count { number: number.into(), noun }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, noun } = self;
        write!(f, "{number} {noun}{}", if *number == 1.0 { "" } else { "s" })
    }
}

/// The verb that goes with a number.
pub fn is_or_are(number: u32) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

/// The same of the past.
pub fn was_or_were(number: u32) -> &'static str {
    if number == 1 { "was" } else { "were" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_all_others_are_many() {
        let all = [0.0, 1.0, 1.5, 2.0].map(|number| count(number, "slot").to_string());
        assert_eq!(all, ["0 slots", "1 slot", "1.5 slots", "2 slots"]);
    }
}
