//! `online-endpoint`: the verbs on endpoints of today's command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::document::{self, Document, shares};
use super::output::Shown;
use super::session::{Of, path, tell_no_effect};
use super::targets::{
    EndpointName, KeyChoice, Source, Waiting, credentials, delete_endpoint, named, patch, regenerate_key,
};
use super::{Common, Context, Usage, dialect, invoke};

/// The group.
#[derive(Debug, Args)]
pub struct Group {
    #[command(subcommand)]
    pub(super) verb: Verb,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create an endpoint, without traffic
    #[command(after_help = "Example:\n  scoregate online-endpoint create -n my-endpoint -f endpoint.yml")]
    Create(Create),
    /// Show an endpoint
    #[command(
        after_help = "Example:\n  scoregate online-endpoint show -n my-endpoint -o tsv --query scoring_uri"
    )]
    Show(EndpointName),
    /// Show all endpoints
    #[command(after_help = "Example:\n  scoregate online-endpoint list -o table")]
    List,
    /// Change an endpoint: its traffic, or what a file or --set says
    #[command(
        after_help = "Example:\n  scoregate online-endpoint update -n my-endpoint --traffic \"blue=90 green=10\""
    )]
    Update(Update),
    /// Delete an endpoint with all its deployments
    #[command(after_help = "Example:\n  scoregate online-endpoint delete -n my-endpoint --yes --no-wait")]
    Delete(Delete),
    /// Call an endpoint with the content of a file
    #[command(
        after_help = "Example:\n  scoregate online-endpoint invoke -n my-endpoint -d green -r sample-request.json"
    )]
    Invoke(Invoke),
    /// Show what opens an endpoint: its keys, or a fresh token
    #[command(
        after_help = "Example:\n  scoregate online-endpoint get-credentials -n my-endpoint -o tsv --query primaryKey"
    )]
    GetCredentials(EndpointName),
    /// Make a new key, or set one; the other key stays
    #[command(
        after_help = "Example:\n  scoregate online-endpoint regenerate-keys -n my-endpoint --key-type secondary"
    )]
    RegenerateKeys(RegenerateKeys),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the endpoint [default: the file's]
    #[arg(long, short = 'n', aliases = ["endpoint-name", "endpoint"], short_alias = 'e')]
    name: Option<String>,
    #[command(flatten)]
    source: Source,
    /// key, aml_token or none
    #[arg(long, value_name = "MODE")]
    auth_mode: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// Name of the endpoint [default: the file's]
    #[arg(long, short = 'n', aliases = ["endpoint-name", "endpoint"], short_alias = 'e')]
    name: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Shares of all deployments: "blue=90 green=10"; those not named get 0
    #[arg(long, value_name = "SHARES", num_args = 1..)]
    traffic: Vec<String>,
    /// Share that is copied to a deployment: "green=10"
    #[arg(long, value_name = "SHARES", num_args = 1..)]
    mirror_traffic: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    pub(super) target: EndpointName,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct Invoke {
    #[command(flatten)]
    target: EndpointName,
    /// File with the body
    #[arg(long, short = 'r', value_name = "FILE")]
    request_file: PathBuf,
    /// Deployment to ask for, whatever the traffic says
    #[arg(long, short = 'd', alias = "deployment", value_name = "NAME")]
    deployment_name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RegenerateKeys {
    #[command(flatten)]
    target: EndpointName,
    #[command(flatten)]
    choice: KeyChoice,
    #[command(flatten)]
    waiting: Waiting,
}

impl Verb {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Shown> {
        let session = &context.session;
        match self {
            Self::Create(args) => create(context, args).await,
            Self::Show(target) => session.get(&path(&["endpoints", &target.name])).await.map(Shown::Value),
            Self::List => Ok(Shown::Value(Value::Array(session.list("/endpoints").await?))),
            Self::Update(args) => update(context, args).await,
            Self::Delete(args) => {
                delete_endpoint(context, &args.target.name, args.yes, args.waiting.no_wait).await
            }
            Self::Invoke(args) => args.run(context).await,
            Self::GetCredentials(target) => credentials(context, &target.name).await.map(Shown::Value),
            Self::RegenerateKeys(args) => regenerate_key(context, &args.target.name, &args.choice).await,
        }
    }
}

impl Invoke {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Shown> {
        let (session, trust) = (&context.session, context.trust()?);
        let body = invoke::body(&self.request_file)?;
        let deployment = self.deployment_name.as_deref();
        let answer = invoke::call(session, &trust, &self.target.name, deployment, body).await?;
        Ok(Shown::Value(answer.into()))
    }
}

impl RegenerateKeys {
    pub(super) fn endpoint(&self) -> &str {
        &self.target.name
    }

    pub(super) fn choice(&self) -> &KeyChoice {
        &self.choice
    }
}

/// `--traffic` in one or several arguments.
pub(super) fn shares_of(flag: &str, texts: &[String]) -> anyhow::Result<Option<Document>> {
    if texts.is_empty() {
        return Ok(None);
    }
    Ok(Some(shares(&texts.join(" ")).map_err(|error| Usage(format!("{flag}: {error}")))?))
}

async fn create(context: &Context<'_>, args: &Create) -> anyhow::Result<Shown> {
    let mut document = args.source.document(|file, _| Ok(dialect::endpoint_today(file)))?;
    if let Some(mode) = &args.auth_mode {
        document.insert("auth_mode".into(), mode.clone().into());
    }
    let missing = "give the name of the endpoint: --name NAME, or `name:` in the file";
    let name = named(&mut document, "name", args.name.as_deref(), missing)?;
    post(context, &name, document, args.waiting.no_wait).await
}

/// Creates an endpoint, and shows it.
pub(super) async fn post(
    context: &Context<'_>,
    name: &str,
    document: Document,
    no_wait: bool,
) -> anyhow::Result<Shown> {
    let session = &context.session;
    let reply = session.send(Method::POST, "/endpoints", Some(&Value::Object(document)), None).await?;
    if no_wait {
        return Ok(Shown::Value(reply.value));
    }
    let look = format!("scoregate online-endpoint show -n {name}");
    session.settle(&reply, &Of { what: &format!("endpoint {name}"), look: &look }).await?;
    let value = session.get(&path(&["endpoints", name])).await?;
    tell_no_effect(&value);
    Ok(Shown::Value(value))
}

async fn update(context: &Context<'_>, args: &Update) -> anyhow::Result<Shown> {
    let source = Source { file: args.source.file.clone(), set: Vec::new() };
    let mut changes = source.document(|file, _| Ok(dialect::endpoint_today(file)))?;
    let missing = "give the name of the endpoint: --name NAME, or `name:` in the file";
    let name = named(&mut changes, "name", args.name.as_deref(), missing)?;
    let traffic = shares_of("--traffic", &args.traffic)?;
    let mirror = shares_of("--mirror-traffic", &args.mirror_traffic)?;
    change(
        context,
        &name,
        changes,
        |document| {
            args.source.assign(document)?;
            for (key, shares) in [("traffic", traffic), ("mirror_traffic", mirror)] {
                if let Some(shares) = shares {
                    document.insert(key.into(), Value::Object(shares));
                }
            }
            Ok(())
        },
        args.waiting.no_wait,
    )
    .await
}

/// Merges a document over an endpoint, then lets `flags` have the last word.
pub(super) async fn change(
    context: &Context<'_>,
    name: &str,
    changes: Document,
    flags: impl FnOnce(&mut Document) -> anyhow::Result<()>,
    no_wait: bool,
) -> anyhow::Result<Shown> {
    let target = path(&["endpoints", name]);
    let read = context.session.read(&target).await?;
    let mut after = read.document.clone();
    document::merge(&mut after, document::writable(changes));
    // A name is given to find the endpoint, not to change it; its case may differ.
    after.insert("name".into(), read.document.get("name").cloned().unwrap_or_default());
    flags(&mut after)?;
    document::texts(&mut after);
    let look = format!("scoregate online-endpoint show -n {name}");
    patch(context, &target, &read, after, no_wait, &Of { what: &format!("endpoint {name}"), look: &look })
        .await
}
