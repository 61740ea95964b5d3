//! The admin API in the words of the verbs: read, change, and wait until a change is through.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use http::header::{ETAG, RETRY_AFTER};
use http::{HeaderMap, Method};
use serde_json::Value;

use super::document::Document;
use crate::cli::admin::{Admin, Change, Refused, printable};

/// Shortest time between two looks at an operation.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Where the operation of a change is.
const OPERATION: &str = "azure-asyncoperation";
/// Longest line of progress, in characters: most terminals have this many columns.
const LINE: usize = 78;

/// A router that is asked by a verb.
pub(super) struct Session {
    admin: Admin,
    /// Whether somebody watches.
    is_watched: bool,
}

/// The answer to a change.
pub(super) struct Reply {
    pub(super) value: Value,
    operation: Option<String>,
    pause: Duration,
}

/// What was read, to be changed.
pub(super) struct Read {
    pub(super) document: Document,
    pub(super) etag: Option<String>,
}

/// Of what a change is: for messages.
pub(super) struct Of<'a> {
    /// `deployment blue`.
    pub(super) what: &'a str,
    /// The command that tells more.
    pub(super) look: &'a str,
}

impl Session {
    /// Nothing is asked yet.
    pub(super) fn new(admin: Admin) -> Self {
        Self { admin, is_watched: std::io::stderr().is_terminal() }
    }

    /// Reads an object.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.admin.call(Method::GET, path, &Change::default()).await?;
        answer.json(self.admin.place())
    }

    /// Reads an object that may be absent. `code` is what the router says then.
    pub(super) async fn find(&self, path: &str, code: &str) -> anyhow::Result<Option<Value>> {
        match self.get(path).await {
            Err(error) if is(&error, code) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Reads a list.
    pub(super) async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        match self.get(path).await?.get_mut("value").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => bail!("{} answered no list; is it a scoregate of another version?", self.admin.place()),
        }
    }

    /// Reads an object to change it.
    pub(super) async fn read(&self, path: &str) -> anyhow::Result<Read> {
        let answer = self.admin.call(Method::GET, path, &Change::default()).await?;
        let Value::Object(document) = answer.json(self.admin.place())? else {
            bail!("{} answered no object; is it a scoregate of another version?", self.admin.place())
        };
        let header = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        let etag = document.get("etag").and_then(Value::as_str).or(header).map(str::to_owned);
        Ok(Read { document, etag })
    }

    /// Asks for a change.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let answer = self.admin.call(method, path, &Change { body, etag }).await?;
        let value = answer.json(self.admin.place()).map_err(|error| match is(&error, "conflict") {
            true => error.context("somebody else has changed it meanwhile; look at it and try again"),
            false => error,
        })?;
        Ok(Reply { value, operation: operation(&answer.headers), pause: pause(&answer.headers) })
    }

    /// Waits until the change is through.
    ///
    /// # Errors
    /// It has failed, or the user does not want to wait any longer.
    pub(super) async fn settle(&self, reply: &Reply, of: &Of<'_>) -> anyhow::Result<()> {
        let Some(path) = &reply.operation else { return Ok(()) };
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut pause = reply.pause;
        let started = Instant::now();
        loop {
            tokio::select! {
                _ = &mut interrupted => {
                    self.progress("");
                    bail!("not waiting any longer; {} goes on in the background. To look: {}", of.what, of.look);
                }
                () = tokio::time::sleep(pause) => {}
            }
            let looked = self.admin.call(Method::GET, path, &Change::default()).await;
            let (state, headers) = match looked {
                Ok(answer) => (answer.json(self.admin.place()), answer.headers),
                Err(error) => (Err(error), HeaderMap::new()),
            };
            let state = state.map_err(|error| {
                self.progress("");
                error.context(format!("lost sight of {}. To look: {}", of.what, of.look))
            })?;
            match state["status"].as_str() {
                Some("Succeeded") => {
                    self.progress("");
                    return Ok(());
                }
                Some("Failed" | "Canceled") => {
                    self.progress("");
                    return Err(failure(&state, of));
                }
                _ => self.progress(&line(&state, of.what, started.elapsed())),
            }
            pause = self::pause(&headers);
        }
    }

    /// One line that is written over; an empty text takes it away.
    fn progress(&self, text: &str) {
        if self.is_watched {
            // Nothing depends on its being seen.
            let _ = write!(std::io::stderr(), "\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
        }
    }
}

/// Says which keys of a new object are kept and mean nothing here: once, when it is made.
pub(super) fn tell_no_effect(value: &Value) {
    let keys = value["no_effect"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let keys: Vec<String> = keys.map(printable).collect();
    if !keys.is_empty() {
        // Nothing depends on its being seen.
        let _ = writeln!(std::io::stderr(), "no effect here: {}", keys.join(", "));
    }
}

/// Whether the router has refused with this code.
pub(super) fn is(error: &anyhow::Error, code: &str) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == code)
}

/// Path of an endpoint, and of what is within.
pub(super) fn path(parts: &[&str]) -> String {
    parts.iter().map(|part| format!("/{}", encoded(part))).collect()
}

/// A name may hold anything when it comes from the command line.
fn encoded(part: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    part.bytes().map(byte).collect()
}

/// The path only: the key goes to the router that was asked, whatever host the URL names.
fn operation(headers: &HeaderMap) -> Option<String> {
    let url: http::Uri = headers.get(OPERATION)?.to_str().ok()?.parse().ok()?;
    url.path_and_query().map(|path| path.as_str().to_owned())
}

fn pause(headers: &HeaderMap) -> Duration {
    let seconds =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).clamp(SHORTEST_PAUSE, Duration::from_secs(30))
}

fn line(state: &Value, what: &str, since: Duration) -> String {
    let phase = state["phase"].as_str().unwrap_or("working");
    let replicas = match (state["replicas_ready"].as_u64(), state["replicas_wanted"].as_u64()) {
        (Some(ready), Some(wanted)) => format!(", {ready} of {wanted} replicas ready"),
        _ => String::new(),
    };
    let text = printable(&format!("{what}: {phase}{replicas}, {} s", since.as_secs()));
    text.chars().map(|c| if c == '\n' { ' ' } else { c }).take(LINE).collect()
}

fn failure(state: &Value, of: &Of<'_>) -> anyhow::Error {
    let text = |key: &str| state["error"][key].as_str().map(printable);
    let code = text("code").map(|code| format!(" ({code})")).unwrap_or_default();
    let why = match (text("message"), state["status"].as_str()) {
        (Some(message), _) => message,
        (None, Some("Canceled")) => "it was canceled".into(),
        (None, _) => "the router gives no reason".into(),
    };
    anyhow!("{} has failed{code}: {why}\nto find out more: {}", of.what, of.look)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(path(&["endpoints", "a b/../c?x=1", "keys"]), "/endpoints/a%20b%2F..%2Fc%3Fx%3D1/keys");
    }

    #[test]
    fn operations_are_asked_for_at_the_same_router() {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, HeaderValue::from_static("http://elsewhere:1/operations/7?x=y"));
        assert_eq!(operation(&headers).unwrap(), "/operations/7?x=y");
        assert_eq!(pause(&headers), Duration::from_secs(1));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("0"));
        assert_eq!(pause(&headers), SHORTEST_PAUSE);
    }

    #[test]
    fn progress_is_one_line_that_a_terminal_does_not_obey() {
        let state = json!({"phase": "start\u{1b}[2J\ning", "replicas_ready": 1, "replicas_wanted": 2});
        let text = line(&state, "deployment blue", Duration::from_secs(12));
        assert_eq!(text, "deployment blue: start\u{fffd}[2J ing, 1 of 2 replicas ready, 12 s");
        assert!(line(&json!({"phase": "x".repeat(500)}), "d", Duration::ZERO).chars().count() <= LINE);
    }

    #[test]
    fn a_failure_has_code_reason_and_what_to_do() {
        let state = json!({"status": "Failed", "error": {"code": "start_failed", "message": "no module"}});
        let text = failure(&state, &Of { what: "deployment blue", look: "scoregate x" }).to_string();
        assert_eq!(
            text,
            "deployment blue has failed (start_failed): no module\nto find out more: scoregate x"
        );
    }
}
