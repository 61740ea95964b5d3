//! The sentences of entries: for people who do not know the code, with the numbers that decided.

mod reject;
mod retry;
mod scale;

use std::fmt;
use std::time::Duration;

use super::{Chosen, Entry, Route, Standing, What};
use crate::core::bounds::Spoken;

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
        write!(f, "{} went to {deployment}", Named(&self.request, self.client_request.as_deref()))?;
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

impl Standing {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = if self.standing == "probation" { "on " } else { "" };
        write!(f, "{} is {on}{} from now on, because {}", self.replica, self.standing, self.because)?;
        f.write_str(match self.standing.as_str() {
            "dead" => "; it is ended when it has nothing left to do, and another takes its place",
            "ejected" => "; it is given nothing, and the others carry the load",
            "failing" => "; it is given little, and last",
            "silent" => "; it is given nothing new until it answers",
            "slow" => "; it is given work last",
            _ => "",
        })
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
        "queue_timeout" => "it had waited as long as it may (max_queue_wait_ms, cold_start_wait_ms)",
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

/// A request by its ids: the router's, and the client's where that is another one.
struct Named<'a>(&'a str, Option<&'a str>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self("", None) => f.write_str("a request"),
            Self("", Some(client)) => write!(f, "request {client}"),
            Self(own, Some(client)) if client != own => {
                write!(f, "request {own} (its client's id: {client})")
            }
            Self(own, _) => write!(f, "request {own}"),
        }
    }
}

/// Milliseconds as people say them: `0.4 ms`, `512 ms`, `1.2 s`, `2 h 10 min`.
struct Millis(f64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 10.0 => write!(f, "{} ms", (ms * 10.0).round() / 10.0),
            ms if ms < 1_000.0 => write!(f, "{ms:.0} ms"),
            ms if ms < 120_000.0 => write!(f, "{} s", (ms / 100.0).round() / 10.0),
            ms => write!(f, "{}", Spoken(Duration::from_millis(ms as u64))),
        }
    }
}
