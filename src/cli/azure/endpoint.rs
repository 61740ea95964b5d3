//! `endpoint`: the command line of 2021. A file that speaks of deployments is the whole truth: what it leaves out is
//! deleted. `endpoint realtime` is v1.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::dialect::y2021::{self, Whole};
use super::document;
use super::online_deployment;
use super::online_endpoint::{self, Invoke, RegenerateKeys, shares_of};
use super::output::Shown;
use super::session::{Of, path};
use super::targets::{
    EndpointName, Source, Waiting, credentials, delete_deployment, delete_endpoint, logs, logs_of, named,
    regenerate_key,
};
use super::{Common, Context, Usage, confirm, v1};

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
    /// Create an endpoint, with the deployments and the traffic that the file names
    #[command(
        after_help = "Example:\n  scoregate endpoint create -n my-endpoint -f 1-create-endpoint-with-blue.yml"
    )]
    Create(Create),
    /// Show an endpoint with its deployments
    #[command(
        after_help = "Example:\n  scoregate endpoint show -n my-endpoint --query \"deployments[?name=='blue'].provisioning_state\" -o tsv"
    )]
    Show(Show),
    /// Show all endpoints
    #[command(after_help = "Example:\n  scoregate endpoint list -o table")]
    List(Kind),
    /// Make an endpoint what the file says; deployments that the file leaves out are deleted
    #[command(
        after_help = "Examples:\n  scoregate endpoint update -n my-endpoint -f 4-flight-green.yml\n  scoregate endpoint update -n my-endpoint --deployment green --deployment-file 3-create-green.yml --traffic \"blue:100,green:0\""
    )]
    Update(Update),
    /// Delete an endpoint, or one of its deployments
    #[command(
        after_help = "Examples:\n  scoregate endpoint delete -n my-endpoint --deployment blue --yes\n  scoregate endpoint delete -n my-endpoint --yes --no-wait"
    )]
    Delete(Delete),
    /// Call an endpoint with the content of a file
    #[command(
        after_help = "Example:\n  scoregate endpoint invoke -n my-endpoint --deployment green --request-file sample-request.json"
    )]
    Invoke(Invoke),
    /// Show what opens an endpoint: its keys, or a fresh token
    #[command(
        after_help = "Example:\n  scoregate endpoint get-credentials -n my-endpoint -o tsv --query accessToken"
    )]
    GetCredentials(EndpointName),
    /// Make a new key, or set one; the other key stays
    #[command(
        after_help = "Example:\n  scoregate endpoint regenerate-keys -n my-endpoint --key-type secondary"
    )]
    RegenerateKeys(RegenerateKeys),
    /// Show the end of the log of a deployment's replicas
    #[command(after_help = "Example:\n  scoregate endpoint get-logs -n my-endpoint --deployment blue")]
    GetLogs(GetLogs),
    /// Endpoints with versions, as in v1
    Realtime(v1::RealtimeGroup),
}

/// `--type online`, the only kind that is served.
#[derive(Debug, Args)]
pub(super) struct Kind {
    /// Kind of endpoint
    #[arg(long = "type", short = 't', default_value = "online", value_parser = ["online"], hide = true)]
    _kind: String,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the endpoint [default: the file's]
    #[arg(long, short = 'n')]
    name: Option<String>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    _kind: Kind,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    target: EndpointName,
    #[command(flatten)]
    _kind: Kind,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// Name of the endpoint [default: the file's]
    #[arg(long, short = 'n')]
    name: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Create or replace this deployment
    #[arg(
        long,
        short = 'd',
        alias = "deployment-name",
        value_name = "NAME",
        requires = "deployment_file",
        conflicts_with = "file"
    )]
    deployment: Option<String>,
    /// YAML file that describes the deployment
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    deployment_file: Option<PathBuf>,
    /// Shares of all deployments: "blue:90,green:10"; those not named get 0
    #[arg(long, value_name = "SHARES", num_args = 1..)]
    traffic: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    _kind: Kind,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    target: EndpointName,
    /// Only this deployment
    #[arg(long, short = 'd', alias = "deployment-name", value_name = "NAME")]
    deployment: Option<String>,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    _kind: Kind,
}

#[derive(Debug, Args)]
pub(super) struct GetLogs {
    #[command(flatten)]
    target: EndpointName,
    /// Name of the deployment
    #[arg(long, short = 'd', alias = "deployment-name", value_name = "NAME")]
    deployment: String,
    /// How many lines at the end
    #[arg(long, short = 'l', value_name = "N", default_value_t = 5000)]
    lines: u32,
}

impl Verb {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Shown> {
        match self {
            Self::Create(args) => create(context, args).await,
            Self::Show(args) => whole(context, &args.target.name).await,
            Self::List(_) => online_endpoint::Verb::List.run(context).await,
            Self::Update(args) => update(context, args).await,
            Self::Delete(args) => delete(context, args).await,
            Self::Invoke(args) => args.run(context).await,
            Self::GetCredentials(target) => credentials(context, &target.name).await.map(Shown::Value),
            Self::RegenerateKeys(args) => regenerate_key(context, args.endpoint(), args.choice()).await,
            Self::GetLogs(args) => {
                logs(context, &args.target.name, &args.deployment, args.lines, "inference-server").await
            }
            Self::Realtime(group) => group.run(context).await,
        }
    }
}

/// An endpoint with its deployments in it.
async fn whole(context: &Context<'_>, name: &str) -> anyhow::Result<Shown> {
    let mut endpoint = context.session.get(&path(&["endpoints", name])).await?;
    let deployments = context.session.list(&path(&["endpoints", name, "deployments"])).await?;
    endpoint["deployments"] = Value::Array(deployments);
    Ok(Shown::Value(endpoint))
}

/// What the file says; `None` without a file.
fn read(source: &Source, name: Option<&str>) -> anyhow::Result<(Whole, String)> {
    let (file, base) = match &source.file {
        Some(file) => document::read(file)?,
        None => (document::Document::new(), PathBuf::new()),
    };
    let shown = || source.file.as_ref().map_or_else(String::new, |file| file.display().to_string());
    let mut whole = y2021::endpoint(file, &base).with_context(shown)?;
    source.assign(&mut whole.endpoint)?;
    let missing = "give the name of the endpoint: --name NAME, or `name:` in the file";
    let name = named(&mut whole.endpoint, "name", name, missing)?;
    Ok((whole, name))
}

async fn create(context: &Context<'_>, args: &Create) -> anyhow::Result<Shown> {
    let (whole, name) = read(&args.source, args.name.as_deref())?;
    let no_wait = args.waiting.no_wait;
    let Some(deployments) = whole.deployments else {
        return online_endpoint::post(context, &name, whole.endpoint, no_wait).await;
    };
    if context.session.find(&path(&["endpoints", &name]), "endpoint_not_found").await?.is_some() {
        anyhow::bail!("endpoint {name} exists already; to change it, use update");
    }
    apply(context, &name, &json!({ "endpoint": whole.endpoint, "deployments": deployments }), no_wait).await
}

async fn update(context: &Context<'_>, args: &Update) -> anyhow::Result<Shown> {
    if let Some(file) = &args.deployment_file {
        return update_deployment(context, args, file).await;
    }
    let source = Source { file: args.source.file.clone(), set: Vec::new() };
    let (mut whole, name) = read(&source, args.name.as_deref())?;
    let traffic = shares_of("--traffic", &args.traffic)?;
    let no_wait = args.waiting.no_wait;
    let Some(deployments) = whole.deployments else {
        let flags = |document: &mut document::Document| {
            args.source.assign(document)?;
            if let Some(traffic) = traffic {
                document.insert("traffic".into(), Value::Object(traffic));
            }
            Ok(())
        };
        return online_endpoint::change(context, &name, whole.endpoint, flags, no_wait).await;
    };
    args.source.assign(&mut whole.endpoint)?;
    if let Some(traffic) = traffic {
        whole.endpoint.insert("traffic".into(), Value::Object(traffic));
    }
    // An update is of something that exists.
    context.session.get(&path(&["endpoints", &name])).await?;
    apply(context, &name, &json!({ "endpoint": whole.endpoint, "deployments": deployments }), no_wait).await
}

/// Endpoint and deployments in one step.
async fn apply(context: &Context<'_>, name: &str, body: &Value, no_wait: bool) -> anyhow::Result<Shown> {
    let reply = context.session.send(Method::PUT, "/apply", Some(body), None).await?;
    if no_wait {
        return Ok(Shown::Value(reply.value));
    }
    let look = format!("scoregate endpoint show -n {name}");
    context.session.settle(&reply, &Of { what: &format!("endpoint {name}"), look: &look }).await?;
    whole(context, name).await
}

/// A deployment by a file of its own, and then the traffic.
async fn update_deployment(context: &Context<'_>, args: &Update, file: &Path) -> anyhow::Result<Shown> {
    let session = &context.session;
    let missing = "give the name of the endpoint: --name NAME";
    let endpoint = args.name.as_deref().ok_or_else(|| Usage(missing.to_owned()))?;
    let traffic = shares_of("--traffic", &args.traffic)?;
    if traffic.is_some() && args.waiting.no_wait {
        return Err(Usage("--traffic needs the deployment to be ready; leave --no-wait out".into()).into());
    }
    let (read, base) = document::read(file)?;
    let mut document = y2021::deployment(read, &base).with_context(|| file.display().to_string())?;
    let missing = "give the name of the deployment: --deployment NAME, or `name:` in the file";
    let name = named(&mut document, "name", args.deployment.as_deref(), missing)?;
    document.insert("endpoint_name".into(), endpoint.into());
    args.source.assign(&mut document)?;
    let target = path(&["endpoints", endpoint, "deployments", &name]);
    let no_wait = args.waiting.no_wait;
    let shown = if session.find(&target, "deployment_not_found").await?.is_none() {
        online_deployment::post(context, (endpoint, &name), document, false, no_wait).await?
    } else {
        let reply = session.send(Method::PUT, &target, Some(&Value::Object(document)), None).await?;
        if !no_wait {
            let of = Of { what: &format!("deployment {name}"), look: &logs_of(endpoint, &name) };
            session.settle(&reply, &of).await?;
        }
        Shown::Value(reply.value)
    };
    let Some(traffic) = traffic else {
        return if no_wait { Ok(shown) } else { whole(context, endpoint).await };
    };
    let flags = |document: &mut document::Document| {
        document.insert("traffic".into(), Value::Object(traffic));
        Ok(())
    };
    online_endpoint::change(context, endpoint, document::Document::new(), flags, false).await?;
    whole(context, endpoint).await
}

async fn delete(context: &Context<'_>, args: &Delete) -> anyhow::Result<Shown> {
    let (endpoint, no_wait) = (&args.target.name, args.waiting.no_wait);
    let Some(deployment) = &args.deployment else {
        return delete_endpoint(context, endpoint, args.yes, no_wait).await;
    };
    confirm(&format!("Delete deployment {deployment} of endpoint {endpoint}?"), args.yes)?;
    delete_deployment(context, endpoint, deployment, no_wait).await
}
