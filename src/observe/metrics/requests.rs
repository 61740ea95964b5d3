//! Counting requests: one set of handles for each deployment, made once and kept, since looking a handle up by its
//! labels costs thirty times as much as counting.
//!
//! Labels come from the configuration (names), from the router's table (reasons) and from status codes 100–599, so
//! their number is bounded whatever clients and models send.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use http::StatusCode;
use metrics::{Counter, Histogram, counter, histogram};

use super::{install, names};
use crate::core::retry::Tries;
use crate::core::settings::Name;
use crate::observe::access::Record;

/// The reason that is no reject: nobody is left to be refused.
const CLIENT_GONE: &str = "client_gone";

/// Endpoint and deployment, where they are known.
type Names = (Option<Name>, Option<Name>);

/// The handles of every deployment that has had a request; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<DashMap<Names, Arc<DeploymentMetrics>>>);

impl Metrics {
    /// Installs the recorder where that has not been done, and has no handles yet.
    #[expect(clippy::new_without_default, reason = "installs something in the process")]
    pub fn new() -> Self {
        install();
        Self(Arc::default())
    }

    /// Counts a request that has ended. A deployment without an endpoint is counted as neither.
    pub fn record(&self, record: &Record) {
        self.deployment(record.endpoint.as_ref(), record.deployment.as_ref()).record(record);
    }

    /// The handles of a deployment; of an endpoint's requests that came to no deployment; of requests that came
    /// to no endpoint.
    pub fn deployment(&self, endpoint: Option<&Name>, deployment: Option<&Name>) -> Arc<DeploymentMetrics> {
        let names = (endpoint.cloned(), endpoint.and(deployment).cloned());
        if let Some(found) = self.0.get(&names) {
            return Arc::clone(&found);
        }
        let made = || Arc::new(DeploymentMetrics::new(endpoint, endpoint.and(deployment)));
        Arc::clone(&self.0.entry(names).or_insert_with(made))
    }
}

/// The handles of one deployment.
pub struct DeploymentMetrics {
    endpoint: String,
    deployment: String,
    duration: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
    client_gone: Counter,
    /// `None` for requests that came to no deployment: they never asked for a slot.
    served: Option<Served>,
    /// The usual end, status 200 without a reason: needs no search. Made at the first one, since a metric that was
    /// made is shown.
    ok: OnceLock<Ended>,
    /// The other ends by status sent and reason. Keys appear at run time, written by all workers.
    ended: DashMap<(u16, Option<&'static str>), Ended>,
}

/// Handles for requests that came to a deployment.
struct Served {
    queue_wait: Histogram,
    model_duration: Histogram,
    overhead: Histogram,
    /// Status 200, as above.
    ok: OnceLock<Counter>,
    /// By the model's other statuses.
    responses: DashMap<u16, Counter>,
}

/// Handles for one kind of end.
#[derive(Clone)]
struct Ended {
    requests: Counter,
    rejects: Option<Counter>,
}

impl Ended {
    fn count(&self) {
        self.requests.increment(1);
        if let Some(rejects) = &self.rejects {
            rejects.increment(1);
        }
    }
}

impl DeploymentMetrics {
    /// Handles for a deployment, or, with `None`, for requests that came to none.
    pub fn new(endpoint: Option<&Name>, deployment: Option<&Name>) -> Self {
        let text = |name: Option<&Name>| name.map(Name::to_string).unwrap_or_default();
        let (e, d) = (text(endpoint), text(deployment));
        let labels = [("endpoint", e.clone()), ("deployment", d.clone())];
        Self {
            duration: histogram!(names::DURATION, &labels),
            request_bytes: counter!(names::REQUEST_BYTES, &labels),
            response_bytes: counter!(names::RESPONSE_BYTES, &labels),
            client_gone: counter!(names::CLIENT_GONE, &labels),
            served: deployment.map(|_| Served {
                queue_wait: histogram!(names::QUEUE_WAIT, &labels),
                model_duration: histogram!(names::MODEL_DURATION, &labels),
                overhead: histogram!(names::OVERHEAD, &labels),
                ok: OnceLock::new(),
                responses: DashMap::new(),
            }),
            ok: OnceLock::new(),
            ended: DashMap::new(),
            endpoint: e,
            deployment: d,
        }
    }

    /// Counts a request that has ended.
    pub fn record(&self, record: &Record) {
        match (record.status, record.reason) {
            (Some(StatusCode::OK), None) => self.ok.get_or_init(|| self.new_ended(200, None)).count(),
            (status, reason) => self.ended(status, reason).count(),
        }
        if record.reason == Some(CLIENT_GONE) {
            self.client_gone.increment(1);
        }
        self.request_bytes.increment(record.request_bytes);
        self.response_bytes.increment(record.response_bytes);
        self.duration.record(seconds(record.total_time));
        if !record.tries.is_plain() || record.tries.not_hedged.is_some() {
            self.count_copies(&record.tries);
        }
        if let Some(served) = &self.served {
            served.queue_wait.record(seconds(record.queue_time));
            if let Some(time) = record.model_time {
                served.model_duration.record(seconds(time));
            }
            if let Some(time) = record.overhead() {
                served.overhead.record(seconds(time));
            }
            match record.model_status {
                Some(StatusCode::OK) => served.ok.get_or_init(|| self.new_model_response(200)).increment(1),
                Some(status) => self.model_response(served, status).increment(1),
                None => {}
            }
        }
    }

    /// Rare, or asked for (`hedge`), so that the handles need not be kept.
    fn count_copies(&self, tries: &Tries) {
        let count = |name: &'static str, label: &'static str, value: &'static str, count: u64| {
            let (endpoint, deployment) = (self.endpoint.clone(), self.deployment.clone());
            let labels = [("endpoint", endpoint), ("deployment", deployment), (label, value.to_owned())];
            counter!(name, &labels).increment(count);
        };
        for (cause, times) in tries.causes() {
            count(names::RETRIES, "reason", cause.as_str(), times.into());
        }
        if let Some(denied) = tries.denied {
            count(names::RETRIES_DENIED, "reason", denied.as_str(), 1);
        }
        if let Some(hedge) = tries.hedge {
            count(names::HEDGES, "result", hedge.as_str(), 1);
        }
        if let Some(denied) = tries.not_hedged {
            count(names::HEDGES, "result", denied.as_str(), 1);
        }
    }

    fn ended(&self, status: Option<StatusCode>, reason: Option<&'static str>) -> Ended {
        let code = status.map_or(GONE, bounded);
        if let Some(found) = self.ended.get(&(code, reason)) {
            return found.clone();
        }
        let made = self.new_ended(code, reason);
        // Two workers may come here at once: both have made handles of the same counters.
        self.ended.insert((code, reason), made.clone());
        made
    }

    fn new_ended(&self, code: u16, reason: Option<&'static str>) -> Ended {
        let labels = self.labels(code);
        let rejects = reason.filter(|reason| *reason != CLIENT_GONE).map(|reason| {
            let [endpoint, deployment, code] = labels.clone();
            counter!(names::REJECTS, &[endpoint, deployment, code, ("reason", reason.to_owned())])
        });
        Ended { requests: counter!(names::REQUESTS, &labels), rejects }
    }

    fn model_response(&self, served: &Served, status: StatusCode) -> Counter {
        let code = bounded(status);
        if let Some(found) = served.responses.get(&code) {
            return found.clone();
        }
        let made = self.new_model_response(code);
        served.responses.insert(code, made.clone());
        made
    }

    fn new_model_response(&self, code: u16) -> Counter {
        counter!(names::MODEL_RESPONSES, &self.labels(code))
    }

    fn labels(&self, code: u16) -> [(&'static str, String); 3] {
        let (endpoint, deployment) = (self.endpoint.clone(), self.deployment.clone());
        [("endpoint", endpoint), ("deployment", deployment), ("code", label(code))]
    }
}

impl std::fmt::Debug for DeploymentMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeploymentMetrics")
            .field("endpoint", &self.endpoint)
            .field("deployment", &self.deployment)
            .finish_non_exhaustive()
    }
}

/// What nginx writes when the client had gone before an answer.
const GONE: u16 = 499;
/// Stands for all statuses that HTTP does not know.
const STRANGE: u16 = 0;

fn bounded(status: StatusCode) -> u16 {
    if status.as_u16() < 600 { status.as_u16() } else { STRANGE }
}

fn label(code: u16) -> String {
    if code == STRANGE { "other".to_owned() } else { code.to_string() }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::retry::{Cause, Denied, Hedge};
    use crate::observe::access::tests::record;
    use crate::observe::metrics::recorder;

    /// The text after the records have been counted, with a recorder of its own.
    fn rendered(records: &[Record]) -> String {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            let metrics = Metrics::new();
            records.iter().for_each(|record| metrics.record(record));
        });
        recorder.handle().render()
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no {line} in:\n{text}");
    }

    #[test]
    fn an_answered_request_is_counted_with_every_phase_apart() {
        let text = rendered(&[record(), record()]);
        let labels = r#"{endpoint="demo",deployment="blue"}"#;
        has(&text, r#"scoregate_requests_total{endpoint="demo",deployment="blue",code="200"} 2"#);
        has(&text, r#"scoregate_model_responses_total{endpoint="demo",deployment="blue",code="200"} 2"#);
        has(&text, &format!("scoregate_request_bytes_total{labels} 20"));
        has(&text, &format!("scoregate_response_bytes_total{labels} 40"));
        has(&text, &format!("scoregate_request_duration_seconds_count{labels} 2"));
        has(&text, &format!("scoregate_queue_wait_seconds_sum{labels} 0.004"));
        has(&text, &format!("scoregate_model_duration_seconds_sum{labels} 0.08"));
        has(&text, &format!("scoregate_router_overhead_seconds_sum{labels} 0.00005"));
        has(&text, r#"scoregate_queue_wait_seconds_bucket{endpoint="demo",deployment="blue",le="0.0025"} 2"#);
        has(&text, r#"scoregate_queue_wait_seconds_bucket{endpoint="demo",deployment="blue",le="0.001"} 0"#);
        assert!(!text.contains("scoregate_rejects_total{"));
    }

    #[test]
    fn a_reject_is_counted_by_its_reason() {
        let reject = || Record {
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            reason: Some("queue_full"),
            model_status: None,
            model_time: None,
            ..record()
        };
        let text = rendered(&[reject(), reject(), reject()]);
        let labels = r#"endpoint="demo",deployment="blue",code="503""#;
        has(&text, &format!(r#"scoregate_rejects_total{{{labels},reason="queue_full"}} 3"#));
        has(&text, &format!("scoregate_requests_total{{{labels}}} 3"));
        has(&text, r#"scoregate_model_duration_seconds_count{endpoint="demo",deployment="blue"} 0"#);
    }

    #[test]
    fn one_status_with_several_reasons_is_one_sum_of_requests() {
        let with = |reason| Record { status: Some(StatusCode::BAD_GATEWAY), reason, ..record() };
        let text = rendered(&[with(None), with(Some("model_broken")), with(None)]);
        has(&text, r#"scoregate_requests_total{endpoint="demo",deployment="blue",code="502"} 3"#);
        // The usual end is kept apart from the others, but only inside.
        let with = |reason| Record { reason, ..record() };
        let text = rendered(&[with(None), with(Some("model_broken")), with(None)]);
        has(&text, r#"scoregate_requests_total{endpoint="demo",deployment="blue",code="200"} 3"#);
        let labels = r#"endpoint="demo",deployment="blue",code="200",reason="model_broken""#;
        has(&text, &format!("scoregate_rejects_total{{{labels}}} 1"));
        let text = rendered(&[Record { model_status: None, ..with(Some("model_broken")) }]);
        has(&text, r#"scoregate_requests_total{endpoint="demo",deployment="blue",code="200"} 1"#);
        assert!(!text.contains("scoregate_model_responses_total{"), "{text}");
    }

    #[test]
    fn copies_are_counted_by_cause_and_by_what_became_of_them() {
        let mut tries = Tries { sent: 4, hedge: Some(Hedge::Won), ..Tries::default() };
        [Cause::Broken, Cause::Broken, Cause::Stale].into_iter().for_each(|cause| tries.add(cause));
        let denied = Tries { denied: Some(Denied::Budget), ..Tries::default() };
        let late = Tries { not_hedged: Some(Denied::NoIdleSlot), ..Tries::default() };
        let text = rendered(&[tries, denied, late].map(|tries| Record { tries, ..record() }));
        let labels = r#"endpoint="demo",deployment="blue""#;
        has(&text, &format!(r#"scoregate_retries_total{{{labels},reason="broken"}} 2"#));
        has(&text, &format!(r#"scoregate_retries_total{{{labels},reason="stale"}} 1"#));
        has(&text, &format!(r#"scoregate_retries_denied_total{{{labels},reason="budget"}} 1"#));
        has(&text, &format!(r#"scoregate_hedges_total{{{labels},result="won"}} 1"#));
        has(&text, &format!(r#"scoregate_hedges_total{{{labels},result="no_idle_slot"}} 1"#));
        assert!(!rendered(&[record()]).contains("scoregate_retries"));
    }

    #[test]
    fn a_client_that_left_is_no_reject() {
        let gone = Record { status: None, reason: Some(CLIENT_GONE), ..record() };
        let cut = Record { reason: Some(CLIENT_GONE), ..record() };
        let text = rendered(&[gone, cut]);
        has(&text, r#"scoregate_client_gone_total{endpoint="demo",deployment="blue"} 2"#);
        has(&text, r#"scoregate_requests_total{endpoint="demo",deployment="blue",code="499"} 1"#);
        has(&text, r#"scoregate_requests_total{endpoint="demo",deployment="blue",code="200"} 1"#);
        assert!(!text.contains("scoregate_rejects_total{"));
    }

    #[test]
    fn requests_that_came_to_nothing_have_empty_labels_and_no_queue() {
        let lost = Record { endpoint: None, status: Some(StatusCode::NOT_FOUND), ..record() };
        let text = rendered(&[lost]);
        has(&text, r#"scoregate_requests_total{endpoint="",deployment="",code="404"} 1"#);
        has(&text, r#"scoregate_request_duration_seconds_count{endpoint="",deployment=""} 1"#);
        assert!(!text.contains("scoregate_queue_wait_seconds"));
    }

    #[test]
    fn statuses_that_http_does_not_know_share_one_label() {
        let odd = |code| Record { model_status: StatusCode::from_u16(code).ok(), ..record() };
        let text = rendered(&[odd(600), odd(777), odd(999), odd(599)]);
        has(&text, r#"scoregate_model_responses_total{endpoint="demo",deployment="blue",code="other"} 3"#);
        has(&text, r#"scoregate_model_responses_total{endpoint="demo",deployment="blue",code="599"} 1"#);
    }
}
