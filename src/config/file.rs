//! What a user writes: every key with its meaning, unit, bounds and default, and nothing else.
//!
//! These doc comments are the reference: `config/schema.json` and `docs/configuration.md` are made from them.
//! Keys are the words of Azure's v2 YAML where it has one. Rules between two values are in `check`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Entries, Field};
use super::secret::SecretRef;
use super::units::{
    Budget, Concurrency, FilePath, Int, Listener, LogTarget, PerSecond, PortRange, ReplicaUrl, RoutePath,
    Share,
};
use crate::core::bounds::MOST;

/// Longest time that can be set, in milliseconds: a year. Longer ones would overflow clocks.
pub(super) const YEAR_MS: u64 = 31_536_000_000;
/// The same in seconds.
const YEAR_S: u64 = YEAR_MS / 1000;
/// Most schedules of one deployment: each is looked at again and again.
pub(super) const MAX_SCHEDULES: usize = 32;
/// Longest time between two probes and the like, in seconds: a day.
pub(super) const DAY_S: u64 = 86_400;
/// Most replicas of one deployment; a bound against slips of the finger.
pub(super) const MAX_REPLICAS: u64 = MOST as u64;

/// Makes every field of a struct optional and traceable, and leaves absent ones out when it is written.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
        #[serde(default, deny_unknown_fields)]
        $(#[$meta])*
        pub(super) struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "Field::is_absent")]
                pub(super) $field: Field<$type>,
            )*
        }
    };
}

/// A list whose items are decoded one by one.
pub(super) type List<T> = Vec<Field<T>>;

section! {
/// Configuration of scoregate.
#[schemars(extend("required" = ["endpoints"]))]
File {
    /// Which original the status codes, defaults and header rules follow, for endpoints that do not say it
    /// themselves.
    #[schemars(extend("default" = "aks"))]
    profile: Profile,
    /// The listener that clients call.
    listen: Listen,
    /// The listener for operators: metrics, state, reload.
    admin: Admin,
    /// Longest time, in milliseconds, that a drain waits for running requests before it cuts them.
    #[schemars(extend("default" = 30_000))]
    drain_timeout_ms: Int<0, YEAR_MS>,
    /// Where the access log goes: `stdout`, `off`, or `file:PATH`.
    #[schemars(extend("default" = "stdout"))]
    access_log: LogTarget,
    /// Record arrivals, waits, service times and scale decisions, for `scoregate replay`. Off where it is left out.
    recording: Recording,
    /// Most deployments of one endpoint. v1 allowed 6, v2 allows 20.
    #[schemars(extend("default" = 6))]
    max_deployments_per_endpoint: Int<1, 20>,
    /// What clients call; at least one.
    endpoints: List<Endpoint>,
}
}

/// Which original is followed.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Profile {
    /// azureml-fe of v2 on Kubernetes.
    Aks,
    /// azureml-fe of v1.
    AksV1,
    /// Managed online endpoints.
    Managed,
}

section! {
/// The listener that clients call.
Listen {
    /// IP address and port; port 0 lets the system choose.
    #[schemars(extend("default" = "127.0.0.1:8080"))]
    address: Listener,
    /// Threads that serve requests. Default: one for each core.
    workers: Int<1, 1024>,
    /// Most client connections at once; more are closed when they are accepted.
    #[schemars(extend("default" = 10_000))]
    max_connections: Int<1, 1_000_000>,
    /// Longest time, in milliseconds, for a client to send the head of a request, and longest idle time
    /// between two requests on a connection.
    #[schemars(extend("default" = 60_000))]
    header_timeout_ms: Int<1, YEAR_MS>,
    /// Longest time, in milliseconds, in which a client takes not one byte of an answer.
    #[schemars(extend("default" = 60_000))]
    write_timeout_ms: Int<1, YEAR_MS>,
    /// Serve TLS. Without it, clear text.
    tls: Tls,
}
}

section! {
/// TLS of the data listener: versions 1.2 and 1.3.
#[schemars(extend("required" = ["certificates"]))]
Tls {
    /// Certificates, chosen by the name that the client asks for (SNI); the first one also serves clients that
    /// ask for none or an unknown one.
    certificates: List<Certificate>,
    /// A clear-text address that answers every request with 308 to https.
    redirect_from: Listener,
}
}

section! {
/// One certificate and its key.
#[schemars(extend("required" = ["certificate", "key"]))]
Certificate {
    /// PEM file with the chain, leaf first. Read again when it changes.
    certificate: FilePath,
    /// PEM file with the private key, without a passphrase.
    key: FilePath,
}
}

section! {
/// The listener for operators.
Admin {
    /// IP address and port; port 0 lets the system choose.
    #[schemars(extend("default" = "127.0.0.1:8081"))]
    address: Listener,
    /// Key that callers must send as a bearer token: `env:NAME`, `file:PATH`, or the key itself, 16 characters
    /// or more. Required when the address is not a loopback address.
    key: SecretRef,
}
}

section! {
/// A recording of what passes by: times and sizes of decisions, no payload and no credential. Takes effect at the next
/// start.
#[schemars(extend("required" = ["directory"]))]
Recording {
    /// Folder for its files; made where it is missing. It belongs to one router alone.
    directory: FilePath,
    /// Largest file, in MiB.
    #[schemars(extend("default" = 64))]
    max_file_mb: Int<1, 65_536>,
    /// Most files: the oldest is removed for a new one.
    #[schemars(extend("default" = 8))]
    files: Int<1, 10_000>,
}
}

section! {
/// What a client calls; owns authentication, traffic and routes.
#[schemars(extend("required" = ["name", "deployments"]))]
Endpoint {
    /// 3 to 32 letters, digits and hyphens; a letter first, no hyphen last. Part of the route.
    name: String,
    /// Overrides the profile of the file for this endpoint.
    profile: Profile,
    /// Which credentials are accepted. `aml_token` and `aad_token` mean `jwt`.
    #[schemars(extend("default" = "key"))]
    auth_mode: AuthMode,
    /// The keys of modes `key` and `key_or_jwt`.
    keys: Keys,
    /// Clients with names, keys and limits of their own, for modes `key` and `key_or_jwt`; beside `keys`, or instead.
    clients: List<Client>,
    /// Limits of every caller that has none of its own: of each bearer of a token by itself, of the two keys of `keys`
    /// together, of each client without `limits`. Default: none.
    default_limits: Limits,
    /// The rules for tokens of modes `jwt` and `key_or_jwt`.
    jwt: Jwt,
    /// Cross-origin policy for browsers. Without it, OPTIONS is answered with 405.
    cors: Cors,
    /// One more path that scores, such as `/v1/predict`.
    scoring_route: RoutePath,
    /// Tell clients with a `Server-Timing` header how long a request waited in the queue, how long the model took for
    /// the head of its answer, and how long the router itself.
    #[schemars(extend("default" = false))]
    server_timing: bool,
    /// How much requests matter where not all can be served.
    classes: Classes,
    /// Deployment → percent of the requests that name no deployment, with up to two decimals. With `default`
    /// the total is at most 100, without it 0 or 100.
    #[schemars(extend("default" = {}))]
    traffic: Entries<Share>,
    /// The deployment that gets all traffic that is not allotted. Default: the only deployment, if there is one
    /// only and no `traffic`; under `aks-v1` the first one.
    default: String,
    /// Versions of the model, at least one.
    deployments: List<Deployment>,
}
}

section! {
/// Classes of requests. `critical` goes first, `sheddable` is turned away first; where several classes wait, `default` has at
/// least a fifth of the hand-overs and `sheddable` a twentieth.
Classes {
    /// Name of a caller → class. A name is that of a key (`primary`, `secondary`), of a client that has no `class` of its own,
    /// or a token's `sub`. Others are `default`.
    #[schemars(extend("default" = {}))]
    callers: Entries<Class>,
    /// Class of requests for the description of the interface. Default: the caller's.
    swagger: Class,
    /// What the header `x-request-class` of a request may do: make it matter less, count as it is, or nothing.
    #[schemars(extend("default" = "lower"))]
    header: ClassHeader,
}
}

/// How much a request matters.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Class {
    /// Served first.
    Critical,
    /// What a request is when nothing says otherwise.
    Default,
    /// The first to be turned away.
    Sheddable,
}

/// What a caller's own word on the class of a request is worth.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum ClassHeader {
    /// Nothing.
    Ignore,
    /// It may make a request matter less.
    Lower,
    /// It counts.
    Trust,
}

/// Which credentials an endpoint accepts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum AuthMode {
    /// Keys.
    Key,
    /// Tokens.
    Jwt,
    /// Keys and tokens.
    KeyOrJwt,
    /// None asked: anybody may call.
    None,
    /// Azure's word for `jwt`.
    AmlToken,
    /// Azure's word for `jwt`.
    AadToken,
}

section! {
/// Keys of an endpoint; both are valid at any time.
#[schemars(extend("required" = ["primary"]))]
Keys {
    /// `env:NAME`, `file:PATH`, or the key itself; 16 visible ASCII characters or more.
    primary: SecretRef,
    /// A second key, so that one can be changed while the other one is in use.
    secondary: SecretRef,
}
}

section! {
/// A client of an endpoint, known by its key.
#[schemars(extend("required" = ["name", "key"]))]
Client {
    /// 3 to 32 letters, digits and hyphens; a letter first, no hyphen last. What access log and metrics call it.
    name: String,
    /// `env:NAME`, `file:PATH`, or the key itself; 16 visible ASCII characters or more. No other key of the endpoint.
    key: SecretRef,
    /// A second key, so that one can be changed while the other one is in use.
    secondary_key: SecretRef,
    /// How much its requests matter where not all can be served. Goes before what `classes.callers` says of it. Default: that,
    /// or `default`.
    class: Class,
    /// Its limits, in place of `default_limits`. `{}` is no limits.
    limits: Limits,
}
}

section! {
/// Limits of one caller. A request over one of them is answered with 429, and never comes to a deployment.
Limits {
    /// Requests at once, those that wait in the queue included. Default: no limit.
    concurrency: Int<1, 1_000_000>,
    /// Requests a second, with up to three decimals. Default: no limit.
    requests_per_second: PerSecond,
    /// Requests that may come at the same moment, over which `requests_per_second` evens out. Default: those of one
    /// second, at least 1.
    burst: Int<1, 1_000_000>,
    /// Requests in a window of the calendar. Default: no limit.
    quota: Quota,
}
}

section! {
/// So many requests in each minute, hour, day or month, from its begin to its end in UTC.
#[schemars(extend("required" = ["requests", "per"]))]
Quota {
    /// Requests in one window.
    requests: Int<1, 1_000_000_000_000>,
    /// Which windows.
    per: Period,
}
}

/// A window of the calendar.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Period {
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// From midnight to midnight, UTC.
    Day,
    /// From the first to the last day, UTC.
    Month,
}

section! {
/// Rules for tokens (JWT). Exactly one of `keys`, `jwks_file` and `jwks_url` says how they are verified.
Jwt {
    /// Accepted issuers (`iss`). Default: any.
    #[schemars(extend("default" = []))]
    issuers: List<String>,
    /// Accepted audiences (`aud`), one of which a token must name. Default: any.
    #[schemars(extend("default" = []))]
    audiences: List<String>,
    /// How far clocks may differ, in seconds, for `exp` and `nbf`.
    #[schemars(extend("default" = 60))]
    leeway_s: Int<0, 3600>,
    /// Claim → accepted values. A caller whose token is valid but lacks one is answered with 403.
    #[schemars(extend("default" = {}))]
    required_claims: Entries<List<String>>,
    /// Verification keys.
    keys: List<JwtKey>,
    /// File with a JSON web key set; read again when it changes.
    jwks_file: FilePath,
    /// URL of a JSON web key set, http or https. When a fetch fails, the last good one is kept.
    jwks_url: String,
    /// Time between two fetches of `jwks_url`, in seconds.
    #[schemars(extend("default" = 300))]
    jwks_refresh_s: Int<1, DAY_S>,
}
}

section! {
/// A verification key and the one algorithm that it is for.
#[schemars(extend("required" = ["algorithm"]))]
JwtKey {
    /// Matched with the token's `kid` when both have one.
    kid: String,
    /// Signature algorithm; a token cannot choose another one.
    algorithm: Algorithm,
    /// PEM of the public key, for all algorithms but HS…: `file:PATH`, `env:NAME`, or the PEM itself.
    public_key: SecretRef,
    /// Shared secret, for HS… algorithms: `env:NAME`, `file:PATH`, or the secret itself.
    secret: SecretRef,
}
}

/// Signature algorithms.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(inline)]
pub(super) enum Algorithm {
    /// Ed25519.
    EdDSA,
    /// P-256 with SHA-256.
    ES256,
    /// P-384 with SHA-384.
    ES384,
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA with SHA-256.
    RS256,
    /// RSA with SHA-384.
    RS384,
    /// RSA with SHA-512.
    RS512,
}

section! {
/// Cross-origin policy.
#[schemars(extend("required" = ["allow_origins"]))]
Cors {
    /// Origins that may call, such as `https://app.example.com`, or `*`.
    allow_origins: List<String>,
    /// Request headers that a preflight may ask for. Default: all.
    #[schemars(extend("default" = []))]
    allow_headers: List<String>,
    /// How long a browser may keep the answer to a preflight, in seconds.
    #[schemars(extend("default" = 600))]
    max_age_s: Int<0, DAY_S>,
}
}

section! {
/// One version of the model behind an endpoint. Either `replicas` or `process` says where replicas come from.
#[schemars(extend("required" = ["name"]))]
Deployment {
    /// 3 to 32 letters, digits and hyphens; a letter first, no hyphen last; with the endpoint's name at most 62.
    /// Clients name it in the header `azureml-model-deployment`.
    name: String,
    /// v1's label for comparisons: at most one `control`. Routing does not depend on it.
    #[schemars(extend("default" = "treatment"))]
    r#type: DeploymentType,
    /// Number of replicas for scale type `default`. Given without `scale_settings`, it chooses that type.
    #[schemars(extend("default" = 1))]
    instance_count: Int<1, MAX_REPLICAS>,
    /// Limits of one request.
    request_settings: RequestSettings,
    /// How many replicas there are.
    scale_settings: ScaleSettings,
    /// When a replica is taken to be dead and is started again.
    liveness_probe: Probe,
    /// When a replica may have requests.
    readiness_probe: Probe,
    /// Environment variables of the replicas of `process`, beside those of scoregate itself. `{port}` and
    /// `{replica}` are replaced; `PORT` is always set. `scoregate check` prints them: not for secrets.
    #[schemars(extend("default" = {}))]
    environment_variables: Entries<String>,
    /// Paths on the replica.
    inference_config: InferenceConfig,
    /// Pass the client's Authorization header on to the model.
    #[schemars(extend("default" = false))]
    forward_authorization: bool,
    /// Take out replicas that fail or are far slower than their siblings, while these carry the load.
    #[schemars(extend("default" = true))]
    passive_health: bool,
    /// Model servers that run already: `http://HOST:PORT`, port 80 if left out.
    replicas: List<ReplicaUrl>,
    /// A command that is started once for each replica.
    process: Process,
}
}

/// v1's label of a version.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum DeploymentType {
    /// The one that others are compared with.
    Control,
    /// All others.
    Treatment,
}

section! {
/// Limits of one request.
RequestSettings {
    /// Longest time, in milliseconds, from handing a request to a replica to the head of its answer, and longest
    /// silence between two pieces of the answer. Under `aks-v1` the default is 60000. A request that is given up
    /// keeps its slot until the replica has let go of it, at most 300 s.
    #[schemars(extend("default" = 5000))]
    request_timeout_ms: Int<1, YEAR_MS>,
    /// Longest time to open a connection to a replica, in milliseconds.
    #[schemars(extend("default" = 1000))]
    connect_timeout_ms: Int<1, YEAR_MS>,
    /// Slots: requests at once on one replica. 0 means no limit; `auto` finds the number beyond which the throughput
    /// stops rising from what passes by, beginning with 1.
    #[schemars(extend("default" = 1))]
    max_concurrent_requests_per_instance: Concurrency,
    /// Longest time in the queue, in milliseconds.
    #[schemars(extend("default" = 500))]
    max_queue_wait_ms: Int<0, YEAR_MS>,
    /// Longest time in the queue, in milliseconds, for a request that comes while no replica is ready. Default: with
    /// `min_instances: 0` as long as a replica may take to start (`process.start_timeout_s`), otherwise
    /// `max_queue_wait_ms`.
    cold_start_wait_ms: Int<0, YEAR_MS>,
    /// Longest queue, in requests. Default: bounded by `listen.max_connections` alone.
    max_queue_length: Int<0, 1_000_000>,
    /// Largest request body, in bytes.
    #[schemars(extend("default" = 104_857_600))]
    max_body_bytes: Int<0, 1_099_511_627_776>,
    /// Every request may be sent to the model more than once: it does no harm when the model computes one twice. Without
    /// it only GET and HEAD requests are.
    #[schemars(extend("default" = false))]
    idempotent: bool,
    /// When a request that failed is sent again: only GET and HEAD, or all where `idempotent` is on.
    retry: Retry,
    /// When a second copy is sent because the answer is late, to such a replica as a retry goes to. The first answer
    /// counts. Only GET and HEAD, or all where `idempotent` is on. Default: never.
    hedge: Hedge,
    /// Who is served first of those who wait: `fifo`, the oldest; `newest_first`, the newest while the queue does not
    /// drain, and who has waited for two services (at most half of the longest wait) is turned away.
    #[schemars(extend("default" = "fifo"))]
    queue_order: QueueOrder,
    /// Callers (keys, subjects of tokens) that wait at the same time get equal shares of slot-seconds.
    #[schemars(extend("default" = false))]
    fair_share: bool,
}
}

/// Order of a queue.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum QueueOrder {
    /// The oldest first.
    Fifo,
    /// The newest first, while there is overload.
    NewestFirst,
}

section! {
/// A request whose replica broke the connection before the first byte of an answer, or answered 502 or 503 itself, is sent
/// again, to an idle slot of another replica within the request's own time, if its body has at most 64 KiB.
Retry {
    /// Most times that one request is sent again. 0 means never.
    #[schemars(extend("default" = 2))]
    attempts: Int<0, 10>,
    /// Most copies (retries and hedges), in percent of the requests that may be repeated. Ten more are allowed after a
    /// quiet time.
    #[schemars(extend("default" = 20))]
    budget_percentage: Int<1, 100>,
}
}

section! {
/// When a second copy of a request is sent: one of the two keys.
Hedge {
    /// When there has been no head of an answer for this time, in milliseconds.
    after_ms: Int<1, YEAR_MS>,
    /// `p95`: when 95 of 100 of the deployment's last requests would have had theirs.
    after: HedgeMoment,
}
}

/// Measured times of a deployment.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum HedgeMoment {
    /// The 95th percentile of the times up to the head of an answer.
    P95,
}

section! {
/// How many replicas a deployment has. With `replicas` the number is that of the list.
ScaleSettings {
    /// `default` is a fixed number (`instance_count`), `target_utilization` goes by load. Default for `process`:
    /// `target_utilization`, or `default` where `instance_count` is given.
    r#type: ScaleType,
    /// The rule that `target_utilization` follows.
    #[schemars(extend("default" = "azureml"))]
    policy: ScalePolicy,
    /// Share of the requests that may be turned away, in percent: the margin of `adaptive` then grows and shrinks slowly
    /// with what is. Default: no such correction.
    reject_budget_percentage: Budget,
    /// Fewest replicas. With 0 the last one is ended after `idle_time`, and the next request waits for a new one
    /// (`cold_start_wait_ms`).
    #[schemars(extend("default" = 1))]
    min_instances: Int<0, MAX_REPLICAS>,
    /// Most replicas. Under `aks-v1` the default is 10.
    #[schemars(extend("default" = 1))]
    max_instances: Int<1, MAX_REPLICAS>,
    /// Time between two evaluations, in seconds. Replicas are removed when fewer have sufficed for 20
    /// evaluations (under `aks-v1`, for 60 seconds).
    #[schemars(extend("default" = 1))]
    polling_interval: Int<1, 3600>,
    /// Busy share of the slots to aim at, in percent; not for `adaptive`. The queue counts as busy (not for
    /// `azureml-strict` under `aks-v1`).
    #[schemars(extend("default" = 70))]
    target_utilization_percentage: Int<1, 100>,
    /// With `min_instances: 0`: time without a request, in seconds, after which the last replica is ended. Not before the
    /// rule says so: after 60 s under `aks-v1`, otherwise 20 intervals; with `adaptive` 120 to 600 s.
    #[schemars(extend("default" = 300))]
    idle_time: Int<0, YEAR_S>,
    /// Slow start, in seconds: the slots of a replica that has just become ready grow from 1 to
    /// `max_concurrent_requests_per_instance` over this time. For models whose first requests are slow; with one
    /// slot there is nothing to grow. A server of `replicas` starts slowly only when it comes back.
    #[schemars(extend("default" = 0))]
    warm_up_time: Int<0, 3600>,
    /// Times at which there are more replicas at least, for load that is known in advance. Where several hold at a time,
    /// the greatest number does.
    #[schemars(extend("default" = [], "maxItems" = MAX_SCHEDULES))]
    schedules: List<Schedule>,
}
}

section! {
/// A time at which there are at least so many replicas.
#[schemars(extend("required" = ["cron", "duration", "min_instances"]))]
Schedule {
    /// What it is for; shown in the reason of a decision. Default: the cron expression.
    name: String,
    /// When it begins, in five fields: minute, hour, day of the month, month, day of the week. `0 8 * * 1-5` is at 8:00 from
    /// Monday to Friday. With lists `1,15`, ranges `1-5`, steps `*/10`, and names such as `MON` or `JAN`.
    cron: String,
    /// Time zone that the hours are of, such as `Europe/Berlin`. A time that is left out when clocks are put forward
    /// begins with the first moment after it; one that comes twice begins at its first.
    #[schemars(extend("default" = "UTC"))]
    time_zone: String,
    /// How long it lasts, in seconds.
    duration: Int<1, YEAR_S>,
    /// Fewest replicas in that time; at most `max_instances`.
    min_instances: Int<1, MAX_REPLICAS>,
}
}

/// Why there are as many replicas as there are.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum ScaleType {
    /// A fixed number.
    Default,
    /// By load.
    TargetUtilization,
}

/// Rules of scaling by load.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum ScalePolicy {
    /// The documented rule of azureml-fe; requests that wait or were turned away count as load.
    Azureml,
    /// The documented rule to the letter: blind to what is turned away.
    #[serde(rename = "azureml-strict")]
    AzuremlStrict,
    /// By offered load, measured burstiness, learned start-up time and the longest queue wait.
    Adaptive,
}

section! {
/// A probe: HTTP GET that must be answered with 200 to 399.
Probe {
    /// Time after the start of a replica, in seconds, during which failures do not count. A replica that answers
    /// its readiness probe earlier is ready earlier. Under `aks-v1` the liveness default is 310.
    #[schemars(extend("default" = 10))]
    initial_delay: Int<0, DAY_S>,
    /// Time between two probes, in seconds.
    #[schemars(extend("default" = 10))]
    period: Int<1, DAY_S>,
    /// Longest time for an answer, in seconds.
    #[schemars(extend("default" = 2))]
    timeout: Int<1, DAY_S>,
    /// Successes in a row that make a failed probe good again.
    #[schemars(extend("default" = 1))]
    success_threshold: Int<1, 1000>,
    /// Failures in a row that make a good probe bad. Under `aks-v1` the liveness default is 3.
    #[schemars(extend("default" = 30))]
    failure_threshold: Int<1, 1000>,
}
}

section! {
/// Paths on the replica.
InferenceConfig {
    /// Where requests are scored. Default: `/score`.
    scoring_route: Route,
    /// Description of the interface. Default: `/swagger.json`.
    swagger_route: Route,
    /// Liveness probe. Default: `/`.
    liveness_route: Route,
    /// Readiness probe. Default: `/`.
    readiness_route: Route,
}
}

section! {
/// A path on the replica.
#[schemars(extend("required" = ["path"]))]
Route {
    /// The path.
    path: RoutePath,
    /// Azure's port of a route; not allowed here, because every replica has one port of its own.
    port: Int<1, 65_535>,
}
}

section! {
/// A command that is started once for each replica, in a process group of its own.
#[schemars(extend("required" = ["command"]))]
Process {
    /// Program and arguments. `{port}` and `{replica}` are replaced; `{scoregate}` is the program scoregate.
    command: List<String>,
    /// Working directory. Default: that of scoregate.
    directory: FilePath,
    /// Ports to give to replicas, `FIRST-LAST`; below 32768, where Linux begins to use ports by itself.
    #[schemars(extend("default" = "20000-29999"))]
    ports: PortRange,
    /// Longest time from start to ready, in seconds; a replica that needs longer is ended and counts as failed.
    #[schemars(extend("default" = 300))]
    start_timeout_s: Int<1, DAY_S>,
    /// Time between SIGTERM and SIGKILL, in seconds.
    #[schemars(extend("default" = 30))]
    stop_timeout_s: Int<0, DAY_S>,
}
}
