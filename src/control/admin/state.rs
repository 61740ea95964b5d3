//! What the router is doing at a moment, for operators: `GET /state`, the gauges of `/metrics` and readiness are all
//! made from this one view. `scoregate status` reads it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::control::admin::AdminContext;
use crate::control::board::{Board, BoundsStatus, DecisionStatus, ReplicaStatus};
use crate::core::admission::{Load, Outcome};
use crate::core::settings::EndpointSettings;
use crate::data::gate::Gate;
use crate::data::world::{Endpoint, Snapshot};
use crate::shutdown::Stage;

/// The whole router.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Version of the program.
    pub version: String,
    /// Generation of the configuration.
    pub generation: u64,
    /// When the router started, in seconds since 1970.
    pub started_unix_seconds: f64,
    /// Time since then.
    pub uptime_seconds: u64,
    /// How far the end has come.
    pub stage: StageName,
    /// While draining: time until what still runs is cut.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drain_seconds_left: Option<u64>,
    /// Lines that the access log did not write.
    pub access_log_lost_lines: u64,
    /// In the order of the configuration.
    pub endpoints: Vec<EndpointState>,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// Normal work.
    Running,
    /// No new work.
    Draining,
    /// Everything ends now.
    Forced,
}

/// One endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointState {
    /// Its name.
    pub name: String,
    /// In the order of the configuration.
    pub deployments: Vec<DeploymentState>,
}

/// One deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentState {
    /// Its name.
    pub name: String,
    /// Owns all traffic that is not allotted.
    pub default: bool,
    /// Its share of the traffic.
    pub traffic: TrafficState,
    /// Its slots.
    pub slots: SlotState,
    /// Uses of slots that have ended, by outcome.
    #[serde(default)]
    pub uses: BTreeMap<String, u64>,
    /// Its queue.
    pub queue: QueueState,
    /// Replicas that admit requests.
    pub ready: u32,
    /// Replicas there should be; `None` until the control plane has looked at the deployment.
    pub desired: Option<u32>,
    /// Within which numbers that is decided, and whose word they are; not for a fixed list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bounds: Option<BoundsStatus>,
    /// The last decision that changed `desired`.
    pub last_decision: Option<DecisionStatus>,
    /// Every replica that exists.
    pub replicas: Vec<ReplicaStatus>,
}

impl DeploymentState {
    /// Whether it serves requests: one that may have no replica starts one for the first that comes.
    fn serves(&self) -> bool {
        self.ready > 0 || self.bounds.as_ref().is_some_and(|bounds| bounds.min_instances == 0)
    }
}

/// Share of the traffic, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrafficState {
    /// As the file says.
    pub configured: f64,
    /// With the remainder, where this is the default deployment.
    pub effective: f64,
}

/// Slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotState {
    /// In use on replicas that are not draining.
    pub busy: u32,
    /// In use on draining replicas.
    pub busy_draining: u32,
    /// Of the replicas that admit requests; `None` is no limit.
    pub total: Option<u32>,
    /// On one replica, as configured or as found; `None` is no limit.
    pub per_replica: Option<u32>,
    /// Whether that is found from what passes by.
    #[serde(default)]
    pub auto: bool,
}

/// The queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Requests that wait.
    pub length: u32,
    /// Most that may wait; `None` is no limit.
    pub max_length: Option<u32>,
    /// Longest wait, in milliseconds.
    pub max_wait_ms: u64,
}

impl State {
    /// The state now.
    pub fn gather(context: &AdminContext, now: Instant) -> Self {
        let snapshot = context.snapshot.load();
        let (stage, drain_seconds_left) = match context.stage.stage() {
            Stage::Running => (StageName::Running, None),
            Stage::Draining { deadline } => {
                (StageName::Draining, Some(deadline.saturating_duration_since(now).as_secs()))
            }
            Stage::Forced => (StageName::Forced, None),
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: snapshot.generation,
            started_unix_seconds: context
                .started_at
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
            uptime_seconds: now.saturating_duration_since(context.started).as_secs(),
            stage,
            drain_seconds_left,
            access_log_lost_lines: context.access.lost(),
            endpoints: endpoints(&snapshot, &context.board),
        }
    }

    /// Endpoints of which no replica is ready, and none would be started for a request.
    pub fn not_ready(&self) -> Vec<&str> {
        let ready = |endpoint: &EndpointState| endpoint.deployments.iter().any(DeploymentState::serves);
        self.endpoints.iter().filter(|e| !ready(e)).map(|e| e.name.as_str()).collect()
    }

    /// Whether requests make sense: not draining, and at least one endpoint has a ready replica (or there is none).
    /// One broken endpoint must not take the traffic of the others away.
    pub fn is_ready(&self) -> bool {
        let none_ready = !self.endpoints.is_empty() && self.not_ready().len() == self.endpoints.len();
        self.stage == StageName::Running && !none_ready
    }
}

fn endpoints(snapshot: &Snapshot, board: &Board) -> Vec<EndpointState> {
    let endpoint = |endpoint: &Arc<Endpoint>| {
        let deployments = endpoint.deployments.iter().enumerate().map(|(index, live)| DeploymentState {
            uses: uses(&live.gate),
            ..deployment(&endpoint.settings, index, (live.gate.load(), live.gate.limit()), board)
        });
        EndpointState { name: endpoint.settings.name.to_string(), deployments: deployments.collect() }
    };
    snapshot.endpoints.iter().map(endpoint).collect()
}

fn uses(gate: &Gate) -> BTreeMap<String, u64> {
    Outcome::ALL.into_iter().map(|outcome| outcome.as_str().to_owned()).zip(gate.ended()).collect()
}

fn deployment(
    endpoint: &EndpointSettings,
    index: usize,
    (load, limit): (Load, Option<u32>),
    board: &Board,
) -> DeploymentState {
    let settings = &endpoint.deployments[index];
    let known = board.get(&endpoint.name, &settings.name);
    DeploymentState {
        name: settings.name.to_string(),
        default: endpoint.default_deployment == Some(index),
        traffic: TrafficState {
            configured: endpoint.traffic.weights().get(index).map_or(0.0, |weight| weight.as_f64()),
            effective: endpoint.traffic.effective(index),
        },
        slots: SlotState {
            busy: load.busy,
            busy_draining: load.busy_draining,
            total: load.slots,
            per_replica: limit,
            auto: settings.request.auto_slots,
        },
        uses: BTreeMap::new(),
        queue: QueueState {
            length: load.queued,
            max_length: settings.request.max_queue_length,
            max_wait_ms: settings.request.max_queue_wait.as_millis().try_into().unwrap_or(u64::MAX),
        },
        ready: load.ready,
        desired: known.as_ref().map(|known| known.desired),
        bounds: known.as_ref().and_then(|known| known.bounds.clone()),
        last_decision: known.as_ref().and_then(|known| known.last_decision.clone()),
        replicas: known.map(|known| known.replicas).unwrap_or_default(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::control::admin::fixtures::context;
    use crate::control::board::{BoundsBy, DeploymentStatus, ReplicaState};
    use crate::core::admission::Standing;
    use crate::core::route::{Percent, Traffic};
    use crate::core::settings::*;

    /// `demo` with `blue` (default) and `green` (10 %).
    fn endpoint() -> EndpointSettings {
        let probe = ProbeSettings {
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            success_threshold: NonZeroU32::MIN,
            failure_threshold: NonZeroU32::MIN,
        };
        let deployment = |name| DeploymentSettings {
            name: Name::parse(name).unwrap(),
            kind: DeploymentKind::Treatment,
            request: RequestSettings {
                timeout: Duration::from_secs(5),
                connect_timeout: Duration::from_secs(1),
                slots: NonZeroU32::new(2),
                auto_slots: false,
                max_queue_wait: Duration::from_millis(500),
                max_queue_length: Some(9),
                max_body_bytes: 1_000,
                repeat: RepeatSettings::default(),
                newest_first: false,
                fair_share: false,
            },
            scale: ScaleSettings::Manual { replicas: 2 },
            capacity: CapacitySettings::default(),
            liveness: probe.clone(),
            readiness: probe.clone(),
            provider: ProviderSettings::Fixed(FixedSettings { replicas: Vec::new() }),
            routes: ReplicaRoutes {
                scoring: "/score".into(),
                swagger: "/swagger.json".into(),
                liveness: "/".into(),
                readiness: "/".into(),
                pass_through: false,
            },
            forward_authorization: false,
            passive_health: true,
        };
        EndpointSettings {
            name: Name::parse("demo").unwrap(),
            profile: Profile::Aks,
            auth: AuthSettings { mode: AuthMode::None, keys: Vec::new(), clients: Vec::new(), jwt: None },
            default_limits: crate::core::quota::Allowance::default(),
            cors: None,
            scoring_route: None,
            classes: ClassSettings::default(),
            server_timing: false,
            traffic: Traffic::new(&[Percent::default(), Percent::new(10.0).unwrap()], Some(0)),
            default_deployment: Some(0),
            deployments: ["blue", "green"].map(deployment).map(Arc::new).into(),
        }
    }

    /// A running router with one endpoint `demo` and one deployment `blue` of three replicas, two of them ready.
    pub(crate) fn state() -> State {
        let (context, _stage, _reloads) = context();
        let replica = |name: &str, state, detail: Option<&str>| ReplicaStatus {
            name: name.into(),
            address: "127.0.0.1:9000".into(),
            state,
            standing: Standing::Good,
            detail: detail.map(str::to_owned),
            busy: 1,
            age_seconds: 5,
        };
        let blue = DeploymentState {
            name: "blue".into(),
            default: true,
            traffic: TrafficState { configured: 12.5, effective: 100.0 },
            slots: SlotState { busy: 3, busy_draining: 1, total: Some(4), per_replica: Some(2), auto: false },
            uses: [("answered".to_owned(), 9)].into(),
            queue: QueueState { length: 5, max_length: None, max_wait_ms: 500 },
            ready: 2,
            desired: Some(3),
            bounds: Some(BoundsStatus {
                min_instances: 3,
                max_instances: 3,
                by: BoundsBy::Operator,
                schedule: None,
                until: Some("1970-01-01T02:00:00Z".parse().unwrap()),
            }),
            last_decision: Some(DecisionStatus {
                at_unix_seconds: 1_000.0,
                from: 1,
                to: 3,
                reason: "3 of 4 slots busy".into(),
            }),
            replicas: vec![
                replica("blue-1", ReplicaState::Ready, None),
                replica("blue-2", ReplicaState::Ready, None),
                replica("blue-3", ReplicaState::Failed, Some("exit status \u{1b}[31m1")),
            ],
        };
        let endpoints = vec![EndpointState { name: "demo".into(), deployments: vec![blue] }];
        State { endpoints, started_unix_seconds: 1_000.5, ..State::gather(&context, Instant::now()) }
    }

    #[test]
    fn a_deployment_is_shown_from_settings_load_and_board() {
        let endpoint = endpoint();
        let board = Board::new();
        let load = Load { ready: 2, draining: 1, busy: 3, busy_draining: 1, slots: Some(4), queued: 5 };
        let blue = deployment(&endpoint, 0, (load, Some(2)), &board);
        assert!(blue.default && blue.desired.is_none() && blue.replicas.is_empty());
        assert_eq!(blue.traffic, TrafficState { configured: 0.0, effective: 90.0 });
        let slots =
            SlotState { busy: 3, busy_draining: 1, total: Some(4), per_replica: Some(2), auto: false };
        assert_eq!((blue.slots, blue.ready), (slots, 2));
        assert_eq!(blue.queue, QueueState { length: 5, max_length: Some(9), max_wait_ms: 500 });

        let status = DeploymentStatus { desired: 3, ..DeploymentStatus::default() };
        board.put(&endpoint.name, &endpoint.deployments[1].name, status);
        let green = deployment(&endpoint, 1, (Load::default(), None), &board);
        assert!(!green.default);
        assert_eq!((green.name.as_str(), green.desired), ("green", Some(3)));
        assert_eq!(green.traffic, TrafficState { configured: 10.0, effective: 10.0 });
    }

    #[test]
    fn one_ready_endpoint_is_enough() {
        let mut state = state();
        let mut broken = state.endpoints[0].clone();
        broken.name = "broken".into();
        broken.deployments[0].ready = 0;
        state.endpoints.push(broken);
        assert!(state.is_ready());
        assert_eq!(state.not_ready(), ["broken"]);
        state.endpoints[0].deployments[0].ready = 0;
        assert!(!state.is_ready());
        state.endpoints[0].deployments[0].bounds.as_mut().unwrap().min_instances = 0;
        assert!(state.is_ready(), "nobody would ever wake it up otherwise");
    }

    #[test]
    fn a_state_can_be_read_back() {
        let text = serde_json::to_string(&state()).unwrap();
        let back: State = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}
