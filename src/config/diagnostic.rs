//! What is wrong with a file, where, and what is allowed: data, and the form in which people read it.
//!
//! Secrets never get out: `Source` knows which ranges hold values that must not be shown, and both quoting
//! and rendering replace them. What is a mistake is decided elsewhere.

use std::collections::BTreeMap;
use std::fmt;

/// Longest quotation of a file's text in a message, in characters.
const LONGEST_QUOTE: usize = 60;
/// Longest source line that is shown whole, in characters; longer ones are cut around the place.
const LONGEST_LINE: usize = 120;
/// Most findings that are shown; a file with more is the wrong file.
const MOST_FINDINGS: usize = 100;
/// What stands for a value that must not be shown.
const MASK: &str = "***";

/// A range of bytes in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// First byte.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used; probably it does not say what was meant.
    Warning,
}

/// One finding, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What is allowed or what to do.
    pub help: Option<String>,
    /// The line of the file, values of secrets masked; `None` when there is none to show.
    snippet: Option<Snippet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Snippet {
    text: String,
    /// Characters before the marked text.
    indent: usize,
    /// Characters that are marked, at least one.
    width: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let gutter = " ".repeat(self.line.to_string().len());
        writeln!(f, "{severity}: {}", self.message)?;
        writeln!(f, "{gutter}--> {}:{}:{}", self.file, self.line, self.column)?;
        if let Some(Snippet { text, indent, width }) = &self.snippet {
            writeln!(f, "{gutter} |")?;
            writeln!(f, "{} | {text}", self.line)?;
            writeln!(f, "{gutter} | {}{}", " ".repeat(*indent), "^".repeat(*width))?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// The findings; errors and warnings.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The findings that keep the file from being used.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error)
    }

    /// A report on a file that could not even be read.
    pub(super) fn unreadable(file: &str, message: String, help: Option<String>) -> Self {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 1,
            column: 1,
            message,
            help,
            snippet: None,
        };
        Self { diagnostics: vec![diagnostic] }
    }

    pub(super) fn new(diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{diagnostic}")?;
        }
        match self.errors().count() {
            1 => f.write_str("1 error"),
            MOST_FINDINGS => write!(f, "{MOST_FINDINGS} errors or more; the first {MOST_FINDINGS} are shown"),
            count => write!(f, "{count} errors"),
        }
    }
}

impl std::error::Error for Report {}

/// A finding before it is tied to the text.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// For an unknown key: the mapping, and the key that was probably meant. That one is not missing then.
    pub(super) meant: Option<(Place, String)>,
}

impl Finding {
    pub(super) fn error(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place, message: message.into(), help: None, meant: None }
    }

    pub(super) fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, message) }
    }

    /// Keeps a finding, unless there are so many that nobody needs more. Warnings cannot crowd out errors.
    pub(super) fn record(self, findings: &mut Vec<Self>) {
        let enough = match self.severity {
            Severity::Error => 10 * MOST_FINDINGS,
            Severity::Warning => 5 * MOST_FINDINGS,
        };
        if findings.len() < enough {
            findings.push(self);
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A file's text, and which parts of it must not be shown.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    /// Ranges that are hidden, start to end; values do not overlap.
    masks: BTreeMap<usize, usize>,
    /// First byte of each line.
    lines: Vec<usize>,
    /// The text could not be parsed, so nobody knows where its secrets are: every word but keys is hidden.
    opaque: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { name, text, masks: BTreeMap::new(), lines, opaque: false }
    }

    /// Hides a range from now on.
    pub(super) fn mask(&mut self, place: Place) {
        self.masks.insert(place.start, place.end);
    }

    /// Hides a range that may be a secret: not a truth value, a short number or a reference.
    pub(super) fn mask_unless_harmless(&mut self, place: Place) {
        let text = &self.text[place.start..place.end];
        let number = text.len() < 8 && text.parse::<f64>().is_ok();
        let reference = text.starts_with("env:") || text.starts_with("file:");
        if !number && !reference && !matches!(text, "true" | "false") {
            self.mask(place);
        }
    }

    /// Hides every value.
    pub(super) fn mask_all(&mut self) {
        self.opaque = true;
    }

    /// The text at a place, fit for a message.
    pub(super) fn quote(&self, place: Place) -> String {
        if self.is_masked(place) {
            return MASK.to_owned();
        }
        let text = self.text.get(place.start..place.end).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default().trim_end();
        let mut quote = printable(&first.chars().take(LONGEST_QUOTE).collect::<String>());
        if first.chars().count() > LONGEST_QUOTE || text.trim_end().lines().count() > 1 {
            quote.push('…');
        }
        quote
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, place: Place) -> usize {
        self.lines.partition_point(|start| *start <= place.start)
    }

    fn is_masked(&self, place: Place) -> bool {
        self.masks.range(..place.end).next_back().is_some_and(|(_, end)| *end > place.start)
    }

    /// Ties findings to the text, sorted by place; the first hundred.
    pub(super) fn resolve(&self, mut findings: Vec<Finding>) -> Vec<Diagnostic> {
        findings.sort_by_key(|finding| (finding.place.start, finding.severity));
        findings.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        if findings.len() > MOST_FINDINGS && findings.iter().any(|f| f.severity == Severity::Error) {
            findings.retain(|finding| finding.severity == Severity::Error);
        }
        findings.truncate(MOST_FINDINGS);
        findings.into_iter().map(|finding| self.diagnostic(finding)).collect()
    }

    fn diagnostic(&self, finding: Finding) -> Diagnostic {
        let start = floor_char_boundary(self.text, finding.place.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find(['\r', '\n']).map_or(self.text.len(), |at| start + at);
        let end = floor_char_boundary(self.text, finding.place.end.min(line_end)).max(start);
        Diagnostic {
            severity: finding.severity,
            file: self.name.to_owned(),
            line: self.line(finding.place),
            column: self.text[line_start..start].chars().count() + 1,
            message: finding.message,
            help: finding.help,
            snippet: self.snippet(Place { start: line_start, end: line_end }, Place { start, end }),
        }
    }

    fn snippet(&self, line: Place, marked: Place) -> Option<Snippet> {
        let (before, middle, after) = if self.opaque {
            let hidden = hide_values(&self.text[line.start..line.end]);
            let (before, rest) = hidden.split_at(marked.start - line.start);
            let (middle, after) = rest.split_at(marked.end - marked.start);
            (before.to_owned(), middle.to_owned(), after.to_owned())
        } else {
            let shown = |start, end| self.shown(Place { start, end });
            (shown(line.start, marked.start), shown(marked.start, marked.end), shown(marked.end, line.end))
        };
        let mut indent = before.chars().count();
        let width = middle.trim_end().chars().count().clamp(1, LONGEST_LINE);
        let whole = format!("{before}{middle}{after}");
        let whole = whole.trim_end();
        if whole.is_empty() {
            return None;
        }
        let skip = indent.saturating_sub(LONGEST_LINE / 2);
        indent -= skip;
        let text: String = whole.chars().skip(skip).take(LONGEST_LINE).collect();
        let width = width.min(text.chars().count().saturating_sub(indent)).max(1);
        Some(Snippet { text, indent, width })
    }

    /// The text of a range with everything hidden that must be. Control characters cannot reach a terminal.
    fn shown(&self, range: Place) -> String {
        let text = &self.text[range.start..range.end];
        let mut out = String::new();
        let mut in_mask = false;
        for (offset, c) in text.char_indices() {
            let at = range.start + offset;
            let masked = self.is_masked(Place { start: at, end: at + 1 });
            if !masked {
                out.push(c);
            } else if !in_mask {
                out.push_str(MASK);
            }
            in_mask = masked;
        }
        printable(&out)
    }
}

/// Replaces what could move a terminal's cursor or change its colours.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .map(|c| if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) { '\u{fffd}' } else { c })
        .collect()
}

/// Hides every word of a line but its first key; what remains shows the structure. Every byte keeps its place.
fn hide_values(line: &str) -> String {
    let start = line.find(|c: char| c.is_ascii_alphanumeric() || c == '_').unwrap_or(line.len());
    let word = line[start..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(0);
    let rest = &line[start + word..];
    let only_indent = line[..start].chars().all(|c| " -{".contains(c));
    let key = only_indent && (rest.starts_with(": ") || rest.trim_end() == ":");
    let shown = if key { start + word } else { 0 };
    let hidden = line[shown..].chars().flat_map(|c| {
        let visible = c == ' ' || "{}[],:\"'|>&*!%@`#?-".contains(c);
        std::iter::repeat_n(if visible { c } else { '*' }, c.len_utf8())
    });
    line[..shown].chars().chain(hidden).collect()
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_quotes_and_lines() {
        let text = "keys: { primary: hunter2, secondry: b }\n";
        let mut source = Source::new("f.yaml", text);
        let secret = Place { start: 17, end: 24 };
        source.mask(secret);
        assert_eq!(source.quote(secret), "***");
        let finding = Finding::error(Place { start: 26, end: 34 }, "unknown");
        let shown = source.resolve(vec![finding])[0].to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("1 | keys: { primary: ***, secondry: b }\n"), "{shown}");
        assert!(shown.contains("  |                       ^^^^^^^^\n"), "{shown}");
        assert!(shown.contains("f.yaml:1:27"), "{shown}");
    }

    #[test]
    fn an_unparsed_text_shows_only_its_structure() {
        assert_eq!(hide_values("  primary: \"abc déf"), "  primary: \"*** ****");
        assert_eq!(hide_values("- a:b c"), "- *:* *");
        assert_eq!(hide_values("key: abc: {def: 1}"), "key: ***: {***: *}");
        assert_eq!(hide_values("hunter2 abc:"), "******* ***:");
    }

    #[test]
    fn columns_count_characters_and_control_characters_are_harmless() {
        let source = Source::new("f", "ä\u{1b}[31m: x\n");
        let shown = &source.resolve(vec![Finding::error(Place { start: 2, end: 3 }, "m")])[0];
        assert_eq!((shown.line, shown.column), (1, 2));
        assert!(!shown.to_string().contains('\u{1b}'));
    }
}
