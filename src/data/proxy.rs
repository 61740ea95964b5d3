//! The path of one request: who, where to, a slot, the replica, the answer. Every way out that is not the model's
//! answer is a `Reject`; every way out writes the record, since it ends when it is dropped.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::core::admission::Ask;
use crate::core::identity::Caller;
use crate::core::ledger::Chosen;
use crate::core::retry::Cause;
use crate::core::route::{Call, Route};
use crate::core::settings::{EndpointSettings, Profile, RequestSettings};
use crate::core::wait::LongestWait;
use crate::data::again::Again;
use crate::data::ask::Asking;
use crate::data::body::{AnswerBody, Progress, RequestBody, Terms, Upload};
use crate::data::cors;
use crate::data::gate::{Acquire, Permit};
use crate::data::head::{self, Forwarding, Ids, Known, Survey};
use crate::data::peer::Peer;
use crate::data::quota::{Limiter, Told};
use crate::data::record::OpenRecord;
use crate::data::reject::Reject;
use crate::data::upstream::{self, Outgoing, SendError, Trip};
use crate::data::worker::Worker;
use crate::data::world::{Deployment, Endpoint, Snapshot};
use repeat::{Course, Reply, Rest};

mod refused;
mod repeat;

/// Serves one request. Every failure is an answer, so that the connection never sees an error.
///
/// # Errors
/// None.
pub fn handle(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> {
    // Not in the future: a client may be gone before that is polled for the first time, and its request counts as well.
    let record = OpenRecord::new(&request, Instant::now(), Rc::clone(&worker.sinks), Rc::clone(&peer));
    serve(worker, peer, request, record)
}

async fn serve(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
    mut record: OpenRecord,
) -> Result<Response<AnswerBody>, Infallible> {
    let survey = Survey::of(request.headers());
    let expects_continue = survey.has(Known::Expect);
    // Boxed once and edited in place: it is handed on several times before it goes out.
    let mut request = Box::new(request.map(|incoming| {
        let leftovers = (!expects_continue).then(|| worker.leftovers.clone());
        RequestBody::new(incoming, Rc::clone(&peer), leftovers)
    }));
    let version = request.version();
    let snapshot = worker.snapshot();
    let host = || {
        let header = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
        request.uri().host().or_else(header)
    };
    let (endpoint, call) = match snapshot.routes.find(request.uri().path(), host) {
        Route::Endpoint(index, call) => (Arc::clone(&snapshot.endpoints[index]), call),
        own => return Ok(own_route(own, &worker, &snapshot, &mut request, survey, record)),
    };
    record.fields().endpoint = Some(endpoint.settings.name.clone());
    record.attribute(&endpoint.metrics);
    let profile = endpoint.settings.profile;
    let origin = endpoint.settings.cors.as_ref().and_then(|policy| cors::allow(policy, request.headers()));
    let mut ids = None;
    let mut served_by = None;
    let mut limits = None;
    let path = Path {
        worker: &worker,
        peer: &peer,
        endpoint: &endpoint,
        call,
        survey,
        record: &mut record,
        ids: &mut ids,
        served_by: &mut served_by,
        limits: &mut limits,
    };
    let outcome = path.run(request).await;
    let ids = ids.as_ref();
    let timing = endpoint.settings.server_timing;
    let mut response = match outcome {
        Ok(Outcome::Model(answer, deployment)) => {
            model_answer(answer, &deployment, &endpoint.settings, ids, record)
        }
        Ok(Outcome::Own(response)) => own_answer(response, ids, timing, record),
        Err(reject) => own_reject(&reject, profile, ids, timing, record),
    };
    let headers = response.headers_mut();
    if let Some(deployment) = served_by {
        headers.insert(head::DEPLOYMENT, deployment.header.clone());
    }
    if let Some(limits) = limits {
        limits.mark(headers, Instant::now(), SystemTime::now());
    }
    if let Some(origin) = origin {
        origin.mark(headers);
    }
    if worker.drain.is_draining() && version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

enum Outcome {
    Model(Reply, Arc<Deployment>),
    Own(Response<Bytes>),
}

/// A request on its way, and what it leaves behind for its answer.
struct Path<'a> {
    worker: &'a Rc<Worker>,
    peer: &'a Peer,
    endpoint: &'a Arc<Endpoint>,
    call: Call,
    survey: Survey,
    record: &'a mut OpenRecord,
    ids: &'a mut Option<Ids>,
    served_by: &'a mut Option<Arc<Deployment>>,
    limits: &'a mut Option<Told>,
}

impl Path<'_> {
    async fn run(mut self, mut request: Outgoing) -> Result<Outcome, Reject> {
        let profile = self.endpoint.settings.profile;
        let headers = request.headers_mut();
        let ids = Ids::settle(headers, self.survey, profile, &mut self.worker.rng.borrow_mut())?;
        self.record.identify(&ids);
        *self.ids = Some(ids);
        head::check(request.headers(), self.survey, request.version())?;
        if let Some(preflight) = self.check_method(&request)? {
            return Ok(Outcome::Own(preflight));
        }
        self.identify(request.headers())?;
        let deployment = self.choose(request.headers())?;
        let ask = self.ask(request.headers(), &deployment)?;
        let limit = deployment.settings.request.max_body_bytes;
        if request.body().size_hint().lower() > limit {
            return Err(Reject::BodyTooLarge { limit });
        }
        request.body_mut().set_limit(limit);
        self.address(&mut request, &deployment);
        // A drain's deadline frees whoever still waits, with an answer instead of a cut connection.
        let over = Rc::clone(&self.worker.drain_over);
        let forward = std::pin::pin!(self.forward(&deployment, request, ask));
        let answer = over.or(forward).await.unwrap_or(Err(Reject::Draining))?;
        Ok(Outcome::Model(answer, Arc::clone(&deployment)))
    }

    /// GET, HEAD and POST go on; a preflight is answered where there is a policy.
    fn check_method(&self, request: &Outgoing) -> Result<Option<Response<Bytes>>, Reject> {
        match (request.method(), &self.endpoint.settings.cors) {
            (&Method::GET | &Method::HEAD | &Method::POST, _) => Ok(None),
            _ if self.call == Call::PassThrough => Ok(None),
            (&Method::OPTIONS, Some(policy)) => Ok(Some(cors::preflight(policy, request.headers()))),
            (_, Some(_)) => Err(Reject::MethodNotAllowed { allow: "GET, HEAD, OPTIONS, POST" }),
            (_, None) => Err(Reject::MethodNotAllowed { allow: "GET, HEAD, POST" }),
        }
    }

    fn identify(&mut self, headers: &HeaderMap) -> Result<(), Reject> {
        let record = self.record.fields();
        let now = record.started_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut tokens = self.worker.tokens.borrow_mut();
        let verifier = &self.endpoint.verifier;
        let identity =
            verifier.authorize(headers, now, &mut tokens, &self.peer.last_key).map_err(Reject::Auth)?;
        let caller = identity.caller;
        record.identity = Some(identity);
        match &self.endpoint.limiter {
            None => Ok(()),
            Some(limiter) => self.limit(limiter, caller),
        }
    }

    /// Counts the request for its caller. One that is over a limit never comes to a gate: it is no demand that replicas
    /// should be started for.
    fn limit(&mut self, limiter: &Limiter, caller: Caller) -> Result<(), Reject> {
        let fields = self.record.fields();
        let Some((told, answer)) = limiter.admit(caller, fields.started, fields.started_at) else {
            return Ok(());
        };
        *self.limits = Some(told);
        let held = answer.map_err(|denied| {
            fields.story.refused = refused::by_limit(&denied, fields.identity.as_ref());
            Reject::Limited(denied)
        })?;
        self.record.hold(held);
        Ok(())
    }

    /// By header, straight to that deployment; otherwise by turn.
    fn choose(&mut self, headers: &HeaderMap) -> Result<Arc<Deployment>, Reject> {
        let endpoint = self.endpoint;
        let deployment = if self.survey.has(Known::Deployment) {
            named(endpoint, headers).ok_or_else(|| Reject::UnknownDeployment { known: endpoint.names() })?
        } else {
            endpoint.next().ok_or_else(|| Reject::NoTraffic { known: endpoint.names() })?
        };
        let by_header = self.survey.has(Known::Deployment);
        let fields = self.record.fields();
        fields.story.chosen = Some(if by_header { Chosen::Header } else { Chosen::Turn });
        fields.deployment = Some(deployment.settings.name.clone());
        self.record.attribute(&deployment.metrics);
        *self.served_by = Some(Arc::clone(deployment));
        Ok(Arc::clone(deployment))
    }

    /// What the request asks the gate for.
    fn ask(&mut self, headers: &HeaderMap, deployment: &Deployment) -> Result<Ask, Reject> {
        let fields = self.record.fields();
        let auth = &self.endpoint.settings.auth;
        let client = fields.identity.as_ref().and_then(|identity| auth.client(identity.caller));
        let asking = Asking {
            arrived: fields.started,
            headers,
            survey: self.survey,
            identity: fields.identity.as_ref(),
            client: client.and_then(|client| client.class),
            call: self.call,
            ids: self.ids.as_ref(),
            connection: self.peer.number(),
        };
        asking.ask(&self.endpoint.settings.classes, deployment.settings.request.fair_share)
    }

    /// Makes of the request what the model is to see, but for the Host header.
    fn address(&self, request: &mut Outgoing, deployment: &Deployment) {
        let uri = request.uri();
        let authority = uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        *request.uri_mut() = match self.call {
            Call::PassThrough => uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from),
            Call::Score => with_query(&deployment.scoring, uri.query()),
            Call::Swagger => with_query(&deployment.swagger, uri.query()),
        };
        *request.version_mut() = Version::HTTP_11;
        request.extensions_mut().clear();
        let forwarding = Forwarding {
            authorization: deployment.settings.forward_authorization,
            client: &self.peer.address,
            tls: self.peer.tls,
        };
        head::to_model(request.headers_mut(), self.survey, &forwarding, authority);
    }

    /// Waits for a slot, sends, waits for the head of the answer. A replica that cannot be reached is suspended, and the
    /// request waits for another one with its old place in the queue.
    async fn forward(
        &mut self,
        deployment: &Deployment,
        mut request: Outgoing,
        ask: Ask,
    ) -> Result<Reply, Reject> {
        let asked = Instant::now();
        let (longest, repeat) = (deployment.longest_wait(), &deployment.settings.request.repeat);
        let fields = self.record.fields();
        fields.route_time = asked.saturating_duration_since(fields.started);
        let again = Again::of(&mut request, repeat, ask, &deployment.copies.budget);
        if again.is_some() {
            deployment.copies.budget.deposit(repeat.budget_percent);
        }
        let mut acquire = deployment.gate.acquire(asked, longest.time, ask);
        loop {
            let (permit, admitted) =
                self.admit(acquire, request.body_mut(), deployment, (asked, longest)).await?;
            let target = Arc::clone(permit.target());
            let fields = self.record.fields();
            fields.replica = Some(Arc::clone(&target.name));
            fields.tries.hand_over();
            request.headers_mut().insert(HOST, target.host.clone());
            let sent = match &again {
                None => self.send(permit, request, deployment, admitted).await?,
                Some(again) => {
                    Box::pin(self.send_repeatable(permit, request, again, deployment, admitted)).await?
                }
            };
            match sent {
                Sent::Answered(answer) => return Ok(answer),
                Sent::Unreachable(permit, unsent, error) => {
                    tracing::warn!(replica = %target.name, address = %target.authority, %error, "cannot connect");
                    self.record.fields().tries.add(Cause::Unreachable);
                    acquire = permit.suspect();
                    request = unsent;
                }
            }
        }
    }

    /// Waits for a permit, reading on in the body meanwhile unless the client waits to be asked for it. Also tells when
    /// there was one.
    async fn admit(
        &mut self,
        acquire: Acquire,
        body: &mut RequestBody,
        deployment: &Deployment,
        (asked, longest): (Instant, LongestWait),
    ) -> Result<(Permit, Instant), Reject> {
        let limits = &deployment.settings.request;
        let mut acquire = std::pin::pin!(acquire);
        let mut at_once = true;
        let granted = std::future::poll_fn(|cx| {
            if let Poll::Ready(granted) = acquire.as_mut().poll(cx) {
                return Poll::Ready(Ok(granted));
            }
            at_once = false;
            if self.survey.has(Known::Expect) {
                return Poll::Pending;
            }
            body.poll_ahead(cx).map(Err)
        })
        .await;
        let fields = self.record.fields();
        let now = if at_once && fields.queue_time.is_zero() { asked } else { Instant::now() };
        let waited = now.saturating_duration_since(asked);
        fields.queue_time = waited;
        if let Ok(Err(refusal)) = &granted {
            fields.story.refused = refused::by_gate(deployment, refusal, longest);
        }
        match granted {
            Ok(Ok(permit)) => Ok((permit, now)),
            Ok(Err(refusal)) => Err(Reject::refused(refusal, waited, longest, limits)),
            Err(upload) => Err(upload_failure(upload, limits).unwrap_or(Reject::ClientGone)),
        }
    }

    async fn send(
        &mut self,
        permit: Permit,
        request: Outgoing,
        deployment: &Deployment,
        sent_at: Instant,
    ) -> Result<Sent, Reject> {
        let upload = request.body().progress();
        let (limits, trip) = (limits(&deployment.settings.request, sent_at), Trip::default());
        let sent = self.worker.upstream.send(permit, request, None, limits, &trip).await.map(Reply::Open);
        self.judge(sent, &trip, &upload, deployment, sent_at)
    }

    /// The same for a request that may be sent more than once.
    async fn send_repeatable(
        &mut self,
        permit: Permit,
        request: Outgoing,
        again: &Again<'_>,
        deployment: &Deployment,
        sent_at: Instant,
    ) -> Result<Sent, Reject> {
        let upload = request.body().progress();
        let trip = Trip::default();
        let course = Course {
            upstream: &self.worker.upstream,
            deployment,
            again,
            limits: limits(&deployment.settings.request, sent_at),
            trip: &trip,
            tries: &mut self.record.fields().tries,
        };
        let sent = course.run(permit, request).await;
        if let Ok(reply) = &sent {
            self.record.fields().replica = Some(Arc::clone(&reply.target().name));
        }
        for _ in 0..trip.stale.get() {
            let tries = &mut self.record.fields().tries;
            tries.add(Cause::Stale);
            tries.hand_over();
        }
        self.judge(sent, &trip, &upload, deployment, sent_at)
    }

    /// What a try means for the client.
    fn judge(
        &mut self,
        sent: Result<Reply, SendError>,
        trip: &Trip,
        upload: &Progress,
        deployment: &Deployment,
        sent_at: Instant,
    ) -> Result<Sent, Reject> {
        let settings = &deployment.settings.request;
        let connect_time = trip.connect_time.get();
        let fields = self.record.fields();
        fields.connect_time += connect_time;
        fields.request_bytes = upload.bytes();
        match sent {
            // Nothing asked for another protocol, so the replica does not speak HTTP as it should.
            Ok(reply) if reply.status() == StatusCode::SWITCHING_PROTOCOLS => Err(Reject::ModelBroke),
            Ok(reply) => {
                let now = Instant::now();
                fields.model_time = Some(now.saturating_duration_since(sent_at).saturating_sub(connect_time));
                fields.model_status = Some(reply.status());
                self.record.answered(reply.status(), now);
                Ok(Sent::Answered(reply))
            }
            Err(SendError::Connect(permit, request, error)) => Ok(Sent::Unreachable(permit, request, error)),
            Err(SendError::Exchange(error)) => {
                Err(upload_failure(upload.state(), settings).unwrap_or_else(|| {
                    tracing::warn!(endpoint = %self.endpoint.settings.name,
                    deployment = %deployment.settings.name, %error, "the replica broke the connection");
                    Reject::ModelBroke
                }))
            }
            Err(SendError::TimedOut) if upload.waits_for_client() => {
                Err(Reject::ClientTooSlow { limit: settings.timeout })
            }
            Err(SendError::TimedOut) => Err(Reject::ModelTimeout { limit: settings.timeout }),
        }
    }
}

/// The deployment that the request names; two different names name none.
fn named<'a>(endpoint: &'a Endpoint, headers: &HeaderMap) -> Option<&'a Arc<Deployment>> {
    let mut names = headers.get_all(head::DEPLOYMENT).iter();
    let name = names.next()?;
    names.all(|other| other == name).then(|| endpoint.named(name.as_bytes()))?
}

fn limits(settings: &RequestSettings, now: Instant) -> upstream::Limits {
    upstream::Limits { connect_timeout: settings.connect_timeout, now, until: now + settings.timeout }
}

enum Sent {
    Answered(Reply),
    Unreachable(Permit, Outgoing, std::io::Error),
}

/// What the client's side of the upload has done wrong, if anything.
fn upload_failure(upload: Upload, limits: &RequestSettings) -> Option<Reject> {
    match upload {
        Upload::Complete | Upload::Running => None,
        Upload::Gone => Some(Reject::ClientGone),
        Upload::Malformed => Some(Reject::BodyMalformed),
        Upload::TooLarge => Some(Reject::BodyTooLarge { limit: limits.max_body_bytes }),
    }
}

fn with_query(path: &Uri, query: Option<&str>) -> Uri {
    match query {
        Some(query) => Uri::try_from(format!("{path}?{query}")).unwrap_or_default(),
        None => path.clone(),
    }
}

/// The model's answer as the client is to see it.
fn model_answer(
    reply: Reply,
    deployment: &Deployment,
    endpoint: &EndpointSettings,
    ids: Option<&Ids>,
    mut record: OpenRecord,
) -> Response<AnswerBody> {
    let profile = endpoint.profile;
    let (mut parts, rest) = reply.into_parts();
    if let Some(ids) = ids {
        head::to_client(&mut parts.headers, ids);
    }
    let model_status = parts.status;
    parts.status = match (profile, model_status) {
        (Profile::Managed, StatusCode::OK) => StatusCode::OK,
        (Profile::Managed, _) => StatusCode::FAILED_DEPENDENCY,
        // So that 500 always means the router itself.
        (_, StatusCode::INTERNAL_SERVER_ERROR) => StatusCode::BAD_GATEWAY,
        (_, status) => status,
    };
    if profile == Profile::Managed && parts.status != model_status {
        parts.headers.insert(head::MODEL_STATUS, HeaderValue::from(model_status.as_u16()));
        let reason = HeaderValue::from_static(model_status.canonical_reason().unwrap_or("unknown"));
        parts.headers.insert(head::MODEL_REASON, reason);
    }
    // hyper says which version the answer has towards this client.
    parts.version = Version::default();
    parts.extensions.clear();
    record.fields().status = Some(parts.status);
    if endpoint.server_timing {
        // The model may have told its own.
        parts.headers.append(head::SERVER_TIMING, record.server_timing());
    }
    let body = match rest {
        Rest::Open(incoming, exchange) => {
            let terms = Terms { heard: record.head_at(), stall_limit: deployment.settings.request.timeout };
            AnswerBody::model(incoming, exchange, terms, record)
        }
        Rest::Closed(bytes) => {
            let now = record.head_at();
            record.complete(now);
            AnswerBody::own(bytes, Some(record))
        }
    };
    Response::from_parts(parts, body)
}

fn own_answer(
    response: Response<Bytes>,
    ids: Option<&Ids>,
    timing: bool,
    mut record: OpenRecord,
) -> Response<AnswerBody> {
    let now = Instant::now();
    record.answered(response.status(), now);
    record.complete(now);
    let mut response = response;
    if let Some(ids) = ids {
        // The router's own answers have no ids yet.
        ids.echo(response.headers_mut(), Survey::default());
    }
    if timing {
        response.headers_mut().insert(head::SERVER_TIMING, record.server_timing());
    }
    response.map(|bytes| AnswerBody::own(bytes, Some(record)))
}

fn own_reject(
    reject: &Reject,
    profile: Profile,
    ids: Option<&Ids>,
    timing: bool,
    mut record: OpenRecord,
) -> Response<AnswerBody> {
    let fields = record.fields();
    fields.reason = Some(reject.code());
    fields.story.retry_after = reject.retry();
    if fields.story.refused.is_none() {
        fields.story.refused = refused::by_head(reject);
    }
    own_answer(reject.response(profile), ids, timing, record)
}

/// The router's own routes: `/`, `/healthz`, `/readyz`, and everything that is none.
fn own_route(
    route: Route,
    worker: &Worker,
    snapshot: &Snapshot,
    request: &mut Outgoing,
    survey: Survey,
    record: OpenRecord,
) -> Response<AnswerBody> {
    let (status, text) = match route {
        Route::Alive => (StatusCode::OK, "alive\n"),
        Route::Home => (StatusCode::OK, "scoregate\n"),
        Route::Ready if worker.drain.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Route::Ready if !is_ready(snapshot) => (StatusCode::SERVICE_UNAVAILABLE, "no replica is ready\n"),
        Route::Ready => (StatusCode::OK, "ready\n"),
        Route::Endpoint(..) | Route::Unknown => {
            return own_refusal(&Reject::UnknownRoute, worker, request.headers_mut(), survey, record);
        }
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let reject = Reject::MethodNotAllowed { allow: "GET, HEAD" };
        return own_refusal(&reject, worker, request.headers_mut(), survey, record);
    }
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    record.forget();
    response.map(|bytes| AnswerBody::own(bytes, None))
}

/// What no route takes has ids as well, by which it can be asked for.
fn own_refusal(
    reject: &Reject,
    worker: &Worker,
    headers: &mut HeaderMap,
    survey: Survey,
    mut record: OpenRecord,
) -> Response<AnswerBody> {
    let ids = Ids::settle(headers, survey, Profile::Managed, &mut worker.rng.borrow_mut()).ok();
    if let Some(ids) = &ids {
        record.identify(ids);
    }
    own_reject(reject, Profile::Aks, ids.as_ref(), false, record)
}

/// Ready to serve: some endpoint could take a request now. One broken endpoint must not take the traffic of the others
/// away.
fn is_ready(snapshot: &Snapshot) -> bool {
    let ready = |endpoint: &Arc<Endpoint>| endpoint.deployments.iter().any(|d| d.gate.load().ready > 0);
    snapshot.endpoints.is_empty() || snapshot.endpoints.iter().any(ready)
}
