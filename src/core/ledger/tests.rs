//! Rings are bounded, questions find what they ask for, and sentences read as they should.

use serde_json::{Value, json};

use super::*;

fn entry(what: What) -> Entry {
    Entry { at_unix_seconds: 1.5, endpoint: Some("demo".into()), deployment: Some("blue".into()), what }
}

fn rejection(reason: &str, seen: Option<Seen>) -> Entry {
    entry(What::Reject(Rejection {
        request: "7f3".into(),
        chosen: Some(Chosen::Turn),
        reason: reason.into(),
        status: Some(503),
        queue_ms: if reason == "queue_full" { 0.0 } else { 500.4 },
        seen,
        retry_after_ms: Some(1_200),
    }))
}

fn route() -> Route {
    Route {
        request: "7f3".into(),
        chosen: Some(Chosen::Turn),
        share_now: Some(90.0),
        replica: "blue-3".into(),
        attempts: 1,
        queue_ms: 12.0,
        total_ms: 112.2,
        status: Some(200),
        reason: None,
    }
}

#[test]
fn a_rejection_says_what_was_there_and_when_to_come_back() {
    let seen =
        Seen { ready: 4, busy: 4, slots: Some(4), waiting: 12, max_wait_ms: 500, max_length: Some(13) };
    assert_eq!(
        rejection("queue_timeout", Some(seen)).to_string(),
        "request 7f3 was refused with 503 after 500 ms in the queue: all 4 slots of blue were busy and 12 others \
         waited; nobody waits for longer than 500 ms (max_queue_wait_ms); it was told to come back in 1.2 s"
    );
    assert_eq!(
        rejection("queue_full", Some(Seen { waiting: 13, ..seen })).to_string(),
        "request 7f3 was refused with 503 at once: all 4 slots of blue were busy and 13 others waited, as many as may \
         (max_queue_length is 13); it was told to come back in 1.2 s"
    );
    let none = Seen { ready: 0, busy: 0, slots: Some(0), waiting: 0, ..seen };
    assert!(
        rejection("no_ready_replica", Some(none))
            .to_string()
            .contains("no replica of blue was ready and nobody")
    );
    assert!(rejection("unauthorized", None).to_string().contains("its credential is missing or wrong"));
}

#[test]
fn a_route_says_why_and_how_long() {
    assert_eq!(
        entry(What::Route(route())).to_string(),
        "request 7f3 went to blue by its turn in the traffic, of which blue has 90 % now, and had a slot of blue-3 \
         after 12 ms in the queue; answered with 200 after 112 ms"
    );
    let named = Route { chosen: Some(Chosen::Header), queue_ms: 0.0, attempts: 2, ..route() };
    let text = entry(What::Route(Route { reason: Some("model_timeout".into()), status: Some(504), ..named }))
        .to_string();
    assert!(
        text.contains("blue, which its header names, and had a slot of blue-3 at once, the 2nd replica"),
        "{text}"
    );
    assert!(text.contains("did not answer in time (request_timeout_ms) (504) after 112 ms"), "{text}");
}

#[test]
fn other_decisions_have_sentences_too() {
    let because = "14 requests were running or waiting for 2 slots".to_owned();
    let scale = Scale { from: 2, to: 5, because, reason: Value::Null };
    assert_eq!(
        entry(What::Scale(scale)).to_string(),
        "blue: from 2 to 5 replicas, because 14 requests were running or waiting for 2 slots"
    );
    let reason = json!({ "kind": "over", "busy": 2, "queued": 12, "ghosts": 5.2, "slots": 2, "needed": 28,
        "target_percent": 70, "max": 5 });
    let scale = Scale { from: 2, to: 5, because: "14 over 2".into(), reason };
    assert_eq!(
        entry(What::Scale(scale)).to_string(),
        "blue: from 2 to 5 replicas, because 2 requests were running and 12 waiting for 2 slots, and 5 had been turned away \
         that would still run; to have at most 70 % of the slots in use, 28 replicas would be needed, of which 5 are allowed"
    );
    let retry = Retry {
        request: "7f3".into(),
        first: "blue-1".into(),
        because: "it closed the connection".into(),
        second: Some("blue-2".into()),
        result: "answered with 200".into(),
    };
    assert_eq!(
        entry(What::Retry(retry)).to_string(),
        "request 7f3 failed on blue-1, because it closed the connection; it was sent to blue-2: answered with 200"
    );
}

#[test]
fn an_entry_survives_json_and_says_its_kind() {
    for entry in [entry(What::Route(route())), rejection("queue_full", Some(Seen::default()))] {
        let json = serde_json::to_value(&entry).unwrap();
        assert_eq!(json["kind"], serde_json::to_value(entry.kind()).unwrap());
        assert_eq!(serde_json::from_value::<Entry>(json).unwrap(), entry);
    }
    assert_eq!(serde_json::to_value(Kind::Standing).unwrap(), json!("standing"));
}

#[test]
fn a_question_takes_what_it_names() {
    let found = entry(What::Route(route()));
    let all = Question::default();
    assert!(all.takes(&found));
    for (question, expected) in [
        (Question { endpoint: Some("DEMO".into()), ..all.clone() }, true),
        (Question { endpoint: Some("other".into()), ..all.clone() }, false),
        (Question { deployment: Some("green".into()), ..all.clone() }, false),
        (Question { request: Some("7f3".into()), ..all.clone() }, true),
        (Question { request: Some("7f4".into()), ..all.clone() }, false),
        (Question { kind: Some(Kind::Reject), ..all }, false),
    ] {
        assert_eq!(question.takes(&found), expected, "{question:?}");
    }
}
