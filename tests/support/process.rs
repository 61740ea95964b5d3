//! The router as its users run it: the program, with a configuration file, called over HTTP, ended by a signal.
//!
//! What it prints after its addresses is thrown away; what it logs is kept in a file and named in failures.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest time for the router to start or to end, and for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `scoregate serve`; killed when it is dropped.
pub(crate) struct RouterProcess {
    child: Child,
    log: PathBuf,
    _output: JoinSet<()>,
    /// Where clients call.
    pub(crate) data: SocketAddr,
    /// Where operators call.
    pub(crate) admin: SocketAddr,
}

impl RouterProcess {
    /// Starts with a configuration and a secret in its environment, and waits for the addresses that it prints.
    /// `name` is of its files in cargo's folder for tests.
    pub(crate) async fn serve(name: &str, configuration: &str, secret: (&str, &str)) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
        std::fs::write(&file, configuration).expect("the folder for tests can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
        command.arg("serve").arg(&file).env(secret.0, secret.1);
        Self::start(name, command).await
    }

    /// Starts with a command of its own, and waits for the addresses that it prints.
    pub(crate) async fn start(name: &str, mut command: Command) -> Self {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).expect("the folder for tests can be written"))
            .kill_on_drop(true)
            .spawn()
            .expect("cargo has built the program");

        let (lines, mut printed) = mpsc::unbounded_channel();
        let mut output = JoinSet::new();
        output.spawn(read_to_end(child.stdout.take().expect("it is piped"), lines));
        let data = address(&mut printed, "data", &log).await;
        let admin = address(&mut printed, "admin", &log).await;
        Self { child, log, _output: output, data, admin }
    }

    /// The admin listener's `/state`.
    pub(crate) async fn state(&self) -> Value {
        let request = Request::get("/state").body(Full::default()).expect("a valid request");
        let mut connection =
            Connection::open(self.admin).await.expect("the admin listener takes connections");
        let answer = connection.call(request).await.expect("the admin listener answers");
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
        serde_json::from_slice(answer.body()).expect("the state is JSON")
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it has not ended");
        kill_process(id, Signal::TERM).expect("it is a child of this process");
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| {
                panic!("still running {PATIENCE:?} after SIGTERM; log: {}", self.log.display())
            })
            .expect("it is a child of this process")
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it is a child of this process");
    }

    /// Where its log is, to be named in failures.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }
}

/// Reads to the end, so that the router never waits for a reader of its output.
async fn read_to_end(stdout: ChildStdout, lines: mpsc::UnboundedSender<String>) {
    let mut stdout = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = stdout.next_line().await {
        // Nobody listens once the addresses are known.
        let _ = lines.send(line);
    }
}

/// The address in the next printed line that begins with this word, as in `data   http://127.0.0.1:41234`.
async fn address(printed: &mut mpsc::UnboundedReceiver<String>, word: &str, log: &Path) -> SocketAddr {
    let search = async {
        while let Some(line) = printed.recv().await {
            let rest = line.strip_prefix(word).map(str::trim_start);
            if let Some(address) = rest.and_then(|url| url.strip_prefix("http://")) {
                return address.parse().ok();
            }
        }
        None
    };
    timeout(PATIENCE, search).await.ok().flatten().unwrap_or_else(|| {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        panic!("the router printed no {word} address; it said:\n{said}")
    })
}

/// One kept-alive connection.
pub(crate) struct Connection {
    address: SocketAddr,
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("{error:?}"))?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // The request in flight gets the error, too.
            let _ = connection.await;
        });
        Ok(Self { address, sender, _driver: driver })
    }

    /// Sends a request and takes the whole answer; an error if there is none in time.
    pub(crate) async fn call(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, String> {
        let host = self.address.to_string().parse().map_err(|_| "not an address")?;
        request.headers_mut().insert("host", host);
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            hyper::Result::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        timeout(PATIENCE, exchange)
            .await
            .map_err(|_| format!("no answer within {PATIENCE:?}"))?
            .map_err(|error| format!("{error:?}"))
    }
}
