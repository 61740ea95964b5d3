//! From the files of the folder to what is declared. Nothing that looks like a declaration is passed over in silence;
//! what scoregate does not know is left alone.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::declared::agrees;
use super::disk::{Disk, PRIVATE};
use super::error::StoreError;
use super::layout::{DEPLOYMENTS, ENDPOINT, ENDPOINTS, Item, SECRETS, Secret, is_staged};
use super::text::{self, Flaw, LARGEST};
use crate::core::declared::{Declared, DeclaredEndpoint, Document, EndpointSecrets};
use crate::core::settings::Name;

const MEND: &str = "mend the file or move it out of the state directory, then start again";

/// Removes what processes have left behind that ended in the middle of a change. The journal must be finished.
pub(super) fn clean(disk: &Disk, root: &Path) -> Result<(), StoreError> {
    let endpoints = entries(&root.join(ENDPOINTS))?;
    let inner = endpoints.iter().flat_map(|folder| [folder.join(DEPLOYMENTS), folder.clone()]);
    let inner: Vec<PathBuf> = inner.filter(|folder| folder.is_dir()).collect();
    let all = [root.to_owned(), root.join(ENDPOINTS), root.join(SECRETS)];
    for folder in inner.iter().chain(&all) {
        for path in entries(folder)? {
            if path.file_name().is_some_and(is_staged) {
                disk.remove(&path)?;
            }
        }
    }
    inner.iter().try_for_each(|folder| disk.remove_if_empty(folder))
}

/// Reads everything.
pub(super) fn declared(root: &Path) -> Result<Declared, StoreError> {
    let mut endpoints = BTreeMap::new();
    for folder in entries(&root.join(ENDPOINTS))? {
        if folder.is_dir() {
            endpoints.extend(endpoint(root, &folder)?);
        } else if is_yaml(&folder) {
            return Err(StoreError::broken(
                &folder,
                "it is not read",
                "move it to endpoints/NAME/endpoint.yaml",
            ));
        }
    }
    Ok(Declared { generation: generation(root)?, endpoints })
}

/// The secret that a file holds. One that others may read is made private.
pub(super) fn secret(path: &Path) -> Result<Option<SecretString>, StoreError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let mode = fs::metadata(path).map_err(StoreError::io("look at", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(PRIVATE))
            .map_err(StoreError::io("make private", path))?;
        tracing::warn!("{} could be read by other users; its mode is 0600 now", path.display());
    }
    match text::secret(&text) {
        Ok(secret) => Ok(Some(secret.into())),
        Err(problem) => Err(StoreError::broken(path, problem, "write the secret into it as its only line")),
    }
}

/// The text of a file that may not be there.
pub(super) fn text(path: &Path) -> Result<Option<String>, StoreError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    // What is no regular file may keep a reader waiting for ever.
    if !metadata.is_file() {
        return Err(StoreError::broken(path, "it is not a regular file", MEND));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(StoreError::broken(path, format!("it is larger than {LARGEST} bytes"), MEND));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(StoreError::broken(path, "it is not UTF-8", MEND)),
    }
}

impl Flaw {
    pub(super) fn at(self, path: &Path, help: &str) -> StoreError {
        StoreError::Broken {
            path: path.to_owned(),
            line: self.line,
            problem: self.problem,
            help: help.to_owned(),
        }
    }
}

fn generation(root: &Path) -> Result<u64, StoreError> {
    let path = Item::Generation.path(root);
    let Some(text) = text(&path)? else { return Ok(0) };
    let help = "write a number into it that is not smaller than any it had before";
    text.trim().parse().map_err(|_| StoreError::broken(&path, "it must hold one whole number", help))
}

fn endpoint(root: &Path, folder: &Path) -> Result<Option<(Name, DeclaredEndpoint)>, StoreError> {
    let path = folder.join(ENDPOINT);
    let misspelt = folder.join("endpoint.yml");
    if misspelt.is_file() {
        return Err(StoreError::broken(&misspelt, "it is not read", "rename it to endpoint.yaml"));
    }
    let files = deployments(folder)?;
    let Some(text) = text(&path)? else {
        return match files.first() {
            None => Ok(None),
            Some(file) => {
                let problem = "its endpoint has no endpoint.yaml";
                Err(StoreError::broken(file, problem, "write that file, or move this one away"))
            }
        };
    };
    let name = name(folder)?;
    let item = Item::Endpoint(name.clone());
    let document = document(&path, &text, &item)?;
    let declared = DeclaredEndpoint {
        document,
        secrets: EndpointSecrets {
            primary: secret_of(root, &name, Secret::Primary)?,
            secondary: secret_of(root, &name, Secret::Secondary)?,
            signing: secret_of(root, &name, Secret::Signing)?,
        },
        deployments: files.iter().map(|file| deployment(&name, file)).collect::<Result<_, _>>()?,
    };
    Ok(Some((name, declared)))
}

/// The files in an endpoint's folder that declare deployments.
fn deployments(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = entries(&folder.join(DEPLOYMENTS))?;
    files.retain(|file| is_yaml(file));
    match files.iter().find(|file| file.extension().is_some_and(|e| e == "yml")) {
        Some(file) => Err(StoreError::broken(file, "it is not read", "rename it so that it ends in .yaml")),
        None => Ok(files),
    }
}

fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn deployment(endpoint: &Name, file: &Path) -> Result<(Name, Document), StoreError> {
    let name = name(&file.with_extension(""))?;
    let item = Item::Deployment(endpoint.clone(), name.clone());
    let Some(text) = text(file)? else {
        return Err(StoreError::broken(file, "it has gone while it was read", "start again"));
    };
    Ok((name, document(file, &text, &item)?))
}

fn document(path: &Path, text: &str, item: &Item) -> Result<Document, StoreError> {
    let document = text::decode(text).map_err(|flaw| flaw.at(path, MEND))?;
    agrees(item, &document).map_err(|problem| StoreError::broken(path, problem, MEND))?;
    Ok(document)
}

fn secret_of(root: &Path, endpoint: &Name, kind: Secret) -> Result<SecretString, StoreError> {
    let path = Item::Secret(endpoint.clone(), kind).path(root);
    secret(&path)?.ok_or_else(|| {
        let problem = format!("it is missing, and endpoint {endpoint} needs it");
        let help = "write a key of 16 or more letters and digits into it, as its only line";
        StoreError::broken(&path, problem, help)
    })
}

fn name(path: &Path) -> Result<Name, StoreError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Name::parse(name).map_err(|problem| StoreError::broken(path, format!("a name {problem}"), "rename it"))
}

/// What is in a folder that may not be there, in the order of the names. Names with a dot first belong to others,
/// apart from those of files that wait.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::io("read", folder)(error)),
    };
    let hidden = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(b".") && !is_staged(name)
    };
    let paths: io::Result<Vec<PathBuf>> = read.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(StoreError::io("read", folder))?;
    paths.retain(|path| !hidden(path));
    paths.sort();
    Ok(paths)
}
