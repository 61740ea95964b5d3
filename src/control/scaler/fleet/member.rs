//! One replica as the scaler knows it: health, role, and what operators read about it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;

use crate::control::board::{ReplicaState, ReplicaStatus};
use crate::core::admission::{ReplicaId, Report};
use crate::core::settings::Authority;
use crate::data::gate::Target;
use crate::provider::{Phase, Replica};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) replica: Replica,
    /// Somebody else runs it: it is never ended, however bad its probes are.
    pub(super) fixed: bool,
    pub(super) target: Arc<Target>,
    pub(super) condition: Condition,
    /// A probe has failed since it was ready last.
    pub(super) was_down: bool,
    pub(super) role: Role,
    /// What the gate thinks of it, once it has admitted requests.
    pub(super) report: Option<Report>,
}

/// What is known of a replica's health; the text says why it is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Has never been ready.
    Starting(Option<String>),
    Unready(String),
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Serving,
    /// One too many or outdated; serves again if it is needed before it is empty.
    Draining,
    /// Its liveness probe failed: ended when it is empty, or at this time.
    Dying(Instant),
    /// To be ended by the provider; never comes back.
    Leaving,
}

impl Member {
    pub(super) fn new(replica: Replica, fixed: bool) -> Self {
        let target = Arc::new(Target {
            id: replica.id,
            name: Arc::clone(&replica.name),
            host: host(&replica.authority),
            authority: replica.authority.clone(),
        });
        Self {
            replica,
            fixed,
            target,
            condition: Condition::Starting(None),
            role: Role::Serving,
            was_down: false,
            report: None,
        }
    }

    /// Runs, and may have requests or probes.
    pub(super) fn is_live(&self) -> bool {
        self.replica.phase == Phase::Running && self.role != Role::Leaving
    }

    pub(super) fn serves(&self) -> bool {
        self.is_live() && self.role == Role::Serving
    }

    pub(super) fn was_ready(&self) -> bool {
        !matches!(self.condition, Condition::Starting(_))
    }

    /// Whose end costs least comes first: never ready, then unready, then bad, then the least busy; the newest of equals.
    pub(super) fn worth(&self, busy: u32) -> (u8, u32, Reverse<Instant>, Reverse<ReplicaId>) {
        let rank = match self.condition {
            Condition::Starting(_) => 0,
            Condition::Unready(_) => 1,
            Condition::Ready if self.is_bad() => 2,
            Condition::Ready => 3,
        };
        (rank, busy, Reverse(self.replica.since), Reverse(self.replica.id))
    }

    pub(super) fn status(&self, now: Instant, busy: u32) -> ReplicaStatus {
        let (state, detail) = match (&self.replica.phase, self.role, &self.condition) {
            (Phase::Failed(why), ..) => (ReplicaState::Failed, Some(why.clone())),
            (Phase::Stopping, _, condition) | (Phase::Running, Role::Leaving, condition) => {
                (ReplicaState::Stopping, condition.detail())
            }
            (Phase::Running, Role::Draining | Role::Dying(_), condition) => {
                (ReplicaState::Draining, condition.detail())
            }
            (Phase::Running, Role::Serving, condition) => (condition.state(), condition.detail()),
        };
        let why = self.report.and_then(|report| report.why).map(|why| why.to_string());
        ReplicaStatus {
            name: self.replica.name.to_string(),
            address: self.replica.authority.to_string(),
            state,
            standing: self.standing(),
            detail: detail.or(why),
            busy,
            age_seconds: now.saturating_duration_since(self.replica.since).as_secs(),
        }
    }
}

impl Condition {
    pub(super) fn worsen(&mut self, why: String) {
        *self = match self {
            Self::Starting(_) => Self::Starting(Some(why)),
            Self::Ready | Self::Unready(_) => Self::Unready(why),
        };
    }

    fn state(&self) -> ReplicaState {
        match self {
            Self::Starting(_) => ReplicaState::Starting,
            Self::Unready(_) => ReplicaState::Unready,
            Self::Ready => ReplicaState::Ready,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Starting(why) => why.clone(),
            Self::Unready(why) => Some(why.clone()),
            Self::Ready => None,
        }
    }
}

/// `host:port` for the Host header. Configuration takes only hosts that fit into one.
fn host(authority: &Authority) -> HeaderValue {
    HeaderValue::try_from(authority.to_string()).unwrap_or_else(|_| HeaderValue::from_static("replica"))
}
