//! v1's changes in the words of the admin API. The share and the default are set once a version is ready: a version that
//! fails never takes traffic.

use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};

use crate::cli::admin::Refused;
use crate::cli::azure::Context;
use crate::cli::azure::dialect::v1::Deploy;
use crate::cli::azure::document::Document;
use crate::cli::azure::session::{Of, path};
use crate::cli::azure::targets::logs_of;
use crate::cli::azure::{online_deployment, online_endpoint};

/// Creates a version, and the endpoint if it is the first.
pub(super) async fn create(
    context: &Context<'_>,
    endpoint: &str,
    version: Option<&str>,
    made: Deploy,
    no_wait: bool,
) -> anyhow::Result<()> {
    let version = name(endpoint, version, &made);
    let target = path(&["endpoints", endpoint]);
    let is_first = context.session.find(&target, "endpoint_not_found").await?.is_none();
    if is_first {
        let mut document = made.endpoint.clone();
        document.insert("name".into(), endpoint.into());
        document.insert("profile".into(), "aks-v1".into());
        online_endpoint::post(context, endpoint, document, false).await?;
        set_keys(context, endpoint, &made).await?;
    }
    let mut document = made.deployment.clone();
    document.insert("name".into(), version.clone().into());
    document.insert("endpoint_name".into(), endpoint.into());
    control(context, endpoint, &version, &made, &mut document).await?;
    let posted = online_deployment::post(context, (endpoint, &version), document, false, no_wait).await;
    if let Err(error) = &posted
        && is_first
        && error.is::<Refused>()
    {
        // An endpoint whose first version was not even taken is nothing that anybody has asked for.
        context.session.send(Method::DELETE, &target, None, None).await?;
    }
    posted?;
    share(context, endpoint, &version, &made).await
}

/// Changes a version.
pub(super) async fn update(
    context: &Context<'_>,
    endpoint: &str,
    version: Option<&str>,
    made: Deploy,
    no_wait: bool,
) -> anyhow::Result<()> {
    let given = version.or(made.version.as_deref());
    let version = version_of(context, endpoint, given).await?;
    let mut document = made.deployment.clone();
    control(context, endpoint, &version, &made, &mut document).await?;
    if !document.is_empty() {
        online_deployment::change(context, (endpoint, &version), document, |_| Ok(()), no_wait).await?;
    }
    share(context, endpoint, &version, &made).await
}

/// Makes a version what it would be if it were new.
pub(super) async fn replace(
    context: &Context<'_>,
    endpoint: &str,
    version: Option<&str>,
    made: Deploy,
    no_wait: bool,
) -> anyhow::Result<()> {
    let version = name(endpoint, version, &made);
    let mut document = made.deployment.clone();
    document.insert("name".into(), version.clone().into());
    document.insert("endpoint_name".into(), endpoint.into());
    control(context, endpoint, &version, &made, &mut document).await?;
    let target = path(&["endpoints", endpoint, "deployments", &version]);
    let session = &context.session;
    let reply = session.send(Method::PUT, &target, Some(&Value::Object(document)), None).await?;
    if !no_wait {
        let of = Of { what: &format!("version {version}"), look: &logs_of(endpoint, &version) };
        session.settle(&reply, &of).await?;
    }
    around(context, endpoint, &made).await?;
    share(context, endpoint, &version, &made).await
}

/// Changes an endpoint, and the only version if it is a service.
pub(super) async fn update_all(
    context: &Context<'_>,
    endpoint: &str,
    made: Deploy,
    is_service: bool,
    no_wait: bool,
) -> anyhow::Result<()> {
    around(context, endpoint, &made).await?;
    let is_about_version =
        !made.deployment.is_empty() || made.percentile.is_some() || made.is_default.is_some();
    if is_about_version {
        if !is_service {
            bail!("this is said of a version: use \"scoregate endpoint realtime update-version\"");
        }
        update(context, endpoint, None, made, no_wait).await?;
    }
    Ok(())
}

/// Whether there is such a version.
pub(super) async fn exists(
    context: &Context<'_>,
    endpoint: &str,
    version: Option<&str>,
) -> anyhow::Result<bool> {
    let target = path(&["endpoints", endpoint, "deployments", version.unwrap_or(endpoint)]);
    if context.session.find(&path(&["endpoints", endpoint]), "endpoint_not_found").await?.is_none() {
        return Ok(false);
    }
    Ok(context.session.find(&target, "deployment_not_found").await?.is_some())
}

/// The version that is meant: the named one, the only one, the default.
pub(super) async fn version_of(
    context: &Context<'_>,
    endpoint: &str,
    version: Option<&str>,
) -> anyhow::Result<String> {
    if let Some(version) = version {
        return Ok(version.to_owned());
    }
    let versions = context.session.list(&path(&["endpoints", endpoint, "deployments"])).await?;
    let object = context.session.get(&path(&["endpoints", endpoint])).await?;
    let name = match versions.as_slice() {
        [only] => only["name"].as_str(),
        _ => object["default"].as_str(),
    };
    name.map(str::to_owned)
        .with_context(|| format!("endpoint {endpoint} has no version; name one with --version-name"))
}

fn name(endpoint: &str, version: Option<&str>, made: &Deploy) -> String {
    version.or(made.version.as_deref()).unwrap_or(endpoint).to_owned()
}

/// Mode, description and tags of the endpoint, and its keys.
async fn around(context: &Context<'_>, endpoint: &str, made: &Deploy) -> anyhow::Result<()> {
    if !made.endpoint.is_empty() {
        online_endpoint::change(context, endpoint, made.endpoint.clone(), |_| Ok(()), false).await?;
    }
    set_keys(context, endpoint, made).await
}

async fn set_keys(context: &Context<'_>, endpoint: &str, made: &Deploy) -> anyhow::Result<()> {
    let target = path(&["endpoints", endpoint, "keys", "regenerate"]);
    for (kind, key) in ["primary", "secondary"].iter().zip(&made.keys) {
        let Some(key) = key else { continue };
        // To send the key that is there would make a new one.
        let keys = context.session.get(&path(&["endpoints", endpoint, "keys"])).await?;
        if keys[format!("{kind}Key")].as_str() != Some(key) {
            let body = json!({ "keyType": kind, "keyValue": key });
            context.session.send(Method::POST, &target, Some(&body), None).await?;
        }
    }
    Ok(())
}

/// One version is the control; when another becomes it, the old one no longer is.
async fn control(
    context: &Context<'_>,
    endpoint: &str,
    version: &str,
    made: &Deploy,
    document: &mut Document,
) -> anyhow::Result<()> {
    let Some(is_control) = made.is_control else { return Ok(()) };
    let kind = if is_control { "control" } else { "treatment" };
    document.insert("version_type".into(), kind.into());
    if !is_control {
        return Ok(());
    }
    for other in context.session.list(&path(&["endpoints", endpoint, "deployments"])).await? {
        let Some(other_name) = other["name"].as_str().filter(|name| *name != version) else { continue };
        if other["version_type"] == "control" {
            let mut change = Document::new();
            change.insert("version_type".into(), "treatment".into());
            online_deployment::change(context, (endpoint, other_name), change, |_| Ok(()), false).await?;
        }
    }
    Ok(())
}

/// The version's share, and who takes the rest.
async fn share(context: &Context<'_>, endpoint: &str, version: &str, made: &Deploy) -> anyhow::Result<()> {
    if made.percentile.is_none() && made.is_default != Some(true) {
        return Ok(());
    }
    let flags = |document: &mut Document| {
        if let Some(percent) = made.percentile {
            // 20 and not 20.0, as people write it.
            let percent = if percent.fract() == 0.0 { json!(percent as u64) } else { json!(percent) };
            document.entry("traffic").or_insert_with(|| json!({}))[version] = percent;
        }
        if made.is_default == Some(true) {
            document.insert("default".into(), version.into());
        }
        Ok(())
    };
    online_endpoint::change(context, endpoint, Document::new(), flags, false).await?;
    Ok(())
}
