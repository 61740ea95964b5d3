//! What a request brings with it when it asks for a slot.

use std::time::Instant;

/// How much a request matters where not all can be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Served first.
    Critical,
    /// What a request is when nothing says otherwise.
    #[default]
    Default,
    /// The first to be turned away.
    Sheddable,
}

/// Whose request it is, for fair shares: the place of its key, or nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub u32);

/// What a request brings with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// How much it matters.
    pub class: Class,
    /// Whose it is.
    pub tenant: Tenant,
    /// When its answer is of no use any more.
    pub deadline: Option<Instant>,
}
