//! Every change on disk, step by step. A witness sees each step before it is done and can refuse it: that is how tests
//! cut the power or fill the disk at any of them.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use super::error::StoreError;
use super::layout::{folder_of, staged};

/// For the owner only.
pub(super) const PRIVATE: u32 = 0o600;
/// For the owner only; a folder.
pub(super) const PRIVATE_FOLDER: u32 = 0o700;

/// One thing that is done to the disk.
pub(super) enum Step<'a> {
    /// An empty file takes the place of whatever is there.
    Create(&'a Path),
    /// The content is written to a new file.
    Fill(&'a Path),
    MakeFolder(&'a Path),
    Remove(&'a Path),
    RemoveFolder(&'a Path),
    Rename(&'a Path, &'a Path),
    /// The content of a file becomes durable.
    SyncFile(&'a Path),
    /// The names in a folder become durable.
    SyncFolder(&'a Path),
}

/// Refuses a step, or lets it be done.
pub(super) type Witness = Arc<dyn Fn(&Step<'_>) -> io::Result<()> + Send + Sync>;

/// The only way to the disk for what changes it.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) witness: Option<Witness>,
}

impl Disk {
    /// Writes a new file and makes its content, not yet its name, durable.
    pub(super) fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
        self.create(path, content, mode).map_err(StoreError::io("write", path))
    }

    /// Gives a file a new content: after a crash it has the old one or the new one.
    pub(super) fn replace(
        &self,
        path: &Path,
        generation: u64,
        content: &[u8],
        mode: u32,
    ) -> Result<(), StoreError> {
        let staged = staged(path, generation);
        let renamed = self.write(&staged, content, mode).and_then(|()| self.rename(&staged, path));
        if renamed.is_err() {
            // It would only use up room, which may be what is missing.
            let _ = self.remove(&staged);
        }
        renamed?;
        self.sync_folder(folder_of(path))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let done = self.step(&Step::Rename(from, to)).and_then(|()| fs::rename(from, to));
        done.map_err(StoreError::io("replace", to))
    }

    /// A file that is not there is removed already.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let done = self.step(&Step::Remove(path)).and_then(|()| fs::remove_file(path));
        ignore(done, &[ErrorKind::NotFound]).map_err(StoreError::io("remove", path))
    }

    /// Leaves a folder that holds something.
    pub(super) fn remove_if_empty(&self, folder: &Path) -> Result<(), StoreError> {
        let done = self.step(&Step::RemoveFolder(folder)).and_then(|()| fs::remove_dir(folder));
        // POSIX lets a system say either of the last two.
        let fine = [ErrorKind::NotFound, ErrorKind::DirectoryNotEmpty, ErrorKind::AlreadyExists];
        ignore(done, &fine).map_err(StoreError::io("remove the folder", folder))
    }

    /// Makes a folder and those around it. Their names are durable once `sync_folder` was called for each of those.
    pub(super) fn make_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if folder.is_dir() {
            return Ok(());
        }
        self.make_folder(folder_of(folder))?;
        let make = |()| DirBuilder::new().mode(PRIVATE_FOLDER).create(folder);
        let done = self.step(&Step::MakeFolder(folder)).and_then(make);
        done.map_err(StoreError::io("make the folder", folder))
    }

    pub(super) fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        let sync = |()| File::open(folder)?.sync_all();
        let done = self.step(&Step::SyncFolder(folder)).and_then(sync);
        done.map_err(StoreError::io("make durable", folder))
    }

    fn create(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        self.step(&Step::Create(path))?;
        // Never into a file, or through a link, that somebody else has put there.
        ignore(fs::remove_file(path), &[ErrorKind::NotFound])?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        self.step(&Step::Fill(path))?;
        file.write_all(content)?;
        self.step(&Step::SyncFile(path))?;
        file.sync_all()
    }

    fn step(&self, step: &Step<'_>) -> io::Result<()> {
        tracing::trace!("{step}");
        self.witness.as_ref().map_or(Ok(()), |witness| witness(step))
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(path) => write!(f, "create {}", path.display()),
            Self::Fill(path) => write!(f, "fill {}", path.display()),
            Self::MakeFolder(path) => write!(f, "make folder {}", path.display()),
            Self::Remove(path) => write!(f, "remove {}", path.display()),
            Self::RemoveFolder(path) => write!(f, "remove folder {}", path.display()),
            Self::Rename(from, to) => write!(f, "rename {} to {}", from.display(), to.display()),
            Self::SyncFile(path) => write!(f, "sync {}", path.display()),
            Self::SyncFolder(path) => write!(f, "sync folder {}", path.display()),
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

fn ignore(done: io::Result<()>, fine: &[ErrorKind]) -> io::Result<()> {
    done.or_else(|error| if fine.contains(&error.kind()) { Ok(()) } else { Err(error) })
}
