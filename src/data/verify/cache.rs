//! Tokens that this worker has verified, so that a token's signature is paid for once (22 µs for RS256).
//!
//! A token is known by its digest and by the generation of the key set that it was verified with; a new key set
//! has a new generation, so nothing has to be removed when keys change. Only good tokens get in.

use std::collections::{HashMap, VecDeque};

use crate::core::identity::Grant;

/// Most tokens that one worker keeps.
const CAPACITY: usize = 10_000;

/// The digest of a token, and the generation of the key set.
pub(super) type Place = ([u8; 32], u64);

/// Verified tokens of one worker, bounded; the oldest one makes room for a new one.
#[derive(Debug, Default)]
pub struct TokenCache {
    grants: HashMap<Place, Grant>,
    /// The keys of `grants`, oldest first. Expired grants stay in both until it is their turn: they cost no
    /// more than a lookup, and a search for them would stall a request.
    order: VecDeque<Place>,
}

impl TokenCache {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn get(&self, place: &Place) -> Option<&Grant> {
        self.grants.get(place)
    }

    pub(super) fn insert(&mut self, place: Place, grant: Grant) {
        if self.grants.insert(place, grant).is_some() {
            return;
        }
        self.order.push_back(place);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.grants.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::core::identity::{JwtKeys, JwtSettings, judge};

    fn grant() -> Grant {
        let rules = JwtSettings {
            keys: JwtKeys::Static(Vec::new()),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::ZERO,
            required_claims: [].into(),
        };
        judge(json!({"exp": 10}).as_object().unwrap(), &rules, 1).unwrap()
    }

    fn place(n: usize) -> Place {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        (digest, 1)
    }

    #[test]
    fn holds_its_capacity_and_forgets_the_oldest() {
        let mut cache = TokenCache::new();
        for n in 0..CAPACITY {
            cache.insert(place(n), grant());
            cache.insert(place(n), grant());
        }
        assert_eq!(cache.len(), CAPACITY);
        assert!(cache.get(&place(0)).is_some());
        cache.insert(place(CAPACITY), grant());
        assert_eq!((cache.len(), cache.grants.len()), (CAPACITY, CAPACITY));
        assert!(cache.get(&place(0)).is_none());
        assert!(cache.get(&place(1)).is_some() && cache.get(&place(CAPACITY)).is_some());
    }

    #[test]
    fn another_generation_is_another_place() {
        let mut cache = TokenCache::new();
        cache.insert(([1; 32], 1), grant());
        assert!(cache.get(&([1; 32], 2)).is_none());
    }
}
