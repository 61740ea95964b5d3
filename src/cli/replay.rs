//! `scoregate replay`: what a recording would have been with other settings, beside what it was; and whether the scale rule
//! still says what it said. Exit code 0: told, and the rule says the same; 1: it does not, or the recording cannot be used;
//! 2: wrong arguments.

mod effect;
mod read;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{anyhow, bail};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::explain::Form;
use crate::config;
use crate::core::replay::{Figures, Verified, simulate, verify};
use crate::core::settings::DeploymentSettings;
use read::{Deployment, Recording};

/// Replay a recording in virtual time: with its own settings, and with others.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  scoregate replay recording/*.jsonl --set scale_settings.policy=adaptive --set request_settings.max_queue_wait_ms=2000"
)]
pub struct ReplayArgs {
    /// Files of one recording
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Another value for a setting of a deployment, named as in the configuration file
    #[arg(long, value_name = "PATH=VALUE", value_parser = setting)]
    set: Vec<(String, Value)>,
    /// Only this endpoint
    #[arg(long, short = 'e', value_name = "NAME")]
    endpoint: Option<String>,
    /// Only this deployment
    #[arg(long, short = 'd', value_name = "NAME")]
    deployment: Option<String>,
    /// Form of what is printed [default: table on a terminal, json in a pipe]
    #[arg(long, short = 'o', value_enum)]
    output: Option<Form>,
}

/// What is told of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Replayed {
    /// When the run began, in seconds since 1970.
    started_unix_seconds: f64,
    /// Lines that the recording says are missing.
    lost_lines: u64,
    /// Lines that cannot be read.
    unreadable_lines: u64,
    deployments: Vec<DeploymentReplayed>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct DeploymentReplayed {
    endpoint: String,
    deployment: String,
    /// From the first line to the end of the last request.
    seconds: f64,
    /// The rule, asked again with what it saw.
    verified: Verified,
    happened: Figures,
    /// In virtual time, with the recorded settings.
    simulated: Figures,
    /// In virtual time, with other settings; absent where none were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<Figures>,
}

/// Runs the command.
///
/// # Errors
/// The files cannot be read or are not of one recording, the settings are wrong, or standard output cannot be written.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let replayed = replay(args)?;
    let same = replayed.deployments.iter().all(|one| one.verified.is_as_expected());
    let out = &mut io::stdout().lock();
    let shown = match Form::or_by_terminal(args.output) {
        Form::Json => json(&replayed, out),
        Form::Table => table::write(&replayed, out).map_err(Into::into),
    };
    match shown {
        Err(error) if !super::is_broken_pipe(&error) => Err(error),
        _ if same => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

impl Verified {
    /// A rule whose beginning is not in the recording may say something else until it has forgotten it.
    fn is_as_expected(&self) -> bool {
        self.differences == 0 || !self.from_the_beginning
    }
}

fn json(replayed: &Replayed, out: &mut impl Write) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, replayed)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

fn replay(args: &ReplayArgs) -> anyhow::Result<Replayed> {
    let recording = Recording::read(&args.files)?;
    let fits = |asked: &Option<String>, name: &str| {
        asked.as_ref().is_none_or(|asked| asked.eq_ignore_ascii_case(name))
    };
    let started = SignedDuration::try_from_secs_f64(recording.started_unix_seconds).ok();
    let started = started.and_then(|since| Timestamp::from_duration(since).ok()).unwrap_or_default();
    let (chosen, others): (Vec<_>, Vec<_>) = recording
        .deployments
        .into_iter()
        .partition(|one| fits(&args.endpoint, &one.endpoint) && fits(&args.deployment, &one.name));
    if chosen.is_empty() {
        let there = others.iter().map(|one| format!("{}/{}", one.endpoint, one.name));
        bail!("the recording has no such deployment; it has: {}", there.collect::<Vec<_>>().join(", "));
    }
    drop(others);
    let deployments: Vec<_> =
        chosen.into_iter().map(|one| deployment(one, started, &args.set)).collect::<Result<_, _>>()?;
    Ok(Replayed {
        started_unix_seconds: recording.started_unix_seconds,
        lost_lines: recording.lost,
        unreadable_lines: recording.unreadable,
        deployments,
    })
}

fn deployment(
    one: Deployment,
    started: Timestamp,
    changes: &[(String, Value)],
) -> anyhow::Result<DeploymentReplayed> {
    let Deployment { endpoint, name, begin, notes } = one;
    let names = (endpoint.as_str(), name.as_str());
    let (script, happened) = notes.script(started, |block| settings(names, block, &[]))?;
    // What is wrong with them is told before anything is lived.
    let others = script.others(|block| settings(names, block, changes))?;
    changes.iter().try_for_each(|(path, value)| effect::check(path, value))?;
    let origin = Instant::now();
    let (verified, simulated) = (verify(&script.steps), simulate(&script, origin));
    let seconds = script.end.saturating_sub(begin) as f64 / 1e9;
    let changed = (!changes.is_empty()).then(|| simulate(&script.with(others), origin));
    Ok(DeploymentReplayed { endpoint, deployment: name, seconds, verified, happened, simulated, changed })
}

/// By the checks of the configuration file.
fn settings(
    (endpoint, deployment): (&str, &str),
    block: &Value,
    changes: &[(String, Value)],
) -> anyhow::Result<Arc<DeploymentSettings>> {
    config::replayed((endpoint, deployment), block, changes).map_err(|report| {
        let set: Vec<_> =
            changes.iter().map(|(path, value)| format!("--set {path}={}", bare(value))).collect();
        match set.is_empty() {
            true => anyhow!("the recorded settings of {endpoint}/{deployment} are not valid:\n{report}"),
            false => anyhow!("{endpoint}/{deployment} cannot be with {}:\n{}", set.join(" "), said(&report)),
        }
    })
}

/// What is wrong and what to do, without places in a text that the user has not written.
fn said(report: &config::Report) -> String {
    let found = report.errors().map(|found| match &found.help {
        Some(help) => format!("{}; {help}", found.message),
        None => found.message.clone(),
    });
    found.collect::<Vec<_>>().join("\n")
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `PATH=VALUE`; a value that is no JSON is a text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (path, value) = text.split_once('=').ok_or("a setting is PATH=VALUE")?;
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err("the path is like scale_settings.policy".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((path.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_path_and_a_value() {
        assert_eq!(
            setting("scale_settings.policy=adaptive"),
            Ok(("scale_settings.policy".into(), "adaptive".into()))
        );
        assert_eq!(setting("a.b=12"), Ok(("a.b".into(), 12.into())));
        for wrong in ["a.b", "=1", "a..b=1", ".a=1"] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_setting_that_cannot_be_names_its_key() {
        let block = serde_json::json!({ "scale_settings": { "type": "target_utilization" } });
        for (path, value, expected) in [
            ("scale_settings.polcy", Value::from("adaptive"), "did you mean `policy`?"),
            ("scale_settings.target_utilization_percentage", Value::from(170), "170"),
            ("request_settings.max_queue_wait_ms", Value::from("soon"), "soon"),
            ("scale_settings.policy.deep", Value::from(1), "`policy` must be one of"),
            ("scale_settings.type.deep", Value::from(1), "`scale_settings.type` is a value"),
            ("scale_settings", Value::from(1), "`scale_settings` must be a mapping, not `1`"),
        ] {
            let changes = [(path.to_owned(), value)];
            let error = settings(("demo", "blue"), &block, &changes).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(path), "{path}: {error}");
        }
        let changes = [("scale_settings.policy".to_owned(), Value::from("adaptive"))];
        assert!(settings(("demo", "blue"), &block, &changes).is_ok());
    }
}
