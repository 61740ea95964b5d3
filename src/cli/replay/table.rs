//! A replay as tables for people: one for each deployment, what happened beside what would have.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::{DeploymentReplayed, Replayed};
use crate::cli::admin::printable;
use crate::core::replay::Figures;

/// Writes it.
pub(super) fn write(replayed: &Replayed, out: &mut impl Write) -> io::Result<()> {
    for (what, lines) in [("lost", replayed.lost_lines), ("unreadable", replayed.unreadable_lines)] {
        if lines > 0 {
            writeln!(out, "{lines} lines of the recording are {what}; the figures lack what they said.")?;
        }
    }
    replayed.deployments.iter().try_for_each(|one| deployment(one, out))
}

fn deployment(one: &DeploymentReplayed, out: &mut impl Write) -> io::Result<()> {
    let name = printable(&format!("{}/{}", one.endpoint, one.deployment));
    writeln!(out, "\n{name}: {:.1} s recorded", one.seconds)?;
    let mut table = Table::new();
    let mut header = vec!["", "HAPPENED", "SIMULATED"];
    let mut columns = vec![&one.happened, &one.simulated];
    if let Some(changed) = &one.changed {
        header.push("WITH --set");
        columns.push(changed);
    }
    table.load_style(presets::NOTHING).set_header(header);
    for (what, of) in rows() {
        let values = columns.iter().map(|figures| of(figures));
        table.add_row(std::iter::once(what.to_owned()).chain(values));
    }
    for index in 1..=columns.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{}", table.trim_fmt())?;
    writeln!(out, "{}", verified(one))
}

type Row = (&'static str, fn(&Figures) -> String);

fn rows() -> [Row; 10] {
    [
        ("requests", |f| f.requests.to_string()),
        ("refused", |f| f.rejected.to_string()),
        ("left the queue", |f| f.left.to_string()),
        ("wait, mean", |f| format!("{:.1} ms", f.wait_mean_ms)),
        ("wait, p50", |f| format!("{:.1} ms", f.wait_p50_ms)),
        ("wait, p99", |f| format!("{:.1} ms", f.wait_p99_ms)),
        ("replica-seconds", |f| format!("{:.1}", f.replica_seconds)),
        ("most replicas asked for", |f| f.most_replicas.to_string()),
        ("changes of the number", |f| f.changes.to_string()),
        ("of these turned back", |f| f.turns.to_string()),
    ]
}

/// Whether the rule says what it said.
fn verified(one: &DeploymentReplayed) -> String {
    let verified = &one.verified;
    let begin = if verified.from_the_beginning {
        ""
    } else {
        " (its beginning is not recorded, so that it knew more then than it does now)"
    };
    match (verified.questions, verified.first) {
        (0, _) => "The scale rule was never asked.".to_owned(),
        (questions, None) => {
            format!(
                "Asked again with what it saw, the scale rule gives all {questions} answers that it gave."
            )
        }
        (questions, Some(first)) => format!(
            "Asked again with what it saw, the scale rule gives {} of {questions} answers differently, first {:.1} s \
             after the start: {} replicas, not {}{begin}.",
            verified.differences,
            first.t as f64 / 1e9,
            first.now,
            first.recorded,
        ),
    }
}
