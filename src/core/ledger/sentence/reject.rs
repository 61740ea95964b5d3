//! The sentence of a request that no replica had: what was there, and what the refusal turned on, with the numbers.

use std::fmt;

use super::{Millis, Named, trouble};
use crate::core::admission::Rival;
use crate::core::ledger::refusal::Whose;
use crate::core::ledger::{Grounds, Rejection, Seen};
use crate::core::wait::WaitSetting;
use crate::core::words::count;

impl Rejection {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, deployment: Option<&str>) -> fmt::Result {
        let whose = Named(&self.request, self.client_request.as_deref());
        if self.reason == "client_gone" {
            write!(f, "the client of {whose} left")?;
            self.write_wait(f)?;
            return f.write_str(", before a replica had it");
        }
        write!(f, "{whose} was refused")?;
        if let Some(status) = self.status {
            write!(f, " with {status}")?;
        }
        self.write_wait(f)?;
        f.write_str(": ")?;
        match &self.seen {
            Some(seen) => self.write_seen(f, seen, deployment)?,
            None => self.write_trouble(f)?,
        }
        let Some(ms) = self.retry_after_ms else { return Ok(()) };
        write!(f, "; it was told to come back in {}", Millis(ms as f64))?;
        match self.retry_after_seconds {
            Some(seconds) if seconds != ms.div_ceil(1_000) => write!(f, " (in whole seconds: {seconds})"),
            _ => Ok(()),
        }
    }

    fn write_wait(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.queue_ms > 0.0 {
            write!(f, " after {} in the queue", Millis(self.queue_ms))
        } else {
            f.write_str(" at once")
        }
    }

    /// What it turned on; where that is not known, what its code means.
    fn write_trouble(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.grounds {
            Some(grounds) => fmt::Display::fmt(grounds, f),
            None => f.write_str(trouble(&self.reason)),
        }
    }

    fn write_seen(&self, f: &mut fmt::Formatter<'_>, seen: &Seen, deployment: Option<&str>) -> fmt::Result {
        let of = deployment.map(|name| format!(" of {name}")).unwrap_or_default();
        match (seen.ready, seen.slots) {
            (0, _) => write!(f, "no replica{of} was ready")?,
            (_, Some(1)) if seen.busy == 0 => write!(f, "the one slot{of} was free")?,
            (_, Some(1)) => write!(f, "the one slot{of} was busy")?,
            (_, Some(slots)) if seen.busy >= slots => write!(f, "all {slots} slots{of} were busy")?,
            (_, Some(slots)) => write!(f, "{} of {slots} slots{of} were busy", seen.busy)?,
            (1, None) => write!(f, "one replica{of} was ready")?,
            (ready, None) => write!(f, "{ready} replicas{of} were ready")?,
        }
        let waiting = match seen.waiting {
            0 => "nobody else waited".to_owned(),
            1 => "one other request waited".to_owned(),
            waiting => format!("{waiting} others waited"),
        };
        match (self.reason.as_str(), seen.max_length) {
            ("queue_full", Some(most)) => {
                write!(f, " and {waiting}, as many as may (max_queue_length is {most})")
            }
            ("queue_timeout" | "no_ready_replica", _) => {
                let (most, setting) = (Millis(seen.max_wait_ms as f64), seen.max_wait_setting);
                let whose = match setting {
                    WaitSetting::ColdStart => "who comes while no replica is ready waits for at most",
                    WaitSetting::Queue => "nobody waits for longer than",
                };
                write!(f, " and {waiting}; {whose} {most} ({})", setting.as_str())
            }
            _ => {
                write!(f, " and {waiting}; ")?;
                self.write_trouble(f)
            }
        }
    }
}

impl fmt::Display for Grounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age { limit_ms } => write!(
                f,
                "the queue did not get shorter, so that the newest were served first, and those that had waited for more \
                 than {} were turned away (queue_order)",
                Millis(*limit_ms)
            ),
            Self::Deadline { left_ms, wait_ms, answer_ms } => {
                write_deadline(f, *left_ms, *wait_ms, *answer_ms)?;
                f.write_str(" (x-request-deadline-ms, or its client's own time-out)")
            }
            Self::Head { problem } => f.write_str(problem),
            Self::GaveWay(rival) => {
                f.write_str("the queue was full (max_queue_length), and its place went to a request ")?;
                match rival {
                    Rival::MoreImportant { class } => {
                        write!(f, "of the more important class {}", class.word())
                    }
                    Rival::Entitled { class } => {
                        write!(
                            f,
                            "of the class {}, which had less than its share of the places",
                            class.word()
                        )
                    }
                    Rival::FewerWaiting => {
                        f.write_str("of a caller of whom fewer were waiting than of its own (fair_share)")
                    }
                    Rival::Promised => {
                        f.write_str("that had been refused before, and came back when it was told to")
                    }
                }
            }
            Self::Limit { whose, name, setting, limit, burst, per } => {
                write_caller(f, *whose, name.as_deref())?;
                match (burst, per) {
                    (Some(burst), _) => write!(
                        f,
                        " sent more than {} a second, with {burst} at the same moment ({setting}, burst)",
                        count(*limit, "request")
                    ),
                    (None, Some(per)) => {
                        write!(
                            f,
                            " had used up its {} of the {per} (UTC; {setting})",
                            count(*limit, "request")
                        )
                    }
                    (None, None) => {
                        write!(
                            f,
                            " had {} under way, and may have no more at once ({setting})",
                            count(*limit, "request")
                        )
                    }
                }
            }
        }
    }
}

fn write_deadline(
    f: &mut fmt::Formatter<'_>,
    left_ms: f64,
    wait_ms: Option<f64>,
    answer_ms: f64,
) -> fmt::Result {
    let (left, answer) = (Millis(left_ms), Millis(answer_ms));
    match wait_ms.map(Millis) {
        _ if left_ms <= 0.0 => f.write_str("its deadline had passed"),
        None => write!(f, "{left} were left until its deadline, and an answer typically takes {answer}"),
        Some(wait) if answer_ms <= 0.0 => {
            write!(f, "{left} were left until its deadline, and it would have waited {wait} for a slot")
        }
        Some(wait) => write!(
            f,
            "{left} were left until its deadline, but it would have waited {wait} for a slot, and an answer typically \
             takes {answer} more"
        ),
    }
}

fn write_caller(f: &mut fmt::Formatter<'_>, whose: Whose, name: Option<&str>) -> fmt::Result {
    match (whose, name) {
        (Whose::Bearer, Some(subject)) => write!(f, "the bearer of tokens for {subject}"),
        (Whose::Bearer, None) => f.write_str("the bearers of tokens without a subject"),
        (Whose::Client, name) => write!(f, "client {}", name.unwrap_or("without a name")),
        (Whose::Keys, _) => f.write_str("the callers with one of the endpoint's own keys together"),
    }
}
