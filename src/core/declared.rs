//! What users declare through the admin API: endpoints and deployments as documents with the keys of Azure's v2 YAML, and
//! the rules that every change of them must keep.
//!
//! Pure: a change makes a new whole or is refused, and says why. What a document means for a running replica is not known
//! here; how it is kept on disk is not either.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::core::settings::Name;

mod change;
mod document;
mod pending;
mod proof;
mod refusal;
#[cfg(test)]
mod tests;
mod traffic;

pub use change::{Change, KEY_LENGTH, WhichKey, apply};
pub use document::{Kind, PENDING, PROVISIONING, READ_ONLY, merge, version_of};
pub use pending::Pending;
pub use proof::{bare, is_marked, is_unproven, mark, proven, unmark};
pub use refusal::{Code, Refusal};
pub use traffic::shares;

/// An endpoint or a deployment as its owner wrote it, without what only the router can know.
pub type Document = Map<String, Value>;

/// Everything that is declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// Grows by one with each change.
    pub generation: u64,
    /// By name.
    pub endpoints: BTreeMap<Name, DeclaredEndpoint>,
}

/// An endpoint with its deployments and secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredEndpoint {
    /// As its owner wrote it; `traffic` and `default` included.
    pub document: Document,
    /// Keys and what signs tokens.
    pub secrets: EndpointSecrets,
    /// By name.
    pub deployments: BTreeMap<Name, Document>,
}

/// Secrets of an endpoint; printing them shows nothing.
#[derive(Clone)]
pub struct EndpointSecrets {
    /// The first key.
    pub primary: SecretString,
    /// The second key.
    pub secondary: SecretString,
    /// Signs the tokens of `auth_mode: aml_token` (HMAC).
    pub signing: SecretString,
}

impl PartialEq for EndpointSecrets {
    fn eq(&self, other: &Self) -> bool {
        let texts = |secrets: &Self| {
            [&secrets.primary, &secrets.secondary, &secrets.signing].map(|s| s.expose_secret().to_owned())
        };
        texts(self) == texts(other)
    }
}

impl fmt::Debug for EndpointSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointSecrets(..)")
    }
}

/// What a change may need to know besides the documents.
#[derive(Debug, Default)]
pub struct Facts {
    /// Endpoints that somebody else declares, in lower case.
    pub foreign: BTreeSet<String>,
}

impl Declared {
    /// Checks documents that people may have edited: keys and types.
    ///
    /// # Errors
    /// Where the first mistake is, and what it is.
    pub fn check(&self) -> Result<(), Refusal> {
        for (name, endpoint) in &self.endpoints {
            let at = |place: String| move |refusal: Refusal| Refusal::invalid(format!("{place}: {refusal}"));
            Kind::Endpoint.check(&endpoint.document).map_err(at(format!("endpoint `{name}`")))?;
            for (deployment, document) in &endpoint.deployments {
                let place = format!("deployment `{deployment}` of endpoint `{name}`");
                Kind::Deployment.check(document).map_err(at(place))?;
            }
        }
        Ok(())
    }

    /// An endpoint, whatever the case of its name.
    pub fn endpoint(&self, name: &str) -> Option<(&Name, &DeclaredEndpoint)> {
        self.endpoints.iter().find(|(known, _)| known.as_str().eq_ignore_ascii_case(name))
    }
}

impl DeclaredEndpoint {
    /// A deployment, whatever the case of its name.
    pub fn deployment(&self, name: &str) -> Option<(&Name, &Document)> {
        self.deployments.iter().find(|(known, _)| known.as_str().eq_ignore_ascii_case(name))
    }

    /// Whether v1's rules hold: percentages with a remainder, a default version, six versions.
    pub fn is_v1(&self) -> bool {
        self.document.get("profile").and_then(Value::as_str) == Some("aks-v1")
    }
}
