//! Limits at work: which counters a caller has, kept for all workers and from one configuration to the next.
//!
//! Whether a request may pass is decided in `core::quota`; `bearers` keeps the counters of callers that nobody has named.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::core::identity::Caller;
use crate::core::quota::{Allowance, Counters, Denied};
use crate::core::settings::{EndpointSettings, Name};
use crate::observe::metrics::{ClientMetrics, LimitMetrics};
use bearers::Bearers;

mod bearers;
#[cfg(test)]
mod tests;

/// What the limits are.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of them.
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// The limits of one endpoint's callers.
#[derive(Debug)]
pub struct Limiter {
    /// In the order of the settings.
    clients: Vec<Client>,
    /// What holds for everybody else.
    default: Option<Arc<Terms>>,
    /// Of the endpoint's own keys.
    key: Arc<Used>,
    bearers: Arc<Bearers>,
}

#[derive(Debug)]
struct Client {
    name: Name,
    metrics: ClientMetrics,
    terms: Option<Arc<Terms>>,
    used: Arc<Used>,
}

/// Limits, and how they are told of.
#[derive(Debug)]
struct Terms {
    allowed: Allowance,
    policy: HeaderValue,
    metrics: LimitMetrics,
}

/// What a caller has used. Locked for some arithmetic only.
#[derive(Debug, Default)]
struct Used(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    /// No longer in the map: whoever still has it must look for the one that has taken its place.
    retired: bool,
}

/// One request of a limited caller; it has ended when this is dropped.
#[derive(Debug)]
pub struct Held(Arc<Used>);

/// What the answer says of the caller's limits.
#[derive(Debug)]
pub struct Told {
    terms: Arc<Terms>,
    used: Arc<Used>,
}

impl Limiter {
    /// The limits that these settings ask for, with what was used under those before; `None` where there is nothing to
    /// limit and nobody to count.
    pub fn new(settings: &EndpointSettings, before: Option<&Self>) -> Option<Arc<Self>> {
        let endpoint = &settings.name;
        let default = Terms::new(&settings.default_limits, endpoint, None);
        let clients: Vec<_> = settings
            .auth
            .clients
            .iter()
            .map(|client| Client {
                terms: match &client.limits {
                    Some(own) => Terms::new(own, endpoint, Some(&client.name)),
                    None => Terms::new(&settings.default_limits, endpoint, Some(&client.name)),
                },
                metrics: ClientMetrics::new(endpoint, &client.name),
                used: before.and_then(|before| before.of_client(&client.name)).unwrap_or_default(),
                name: client.name.clone(),
            })
            .collect();
        (default.is_some() || !clients.is_empty()).then(|| {
            Arc::new(Self {
                clients,
                default,
                key: before.map(|before| Arc::clone(&before.key)).unwrap_or_default(),
                bearers: before.map(|before| Arc::clone(&before.bearers)).unwrap_or_default(),
            })
        })
    }

    fn of_client(&self, name: &Name) -> Option<Arc<Used>> {
        self.clients.iter().find(|client| client.name == *name).map(|client| Arc::clone(&client.used))
    }

    /// Asks for a request of a caller, which began at this moment. `None` if the caller has no limits.
    pub fn admit(
        &self,
        caller: Caller,
        now: Instant,
        wall: SystemTime,
    ) -> Option<(Told, Result<Held, Denied>)> {
        let unix = since_1970(wall);
        let (terms, used) = match caller {
            Caller::Anybody => return None,
            Caller::Client(_) => {
                let client = self.clients.get(caller.client()?)?;
                client.metrics.count();
                (client.terms.as_ref()?, Arc::clone(&client.used))
            }
            Caller::Key => (self.default.as_ref()?, Arc::clone(&self.key)),
            Caller::Bearer(digest) => {
                let terms = self.default.as_ref()?;
                loop {
                    let used = self.bearers.find(digest, now, unix);
                    if let Some(answer) = terms.ask(&used, now, unix) {
                        return Some(answer);
                    }
                }
            }
        };
        terms.ask(&used, now, unix)
    }
}

impl Terms {
    fn new(allowed: &Allowance, endpoint: &Name, client: Option<&Name>) -> Option<Arc<Self>> {
        (!allowed.is_unlimited()).then(|| {
            let policy = HeaderValue::try_from(allowed.policy());
            Arc::new(Self {
                allowed: *allowed,
                policy: policy.expect("letters, digits and punctuation are a header value"),
                metrics: LimitMetrics::new(endpoint, client, allowed),
            })
        })
    }

    /// `None` if the counters are no longer those of the caller.
    fn ask(
        self: &Arc<Self>,
        used: &Arc<Used>,
        now: Instant,
        unix: Duration,
    ) -> Option<(Told, Result<Held, Denied>)> {
        let answer = {
            let mut state = used.lock();
            if state.retired {
                return None;
            }
            state.counters.admit(&self.allowed, now, unix)
        };
        if let Err(denied) = &answer {
            self.metrics.count(denied.limit);
        }
        let told = Told { terms: Arc::clone(self), used: Arc::clone(used) };
        Some((told, answer.map(|()| Held(Arc::clone(used)))))
    }
}

impl Used {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks it as of no use any more, if new counters would do as well.
    fn retire(&self, now: Instant, unix: Duration) -> bool {
        let mut state = self.lock();
        state.retired |= state.counters.at_rest(now, unix);
        state.retired
    }
}

impl Told {
    /// Says in the answer's headers what the limits are and what is left of them now. What a model says of limits of its
    /// own stays.
    pub fn mark(&self, headers: &mut HeaderMap, now: Instant, wall: SystemTime) {
        let allowed = &self.terms.allowed;
        let standing = self.used.lock().counters.standing(allowed, now, since_1970(wall));
        headers.append(POLICY, self.terms.policy.clone());
        if let Ok(left) = HeaderValue::try_from(standing.field()) {
            headers.append(LEFT, left);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().counters.end();
    }
}

fn since_1970(wall: SystemTime) -> Duration {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
