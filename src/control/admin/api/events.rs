//! `GET /events`: what happens, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use http::StatusCode;
use tokio::sync::broadcast::error::RecvError;

use super::super::{AdminContext, Failure};

/// Time between two comments when nothing happens, by which both sides learn that the other is there.
const SILENCE: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    Shared(context): Shared<AdminContext>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Failure> {
    let events = context.shown.operations.events().ok_or_else(|| {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_readers",
            "too many read the events; try again later",
        )
    })?;
    let stream = unfold(events, async |(mut events, place)| {
        let event = match events.recv().await {
            Ok(event) => sse::Event::default().json_data(&event).ok()?,
            // Who is too slow is told how much is missing and looks for itself.
            Err(RecvError::Lagged(missed)) => sse::Event::default().event("missed").data(missed.to_string()),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), (events, place)))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(SILENCE)))
}
