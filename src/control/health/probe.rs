//! One probe on the wire: HTTP/1.1 GET on a connection of its own; 200 to 399 is good. An open port proves nothing:
//! the real model server listens seconds before it can answer.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::core::settings::Authority;

/// Why a probe was no success.
#[derive(Debug)]
pub(super) struct Failure {
    /// For people.
    pub(super) reason: String,
    /// There was no answer in time, which is no proof of anything while the replica works.
    pub(super) timed_out: bool,
}

/// Sends one probe; a redirect is good and is not followed.
pub(super) async fn probe(target: &Authority, path: &str, timeout: Duration) -> Result<(), Failure> {
    match tokio::time::timeout(timeout, status(target, path)).await {
        Ok(Ok(status)) if status.is_success() || status.is_redirection() => Ok(()),
        Ok(Ok(status)) => Err(Failure { reason: format!("answered {status}"), timed_out: false }),
        Ok(Err(reason)) => Err(Failure { reason, timed_out: false }),
        Err(_) => Err(Failure { reason: format!("no answer within {timeout:?}"), timed_out: true }),
    }
}

async fn status(target: &Authority, path: &str) -> Result<StatusCode, String> {
    fn because(what: &'static str) -> impl Fn(&dyn Display) -> String {
        move |error| format!("{what}: {error}")
    }
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|error| because("cannot connect")(&error))?;
    let broken = because("no HTTP answer");
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let request = Request::get(path)
        .header(HOST, target.to_string())
        .header(USER_AGENT, concat!("scoregate-probe/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(&error))?;
    let answer = sender.send_request(request);
    // The connection is driven here and not in a task of its own: dropped with the probe, it is closed.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // It ends first when the server closes; the answer, good or bad, is there by then.
        _ = &mut connection => answer.await,
    }
    .map(|answer| answer.status())
    .map_err(|error| broken(&error))
}
