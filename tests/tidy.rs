//! The borders between the folders, and the few rules that no lint keeps.

#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a test and its helpers fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The files of a module: `src/NAME.rs` and everything in `src/NAME/`.
fn module(name: &str) -> Vec<(PathBuf, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let index = source.join(format!("{name}.rs"));
    let mut files = sources(&source.join(name));
    files.push((index.clone(), fs::read_to_string(index).unwrap()));
    files
}

/// Production code only: tests may use what they like.
fn production(path: &Path, text: &str) -> String {
    if path.file_name().is_some_and(|name| name == "tests.rs") {
        return String::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    // A module of tests at the end of the file; a `mod tests;` at its top hides nothing.
    let end = lines.windows(2).position(|pair| {
        pair[0].starts_with("#[cfg(")
            && pair[0].contains("test")
            && pair[1].starts_with("mod ")
            && pair[1].ends_with('{')
    });
    let code = lines[..end.unwrap_or(lines.len())].iter().filter(|line| !line.trim_start().starts_with("//"));
    code.copied().collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn refuse(name: &str, words: &[&str]) {
    let files = module(name);
    assert!(!files.is_empty());
    for (path, text) in files {
        for word in words {
            assert!(!production(&path, &text).contains(word), "{} must not use `{word}`", path.display());
        }
    }
}

#[test]
fn core_is_pure() {
    refuse(
        "core",
        &[
            "crate::config",
            "crate::control",
            "crate::data",
            "crate::observe",
            "crate::provider",
            "crate::cli",
            "crate::shutdown",
            "tokio",
            "hyper",
            "Instant::now",
            "SystemTime::now",
            "std::net::Tcp",
            "std::fs",
            "rand::",
            "async fn",
            "tracing",
        ],
    );
}

#[test]
fn the_data_plane_does_not_know_the_control_plane() {
    refuse("data", &["crate::control", "crate::provider", "crate::config", "crate::cli"]);
}

#[test]
fn the_control_plane_does_not_touch_the_path_of_a_request() {
    refuse("control", &["data::proxy", "data::upstream", "data::worker", "crate::cli"]);
}

#[test]
fn providers_and_observation_stand_alone() {
    refuse("provider", &["crate::control", "crate::data", "crate::config", "crate::cli"]);
    refuse("observe", &["crate::control", "crate::provider", "crate::config", "crate::cli"]);
}

#[test]
fn no_module_is_called_mod_and_every_file_says_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "benches"] {
        for (path, text) in sources(&root.join(folder)) {
            assert_ne!(path.file_name().unwrap(), "mod.rs", "{}", path.display());
            assert!(text.starts_with("//!"), "{} has no header", path.display());
        }
    }
}
