//! What a request brings with it when it asks for a slot.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// How much a request matters where not all can be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Served first.
    Critical,
    /// What a request is when nothing says otherwise.
    #[default]
    Default,
    /// The first to be turned away.
    Sheddable,
}

impl Class {
    /// All of them, the most important one first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Default, Self::Sheddable];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The word for it, in headers and in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
        }
    }
}

/// Whose request it is, for fair shares: a number made of the caller's name, or nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub u32);

/// How a refused request that comes back is known again. An id that somebody else sends is another mark: nobody takes
/// the place of another caller by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Made of the request's id; 0 for none.
    pub id: u64,
    /// Whose it is.
    pub whose: Tenant,
    /// The id is that of its connection, on which others may come as well.
    pub of_connection: bool,
}

/// What a request brings with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// How much it matters.
    pub class: Class,
    /// Whose it is.
    pub tenant: Tenant,
    /// When its answer is of no use any more.
    pub deadline: Option<Instant>,
    /// How it is known again when it comes back after a refusal.
    pub mark: Mark,
}
