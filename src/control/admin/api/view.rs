//! What endpoints and deployments look like from outside: the document, the defaults that hold, and how they are.

use serde_json::{Map, Value, json};

use super::super::AdminContext;
use crate::control::board::{DeploymentStatus, ReplicaState};
use crate::control::operations::{Operation, OperationKind, OperationStatus};
use crate::core::declared::{Declared, DeclaredEndpoint, Document, Refusal, bare, shares, version_of};
use crate::core::settings::{
    AuthMode, DeploymentSettings, EndpointSettings, Name, ProbeSettings, Profile, ScaleSettings,
};

/// Keys of an endpoint that are kept and mean nothing here.
const NO_EFFECT: [&str; 5] = ["compute", "identity", "location", "mirror_traffic", "public_network_access"];

/// Everything that a view is made of.
pub(super) struct Views<'c> {
    context: &'c AdminContext,
    pub(super) declared: std::sync::Arc<Declared>,
    snapshot: std::sync::Arc<crate::data::world::Snapshot>,
}

/// An endpoint, whoever declares it.
pub(super) enum Found<'v> {
    Declared(&'v Name, &'v DeclaredEndpoint),
    /// It stands in the configuration file.
    File(&'v EndpointSettings),
}

impl<'c> Views<'c> {
    pub(super) fn of(context: &'c AdminContext) -> Self {
        let declared = context.shown.declared.load_full();
        Self { context, declared, snapshot: context.snapshot.load_full() }
    }

    /// All endpoints, by name.
    pub(super) fn all(&self) -> Vec<Value> {
        let declared =
            self.declared.endpoints.iter().map(|(name, endpoint)| self.declared_endpoint(name, endpoint));
        let of_file = self.files().map(|settings| self.file_endpoint(settings));
        declared.chain(of_file).collect()
    }

    fn files(&self) -> impl Iterator<Item = &EndpointSettings> {
        let all = self.snapshot.endpoints.iter().map(|endpoint| &*endpoint.settings);
        all.filter(|settings| !self.declared.endpoints.contains_key(&settings.name))
    }

    pub(super) fn find(&self, name: &str) -> Result<Found<'_>, Refusal> {
        if let Some((name, endpoint)) = self.declared.endpoint(name) {
            return Ok(Found::Declared(name, endpoint));
        }
        let file = self.files().find(|settings| settings.name.as_str().eq_ignore_ascii_case(name));
        file.map(Found::File).ok_or_else(|| Refusal::no_endpoint(name))
    }

    pub(super) fn endpoint(&self, name: &str) -> Result<Value, Refusal> {
        Ok(match self.find(name)? {
            Found::Declared(name, endpoint) => self.declared_endpoint(name, endpoint),
            Found::File(settings) => self.file_endpoint(settings),
        })
    }

    fn declared_endpoint(&self, name: &Name, endpoint: &DeclaredEndpoint) -> Value {
        let mut view = endpoint.document.clone();
        hide_secrets(&mut view);
        let kind = if view.contains_key("compute") { "K8S" } else { "Managed" };
        view.entry("auth_mode").or_insert_with(|| json!("key"));
        for key in ["tags", "properties"] {
            view.entry(key).or_insert_with(|| json!({}));
        }
        for (key, value) in
            [("traffic", Self::traffic(endpoint)), ("kind", json!(kind)), ("owner", json!("state"))]
        {
            view.insert(key.to_owned(), value);
        }
        view.entry("mirror_traffic").or_insert_with(|| json!({}));
        let no_effect: Vec<_> =
            NO_EFFECT.iter().filter(|key| endpoint.document.contains_key(**key)).collect();
        view.insert("no_effect".to_owned(), json!(no_effect));
        view.insert("provisioning_state".to_owned(), json!("Succeeded"));
        view.insert("etag".to_owned(), etag(&endpoint.document));
        self.addresses(name, endpoint.is_v1(), &mut view);
        Value::Object(view)
    }

    /// Every deployment, those without a share as well.
    fn traffic(endpoint: &DeclaredEndpoint) -> Value {
        let mut traffic: Map<String, Value> =
            endpoint.deployments.keys().map(|name| (name.to_string(), json!(0))).collect();
        for (name, _) in shares(endpoint) {
            traffic.insert(name.to_owned(), endpoint.document["traffic"][name].clone());
        }
        Value::Object(traffic)
    }

    fn file_endpoint(&self, settings: &EndpointSettings) -> Value {
        let weights = settings.deployments.iter().zip(settings.traffic.weights());
        let traffic: Map<String, Value> = weights
            .map(|(deployment, weight)| (deployment.name.to_string(), json!(weight.as_f64())))
            .collect();
        let default = settings.default_deployment.and_then(|index| settings.deployments.get(index));
        let mut view = Map::new();
        for (key, value) in [
            ("name", json!(settings.name)),
            ("auth_mode", json!(auth_mode(settings.auth.mode))),
            ("kind", json!("Managed")),
            ("owner", json!("file")),
            ("provisioning_state", json!("Succeeded")),
            ("traffic", Value::Object(traffic)),
            ("mirror_traffic", json!({})),
            ("tags", json!({})),
            ("properties", json!({})),
            ("no_effect", json!([])),
        ] {
            view.insert(key.to_owned(), value);
        }
        if let Some(default) = default {
            view.insert("default".to_owned(), json!(default.name));
        }
        view.insert("etag".to_owned(), etag(&view));
        self.addresses(&settings.name, settings.profile == Profile::AksV1, &mut view);
        Value::Object(view)
    }

    fn addresses(&self, name: &Name, v1: bool, view: &mut Document) {
        let (base, word) = (&self.context.public_url, if v1 { "service" } else { "endpoint" });
        view.insert("id".to_owned(), json!(format!("/endpoints/{name}")));
        view.insert("scoring_uri".to_owned(), json!(format!("{base}/api/v1/{word}/{name}/score")));
        view.insert("openapi_uri".to_owned(), json!(format!("{base}/api/v1/{word}/{name}/swagger.json")));
    }

    pub(super) fn deployments(&self, endpoint: &str) -> Result<Vec<Value>, Refusal> {
        Ok(match self.find(endpoint)? {
            Found::Declared(name, endpoint) => {
                let all = endpoint.deployments.iter();
                all.map(|(deployment, document)| self.declared_deployment(name, deployment, document))
                    .collect()
            }
            Found::File(settings) => settings
                .deployments
                .iter()
                .map(|d| self.deployed(&settings.name, &d.name, Document::new()))
                .collect(),
        })
    }

    pub(super) fn deployment(&self, endpoint: &str, deployment: &str) -> Result<Value, Refusal> {
        match self.find(endpoint)? {
            Found::Declared(name, endpoint) => {
                let found = endpoint.deployment(deployment);
                let known = || endpoint.deployments.keys().map(Name::as_str).collect::<Vec<_>>();
                let (deployment, document) =
                    found.ok_or_else(|| Refusal::no_deployment(name.as_str(), deployment, &known()))?;
                Ok(self.declared_deployment(name, deployment, document))
            }
            Found::File(settings) => {
                let same = |d: &&std::sync::Arc<DeploymentSettings>| {
                    d.name.as_str().eq_ignore_ascii_case(deployment)
                };
                let found = settings.deployments.iter().find(same);
                let known = || settings.deployments.iter().map(|d| d.name.as_str()).collect::<Vec<_>>();
                let found = found
                    .ok_or_else(|| Refusal::no_deployment(settings.name.as_str(), deployment, &known()))?;
                Ok(self.deployed(&settings.name, &found.name, Document::new()))
            }
        }
    }

    fn declared_deployment(&self, endpoint: &Name, name: &Name, document: &Document) -> Value {
        let mut view = bare(document);
        view.insert("etag".to_owned(), etag(document));
        let no_effect = self.context.shown.no_effect(endpoint, name);
        view.insert("no_effect".to_owned(), json!(no_effect));
        self.deployed(endpoint, name, view)
    }

    /// Adds what holds and how it is.
    fn deployed(&self, endpoint: &Name, name: &Name, mut view: Document) -> Value {
        let status = self.context.board.get(endpoint, name).unwrap_or_default();
        let last = self.context.shown.operations.last_about(endpoint, name);
        view.insert("id".to_owned(), json!(format!("/endpoints/{endpoint}/deployments/{name}")));
        view.insert("name".to_owned(), json!(name));
        view.insert("endpoint_name".to_owned(), json!(endpoint));
        for key in ["tags", "properties", "environment_variables"] {
            view.entry(key).or_insert_with(|| json!({}));
        }
        view.entry("type").or_insert_with(|| json!("managed"));
        view.entry("no_effect").or_insert_with(|| json!([]));
        if let Some(settings) = self.settings(endpoint, name) {
            defaults(&settings, &mut view);
        }
        view.insert("provisioning_state".to_owned(), json!(provisioning(last.as_ref())));
        let failed = last.as_ref().filter(|last| last.status == OperationStatus::Failed);
        if let Some(error) = failed.as_ref().and_then(|last| last.error.as_ref()) {
            view.insert("error".to_owned(), json!(error));
        }
        view.insert("replicas_ready".to_owned(), json!(ready(&status)));
        view.insert("replica_status".to_owned(), json!(status.replicas));
        view.entry("etag").or_insert_with(|| json!("0"));
        Value::Object(view)
    }

    fn settings(&self, endpoint: &Name, name: &Name) -> Option<std::sync::Arc<DeploymentSettings>> {
        let endpoint = self.snapshot.endpoints.iter().find(|e| e.settings.name == *endpoint)?;
        endpoint.settings.deployments.iter().find(|d| d.name == *name).cloned()
    }
}

/// Shared secrets of tokens: whoever looks could sign with them.
fn hide_secrets(view: &mut Document) {
    let keys = view.get_mut("jwt").and_then(|jwt| jwt.get_mut("keys")).and_then(Value::as_array_mut);
    for key in keys.into_iter().flatten() {
        if let Some(secret) = key.get_mut("secret") {
            *secret = json!("***");
        }
    }
}

fn auth_mode(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::Key => "key",
        AuthMode::Jwt => "jwt",
        AuthMode::KeyOrJwt => "key_or_jwt",
        AuthMode::None => "none",
    }
}

fn etag(document: &Document) -> Value {
    json!(format!("{:016x}", version_of(document)))
}

fn ready(status: &DeploymentStatus) -> usize {
    status.replicas.iter().filter(|replica| replica.state == ReplicaState::Ready).count()
}

/// Azure's word for how a deployment is (reference §9.2).
fn provisioning(last: Option<&Operation>) -> &'static str {
    let Some(last) = last else { return "Succeeded" };
    match (last.status, last.kind) {
        (OperationStatus::InProgress, OperationKind::Create) => "Creating",
        (OperationStatus::InProgress, OperationKind::Delete) => "Deleting",
        (OperationStatus::InProgress, OperationKind::Scale) => "Scaling",
        (OperationStatus::InProgress, OperationKind::Update) => "Updating",
        (OperationStatus::Failed, _) => "Failed",
        (OperationStatus::Canceled, _) => "Canceled",
        (OperationStatus::Succeeded, _) => "Succeeded",
    }
}

/// What holds where the document is silent, so that nobody has to guess.
fn defaults(settings: &DeploymentSettings, view: &mut Document) {
    let request = &settings.request;
    let slots = request.slots.map_or(0, std::num::NonZero::get);
    let slots = if request.auto_slots { json!("auto") } else { json!(slots) };
    let filled = json!({
        "request_timeout_ms": millis(request.timeout), "connect_timeout_ms": millis(request.connect_timeout),
        "max_concurrent_requests_per_instance": slots,
        "max_queue_wait_ms": millis(request.max_queue_wait), "max_body_bytes": request.max_body_bytes,
        "idempotent": request.repeat.idempotent,
    });
    fill(view, "request_settings", filled);
    let probe = |probe: &ProbeSettings| {
        json!({
            "initial_delay": probe.initial_delay.as_secs(), "period": probe.period.as_secs(),
            "timeout": probe.timeout.as_secs(), "success_threshold": probe.success_threshold,
            "failure_threshold": probe.failure_threshold,
        })
    };
    fill(view, "liveness_probe", probe(&settings.liveness));
    fill(view, "readiness_probe", probe(&settings.readiness));
    match &settings.scale {
        ScaleSettings::Manual { replicas } => {
            fill(view, "scale_settings", json!({ "type": "default" }));
            view.entry("instance_count").or_insert_with(|| json!(replicas));
        }
        ScaleSettings::Utilization(rule) => {
            let filled = json!({
                "type": "target_utilization", "min_instances": rule.min, "max_instances": rule.max,
                "polling_interval": rule.interval.as_secs(), "target_utilization_percentage": rule.target_percent,
            });
            fill(view, "scale_settings", filled);
            view.entry("instance_count").or_insert_with(|| json!(rule.min));
        }
    }
}

fn fill(view: &mut Document, key: &str, mut filled: Value) {
    if let (Some(Value::Object(given)), Value::Object(filled)) = (view.get(key), &mut filled) {
        filled.extend(given.clone());
    }
    view.insert(key.to_owned(), filled);
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
