//! `online-deployment`: the verbs on deployments of today's command line.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::document::{self, Document};
use super::output::Shown;
use super::session::{Of, path, tell_no_effect};
use super::targets::{DeploymentName, Source, Waiting, delete_deployment, logs, logs_of, named, patch};
use super::{Common, Context, confirm, dialect};

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
    /// Create a deployment; it has no traffic yet
    #[command(
        after_help = "Example:\n  scoregate online-deployment create -n blue -e my-endpoint -f blue-deployment.yml --all-traffic"
    )]
    Create(Create),
    /// Show a deployment
    #[command(
        after_help = "Example:\n  scoregate online-deployment show -n blue -e my-endpoint --query provisioning_state"
    )]
    Show(DeploymentName),
    /// Show all deployments of an endpoint
    #[command(after_help = "Example:\n  scoregate online-deployment list -e my-endpoint -o table")]
    List(List),
    /// Change a deployment by what a file or --set says; new replicas are ready before old ones end
    #[command(
        after_help = "Example:\n  scoregate online-deployment update -n blue -e my-endpoint --set instance_count=2"
    )]
    Update(Update),
    /// Delete a deployment that has no traffic
    #[command(
        after_help = "Example:\n  scoregate online-deployment delete -n blue -e my-endpoint --yes --no-wait"
    )]
    Delete(Delete),
    /// Show the end of the log of a deployment's replicas
    #[command(after_help = "Example:\n  scoregate online-deployment get-logs -n blue -e my-endpoint -l 100")]
    GetLogs(GetLogs),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Name of the deployment [default: the file's]
    #[arg(long, short = 'n', aliases = ["deployment-name", "deployment"], short_alias = 'd')]
    name: Option<String>,
    /// Name of its endpoint [default: the file's]
    #[arg(long, short = 'e', visible_alias = "endpoint")]
    endpoint_name: Option<String>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    waiting: Waiting,
    /// Accepted, without effect
    #[arg(long, hide = true)]
    skip_script_validation: bool,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    which: Which,
    /// Give it all traffic once it is ready
    #[arg(long)]
    all_traffic: bool,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Name of the endpoint
    #[arg(long, short = 'e', visible_alias = "endpoint", short_alias = 'n')]
    endpoint_name: String,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    target: DeploymentName,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct GetLogs {
    #[command(flatten)]
    target: DeploymentName,
    /// How many lines at the end
    #[arg(long, short = 'l', value_name = "N", default_value_t = 5000)]
    lines: u32,
    /// Of which container: inference-server or storage-initializer
    #[arg(long, short = 'c', value_name = "NAME", default_value = "inference-server", value_parser = ["inference-server", "storage-initializer"])]
    container: String,
}

impl Verb {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Shown> {
        let session = &context.session;
        match self {
            Self::Create(args) => create(context, args).await,
            Self::Show(target) => {
                let target = path(&["endpoints", &target.endpoint_name, "deployments", &target.name]);
                session.get(&target).await.map(Shown::Value)
            }
            Self::List(args) => {
                let list = session.list(&path(&["endpoints", &args.endpoint_name, "deployments"])).await?;
                Ok(Shown::Value(Value::Array(list)))
            }
            Self::Update(args) => update(context, &args.which).await,
            Self::Delete(args) => {
                let (endpoint, name) = (&args.target.endpoint_name, &args.target.name);
                confirm(&format!("Delete deployment {name} of endpoint {endpoint}?"), args.yes)?;
                delete_deployment(context, endpoint, name, args.waiting.no_wait).await
            }
            Self::GetLogs(args) => {
                let (endpoint, name) = (&args.target.endpoint_name, &args.target.name);
                logs(context, endpoint, name, args.lines, &args.container).await
            }
        }
    }
}

impl Which {
    /// Endpoint and deployment, by flag or by the document.
    fn names(&self, document: &mut Document) -> anyhow::Result<(String, String)> {
        let missing = "give the name of the deployment: --name NAME, or `name:` in the file";
        let name = named(document, "name", self.name.as_deref(), missing)?;
        let missing = "give the name of the endpoint: --endpoint-name NAME, or `endpoint_name:` in the file";
        let endpoint = named(document, "endpoint_name", self.endpoint_name.as_deref(), missing)?;
        Ok((endpoint, name))
    }
}

async fn create(context: &Context<'_>, args: &Create) -> anyhow::Result<Shown> {
    let mut document = args.which.source.document(|file, base| Ok(dialect::today(file, base)))?;
    let (endpoint, name) = args.which.names(&mut document)?;
    document::texts(&mut document);
    post(context, (&endpoint, &name), document, args.all_traffic, args.which.waiting.no_wait).await
}

/// Creates a deployment, and shows it when it is ready.
pub(super) async fn post(
    context: &Context<'_>,
    (endpoint, name): (&str, &str),
    document: Document,
    all_traffic: bool,
    no_wait: bool,
) -> anyhow::Result<Shown> {
    let session = &context.session;
    let all = path(&["endpoints", endpoint, "deployments"]);
    let target = if all_traffic { format!("{all}?all_traffic=true") } else { all.clone() };
    let reply = session.send(Method::POST, &target, Some(&Value::Object(document)), None).await?;
    if no_wait {
        return Ok(Shown::Value(reply.value));
    }
    let of = Of { what: &format!("deployment {name}"), look: &logs_of(endpoint, name) };
    session.settle(&reply, &of).await?;
    let value = session.get(&format!("{all}{}", path(&[name]))).await?;
    tell_no_effect(&value);
    Ok(Shown::Value(value))
}

async fn update(context: &Context<'_>, which: &Which) -> anyhow::Result<Shown> {
    let source = Source { file: which.source.file.clone(), set: Vec::new() };
    let mut changes = source.document(|file, base| Ok(dialect::today(file, base)))?;
    let (endpoint, name) = which.names(&mut changes)?;
    change(
        context,
        (&endpoint, &name),
        changes,
        |document| which.source.assign(document),
        which.waiting.no_wait,
    )
    .await
}

/// Merges a document over a deployment, then lets `flags` have the last word.
pub(super) async fn change(
    context: &Context<'_>,
    (endpoint, name): (&str, &str),
    changes: Document,
    flags: impl FnOnce(&mut Document) -> anyhow::Result<()>,
    no_wait: bool,
) -> anyhow::Result<Shown> {
    let target = path(&["endpoints", endpoint, "deployments", name]);
    let read = context.session.read(&target).await?;
    let mut after = read.document.clone();
    document::merge(&mut after, document::writable(changes));
    // Names are given to find it, not to change it; their case may differ.
    for key in ["name", "endpoint_name"] {
        match read.document.get(key) {
            Some(found) => drop(after.insert(key.to_owned(), found.clone())),
            None => drop(after.remove(key)),
        }
    }
    flags(&mut after)?;
    document::texts(&mut after);
    let of = Of { what: &format!("deployment {name}"), look: &logs_of(endpoint, name) };
    patch(context, &target, &read, after, no_wait, &of).await
}
