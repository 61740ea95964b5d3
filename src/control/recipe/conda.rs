//! Azure's conda file, read as what pip can install: the requirements of its `pip` part, and conda's own packages by the
//! same name. Most have the same name in both worlds; for one that has not, pip says so when the environment is made.

use std::path::Path;

use serde_json::Value;

use super::RecipeError;

/// Packages that every environment has, or that conda alone needs.
const OF_CONDA: [&str; 4] = ["conda", "pip", "setuptools", "wheel"];
/// Either of them brings the model server.
const SERVERS: [&str; 2] = ["azureml-inference-server-http", "azureml-defaults"];
/// Options of requirement lines that are followed by a file or folder.
const BEFORE_PATHS: [&str; 7] =
    ["-r", "--requirement", "-c", "--constraint", "-e", "--editable", "--find-links"];

/// What an environment must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conda {
    /// The version after `python=`, such as `3.10`; empty when one is asked for in a way that is not understood.
    pub(super) python: Option<String>,
    /// Lines of a requirements file, the model server included.
    pub(super) requirements: Vec<String>,
}

/// Reads a conda file's mapping. Relative paths in it begin at `folder`.
pub(super) fn conda(place: &str, value: &Value, folder: Option<&Path>) -> Result<Conda, RecipeError> {
    let wrong = |what: &str| RecipeError::argument(format!("`{place}`: {what}"));
    let Some(file) = value.as_object() else {
        return Err(wrong("a conda file is a map with `dependencies`"));
    };
    let none = Vec::new();
    let dependencies = match file.get("dependencies") {
        None | Some(Value::Null) => &none,
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong("`dependencies` must be a list")),
    };
    let mut conda = Conda::default();
    for dependency in dependencies {
        match dependency {
            Value::String(spec) => conda.package(spec),
            Value::Object(map) => {
                for (installer, list) in map {
                    let lines = list.as_array().filter(|_| installer == "pip");
                    let Some(lines) = lines else {
                        return Err(wrong(&format!(
                            "`dependencies` has `{installer}`; it may have `pip` with a list"
                        )));
                    };
                    for line in lines {
                        let line = line
                            .as_str()
                            .ok_or_else(|| wrong(&format!("`pip` has {line}, which is not a text")))?;
                        conda.requirements.push(anchored(place, line.trim(), folder)?);
                    }
                }
            }
            other => return Err(wrong(&format!("`dependencies` has {other}, which is not a package"))),
        }
    }
    if !conda.requirements.iter().any(|line| SERVERS.contains(&name(line).as_str())) {
        conda.requirements.push(SERVERS[0].to_owned());
    }
    Ok(conda)
}

impl Conda {
    /// Takes `NAME`, `NAME=1.2`, `NAME==1.2.3`, `NAME>=1.2`, `NAME 1.2.*`, `CHANNEL::NAME=1.2=BUILD`.
    fn package(&mut self, spec: &str) {
        let spec = spec.rsplit("::").next().unwrap_or(spec).trim();
        let end = spec.find(['=', '<', '>', '!', '~', ' ', '[']).unwrap_or(spec.len());
        let (name, version) = (spec[..end].to_lowercase(), spec[end..].trim());
        if name == "python" {
            self.python = (!version.is_empty()).then(|| plain(version).unwrap_or_default());
        } else if !OF_CONDA.contains(&name.as_str()) {
            self.requirements.push(format!("{name}{}", for_pip(version)));
        }
    }
}

/// A conda version constraint in pip's words: conda's `=1.2` means any 1.2, and a build after it means nothing to pip.
fn for_pip(version: &str) -> String {
    let exact = version.strip_prefix("==");
    let fuzzy = version
        .strip_prefix('=')
        .or_else(|| version.starts_with(|c: char| c.is_ascii_digit()).then_some(version));
    let without_build = |version: &str| version.split(['=', ' ']).next().unwrap_or_default().to_owned();
    match (exact, fuzzy) {
        (Some(exact), _) => format!("=={}", without_build(exact)),
        (None, Some(fuzzy)) => {
            format!("=={}.*", without_build(fuzzy).trim_end_matches(".*").trim_end_matches('*'))
        }
        (None, None) => version.to_owned(),
    }
}

/// `3.10` of `=3.10`, `==3.10`, `3.10.*`, `=3.10=build`.
fn plain(version: &str) -> Option<String> {
    let version = version.trim_start_matches('=').split('=').next()?.trim_end_matches(".*");
    version.chars().all(|c| c.is_ascii_digit() || c == '.').then(|| version.to_owned())
}

/// The package of a requirement line, as PyPI compares names.
fn name(line: &str) -> String {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(line.len());
    line[..end].to_lowercase().replace(['_', '.'], "-")
}

/// A requirement line whose relative path begins at the conda file.
fn anchored(place: &str, line: &str, folder: Option<&Path>) -> Result<String, RecipeError> {
    let (option, rest) = match line.split_once([' ', '=']) {
        Some((option, rest)) if BEFORE_PATHS.contains(&option) => (Some(option), rest.trim()),
        _ => (None, line),
    };
    let names_file =
        option.is_some_and(|option| !matches!(option, "-e" | "--editable")) && !rest.contains("://");
    if !(rest.starts_with('.') || names_file && Path::new(rest).is_relative()) {
        return Ok(line.to_owned());
    }
    let Some(folder) = folder else {
        return Err(RecipeError::argument(format!(
            "`{place}`: `{line}` has a relative path, but a conda file that stands in the document has no folder; give the \
             path from `/` on"
        )));
    };
    let path = folder.join(rest);
    Ok(option.map_or_else(|| path.display().to_string(), |option| format!("{option} {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(dependencies: Value) -> Result<Conda, RecipeError> {
        let file = Value::Object([("dependencies".to_owned(), dependencies)].into_iter().collect());
        conda("environment.conda_file", &file, Some(Path::new("/the/files")))
    }

    fn requirements(dependencies: Value) -> Vec<String> {
        read(dependencies).unwrap().requirements
    }

    #[test]
    fn packages_of_conda_are_asked_of_pip_by_the_same_name() {
        let list = requirements(json!([
            "python=3.10",
            "pip=23.0.1",
            "numpy=1.23.5",
            "scipy==1.10.1",
            "conda-forge::scikit-learn=1.2=py310h_0",
            "pandas>=2,<3",
            "joblib 1.2.*",
            "requests",
            { "pip": ["azureml-inference-server-http==1.4.0"] },
        ]));
        let expected = [
            "numpy==1.23.5.*",
            "scipy==1.10.1",
            "scikit-learn==1.2.*",
            "pandas>=2,<3",
            "joblib==1.2.*",
            "requests",
            "azureml-inference-server-http==1.4.0",
        ];
        assert_eq!(list, expected);
    }

    #[test]
    fn the_server_is_added_where_nothing_brings_it() {
        assert_eq!(
            requirements(json!(["pip", { "pip": ["joblib"] }])),
            ["joblib", "azureml-inference-server-http"]
        );
        assert_eq!(requirements(json!([{ "pip": ["azureml_defaults==1.53"] }])), ["azureml_defaults==1.53"]);
        let with_extra = requirements(json!([{ "pip": ["Azureml-Inference-Server-Http[x] >=1"] }]));
        assert_eq!(with_extra.len(), 1, "{with_extra:?}");
        assert_eq!(conda("c", &json!({}), None).unwrap().requirements, ["azureml-inference-server-http"]);
    }

    #[test]
    fn the_version_of_python_is_read_or_known_to_be_unclear() {
        let version = |spec: &str| read(json!([spec])).unwrap().python;
        assert_eq!(version("python=3.10").as_deref(), Some("3.10"));
        assert_eq!(version("python==3.10.4").as_deref(), Some("3.10.4"));
        assert_eq!(version("python 3.10.*").as_deref(), Some("3.10"));
        assert_eq!(version("python>=3.8").as_deref(), Some(""));
        assert_eq!(version("python"), None);
        assert_eq!(version("pythonnet"), None);
    }

    #[test]
    fn relative_paths_begin_at_the_file() {
        let list = requirements(json!([{ "pip": [
            "-r more.txt", "--requirement=/abs.txt", "-e ./pkg", "../wheel.whl", "-e git+https://x/y",
            "--find-links https://x/", "azureml-defaults",
        ] }]));
        assert_eq!(
            list,
            [
                "-r /the/files/more.txt",
                "--requirement=/abs.txt",
                "-e /the/files/./pkg",
                "/the/files/../wheel.whl",
                "-e git+https://x/y",
                "--find-links https://x/",
                "azureml-defaults",
            ]
        );
        let inline = json!({ "dependencies": [{ "pip": ["-r more.txt"] }] });
        assert!(conda("c", &inline, None).unwrap_err().message.contains("no folder"));
    }

    #[test]
    fn mistakes_name_their_place() {
        for (dependencies, part) in [
            (json!("numpy"), "`dependencies` must be a list"),
            (json!([1]), "has 1, which is not a package"),
            (json!([{ "npm": ["left-pad"] }]), "has `npm`"),
            (json!([{ "pip": "joblib" }]), "`pip` with a list"),
            (json!([{ "pip": [1] }]), "has 1, which is not a text"),
        ] {
            let error = read(dependencies).unwrap_err();
            assert_eq!(error.code, "BadArgument");
            assert!(error.message.starts_with("`environment.conda_file`: "), "{error}");
            assert!(error.message.contains(part), "{error}");
        }
    }
}
