//! The requests of a simulation and where each of them is, told apart from the pool's own account.

use std::collections::{BTreeMap, BTreeSet};

use scoregate::core::admission::{ReplicaId, TicketId};

/// A request that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the queue, as far as anybody was told.
    Waiting,
    /// Told that it has a slot; has not looked yet.
    Granted,
    /// On a replica.
    Running(ReplicaId),
}

/// All that have not ended, by the order of arrival (a ticket keeps its place for good).
#[derive(Debug, Default)]
pub(crate) struct Requests {
    places: BTreeMap<TicketId, Place>,
    waiting: BTreeSet<TicketId>,
}

impl Requests {
    pub(crate) fn place(&self, ticket: TicketId) -> Option<Place> {
        self.places.get(&ticket).copied()
    }

    pub(crate) fn put(&mut self, ticket: TicketId, place: Place) {
        self.places.insert(ticket, place);
        if place == Place::Waiting {
            self.waiting.insert(ticket);
        } else {
            self.waiting.remove(&ticket);
        }
    }

    pub(crate) fn end(&mut self, ticket: TicketId) {
        self.places.remove(&ticket);
        self.waiting.remove(&ticket);
    }

    /// The pool has given slots to these: nobody who came earlier may still wait.
    pub(crate) fn granted(&mut self, tickets: &[TicketId]) {
        for ticket in tickets {
            self.put(*ticket, Place::Granted);
        }
        if let (Some(last), Some(first)) = (tickets.iter().max(), self.waiting.first()) {
            assert!(last < first, "{last:?} was served before {first:?}, which came earlier");
        }
    }

    pub(crate) fn running_on(&self, replica: ReplicaId) -> Vec<TicketId> {
        let on = |place: &Place| *place == Place::Running(replica);
        self.places.iter().filter(|(_, place)| on(place)).map(|(ticket, _)| *ticket).collect()
    }

    pub(crate) fn is_anybody_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many wait for sure, and how many have not ended.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.places.len())
    }
}
