//! The record of a request and the access log: one JSON line a request, lossy rather than blocking.
//!
//! A worker puts the line together and hands it to a bounded buffer; one thread writes. What does not fit is counted
//! and dropped. `line` decides what a line says, `text` how a value is spelled, `queue` how many lines wait, `writer`
//! how they reach the file.

mod line;
mod queue;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod writer;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};

use crate::core::identity::Identity;
use crate::core::retry::Tries;
use crate::core::settings::{AccessLogTarget, Name};
use line::Scratch;
use queue::Queue;
use writer::{Open, Writer};

/// What is known of a request at its end. Written once, by the data plane.
#[derive(Debug)]
pub struct Record {
    /// When its head had been read.
    pub started: Instant,
    /// The same on the wall clock.
    pub started_at: SystemTime,
    /// Method.
    pub method: Method,
    /// Path with query, as the client sent it.
    pub path: http::uri::PathAndQuery,
    /// Protocol version of the client.
    pub version: Version,
    /// Endpoint that the path or host named, where it exists.
    pub endpoint: Option<Name>,
    /// Deployment that served or was to serve.
    pub deployment: Option<Name>,
    /// Name of the replica that served.
    pub replica: Option<Arc<str>>,
    /// How often it was sent, and why more than once.
    pub tries: Tries,
    /// Who called.
    pub identity: Option<Identity>,
    /// Status sent to the client; `None` when the client had gone before.
    pub status: Option<StatusCode>,
    /// The router's reason code (`queue_full`, …) when the router made the answer or cut it short;
    /// `client_gone` when the client left.
    pub reason: Option<&'static str>,
    /// Status of the model's answer.
    pub model_status: Option<StatusCode>,
    /// `x-request-id`.
    pub request_id: Option<HeaderValue>,
    /// `x-ms-client-request-id`.
    pub client_request_id: Option<HeaderValue>,
    /// `user-agent`; the log cuts it to 70 characters.
    pub user_agent: Option<HeaderValue>,
    /// Bytes of the request's body that were passed on.
    pub request_bytes: u64,
    /// Bytes of the answer's body that were passed on.
    pub response_bytes: u64,
    /// From start to the question for a slot: authentication, route.
    pub route_time: Duration,
    /// In the queue.
    pub queue_time: Duration,
    /// Opening connections to replicas; zero on a pooled one.
    pub connect_time: Duration,
    /// From hand-over to the head of the model's answer; `None` when there was none.
    pub model_time: Option<Duration>,
    /// From the head of the answer to its last byte.
    pub body_time: Duration,
    /// From start to the last byte.
    pub total_time: Duration,
}

impl Record {
    /// What the router itself added: the total without the queue, opening connections, the model and the
    /// transfer of the answer. `None` when no model answered: then the total may hold a wait for the model
    /// that `model_time` does not say.
    pub fn overhead(&self) -> Option<Duration> {
        let model = self.model_time?;
        let others = self.queue_time + self.connect_time + model + self.body_time;
        Some(self.total_time.saturating_sub(others))
    }
}

/// Bytes that may wait for the writer: at 20,000 requests a second room for 0.25 s of a slow disk.
const QUEUE: usize = 4 << 20;

/// Longest wait for the writer when the last handle is dropped: a reader of standard output that has stopped
/// must not keep the process alive.
const LONGEST_GOODBYE: Duration = Duration::from_secs(5);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The access log; clones write to the same one. When the last clone is dropped, what is queued is written.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Handle>>);

impl AccessLog {
    /// Opens the target and starts the writer's thread; `Off` starts none.
    ///
    /// # Errors
    /// The file cannot be opened for appending (the error names it), or there is no thread to be had.
    pub fn start(target: &AccessLogTarget) -> io::Result<Self> {
        match target {
            AccessLogTarget::File(path) => {
                let file = open(path)?;
                let path: PathBuf = path.clone();
                Self::with_writer(file, QUEUE, Some(Box::new(move || open(&path))))
            }
            AccessLogTarget::Off => Ok(Self::off()),
            AccessLogTarget::Stdout => Self::with_writer(io::stdout(), QUEUE, None),
        }
    }

    /// A log that takes records and writes nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Takes a record for writing; never waits for the target. A record that finds the queue full is dropped and
    /// counted.
    pub fn log(&self, record: &Record) {
        let Some(handle) = &self.0 else { return };
        let queue = &handle.queue;
        // Put together outside the queue's lock, so that workers share nothing but the copy.
        let done = SCRATCH.try_with(|scratch| queue.push(scratch.borrow_mut().line(record)));
        if done.is_err() {
            // A thread that is ending has no scratch any more.
            queue.push(Scratch::default().line(record));
        }
    }

    /// Lines that were not written so far: the queue was full, or writing failed.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |handle| handle.queue.lost())
    }

    /// Opens the file again by its name, after log rotation has moved it; what was logged before goes to the old one.
    /// When that fails, the old file stays in use.
    pub fn reopen(&self) {
        if let Some(handle) = &self.0 {
            handle.queue.reopen();
        }
    }

    fn with_writer<W: Write + Send + 'static>(
        target: W,
        bound: usize,
        open: Option<Open<W>>,
    ) -> io::Result<Self> {
        let (ended, wait_ended) = sync_channel(1);
        let queue = Arc::new(Queue::new(bound));
        let writer = Writer::new(target, open, Arc::clone(&queue));
        Builder::new().name("access-log".into()).spawn(move || {
            writer.run();
            // The other side may have stopped waiting.
            let _ = ended.try_send(());
        })?;
        Ok(Self(Some(Arc::new(Handle { queue, ended: wait_ended.into() }))))
    }
}

/// The side of the writer that the process holds.
#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
    /// In a lock only because a receiver cannot be shared; locked once, at the end.
    ended: std::sync::Mutex<Receiver<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
        if let Ok(ended) = self.ended.get_mut()
            && ended.recv_timeout(LONGEST_GOODBYE).is_err()
        {
            tracing::error!("the access log's target takes nothing; the lines that still waited are lost");
        }
    }
}

/// Readable by its owner and group only: the lines say who called.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open the access log {}: {error}", path.display()))
    })
}
