//! What a refusal was for, beyond its reason: who had the place instead, or which times did not fit together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::admission::{Ask, Class};

/// To whom the place of a request went that waited in a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum Rival {
    /// A request of a less important class that had less than its share of the places.
    Entitled {
        /// That class.
        class: Class,
    },
    /// A request of a caller of whom fewer waited.
    FewerWaiting,
    /// A more important request.
    MoreImportant {
        /// Its class.
        class: Class,
    },
    /// One that had been refused before, and came back when it was told to.
    Promised,
}

impl Rival {
    /// What the one that came is to the one that gives way to it.
    pub(super) fn of(gives_way: &Ask, came: &Ask) -> Self {
        let class = came.class;
        if class < gives_way.class {
            Self::MoreImportant { class }
        } else if class > gives_way.class {
            Self::Entitled { class }
        } else if came.tenant != gives_way.tenant {
            // Callers are told apart only where they have equal shares.
            Self::FewerWaiting
        } else {
            Self::Promised
        }
    }
}

/// The times of a request whose answer would have come after its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// What was left until the deadline.
    pub left: Duration,
    /// How long it would have waited for a slot, where it was refused for that.
    pub wait: Option<Duration>,
    /// How long an answer typically takes; zero before the first.
    pub answer: Duration,
}
