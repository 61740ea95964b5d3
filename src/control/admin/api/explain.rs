//! `GET /explain`: the last decisions and why, from the ledger.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::super::{AdminContext, Failure};
use super::input::{Target, invalid};
use crate::core::ledger::{Chosen, Entry, Kind, Question};
use crate::core::settings::Name;
use crate::data::world::Snapshot;
use crate::observe::ledger::Kept;

/// Entries that are shown where nothing else is asked for.
const LAST: u64 = 20;
/// Most entries that are shown.
const MOST: u64 = 1_000;

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// What there is of each kind, whatever was asked.
    pub kept: BTreeMap<Kind, Kept>,
    /// The newest that were asked for, the oldest of them first.
    pub value: Vec<Explained>,
}

/// An entry and its sentence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// The same for people.
    pub sentence: String,
}

impl From<Entry> for Explained {
    fn from(entry: Entry) -> Self {
        let sentence = entry.to_string();
        Self { entry, sentence }
    }
}

pub(super) async fn explain(
    Shared(context): Shared<AdminContext>,
    target: Target,
) -> Result<Response, Failure> {
    let text = |key: &str| target.query.get(key).filter(|text| !text.is_empty()).cloned();
    let question = Question {
        endpoint: text("endpoint"),
        deployment: text("deployment"),
        request: text("request"),
        kind: text("kind").map(|kind| kind_of(&kind)).transpose()?,
    };
    let last = target.number("last", MOST)?.unwrap_or(LAST) as usize;
    let snapshot = context.snapshot.load();
    let found = context.ledger.find(&question, last);
    if found.entries.is_empty() {
        are_there(&question, &snapshot)?;
    }
    let value = found.entries.into_iter().map(|entry| with_share(entry, &snapshot).into()).collect();
    Ok(Json(Explanation { kept: found.kept, value }).into_response())
}

/// Whether there is what nothing is remembered of: a name that is nobody's is a slip of the hand.
fn are_there(question: &Question, snapshot: &Snapshot) -> Result<(), Failure> {
    let asked = |name: &Name, asked: &str| name.as_str().eq_ignore_ascii_case(asked);
    let endpoints: Vec<_> = match &question.endpoint {
        None => snapshot.endpoints.iter().collect(),
        Some(name) => snapshot.endpoints.iter().filter(|e| asked(&e.settings.name, name)).collect(),
    };
    if question.endpoint.is_some() && endpoints.is_empty() {
        let message = "there is no such endpoint, and nothing is remembered of one";
        return Err(Failure::new(StatusCode::NOT_FOUND, "endpoint_not_found", message));
    }
    let Some(deployment) = &question.deployment else { return Ok(()) };
    let deployments = || endpoints.iter().flat_map(|endpoint| &endpoint.deployments);
    if deployments().any(|d| asked(&d.settings.name, deployment)) {
        return Ok(());
    }
    let known: BTreeSet<_> = deployments().map(|d| d.settings.name.as_str()).collect();
    let known: Vec<_> = known.into_iter().collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message =
        format!("there is no such deployment, and nothing is remembered of one; there are: {known}");
    Err(Failure::new(StatusCode::NOT_FOUND, "deployment_not_found", message))
}

fn kind_of(text: &str) -> Result<Kind, Failure> {
    serde_json::from_value(text.into())
        .map_err(|_| invalid("`kind` is `route`, `reject`, `scale`, `standing` or `retry`"))
}

/// Shares are looked up now: to note one with each request would cost every request something.
fn with_share(mut entry: Entry, snapshot: &Snapshot) -> Entry {
    if let Some(route) = entry.what.route_mut()
        && route.chosen == Some(Chosen::Turn)
    {
        let endpoint = snapshot
            .endpoints
            .iter()
            .find(|endpoint| Some(endpoint.settings.name.as_str()) == entry.endpoint.as_deref());
        route.share_now = endpoint.and_then(|endpoint| {
            let is_it = |name: &str| Some(name) == entry.deployment.as_deref();
            let index = endpoint.deployments.iter().position(|d| is_it(d.settings.name.as_str()))?;
            Some(endpoint.settings.traffic.effective(index))
        });
    }
    entry
}
