//! From declared documents to the settings that the router works with: the words of Azure's YAML become those of a
//! configuration file, which checks them like any other.

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use crate::config;
use crate::control::recipe::{Recipe, Source};
use crate::core::declared::{DeclaredEndpoint, Document, Refusal, shares};
use crate::core::settings::{EndpointSettings, Name};
use std::sync::Arc;

/// Who issues the tokens of `auth_mode: aml_token`.
pub(crate) const ISSUER: &str = "scoregate";
/// Environment variable that tells a replica which version of its files it runs.
const CONTENT: &str = "SCOREGATE_CONTENT";
/// Names under which secrets are handed to the checks; no environment is asked.
const PRIMARY: &str = "primary key";
const SECONDARY: &str = "secondary key";
const SIGNING: &str = "signing secret";

/// The settings of an endpoint with those of its deployments that have a recipe.
///
/// # Errors
/// A setting that breaks a rule, in the words of the configuration file.
pub(super) fn settings<'r>(
    name: &Name,
    endpoint: &DeclaredEndpoint,
    deployments: impl Iterator<Item = (&'r Name, &'r Document, &'r Recipe, u64)>,
) -> Result<Arc<EndpointSettings>, Refusal> {
    let deployments: Vec<(&Name, Value)> = deployments
        .map(|(name, document, recipe, content)| (name, deployment(name, document, recipe, content)))
        .collect();
    let has = |name: &str| deployments.iter().any(|(known, _)| known.as_str() == name);
    let mut file = Map::new();
    file.insert("name".to_owned(), json!(name.as_str()));
    for key in ["profile", "cors", "scoring_route", "server_timing"] {
        copy(&endpoint.document, key, &mut file);
    }
    authentication(name, &endpoint.document, &mut file);
    let traffic: Map<String, Value> = shares(endpoint)
        .filter(|(name, _)| has(name))
        .map(|(name, share)| (name.to_owned(), json!(share)))
        .collect();
    file.insert("traffic".to_owned(), Value::Object(traffic));
    if let Some(default) = endpoint.document.get("default").filter(|name| name.as_str().is_some_and(has)) {
        file.insert("default".to_owned(), default.clone());
    }
    file.insert("deployments".to_owned(), deployments.into_iter().map(|(_, value)| value).collect());
    let secrets = &endpoint.secrets;
    let secret = |name: &str| match name {
        PRIMARY => Some(secrets.primary.expose_secret().to_owned()),
        SECONDARY => Some(secrets.secondary.expose_secret().to_owned()),
        SIGNING => Some(secrets.signing.expose_secret().to_owned()),
        _ => None,
    };
    match config::endpoint(&Value::Object(file), &secret) {
        Ok((settings, _warnings)) => Ok(settings),
        Err(report) => {
            let lines: Vec<String> = report.errors().map(sentence).collect();
            Err(Refusal::invalid(lines.join("\n")))
        }
    }
}

fn sentence(error: &config::Diagnostic) -> String {
    match &error.help {
        Some(help) => format!("{}: {help}", error.message),
        None => error.message.clone(),
    }
}

fn copy(from: &Document, key: &str, to: &mut Map<String, Value>) {
    if let Some(value) = from.get(key) {
        to.insert(key.to_owned(), value.clone());
    }
}

/// `aml_token` means tokens of our own, unless the endpoint says whose it takes.
fn authentication(name: &Name, document: &Document, file: &mut Map<String, Value>) {
    let mode = document.get("auth_mode").and_then(Value::as_str).unwrap_or("key").to_ascii_lowercase();
    if matches!(mode.as_str(), "key" | "key_or_jwt") {
        let keys = json!({ "primary": format!("env:{PRIMARY}"), "secondary": format!("env:{SECONDARY}") });
        file.insert("keys".to_owned(), keys);
    }
    if let Some(jwt) = document.get("jwt") {
        file.insert("jwt".to_owned(), jwt.clone());
    } else if issues_tokens(document) {
        let rules = json!({
            "issuers": [ISSUER], "audiences": [name.as_str()], "leeway_s": 0,
            "keys": [{ "algorithm": "HS256", "secret": format!("env:{SIGNING}") }],
        });
        file.insert("jwt".to_owned(), rules);
    }
    file.insert("auth_mode".to_owned(), json!(mode));
}

/// Whether tokens for this endpoint are issued here.
pub(crate) fn issues_tokens(document: &Document) -> bool {
    let mode = document.get("auth_mode").and_then(Value::as_str).unwrap_or_default();
    mode.eq_ignore_ascii_case("aml_token") && !document.contains_key("jwt")
}

fn deployment(name: &Name, document: &Document, recipe: &Recipe, content: u64) -> Value {
    let mut file = Map::new();
    file.insert("name".to_owned(), json!(name.as_str()));
    for key in
        ["request_settings", "scale_settings", "liveness_probe", "readiness_probe", "forward_authorization"]
    {
        copy(document, key, &mut file);
    }
    if let Some(kind) = document.get("version_type") {
        file.insert("type".to_owned(), kind.clone());
    }
    // Azure's examples give a number to deployments that scale by load as well; there it has no meaning.
    let by_load = document.get("scale_settings").and_then(|scale| scale.get("type"))
        == Some(&json!("target_utilization"));
    if let Some(count) = document.get("instance_count").filter(|_| !by_load) {
        file.insert("instance_count".to_owned(), count.clone());
    } else if !by_load && matches!(recipe.source, Source::Process { .. }) {
        file.insert("instance_count".to_owned(), json!(1));
    }
    file.insert("inference_config".to_owned(), routes(recipe));
    match &recipe.source {
        Source::Replicas(urls) => _ = file.insert("replicas".to_owned(), json!(urls)),
        Source::Process { command, directory, environment } => {
            let mut process = match document.get("process") {
                Some(Value::Object(process)) => process.clone(),
                _ => Map::new(),
            };
            process.insert("command".to_owned(), json!(command));
            if let Some(directory) = directory {
                process.insert("directory".to_owned(), json!(directory));
            }
            file.insert("process".to_owned(), Value::Object(process));
            let mut environment = environment.clone();
            // Other files outdate replicas as another command does.
            environment.insert(CONTENT.to_owned(), format!("{content:016x}"));
            file.insert("environment_variables".to_owned(), json!(environment));
        }
    }
    Value::Object(file)
}

fn routes(recipe: &Recipe) -> Value {
    let routes = &recipe.routes;
    json!({
        "scoring_route": { "path": routes.scoring }, "swagger_route": { "path": routes.swagger },
        "liveness_route": { "path": routes.liveness }, "readiness_route": { "path": routes.readiness },
    })
}
