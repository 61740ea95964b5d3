//! Which of the ways to get replicas a document chooses, and the command that follows from it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::build::PythonEnvironment;
use super::environment;
use super::fields::Fields;
use super::model::{self, Kind, Model};
use super::routes::Routes;
use super::tools::Tools;
use super::{RecipeError, Source};

/// Module of Microsoft's model server, for interpreters that have it without its command.
const SERVER_MODULE: &str = "azureml_inference_server_http";

/// How a document says that its replicas come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `replicas`: they run already.
    Replicas(Vec<String>),
    /// `process.command`.
    Command(Vec<String>),
    /// `code_configuration`: Microsoft's model server with this script of this folder.
    Script { code: PathBuf, script: PathBuf, model: Option<Model> },
    /// An MLflow model without code.
    Mlflow(Model),
}

/// What a way comes to with the tools of this machine.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) source: Source,
    pub(super) environment: Option<PythonEnvironment>,
    /// Dotted keys that the tools leave without effect.
    pub(super) no_effect: Vec<String>,
}

impl Way {
    pub(super) fn default_routes(&self) -> Routes {
        match self {
            Self::Mlflow(_) => Routes::mlflow(),
            Self::Replicas(_) | Self::Command(_) | Self::Script { .. } => Routes::azureml(),
        }
    }
}

/// Which way the document chooses.
pub(super) fn way(document: &Fields<'_>) -> Result<Way, RecipeError> {
    let replicas = document.texts("replicas")?;
    let command = match document.map("process")? {
        Some(process) => process.texts("command")?,
        None => None,
    };
    match (replicas, command) {
        (Some(_), Some(_)) => Err(RecipeError::argument(
            "the deployment has both `replicas` and `process.command`; keep one of them",
        )),
        (Some(replicas), None) => Ok(Way::Replicas(replicas)),
        (None, Some(command)) => Ok(Way::Command(command)),
        (None, None) => of_model_or_code(document),
    }
}

fn of_model_or_code(document: &Fields<'_>) -> Result<Way, RecipeError> {
    if let Some(code) = document.map("code_configuration")? {
        let (code, script) = script(&code)?;
        return Ok(Way::Script { code, script, model: model::model(document)? });
    }
    let model = model::model(document)?;
    match model {
        Some(model) if model.kind == Kind::Mlflow => Ok(Way::Mlflow(model)),
        Some(Model { kind: Kind::Triton, .. }) => Err(RecipeError::unsupported(
            "`model.type` is `triton_model`, and scoregate starts no Triton server; start one yourself and list it in \
             `replicas`, or give the command that starts it in `process.command`",
        )),
        _ if is_container(document) => Err(RecipeError::unsupported(
            "`environment` is a container image with a server of its own, and scoregate runs no containers; run it and \
             list it in `replicas: [http://HOST:PORT]`, or give the command that starts it in `process.command` (such \
             as `[docker, run, --rm, -p, \"{port}:5001\", IMAGE]`)",
        )),
        Some(model) => Err(RecipeError::argument(format!(
            "the deployment has a model ({}) but no `code_configuration`, so nothing says how it scores; add \
             `code_configuration: {{code: FOLDER, scoring_script: FILE}}` (an MLflow model needs none)",
            model.path.display()
        ))),
        None => Err(RecipeError::argument(
            "the deployment does not say where its replicas come from; it may have `code_configuration` (a scoring \
             script for Microsoft's model server), `model` of type `mlflow_model`, `process.command` (any server), or \
             `replicas` (servers that run already)",
        )),
    }
}

fn is_container(document: &Fields<'_>) -> bool {
    let environment = document.value("environment").and_then(Value::as_object);
    environment
        .is_some_and(|environment| environment.contains_key("image") || environment.contains_key("build"))
}

/// The folder and the script in it, both there.
fn script(configuration: &Fields<'_>) -> Result<(PathBuf, PathBuf), RecipeError> {
    let key = if configuration.has("code") { "code" } else { "local_path" };
    let (code, script) = (configuration.path(key)?, configuration.text("scoring_script")?);
    let (Some(code), Some(script)) = (code, script) else {
        return Err(RecipeError::argument(
            "`code_configuration` needs both `code` (a folder) and `scoring_script` (a file in it)",
        ));
    };
    if !code.is_dir() {
        return Err(RecipeError::missing(format!(
            "`{}`: there is no folder {}; correct the path",
            configuration.place(key),
            code.display()
        )));
    }
    let file = code.join(script);
    if !file.is_file() {
        return Err(RecipeError::missing(format!(
            "`{}`: there is no file {}; it is looked for in the folder of `{}`",
            configuration.place("scoring_script"),
            file.display(),
            configuration.place(key),
        )));
    }
    Ok((code, file))
}

/// The command of a way.
pub(super) fn make(document: &Fields<'_>, way: &Way, tools: &Tools) -> Result<Made, RecipeError> {
    let given: BTreeMap<String, String> = document.pairs("environment_variables")?.into_iter().collect();
    match way {
        Way::Replicas(urls) => {
            Ok(Made { source: Source::Replicas(urls.clone()), environment: None, no_effect: Vec::new() })
        }
        Way::Command(command) => {
            let directory = match document.map("process")? {
                Some(process) => process.path("directory")?,
                None => None,
            };
            Ok(started(command.clone(), directory, given))
        }
        Way::Script { code, script, model } => {
            with_script(document, code, script, model.as_ref(), given, tools)
        }
        Way::Mlflow(model) => mlflow(model, given, tools),
    }
}

fn started(command: Vec<String>, directory: Option<PathBuf>, environment: BTreeMap<String, String>) -> Made {
    let source = Source::Process { command, directory, environment };
    Made { source, environment: None, no_effect: Vec::new() }
}

fn with_script(
    document: &Fields<'_>,
    code: &Path,
    script: &Path,
    model: Option<&Model>,
    given: BTreeMap<String, String>,
    tools: &Tools,
) -> Result<Made, RecipeError> {
    let python = environment::choose(document, tools)?;
    let mut command = python.server;
    command.extend(["--entry_script".to_owned(), text(script)?, "--port".to_owned(), "{port}".to_owned()]);
    // What a script prints is in the logs when it happens, not when a buffer is full.
    let mut environment = BTreeMap::from([("PYTHONUNBUFFERED".to_owned(), "1".to_owned())]);
    if let Some(model) = model {
        environment.insert("AZUREML_MODEL_DIR".to_owned(), text(&model.folder()?)?);
    }
    environment.extend(given);
    let made = started(command, Some(code.to_path_buf()), environment);
    Ok(Made { environment: python.environment, no_effect: python.no_effect, ..made })
}

/// The command of Microsoft's model server in the environment of an interpreter.
pub(super) fn server(python: &Path, command: Option<PathBuf>) -> Result<Vec<String>, RecipeError> {
    match command {
        Some(command) => Ok(vec![text(&command)?]),
        None => Ok(vec![text(python)?, "-m".to_owned(), SERVER_MODULE.to_owned()]),
    }
}

/// MLflow's own server. It starts others by their name, hence its folder in PATH.
fn mlflow(model: &Model, given: BTreeMap<String, String>, tools: &Tools) -> Result<Made, RecipeError> {
    tools.given_python()?;
    let Some(program) = tools.beside_python("mlflow").or_else(|| tools.find("mlflow")) else {
        return Err(RecipeError::unsupported(format!(
            "{} is an MLflow model, and there is no program `mlflow` beside the interpreter of `--python` or in PATH; \
             install it (`pip install mlflow`), or give a `code_configuration` that scores with the model",
            model.path.display()
        )));
    };
    let folders =
        program.parent().map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&tools.path));
    let path = std::env::join_paths(folders).unwrap_or_else(|_| tools.path.clone());
    let mut environment = BTreeMap::from([("PYTHONUNBUFFERED".to_owned(), "1".to_owned())]);
    environment.insert("PATH".to_owned(), OsString::into_string(path).unwrap_or_default());
    environment.extend(given);
    let command = [
        &text(&program)?,
        "models",
        "serve",
        "--model-uri",
        &text(&model.path)?,
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--env-manager",
        "local",
    ];
    Ok(started(command.map(str::to_owned).to_vec(), None, environment))
}

/// Commands and variables are kept as JSON, which has no words for other paths.
pub(super) fn text(path: &Path) -> Result<String, RecipeError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        RecipeError::argument(format!("the path {} is not valid UTF-8; rename it", path.display()))
    })
}
