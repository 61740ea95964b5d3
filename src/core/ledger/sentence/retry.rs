//! The sentence of a request that was sent more than once, or would have been: that of its way, with why and why not.

use std::collections::BTreeMap;
use std::fmt;

use super::ordinal;
use crate::core::ledger::Retry;
use crate::core::retry::{Cause, Denied, Hedge};

impl Retry {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, deployment: &str) -> fmt::Result {
        self.route.write_way(f, deployment)?;
        let elsewhere = elsewhere(&self.again);
        let others: u32 = elsewhere.iter().map(|(_, count)| count).sum();
        if others > 0 && self.not_again.is_none() {
            // A second copy that failed was tried as well.
            let copies = u32::from(self.second_copy == Some(Hedge::Failed));
            write!(f, ", the {} replica that was tried, because ", ordinal(others + copies + 1))?;
            write_failures(f, &elsewhere)?;
        }
        if self.second_copy == Some(Hedge::Won) {
            f.write_str(", with its second copy")?;
        }
        self.route.write_end(f)?;
        if self.again.contains_key(&Cause::Stale) {
            f.write_str(
                "; the replica had closed the connection that was kept for it, so it was sent over another",
            )?;
        }
        f.write_str(match self.second_copy {
            None => "",
            Some(Hedge::Won) => "; its answer was late, and the second copy answered first",
            Some(Hedge::Lost) => "; its answer was late, but came before that to the second copy",
            Some(Hedge::Failed) => "; its answer was late, and a second copy brought none",
            Some(Hedge::Yielded) => {
                "; its answer was late, and the second copy was given up because another request had to wait"
            }
        })?;
        let Some(denied) = self.not_again else { return Ok(()) };
        if others > 0 {
            let times = if others == 1 { "once".to_owned() } else { format!("{others} times") };
            write!(f, "; it had been sent to another replica {times}, because ")?;
            write_failures(f, &elsewhere)?;
            f.write_str(", and")?;
        } else {
            f.write_str("; it")?;
        }
        write!(f, " was not sent again: {}", why_not(denied))
    }
}

/// The causes for which it went to another replica.
fn elsewhere(again: &BTreeMap<Cause, u16>) -> Vec<(&'static str, u32)> {
    let failures = again.iter().filter_map(|(cause, count)| {
        let what = match cause {
            Cause::Broken => "broke the connection",
            Cause::Unavailable => "answered 502 or 503",
            Cause::Unreachable => "could not be reached",
            Cause::Stale => return None,
        };
        Some((what, u32::from(*count)))
    });
    failures.collect()
}

/// `the first broke the connection`, `one broke the connection and 2 could not be reached`.
fn write_failures(f: &mut fmt::Formatter<'_>, failures: &[(&str, u32)]) -> fmt::Result {
    for (place, (what, count)) in failures.iter().enumerate() {
        match place {
            0 => {}
            _ if place + 1 == failures.len() => f.write_str(" and ")?,
            _ => f.write_str(", ")?,
        }
        match count {
            1 if failures.len() == 1 => write!(f, "the first {what}")?,
            1 => write!(f, "one {what}")?,
            count => write!(f, "{count} {what}")?,
        }
    }
    Ok(())
}

fn why_not(denied: Denied) -> &'static str {
    match denied {
        Denied::Attempts => "it had been sent as often as it may be (retry.attempts)",
        Denied::Body => "its body was too large to be kept, or not all there",
        Denied::Budget => "the budget of copies is used up (retry.budget_percentage)",
        Denied::NoIdleSlot => "no other replica had an idle slot, or somebody waited for one",
        Denied::Time => "its time was used up (request_timeout_ms)",
    }
}
