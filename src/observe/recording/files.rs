//! The files of a recording: each begins with what is needed to read it alone, and the oldest goes for a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use super::{Heads, write};
use crate::core::recording::{FORMAT, Line};
use crate::core::settings::RecordingSettings;
use crate::observe::ledger::unix_seconds;
use crate::observe::lines::queue::Queue;

const PREFIX: &str = "recording-";
const SUFFIX: &str = ".jsonl";

/// The file in use, and what is needed for the next one.
pub(super) struct Files {
    settings: RecordingSettings,
    started_unix_seconds: f64,
    heads: Heads,
    queue: Arc<Queue>,
    /// Lost lines that a file has told of.
    told: u64,
    /// Of the file in use.
    number: u64,
    file: File,
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
        let file = open(settings, started_unix_seconds, 0)?;
        let settings = settings.clone();
        let mut files = Self {
            settings,
            started_unix_seconds,
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
        self.file = open(&self.settings, self.started_unix_seconds, number)?;
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
        self.put(&head)
    }

    /// Removes the oldest files beyond those that are allowed.
    fn prune(&self) {
        let Ok(entries) = std::fs::read_dir(&self.settings.directory) else { return };
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
        };
        let mut files: Vec<_> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours).collect();
        // Their names are in the order of their beginnings.
        files.sort();
        let surplus = files.len().saturating_sub(self.settings.files as usize);
        for path in &files[..surplus] {
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

/// Readable by its owner and group only: it says how much is asked.
fn open(settings: &RecordingSettings, started: f64, number: u64) -> io::Result<File> {
    let name = format!("{PREFIX}{:010}-{number:06}{SUFFIX}", started as u64);
    let path = settings.directory.join(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640);
    options.open(&path).map_err(|error| named("write the recording", &path, &error))
}

fn named(what: &str, path: &std::path::Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}
