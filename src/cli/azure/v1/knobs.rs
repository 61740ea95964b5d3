//! v1's many flags. Each says what a key of `deploymentconfig.json` says, so that file and flags go the same way: the flag
//! is written over the file, then the whole is converted.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::azure::Usage;
use crate::cli::azure::dialect::v1::{self, Deploy};
use crate::cli::azure::document::{Document, read};

/// Of a version.
#[derive(Debug, Default, Args)]
pub(super) struct Knobs {
    /// inferenceconfig.json: entry script, source directory, environment
    #[arg(long, visible_alias = "ic", value_name = "FILE")]
    inference_config_file: Option<PathBuf>,
    /// deploymentconfig.json: replicas, scaling, limits, keys
    #[arg(long, visible_alias = "dc", value_name = "FILE")]
    deploy_config_file: Option<PathBuf>,
    /// Model: a path here, or the name of one that is registered
    #[arg(long, short = 'm', value_name = "MODEL")]
    model: Option<String>,
    /// Folder of the entry script
    #[arg(long, visible_alias = "sd", value_name = "FOLDER")]
    source_directory: Option<PathBuf>,
    /// Entry script within it
    #[arg(long, visible_alias = "es", value_name = "FILE")]
    entry_script: Option<String>,
    /// Conda file with the packages
    #[arg(long, visible_alias = "cf", value_name = "FILE")]
    conda_file: Option<PathBuf>,
    /// Share of the traffic, 0 to 100
    #[arg(long, visible_alias = "tp", value_name = "PERCENT")]
    traffic_percentile: Option<f64>,
    /// Take what no version has
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", ignore_case = true)]
    is_default: Option<bool>,
    /// Be the one the others are compared with
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", ignore_case = true)]
    is_control_version_type: Option<bool>,
    /// Number of replicas
    #[arg(long, visible_alias = "nr", value_name = "N")]
    num_replicas: Option<u32>,
    /// Scale by load
    #[arg(long, visible_alias = "as", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    autoscale_enabled: Option<bool>,
    /// Fewest replicas
    #[arg(long, visible_alias = "mi", value_name = "N")]
    autoscale_min_replicas: Option<u32>,
    /// Most replicas
    #[arg(long, visible_alias = "ma", value_name = "N")]
    autoscale_max_replicas: Option<u32>,
    /// Seconds between two looks at the load
    #[arg(long, visible_alias = "ar", value_name = "SECONDS")]
    autoscale_refresh_seconds: Option<u32>,
    /// Load that is aimed at, in percent
    #[arg(long, visible_alias = "at", value_name = "PERCENT")]
    autoscale_target_utilization: Option<u32>,
    /// Requests at once in a replica
    #[arg(long, visible_alias = "rm", value_name = "N")]
    replica_max_concurrent_requests: Option<u32>,
    /// Longest wait in the queue, in milliseconds
    #[arg(long, visible_alias = "mr", value_name = "MS")]
    max_request_wait_time: Option<u64>,
    /// Longest work on a request, in milliseconds
    #[arg(long, visible_alias = "tm", value_name = "MS")]
    scoring_timeout_ms: Option<u64>,
    /// Cores of a replica; kept, without effect
    #[arg(long, visible_alias = "cc", value_name = "CORES")]
    cpu_cores: Option<f64>,
    /// Memory of a replica; kept, without effect
    #[arg(long, visible_alias = "gb", value_name = "GB")]
    memory_gb: Option<f64>,
}

/// Of the endpoint around it.
#[derive(Debug, Default, Args)]
pub(super) struct EndpointKnobs {
    /// Want a key
    #[arg(long, visible_alias = "ae", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    auth_enabled: Option<bool>,
    /// Want a token
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    token_auth_enabled: Option<bool>,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    /// Tags, as KEY=VALUE
    #[arg(long, visible_alias = "tag", value_name = "KEY=VALUE", num_args = 1..)]
    tags: Vec<String>,
}

impl Knobs {
    /// The files with the flags over them, in documents.
    pub(super) fn read(&self, endpoint: Option<&EndpointKnobs>) -> anyhow::Result<Deploy> {
        let mut file = match &self.deploy_config_file {
            Some(path) => read(path)?.0,
            None => Document::new(),
        };
        self.write(&mut file)?;
        if let Some(endpoint) = endpoint {
            endpoint.write_authentication(&mut file);
        }
        let place = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "flags".into(), |path| path.display().to_string())
        };
        let mut made = v1::deploy(file).with_context(|| place(&self.deploy_config_file))?;
        let inference = self.inference().with_context(|| place(&self.inference_config_file))?;
        made.deployment.extend(inference);
        if let Some(model) = &self.model {
            made.deployment.insert("model".into(), self::model(model));
        }
        if let Some(endpoint) = endpoint {
            endpoint.write(&mut made.endpoint)?;
        }
        if made.percentile.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            return Err(Usage("the traffic percentile must be from 0 to 100".into()).into());
        }
        Ok(made)
    }

    fn write(&self, file: &mut Document) -> anyhow::Result<()> {
        let number = |value: Option<u32>| value.map(Value::from);
        set(file, &[], "trafficPercentile", self.traffic_percentile.map(Value::from))?;
        set(file, &[], "isDefault", self.is_default.map(Value::from))?;
        set(file, &[], "isControlVersionType", self.is_control_version_type.map(Value::from))?;
        set(file, &[], "numReplicas", number(self.num_replicas))?;
        set(file, &["autoScaler"], "autoscaleEnabled", self.autoscale_enabled.map(Value::from))?;
        set(file, &["autoScaler"], "minReplicas", number(self.autoscale_min_replicas))?;
        set(file, &["autoScaler"], "maxReplicas", number(self.autoscale_max_replicas))?;
        set(file, &["autoScaler"], "refreshPeriodInSeconds", number(self.autoscale_refresh_seconds))?;
        set(file, &["autoScaler"], "targetUtilization", number(self.autoscale_target_utilization))?;
        set(file, &[], "maxConcurrentRequestsPerContainer", number(self.replica_max_concurrent_requests))?;
        set(file, &[], "maxQueueWaitMs", self.max_request_wait_time.map(Value::from))?;
        set(file, &[], "scoringTimeoutMs", self.scoring_timeout_ms.map(Value::from))?;
        set(file, &["containerResourceRequirements"], "cpu", self.cpu_cores.map(Value::from))?;
        set(file, &["containerResourceRequirements"], "memoryInGB", self.memory_gb.map(Value::from))
    }

    fn inference(&self) -> anyhow::Result<Document> {
        let here = std::env::current_dir().context("cannot find the current folder")?;
        let (mut file, base) = match &self.inference_config_file {
            Some(path) => read(path)?,
            None => (Document::new(), here.clone()),
        };
        // Paths of flags start from the current folder, those of the file from the file.
        let absolute = |path: &Path| Value::from(here.join(path).to_string_lossy().into_owned());
        set(&mut file, &[], "sourceDirectory", self.source_directory.as_deref().map(absolute))?;
        set(&mut file, &[], "entryScript", self.entry_script.clone().map(Value::from))?;
        set(&mut file, &[], "condaFile", self.conda_file.as_deref().map(absolute))?;
        v1::inference(file, &base)
    }
}

impl EndpointKnobs {
    /// One way in at a time: to ask for one ends the other.
    fn write_authentication(&self, file: &mut Document) {
        for (key, value, other) in [
            ("authEnabled", self.auth_enabled, "tokenAuthEnabled"),
            ("tokenAuthEnabled", self.token_auth_enabled, "authEnabled"),
        ] {
            if let Some(value) = value {
                file.insert(key.into(), value.into());
                let is_given = [self.auth_enabled, self.token_auth_enabled].iter().all(Option::is_some);
                if value && !is_given {
                    file.remove(other);
                }
            }
        }
    }

    fn write(&self, endpoint: &mut Document) -> anyhow::Result<()> {
        if let Some(description) = &self.description {
            endpoint.insert("description".into(), description.clone().into());
        }
        for tag in &self.tags {
            let (key, value) =
                tag.split_once('=').ok_or_else(|| Usage(format!("--tags {tag:?} must be like key=value")))?;
            let tags = endpoint.entry("tags").or_insert_with(|| json!({}));
            tags[key] = value.into();
        }
        Ok(())
    }
}

fn set(file: &mut Document, within: &[&str], key: &str, value: Option<Value>) -> anyhow::Result<()> {
    let Some(value) = value else { return Ok(()) };
    let mut block = file;
    for name in within {
        let inner = block.entry(*name).or_insert_with(|| json!({}));
        block =
            inner.as_object_mut().with_context(|| format!("`{name}` must be a map of keys and values"))?;
    }
    block.insert(key.to_owned(), value);
    Ok(())
}

/// A file or folder that is there is meant; anything else is the name of a registered model.
fn model(text: &str) -> Value {
    match Path::new(text).canonicalize() {
        Ok(path) => json!({ "path": path.to_string_lossy() }),
        Err(_) if text.starts_with("azureml:") => text.into(),
        Err(_) => format!("azureml:{text}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dc.json");
        std::fs::write(
            &path,
            r#"{"numReplicas": 1, "autoScaler": {"minReplicas": 1}, "tokenAuthEnabled": true}"#,
        )
        .unwrap();
        let knobs = Knobs {
            deploy_config_file: Some(path),
            num_replicas: Some(0),
            autoscale_max_replicas: Some(4),
            traffic_percentile: Some(0.0),
            model: Some("my-model:1".into()),
            ..Knobs::default()
        };
        let endpoint =
            EndpointKnobs { auth_enabled: Some(true), tags: vec!["a=b".into()], ..EndpointKnobs::default() };
        let made = knobs.read(Some(&endpoint)).unwrap();
        assert_eq!(made.deployment["instance_count"], 0);
        assert_eq!(made.deployment["scale_settings"]["max_instances"], 4);
        assert_eq!(made.deployment["model"], "azureml:my-model:1");
        assert_eq!(made.percentile, Some(0.0));
        assert_eq!(Value::Object(made.endpoint), json!({"auth_mode": "key", "tags": {"a": "b"}}));
        let knobs = Knobs { traffic_percentile: Some(101.0), ..Knobs::default() };
        assert!(knobs.read(None).unwrap_err().is::<Usage>());
    }
}
