//! `scoregate status`: asks a running router's admin listener for its state and shows it, as a table on a terminal and
//! as JSON in a pipe. Exit code 0: shown; 1: no router, or it refused; 2: wrong arguments.

mod table;

use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use secrecy::SecretString;

use super::admin::{Admin, AdminArgs, Change};
use crate::control::admin::state::State;

/// Show what a running router does: endpoints, deployments, slots, queues, replicas.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    router: AdminArgs,
    /// Key of the admin listener [default: SCOREGATE_ADMIN_KEY, else that of the state directory]
    #[arg(long)]
    key: Option<SecretString>,
    /// Print JSON even on a terminal
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Nothing answers at the address, what answers refuses or is no scoregate, or standard output cannot be written.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let router = args.router.router(args.key.as_ref())?;
    let body = runtime.block_on(fetch(&router))?;
    let stdout = io::stdout();
    let table = stdout.is_terminal() && !args.json;
    match show(&body, table, &mut stdout.lock()) {
        Err(error) if super::is_broken_pipe(&error) => Ok(()),
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

async fn fetch(router: &Admin) -> anyhow::Result<Bytes> {
    let answer = router.call(Method::GET, "/state", &Change::default()).await?;
    match answer.status {
        StatusCode::OK => Ok(answer.body),
        StatusCode::NOT_FOUND => {
            bail!("{} has no /state; is it the data listener, or another program?", router.place())
        }
        status => bail!("{} answered {status}", router.place()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::control::admin::fixtures::{self, KEY};
    use crate::control::admin::state::tests::state;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        status: StatusArgs,
    }

    fn router(address: SocketAddr, key: Option<&str>) -> Admin {
        let url = format!("http://{address}");
        let line = Line::try_parse_from(["status", "--state", "/nowhere", "--admin", &url]).unwrap();
        line.status.router.router(key.map(SecretString::from).as_ref()).unwrap()
    }

    #[test]
    fn a_key_is_not_shown_by_debug() {
        let line = Line::try_parse_from(["status", "--key", "hush"]).unwrap();
        assert!(!format!("{line:?}").contains("hush"));
    }

    #[tokio::test]
    async fn the_state_of_a_running_router_is_fetched_and_shown() {
        let running = fixtures::Admin::start().await;
        let body = fetch(&router(running.address, None)).await.unwrap();
        let (mut table, mut json) = (Vec::new(), Vec::new());
        show(&body, true, &mut table).unwrap();
        show(&body, false, &mut json).unwrap();
        assert!(String::from_utf8(table).unwrap().contains("running · up 0 s · generation 7"));
        assert_eq!(json.strip_suffix(b"\n").unwrap(), body);
    }

    #[tokio::test]
    async fn a_key_is_sent_and_asked_for_without_being_shown() {
        let running = fixtures::Admin::with_key().await;
        assert!(fetch(&router(running.address, Some(KEY))).await.is_ok());
        let missing = fetch(&router(running.address, None)).await.unwrap_err().to_string();
        assert!(missing.contains("SCOREGATE_ADMIN_KEY"), "{missing}");
        let wrong = fetch(&router(running.address, Some("hush"))).await.unwrap_err().to_string();
        assert!(wrong.contains("wrong") && !wrong.contains("hush"), "{wrong}");
    }

    #[tokio::test]
    async fn a_port_without_a_router_says_what_to_do() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = fetch(&router(address, None)).await.unwrap_err().to_string();
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
        assert!(text.contains("demo/blue: from 1 to 3 replicas, decided 1 min 30 s ago: 3 of 4"), "{text}");
        let held = "demo/blue: held at 3 by an operator until 1970-01-01 02:00 UTC (in 1 h 41 min)";
        assert!(text.contains(held), "{text}");
        assert!(text.contains("blue-3 (127.0.0.1:9000) is failed: exit status"));
        assert!(!text.contains('\u{1b}'));
    }
}
