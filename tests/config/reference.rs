//! Makes `docs/configuration.md` from the schema: one table for each block of the file.

use std::fmt::Write;

use serde_json::Value;

const HEAD: &str = "\
# Configuration file

Made from the types by `UPDATE_SCHEMA=1 cargo test --test config`; do not edit. `config/minimal.yaml` is the \
smallest useful file, `config/example.yaml` has every key. `scoregate check FILE` reports every mistake of a file \
at once and prints what holds, defaults included. For completion in editors, begin a file with \
`# yaml-language-server: $schema=schema.json`.

- Times have their unit in the name (`_ms`, `_s`); probes and `polling_interval` are in seconds, as in Azure's v2 YAML.
- Words (`aks`, `key`, `RS256` …) may be written in any case.
- Relative paths begin at the folder of the file.
- Secrets are `env:NAME`, `file:PATH`, or the text itself. They are read at load and never shown; only digests of \
keys are kept, and the key that a client sent last for as long as its connection lives.
- A block can be named with `&name` and used again with `*name`. Merge keys (`<<`), tags and duplicate keys are errors.
";

/// The reference page.
pub(crate) fn page(schema: &Value) -> String {
    let mut page = HEAD.to_owned();
    block(schema, schema, "", &mut page);
    page
}

fn block(root: &Value, schema: &Value, path: &str, page: &mut String) {
    let title = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
    let about = schema["description"].as_str().unwrap_or_default();
    write!(page, "\n## {title}\n\n{}\n\n", line(about)).unwrap();
    page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    let mut inner = Vec::new();
    for (key, value) in schema["properties"].as_object().unwrap() {
        let default = match value.get("default") {
            Some(Value::String(text)) => format!("`{text}`"),
            Some(default) => format!("`{default}`"),
            None if required.iter().any(|name| *name == key) => "required".to_owned(),
            None => String::new(),
        };
        let meaning = line(value["description"].as_str().unwrap_or_default());
        writeln!(page, "| `{key}` | {} | {default} | {meaning} |", type_of(root, value)).unwrap();
        let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let Some(target) = resolve(root, value).filter(|target| target.get("properties").is_some()) {
            inner.push((child, target));
        } else if let Some(target) = value.get("items").and_then(|items| resolve(root, items))
            && target.get("properties").is_some()
        {
            inner.push((format!("{child}[]"), target));
        }
    }
    for (path, target) in inner {
        // The two probes and the four routes are alike: one table is enough.
        let repeated = ["readiness_probe", "swagger_route", "liveness_route", "readiness_route"];
        if !repeated.iter().any(|key| path.ends_with(key)) {
            block(root, target, &path, page);
        }
    }
}

/// Follows a reference.
pub(crate) fn resolve<'s>(root: &'s Value, schema: &'s Value) -> Option<&'s Value> {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref"));
    match reference.and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#')),
        None => Some(schema),
    }
}

fn type_of(root: &Value, schema: &Value) -> String {
    let Some(target) = resolve(root, schema) else { return String::new() };
    if let Some(variants) = target.get("oneOf").and_then(Value::as_array) {
        let words = variants.iter().map(|variant| match variant["const"].as_str() {
            Some(word) => format!("`{word}`"),
            None => type_of(root, variant),
        });
        return words.collect::<Vec<_>>().join(", ");
    }
    match target["type"].as_str() {
        Some("integer" | "number") => {
            let kind = if target["type"] == "integer" { "integer" } else { "number" };
            format!("{kind}, {}–{}", target["minimum"], target["maximum"])
        }
        Some("array") => format!("list of {}", type_of(root, &target["items"])),
        Some("object") if target.get("properties").is_some() => "block".to_owned(),
        Some("object") => format!("map to {}", type_of(root, &target["additionalProperties"])),
        Some("string") => "text".to_owned(),
        Some(other) => other.to_owned(),
        None => String::new(),
    }
}

fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
