//! The writer's thread: takes what has come together, writes it, and counts exactly what was lost.
//!
//! A failing target (disk full, closed pipe) is reported once for each spell of failure and never stops the process.

use std::io::{self, Write};
use std::sync::Arc;

use super::queue::Queue;

/// What a buffer grew beyond this is given back when the disk is no longer slow.
const KEPT: usize = 1 << 20;

/// Opens the target anew.
pub(in crate::observe) type Open<W> = Box<dyn FnMut() -> io::Result<W> + Send>;

/// The state of the thread.
pub(super) struct Writer<W> {
    /// What messages call it.
    what: &'static str,
    target: W,
    open: Option<Open<W>>,
    queue: Arc<Queue>,
    /// The target ends in the middle of a line.
    torn: bool,
    /// Writing failed the last time.
    failing: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(what: &'static str, target: W, open: Option<Open<W>>, queue: Arc<Queue>) -> Self {
        Self { what, target, open, queue, torn: false, failing: false }
    }

    /// Writes until the queue is closed and empty.
    #[inline(never)] // A name for profiles and for the benches.
    pub(super) fn run(mut self) {
        // Two buffers change places: one is filled while the other is written.
        let mut spare = Queue::buffer();
        let mut had_lines = false;
        loop {
            let batch = self.queue.take(spare, had_lines);
            let (before, after) = batch.lines.split_at(batch.reopen_at.unwrap_or(0));
            self.write(before);
            if batch.reopen_at.is_some() {
                self.reopen();
            }
            self.write(after);
            if batch.closed {
                return;
            }
            let used = batch.lines.len();
            had_lines = used > 0;
            spare = batch.lines;
            spare.clear();
            // Not while there is use for it: growing again happens under the lock.
            if used < KEPT {
                spare.shrink_to(KEPT);
            }
        }
    }

    fn reopen(&mut self) {
        match self.open.as_mut().map(|open| open()) {
            Some(Ok(target)) => {
                self.target = target;
                self.torn = false;
            }
            Some(Err(error)) => tracing::error!(%error, "{} goes on in the old file", self.what),
            None => {}
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let (written, result) = self.write_some(lines);
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(lost = self.queue.lost(), "{} is written again", self.what);
            }
            Ok(()) => {}
            Err(error) => {
                let lines = lines[written..].iter().filter(|byte| **byte == b'\n').count();
                self.queue.lose(lines as u64);
                if !self.failing {
                    self.failing = true;
                    tracing::error!(%error, lines, "{} cannot be written; lines are lost and counted", self.what);
                }
            }
        }
    }

    /// Like `write_all` and `flush`, but says how far it came, and ends a torn line first.
    fn write_some(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.torn {
            if let (0, result) = write_some(&mut self.target, b"\n") {
                return (0, result);
            }
            self.torn = false;
        }
        let (written, result) = write_some(&mut self.target, lines);
        if let Some(last) = written.checked_sub(1) {
            self.torn = lines[last] != b'\n';
        }
        (written, result.and_then(|()| self.target.flush()))
    }
}

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
    (written, Ok(()))
}
