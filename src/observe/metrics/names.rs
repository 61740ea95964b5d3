//! Every metric: its name, kind and help text. `docs/metrics.md` has the same list for people; a test compares them.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// The state at this moment.
    Gauge,
    /// How often values fell under each bound.
    Histogram,
}

impl Kind {
    /// Prometheus' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $name:literal $kind:ident $help:literal)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*
        /// Every metric.
        pub const ALL: &[Metric] = &[$(Metric { name: $name, kind: Kind::$kind, help: $help }),*];
    };
}

metrics! {
    REQUESTS "scoregate_requests_total" Counter
        "Requests that have ended, by the status that was sent; 499 when the client had gone before."
    REJECTS "scoregate_rejects_total" Counter
        "Requests that the router answered or cut short itself, by its reason."
    CLIENT_GONE "scoregate_client_gone_total" Counter
        "Requests whose client left before the last byte of the answer."
    CLIENT_REQUESTS "scoregate_client_requests_total" Counter
        "Requests that came with a named client's key, those that its limits refused included."
    LIMITED "scoregate_limited_total" Counter
        "Requests that their caller's limits refused, by limit; without a client, those of callers without a name."
    MODEL_RESPONSES "scoregate_model_responses_total" Counter
        "Answers of the model, by the status that the model sent."
    RETRIES "scoregate_retries_total" Counter
        "Times that a request was sent again, by what had become of it before."
    RETRIES_DENIED "scoregate_retries_denied_total" Counter
        "Requests that failed, might have been sent again and were not, by the reason."
    HEDGES "scoregate_hedges_total" Counter
        "Late answers for which a second copy was to be sent, by what became of it or why none was."
    REQUEST_BYTES "scoregate_request_bytes_total" Counter
        "Bytes of request bodies that were passed on."
    RESPONSE_BYTES "scoregate_response_bytes_total" Counter
        "Bytes of answers' bodies that were passed on."
    DURATION "scoregate_request_duration_seconds" Histogram
        "From the request's head to the last byte of the answer."
    QUEUE_WAIT "scoregate_queue_wait_seconds" Histogram
        "Wait for a slot; zero when one was free."
    MODEL_DURATION "scoregate_model_duration_seconds" Histogram
        "From hand-over to a replica to the head of its answer."
    OVERHEAD "scoregate_router_overhead_seconds" Histogram
        "Duration less queue, connecting, model and transfer of the answer; only requests that a model answered."
    SCALE_DECISIONS "scoregate_scale_decisions_total" Counter
        "Changes of the number of replicas that there should be."
    CONNECTIONS_REFUSED "scoregate_connections_refused_total" Counter
        "Client connections closed at accept, because as many as may be were open."
    RELOADS "scoregate_reloads_total" Counter
        "Reloads of the configuration."
    SLOT_USES "scoregate_slot_uses_total" Counter
        "Uses of slots that have ended, by how the replica did."
    SLOTS_BUSY "scoregate_slots_busy" Gauge
        "Slots in use on replicas that are not draining."
    SLOTS_BUSY_DRAINING "scoregate_slots_busy_draining" Gauge
        "Slots in use on draining replicas."
    SLOTS_TOTAL "scoregate_slots_total" Gauge
        "Slots of the replicas that admit requests; absent where there is no limit."
    SLOTS_PER_REPLICA "scoregate_slots_per_replica" Gauge
        "Slots of one replica, as configured or as found; absent where there is no limit."
    QUEUE_LENGTH "scoregate_queue_length" Gauge
        "Requests that wait for a slot."
    REPLICAS "scoregate_replicas" Gauge
        "Replicas that exist, by state."
    REPLICA_STANDINGS "scoregate_replica_standings" Gauge
        "Replicas that exist, by how they have done beside their siblings."
    REPLICAS_DESIRED "scoregate_replicas_desired" Gauge
        "Replicas that there should be."
    TRAFFIC "scoregate_traffic_percent" Gauge
        "Share of the traffic as configured."
    TRAFFIC_EFFECTIVE "scoregate_traffic_effective_percent" Gauge
        "Share of the traffic, the remainder to the default deployment included."
    GENERATION "scoregate_config_generation" Gauge
        "Generation of the configuration; counts up with each accepted reload."
    DRAINING "scoregate_draining" Gauge
        "1 from the begin of the drain on."
    LOST_LINES "scoregate_access_log_lost_lines_total" Counter
        "Lines of the access log that were not written: its queue was full, or writing failed."
    START_TIME "scoregate_start_time_seconds" Gauge
        "When the router started, in seconds since 1970."
    BUILD_INFO "scoregate_build_info" Gauge
        "Always 1; the label holds the version."
}
