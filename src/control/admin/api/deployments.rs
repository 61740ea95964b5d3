//! Deployments: list, create, show, replace, patch, delete, scale by hand, and what their replicas say.

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::super::{AdminContext, Failure};
use super::answer::{changed, seen};
use super::input::{Body, Target, invalid};
use super::view::Views;
use crate::control::registry::ChangeRequest;
use crate::core::declared::{Change, Document};
use crate::core::settings::Name;

/// Lines of a log that are shown when nobody says how many (reference §10), and the most.
const LINES: u64 = 5_000;

pub(super) async fn list(Shared(context): Shared<AdminContext>, target: Target) -> Result<Response, Failure> {
    Ok(Json(json!({ "value": Views::of(&context).deployments(&target.endpoint)? })).into_response())
}

pub(super) async fn show(Shared(context): Shared<AdminContext>, target: Target) -> Result<Response, Failure> {
    Ok(seen(Views::of(&context).deployment(&target.endpoint, &target.deployment)?))
}

pub(super) async fn create(
    Shared(context): Shared<AdminContext>,
    mut target: Target,
    Body(document): Body,
) -> Result<Response, Failure> {
    let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let endpoint = target.endpoint.clone();
    let all = target.switch("all_traffic")?;
    // Only when it can serve.
    let then = all.then(|| {
        let shares = [(name.clone(), json!(100))].into_iter().collect();
        Change::SetShares { endpoint: endpoint.clone(), key: "traffic", shares }
    });
    target.deployment = name;
    let change = Change::CreateDeployment { endpoint, document };
    let request = ChangeRequest { then: then.into_iter().collect(), ..ChangeRequest::one(change) };
    made(&context, &target, request, StatusCode::CREATED).await
}

async fn made(
    context: &AdminContext,
    target: &Target,
    request: ChangeRequest,
    done: StatusCode,
) -> Result<Response, Failure> {
    let outcome = context.registrar.change(request).await?;
    let view = Views::of(context).deployment(&target.endpoint, &target.deployment)?;
    Ok(changed(view, (done, StatusCode::ACCEPTED), outcome.operation.as_deref(), &target.host))
}

async fn change(context: &AdminContext, target: &Target, change: Change) -> Result<Response, Failure> {
    let request = ChangeRequest { expected: target.expected(), ..ChangeRequest::one(change) };
    made(context, target, request, StatusCode::OK).await
}

pub(super) async fn replace(
    Shared(context): Shared<AdminContext>,
    target: Target,
    Body(document): Body,
) -> Result<Response, Failure> {
    let (endpoint, deployment) = (target.endpoint.clone(), target.deployment.clone());
    change(&context, &target, Change::ReplaceDeployment { endpoint, deployment, document }).await
}

pub(super) async fn patch(
    Shared(context): Shared<AdminContext>,
    target: Target,
    Body(patch): Body,
) -> Result<Response, Failure> {
    let (endpoint, deployment) = (target.endpoint.clone(), target.deployment.clone());
    change(&context, &target, Change::PatchDeployment { endpoint, deployment, patch }).await
}

pub(super) async fn delete(
    Shared(context): Shared<AdminContext>,
    target: Target,
) -> Result<Response, Failure> {
    let (endpoint, deployment) = (target.endpoint.clone(), target.deployment.clone());
    let gone = json!({ "name": deployment, "endpoint_name": endpoint, "provisioning_state": "Deleting" });
    let request = ChangeRequest {
        expected: target.expected(),
        ..ChangeRequest::one(Change::DeleteDeployment { endpoint, deployment })
    };
    let outcome = context.registrar.change(request).await?;
    Ok(changed(
        gone,
        (StatusCode::ACCEPTED, StatusCode::ACCEPTED),
        outcome.operation.as_deref(),
        &target.host,
    ))
}

/// Another number of replicas, and nothing else.
pub(super) async fn scale(
    Shared(context): Shared<AdminContext>,
    target: Target,
    body: Body,
) -> Result<Response, Failure> {
    body.only(&["instance_count"])?;
    let Some(count) = body.0.get("instance_count").and_then(Value::as_u64) else {
        return Err(invalid("`instance_count` must be a whole number"));
    };
    let view = Views::of(&context).deployment(&target.endpoint, &target.deployment)?;
    if view["scale_settings"]["type"] == "target_utilization" {
        return Err(invalid(
            "the deployment scales by load; change `scale_settings`, or set its type to `default` first",
        ));
    }
    let patch: Document = [("instance_count".to_owned(), json!(count))].into_iter().collect();
    let (endpoint, deployment) = (target.endpoint.clone(), target.deployment.clone());
    change(&context, &target, Change::PatchDeployment { endpoint, deployment, patch }).await
}

/// The last lines that its replicas wrote.
pub(super) async fn logs(Shared(context): Shared<AdminContext>, target: Target) -> Result<Response, Failure> {
    let lines = target.number("tail", LINES)?.unwrap_or(LINES);
    match target.query.get("container").map(String::as_str) {
        None | Some("inference-server" | "storage-initializer") => {}
        Some(_) => return Err(invalid("`container` is `inference-server` or `storage-initializer`")),
    }
    let view = Views::of(&context).deployment(&target.endpoint, &target.deployment)?;
    let name = |key: &str| view[key].as_str().and_then(|name| Name::parse(name).ok());
    let log = match (name("endpoint_name"), name("name")) {
        (Some(endpoint), Some(deployment)) => context.board.log(&endpoint, &deployment),
        _ => None,
    };
    // Nothing is fetched from a store on one machine, so that only the server itself has something to say.
    let of_server = target.query.get("container").is_none_or(|container| container == "inference-server");
    let content = log.filter(|_| of_server).map(|log| log.tail(lines as usize)).unwrap_or_default();
    Ok(Json(json!({ "content": content })).into_response())
}
