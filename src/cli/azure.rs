//! The verbs of Azure's command line, in its three dialects, against a running router's admin API: `online-endpoint` and
//! `online-deployment` of today, `endpoint` of 2021, `endpoint realtime`, `service` and `model deploy` of v1.
//!
//! Here are the groups, the flags that all verbs have, and the end of every verb: what it has found is printed, exit code
//! 0 done, 1 refused or failed, 2 wrong usage.

mod dialect;
mod document;
mod endpoint;
mod invoke;
mod online_deployment;
mod online_endpoint;
mod output;
mod session;
mod targets;
mod v1;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::output::{Form, Query, Shown};
use self::session::Session;
use super::admin::AdminArgs;
use super::http::tls::Trust;

pub use self::v1::ModelDeploy;

/// A wrong argument that shows only when several are seen together, or in a file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    /// Says what is wrong.
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The groups of verbs.
#[derive(Debug, Subcommand)]
pub enum Group {
    /// Endpoints: create, show, update, delete, invoke
    OnlineEndpoint(online_endpoint::Group),
    /// Deployments of an endpoint: create, show, update, delete, get-logs
    OnlineDeployment(online_deployment::Group),
    /// Endpoints as in 2021: one file with all deployments; `endpoint realtime` is v1
    Endpoint(Box<endpoint::Group>),
    /// Web services as in v1: show, list, update, run, delete
    Service(v1::ServiceGroup),
}

/// Flags of every verb.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Pick from what is printed (JMESPath), such as traffic.blue
    #[arg(long, value_name = "JMESPATH", global = true, value_parser = output::query, help_heading = "Output")]
    query: Option<Query>,
    /// Form of what is printed
    #[arg(long, short = 'o', value_name = "FORM", global = true, help_heading = "Output")]
    output: Option<Form>,
    #[command(flatten)]
    router: AdminArgs,
    #[command(flatten)]
    azure: AzureOnly,
}

/// What scripts for Azure say and what has no effect here.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted, without effect")]
struct AzureOnly {
    /// Azure's resource group
    #[arg(long, short = 'g', value_name = "NAME", global = true)]
    resource_group: Option<String>,
    /// Azure's workspace
    #[arg(long, short = 'w', value_name = "NAME", global = true)]
    workspace_name: Option<String>,
    /// Azure's subscription
    #[arg(long, alias = "subscription-id", value_name = "ID", global = true)]
    subscription: Option<String>,
    /// Azure's registry
    #[arg(long, value_name = "NAME", global = true)]
    registry_name: Option<String>,
    /// More log
    #[arg(long, global = true)]
    verbose: bool,
    /// Much more log
    #[arg(long, global = true)]
    debug: bool,
    /// Errors only
    #[arg(long, global = true)]
    only_show_errors: bool,
    /// Not served here
    #[arg(long, global = true, hide = true)]
    local: bool,
}

/// A verb at work.
struct Context<'a> {
    session: Session,
    common: &'a Common,
}

impl Context<'_> {
    fn trust(&self) -> anyhow::Result<Trust> {
        self.common.router.trust()
    }
}

/// Runs a verb.
///
/// # Errors
/// [`Usage`], or whatever keeps the verb from being done.
pub fn run(group: &Group) -> anyhow::Result<ExitCode> {
    match group {
        Group::OnlineEndpoint(group) => conduct(&group.common, async |context| group.verb.run(context).await),
        Group::OnlineDeployment(group) => {
            conduct(&group.common, async |context| group.verb.run(context).await)
        }
        Group::Endpoint(group) => conduct(&group.common, async |context| group.verb.run(context).await),
        Group::Service(group) => conduct(&group.common, async |context| group.verb.run(context).await),
    }
}

/// Runs v1's `model deploy`.
///
/// # Errors
/// As [`run`].
pub fn deploy_model(args: &ModelDeploy) -> anyhow::Result<ExitCode> {
    conduct(&args.common, async |context| args.deploy.run(context).await)
}

fn conduct(
    common: &Common,
    verb: impl AsyncFnOnce(&Context<'_>) -> anyhow::Result<Shown>,
) -> anyhow::Result<ExitCode> {
    if common.azure.local {
        return Err(Usage(
            "--local is not needed: everything is local here. Leave it out, and run \"scoregate serve --state\"".into(),
        )
        .into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let session = Session::new(common.router.router(None)?);
    let shown = runtime.block_on(verb(&Context { session, common }))?;
    match output::print(shown, common.query.as_ref(), common.output, &mut io::stdout().lock()) {
        Err(error) if super::is_broken_pipe(&error) => {}
        result => result?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks before something is lost.
fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Usage(format!("{question} Nobody can be asked here; give --yes")).into());
    }
    let mut stderr = io::stderr();
    write!(stderr, "{question} (y/N): ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => anyhow::bail!("nothing was changed"),
    }
}

/// The command line without what only says that it is meant for Azure's machine learning: `scoregate ml …`, and `az ml …`
/// where `az` is a link to scoregate.
pub fn without_ml(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|first| first == "ml") {
        arguments.remove(1);
    }
    // Help and errors name the program as it was called.
    if let Some(program) = arguments.first_mut()
        && let Some(name) = Path::new(program).file_name()
    {
        *program = name.to_owned();
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ml_in_front_is_dropped_and_nowhere_else() {
        let of = |line: &str| {
            let made = without_ml(line.split(' ').map(OsString::from));
            made.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(of("/usr/bin/az ml online-endpoint list"), "az online-endpoint list");
        assert_eq!(of("scoregate endpoint show -n ml"), "scoregate endpoint show -n ml");
        assert_eq!(of("scoregate"), "scoregate");
    }
}
