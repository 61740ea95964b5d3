//! The record of a request while it is open: filled in along the path, handed to metrics, access log and ledger when dropped.
//!
//! Being dropped is the one way a record ends, so that no exit of the path can forget it.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Request};

use crate::core::retry::Tries;
use crate::data::head::Ids;
use crate::data::peer::Peer;
use crate::data::quota::Held;
use crate::observe::access::{AccessLog, Record};
use crate::observe::ledger::{Story, WorkerLedger};
use crate::observe::metrics::DeploymentMetrics;

/// Where records go.
#[derive(Debug)]
pub struct Sinks {
    /// The access log.
    pub access: AccessLog,
    /// This worker's part of the ledger.
    pub ledger: Arc<WorkerLedger>,
    /// Counts requests that belong to no deployment.
    pub unrouted: Arc<DeploymentMetrics>,
}

/// A record that is still being written.
#[derive(Debug)]
pub struct OpenRecord {
    inner: Option<Box<Record>>,
    metrics: Option<Arc<DeploymentMetrics>>,
    sinks: Rc<Sinks>,
    /// Is busy until the record is closed.
    peer: Rc<Peer>,
    head_at: Option<Instant>,
    /// Counts as running for its caller until the answer's last byte is there.
    held: Option<Held>,
    complete: bool,
}

impl OpenRecord {
    /// A record of a request whose head has just been read.
    pub fn new<B>(request: &Request<B>, started: Instant, sinks: Rc<Sinks>, peer: Rc<Peer>) -> Self {
        peer.begin(request.version());
        let record = Record {
            started,
            started_at: SystemTime::now(),
            method: request.method().clone(),
            path: request
                .uri()
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")),
            version: request.version(),
            endpoint: None,
            deployment: None,
            replica: None,
            tries: Tries::default(),
            identity: None,
            status: None,
            reason: None,
            model_status: None,
            request_id: None,
            client_request_id: None,
            user_agent: request.headers().get(http::header::USER_AGENT).cloned(),
            request_bytes: 0,
            response_bytes: 0,
            route_time: Duration::ZERO,
            queue_time: Duration::ZERO,
            connect_time: Duration::ZERO,
            model_time: None,
            body_time: Duration::ZERO,
            total_time: Duration::ZERO,
            story: Story::default(),
        };
        Self {
            inner: Some(Box::new(record)),
            metrics: None,
            sinks,
            peer,
            head_at: None,
            held: None,
            complete: false,
        }
    }

    /// The parts that are filled in along the path.
    pub fn fields(&mut self) -> &mut Record {
        self.inner.as_mut().expect("taken only at drop")
    }

    /// What the request is called.
    pub fn identify(&mut self, ids: &Ids) {
        let fields = self.fields();
        fields.request_id = Some(ids.request.clone());
        fields.client_request_id.clone_from(&ids.client);
    }

    /// The deployment whose metrics the record goes to.
    pub fn attribute(&mut self, metrics: &Arc<DeploymentMetrics>) {
        self.metrics = Some(Arc::clone(metrics));
    }

    /// Its caller has limits, and this request counts.
    pub fn hold(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// The head of the answer goes out now.
    pub fn answered(&mut self, status: http::StatusCode, now: Instant) {
        self.fields().status = Some(status);
        self.head_at = Some(now);
    }

    /// Where the time up to the head of the answer went, as the value of a `Server-Timing` header (W3C Server Timing §3;
    /// milliseconds).
    pub fn server_timing(&mut self) -> HeaderValue {
        let head_at = self.head_at();
        let record = self.fields();
        let total = head_at.saturating_duration_since(record.started);
        let model = record.model_time.unwrap_or_default();
        let router = total.saturating_sub(record.queue_time + record.connect_time + model);
        let mut text = String::new();
        let mut phase = |name, time: Duration| {
            let (comma, micros) = (if text.is_empty() { "" } else { ", " }, time.as_micros());
            // Writing to a text does not fail.
            let _ = write!(text, "{comma}{name};dur={}.{:03}", micros / 1000, micros % 1000);
        };
        phase("queue", record.queue_time);
        if !record.connect_time.is_zero() {
            phase("connect", record.connect_time);
        }
        if record.model_time.is_some() {
            phase("model", model);
        }
        // A request that was handed over and has no answer of the model: the rest is a wait for somebody else.
        if record.model_time.is_some() || record.replica.is_none() {
            phase("router", router);
        }
        HeaderValue::from_str(&text).expect("letters, digits and punctuation are a header value")
    }

    /// When the head of the answer went out; its start, if there is none yet.
    pub fn head_at(&mut self) -> Instant {
        self.head_at.unwrap_or_else(|| self.fields().started)
    }

    /// Bytes of the answer's body go out.
    pub fn add_response_bytes(&mut self, bytes: u64) {
        self.fields().response_bytes += bytes;
    }

    /// The answer breaks off, by the router's or the model's doing.
    pub fn broken(&mut self, reason: &'static str) {
        self.fields().reason.get_or_insert(reason);
    }

    /// The answer's last byte is there.
    pub fn complete(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.complete, true) {
            self.close_times(now);
            // Before the last byte goes out: whoever has read it may send the next request.
            self.held = None;
        }
    }

    /// Leaves no trace: a load balancer's probe is not a request.
    pub fn forget(mut self) {
        self.complete = true;
        self.inner = None;
    }

    fn close_times(&mut self, now: Instant) {
        let head_at = self.head_at;
        let record = self.fields();
        record.total_time = now.saturating_duration_since(record.started);
        record.body_time = head_at.map_or(Duration::ZERO, |head_at| now.saturating_duration_since(head_at));
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        if !self.complete {
            self.close_times(Instant::now());
            self.broken("client_gone");
        }
        let ended =
            self.inner.as_ref().map_or_else(Instant::now, |record| record.started + record.total_time);
        self.peer.end(ended);
        if let Some(mut record) = self.inner.take() {
            self.metrics.as_ref().unwrap_or(&self.sinks.unrouted).record(&record);
            self.sinks.access.log(&record);
            self.sinks.ledger.take(&mut record);
        }
    }
}
