//! A change of several files that happens as a whole. It is staged (every new content in a file beside its place),
//! committed (the journal appears in the folder), and finished (each file takes its place, and the journal goes).
//! Finishing needs no room on the disk, and may be done again from the start as often as it takes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::declared::{Content, items};
use super::disk::{Disk, PRIVATE};
use super::error::StoreError;
use super::layout::{Item, JOURNAL, folder_of, staged};
use super::{read, text};
use crate::core::declared::Declared;

/// First line of the journal, for people who find one.
const HEADER: &str = "# A change that scoregate was making; it finishes it at its next start.\n";

/// The files that a change touches, and the contents they get.
pub(super) struct Change {
    pub(super) journal: Journal,
    /// In the order of the journal.
    contents: Vec<String>,
}

/// What has to be done to finish a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Journal {
    generation: u64,
    put: Vec<Item>,
    remove: Vec<Item>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    generation: u64,
    put: Vec<String>,
    remove: Vec<String>,
}

impl Change {
    /// What leads from one state to the next.
    pub(super) fn between(before: &Declared, after: &Declared) -> Result<Self, StoreError> {
        let (old, new) = (items(before), items(after));
        let (mut put, mut contents) = (Vec::new(), Vec::new());
        for (item, content) in &new {
            if old.get(item) != Some(content) {
                contents.push(written(item, content)?);
                put.push(item.clone());
            }
        }
        let remove = old.into_keys().filter(|item| !new.contains_key(item)).collect();
        Ok(Self { journal: Journal { generation: after.generation, put, remove }, contents })
    }

    /// Writes every content to a file that waits beside its place, durably.
    pub(super) fn stage(&self, disk: &Disk, root: &Path) -> Result<(), StoreError> {
        let mut folders = BTreeSet::new();
        for (item, content) in self.journal.put.iter().zip(&self.contents) {
            let target = item.path(root);
            disk.make_folder(folder_of(&target))?;
            disk.write(&staged(&target, self.journal.generation), content.as_bytes(), PRIVATE)?;
            // All of them up to the root: one that exists may not be durable yet, if a crash came after it was made.
            folders
                .extend(target.ancestors().skip(1).take_while(|f| f.starts_with(root)).map(Path::to_owned));
        }
        folders.iter().try_for_each(|folder| disk.sync_folder(folder))
    }
}

impl Journal {
    /// Makes the change a fact.
    pub(super) fn commit(&self, disk: &Disk, root: &Path) -> Result<(), StoreError> {
        let path = root.join(JOURNAL);
        disk.replace(&path, self.generation, self.to_text().as_bytes(), PRIVATE)
    }

    /// The journal of a change that was not finished.
    pub(super) fn read(root: &Path) -> Result<Option<Self>, StoreError> {
        let path = root.join(JOURNAL);
        let Some(text) = read::text(&path)? else { return Ok(None) };
        let help =
            "mend it; without it, the files of one change may be partly those of before and partly new";
        let options = serde_saphyr::options! { with_snippet: false };
        let written: Written = serde_saphyr::from_str_with_options(&text, options)
            .map_err(|error: serde_saphyr::Error| text::flaw(error.without_snippet()).at(&path, help))?;
        let items = |texts: &[String]| texts.iter().map(|text| Item::parse(text)).collect::<Option<Vec<_>>>();
        let (Some(put), Some(remove)) = (items(&written.put), items(&written.remove)) else {
            return Err(StoreError::broken(&path, "it names a file that scoregate does not write", help));
        };
        Ok(Some(Self { generation: written.generation, put, remove }))
    }

    /// Brings every file to its place. The journal must be durable.
    pub(super) fn finish(&self, disk: &Disk, root: &Path) -> Result<(), StoreError> {
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        for item in &self.put {
            let target = item.path(root);
            let staged = staged(&target, self.generation);
            if exists(&staged)? {
                disk.rename(&staged, &target)?;
            } else if !exists(&target)? {
                let problem =
                    format!("it has a new content for {item}, but neither that nor an old one is there");
                let help = "bring the file back, or remove the journal to start without it";
                return Err(StoreError::broken(&root.join(JOURNAL), problem, help));
            }
            folders.insert(folder_of(&target).to_owned());
        }
        for item in &self.remove {
            let target = item.path(root);
            disk.remove(&target)?;
            folders.insert(folder_of(&target).to_owned());
        }
        for folder in self.remove.iter().flat_map(|item| item.own_folders(root)) {
            disk.remove_if_empty(&folder)?;
            folders.insert(folder_of(&folder).to_owned());
        }
        folders.iter().filter(|folder| folder.is_dir()).try_for_each(|folder| disk.sync_folder(folder))?;
        Self::withdraw(disk, root)
    }

    /// Removes the journal, durably: of a change that is finished, or that must not be.
    pub(super) fn withdraw(disk: &Disk, root: &Path) -> Result<(), StoreError> {
        disk.remove(&root.join(JOURNAL))?;
        disk.sync_folder(root)
    }

    /// Removes what was staged for a change that is not to be; what remains is removed when the store is opened.
    pub(super) fn discard(&self, disk: &Disk, root: &Path) {
        for item in &self.put {
            let _ = disk.remove(&staged(&item.path(root), self.generation));
        }
        for folder in self.put.iter().flat_map(|item| item.own_folders(root)) {
            let _ = disk.remove_if_empty(&folder);
        }
    }

    fn to_text(&self) -> String {
        let texts = |items: &[Item]| items.iter().map(Item::to_string).collect();
        let written =
            Written { generation: self.generation, put: texts(&self.put), remove: texts(&self.remove) };
        let yaml = serde_saphyr::to_string(&written).expect("a number and lists of texts are YAML");
        format!("{HEADER}{yaml}")
    }
}

fn written(item: &Item, content: &Content<'_>) -> Result<String, StoreError> {
    let text = match content {
        Content::Document(document) => text::encode(item, document),
        Content::Generation(generation) => Ok(format!("{generation}\n")),
        Content::Secret(secret) => text::secret_line(secret).map_err(str::to_owned),
    };
    text.map_err(|problem| StoreError::Unfit { item: item.to_string(), problem })
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("look at", path)(error)),
    }
}
