//! v1's JSON: `deploymentconfig.json` and `inferenceconfig.json` into documents, and documents into what v1 showed.

pub(in crate::cli::azure) mod view;

use std::path::Path;

use anyhow::{bail, ensure};
use serde_json::{Value, json};

use super::{block, insert_filled, located, only, rename};
use crate::cli::azure::document::{Document, texts};

const DEPLOYMENT: [&str; 22] = [
    "appInsightsEnabled",
    "authEnabled",
    "autoScaler",
    "computeType",
    "containerResourceRequirements",
    "dataCollection",
    "description",
    "gpuCores",
    "isControlVersionType",
    "isDefault",
    "keys",
    "livenessProbeRequirements",
    "maxConcurrentRequestsPerContainer",
    "maxQueueWaitMs",
    "namespace",
    "numReplicas",
    "properties",
    "scoringTimeoutMs",
    "tags",
    "tokenAuthEnabled",
    "trafficPercentile",
    "versionName",
];
const INFERENCE: [&str; 13] = [
    "baseImage",
    "baseImageRegistry",
    "condaFile",
    "cudaVersion",
    "description",
    "enableGpu",
    "entryScript",
    "environment",
    "environmentVariables",
    "extraDockerfileSteps",
    "path",
    "runtime",
    "sourceDirectory",
];
const REQUEST: [(&str, &str); 3] = [
    ("scoringTimeoutMs", "request_timeout_ms"),
    ("maxConcurrentRequestsPerContainer", "max_concurrent_requests_per_instance"),
    ("maxQueueWaitMs", "max_queue_wait_ms"),
];
const PROBE: [(&str, &str); 5] = [
    ("initialDelaySeconds", "initial_delay"),
    ("periodSeconds", "period"),
    ("timeoutSeconds", "timeout"),
    ("failureThreshold", "failure_threshold"),
    ("successThreshold", "success_threshold"),
];
const RANGE: [(&str, &str); 4] = [
    ("minReplicas", "min_instances"),
    ("maxReplicas", "max_instances"),
    ("refreshPeriodInSeconds", "polling_interval"),
    ("targetUtilization", "target_utilization_percentage"),
];

/// What a `deploymentconfig.json` says, of the version and of the endpoint around it.
#[derive(Debug, Default, PartialEq)]
pub(in crate::cli::azure) struct Deploy {
    pub(in crate::cli::azure) deployment: Document,
    pub(in crate::cli::azure) endpoint: Document,
    /// Primary and secondary, where they are given.
    pub(in crate::cli::azure) keys: [Option<String>; 2],
    pub(in crate::cli::azure) version: Option<String>,
    pub(in crate::cli::azure) percentile: Option<f64>,
    pub(in crate::cli::azure) is_default: Option<bool>,
    pub(in crate::cli::azure) is_control: Option<bool>,
}

/// A `deploymentconfig.json`.
///
/// # Errors
/// A word that v1 does not have, or a value of the wrong kind.
pub(in crate::cli::azure) fn deploy(mut file: Document) -> anyhow::Result<Deploy> {
    only(&file, "", &DEPLOYMENT)?;
    if let Some(kind) = file.get("computeType").and_then(Value::as_str) {
        let known = ["aks", "aksendpoint", "aci", "local"];
        ensure!(
            known.contains(&kind.to_lowercase().as_str()),
            "computeType: {kind} must be AKS or AKSENDPOINT"
        );
    }
    let mut made = Deploy {
        version: file.remove("versionName").and_then(|value| value.as_str().map(str::to_owned)),
        percentile: file.remove("trafficPercentile").and_then(|value| value.as_f64()),
        is_default: flag(&mut file, "isDefault")?,
        is_control: flag(&mut file, "isControlVersionType")?,
        ..Deploy::default()
    };
    authentication(&mut file, &mut made)?;
    let deployment = &mut made.deployment;
    rename(
        &mut file,
        &[
            ("appInsightsEnabled", "app_insights_enabled"),
            ("numReplicas", "instance_count"),
            ("description", "description"),
            ("tags", "tags"),
            ("properties", "properties"),
        ],
        deployment,
    );
    let mut request = Document::new();
    rename(&mut file, &REQUEST, &mut request);
    insert_filled(deployment, "request_settings", request);
    let mut old = block(&mut file, "livenessProbeRequirements", "", &PROBE.map(|(old, _)| old))?;
    let mut probe = Document::new();
    rename(&mut old, &PROBE, &mut probe);
    insert_filled(deployment, "liveness_probe", probe);
    scale(&mut file, deployment)?;
    resources(&mut file, deployment)?;
    let collection = block(&mut file, "dataCollection", "", &["storageEnabled"])?;
    if collection.get("storageEnabled") == Some(&Value::Bool(true)) {
        let on = json!({"enabled": "True"});
        deployment.insert(
            "data_collector".into(),
            json!({"collections": {"model_inputs": on, "model_outputs": on}}),
        );
    }
    texts(deployment);
    Ok(made)
}

/// Keys are on unless they are switched off; tokens take their place.
fn authentication(file: &mut Document, made: &mut Deploy) -> anyhow::Result<()> {
    let (keys, tokens) = (flag(file, "authEnabled")?, flag(file, "tokenAuthEnabled")?);
    if keys == Some(true) && tokens == Some(true) {
        bail!("authEnabled and tokenAuthEnabled cannot both be true");
    }
    let mode = match (keys, tokens) {
        (_, Some(true)) => Some("aml_token"),
        (Some(false), _) => Some("none"),
        (Some(true), _) => Some("key"),
        (None, _) => None,
    };
    if let Some(mode) = mode {
        made.endpoint.insert("auth_mode".into(), mode.into());
    }
    let keys = block(file, "keys", "", &["primaryKey", "secondaryKey"])?;
    made.keys =
        ["primaryKey", "secondaryKey"].map(|key| keys.get(key).and_then(Value::as_str).map(str::to_owned));
    Ok(())
}

fn scale(file: &mut Document, deployment: &mut Document) -> anyhow::Result<()> {
    let known = ["autoscaleEnabled", RANGE[0].0, RANGE[1].0, RANGE[2].0, RANGE[3].0];
    let mut old = block(file, "autoScaler", "", &known)?;
    let enabled = flag(&mut old, "autoscaleEnabled")?;
    let mut new = Document::new();
    rename(&mut old, &RANGE, &mut new);
    if enabled == Some(false) {
        new = Document::new();
        new.insert("type".into(), "default".into());
    } else if enabled == Some(true) || !new.is_empty() {
        new.insert("type".into(), "target_utilization".into());
    } else if deployment.contains_key("instance_count") {
        // A number of replicas and nothing about scaling: v1 did not scale then.
        new.insert("type".into(), "default".into());
    }
    insert_filled(deployment, "scale_settings", new);
    Ok(())
}

fn resources(file: &mut Document, deployment: &mut Document) -> anyhow::Result<()> {
    let known = ["cpu", "memoryInGB", "gpu", "cpuLimit", "memoryInGBLimit"];
    let mut old = block(file, "containerResourceRequirements", "", &known)?;
    let gpu = file.remove("gpuCores").filter(|value| !value.is_null());
    let quantity = |old: &mut Document, key: &str, unit: &str| {
        old.remove(key).filter(|value| !value.is_null()).map(|value| Value::from(format!("{value}{unit}")))
    };
    let mut resources = Document::new();
    for (block, keys) in [("requests", ["cpu", "memoryInGB"]), ("limits", ["cpuLimit", "memoryInGBLimit"])] {
        let mut values = Document::new();
        for (key, name, unit) in [(keys[0], "cpu", ""), (keys[1], "memory", "Gi")] {
            if let Some(value) = quantity(&mut old, key, unit) {
                values.insert(name.into(), value);
            }
        }
        insert_filled(&mut resources, block, values);
    }
    if let Some(gpu) = old.remove("gpu").or(gpu).filter(|value| !value.is_null()) {
        let limits = resources.entry("limits").or_insert_with(|| json!({}));
        limits["nvidia.com/gpu"] = gpu.to_string().into();
    }
    insert_filled(deployment, "resources", resources);
    Ok(())
}

/// An `inferenceconfig.json`: code and environment of a version. Its paths start from the file; the conda file is within
/// the source directory, where one is given.
///
/// # Errors
/// As for a `deploymentconfig.json`.
pub(in crate::cli::azure) fn inference(mut file: Document, base: &Path) -> anyhow::Result<Document> {
    only(&file, "", &INFERENCE)?;
    let mut take = |key: &str| file.remove(key).and_then(|value| value.as_str().map(str::to_owned));
    let code = take("sourceDirectory").map_or_else(|| located(".", base), |folder| located(&folder, base));
    let mut deployment = Document::new();
    let mut environment = Document::new();
    if let Some(script) = take("entryScript") {
        deployment.insert("code_configuration".into(), json!({"code": code, "scoring_script": script}));
    }
    if let Some(conda) = take("condaFile") {
        environment.insert("conda_file".into(), located(&conda, Path::new(&code)).into());
    }
    rename(&mut file, &[("baseImage", "image")], &mut environment);
    rename(
        &mut file,
        &[("environmentVariables", "environment_variables"), ("description", "description")],
        &mut deployment,
    );
    match file.remove("environment") {
        None | Some(Value::Null) => {}
        Some(Value::Object(mut old)) => {
            rename(&mut old, &[("environmentVariables", "environment_variables")], &mut deployment);
            rename(&mut old, &[("name", "name"), ("version", "version")], &mut environment);
            for (keys, name) in
                [(["python", "condaDependencies"], "conda_file"), (["docker", "baseImage"], "image")]
            {
                let value = old.get_mut(keys[0]).and_then(|block| block.get_mut(keys[1])).map(Value::take);
                if let Some(value) = value.filter(|value| !value.is_null()) {
                    environment.insert(name.into(), value);
                }
            }
        }
        Some(_) => bail!("`environment` must be a map; for a file of packages write `condaFile`"),
    }
    insert_filled(&mut deployment, "environment", environment);
    texts(&mut deployment);
    Ok(deployment)
}

/// A truth value, also as the text that v1's flags write.
fn flag(file: &mut Document, key: &str) -> anyhow::Result<Option<bool>> {
    match file.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(other) => bail!("{key}: {other} must be true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::document;
    use super::*;

    #[test]
    fn a_deploymentconfig_is_told_in_todays_words() {
        let made = deploy(document(json!({
            "computeType": "aks",
            "autoScaler": {"autoscaleEnabled": true, "minReplicas": 1, "maxReplicas": 3, "refreshPeriodInSeconds": 1, "targetUtilization": 70},
            "dataCollection": {"storageEnabled": false}, "authEnabled": true,
            "containerResourceRequirements": {"cpu": 0.5, "memoryInGB": 1.5, "gpu": null},
            "appInsightsEnabled": true, "scoringTimeoutMs": 5000, "maxConcurrentRequestsPerContainer": 2, "maxQueueWaitMs": 0,
            "keys": {"primaryKey": "one", "secondaryKey": null},
            "livenessProbeRequirements": {"periodSeconds": 10, "initialDelaySeconds": 310, "timeoutSeconds": 1, "failureThreshold": 3, "successThreshold": 1},
            "namespace": "x", "gpuCores": null, "trafficPercentile": 20, "isDefault": true,
        })))
        .unwrap();
        let deployment = json!({
            "app_insights_enabled": true,
            "request_settings": {"request_timeout_ms": 5000, "max_concurrent_requests_per_instance": 2, "max_queue_wait_ms": 0},
            "liveness_probe": {"initial_delay": 310, "period": 10, "timeout": 1, "failure_threshold": 3, "success_threshold": 1},
            "scale_settings": {"type": "target_utilization", "min_instances": 1, "max_instances": 3, "polling_interval": 1,
                "target_utilization_percentage": 70},
            "resources": {"requests": {"cpu": "0.5", "memory": "1.5Gi"}},
        });
        assert_eq!(Value::Object(made.deployment), deployment);
        assert_eq!(Value::Object(made.endpoint), json!({"auth_mode": "key"}));
        assert_eq!(made.keys, [Some("one".into()), None]);
        assert_eq!((made.percentile, made.is_default, made.is_control), (Some(20.0), Some(true), None));
    }

    #[test]
    fn a_number_of_replicas_stays_that_number() {
        let made = deploy(document(json!({"numReplicas": 0}))).unwrap();
        assert_eq!(
            Value::Object(made.deployment),
            json!({"instance_count": 0, "scale_settings": {"type": "default"}})
        );
        let made = deploy(document(
            json!({"numReplicas": 2, "autoScaler": {"autoscaleEnabled": false, "maxReplicas": 9}}),
        ));
        let expected = json!({"instance_count": 2, "scale_settings": {"type": "default"}});
        assert_eq!(Value::Object(made.unwrap().deployment), expected);
    }

    #[test]
    fn tokens_and_open_services_are_modes() {
        for (file, mode) in [
            (json!({"tokenAuthEnabled": true}), json!({"auth_mode": "aml_token"})),
            (json!({"authEnabled": false, "tokenAuthEnabled": true}), json!({"auth_mode": "aml_token"})),
            (json!({"authEnabled": false}), json!({"auth_mode": "none"})),
            (json!({}), json!({})),
        ] {
            assert_eq!(Value::Object(deploy(document(file)).unwrap().endpoint), mode);
        }
        assert!(deploy(document(json!({"authEnabled": true, "tokenAuthEnabled": true}))).is_err());
    }

    #[test]
    fn an_inferenceconfig_says_code_and_environment() {
        let file = json!({
            "entryScript": "score.py", "runtime": "python", "condaFile": "env.yml", "sourceDirectory": "../src",
            "environmentVariables": {"A": 1},
        });
        let expected = json!({
            "code_configuration": {"code": "/t/src", "scoring_script": "score.py"},
            "environment": {"conda_file": "/t/src/env.yml"}, "environment_variables": {"A": "1"},
        });
        assert_eq!(Value::Object(inference(document(file), Path::new("/t/v1")).unwrap()), expected);
        let file = json!({"entryScript": "score.py", "environment": {
            "name": "e", "version": "1", "docker": {"baseImage": "mcr/x"}, "environmentVariables": {"B": "b"},
            "python": {"condaDependencies": {"dependencies": [{"pip": ["scikit-learn"]}]}},
        }});
        let expected = json!({
            "code_configuration": {"code": "/t/v1", "scoring_script": "score.py"}, "environment_variables": {"B": "b"},
            "environment": {"name": "e", "version": "1", "image": "mcr/x", "conda_file": {"dependencies": [{"pip": ["scikit-learn"]}]}},
        });
        assert_eq!(Value::Object(inference(document(file), Path::new("/t/v1")).unwrap()), expected);
    }

    #[test]
    fn unknown_words_are_errors_that_say_what_was_meant() {
        for (file, word) in [
            (json!({"numReplica": 1}), "`numReplicas`"),
            (json!({"autoScaler": {"minReplica": 1}}), "`minReplicas`"),
            (json!({"authEnabled": "yes"}), "true or false"),
            (json!({"computeType": "batch"}), "AKS"),
        ] {
            let error = deploy(document(file)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let error =
            inference(document(json!({"entryscript": "x"})), Path::new("/t")).unwrap_err().to_string();
        assert!(error.contains("`entryScript`"), "{error}");
    }
}
