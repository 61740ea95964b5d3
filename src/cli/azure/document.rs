//! Endpoint and deployment documents on the client's side: read from YAML, `--set`, merged, compared. Pure but for reading.
//!
//! 0, false and "" are values here, in files and in `--set`; the original's merge takes them for "not given".

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};

use super::Usage;
use crate::core::declared::READ_ONLY;
use crate::data::files::read_small;

/// As the admin API takes and gives them.
pub(super) type Document = Map<String, Value>;

/// Blocks that are one thing: a file that gives one replaces it whole.
const WHOLE: [&str; 6] =
    ["model", "environment", "code_configuration", "traffic", "mirror_traffic", "process"];
/// Maps from text to text; a number in one is meant as text.
const TEXTS: [&str; 3] = ["environment_variables", "tags", "properties"];

/// Reads a YAML or JSON file that holds one map; the folder that its paths start from.
pub(super) fn read(path: &Path) -> anyhow::Result<(Document, PathBuf)> {
    let shown = path.display();
    let bytes = read_small(path).with_context(|| format!("cannot read {shown}"))?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{shown} is not text in UTF-8"))?;
    // Without the lines of the file: they may hold keys.
    let value: Value = serde_saphyr::from_str(&text)
        .map_err(|error| anyhow!("{shown}: {}", error.without_snippet().to_string().trim_end()))?;
    let Value::Object(document) = value else {
        return Err(anyhow!("{shown} holds no map of keys and values, as an endpoint or deployment is"));
    };
    let absolute = std::path::absolute(path).with_context(|| format!("cannot find {shown}"))?;
    Ok((document, absolute.parent().unwrap_or_else(|| Path::new("/")).to_owned()))
}

/// `a.b=c`: JSON if it parses, else text. Text maps take it as text in any case.
pub(super) fn set(document: &mut Document, assignment: &str) -> Result<(), Usage> {
    let wrong = |why: &str| Usage(format!("--set {assignment:?}: {why}"));
    let (path, text) = assignment.split_once('=').ok_or_else(|| wrong("must be like a.b=value"))?;
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    if READ_ONLY.contains(&first) {
        return Err(wrong(&format!("{first} can only be read")));
    }
    // The keys of these maps may hold dots themselves.
    let keys: Vec<&str> = match rest {
        Some(rest) if TEXTS.contains(&first) => vec![first, rest],
        _ => path.split('.').collect(),
    };
    if keys.iter().any(|key| key.is_empty()) {
        return Err(wrong("has an empty name before ="));
    }
    if keys.iter().any(|key| key.contains('[')) {
        return Err(wrong("a place in a list cannot be set; set the whole list"));
    }
    let is_text = keys.len() > 1 && TEXTS.contains(&first);
    let parsed = if is_text { None } else { serde_json::from_str(text).ok() };
    put(document, &keys, parsed.unwrap_or_else(|| text.into()))
        .map_err(|key| wrong(&format!("{key} is no map")))
}

fn put<'k>(document: &mut Document, keys: &[&'k str], value: Value) -> Result<(), &'k str> {
    let Some((key, rest)) = keys.split_first() else { return Ok(()) };
    if rest.is_empty() {
        document.insert((*key).to_owned(), value);
        return Ok(());
    }
    let inner = document.entry(*key).or_insert(Value::Null);
    if inner.is_null() {
        *inner = Value::Object(Map::new());
    }
    put(inner.as_object_mut().ok_or(*key)?, rest, value)
}

/// Writes what a file says over what is there.
pub(super) fn merge(into: &mut Document, from: Document) {
    for (key, new) in from {
        let is_whole = WHOLE.contains(&key.as_str()) || is_other_type(into.get(&key), &new);
        match (into.get_mut(&key), new) {
            (Some(Value::Object(old)), Value::Object(new)) if !is_whole => merge(old, new),
            (_, new) => drop(into.insert(key, new)),
        }
    }
}

/// Scale settings of another type have nothing in common with the old ones.
fn is_other_type(old: Option<&Value>, new: &Value) -> bool {
    let of = |value: &Value| value["type"].as_str().map(str::to_lowercase);
    old.is_some_and(|old| new.get("type").is_some() && of(old) != of(new))
}

/// The merge patch (RFC 7396) that makes `after` of `before`.
pub(super) fn difference(before: &Document, after: &Document) -> Document {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(|(key, value)| {
        let patch = match (before.get(key), value) {
            (Some(Value::Object(before)), Value::Object(after)) => Value::Object(difference(before, after)),
            (_, value) => value.clone(),
        };
        (key.clone(), patch)
    });
    gone.chain(changed).collect()
}

/// Without what only a router says.
pub(super) fn writable(mut document: Document) -> Document {
    document.retain(|key, _| !READ_ONLY.contains(&key.as_str()));
    document
}

/// Numbers and truth values in maps of texts become text, as everybody means them.
pub(super) fn texts(document: &mut Document) {
    for key in TEXTS {
        let Some(Value::Object(values)) = document.get_mut(key) else { continue };
        for value in values.values_mut().filter(|value| value.is_number() || value.is_boolean()) {
            *value = value.to_string().into();
        }
    }
}

/// `blue=90 green=10`, or the older `blue:90,green:10`.
pub(super) fn shares(text: &str) -> Result<Document, String> {
    let mut shares = Document::new();
    for part in text.split([' ', ',', '\t', '\n']).filter(|part| !part.is_empty()) {
        let (name, percent) =
            part.split_once(['=', ':']).ok_or_else(|| format!("{part:?} must be like blue=90"))?;
        let number = percent.strip_suffix('%').unwrap_or(percent).parse::<u64>().ok();
        let number = number
            .filter(|number| *number <= 100)
            .ok_or_else(|| format!("{percent:?} must be a whole number from 0 to 100"))?;
        if name.is_empty() {
            return Err(format!("{part:?} names no deployment"));
        }
        if shares.insert(name.to_owned(), number.into()).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn document(value: Value) -> Document {
        let Value::Object(document) = value else { panic!("{value} is no map") };
        document
    }

    #[test]
    fn set_takes_zero_false_and_nothing_for_values() {
        let mut d = document(json!({"instance_count": 1, "description": "x", "tags": {"a": "b"}}));
        for assignment in [
            "instance_count=0",
            "app_insights_enabled=false",
            "description=",
            "request_settings.max_queue_wait_ms=0",
            "tags.a.b=1",
            "tags.a=true",
            "model=azureml:m:1",
            "list=[1, 2]",
            "equals=a=b",
        ] {
            set(&mut d, assignment).unwrap();
        }
        let after = json!({
            "instance_count": 0, "app_insights_enabled": false, "description": "", "tags": {"a": "true", "a.b": "1"},
            "request_settings": {"max_queue_wait_ms": 0}, "model": "azureml:m:1", "list": [1, 2], "equals": "a=b",
        });
        assert_eq!(Value::Object(d.clone()), after);
        for wrong in ["instance_count", "=1", "a..b=1", "instance_count.x=1", "etag=1", "a[0]=1"] {
            assert!(set(&mut d, wrong).is_err(), "{wrong}");
        }
        assert_eq!(Value::Object(d), after, "what is wrong changes nothing");
    }

    #[test]
    fn a_file_is_merged_over_what_is_there() {
        let mut d = document(json!({
            "model": {"path": "/a", "type": "custom_model"}, "request_settings": {"request_timeout_ms": 1, "max_queue_wait_ms": 2},
            "scale_settings": {"type": "target_utilization", "min_instances": 2}, "tags": {"a": "1"},
        }));
        merge(
            &mut d,
            document(json!({
                "model": {"path": "/b"}, "request_settings": {"max_queue_wait_ms": 0}, "tags": {"b": ""},
                "scale_settings": {"type": "default"},
            })),
        );
        let merged = json!({
            "model": {"path": "/b"}, "request_settings": {"request_timeout_ms": 1, "max_queue_wait_ms": 0},
            "scale_settings": {"type": "default"}, "tags": {"a": "1", "b": ""},
        });
        assert_eq!(Value::Object(d), merged);
    }

    #[test]
    fn traffic_is_read_in_both_spellings() {
        let expected = document(json!({"blue": 90, "green": 10}));
        for text in ["blue=90 green=10", "blue:90,green:10", "blue=90%, green=10%"] {
            assert_eq!(shares(text).unwrap(), expected, "{text}");
        }
        assert!(shares("").unwrap().is_empty());
        for wrong in ["blue", "blue=-1", "blue=101", "blue=1.5", "=3", "blue=1 blue=2"] {
            assert!(shares(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_among_texts_become_texts() {
        let mut d =
            document(json!({"environment_variables": {"A": 1, "B": true, "C": "c"}, "instance_count": 1}));
        texts(&mut d);
        let after = json!({"environment_variables": {"A": "1", "B": "true", "C": "c"}, "instance_count": 1});
        assert_eq!(Value::Object(d), after);
    }

    #[test]
    fn a_broken_file_is_told_with_its_place_and_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoint.yml");
        std::fs::write(&path, "name: a\nkeys: {primary: hush\n").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(
            error.contains("endpoint.yml") && error.contains("line") && !error.contains("hush"),
            "{error}"
        );
        std::fs::write(&path, "- a\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no map"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from), Just("".into())];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    fn apply(target: &mut Value, patch: Value) {
        let Value::Object(patch) = patch else { return *target = patch };
        if !target.is_object() {
            *target = json!({});
        }
        let Some(target) = target.as_object_mut() else { return };
        for (key, value) in patch {
            match value {
                Value::Null => drop(target.remove(&key)),
                value => apply(target.entry(key).or_insert(Value::Null), value),
            }
        }
    }

    proptest! {
        #[test]
        fn the_patch_leads_from_one_to_the_other(a in values(), b in values()) {
            prop_assume!(a.is_object() && b.is_object());
            let patch = difference(a.as_object().unwrap(), b.as_object().unwrap());
            let mut patched = a;
            apply(&mut patched, Value::Object(patch));
            prop_assert_eq!(patched, b);
        }
    }
}
