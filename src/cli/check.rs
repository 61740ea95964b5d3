//! `scoregate check FILE`: is the file right, and what does it mean with all defaults?

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config;

/// Check a configuration file: tell every mistake, or what it means with all defaults
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration file (YAML).
    pub file: PathBuf,
}

/// Prints the effective settings on standard output, findings on standard error. The exit code is 0 for a
/// file that can be used, with or without warnings, and 1 for one that cannot.
///
/// # Errors
/// When standard output or standard error cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    match config::load(&args.file) {
        Ok(config::Loaded { settings, warnings }) => {
            for warning in &warnings {
                writeln!(err, "{warning}")?;
            }
            out.write_all(config::effective(&settings).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(report) => {
            writeln!(err, "{report}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
