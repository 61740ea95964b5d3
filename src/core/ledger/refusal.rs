//! A request that no replica had: what was there when it was refused a slot, and what the refusal turned on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::tidy::millis;
use super::{Chosen, LONGEST_ID};
use crate::core::admission::{Denial, Prospect, Rival};
use crate::core::identity::{Caller, Identity};
use crate::core::quota::Limit;
use crate::core::wait::WaitSetting;

/// A request that no replica had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// `x-request-id`; empty where the request had none yet.
    pub request: String,
    /// `x-ms-client-request-id`, or its older name, where the client has sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_request: Option<String>,
    /// Why it came to its deployment, if it came to one.
    pub chosen: Option<Chosen>,
    /// The reason's code, as in the answer: `queue_full`, `unauthorized`, …; `client_gone` when the client left.
    pub reason: String,
    /// The status of the answer.
    pub status: Option<u16>,
    /// Milliseconds in the queue.
    pub queue_ms: f64,
    /// What was there when it was refused a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// What the refusal turned on, where the reason's code does not say all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounds: Option<Grounds>,
    /// When the client was told to come back, in milliseconds (`retry-after-ms`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The same in whole seconds (`Retry-After`), which may be more, so that not all come back together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// What was there when a request was refused a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Replicas that admitted requests.
    pub ready: u32,
    /// Slots in use.
    pub busy: u32,
    /// Slots of the replicas that admitted requests; `None` is no limit.
    pub slots: Option<u32>,
    /// Other requests in the queue.
    pub waiting: u32,
    /// Milliseconds that it could wait at most.
    pub max_wait_ms: u64,
    /// Which setting says so.
    #[serde(default)]
    pub max_wait_setting: WaitSetting,
    /// Requests that may wait (`max_queue_length`); `None` is no limit.
    pub max_length: Option<u32>,
}

/// What a refusal turned on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Grounds {
    /// The queue did not drain, the newest were served first, and it was older than this.
    Age {
        /// Milliseconds.
        limit_ms: f64,
    },
    /// Its answer would have come after its deadline.
    Deadline {
        /// Milliseconds that were left until the deadline.
        left_ms: f64,
        /// Milliseconds for which it would have waited for a slot, where it was refused for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait_ms: Option<f64>,
        /// Milliseconds that an answer typically took; 0 where nothing had been answered.
        answer_ms: f64,
    },
    /// Its place in the full queue went to another request.
    GaveWay(Rival),
    /// Its head is not one that can be passed on.
    Head {
        /// Which header, and what is wrong with it.
        problem: Cow<'static, str>,
    },
    /// Its caller was at a limit, in the words of the answer.
    Limit {
        /// Who are counted together.
        whose: Whose,
        /// The client's name, or the subject of the token; no more than its first 100 bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// `concurrency`, `requests_per_second` or `quota`.
        setting: Cow<'static, str>,
        /// What it is set to.
        limit: f64,
        /// Requests at the same moment, for `requests_per_second`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        burst: Option<u32>,
        /// `minute`, `hour`, `day` or `month`, for `quota`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        per: Option<Cow<'static, str>>,
    },
}

/// Who are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Those with a token of the same issuer and subject.
    Bearer,
    /// A client of the configuration.
    Client,
    /// Those with one of the endpoint's own keys.
    Keys,
}

impl Grounds {
    /// Of a refusal by the gate, where there is more to tell than what was busy and waiting.
    pub fn of_gate(why: Denial, prospect: Option<Prospect>) -> Option<Self> {
        match why {
            Denial::GaveWay(rival) => Some(Self::GaveWay(rival)),
            Denial::Hopeless | Denial::TooLate(_) => {
                let Prospect { left, wait, answer } = prospect?;
                let (left_ms, answer_ms) = (millis(left), millis(answer));
                Some(Self::Deadline { left_ms, wait_ms: wait.map(millis), answer_ms })
            }
            Denial::TooOld(limit) => Some(Self::Age { limit_ms: millis(limit) }),
            Denial::NoReadyReplica | Denial::QueueFull | Denial::WaitedTooLong => None,
        }
    }

    /// Of a refusal by a limit of the caller.
    pub fn of_limit(limit: Limit, identity: Option<&Identity>) -> Self {
        let whose = match identity.map(|identity| identity.caller) {
            Some(Caller::Bearer(_)) => Whose::Bearer,
            Some(Caller::Client(_)) => Whose::Client,
            Some(Caller::Anybody | Caller::Key) | None => Whose::Keys,
        };
        // Of the endpoint's keys either may have come: they are counted together.
        let subject = identity.and_then(|identity| identity.subject.as_deref());
        // A token says of itself how long that is, and all of it would be kept with each refusal.
        let short = |subject: &str| subject[..subject.floor_char_boundary(LONGEST_ID)].to_owned();
        let name = subject.filter(|_| whose != Whose::Keys).map(short);
        let (setting, limit, burst, per) = match limit {
            Limit::Concurrency(limit) => ("concurrency", f64::from(limit.get()), None, None),
            Limit::Quota(quota) => ("quota", quota.requests.get() as f64, None, Some(quota.per.as_str())),
            Limit::Rate(rate) => ("requests_per_second", rate.per_second(), Some(rate.burst().get()), None),
        };
        Self::Limit { whose, name, setting: setting.into(), limit, burst, per: per.map(Cow::from) }
    }
}
