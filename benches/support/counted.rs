//! The program under callgrind: started with a configuration, ended by a signal, and asked for its instructions.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Longest start; some two seconds where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fails with what to install where there is no valgrind.
pub(crate) fn find_valgrind() -> anyhow::Result<()> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    found.ok().filter(|status| status.success()).map(drop).ok_or_else(|| {
        anyhow!("this bench needs valgrind, which is not there; install it (apt-get install valgrind)")
    })
}

/// What is counted, with all that it calls: the work of requests. The control thread is left out, and so is the thread that
/// calibrates a clock while the router starts: what they do goes by the clock, and would make every run another.
const WORKER: &str = "scoregate::data::worker::run";
const WRITER: &str = "scoregate::observe::lines::writer::Writer<W>::run";

/// A router whose instructions are counted; killed when it is dropped.
pub(crate) struct Router {
    process: Child,
    counts: PathBuf,
    log: PathBuf,
    /// Where clients call.
    pub(crate) address: SocketAddr,
}

impl Router {
    /// Starts with a configuration and waits for its address. Its files in `folder` begin with `name`.
    pub(crate) fn start(folder: &Path, name: &str, configuration: &str) -> anyhow::Result<Self> {
        let file = |suffix: &str| folder.join(format!("{name}.{suffix}"));
        let (counts, log) = (file("callgrind"), file("log"));
        for old in files_of_threads(&counts)? {
            std::fs::remove_file(old)?;
        }
        std::fs::write(file("yaml"), configuration)?;
        let mut process = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet", "--separate-threads=yes"])
            .args([WORKER, WRITER].map(|function| format!("--toggle-collect={function}")))
            .arg(format!("--callgrind-out-file={}", counts.display()))
            .args([env!("CARGO_BIN_EXE_scoregate"), "serve"])
            .arg(file("yaml"))
            .env("SCOREGATE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("valgrind does not start")?;
        let stdout = process.stdout.take().expect("it is piped");
        let (found, address) = channel();
        thread::spawn(move || {
            // To the end, so that the router never waits for a reader.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("data") {
                    let _ = found.send(url.trim_start().trim_start_matches("http://").parse());
                }
            }
        });
        let Ok(Ok(address)) = address.recv_timeout(PATIENCE) else {
            let _ = process.kill();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the router printed no address within {PATIENCE:?}; it said:\n{said}");
        };
        Ok(Self { process, counts, log, address })
    }

    /// Ends it and gives the instructions of the threads whose work is requests.
    pub(crate) fn instructions(mut self) -> anyhow::Result<Instructions> {
        let id = Pid::from_raw(self.process.id().cast_signed()).expect("a process has an id");
        kill_process(id, Signal::TERM)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the router ended with {status}; its log is {}", self.log.display());
        let mut found = Instructions::default();
        for path in files_of_threads(&self.counts)? {
            let counts = std::fs::read_to_string(&path)?;
            let total = counts.lines().find_map(|line| line.strip_prefix("totals: "));
            let total = total.and_then(|total| total.trim().parse::<u64>().ok());
            let total = total.with_context(|| format!("{} has no total", path.display()))?;
            if counts.contains(WORKER) {
                found.worker += total;
            } else if counts.contains(WRITER) {
                found.access_log += total;
            }
        }
        let all_found = found.worker > 0 && found.access_log > 0;
        ensure!(all_found, "{} names no worker or no writer of the access log", self.counts.display());
        Ok(found)
    }
}

/// Instructions by thread.
#[derive(Clone, Copy, Default)]
pub(crate) struct Instructions {
    pub(crate) worker: u64,
    pub(crate) access_log: u64,
}

/// Callgrind writes one file for each thread, with `-01` and so on after the name that it was given.
fn files_of_threads(counts: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let prefix = format!("{}-", counts.display());
    let folder = counts.parent().context("files are in a folder")?;
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    Ok(paths.filter(|path| path.to_string_lossy().starts_with(&prefix)).collect())
}

impl Drop for Router {
    fn drop(&mut self) {
        // It has ended unless something failed before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
