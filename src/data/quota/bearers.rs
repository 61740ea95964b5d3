//! The counters of the bearers of tokens, who come and go: bounded, and forgotten when new counters would say the same.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::{DashMap, Entry};

use super::Used;

/// Most bearers of one endpoint with counters of their own; some 15 MB.
const MOST: usize = 100_000;
/// How many of the known ones are looked at for each new one: their number shrinks when they have gone, and no request waits
/// for a search.
const LOOKS: usize = 4;

/// Begin of the digest of a bearer.
type Digest = [u8; 16];

/// Counters by bearer. Keys appear at run time, written by all workers.
#[derive(Debug, Default)]
pub(super) struct Bearers {
    known: DashMap<Digest, Arc<Used>>,
    /// The keys of `known`, each once, in the order in which they are looked at. Locked before the map.
    order: Mutex<VecDeque<Digest>>,
    /// Counters of all for whom there is no room. Never forgotten, since it is not in the map.
    crowd: Arc<Used>,
    crowded: AtomicBool,
}

impl Bearers {
    /// The counters of a bearer. They may be retired before they are used; then they are to be looked for again.
    pub(super) fn find(&self, bearer: Digest, now: Instant, unix: Duration) -> Arc<Used> {
        self.find_among(bearer, MOST, now, unix)
    }

    pub(super) fn find_among(&self, bearer: Digest, most: usize, now: Instant, unix: Duration) -> Arc<Used> {
        if let Some(found) = self.known.get(&bearer) {
            return Arc::clone(&found);
        }
        if let Some(made) = self.add(bearer, most, now, unix) {
            return made;
        }
        if !self.crowded.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                most,
                "more callers than can be counted one by one; further ones share their limits"
            );
        }
        Arc::clone(&self.crowd)
    }

    /// Counters of its own for a bearer, if there is room.
    fn add(&self, bearer: Digest, most: usize, now: Instant, unix: Duration) -> Option<Arc<Used>> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LOOKS.min(order.len()) {
            let Some(oldest) = order.pop_front() else { break };
            if self.known.remove_if(&oldest, |_, used| used.retire(now, unix)).is_none() {
                order.push_back(oldest);
            }
        }
        match self.known.entry(bearer) {
            // Another worker was faster.
            Entry::Occupied(found) => Some(Arc::clone(found.get())),
            Entry::Vacant(_) if order.len() >= most => None,
            Entry::Vacant(place) => {
                order.push_back(bearer);
                Some(Arc::clone(&place.insert(Arc::default())))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.known.len(), self.order.lock().unwrap().len());
        self.known.len()
    }
}
