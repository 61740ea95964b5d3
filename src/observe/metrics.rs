//! Prometheus metrics: the one recorder of the process, its upkeep and its text. `names` lists every metric,
//! `requests` counts requests with kept handles.
//!
//! Gauges do not live here: whoever renders sets them from the state itself, in a recorder that lasts for one text.
//! So nothing that was removed can be left standing.

mod clients;
pub mod names;
mod requests;

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::Instant;

use crate::core::settings::Name;
use crate::shutdown::Drain;
pub use clients::{ClientMetrics, LimitMetrics};
use names::{ALL, Kind};
pub use requests::{DeploymentMetrics, Metrics};

/// Bounds of time histograms in seconds: 0.1 ms, a cached answer, to 60 s, the longest default timeout.
const TIMES: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];
/// Bounds for what the router itself adds, in seconds: aimed at some 20 µs, so finer and shorter.
const OVERHEADS: [f64; 13] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0];

/// Installs the recorder of the process, once: several routers in one process share it. Everything that counts
/// must be made after this; `Metrics::new` calls it.
pub fn install() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder of metrics is installed; the counters of /metrics stay empty");
        }
        handle
    })
}

/// Time between two moves.
const UPKEEP: Duration = Duration::from_secs(1);

/// Moves what was measured from the workers' buffers into the histograms, each second, until the drain begins.
/// Without it the buffers grow until somebody renders.
pub async fn upkeep(mut drain: Drain) {
    let handle = install();
    // Not at once: at the start there is nothing to move, but many histograms to look at.
    let mut second = tokio::time::interval_at(Instant::now() + UPKEEP, UPKEEP);
    loop {
        tokio::select! {
            _ = second.tick() => handle.run_upkeep(),
            () = drain.started() => return,
        }
    }
}

/// The text of `/metrics`: what was counted so far, and what `set_gauges` sets with the macros of `metrics`.
pub fn render(set_gauges: impl FnOnce()) -> String {
    let now = recorder();
    metrics::with_local_recorder(&now, set_gauges);
    let mut text = install().render();
    text.push_str(&now.handle().render());
    text
}

/// Counts a change of the number of replicas that there should be; no change is not counted.
pub fn count_scale_decision(endpoint: &Name, deployment: &Name, from: u32, to: u32) {
    let direction = match from.cmp(&to) {
        std::cmp::Ordering::Equal => return,
        std::cmp::Ordering::Greater => "down",
        std::cmp::Ordering::Less => "up",
    };
    metrics::counter!(
        names::SCALE_DECISIONS,
        "endpoint" => endpoint.to_string(), "deployment" => deployment.to_string(), "direction" => direction,
    )
    .increment(1);
}

/// Counts a client connection that was closed at accept.
pub fn count_refused_connection() {
    metrics::counter!(names::CONNECTIONS_REFUSED).increment(1);
}

/// Counts a reload of the configuration.
pub fn count_reload(accepted: bool) {
    let result = if accepted { "accepted" } else { "rejected" };
    metrics::counter!(names::RELOADS, "result" => result).increment(1);
}

/// A recorder with the buckets and help texts of every metric.
fn recorder() -> PrometheusRecorder {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&TIMES)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(names::OVERHEAD.into()), &OVERHEADS))
        .expect("the bounds are not empty")
        .build_recorder();
    metrics::with_local_recorder(&recorder, || {
        for metric in ALL {
            match metric.kind {
                Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
            }
        }
    });
    recorder
}
