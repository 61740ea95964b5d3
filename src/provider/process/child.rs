//! The life of one replica that is a child process: start, output, stop, and how it ended.
//!
//! The process that is started is `scoregate launch` (see there), which holds the end of a pipe: closing the
//! pipe ends the replica and everything that it started, and so does the death of this process.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot};

use super::log::LogTail;
use super::output::{LastLine, forward};
use super::port::Port;
use crate::core::admission::ReplicaId;
use crate::core::settings::ProcessSettings;

/// How long `scoregate launch` may take beyond the stop timeout before it is killed with its group.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// How long output is still read after the end; a process that got away may hold the pipe open for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(250);

/// Characters of the last line that go into a reason.
const LAST_WORDS: usize = 300;

/// What is to be started.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: ReplicaId,
    pub(super) name: Arc<str>,
    pub(super) port: Port,
    pub(super) settings: Arc<ProcessSettings>,
    /// The program scoregate.
    pub(super) program: PathBuf,
    /// Environment variables that the replica does not get.
    pub(super) hidden: Arc<BTreeSet<String>>,
    /// Where its last lines are kept.
    pub(super) log: LogTail,
}

/// How a replica ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: ReplicaId,
    pub(super) reason: String,
    /// Another program listens on the replica's port.
    pub(super) port_taken: bool,
}

/// Runs a replica until it ends by itself or `stop` is sent or dropped; then nothing of it is left.
pub(super) async fn run(order: Order, stop: oneshot::Receiver<()>) -> Ended {
    let reason = match start(&order) {
        Ok(child) => live(child, &order, stop).await,
        Err(error) => cannot_start(&order, &error),
    };
    Ended { id: order.id, reason, port_taken: order.port.is_taken() }
}

fn start(order: &Order) -> io::Result<Child> {
    let settings = &order.settings;
    let fill = |text: &String| {
        text.replace("{port}", &order.port.number().to_string())
            .replace("{replica}", &order.name)
            .replace("{scoregate}", &order.program.to_string_lossy())
    };
    let mut command = Command::new(&order.program);
    command.arg("launch").arg("--stop-timeout-ms").arg(settings.stop_timeout.as_millis().to_string());
    command.arg("--").args(settings.command.iter().map(fill));
    // Settings of scoregate itself may hold its secrets, too.
    for (name, _) in std::env::vars_os() {
        let is_secret = name.to_str().is_some_and(|name| order.hidden.contains(name));
        if is_secret || name.as_encoded_bytes().starts_with(b"SCOREGATE_") {
            command.env_remove(name);
        }
    }
    command.env("PORT", order.port.number().to_string());
    command.envs(settings.environment.iter().map(|(name, value)| (name, fill(value))));
    if let Some(directory) = &settings.directory {
        command.current_dir(directory);
    }
    // A group of its own: a Ctrl-C at scoregate's terminal must not reach replicas that still have requests.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

fn cannot_start(order: &Order, error: &io::Error) -> String {
    match &order.settings.directory {
        Some(directory) if !directory.is_dir() => {
            format!("cannot start: the working directory {} does not exist", directory.display())
        }
        _ => format!("cannot start {}: {error}", order.program.display()),
    }
}

/// From start to end; the reason for the end.
async fn live(mut child: Child, order: &Order, stop: oneshot::Receiver<()>) -> String {
    let stdout = child.stdout.take().expect("was asked for");
    let stderr = child.stderr.take().expect("was asked for");
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let last = LastLine::default();
    let over = Notify::new();

    let ending = async {
        let status = end(&mut child, group, stop, order.settings.stop_timeout).await;
        over.notify_one();
        status
    };
    let reading = async {
        tokio::select! {
            () = forward(&order.name, stdout, stderr, &last, &order.log) => {}
            () = async { over.notified().await; tokio::time::sleep(LAST_OUTPUT).await } => {}
        }
    };
    let (status, ()) = tokio::join!(ending, reading);
    // Left over only when `scoregate launch` was itself killed.
    kill_group(group);
    describe(status, &last.get())
}

async fn end(
    child: &mut Child,
    group: Option<Pid>,
    stop: oneshot::Receiver<()>,
    stop_timeout: Duration,
) -> io::Result<ExitStatus> {
    // `wait` closes the input of the child unless it is taken out before.
    let pipe = child.stdin.take();
    tokio::select! {
        status = child.wait() => return status,
        // An error means that the sender is gone, which is an order to stop as well.
        _ = stop => {}
    }
    drop(pipe);
    if let Ok(status) = tokio::time::timeout(stop_timeout + STOP_MARGIN, child.wait()).await {
        return status;
    }
    kill_group(group);
    child.wait().await
}

fn kill_group(group: Option<Pid>) {
    if let Some(group) = group {
        // An error means that nobody is left.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// For people: how it ended, and its last words.
fn describe(status: io::Result<ExitStatus>, last_line: &str) -> String {
    let how = match status {
        Ok(status) => match status.code() {
            // `scoregate launch` reports signals as shells do.
            Some(code @ 129..=192) => format!("killed by signal {}", code - 128),
            Some(code) => format!("exit code {code}"),
            None => status.to_string(),
        },
        Err(error) => format!("cannot wait for it: {error}"),
    };
    if last_line.is_empty() {
        return how;
    }
    let words: String = last_line.chars().take(LAST_WORDS).collect();
    format!("{how}; last line on stderr: {words}")
}
