//! The line that shows a run while it goes on, drawn again and again on a terminal.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::generator::{Generator, Stage};
use super::plan::Plan;
use super::report::so_far;
use super::schedule::Length;
use super::table::milliseconds;
use super::tally::Tally;

/// Time between two drawings.
const PERIOD: Duration = Duration::from_millis(250);

/// Draws for ever.
pub(super) async fn show(generator: &Generator, start: Instant) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let text = line(&generator.plan, &generator.tally.borrow(), start.elapsed(), generator.stage.get());
        // A terminal that cannot be written to must not end the run.
        let _ = write!(io::stderr(), "\r{text}\x1b[K");
    }
}

/// Takes the line away.
pub(super) fn clear() {
    let _ = write!(io::stderr(), "\r\x1b[K");
}

/// Below 80 characters in all but extreme cases: a line that wraps cannot be drawn again.
fn line(plan: &Plan, tally: &Tally, elapsed: Duration, stage: Stage) -> String {
    let live = tally.live;
    if stage == Stage::Waiting {
        return format!("waiting for {} answers; Ctrl-C ends at once", live.in_flight());
    }
    let total = match plan.length {
        Length::Time(time) => format!("{} s", (plan.warm_up + time).as_secs_f64().ceil()),
        Length::Requests(requests) => format!("{requests} requests"),
    };
    let seconds = elapsed.as_secs_f64();
    let times = match so_far(&tally.latency) {
        _ if elapsed < plan.warm_up => "warming up".to_owned(),
        None => "no success yet".to_owned(),
        Some((p50, p99)) => format!("p50 {} p99 {} ms", milliseconds(p50), milliseconds(p99)),
    };
    format!(
        "{seconds:.0} s of {total} · sent {} · done {} · in flight {} · {:.0}/s · failed {} · {times}",
        live.sent,
        live.done,
        live.in_flight(),
        live.done as f64 / seconds.max(0.1),
        live.failed,
    )
}
