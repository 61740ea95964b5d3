//! What a user probably meant: the nearest known word, and the words of the original that have another name
//! or no place here.

pub(super) use crate::core::suggest::{list, nearest};

/// Words of Azure's v1 and v2 that people bring along, and what they are here.
const FOREIGN: &[(&str, &str)] = &[
    (
        "app_insights_enabled",
        "there is no Application Insights; requests are in the access log and in /metrics",
    ),
    ("autoscale_enabled", "here `scale_settings: {type: target_utilization}` or `{type: default}`"),
    ("autoscale_max_replicas", "here `scale_settings.max_instances`"),
    ("autoscale_min_replicas", "here `scale_settings.min_instances`"),
    ("autoscale_refresh_seconds", "here `scale_settings.polling_interval`"),
    ("autoscale_target_utilization", "here `scale_settings.target_utilization_percentage`"),
    ("code_configuration", "scoregate builds nothing; `process.command` says how a model server is started"),
    ("compute", "replicas run where scoregate runs (`process`) or where `replicas` points to"),
    ("description", "write it as a comment"),
    ("endpoint_name", "a deployment is written inside its endpoint, under `deployments`"),
    ("environment", "scoregate builds nothing; `inference_config` stands directly in the deployment"),
    ("instance_type", "replicas are not bound to machine types"),
    ("is_default", "here `default: NAME` of the endpoint"),
    ("max_request_wait_time", "here `request_settings.max_queue_wait_ms`"),
    ("mirror_traffic", "mirroring is not supported"),
    ("model", "scoregate loads no model; `process.command` says how a model server is started"),
    ("num_replicas", "here `instance_count`"),
    ("percent", "here `traffic: {NAME: PERCENT}` of the endpoint"),
    ("replica_max_concurrent_requests", "here `request_settings.max_concurrent_requests_per_instance`"),
    ("resources", "replicas are not given CPU or memory limits here"),
    (
        "scale_setting",
        "the key is `scale_settings`, in the plural; one page of Azure's documentation misspells it",
    ),
    ("scoring_timeout_ms", "here `request_settings.request_timeout_ms`"),
    ("tags", "write them as a comment"),
    ("token_auth_enabled", "here `auth_mode: jwt`"),
    ("traffic_percentile", "here `traffic: {NAME: PERCENT}` of the endpoint"),
];

/// Help for a key that does not exist.
pub(super) fn unknown_key(key: &str, known: &[&str]) -> String {
    let allowed = format!("allowed here are {}", list(known));
    if let Some((_, meaning)) = FOREIGN.iter().find(|(foreign, _)| foreign.eq_ignore_ascii_case(key)) {
        return format!("{meaning}; {allowed}");
    }
    match nearest(key, known) {
        Some(near) => format!("did you mean `{near}`? {allowed}"),
        None => allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_original_are_translated() {
        assert!(unknown_key("scale_setting", &["scale_settings"]).contains("plural"));
        assert!(unknown_key("traffic_percentile", &["traffic"]).starts_with("here `traffic:"));
    }
}
