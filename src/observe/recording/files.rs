//! The files of a recording: each begins with what is needed to read it alone, and the oldest goes for a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use super::{Heads, write};
use crate::core::recording::{FORMAT, Line};
use crate::core::settings::RecordingSettings;
use crate::observe::ledger::unix_seconds;
use crate::observe::lines::queue::Queue;

const PREFIX: &str = "recording-";
const SUFFIX: &str = ".jsonl";

/// Starts in one moment that may take each other's name before one gives up.
const MOST_TRIES: usize = 10;

/// The file in use, and what is needed for the next one.
pub(super) struct Files {
    settings: RecordingSettings,
    started_unix_seconds: f64,
    /// In the names of the run's files: the second of its start, or a later one that no other run has.
    run: u64,
    heads: Heads,
    queue: Arc<Queue>,
    /// Lost lines that a file has told of.
    told: u64,
    /// Of the file in use.
    number: u64,
    file: File,
    /// Without its head, so that there is room in every file however many deployments there are.
    size: u64,
    /// It ends in the middle of a line.
    torn: bool,
}

impl Files {
    /// Makes the folder and the first file.
    pub(super) fn begin(
        settings: &RecordingSettings,
        started: SystemTime,
        heads: Heads,
        queue: Arc<Queue>,
    ) -> io::Result<Self> {
        let folder = &settings.directory;
        std::fs::create_dir_all(folder).map_err(|error| named("make the folder", folder, &error))?;
        let started_unix_seconds = unix_seconds(started);
        let (run, file) = first(folder, started_unix_seconds as u64)?;
        let settings = settings.clone();
        let mut files = Self {
            settings,
            started_unix_seconds,
            run,
            heads,
            queue,
            told: 0,
            number: 0,
            file,
            size: 0,
            torn: false,
        };
        files.prune();
        files.head()?;
        Ok(files)
    }

    fn next(&mut self) -> io::Result<()> {
        let number = self.number + 1;
        self.file = open(&self.settings.directory, self.run, number)?;
        self.number = number;
        self.size = 0;
        self.prune();
        self.head()
    }

    /// What is needed to read the file without those before it.
    fn head(&mut self) -> io::Result<()> {
        let mut head = Vec::new();
        let first = Line::Recording {
            format: FORMAT,
            scoregate: env!("CARGO_PKG_VERSION").into(),
            started_unix_seconds: self.started_unix_seconds,
            file: self.number,
        };
        write(&first, &mut head);
        for line in self.heads.lock().unwrap_or_else(PoisonError::into_inner).values() {
            head.extend_from_slice(line);
        }
        self.file.write_all(&head)?;
        self.torn = false;
        Ok(())
    }

    /// Removes the oldest files beyond those that are allowed, never the one in use.
    fn prune(&self) {
        let mut others = recorded(&self.settings.directory);
        others.retain(|(run, number, _)| (*run, *number) != (self.run, self.number));
        others.sort();
        let surplus = (others.len() + 1).saturating_sub(self.settings.files as usize).min(others.len());
        for (.., path) in &others[..surplus] {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(%error, path = %path.display(), "an old recording cannot be removed");
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.torn = bytes.last() != Some(&b'\n');
        Ok(())
    }

    fn tell_what_is_lost(&mut self) -> io::Result<()> {
        let lost = self.queue.lost();
        if lost == self.told || self.torn {
            return Ok(());
        }
        let mut line = Vec::new();
        write(&Line::Lost { lines: lost }, &mut line);
        self.put(&line)?;
        self.told = lost;
        Ok(())
    }
}

/// Whole lines come, but for the rest of one that was taken in part.
impl Write for Files {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.settings.max_file_bytes.saturating_sub(self.size);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let fits = bytes[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if fits == 0 {
            self.next()?;
            // A line that is larger than a file is a file.
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |last| last + 1);
            self.put(&bytes[..end])?;
            return Ok(end);
        }
        self.tell_what_is_lost()?;
        let written = self.file.write(&bytes[..fits])?;
        self.size += written as u64;
        self.torn = bytes[..written].last() != Some(&b'\n');
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The first file of a run, and the run's number: later than any that is there, so that no file is taken for another's, and
/// names stay in the order of the runs where two start in one second or the clock was put back.
fn first(folder: &Path, second: u64) -> io::Result<(u64, File)> {
    let mut tries = 0;
    loop {
        let newest = recorded(folder).into_iter().map(|(run, ..)| run).max();
        let run = newest.map_or(second, |newest| second.max(newest.saturating_add(1)));
        tries += 1;
        match open(folder, run, 0) {
            Ok(file) => return Ok((run, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < MOST_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// The files of recordings in a folder, with the run and the number in their names; none that are only named alike.
fn recorded(folder: &Path) -> Vec<(u64, u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let known = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let (run, number) = numbers(path.file_name()?.to_str()?)?;
        Some((run, number, path))
    });
    known.collect()
}

/// The run and the number in a name that [`open`] would give.
fn numbers(name: &str) -> Option<(u64, u64)> {
    let (run, number) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
    let parsed = (run.parse().ok()?, number.parse().ok()?);
    (name == named_file(parsed.0, parsed.1)).then_some(parsed)
}

fn named_file(run: u64, number: u64) -> String {
    format!("{PREFIX}{run:010}-{number:06}{SUFFIX}")
}

/// Readable by its owner and group only: it says how much is asked. Never one that is there already.
fn open(folder: &Path, run: u64, number: u64) -> io::Result<File> {
    let path = folder.join(named_file(run, number));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o640);
    options.open(&path).map_err(|error| named("write the recording", &path, &error))
}

fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}
