//! A client's connection as its requests and its worker see it, and the end of silent ones.
//!
//! A worker looks over all its connections now and then, instead of a timer for each that every request would have to move.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{HeaderValue, Version};
use slab::Slab;

use crate::data::nudge::Nudge;
use crate::data::verify::LastKey;

/// One client's connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address, as it goes into `x-forwarded-for`.
    pub address: HeaderValue,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The key that it used last.
    pub last_key: LastKey,
    /// Wakes the task of the connection.
    pub nudge: Nudge,
    /// Which one it is of all of this process.
    number: NonZeroU64,
    /// Requests that have no complete answer yet.
    open: Cell<u32>,
    /// When the last answer was complete, or the connection began.
    quiet_since: Cell<Instant>,
    /// Silence is no fault: HTTP/2 has pings.
    may_be_silent: Cell<bool>,
    /// Since when it takes no data that is to be written.
    blocked_since: Cell<Option<Instant>>,
    silenced: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

/// The number of the next connection.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Peer {
    /// A connection that begins now.
    pub fn new(address: SocketAddr, tls: bool, now: Instant) -> Rc<Self> {
        let address = HeaderValue::from_str(&address.ip().to_canonical().to_string())
            .expect("an IP address is a header value");
        Rc::new(Self {
            address,
            tls,
            last_key: LastKey::default(),
            nudge: Nudge::new(),
            number: NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MIN),
            open: Cell::new(0),
            quiet_since: Cell::new(now),
            may_be_silent: Cell::new(false),
            blocked_since: Cell::new(None),
            silenced: Cell::new(false),
            task: RefCell::new(None),
        })
    }

    /// Which connection it is; `None` where several requests are under way at once.
    pub fn number(&self) -> Option<NonZeroU64> {
        (!self.may_be_silent.get()).then_some(self.number)
    }

    /// The head of a request has come.
    pub fn begin(&self, version: Version) {
        self.open.set(self.open.get() + 1);
        self.may_be_silent.set(version == Version::HTTP_2);
    }

    /// The request's answer is complete, or has been given up.
    pub fn end(&self, now: Instant) {
        self.open.set(self.open.get() - 1);
        self.quiet_since.set(now);
    }

    /// What came of writing to it.
    pub fn takes_data(&self, takes: bool) {
        if takes {
            self.blocked_since.set(None);
        } else if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(Instant::now()));
        }
    }

    /// Ready when the connection has been silent for too long.
    pub fn poll_silenced(&self, cx: &Context<'_>) -> Poll<()> {
        if self.silenced.get() {
            return Poll::Ready(());
        }
        match &mut *self.task.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn judge(&self, now: Instant, patience: Patience) {
        let silent = if let Some(since) = self.blocked_since.get() {
            self.quiet_since.set(now);
            now.saturating_duration_since(since) >= patience.write
        } else {
            let quiet = self.open.get() == 0 && !self.may_be_silent.get();
            quiet && now.saturating_duration_since(self.quiet_since.get()) >= patience.head
        };
        if silent {
            self.silenced.set(true);
            if let Some(task) = self.task.take() {
                task.wake();
            }
        }
    }
}

/// Longest silences of a client.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the head of its next request is there.
    pub head: Duration,
    /// While it takes not one byte of what is written to it.
    pub write: Duration,
}

impl Patience {
    /// Time between two looks: an eighth of the shorter limit, in bounds.
    pub fn interval(self) -> Duration {
        (self.head.min(self.write) / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

/// All connections of a worker.
#[derive(Debug, Default)]
pub struct Peers(RefCell<Slab<Rc<Peer>>>);

impl Peers {
    /// Adds a connection until what is returned is dropped.
    pub fn add<'a>(&'a self, peer: &Rc<Peer>) -> Seat<'a> {
        Seat { peers: self, place: self.0.borrow_mut().insert(Rc::clone(peer)) }
    }

    /// Ends the connections whose clients are silent for too long.
    pub fn sweep(&self, now: Instant, patience: Patience) {
        for (_, peer) in self.0.borrow().iter() {
            peer.judge(now, patience);
        }
    }
}

/// A connection's place among those of its worker.
#[derive(Debug)]
pub struct Seat<'a> {
    peers: &'a Peers,
    place: usize,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.peers.0.borrow_mut().remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    const PATIENCE: Patience = Patience { head: LIMIT, write: Duration::from_secs(10) };

    fn silenced(peer: &Peer) -> bool {
        peer.poll_silenced(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn only_a_connection_without_a_request_can_be_silent() {
        let begin = Instant::now();
        let peers = Peers::default();
        let peer = Peer::new(([127, 0, 0, 1], 1).into(), false, begin);
        let seat = peers.add(&peer);
        peers.sweep(begin + LIMIT / 2, PATIENCE);
        peer.begin(Version::HTTP_11);
        peers.sweep(begin + LIMIT * 2, PATIENCE);
        assert!(!silenced(&peer));
        peer.end(begin + LIMIT * 2);
        peers.sweep(begin + LIMIT * 3 - Duration::from_nanos(1), PATIENCE);
        assert!(!silenced(&peer));
        peers.sweep(begin + LIMIT * 3, PATIENCE);
        assert!(silenced(&peer));
        drop(seat);
        assert!(peers.0.borrow().is_empty());
    }

    #[test]
    fn a_client_that_takes_no_data_is_silent_with_a_request_and_one_that_takes_some_is_not() {
        let peers = Peers::default();
        let peer = Peer::new(([127, 0, 0, 1], 1).into(), false, Instant::now());
        let _seat = peers.add(&peer);
        peer.begin(Version::HTTP_2);
        peer.takes_data(false);
        let blocked = Instant::now();
        peer.takes_data(true);
        peers.sweep(blocked + LIMIT, PATIENCE);
        assert!(!silenced(&peer));
        peer.takes_data(false);
        peers.sweep(blocked + PATIENCE.write / 2, PATIENCE);
        assert!(!silenced(&peer));
        peers.sweep(Instant::now() + PATIENCE.write, PATIENCE);
        assert!(silenced(&peer));
    }

    #[test]
    fn a_connection_that_never_asks_is_silent_and_one_with_http_2_is_not_after_it_asked() {
        let begin = Instant::now();
        let peers = Peers::default();
        let asked = Peer::new(([127, 0, 0, 1], 1).into(), false, begin);
        let never = Peer::new(([127, 0, 0, 1], 2).into(), false, begin);
        let _seats = (peers.add(&asked), peers.add(&never));
        asked.begin(Version::HTTP_2);
        asked.end(begin);
        peers.sweep(begin + LIMIT, PATIENCE);
        assert_eq!((silenced(&asked), silenced(&never)), (false, true));
    }
}
