//! Numbers as people write them, where entries become JSON: what is worked out is exact to seventeen digits, which nobody reads.

use std::time::Duration;

use serde::Serializer;
use serde_json::Value;

/// Digits behind the point: a tenth of a millisecond, where it is seconds.
const PARTS: f64 = 10_000.0;

/// The same with all fractions rounded, so that what is next to nothing is nothing (a load that fades away is never zero).
pub fn tidy(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(tidy).collect(),
        Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().unwrap_or_default();
            // A sum of zero: no number is then -0.
            Value::from((exact * PARTS).round() / PARTS + 0.0)
        }
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, tidy(value))).collect(),
        other => other,
    }
}

/// Seconds, to the millisecond.
pub fn to_millisecond(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

/// Milliseconds, to a thousandth.
pub fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}

/// Serializes seconds since 1970 to the millisecond.
///
/// # Errors
/// Those of the serializer.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn milliseconds<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(to_millisecond(*seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fractions_have_four_digits_and_nothing_is_nothing() {
        let exact = json!({ "ghosts": 6e-106, "less": -1e-9, "service": 0.001_52, "rate": [8.399_999_999, 1e18], "waiting": 12, "no": null });
        let text = tidy(exact).to_string();
        assert_eq!(
            text,
            r#"{"ghosts":0.0,"less":0.0,"no":null,"rate":[8.4,1e+18],"service":0.0015,"waiting":12}"#
        );
    }
}
