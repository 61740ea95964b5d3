//! Which Python environment a scoring script runs in: that of `--python`, or one made from `environment.conda_file`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::RecipeError;
use super::build::PythonEnvironment;
use super::conda::{Conda, conda};
use super::fields::{Fields, read_text};
use super::source::server;
use super::tools::Tools;

/// An interpreter with the model server.
pub(super) struct Python {
    /// Begin of the command.
    pub(super) server: Vec<String>,
    pub(super) environment: Option<PythonEnvironment>,
    pub(super) no_effect: Vec<String>,
}

/// The environment of a scoring script. `--python` comes first: who gives it wants no other one.
pub(super) fn choose(document: &Fields<'_>, tools: &Tools) -> Result<Python, RecipeError> {
    if let Some(python) = tools.given_python()? {
        has_server(python)?;
        let server = server(python, tools.beside_python("azmlinfsrv"))?;
        let no_effect = ["environment.conda_file", "environment.build"].map(str::to_owned).to_vec();
        return Ok(Python { server, environment: None, no_effect });
    }
    let described = match document.value("environment") {
        Some(Value::String(reference)) => {
            return Err(RecipeError::unsupported(format!(
                "`environment` is `{reference}`, which is registered in a workspace; start scoregate with `--python` and an \
                 interpreter that has the packages, or give `environment: {{conda_file: FILE}}`"
            )));
        }
        Some(_) => document.map("environment")?,
        None => None,
    };
    let Some(file) = described.as_ref().filter(|environment| environment.has("conda_file")) else {
        let named = described.map_or("there is no `environment.conda_file`", |environment| {
            if environment.has("build") {
                "`environment.build` needs a container builder"
            } else {
                "`environment` has no \
             `conda_file`"
            }
        });
        return Err(RecipeError::unsupported(format!(
            "nothing says which Python runs the scoring script: {named}; start scoregate with `--python` and an interpreter \
             whose environment has azureml-inference-server-http and the script's packages, or add a `conda_file`"
        )));
    };
    let Conda { python: wanted, requirements } = conda_file(file)?;
    let interpreter = tools.interpreter(wanted.as_deref().filter(|wanted| !wanted.is_empty()))?;
    let mut no_effect = Vec::new();
    if wanted.is_some_and(|wanted| wanted.is_empty() || !interpreter.is(&wanted)) {
        no_effect.push("environment.conda_file.dependencies.python".to_owned());
    }
    let environment = PythonEnvironment::of(&tools.cache, interpreter, requirements)?;
    let server = server(&environment.program("python"), Some(environment.program("azmlinfsrv")))?;
    Ok(Python { server, environment: Some(environment), no_effect })
}

/// The conda file of an environment: a path, or the file itself.
fn conda_file(environment: &Fields<'_>) -> Result<Conda, RecipeError> {
    let place = environment.place("conda_file");
    if let Some(inline @ Value::Object(_)) = environment.value("conda_file") {
        return conda(&place, inline, None);
    }
    let Some(path) = environment.path("conda_file")? else { return Ok(Conda::default()) };
    let text = read_text(&path).map_err(|error| {
        RecipeError::missing(format!("`{place}`: {}: {error}; correct the path", path.display()))
    })?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|error| {
        RecipeError::argument(format!(
            "`{place}`: {} is not a conda file: {}",
            path.display(),
            error.without_snippet()
        ))
    })?;
    conda(&place, &value, path.parent())
}

/// Looks for the model server where that is easy: in an environment that is closed to its surroundings.
fn has_server(python: &Path) -> Result<(), RecipeError> {
    let Some(root) = python.parent().and_then(Path::parent) else { return Ok(()) };
    let configuration = fs::read_to_string(root.join("pyvenv.cfg")).unwrap_or_default();
    let closed = configuration.lines().any(|line| {
        line.split_once('=').is_some_and(|(key, value)| {
            key.trim() == "include-system-site-packages" && value.trim().eq_ignore_ascii_case("false")
        })
    });
    let libraries = fs::read_dir(root.join("lib")).into_iter().flatten().flatten();
    let installed =
        |library: fs::DirEntry| library.path().join("site-packages/azureml_inference_server_http").is_dir();
    if !closed || libraries.into_iter().any(installed) {
        return Ok(());
    }
    Err(RecipeError::missing(format!(
        "`--python`: the environment {} has no model server; install it: {} -m pip install azureml-inference-server-http",
        root.display(),
        python.display()
    )))
}
