//! The record of a request and the access log: one JSON line a request, lossy rather than blocking.
//!
//! A worker hands a record to a bounded channel; one thread writes. What does not fit is counted and dropped.
//! `line` decides what a line says, `writer` how lines reach the file.

mod line;
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};

use crate::core::identity::Identity;
use crate::core::settings::{AccessLogTarget, Name};
use line::Entry;
use writer::{Shared, Writer};

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

/// Records that may wait for the writer: at 20,000 requests a second room for 0.4 s of a slow disk, usually in
/// about 4 MB (the texts of an entry are bounded).
const QUEUE: usize = 8_192;

/// Longest wait for the writer when the last handle is dropped: a reader of standard output that has stopped
/// must not keep the process alive.
const LONGEST_GOODBYE: Duration = Duration::from_secs(5);

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

    /// Takes a record for writing; never waits. A record that finds the queue full is dropped and counted.
    pub fn log(&self, record: &Record) {
        if let Some(handle) = &self.0 {
            handle.send(Message::Entry(Box::new(Entry::new(record))));
        }
    }

    /// Lines that were not written so far: the queue was full, or writing failed.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |handle| handle.shared.lost.load(Ordering::Relaxed))
    }

    /// Opens the file again by its name, after log rotation has moved it. When that fails, the old file stays in use.
    pub fn reopen(&self) {
        if let Some(handle) = &self.0 {
            handle.shared.reopen.store(true, Ordering::Release);
            // Where the queue is full, the writer sees the flag at the next line anyway.
            if let Some(sender) = &handle.sender {
                let _ = sender.try_send(Message::Wake);
            }
            handle.unpark();
        }
    }

    fn with_writer<W: Write + Send + 'static>(
        target: W,
        queue: usize,
        open: Option<Box<dyn FnMut() -> io::Result<W> + Send>>,
    ) -> io::Result<Self> {
        let (sender, entries) = sync_channel(queue);
        let (ended, wait_ended) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let writer = Writer::new(target, open, Arc::clone(&shared));
        let thread = Builder::new().name("access-log".into()).spawn(move || {
            writer.run(&entries);
            // The other side may have stopped waiting.
            let _ = ended.try_send(());
        })?;
        Ok(Self(Some(Arc::new(Handle { sender: Some(sender), shared, thread, ended: wait_ended.into() }))))
    }
}

/// What goes to the writer.
enum Message {
    Entry(Box<Entry>),
    /// Look at the flags.
    Wake,
}

/// The side of the writer that the process holds.
#[derive(Debug)]
struct Handle {
    /// `None` only while it is dropped.
    sender: Option<SyncSender<Message>>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// In a lock only because a receiver cannot be shared; locked once, at the end.
    ended: std::sync::Mutex<Receiver<()>>,
}

impl Handle {
    fn send(&self, message: Message) {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.try_send(message).is_ok());
        if !sent {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unpark(&self) {
        self.thread.thread().unpark();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.sender = None;
        self.unpark();
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::core::identity::AuthType;

    /// A request that a model answered with 200.
    pub(crate) fn record() -> Record {
        Record {
            started: Instant::now(),
            started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            method: Method::POST,
            path: "/api/v1/endpoint/demo/score?sig=secret".parse().unwrap(),
            version: Version::HTTP_11,
            endpoint: Some(Name::parse("demo").unwrap()),
            deployment: Some(Name::parse("blue").unwrap()),
            replica: Some("blue-1".into()),
            identity: Some(Identity { auth: AuthType::Key, subject: Some("primary".into()) }),
            status: Some(StatusCode::OK),
            reason: None,
            model_status: Some(StatusCode::OK),
            request_id: Some(HeaderValue::from_static("r-1")),
            client_request_id: None,
            user_agent: None,
            request_bytes: 10,
            response_bytes: 20,
            route_time: Duration::from_micros(15),
            queue_time: Duration::from_millis(2),
            connect_time: Duration::from_millis(1),
            model_time: Some(Duration::from_millis(40)),
            body_time: Duration::from_millis(7),
            total_time: Duration::from_micros(50_025),
        }
    }

    /// What was written, and one answer for each call of `write`.
    struct Scripted {
        written: Arc<Mutex<Vec<u8>>>,
        /// Told of each call before it is answered.
        called: Sender<()>,
        /// How many bytes to take, or the failure; everything once the script is over.
        script: Receiver<io::Result<usize>>,
    }

    struct Script {
        written: Arc<Mutex<Vec<u8>>>,
        called: Receiver<()>,
        answers: Sender<io::Result<usize>>,
    }

    fn scripted() -> (Scripted, Script) {
        let written = Arc::default();
        let (called, wait_called) = channel();
        let (answers, script) = channel();
        let writer = Scripted { written: Arc::clone(&written), called, script };
        (writer, Script { written, called: wait_called, answers })
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.called.send(());
            let count = self.script.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(written: &Mutex<Vec<u8>>) -> Vec<String> {
        String::from_utf8(written.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_slow_target_loses_exactly_what_does_not_fit_and_never_blocks() {
        let (writer, script) = scripted();
        let log = AccessLog::with_writer(writer, 4, None).unwrap();
        log.log(&record());
        // The writer stands inside `write`, so the queue is empty.
        script.called.recv().unwrap();
        for _ in 0..11 {
            log.log(&record());
        }
        assert_eq!(log.lost(), 7);
        drop(script.answers);
        drop(log);
        assert_eq!(lines(&script.written).len(), 1 + 4);
    }

    #[test]
    fn a_full_disk_loses_whole_lines_counts_them_and_heals() {
        let (writer, script) = scripted();
        let log = AccessLog::with_writer(writer, 64, None).unwrap();
        log.log(&record());
        script.called.recv().unwrap();
        log.log(&record());
        log.log(&record());
        script.answers.send(Ok(10)).unwrap();
        script.answers.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        script.called.recv().unwrap();
        // The next batch holds two lines and is lost whole, with the line break before it.
        script.called.recv().unwrap();
        assert_eq!(log.lost(), 1);
        script.answers.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        drop(script.answers);
        let handle = Arc::clone(&log.0.as_ref().unwrap().shared);
        log.log(&record());
        drop(log);
        assert_eq!(handle.lost.load(Ordering::Relaxed), 3);
        let lines = lines(&script.written);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0].len(), 10);
        assert!(serde_json::from_str::<serde_json::Value>(&lines[1]).is_ok(), "{lines:?}");
    }

    #[test]
    fn reopening_goes_on_in_the_new_file_and_keeps_the_old_one_where_that_fails() {
        let (first, old) = scripted();
        let (second, new) = scripted();
        let mut targets = vec![Err(io::ErrorKind::PermissionDenied.into()), Ok(second)].into_iter();
        let open = move || targets.next().unwrap();
        let log = AccessLog::with_writer(first, 64, Some(Box::new(open))).unwrap();
        drop((old.answers, new.answers));
        log.log(&record());
        old.called.recv().unwrap();
        log.reopen();
        log.log(&record());
        old.called.recv().unwrap();
        log.reopen();
        log.log(&record());
        new.called.recv().unwrap();
        drop(log);
        assert_eq!((lines(&old.written).len(), lines(&new.written).len()), (2, 1));
    }

    #[test]
    fn a_file_is_appended_to_and_what_is_queued_is_written_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        for _ in 0..2 {
            let log = AccessLog::start(&AccessLogTarget::File(path.clone())).unwrap();
            let clone = log.clone();
            for _ in 0..500 {
                clone.log(&record());
            }
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1_000);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = AccessLog::start(&AccessLogTarget::File("/nowhere/access.log".into())).unwrap_err();
        assert!(error.to_string().contains("/nowhere/access.log"), "{error}");
    }

    #[test]
    fn the_overhead_is_what_nobody_else_took() {
        assert_eq!(record().overhead(), Some(Duration::from_micros(25)));
        let unanswered = Record { model_time: None, total_time: Duration::from_secs(5), ..record() };
        assert_eq!(unanswered.overhead(), None, "the wait for a silent model is not the router's");
    }
}
