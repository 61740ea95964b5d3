//! Reads values of a document by key. What has the wrong type is an error that names its place with dots.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::RecipeError;
use crate::data::files::read_small;

/// Beginnings of what Azure keeps elsewhere: assets of a workspace, runs, URLs.
const REMOTE: [&str; 6] = ["azureml:", "runs:", "wasbs:", "abfss:", "http:", "https:"];

/// A map of a document and where it is.
#[derive(Clone, Debug)]
pub(super) struct Fields<'d> {
    place: String,
    map: &'d Map<String, Value>,
}

impl<'d> Fields<'d> {
    pub(super) fn root(map: &'d Map<String, Value>) -> Self {
        Self { place: String::new(), map }
    }

    /// The dotted name of a key.
    pub(super) fn place(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    /// A value; null is as if it were not there.
    pub(super) fn value(&self, key: &str) -> Option<&'d Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(super) fn map(&self, key: &str) -> Result<Option<Self>, RecipeError> {
        let place = self.place(key);
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { place, map })),
            Some(_) => Err(RecipeError::argument(format!("`{place}` must be a map"))),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'d str>, RecipeError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text)),
            Some(_) => {
                Err(RecipeError::argument(format!("`{}` must be a text that is not empty", self.place(key))))
            }
        }
    }

    /// A list of texts, at least one.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, RecipeError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| {
            list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        match texts {
            Some(texts) if !texts.is_empty() => Ok(Some(texts)),
            _ => Err(RecipeError::argument(format!(
                "`{}` must be a list of texts with at least one item",
                self.place(key)
            ))),
        }
    }

    /// Names and texts; numbers and booleans are taken as they are written.
    pub(super) fn pairs(&self, key: &str) -> Result<Vec<(String, String)>, RecipeError> {
        let Some(fields) = self.map(key)? else { return Ok(Vec::new()) };
        let pairs = fields.map.iter().map(|(name, value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            Value::Number(_) | Value::Bool(_) => Ok((name.clone(), value.to_string())),
            _ => Err(RecipeError::argument(format!("`{}` must be a text", fields.place(name)))),
        });
        pairs.collect()
    }

    /// The path of something on this machine. That it is there is not checked.
    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>, RecipeError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let place = self.place(key);
        if is_remote(text) {
            return Err(RecipeError::missing(format!(
                "`{place}` is `{text}`, which is not on this machine: scoregate has no workspace or storage to get it \
                 from; download it and give its path"
            )));
        }
        let path = PathBuf::from(text);
        if path.is_relative() {
            return Err(RecipeError::argument(format!(
                "`{place}` is `{text}`, a relative path; give it from `/` on, or create the deployment from a YAML \
                 file, whose relative paths begin at its own folder"
            )));
        }
        Ok(Some(path))
    }
}

/// Whether a text names something that Azure keeps, and not a path.
pub(super) fn is_remote(text: &str) -> bool {
    REMOTE.iter().any(|start| text.starts_with(start))
}

/// A small text file. What is no regular file is refused: the thread that reads does other things, too.
pub(super) fn read_text(path: &Path) -> std::io::Result<String> {
    let bytes = read_small(path)?;
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("not text in UTF-8"))
}
