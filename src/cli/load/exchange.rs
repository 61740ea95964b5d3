//! One request from its sending to the last byte of its answer.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::client::Client;
use super::failure;
use super::plan::{DEPLOYMENT, Plan};
use super::schedule::Arrival;
use super::server_timing;
use super::sse::EventCounter;
use super::tally::{Answer, Failure, Outcome, Sending, Stream, Tally};

/// How much of a failure's body is kept, in bytes, to find its reason.
const KEPT: usize = 16 * 1024;

/// A request whose time has come.
pub(super) struct Exchange<'a> {
    pub(super) plan: &'a Plan,
    pub(super) client: &'a Client,
    /// Takes the gaps between events as they are seen; there may be too many to keep.
    pub(super) tally: &'a RefCell<Tally>,
    pub(super) arrival: Arrival,
    /// When it was due.
    pub(super) due: Instant,
    /// When it could be sent: later than due if as many requests as allowed were under way.
    pub(super) free: Instant,
}

impl Exchange<'_> {
    /// Sends the request and reads the answer to its end, or to the time limit.
    pub(super) async fn run(&self) -> Outcome {
        let sent = Instant::now();
        let answer = RefCell::new(None);
        // When the last byte came: after it, only the connection is put back.
        let complete = Cell::new(None);
        let limit = tokio::time::Instant::from_std(self.due + self.plan.timeout);
        let done = tokio::time::timeout_at(limit, self.answer(&answer, &complete)).await;
        let end = complete.get().unwrap_or_else(Instant::now);
        let answer = answer.into_inner();
        let failure = match done {
            Ok(result) => result.err(),
            Err(_) if complete.get().is_some() => None,
            Err(_) => {
                let missing = if answer.is_some() { "incomplete answer" } else { "no answer" };
                Some(failure::timeout(self.plan.timeout, missing))
            }
        };
        Outcome {
            due: self.arrival.due,
            is_counted: self.arrival.is_counted,
            latency: end - self.due,
            sending: Some(Sending {
                held_back: self.free - self.due,
                lag: sent.saturating_duration_since(self.free),
                service_time: end - sent,
            }),
            answer,
            failure,
        }
    }

    async fn answer(
        &self,
        answer: &RefCell<Option<Answer>>,
        complete: &Cell<Option<Instant>>,
    ) -> Result<(), Failure> {
        let (response, lease) = self.client.send(self.request()).await?;
        *answer.borrow_mut() = Some(self.head(&response));
        let result = self.body(response, answer, complete).await;
        if complete.get().is_some() {
            self.client.settle(lease).await;
        }
        result
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.plan.body.clone()));
        *request.method_mut() = self.plan.method.clone();
        *request.uri_mut() = self.plan.uri.clone();
        *request.headers_mut() = self.plan.headers_of(self.arrival.number);
        request
    }

    fn head(&self, response: &Response<Incoming>) -> Answer {
        let headers = response.headers();
        let timing = headers.get_all("server-timing").into_iter().filter_map(|value| value.to_str().ok());
        let deployment = headers.get(DEPLOYMENT).and_then(|name| name.to_str().ok());
        Answer {
            status: response.status().as_u16(),
            first_byte: self.due.elapsed(),
            deployment: deployment.map(|name| failure::printable(name, 60)),
            server_timing: timing.flat_map(server_timing::metrics).collect(),
            stream: (self.plan.is_stream && response.status().is_success()).then(Stream::default),
        }
    }

    async fn body(
        &self,
        response: Response<Incoming>,
        answer: &RefCell<Option<Answer>>,
        complete: &Cell<Option<Instant>>,
    ) -> Result<(), Failure> {
        let (head, mut body) = response.into_parts();
        let (mut kept, mut events) = (Vec::new(), Events::new());
        let is_success = head.status.is_success();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| failure::body(&error, head.status))?;
            let Some(data) = frame.data_ref() else { continue };
            if !is_success {
                kept.extend(data.iter().take(KEPT - kept.len()));
            } else if self.plan.is_stream {
                events.take(data, self.due, |gap| {
                    if self.arrival.is_counted {
                        self.tally.borrow_mut().event_gap(gap);
                    }
                });
                if let Some(answer) = &mut *answer.borrow_mut() {
                    answer.stream = Some(events.seen);
                }
            }
        }
        complete.set(Some(Instant::now()));
        if !is_success {
            return Err(failure::status(head.status, &head.headers, &kept));
        }
        if self.plan.is_stream && events.counter.is_inside_event() {
            return Err(failure::stream_cut(head.status));
        }
        if self.plan.is_stream && events.seen.events == 0 {
            let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            return Err(failure::no_events(head.status, content_type.unwrap_or("without content-type")));
        }
        Ok(())
    }
}

/// The events of one answer.
struct Events {
    counter: EventCounter,
    seen: Stream,
    last: Option<Instant>,
}

impl Events {
    fn new() -> Self {
        Self { counter: EventCounter::default(), seen: Stream::default(), last: None }
    }

    fn take(&mut self, data: &[u8], due: Instant, mut gap: impl FnMut(Duration)) {
        let now = Instant::now();
        for _ in 0..self.counter.feed(data) {
            match self.last.replace(now) {
                None => self.seen.first_event = Some(now - due),
                Some(last) => gap(now - last),
            }
            self.seen.events += 1;
        }
    }
}
