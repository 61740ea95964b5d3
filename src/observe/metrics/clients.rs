//! Counting clients by their names, and what their limits refuse.
//!
//! Labels are names of the configuration: bearers of tokens, of whom there may be any number, are counted together.

use metrics::{Counter, counter};

use super::names;
use crate::core::quota::{Allowance, Limit};
use crate::core::settings::Name;

/// Handle for one client.
pub struct ClientMetrics(Counter);

impl ClientMetrics {
    /// For a client of an endpoint.
    pub fn new(endpoint: &Name, client: &Name) -> Self {
        let labels = [("endpoint", endpoint.to_string()), ("client", client.to_string())];
        Self(counter!(names::CLIENT_REQUESTS, &labels))
    }

    /// A request has come with its key.
    pub fn count(&self) {
        self.0.increment(1);
    }
}

impl std::fmt::Debug for ClientMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientMetrics").finish_non_exhaustive()
    }
}

/// Handles for the limits of one client, or of everybody without a name. Only those that there are, since a metric that was
/// made is shown.
pub struct LimitMetrics {
    concurrency: Option<Counter>,
    quota: Option<Counter>,
    rate: Option<Counter>,
}

impl LimitMetrics {
    /// For these limits.
    pub fn new(endpoint: &Name, client: Option<&Name>, limits: &Allowance) -> Self {
        let handle = |limit: Limit| {
            let client = client.map(Name::to_string).unwrap_or_default();
            let reason = limit.code().to_owned();
            let labels = [("endpoint", endpoint.to_string()), ("client", client), ("reason", reason)];
            counter!(names::LIMITED, &labels)
        };
        Self {
            concurrency: limits.concurrency.map(|limit| handle(Limit::Concurrency(limit))),
            quota: limits.quota.map(|quota| handle(Limit::Quota(quota))),
            rate: limits.rate.map(|rate| handle(Limit::Rate(rate))),
        }
    }

    /// The limit has refused a request.
    pub fn count(&self, limit: Limit) {
        let handle = match limit {
            Limit::Concurrency(_) => &self.concurrency,
            Limit::Quota(_) => &self.quota,
            Limit::Rate(_) => &self.rate,
        };
        if let Some(handle) = handle {
            handle.increment(1);
        }
    }
}

impl std::fmt::Debug for LimitMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitMetrics").finish_non_exhaustive()
    }
}
