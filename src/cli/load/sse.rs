//! Counts the events of a `text/event-stream` (WHATWG HTML, "Server-sent events") as its pieces arrive.
//!
//! It keeps a few bytes of state, however long an event is: an event is a block of lines with at least one `data`
//! field, ended by an empty line. Comments (often sent to keep a connection open) are no events.

const DATA: &[u8] = b"data";

/// The state between two pieces.
#[derive(Debug, Default)]
pub(super) struct EventCounter {
    line: Line,
    /// The block has a `data` field.
    has_data: bool,
    /// The last byte was CR: an LF after it belongs to the same line end.
    after_cr: bool,
}

/// What the line is so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    /// This many bytes, all of them of the word `data`.
    Prefix(usize),
    /// The name of the field is `data`.
    Data,
    Other,
}

impl EventCounter {
    /// Takes a piece; how many events it has completed.
    pub(super) fn feed(&mut self, piece: &[u8]) -> u64 {
        let mut events = 0;
        for &byte in piece {
            let is_second_half = byte == b'\n' && std::mem::take(&mut self.after_cr);
            if is_second_half {
                continue;
            }
            self.after_cr = byte == b'\r';
            if byte == b'\r' || byte == b'\n' {
                events += u64::from(self.end_line());
            } else {
                self.line = self.line.with(byte);
            }
        }
        events
    }

    /// An event has begun and not ended: a stream that ends like this was cut off.
    pub(super) fn is_inside_event(&self) -> bool {
        self.has_data || !matches!(self.line, Line::Empty | Line::Other)
    }

    /// Whether an event ends here.
    fn end_line(&mut self) -> bool {
        match std::mem::take(&mut self.line) {
            Line::Empty => std::mem::take(&mut self.has_data),
            line => {
                // A field may have a name and no value.
                self.has_data |= line == Line::Data || line == Line::Prefix(DATA.len());
                false
            }
        }
    }
}

impl Line {
    fn with(self, byte: u8) -> Self {
        match self {
            Self::Empty if byte == DATA[0] => Self::Prefix(1),
            Self::Prefix(n) if DATA.get(n) == Some(&byte) => Self::Prefix(n + 1),
            Self::Prefix(n) if n == DATA.len() && byte == b':' => Self::Data,
            Self::Data => Self::Data,
            Self::Empty | Self::Other | Self::Prefix(_) => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pieces: &[&str]) -> (u64, bool) {
        let mut counter = EventCounter::default();
        let events = pieces.iter().map(|piece| counter.feed(piece.as_bytes())).sum();
        (events, counter.is_inside_event())
    }

    #[test]
    fn events_end_at_empty_lines() {
        assert_eq!(count(&["data: 1\n\ndata: 2\n\n"]), (2, false));
        assert_eq!(count(&["id: 1\ndata: a\ndata: b\n\n"]), (1, false));
        assert_eq!(count(&["data\n\n"]), (1, false));
    }

    #[test]
    fn comments_and_fields_without_data_are_no_events() {
        assert_eq!(count(&[": keep-alive\n\n", "retry: 10\n\n", "\n\n\n"]), (0, false));
        assert_eq!(count(&["database: no\n\n", "dat\n\n", " data: no\n\n"]), (0, false));
    }

    #[test]
    fn every_cut_into_pieces_counts_the_same() {
        for text in
            ["data: 1\n\n:c\n\ndata: 2\n\n", "data: 1\r\n\r\ndata: 2\r\n\r\n", "data: 1\r\rdata: 2\r\r"]
        {
            for cut in 0..=text.len() {
                assert_eq!(count(&[&text[..cut], &text[cut..]]), (2, false), "{text:?} cut at {cut}");
            }
            let bytes: Vec<&str> = (0..text.len()).map(|at| &text[at..=at]).collect();
            assert_eq!(count(&bytes), (2, false), "{text:?}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_is_seen() {
        assert_eq!(count(&["data: 1\n\ndata: 2\n"]), (1, true));
        assert_eq!(count(&["data: 1\n\nda"]), (1, true));
        assert_eq!(count(&["data: 1\n\n: comment"]), (1, false));
    }
}
