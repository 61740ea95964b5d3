//! The router's own decisions without hyper and sockets: the demo's configuration, and one request's way through it.
//!
//! `World::own_decisions` goes step by step where `data::proxy::handle` goes, and calls the same functions: snapshot, route,
//! key, deployment, slot and release, metrics and the record for the access log. What is done to headers is a bench of its
//! own; what only hands over to hyper or waits for the network is left out.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use rand::rngs::SmallRng;
use scoregate::config;
use scoregate::core::admission::{Ask, Limits, Outcome, ReplicaId};
use scoregate::core::route::{Route, Routes};
use scoregate::core::settings::{AccessLogTarget, Authority, DeploymentSettings, EndpointSettings, Profile};
use scoregate::data::gate::{Gate, Permit, Target};
use scoregate::data::head::{self, Forwarding, Ids, Survey};
use scoregate::data::peer::Peer;
use scoregate::data::record::{OpenRecord, Sinks};
use scoregate::data::verify::{TokenCache, Verifier};
use scoregate::data::world::{Deployment, Endpoint, Snapshot};
use scoregate::observe::access::AccessLog;
use scoregate::observe::ledger::Ledger;
use scoregate::observe::metrics::Metrics;

/// The key that requests carry.
const KEY: &str = "a-primary-key-0123456789";

/// A request as a Python client sends it.
const REQUEST: &str = "\
    host: scoring.example.com\r\n\
    user-agent: python-requests/2.32.3\r\n\
    accept-encoding: gzip, deflate\r\n\
    accept: */*\r\n\
    connection: keep-alive\r\n\
    content-type: application/json\r\n\
    authorization: Bearer a-primary-key-0123456789\r\n\
    content-length: 200\r\n";

/// An answer as the model server sends it.
const ANSWER: &str = "\
    server: gunicorn\r\n\
    date: Sat, 21 Nov 2026 08:00:00 GMT\r\n\
    connection: keep-alive\r\n\
    content-type: application/json\r\n\
    content-length: 200\r\n";

/// What a worker has: the demo, with two replicas for each deployment, keys, slots, metrics and an access log.
pub(crate) struct World {
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    pub(crate) sinks: Rc<Sinks>,
    pub(crate) peer: Rc<Peer>,
    tokens: TokenCache,
    _folder: tempfile::TempDir,
}

/// A request and the answer to it, as hyper hands them over.
pub(crate) struct Exchange {
    pub(crate) request: Request<()>,
    answer: Response<()>,
}

impl Exchange {
    /// As it is before the router has seen it.
    pub(crate) fn new() -> Self {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        // Like hyper's: texts are slices of one read buffer.
        *request.uri_mut() = Uri::from_maybe_shared(Bytes::copy_from_slice(b"/api/v1/endpoint/demo/score"))
            .expect("a valid path");
        *request.headers_mut() = header_map(REQUEST);
        let mut answer = Response::new(());
        *answer.headers_mut() = header_map(ANSWER);
        Self { request, answer }
    }

    /// Many of them.
    pub(crate) fn many(number: usize) -> Vec<Self> {
        (0..number).map(|_| Self::new()).collect()
    }

    /// Everything that is done to the headers of both.
    pub(crate) fn edit_heads(&mut self, rng: &mut SmallRng, forwarding: &Forwarding<'_>) {
        let headers = self.request.headers_mut();
        let survey = Survey::of(headers);
        let ids = Ids::settle(headers, survey, Profile::Aks, rng).expect("no id is too long");
        head::check(headers, survey, Version::HTTP_11).expect("the head is good");
        head::to_model(headers, survey, forwarding, None);
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:20000"));
        head::to_client(self.answer.headers_mut(), &ids);
        self.answer.headers_mut().insert(head::DEPLOYMENT, HeaderValue::from_static("blue"));
    }
}

impl World {
    /// With caches that are cold.
    pub(crate) fn new() -> Self {
        let settings = config::demo(KEY, "a-secondary-key-0123456789");
        let folder = tempfile::tempdir().expect("a folder for the access log");
        let target = AccessLogTarget::File(folder.path().join("access.log"));
        let access = AccessLog::start(&target).expect("the access log can be opened");
        let handles = Metrics::new();
        let routes = Routes::new(settings.endpoints.iter().map(Arc::as_ref));
        let endpoints = settings.endpoints.iter().map(|e| Arc::new(endpoint(e, &handles))).collect();
        let snapshot = Snapshot { generation: 1, settings: Arc::new(settings), routes, endpoints };
        Self {
            snapshot: Cache::new(Arc::new(ArcSwap::from_pointee(snapshot))),
            sinks: Rc::new(Sinks {
                access,
                ledger: Ledger::new().worker(),
                unrouted: handles.deployment(None, None),
            }),
            peer: Peer::new(([203, 0, 113, 7], 50_000).into(), false, Instant::now()),
            tokens: TokenCache::new(),
            _folder: folder,
        }
    }

    /// As it is after some requests.
    pub(crate) fn warm() -> Self {
        let mut world = Self::new();
        Exchange::many(100).iter().for_each(|exchange| world.own_decisions(exchange));
        // As the control plane does each second.
        let snapshot = world.snapshot();
        let deployments = snapshot.endpoints.iter().flat_map(|endpoint| &endpoint.deployments);
        deployments.for_each(|deployment| _ = deployment.gate.review(Instant::now()));
        world
    }

    /// As `data::worker` loads it.
    pub(crate) fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::clone(self.snapshot.load())
    }

    /// Everything that the router decides and writes down for a request.
    pub(crate) fn own_decisions(&mut self, exchange: &Exchange) {
        let request = &exchange.request;
        let mut record =
            OpenRecord::new(request, Instant::now(), Rc::clone(&self.sinks), Rc::clone(&self.peer));
        let snapshot = self.snapshot();
        let endpoint = Arc::clone(route(&snapshot, request));
        record.attribute(&endpoint.metrics);
        let fields = record.fields();
        fields.endpoint = Some(endpoint.settings.name.clone());
        fields.request_id = Some(ID);
        let now = fields.started_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let last = &self.peer.last_key;
        let identity = endpoint.verifier.authorize(request.headers(), now, &mut self.tokens, last);
        fields.identity = Some(identity.expect("the key is good"));
        let deployment = Arc::clone(endpoint.next().expect("the demo takes traffic"));
        fields.deployment = Some(deployment.settings.name.clone());
        record.attribute(&deployment.metrics);
        let asked = Instant::now();
        let mut permit = acquire(&deployment.gate, asked, deployment.settings.request.max_queue_wait);
        let fields = record.fields();
        fields.route_time = asked.saturating_duration_since(fields.started);
        fields.replica = Some(Arc::clone(&permit.target().name));
        // Here the request goes out and the answer's head comes in.
        fields.request_bytes = 200;
        fields.tries.sent = 1;
        let head_at = Instant::now();
        fields.model_time = Some(head_at.saturating_duration_since(asked));
        fields.model_status = Some(StatusCode::OK);
        record.answered(StatusCode::OK, head_at);
        // Here the answer's body goes through.
        record.add_response_bytes(200);
        record.complete(Instant::now());
        permit.outcome(Outcome::Answered);
        drop(permit);
    }
}

/// The id of all requests.
const ID: HeaderValue = HeaderValue::from_static("8f14e45f-ceea-467f-a8f5-9f1b2c3d4e5f");

/// Where a request of the demo goes.
pub(crate) fn route<'a>(snapshot: &'a Snapshot, request: &Request<()>) -> &'a Arc<Endpoint> {
    let host = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    match snapshot.routes.find(request.uri().path(), host) {
        Route::Endpoint(index, _) => &snapshot.endpoints[index],
        other => unreachable!("{other:?} is not the demo's endpoint"),
    }
}

/// A gate with this many replicas of four slots each, all free.
pub(crate) fn gate(replicas: u64) -> Arc<Gate> {
    let gate = Gate::new(Limits { slots: 4.try_into().ok(), max_queue_length: None });
    admit(&gate, replicas);
    gate
}

/// A slot of a gate that has one.
pub(crate) fn acquire(gate: &Arc<Gate>, now: Instant, max_wait: Duration) -> Permit {
    let mut acquire = std::pin::pin!(gate.acquire(now, max_wait, Ask::default()));
    match acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => permit.expect("there are free slots"),
        Poll::Pending => unreachable!("there are free slots"),
    }
}

fn endpoint(settings: &Arc<EndpointSettings>, handles: &Metrics) -> Endpoint {
    Endpoint {
        settings: Arc::clone(settings),
        deployments: settings
            .deployments
            .iter()
            .map(|d| Arc::new(deployment(settings, d, handles)))
            .collect(),
        verifier: Arc::new(Verifier::new(&settings.auth).expect("the demo's keys are good")),
        metrics: handles.deployment(Some(&settings.name), None),
        limiter: None,
        turn: Arc::new(AtomicU64::new(0)),
    }
}

fn deployment(
    endpoint: &EndpointSettings,
    settings: &Arc<DeploymentSettings>,
    handles: &Metrics,
) -> Deployment {
    let request = &settings.request;
    let gate = Gate::new(Limits { slots: request.slots, max_queue_length: request.max_queue_length });
    admit(&gate, 2);
    Deployment {
        settings: Arc::clone(settings),
        header: HeaderValue::from_str(settings.name.as_str()).expect("a name is a header value"),
        scoring: Uri::from_static("/score"),
        swagger: Uri::from_static("/swagger.json"),
        gate,
        copies: Arc::default(),
        metrics: handles.deployment(Some(&endpoint.name), Some(&settings.name)),
    }
}

fn admit(gate: &Gate, replicas: u64) {
    for id in 1..=replicas {
        let authority = Authority { host: "127.0.0.1".to_owned(), port: 1 };
        let host = HeaderValue::from_static("127.0.0.1:1");
        gate.admit(&Arc::new(Target { id: ReplicaId(id), name: "r".into(), authority, host }));
    }
}

/// Headers whose values are slices of one buffer.
fn header_map(text: &'static str) -> HeaderMap {
    let buffer = Bytes::copy_from_slice(text.as_bytes());
    let text = str::from_utf8(&buffer).expect("it was a text");
    let mut headers = HeaderMap::new();
    headers.reserve(text.lines().count());
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        let name: HeaderName = name.parse().expect("a header name");
        let value = HeaderValue::from_maybe_shared(buffer.slice_ref(value.as_bytes()));
        headers.append(name, value.expect("a header value"));
    }
    headers
}
