//! The gauges of `/metrics`, set from the state at the moment somebody asks.

use metrics::{counter, gauge};

use super::state::{DeploymentState, StageName, State};
use crate::control::board::ReplicaState;
use crate::core::admission::Standing;
use crate::observe::metrics::names;

/// Sets every gauge from the state.
pub(super) fn set(state: &State) {
    gauge!(names::GENERATION).set(state.generation as f64);
    gauge!(names::DRAINING).set(if state.stage == StageName::Running { 0.0 } else { 1.0 });
    gauge!(names::START_TIME).set(state.started_unix_seconds);
    gauge!(names::BUILD_INFO, "version" => state.version.clone()).set(1.0);
    counter!(names::LOST_LINES).absolute(state.access_log_lost_lines);
    for endpoint in &state.endpoints {
        for deployment in &endpoint.deployments {
            set_deployment(&endpoint.name, deployment);
        }
    }
}

fn set_deployment(endpoint: &str, deployment: &DeploymentState) {
    let labels = [("endpoint", endpoint.to_owned()), ("deployment", deployment.name.clone())];
    let set = |name: &'static str, value: f64| gauge!(name, &labels).set(value);
    set(names::SLOTS_BUSY, deployment.slots.busy.into());
    set(names::SLOTS_BUSY_DRAINING, deployment.slots.busy_draining.into());
    if let Some(total) = deployment.slots.total {
        set(names::SLOTS_TOTAL, total.into());
    }
    for (outcome, count) in &deployment.uses {
        let [endpoint, name] = labels.clone();
        counter!(names::SLOT_USES, &[endpoint, name, ("outcome", outcome.clone())]).absolute(*count);
    }
    if let Some(limit) = deployment.slots.per_replica {
        set(names::SLOTS_PER_REPLICA, limit.into());
    }
    set(names::QUEUE_LENGTH, deployment.queue.length.into());
    if let Some(desired) = deployment.desired {
        set(names::REPLICAS_DESIRED, desired.into());
    }
    set(names::TRAFFIC, deployment.traffic.configured);
    set(names::TRAFFIC_EFFECTIVE, deployment.traffic.effective);
    for state in ReplicaState::ALL {
        let count = deployment.replicas.iter().filter(|replica| replica.state == state).count();
        let [endpoint, name] = labels.clone();
        gauge!(names::REPLICAS, &[endpoint, name, ("state", state.as_str().to_owned())]).set(count as f64);
    }
    for standing in Standing::ALL {
        let count = deployment.replicas.iter().filter(|replica| replica.standing == standing).count();
        let [endpoint, name] = labels.clone();
        let labels = [endpoint, name, ("standing", standing.as_str().to_owned())];
        gauge!(names::REPLICA_STANDINGS, &labels).set(count as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::num::NonZeroU32;

    use super::*;
    use crate::control::admin::state::tests::state;
    use crate::core::quota::{Allowance, Limit};
    use crate::core::retry::{Cause, Denied, Hedge, Tries};
    use crate::core::settings::Name;
    use crate::observe::access::Record;
    use crate::observe::access::tests::record;
    use crate::observe::metrics::{
        ClientMetrics, LimitMetrics, Metrics, count_refused_connection, count_reload, count_scale_decision,
        render,
    };

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no {line} in:\n{text}");
    }

    #[test]
    fn gauges_say_what_the_state_says() {
        let text = render(|| set(&state()));
        for (name, value) in [
            ("slots_busy", "3"),
            ("slots_busy_draining", "1"),
            ("slots_total", "4"),
            ("slots_per_replica", "2"),
            ("queue_length", "5"),
            ("replicas_desired", "3"),
            ("traffic_percent", "12.5"),
            ("traffic_effective_percent", "100"),
        ] {
            has(&text, &format!(r#"scoregate_{name}{{endpoint="demo",deployment="blue"}} {value}"#));
        }
        for (state, count) in [("ready", 2), ("failed", 1), ("starting", 0)] {
            let labels = format!(r#"endpoint="demo",deployment="blue",state="{state}""#);
            has(&text, &format!("scoregate_replicas{{{labels}}} {count}"));
        }
        has(&text, r#"scoregate_slot_uses_total{endpoint="demo",deployment="blue",outcome="answered"} 9"#);
        let labels = r#"endpoint="demo",deployment="blue",standing="good""#;
        has(&text, &format!("scoregate_replica_standings{{{labels}}} 3"));
        has(&text, "scoregate_config_generation 7");
        has(&text, "scoregate_draining 0");
    }

    #[test]
    fn a_removed_deployment_leaves_no_gauge() {
        let mut state = state();
        assert!(render(|| set(&state)).contains("scoregate_replicas{"));
        state.endpoints.clear();
        let text = render(|| set(&state));
        assert!(!text.contains("scoregate_replicas{") && !text.contains("scoregate_slots"), "{text}");
    }

    /// Name and type of every row of the page, and of every metric of the text.
    #[test]
    fn the_page_lists_exactly_what_is_rendered() {
        let metrics = Metrics::new();
        metrics.record(&record());
        let mut tries = Tries { denied: Some(Denied::Budget), hedge: Some(Hedge::Won), ..Tries::default() };
        tries.add(Cause::Broken);
        metrics.record(&Record { reason: Some("queue_full"), tries, ..record() });
        let [demo, blue] = ["demo", "blue"].map(|name| Name::parse(name).unwrap());
        count_scale_decision(&demo, &blue, 1, 2);
        count_reload(true);
        count_refused_connection();
        ClientMetrics::new(&demo, &blue).count();
        let limits = Allowance { concurrency: NonZeroU32::new(1), ..Allowance::default() };
        LimitMetrics::new(&demo, None, &limits).count(Limit::Concurrency(NonZeroU32::MIN));
        let text = render(|| set(&state()));
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let rendered: BTreeSet<_> = types.clone().collect();
        assert_eq!(types.count(), rendered.len(), "a metric is rendered twice");

        let page = include_str!("../../../docs/metrics.md");
        let rows = page.lines().filter_map(|row| row.strip_prefix("| `")?.split_once("` | "));
        let page: BTreeSet<_> =
            rows.filter_map(|(name, rest)| Some((name, rest.split_once(' ')?.0))).collect();
        assert_eq!(rendered, page);

        let listed: BTreeSet<_> =
            names::ALL.iter().map(|metric| (metric.name, metric.kind.as_str())).collect();
        assert_eq!(rendered, listed);
        for metric in names::ALL {
            has(&text, &format!("# HELP {} {}", metric.name, metric.help));
        }
    }
}
