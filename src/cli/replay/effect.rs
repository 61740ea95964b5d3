//! Which settings make a difference in a replay: what it would be silent about is refused by name.

use anyhow::bail;
use serde_json::Value;

const SLOTS: &str = "request_settings.max_concurrent_requests_per_instance";

/// What the model goes by; nothing in it depends on any other key.
const KNOWN: [&str; 16] = [
    "profile",
    "instance_count",
    SLOTS,
    "request_settings.max_queue_wait_ms",
    "request_settings.cold_start_wait_ms",
    "request_settings.max_queue_length",
    "request_settings.queue_order",
    "scale_settings.type",
    "scale_settings.policy",
    "scale_settings.reject_budget_percentage",
    "scale_settings.min_instances",
    "scale_settings.max_instances",
    "scale_settings.polling_interval",
    "scale_settings.target_utilization_percentage",
    "scale_settings.idle_time",
    "scale_settings.schedules",
];

/// Whether another value for a setting can be lived.
///
/// # Errors
/// It would change nothing.
pub(super) fn check(path: &str, value: &Value) -> anyhow::Result<()> {
    if path == SLOTS && value.as_str().is_some_and(|word| word.eq_ignore_ascii_case("auto")) {
        bail!(
            "`{path}` cannot be `auto` in a replay: no limit is found there, because times do not depend on the load"
        );
    }
    if KNOWN.contains(&path) {
        return Ok(());
    }
    let prefix = format!("{path}.");
    match value {
        Value::Object(block) if KNOWN.iter().any(|known| known.starts_with(&prefix)) => {
            block.iter().try_for_each(|(key, value)| check(&format!("{prefix}{key}"), value))
        }
        _ => bail!("`{path}` has no effect in a replay: nothing in its model depends on it"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_no_effect_is_refused_by_name() {
        for (path, value) in [
            ("request_settings.request_timeout_ms", json!(10)),
            ("request_settings.fair_share", json!(true)),
            ("request_settings.retry.attempts", json!(1)),
            ("request_settings", json!({ "max_queue_wait_ms": 1, "hedge": { "after_ms": 5 } })),
            ("scale_settings.warm_up_time", json!(10)),
            ("passive_health", json!(false)),
            ("liveness_probe.period", json!(5)),
            (SLOTS, json!("auto")),
            (SLOTS, json!("Auto")),
        ] {
            let error = check(path, &value).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("replay"), "{error}");
        }
    }

    #[test]
    fn what_the_model_goes_by_is_taken() {
        for (path, value) in [
            ("profile", json!("aks-v1")),
            (SLOTS, json!(4)),
            ("scale_settings", json!({ "type": "target_utilization", "min_instances": 0, "idle_time": 60 })),
            (
                "scale_settings.schedules",
                json!([{ "cron": "0 8 * * *", "duration": 60, "min_instances": 1 }]),
            ),
        ] {
            assert!(check(path, &value).is_ok(), "{path}");
        }
    }
}
