//! The state as a table for people: a line about the router, one row for each deployment, then what needs a sentence.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, Table, presets};

use crate::control::admin::state::{DeploymentState, StageName, State};
use crate::control::board::{BoundsBy, BoundsStatus, ReplicaState};
use crate::core::admission::Standing;
use crate::core::bounds::Spoken;

const COLUMNS: [&str; 7] = ["ENDPOINT", "DEPLOYMENT", "TRAFFIC", "SLOTS", "QUEUE", "WANTED", "REPLICAS"];

/// Writes the state; `now` is for ages.
pub(super) fn write(state: &State, now: SystemTime, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", headline(state))?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(COLUMNS);
    for (endpoint, deployment) in deployments(state) {
        table.add_row(row(endpoint, deployment));
    }
    for column in 2..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "\n{}", table.trim_fmt())?;
    let notes: Vec<String> = deployments(state).flat_map(|(e, d)| notes(e, d, now)).collect();
    if !notes.is_empty() {
        writeln!(out)?;
    }
    notes.iter().try_for_each(|note| writeln!(out, "{}", printable(note)))
}

fn deployments(state: &State) -> impl Iterator<Item = (&str, &DeploymentState)> {
    state.endpoints.iter().flat_map(|e| e.deployments.iter().map(move |d| (e.name.as_str(), d)))
}

fn headline(state: &State) -> String {
    let stage = match (state.stage, state.drain_seconds_left) {
        (StageName::Running, _) => "running".to_owned(),
        (StageName::Draining, Some(left)) => format!("draining, {left} s left"),
        (StageName::Draining, None) => "draining".to_owned(),
        (StageName::Forced, _) => "ending".to_owned(),
    };
    let lost = match state.access_log_lost_lines {
        0 => String::new(),
        lines => format!(" · {lines} access-log lines lost"),
    };
    let up = age(Duration::from_secs(state.uptime_seconds));
    printable(&format!(
        "scoregate {} · {stage} · up {up} · generation {}{lost}",
        state.version, state.generation
    ))
}

fn row(endpoint: &str, deployment: &DeploymentState) -> [String; 7] {
    let or_no_limit = |limit: Option<u32>| limit.map_or_else(|| "∞".to_owned(), |limit| limit.to_string());
    let auto = match deployment.slots.per_replica {
        Some(limit) if deployment.slots.auto => format!(" (auto: {limit} each)"),
        _ => String::new(),
    };
    let default = if deployment.default { " (default)" } else { "" };
    [
        printable(endpoint),
        printable(&format!("{}{default}", deployment.name)),
        format!("{} %", deployment.traffic.effective),
        format!("{}/{}{auto}", deployment.slots.busy, or_no_limit(deployment.slots.total)),
        deployment.queue.length.to_string(),
        deployment.desired.map_or_else(|| "-".to_owned(), |desired| desired.to_string()),
        replicas(deployment),
    ]
}

/// `2 ready, 1 starting`.
fn replicas(deployment: &DeploymentState) -> String {
    let counts = ReplicaState::ALL.iter().filter_map(|state| {
        let count = deployment.replicas.iter().filter(|replica| replica.state == *state).count();
        (count > 0).then(|| format!("{count} {}", state.as_str()))
    });
    let text = counts.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "none".to_owned() } else { text }
}

fn notes(endpoint: &str, deployment: &DeploymentState, now: SystemTime) -> Vec<String> {
    let who = format!("{endpoint}/{}", deployment.name);
    let decision = deployment.last_decision.iter().map(|last| {
        // A hostile or broken answer must not make the conversion panic.
        let at = Duration::try_from_secs_f64(last.at_unix_seconds).unwrap_or_default();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(at);
        let (from, to, since) = (last.from, last.to, age(since));
        let replicas = if to == 1 { "replica" } else { "replicas" };
        let change = if from == to { format!("stays at {to}") } else { format!("from {from} to {to}") };
        format!("{who}: {change} {replicas}, decided {since} ago: {}", last.reason)
    });
    let details = deployment.replicas.iter().filter_map(|replica| {
        let detail = replica.detail.as_ref()?;
        let standing = match replica.standing {
            Standing::Good => String::new(),
            standing => format!(" and {}", standing.as_str()),
        };
        let (name, address, state) = (&replica.name, &replica.address, replica.state.as_str());
        Some(format!("{who}: {name} ({address}) is {state}{standing}: {detail}"))
    });
    let bounds = deployment.bounds.iter().filter_map(|bounds| of_others(&who, bounds, now));
    bounds.chain(decision).chain(details).collect()
}

/// Bounds that are not the configuration's.
fn of_others(who: &str, bounds: &BoundsStatus, now: SystemTime) -> Option<String> {
    let BoundsStatus { min_instances: min, max_instances: max, by, schedule, until } = bounds;
    let whose = match by {
        BoundsBy::Configuration => return None,
        BoundsBy::Schedule => format!("the schedule `{}`", schedule.as_deref().unwrap_or_default()),
        BoundsBy::Operator => "an operator".to_owned(),
    };
    let range = if min == max { format!("at {min}") } else { format!("between {min} and {max}") };
    let left = until.map(|until| {
        let left = SystemTime::from(until).duration_since(now).unwrap_or_default();
        format!(" until {} (in {})", until.strftime("%Y-%m-%d %H:%M UTC"), Spoken(left))
    });
    Some(format!("{who}: held {range} by {whose}{}", left.unwrap_or_default()))
}

/// The two largest units.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Texts may come from model servers; a terminal must not obey them.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
