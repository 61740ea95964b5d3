//! The sentence of a change of the number of replicas, for whoever does not know the rules' words.

use std::fmt::{self, Write as _};

use serde_json::Value;

use crate::core::ledger::Scale;

impl Scale {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, whose: &str) -> fmt::Result {
        let plural = if self.to == 1 { "" } else { "s" };
        if self.from == self.to {
            write!(f, "{whose}: stays at {} replica{plural}, because ", self.to)?;
        } else {
            write!(f, "{whose}: from {} to {} replica{plural}, because ", self.from, self.to)?;
        }
        f.write_str(&self.in_plain_words().unwrap_or_else(|| self.because.clone()))
    }

    /// The rule's own words put plainly, where those are for people who know it; the numbers are those of the reason. What
    /// stands before them (an operator's or a schedule's word) stays.
    fn in_plain_words(&self) -> Option<String> {
        let (begins, plain) = match self.reason.get("kind").and_then(Value::as_str)? {
            "over" => (format!("{} busy", self.number("busy")?), self.over()?),
            "adaptive" => ("offered load ".to_owned(), self.adaptive()?),
            "lower" => (format!("{} busy", self.reason["sample"]["busy"].as_u64()?), self.lower()?),
            _ => return None,
        };
        let (before, _) = self.because.split_once(&begins)?;
        Some(format!("{before}{plain}"))
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.reason.get(key).and_then(Value::as_f64)
    }

    /// Of a load over its target, for whoever does not know what is busy, queued and turned away.
    fn over(&self) -> Option<String> {
        let busy = self.number("busy")?;
        let (slots, needed, target) =
            (self.number("slots")?, self.number("needed")?, self.number("target_percent")?);
        let requests = |count: f64| {
            if count == 1.0 { "1 request was".to_owned() } else { format!("{count} requests were") }
        };
        let mut text = format!("{} running", requests(busy));
        if let Some(queued) = self.number("queued") {
            let _ = write!(text, " and {queued} waiting");
        }
        let _ = match slots {
            0.0 => write!(text, " and there was no replica"),
            1.0 => write!(text, " for 1 slot"),
            slots => write!(text, " for {slots} slots"),
        };
        if let Some(ghosts) = self.number("ghosts").filter(|ghosts| *ghosts >= 0.5) {
            let _ = write!(text, ", and {ghosts:.0} had been turned away that would still run");
        }
        let replicas = if needed == 1.0 { "replica" } else { "replicas" };
        let _ = write!(
            text,
            "; to have at most {target} % of the slots in use, {needed} {replicas} would be needed"
        );
        if let Some(max) = self.number("max").filter(|max| needed > *max) {
            let _ = write!(text, ", of which {max} are allowed");
        }
        Some(text)
    }

    /// Of fewer that were enough for long.
    fn lower(&self) -> Option<String> {
        let (peak, window) = (self.number("peak")?, self.number("window")?);
        let sample = |key: &str| self.reason["sample"][key].as_u64();
        let (busy, slots) = (sample("busy")?, sample("slots")?);
        let replicas = if peak == 1.0 { "replica was" } else { "replicas were" };
        let mut text = format!(
            "{peak} {replicas} enough at any time in the {window} s before; {busy} of {slots} slots were busy"
        );
        if let Some(queued) = sample("queued") {
            let _ = write!(text, ", and {queued} requests waited");
        }
        Some(text)
    }

    /// Of the rule `adaptive`: how much comes, what that keeps busy, and what is put by for chance; first what ran or waited at
    /// one time, if it was that which decided. What else had a say stands behind a semicolon in the rule's own sentence.
    fn adaptive(&self) -> Option<String> {
        let waiting = self.number("waiting")?;
        if self.from == 0 && waiting > 0.0 {
            let requests = if waiting == 1.0 { "request" } else { "requests" };
            return Some(format!("{waiting} {requests} waited and there was no replica"));
        }
        let (rate, service) = (self.number("arrivals_per_second")?, self.number("service")?);
        let (offered, margin) = (self.number("offered")?, self.number("margin")?);
        let mut parts = self.because.split_once(" = ")?.1.split("; ");
        let by_average = parts.next()?;
        let others: Vec<_> = parts.collect();
        let mut text = String::new();
        if others.iter().any(|other| other.starts_with("most that ran")) {
            let _ = write!(
                text,
                "up to {} requests ran, waited or were turned away at one time in the 60 s before; on average it would be less: ",
                self.number("recent")?.ceil()
            );
        }
        let _ = write!(
            text,
            "{rate:.1} requests a second came, each of which takes {service:.2} s, so that {offered:.1} slots are busy on \
             average; with {margin:.1} more for what chance adds, that is {by_average}"
        );
        for other in others.iter().filter(|other| !other.starts_with("most that ran")) {
            let _ = write!(text, "; {other}");
        }
        Some(text)
    }
}
