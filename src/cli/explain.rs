//! `scoregate explain`: asks a running router why it did what it did, and prints a sentence for each decision, or JSON.
//! Exit code 0: told; 1: no router, or it refused; 2: wrong arguments.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anyhow::Context as _;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use http::Method;
use secrecy::SecretString;

use super::admin::{Admin, AdminArgs, Change, printable};
use crate::control::admin::Explanation;
use crate::core::ledger::Kind;

/// Tell why a running router did what it did: routes, rejections, scaling, replicas taken out, retries.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  scoregate explain --endpoint faq --kind scale\n  scoregate explain --request 4f0c2a7e-8d35-4f2e-9b53-0f2f4d6f6a11"
)]
pub struct ExplainArgs {
    #[command(flatten)]
    router: AdminArgs,
    /// Decisions about this endpoint
    #[arg(long, short = 'e', value_name = "NAME")]
    endpoint: Option<String>,
    /// Decisions about this deployment
    #[arg(long, short = 'd', value_name = "NAME")]
    deployment: Option<String>,
    /// Decisions about the request with this x-request-id or x-ms-client-request-id
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    request: Option<String>,
    /// Decisions of this kind
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Show the newest of these, at most 1000
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: u32,
    /// Form of what is printed [default: table on a terminal, json in a pipe]
    #[arg(long, short = 'o', value_enum)]
    output: Option<Form>,
    /// Key of the admin listener [default: SCOREGATE_ADMIN_KEY, else that of the state directory]
    #[arg(long)]
    key: Option<SecretString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    /// Requests that went to a replica
    Route,
    /// Requests that were turned away
    Reject,
    /// Changes of the number of replicas
    Scale,
    /// Replicas that are thought of differently
    Standing,
    /// Requests that were sent again
    Retry,
}

/// How a command prints what it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Form {
    /// The one that was asked for; else by what standard output is.
    pub(super) fn or_by_terminal(form: Option<Self>) -> Self {
        form.unwrap_or_else(|| if io::stdout().is_terminal() { Self::Table } else { Self::Json })
    }
}

/// Runs the command.
///
/// # Errors
/// Nothing answers at the address, what answers refuses or is no scoregate, or standard output cannot be written.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let router = args.router.router(args.key.as_ref())?;
    let answer = runtime.block_on(ask(&router, &args.path()))?;
    match show(answer, Form::or_by_terminal(args.output), &mut io::stdout().lock()) {
        Err(error) if super::is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

impl ExplainArgs {
    fn path(&self) -> String {
        let mut path = format!("/explain?last={}", self.last);
        let kind = self.kind.and_then(|kind| kind.to_possible_value()).map(|kind| kind.get_name().to_owned());
        for (key, value) in [
            ("endpoint", &self.endpoint),
            ("deployment", &self.deployment),
            ("request", &self.request),
            ("kind", &kind),
        ] {
            if let Some(value) = value {
                let _ = write!(path, "&{key}={}", encoded(value));
            }
        }
        path
    }
}

/// Fit for a query (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

async fn ask(router: &Admin, path: &str) -> anyhow::Result<serde_json::Value> {
    router.call(Method::GET, path, &Change::default()).await?.json(router.place())
}

fn show(answer: serde_json::Value, form: Form, out: &mut impl Write) -> anyhow::Result<()> {
    if form == Form::Json {
        // As it came, so that what this version does not know stays in.
        serde_json::to_writer_pretty(&mut *out, &answer)?;
        writeln!(out)?;
        return Ok(out.flush()?);
    }
    let not_ours = "the answer is not an explanation; is it a scoregate of another version?";
    let explanation: Explanation = serde_json::from_value(answer).context(not_ours)?;
    for explained in &explanation.value {
        let endpoint = explained.entry.endpoint.as_deref().unwrap_or("-");
        let line = format!("{}  {endpoint}  {}", clock(explained.entry.at_unix_seconds), explained.sentence);
        writeln!(out, "{}", printable(&line))?;
    }
    if explanation.value.is_empty() {
        writeln!(out, "{}", nothing(&explanation))?;
    }
    Ok(out.flush()?)
}

/// What is remembered, for whoever looked for something that is not.
fn nothing(explanation: &Explanation) -> String {
    let mut text = "Nothing is remembered that fits. What is remembered:".to_owned();
    for (kind, name) in [
        (Kind::Route, "requests that had a replica"),
        (Kind::Reject, "requests that were turned away"),
        (Kind::Scale, "changes of the number of replicas"),
        (Kind::Standing, "changes of what is thought of a replica"),
        (Kind::Retry, "requests that were sent again"),
    ] {
        let Some(kept) = explanation.kept.get(&kind) else { continue };
        let since = kept.oldest_unix_seconds.map(|at| format!(", since {}", clock(at))).unwrap_or_default();
        let _ = write!(text, "\n  {name}: {} of at most {}{since}", kept.entries, kept.most);
    }
    text.push_str(
        "\nA request is remembered until so many newer ones have passed; the access log keeps all.",
    );
    text
}

/// The time of day, with the date where it is not today's; UTC.
fn clock(unix_seconds: f64) -> String {
    let at = jiff::Timestamp::from_millisecond((unix_seconds * 1_000.0) as i64).unwrap_or_default();
    let today = jiff::Timestamp::now().strftime("%F").to_string();
    let form = if at.strftime("%F").to_string() == today { "%H:%M:%S" } else { "%F %H:%M:%S" };
    format!("{}Z", at.strftime(form))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn explanation(entries: &[serde_json::Value]) -> serde_json::Value {
        serde_json::json!({
            "kept": { "scale": { "entries": 3, "most": 256, "passed": 3, "oldest_unix_seconds": 1_000.0 } },
            "value": entries,
        })
    }

    fn table(answer: serde_json::Value) -> String {
        let mut out = Vec::new();
        show(answer, Form::Table, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_time_endpoint_and_sentence_and_nothing_a_terminal_obeys() {
        let scale = serde_json::json!({
            "at_unix_seconds": 1_000.0, "endpoint": "demo", "deployment": "blue", "kind": "scale", "from": 1, "to": 2,
            "because": "of a test", "sentence": "blue: from 1 to 2\u{1b}[2J replicas",
        });
        let text = table(explanation(&[scale]));
        assert_eq!(text, "1970-01-01 00:16:40Z  demo  blue: from 1 to 2\u{fffd}[2J replicas\n");
    }

    #[test]
    fn whoever_finds_nothing_learns_what_is_kept() {
        let text = table(explanation(&[]));
        assert!(
            text.contains("changes of the number of replicas: 3 of at most 256, since 1970-01-01"),
            "{text}"
        );
    }

    #[test]
    fn nobodys_id_is_empty() {
        #[derive(Debug, clap::Parser)]
        struct Asked {
            #[command(flatten)]
            args: ExplainArgs,
        }
        let asked = |id: &str| Asked::try_parse_from(["explain", "--request", id]);
        assert_eq!(asked("7f3").unwrap().args.request.as_deref(), Some("7f3"));
        assert!(asked("").unwrap_err().to_string().contains("--request"));
    }

    #[test]
    fn a_question_is_fit_for_a_url() {
        assert_eq!(encoded("a b&c=ä"), "a%20b%26c%3D%C3%A4");
    }
}
