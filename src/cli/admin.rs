//! Where a router's admin listener is, which key opens it, and one call of its API. All commands that ask a running
//! router something come through here.
//!
//! The address: `--admin`, else `SCOREGATE_ADMIN`, else what the router wrote into its state directory, else the default
//! port on this machine. The key: `SCOREGATE_ADMIN_KEY`, else the file in the state directory; the file's key is for
//! the router of that directory and is sent to no other machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::http::target::Target;
use super::http::tls::Trust;
use super::http::{self as wire, Answer, NoConnection};

/// Where the admin listener is when nothing says it.
const DEFAULT: &str = "http://127.0.0.1:8081";
/// Longest time for one call.
const LONGEST: Duration = Duration::from_secs(60);

/// Which router is asked.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which router")]
pub(super) struct AdminArgs {
    /// Address of the router's admin listener [default: as the state directory says, else http://127.0.0.1:8081]
    #[arg(long, value_name = "URL", env = "SCOREGATE_ADMIN", hide_env_values = true, global = true, value_parser = address)]
    admin: Option<Address>,
    /// State directory of the router [default: $XDG_STATE_HOME/scoregate, else ~/.local/state/scoregate]
    #[arg(long, value_name = "DIR", env = "SCOREGATE_STATE", hide_env_values = true, global = true)]
    state: Option<PathBuf>,
    /// File with the certificates to trust (PEM), in place of the system's
    #[arg(long, value_name = "FILE", env = "SCOREGATE_CA", hide_env_values = true, global = true)]
    ca: Option<PathBuf>,
}

/// A URL without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address(Target);

/// A router that can be asked.
pub(super) struct Admin {
    target: Target,
    trust: Trust,
    key: Option<HeaderValue>,
}

/// What is sent with a change.
#[derive(Default)]
pub(super) struct Change<'a> {
    pub(super) body: Option<&'a Value>,
    /// The state that the change starts from; another one is a conflict.
    pub(super) etag: Option<&'a str>,
}

/// The router has understood and said no.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", listed(.details))]
pub(super) struct Refused {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) details: Vec<Value>,
}

impl AdminArgs {
    /// The router; `key` is one that was given by flag.
    ///
    /// # Errors
    /// A file cannot be read, or holds what it should not.
    pub(super) fn router(&self, key: Option<&SecretString>) -> anyhow::Result<Admin> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let folder = self.state.clone().or_else(|| default_folder(env));
        let announced = match &folder {
            Some(folder) => announced(folder),
            None => Ok(None),
        };
        let (target, is_of_folder) = match (&self.admin, announced) {
            (Some(Address(given)), announced) => {
                let is_same = announced.ok().flatten().is_some_and(|Address(announced)| announced == *given);
                (given.clone(), is_same || is_loopback(&given.host))
            }
            (None, announced) => match announced? {
                Some(Address(target)) => (target, true),
                None => (Target::parse(DEFAULT).map_err(|error| anyhow!(error))?, true),
            },
        };
        let key = match (key.cloned(), env("SCOREGATE_ADMIN_KEY"), folder) {
            (Some(key), _, _) => Some(key),
            (None, Some(key), _) => Some(key.into()),
            (None, None, Some(folder)) if is_of_folder => key_file(&folder)?,
            _ => None,
        };
        Ok(Admin { target, trust: self.trust()?, key: key.map(|key| bearer(&key)).transpose()? })
    }

    /// Which certificates are trusted.
    pub(super) fn trust(&self) -> anyhow::Result<Trust> {
        wire::trust(self.ca.as_deref())
    }
}

impl Admin {
    /// Asks; whatever the router answers to one who may ask.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        change: &Change<'_>,
    ) -> anyhow::Result<Answer> {
        let merges = method == Method::PATCH;
        let mut request = Request::builder()
            .method(method)
            .uri(path.parse::<PathAndQuery>()?)
            .header(ACCEPT, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        if let Some(etag) = change.etag {
            request = request.header(IF_MATCH, etag);
        }
        let mut body = Bytes::new();
        if let Some(value) = change.body {
            let kind = if merges { "application/merge-patch+json" } else { "application/json" };
            request = request.header(CONTENT_TYPE, kind);
            body = serde_json::to_vec(value)?.into();
        }
        let sent = wire::send(&self.target, &self.trust, request.body(Full::new(body))?, LONGEST).await;
        let answer = sent.map_err(|error| match error.is::<NoConnection>() {
            true => error.context(format!(
                "no router answers at {}; start one with \"scoregate serve\", or name its admin listener with --admin",
                self.place()
            )),
            false => error,
        })?;
        if answer.status == StatusCode::UNAUTHORIZED {
            bail!(
                "{} wants its admin key: give it in SCOREGATE_ADMIN_KEY, or, on its machine, name its state directory with --state{}",
                self.place(),
                if self.key.is_some() { " (the one given is wrong)" } else { "" }
            );
        }
        Ok(answer)
    }

    /// `host:port`.
    pub(super) fn place(&self) -> &str {
        self.target.authority.as_str()
    }
}

impl Answer {
    /// The JSON of a success.
    ///
    /// # Errors
    /// [`Refused`] for anything else.
    pub(super) fn json(&self, place: &str) -> anyhow::Result<Value> {
        if self.status.is_success() {
            if self.body.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&self.body)
                .with_context(|| format!("{place} answered no JSON; is it a scoregate of another version?"));
        }
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = |name: &str| body["error"][name].as_str().map(printable);
        match (text("code"), text("message")) {
            (Some(code), Some(message)) => {
                let details = body["error"]["details"].as_array().cloned().unwrap_or_default();
                Err(Refused { code, message, details }.into())
            }
            _ if self.status == StatusCode::NOT_FOUND => bail!(
                "{place} does not know this call; is it the data listener, a router without --state, or another program?"
            ),
            _ => bail!("{place} answered {}", self.status),
        }
    }
}

fn listed(details: &[Value]) -> String {
    let texts = details.iter().map(|detail| {
        let text = detail.as_str().or_else(|| detail["message"].as_str()).map(str::to_owned);
        format!("\n  {}", printable(&text.unwrap_or_else(|| detail.to_string())))
    });
    texts.collect()
}

/// What a server has said, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// `$XDG_STATE_HOME/scoregate`, else `~/.local/state/scoregate`.
pub(super) fn default_folder(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = || env("HOME").map(|home| Path::new(&home).join(".local/state"));
    let base = env("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    base.map(|base| base.join("scoregate"))
}

/// What the router of this directory says about itself.
fn announced(folder: &Path) -> anyhow::Result<Option<Address>> {
    let path = folder.join("admin.json");
    let Some(text) = read(&path)? else { return Ok(None) };
    let broken = || format!("{} is not as the router writes it; start the router again", path.display());
    let json: Value = serde_json::from_str(&text).with_context(broken)?;
    let url = json["url"].as_str().with_context(broken)?;
    address(url).map(Some).map_err(|error| anyhow!(error)).with_context(broken)
}

fn key_file(folder: &Path) -> anyhow::Result<Option<SecretString>> {
    Ok(read(&folder.join("admin.key"))?.map(|text| text.trim_end().to_owned().into()))
}

/// A file that need not be there.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot read {}; it belongs to the user who runs the router, others give the key in SCOREGATE_ADMIN_KEY",
                path.display()
            )
        }),
    }
}

/// The header that shows a key or a token.
pub(super) fn bearer(key: &SecretString) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
        .map_err(|_| anyhow!("the key holds characters that a header cannot"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn address(text: &str) -> Result<Address, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let target = Target::parse(&full)?;
    if target.path.as_str() != "/" {
        return Err("must have no path: only http://HOST:PORT".into());
    }
    Ok(Address(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(admin: Option<&str>, state: Option<&Path>) -> AdminArgs {
        AdminArgs {
            admin: admin.map(|text| address(text).unwrap()),
            state: state.map(Path::to_owned),
            ca: None,
        }
    }

    #[test]
    fn addresses_have_no_path_and_no_secrets() {
        assert_eq!(address("127.0.0.1:8081").unwrap().0.authority.as_str(), "127.0.0.1:8081");
        assert_eq!(address("http://[::1]:8081/").unwrap().0.authority.as_str(), "[::1]:8081");
        assert!(address("https://router.example").unwrap().0.is_tls);
        for wrong in ["ftp://127.0.0.1", "http://a/state", "http://me:secret@a", "http://", "a b"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_state_directory_says_where_the_router_is_and_holds_its_key() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("admin.json"), r#"{"url": "http://127.0.0.1:4711"}"#).unwrap();
        fs::write(folder.path().join("admin.key"), "open sesame\n").unwrap();
        let router = args(None, Some(folder.path())).router(None).unwrap();
        assert_eq!(router.place(), "127.0.0.1:4711");
        assert_eq!(router.key.unwrap(), "Bearer open sesame");
        let router = args(Some("127.0.0.1:1"), Some(folder.path())).router(Some(&"own".into())).unwrap();
        assert_eq!(
            (router.place(), router.key.as_ref().unwrap().to_str().unwrap()),
            ("127.0.0.1:1", "Bearer own")
        );
        fs::write(folder.path().join("admin.json"), "{").unwrap();
        let Err(error) = args(None, Some(folder.path())).router(None) else { panic!("it is broken") };
        assert!(error.to_string().contains("admin.json"), "{error}");
    }

    #[test]
    fn the_default_folder_is_that_of_the_user() {
        let of = |pairs: &'static [(&str, &str)]| {
            default_folder(move |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.local/state/scoregate".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")]), Some("/x/scoregate".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_STATE_HOME", "x")]), Some("/h/.local/state/scoregate".into()));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_refusal_is_told_with_its_details_and_nothing_a_terminal_obeys() {
        let answer = |status: StatusCode, body: &'static str| Answer {
            status,
            headers: http::HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let body = r#"{"error":{"code":"bad","message":"no\u001b[2J","details":[{"message":"line 2"}]}}"#;
        let error = answer(StatusCode::BAD_REQUEST, body).json("here").unwrap_err().to_string();
        assert_eq!(error, "no\u{fffd}[2J\n  line 2");
        let error = answer(StatusCode::NOT_FOUND, "").json("here").unwrap_err().to_string();
        assert!(error.contains("--state"), "{error}");
    }
}
