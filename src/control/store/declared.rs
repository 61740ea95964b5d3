//! What is declared: endpoints, their deployments and their secrets, as data. What the documents mean is decided
//! elsewhere; here they only have to agree with the names they are kept under.

use std::collections::BTreeMap;
use std::fmt;

use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::layout::{Item, Secret};
use crate::core::settings::Name;

/// Length of a generated key, in characters: 190 bits.
const KEY_LENGTH: usize = 32;
/// Length of a generated signing key, in characters: 380 bits, more than HS256 can use.
const SIGNING_LENGTH: usize = 64;

/// An endpoint or a deployment as its owner wrote it.
pub type Document = serde_json::Map<String, Value>;

/// Everything that is declared, as of one generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// Grows by one with each commit.
    pub generation: u64,
    /// The endpoints by name.
    pub endpoints: BTreeMap<Name, DeclaredEndpoint>,
}

/// An endpoint with what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredEndpoint {
    /// Its document; traffic is in it, deployments are not.
    pub document: Document,
    /// Its keys.
    pub secrets: EndpointSecrets,
    /// The documents of its deployments by name.
    pub deployments: BTreeMap<Name, Document>,
}

/// The secrets of an endpoint; whatever its mode is, so that a change of mode needs no new ones.
#[derive(Clone)]
pub struct EndpointSecrets {
    /// The first key that clients may send.
    pub primary: SecretString,
    /// The second one.
    pub secondary: SecretString,
    /// What the endpoint's tokens are signed with.
    pub signing: SecretString,
}

impl EndpointSecrets {
    /// New ones for a new endpoint.
    pub fn generate() -> Self {
        Self { primary: new_key(), secondary: new_key(), signing: random(SIGNING_LENGTH) }
    }

    fn all(&self) -> [(Secret, &str); 3] {
        [
            (Secret::Primary, self.primary.expose_secret()),
            (Secret::Secondary, self.secondary.expose_secret()),
            (Secret::Signing, self.signing.expose_secret()),
        ]
    }
}

impl PartialEq for EndpointSecrets {
    fn eq(&self, other: &Self) -> bool {
        self.all() == other.all()
    }
}

impl fmt::Debug for EndpointSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointSecrets")
    }
}

/// A new key that clients can send in a header.
pub fn new_key() -> SecretString {
    random(KEY_LENGTH)
}

fn random(length: usize) -> SecretString {
    let mut rng = rand::rng();
    let text: String = (0..length).map(|_| char::from(rng.sample(rand::distr::Alphanumeric))).collect();
    text.into()
}

/// What one file holds.
#[derive(PartialEq)]
pub(super) enum Content<'a> {
    Document(&'a Document),
    Generation(u64),
    Secret(&'a str),
}

impl Declared {
    /// Every file that this is kept in.
    pub(super) fn items(&self) -> BTreeMap<Item, Content<'_>> {
        let mut items = BTreeMap::from([(Item::Generation, Content::Generation(self.generation))]);
        for (name, endpoint) in &self.endpoints {
            items.insert(Item::Endpoint(name.clone()), Content::Document(&endpoint.document));
            for (secret, text) in endpoint.secrets.all() {
                items.insert(Item::Secret(name.clone(), secret), Content::Secret(text));
            }
            for (deployment, document) in &endpoint.deployments {
                let item = Item::Deployment(name.clone(), deployment.clone());
                items.insert(item, Content::Document(document));
            }
        }
        items
    }
}

/// Whether a document says of itself what its place says of it.
///
/// # Errors
/// What it should say.
pub(super) fn agrees(item: &Item, document: &Document) -> Result<(), String> {
    let expected = match item {
        Item::Endpoint(endpoint) => vec![("name", endpoint)],
        Item::Deployment(endpoint, deployment) => vec![("name", deployment), ("endpoint_name", endpoint)],
        Item::Generation | Item::Secret(..) => Vec::new(),
    };
    for (key, name) in expected {
        let says = document.get(key).filter(|value| !value.is_null());
        if says.is_some_and(|value| value.as_str() != Some(name.as_str())) {
            return Err(format!("`{key}` must be `{name}`, as the path says"));
        }
    }
    Ok(())
}
