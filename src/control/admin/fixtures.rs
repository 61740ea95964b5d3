//! An admin listener for tests: a real one on a port of its own, with a configuration without endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;
use crate::core::identity::KeyDigest;
use crate::core::settings::{AccessLogTarget, AdminSettings, ListenSettings, Settings};
use crate::shutdown::{DrainTrigger, Tasks, drain};

/// The key of `Admin::with_key`.
pub(crate) const KEY: &str = "open sesame";

/// A running listener.
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    /// Of the data plane.
    pub(crate) stage: DrainTrigger,
    /// Of the listener itself.
    pub(crate) end: DrainTrigger,
    pub(crate) reloads: mpsc::Receiver<ReloadRequest>,
    pub(crate) tasks: Tasks,
}

/// A context without endpoints; the other sides of its channels come along.
pub(crate) fn context() -> (AdminContext, DrainTrigger, mpsc::Receiver<ReloadRequest>) {
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = Settings {
        listen: ListenSettings {
            address: any_port,
            workers: None,
            max_connections: 10.try_into().unwrap(),
            header_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(1),
            tls: None,
        },
        admin: AdminSettings { address: any_port, key: None },
        drain_timeout: Duration::from_secs(1),
        access_log: AccessLogTarget::Off,
        recording: None,
        endpoints: Vec::new(),
    };
    let snapshot = Snapshot {
        generation: 7,
        settings: Arc::new(settings),
        routes: crate::core::route::Routes::default(),
        endpoints: Vec::new(),
    };
    let (stage, watched) = drain();
    let (reload, reloads) = reloader();
    let context = AdminContext {
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        board: Board::new(),
        overrides: Overrides::default(),
        reload,
        access: AccessLog::off(),
        ledger: Ledger::new(),
        key: None,
        roles: None,
        registrar: crate::control::registry::registrar().0,
        shown: Shown::nothing(),
        public_url: "http://127.0.0.1:8080".to_owned(),
        stage: watched,
        started: Instant::now(),
        started_at: SystemTime::now(),
    };
    (context, stage, reloads)
}

impl Admin {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn with_key() -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY.as_bytes());
        let digest = KeyDigest(digest.as_ref().try_into().unwrap());
        Self::start_with(Some(Key { digest, origin: "inline".into() })).await
    }

    async fn start_with(key: Option<Key>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut context, stage, reloads) = context();
        context.key = key;
        let (end, watched) = drain();
        let tasks = Tasks::new();
        tasks.spawn(async move { serve(listener, context, watched).await.unwrap() });
        Self { address, stage, end, reloads, tasks }
    }

    /// Sends a request with these header lines on a connection of its own; the status and the body.
    pub(crate) async fn ask(&self, line: &str, headers: &str) -> (u16, String) {
        let answer = self.raw(&format!("{line} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n")).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status, body.unwrap_or_default())
    }

    /// Sends bytes and reads until the listener closes.
    pub(crate) async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The listener may answer and close before it has read everything.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }
}
