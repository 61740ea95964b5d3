//! The part of the admin listener that changes what is declared (endpoints, deployments, traffic, keys, tokens, operations)
//! and tells what has happened (events, explanations).
//!
//! Handlers turn requests into changes and answers into JSON; which changes are allowed is decided in `core::declared`, and
//! who makes them is the configurator. `openapi.json` describes it all.

mod answer;
mod deployments;
mod endpoints;
mod events;
mod explain;
mod input;
mod keys;
mod overrides;
mod view;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};

use super::AdminContext;

pub use explain::{Explained, Explanation};
pub(super) use input::LARGEST_BODY;

/// What every route here is, and nothing else (`tests/declared/schema.rs` holds them against each other).
pub(super) const OPENAPI: &str = include_str!("api/openapi.json");

/// The routes.
pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route("/openapi.json", get(answer::openapi))
        .route("/endpoints", get(endpoints::list).post(endpoints::create))
        .route(
            "/endpoints/{endpoint}",
            get(endpoints::show).put(endpoints::replace).patch(endpoints::patch).delete(endpoints::delete),
        )
        .route("/endpoints/{endpoint}/traffic", get(endpoints::traffic).put(endpoints::set_traffic))
        .route("/endpoints/{endpoint}/mirror-traffic", get(endpoints::mirror).put(endpoints::set_mirror))
        .route("/endpoints/{endpoint}/keys", get(keys::list))
        .route("/endpoints/{endpoint}/keys/regenerate", post(keys::regenerate))
        .route("/endpoints/{endpoint}/token", post(keys::token))
        .route("/endpoints/{endpoint}/deployments", get(deployments::list).post(deployments::create))
        .route(
            "/endpoints/{endpoint}/deployments/{deployment}",
            get(deployments::show)
                .put(deployments::replace)
                .patch(deployments::patch)
                .delete(deployments::delete),
        )
        .route("/endpoints/{endpoint}/deployments/{deployment}/logs", get(deployments::logs))
        .route("/endpoints/{endpoint}/deployments/{deployment}/scale", post(deployments::scale))
        .route(
            "/endpoints/{endpoint}/deployments/{deployment}/override",
            get(overrides::show).put(overrides::set).delete(overrides::lift),
        )
        .route("/apply", put(endpoints::apply))
        .route("/operations", get(answer::operations))
        .route("/operations/{operation}", get(answer::operation))
        .route("/events", get(events::stream))
        .route("/explain", get(explain::explain))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
}
