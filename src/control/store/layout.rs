//! Which file holds what, and under which name a new content waits for its turn.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::core::settings::Name;

/// Folder of the endpoints, each in a folder of its own.
pub(super) const ENDPOINTS: &str = "endpoints";
/// An endpoint's document in its folder.
pub(super) const ENDPOINT: &str = "endpoint.yaml";
/// Folder of the deployments' documents in an endpoint's folder.
pub(super) const DEPLOYMENTS: &str = "deployments";
/// Folder of the endpoints' secrets.
pub(super) const SECRETS: &str = "secrets";
/// A change that is committed and not yet in all its files.
pub(super) const JOURNAL: &str = "journal.yaml";
/// Held by the process that uses the folder, and its number.
pub(super) const LOCK: &str = "lock";
/// The writer's key of the admin API.
pub(super) const ADMIN_KEY: &str = "admin.key";
/// The reader's key of the admin API.
pub(super) const READER_KEY: &str = "reader.key";
/// Where the admin API listens.
pub(super) const ADMIN: &str = "admin.json";
/// Number of the last change.
const GENERATION: &str = "generation";
/// End of the name of a file that waits; long enough to belong to nobody else.
const STAGED: &str = ".scoregate-new";

/// One of an endpoint's secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Secret {
    Primary,
    Secondary,
    Signing,
}

impl Secret {
    /// In the order of the variants.
    pub(super) const ALL: [Self; 3] = [Self::Primary, Self::Secondary, Self::Signing];

    fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Signing => "signing",
        }
    }
}

/// A file that holds a part of what is declared. Its text is its path in the folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    Deployment(Name, Name),
    Endpoint(Name),
    Generation,
    Secret(Name, Secret),
}

impl Item {
    /// Takes the path of an item and nothing else: whoever can write the journal cannot lead scoregate elsewhere.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let name = |text: &str| Name::parse(text).ok();
        match parts[..] {
            [GENERATION] => Some(Self::Generation),
            [ENDPOINTS, endpoint, ENDPOINT] => Some(Self::Endpoint(name(endpoint)?)),
            [ENDPOINTS, endpoint, DEPLOYMENTS, file] => {
                Some(Self::Deployment(name(endpoint)?, name(file.strip_suffix(".yaml")?)?))
            }
            [SECRETS, file] => {
                let (endpoint, kind) = file.rsplit_once('.')?;
                let secret = Secret::ALL.into_iter().find(|secret| secret.as_str() == kind)?;
                Some(Self::Secret(name(endpoint)?, secret))
            }
            _ => None,
        }
    }

    /// Where it is.
    pub(super) fn path(&self, root: &Path) -> PathBuf {
        root.join(self.to_string())
    }

    /// Folders that may be empty when it is gone, the inner one first.
    pub(super) fn own_folders(&self, root: &Path) -> Vec<PathBuf> {
        match self {
            Self::Endpoint(endpoint) | Self::Deployment(endpoint, _) => {
                let folder = root.join(ENDPOINTS).join(endpoint.as_str());
                vec![folder.join(DEPLOYMENTS), folder]
            }
            Self::Generation | Self::Secret(..) => Vec::new(),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment(endpoint, name) => {
                write!(f, "{ENDPOINTS}/{endpoint}/{DEPLOYMENTS}/{name}.yaml")
            }
            Self::Endpoint(endpoint) => write!(f, "{ENDPOINTS}/{endpoint}/{ENDPOINT}"),
            Self::Generation => f.write_str(GENERATION),
            Self::Secret(endpoint, secret) => write!(f, "{SECRETS}/{endpoint}.{}", secret.as_str()),
        }
    }
}

/// Where the new content of a file waits until it takes the file's place. The generation is part of the name, so that
/// a journal never takes another change's file for its own.
pub(super) fn staged(target: &Path, generation: u64) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{generation}{STAGED}"))
}

/// Whether a file is one that waits, or was left over by a process that ended.
pub(super) fn is_staged(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(STAGED))
}

/// The folder that a path is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
