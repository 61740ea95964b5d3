//! Flags that say which endpoint and which deployment, in all the spellings that az takes, and what several verbs do with
//! them.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::document::{self, Document};
use super::output::Shown;
use super::session::{Of, Read, path};
use super::{Context, Usage, confirm};

/// The endpoint of a verb on endpoints.
#[derive(Debug, Args)]
pub(super) struct EndpointName {
    /// Name of the endpoint
    #[arg(long, short = 'n', aliases = ["endpoint-name", "endpoint"], short_alias = 'e')]
    pub(super) name: String,
}

/// The deployment of a verb on deployments.
#[derive(Debug, Args)]
pub(super) struct DeploymentName {
    /// Name of the deployment
    #[arg(long, short = 'n', aliases = ["deployment-name", "deployment"], short_alias = 'd')]
    pub(super) name: String,
    /// Name of its endpoint
    #[arg(long, short = 'e', visible_alias = "endpoint")]
    pub(super) endpoint_name: String,
}

/// What an object should be.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// YAML file that describes it
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Set a value over the file's: a.b=c, JSON or text
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    pub(super) set: Vec<String>,
}

/// Whether the end of a change is waited for.
#[derive(Debug, Args)]
pub(super) struct Waiting {
    /// Do not wait until the change is through
    #[arg(long)]
    pub(super) no_wait: bool,
}

/// Which of the two keys.
#[derive(Debug, Args)]
pub(super) struct KeyChoice {
    /// primary or secondary
    #[arg(long, alias = "key", short = 'k', value_name = "TYPE", default_value = "primary", ignore_case = true, value_parser = ["primary", "secondary"])]
    pub(super) key_type: String,
    /// The new key, in place of one that the router makes
    #[arg(long, alias = "set-key", value_name = "KEY", allow_hyphen_values = true)]
    pub(super) key_value: Option<secrecy::SecretString>,
}

impl Source {
    /// What the file says, read by `dialect` into a document, with `--set` over it.
    pub(super) fn document(
        &self,
        dialect: impl FnOnce(Document, &std::path::Path) -> anyhow::Result<Document>,
    ) -> anyhow::Result<Document> {
        use anyhow::Context as _;
        let mut document = match &self.file {
            Some(file) => {
                let (read, base) = document::read(file)?;
                dialect(read, &base).with_context(|| file.display().to_string())?
            }
            None => Document::new(),
        };
        self.assign(&mut document)?;
        Ok(document)
    }

    /// `--set` over a document.
    pub(super) fn assign(&self, document: &mut Document) -> anyhow::Result<()> {
        for assignment in &self.set {
            document::set(document, assignment)?;
        }
        Ok(())
    }
}

/// The name by flag, else by the document; it is then in the document.
pub(super) fn named(
    document: &mut Document,
    key: &str,
    flag: Option<&str>,
    missing: &str,
) -> anyhow::Result<String> {
    let name = flag.or_else(|| document.get(key).and_then(Value::as_str)).map(str::to_owned);
    let name = name.ok_or_else(|| Usage(missing.to_owned()))?;
    document.insert(key.to_owned(), name.clone().into());
    Ok(name)
}

/// Changes an object by what differs from what was read, and by nothing else.
pub(super) async fn patch(
    context: &Context<'_>,
    path: &str,
    read: &Read,
    after: Document,
    no_wait: bool,
    of: &Of<'_>,
) -> anyhow::Result<Shown> {
    let session = &context.session;
    let before = document::writable(read.document.clone());
    let difference = document::difference(&before, &document::writable(after));
    // The files that a deployment names may have changed although the document has not; the router looks.
    if difference.is_empty() && !path.contains("/deployments/") {
        return Ok(Shown::Value(Value::Object(read.document.clone())));
    }
    let difference = Value::Object(difference);
    let reply = session.send(Method::PATCH, path, Some(&difference), read.etag.as_deref()).await?;
    if no_wait {
        return Ok(Shown::Value(reply.value));
    }
    session.settle(&reply, of).await?;
    session.get(path).await.map(Shown::Value)
}

/// Deletes an endpoint with all that is in it.
pub(super) async fn delete_endpoint(
    context: &Context<'_>,
    name: &str,
    yes: bool,
    no_wait: bool,
) -> anyhow::Result<Shown> {
    confirm(&format!("Delete endpoint {name} and all its deployments?"), yes)?;
    let reply = context.session.send(Method::DELETE, &path(&["endpoints", name]), None, None).await?;
    if !no_wait {
        let of = Of { what: &format!("deleting endpoint {name}"), look: "scoregate online-endpoint list" };
        context.session.settle(&reply, &of).await?;
    }
    Ok(Shown::Nothing)
}

/// Deletes a deployment.
pub(super) async fn delete_deployment(
    context: &Context<'_>,
    endpoint: &str,
    name: &str,
    no_wait: bool,
) -> anyhow::Result<Shown> {
    let target = path(&["endpoints", endpoint, "deployments", name]);
    let reply = context.session.send(Method::DELETE, &target, None, None).await?;
    if !no_wait {
        let look = format!("scoregate online-deployment list -e {endpoint}");
        let of = Of { what: &format!("deleting deployment {name}"), look: &look };
        context.session.settle(&reply, &of).await?;
    }
    Ok(Shown::Nothing)
}

/// The command that tells why a deployment does not start.
pub(super) fn logs_of(endpoint: &str, deployment: &str) -> String {
    format!("scoregate online-deployment get-logs -n {deployment} -e {endpoint}")
}

/// The end of a deployment's log.
pub(super) async fn logs(
    context: &Context<'_>,
    endpoint: &str,
    deployment: &str,
    lines: u32,
    container: &str,
) -> anyhow::Result<Shown> {
    let target = path(&["endpoints", endpoint, "deployments", deployment, "logs"]);
    let found = context.session.get(&format!("{target}?tail={lines}&container={container}")).await?;
    Ok(Shown::Text(found["content"].as_str().unwrap_or_default().to_owned()))
}

/// Makes or sets a key. It is not printed: `get-credentials` shows it.
pub(super) async fn regenerate_key(
    context: &Context<'_>,
    endpoint: &str,
    choice: &KeyChoice,
) -> anyhow::Result<Shown> {
    use secrecy::ExposeSecret as _;
    let value = choice.key_value.as_ref().map(|key| key.expose_secret());
    let body = serde_json::json!({ "keyType": choice.key_type.to_lowercase(), "keyValue": value });
    let target = path(&["endpoints", endpoint, "keys", "regenerate"]);
    context.session.send(Method::POST, &target, Some(&body), None).await?;
    Ok(Shown::Nothing)
}

/// Keys or a token, whatever the endpoint takes.
pub(super) async fn credentials(context: &Context<'_>, endpoint: &str) -> anyhow::Result<Value> {
    let object = context.session.get(&path(&["endpoints", endpoint])).await?;
    let mode = object["auth_mode"].as_str().unwrap_or("key");
    super::invoke::credentials(&context.session, endpoint, mode).await
}
