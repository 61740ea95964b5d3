//! The files of a recording: brought into order, checked to be of one run, and taken apart by deployment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::de::IgnoredAny;

use crate::core::recording::{FORMAT, Line};
use crate::core::replay::Notes;

/// Longest line that is read, in bytes; the longest that is written has some hundred.
const LONGEST_LINE: u64 = 1 << 20;

/// Longest recording that is replayed, in nanoseconds: 31 days. What is odd must not be lived for a year.
const LONGEST: u64 = 31 * 86_400 * 1_000_000_000;

/// Most questions to rules that are kept in memory.
const MOST_TICKS: u64 = 50_000_000;

/// A recording.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) started_unix_seconds: f64,
    pub(super) lost: u64,
    /// Lines that cannot be read, such as one that a full disk cut short.
    pub(super) unreadable: u64,
    pub(super) deployments: Vec<Deployment>,
}

/// What a recording says of one deployment.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) endpoint: String,
    pub(super) name: String,
    /// Time of its first line.
    pub(super) begin: u64,
    pub(super) notes: Notes,
}

impl Recording {
    /// Reads the files, which may be given in any order.
    pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut files = paths.iter().map(|path| Source::open(path)).collect::<Result<Vec<_>, _>>()?;
        files.sort_by_key(|file| file.number);
        let started_unix_seconds = files.first().map_or(0.0, |first| first.run);
        if let Some(other) = files.iter().find(|file| file.run != started_unix_seconds) {
            bail!(
                "{} is of another run than {}; replay one run at a time",
                other.path.display(),
                files[0].path.display()
            );
        }
        for pair in files.windows(2) {
            let (before, after) = (pair[0].number, pair[1].number);
            if before.checked_add(1) != Some(after) {
                bail!(
                    "the files are not all there, or one is there twice: file {before} of the run is followed by {after}"
                );
            }
        }
        let mut taken = Taken::default();
        for file in &mut files {
            file.read_into(&mut taken)?;
        }
        Ok(Self {
            started_unix_seconds,
            lost: taken.lost,
            unreadable: taken.unreadable,
            deployments: taken.by_name.into_values().flat_map(BTreeMap::into_values).collect(),
        })
    }
}

/// What was read so far; lines are not kept.
#[derive(Default)]
struct Taken {
    lost: u64,
    unreadable: u64,
    ticks: u64,
    /// When the first thing began and the last one was over.
    span: Option<(u64, u64)>,
    /// By endpoint and deployment.
    by_name: BTreeMap<String, BTreeMap<String, Deployment>>,
}

impl Taken {
    fn take(&mut self, line: Line<'static>) -> anyhow::Result<()> {
        if let Some((member, number)) = line.odd() {
            bail!("`{member}` is {number}: no deployment has so many replicas");
        }
        if let Line::Tick(tick) = &line
            && let Some((member, number)) = tick.signals.negative()
        {
            bail!("`signals.{member}` is {number}: it is never less than 0");
        }
        if let Some((begin, end)) = line.span() {
            let (first, last) = self.span.unwrap_or((begin, end));
            let (first, last) = (first.min(begin), last.max(end));
            if last - first > LONGEST {
                let days = (last - first) / (86_400 * 1_000_000_000);
                bail!("it is {days} days from the rest of the recording; at most 31 are replayed at a time");
            }
            self.span = Some((first, last));
        }
        let (t, e, d) = match &line {
            Line::Lost { lines } => {
                self.lost = self.lost.max(*lines);
                return Ok(());
            }
            Line::Recording { .. } => return Ok(()),
            Line::Request(request) => (request.t, &request.e, &request.d),
            Line::Tick(tick) => (tick.t, &tick.e, &tick.d),
            Line::Settings { t, e, d, .. } | Line::Replica { t, e, d, .. } => (*t, e, d),
        };
        self.ticks += u64::from(matches!(line, Line::Tick(_)));
        if self.ticks > MOST_TICKS {
            bail!(
                "it is one of more than {MOST_TICKS} questions to the scale rules; replay fewer files at a time"
            );
        }
        let of = self.of(e, d, t);
        of.begin = of.begin.min(t);
        of.notes.take(line);
        Ok(())
    }

    /// Names are copied for the first line of a deployment only.
    fn of(&mut self, e: &str, d: &str, begin: u64) -> &mut Deployment {
        if !self.by_name.get(e).is_some_and(|endpoint| endpoint.contains_key(d)) {
            let (endpoint, name) = (e.to_owned(), d.to_owned());
            let new = Deployment { endpoint, name, begin, notes: Notes::default() };
            self.by_name.entry(e.to_owned()).or_default().insert(d.to_owned(), new);
        }
        self.by_name.get_mut(e).and_then(|endpoint| endpoint.get_mut(d)).expect("it is there by now")
    }
}

/// A file of which the first line was read.
struct Source<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    /// Lines that were read.
    line: u64,
    text: Vec<u8>,
    /// The run and the number that it says it is of.
    run: f64,
    number: u64,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> anyhow::Result<Self> {
        let opened = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (reader, text) = (BufReader::new(opened), Vec::new());
        let mut file = Self { path, reader, line: 0, text, run: 0.0, number: 0 };
        let first = if file.next()? { serde_json::from_slice(&file.text).ok() } else { None };
        match first {
            Some(Line::Recording { format, .. }) if format != FORMAT => {
                bail!("{} has format {format}; this scoregate reads {FORMAT}", path.display())
            }
            Some(Line::Recording { started_unix_seconds, file: number, .. }) => {
                (file.run, file.number) = (started_unix_seconds, number);
                Ok(file)
            }
            _ => bail!("{} is no recording of scoregate", path.display()),
        }
    }

    /// Reads a line; false at the end.
    fn next(&mut self) -> anyhow::Result<bool> {
        self.text.clear();
        let read = self.reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.text);
        let read = read.with_context(|| format!("cannot read {}", self.path.display()))?;
        self.line += 1;
        Ok(read > 0)
    }

    fn read_into(&mut self, taken: &mut Taken) -> anyhow::Result<()> {
        while self.next()? {
            let place = || format!("{}, line {}", self.path.display(), self.line);
            match serde_json::from_slice::<Line<'static>>(&self.text) {
                Ok(Line::Recording { .. }) => bail!("{}: another file begins in this one", place()),
                Ok(line) => taken.take(line).with_context(place)?,
                Err(error) if serde_json::from_slice::<IgnoredAny>(&self.text).is_ok() => {
                    bail!("{}: it is no line of a recording: {error}", place())
                }
                // One that ends too early, as a full disk leaves it.
                Err(_) => taken.unreadable += 1,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const HEAD: &str =
        r#"{"k":"recording","format":1,"scoregate":"0.1.0","started_unix_seconds":1.5,"file":0}"#;

    fn read(lines: &[String]) -> Result<Recording, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{HEAD}\n{}", lines.join("\n")).unwrap();
        Recording::read(&[file.path().to_owned()]).map_err(|error| format!("{error:#}"))
    }

    fn tick(t: u64, from: u64, ready: u64) -> String {
        format!(
            r#"{{"k":"tick","t":{t},"e":"demo","d":"blue","how":"tick","from":{from},"to":1,"signals":{{"t":1,"dt":1,
            "ready":{ready},"starting":0,"inflight":0,"queue":0,"inflight_avg":0,"queue_avg":0,"arrivals":0,"completed":0,
            "rejected":0,"service_sum":0,"c":1,"min":1,"max":1}}}}"#
        )
        .replace('\n', "")
    }

    #[test]
    fn what_no_router_wrote_is_refused_with_its_place() {
        let day = 86_400 * 1_000_000_000_u64;
        let request =
            |t: u64, w: u64| format!(r#"{{"k":"request","t":{t},"e":"demo","d":"blue","w":{w},"o":"ok"}}"#);
        assert!(read(&[tick(0, 1, 1), tick(31 * day, 1, 1), request(5, 5)]).is_ok());
        for (wrong, says) in [
            (tick(1, 1, 4_000_000_000), "`signals.ready` is 4000000000: no deployment has so many replicas"),
            (tick(1, 4_000_000_000, 1), "`from` is 4000000000"),
            (tick(365 * day, 1, 1), "it is 365 days from the rest of the recording; at most 31"),
            (tick(u64::MAX, 1, 1), "at most 31"),
            (request(1, u64::MAX), "at most 31"),
            (HEAD.to_owned(), "another file begins in this one"),
            (
                tick(1, 1, 1).replace("\"inflight_avg\":0", "\"inflight_avg\":-3"),
                "`signals.inflight_avg` is -3",
            ),
            (tick(1, 1, 1).replace("\"t\":1,\"e\"", "\"t\":-5,\"e\""), "it is no line of a recording"),
            (tick(1, 1, 1).replace("\"how\":\"tick\"", "\"how\":\"zzz\""), "unknown variant `zzz`"),
            (request(1, 1).replace("\"w\":1", "\"w\":1,\"s\":-1"), "it is no line of a recording"),
            (request(1, 1).replace("\"w\":1", "\"w\":99999999999999999999"), "it is no line of a recording"),
        ] {
            let error = read(&[tick(0, 1, 1), wrong]).unwrap_err();
            assert!(error.contains(", line 3: ") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_what_is_no_recording_refused() {
        let recording =
            read(&["{".to_owned(), tick(7, 1, 1), r#"{"k":"lost","lines":3}"#.to_owned()]).unwrap();
        assert_eq!((recording.unreadable, recording.lost, recording.deployments.len()), (1, 3, 1));
        assert_eq!(recording.deployments[0].begin, 7);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{}", tick(1, 1, 1)).unwrap();
        let error = Recording::read(&[file.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains("is no recording"), "{error}");
    }
}
