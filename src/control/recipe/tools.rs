//! The programs of this machine that run models: the interpreter that the operator gave, others by their name in PATH.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::RecipeError;

/// What the program prints about itself; everything that makes one environment differ from another.
const IDENTIFY: &str = "import sys, platform; print('%d.%d.%d' % sys.version_info[:3], sys.implementation.name, \
    platform.machine(), getattr(sys, '_base_executable', sys.executable))";

/// What there is to run models with.
#[derive(Debug)]
pub struct Tools {
    /// `--python`: an interpreter whose environment has Microsoft's model server.
    pub python: Option<PathBuf>,
    /// Where Python environments are made.
    pub cache: PathBuf,
    /// Folders where programs are looked for, as in the variable PATH.
    pub path: OsString,
    /// Asked once: an interpreter takes its time to start.
    known: Mutex<BTreeMap<PathBuf, Option<String>>>,
}

/// An interpreter that environments can be made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) program: PathBuf,
    /// Version, kind, machine and place.
    pub(super) identity: String,
}

impl Interpreter {
    /// Whether its version is this one or begins with it: 3.11.7 is a 3.11.
    pub(super) fn is(&self, version: &str) -> bool {
        let own = self.identity.split(' ').next().unwrap_or_default();
        own.strip_prefix(version).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl Tools {
    /// With the PATH of this process. Relative paths begin at the present folder; an interpreter's bare name is looked for
    /// in PATH.
    pub fn new(python: Option<PathBuf>, cache: PathBuf) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Replicas run in other folders.
        let cache = std::path::absolute(&cache).unwrap_or(cache);
        let mut tools = Self { python: None, cache, path, known: Mutex::default() };
        // Symbolic links are not followed: the interpreter of an environment is one, and finds its packages by it.
        tools.python = python.map(|given| {
            let bare = given.components().count() == 1 && !given.starts_with(".");
            let found =
                given.to_str().filter(|_| bare && !is_program(&given)).and_then(|name| tools.find(name));
            found.or_else(|| std::path::absolute(&given).ok()).unwrap_or(given)
        });
        tools
    }

    /// The first program of this name in PATH.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let folders = std::env::split_paths(&self.path).filter(|folder| folder.is_absolute());
        folders.map(|folder| folder.join(name)).find(|file| is_program(file))
    }

    /// A program of the environment of `--python`.
    pub(super) fn beside_python(&self, name: &str) -> Option<PathBuf> {
        let program = self.python.as_ref()?.with_file_name(name);
        is_program(&program).then_some(program)
    }

    /// The interpreter that the operator gave; an error if it cannot be what they say.
    pub(super) fn given_python(&self) -> Result<Option<&Path>, RecipeError> {
        let Some(python) = &self.python else { return Ok(None) };
        if !is_program(python) {
            return Err(RecipeError::missing(format!(
                "`--python`: {} is not a program; give the interpreter of an environment, such as .venv/bin/python",
                python.display()
            )));
        }
        Ok(Some(python))
    }

    /// An interpreter to make an environment with: of the version that is wanted if there is one, else `python3`.
    pub(super) fn interpreter(&self, wanted: Option<&str>) -> Result<Interpreter, RecipeError> {
        let minor = wanted.map(|version| version.splitn(3, '.').take(2).collect::<Vec<_>>().join("."));
        let named = minor.map(|minor| format!("python{minor}"));
        let names = named.iter().map(String::as_str).chain(["python3", "python"]);
        let mut found = names.filter_map(|name| self.find(name)).filter_map(|program| {
            let identity = self.identity(&program)?;
            Some(Interpreter { program, identity })
        });
        found.next().ok_or_else(|| {
            RecipeError::missing(
                "`environment.conda_file` needs a Python interpreter, and none is in PATH: install Python 3 with its \
                 module venv, or give `--python` an environment that has the packages",
            )
        })
    }

    fn identity(&self, program: &Path) -> Option<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(program.to_path_buf()).or_insert_with(|| identify(program)).clone()
    }
}

/// Asks an interpreter. None if it does not run: pyenv, for one, has a `python3.9` that only says that there is none.
fn identify(program: &Path) -> Option<String> {
    let output = Command::new(program)
        .args(["-I", "-c", IDENTIFY])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.starts_with("3.").then(|| text.trim_end().to_owned())
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
        let file = folder.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    fn tools(folder: &Path) -> Tools {
        let mut tools = Tools::new(None, folder.join("cache"));
        tools.path = folder.into();
        tools
    }

    #[test]
    fn the_version_that_is_wanted_comes_first_and_python3_second() {
        let folder = tempfile::tempdir().unwrap();
        let third = program(folder.path(), "python3", "echo 3.11.7 cpython");
        let nine = program(folder.path(), "python3.9", "echo 3.9.2 cpython");
        program(folder.path(), "python3.10", "echo 'no such version' >&2; exit 127");
        let tools = tools(folder.path());
        assert_eq!(tools.interpreter(None).unwrap().program, third);
        let found = tools.interpreter(Some("3.9")).unwrap();
        assert_eq!(found.program, nine);
        assert!(
            found.is("3.9") && found.is("3.9.2") && found.is("3") && !found.is("3.9.20") && !found.is("3.10")
        );
        assert_eq!(tools.interpreter(Some("3.10.4")).unwrap().program, third);
    }

    #[test]
    fn without_an_interpreter_the_error_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let tools = tools(folder.path());
        let error = tools.interpreter(None).unwrap_err();
        assert_eq!(error.code, "ResourceNotFound");
        assert!(error.message.contains("--python"), "{error}");
    }

    #[test]
    fn python_may_be_a_bare_name_and_must_be_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let sh = Tools::new(Some("sh".into()), folder.path().into());
        assert!(sh.given_python().unwrap().unwrap().is_absolute(), "{sh:?}");
        let here = Tools::new(Some("some/python".into()), folder.path().into());
        assert!(here.python.as_ref().unwrap().is_absolute());
        assert!(Tools::new(None, "some/cache".into()).cache.is_absolute());
        let error = here.given_python().unwrap_err();
        assert!(error.message.contains("some/python is not a program"), "{error}");
    }
}
