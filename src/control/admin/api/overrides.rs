//! An operator's word on the number of replicas, for a while: seen, given, lifted. For deployments of the configuration
//! file and for declared ones alike; what is declared does not change by it.

use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde_json::{Value, json};

use super::super::{AdminContext, Failure};
use super::input::{Body, Target, invalid};
use crate::control::overrides::NotKept;
use crate::core::bounds::{LONGEST, MOST, Override};
use crate::core::settings::{DeploymentSettings, Name, ProviderSettings};

pub(super) async fn show(Shared(context): Shared<AdminContext>, target: Target) -> Result<Response, Failure> {
    let (endpoint, settings) = find(&context, &target)?;
    let now = Timestamp::now();
    let hold = context.overrides.get(&endpoint, &settings.name, now);
    let hold = hold.ok_or_else(|| {
        let message = format!("no override is in force for deployment {}", settings.name);
        Failure::new(StatusCode::NOT_FOUND, "override_not_found", message)
    })?;
    Ok(Json(view(&endpoint, &settings.name, &hold, now)).into_response())
}

pub(super) async fn set(
    Shared(context): Shared<AdminContext>,
    target: Target,
    body: Body,
) -> Result<Response, Failure> {
    let (endpoint, settings) = find(&context, &target)?;
    let now = Timestamp::now();
    let hold = read(&body, now)?;
    match &settings.provider {
        ProviderSettings::Fixed(_) => {
            let message =
                "the number of replicas is that of the list `replicas`; nobody can start another one";
            return Err(Failure::new(StatusCode::CONFLICT, "not_scalable", message));
        }
        ProviderSettings::Process(_) => {
            let ports = settings.provider.places();
            if hold.most().is_some_and(|most| most > ports) {
                return Err(invalid(format!("`process.ports` has {ports} ports only, one for each replica")));
            }
        }
    }
    let before = keep(&context, &endpoint, &settings.name, Some(hold)).await?;
    let mut view = view(&endpoint, &settings.name, &hold, now);
    if let Some(before) = before.filter(|before| before.holds(now)) {
        view["replaces"] = bounds(&before);
    }
    Ok(Json(view).into_response())
}

pub(super) async fn lift(Shared(context): Shared<AdminContext>, target: Target) -> Result<Response, Failure> {
    let (endpoint, settings) = find(&context, &target)?;
    keep(&context, &endpoint, &settings.name, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn keep(
    context: &AdminContext,
    endpoint: &Name,
    deployment: &Name,
    hold: Option<Override>,
) -> Result<Option<Override>, Failure> {
    let before = context.overrides.keep(endpoint, deployment, hold).await.map_err(|error| {
        let (status, code) = match error {
            NotKept::Disk(_) => (StatusCode::INSUFFICIENT_STORAGE, "store_failed"),
            NotKept::Gone => (StatusCode::NOT_FOUND, "deployment_not_found"),
        };
        Failure::new(status, code, error.to_string())
    })?;
    match hold {
        Some(hold) => {
            tracing::info!(%endpoint, %deployment, "an operator sets the number of replicas: {hold}");
        }
        None => tracing::info!(%endpoint, %deployment, "the override of the number of replicas is lifted"),
    }
    Ok(before)
}

/// The deployment as it runs, wherever it is declared.
fn find(
    context: &AdminContext,
    target: &Target,
) -> Result<(Name, std::sync::Arc<DeploymentSettings>), Failure> {
    let snapshot = context.snapshot.load();
    let missing = |code, message| Err(Failure::new(StatusCode::NOT_FOUND, code, message));
    let mut endpoints = snapshot.endpoints.iter();
    let Some(endpoint) = endpoints.find(|e| e.settings.name.as_str().eq_ignore_ascii_case(&target.endpoint))
    else {
        return missing("endpoint_not_found", "there is no such endpoint at work".to_owned());
    };
    let Some(deployment) = endpoint.named(target.deployment.as_bytes()) else {
        let message = format!("endpoint {} has no such deployment at work", endpoint.settings.name);
        return missing("deployment_not_found", message);
    };
    Ok((endpoint.settings.name.clone(), std::sync::Arc::clone(&deployment.settings)))
}

/// `instance_count`, or one or both of `min_instances` and `max_instances`; and `duration` in seconds or `until`.
fn read(body: &Body, now: Timestamp) -> Result<Override, Failure> {
    body.only(&["instance_count", "min_instances", "max_instances", "duration", "until"])?;
    let (count, min, max) =
        (number(body, "instance_count")?, number(body, "min_instances")?, number(body, "max_instances")?);
    let (min, max) = match (count, min, max) {
        (Some(count), None, None) => (Some(count), Some(count)),
        (None, Some(min), Some(max)) if min > max => {
            return Err(invalid(format!("`min_instances` is {min}, but `max_instances` is {max}")));
        }
        (None, Some(_), _) | (None, None, Some(_)) => (min, max),
        (Some(_), ..) | (None, None, None) => {
            return Err(invalid(
                "either `instance_count`, or `min_instances` and `max_instances` or one of them",
            ));
        }
    };
    Ok(Override { min, max, until: until(body, now)? })
}

fn number(body: &Body, key: &str) -> Result<Option<u32>, Failure> {
    match body.0.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().filter(|number| (1..=u64::from(MOST)).contains(number));
            let number = number.and_then(|number| u32::try_from(number).ok());
            number
                .map(Some)
                .ok_or_else(|| invalid(format!("`{key}` must be a whole number from 1 to {MOST}")))
        }
    }
}

fn until(body: &Body, now: Timestamp) -> Result<Timestamp, Failure> {
    let longest = now + LONGEST;
    let until = match (body.0.get("duration"), body.text("until")?) {
        (Some(seconds), None) => {
            let most = LONGEST.as_secs();
            let seconds = seconds.as_u64().filter(|seconds| (1..=most).contains(seconds));
            let message = format!("`duration` must be a whole number of seconds from 1 to {most} (30 days)");
            now + Duration::from_secs(seconds.ok_or_else(|| invalid(message))?)
        }
        (None, Some(text)) => text.parse().map_err(|_| {
            invalid("`until` must be a time with its offset, such as `2026-12-24T18:00:00+01:00`")
        })?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid("either `duration` in seconds or `until` says when it ends"));
        }
    };
    match until > now && until <= longest {
        // People read it, and nobody means a fraction of a second.
        true => Ok(until.round(whole_seconds()).unwrap_or(until)),
        false => Err(invalid("`until` must lie in the next 30 days")),
    }
}

fn whole_seconds() -> TimestampRound {
    TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)
}

fn view(endpoint: &Name, deployment: &Name, hold: &Override, now: Timestamp) -> Value {
    let mut view = bounds(hold);
    view["endpoint_name"] = endpoint.as_str().into();
    view["name"] = deployment.as_str().into();
    view["seconds_left"] = hold.until.duration_since(now).as_secs().max(0).into();
    view
}

fn bounds(hold: &Override) -> Value {
    let mut bounds = json!({ "until": hold.until });
    for (key, bound) in [("min_instances", hold.min), ("max_instances", hold.max)] {
        if let Some(bound) = bound {
            bounds[key] = bound.into();
        }
    }
    bounds
}
