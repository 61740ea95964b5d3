//! The sentences of entries: for people who do not know the code, with the numbers that decided.

mod retry;

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::{Chosen, Entry, Rejection, Route, Scale, Seen, Standing, What};

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = self.deployment.as_deref().or(self.endpoint.as_deref());
        match &self.what {
            What::Route(route) => route.write(f, self.deployment.as_deref().unwrap_or("the deployment")),
            What::Reject(reject) => reject.write(f, self.deployment.as_deref()),
            What::Scale(scale) => scale.write(f, whose.unwrap_or("the deployment")),
            What::Standing(standing) => standing.write(f),
            What::Retry(retry) => retry.write(f, self.deployment.as_deref().unwrap_or("the deployment")),
        }
    }
}

impl Route {
    fn write(&self, f: &mut fmt::Formatter<'_>, deployment: &str) -> fmt::Result {
        self.write_way(f, deployment)?;
        self.write_end(f)
    }

    fn write_way(&self, f: &mut fmt::Formatter<'_>, deployment: &str) -> fmt::Result {
        write!(f, "request {} went to {deployment}", self.request)?;
        write_chosen(f, self.chosen, deployment, self.share_now)?;
        write!(f, " and had a slot of {}", self.replica)?;
        if self.queue_ms > 0.0 {
            write!(f, " after {} in the queue", Millis(self.queue_ms))
        } else {
            f.write_str(" at once")
        }
    }

    fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason.as_deref(), self.status) {
            (Some("client_gone"), _) => write!(f, "; its client left after {}", Millis(self.total_ms)),
            (Some(reason), Some(status)) => {
                write!(f, "; {} ({status}) after {}", trouble(reason), Millis(self.total_ms))
            }
            (Some(reason), None) => write!(f, "; {} after {}", trouble(reason), Millis(self.total_ms)),
            (None, Some(status)) => write!(f, "; answered with {status} after {}", Millis(self.total_ms)),
            (None, None) => write!(f, "; it ended after {}", Millis(self.total_ms)),
        }
    }
}

fn write_chosen(
    f: &mut fmt::Formatter<'_>,
    chosen: Option<Chosen>,
    deployment: &str,
    share: Option<f64>,
) -> fmt::Result {
    match (chosen, share) {
        (None, _) => Ok(()),
        (Some(Chosen::Header), _) => f.write_str(", which its header names,"),
        (Some(Chosen::Turn), None) => write!(f, ", whose turn it was in the traffic,"),
        (Some(Chosen::Turn), Some(share)) => {
            write!(f, " by its turn in the traffic, of which {deployment} has {share} % now,")
        }
    }
}

impl Rejection {
    fn write(&self, f: &mut fmt::Formatter<'_>, deployment: Option<&str>) -> fmt::Result {
        let whose = if self.request.is_empty() {
            "a request".to_owned()
        } else {
            format!("request {}", self.request)
        };
        let after = |f: &mut fmt::Formatter<'_>| {
            if self.queue_ms > 0.0 {
                write!(f, " after {} in the queue", Millis(self.queue_ms))
            } else {
                f.write_str(" at once")
            }
        };
        if self.reason == "client_gone" {
            write!(f, "the client of {whose} left")?;
            after(f)?;
            return f.write_str(", before a replica had it");
        }
        write!(f, "{whose} was refused")?;
        if let Some(status) = self.status {
            write!(f, " with {status}")?;
        }
        after(f)?;
        f.write_str(": ")?;
        match &self.seen {
            Some(seen) => self.write_seen(f, seen, deployment)?,
            None => f.write_str(trouble(&self.reason))?,
        }
        match self.retry_after_ms {
            Some(ms) => write!(f, "; it was told to come back in {}", Millis(ms as f64)),
            None => Ok(()),
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
                let most = Millis(seen.max_wait_ms as f64);
                write!(f, " and {waiting}; nobody waits for longer than {most} (max_queue_wait_ms)")
            }
            _ => write!(f, " and {waiting}; {}", trouble(&self.reason)),
        }
    }
}

impl Scale {
    fn write(&self, f: &mut fmt::Formatter<'_>, whose: &str) -> fmt::Result {
        let plural = if self.to == 1 { "" } else { "s" };
        if self.from == self.to {
            write!(f, "{whose}: {} replica{plural}, because ", self.to)?;
        } else {
            write!(f, "{whose}: from {} to {} replica{plural}, because ", self.from, self.to)?;
        }
        f.write_str(&self.in_plain_words().unwrap_or_else(|| self.because.clone()))
    }

    /// Of a load over its target, for whoever does not know what is busy, queued and turned away; the numbers are those of the
    /// reason. Others are plain already.
    fn in_plain_words(&self) -> Option<String> {
        let number = |key: &str| self.reason.get(key).and_then(Value::as_f64);
        let busy = number("busy").filter(|_| self.reason.get("kind").is_some_and(|kind| kind == "over"))?;
        let (slots, needed, target) = (number("slots")?, number("needed")?, number("target_percent")?);
        let requests = |count: f64| {
            if count == 1.0 { "1 request was".to_owned() } else { format!("{count} requests were") }
        };
        let mut text = format!("{} running", requests(busy));
        if let Some(queued) = number("queued") {
            let _ = write!(text, " and {queued} waiting");
        }
        let _ = match slots {
            0.0 => write!(text, " and there was no replica"),
            1.0 => write!(text, " for 1 slot"),
            slots => write!(text, " for {slots} slots"),
        };
        if let Some(ghosts) = number("ghosts").filter(|ghosts| *ghosts >= 0.5) {
            let _ = write!(text, ", and {ghosts:.0} had been turned away that would still run");
        }
        let replicas = if needed == 1.0 { "replica" } else { "replicas" };
        let _ = write!(
            text,
            "; to have at most {target} % of the slots in use, {needed} {replicas} would be needed"
        );
        if let Some(max) = number("max").filter(|max| needed > *max) {
            let _ = write!(text, ", of which {max} are allowed");
        }
        Some(text)
    }
}

impl Standing {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = if self.standing == "probation" { "on " } else { "" };
        write!(f, "{} is {on}{} from now on, because {}", self.replica, self.standing, self.because)
    }
}

/// What a reason code of `docs/status-codes.md` means, as half a sentence.
fn trouble(code: &str) -> &str {
    match code {
        "bad_request" => "its head is not one that can be passed on, or a header of it has no such value",
        "body_malformed" => "its body is not well-formed",
        "body_too_large" => "its body is over the limit (max_body_bytes)",
        "client_too_slow" => "its body did not arrive in time",
        "deadline_unmeetable" => "it could not be answered before its deadline",
        "draining" => "the router was shutting down",
        "forbidden" => "its credential is right, but not enough",
        "header_too_long" => "an id in its headers is over 100 characters",
        "method_not_allowed" => "the method is not allowed",
        "model_connection_broken" => "the replica broke the connection",
        "model_timeout" => "the replica did not answer in time (request_timeout_ms)",
        "no_ready_replica" => "no replica was ready",
        "no_traffic" => "no deployment takes traffic and it named none",
        "queue_full" => "the queue was as long as it may be (max_queue_length)",
        "quota_exceeded" => "its caller has used up its quota (limits.quota)",
        "queue_timeout" => "it had waited as long as it may (max_queue_wait_ms)",
        "rate_limited" => "its caller sends more often than it may (limits.requests_per_second)",
        "shed" => "it gave way to others, more important or newer ones (classes, queue_order)",
        "too_many_concurrent" => "its caller has as many requests under way as it may (limits.concurrency)",
        "unauthorized" => "its credential is missing or wrong",
        "unknown_deployment" => "its header names a deployment that is not there",
        "unknown_route" => "its path leads nowhere",
        other => other,
    }
}

fn ordinal(number: u32) -> String {
    match (number % 10, number % 100) {
        (1, rest) if rest != 11 => format!("{number}st"),
        (2, rest) if rest != 12 => format!("{number}nd"),
        (3, rest) if rest != 13 => format!("{number}rd"),
        _ => format!("{number}th"),
    }
}

/// Milliseconds as people say them: `0.4 ms`, `512 ms`, `1.2 s`.
struct Millis(f64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 10.0 => write!(f, "{} ms", (ms * 10.0).round() / 10.0),
            ms if ms < 1_000.0 => write!(f, "{ms:.0} ms"),
            ms => write!(f, "{} s", (ms / 100.0).round() / 10.0),
        }
    }
}
