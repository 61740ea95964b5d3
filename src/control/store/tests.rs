//! Real files in a folder of each test's own; the power is cut and the disk is filled at every step.

mod crash;
mod files;
mod power;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Store;
use super::declared::items;
use super::layout::LOCK;
use crate::core::declared::{Declared, DeclaredEndpoint, Document, EndpointSecrets};
use crate::core::settings::Name;

/// In memory where the system has that: some tests make durable what they write thousands of times.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn document(value: Value) -> Document {
    let Value::Object(document) = value else { panic!("not an object: {value}") };
    document
}

fn secrets(tag: &str) -> EndpointSecrets {
    let secret = |kind: &str| format!("{kind}-key-of-{tag}").into();
    EndpointSecrets { primary: secret("primary"), secondary: secret("secondary"), signing: secret("signing") }
}

fn endpoint(text: &str, deployments: &[&str]) -> (Name, DeclaredEndpoint) {
    let deployment = |d: &&str| (name(d), document(json!({"name": d, "endpoint_name": text, "version": 1})));
    let declared = DeclaredEndpoint {
        document: document(json!({"name": text, "traffic": {}})),
        secrets: secrets(text),
        deployments: deployments.iter().map(deployment).collect(),
    };
    (name(text), declared)
}

/// Endpoint `orders` with blue and green, and `other` without a deployment.
fn sample() -> Declared {
    let endpoints = [endpoint("orders", &["blue", "green"]), endpoint("other", &[])];
    Declared { generation: 1, endpoints: endpoints.into_iter().collect() }
}

/// The next generation, with something changed.
fn changed(before: &Declared, change: impl FnOnce(&mut Declared)) -> Declared {
    let mut after = before.clone();
    after.generation += 1;
    change(&mut after);
    after
}

/// A folder that holds `declared`, which must be of generation 1.
fn holding(declared: &Declared) -> TempDir {
    let folder = folder();
    let (mut store, empty) = Store::open(folder.path()).unwrap();
    assert_eq!(empty, Declared::default());
    store.commit(&empty, declared).unwrap();
    folder
}

fn opened(folder: &Path) -> Declared {
    Store::open(folder).unwrap().1
}

/// Paths of all files, and of folders that are empty.
fn leaves(root: &Path) -> BTreeSet<String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let empty = || std::fs::read_dir(&path).unwrap().next().is_none();
            if path.is_dir() && !empty() {
                walk(root, &path, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

/// Nothing is in the folder but what is declared.
#[track_caller]
fn assert_tidy(root: &Path, declared: &Declared) {
    let mut expected: BTreeSet<String> = items(declared).keys().map(ToString::to_string).collect();
    expected.insert(LOCK.to_owned());
    if declared.generation == 0 {
        expected.remove("generation");
    }
    let mut found = leaves(root);
    // Of these two, an empty one may be left.
    for folder in ["endpoints", "secrets"] {
        found.remove(folder);
    }
    assert_eq!(found, expected);
}
