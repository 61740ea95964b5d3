//! Which keys of a document have no effect on this machine. They are kept and shown, and named once.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::source::{Made, Way};

/// Keys that say something to people, that scoregate itself follows, or that it answers with.
const ALWAYS: [&str; 28] = [
    "$schema",
    "description",
    "endpoint_name",
    "environment",
    "error",
    "etag",
    "forward_authorization",
    "id",
    "inference_config",
    "instance_count",
    "kind",
    "liveness_probe",
    "name",
    "no_effect",
    "openapi_uri",
    "operation",
    "owner",
    "process",
    "properties",
    "provisioning_state",
    "readiness_probe",
    "replica_status",
    "replicas_ready",
    "request_settings",
    "scale_settings",
    "tags",
    "type",
    "version_type",
];
/// Keys of an environment that only describe it.
const LABELS: [&str; 10] = [
    "$schema",
    "description",
    "id",
    "inference_config",
    "name",
    "os_type",
    "path",
    "properties",
    "tags",
    "version",
];
const ROUTES: [&str; 4] = ["liveness_route", "readiness_route", "scoring_route", "swagger_route"];

/// The keys that are given and mean nothing here, dotted and sorted.
pub(super) fn no_effect(document: &Map<String, Value>, way: &Way, made: &Made) -> Vec<String> {
    let mut found = BTreeSet::new();
    let (used, ignored): (&[&str], &[&str]) = match way {
        // A list of servers has its length, and whoever started them has set them up.
        Way::Replicas(_) => (&["replicas"], &["instance_count", "process", "scale_settings"]),
        Way::Command(_) => (&["environment_variables"], &[]),
        Way::Script { .. } => (&["code_configuration", "environment_variables", "model"], &[]),
        Way::Mlflow(_) => (&["environment_variables", "model"], &[]),
    };
    for (key, _) in document.iter().filter(|(_, value)| says_something(value)) {
        let key = key.as_str();
        if ignored.contains(&key) || !(ALWAYS.contains(&key) || used.contains(&key)) {
            found.insert(key.to_owned());
        }
    }
    if matches!(way, Way::Script { .. } | Way::Mlflow(_)) && given(document, "process", "directory").is_some()
    {
        found.insert("process.directory".to_owned());
    }
    match document.get("environment") {
        Some(Value::String(_)) => _ = found.insert("environment".to_owned()),
        Some(Value::Object(environment)) => in_environment(environment, way, &mut found),
        _ => {}
    }
    ports("inference_config", document.get("inference_config"), &mut found);
    let applies = |key: &&String| match key.strip_prefix("environment.") {
        Some(rest) => given(document, "environment", rest.split('.').next().unwrap_or(rest)).is_some(),
        None => true,
    };
    found.extend(made.no_effect.iter().filter(applies).cloned());
    found.into_iter().collect()
}

fn in_environment(environment: &Map<String, Value>, way: &Way, found: &mut BTreeSet<String>) {
    for (key, _) in environment.iter().filter(|(_, value)| says_something(value)) {
        let of_script = key == "conda_file" && matches!(way, Way::Script { .. });
        if !(LABELS.contains(&key.as_str()) || of_script) {
            found.insert(format!("environment.{key}"));
        }
    }
    ports("environment.inference_config", environment.get("inference_config"), found);
}

/// Every replica gets a port of its own, so one that is written down means nothing.
fn ports(place: &str, config: Option<&Value>, found: &mut BTreeSet<String>) {
    let Some(Value::Object(config)) = config else { return };
    for route in ROUTES {
        if given(config, route, "port").is_some() {
            found.insert(format!("{place}.{route}.port"));
        }
    }
}

fn given<'d>(map: &'d Map<String, Value>, key: &str, inner: &str) -> Option<&'d Value> {
    map.get(key)?.as_object()?.get(inner).filter(|value| says_something(value))
}

/// Whether somebody wanted something by it. What is off or empty is here as everywhere.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(_) => true,
    }
}
