//! The command `scoregate`: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use scoregate::cli::{
    azure, check, decide, explain, launch, load, model, papers, replay, scale, serve, sidecar, status,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An inference router: keys and tokens, traffic split, exact slots, a queue, and replicas that scale.
#[derive(Parser, Debug)]
#[command(name = "scoregate", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Check(check::Args),
    Completions(papers::CompletionsArgs),
    Decide(decide::DecideArgs),
    Explain(Box<explain::ExplainArgs>),
    #[command(hide = true)]
    Launch(launch::LaunchArgs),
    Load(Box<load::LoadArgs>),
    Man(papers::ManArgs),
    Scale(Box<scale::ScaleArgs>),
    /// Run a synthetic model server, for demos, tests and load; `model deploy` is Azure's v1
    Model(Box<ModelCommand>),
    Replay(replay::ReplayArgs),
    Serve(serve::Args),
    Sidecar(Box<sidecar::Args>),
    Status(status::StatusArgs),
    #[command(flatten)]
    Azure(Box<azure::Group>),
}

/// `model` was a word of Azure's v1 before it was ours.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
struct ModelCommand {
    #[command(flatten)]
    serve: model::ModelArgs,
    #[command(subcommand)]
    verb: Option<ModelVerb>,
}

#[derive(Subcommand, Debug)]
enum ModelVerb {
    /// Deploy a model as a service, as in Azure's v1
    #[command(
        after_help = "Example:\n  scoregate model deploy -n my-service -m ./model.pkl --ic inferenceconfig.json --dc deploymentconfig.json"
    )]
    Deploy(azure::ModelDeploy),
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(azure::without_ml(std::env::args_os()));
    if let Command::Launch(args) = &cli.command {
        // Its standard error is the replica's, and it must stay as small as it can.
        return launch::run(args);
    }
    log_to_stderr(&cli.command);
    let done = match cli.command {
        Command::Azure(group) => azure::run(&group),
        Command::Check(args) => check::run(&args),
        Command::Completions(args) => papers::completions(&args, Cli::command()),
        Command::Decide(args) => decide::run(&args),
        Command::Explain(args) => explain::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Launch(_) => unreachable!("dispatched above"),
        Command::Load(args) => load::run(&args),
        Command::Man(args) => papers::man(&args, Cli::command()),
        Command::Model(command) => match command.verb {
            Some(ModelVerb::Deploy(args)) => azure::deploy_model(&args),
            None => model::run(command.serve).map(|()| ExitCode::SUCCESS),
        },
        Command::Replay(args) => replay::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Sidecar(args) => sidecar::run(&args),
        Command::Status(args) => status::run(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        report(&error);
        if error.is::<azure::Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

#[expect(clippy::print_stderr, reason = "the one place where an error of a command is told")]
fn report(error: &anyhow::Error) {
    eprintln!("scoregate: {error:#}");
}

/// Level by `SCOREGATE_LOG` (error, warn, info, debug, trace; default info); JSON lines unless it is a terminal. A load
/// generator counts failures and tells each kind once, so that nothing is logged for each of them.
fn log_to_stderr(command: &Command) {
    use std::io::IsTerminal as _;
    use tracing_subscriber::filter::LevelFilter;
    let default = if matches!(command, Command::Load(_)) { LevelFilter::OFF } else { LevelFilter::INFO };
    let level = std::env::var("SCOREGATE_LOG").ok().and_then(|level| level.parse().ok());
    let builder = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(default))
        .with_writer(std::io::stderr)
        // They would go to standard error as well, by a macro that panics when it is gone.
        .log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
