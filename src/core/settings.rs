//! What a configuration means once every check has passed: typed, bounded, with all defaults filled in.
//!
//! `config::check` makes these from a file; everything else reads them and never validates again.
//! Units are in the types (`Duration`, bytes in the name); numbers of the original are cited from the
//! public azureml-fe documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::core::admission::{Class, Limits, Queueing};
use crate::core::identity::{Caller, JwtKeys, JwtSettings, KeyDigest};
use crate::core::quota::Allowance;
use crate::core::route::Traffic;
use crate::core::schedule::Schedule;

/// Everything one file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The listener that clients call.
    pub listen: ListenSettings,
    /// The listener for operators.
    pub admin: AdminSettings,
    /// Longest time that a drain waits for requests to end before it cuts them.
    pub drain_timeout: Duration,
    /// Where the access log goes.
    pub access_log: AccessLogTarget,
    /// Where what is needed to replay goes; `None` records nothing.
    pub recording: Option<RecordingSettings>,
    /// The endpoints, in the order of the file.
    pub endpoints: Vec<Arc<EndpointSettings>>,
}

impl Settings {
    /// The environment variables that secrets come from (`env:NAME`), which replicas need not see.
    pub fn secret_variables(&self) -> BTreeSet<String> {
        let endpoints = self.endpoints.iter().flat_map(|endpoint| {
            let tokens = endpoint.auth.jwt.iter().flat_map(|jwt| match &jwt.keys {
                JwtKeys::Static(keys) => keys.as_slice(),
                JwtKeys::JwksFile(_) | JwtKeys::JwksUrl { .. } => &[],
            });
            let clients = endpoint.auth.clients.iter().flat_map(|client| &client.keys);
            let keys = endpoint.auth.keys.iter().chain(clients).map(|key| &key.origin);
            keys.chain(tokens.map(|key| &key.origin))
        });
        let admin = self.admin.key.iter().map(|key| &key.origin);
        admin.chain(endpoints).filter_map(|origin| origin.strip_prefix("env:")).map(str::to_owned).collect()
    }
}

/// The data listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenSettings {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Data-plane threads; `None` means one for each core.
    pub workers: Option<NonZeroU32>,
    /// Most client connections at once; more are closed at accept.
    pub max_connections: NonZeroU32,
    /// Longest time a client may take to send a request head, and longest idle time between two requests.
    pub header_timeout: Duration,
    /// Longest time in which a client takes not one byte of an answer.
    pub write_timeout: Duration,
    /// Certificates; `None` serves clear text.
    pub tls: Option<TlsSettings>,
}

/// TLS of the data listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates by name (SNI); the first one also serves clients that name no or an unknown host.
    pub certificates: Vec<CertificateFiles>,
    /// A clear-text address that answers every request with 308 to https.
    pub redirect_from: Option<SocketAddr>,
}

/// One certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub certificate: PathBuf,
    /// Private key, no passphrase.
    pub key: PathBuf,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Key that callers must send as a bearer token; always there when the address is not loopback.
    pub key: Option<Key>,
}

/// Where access-log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Appended to a file, reopened on SIGUSR2.
    File(PathBuf),
    /// Not written.
    Off,
    /// Standard output.
    Stdout,
}

/// Recording of what passes by (`recording`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingSettings {
    /// Folder for its files.
    pub directory: PathBuf,
    /// Largest file, in bytes.
    pub max_file_bytes: u64,
    /// Most files; the oldest goes for a new one.
    pub files: u32,
}

/// Name of an endpoint or deployment: 3–32 characters, a letter first, letters, digits and hyphens, no
/// hyphen last (reference §10).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes a text that is a valid name.
    ///
    /// # Errors
    /// What is wrong with it, as half a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if !(3..=32).contains(&text.len()) {
            return Err("must have 3 to 32 characters");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err("must begin with a letter");
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err("may hold only letters, digits and hyphens");
        }
        if text.ends_with('-') {
            return Err("must not end with a hyphen");
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Which original the status codes, defaults and header rules follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// azureml-fe of v2 on Kubernetes: the default.
    Aks,
    /// azureml-fe of v1: 60 s request timeout, up to 10 replicas, slow liveness probe.
    AksV1,
    /// Managed online endpoints: 424, 408, 429.
    Managed,
}

/// What a client calls.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSettings {
    /// Its name, part of the route.
    pub name: Name,
    /// Whose status codes it answers with.
    pub profile: Profile,
    /// Who may call it.
    pub auth: AuthSettings,
    /// What each caller may do that has no limits of its own.
    pub default_limits: Allowance,
    /// Cross-origin policy; `None` answers OPTIONS with 405.
    pub cors: Option<CorsSettings>,
    /// One more path that scores, such as `/v1/predict`.
    pub scoring_route: Option<String>,
    /// How much requests matter.
    pub classes: ClassSettings,
    /// Answers tell in a `Server-Timing` header where the time went.
    pub server_timing: bool,
    /// How requests without a deployment header are split; indices point into `deployments`.
    pub traffic: Traffic,
    /// Index of the deployment that owns all traffic that is not allotted.
    pub default_deployment: Option<usize>,
    /// Versions of the model, in the order of the file.
    pub deployments: Vec<Arc<DeploymentSettings>>,
}

/// Who may call an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthSettings {
    /// Which kinds of credential are accepted.
    pub mode: AuthMode,
    /// Keys; empty unless the mode takes keys. The first is the primary one.
    pub keys: Vec<Key>,
    /// Clients with keys of their own; empty unless the mode takes keys.
    pub clients: Vec<ClientSettings>,
    /// Rules for tokens; there when the mode takes tokens.
    pub jwt: Option<JwtSettings>,
}

impl AuthSettings {
    /// The client that a caller is, if it is one: where its class is found.
    pub fn client(&self, caller: Caller) -> Option<&ClientSettings> {
        self.clients.get(caller.client()?)
    }
}

/// A client that has a name, keys and limits of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSettings {
    /// Its name: what stands for it in log and metrics.
    pub name: Name,
    /// One key, or two while one is being changed. All are different from every other key of the endpoint.
    pub keys: Vec<Key>,
    /// How much its requests matter; `None` leaves that to others.
    pub class: Option<Class>,
    /// What it may do; `None` is what the endpoint allows everybody.
    pub limits: Option<Allowance>,
}

/// Which kinds of credential an endpoint accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Keys only; the default.
    Key,
    /// Either a key or a token.
    KeyOrJwt,
    /// Tokens only.
    Jwt,
    /// Anybody.
    None,
}

/// A key as it is kept after load: only its digest and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of the key.
    pub digest: KeyDigest,
    /// Where the file says it comes from, fit to print: `env:NAME`, `file:PATH`, or `inline`.
    pub origin: String,
}

/// Cross-origin policy of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsSettings {
    /// Origins that may call, or `*`.
    pub allow_origins: Vec<String>,
    /// Request headers that a preflight may ask for; empty echoes what is asked.
    pub allow_headers: Vec<String>,
    /// How long a browser may keep a preflight's answer.
    pub max_age: Duration,
}

/// One version of the model behind an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentSettings {
    /// Its name, used in the `azureml-model-deployment` header.
    pub name: Name,
    /// v1's label for comparisons; routing does not depend on it.
    pub kind: DeploymentKind,
    /// Limits of one request.
    pub request: RequestSettings,
    /// How many replicas there are, and why.
    pub scale: ScaleSettings,
    /// What changes capacity beside the rule.
    pub capacity: CapacitySettings,
    /// When a replica is taken to be dead and is started again.
    pub liveness: ProbeSettings,
    /// When a replica may have requests.
    pub readiness: ProbeSettings,
    /// Where replicas come from.
    pub provider: ProviderSettings,
    /// Paths on the replica.
    pub routes: ReplicaRoutes,
    /// Pass the client's Authorization header on to the model.
    pub forward_authorization: bool,
    /// Replicas that fail or are far slower than their siblings are taken out while the others carry the load.
    pub passive_health: bool,
}

/// v1's label of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeploymentKind {
    /// The one that others are compared with; at most one.
    Control,
    /// All others.
    Treatment,
}

/// Limits of one request (`request_settings`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSettings {
    /// From hand-over to a replica to the head of its answer, and longest silence between two pieces of it.
    pub timeout: Duration,
    /// Longest time to open a connection to a replica.
    pub connect_timeout: Duration,
    /// Requests at once on one replica; `None` is no limit (0 in the file).
    pub slots: Option<NonZeroU32>,
    /// That limit is found from what passes by (`auto` in the file); `slots` is `None` then.
    pub auto_slots: bool,
    /// Longest time in the queue.
    pub max_queue_wait: Duration,
    /// Longest queue; `None` bounds it by the number of connections alone.
    pub max_queue_length: Option<u32>,
    /// Largest request body.
    pub max_body_bytes: u64,
    /// Under overload the newest request is served first, with an age limit; otherwise the oldest.
    pub newest_first: bool,
    /// Callers that wait at the same time get equal shares of slot-seconds.
    pub fair_share: bool,
    /// When it is sent more than once.
    pub repeat: RepeatSettings,
}

impl RequestSettings {
    /// Its part that is the gate's.
    pub fn limits(&self) -> Limits {
        Limits { slots: self.slots, max_queue_length: self.max_queue_length }
    }

    /// How the queue is kept.
    pub fn queueing(&self) -> Queueing {
        let Self { max_queue_wait, newest_first, fair_share, .. } = *self;
        Queueing { max_wait: max_queue_wait, newest_first, fair_share }
    }
}

/// When a request is sent more than once (`idempotent`, `retry`, `hedge`). GET and HEAD always may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepeatSettings {
    /// Every request may be: the model does no harm when it computes one twice.
    pub idempotent: bool,
    /// Most times that a request which failed is sent again.
    pub attempts: u32,
    /// Most copies, in percent of the requests that may be repeated.
    pub budget_percent: u32,
    /// When a second copy is sent because the answer is late; `None` is never.
    pub hedge: Option<HedgeAfter>,
}

impl Default for RepeatSettings {
    fn default() -> Self {
        Self { idempotent: false, attempts: 2, budget_percent: 20, hedge: None }
    }
}

/// When an answer is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// After this time.
    Time(Duration),
    /// When 95 of 100 requests would have had the head of theirs, by what the deployment did lately.
    P95,
}

/// How much requests of an endpoint matter where not all can be served (`classes`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassSettings {
    /// Name of a caller (of a key, or a token's subject) → class; others are `default`.
    pub callers: BTreeMap<String, Class>,
    /// Requests for the description of the interface; `None` is the caller's class.
    pub swagger: Option<Class>,
    /// What the header `x-request-class` may do.
    pub header: ClassHeader,
}

/// What a caller's own word on the class of a request is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClassHeader {
    /// Nothing.
    Ignore,
    /// It may make a request matter less.
    #[default]
    Lower,
    /// It counts.
    Trust,
}

/// How many replicas (`scale_settings`, `instance_count`).
#[derive(Clone, Debug, PartialEq)]
pub enum ScaleSettings {
    /// A fixed number (scale type `default`).
    Manual {
        /// `instance_count`.
        replicas: u32,
    },
    /// By load (scale type `target_utilization`).
    Utilization(UtilizationScale),
}

/// Rule and bounds of scaling by load.
#[derive(Clone, Debug, PartialEq)]
pub struct UtilizationScale {
    /// Which rule it is.
    pub policy: ScalePolicy,
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// Time between two evaluations (`polling_interval`).
    pub interval: Duration,
    /// Busy share of the slots to aim at, 1 to 100.
    pub target_percent: u32,
    /// How long the load must stay below before replicas are removed: 60 s (v1), 20 intervals (v2).
    pub down_after: Duration,
    /// Whether the queue counts as load (v2) or not (v1), by the letter of the document; for `AzuremlStrict` alone.
    pub count_queue: bool,
}

/// What changes capacity beside the rule: the time of day, a long silence, and a start.
#[derive(Clone, Debug, PartialEq)]
pub struct CapacitySettings {
    /// Times at which there are more replicas at least (scale type `target_utilization`).
    pub schedules: Vec<Schedule>,
    /// Where no replica need be (`min` 0): how long without a request the last one stays.
    pub idle_time: Duration,
    /// How long a replica that has just become ready takes to get all its slots; zero is at once.
    pub warm_up: Duration,
    /// Longest time in the queue for a request that comes while no replica is ready; `None` is that of all.
    pub cold_start_wait: Option<Duration>,
}

impl Default for CapacitySettings {
    fn default() -> Self {
        Self {
            schedules: Vec::new(),
            idle_time: Duration::from_secs(300),
            warm_up: Duration::ZERO,
            cold_start_wait: None,
        }
    }
}

/// The rules of scaling by load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScalePolicy {
    /// The documented rule of azureml-fe; what waits and what was turned away count as load.
    Azureml,
    /// The documented rule to the letter.
    AzuremlStrict,
    /// Staffing by offered load and measured burstiness.
    Adaptive {
        /// Share of the requests that may be turned away, in percent; `None` does not correct by it.
        reject_budget_percent: Option<f64>,
    },
}

/// A probe (`liveness_probe`, `readiness_probe`); HTTP GET that must answer 200–399.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Wait after the start of the replica. Readiness is probed from the start in any case: a replica that
    /// answers earlier is ready earlier; failures before this time do not count.
    pub initial_delay: Duration,
    /// Time between two probes.
    pub period: Duration,
    /// Longest time for an answer.
    pub timeout: Duration,
    /// Successes in a row that make a failed probe good again.
    pub success_threshold: NonZeroU32,
    /// Failures in a row that make a good probe bad.
    pub failure_threshold: NonZeroU32,
}

/// Paths on the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRoutes {
    /// Scoring path (`/score`).
    pub scoring: String,
    /// Description of the interface (`/swagger.json`).
    pub swagger: String,
    /// Liveness path (`/`).
    pub liveness: String,
    /// Readiness path (`/`).
    pub readiness: String,
    /// Pass every path through as it is (sidecar); the paths above are then for probes only.
    pub pass_through: bool,
}

/// Where replicas come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderSettings {
    /// A fixed list of running servers.
    Fixed(FixedSettings),
    /// Child processes.
    Process(ProcessSettings),
}

impl ProviderSettings {
    /// Most replicas that there can be at a time: servers in the list, or ports for processes.
    pub fn places(&self) -> u32 {
        match self {
            Self::Fixed(fixed) => u32::try_from(fixed.replicas.len()).unwrap_or(u32::MAX),
            Self::Process(process) => u32::from(process.ports.1.saturating_sub(process.ports.0)) + 1,
        }
    }

    /// Whether replicas of the other settings must be replaced. Servers of a list are what they are; processes run what
    /// they were started with, on whatever port and with whatever patience.
    pub fn replaces(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(_), Self::Fixed(_)) => false,
            (Self::Process(new), Self::Process(old)) => !new.runs_the_same(old),
            (Self::Fixed(_), Self::Process(_)) | (Self::Process(_), Self::Fixed(_)) => true,
        }
    }
}

impl ProcessSettings {
    /// Whether a replica made from one would be the same when made from the other. Ports and times do not count: no running
    /// model need be replaced for them.
    pub fn runs_the_same(&self, other: &Self) -> bool {
        self.command == other.command
            && self.directory == other.directory
            && self.environment == other.environment
    }
}

/// Servers that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedSettings {
    /// Host and port of each one, in the order of the file.
    pub replicas: Vec<Authority>,
}

/// Host and port of a replica; the host is a name or an address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A command that is started once for each replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// Program and arguments; `{port}` and `{replica}` are replaced, `{scoregate}` is this program.
    pub command: Vec<String>,
    /// Working directory; `None` is that of scoregate.
    pub directory: Option<PathBuf>,
    /// Added to the environment; `{port}` and `{replica}` are replaced. `PORT` is always set.
    pub environment: BTreeMap<String, String>,
    /// Ports to give to replicas, both ends included.
    pub ports: (u16, u16),
    /// Longest time from start to ready; a replica that needs longer is ended and counted as failed.
    pub start_timeout: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}
