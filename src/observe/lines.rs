//! Lines on their way to a target that may be slow or broken: a bounded buffer, and a thread of its own that writes.
//!
//! Whoever brings a line never waits. `queue` decides how many lines wait, `writer` how they reach the target and what
//! counts as lost. What lines say is others' part.

pub(super) mod queue;
mod writer;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use queue::Queue;
use writer::Writer;

pub(super) use writer::Open;

/// Longest wait for the writer when the last handle is dropped: a reader of standard output that has stopped
/// must not keep the process alive.
const LONGEST_GOODBYE: Duration = Duration::from_secs(5);

/// The side of the writer that the process holds. Dropped, it waits until what is queued is written.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) queue: Arc<Queue>,
    what: &'static str,
    /// In a lock only because a receiver cannot be shared; locked once, at the end.
    ended: std::sync::Mutex<Receiver<()>>,
}

impl Lines {
    /// Starts the thread; `what` is what messages call it, and `thread` is the thread's name. `queue` has its bound
    /// already, so that a target may ask it what was lost.
    pub(super) fn start<W: Write + Send + 'static>(
        (what, thread): (&'static str, &str),
        queue: Arc<Queue>,
        target: W,
        open: Option<Open<W>>,
    ) -> io::Result<Self> {
        let (ended, wait_ended) = sync_channel(1);
        let writer = Writer::new(what, target, open, Arc::clone(&queue));
        Builder::new().name(thread.to_owned()).spawn(move || {
            writer.run();
            // The other side may have stopped waiting.
            let _ = ended.try_send(());
        })?;
        Ok(Self { queue, what, ended: wait_ended.into() })
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.queue.close();
        if let Ok(ended) = self.ended.get_mut()
            && ended.recv_timeout(LONGEST_GOODBYE).is_err()
        {
            tracing::error!(
                "the target of {} takes nothing; the lines that still waited are lost",
                self.what
            );
        }
    }
}
