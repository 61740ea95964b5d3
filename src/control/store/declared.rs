//! What is declared, as the contents of files. What the documents mean is decided elsewhere; here they only have to
//! agree with the names they are kept under.

use std::collections::BTreeMap;

use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::layout::{Item, Secret};
use crate::core::declared::{Declared, Document, EndpointSecrets};

/// Length of a generated key, in characters: 190 bits.
const KEY_LENGTH: usize = 32;
/// Length of a generated signing key, in characters: 380 bits, more than HS256 can use.
const SIGNING_LENGTH: usize = 64;

/// Secrets for a new endpoint.
pub fn fresh_secrets() -> EndpointSecrets {
    EndpointSecrets { primary: new_key(), secondary: new_key(), signing: random(SIGNING_LENGTH) }
}

fn secrets_of(secrets: &EndpointSecrets) -> [(Secret, &str); 3] {
    [
        (Secret::Primary, secrets.primary.expose_secret()),
        (Secret::Secondary, secrets.secondary.expose_secret()),
        (Secret::Signing, secrets.signing.expose_secret()),
    ]
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

/// Every file that this is kept in.
pub(super) fn items(declared: &Declared) -> BTreeMap<Item, Content<'_>> {
    let mut items = BTreeMap::from([(Item::Generation, Content::Generation(declared.generation))]);
    for (name, endpoint) in &declared.endpoints {
        items.insert(Item::Endpoint(name.clone()), Content::Document(&endpoint.document));
        for (secret, text) in secrets_of(&endpoint.secrets) {
            items.insert(Item::Secret(name.clone(), secret), Content::Secret(text));
        }
        for (deployment, document) in &endpoint.deployments {
            let item = Item::Deployment(name.clone(), deployment.clone());
            items.insert(item, Content::Document(document));
        }
    }
    items
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
