//! Secrets of a file: `env:NAME`, `file:PATH`, or the secret itself. They are read once, at load.
//!
//! No form of a secret that this module gives away can be printed: messages name where it comes from.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};

use super::units::{Form, written_as_text};
use crate::core::identity::KeyDigest;

/// Shortest key, in characters: below this, trying them out becomes thinkable.
pub(super) const SHORTEST_KEY: usize = 16;
/// Longest secret; far longer than any PEM.
const LONGEST: u64 = 64 * 1024;
/// What stands for a secret that was written into the file. Too short to be taken for a key.
const PLACEHOLDER: &str = "***";

/// A secret as the file gives it.
#[derive(Clone, Debug)]
pub(super) enum SecretRef {
    /// Name of an environment variable.
    Env(String),
    /// Path of a file; newlines at its end do not count.
    File(PathBuf),
    /// The secret itself.
    Inline(SecretString),
}

/// A secret that was read.
#[derive(Debug)]
pub(super) struct Secret {
    bytes: SecretSlice<u8>,
    /// Fit to print: `env:NAME`, `file:PATH`, or `inline`.
    pub(super) origin: String,
}

impl SecretRef {
    /// The reference that `Secret::origin` describes; a placeholder for a secret that stood in the file.
    pub(super) fn from_origin(origin: &str) -> Self {
        Self::read(if origin == "inline" { PLACEHOLDER } else { origin })
            .unwrap_or_else(|| Self::Inline(PLACEHOLDER.into()))
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// Why it cannot be read, as a sentence that names its source and not its value.
    pub(super) fn resolve(
        &self,
        base: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secret, String> {
        let (mut bytes, origin) = match self {
            Self::Inline(text) => (text.expose_secret().as_bytes().to_vec(), "inline".to_owned()),
            Self::Env(name) => {
                let value =
                    env(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
                (value.into_bytes(), format!("env:{name}"))
            }
            Self::File(path) => {
                let path = base.join(path);
                let bytes = read_file(&path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))?;
                (bytes, format!("file:{}", path.display()))
            }
        };
        if !matches!(self, Self::Inline(_)) {
            let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
            bytes.truncate(end);
        }
        Ok(Secret { bytes: bytes.into(), origin })
    }
}

impl Secret {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.expose_secret()
    }

    /// Its digest as a key that clients send.
    ///
    /// # Errors
    /// Why it is not fit to be one, as the rest of the sentence "the key …".
    pub(super) fn key_digest(&self) -> Result<KeyDigest, String> {
        let bytes = self.bytes();
        if bytes.is_empty() {
            return Err("is empty".to_owned());
        }
        if bytes.len() < SHORTEST_KEY {
            return Err(format!("is too short: it needs {SHORTEST_KEY} characters or more"));
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err("holds spaces or characters that no HTTP header can carry".to_owned());
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        Ok(KeyDigest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes")))
    }
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(std::io::Error::other(format!("longer than {LONGEST} bytes")));
    }
    Ok(bytes)
}

impl Form for SecretRef {
    const MUST_BE: &'static str = "`env:NAME`, `file:PATH`, or the secret itself";

    fn read(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some(("env", name)) => {
                let valid = !name.is_empty() && !name.contains(['=', '\0']);
                valid.then(|| Self::Env(name.to_owned()))
            }
            Some(("file", path)) => {
                (!path.is_empty() && !path.contains('\0')).then(|| Self::File(path.into()))
            }
            _ => Some(Self::Inline(text.into())),
        }
    }

    fn write(&self) -> Cow<'_, str> {
        match self {
            Self::Env(name) => format!("env:{name}").into(),
            Self::File(path) => format!("file:{}", path.display()).into(),
            Self::Inline(_) => PLACEHOLDER.into(),
        }
    }
}

written_as_text!(SecretRef);

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str, dir: &Path) -> Result<Secret, String> {
        let env = |name: &str| (name == "KEY").then(|| "from-the-environment\n".to_owned());
        SecretRef::read(text).unwrap().resolve(dir, &env)
    }

    #[test]
    fn three_sources_and_newlines_of_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("k"), "from-a-file-0123456\r\n\n").unwrap();
        let file = resolve("file:k", dir.path()).unwrap();
        assert_eq!(file.bytes(), b"from-a-file-0123456");
        assert_eq!(file.origin, format!("file:{}", dir.path().join("k").display()));
        assert_eq!(resolve("env:KEY", dir.path()).unwrap().bytes(), b"from-the-environment");
        assert_eq!(resolve("inline-0123456789", dir.path()).unwrap().origin, "inline");
        assert_eq!(resolve("env:NO", dir.path()).unwrap_err(), "the environment variable `NO` is not set");
        assert!(resolve("file:none", dir.path()).unwrap_err().contains("No such file"));
    }

    #[test]
    fn the_digest_is_sha_256_and_short_keys_are_refused() {
        let key = |text: &str| resolve(text, Path::new("/")).unwrap().key_digest();
        let digest = key("0123456789abcdef").unwrap();
        // printf 0123456789abcdef | sha256sum
        assert_eq!(&digest.0[..4], [0x9f, 0x9f, 0x51, 0x11]);
        assert!(key("0123456789abcde").unwrap_err().contains("too short"));
        assert!(key("").unwrap_err().contains("empty"));
        assert!(key("0123456789 abcdef").unwrap_err().contains("spaces"));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let reference = SecretRef::read("hunter2-hunter2-hunter2").unwrap();
        let secret = reference.resolve(Path::new("/"), &|_| None).unwrap();
        let printed = format!("{reference:?} {secret:?} {}", reference.write());
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
