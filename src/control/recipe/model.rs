//! The model of a deployment: where it is, and what kind.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::RecipeError;
use super::fields::{Fields, is_remote};

/// What a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whatever the scoring script makes of it.
    Custom,
    /// A folder that MLflow wrote.
    Mlflow,
    /// A model repository of Triton.
    Triton,
}

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

impl Model {
    /// What `AZUREML_MODEL_DIR` is: the folder that holds the model's file or folder. Azure puts `model.path` into an
    /// empty folder and gives that one, so scoring scripts append the last part of the path. The folder around the
    /// original does the same without a copy; it may hold other things, too.
    pub(super) fn folder(&self) -> Result<PathBuf, RecipeError> {
        let around = |path: &Path| path.file_name().and_then(|_| path.parent()).map(Path::to_path_buf);
        // A path that ends in `..` has no last part until it is resolved.
        let folder = around(&self.path).or_else(|| around(&self.path.canonicalize().ok()?));
        folder.ok_or_else(|| {
            RecipeError::argument(format!(
                "`model.path` is `{}`; it must be a file or a folder inside another folder, which becomes \
                 AZUREML_MODEL_DIR",
                self.path.display()
            ))
        })
    }
}

/// The model of a document, if it names one that can be used here.
pub(super) fn model(document: &Fields<'_>) -> Result<Option<Model>, RecipeError> {
    if let Some(Value::String(reference)) = document.value("model") {
        return Err(unregistered(reference));
    }
    let Some(model) = document.map("model")? else { return Ok(None) };
    let key = if model.has("path") { "path" } else { "local_path" };
    let Some(path) = model.path(key)? else {
        return Err(RecipeError::argument(format!(
            "`model` has no `path`; {}",
            "give the path of the model's file or folder"
        )));
    };
    if !path.exists() {
        return Err(RecipeError::missing(format!(
            "`{}`: there is no file or folder {}; correct the path, or make the model first",
            model.place(key),
            path.display()
        )));
    }
    let has_mlmodel = path.join("MLmodel").is_file();
    let kind = match model.text("type")? {
        Some("mlflow_model") if !has_mlmodel => {
            return Err(RecipeError::missing(format!(
                "`model.type` is `mlflow_model`, but {} has no file `MLmodel`; give the folder that MLflow wrote",
                path.display()
            )));
        }
        Some("mlflow_model") => Kind::Mlflow,
        Some("triton_model") => Kind::Triton,
        Some("custom_model") => Kind::Custom,
        Some(other) => {
            return Err(RecipeError::argument(format!(
                "`model.type` is `{other}`; it may be `custom_model`, `mlflow_model` or `triton_model`"
            )));
        }
        None if has_mlmodel => Kind::Mlflow,
        None => Kind::Custom,
    };
    Ok(Some(Model { path, kind }))
}

fn unregistered(reference: &str) -> RecipeError {
    if is_remote(reference) {
        return RecipeError::missing(format!(
            "`model` is `{reference}`, a model that is registered in a workspace; scoregate has no registry: download it \
             (`az ml model download`) and give `model: {{path: PATH}}`"
        ));
    }
    RecipeError::argument(format!("`model` is `{reference}`; give `model: {{path: PATH}}`"))
}
