//! An endpoint and its deployments as v1's `show` and `list` gave them.

use serde_json::{Value, json};

use super::{PROBE, RANGE, REQUEST};

/// An endpoint with its versions.
pub(in crate::cli::azure) fn endpoint(endpoint: &Value, deployments: &[Value]) -> Value {
    let mut shown = head(endpoint, "AKSENDPOINT");
    let versions = deployments.iter().filter_map(|deployment| {
        let name = deployment["name"].as_str()?;
        Some((name.to_owned(), version(endpoint, deployment, name)))
    });
    shown["versions"] = Value::Object(versions.collect());
    shown
}

/// A service: an endpoint whose only version is not spoken of.
pub(in crate::cli::azure) fn service(endpoint: &Value, deployments: &[Value]) -> Value {
    let mut shown = head(endpoint, "AKS");
    let Some(deployment) = deployments.first() else { return shown };
    let flat = version(endpoint, deployment, deployment["name"].as_str().unwrap_or_default());
    if let (Some(shown), Value::Object(flat)) = (shown.as_object_mut(), flat) {
        let skipped = ["name", "type", "isDefault", "trafficPercentile"];
        let taken =
            flat.into_iter().filter(|(key, value)| !skipped.contains(&key.as_str()) && !value.is_null());
        // The state of the only version is that of the service.
        shown.extend(taken);
    }
    shown
}

fn head(endpoint: &Value, kind: &str) -> Value {
    let mode = endpoint["auth_mode"].as_str().unwrap_or("key");
    json!({
        "name": endpoint["name"],
        "computeType": kind,
        "description": endpoint["description"],
        "tags": endpoint["tags"],
        "properties": endpoint["properties"],
        "state": state(endpoint),
        "scoringUri": endpoint["scoring_uri"],
        "swaggerUri": endpoint["openapi_uri"],
        "authEnabled": mode == "key",
        "tokenAuthEnabled": mode == "aml_token",
    })
}

fn version(endpoint: &Value, deployment: &Value, name: &str) -> Value {
    let is_default = endpoint["default"].as_str() == Some(name);
    let mut shown = json!({
        "name": name,
        "description": deployment["description"],
        "tags": deployment["tags"],
        "state": state(deployment),
        "error": deployment["error"],
        "isDefault": is_default,
        "trafficPercentile": endpoint["traffic"][name].as_f64().unwrap_or(0.0),
        "type": match deployment["version_type"].as_str() { Some("control") => "Control", _ => "Treatment" },
        "numReplicas": deployment["instance_count"],
        "appInsightsEnabled": deployment["app_insights_enabled"],
        "livenessProbeRequirements": renamed(&deployment["liveness_probe"], &PROBE),
    });
    for (key, name) in REQUEST {
        shown[key] = deployment["request_settings"][name].clone();
    }
    let scale = &deployment["scale_settings"];
    let mut scaler = renamed(scale, &RANGE);
    scaler["autoscaleEnabled"] = (scale["type"] == "target_utilization").into();
    shown["autoScaler"] = scaler;
    shown
}

fn renamed(block: &Value, names: &[(&str, &str)]) -> Value {
    Value::Object(names.iter().map(|(old, new)| ((*old).to_owned(), block[*new].clone())).collect())
}

fn state(object: &Value) -> &'static str {
    match object["provisioning_state"].as_str() {
        Some("Succeeded") => "Healthy",
        Some("Failed") => "Failed",
        Some("Canceled") => "Unhealthy",
        _ => "Transitioning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> (Value, Value) {
        let e = json!({"name": "e", "auth_mode": "aml_token", "scoring_uri": "http://x/score", "provisioning_state": "Succeeded",
            "traffic": {"a": 20}, "default": "a"});
        let d = json!({"name": "a", "provisioning_state": "Updating", "version_type": "control", "instance_count": 2,
            "request_settings": {"request_timeout_ms": 60000},
            "scale_settings": {"type": "target_utilization", "max_instances": 4}});
        (e, d)
    }

    #[test]
    fn an_endpoint_is_shown_in_v1s_words() {
        let (e, d) = objects();
        let shown = endpoint(&e, &[d]);
        assert_eq!((&shown["state"], &shown["tokenAuthEnabled"]), (&json!("Healthy"), &json!(true)));
        let a = &shown["versions"]["a"];
        assert_eq!(
            (&a["isDefault"], &a["trafficPercentile"], &a["type"]),
            (&json!(true), &json!(20.0), &json!("Control"))
        );
        assert_eq!((&a["state"], &a["scoringTimeoutMs"]), (&json!("Transitioning"), &json!(60000)));
        assert_eq!(
            (&a["autoScaler"]["maxReplicas"], &a["autoScaler"]["autoscaleEnabled"]),
            (&json!(4), &json!(true))
        );
    }

    #[test]
    fn a_service_is_its_only_version() {
        let (e, d) = objects();
        let shown = service(&e, &[d]);
        assert_eq!(
            (&shown["name"], &shown["numReplicas"], &shown["state"]),
            (&json!("e"), &json!(2), &json!("Transitioning"))
        );
        assert_eq!((shown.get("versions"), shown.get("isDefault")), (None, None));
    }
}
