//! The socket to a replica as hyper sees it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::data::cork::CorkedStream;

/// A stream on which a failed write is no failure yet. A replica may answer and close before it has read all of a
/// request; hyper would stop at the failed write and never read that answer.
#[derive(Debug)]
pub(super) struct ReplicaStream {
    stream: CorkedStream,
    deaf: bool,
}

impl ReplicaStream {
    pub(super) fn new(stream: CorkedStream) -> Self {
        Self { stream, deaf: false }
    }

    /// What came of writing, or `written` instead of a failure: reading tells what became of the connection.
    fn heed<T>(&mut self, polled: Poll<io::Result<T>>, written: T) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(_)) => {
                self.deaf = true;
                Poll::Ready(Ok(written))
            }
            polled => polled,
        }
    }
}

impl AsyncRead for ReplicaStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ReplicaStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(data.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.heed(polled, data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|part| part.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(length));
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.heed(polled, length)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.heed(polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
