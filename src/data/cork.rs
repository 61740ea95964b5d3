//! Small writes wait until every task of this round has run, and then leave together.
//!
//! A write to a peer that sleeps has to wake it, which on most machines costs more than the write itself. Written one by
//! one between the parsing of other messages, each finds its peer asleep again; written in a row, only the first one
//! does. So a small write goes into a buffer of its stream, and a task that runs behind all tasks that are ready now
//! writes all of them: requests to replicas first, so that no slot stands idle while answers leave.
//!
//! Nothing is reordered, and a peer that takes no data is felt as before: what the socket did not take is written by the
//! stream's own task, which is told that the stream is not flushed until it is.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Most bytes of a stream that wait. More is written at once: it fills the socket for a while.
const SMALL: usize = 2048;

/// Most buffers that are kept for streams that will need one.
const SPARE: usize = 256;

/// Whose data leaves first in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Replicas,
    Clients,
}

/// The streams of one worker that have something to write.
#[derive(Debug, Default)]
pub struct Cork {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By their turn.
    waiting: [Vec<Rc<RefCell<Line>>>; 2],
    spare: Vec<Vec<u8>>,
    task: Option<Waker>,
}

/// A stream and what waits to be written to it.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    turn: Turn,
    waiting: Vec<u8>,
    /// The socket did not take everything; what is left is for the stream's own task.
    blocked: bool,
    /// Uses the stream; woken when it is blocked.
    task: Option<Waker>,
}

/// A stream whose small writes wait.
#[derive(Debug)]
pub struct CorkedStream {
    line: Rc<RefCell<Line>>,
    cork: Rc<Cork>,
}

impl Cork {
    /// Nothing waits.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Puts a client's stream behind the cork.
    pub fn client(self: &Rc<Self>, stream: TcpStream) -> CorkedStream {
        self.stream(stream, Turn::Clients)
    }

    /// Puts a stream to a replica behind the cork.
    pub fn replica(self: &Rc<Self>, stream: TcpStream) -> CorkedStream {
        self.stream(stream, Turn::Replicas)
    }

    fn stream(self: &Rc<Self>, stream: TcpStream, turn: Turn) -> CorkedStream {
        let line = Line { stream, turn, waiting: Vec::new(), blocked: false, task: None };
        CorkedStream { line: Rc::new(RefCell::new(line)), cork: Rc::clone(self) }
    }

    /// Writes what waits, at the end of each round of ready tasks. Never ends.
    pub async fn run(&self) {
        let mut lines = <[Vec<_>; 2]>::default();
        std::future::poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            std::mem::swap(&mut state.waiting, &mut lines);
            drop(state);
            for line in lines.iter_mut().flat_map(|turn| turn.drain(..)) {
                let spare = line.borrow_mut().write_some();
                self.keep(spare);
            }
            self.state.borrow_mut().task = Some(cx.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }

    fn keep(&self, buffer: Option<Vec<u8>>) {
        let mut state = self.state.borrow_mut();
        if let Some(buffer) = buffer.filter(|_| state.spare.len() < SPARE) {
            state.spare.push(buffer);
        }
    }

    fn spare(&self) -> Vec<u8> {
        self.state.borrow_mut().spare.pop().unwrap_or_else(|| Vec::with_capacity(SMALL))
    }

    /// How many streams to replicas and to clients have something to write.
    #[cfg(test)]
    pub(in crate::data) fn waiting(&self) -> [usize; 2] {
        self.state.borrow().waiting.each_ref().map(Vec::len)
    }

    fn add(&self, line: &Rc<RefCell<Line>>, turn: Turn) {
        let mut state = self.state.borrow_mut();
        state.waiting[turn as usize].push(Rc::clone(line));
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Line {
    /// Writes what the socket takes without waiting. What is left, or what went wrong, is for the stream's own task.
    fn write_some(&mut self) -> Option<Vec<u8>> {
        if self.waiting.is_empty() || self.blocked {
            return None;
        }
        match self.stream.try_write(&self.waiting) {
            Ok(count) if count == self.waiting.len() => {
                self.waiting.clear();
                Some(std::mem::take(&mut self.waiting))
            }
            outcome => {
                if let Ok(count) = outcome {
                    self.waiting.drain(..count);
                }
                self.blocked = true;
                if let Some(task) = self.task.take() {
                    task.wake();
                }
                None
            }
        }
    }

    /// Writes what the socket did not take before.
    fn poll_unblocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.blocked { self.poll_empty(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Writes what waits, all of it.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) => {
                    self.waiting.clear();
                    self.blocked = false;
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.blocked = false;
        Poll::Ready(Ok(()))
    }
}

impl CorkedStream {
    /// Lets these bytes wait, if they are few.
    fn defer(&self, cx: &Context<'_>, parts: &[IoSlice<'_>], length: usize) -> bool {
        let mut line = self.line.borrow_mut();
        if line.blocked || line.waiting.len() + length > SMALL {
            return false;
        }
        let first = line.waiting.is_empty();
        if first {
            line.waiting = self.cork.spare();
        }
        for part in parts {
            line.waiting.extend_from_slice(part);
        }
        match &mut line.task {
            Some(task) => task.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let turn = line.turn;
        drop(line);
        if first && length > 0 {
            self.cork.add(&self.line, turn);
        }
        true
    }
}

impl AsyncRead for CorkedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut line = self.line.borrow_mut();
        // Whoever only reads must write on as well. What goes wrong with that shows in the reading.
        let _ = line.poll_unblocked(cx);
        Pin::new(&mut line.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CorkedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        if self.defer(cx, parts, length) {
            return Poll::Ready(Ok(length));
        }
        let mut line = self.line.borrow_mut();
        ready!(line.poll_empty(cx))?;
        match parts {
            [one] => Pin::new(&mut line.stream).poll_write(cx, one),
            more => Pin::new(&mut line.stream).poll_write_vectored(cx, more),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What waits for the end of the round counts as flushed.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.borrow_mut().poll_unblocked(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line.borrow_mut();
        ready!(line.poll_empty(cx))?;
        Pin::new(&mut line.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use tokio::io::AsyncWriteExt as _;
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::shutdown::Tasks;

    /// Runs a test with a corked stream and the other end of its connection, which reads only when it is told to.
    fn with_pair<T>(test: impl AsyncFnOnce(CorkedStream, std::net::TcpStream) -> T) -> T {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (peer, _) = listener.accept().unwrap();
            let cork = Cork::new();
            let stream = cork.client(stream);
            Tasks::new().spawn_local(async move { cork.run().await });
            test(stream, peer).await
        })
    }

    fn bytes(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 7 + seed * 31) as u8).collect()
    }

    #[test]
    fn what_is_written_comes_whole_and_in_order_whatever_its_size() {
        let sizes = [1, 10, 2047, 2048, 2049, 100, 300_000, 7, 2000, 2000, 90_000, 3];
        let expected: Vec<u8> = sizes.iter().enumerate().flat_map(|(n, size)| bytes(*size, n)).collect();
        let received = with_pair(async |mut stream, mut peer| {
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).map(|_| all)
            });
            for (n, size) in sizes.iter().enumerate() {
                stream.write_all(&bytes(*size, n)).await.unwrap();
                if n % 3 == 0 {
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            stream.shutdown().await.unwrap();
            tokio::task::spawn_blocking(move || reader.join().unwrap().unwrap()).await.unwrap()
        });
        assert!(received == expected, "{} of {} bytes, or in another order", received.len(), expected.len());
    }

    #[test]
    fn small_writes_leave_together_when_the_round_is_over() {
        with_pair(async |mut stream, mut peer| {
            peer.set_nonblocking(true).unwrap();
            tokio::task::yield_now().await;
            let mut seen = [0; 64];
            stream.write_all(b"head ").await.unwrap();
            stream.write_all(b"body").await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(peer.read(&mut seen).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            tokio::task::yield_now().await;
            assert_eq!(peer.read(&mut seen).unwrap(), 9);
            assert_eq!(&seen[..9], b"head body");
        });
    }

    /// The same socket once more, so that its peer sees who wrote first.
    fn same(stream: &CorkedStream) -> TcpStream {
        let socket = stream.line.borrow().stream.as_fd().try_clone_to_owned().unwrap();
        TcpStream::from_std(socket.into()).unwrap()
    }

    #[test]
    fn requests_leave_before_answers() {
        with_pair(async |mut client, mut peer| {
            let cork = Rc::clone(&client.cork);
            let mut second_client = cork.client(same(&client));
            let (mut replica, mut second_replica) =
                (cork.replica(same(&client)), cork.replica(same(&client)));
            for round in 1..4 {
                // Behind the task that writes, from where on all writes are of one round.
                tokio::task::yield_now().await;
                client.write_all(b"answer 1 ").await.unwrap();
                replica.write_all(b"request 1 ").await.unwrap();
                second_client.write_all(b"answer 2 ").await.unwrap();
                second_replica.write_all(b"request 2 ").await.unwrap();
                tokio::task::yield_now().await;
                let mut seen = [0; 38];
                peer.read_exact(&mut seen).unwrap();
                let seen = str::from_utf8(&seen).unwrap();
                assert_eq!(seen, "request 1 request 2 answer 1 answer 2 ", "in round {round}");
            }
        });
    }

    #[test]
    fn a_stream_that_is_dropped_still_writes_what_it_took() {
        with_pair(async |mut stream, mut peer| {
            tokio::task::yield_now().await;
            stream.write_all(b"last words").await.unwrap();
            drop(stream);
            tokio::task::yield_now().await;
            let mut all = String::new();
            peer.read_to_string(&mut all).unwrap();
            assert_eq!(all, "last words");
        });
    }

    #[test]
    fn a_peer_that_does_not_read_stops_the_writer_and_gets_everything_in_the_end() {
        with_pair(async |mut stream, mut peer| {
            let piece = bytes(2000, 1);
            let mut written = 0;
            // Ends when the socket is full and the stream says so.
            loop {
                let write = std::future::poll_fn(|cx| {
                    let polled = Pin::new(&mut stream).poll_write(cx, &piece);
                    Poll::Ready(polled.is_ready())
                });
                if !write.await {
                    break;
                }
                written += piece.len();
                assert!(written < 256 << 20, "the stream takes without end");
                tokio::task::yield_now().await;
            }
            let flushed = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_flush(cx))).await;
            assert!(flushed.is_pending(), "what the socket did not take is not flushed");
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).map(|_| all)
            });
            stream.flush().await.unwrap();
            stream.shutdown().await.unwrap();
            drop(stream);
            let all = tokio::task::spawn_blocking(move || reader.join().unwrap().unwrap()).await.unwrap();
            assert_eq!(all.len(), written);
            assert!(all.chunks(piece.len()).all(|part| part == piece));
        });
    }
}
