//! Connections of the admin listener: how many, how large a head, how long, and their end at drain.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shutdown::{Drain, Tasks};

/// Connections at once; more wait in the backlog. Operators and scrapers are few.
const CONNECTIONS: usize = 256;
/// Longest time for a request head, idle time between two requests included.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Longest life of a connection, so that a peer that reads nothing gives its place back.
const LIFE: Duration = Duration::from_secs(300);
/// Longest time for an answer that is on its way when its connection is to end.
const GOODBYE: Duration = Duration::from_secs(2);
/// Largest request head in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Most header fields.
const HEADERS: usize = 64;
/// Pause after a failed accept, which usually means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the drain begins, and what is open then until the drain is over.
pub(super) async fn serve(listener: TcpListener, router: Router, mut drain: Drain) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = Tasks::new();
    let mut ending = drain.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = ending.started() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        if let Some((stream, place)) = accepted {
            tasks.spawn(connection(stream, place, router.clone(), drain.clone()));
        }
    }
    // Closed now, so that who comes late is refused rather than kept waiting.
    drop(listener);
    tokio::select! {
        () = tasks.ended() => {}
        () = drain.over() => {}
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "the admin listener could not accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, _place: OwnedSemaphorePermit, router: Router, drain: Drain) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let mut over = drain.clone();
    let mut begun = drain;
    // An error is a client that left or sent no HTTP, which hyper has answered.
    tokio::select! {
        _ = served.as_mut() => return,
        () = begun.started() => {}
        () = tokio::time::sleep(LIFE) => {}
    }
    served.as_mut().graceful_shutdown();
    tokio::select! {
        _ = served => {}
        () = over.over() => {}
        () = tokio::time::sleep(GOODBYE) => {}
    }
}
