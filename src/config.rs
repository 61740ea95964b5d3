//! The configuration file: from YAML to `core::settings::Settings`, or to every mistake in it with its place.
//!
//! `file` is what a user may write, `tree` and `decode` read it past every error, `check` holds the rules,
//! `effective` writes settings back. Only this module is called from outside.

mod check;
mod decode;
mod diagnostic;
mod effective;
mod field;
mod file;
mod secret;
mod suggest;
mod tree;
mod units;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

pub use diagnostic::{Diagnostic, Report, Severity};
pub use effective::{effective, recorded};

use crate::core::settings::{DeploymentSettings, EndpointSettings, Settings};

/// The configuration that runs when no file is named. Its keys come from two variables that `demo` sets.
pub const DEMO: &str = include_str!("../config/demo.yaml");

/// Largest file, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What it means.
    pub settings: Settings,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a file. Relative paths in it begin at its folder.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    read(path, false)
}

/// Like `load`, for a router whose endpoints may also be declared elsewhere: a file needs none.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_part(path: &Path) -> Result<Loaded, Report> {
    read(path, true)
}

/// What holds without a file, with no endpoint.
///
/// # Panics
/// Never; it is tested.
pub fn defaults() -> Settings {
    let text = "endpoints: []";
    let loaded = checked("the defaults", text, Path::new("/"), &|_| None, true);
    loaded.expect("the defaults are valid").settings
}

fn read(path: &Path, may_be_empty: bool) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    // A pipe could keep the reader waiting for ever.
    if std::fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir()) {
        return Err(Report::unreadable(&name, "this is not a regular file".to_owned(), None));
    }
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| Report::unreadable(&name, format!("cannot read the file: {e}"), None))?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_BYTES / 1024 / 1024);
        return Err(Report::unreadable(&name, message, None));
    }
    let text = String::from_utf8(bytes).map_err(|e| not_utf8(&name, &e))?;
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    checked(&name, &text, base, &|variable| std::env::var(variable).ok(), may_be_empty)
}

/// Checks a text; `name` is what messages call it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &str, text: &str, base: &Path) -> Result<Loaded, Report> {
    parse_with(name, text, base, &|variable| std::env::var(variable).ok())
}

/// Like `parse`, with environment variables from elsewhere.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_with(
    name: &str,
    text: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Report> {
    checked(name, text, base, env, false)
}

/// One endpoint, with the keys that it would have in a file; it may be without deployments. `env` gives the secrets.
///
/// # Errors
/// Everything that is wrong with it. Places are of no use to whoever did not write the text; messages are.
pub fn endpoint(
    endpoint: &serde_json::Value,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Arc<EndpointSettings>, Vec<Diagnostic>), Report> {
    // Version 2 allows twenty; version 1's six are counted by whoever declares.
    let file = serde_json::json!({ "max_deployments_per_endpoint": 20, "endpoints": [endpoint] });
    let text = serde_saphyr::to_string(&file).map_err(|e| {
        Report::unreadable("the endpoint", format!("it cannot be written as YAML: {e}"), None)
    })?;
    let loaded = checked("the endpoint", &text, Path::new("/"), env, true)?;
    let endpoint = loaded.settings.endpoints.into_iter().next().expect("one was given");
    Ok((endpoint, loaded.warnings))
}

/// The settings of a deployment from what [`recorded`] gave, with other values for some: `changes` are paths as in a
/// file, such as `scale_settings.policy`, and what stands there instead.
///
/// # Errors
/// Everything that is wrong with it; a change that leads nowhere is an unknown key.
pub fn replayed(
    (endpoint, deployment): (&str, &str),
    recorded: &serde_json::Value,
    changes: &[(String, serde_json::Value)],
) -> Result<Arc<DeploymentSettings>, Report> {
    let unusable = |message: String| Report::unreadable("the deployment", message, None);
    let mut block = recorded.as_object().cloned().unwrap_or_default();
    let mut profile = block.remove("profile").unwrap_or_else(|| "aks".into());
    let mut block = serde_json::Value::Object(block);
    for (path, value) in changes {
        if path == "profile" {
            profile = value.clone();
            continue;
        }
        let mut place = &mut block;
        for (depth, key) in path.split('.').enumerate() {
            let serde_json::Value::Object(map) = place else {
                let before: Vec<_> = path.split('.').take(depth).collect();
                let before = before.join(".");
                return Err(unusable(format!("`{before}` is a value, so that there is no `{path}`")));
            };
            place = map.entry(key).or_insert_with(|| serde_json::json!({}));
        }
        *place = value.clone();
    }
    block["name"] = deployment.into();
    // Nothing is started; a deployment must say what would be.
    block["process"] = serde_json::json!({ "command": ["replay"] });
    let whole = serde_json::json!({
        "name": endpoint, "auth_mode": "none", "profile": profile, "deployments": [block],
    });
    let (endpoint, _) = self::endpoint(&whole, &|_| None)?;
    let first = endpoint.deployments.first().cloned();
    first.ok_or_else(|| unusable("it is no deployment".to_owned()))
}

fn checked(
    name: &str,
    text: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    may_be_empty: bool,
) -> Result<Loaded, Report> {
    // Origins and paths go into the settings: they must mean the same from any working directory.
    let base = std::path::absolute(if base.as_os_str().is_empty() { Path::new(".") } else { base })
        .map_err(|e| Report::unreadable(name, format!("no working directory: {e}"), None))?;
    // A byte order mark is not part of the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut source = diagnostic::Source::new(name, text);
    let mut findings = Vec::new();
    let settings = match tree::parse(&mut source, &mut findings) {
        Ok(root) => {
            let file = decode::decode::<file::File>(&root, &mut source, &mut findings);
            let mut check =
                check::Check { source: &source, base: &base, env, findings: &mut findings, may_be_empty };
            file.given().and_then(|file| check::check(&mut check, file))
        }
        Err(finding) => {
            findings.push(finding);
            None
        }
    };
    let diagnostics = source.resolve(findings);
    match settings {
        Some(settings) if diagnostics.iter().all(|d| d.severity == Severity::Warning) => {
            Ok(Loaded { settings, warnings: diagnostics })
        }
        _ => Err(Report::new(diagnostics)),
    }
}

/// The built-in demo, with these keys.
///
/// # Panics
/// Never for keys of 16 characters or more; the demo is tested.
pub fn demo(primary: &str, secondary: &str) -> Settings {
    let env = |variable: &str| match variable {
        "SCOREGATE_DEMO_PRIMARY_KEY" => Some(primary.to_owned()),
        "SCOREGATE_DEMO_SECONDARY_KEY" => Some(secondary.to_owned()),
        _ => None,
    };
    parse_with("the demo", DEMO, Path::new(""), &env).expect("the built-in demo is valid").settings
}

/// JSON schema of the file.
pub fn schema() -> serde_json::Value {
    let generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<file::File>();
    schema.insert("title".to_owned(), "scoregate".into());
    schema.to_value()
}

fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> Report {
    let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
    let message = format!("the file is not UTF-8 text; the first bad byte is on line {line}");
    Report::unreadable(name, message, Some("save it as UTF-8".to_owned()))
}
