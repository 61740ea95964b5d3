//! What a line must have, in the words of who writes it: asked only when a line could not be read, to say why.

use serde_json::{Map, Value};

use crate::core::suggest::nearest;

/// What a member must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A number of things at one time.
    Count,
    /// Any number.
    Number,
    /// A number, or `null` where nobody knows.
    MaybeNumber,
    /// A number of things that have happened.
    Total,
}

/// Name, form, and whether there is no line without it.
type Field = (&'static str, Form, bool);

const CONFIG: [Field; 5] = [
    ("tick", Form::Number, true),
    ("min", Form::Count, true),
    ("max", Form::Count, true),
    ("queue_wait", Form::Number, true),
    ("target_utilization", Form::Number, false),
];

const TICK: [Field; 28] = [
    ("t", Form::Number, true),
    ("dt", Form::Number, true),
    ("ready", Form::Count, true),
    ("starting", Form::Count, true),
    ("draining", Form::Count, false),
    ("target", Form::Count, false),
    ("inflight", Form::Count, true),
    ("inflight_draining", Form::Count, false),
    ("inflight_draining_avg", Form::MaybeNumber, false),
    ("queue", Form::Count, true),
    ("patient", Form::Count, false),
    ("patience", Form::Number, false),
    ("inflight_avg", Form::Number, true),
    ("queue_avg", Form::Number, true),
    ("patient_avg", Form::Number, false),
    ("peak", Form::Count, false),
    ("arrivals", Form::Total, true),
    ("admitted", Form::Total, false),
    ("completed", Form::Total, true),
    ("rejected", Form::Total, true),
    ("service_sum", Form::Number, true),
    ("cold_n", Form::Count, false),
    ("cold_sum", Form::Number, false),
    ("c", Form::Count, true),
    ("min", Form::Count, true),
    ("max", Form::Count, true),
    ("queue_wait", Form::Number, false),
    ("projected_wait", Form::MaybeNumber, false),
];

/// What is wrong with a first line that is no configuration.
pub(super) fn config(text: &[u8]) -> String {
    let members = match members(text) {
        Ok(members) => members,
        Err(why) => return why,
    };
    match kind(&members) {
        Some("config") => wrong(&members, &CONFIG),
        Some("tick") => "the first line must be the configuration (`\"type\": \"config\"`), and this is an \
             evaluation"
            .to_owned(),
        _ => "the first line must be the configuration, with `\"type\": \"config\"`".to_owned(),
    }
}

/// What is wrong with a line that is no evaluation.
pub(super) fn tick(text: &[u8]) -> String {
    let members = match members(text) {
        Ok(members) => members,
        Err(why) => return why,
    };
    match kind(&members) {
        Some("config") => {
            "this is a second configuration, and a run has one; start the command again for another \
             run"
            .to_owned()
        }
        None | Some("tick") => wrong(&members, &TICK),
        Some(_) => "`type` must be `tick` here".to_owned(),
    }
}

fn members(text: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("it must be a JSON object, such as `{\"type\": \"tick\", …}`".to_owned()),
        Err(error) => Err(format!("it is not JSON; what cannot be read is at column {}", error.column())),
    }
}

/// What it says that it is; empty where that is no text.
fn kind(members: &Map<String, Value>) -> Option<&str> {
    members.get("type").map(|kind| kind.as_str().unwrap_or_default())
}

fn wrong(members: &Map<String, Value>, fields: &[Field]) -> String {
    for (name, form, required) in fields {
        match members.get(*name) {
            None if *required => return missing(name, members, fields),
            None => {}
            Some(value) if form.takes(value) => {}
            Some(value) => return format!("`{name}` is {}; it must be {}", short(value), form.said()),
        }
    }
    // What is left over: a name that is given twice.
    "a name is given twice in it".to_owned()
}

/// A member that is not there may be there under another name.
fn missing(name: &str, members: &Map<String, Value>, fields: &[Field]) -> String {
    let is_known = |given: &&str| fields.iter().any(|(known, ..)| known == given);
    let unknown: Vec<&str> = members.keys().map(String::as_str).filter(|given| !is_known(given)).collect();
    match nearest(name, &unknown) {
        Some(near) if name.len() > 2 => format!("`{name}` is missing; is `{near}` meant for it?"),
        _ => format!("`{name}` is missing"),
    }
}

impl Form {
    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Count => value.as_u64().is_some_and(|number| number <= u64::from(u32::MAX)),
            Self::Total => value.is_u64(),
            Self::Number => value.is_number(),
            Self::MaybeNumber => value.is_number() || value.is_null(),
        }
    }

    fn said(self) -> &'static str {
        match self {
            Self::Count => "a whole number from 0 to 4294967295",
            Self::Total => "a whole number, 0 or more",
            Self::Number => "a number",
            Self::MaybeNumber => "a number, or null where nobody knows",
        }
    }
}

/// A value that is short enough for a sentence.
fn short(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 40 => "a long text".to_owned(),
        Value::String(text) => format!("the text {text:?}"),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::scale::Signals;

    #[test]
    fn the_fields_are_those_of_the_signals() {
        let all = serde_json::to_value(Signals::default()).unwrap();
        let of: std::collections::BTreeSet<_> = all.as_object().unwrap().keys().map(String::as_str).collect();
        let known: std::collections::BTreeSet<_> = TICK.iter().map(|(name, ..)| *name).collect();
        assert_eq!(of, known);
        // Without any of those that may be left out, and with nothing but them.
        let least: Map<_, _> = TICK
            .iter()
            .filter(|(.., required)| *required)
            .map(|(name, ..)| ((*name).to_owned(), Value::from(1)))
            .collect();
        for name in least.keys() {
            let mut less = least.clone();
            less.remove(name);
            assert!(serde_json::from_value::<Signals>(Value::Object(less)).is_err(), "{name}");
        }
        assert!(serde_json::from_value::<Signals>(Value::Object(least)).is_ok());
    }
}
