//! Documents as YAML text, and secrets as a line. What is written reads back as the same, or is not written.

use serde_json::Value;
use serde_saphyr::Error;

use super::declared::agrees;
use super::layout::Item;
use crate::core::declared::Document;

/// Largest file that is read, in bytes: far more than any declaration needs.
pub(super) const LARGEST: u64 = 8 * 1024 * 1024;

/// What is wrong with a text, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// From 1.
    pub(super) line: Option<u64>,
    pub(super) problem: String,
}

/// The text of a document.
///
/// # Errors
/// Why it cannot be kept.
pub(super) fn encode(item: &Item, document: &Document) -> Result<String, String> {
    agrees(item, document)?;
    // JSON is YAML too, and has one way only to write a text.
    let yaml = serde_saphyr::to_string(document).ok();
    let json = || serde_json::to_string_pretty(document).ok().map(|text| text + "\n");
    let same = |text: &String| decode(text).is_ok_and(|read| read == *document);
    let text = yaml.filter(same).or_else(|| json().filter(same));
    let text = text.ok_or("it cannot be written as YAML without loss")?;
    if text.len() as u64 > LARGEST {
        return Err(format!("it is larger than {LARGEST} bytes"));
    }
    Ok(text)
}

/// The document of a text.
///
/// # Errors
/// What is wrong; values of the text are not told, since they may be secret.
pub(super) fn decode(text: &str) -> Result<Document, Flaw> {
    let value = serde_saphyr::from_str_with_options(text, serde_saphyr::options! { with_snippet: false });
    match value.map_err(|error: Error| flaw(error.without_snippet()))? {
        Value::Object(document) => Ok(document),
        Value::Null => Err(Flaw { line: None, problem: "it is empty".to_owned() }),
        _ => Err(Flaw { line: Some(1), problem: "it must hold `key: value` lines".to_owned() }),
    }
}

/// The line that holds a secret.
///
/// # Errors
/// Why it is not fit to be one.
pub(super) fn secret_line(secret: &str) -> Result<String, &'static str> {
    match secret {
        "" => Err("it is empty"),
        _ if secret.contains(['\n', '\r']) => Err("it must be one line"),
        _ if secret.len() as u64 >= LARGEST => Err("it is too long"),
        _ => Ok(format!("{secret}\n")),
    }
}

/// The secret in a text; line ends after it do not count.
///
/// # Errors
/// Why it is not one.
pub(super) fn secret(text: &str) -> Result<&str, &'static str> {
    let secret = text.trim_end_matches(['\n', '\r']);
    secret_line(secret).map(|_| secret)
}

/// Some messages of the parser quote the text; only those that do not are passed on.
pub(super) fn flaw(error: &Error) -> Flaw {
    let problem = match error {
        Error::AliasError { error, .. } => return flaw(error),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => "it is too large".to_owned(),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` is given twice"),
        Error::DuplicateMappingKey { .. } => "a key is given twice".to_owned(),
        Error::Eof { .. } => "it ends too early".to_owned(),
        Error::ExternalMessage { msg, .. } => format!("it is not valid YAML: {msg}"),
        Error::MultipleDocuments { .. } => "it holds more than one YAML document".to_owned(),
        Error::NonFiniteFloat { .. } => "it holds a number that is not finite".to_owned(),
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        Error::SerdeUnknownField { field, .. } => format!("`{field}` is not known"),
        Error::UnknownAnchor { .. } => "an alias `*name` needs an anchor `&name` before it".to_owned(),
        _ => "it cannot be understood here".to_owned(),
    };
    let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
    Flaw { line, problem }
}
