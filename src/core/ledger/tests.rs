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
    let named = Route { chosen: Some(Chosen::Header), queue_ms: 0.0, ..route() };
    let text = entry(What::Route(Route { reason: Some("model_timeout".into()), status: Some(504), ..named }))
        .to_string();
    assert!(text.contains("blue, which its header names, and had a slot of blue-3 at once;"), "{text}");
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
}

fn retried(causes: &[Cause], denied: Option<Denied>, hedge: Option<Hedge>) -> Entry {
    let mut tries = Tries { sent: 1, denied, hedge, ..Tries::default() };
    causes.iter().for_each(|cause| {
        tries.add(*cause);
        tries.hand_over();
    });
    entry(What::sent(Route { chosen: None, queue_ms: 0.0, attempts: tries.sent.into(), ..route() }, &tries))
}

#[test]
fn a_retry_says_why_it_was_one_and_why_no_more() {
    use Cause::{Broken, Stale, Unavailable, Unreachable};
    let way = "request 7f3 went to blue and had a slot of blue-3 at once";
    let end = "; answered with 200 after 112 ms";
    let late = "; its answer was late, ";
    let other = "; it had been sent to another replica ";
    let cases = [
        (
            retried(&[Broken], None, None),
            format!("{way}, the 2nd replica that was tried, because the first broke the connection{end}"),
        ),
        (
            retried(&[Broken, Unreachable, Unreachable], None, None),
            format!(
                "{way}, the 4th replica that was tried, because one broke the connection and 2 could not be reached{end}"
            ),
        ),
        (
            retried(&[Stale], None, None),
            format!(
                "{way}{end}; the replica had closed the connection that was kept for it, so it was sent over another"
            ),
        ),
        (
            retried(&[], Some(Denied::Budget), None),
            format!(
                "{way}{end}; it was not sent again: the budget of copies is used up (retry.budget_percentage)"
            ),
        ),
        (
            retried(&[Unavailable], Some(Denied::NoIdleSlot), None),
            format!(
                "{way}{end}{other}once, because the first answered 502 or 503, and was not sent again: no other replica \
                 had an idle slot, or somebody waited for one"
            ),
        ),
        (
            retried(&[], None, Some(Hedge::Won)),
            format!("{way}, with its second copy{end}{late}and the second copy answered first"),
        ),
        (
            retried(&[], None, Some(Hedge::Lost)),
            format!("{way}{end}{late}but came before that to the second copy"),
        ),
    ];
    for (entry, sentence) in cases {
        assert_eq!(entry.to_string(), sentence);
        assert_eq!((entry.kind(), entry.request()), (Kind::Retry, Some("7f3")));
        let json = serde_json::to_value(&entry).unwrap();
        assert_eq!(serde_json::from_value::<Entry>(json).unwrap(), entry);
    }
    let json = serde_json::to_value(retried(&[Broken, Broken], Some(Denied::Attempts), None)).unwrap();
    assert_eq!((&json["kind"], &json["replica"]), (&json!("retry"), &json!("blue-3")));
    assert_eq!((&json["again"], &json["not_again"]), (&json!({ "broken": 2 }), &json!("attempts")));
    let once = What::sent(route(), &Tries { sent: 1, ..Tries::default() });
    assert_eq!(once, What::Route(route()));
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
