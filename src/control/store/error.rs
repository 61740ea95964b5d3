//! What can go wrong with the state directory, said so that an operator knows what to do. No message holds a value
//! from a file.

use std::io;
use std::path::{Path, PathBuf};

/// Why the state cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file that cannot be understood. Nothing was changed.
    #[error("{}{}: {problem}; {help}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Where in it, from 1.
        line: Option<u64>,
        /// What is wrong.
        problem: String,
        /// What to do.
        help: String,
    },
    /// A change failed, and taking it back failed too.
    #[error("{source}; the change could not be taken back either, so after a restart it may be there")]
    InDoubt {
        /// The first failure.
        source: Box<Self>,
    },
    /// The system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the folder.
    #[error(
        "the state directory {} is in use by {}; stop it, or give another directory with --state",
        folder.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The process, if it says who it is.
        pid: Option<u32>,
    },
    /// A change that is not made on top of the last one.
    #[error("the change leads from generation {from} to {to}, but the state is at generation {present}")]
    Stale {
        /// The generation of before.
        from: u64,
        /// The generation of after.
        to: u64,
        /// The last one that was committed.
        present: u64,
    },
    /// Something that cannot be kept in a file.
    #[error("cannot store {item}: {problem}")]
    Unfit {
        /// Path in the folder.
        item: String,
        /// What is wrong.
        problem: String,
    },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn broken(path: &Path, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Broken { path: path.to_owned(), line: None, problem: problem.into(), help: help.into() }
    }
}
