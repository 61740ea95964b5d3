//! `scoregate completions` and `scoregate man`: what shells and manuals want to know of the command line.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  scoregate completions bash > /etc/bash_completion.d/scoregate")]
pub struct CompletionsArgs {
    /// bash, zsh, fish
    shell: Shell,
}

/// Print the manual page, or write one for each command
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  scoregate man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Folder to write scoregate.1, scoregate-serve.1 … into
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints completions of this command line.
///
/// # Errors
/// The output cannot be written.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "scoregate", &mut text);
    print(&text)
}

/// Prints the manual page, or writes all of them.
///
/// # Errors
/// A file or the output cannot be written.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let Some(folder) = &args.dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).render(&mut text)?;
        return print(&text);
    };
    let shown = || format!("cannot write manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(shown)?;
    clap_mangen::generate_to(command, folder).with_context(shown)?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    Ok(ExitCode::SUCCESS)
}
