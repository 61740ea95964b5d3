//! A request as a worker's ring keeps it: what its record held, moved and not worked on, with a copy of its ids.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};

use crate::core::admission::Retry;
use crate::core::ledger::{
    Chosen, Entry, Grounds, LONGEST_ID, Question, Rejection, Route, Seen, What, millis,
};
use crate::core::retry::Tries;
use crate::core::settings::Name;
use crate::core::wait::until_return;
use crate::observe::access::Record;
use crate::observe::ledger::unix_seconds;

/// What a record tells of decisions, beside what the access log says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// Why the request came to its deployment.
    pub chosen: Option<Chosen>,
    /// Of a request that was refused: boxed, as most are not.
    pub refused: Option<Box<Refused>>,
    /// When the client was told to come back.
    pub retry_after: Option<Retry>,
}

/// What there is to tell of a refusal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refused {
    /// What was there when it was refused a slot.
    pub seen: Option<Seen>,
    /// What the refusal turned on.
    pub grounds: Option<Grounds>,
}

#[derive(Clone, Debug)]
pub(super) struct Passed {
    ended_at: SystemTime,
    endpoint: Option<Name>,
    deployment: Option<Name>,
    replica: Option<Arc<str>>,
    story: Story,
    tries: Tries,
    queue_time: Duration,
    total_time: Duration,
    status: Option<StatusCode>,
    reason: Option<&'static str>,
    id: Id,
    client_id: Id,
}

/// The last requests of one worker. Their places are made once and filled again and again, field by field: to build each
/// elsewhere and move it in costs three times as much.
#[derive(Debug)]
pub(super) struct Round {
    places: Box<[Passed]>,
    passed: u64,
}

impl Round {
    /// With so many places, at least one.
    pub(super) fn new(places: usize) -> Self {
        Self { places: (0..places.max(1)).map(|_| Passed::default()).collect(), passed: 0 }
    }

    /// Takes one in, for which the oldest goes when there is no room.
    pub(super) fn take(&mut self, record: &mut Record) {
        let place = (self.passed % self.places.len() as u64) as usize;
        if let Some(place) = self.places.get_mut(place) {
            place.fill(record);
        }
        self.passed += 1;
    }

    /// Those that are kept, the newest first.
    pub(super) fn newest_first(&self) -> impl ExactSizeIterator<Item = &Passed> {
        let places = self.places.len() as u64;
        let kept = self.passed.min(places) as usize;
        (0..kept).map(move |back| &self.places[((self.passed - 1 - back as u64) % places) as usize])
    }

    /// The one that goes next.
    pub(super) fn oldest(&self) -> Option<&Passed> {
        let kept = self.newest_first().len();
        self.newest_first().nth(kept.checked_sub(1)?)
    }

    /// How much there is and was.
    pub(super) fn size(&self) -> (usize, u64) {
        (self.places.len(), self.passed)
    }
}

impl Default for Passed {
    fn default() -> Self {
        Self {
            ended_at: SystemTime::UNIX_EPOCH,
            endpoint: None,
            deployment: None,
            replica: None,
            story: Story::default(),
            tries: Tries::default(),
            queue_time: Duration::ZERO,
            total_time: Duration::ZERO,
            status: None,
            reason: None,
            id: Id::NONE,
            client_id: Id::NONE,
        }
    }
}

impl Passed {
    fn fill(&mut self, record: &mut Record) {
        self.ended_at = record.started_at + record.total_time;
        self.id.set(record.request_id.as_ref());
        self.client_id.set(record.client_request_id.as_ref());
        self.endpoint = record.endpoint.take();
        self.deployment = record.deployment.take();
        self.replica = record.replica.take();
        self.story = std::mem::take(&mut record.story);
        self.tries = record.tries;
        self.queue_time = record.queue_time;
        self.total_time = record.total_time;
        self.status = record.status;
        self.reason = record.reason;
    }

    pub(super) fn at(&self) -> SystemTime {
        self.ended_at
    }

    /// Whether the question is about it, whatever its kind; without making anything of it.
    pub(super) fn is_asked(&self, question: &Question) -> bool {
        let same = |asked: &Option<String>, found: &Option<Name>| {
            asked.as_ref().is_none_or(|asked| {
                found.as_ref().is_some_and(|found| found.as_str().eq_ignore_ascii_case(asked))
            })
        };
        same(&question.endpoint, &self.endpoint)
            && same(&question.deployment, &self.deployment)
            && question.request.as_ref().is_none_or(|asked| {
                // Nobody's id is empty, and many have none.
                !asked.is_empty()
                    && [&self.id, &self.client_id].iter().any(|id| id.as_bytes() == asked.as_bytes())
            })
    }

    pub(super) fn entry(&self) -> Entry {
        let request = self.id.text().unwrap_or_default();
        let client_request = self.client_id.text();
        let (queue_ms, total_ms) = (millis(self.queue_time), millis(self.total_time));
        let status = self.status.map(|status| status.as_u16());
        let reason = self.reason.map(str::to_owned);
        let Story { chosen, refused, retry_after } = self.story.clone();
        let Refused { seen, grounds } = refused.map(|refused| *refused).unwrap_or_default();
        let what = match &self.replica {
            Some(replica) => What::sent(
                Route {
                    request,
                    client_request,
                    chosen,
                    share_now: None,
                    replica: replica.to_string(),
                    attempts: u32::from(self.tries.sent),
                    queue_ms,
                    total_ms,
                    status,
                    reason,
                },
                &self.tries,
            ),
            None => What::Reject(Rejection {
                request,
                client_request,
                chosen,
                reason: reason.unwrap_or_else(|| "answered".to_owned()),
                status,
                queue_ms,
                seen,
                grounds,
                retry_after_ms: retry_after.map(|retry| until_return(retry.wait)),
                retry_after_seconds: retry_after.map(|retry| retry.seconds),
            }),
        };
        Entry {
            at_unix_seconds: unix_seconds(self.ended_at),
            endpoint: self.endpoint.as_ref().map(ToString::to_string),
            deployment: self.deployment.as_ref().map(ToString::to_string),
            what,
        }
    }
}

/// An id in place. A header's value can be a piece of the buffer that its connection was read into, all of which it would
/// keep in memory.
#[derive(Clone, Copy)]
struct Id {
    length: u8,
    bytes: [u8; LONGEST_ID],
}

impl Id {
    const NONE: Self = Self { length: 0, bytes: [0; LONGEST_ID] };

    fn set(&mut self, value: Option<&HeaderValue>) {
        let value = value.map_or(&[][..], HeaderValue::as_bytes);
        let value = &value[..value.len().min(LONGEST_ID)];
        self.bytes[..value.len()].copy_from_slice(value);
        self.length = value.len() as u8;
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn text(&self) -> Option<String> {
        (self.length > 0).then(|| String::from_utf8_lossy(self.as_bytes()).into_owned())
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}
