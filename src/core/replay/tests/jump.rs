//! A load that jumps, from the same replicas under each rule: what is lost until new ones are ready.

use super::*;

/// 4 requests a second and 30 from 60 s on, of 0.1 s each. A replica takes 3 s to start, and nobody waits for more than 0.5 s.
/// The first request comes at `phase`; questions come at whole seconds.
fn jump(policy: &str, min: u32, phase: f64) -> Figures {
    let block = json!({
        "request_settings": { "max_queue_wait_ms": 500, "max_concurrent_requests_per_instance": 1 },
        "scale_settings": {
            "type": "target_utilization", "policy": policy, "min_instances": min, "max_instances": 8,
        },
    });
    let mut lines = vec![
        Line::Settings { t: 0, e: "demo".into(), d: "blue".into(), settings: block.clone() },
        tick(0.0, How::First, quiet(&block), (0, min)),
        replica(0.0, "blue-1", "starting"),
        replica(3.0, "blue-1", "ready"),
    ];
    lines.extend((1..=75).map(|t| tick(f64::from(t), How::Tick, quiet(&block), (min, min))));
    lines.extend((16..240).map(|number| request(f64::from(number) / 4.0 + phase, 0.1)));
    lines.extend((0..420).map(|number| request(60.0 + f64::from(number) / 30.0, 0.1)));
    lived(lines)
}

/// Where nothing runs at a question, and where something does.
const IDLE: f64 = 0.05;
const BUSY: f64 = 0.2;

#[test]
fn from_as_many_replicas_a_jump_costs_no_more_under_one_rule_than_under_another() {
    // What those who are there cannot carry for 3 s, less those who wait until the new ones are ready.
    for (min, most) in [(1, 50), (2, 22), (3, 0)] {
        let [adaptive, azureml] = ["adaptive", "azureml"].map(|policy| jump(policy, min, IDLE));
        assert!(adaptive.rejected <= azureml.rejected, "{min}: {adaptive:?} {azureml:?}");
        assert!(azureml.rejected <= most, "{min}: {azureml:?}");
    }
}

/// The one slot is busy at an evaluation, which is 100 % to a rule by utilisation: it has two when the load jumps.
#[test]
fn one_busy_slot_is_two_replicas_to_a_rule_by_utilisation() {
    let [adaptive, azureml] = ["adaptive", "azureml"].map(|policy| jump(policy, 1, BUSY));
    let with_two = jump("adaptive", 2, BUSY);
    assert!(azureml.rejected < adaptive.rejected, "{azureml:?} {adaptive:?}");
    assert!(with_two.rejected <= azureml.rejected, "{with_two:?} {azureml:?}");
    assert!(azureml.replica_seconds > adaptive.replica_seconds + 40.0, "{azureml:?} {adaptive:?}");
}
