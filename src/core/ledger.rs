//! What was decided and why: typed entries, each with the numbers that led to it and a sentence for people.
//!
//! Where entries are kept and how they are asked for is `observe::ledger`; nothing here decides anything. Pure.

mod question;
mod refusal;
mod ring;
mod sentence;
#[cfg(test)]
mod tests;
mod tidy;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::bounds::{PlainWhy, Why};
use crate::core::retry::{Cause, Denied, Hedge, Tries};
use tidy::milliseconds;

pub use question::Question;
pub use refusal::{Grounds, Rejection, Seen};
pub use ring::Ring;
pub use tidy::{millis, tidy, to_millisecond};

/// Most bytes that are kept of an id or a subject (`data::head` lets no longer id pass).
pub const LONGEST_ID: usize = 100;

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds since 1970; told to the millisecond.
    #[serde(serialize_with = "milliseconds")]
    pub at_unix_seconds: f64,
    /// The endpoint; `None` for a request that belongs to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The deployment, where one was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// What was decided.
    #[serde(flatten)]
    pub what: What,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A request went to a replica.
    Route(Route),
    /// A request was turned away, or its client left, before a replica had it.
    Reject(Rejection),
    /// Another number of replicas was asked for.
    Scale(Scale),
    /// A replica is thought of differently.
    Standing(Standing),
    /// A request went to a replica, and was sent more than once or would have been.
    Retry(Retry),
}

/// The kinds of entries, which are kept apart so that many of one push out none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`What::Route`].
    Route,
    /// [`What::Reject`].
    Reject,
    /// [`What::Scale`].
    Scale,
    /// [`What::Standing`].
    Standing,
    /// [`What::Retry`].
    Retry,
}

/// Why a request came to its deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// Its header named the deployment.
    Header,
    /// It took the next turn of the traffic's order.
    Turn,
}

/// A request that went to a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// `x-request-id`.
    pub request: String,
    /// `x-ms-client-request-id`, or its older name, where the client has sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_request: Option<String>,
    /// Why it came to its deployment.
    pub chosen: Option<Chosen>,
    /// The share of the traffic that the deployment has when this is read, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_now: Option<f64>,
    /// The replica whose answer the client got, or that it went to last.
    pub replica: String,
    /// Times that it was sent, the last one included.
    pub attempts: u32,
    /// Milliseconds in the queue.
    pub queue_ms: f64,
    /// Milliseconds from its start to the last byte of its answer.
    pub total_ms: f64,
    /// The status that the client got; `None` when it had left.
    pub status: Option<u16>,
    /// What went wrong after the replica had it (`client_gone`, `model_timeout`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Another number of replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Replicas asked for before.
    pub from: u32,
    /// Replicas asked for from now on.
    pub to: u32,
    /// Why, as half a sentence in the rule's own words.
    pub because: String,
    /// The same in plain words, for the sentence of the entry; whoever has that need not have it twice.
    #[serde(skip)]
    pub plainly: Option<String>,
    /// Why, typed, with the numbers ([`tidy`]); `null` where there are none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub reason: Value,
}

/// A change of what is thought of a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The replica.
    pub replica: String,
    /// What it is from now on: `ready`, `unready`, `dead`, `slow`, `ejected`, `probation`, ….
    pub standing: String,
    /// Why, as half a sentence.
    pub because: String,
}

/// A request of which there is more to tell than its one way to a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// Where it went, and how that ended.
    #[serde(flatten)]
    pub route: Route,
    /// How often it was sent again, by cause.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub again: BTreeMap<Cause, u16>,
    /// Why it was not sent again although it had failed; the client got what the first replica came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_again: Option<Denied>,
    /// What became of the second copy that was sent because its answer was late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_copy: Option<Hedge>,
}

impl Scale {
    /// What was decided for a reason.
    pub fn decided(from: u32, to: u32, why: &Why) -> Self {
        let numbers = why.rule().and_then(|rule| serde_json::to_value(rule).ok()).unwrap_or_default();
        let plainly = Some(PlainWhy { why, from }.to_string());
        Self { from, to, because: why.to_string(), plainly, reason: tidy(numbers) }
    }
}

impl What {
    /// A request that went to a replica, and how often.
    pub fn sent(route: Route, tries: &Tries) -> Self {
        if tries.is_plain() {
            return Self::Route(route);
        }
        let again = tries.causes().collect();
        Self::Retry(Retry { route, again, not_again: tries.denied, second_copy: tries.hedge })
    }

    /// The way to a replica, if it is about one.
    pub fn route_mut(&mut self) -> Option<&mut Route> {
        match self {
            Self::Route(route) | Self::Retry(Retry { route, .. }) => Some(route),
            Self::Reject(_) | Self::Scale(_) | Self::Standing(_) => None,
        }
    }
}

impl Entry {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match &self.what {
            What::Route(_) => Kind::Route,
            What::Reject(_) => Kind::Reject,
            What::Scale(_) => Kind::Scale,
            What::Standing(_) => Kind::Standing,
            What::Retry(_) => Kind::Retry,
        }
    }

    /// The request that it is about, if it is about one.
    pub fn request(&self) -> Option<&str> {
        Some(self.ids()?.0)
    }

    /// Whether it is about the request with this id, be it the router's or the client's.
    pub fn is_about(&self, id: &str) -> bool {
        self.ids().is_some_and(|(own, client)| own == id || client == Some(id))
    }

    fn ids(&self) -> Option<(&str, Option<&str>)> {
        let (own, client) = match &self.what {
            What::Route(route) | What::Retry(Retry { route, .. }) => (&route.request, &route.client_request),
            What::Reject(reject) => (&reject.request, &reject.client_request),
            What::Scale(_) | What::Standing(_) => return None,
        };
        Some((own, client.as_deref()))
    }
}
