//! The Python environment of the examples: Microsoft's model server, scikit-learn and the trained models.
//!
//! `examples/setup.sh` makes it, for users and tests alike; here is only the call. The first one on a machine
//! downloads packages and takes about half a minute, later ones a fraction of a second.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// An environment that is complete: its packages are installed and the models trained.
pub(crate) struct PythonEnvironment {
    root: &'static Path,
}

impl PythonEnvironment {
    /// Folder of an example, with its configuration, script and trained model.
    pub(crate) fn example(&self, name: &str) -> PathBuf {
        self.root.join("examples").join(name)
    }
}

/// The environment, made first if it is missing or older than its sources.
pub(crate) fn environment() -> &'static PythonEnvironment {
    static ENVIRONMENT: OnceLock<PythonEnvironment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = root.join("examples/setup.sh");
        // Its few lines go to the terminal at once, so that nobody wonders during the download.
        let status = Command::new("bash").arg(&script).status();
        assert!(
            status.as_ref().is_ok_and(|status| status.success()),
            "{} did not succeed ({status:?}): it said why on standard error; pip's log is target/python.log:\n{}",
            script.display(),
            tail(&root.join("target/python.log"), 30),
        );
        PythonEnvironment { root }
    })
}

/// The last lines of a text file; empty if it is not there.
fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
