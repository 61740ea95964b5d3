//! What is asked of a ledger.

use super::{Entry, Kind};

/// What is asked of a ledger; what is absent excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Entries of this endpoint; its case does not count.
    pub endpoint: Option<String>,
    /// Entries of this deployment; its case does not count.
    pub deployment: Option<String>,
    /// Entries about the request with this id, the router's or the client's.
    pub request: Option<String>,
    /// Entries of this kind.
    pub kind: Option<Kind>,
}

impl Question {
    /// Whether an entry is asked for.
    pub fn takes(&self, entry: &Entry) -> bool {
        let same = |asked: &Option<String>, found: Option<&str>| {
            asked.as_ref().is_none_or(|asked| found.is_some_and(|found| found.eq_ignore_ascii_case(asked)))
        };
        same(&self.endpoint, entry.endpoint.as_deref())
            && same(&self.deployment, entry.deployment.as_deref())
            && self.request.as_ref().is_none_or(|asked| entry.is_about(asked))
            && self.kind.is_none_or(|kind| kind == entry.kind())
    }
}
