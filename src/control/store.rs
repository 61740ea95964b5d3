//! The state directory: what is declared, kept on disk as files that people can read. One process has it at a time.
//!
//! After a crash at any instant, `open` gives what was before the last `commit` or what it made, never a mixture. The
//! moment between the two is the one in which the journal's name becomes durable (`change`). Until then a failure
//! leaves everything as it was; a full disk shows there, since all contents are written first. From then on the change
//! is a fact: what remains is to rename and remove files, and if even that fails, `commit` succeeds with a warning, the
//! journal stays, and the next `commit`, `settle` or `open` finishes it before anything else happens. Only a disk that
//! refuses both to make a journal durable and to remove it leaves it open what a restart finds; `InDoubt` says so.
//! Files are read when the store is opened, and written where something changed; a broken one is never overwritten.

mod change;
mod declared;
mod disk;
mod error;
mod layout;
mod read;
#[cfg(test)]
mod tests;
mod text;

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};

pub use self::declared::{fresh_secrets, new_key};
pub use self::error::StoreError;

use self::change::{Change, Journal};
use self::disk::{Disk, PRIVATE, PRIVATE_FOLDER};
use self::layout::{ADMIN, ADMIN_KEY, LOCK, READER_KEY, folder_of};
use crate::core::declared::Declared;

/// Shortest admin key, in characters: below this, trying them out becomes thinkable.
const SHORTEST_KEY: usize = 16;
/// Longest wait for the last owner to let go.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// `admin.json` is for other users too: it tells where, not who.
const PUBLIC: u32 = 0o644;

/// The state directory, open.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    disk: Disk,
    /// Of the last commit.
    generation: u64,
    leftover: Option<Leftover>,
    /// Held for as long as the store lives.
    _lock: File,
}

/// The keys of the admin API.
#[derive(Clone, Debug)]
pub struct AdminKeys {
    /// May change things.
    pub writer: SecretString,
    /// May look.
    pub reader: SecretString,
}

/// A journal that is still in the folder, because removing files has failed.
#[derive(Debug)]
enum Leftover {
    /// The change is a fact.
    Finish(Journal),
    /// The change was refused.
    Withdraw(Journal),
}

impl Store {
    /// Opens the folder, makes it if it is not there, and brings a change to its end that a crash has interrupted.
    ///
    /// # Errors
    /// Another process has it, a file cannot be understood, or the system refuses something.
    pub fn open(dir: &Path) -> Result<(Self, Declared), StoreError> {
        Self::open_on(dir, Disk::default())
    }

    fn open_on(dir: &Path, disk: Disk) -> Result<(Self, Declared), StoreError> {
        let folder = std::path::absolute(dir).map_err(StoreError::io("find", dir))?;
        make_root(&disk, &folder)?;
        let lock = lock(&folder)?;
        if let Some(journal) = Journal::read(&folder)? {
            // Only its process may have seen it until now.
            disk.sync_folder(&folder)?;
            journal.finish(&disk, &folder)?;
        }
        read::clean(&disk, &folder)?;
        let declared = read::declared(&folder)?;
        let generation = declared.generation;
        Ok((Self { folder, disk, generation, leftover: None, _lock: lock }, declared))
    }

    /// Makes `after` of `before`, as a whole and durably. `before` must be what the last commit has made, or what
    /// `open` has given; the generation of `after` is one more. When this fails, `before` stays true.
    ///
    /// # Errors
    /// `Stale` or `Unfit` for what is no change of this state; otherwise the system refuses something.
    pub fn commit(&mut self, before: &Declared, after: &Declared) -> Result<(), StoreError> {
        self.settle()?;
        if before.generation != self.generation || Some(after.generation) != before.generation.checked_add(1)
        {
            let (from, to) = (before.generation, after.generation);
            return Err(StoreError::Stale { from, to, present: self.generation });
        }
        let change = Change::between(before, after)?;
        if let Err(error) = change.stage(&self.disk, &self.folder) {
            change.journal.discard(&self.disk, &self.folder);
            return Err(error);
        }
        let journal = change.journal;
        if let Err(error) = journal.commit(&self.disk, &self.folder) {
            return Err(self.refuse(journal, error));
        }
        self.generation = after.generation;
        if let Err(error) = journal.finish(&self.disk, &self.folder) {
            tracing::warn!("a change is committed, but not yet in all its files: {error}");
            self.leftover = Some(Leftover::Finish(journal));
        }
        Ok(())
    }

    /// Ends what a failure has left over; nothing to do in nearly all cases.
    ///
    /// # Errors
    /// The system still refuses.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        match &self.leftover {
            None => return Ok(()),
            Some(Leftover::Finish(journal)) => journal.finish(&self.disk, &self.folder)?,
            Some(Leftover::Withdraw(journal)) => {
                Journal::withdraw(&self.disk, &self.folder)?;
                journal.discard(&self.disk, &self.folder);
            }
        }
        self.leftover = None;
        Ok(())
    }

    /// The absolute path of the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The keys of the admin API; made at the first call, kept in `admin.key` and `reader.key`.
    ///
    /// # Errors
    /// A file does not hold a key, or the system refuses something.
    pub fn admin_keys(&mut self) -> Result<AdminKeys, StoreError> {
        Ok(AdminKeys { writer: self.admin_key(ADMIN_KEY)?, reader: self.admin_key(READER_KEY)? })
    }

    /// Writes into `admin.json` where the admin API is now.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn announce(&self, admin_url: &str) -> Result<(), StoreError> {
        let text = format!("{}\n", serde_json::json!({ "url": admin_url }));
        self.disk.replace(&self.folder.join(ADMIN), self.generation, text.as_bytes(), PUBLIC)
    }

    /// The journal may be there or not, and must not be there.
    fn refuse(&mut self, journal: Journal, error: StoreError) -> StoreError {
        if Journal::withdraw(&self.disk, &self.folder).is_err() {
            // What is staged stays as well: a journal without it would make a mixture.
            self.leftover = Some(Leftover::Withdraw(journal));
            return StoreError::InDoubt { source: Box::new(error) };
        }
        journal.discard(&self.disk, &self.folder);
        error
    }

    fn admin_key(&self, name: &str) -> Result<SecretString, StoreError> {
        let path = self.folder.join(name);
        if let Some(key) = read::secret(&path)? {
            let text = key.expose_secret();
            if text.len() < SHORTEST_KEY || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                let problem = format!("it must hold {SHORTEST_KEY} or more characters, and no spaces");
                return Err(StoreError::broken(&path, problem, "remove the file to get a new key"));
            }
            return Ok(key);
        }
        let key = new_key();
        let line = format!("{}\n", key.expose_secret());
        self.disk.replace(&path, self.generation, line.as_bytes(), PRIVATE)?;
        Ok(key)
    }
}

/// A folder that is new or empty becomes private. One that holds something may be shared on purpose: it stays as it
/// is, and what scoregate puts into it is private anyway.
fn make_root(disk: &Disk, folder: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    disk.make_folder(folder)?;
    missing.into_iter().try_for_each(|folder| disk.sync_folder(folder_of(folder)))?;
    let look = || Ok::<bool, std::io::Error>(fs::read_dir(folder)?.next().is_none());
    if look().map_err(StoreError::io("read", folder))? {
        fs::set_permissions(folder, Permissions::from_mode(PRIVATE_FOLDER))
            .map_err(StoreError::io("make private", folder))?;
    }
    Ok(())
}

/// A process that has just been started by the last owner holds its files for a moment, until it runs its own program.
#[expect(clippy::disallowed_methods, reason = "nothing else runs on this thread before the store is open")]
fn lock_within(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let end = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

/// The system lets go of it when the process ends, however that happens.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE);
    let mut file = options.open(&path).map_err(StoreError::io("open", &path))?;
    match lock_within(&file, LOCK_PATIENCE) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            return Err(StoreError::Locked { folder: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
    }
    // Only for the message above; a full disk is no reason not to start.
    let text = format!("{}\n", std::process::id());
    let _ = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
    Ok(file)
}
