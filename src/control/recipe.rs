//! What a deployment document means on one machine: which command serves it, with which environment, on which paths.
//!
//! `recipe` decides and makes nothing; it looks at files, and asks an interpreter for its version once. `prepare` makes
//! the Python environment that a recipe may need. How many replicas there are, and their limits, is not known here.

mod build;
mod conda;
mod effects;
mod environment;
mod fields;
mod model;
mod routes;
mod source;
#[cfg(test)]
mod tests;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

pub use self::build::{PythonEnvironment, prepare};
pub use self::routes::Routes;
pub use self::tools::Tools;

use self::fields::Fields;

/// How the replicas of a deployment are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Where replicas come from.
    pub source: Source,
    /// Paths on a replica.
    pub routes: Routes,
    /// Keys of the document that are given and mean nothing here: dotted, sorted.
    pub no_effect: Vec<String>,
    /// Must exist before the command can run.
    pub environment: Option<PythonEnvironment>,
}

/// Where replicas come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Servers that run already, as they stand in the document.
    Replicas(Vec<String>),
    /// A command that is started once for each replica.
    Process {
        /// Program and arguments; `{port}` stands for the port.
        command: Vec<String>,
        /// Working directory.
        directory: Option<PathBuf>,
        /// Added to the environment.
        environment: BTreeMap<String, String>,
    },
}

/// Why a deployment cannot be run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RecipeError {
    /// Azure's name for this kind of failure.
    pub code: &'static str,
    /// Where, what, and what to do.
    pub message: String,
}

impl RecipeError {
    /// The document contradicts itself or its rules.
    fn argument(message: impl Into<String>) -> Self {
        Self { code: "BadArgument", message: message.into() }
    }

    /// The document is in order, but this machine has no way to do what it says.
    fn unsupported(message: impl Into<String>) -> Self {
        Self { code: "InvalidDeploymentSpec", message: message.into() }
    }

    /// What the document names is not there.
    fn missing(message: impl Into<String>) -> Self {
        Self { code: "ResourceNotFound", message: message.into() }
    }

    /// The Python environment cannot be made.
    fn build(message: impl Into<String>) -> Self {
        Self { code: "ImageBuildFailure", message: message.into() }
    }
}

/// How the replicas of a deployment document are run. Paths in the document must be absolute.
pub fn recipe(document: &Map<String, Value>, tools: &Tools) -> Result<Recipe, RecipeError> {
    let fields = Fields::root(document);
    let way = source::way(&fields)?;
    let routes = routes::routes(&fields, way.default_routes())?;
    let made = source::make(&fields, &way, tools)?;
    let no_effect = effects::no_effect(document, &way, &made);
    Ok(Recipe { source: made.source, routes, no_effect, environment: made.environment })
}
