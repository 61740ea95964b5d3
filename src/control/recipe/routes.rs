//! On which paths a replica scores, describes itself and answers probes: those of its server, unless
//! `environment.inference_config` (Azure's place) or `inference_config` says otherwise.

use super::RecipeError;
use super::fields::Fields;

/// Paths on a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Where requests are scored.
    pub scoring: String,
    /// Description of the interface.
    pub swagger: String,
    /// Liveness probe.
    pub liveness: String,
    /// Readiness probe.
    pub readiness: String,
}

impl Routes {
    /// Those of Microsoft's model server.
    pub(super) fn azureml() -> Self {
        Self::of("/score", "/")
    }

    /// Those of MLflow's model server, which has no description of its interface.
    pub(super) fn mlflow() -> Self {
        Self::of("/invocations", "/ping")
    }

    fn of(scoring: &str, health: &str) -> Self {
        Self {
            scoring: scoring.to_owned(),
            swagger: "/swagger.json".to_owned(),
            liveness: health.to_owned(),
            readiness: health.to_owned(),
        }
    }
}

/// The routes of a document.
pub(super) fn routes(document: &Fields<'_>, default: Routes) -> Result<Routes, RecipeError> {
    let mut routes = default;
    // An environment may be a reference, `azureml:NAME:VERSION`, which says nothing of routes.
    if document.value("environment").is_some_and(serde_json::Value::is_object)
        && let Some(environment) = document.map("environment")?
    {
        override_with(&mut routes, environment.map("inference_config")?)?;
    }
    override_with(&mut routes, document.map("inference_config")?)?;
    Ok(routes)
}

fn override_with(routes: &mut Routes, config: Option<Fields<'_>>) -> Result<(), RecipeError> {
    let Some(config) = config else { return Ok(()) };
    let mut first_port = None;
    for (key, path) in [
        ("scoring_route", &mut routes.scoring),
        ("swagger_route", &mut routes.swagger),
        ("liveness_route", &mut routes.liveness),
        ("readiness_route", &mut routes.readiness),
    ] {
        let Some(route) = config.map(key)? else { continue };
        if let Some(given) = route.text("path")? {
            if !given.starts_with('/') {
                let place = route.place("path");
                return Err(RecipeError::argument(format!("`{place}` is `{given}`; a path begins with `/`")));
            }
            given.clone_into(path);
        }
        if let Some(port) = route.value("port") {
            let (first_key, first) = *first_port.get_or_insert((key, port));
            if first != port {
                return Err(RecipeError::argument(format!(
                    "`{}` is {port}, but `{}.port` is {first}; a replica has one port for everything, so let the model \
                     server answer its probes on the port where it scores",
                    route.place("port"),
                    config.place(first_key),
                )));
            }
        }
    }
    Ok(())
}
