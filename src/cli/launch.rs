//! `scoregate launch`: stands between scoregate and a replica's command, so that nothing of the replica outlives
//! either of them.
//!
//! Its standard input is a pipe that scoregate holds open. When the pipe closes, because scoregate wants the
//! replica to end or because it was killed, the whole process group gets SIGTERM and, after a grace period,
//! whatever is left gets SIGKILL. As a subreaper it also inherits, and ends, what the command leaves behind.
//! Should this process itself be killed, the parent-death signal ends the command; hence the two steps: the
//! first keeps watch, the second (`--under`) sets the signal and becomes the command.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::process::{self, Pid, Signal, WaitOptions, WaitStatus};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{Instant, timeout, timeout_at};

/// Exit code when the command cannot be started, as in shells.
const CANNOT_START: u8 = 127;
/// Exit code when this program itself fails, as of `env` and `timeout`.
const OWN_FAILURE: u8 = 125;
/// Longest time in which killed processes must be gone; longer means that they hang in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// Flags of `scoregate launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Milliseconds between SIGTERM and SIGKILL.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    stop_timeout_ms: u64,
    /// Process that this one must not outlive; then it becomes the command (second step).
    #[arg(long, value_name = "PID", hide = true)]
    under: Option<i32>,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command to its end. The exit code is the command's own, or 128 plus the signal that killed it.
pub fn run(args: &LaunchArgs) -> ExitCode {
    if let Some(parent) = args.under {
        return ExitCode::from(become_command(parent, &args.command));
    }
    // Processes are often ended by name; the name of this one must not be that of scoregate, or it would go
    // together with the scoregate that it outlives on purpose. A failure only loses this convenience.
    let _ = std::fs::write("/proc/self/comm", "replica-keeper");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = runtime.and_then(|runtime| runtime.block_on(keep(args))).unwrap_or_else(|error| {
        say(&format!("cannot watch over the command: {error}"));
        OWN_FAILURE
    });
    ExitCode::from(code)
}

/// The second step: does not return unless the command cannot be started.
fn become_command(parent: i32, command: &[OsString]) -> u8 {
    let Some((program, arguments)) = command.split_first() else { return OWN_FAILURE };
    // SIGTERM, not SIGKILL: a server with workers of its own must get the chance to end them.
    if let Err(error) = process::set_parent_process_death_signal(Some(Signal::TERM)) {
        say(&format!("cannot set the parent-death signal: {error}"));
        return OWN_FAILURE;
    }
    // The parent may have died before the signal was set.
    if process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        return OWN_FAILURE;
    }
    let error = Command::new(program).args(arguments).exec();
    say(&format!("cannot start {}: {error}", program.display()));
    CANNOT_START
}

/// The first step: starts the second one and waits for its end, or for the order to end it.
async fn keep(args: &LaunchArgs) -> io::Result<u8> {
    let mut terminate = unix::signal(SignalKind::terminate())?;
    let mut owner = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut family = Family::start(args)?;

    tokio::select! {
        () = closed(&mut owner) => {}
        _ = terminate.recv() => {}
        ended = family.command_ended() => ended?,
    }
    family.end_all(Duration::from_millis(args.stop_timeout_ms)).await?;
    Ok(family.exit_code())
}

/// Completes when the other end of the pipe is closed; what is written to it means nothing.
async fn closed(owner: &mut pipe::Receiver) {
    let mut ignored = [0; 64];
    while let Ok(1..) = owner.read(&mut ignored).await {}
}

/// The command and everything that it started.
struct Family {
    command: Pid,
    status: Option<WaitStatus>,
    /// A child has ended.
    ended: unix::Signal,
}

impl Family {
    /// Starts the command in this process group. This thread is the only one and lives as long as the
    /// process, which matters: the parent-death signal follows the thread, not the process.
    fn start(args: &LaunchArgs) -> io::Result<Self> {
        let ended = unix::signal(SignalKind::child())?;
        let own = process::getpid();
        process::set_child_subreaper(Some(own))?;
        let mut step = Command::new(std::env::current_exe()?);
        step.args(["launch", "--under", &own.to_string(), "--"]).args(&args.command).stdin(Stdio::null());
        let pid = step.spawn()?.id();
        let command = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process has a positive id");
        Ok(Self { command, status: None, ended })
    }

    /// Completes when the command itself has ended.
    async fn command_ended(&mut self) -> io::Result<()> {
        while !self.reap()? && self.status.is_none() {
            self.ended.recv().await;
        }
        Ok(())
    }

    /// Completes when no descendant is left.
    async fn all_ended(&mut self) -> io::Result<()> {
        while !self.reap()? {
            self.ended.recv().await;
        }
        Ok(())
    }

    /// Buries the dead; whether nobody is left.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.command => self.status = Some(status),
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return Ok(false),
                Err(rustix::io::Errno::CHILD) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// SIGTERM, `grace`, SIGKILL.
    async fn end_all(&mut self, grace: Duration) -> io::Result<()> {
        if self.reap()? {
            return Ok(());
        }
        // Reaches this process as well, where it is caught.
        process::kill_current_process_group(Signal::TERM)?;
        if let Ok(ended) = timeout(grace, self.all_ended()).await {
            return ended;
        }
        let deadline = Instant::now() + KILL_WAIT;
        // The children of a killed process become children of this one: several rounds.
        while Instant::now() < deadline {
            for child in children() {
                // It may have ended by itself.
                let _ = process::kill_process(child, Signal::KILL);
            }
            let round = Instant::now() + Duration::from_millis(20);
            if let Ok(ended) = timeout_at(round, self.all_ended()).await {
                return ended;
            }
        }
        // The list of children is not to be had on this system: the group, which ends this process too.
        process::kill_current_process_group(Signal::KILL)?;
        Ok(())
    }

    fn exit_code(&self) -> u8 {
        let Some(status) = self.status else { return OWN_FAILURE };
        let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(OWN_FAILURE)
    }
}

/// Processes whose parent is this one (this thread, the only one); empty where the kernel does not tell.
fn children() -> Vec<Pid> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)).collect()
}

/// One line to standard error, which scoregate may have closed.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "scoregate launch: {text}");
}
