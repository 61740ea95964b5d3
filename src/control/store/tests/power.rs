//! A disk that fails at a chosen step, and a power cut that loses what was not made durable.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::control::store::disk::{Disk, Step};
use crate::control::store::layout::{JOURNAL, folder_of};

/// What goes wrong, and from which step on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Nothing more happens: the process or the machine has ended, or the disk refuses everything.
    Cut(usize),
    /// There is no room for new files, names and folders.
    Full(usize),
    Never,
    /// One step fails.
    Once(usize),
    /// Nothing becomes durable, and no journal can be removed.
    Stuck(usize),
}

/// What was at a path before a step that is not durable yet.
enum Prior {
    File(Vec<u8>),
    Folder,
    Nothing,
}

struct Undo {
    /// Whose names the step has changed.
    folder: PathBuf,
    priors: Vec<(PathBuf, Prior)>,
}

struct State {
    fault: Fault,
    steps: usize,
    tripped: bool,
    /// Files whose content is not durable.
    dirty: BTreeSet<PathBuf>,
    /// In the order of the steps.
    undo: Vec<Undo>,
}

/// The machine that a store runs on; it outlives the store.
#[derive(Clone)]
pub(super) struct Power(Arc<Mutex<State>>);

impl Power {
    pub(super) fn new() -> Self {
        let state =
            State { fault: Fault::Never, steps: 0, tripped: false, dirty: BTreeSet::new(), undo: Vec::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn disk(&self) -> Disk {
        let state = Arc::clone(&self.0);
        Disk { witness: Some(Arc::new(move |step| state.lock().unwrap().step(step))) }
    }

    /// Steps count from here.
    pub(super) fn arm(&self, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        (state.fault, state.steps, state.tripped) = (fault, 0, false);
    }

    /// Whether a step was refused since.
    pub(super) fn tripped(&self) -> bool {
        self.0.lock().unwrap().tripped
    }

    /// The power is cut: files that were not synced have half of their content, and of the folders that were not
    /// synced, those that are not `kept` have their old names.
    pub(super) fn lose(&self, kept: impl Fn(&Path) -> bool) {
        let mut state = self.0.lock().unwrap();
        for path in std::mem::take(&mut state.dirty) {
            if let Ok(content) = fs::read(&path) {
                fs::write(&path, &content[..content.len() / 2]).unwrap();
            }
        }
        for undo in std::mem::take(&mut state.undo).into_iter().rev() {
            if !kept(&undo.folder) {
                undo.priors.into_iter().for_each(|(path, prior)| restore(&path, prior));
            }
        }
    }
}

impl State {
    fn step(&mut self, step: &Step<'_>) -> io::Result<()> {
        let number = self.steps;
        self.steps += 1;
        let grows = matches!(step, Step::Create(_) | Step::Fill(_) | Step::MakeFolder(_));
        let refused = match self.fault {
            Fault::Cut(from) => number >= from,
            Fault::Full(from) => number >= from && grows,
            Fault::Never => false,
            Fault::Once(at) => number == at,
            Fault::Stuck(from) => {
                let journal = |path: &Path| path.ends_with(JOURNAL);
                let stuck = matches!(step, Step::SyncFolder(_))
                    || matches!(step, Step::Remove(path) if journal(path));
                number >= from && stuck
            }
        };
        if refused {
            self.tripped = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        match *step {
            Step::Create(path) | Step::MakeFolder(path) | Step::Remove(path) | Step::RemoveFolder(path) => {
                self.dirty.remove(path);
                self.names(path, &[path]);
            }
            Step::Fill(path) => {
                self.dirty.insert(path.to_owned());
            }
            Step::Rename(from, to) => {
                self.names(from, &[from, to]);
                if self.dirty.remove(from) {
                    self.dirty.insert(to.to_owned());
                }
            }
            Step::SyncFile(path) => {
                self.dirty.remove(path);
            }
            // What was in a folder that is gone goes for good with its name.
            Step::SyncFolder(folder) => {
                self.undo.retain(|undo| undo.folder.ancestors().find(|path| path.exists()) != Some(folder));
            }
        }
        Ok(())
    }

    fn names(&mut self, path: &Path, changed: &[&Path]) {
        let priors = changed.iter().map(|path| (path.to_path_buf(), prior(path))).collect();
        self.undo.push(Undo { folder: folder_of(path).to_owned(), priors });
    }
}

fn prior(path: &Path) -> Prior {
    match fs::read(path) {
        Ok(content) => Prior::File(content),
        Err(_) if path.is_dir() => Prior::Folder,
        Err(_) => Prior::Nothing,
    }
}

/// What stands in the way of it was undone with a folder, or is kept with one.
fn restore(path: &Path, prior: Prior) {
    let _ = match prior {
        Prior::File(content) => fs::write(path, content),
        Prior::Folder => fs::create_dir(path),
        Prior::Nothing if path.is_dir() => fs::remove_dir_all(path),
        Prior::Nothing => fs::remove_file(path),
    };
}
