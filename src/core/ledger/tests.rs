//! Rings are bounded, questions find what they ask for, and sentences read as they should.

use std::num::{NonZeroU32, NonZeroU64};

use serde_json::json;

use super::*;
use crate::core::admission::{Class, Rival};
use crate::core::bounds::{Override, Why};
use crate::core::identity::{AuthType, Caller, Identity};
use crate::core::quota::{Limit, Period, Quota, Rate};
use crate::core::scale::{Reason, Sample};
use crate::core::schedule::Window;
use crate::core::wait::WaitSetting;

fn entry(what: What) -> Entry {
    Entry { at_unix_seconds: 1.5, endpoint: Some("demo".into()), deployment: Some("blue".into()), what }
}

fn rejection(reason: &str, seen: Option<Seen>) -> Entry {
    entry(What::Reject(Rejection {
        request: "7f3".into(),
        client_request: None,
        chosen: Some(Chosen::Turn),
        reason: reason.into(),
        status: Some(503),
        queue_ms: if reason == "queue_full" { 0.0 } else { 500.4 },
        seen,
        grounds: None,
        retry_after_ms: Some(1_200),
        retry_after_seconds: Some(2),
    }))
}

fn route() -> Route {
    Route {
        request: "7f3".into(),
        client_request: None,
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
    let seen = Seen {
        ready: 4,
        busy: 4,
        slots: Some(4),
        waiting: 12,
        max_wait_ms: 500,
        max_length: Some(13),
        ..Seen::default()
    };
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
            .contains("no replica of blue was ready and nobody else waited; nobody waits for longer than 500 ms (max_queue_wait_ms)")
    );
    let cold = Seen { max_wait_ms: 1_500, max_wait_setting: WaitSetting::ColdStart, ..none };
    let cold = rejection("no_ready_replica", Some(cold)).to_string();
    assert!(
        cold.contains(
            "; who comes while no replica is ready waits for at most 1.5 s (cold_start_wait_ms); it"
        ),
        "{cold}"
    );
    let What::Reject(mut spread) = rejection("unauthorized", None).what else { unreachable!() };
    (spread.retry_after_ms, spread.retry_after_seconds) = (Some(1_101), Some(4));
    let spread = entry(What::Reject(spread)).to_string();
    assert!(spread.ends_with("; it was told to come back in 1.1 s (in whole seconds: 4)"), "{spread}");
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
fn a_scale_decision_is_told_from_its_reason_and_not_from_its_words() {
    let sample = |total, busy, queued| Sample {
        busy,
        queued: Some(queued),
        ghosts: None,
        can_wait: false,
        service: None,
        load: f64::from(busy + queued),
        total,
        slots: total.into(),
        target_percent: 70,
        needed: 20,
        min: 1,
        max: 5,
    };
    let over = Reason::Over(sample(2, 2, 12));
    let plain = "2 requests were running and 12 waiting for 2 slots; to have at most 70 % of the slots in use, 20 replicas \
                 would be needed, of which 5 are allowed";
    let told = |from, to, why: &Why| entry(What::Scale(Scale::decided(from, to, why))).to_string();
    assert_eq!(told(2, 5, &Why::Rule(over)), format!("blue: from 2 to 5 replicas, because {plain}"));
    let now = jiff::Timestamp::UNIX_EPOCH;
    let until = now + jiff::SignedDuration::from_hours(1);
    let hold = Override { min: Some(2), max: Some(5), until };
    assert_eq!(
        told(2, 5, &Why::Held { hold, min: 2, max: 5, now, rule: Some(over) }),
        format!(
            "blue: from 2 to 5 replicas, because held between 2 and 5 by an operator until 01:00 UTC: {plain}"
        )
    );
    // Its name has in it all that the rules' words have.
    let name = "2 busy = offered load 1; most that ran".to_owned();
    let window = Window { name, min: 2, until, zone: jiff::tz::TimeZone::UTC };
    assert_eq!(
        told(2, 5, &Why::Scheduled { window, now, rule: over }),
        format!(
            "blue: from 2 to 5 replicas, because at least 2 by the schedule `2 busy = offered load 1; most that ran` until \
             01:00 UTC: {plain}"
        )
    );
    let kept = Reason::Kept { sample: sample(0, 0, 0), window: 60.0 };
    assert!(told(0, 0, &Why::Rule(kept)).starts_with("blue: stays at 0 replicas, because 0 busy"));
    let Scale { because, reason, .. } = Scale::decided(2, 5, &Why::Rule(over));
    assert!(because.starts_with("2 busy + 12 queued over 2 slots") && reason["kind"] == "over", "{because}");
}

fn refused_for(reason: &str, seen: bool, grounds: Grounds) -> String {
    let seen = seen.then_some(Seen {
        ready: 2,
        busy: 2,
        slots: Some(2),
        waiting: 3,
        max_wait_ms: 500,
        max_length: Some(3),
        ..Seen::default()
    });
    let mut entry = rejection(reason, seen);
    if let What::Reject(reject) = &mut entry.what {
        (reject.queue_ms, reject.retry_after_ms, reject.grounds) = (0.0, None, Some(grounds));
    }
    let json = serde_json::to_value(&entry).unwrap();
    assert_eq!(serde_json::from_value::<Entry>(json).unwrap(), entry);
    entry.to_string()
}

#[test]
fn a_refusal_says_which_times_did_not_fit_and_who_had_the_place() {
    let begin =
        "request 7f3 was refused with 503 at once: all 2 slots of blue were busy and 3 others waited; ";
    let deadline = |left_ms, wait_ms, answer_ms| Grounds::Deadline { left_ms, wait_ms, answer_ms };
    let by = " (x-request-deadline-ms, or its client's own time-out)";
    for (grounds, expected) in [
        (
            deadline(300.0, Some(400.0), 100.0),
            format!(
                "300 ms were left until its deadline, but it would have waited 400 ms for a slot, and an answer typically \
                 takes 100 ms more{by}"
            ),
        ),
        (
            deadline(300.0, Some(400.0), 0.0),
            format!("300 ms were left until its deadline, and it would have waited 400 ms for a slot{by}"),
        ),
        (
            deadline(80.0, None, 100.0),
            format!("80 ms were left until its deadline, and an answer typically takes 100 ms{by}"),
        ),
        (deadline(0.0, None, 100.0), format!("its deadline had passed{by}")),
    ] {
        assert_eq!(refused_for("deadline_unmeetable", true, grounds), format!("{begin}{expected}"));
    }
    let place = "the queue was full (max_queue_length), and its place went to a request ";
    for (rival, expected) in [
        (Rival::MoreImportant { class: Class::Critical }, "of the more important class critical"),
        (
            Rival::Entitled { class: Class::Sheddable },
            "of the class sheddable, which had less than its share of the places",
        ),
        (Rival::FewerWaiting, "of a caller of whom fewer were waiting than of its own (fair_share)"),
        (Rival::Promised, "that had been refused before, and came back when it was told to"),
    ] {
        assert_eq!(refused_for("shed", true, Grounds::GaveWay(rival)), format!("{begin}{place}{expected}"));
    }
    let What::Reject(mut long) = rejection("quota_exceeded", None).what else { unreachable!() };
    (long.retry_after_ms, long.retry_after_seconds) = (Some(20_612_900), Some(20_613));
    let long = entry(What::Reject(long)).to_string();
    assert!(long.ends_with("; it was told to come back in 5 h 43 min"), "{long}");
    let old = refused_for("shed", true, Grounds::Age { limit_ms: 200.0 });
    assert!(
        old.contains("those that had waited for more than 200 ms were turned away (queue_order)"),
        "{old}"
    );
}

#[test]
fn a_refusal_by_a_limit_says_whose_it_is_and_how_much() {
    let begin = "request 7f3 was refused with 503 at once: ";
    let identity =
        |caller, subject: &str| Identity { auth: AuthType::Key, subject: Some(subject.into()), caller };
    let (client, key) = (identity(Caller::Client(0), "batch-team"), identity(Caller::Key, "primary"));
    let bearer = identity(Caller::Bearer([7; 16]), "alice");
    let number = |number| NonZeroU32::new(number).unwrap();
    let rate = Limit::Rate(Rate::new(number(2_500), Some(number(5))));
    let quota = Limit::Quota(Quota { requests: NonZeroU64::new(1_000).unwrap(), per: Period::Day });
    for (code, limit, identity, expected) in [
        (
            "too_many_concurrent",
            Limit::Concurrency(number(4)),
            client,
            "client batch-team had 4 requests under way, and may have no more at once (concurrency)",
        ),
        (
            "rate_limited",
            rate,
            key,
            "the callers with one of the endpoint's own keys together sent more than 2.5 requests a second, with 5 at the \
             same moment (requests_per_second, burst)",
        ),
        (
            "quota_exceeded",
            quota,
            bearer,
            "the bearer of tokens for alice had used up its 1000 requests of the day (UTC; quota)",
        ),
    ] {
        let grounds = Grounds::of_limit(limit, Some(&identity));
        assert_eq!(refused_for(code, false, grounds), format!("{begin}{expected}"));
    }
    for (limit, expected) in [
        (Limit::Concurrency(number(1)), "had 1 request under way, and may have no more at once"),
        (
            Limit::Rate(Rate::new(number(1_000), None)),
            "sent more than 1 request a second, with 1 at the same moment",
        ),
        (
            Limit::Quota(Quota { requests: NonZeroU64::MIN, per: Period::Day }),
            "had used up its 1 request of the day",
        ),
    ] {
        let told = Grounds::of_limit(limit, Some(&identity(Caller::Client(0), "one"))).to_string();
        assert!(told.contains(expected), "{told}");
        assert!(limit.to_string().starts_with("1 request "), "{limit}");
    }
}

#[test]
fn of_a_token_with_a_long_subject_a_short_one_is_kept() {
    let kept = |subject: String| {
        let bearer = Caller::Bearer([7; 16]);
        let identity = Identity { auth: AuthType::Jwt, subject: Some(subject.into()), caller: bearer };
        let limit = Limit::Concurrency(NonZeroU32::MIN);
        let Grounds::Limit { name, .. } = Grounds::of_limit(limit, Some(&identity)) else { unreachable!() };
        name.unwrap()
    };
    assert_eq!(kept("s".repeat(16 << 10)), "s".repeat(LONGEST_ID));
    assert_eq!(kept("s".repeat(LONGEST_ID)), "s".repeat(LONGEST_ID));
    // A letter that would be cut in two is left out.
    assert_eq!(kept(format!("s{}", "ä".repeat(60))), format!("s{}", "ä".repeat(49)));
}

#[test]
fn a_request_is_called_by_both_of_its_ids_and_found_by_each() {
    let client_request = Some("job-1".to_owned());
    let found = entry(What::Route(Route { client_request: client_request.clone(), ..route() }));
    assert!(found.to_string().starts_with("request 7f3 (its client's id: job-1) went to blue"), "{found}");
    let about = |id: &str| Question { request: Some(id.into()), ..Question::default() };
    for (id, is_found) in [("7f3", true), ("job-1", true), ("job", false), ("", false)] {
        assert_eq!(about(id).takes(&found), is_found, "{id}");
    }
    let same = Route { request: "job-1".into(), client_request, ..route() };
    assert!(entry(What::Route(same)).to_string().starts_with("request job-1 went to"));
}

#[test]
fn times_are_told_to_the_millisecond() {
    let exact = Entry { at_unix_seconds: 1_795_284_822.123_456_7, ..entry(What::Route(route())) };
    assert!(serde_json::to_string(&exact).unwrap().contains("\"at_unix_seconds\":1795284822.123,"));
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
