//! Endpoints: list, create, show, replace, patch, delete, traffic, and all of an endpoint at once.

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::super::{AdminContext, Failure};
use super::answer::{changed, seen};
use super::input::{Body, Target, invalid};
use super::view::{Found, Views};
use crate::control::registry::{ChangeRequest, Expected};
use crate::core::declared::{Change, Document};

pub(super) async fn list(Shared(context): Shared<AdminContext>) -> Response {
    Json(json!({ "value": Views::of(&context).all() })).into_response()
}

pub(super) async fn show(Shared(context): Shared<AdminContext>, target: Target) -> Result<Response, Failure> {
    Ok(seen(Views::of(&context).endpoint(&target.endpoint)?))
}

pub(super) async fn create(
    Shared(context): Shared<AdminContext>,
    target: Target,
    Body(document): Body,
) -> Result<Response, Failure> {
    let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    context.registrar.change(ChangeRequest::one(Change::CreateEndpoint { document })).await?;
    let view = Views::of(&context).endpoint(&name)?;
    Ok(changed(view, (StatusCode::CREATED, StatusCode::CREATED), None, &target.host))
}

async fn change(context: &AdminContext, target: &Target, change: Change) -> Result<Response, Failure> {
    let request = ChangeRequest { expected: target.expected(), ..ChangeRequest::one(change) };
    let outcome = context.registrar.change(request).await?;
    let view = Views::of(context).endpoint(&target.endpoint)?;
    Ok(changed(view, (StatusCode::OK, StatusCode::ACCEPTED), outcome.operation.as_deref(), &target.host))
}

pub(super) async fn replace(
    Shared(context): Shared<AdminContext>,
    target: Target,
    Body(document): Body,
) -> Result<Response, Failure> {
    change(&context, &target, Change::ReplaceEndpoint { endpoint: target.endpoint.clone(), document }).await
}

pub(super) async fn patch(
    Shared(context): Shared<AdminContext>,
    target: Target,
    Body(patch): Body,
) -> Result<Response, Failure> {
    change(&context, &target, Change::PatchEndpoint { endpoint: target.endpoint.clone(), patch }).await
}

pub(super) async fn delete(
    Shared(context): Shared<AdminContext>,
    target: Target,
) -> Result<Response, Failure> {
    let request = ChangeRequest {
        expected: target.expected(),
        ..ChangeRequest::one(Change::DeleteEndpoint { endpoint: target.endpoint.clone() })
    };
    let outcome = context.registrar.change(request).await?;
    let gone = json!({ "name": target.endpoint, "provisioning_state": "Deleting" });
    Ok(changed(
        gone,
        (StatusCode::ACCEPTED, StatusCode::ACCEPTED),
        outcome.operation.as_deref(),
        &target.host,
    ))
}

pub(super) async fn traffic(
    Shared(context): Shared<AdminContext>,
    target: Target,
) -> Result<Response, Failure> {
    shares(&context, &target, "traffic")
}

pub(super) async fn mirror(
    Shared(context): Shared<AdminContext>,
    target: Target,
) -> Result<Response, Failure> {
    shares(&context, &target, "mirror_traffic")
}

fn shares(context: &AdminContext, target: &Target, key: &str) -> Result<Response, Failure> {
    Ok(seen(Views::of(context).endpoint(&target.endpoint)?[key].take()))
}

pub(super) async fn set_traffic(
    Shared(context): Shared<AdminContext>,
    target: Target,
    Body(shares): Body,
) -> Result<Response, Failure> {
    set_shares(&context, &target, "traffic", shares).await
}

pub(super) async fn set_mirror(
    Shared(context): Shared<AdminContext>,
    target: Target,
    Body(shares): Body,
) -> Result<Response, Failure> {
    set_shares(&context, &target, "mirror_traffic", shares).await
}

async fn set_shares(
    context: &AdminContext,
    target: &Target,
    key: &'static str,
    given: Document,
) -> Result<Response, Failure> {
    let change = Change::SetShares { endpoint: target.endpoint.clone(), key, shares: given };
    let request = ChangeRequest { expected: target.expected(), ..ChangeRequest::one(change) };
    context.registrar.change(request).await?;
    shares(context, target, key)
}

/// The 2021 way: an endpoint with all its deployments; one that is left out is deleted. Traffic and deletions come when the
/// replicas of what is new are ready, so that no request meets a deployment that cannot serve it yet.
pub(super) async fn apply(
    Shared(context): Shared<AdminContext>,
    target: Target,
    body: Body,
) -> Result<Response, Failure> {
    body.only(&["endpoint", "deployments"])?;
    let Some(Value::Object(endpoint)) = body.0.get("endpoint") else {
        return Err(invalid("`endpoint` must be the document of an endpoint"));
    };
    let deployments = body.0.get("deployments").cloned().unwrap_or_else(|| json!([]));
    let deployments =
        deployments.as_array().and_then(|list| list.iter().map(|d| d.as_object().cloned()).collect());
    let deployments: Vec<Document> =
        deployments.ok_or_else(|| invalid("`deployments` must be a list of documents"))?;
    let name = endpoint.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut request = whole(&Views::of(&context), &name, endpoint.clone(), deployments);
    request.expected =
        target.expected().into_iter().map(|seen| Expected { endpoint: name.clone(), ..seen }).collect();
    let outcome = context.registrar.change(request).await?;
    let view = Views::of(&context).endpoint(&name)?;
    Ok(changed(view, (StatusCode::OK, StatusCode::ACCEPTED), outcome.operation.as_deref(), &target.host))
}

fn whole(views: &Views<'_>, name: &str, mut endpoint: Document, deployments: Vec<Document>) -> ChangeRequest {
    let mut request = ChangeRequest::default();
    let present = match views.find(name) {
        Ok(Found::Declared(_, present)) => Some(present),
        // Of the file or unknown: whoever makes the change says so.
        _ => None,
    };
    let traffic = endpoint.remove("traffic");
    if traffic.as_ref().is_some_and(|traffic| !traffic.is_object()) {
        // The rules for keys say what is wrong.
        endpoint.insert("traffic".to_owned(), traffic.clone().unwrap_or_default());
    }
    request.changes.push(match present {
        Some(_) => Change::ReplaceEndpoint { endpoint: name.to_owned(), document: endpoint },
        None => Change::CreateEndpoint { document: endpoint },
    });
    let mut kept = Vec::new();
    for document in deployments {
        let of = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = present.is_some_and(|present| present.deployment(&of).is_some());
        kept.push(of.clone());
        request.changes.push(if known {
            Change::ReplaceDeployment { endpoint: name.to_owned(), deployment: of, document }
        } else {
            Change::CreateDeployment { endpoint: name.to_owned(), document }
        });
    }
    if let Some(Value::Object(shares)) = traffic {
        // A deployment that is left out holds nothing.
        request.then.push(Change::SetShares { endpoint: name.to_owned(), key: "traffic", shares });
    }
    let left_out = present.into_iter().flat_map(|present| present.deployments.keys());
    for deployment in
        left_out.filter(|known| !kept.iter().any(|name| name.eq_ignore_ascii_case(known.as_str())))
    {
        request
            .then
            .push(Change::DeleteDeployment { endpoint: name.to_owned(), deployment: deployment.to_string() });
    }
    request
}
