//! What replicas print goes into the log, line by line, with the replica's name. A replica is never blocked by
//! it and takes a bounded amount of memory, whatever it prints.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::time::Instant;

use super::log::LogTail;

/// Bytes of a line that are kept.
const MAX_LINE: usize = 4096;
/// Lines of one stream that are logged in a second; the others are counted.
const MAX_LINES_PER_SECOND: u32 = 500;

/// The last line that a replica wrote to its standard error: most often why it ended.
#[derive(Debug, Default)]
pub(super) struct LastLine(Mutex<String>);

impl LastLine {
    /// The line; empty when there was none.
    pub(super) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, line: &str) {
        line.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Logs both streams until both are closed.
pub(super) async fn forward(
    replica: &str,
    stdout: impl AsyncRead + Unpin,
    stderr: impl AsyncRead + Unpin,
    last: &LastLine,
    log: &LogTail,
) {
    let from_stdout = each_line(stdout, |line| {
        log.push(replica, line);
        tracing::info!(target: "replica", replica, stream = "stdout", "{line}");
    });
    let from_stderr = each_line(stderr, |line| {
        last.set(line);
        log.push(replica, line);
        tracing::info!(target: "replica", replica, stream = "stderr", "{line}");
    });
    tokio::join!(from_stdout, from_stderr);
}

/// Calls `take` for each line that is not blank, within the limits above, until the stream ends.
async fn each_line(stream: impl AsyncRead + Unpin, mut take: impl FnMut(&str)) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    let mut cut = false;
    let mut rate = Rate { since: Instant::now(), lines: 0, dropped: 0, latest: String::new() };
    loop {
        // An error ends the stream like its end.
        let bytes = stream.fill_buf().await.unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        let kept = piece.len().min(MAX_LINE - line.len());
        line.extend_from_slice(&piece[..kept]);
        cut |= kept < piece.len();
        let at_end = bytes.is_empty();
        let used = piece.len() + usize::from(end.is_some());
        stream.consume(used);
        if end.is_some() || at_end {
            rate.pass(&line, cut, &mut take);
            line.clear();
            cut = false;
        }
        if at_end {
            rate.report(&mut take);
            return;
        }
    }
}

/// Lines within the present second.
struct Rate {
    since: Instant,
    lines: u32,
    dropped: u64,
    /// The last of those left out; in the end it may be the one that matters.
    latest: String,
}

impl Rate {
    fn pass(&mut self, line: &[u8], cut: bool, take: &mut impl FnMut(&str)) {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            self.report(take);
            (self.since, self.lines) = (now, 0);
        }
        self.lines += 1;
        let mut text = String::from_utf8_lossy(line);
        if cut {
            text.to_mut().push_str("… (line cut)");
        }
        if self.lines > MAX_LINES_PER_SECOND {
            self.dropped += 1;
            text.as_ref().clone_into(&mut self.latest);
        } else {
            take(&text);
        }
    }

    fn report(&mut self, take: &mut impl FnMut(&str)) {
        if self.dropped > 0 {
            let dropped = self.dropped - 1;
            take(&format!("({dropped} lines left out: more than {MAX_LINES_PER_SECOND} in a second)"));
            take(&self.latest);
            self.dropped = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        each_line(input, |line| lines.push(line.to_owned())).await;
        lines
    }

    #[tokio::test]
    async fn lines_are_split_and_blank_ones_left_out() {
        assert_eq!(lines(b"one\r\n\n  two\nthree").await, ["one", "  two", "three"]);
    }

    #[tokio::test]
    async fn invalid_text_is_shown_and_long_lines_are_cut() {
        assert_eq!(lines(b"a\xffb\n").await, ["a\u{fffd}b"]);
        let mut input = vec![b'x'; 1_000_000];
        input.extend_from_slice(b"\nnext\n");
        let lines = lines(&input).await;
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], format!("{}… (line cut)", "x".repeat(MAX_LINE)));
        assert_eq!(lines[1], "next");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_counted_and_not_logged() {
        let input = format!("{}boom\n", "y\n".repeat(2000));
        let lines = lines(input.as_bytes()).await;
        assert_eq!(lines.len(), 502);
        assert_eq!(lines[500], "(1500 lines left out: more than 500 in a second)");
        assert_eq!(lines[501], "boom");
    }

    #[tokio::test]
    async fn the_last_line_of_standard_error_is_remembered() {
        let last = LastLine::default();
        let log = LogTail::default();
        forward("blue-1", &b"out\n"[..], &b"first\nboom\n\n"[..], &last, &log).await;
        assert_eq!(last.get(), "boom");
        assert_eq!(log.tail(9).lines().count(), 3);
    }
}
