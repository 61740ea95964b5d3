//! Head and body of a small message in one plain write: for a few hundred bytes a copy is cheaper than what the kernel
//! does for a vectored write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Most bytes that are copied together.
const SMALL: usize = 1024;

/// Writes the parts: joined if they are small, otherwise as they are.
pub(super) fn poll<T: AsyncWrite>(
    stream: Pin<&mut T>,
    cx: &mut Context<'_>,
    parts: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let mut joined = [0; SMALL];
    let mut length = 0;
    for part in parts {
        let Some(place) = joined.get_mut(length..length + part.len()) else {
            return stream.poll_write_vectored(cx, parts);
        };
        place.copy_from_slice(part);
        length += part.len();
    }
    stream.poll_write(cx, &joined[..length])
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Notes how it was written to.
    #[derive(Default)]
    struct Notes(Vec<(usize, Vec<u8>)>);

    impl AsyncWrite for Notes {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push((1, data.to_vec()));
            Poll::Ready(Ok(data.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let length = data.len();
            self.0.push((parts.len(), data));
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn every_byte_is_written_once_and_in_order() {
        for sizes in [vec![], vec![3], vec![400, 624], vec![400, 625], vec![2000], vec![10, 5000, 10]] {
            let parts: Vec<Vec<u8>> =
                sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size]).collect();
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut notes = Notes::default();
            let written = poll(Pin::new(&mut notes), &mut Context::from_waker(Waker::noop()), &slices);
            let total: usize = sizes.iter().sum();
            assert!(matches!(written, Poll::Ready(Ok(count)) if count == total), "{sizes:?}");
            let writes = if total <= SMALL { 1 } else { sizes.len() };
            assert_eq!(notes.0, [(writes, parts.concat())], "{sizes:?}");
        }
    }
}
