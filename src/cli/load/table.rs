//! The report for people: what was sent, a row for each kind of time, then what failed and who answered.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::histogram::Summary;
use super::report::Report;

/// Writes the report.
pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    headline(report, out)?;
    times(report, out)?;
    deployments(report, out)?;
    failures(report, out)?;
    for warning in &report.warnings {
        writeln!(out, "\nwarning: {warning}")?;
    }
    Ok(())
}

fn headline(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let Report { target, rate, achieved_rate, seconds, requests, .. } = report;
    let arrivals = report.seed.map_or_else(String::new, |seed| format!(", Poisson arrivals (seed {seed})"));
    let ended = if report.interrupted { ", ended early" } else { "" };
    writeln!(out, "{target}: {rate} requests/s for {seconds} s{arrivals}{ended}")?;
    let share = |part: u64| percent(part as f64 / requests.due.max(1) as f64);
    write!(
        out,
        "{} requests: {} succeeded ({})",
        requests.due,
        requests.succeeded,
        share(requests.succeeded)
    )?;
    if requests.failed > 0 {
        write!(out, ", {} failed ({})", requests.failed, share(requests.failed))?;
    }
    if requests.never_sent > 0 {
        write!(out, ", {} of them never sent", requests.never_sent)?;
    }
    writeln!(out, "; {achieved_rate:.1} successes/s")?;
    if !report.statuses.is_empty() {
        let statuses = report.statuses.iter().map(|(status, count)| format!("{status}: {count}"));
        writeln!(out, "status codes: {}", statuses.collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

fn times(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = new(&["MILLISECONDS", "P50", "P75", "P90", "P99", "P99.9", "MAX", "MEAN"]);
    let mut row = |name: &str, summary: Option<&Summary>| {
        if let Some(summary) = summary {
            let Summary { p50, p75, p90, p99, p99_9, max, mean, .. } = *summary;
            let cells = [p50, p75, p90, p99, p99_9, max, mean].map(milliseconds);
            table.add_row(std::iter::once(name.to_owned()).chain(cells));
        }
    };
    row("latency (from due)", report.latency_ms.as_ref());
    row("first byte (from due)", report.first_byte_ms.as_ref());
    if let Some(stream) = &report.stream {
        row("first event (from due)", stream.first_event_ms.as_ref());
        row("gap between events", stream.event_gap_ms.as_ref());
    }
    row("service time (from sent)", report.service_time_ms.as_ref());
    for (name, summary) in &report.server_timing_ms {
        row(&format!("  server says: {name}"), Some(summary));
    }
    row("  outside queue and model", report.outside_ms.as_ref());
    row("failed (from due)", report.failed_latency_ms.as_ref());
    row("waited for a place", report.generator.held_back_ms.as_ref());
    row("generator lag", report.generator.lag_ms.as_ref());
    if table.row_count() > 0 {
        writeln!(out, "\n{}", table.trim_fmt())?;
    }
    if let Some(events) = report.stream.and_then(|stream| stream.events_per_request) {
        let Summary { p50, p99, max, mean, .. } = events;
        writeln!(out, "\nevents per request: p50 {p50}, p99 {p99}, max {max}, mean {mean}")?;
    }
    Ok(())
}

fn deployments(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.deployments.is_empty() {
        return Ok(());
    }
    let mut table = new(&["DEPLOYMENT", "ANSWERS", "SHARE", "SUCCEEDED", "P50", "P99"]);
    for deployment in &report.deployments {
        let latency = |of: fn(&Summary) -> f64| {
            deployment.latency_ms.as_ref().map_or_else(|| "–".to_owned(), |summary| milliseconds(of(summary)))
        };
        table.add_row([
            deployment.name.clone(),
            deployment.answers.to_string(),
            percent(deployment.share),
            deployment.succeeded.to_string(),
            latency(|summary| summary.p50),
            latency(|summary| summary.p99),
        ]);
    }
    writeln!(out, "\n{}", table.trim_fmt())
}

fn failures(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.failures.is_empty() {
        return Ok(());
    }
    let mut table = new(&["FAILURE", "STATUS", "COUNT"]);
    for failures in &report.failures {
        let status = failures.status.map_or_else(|| "–".to_owned(), |status| status.to_string());
        table.add_row([failures.code.clone(), status, failures.count.to_string()]);
    }
    writeln!(out, "\n{}\n", table.trim_fmt())?;
    // Below the table: a sentence would make its columns too wide for a terminal.
    report.failures.iter().try_for_each(|failures| writeln!(out, "{}: {}", failures.code, failures.example))
}

/// A table whose columns, but the first, are numbers.
fn new(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().copied());
    for column in 1..columns.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Three digits that mean something.
pub(super) fn milliseconds(time: f64) -> String {
    match time {
        ..1.0 => format!("{time:.3}"),
        1.0..10.0 => format!("{time:.2}"),
        10.0..100.0 => format!("{time:.1}"),
        _ => format!("{time:.0}"),
    }
}

fn percent(share: f64) -> String {
    // Never 100 % of something that is not all, nor 0 % of something.
    let percent = (share * 1_000.0).round() / 10.0;
    if share > 0.0 && percent == 0.0 {
        return "<0.1 %".to_owned();
    }
    if share < 1.0 && percent == 100.0 {
        return ">99.9 %".to_owned();
    }
    if percent == percent.round() { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::load::report::tests::report;

    fn text(arguments: &[&str]) -> String {
        let mut out = Vec::new();
        write(&report(arguments), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn cells(text: &str, name: &str) -> Vec<String> {
        let row = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn a_table_says_what_was_sent_how_long_it_took_who_answered_and_what_failed() {
        let text = text(&[]);
        assert!(text.starts_with("http://127.0.0.1:8080/score: 50 requests/s for 10 s\n"), "{text}");
        assert!(
            text.contains("5 requests: 3 succeeded (60 %), 2 failed (40 %); 0.3 successes/s\n"),
            "{text}"
        );
        assert!(text.contains("status codes: 200: 3, 503: 2\n"), "{text}");
        assert_eq!(cells(&text, "latency")[..2], ["latency (from due)", "30.0"]);
        assert_eq!(cells(&text, "green"), ["green", "1", "20 %", "1", "40.0", "40.0"]);
        assert_eq!(cells(&text, "queue_full"), ["queue_full", "503", "2"]);
        assert!(text.contains("\nqueue_full: all replicas are busy\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn random_arrivals_name_their_seed() {
        assert!(text(&["--poisson", "--seed", "7"]).contains("Poisson arrivals (seed 7)"));
    }

    #[test]
    fn shares_are_never_rounded_up_to_all() {
        assert_eq!(percent(0.999_99), ">99.9 %");
        assert_eq!(percent(0.000_01), "<0.1 %");
        assert_eq!((percent(0.688_9), percent(0.0)), ("68.9 %".to_owned(), "0 %".to_owned()));
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.125), "12.5 %");
    }
}
