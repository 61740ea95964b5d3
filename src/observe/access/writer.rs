//! The access log's thread: gathers lines into batches, writes them, and counts exactly what was lost.
//!
//! A failing target (disk full, closed pipe) is reported once for each spell of failure and never stops the process.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use super::Message;

/// Lines are written when this many bytes have come together, and whenever there is nothing more to take.
const BATCH: usize = 32 * 1024;

/// Pause between two looks at the queue under load. While the thread pauses, a worker that sends a record need
/// not wake it, which saves a system call for each request.
const PAUSE: Duration = Duration::from_millis(20);

/// What the writer shares with the handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Lines that were not written.
    pub(super) lost: AtomicU64,
    /// The file is to be opened again.
    pub(super) reopen: AtomicBool,
}

/// The state of the thread.
pub(super) struct Writer<W> {
    target: W,
    open: Option<Box<dyn FnMut() -> io::Result<W> + Send>>,
    shared: Arc<Shared>,
    /// Whole lines.
    batch: Vec<u8>,
    /// The target ends in the middle of a line.
    torn: bool,
    /// Writing failed the last time.
    failing: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(
        target: W,
        open: Option<Box<dyn FnMut() -> io::Result<W> + Send>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { target, open, shared, batch: Vec::with_capacity(BATCH), torn: false, failing: false }
    }

    /// Writes until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            self.take(&first);
            // From here on the thread looks by itself, until one pause has passed without a message.
            let mut busy = true;
            while busy {
                busy = false;
                loop {
                    match messages.try_recv() {
                        Ok(message) => {
                            self.take(&message);
                            busy = true;
                        }
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => return self.flush(),
                    }
                }
                self.flush();
                thread::park_timeout(PAUSE);
            }
        }
    }

    fn take(&mut self, message: &Message) {
        if self.shared.reopen.swap(false, Ordering::AcqRel) {
            self.reopen();
        }
        if let Message::Entry(entry) = message {
            entry.write_to(&mut self.batch);
            if self.batch.len() >= BATCH {
                self.flush();
            }
        }
    }

    fn reopen(&mut self) {
        // What has been taken so far was logged before the call.
        self.flush();
        match self.open.as_mut().map(|open| open()) {
            Some(Ok(target)) => {
                self.target = target;
                self.torn = false;
            }
            Some(Err(error)) => tracing::error!(%error, "the access log goes on in the old file"),
            None => {}
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.torn {
            self.batch.insert(0, b'\n');
        }
        let (written, result) = write_some(&mut self.target, &self.batch);
        if let Some(last) = written.checked_sub(1) {
            self.torn = self.batch[last] != b'\n';
        }
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(
                    lost = self.shared.lost.load(Ordering::Relaxed),
                    "the access log is written again"
                );
            }
            Ok(()) => {}
            Err(error) => {
                let lines = self.batch[written..].iter().filter(|byte| **byte == b'\n').count();
                // The line break that heals a torn line is not a line of its own.
                let lines = lines - usize::from(written == 0 && self.batch[0] == b'\n');
                self.shared.lost.fetch_add(lines as u64, Ordering::Relaxed);
                if !self.failing {
                    self.failing = true;
                    tracing::error!(%error, lines, "the access log cannot be written; lines are lost and counted");
                }
            }
        }
        self.batch.clear();
    }
}

/// Like `write_all` and `flush`, but says how far it came.
fn write_some(target: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match target.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, target.flush())
}
