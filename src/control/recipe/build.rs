//! A Python environment made from a list of packages.
//!
//! It is called after what it is made from, so deployments with the same packages share it. It is built where it stays,
//! because an environment cannot be moved, and it counts only with the mark that is written last. A lock lets one builder
//! work at a time; what a broken build leaves is removed, but for its log.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::process::Command;

use super::RecipeError;
use super::fields::read_text;
use super::tools::Interpreter;

/// File that only a complete environment has.
const MARK: &str = "scoregate-complete";
/// Lines of the log that an error repeats.
const TAIL: usize = 20;
/// Time between two looks at a lock that somebody else has.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// A Python environment that is, or is to be, made from a list of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonEnvironment {
    folder: PathBuf,
    interpreter: PathBuf,
    requirements: Vec<String>,
}

impl PythonEnvironment {
    /// Named by the digest of the interpreter's version and the requirements, files that they name included. Changes in
    /// a folder that is installed from (`-e ./package`) do not show.
    pub(super) fn of(
        cache: &Path,
        interpreter: Interpreter,
        requirements: Vec<String>,
    ) -> Result<Self, RecipeError> {
        let mut text = format!("{}\n{}\n", interpreter.identity, requirements.join("\n"));
        for line in &requirements {
            let file =
                ["-r ", "-c ", "--requirement ", "--constraint "].iter().find_map(|o| line.strip_prefix(o));
            let Some(file) = file.filter(|file| !file.contains("://")) else { continue };
            let content = read_text(Path::new(file)).map_err(|error| {
                RecipeError::missing(format!("`environment.conda_file`: `{line}`: {error}; correct the path"))
            })?;
            text.push_str(&content);
        }
        let digest: String = digest(&SHA256, text.as_bytes()).as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self { folder: cache.join(digest), interpreter: interpreter.program, requirements })
    }

    /// Whether it is complete.
    pub fn is_there(&self) -> bool {
        self.folder.join(MARK).is_file()
    }

    #[cfg(test)]
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program of it, whether it is there or not.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

/// Makes the environment if it is not there. Dropping the future ends the work; the next call begins anew.
pub async fn prepare(environment: &PythonEnvironment, progress: impl Fn(&str)) -> Result<(), RecipeError> {
    if environment.is_there() {
        return Ok(());
    }
    let lock = lock(environment, &progress).await?;
    if environment.is_there() {
        return Ok(());
    }
    let built = build(environment, &lock, &progress).await;
    if built.is_err() {
        // What stays is without its mark and is removed before the next build; the error that counts is the first.
        let _ = remove(&environment.folder).await;
    }
    built
}

async fn lock(environment: &PythonEnvironment, progress: impl Fn(&str)) -> Result<File, RecipeError> {
    let file = environment.folder.with_extension("lock");
    let failed = |error: io::Error| {
        RecipeError::build(format!("cannot lock the Python environment: {}: {error}", file.display()))
    };
    let parent = file.parent().unwrap_or(&environment.folder);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    let lock =
        File::options().create(true).truncate(false).write(true).read(true).open(&file).map_err(failed)?;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => {
                progress("waiting for another deployment that prepares the same Python environment");
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

async fn build(
    environment: &PythonEnvironment,
    lock: &File,
    progress: impl Fn(&str),
) -> Result<(), RecipeError> {
    let folder = &environment.folder;
    let failed = |error: io::Error| {
        RecipeError::build(format!("cannot make the Python environment {}: {error}", folder.display()))
    };
    progress("preparing the Python environment");
    remove(folder).await.map_err(failed)?;
    fs::DirBuilder::new().mode(0o700).create(folder).map_err(failed)?;
    fs::write(environment.log(), "").map_err(failed)?;
    let mut make = Command::new(&environment.interpreter);
    make.args(["-m", "venv"]).arg(folder);
    run(environment, lock, "`python -m venv` (on Debian it needs the package python3-venv)", make).await?;

    progress(&format!("installing Python packages ({} requirements)", environment.requirements.len()));
    let file = folder.join("requirements.txt");
    fs::write(&file, environment.requirements.join("\n") + "\n").map_err(failed)?;
    let mut install = Command::new(environment.program("python"));
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-r"]).arg(&file);
    run(environment, lock, "`pip install`", install).await?;

    let mark = File::create(folder.join(MARK)).map_err(failed)?;
    mark.sync_all().map_err(failed)
}

/// Runs a step with its output in the log. It has the lock as its input: should scoregate be killed, the lock lasts as
/// long as the step, and nobody builds in the same folder.
async fn run(
    environment: &PythonEnvironment,
    lock: &File,
    what: &str,
    mut command: Command,
) -> Result<(), RecipeError> {
    let log = environment.log();
    // Whoever builds a package runs code of others.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"SCOREGATE_") {
            command.env_remove(name);
        }
    }
    let run = async {
        let output = File::options().append(true).create(true).open(&log)?;
        command.stdin(Stdio::from(lock.try_clone()?)).stdout(output.try_clone()?).stderr(output);
        command.kill_on_drop(true).status().await
    };
    match run.await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            Err(RecipeError::build(format!(
                "the Python environment cannot be made: {what} failed ({status}); the end of {}:\n{}",
                log.display(),
                lines[lines.len().saturating_sub(TAIL)..].join("\n")
            )))
        }
        Err(error) => Err(RecipeError::build(format!(
            "the Python environment cannot be made: {what} cannot run: {error}"
        ))),
    }
}

/// Removes a folder, off the thread: an environment has thousands of files.
async fn remove(folder: &Path) -> io::Result<()> {
    let folder = folder.to_path_buf();
    let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(folder)).await;
    match removed.map_err(io::Error::other)? {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
