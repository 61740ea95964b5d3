//! What a verb has found, as az prints it: `--query` picks (JMESPath), `-o` says the form. Nothing prints for nothing.

use std::io::{self, Write};

use anyhow::anyhow;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::Value;

use super::Usage;
use crate::cli::admin::printable;

/// Form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// JSON
    Json,
    /// JSON, as json
    Jsonc,
    /// YAML
    Yaml,
    /// YAML, as yaml
    Yamlc,
    /// For people
    Table,
    /// Values by tab, without quotes
    Tsv,
    /// Nothing
    None,
}

/// What a verb has found.
#[derive(Debug)]
pub(super) enum Shown {
    /// Nothing to say.
    Nothing,
    /// An object, a list, a text.
    Value(Value),
    /// A text for people: bare where no form is asked for.
    Text(String),
}

/// A JMESPath expression that can be used.
#[derive(Clone, Debug)]
pub(super) struct Query(String);

/// Reads `--query`.
pub(super) fn query(text: &str) -> Result<Query, String> {
    let compiled = jmespath::compile(text);
    compiled.map(|_| Query(text.to_owned())).map_err(|error| format!("no JMESPath expression: {error}"))
}

/// Prints it.
///
/// # Errors
/// The query does not fit, or the output cannot be written.
pub(super) fn print(
    shown: Shown,
    query: Option<&Query>,
    form: Option<Form>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let value = match (shown, query, form) {
        (Shown::Nothing, ..) => return Ok(()),
        (Shown::Text(text), None, None) => {
            out.write_all(text.as_bytes())?;
            if !text.ends_with('\n') {
                out.write_all(b"\n")?;
            }
            return Ok(());
        }
        (Shown::Text(text), ..) => Value::String(text),
        (Shown::Value(value), ..) => value,
    };
    let value = match query {
        Some(Query(text)) => {
            let found = jmespath::compile(text).and_then(|compiled| compiled.search(&value));
            serde_json::to_value(&*found.map_err(|error| Usage(format!("--query: {error}")))?)?
        }
        None => value,
    };
    if value.is_null() {
        return Ok(());
    }
    match form.unwrap_or(Form::Json) {
        Form::Json | Form::Jsonc => writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?,
        Form::Yaml | Form::Yamlc => {
            let text =
                serde_saphyr::to_string(&value).map_err(|error| anyhow!("cannot write YAML: {error}"))?;
            writeln!(out, "{}", text.trim_end())?;
        }
        Form::Table => table(&value, query.is_some(), out)?,
        Form::Tsv => tsv(&value, out)?,
        Form::None => {}
    }
    Ok(out.flush()?)
}

/// As az: a list is one line for each item, an object the values of its first level by tab.
fn tsv(value: &Value, out: &mut impl Write) -> io::Result<()> {
    let Value::Array(items) = value else { return tsv_line(value, out) };
    items.iter().try_for_each(|item| tsv_line(item, out))
}

fn tsv_line(value: &Value, out: &mut impl Write) -> io::Result<()> {
    let line = match value {
        Value::Object(map) => map.values().map(cell).collect::<Vec<_>>().join("\t"),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("\t"),
        Value::Bool(value) => value.to_string(),
        value => cell(value),
    };
    writeln!(out, "{line}")
}

/// As az writes them, which is as Python does.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => items.len().to_string(),
        Value::Object(_) => String::new(),
    }
}

/// One row for each object, one column for each plain value. Ids and tags of versions are left out, unless asked for.
fn table(value: &Value, is_query: bool, out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<&Value> = value.as_array().map_or_else(|| vec![value], |items| items.iter().collect());
    let is_shown = |key: &str, value: &Value| {
        !(value.is_null() || value.is_array() || value.is_object())
            && (is_query || !["id", "type", "etag"].contains(&key))
    };
    let cells: Vec<Vec<(String, String)>> = rows
        .iter()
        .map(|row| match row {
            Value::Object(map) => {
                let shown = map.iter().filter(|(key, value)| is_shown(key, value));
                shown.map(|(key, value)| (capital(key), printable(&cell(value)))).collect()
            }
            Value::Array(items) => {
                let numbered = items.iter().enumerate();
                numbered.map(|(at, item)| (format!("Column{}", at + 1), printable(&cell(item)))).collect()
            }
            value => vec![("Result".to_owned(), printable(&cell(value)))],
        })
        .collect();
    let mut columns: Vec<&str> = Vec::new();
    for (key, _) in cells.iter().flatten() {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    // The name comes first, as one looks for it first.
    columns.sort_by_key(|column| *column != "Name");
    if columns.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().copied());
    let of = |row: &[(String, String)], column: &str| {
        row.iter().find(|(key, _)| key == column).map_or_else(String::new, |(_, value)| value.clone())
    };
    let width = |column: &str| {
        let values = cells.iter().map(|row| of(row, column).chars().count());
        values.max().unwrap_or(0).max(column.chars().count())
    };
    table.add_row(columns.iter().map(|column| "-".repeat(width(column))));
    for row in &cells {
        table.add_row(columns.iter().map(|column| of(row, column)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // Without a terminal's width nothing is wrapped.
    writeln!(out, "{}", table.trim_fmt())
}

fn capital(key: &str) -> String {
    let mut letters = key.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(value: Value, query: Option<&str>, form: Option<Form>) -> String {
        let query = query.map(|text| super::query(text).unwrap());
        let mut out = Vec::new();
        print(Shown::Value(value), query.as_ref(), form, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tsv_is_bare_as_scripts_want_it() {
        let endpoint =
            json!({"name": "e", "traffic": {"blue": 90}, "n": 1, "on": true, "no": null, "list": [1, 2]});
        let tsv = |query| printed(endpoint.clone(), Some(query), Some(Form::Tsv));
        assert_eq!(tsv("name"), "e\n");
        assert_eq!(tsv("on"), "true\n");
        assert_eq!(tsv("list"), "1\n2\n");
        assert_eq!(tsv("[name, n, on, no, list, traffic]"), "e\n1\ntrue\nNone\n1\t2\n90\n");
        assert_eq!(tsv("[[name, n, on, no, list, traffic]]"), "e\t1\tTrue\tNone\t2\t\n");
        assert_eq!(tsv("nothing"), "");
    }

    #[test]
    fn queries_pick_as_in_the_tutorials() {
        let endpoint = json!({"deployments": [
            {"name": "blue", "provisioning_state": "Succeeded"}, {"name": "green", "provisioning_state": "Creating"},
        ]});
        let query = "deployments[?name=='blue'].provisioning_state";
        assert_eq!(printed(endpoint, Some(query), Some(Form::Tsv)), "Succeeded\n");
        assert_eq!(
            printed(json!({"traffic": {"blue": 100}}), Some("traffic"), None),
            "{\n  \"blue\": 100\n}\n"
        );
        assert!(super::query("deployments[?").is_err());
    }

    #[test]
    fn texts_are_bare_unless_a_form_is_asked_for() {
        let mut out = Vec::new();
        print(Shown::Text("one\ntwo".into()), None, None, &mut out).unwrap();
        print(Shown::Text("one\ntwo".into()), None, Some(Form::Json), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo\n\"one\\ntwo\"\n");
        assert_eq!(printed("{\"a\": 1}".into(), None, None), "\"{\\\"a\\\": 1}\"\n");
    }

    #[test]
    fn a_table_has_a_row_for_each_object() {
        let list = json!([
            {"name": "b", "auth_mode": "key", "traffic": {}, "id": "/x"}, {"name": "longer", "location": "local\u{1b}"},
        ]);
        let table = printed(list.clone(), None, Some(Form::Table));
        assert!(table.starts_with("Name    Auth_mode  Location\n"), "{table}");
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["Name", "Auth_mode", "Location"]);
        assert_eq!(rows[1], ["------", "---------", "--------"]);
        assert_eq!(
            (rows[2].as_slice(), rows[3].as_slice()),
            (&["b", "key"][..], &["longer", "local\u{fffd}"][..])
        );
        assert_eq!(printed(json!("e"), None, Some(Form::Table)).split_whitespace().last(), Some("e"));
        assert_eq!(printed(json!([]), None, Some(Form::Table)), "");
        assert!(printed(list, None, Some(Form::Yaml)).contains("name: longer"));
    }
}
