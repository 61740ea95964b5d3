//! `scoregate load`: a load generator, with which users see for themselves what their endpoint does. Exit code 0: the
//! run has shown something; 1: it could not begin, or not one request succeeded; 2: wrong arguments.
//!
//! When requests are due (`schedule`), what was seen (`tally`, `sse`, `server_timing`) and what is told of it (`report`,
//! `table`) are decided without a clock or a socket; `generator`, `exchange` and `client` do the work, on one thread.

mod args;
mod client;
mod exchange;
mod failure;
mod generator;
mod histogram;
mod pacer;
mod plan;
mod progress;
mod report;
mod schedule;
mod server_timing;
mod sse;
mod table;
mod tally;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::SecretString;
use tokio::task::LocalSet;

pub use self::args::{LoadArgs, Output};
use self::client::Client;
use self::generator::{Generator, Interrupts};
use self::plan::{Plan, PlanError};
use self::report::Report;
use crate::shutdown::Tasks;

/// Runs the command.
///
/// # Errors
/// A file cannot be read, the host is not known, there are no certificates to trust, or standard output cannot be
/// written.
pub fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let key = std::env::var("SCOREGATE_KEY").ok().filter(|key| !key.is_empty()).map(SecretString::from);
    let plan = match Plan::new(args, key) {
        Ok(plan) => plan,
        Err(PlanError::Usage(text)) => {
            let text = format!("{text}\n\nFor more information, try 'scoregate load --help'.\n");
            // Standard error may be closed; the exit code says it too.
            let _ = clap::Error::raw(clap::error::ErrorKind::ValueValidation, text).print();
            return Ok(ExitCode::from(2));
        }
        Err(error @ PlanError::File { .. }) => return Err(error.into()),
    };
    raise_file_limit();
    // Answers are looked for after every round of tasks: what came is timed when it comes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build()?;
    let report = runtime.block_on(LocalSet::new().run_until(generate(plan)));
    // A look-up of a name may still hang.
    runtime.shutdown_background();
    let report = report?;
    match show(&report, args.output) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    Ok(if report.requests.succeeded > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn generate(plan: Plan) -> anyhow::Result<Report> {
    let tasks = Tasks::new();
    let mut signals = Interrupts::new().context("cannot listen to signals")?;
    let client = tokio::select! {
        client = Client::new(&plan, tasks.clone()) => client?,
        () = signals.next() => anyhow::bail!("ended before the first request"),
    };
    let generator = Rc::new(Generator::new(plan, client, tasks));
    let start = Instant::now();
    let ending = if io::stderr().is_terminal() {
        let ending = tokio::select! {
            ending = generator.run(start, &mut signals) => ending,
            () = progress::show(&generator, start) => unreachable!("it draws for ever"),
        };
        progress::clear();
        ending
    } else {
        generator.run(start, &mut signals).await
    };
    let ending = ending.context("cannot wait for the time of a request")?;
    let tally = generator.tally.borrow();
    Ok(Report::new(&generator.plan, &tally, ending, generator.client.opened()))
}

fn show(report: &Report, form: Option<Output>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let default = if out.is_terminal() { Output::Table } else { Output::Json };
    match form.unwrap_or(default) {
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, report)?;
            out.write_all(b"\n")?;
        }
        Output::Table => table::write(report, &mut out)?,
    }
    out.flush()
}

/// A descriptor a connection: as many as the system allows, since the usual soft limit of 1,024 is soon reached.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without it, connections beyond the limit fail and are counted.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
