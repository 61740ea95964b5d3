//! What is kept of a request that may be sent again: its head, and its body as it passes, up to a bound.
//!
//! Which requests are kept is decided here; whether one is sent again, in `proxy::repeat`.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body::{Body as _, Frame};

use crate::core::admission::Ask;
use crate::core::retry::{Budget, Denied};
use crate::core::settings::RepeatSettings;
use crate::data::body::{Progress, RequestBody, Upload};
use crate::data::upstream::Outgoing;

/// Most bytes that are kept of a body.
const MOST_KEPT: usize = 64 * 1024;

/// Pieces below this size are copied together: a handle on each of many would take more room than the bytes.
const SMALL: usize = 1024;

/// A request that may be sent again.
#[derive(Debug)]
pub struct Again<'a> {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    kept: Rc<Kept>,
    progress: Rc<Progress>,
    ask: Ask,
    /// How often it may still be sent again.
    attempts: Cell<u32>,
    /// What each time is paid from.
    budget: &'a Budget,
}

impl<'a> Again<'a> {
    /// Keeps what is needed to send a request again, if it may be: GET and HEAD do no harm by definition (RFC 9110 §9.2.1),
    /// others where the deployment says so. To be called before anything is read of its body.
    pub fn of(
        request: &mut Outgoing,
        settings: &RepeatSettings,
        ask: Ask,
        budget: &'a Budget,
    ) -> Option<Box<Self>> {
        if !settings.idempotent && !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let kept = Rc::new(Kept::default());
        if request.body().size_hint().lower() > MOST_KEPT as u64 {
            kept.lose();
        } else {
            request.body_mut().keep(&kept);
        }
        // Boxed, so that other requests do not carry the room that it needs.
        Some(Box::new(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            kept,
            progress: request.body().progress(),
            ask,
            attempts: Cell::new(settings.attempts),
            budget,
        }))
    }

    /// How often it may still be sent again.
    pub fn attempts(&self) -> u32 {
        self.attempts.get()
    }

    /// It is sent again because it failed.
    pub fn count(&self) {
        self.attempts.update(|left| left.saturating_sub(1));
    }

    /// Pays for one more copy.
    pub fn pay(&self) -> Result<(), Denied> {
        if !self.is_whole() {
            return Err(Denied::Body);
        }
        if !self.budget.withdraw() {
            return Err(Denied::Budget);
        }
        Ok(())
    }

    /// A copy that was paid for is not sent.
    pub fn pay_back(&self) {
        self.budget.put_back();
    }

    /// What the request asks for a slot with.
    pub fn ask(&self) -> Ask {
        self.ask
    }

    /// Whether the whole body has arrived and was kept.
    pub fn is_whole(&self) -> bool {
        self.progress.state() == Upload::Complete && !self.kept.lost.get()
    }

    /// The same request for a replica with this Host header, if all of it is there.
    pub fn copy(&self, host: &HeaderValue) -> Option<Outgoing> {
        if !self.is_whole() {
            return None;
        }
        let body = RequestBody::whole(self.kept.pieces().iter().cloned());
        let mut copy = Box::new(Request::new(body));
        *copy.method_mut() = self.method.clone();
        *copy.uri_mut() = self.uri.clone();
        *copy.headers_mut() = self.headers.clone();
        copy.headers_mut().insert(HOST, host.clone());
        Some(copy)
    }
}

/// What has arrived of a body.
#[derive(Debug, Default)]
pub struct Kept {
    pieces: RefCell<Vec<Bytes>>,
    /// Small pieces that follow them.
    small: RefCell<BytesMut>,
    bytes: Cell<usize>,
    /// It cannot be sent again.
    lost: Cell<bool>,
}

impl Kept {
    /// One more frame has arrived.
    pub fn keep(&self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref().filter(|_| !self.lost.get()) else { return self.lose() };
        self.bytes.set(self.bytes.get() + data.len());
        if self.bytes.get() > MOST_KEPT {
            return self.lose();
        }
        // Most bodies are a single piece, which costs a handle only.
        if data.len() < SMALL && self.bytes.get() > data.len() {
            self.small.borrow_mut().extend_from_slice(data);
        } else {
            self.join();
            self.pieces.borrow_mut().push(data.clone());
        }
    }

    /// All that has arrived, in order.
    fn pieces(&self) -> Ref<'_, Vec<Bytes>> {
        self.join();
        self.pieces.borrow()
    }

    fn join(&self) {
        let small = self.small.take();
        if !small.is_empty() {
            self.pieces.borrow_mut().push(small.freeze());
        }
    }

    fn lose(&self) {
        self.lost.set(true);
        self.pieces.take();
        self.small.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, body: RequestBody) -> Outgoing {
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = method;
        request
    }

    #[test]
    fn only_what_is_safe_or_declared_is_kept() {
        let budget = Budget::default();
        let declared = RepeatSettings { idempotent: true, ..RepeatSettings::default() };
        for (method, settings, kept) in [
            (Method::GET, RepeatSettings::default(), true),
            (Method::HEAD, RepeatSettings::default(), true),
            (Method::POST, RepeatSettings::default(), false),
            (Method::PUT, RepeatSettings::default(), false),
            (Method::DELETE, RepeatSettings::default(), false),
            (Method::POST, declared, true),
        ] {
            let mut request = request(method.clone(), RequestBody::empty());
            let again = Again::of(&mut request, &settings, Ask::default(), &budget);
            assert_eq!(again.is_some(), kept, "{method}");
        }
    }

    #[test]
    fn a_body_is_kept_up_to_the_bound_and_then_not_at_all() {
        let kept = Kept::default();
        kept.keep(&Frame::data(Bytes::from(vec![0; MOST_KEPT])));
        assert!(!kept.lost.get() && kept.pieces.borrow().len() == 1);
        kept.keep(&Frame::data(Bytes::from_static(b"1")));
        assert!(kept.lost.get() && kept.pieces.borrow().is_empty());
        kept.keep(&Frame::data(Bytes::from_static(b"2")));
        assert!(kept.lost.get() && kept.pieces.borrow().is_empty(), "a part of a body is never sent");
        let kept = Kept::default();
        kept.keep(&Frame::trailers(HeaderMap::new()));
        assert!(kept.lost.get(), "trailers are not sent again");
    }

    #[test]
    fn small_pieces_are_kept_together_and_in_order() {
        let body: Vec<u8> = (0..MOST_KEPT).map(|index| index as u8).collect();
        for (sizes, most) in [(&[1][..], 2), (&[SMALL - 1], 2), (&[1, SMALL], 128), (&[SMALL, 1, 1], 128)] {
            let kept = Kept::default();
            let mut rest = Bytes::from(body.clone());
            for size in sizes.iter().cycle() {
                kept.keep(&Frame::data(rest.split_to((*size).min(rest.len()))));
                if rest.is_empty() {
                    break;
                }
            }
            assert!(kept.pieces().len() <= most, "{} of {sizes:?}", kept.pieces().len());
            assert_eq!(kept.pieces().concat(), body, "{sizes:?}");
        }
        let kept = Kept::default();
        let only = Bytes::from(vec![b'x'; 10]);
        kept.keep(&Frame::data(only.clone()));
        assert_eq!(kept.pieces()[0].as_ptr(), only.as_ptr(), "a single piece is not copied");
    }

    #[test]
    fn a_copy_has_the_head_and_its_own_host() {
        let mut first = request(Method::GET, RequestBody::empty());
        first.headers_mut().insert("x-one", HeaderValue::from_static("1"));
        let budget = Budget::default();
        let again = Again::of(&mut first, &RepeatSettings::default(), Ask::default(), &budget).unwrap();
        first.headers_mut().insert(HOST, HeaderValue::from_static("first:1"));
        let copy = again.copy(&HeaderValue::from_static("second:2")).unwrap();
        assert_eq!((copy.method(), &copy.headers()["x-one"]), (&Method::GET, &HeaderValue::from_static("1")));
        assert_eq!(copy.headers()[HOST], "second:2");
        assert!(copy.body().is_end_stream());
    }
}
