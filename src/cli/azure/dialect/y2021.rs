//! The YAML of 2021: one file holds the endpoint, its traffic and all its deployments; a deployment may also stand in a
//! file of its own.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{absolute, block, insert_filled, modernise, only, rename};
use crate::cli::azure::document::{Document, texts};

const ENDPOINT: [&str; 14] = [
    "$schema",
    "name",
    "type",
    "auth_mode",
    "description",
    "tags",
    "properties",
    "traffic",
    "mirror_traffic",
    "deployments",
    "target",
    "compute",
    "identity",
    "location",
];
/// The last two are ours.
const DEPLOYMENT: [&str; 21] = [
    "$schema",
    "app_insights_enabled",
    "code_configuration",
    "description",
    "endpoint_name",
    "environment",
    "environment_variables",
    "instance_count",
    "instance_type",
    "liveness_probe",
    "model",
    "name",
    "properties",
    "readiness_probe",
    "request_settings",
    "resource_requirements",
    "scale_settings",
    "tags",
    "type",
    "process",
    "replicas",
];

/// What a file of 2021 says.
#[derive(Debug, PartialEq)]
pub(in crate::cli::azure) struct Whole {
    pub(in crate::cli::azure) endpoint: Document,
    /// `None` where the file does not speak of deployments: then none is deleted either.
    pub(in crate::cli::azure) deployments: Option<Vec<Document>>,
}

/// The endpoint and its deployments.
///
/// # Errors
/// A word that this dialect does not have, or a value of the wrong kind.
pub(in crate::cli::azure) fn endpoint(mut file: Document, base: &Path) -> anyhow::Result<Whole> {
    only(&file, "", &ENDPOINT)?;
    if let Some(kind) = file.remove("type")
        && kind != "online"
    {
        bail!("type: {kind} is not served here; only `type: online` is");
    }
    file.remove("$schema");
    if let Some(target) = file.remove("target") {
        file.insert("compute".into(), target);
    }
    let deployments = match file.remove("deployments") {
        None => None,
        Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => {
            Some(list.into_iter().map(|item| listed(item, base)).collect::<Result<_, _>>()?)
        }
        Some(_) => bail!("`deployments` must be a list"),
    };
    texts(&mut file);
    Ok(Whole { endpoint: file, deployments })
}

fn listed(item: Value, base: &Path) -> anyhow::Result<Document> {
    let Value::Object(item) = item else { bail!("`deployments` must be a list of maps, each with a `name`") };
    let name = item.get("name").and_then(Value::as_str).context("a deployment has no `name`")?.to_owned();
    deployment(item, base).with_context(|| format!("deployment {name}"))
}

/// One deployment.
///
/// # Errors
/// As for an endpoint.
pub(in crate::cli::azure) fn deployment(mut file: Document, base: &Path) -> anyhow::Result<Document> {
    only(&file, "", &DEPLOYMENT)?;
    file.remove("$schema");
    modernise(&mut file);
    absolute(&mut file, base);
    texts(&mut file);
    let mut resources = block(
        &mut file,
        "resource_requirements",
        "",
        &["cpu", "memory_in_gb", "gpu", "cpu_limit", "memory_in_gb_limit"],
    )?;
    let mut requests = Document::new();
    rename(&mut resources, &[("cpu", "cpu"), ("gpu", "nvidia.com/gpu")], &mut requests);
    for value in requests.values_mut().filter(|value| value.is_number()) {
        *value = value.to_string().into();
    }
    if let Some(memory) = resources.remove("memory_in_gb") {
        requests.insert("memory".into(), format!("{}Gi", text(&memory)).into());
    }
    if !requests.is_empty() {
        file.insert("resources".into(), json!({ "requests": requests }));
    }
    scale(&mut file)?;
    Ok(file)
}

/// `manual` is a count; `auto` is a range.
fn scale(file: &mut Document) -> anyhow::Result<()> {
    let known = [
        "scale_type",
        "instance_count",
        "min_instances",
        "max_instances",
        "polling_interval",
        "target_utilization_percentage",
        // Ours: the file of 2021 knew one rule.
        "policy",
        "reject_budget_percentage",
    ];
    let mut old = block(file, "scale_settings", "", &known)?;
    let kind = old.remove("scale_type");
    let mut new = Document::new();
    match kind.as_ref().map(text).unwrap_or_default().to_lowercase().as_str() {
        "manual" | "" => rename(&mut old, &[("instance_count", "instance_count")], file),
        "auto" => {
            new.insert("type".into(), "target_utilization".into());
            let same = known.iter().filter(|key| !matches!(**key, "scale_type" | "instance_count"));
            rename(&mut old, &same.map(|key| (*key, *key)).collect::<Vec<_>>(), &mut new);
        }
        other => bail!("scale_settings.scale_type: {other} must be manual or auto"),
    }
    insert_filled(file, "scale_settings", new);
    Ok(())
}

/// A scalar as it was written.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::tests::document;
    use super::*;

    /// As the tutorial of 2021 has it.
    fn tutorial() -> Document {
        let blue = json!({
            "name": "blue",
            "model": {"name": "model-1", "version": 1, "local_path": "../model-1/model/m.pkl"},
            "code_configuration": {"code": {"local_path": "../model-1/onlinescoring/"}, "scoring_script": "score.py"},
            "environment": {"name": "env-model1", "version": 1, "path": ".", "conda_file": "file:../model-1/conda.yml",
                "docker": {"image": "mcr.microsoft.com/x:1"}},
            "instance_type": "Standard_F2s_v2",
            "scale_settings": {"scale_type": "manual", "instance_count": 2, "min_instances": 1, "max_instances": 2},
        });
        document(json!({
            "$schema": "https://x", "name": "my-endpoint", "type": "online", "auth_mode": "key",
            "traffic": {"blue": 90, "green": 10}, "deployments": [blue, {"name": "green"}],
        }))
    }

    #[test]
    fn the_tutorials_file_becomes_an_endpoint_and_its_deployments() {
        let whole = endpoint(tutorial(), Path::new("/t/flow")).unwrap();
        let expected =
            json!({"name": "my-endpoint", "auth_mode": "key", "traffic": {"blue": 90, "green": 10}});
        assert_eq!(Value::Object(whole.endpoint), expected);
        let blue = json!({
            "name": "blue", "model": {"name": "model-1", "version": 1, "path": "/t/model-1/model/m.pkl"},
            "code_configuration": {"code": "/t/model-1/onlinescoring", "scoring_script": "score.py"},
            "environment": {"name": "env-model1", "version": 1, "conda_file": "/t/model-1/conda.yml", "image": "mcr.microsoft.com/x:1"},
            "instance_type": "Standard_F2s_v2", "instance_count": 2,
        });
        assert_eq!(whole.deployments.unwrap(), [document(blue), document(json!({"name": "green"}))]);
    }

    #[test]
    fn arc_files_name_a_target_and_scale_by_themselves() {
        let whole = endpoint(
            document(
                json!({"type": "online", "auth_mode": "aml_token", "target": "azureml:aks", "deployments": [{
                    "name": "blue", "scale_settings": {"scale_type": "auto", "min_instances": 1, "max_instances": 2, "policy": "adaptive"},
                    "resource_requirements": {"cpu": 0.1, "memory_in_gb": 0.5},
                }]}),
            ),
            Path::new("/t"),
        );
        let whole = whole.unwrap();
        assert_eq!(
            Value::Object(whole.endpoint),
            json!({"auth_mode": "aml_token", "compute": "azureml:aks"})
        );
        let blue = json!({
            "name": "blue", "scale_settings": {"type": "target_utilization", "min_instances": 1, "max_instances": 2, "policy": "adaptive"},
            "resources": {"requests": {"cpu": "0.1", "memory": "0.5Gi"}},
        });
        assert_eq!(whole.deployments.unwrap(), [document(blue)]);
    }

    #[test]
    fn a_file_without_deployments_deletes_none() {
        let whole = endpoint(document(json!({"name": "e", "auth_mode": "key"})), Path::new("/t")).unwrap();
        assert_eq!(whole.deployments, None);
        let whole = endpoint(document(json!({"name": "e", "deployments": []})), Path::new("/t")).unwrap();
        assert_eq!(whole.deployments, Some(Vec::new()));
    }

    #[test]
    fn unknown_words_are_errors_that_say_what_was_meant() {
        for (file, words) in [
            (json!({"trafic": {}}), ["`trafic`", "`traffic`"]),
            (
                json!({"deployments": [{"name": "b", "scale_setings": {}}]}),
                ["deployment b", "`scale_settings`"],
            ),
            (
                json!({"deployments": [{"name": "b", "scale_settings": {"scale_typ": "auto"}}]}),
                ["scale_settings", "`scale_type`"],
            ),
            (json!({"type": "batch"}), ["batch", "online"]),
            (json!({"deployments": [{"model": {}}]}), ["no `name`", ""]),
        ] {
            let error = format!("{:#}", endpoint(document(file), Path::new("/t")).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
