//! Reads `Server-Timing` headers (W3C Server Timing): what the server says about where the time went.

use std::time::Duration;

/// The metrics of one header value that have a duration. Names are cut at 40 characters.
///
/// `queue;dur=1.234, model;dur=5.678;desc="blue"` becomes `queue` and `model`; durations are milliseconds there.
pub(super) fn metrics(value: &str) -> impl Iterator<Item = (String, Duration)> {
    outside_quotes(value, ',').into_iter().filter_map(|metric| {
        let mut parts = outside_quotes(metric, ';').into_iter();
        let name = parts.next()?.trim();
        let duration = parts.find_map(|part| {
            let (key, value) = part.split_once('=')?;
            let milliseconds: f64 = value.trim().trim_matches('"').parse().ok()?;
            let duration = Duration::try_from_secs_f64(milliseconds / 1e3).ok()?;
            key.trim().eq_ignore_ascii_case("dur").then_some(duration)
        })?;
        (!name.is_empty()).then(|| (name.chars().take(40).collect(), duration))
    })
}

/// Splits at a separator that is not within a quoted string.
fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        if c == separator && !quoted {
            parts.push(&text[from..at]);
            from = at + c.len_utf8();
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Vec<(String, u128)> {
        metrics(value).map(|(name, duration)| (name, duration.as_micros())).collect()
    }

    #[test]
    fn durations_are_milliseconds() {
        let expected = [("queue", 1_234), ("model", 5_678), ("router", 42)].map(|(n, d)| (n.to_owned(), d));
        assert_eq!(read("queue;dur=1.234, model;dur=5.678, router;dur=0.042"), expected);
    }

    #[test]
    fn descriptions_may_hold_separators() {
        assert_eq!(
            read(r#"a;desc="x, y; \"dur=9";dur=2,b;DUR = "3" "#),
            [("a".into(), 2_000), ("b".into(), 3_000)]
        );
    }

    #[test]
    fn what_is_no_duration_is_left_out() {
        assert!(read("cache, a;dur=-1, b;dur=NaN, c;dur=x, ;dur=1, d;dur=1e300,,").is_empty());
    }
}
