//! The shape of documents: which keys there are, of which type, and how two documents are merged. What the values of
//! settings mean is checked where they are put to work.

use serde_json::Value;

use super::{Document, Refusal, bare};
use crate::core::settings::Name;
use crate::core::suggest;

/// What a document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An endpoint.
    Endpoint,
    /// A deployment.
    Deployment,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bool,
    Integer,
    List,
    Map,
    /// A map of texts.
    Texts,
    Text,
    /// A text or a map: `azureml:NAME:VERSION`, or the thing itself.
    TextOrMap,
}

/// Key of an endpoint's document under which the router keeps what is to follow once deployments are ready: so that it
/// follows also after a restart.
pub const PENDING: &str = "pending";

/// Key of a deployment's document under which the router marks that it has not been ready yet.
pub const PROVISIONING: &str = "provisioning";

/// Keys that the router answers with and ignores in what it is sent.
pub const READ_ONLY: [&str; 17] = [
    "$schema",
    "deployments",
    "endpoint_name",
    "error",
    "etag",
    "id",
    "kind",
    "no_effect",
    "openapi_uri",
    "operation",
    "owner",
    PENDING,
    PROVISIONING,
    "provisioning_state",
    "replica_status",
    "replicas_ready",
    "scoring_uri",
];

const ENDPOINT: [(&str, Form); 18] = [
    ("auth_mode", Form::Text),
    ("compute", Form::Text),
    ("cors", Form::Map),
    ("default", Form::Text),
    ("description", Form::Text),
    ("identity", Form::Map),
    ("jwt", Form::Map),
    ("keys", Form::Texts),
    ("location", Form::Text),
    ("mirror_traffic", Form::Map),
    ("name", Form::Text),
    ("profile", Form::Text),
    ("properties", Form::Map),
    ("public_network_access", Form::Text),
    ("scoring_route", Form::Text),
    ("server_timing", Form::Bool),
    ("tags", Form::Map),
    ("traffic", Form::Map),
];

const DEPLOYMENT: [(&str, Form); 28] = [
    ("app_insights_enabled", Form::Bool),
    ("code_configuration", Form::Map),
    ("data_collector", Form::Map),
    ("description", Form::Text),
    ("egress_public_network_access", Form::Text),
    ("environment", Form::TextOrMap),
    ("environment_variables", Form::Texts),
    ("forward_authorization", Form::Bool),
    ("inference_config", Form::Map),
    ("instance_count", Form::Integer),
    ("instance_type", Form::Text),
    ("liveness_probe", Form::Map),
    ("location", Form::Text),
    ("model", Form::TextOrMap),
    ("model_mount_path", Form::Text),
    ("name", Form::Text),
    ("private_network_connection", Form::Bool),
    ("process", Form::Map),
    ("properties", Form::Map),
    ("readiness_probe", Form::Map),
    ("replicas", Form::List),
    ("request_settings", Form::Map),
    ("resources", Form::Map),
    ("scale_settings", Form::Map),
    ("startup_probe", Form::Map),
    ("tags", Form::Map),
    ("type", Form::Text),
    ("version_type", Form::Text),
];

/// Keys of blocks whose values mean something; those of other blocks are kept as they are.
const BLOCKS: [(&str, &[&str]); 4] = [
    ("code_configuration", &["code", "scoring_script"]),
    (
        "environment",
        &[
            "$schema",
            "build",
            "conda_file",
            "creation_context",
            "datastore",
            "description",
            "id",
            "image",
            "inference_config",
            "name",
            "os_type",
            "path",
            "properties",
            "tags",
            "version",
        ],
    ),
    ("inference_config", &["liveness_route", "readiness_route", "scoring_route", "swagger_route"]),
    (
        "model",
        &[
            "$schema",
            "creation_context",
            "datastore",
            "description",
            "flavors",
            "id",
            "local_path",
            "name",
            "path",
            "properties",
            "stage",
            "tags",
            "type",
            "utc_time_created",
            "version",
        ],
    ),
];

/// Refuses unknown keys of a block.
fn check_block(place: &str, value: &Value) -> Result<(), Refusal> {
    let name = place.rsplit('.').next().unwrap_or(place);
    let (Some((_, known)), Value::Object(block)) = (BLOCKS.iter().find(|(block, _)| *block == name), value)
    else {
        return Ok(());
    };
    for (key, inner) in block {
        if !known.contains(&key.as_str()) {
            let near = suggest::nearest(key, known).map(|near| format!("did you mean `{near}`? "));
            let (short, near) = (key.chars().take(64).collect::<String>(), near.unwrap_or_default());
            return Err(Refusal::invalid(format!(
                "`{place}` has no key `{short}`; {near}it may have {}",
                suggest::list(known)
            )));
        }
        check_block(&format!("{place}.{key}"), inner)?;
    }
    Ok(())
}

impl Form {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Bool => value.is_boolean(),
            Self::Integer => value.is_u64(),
            Self::List => value.is_array(),
            Self::Map => value.is_object(),
            Self::Texts => value.as_object().is_some_and(|map| map.values().all(is_scalar)),
            Self::Text => value.is_string(),
            Self::TextOrMap => value.is_string() || value.is_object(),
        }
    }

    fn must_be(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Integer => "a whole number, 0 or more",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Texts => "a map of texts",
            Self::Text => "a text",
            Self::TextOrMap => "a text or a map",
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    value.is_string() || value.is_number() || value.is_boolean()
}

impl Kind {
    fn keys(self) -> &'static [(&'static str, Form)] {
        match self {
            Self::Endpoint => &ENDPOINT,
            Self::Deployment => &DEPLOYMENT,
        }
    }

    /// As it is called in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Deployment => "deployment",
        }
    }

    fn an(self) -> &'static str {
        match self {
            Self::Endpoint => "an endpoint",
            Self::Deployment => "a deployment",
        }
    }

    /// Takes a document that was sent: leaves out what is read-only or null, and checks keys and types.
    pub(super) fn check(self, document: &Document) -> Result<Document, Refusal> {
        let mut kept = Document::new();
        for (key, value) in document {
            if READ_ONLY.contains(&key.as_str()) || value.is_null() {
                continue;
            }
            let Some((_, form)) = self.keys().iter().find(|(known, _)| known == key) else {
                return Err(Refusal::invalid(self.unknown(key)));
            };
            if !form.fits(value) {
                let message = format!("`{key}` of the {} must be {}", self.word(), form.must_be());
                return Err(Refusal::invalid(message));
            }
            check_block(key, value)?;
            kept.insert(key.clone(), texts(*form, value));
        }
        Ok(kept)
    }

    fn unknown(self, key: &str) -> String {
        let known: Vec<&str> = self.keys().iter().map(|(key, _)| *key).collect();
        let other = if self == Self::Endpoint { Self::Deployment } else { Self::Endpoint };
        let help = if other.keys().iter().any(|(known, _)| *known == key) {
            format!("it belongs to {}", other.an())
        } else if let Some(near) = suggest::nearest(key, &known) {
            format!("did you mean `{near}`?")
        } else {
            format!("it may have {}", suggest::list(&known))
        };
        let short: String = key.chars().take(64).collect();
        format!("the {} has no key `{short}`; {help}", self.word())
    }

    /// The name that a document gives.
    pub(super) fn name(self, document: &Document) -> Result<Name, Refusal> {
        let Some(name) = document.get("name").and_then(Value::as_str) else {
            return Err(Refusal::invalid(format!("the {} needs a `name`", self.word())));
        };
        Name::parse(name).map_err(|reason| {
            let short: String = name.chars().take(64).collect();
            Refusal::invalid(format!("`{short}` is not a name of a {}: it {reason}", self.word()))
        })
    }
}

/// Environment variables are texts; YAML writes many of them as numbers.
fn texts(form: Form, value: &Value) -> Value {
    match (form, value) {
        (Form::Texts, Value::Object(map)) => map
            .iter()
            .map(|(key, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (key.clone(), Value::String(text))
            })
            .collect(),
        _ => value.clone(),
    }
}

/// JSON merge patch (RFC 7396): null removes, maps are merged, all else replaces; 0, false and "" are values.
pub fn merge(document: &mut Document, patch: &Document) {
    for (key, change) in patch {
        match change {
            Value::Null => _ = document.remove(key),
            Value::Object(inner) => {
                let present = document.entry(key.clone()).or_insert_with(|| Value::Object(Document::new()));
                if !present.is_object() {
                    *present = Value::Object(Document::new());
                }
                if let Value::Object(present) = present {
                    merge(present, inner);
                }
            }
            value => _ = document.insert(key.clone(), value.clone()),
        }
    }
}

/// A number that is another one whenever the document is: what an ETag is made of (FNV-1a, 64 bit).
pub fn version_of(document: &Document) -> u64 {
    let text = serde_json::to_string(&bare(document)).unwrap_or_default();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
