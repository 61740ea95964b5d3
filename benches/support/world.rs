//! The router's own decisions without hyper and sockets: the demo's configuration, and one request's way through it.
//!
//! `World::own_decisions` goes step by step where `data::proxy::handle` goes, and calls the same functions; what only
//! hands over to hyper or waits for the network is left out.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use scoregate::config;
use scoregate::core::admission::{Limits, ReplicaId};
use scoregate::core::identity::Identity;
use scoregate::core::route::{Route, Routes};
use scoregate::core::settings::{AccessLogTarget, Authority, DeploymentSettings, EndpointSettings, Profile};
use scoregate::data::gate::{Gate, Permit, Target};
use scoregate::data::head::{self, Forwarding, Ids};
use scoregate::data::record::{OpenRecord, Sinks};
use scoregate::data::verify::{TokenCache, Verifier};
use scoregate::data::world::{Deployment, Endpoint, Snapshot};
use scoregate::observe::access::AccessLog;
use scoregate::observe::metrics::Metrics;
use scoregate::shutdown::{self, Drain, DrainTrigger};

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
    tokens: TokenCache,
    rng: SmallRng,
    client: HeaderValue,
    drain: Drain,
    _drain: DrainTrigger,
    _folder: tempfile::TempDir,
}

/// A request and the answer to it, as hyper hands them over; and what becomes of them.
pub(crate) struct Exchange {
    pub(crate) request: http::request::Parts,
    to_model: Request<()>,
    answer: http::response::Parts,
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
        Self { request: request.into_parts().0, to_model: Request::new(()), answer: answer.into_parts().0 }
    }

    /// Many of them.
    pub(crate) fn many(number: usize) -> Vec<Self> {
        (0..number).map(|_| Self::new()).collect()
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
        let (trigger, drain) = shutdown::drain();
        Self {
            snapshot: Cache::new(Arc::new(ArcSwap::from_pointee(snapshot))),
            sinks: Rc::new(Sinks { access, unrouted: handles.deployment(None, None) }),
            tokens: TokenCache::new(),
            rng: SmallRng::seed_from_u64(1),
            client: HeaderValue::from_static("203.0.113.7"),
            drain,
            _drain: trigger,
            _folder: folder,
        }
    }

    /// As it is after some requests.
    pub(crate) fn warm() -> Self {
        let mut world = Self::new();
        Exchange::many(100).iter_mut().for_each(|exchange| world.own_decisions(exchange));
        world
    }

    /// As `data::worker` loads it.
    pub(crate) fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::clone(self.snapshot.load())
    }

    /// Everything that the router does for a request by itself.
    pub(crate) fn own_decisions(&mut self, exchange: &mut Exchange) {
        let Exchange { request, to_model, answer } = exchange;
        let mut record = OpenRecord::new(request, Instant::now(), Rc::clone(&self.sinks));
        let snapshot = self.snapshot();
        let endpoint = Arc::clone(route(&snapshot, request));
        record.fields().endpoint = Some(endpoint.settings.name.clone());
        record.attribute(&endpoint.metrics);
        let profile = endpoint.settings.profile;
        let ids = settle(&mut request.headers, profile, &mut self.rng);
        record.fields().request_id = Some(ids.request.clone());
        record.fields().client_request_id.clone_from(&ids.client);
        record.fields().identity = Some(self.identify(&endpoint.verifier, &request.headers));
        let deployment = choose(&endpoint, &request.headers, &mut record);
        assert!(declared_length(&request.headers) <= deployment.settings.request.max_body_bytes);
        *to_model = self.to_model(request, &deployment);
        let permit = self.wait_for_slot(&deployment, &mut record);
        let target = Arc::clone(permit.target());
        record.fields().replica = Some(Arc::clone(&target.name));
        to_model.headers_mut().insert(HOST, target.host.clone());
        // Here the request goes out and the answer's head comes in.
        let sent_at = Instant::now();
        record.fields().request_bytes = 200;
        record.fields().model_time = Some(sent_at.elapsed());
        record.fields().model_status = Some(answer.status);
        head::to_client(&mut answer.headers, &ids);
        record.answered(answer.status, Instant::now());
        ids.echo(&mut answer.headers);
        answer.headers.insert(head::DEPLOYMENT, deployment.header.clone());
        if self.drain.is_draining() {
            answer.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // Here the answer's body goes through.
        record.add_response_bytes(200);
        record.complete(Instant::now());
        drop(permit);
    }

    fn identify(&mut self, verifier: &Verifier, headers: &HeaderMap) -> Identity {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        verifier.authorize(headers, now, &mut self.tokens).expect("the key is good")
    }

    fn to_model(&self, parts: &mut http::request::Parts, deployment: &Deployment) -> Request<()> {
        let authority = parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        let path = PathAndQuery::try_from(deployment.settings.routes.scoring.as_str()).expect("a valid path");
        let mut request = Request::new(());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = Uri::from(path);
        *request.headers_mut() = std::mem::take(&mut parts.headers);
        let forwarding = Forwarding {
            authorization: deployment.settings.forward_authorization,
            client: &self.client,
            tls: false,
        };
        head::to_model(request.headers_mut(), &forwarding, authority);
        request
    }

    fn wait_for_slot(&self, deployment: &Deployment, record: &mut OpenRecord) -> Permit {
        let drain = self.drain.clone();
        let asked = Instant::now();
        let permit = acquire(&deployment.gate, asked, deployment.settings.request.max_queue_wait);
        record.fields().queue_time = asked.elapsed();
        drop(drain);
        permit
    }
}

/// Ids and the checks of the head.
pub(crate) fn settle(headers: &mut HeaderMap, profile: Profile, rng: &mut SmallRng) -> Ids {
    let ids = Ids::settle(headers, profile, rng).expect("no id is too long");
    head::check(headers, Version::HTTP_11).expect("the head is good");
    ids
}

/// Where a request of the demo goes.
pub(crate) fn route<'a>(snapshot: &'a Snapshot, request: &http::request::Parts) -> &'a Arc<Endpoint> {
    let host = request.uri.host().or_else(|| request.headers.get(HOST).and_then(|host| host.to_str().ok()));
    match snapshot.routes.find(request.uri.path(), host) {
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
    let mut acquire = std::pin::pin!(gate.acquire(now, max_wait));
    match acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => permit.expect("there are free slots"),
        Poll::Pending => unreachable!("there are free slots"),
    }
}

fn choose(endpoint: &Endpoint, headers: &HeaderMap, record: &mut OpenRecord) -> Arc<Deployment> {
    assert!(headers.get_all(head::DEPLOYMENT).iter().next().is_none());
    let deployment = endpoint.next().expect("the demo takes traffic");
    let fields = record.fields();
    fields.deployment = Some(deployment.settings.name.clone());
    fields.route_time = fields.started.elapsed();
    record.attribute(&deployment.metrics);
    Arc::clone(deployment)
}

fn declared_length(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or_default()
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
        gate,
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
