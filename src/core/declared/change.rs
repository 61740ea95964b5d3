//! Changes of what is declared, and what each must keep.

use secrecy::SecretString;
use serde_json::Value;

use super::document::{Kind, merge};
use super::refusal::{Code, Refusal};
use super::{Declared, DeclaredEndpoint, Document, EndpointSecrets, Facts, PENDING, traffic, unmark};
use crate::core::settings::Name;

/// Most deployments of an endpoint: six versions in v1, twenty in v2 (reference §10).
const MOST_V1: usize = 6;
const MOST_V2: usize = 20;
/// Longest names of an endpoint and a deployment together (reference §10).
const LONGEST_NAMES: usize = 62;
/// Length of a key that is accepted: at least as in the configuration file, at most what any header carries.
pub const KEY_LENGTH: std::ops::RangeInclusive<usize> = 16..=256;
/// Keys of an endpoint's document that have a change of their own. A replacement that does not mention them leaves them as they
/// are: nobody loses traffic by sending a new description.
const APART: [&str; 3] = ["default", "mirror_traffic", "traffic"];

/// One change. Names are compared without case.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new endpoint, without deployments and traffic. `keys` in the document become its keys.
    CreateEndpoint {
        /// The endpoint.
        document: Document,
    },
    /// Another document for an endpoint.
    ReplaceEndpoint {
        /// Which.
        endpoint: String,
        /// The endpoint.
        document: Document,
    },
    /// A merge patch for an endpoint.
    PatchEndpoint {
        /// Which.
        endpoint: String,
        /// RFC 7396.
        patch: Document,
    },
    /// The end of an endpoint with all its deployments.
    DeleteEndpoint {
        /// Which.
        endpoint: String,
    },
    /// The whole of `traffic` or `mirror_traffic`.
    SetShares {
        /// Of which endpoint.
        endpoint: String,
        /// `traffic` or `mirror_traffic`.
        key: &'static str,
        /// Deployment → percent.
        shares: Document,
    },
    /// A new deployment, without traffic.
    CreateDeployment {
        /// Of which endpoint.
        endpoint: String,
        /// The deployment.
        document: Document,
    },
    /// Another document for a deployment.
    ReplaceDeployment {
        /// Of which endpoint.
        endpoint: String,
        /// Which.
        deployment: String,
        /// The deployment.
        document: Document,
    },
    /// A merge patch for a deployment.
    PatchDeployment {
        /// Of which endpoint.
        endpoint: String,
        /// Which.
        deployment: String,
        /// RFC 7396.
        patch: Document,
    },
    /// The end of a deployment.
    DeleteDeployment {
        /// Of which endpoint.
        endpoint: String,
        /// Which.
        deployment: String,
    },
    /// The documents of these deployments have proven themselves.
    Proven {
        /// Of which endpoint.
        endpoint: String,
        /// Which of them; those that are gone are left out.
        deployments: Vec<String>,
    },
    /// What is kept to follow is not to follow any more, or has followed.
    Forget {
        /// Of which endpoint.
        endpoint: String,
    },
    /// Another key.
    SetKey {
        /// Of which endpoint.
        endpoint: String,
        /// Which of the two.
        which: WhichKey,
        /// The key.
        key: SecretString,
    },
}

/// One of an endpoint's two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichKey {
    /// The first.
    Primary,
    /// The second.
    Secondary,
}

/// Makes all of the changes, or none. `fresh` are the secrets of an endpoint that is created and brings none.
///
/// # Errors
/// The rule that a change breaks.
pub fn apply(
    declared: &Declared,
    changes: &[Change],
    facts: &Facts,
    fresh: &EndpointSecrets,
) -> Result<Declared, Refusal> {
    let mut next = declared.clone();
    for change in changes {
        one(&mut next, change, facts, fresh)?;
    }
    next.generation = declared.generation + 1;
    Ok(next)
}

fn one(
    declared: &mut Declared,
    change: &Change,
    facts: &Facts,
    fresh: &EndpointSecrets,
) -> Result<(), Refusal> {
    match change {
        Change::CreateEndpoint { document } => create_endpoint(declared, document, facts, fresh),
        Change::ReplaceEndpoint { endpoint, document } => {
            change_endpoint(declared, endpoint, facts, |present| {
                let mut document = document.clone();
                for key in APART {
                    if let (false, Some(kept)) = (document.contains_key(key), present.get(key)) {
                        document.insert(key.to_owned(), kept.clone());
                    }
                }
                document
            })
        }
        Change::PatchEndpoint { endpoint, patch } => change_endpoint(declared, endpoint, facts, |present| {
            let mut document = present.clone();
            merge(&mut document, patch);
            document
        }),
        Change::SetShares { endpoint, key, shares } => {
            change_endpoint(declared, endpoint, facts, |present| {
                let mut document = present.clone();
                document.insert((*key).to_owned(), Value::Object(shares.clone()));
                document
            })
        }
        Change::DeleteEndpoint { endpoint } => {
            let name = find(declared, endpoint, facts)?;
            declared.endpoints.remove(&name);
            Ok(())
        }
        Change::CreateDeployment { endpoint, document } => {
            create_deployment(declared, endpoint, document, facts)
        }
        Change::ReplaceDeployment { endpoint, deployment, document } => {
            change_deployment(declared, endpoint, deployment, facts, |_| document.clone())
        }
        Change::PatchDeployment { endpoint, deployment, patch } => {
            change_deployment(declared, endpoint, deployment, facts, |present| {
                let mut document = present.clone();
                merge(&mut document, patch);
                document
            })
        }
        Change::DeleteDeployment { endpoint, deployment } => {
            delete_deployment(declared, endpoint, deployment, facts)
        }
        Change::Proven { endpoint, deployments } => {
            let endpoint = endpoint_mut(declared, endpoint, facts)?.1;
            for name in deployments {
                if let Some(name) = endpoint.deployment(name).map(|(name, _)| name.clone()) {
                    endpoint.deployments.entry(name).and_modify(unmark);
                }
            }
            Ok(())
        }
        Change::Forget { endpoint } => {
            endpoint_mut(declared, endpoint, facts)?.1.document.remove(PENDING);
            Ok(())
        }
        Change::SetKey { endpoint, which, key } => {
            let endpoint = endpoint_mut(declared, endpoint, facts)?.1;
            match which {
                WhichKey::Primary => endpoint.secrets.primary = key.clone(),
                WhichKey::Secondary => endpoint.secrets.secondary = key.clone(),
            }
            Ok(())
        }
    }
}

/// The declared name of an endpoint that may be changed here.
fn find(declared: &Declared, name: &str, facts: &Facts) -> Result<Name, Refusal> {
    if let Some((name, _)) = declared.endpoint(name) {
        return Ok(name.clone());
    }
    Err(match facts.foreign.contains(&name.to_ascii_lowercase()) {
        true => owned_by_file(name),
        false => Refusal::no_endpoint(name),
    })
}

fn owned_by_file(name: &str) -> Refusal {
    let message = format!("endpoint `{name}` stands in the configuration file; change it there");
    Refusal::new(Code::OwnedByFile, message)
}

fn endpoint_mut<'d>(
    declared: &'d mut Declared,
    name: &str,
    facts: &Facts,
) -> Result<(Name, &'d mut DeclaredEndpoint), Refusal> {
    let name = find(declared, name, facts)?;
    let endpoint = declared.endpoints.get_mut(&name).expect("it was found");
    Ok((name, endpoint))
}

fn create_endpoint(
    declared: &mut Declared,
    document: &Document,
    facts: &Facts,
    fresh: &EndpointSecrets,
) -> Result<(), Refusal> {
    let mut document = Kind::Endpoint.check(document)?;
    let name = Kind::Endpoint.name(&document)?;
    if facts.foreign.contains(&name.as_str().to_ascii_lowercase()) {
        return Err(owned_by_file(name.as_str()));
    }
    if declared.endpoint(name.as_str()).is_some() {
        let message = format!("endpoint `{name}` exists already; update it, or choose another name");
        return Err(Refusal::new(Code::AlreadyExists, message));
    }
    let secrets = own_keys(&mut document, fresh)?;
    for key in APART {
        let is_empty = document.get(key).and_then(Value::as_object).is_some_and(Document::is_empty);
        if is_empty {
            document.remove(key);
        } else if document.contains_key(key) {
            return Err(Refusal::invalid(format!(
                "`{key}` cannot be set when an endpoint is created, because it has no deployments yet; create one first"
            )));
        }
    }
    document.insert("name".to_owned(), Value::String(name.to_string()));
    let endpoint = DeclaredEndpoint { document, secrets, deployments: std::collections::BTreeMap::new() };
    declared.endpoints.insert(name, endpoint);
    Ok(())
}

/// Takes the keys out of a document.
fn own_keys(document: &mut Document, fresh: &EndpointSecrets) -> Result<EndpointSecrets, Refusal> {
    let mut secrets = fresh.clone();
    let Some(Value::Object(keys)) = document.remove("keys") else { return Ok(secrets) };
    for (key, value) in &keys {
        let text = value.as_str().unwrap_or_default();
        if !KEY_LENGTH.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let (shortest, longest) = (KEY_LENGTH.start(), KEY_LENGTH.end());
            let message = format!("`keys.{key}` must have {shortest} to {longest} visible ASCII characters");
            return Err(Refusal::invalid(message));
        }
        let text: SecretString = text.into();
        match key.as_str() {
            "primary" | "primaryKey" => secrets.primary = text,
            "secondary" | "secondaryKey" => secrets.secondary = text,
            _ => return Err(Refusal::invalid("`keys` has `primary` and `secondary`, nothing else")),
        }
    }
    Ok(secrets)
}

fn change_endpoint(
    declared: &mut Declared,
    name: &str,
    facts: &Facts,
    next: impl FnOnce(&Document) -> Document,
) -> Result<(), Refusal> {
    let (name, endpoint) = endpoint_mut(declared, name, facts)?;
    let mut document = Kind::Endpoint.check(&next(&endpoint.document))?;
    same_name(Kind::Endpoint, &mut document, &name)?;
    if document.remove("keys").is_some() {
        return Err(Refusal::invalid("`keys` are changed by regenerating them, not with the document"));
    }
    if let Some(pending) = endpoint.document.get(PENDING) {
        document.insert(PENDING.to_owned(), pending.clone());
    }
    let before = endpoint.is_v1();
    let present = std::mem::replace(&mut endpoint.document, document);
    if endpoint.is_v1() != before && !endpoint.deployments.is_empty() {
        return Err(Refusal::invalid(
            "`profile` cannot change to or from `aks-v1` once there are deployments",
        ));
    }
    if endpoint.is_v1() && !endpoint.deployments.is_empty() && !endpoint.document.contains_key("default") {
        return Err(Refusal::invalid(
            "`default` cannot be removed: under `aks-v1` it takes what is not allotted",
        ));
    }
    traffic::settle(endpoint, &present)
}

/// A document may leave its name out, but not change it.
fn same_name(kind: Kind, document: &mut Document, name: &Name) -> Result<(), Refusal> {
    if document.contains_key("name") {
        let given = kind.name(document)?;
        if !given.as_str().eq_ignore_ascii_case(name.as_str()) {
            return Err(Refusal::invalid(format!(
                "the document is for {} `{given}`, not `{name}`; names cannot change",
                kind.word()
            )));
        }
    }
    document.insert("name".to_owned(), Value::String(name.to_string()));
    Ok(())
}

fn create_deployment(
    declared: &mut Declared,
    endpoint: &str,
    document: &Document,
    facts: &Facts,
) -> Result<(), Refusal> {
    let (owner, endpoint) = endpoint_mut(declared, endpoint, facts)?;
    let mut document = Kind::Deployment.check(document)?;
    let name = Kind::Deployment.name(&document)?;
    if endpoint.deployment(name.as_str()).is_some() {
        let message = format!(
            "endpoint `{owner}` has a deployment `{name}` already; update it, or choose another name"
        );
        return Err(Refusal::new(Code::AlreadyExists, message));
    }
    let most = if endpoint.is_v1() { MOST_V1 } else { MOST_V2 };
    if endpoint.deployments.len() >= most {
        return Err(Refusal::invalid(format!(
            "endpoint `{owner}` has {most} deployments, and no more are allowed"
        )));
    }
    let together = owner.as_str().len() + name.as_str().len();
    if together > LONGEST_NAMES {
        return Err(Refusal::invalid(format!(
            "the names of endpoint and deployment have {together} characters together; at most {LONGEST_NAMES} are allowed"
        )));
    }
    document.insert("name".to_owned(), Value::String(name.to_string()));
    if endpoint.is_v1() && endpoint.deployments.is_empty() {
        endpoint.document.insert("default".to_owned(), Value::String(name.to_string()));
    }
    endpoint.deployments.insert(name.clone(), document);
    one_control(endpoint, &name);
    Ok(())
}

fn change_deployment(
    declared: &mut Declared,
    endpoint: &str,
    deployment: &str,
    facts: &Facts,
    next: impl FnOnce(&Document) -> Document,
) -> Result<(), Refusal> {
    let (owner, endpoint) = endpoint_mut(declared, endpoint, facts)?;
    let name = deployment_of(&owner, endpoint, deployment)?;
    let mut document = Kind::Deployment.check(&next(&endpoint.deployments[&name]))?;
    same_name(Kind::Deployment, &mut document, &name)?;
    endpoint.deployments.insert(name.clone(), document);
    one_control(endpoint, &name);
    Ok(())
}

fn deployment_of(owner: &Name, endpoint: &DeclaredEndpoint, name: &str) -> Result<Name, Refusal> {
    let found = endpoint.deployment(name).map(|(name, _)| name.clone());
    found.ok_or_else(|| {
        let known: Vec<&str> = endpoint.deployments.keys().map(Name::as_str).collect();
        Refusal::no_deployment(owner.as_str(), name, &known)
    })
}

/// v1: making one version the control makes the others treatments (reference §1.5).
fn one_control(endpoint: &mut DeclaredEndpoint, name: &Name) {
    let is_control =
        |document: &Document| document.get("version_type").and_then(Value::as_str) == Some("control");
    if !endpoint.deployments.get(name).is_some_and(is_control) {
        return;
    }
    for (_, document) in endpoint.deployments.iter_mut().filter(|(other, _)| *other != name) {
        if is_control(document) {
            document.insert("version_type".to_owned(), Value::String("treatment".to_owned()));
        }
    }
}

fn delete_deployment(
    declared: &mut Declared,
    endpoint: &str,
    deployment: &str,
    facts: &Facts,
) -> Result<(), Refusal> {
    let (owner, endpoint) = endpoint_mut(declared, endpoint, facts)?;
    let name = deployment_of(&owner, endpoint, deployment)?;
    if let Some((_, share)) = traffic::shares(endpoint).find(|(holder, _)| *holder == name.as_str()) {
        let message =
            format!("deployment `{name}` holds {share} % of the traffic; give its traffic to others first");
        return Err(Refusal::new(Code::DeploymentHasTraffic, message));
    }
    let is_default = endpoint.document.get("default").and_then(Value::as_str) == Some(name.as_str());
    if is_default && endpoint.deployments.len() > 1 {
        let message = format!(
            "deployment `{name}` is the default, which takes all traffic that is not allotted; make another one the default first"
        );
        return Err(Refusal::new(Code::DeploymentIsDefault, message));
    }
    if is_default {
        endpoint.document.remove("default");
    }
    if let Some(Value::Object(mirrored)) = endpoint.document.get_mut("mirror_traffic") {
        mirrored.remove(name.as_str());
    }
    endpoint.deployments.remove(&name);
    Ok(())
}
