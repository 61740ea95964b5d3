//! What is kept, for how long, and that it is found.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::*;
use crate::core::admission::Retry;
use crate::core::bounds::Why;
use crate::core::ledger::{Scale, Seen};
use crate::core::retry::{Cause, Tries};
use crate::observe::access::tests::record;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn with_id(id: &str) -> Record {
    Record { request_id: Some(HeaderValue::from_str(id).unwrap()), ..record() }
}

fn refused(id: &str) -> Record {
    let seen = Some(Seen {
        ready: 1,
        busy: 1,
        slots: Some(1),
        waiting: 2,
        max_wait_ms: 500,
        max_length: None,
        ..Seen::default()
    });
    let refused = Some(Box::new(Refused { seen, grounds: None }));
    let retry = Retry { wait: Duration::from_micros(1_100_100), seconds: 4 };
    let story = Story { refused, retry_after: Some(retry), ..Story::default() };
    let status = Some(StatusCode::SERVICE_UNAVAILABLE);
    Record { replica: None, reason: Some("queue_timeout"), status, story, ..with_id(id) }
}

fn sent_twice(id: &str) -> Record {
    let mut tries = Tries { sent: 2, ..Tries::default() };
    tries.add(Cause::Broken);
    Record { tries, ..with_id(id) }
}

fn scale(to: u32) -> What {
    What::Scale(Scale::decided(1, to, &Why::Listed { servers: to }))
}

fn about(request: &str) -> Question {
    Question { request: Some(request.into()), ..Question::default() }
}

#[test]
fn a_flood_of_routes_pushes_out_nothing_else() {
    let ledger = Ledger::new();
    let (one, other) = (ledger.worker(), ledger.worker());
    one.take(&mut refused("early"));
    one.take(&mut sent_twice("retried"));
    ledger.decided(&name("demo"), &name("blue"), scale(5));
    for number in 0..3 * ROUTES {
        one.take(&mut with_id(&number.to_string()));
    }
    other.take(&mut with_id("elsewhere"));
    let all = ledger.find(&Question::default(), usize::MAX);
    assert_eq!(all.entries.len(), ROUTES + 4);
    assert!(all.entries.is_sorted_by(|one, next| one.at_unix_seconds <= next.at_unix_seconds));
    let routes = &all.kept[&Kind::Route];
    assert_eq!((routes.entries, routes.most, routes.passed), (ROUTES + 1, 2 * ROUTES, 3 * ROUTES as u64 + 1));
    for (request, found) in [("early", 1), ("retried", 1), ("0", 0), ("3000", 1), ("elsewhere", 1)] {
        assert_eq!(ledger.find(&about(request), 10).entries.len(), found, "{request}");
    }
    let scales = ledger.find(&Question { kind: Some(Kind::Scale), ..Question::default() }, 10).entries;
    assert_eq!(scales.len(), 1);
}

#[test]
fn each_kind_of_the_control_plane_is_bounded() {
    let ledger = Ledger::new();
    for to in 0..2 * CONTROL as u32 {
        ledger.decided(&name("demo"), &name("blue"), scale(to));
    }
    let found = ledger.find(&Question::default(), usize::MAX);
    assert_eq!(found.entries.len(), CONTROL);
    let last = ledger.find(&Question::default(), 1).entries;
    assert!(matches!(&last[0].what, What::Scale(scale) if scale.to == 2 * CONTROL as u32 - 1), "{last:?}");
}

#[test]
fn an_id_of_any_length_is_found() {
    let ledger = Ledger::new();
    let worker = ledger.worker();
    let long = "x".repeat(100);
    worker.take(&mut refused(&long));
    worker.take(&mut with_id("short"));
    assert_eq!(ledger.find(&about(&long), 5).entries.len(), 1);
    assert_eq!(ledger.find(&about("short"), 5).entries.len(), 1);
    assert_eq!(ledger.find(&about("shor"), 5).entries.len(), 0);
    assert_eq!(ledger.find(&about(""), 5).entries.len(), 0, "none is no id");
    let client_request_id = Some(HeaderValue::from_static("job-1"));
    worker.take(&mut Record { client_request_id, ..with_id("with-both") });
    for id in ["job-1", "with-both"] {
        let found = ledger.find(&about(id), 5).entries;
        assert_eq!(found.iter().map(Entry::request).collect::<Vec<_>>(), [Some("with-both")], "{id}");
    }
    // A place that is filled again has nothing of the one before.
    (0..ROUTES).for_each(|_| worker.take(&mut with_id("other")));
    assert_eq!(ledger.find(&about("job-1"), 5).entries.len(), 0);
}

#[test]
fn a_worker_keeps_no_more_than_is_said() {
    let bytes = size_of::<Passed>() * (ROUTES + REJECTS + RETRIES);
    assert!(bytes <= 1_000 << 10, "docs/explain.md says 1 MiB: {bytes}");
}

#[test]
fn requests_are_found_by_names_of_any_case_before_anything_is_made_of_them() {
    let ledger = Ledger::new();
    let worker = ledger.worker();
    let of = |endpoint: &str, deployment: &str| Record {
        endpoint: Some(name(endpoint)),
        deployment: Some(name(deployment)),
        ..record()
    };
    worker.take(&mut of("demo", "blue"));
    worker.take(&mut of("demo", "green"));
    worker.take(&mut of("other", "blue"));
    worker.take(&mut Record { deployment: None, ..of("demo", "blue") });
    let find = |endpoint: Option<&str>, deployment: Option<&str>| {
        let (endpoint, deployment) = (endpoint.map(str::to_owned), deployment.map(str::to_owned));
        let question = Question { endpoint, deployment, ..Question::default() };
        let is_asked = lock(&worker.rings).routes.newest_first().filter(|it| it.is_asked(&question)).count();
        let found = ledger.find(&question, 10).entries;
        assert!(found.len() == is_asked && found.iter().all(|entry| question.takes(entry)), "{found:?}");
        found.len()
    };
    assert_eq!((find(None, None), find(Some("DEMO"), None), find(Some("demo"), Some("Blue"))), (4, 3, 1));
    assert_eq!((find(None, Some("blue")), find(Some("dem"), None)), (2, 0));
}

#[test]
fn rejects_are_counted_and_the_newest_are_told() {
    let ledger = Ledger::new();
    let worker = ledger.worker();
    worker.take(&mut refused("first"));
    let (seen, entries) = ledger.since(Kind::Reject, 0, 2);
    assert_eq!((seen, entries.len()), (1, 1));
    let json = serde_json::to_value(&entries[0]).unwrap();
    let told = (json["retry_after_ms"].as_u64(), json["retry_after_seconds"].as_u64());
    assert_eq!(told, (Some(1_101), Some(4)), "as in the header fields");
    assert_eq!(ledger.since(Kind::Reject, seen, 2), (1, Vec::new()));
    for id in ["a", "b", "c"] {
        worker.take(&mut refused(id));
    }
    let (seen, entries) = ledger.since(Kind::Reject, seen, 2);
    assert_eq!((seen, entries.len()), (4, 2));
}

#[test]
fn a_flood_of_retries_is_bounded_and_pushes_out_no_route() {
    let ledger = Ledger::new();
    let worker = ledger.worker();
    worker.take(&mut with_id("plain"));
    (0..2 * RETRIES).for_each(|number| worker.take(&mut sent_twice(&number.to_string())));
    let of_kind =
        |kind| ledger.find(&Question { kind: Some(kind), ..Question::default() }, usize::MAX).entries;
    assert_eq!((of_kind(Kind::Route).len(), of_kind(Kind::Retry).len()), (1, RETRIES));
    assert_eq!(ledger.since(Kind::Retry, 510, 5).1.len(), 2);
}

#[tokio::test]
async fn decisions_of_the_control_plane_are_told() {
    let ledger = Ledger::new();
    let mut events = ledger.listen();
    ledger.decided(&name("demo"), &name("blue"), scale(5));
    assert_eq!(
        events.recv().await.unwrap().to_string(),
        "blue: from 1 to 5 replicas, because servers in the configuration: 5"
    );
}
