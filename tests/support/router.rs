//! The router under test: the real library on ports of its own, and a small client to call it with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use scoregate::app::{self, Running};
use scoregate::config;
use tokio::net::TcpStream;

/// Longest time that a condition may take to come true before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The key that `endpoint` configurations use.
pub(crate) const KEY: &str = "test-key-0123456789";

/// A running router whose configuration is a file of its own.
pub(crate) struct Router {
    running: Option<Running>,
    folder: tempfile::TempDir,
}

impl Router {
    /// Starts with these endpoints (the YAML below `endpoints:`).
    pub(crate) fn start(endpoints: &str) -> Self {
        Self::start_with("", endpoints)
    }

    /// Starts with these top-level lines and these endpoints.
    pub(crate) fn start_with(top: &str, endpoints: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scoregate.yaml");
        std::fs::write(&file, configuration(top, folder.path(), endpoints)).unwrap();
        let loaded = config::load(&file).unwrap_or_else(|report| panic!("{report}"));
        let running =
            app::start(loaded.settings, app::Origin { file: Some(file), ..app::Origin::default() }).unwrap();
        Self { running: Some(running), folder }
    }

    /// Where clients call.
    pub(crate) fn address(&self) -> SocketAddr {
        self.running().data
    }

    /// Where operators call.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.running().admin
    }

    /// The running part.
    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// The folder of its configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("scoregate.yaml")
    }

    /// Writes another configuration and reloads; the text of the refusal if there is one.
    pub(crate) async fn reload(&self, endpoints: &str) -> Result<u64, String> {
        let text = configuration("", self.folder.path(), endpoints);
        std::fs::write(self.file(), text).unwrap();
        self.running().reload.reload().await.map_err(|error| error.to_string())
    }

    /// The lines of the access log so far, once there are at least `lines`.
    pub(crate) async fn access_log(&self, lines: usize) -> Vec<serde_json::Value> {
        let path = self.folder.path().join("access.log");
        eventually("access-log lines", async || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let rows: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (rows.len() >= lines).then_some(rows)
        })
        .await
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn ready(self) -> Self {
        eventually("router ready", async || {
            let reply = get("/readyz").try_send(self.address()).await.ok()?;
            (reply.status == StatusCode::OK).then_some(())
        })
        .await;
        self
    }

    /// The admin listener's `/state`.
    pub(crate) async fn state(&self) -> serde_json::Value {
        let reply = get("/state").send_to(self.admin()).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        reply.json()
    }

    /// Drains and waits for the end.
    pub(crate) fn drain(mut self) {
        let running = self.running.take().unwrap();
        running.drain();
        assert!(running.wait());
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.force();
            assert!(running.wait() || std::thread::panicking());
        }
    }
}

fn configuration(top: &str, folder: &Path, endpoints: &str) -> String {
    let listen =
        if top.contains("listen:") { "" } else { "listen: { address: \"127.0.0.1:0\", workers: 2 }\n" };
    format!(
        "{listen}admin: {{ address: \"127.0.0.1:0\" }}\naccess_log: \"file:{}\"\n{top}\nendpoints:\n{endpoints}",
        folder.join("access.log").display()
    )
}

/// An endpoint `demo` without authentication, deployment `blue` on these replicas, with these lines of request settings.
pub(crate) fn blue(replicas: &[SocketAddr], request_settings: &str) -> String {
    let urls: Vec<String> = replicas.iter().map(|address| format!("\"http://{address}\"")).collect();
    format!(
        "  - name: demo\n    auth_mode: none\n    deployments:\n      - name: blue\n        replicas: [{}]\n        \
         request_settings: {{ {request_settings} }}\n",
        urls.join(", ")
    )
}

/// The scoring path of endpoint `demo`.
pub(crate) const SCORE: &str = "/api/v1/endpoint/demo/score";

/// Asks until there is an answer; fails the test after `PATIENCE`.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A call in the making.
pub(crate) struct Call {
    request: http::request::Builder,
    body: Bytes,
}

/// A GET.
pub(crate) fn get(path: &str) -> Call {
    call(Method::GET, path)
}

/// A POST of JSON.
pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Call {
    let mut post = call(Method::POST, path).header("content-type", "application/json");
    post.body = body.into();
    post
}

/// Any method.
pub(crate) fn call(method: Method, path: &str) -> Call {
    Call { request: Request::builder().method(method).uri(path), body: Bytes::new() }
}

impl Call {
    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Adds a bearer credential.
    pub(crate) fn bearer(self, credential: &str) -> Self {
        self.header("authorization", &format!("Bearer {credential}"))
    }

    /// Sends it to a router and waits for the whole answer.
    pub(crate) async fn send(self, router: &Router) -> Reply {
        self.send_to(router.address()).await
    }

    /// Sends it to an address and waits for the whole answer.
    pub(crate) async fn send_to(self, address: SocketAddr) -> Reply {
        self.try_send(address).await.unwrap()
    }

    /// Sends it on a connection of its own; an error if there is no whole answer.
    pub(crate) async fn try_send(self, address: SocketAddr) -> Result<Reply, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let mut request = self.request;
        if !request.headers_ref().unwrap().contains_key("host") {
            request = request.header("host", address.to_string());
        }
        let request = request.body(Full::new(self.body)).unwrap();
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
            let (head, body) = response.into_parts();
            let collected = body.collect().await.map_err(|error| format!("{error:?}"))?;
            let trailers = collected.trailers().cloned();
            Ok(Reply { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers })
        };
        // The connection is driven here, so that dropping this future hangs up.
        let drive = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            reply = exchange => reply,
            () = drive => unreachable!("never ends"),
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Status.
    pub(crate) status: StatusCode,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body.
    pub(crate) body: Bytes,
    /// Trailers.
    pub(crate) trailers: Option<HeaderMap>,
}

impl Reply {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header as text, empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Fails unless it is the router's own answer with this status and code.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
    }
}
