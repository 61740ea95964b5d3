//! `--set KEY=VALUE`: keys of the configuration, checked by its own rules.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::{Policy, Unusable};
use crate::config;
use crate::core::settings::{ScalePolicy, ScaleSettings};

/// Keys that mean something where there is no router.
const KEYS: [(&str, &str); 5] = [
    ("scale_settings", "target_utilization_percentage"),
    ("scale_settings", "reject_budget_percentage"),
    ("scale_settings", "min_instances"),
    ("scale_settings", "max_instances"),
    ("request_settings", "max_queue_wait_ms"),
];

/// One key and its value.
#[derive(Clone, Debug)]
pub(super) struct Override {
    section: &'static str,
    key: &'static str,
    value: Value,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("it must be KEY=VALUE")?;
        let (section, key) = name.split_once('.').unwrap_or(("scale_settings", name));
        let known = KEYS.iter().find(|known| **known == (section, key));
        let (section, key) = *known.ok_or_else(|| {
            let names: Vec<_> = KEYS.iter().map(|(section, key)| format!("{section}.{key}")).collect();
            format!("`{name}` has no effect here; these have: {}", names.join(", "))
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        Ok(Self { section, key, value })
    }
}

/// What was set, checked; `None` is as the simulator says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overrides {
    pub(super) policy: ScalePolicy,
    pub(super) target_percent: Option<u32>,
    pub(super) min: Option<u32>,
    pub(super) max: Option<u32>,
    /// In seconds.
    pub(super) queue_wait: Option<f64>,
}

impl Overrides {
    /// Takes the keys through the checks of a configuration file.
    pub(super) fn check(policy: Policy, set: &[Override]) -> Result<Self, Unusable> {
        let policy = match policy {
            Policy::Azureml => "azureml",
            Policy::AzuremlStrict => "azureml-strict",
            Policy::Adaptive => "adaptive",
        };
        let mut scale = Map::from_iter([("policy".to_owned(), policy.into())]);
        let mut request = Map::new();
        for Override { section, key, value } in set {
            let section = if *section == "scale_settings" { &mut scale } else { &mut request };
            section.insert((*key).to_owned(), value.clone());
        }
        let is_set = |key: &str| set.iter().any(|one| one.key == key);
        if !is_set("max_instances") {
            // Its default is too few for most of what `min_instances` may be.
            let least =
                scale.get("min_instances").filter(|least| least.as_u64().is_some_and(|least| least > 0));
            let most = least.cloned().unwrap_or_else(|| 1.into());
            scale.insert("max_instances".to_owned(), most);
        }
        let deployment = json!({ "name": "simulated", "process": { "command": ["none"] },
            "scale_settings": scale, "request_settings": request });
        let endpoint = json!({ "name": "simulated", "auth_mode": "none", "deployments": [deployment] });
        let (endpoint, _) = config::endpoint(&endpoint, &|_| None).map_err(|report| {
            let messages: Vec<_> = report.errors().map(|error| error.message.clone()).collect();
            Unusable(format!("--set: {}", messages.join("; ")))
        })?;
        let deployment = endpoint.deployments.first().expect("one was given");
        let ScaleSettings::Utilization(rule) = &deployment.scale else {
            return Err(Unusable("--set: the number of replicas is fixed".to_owned()));
        };
        let wait = deployment.request.max_queue_wait.as_secs_f64();
        Ok(Self {
            policy: rule.policy,
            target_percent: is_set("target_utilization_percentage").then_some(rule.target_percent),
            min: is_set("min_instances").then_some(rule.min),
            max: is_set("max_instances").then_some(rule.max),
            queue_wait: is_set("max_queue_wait_ms").then_some(wait),
        })
    }

    /// The bounds of a line, where nothing else was set.
    ///
    /// # Errors
    /// They contradict each other.
    pub(super) fn bounds(&self, min: u32, max: u32) -> Result<(u32, u32), String> {
        let (least, most) = (self.min.unwrap_or(min), self.max.unwrap_or(max));
        if least <= most {
            return Ok((least, most));
        }
        let by = |set: Option<u32>| if set.is_some() { " (by --set)" } else { "" };
        let (by_min, by_max) = (by(self.min), by(self.max));
        Err(format!("`min` is {least}{by_min}, but `max` is {most}{by_max}; `min` must not be greater"))
    }
}
