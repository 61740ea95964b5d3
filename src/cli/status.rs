//! `scoregate status`: asks a running router's admin listener for its state and shows it, as a table on a terminal and
//! as JSON in a pipe. Exit code 0: shown; 1: no router, or it refused; 2: wrong arguments.

mod table;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;

use crate::control::admin::state::State;

/// Longest time for everything.
const LONGEST: Duration = Duration::from_secs(10);
/// Largest answer that is read: several thousand replicas.
const LARGEST: usize = 16 * 1024 * 1024;

/// Show what a running router does: endpoints, deployments, slots, queues, replicas.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Address of the router's admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081", value_parser = admin_address)]
    admin: Admin,
    /// Key of the admin listener, where it has one
    #[arg(long, env = "SCOREGATE_ADMIN_KEY", hide_env_values = true)]
    key: Option<SecretString>,
    /// Print JSON even on a terminal
    #[arg(long)]
    json: bool,
}

/// `host:port` of an admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Admin(http::uri::Authority);

/// Runs the command.
///
/// # Errors
/// Nothing answers at the address, what answers refuses or is no scoregate, or standard output cannot be written.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime
        .block_on(async { tokio::time::timeout(LONGEST, fetch(&args.admin, args.key.as_ref())).await })
        .with_context(|| format!("{} did not answer within {} s", args.admin.0, LONGEST.as_secs()))??;
    let stdout = io::stdout();
    let table = stdout.is_terminal() && !args.json;
    match show(&body, table, &mut stdout.lock()) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn show(body: &Bytes, table: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let not_ours = "the answer is not a scoregate state; is it a scoregate of another version?";
    let state: State = serde_json::from_slice(body).context(not_ours)?;
    if table {
        table::write(&state, SystemTime::now(), out)?;
    } else {
        // As it came, so that what this version does not know stays in.
        out.write_all(body)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

async fn fetch(admin: &Admin, key: Option<&SecretString>) -> anyhow::Result<Bytes> {
    let address = (admin.0.host().trim_matches(['[', ']']), admin.0.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.with_context(|| {
        format!(
            "no router answers at {}; start one with \"scoregate serve\", or name its admin listener with --admin",
            admin.0
        )
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get("/state").header(HOST, admin.0.as_str());
    if let Some(key) = key {
        let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
            .map_err(|_| anyhow!("the key holds characters that a header cannot"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| anyhow!(error))?;
        anyhow::Ok((head.status, body.to_bytes()))
    };
    let mut answer = std::pin::pin!(answer);
    // The connection may end before its last answer has been read.
    let (status, body) = tokio::select! {
        answer = answer.as_mut() => answer,
        _ = connection => answer.await,
    }
    .with_context(|| format!("{} does not speak HTTP as scoregate does", admin.0))?;
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::UNAUTHORIZED => bail!(
            "{} wants its admin key: give it with --key or in SCOREGATE_ADMIN_KEY{}",
            admin.0,
            if key.is_some() { " (the one given is wrong)" } else { "" }
        ),
        StatusCode::NOT_FOUND => {
            bail!("{} has no /state; is it the data listener, or another program?", admin.0)
        }
        status => bail!("{} answered {status}", admin.0),
    }
}

fn admin_address(text: &str) -> Result<Admin, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = full.parse().map_err(|error| format!("not a URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("must begin with http:// (the admin listener speaks plain HTTP)".into());
    }
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err("must have no path: only http://HOST:PORT".into());
    }
    let authority = uri.authority().ok_or("must name a host and port")?;
    if authority.as_str().contains('@') {
        return Err("must hold no user name or password; use --key".into());
    }
    Ok(Admin(authority.clone()))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::control::admin::fixtures::{self, KEY};
    use crate::control::admin::state::tests::state;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        status: StatusArgs,
    }

    fn admin(address: std::net::SocketAddr) -> Admin {
        admin_address(&format!("http://{address}")).unwrap()
    }

    #[test]
    fn addresses_are_plain_http_without_a_path() {
        assert_eq!(admin_address("127.0.0.1:8081").unwrap().0.as_str(), "127.0.0.1:8081");
        assert_eq!(admin_address("http://[::1]:8081/").unwrap().0.as_str(), "[::1]:8081");
        for wrong in ["https://127.0.0.1", "http://a/state", "http://me:secret@a", "http://", "a b"] {
            assert!(admin_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_not_shown_by_debug() {
        let line = Line::try_parse_from(["status", "--key", "hush"]).unwrap();
        assert!(!format!("{line:?}").contains("hush"));
    }

    #[tokio::test]
    async fn the_state_of_a_running_router_is_fetched_and_shown() {
        let running = fixtures::Admin::start().await;
        let body = fetch(&admin(running.address), None).await.unwrap();
        let (mut table, mut json) = (Vec::new(), Vec::new());
        show(&body, true, &mut table).unwrap();
        show(&body, false, &mut json).unwrap();
        assert!(String::from_utf8(table).unwrap().contains("running · up 0 s · generation 7"));
        assert_eq!(json.strip_suffix(b"\n").unwrap(), body);
    }

    #[tokio::test]
    async fn a_key_is_sent_and_asked_for_without_being_shown() {
        let running = fixtures::Admin::with_key().await;
        assert!(fetch(&admin(running.address), Some(&KEY.into())).await.is_ok());
        let missing = fetch(&admin(running.address), None).await.unwrap_err().to_string();
        assert!(missing.contains("SCOREGATE_ADMIN_KEY"), "{missing}");
        let wrong = fetch(&admin(running.address), Some(&"hush".into())).await.unwrap_err().to_string();
        assert!(wrong.contains("wrong") && !wrong.contains("hush"), "{wrong}");
    }

    #[tokio::test]
    async fn a_port_without_a_router_says_what_to_do() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = fetch(&admin(address), None).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("scoregate serve"), "{error}");
    }

    #[test]
    fn a_table_has_a_row_for_each_deployment_and_nothing_a_terminal_obeys() {
        let mut out = Vec::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_090);
        table::write(&state(), now, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let row = text.lines().find(|line| line.contains("blue (default)")).unwrap();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["demo", "blue (default)", "100 %", "3/4", "5", "3", "2 ready, 1 failed"]);
        assert!(text.contains("demo/blue: 1 to 3 replicas 1 min 30 s ago: 3 of 4 slots busy"), "{text}");
        assert!(text.contains("blue-3 (127.0.0.1:9000) is failed: exit status"));
        assert!(!text.contains('\u{1b}'));
    }
}
