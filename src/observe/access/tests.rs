//! The log as a whole: what reaches the target, and what is counted as lost.

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
        tries: Tries { sent: 1, ..Tries::default() },
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
        let mut count = self.script.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
        // A line that lacks nothing but its line break would be whole as soon as the next one begins.
        if bytes.get(count) == Some(&b'\n') {
            count -= 1;
        }
        self.written.lock().unwrap().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of the line of `record()`.
fn length() -> usize {
    Scratch::default().line(&record()).len()
}

fn lines(written: &Mutex<Vec<u8>>) -> Vec<String> {
    String::from_utf8(written.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_slow_target_loses_exactly_what_does_not_fit_and_never_blocks() {
    let (writer, script) = scripted();
    let log = AccessLog::with_writer(writer, 4 * length() + 10, None).unwrap();
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
    let log = AccessLog::with_writer(writer, QUEUE, None).unwrap();
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
    let queue = Arc::clone(&log.0.as_ref().unwrap().queue);
    log.log(&record());
    drop(log);
    assert_eq!(queue.lost(), 3);
    let lines = lines(&script.written);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0].len(), 10);
    assert!(serde_json::from_str::<serde_json::Value>(&lines[1]).is_ok(), "{lines:?}");
}

#[test]
fn a_torn_line_is_ended_once() {
    let (writer, script) = scripted();
    let log = AccessLog::with_writer(writer, QUEUE, None).unwrap();
    let full = || Err(io::ErrorKind::StorageFull.into());
    // A piece of the first line; the line break and nothing of the second.
    for answer in [Ok(10), full(), Ok(1), full()] {
        script.answers.send(answer).unwrap();
    }
    for _ in 0..2 {
        log.log(&record());
        script.called.recv().unwrap();
        script.called.recv().unwrap();
    }
    drop(script.answers);
    log.log(&record());
    drop(log);
    let written = lines(&script.written);
    assert_eq!(written.iter().map(String::len).collect::<Vec<_>>(), [10, length() - 1]);
}

#[test]
fn reopening_goes_on_in_the_new_file_and_keeps_the_old_one_where_that_fails() {
    let (first, old) = scripted();
    let (second, new) = scripted();
    let mut targets = vec![Err(io::ErrorKind::PermissionDenied.into()), Ok(second)].into_iter();
    let open = move || targets.next().unwrap();
    let log = AccessLog::with_writer(first, QUEUE, Some(Box::new(open))).unwrap();
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
fn what_was_logged_before_reopening_goes_to_the_old_file_and_the_rest_to_the_new_one() {
    let (first, old) = scripted();
    let (second, new) = scripted();
    let mut second = Some(second);
    let open = move || Ok(second.take().unwrap());
    let log = AccessLog::with_writer(first, QUEUE, Some(Box::new(open))).unwrap();
    log.log(&record());
    old.called.recv().unwrap();
    // The writer stands in the old file.
    log.log(&record());
    log.log(&record());
    log.reopen();
    log.log(&record());
    drop((old.answers, new.answers));
    drop(log);
    assert_eq!((lines(&old.written).len(), lines(&new.written).len()), (3, 1));
}

#[test]
fn an_idle_log_writes_the_next_line_by_itself() {
    let (writer, script) = scripted();
    let log = AccessLog::with_writer(writer, QUEUE, None).unwrap();
    drop(script.answers);
    for pause in [0, 1, 60, 19, 20, 21, 60] {
        // Before, in and after the writer's pause.
        std::thread::park_timeout(Duration::from_millis(pause));
        log.log(&record());
        script.called.recv_timeout(Duration::from_secs(10)).expect("the line is written");
    }
    drop(log);
    assert_eq!(lines(&script.written).len(), 7);
}

#[test]
fn many_threads_lose_whole_lines_only_and_every_line_is_written_or_counted() {
    const THREADS: u64 = 4;
    const LINES: u64 = 5_000;
    let (writer, script) = scripted();
    let log = AccessLog::with_writer(writer, 50 * length(), None).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = log.clone();
            scope.spawn(move || {
                for line in 0..LINES {
                    log.log(&Record { request_bytes: thread, response_bytes: line, ..record() });
                }
            });
        }
        // Takes some lines whole, some in pieces, and fails in the middle of one now and then.
        for turn in 0..600 {
            let answer =
                if turn % 7 == 6 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(1_000 + turn) };
            script.answers.send(answer).unwrap();
        }
        drop(script.answers);
    });
    let queue = Arc::clone(&log.0.as_ref().unwrap().queue);
    drop(log);
    let lines = lines(&script.written);
    let whole = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut next = [0; THREADS as usize];
    let mut count = 0;
    for line in whole {
        // Of each thread in its order.
        let next = &mut next[line["RequestPayloadSize"].as_u64().unwrap() as usize];
        let number = line["ResponsePayloadSize"].as_u64().unwrap();
        assert!(number >= *next, "{line}");
        *next = number + 1;
        count += 1;
    }
    assert!(queue.lost() > 0 && count > 0);
    assert_eq!(count + queue.lost(), THREADS * LINES);
}

#[test]
fn a_thread_that_is_ending_still_logs() {
    struct AtTheEnd(AccessLog);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            self.0.log(&record());
        }
    }
    thread_local!(static LAST: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) });
    let (writer, script) = scripted();
    let log = AccessLog::with_writer(writer, QUEUE, None).unwrap();
    drop(script.answers);
    let moved = log.clone();
    std::thread::spawn(move || {
        // What is used first is dropped last, so this goes after the scratch.
        LAST.set(Some(AtTheEnd(moved)));
        LAST.with_borrow(|last| last.as_ref().unwrap().0.log(&record()));
    })
    .join()
    .unwrap();
    drop(log);
    assert_eq!(lines(&script.written).len(), 2);
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
