//! What the synthetic model server answers: routes, headers and bodies, as the real one does.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_timer::Delay;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, SERVER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::ModelArgs;
use super::stats::{InFlight, Stats};
use super::work::Work;

/// Events of a stream that only the client asked for.
const DEFAULT_EVENTS: u32 = 8;
/// Longest request id, as in the real server; a longer one is refused with 431.
const MAX_ID: usize = 100;

/// The model behind the server.
#[derive(Debug)]
pub(super) struct Model {
    args: ModelArgs,
    name: String,
    started: Instant,
    stats: Arc<Stats>,
    work: Work,
}

impl Model {
    pub(super) fn new(args: ModelArgs, port: u16, started: Instant) -> Self {
        let name = args.name.clone().unwrap_or_else(|| port.to_string());
        Self { name, started, stats: Arc::new(Stats::new()), work: Work::new(&args), args }
    }

    /// Answers a request; dropped when the client is gone.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        let head = request.headers().clone();
        let scores =
            request.uri().path() == "/score" && matches!(*request.method(), Method::GET | Method::POST);
        // Before the first await: in flight is what has been sent, not what has been looked at.
        let in_flight = scores.then(|| self.stats.begin());
        let ready = self.started + Duration::from_millis(self.args.startup_delay);
        tokio::time::sleep_until(ready.into()).await;
        let mut response = match (request.uri().path(), request.method()) {
            ("/", &Method::GET | &Method::HEAD) => {
                text(StatusCode::OK, "text/html; charset=utf-8", "Healthy")
            }
            ("/stats", &Method::GET) => json(StatusCode::OK, &json!(self.stats.counts())),
            ("/swagger.json", &Method::GET) => json(StatusCode::OK, &swagger()),
            _ if scores => self.score(request, in_flight).await,
            ("/" | "/stats" | "/swagger.json", _) => not_allowed("GET"),
            ("/score", _) => not_allowed("GET, POST"),
            _ => message(StatusCode::NOT_FOUND, "The requested URL was not found on the server."),
        };
        ids(&head, &mut response);
        Ok(response)
    }

    async fn score(&self, request: Request<Incoming>, in_flight: Option<InFlight>) -> Response<Answer> {
        let streams = self.args.sse_events > 0 || accepts_events(request.headers());
        let mut body = request.into_body();
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            // A client that breaks off is noticed by the connection, which then drops this future.
            let Ok(frame) = frame else { break };
            received += frame.data_ref().map_or(0, Bytes::len);
        }
        let place = self.work.place().await;
        let draw = self.work.draw();
        let began = Instant::now();
        if !draw.time.is_zero() {
            // The runtime's own timer rounds up to a millisecond, which a short service time would feel.
            Delay::new(draw.time).await;
        }
        let spent = began.elapsed().as_secs_f64() * 1000.0;
        let held = Held { _place: place, in_flight };
        let mut response = if draw.fails {
            held.in_flight.iter().for_each(InFlight::fail);
            let text = "An unexpected error occurred in scoring script. Check the logs for more info.";
            held.answer(json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "message": text })))
        } else if streams {
            self.events(held)
        } else {
            held.answer(self.result(received, spent))
        };
        let failed = if draw.fails { "True" } else { "False" };
        response.headers_mut().insert("x-ms-run-function-failed", HeaderValue::from_static(failed));
        if !draw.fails
            && let Ok(time) = HeaderValue::try_from(format!("{spent:.3}"))
        {
            response.headers_mut().insert("x-ms-run-fn-exec-ms", time);
        }
        response
    }

    fn result(&self, received: usize, spent: f64) -> Response<Answer> {
        let counts = self.stats.counts();
        let mut body = json!({
            "replica": self.name,
            "in_flight": counts.in_flight,
            "max_in_flight": counts.max_in_flight,
            "request_bytes": received,
            "service_ms": (spent * 1000.0).round() / 1000.0,
        });

        let short = self.args.response_size.saturating_sub(body.to_string().len());
        let cost = r#","padding":"""#.len();
        if short >= cost {
            body["padding"] = "x".repeat(short - cost).into();
        }
        json(StatusCode::OK, &body)
    }

    fn events(&self, held: Held) -> Response<Answer> {
        let left = if self.args.sse_events > 0 { self.args.sse_events } else { DEFAULT_EVENTS };
        let events = Events {
            replica: self.name.clone(),
            sent: 0,
            total: left,
            interval: Duration::from_millis(self.args.sse_interval),
            pause: None,
        };
        let mut response = Response::new(Answer { content: Content::Events(events), held: Some(held) });
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response.headers_mut().insert("cache-control", HeaderValue::from_static("no-cache"));
        response
    }
}

/// What a request holds to the last byte of its answer.
#[derive(Debug)]
struct Held {
    _place: OwnedSemaphorePermit,
    in_flight: Option<InFlight>,
}

impl Held {
    fn answer(self, response: Response<Answer>) -> Response<Answer> {
        response.map(|answer| Answer { held: Some(self), ..answer })
    }
}

/// The body of an answer. It lets go of what the request held when its last piece is taken: before that piece is on
/// the wire, so that no client can know of the end before the counters do.
#[derive(Debug)]
pub(super) struct Answer {
    content: Content,
    held: Option<Held>,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Events(Events),
}

#[derive(Debug)]
struct Events {
    replica: String,
    sent: u32,
    total: u32,
    interval: Duration,
    pause: Option<Delay>,
}

impl Events {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        if let Some(pause) = &mut self.pause {
            ready!(Pin::new(pause).poll(context));
        }
        let data = json!({ "replica": self.replica, "event": self.sent, "of": self.total });
        self.sent += 1;
        self.pause = Some(Delay::new(self.interval));
        Poll::Ready(format!("data: {data}\n\n").into())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let piece = match &mut self.content {
            Content::Whole(bytes) => std::mem::take(bytes),
            Content::Events(events) => ready!(events.poll_next(context)),
        };
        if self.is_end_stream()
            && let Some(mut held) = self.held.take()
        {
            held.in_flight.iter_mut().for_each(InFlight::finish);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Events(events) => events.sent >= events.total,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Events(_) => SizeHint::default(),
        }
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|kind| kind.trim_start().starts_with("text/event-stream"))
}

/// Request ids by the rules of the real server.
fn ids(request: &HeaderMap, response: &mut Response<Answer>) {
    let of = |name| request.get(name).cloned();
    let (request_id, client_id) = (of("x-request-id"), of("x-ms-client-request-id"));
    let too_long = |id: &Option<HeaderValue>| id.as_ref().is_some_and(|id| id.len() > MAX_ID);
    if too_long(&request_id) || too_long(&client_id) {
        *response = message(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "x-request-id and x-ms-client-request-id must not exceed 100 characters",
        );
        return;
    }
    let made = || HeaderValue::try_from(format!("{:032x}", rand::random::<u128>()));
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("scoregate-model"));
    if let Some(id) = &client_id {
        headers.insert("x-ms-client-request-id", id.clone());
    }
    if let Some(id) = request_id.or_else(|| made().ok()) {
        headers.insert("x-ms-request-id", client_id.unwrap_or_else(|| id.clone()));
        headers.insert("x-request-id", id);
    }
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer { content: Content::Whole(body.into()), held: None });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Answer> {
    text(status, "application/json", body.to_string())
}

fn message(status: StatusCode, text: &str) -> Response<Answer> {
    let mut response = json(status, &json!({ "message": text }));
    response.headers_mut().insert("x-ms-run-function-failed", HeaderValue::from_static("False"));
    response
}

fn not_allowed(allow: &'static str) -> Response<Answer> {
    let mut response =
        message(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for the requested URL.");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn swagger() -> serde_json::Value {
    let operation = json!({ "responses": { "200": { "description": "The score" } } });
    json!({
        "swagger": "2.0",
        "info": { "title": "Synthetic model", "version": "1.0" },
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "paths": { "/score": { "get": operation, "post": operation } },
    })
}
