//! The lines between the workers and the writer: one buffer with a bound in bytes.
//!
//! Whoever comes to the lock finds it held for a copy or a swap at most, never for a write.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pause between two batches under load. While the writer pauses, a worker that brings a line need not wake it,
/// which saves a system call for each request.
const PAUSE: Duration = Duration::from_millis(20);

/// What a buffer has room for from the beginning, in bytes: growing happens under the lock. Memory that no line has come
/// to takes address space only.
const ROOM: usize = 256 << 10;

/// What the writer and the handles share.
#[derive(Debug)]
pub(in crate::observe) struct Queue {
    state: Mutex<State>,
    /// The writer waits on this, nobody else.
    wake: Condvar,
    /// Bytes that may wait. As many again may be in the writer's hands.
    bound: usize,
    /// Lines that were not written.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, of at most `bound` bytes.
    lines: Vec<u8>,
    /// The writer sleeps until it is woken.
    idle: bool,
    /// There is something that is not to wait for the pause.
    hurry: bool,
    reopen_at: Option<usize>,
    closed: bool,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(in crate::observe) struct Batch {
    /// Whole lines.
    pub(in crate::observe) lines: Vec<u8>,
    /// The file is to be opened again when so many bytes have been written.
    pub(in crate::observe) reopen_at: Option<usize>,
    /// Nothing comes any more.
    pub(in crate::observe) closed: bool,
}

impl Queue {
    pub(in crate::observe) fn new(bound: usize) -> Self {
        let state = State { lines: Self::buffer(), ..State::default() };
        Self { state: Mutex::new(state), wake: Condvar::new(), bound, lost: AtomicU64::new(0) }
    }

    /// An empty buffer for lines.
    pub(in crate::observe) fn buffer() -> Vec<u8> {
        Vec::with_capacity(ROOM)
    }

    /// Takes a line for writing, or counts it as lost where it does not fit.
    pub(in crate::observe) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        let before = state.lines.len();
        let after = before + line.len();
        if after > self.bound {
            drop(state);
            return self.lose(1);
        }
        state.lines.extend_from_slice(line);
        // Long lines may fill the buffer within one pause.
        let half = self.bound / 2;
        if mem::take(&mut state.idle) || (before < half && after >= half) {
            self.hurry(state);
        }
    }

    /// Has the file opened again after what has been pushed so far.
    pub(in crate::observe) fn reopen(&self) {
        let mut state = self.lock();
        state.reopen_at = Some(state.lines.len());
        self.hurry(state);
    }

    /// Lets the writer end when everything is written.
    pub(in crate::observe) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.hurry(state);
    }

    pub(in crate::observe) fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    pub(in crate::observe) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits for work and takes all of it, leaving the empty buffer `spare` to be filled. The writer had `lines`
    /// the last time, or not: then it may sleep at once.
    pub(in crate::observe) fn take(&self, spare: Vec<u8>, had_lines: bool) -> Batch {
        let mut state = self.lock();
        if had_lines {
            let waited = self.wake.wait_timeout_while(state, PAUSE, |state| !state.hurry);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        } else if state.lines.is_empty() {
            // No wake-up can be lost: `idle` is set under the lock under which the buffer was seen empty, and waiting
            // gives the lock back in one step. Whoever brings a line afterwards sees `idle`, clears it, sets `hurry`
            // and wakes. The others always set `hurry`, which is looked at before the first wait.
            state.idle = true;
            let waited = self.wake.wait_while(state, |state| !state.hurry);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
        }
        state.hurry = false;
        let reopen_at = state.reopen_at.take();
        Batch { lines: mem::replace(&mut state.lines, spare), reopen_at, closed: state.closed }
    }

    /// Wakes the writer, once the lock is free for it.
    fn hurry(&self, mut state: MutexGuard<'_, State>) {
        state.hurry = true;
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
