//! v1's verbs: `endpoint realtime` on endpoints with versions, `service` on endpoints with one, `model deploy` for both.
//!
//! A version is a deployment; its percentile is its share, and what is not given away goes to the default version.

mod change;
mod knobs;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::knobs::{EndpointKnobs, Knobs};
use super::dialect::v1::view;
use super::output::Shown;
use super::session::path;
use super::targets::{
    EndpointName, KeyChoice, Waiting, credentials, delete_deployment, delete_endpoint, logs, regenerate_key,
};
use super::{Common, Context, invoke};

/// `endpoint realtime`.
#[derive(Debug, Args)]
pub(super) struct RealtimeGroup {
    #[command(subcommand)]
    verb: RealtimeVerb,
}

/// `service`.
#[derive(Debug, Args)]
pub struct ServiceGroup {
    #[command(subcommand)]
    pub(super) verb: ServiceVerb,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `model deploy`.
#[derive(Debug, Args)]
pub struct ModelDeploy {
    #[command(flatten)]
    pub(super) deploy: Deploy,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Subcommand)]
enum RealtimeVerb {
    /// Create a version; the first one makes the endpoint and is its default
    #[command(
        after_help = "Example:\n  scoregate endpoint realtime create-version -n my-endpoint --vn version-b --ic inferenceconfig.json --dc deploymentconfig.json --tp 10"
    )]
    CreateVersion(Version),
    /// Change a version, its share, or what it is
    #[command(
        after_help = "Example:\n  scoregate endpoint realtime update-version -n my-endpoint --vn version-b --tp 40 --is-default true"
    )]
    UpdateVersion(Version),
    /// Delete a version that is not the default
    #[command(
        after_help = "Example:\n  scoregate endpoint realtime delete-version -n my-endpoint --vn version-a"
    )]
    DeleteVersion(DeleteVersion),
    #[command(flatten)]
    Common(CommonVerb),
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceVerb {
    #[command(flatten)]
    Common(CommonVerb),
}

/// What `endpoint realtime` and `service` have both.
#[derive(Debug, Subcommand)]
pub(super) enum CommonVerb {
    /// Show it
    #[command(after_help = "Example:\n  scoregate service show -n my-service --query scoringUri -o tsv")]
    Show(EndpointName),
    /// Show all
    #[command(after_help = "Example:\n  scoregate service list -o table")]
    List,
    /// Change who may call, description and tags; of a service its only version as well
    #[command(after_help = "Example:\n  scoregate service update -n my-service --num-replicas 2")]
    Update(Box<Update>),
    /// Delete it with all its versions
    #[command(after_help = "Example:\n  scoregate service delete -n my-service")]
    Delete(Delete),
    /// Show both keys
    #[command(after_help = "Example:\n  scoregate service get-keys -n my-service --query primaryKey -o tsv")]
    GetKeys(EndpointName),
    /// Make a new key, or set one
    #[command(after_help = "Example:\n  scoregate service regen-key -n my-service --key secondary")]
    RegenKey(RegenKey),
    /// Get a token
    #[command(
        after_help = "Example:\n  scoregate service get-access-token -n my-service --query accessToken -o tsv"
    )]
    GetAccessToken(EndpointName),
    /// Show the end of the log
    #[command(after_help = "Example:\n  scoregate service get-logs -n my-service")]
    GetLogs(GetLogs),
    /// Call it
    #[command(
        after_help = "Examples:\n  scoregate service run -n my-service -d '{\"data\": [[1, 2]]}'\n  scoregate service run -n my-service -d @request.json"
    )]
    Run(Run),
}

/// A version to be made or changed.
#[derive(Debug, Args)]
struct Version {
    #[command(flatten)]
    target: EndpointName,
    /// Name of the version [default: the endpoint's name]
    #[arg(long, visible_alias = "vn", value_name = "NAME")]
    version_name: Option<String>,
    #[command(flatten)]
    knobs: Knobs,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct Deploy {
    /// Name of the service or endpoint
    #[arg(long, short = 'n')]
    name: String,
    /// Name of the version [default: the service's name]
    #[arg(long, visible_alias = "vn", value_name = "NAME")]
    version_name: Option<String>,
    #[command(flatten)]
    knobs: Knobs,
    #[command(flatten)]
    endpoint: EndpointKnobs,
    /// Azure's compute target; kept, without effect
    #[arg(long, visible_alias = "ct", value_name = "NAME")]
    compute_target: Option<String>,
    /// Replace a version of this name
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
struct DeleteVersion {
    #[command(flatten)]
    target: EndpointName,
    /// Name of the version
    #[arg(long, visible_alias = "vn", value_name = "NAME")]
    version_name: String,
    /// v1 did not ask; accepted, without effect
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    #[command(flatten)]
    target: EndpointName,
    #[command(flatten)]
    endpoint: EndpointKnobs,
    #[command(flatten)]
    knobs: Knobs,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    target: EndpointName,
    /// v1 did not ask; accepted, without effect
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct RegenKey {
    #[command(flatten)]
    target: EndpointName,
    #[command(flatten)]
    choice: KeyChoice,
}

#[derive(Debug, Args)]
pub(super) struct GetLogs {
    #[command(flatten)]
    target: EndpointName,
    /// Name of the version [default: the only one, or the default]
    #[arg(long, visible_alias = "vn", value_name = "NAME")]
    version_name: Option<String>,
    /// How many lines at the end
    #[arg(long, short = 'l', alias = "num_lines", value_name = "N", default_value_t = 5000)]
    num_lines: u32,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    target: EndpointName,
    /// The body, or @FILE
    #[arg(long, short = 'd', value_name = "DATA")]
    input_data: String,
}

impl RealtimeGroup {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Shown> {
        match &self.verb {
            RealtimeVerb::CreateVersion(args) => {
                let made = args.knobs.read(None)?;
                change::create(
                    context,
                    &args.target.name,
                    args.version_name.as_deref(),
                    made,
                    args.waiting.no_wait,
                )
                .await?;
                endpoint(context, &args.target.name).await
            }
            RealtimeVerb::UpdateVersion(args) => {
                let made = args.knobs.read(None)?;
                change::update(
                    context,
                    &args.target.name,
                    args.version_name.as_deref(),
                    made,
                    args.waiting.no_wait,
                )
                .await?;
                endpoint(context, &args.target.name).await
            }
            RealtimeVerb::DeleteVersion(args) => {
                delete_deployment(context, &args.target.name, &args.version_name, args.waiting.no_wait).await
            }
            RealtimeVerb::Common(verb) => verb.run(context, false).await,
        }
    }
}

impl ServiceVerb {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Shown> {
        let Self::Common(verb) = self;
        verb.run(context, true).await
    }
}

impl Deploy {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Shown> {
        let mut made = self.knobs.read(Some(&self.endpoint))?;
        if let Some(target) = &self.compute_target {
            made.endpoint.insert("compute".into(), format!("azureml:{target}").into());
        }
        let (name, version) = (self.name.as_str(), self.version_name.as_deref());
        let no_wait = self.waiting.no_wait;
        if self.overwrite && change::exists(context, name, version.or(made.version.as_deref())).await? {
            change::replace(context, name, version, made, no_wait).await?;
        } else {
            change::create(context, name, version, made, no_wait).await?;
        }
        shown(context, name, version.is_none()).await
    }
}

impl CommonVerb {
    async fn run(&self, context: &Context<'_>, is_service: bool) -> anyhow::Result<Shown> {
        match self {
            Self::Show(target) => shown(context, &target.name, is_service).await,
            Self::List => list(context, is_service).await,
            Self::Update(args) => {
                let made = args.knobs.read(Some(&args.endpoint))?;
                change::update_all(context, &args.target.name, made, is_service, args.waiting.no_wait)
                    .await?;
                shown(context, &args.target.name, is_service).await
            }
            Self::Delete(args) => {
                delete_endpoint(context, &args.target.name, true, args.waiting.no_wait).await
            }
            Self::GetKeys(target) => {
                context.session.get(&path(&["endpoints", &target.name, "keys"])).await.map(Shown::Value)
            }
            Self::RegenKey(args) => regenerate_key(context, &args.target.name, &args.choice).await,
            Self::GetAccessToken(target) => token(context, &target.name).await,
            Self::GetLogs(args) => {
                let version =
                    change::version_of(context, &args.target.name, args.version_name.as_deref()).await?;
                logs(context, &args.target.name, &version, args.num_lines, "inference-server").await
            }
            Self::Run(args) => {
                let body = match args.input_data.strip_prefix('@') {
                    Some(file) => invoke::body(file.as_ref())?,
                    None => args.input_data.clone().into_bytes(),
                };
                let trust = context.trust()?;
                let answer = invoke::call(&context.session, &trust, &args.target.name, None, body).await?;
                Ok(Shown::Value(answer.into()))
            }
        }
    }
}

async fn endpoint(context: &Context<'_>, name: &str) -> anyhow::Result<Shown> {
    shown(context, name, false).await
}

async fn shown(context: &Context<'_>, name: &str, is_service: bool) -> anyhow::Result<Shown> {
    let object = context.session.get(&path(&["endpoints", name])).await?;
    one(context, &object, is_service).await.map(Shown::Value)
}

async fn one(context: &Context<'_>, object: &Value, is_service: bool) -> anyhow::Result<Value> {
    let name = object["name"].as_str().unwrap_or_default();
    let deployments = context.session.list(&path(&["endpoints", name, "deployments"])).await?;
    Ok(match is_service {
        true => view::service(object, &deployments),
        false => view::endpoint(object, &deployments),
    })
}

/// Endpoints of v1 only: those of v2 have verbs of their own.
async fn list(context: &Context<'_>, is_service: bool) -> anyhow::Result<Shown> {
    let mut found = Vec::new();
    for object in context.session.list("/endpoints").await? {
        if object["profile"].as_str().is_none_or(|profile| profile.starts_with("aks-v1")) {
            found.push(one(context, &object, is_service).await?);
        }
    }
    Ok(Shown::Value(Value::Array(found)))
}

/// A token in v1's words.
async fn token(context: &Context<'_>, name: &str) -> anyhow::Result<Shown> {
    let token = credentials(context, name).await?;
    anyhow::ensure!(token["accessToken"].is_string(), "{name} takes keys, not tokens; see get-keys");
    Ok(Shown::Value(serde_json::json!({
        "accessToken": token["accessToken"],
        "tokenType": token["tokenType"],
        "refreshAfter": token["refreshAfterTimeUtc"],
        "expiryOn": token["expiryTimeUtc"],
    })))
}
