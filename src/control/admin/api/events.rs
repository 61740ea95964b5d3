//! `GET /events`: what happens, as server-sent events: changes and operations, what the ledger's control part decides, and
//! once a second how many requests were turned away or sent again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::{Interval, MissedTickBehavior};

use super::super::{AdminContext, Failure};
use super::explain::Explained;
use crate::control::operations;
use crate::core::ledger::{Entry, Kind};
use crate::observe::ledger::Ledger;

/// Requests that are told by their number and the newest.
const COUNTED: [(Kind, &str); 2] = [(Kind::Reject, "rejects"), (Kind::Retry, "retries")];

/// Time between two comments when nothing happens, by which both sides learn that the other is there.
const SILENCE: Duration = Duration::from_secs(15);

/// Time between two looks at what was turned away or sent again.
const LOOK: Duration = Duration::from_secs(1);

/// What is told one by one at each look; the others are only counted.
const TOLD: usize = 5;

pub(super) async fn stream(
    Shared(context): Shared<AdminContext>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Failure> {
    let (changes, place) = context.shown.operations.events().ok_or_else(|| {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_readers",
            "too many read the events; try again later",
        )
    })?;
    let ledger = context.ledger;
    let reader = Reader {
        changes,
        decisions: ledger.listen(),
        seen: COUNTED.map(|(kind, _)| ledger.since(kind, 0, 0).0),
        untold: Vec::new(),
        ledger,
        looks: looks(),
        _place: place,
    };
    let stream = unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(SILENCE)))
}

/// One who was slow to read has no looks to catch up on: the next one tells all.
fn looks() -> Interval {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    looks
}

/// One who listens.
struct Reader {
    changes: broadcast::Receiver<operations::Event>,
    decisions: broadcast::Receiver<Arc<Entry>>,
    ledger: Ledger,
    looks: Interval,
    /// How many of each were told or counted.
    seen: [u64; COUNTED.len()],
    /// What was counted at the last look and is still to be told.
    untold: Vec<Value>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.untold.pop() {
                return sse::Event::default().json_data(event).ok();
            }
            tokio::select! {
                change = self.changes.recv() => return told(&change),
                decision = self.decisions.recv() => {
                    let told_as = decision.map(|entry| json!({
                        "type": "decision",
                        "decision": Explained::from(Entry::clone(&entry)),
                    }));
                    return told(&told_as);
                }
                _ = self.looks.tick() => self.look(),
            }
        }
    }

    /// Counts what is counted.
    fn look(&mut self) {
        for ((kind, word), seen) in COUNTED.into_iter().zip(&mut self.seen) {
            let (total, newest) = self.ledger.since(kind, *seen, TOLD);
            let count = total.saturating_sub(std::mem::replace(seen, total));
            if count > 0 {
                let newest: Vec<_> = newest.into_iter().map(Explained::from).collect();
                self.untold.push(json!({ "type": word, "count": count, "newest": newest }));
            }
        }
    }
}

/// Who is too slow is told how much is missing and looks for itself.
fn told<T: Serialize>(event: &Result<T, RecvError>) -> Option<sse::Event> {
    match event {
        Ok(event) => sse::Event::default().json_data(event).ok(),
        Err(RecvError::Lagged(missed)) => {
            Some(sse::Event::default().event("missed").data(missed.to_string()))
        }
        Err(RecvError::Closed) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_one_look_and_not_all_that_it_missed() {
        let mut looks = looks();
        looks.tick().await;
        tokio::time::advance(10 * LOOK + LOOK / 2).await;
        looks.tick().await;
        let asked = tokio::time::Instant::now();
        looks.tick().await;
        assert_eq!(tokio::time::Instant::now() - asked, LOOK / 2);
    }
}
