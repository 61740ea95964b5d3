//! `scoregate decide`: the rules of scaling on standard input and output, so that what a simulator tries is what a router
//! runs. The first line is the configuration, each line after it an evaluation; one line answers each evaluation.
//! Exit code 0: the input has ended, or nobody reads the answers; 1: the output cannot be written; 2: a bad line.

mod fields;
mod line;
mod overrides;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::core::scale::{self, Decision, History, Reason};
use crate::core::settings::{ScaleSettings, UtilizationScale};
use line::Config;
use overrides::{Override, Overrides};

/// Longest line that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Decide on the number of replicas for a simulator: JSON lines in, JSON lines out
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  python3 run.py --trace azure_code --policy 'exec:scoregate decide --policy adaptive'"
)]
pub struct DecideArgs {
    /// The rule
    #[arg(long, value_enum, default_value = "azureml")]
    policy: Policy,
    /// How long fewer replicas must have sufficed before some are removed, for azureml and azureml-strict. In a router it is
    /// 60 s under the profile aks-v1 and 20 polling intervals under the others
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    down_after: Duration,
    /// Count the queue as load under azureml-strict, as azureml-fe of v2 does
    #[arg(long)]
    count_queue: bool,
    /// Another value than that of the first line or the default: target_utilization_percentage, reject_budget_percentage,
    /// min_instances, max_instances (also with `scale_settings.`), request_settings.max_queue_wait_ms
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Override>,
    /// Add the numbers that led to each decision
    #[arg(long)]
    explain: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Policy {
    Azureml,
    AzuremlStrict,
    Adaptive,
}

/// An answer. Simulators look for the first key.
#[derive(Serialize)]
struct Answer {
    replicas: u32,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    numbers: Option<Reason>,
}

/// A line that cannot be used, or arguments that contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(String);

/// Answers line by line until the input ends.
///
/// # Errors
/// Standard input cannot be read or standard output not written.
pub fn run(args: &DecideArgs) -> anyhow::Result<ExitCode> {
    let done = serve(args, &mut io::stdin().lock(), &mut io::stdout().lock());
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if super::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<Unusable>() => {
            writeln!(io::stderr(), "scoregate: {error}")?;
            Ok(ExitCode::from(2))
        }
        Err(error) => Err(error),
    }
}

fn serve(args: &DecideArgs, input: &mut impl BufRead, output: &mut impl Write) -> anyhow::Result<()> {
    let overrides = Overrides::check(args.policy, &args.set)?;
    let mut text = Vec::new();
    let mut session: Option<Session> = None;
    for number in 1_u64.. {
        if !next(input, &mut text).with_context(|| format!("cannot read line {number}"))? {
            return Ok(());
        }
        let at = |why: String| Unusable(format!("line {number}: {why}"));
        if text.len() as u64 > LONGEST {
            return Err(at(format!("longer than {LONGEST} bytes")).into());
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let Some(session) = &mut session else {
            let config = line::config(&text).map_err(at)?;
            session = Some(Session::new(args, &overrides, config).map_err(at)?);
            continue;
        };
        let decision = session.answer(&text).map_err(at)?;
        let mut answer = serde_json::to_vec(&Answer {
            replicas: decision.desired,
            reason: decision.reason.to_string(),
            numbers: args.explain.then_some(decision.reason),
        })?;
        answer.push(b'\n');
        output.write_all(&answer)?;
        output.flush()?;
    }
    Ok(())
}

/// The next line, without reading one that does not end into memory; false at the end.
fn next(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<bool> {
    text.clear();
    Ok(io::Read::take(input, LONGEST + 1).read_until(b'\n', text)? > 0)
}

/// A run of a simulator.
struct Session {
    settings: ScaleSettings,
    overrides: Overrides,
    queue_wait: f64,
    history: History,
    last: Option<f64>,
}

impl Session {
    fn new(args: &DecideArgs, overrides: &Overrides, config: Config) -> Result<Self, String> {
        let (min, max) = overrides.bounds(config.min, config.max)?;
        let rule = UtilizationScale {
            policy: overrides.policy,
            min,
            max,
            interval: Duration::from_secs_f64(config.tick),
            target_percent: overrides.target_percent.unwrap_or_else(|| config.target_percent()),
            down_after: args.down_after,
            count_queue: args.count_queue,
        };
        Ok(Self {
            settings: ScaleSettings::Utilization(rule),
            overrides: *overrides,
            queue_wait: overrides.queue_wait.unwrap_or(config.queue_wait),
            history: History::default(),
            last: None,
        })
    }

    fn answer(&mut self, text: &[u8]) -> Result<Decision, String> {
        let mut seen = line::tick(text, self.last)?;
        self.last = Some(seen.t);
        (seen.min, seen.max) = self.overrides.bounds(seen.min, seen.max)?;
        seen.queue_wait = self.queue_wait;
        Ok(scale::decide(&self.settings, &mut self.history, &seen))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let most = Duration::from_secs(20 * 3600);
    let time = Duration::try_from_secs_f64(number).ok().filter(|time| *time <= most);
    time.ok_or_else(|| format!("must be from 0 to {} seconds", most.as_secs()))
}

#[cfg(test)]
mod tests;
