//! Whether the files of a deployment have changed: an entry script that was edited is another version, although the document
//! that names it is the same.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use serde_json::Value;

use crate::core::declared::Document;

/// Most files that are looked at; models have a few, code has some hundreds.
const MOST: usize = 10_000;

/// A number that is another one when a file that the document names has another size or time. Files are not read.
pub(super) fn of(document: &Document) -> u64 {
    let text = |map: &str, key: &str| document.get(map)?.get(key)?.as_str().map(str::to_owned);
    let paths = [
        text("code_configuration", "code"),
        text("model", "path"),
        document.get("model").and_then(Value::as_str).map(str::to_owned),
        text("environment", "conda_file"),
    ];
    let mut hasher = DefaultHasher::new();
    let mut left = MOST;
    for path in paths.into_iter().flatten() {
        look(Path::new(&path), &mut hasher, &mut left);
    }
    hasher.finish()
}

fn look(path: &Path, hasher: &mut DefaultHasher, left: &mut usize) {
    let Some(fewer) = left.checked_sub(1) else { return };
    *left = fewer;
    let Ok(file) = fs::metadata(path) else { return };
    path.hash(hasher);
    if !file.is_dir() {
        (file.len(), file.modified().ok()).hash(hasher);
        return;
    }
    // What Python writes when it runs is no change.
    if path.file_name().is_some_and(|name| name == "__pycache__") {
        return;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut inside: Vec<_> = entries.map(|entry| entry.path()).collect();
    inside.sort();
    for path in inside {
        look(&path, hasher, left);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_edited_script_is_another_version_and_a_cache_of_python_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("score.py");
        fs::write(&script, "one").unwrap();
        let document =
            json!({ "code_configuration": { "code": folder.path(), "scoring_script": "score.py" } });
        let content = || of(document.as_object().unwrap());
        let before = content();
        assert_eq!(content(), before);
        fs::create_dir(folder.path().join("__pycache__")).unwrap();
        let with_cache = content();
        fs::write(folder.path().join("__pycache__/score.pyc"), "x").unwrap();
        assert_eq!(content(), with_cache);
        fs::write(&script, "another").unwrap();
        assert_ne!(content(), with_cache);
    }
}
