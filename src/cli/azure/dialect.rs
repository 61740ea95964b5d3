//! The three ways in which Azure's users write endpoints and deployments, made into the documents of the admin API: today's
//! YAML, the monolithic YAML of 2021 (`y2021`), and v1's JSON (`v1`).

pub(super) mod v1;
pub(super) mod y2021;

use std::path::{Component, Path, PathBuf};

use anyhow::bail;
use serde_json::Value;

use super::document::{Document, texts};
use crate::core::suggest;

/// An endpoint of today's YAML.
pub(super) fn endpoint_today(mut endpoint: Document) -> Document {
    endpoint.remove("$schema");
    texts(&mut endpoint);
    endpoint
}

/// A deployment of today's YAML: its paths are made absolute, and the words of late 2021 that mean the same are taken too.
pub(super) fn today(mut deployment: Document, base: &Path) -> Document {
    deployment.remove("$schema");
    modernise(&mut deployment);
    absolute(&mut deployment, base);
    texts(&mut deployment);
    deployment
}

/// Words that were renamed when the command became `online-deployment`.
fn modernise(deployment: &mut Document) {
    if let Some(code) = deployment.get_mut("code_configuration").and_then(|code| code.get_mut("code"))
        && let Some(path) = code.get("local_path")
    {
        *code = path.clone();
    }
    if let Some(model) = deployment.get_mut("model").and_then(Value::as_object_mut)
        && let Some(path) = model.remove("local_path")
    {
        model.entry("path").or_insert(path);
    }
    if let Some(environment) = deployment.get_mut("environment").and_then(Value::as_object_mut) {
        // "path: ." was written everywhere and said only where the other paths start.
        environment.remove("path");
        if let Some(docker) = environment.remove("docker") {
            for key in ["image", "build"] {
                if let Some(value) = docker.get(key) {
                    environment.entry(key).or_insert_with(|| value.clone());
                }
            }
        }
    }
}

/// Paths that are relative to the file become absolute. References to what is registered stay as they are.
fn absolute(deployment: &mut Document, base: &Path) {
    if let Some(Value::String(model)) = deployment.get("model")
        && is_path(model)
    {
        let path = located(model, base);
        deployment.insert("model".into(), serde_json::json!({ "path": path }));
    }
    for keys in [
        &["model", "path"][..],
        &["code_configuration", "code"],
        &["environment", "conda_file"],
        &["environment", "build", "path"],
        &["process", "directory"],
    ] {
        let found = keys[1..]
            .iter()
            .try_fold(deployment.get_mut(keys[0]), |value, key| value.map(|value| value.get_mut(*key)));
        if let Some(Some(Value::String(text))) = found
            && is_path(text)
        {
            *text = located(text, base);
        }
    }
}

fn is_path(text: &str) -> bool {
    !text.starts_with("azureml:")
        && !text.contains("://")
        && !text.starts_with("/subscriptions/")
        && !text.is_empty()
}

/// The absolute path, without `.` and `..` where that names the same place.
pub(super) fn located(text: &str, base: &Path) -> String {
    let joined = base.join(text.strip_prefix("file:").unwrap_or(text));
    let mut tidy = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(tidy.pop()),
            part => tidy.push(part),
        }
    }
    // With a link in between, ".." leads elsewhere.
    let is_same = tidy.canonicalize().ok() == joined.canonicalize().ok();
    (if is_same { tidy } else { joined }).to_string_lossy().into_owned()
}

/// Refuses words that a dialect does not have.
fn only(document: &Document, place: &str, known: &[&str]) -> anyhow::Result<()> {
    let Some(key) = document.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let place = if place.is_empty() { String::new() } else { format!(" in {place}") };
    match suggest::nearest(key, known) {
        Some(near) => bail!("unknown key `{key}`{place}; did you mean `{near}`?"),
        None => bail!("unknown key `{key}`{place}; allowed here are {}", suggest::list(known)),
    }
}

/// A block, checked; an empty one where it is absent.
fn block(document: &mut Document, key: &str, place: &str, known: &[&str]) -> anyhow::Result<Document> {
    match document.remove(key) {
        None | Some(Value::Null) => Ok(Document::new()),
        Some(Value::Object(block)) => {
            let place = if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
            only(&block, &place, known)?;
            Ok(block)
        }
        Some(_) => bail!("`{key}` must be a map of keys and values"),
    }
}

/// Moves what is there under a new name.
fn rename(from: &mut Document, names: &[(&str, &str)], into: &mut Document) {
    for (old, new) in names {
        if let Some(value) = from.remove(*old).filter(|value| !value.is_null()) {
            into.insert((*new).to_owned(), value);
        }
    }
}

/// A block that is there only if it holds something.
fn insert_filled(document: &mut Document, key: &str, block: Document) {
    if !block.is_empty() {
        document.insert(key.to_owned(), Value::Object(block));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn document(value: Value) -> Document {
        let Value::Object(document) = value else { panic!("{value} is no map") };
        document
    }

    #[test]
    fn paths_start_from_the_file_and_references_stay() {
        let file = document(json!({
            "name": "blue", "model": {"path": "../../model-1/model/"},
            "code_configuration": {"code": "../../model-1/onlinescoring/", "scoring_script": "score.py"},
            "environment": {"conda_file": "../../model-1/environment/conda.yaml", "image": "mcr/x:latest", "build": {"path": "./b"}},
            "process": {"directory": "."},
        }));
        let made = today(file, Path::new("/nowhere/managed/sample"));
        let expected = json!({
            "name": "blue", "model": {"path": "/nowhere/model-1/model"},
            "code_configuration": {"code": "/nowhere/model-1/onlinescoring", "scoring_script": "score.py"},
            "environment": {"conda_file": "/nowhere/model-1/environment/conda.yaml", "image": "mcr/x:latest",
                "build": {"path": "/nowhere/managed/sample/b"}},
            "process": {"directory": "/nowhere/managed/sample"},
        });
        assert_eq!(Value::Object(made), expected);
        let references = json!({
            "model": "azureml:m:1", "environment": "azureml:e@latest",
            "code_configuration": {"code": "azureml:c:1", "scoring_script": "s.py"},
        });
        assert_eq!(Value::Object(today(document(references.clone()), Path::new("/x"))), references);
        let inline = json!({"environment": {"conda_file": {"dependencies": ["python=3.11"]}}});
        assert_eq!(Value::Object(today(document(inline.clone()), Path::new("/x"))), inline);
        assert_eq!(today(document(json!({"model": "m.pkl"})), Path::new("/x"))["model"]["path"], "/x/m.pkl");
    }

    #[test]
    fn a_link_on_the_way_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("deep/inner")).unwrap();
        std::fs::write(root.join("deep/model"), "").unwrap();
        std::os::unix::fs::symlink(root.join("deep/inner"), root.join("link")).unwrap();
        assert_eq!(located("../model", &root.join("link")), root.join("link/../model").to_str().unwrap());
        assert_eq!(located("../model", &root.join("deep/inner")), root.join("deep/model").to_str().unwrap());
    }
}
