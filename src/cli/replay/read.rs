//! The files of a recording: brought into order, checked to be of one run, and taken apart by deployment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::core::recording::{FORMAT, Line};

/// Longest line that is read, in bytes; the longest that is written has some hundred.
const LONGEST_LINE: u64 = 1 << 20;

/// A recording.
pub(super) struct Recording {
    pub(super) started_unix_seconds: f64,
    pub(super) lost: u64,
    /// Lines that cannot be read, such as one that a full disk cut short.
    pub(super) unreadable: u64,
    pub(super) deployments: Vec<Deployment>,
}

/// What a recording says of one deployment.
pub(super) struct Deployment {
    pub(super) endpoint: String,
    pub(super) name: String,
    /// Time of its first line.
    pub(super) begin: u64,
    pub(super) lines: Vec<Line<'static>>,
}

impl Recording {
    /// Reads the files, which may be given in any order.
    pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut unreadable = 0;
        let mut files = Vec::new();
        for path in paths {
            let (run, number, lines) = file(path, &mut unreadable)?;
            files.push((run, number, lines, path));
        }
        files.sort_by_key(|(_, number, ..)| *number);
        let started_unix_seconds = files.first().map_or(0.0, |(run, ..)| *run);
        if let Some((.., other)) = files.iter().find(|(run, ..)| *run != started_unix_seconds) {
            bail!(
                "{} is of another run than {}; replay one run at a time",
                other.display(),
                files[0].3.display()
            );
        }
        for pair in files.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            if before + 1 != after {
                bail!(
                    "the files are not all there, or one is there twice: file {before} of the run is followed by {after}"
                );
            }
        }
        let mut recording = Self { started_unix_seconds, lost: 0, unreadable, deployments: Vec::new() };
        let mut by_name = BTreeMap::<(String, String), Deployment>::new();
        for line in files.into_iter().flat_map(|(_, _, lines, _)| lines) {
            let (t, e, d) = match &line {
                Line::Lost { lines } => {
                    recording.lost = recording.lost.max(*lines);
                    continue;
                }
                Line::Recording { .. } => continue,
                Line::Request(request) => (request.t, &request.e, &request.d),
                Line::Tick(tick) => (tick.t, &tick.e, &tick.d),
                Line::Settings { t, e, d, .. } | Line::Replica { t, e, d, .. } => (*t, e, d),
            };
            let of = by_name.entry((e.to_string(), d.to_string())).or_insert_with(|| Deployment {
                endpoint: e.to_string(),
                name: d.to_string(),
                begin: t,
                lines: Vec::new(),
            });
            of.begin = of.begin.min(t);
            of.lines.push(line);
        }
        recording.deployments = by_name.into_values().collect();
        Ok(recording)
    }
}

/// The run and the number that a file says it is of, and its other lines.
fn file(path: &Path, unreadable: &mut u64) -> anyhow::Result<(f64, u64, Vec<Line<'static>>)> {
    let opened = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = BufReader::new(opened);
    let mut head = None;
    let mut lines = Vec::new();
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text);
        if read.with_context(|| format!("cannot read {}", path.display()))? == 0 {
            break;
        }
        match serde_json::from_slice::<Line<'static>>(&text) {
            Ok(Line::Recording { format, .. }) if format != FORMAT => {
                bail!("{} has format {format}; this scoregate reads {FORMAT}", path.display())
            }
            Ok(Line::Recording { started_unix_seconds, file, .. }) => {
                head = Some((started_unix_seconds, file));
            }
            Ok(_) if head.is_none() => break,
            Ok(line) => lines.push(line),
            Err(_) if head.is_none() => break,
            Err(_) => *unreadable += 1,
        }
    }
    let (run, number) = head.with_context(|| format!("{} is no recording of scoregate", path.display()))?;
    Ok((run, number, lines))
}
