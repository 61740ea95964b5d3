//! The command `scoregate`: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use scoregate::cli::{check, launch, load, model, serve, sidecar, status};

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
    #[command(hide = true)]
    Launch(launch::LaunchArgs),
    Load(Box<load::LoadArgs>),
    /// Run a synthetic model server, for demos, tests and load
    Model(model::ModelArgs),
    Serve(serve::Args),
    Sidecar(Box<sidecar::Args>),
    Status(status::StatusArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Launch(args) = &cli.command {
        // Its standard error is the replica's, and it must stay as small as it can.
        return launch::run(args);
    }
    log_to_stderr(&cli.command);
    let done = match cli.command {
        Command::Check(args) => check::run(&args),
        Command::Launch(_) => unreachable!("dispatched above"),
        Command::Load(args) => load::run(&args),
        Command::Model(args) => model::run(args).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => serve::run(&args),
        Command::Sidecar(args) => sidecar::run(&args),
        Command::Status(args) => status::run(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        report(&error);
        ExitCode::FAILURE
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
    let builder =
        tracing_subscriber::fmt().with_max_level(level.unwrap_or(default)).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
