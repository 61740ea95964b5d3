//! From what a user wrote to `Settings`: defaults, and every rule that needs two values or the world outside.
//!
//! Goes on after every error with what could be decoded, and is silent about what only follows from an error
//! that was already reported. The result counts only if no error was found; until then fallbacks do.

mod auth;
mod capacity;
mod clients;
mod deployment;
mod effect;
mod endpoint;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::{Finding, Place, Source};
use super::field::{At, Field};
use super::file;
use super::secret::{Secret, SecretRef};
use super::units::{FilePath, Int, Listener, LogTarget};
use crate::core::settings::{
    AccessLogTarget, AdminSettings, CertificateFiles, Key, ListenSettings, Name, RecordingSettings, Settings,
    TlsSettings,
};

/// v1's limit of versions behind one endpoint (reference §1.5).
pub(super) const MAX_DEPLOYMENTS: u64 = 6;

/// What the rules need to know besides the file.
pub(super) struct Check<'a> {
    pub(super) source: &'a Source<'a>,
    /// Folder of the file, absolute: relative paths begin here.
    pub(super) base: &'a Path,
    /// Environment variables.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) findings: &'a mut Vec<Finding>,
    /// There may be no endpoints, and endpoints without deployments: others are declared one by one.
    pub(super) may_be_empty: bool,
}

/// Checks a file. `None` when a part of the settings could not be made; then an error has been reported.
pub(super) fn check(check: &mut Check<'_>, file: &At<file::File>) -> Option<Settings> {
    let At { value: file, place } = file;
    let listen = check.listen(&file.listen);
    let admin = check.admin(&file.admin);
    check.distinct_addresses(file);
    let endpoints = check.endpoints(file, *place);
    Some(Settings {
        listen,
        admin,
        drain_timeout: millis(&file.drain_timeout_ms, 30_000),
        access_log: match file.access_log.value() {
            None | Some(LogTarget::Stdout) => AccessLogTarget::Stdout,
            Some(LogTarget::Off) => AccessLogTarget::Off,
            Some(LogTarget::File(path)) => AccessLogTarget::File(check.base.join(path)),
        },
        recording: file.recording.given().and_then(|at| check.recording(at)),
        endpoints: endpoints?,
    })
}

impl Check<'_> {
    fn listen(&mut self, field: &Field<file::Listen>) -> ListenSettings {
        let default = file::Listen::default();
        let listen = field.value().unwrap_or(&default);
        ListenSettings {
            address: listener(&listen.address, 8080),
            workers: listen.workers.value().and_then(|workers| workers.as_u32().try_into().ok()),
            max_connections: at_least_one(&listen.max_connections, 10_000),
            header_timeout: millis(&listen.header_timeout_ms, 60_000),
            write_timeout: millis(&listen.write_timeout_ms, 60_000),
            tls: listen.tls.given().map(|tls| self.tls(tls)),
        }
    }

    fn recording(&mut self, at: &At<file::Recording>) -> Option<RecordingSettings> {
        let recording = &at.value;
        if recording.directory.is_absent() {
            self.missing(at.place, "directory", "`recording`");
        }
        Some(RecordingSettings {
            directory: self.base.join(&recording.directory.value()?.0),
            max_file_bytes: u64::from(number(&recording.max_file_mb, 64)) << 20,
            files: number(&recording.files, 8),
        })
    }

    fn tls(&mut self, tls: &At<file::Tls>) -> TlsSettings {
        let list = self.list(&tls.value.certificates, "certificates", "`tls`", tls.place);
        let certificates = list
            .into_iter()
            .map(|at| CertificateFiles {
                certificate: self.file(&at.value.certificate, "certificate", at.place),
                key: self.file(&at.value.key, "key", at.place),
            })
            .collect();
        TlsSettings { certificates, redirect_from: tls.value.redirect_from.value().map(|at| at.0) }
    }

    fn admin(&mut self, field: &Field<file::Admin>) -> AdminSettings {
        let default = file::Admin::default();
        let admin = field.value().unwrap_or(&default);
        let address = listener(&admin.address, 8081);
        if let (Some(at), true) = (admin.address.given(), admin.key.is_absent())
            && !address.ip().is_loopback()
        {
            let message =
                format!("`admin.key` is required, because {address} can be reached from other machines");
            self.error(at.place, message, "add `key: env:NAME`, or use an address such as 127.0.0.1:8081");
        }
        AdminSettings { address, key: admin.key.given().and_then(|at| self.key(at)) }
    }

    /// Listeners must not share an address; port 0 is always a new one.
    fn distinct_addresses(&mut self, file: &file::File) {
        let listen = file.listen.value();
        let redirect = listen.and_then(|listen| listen.tls.value()).map(|tls| &tls.redirect_from);
        let fields = [
            ("listen.address", listen.and_then(|listen| listen.address.given())),
            ("listen.tls.redirect_from", redirect.and_then(Field::given)),
            ("admin.address", file.admin.value().and_then(|admin| admin.address.given())),
        ];
        let mut seen = HashMap::new();
        for (name, at) in fields.into_iter().filter_map(|(name, at)| Some((name, at?))) {
            let address = at.value.0;
            if let Some(other) = seen.insert(address, name).filter(|_| address.port() != 0) {
                let message = format!("`{name}` and `{other}` are both {address}");
                self.error(at.place, message, "give each listener a port of its own");
            }
        }
    }

    fn endpoints(
        &mut self,
        file: &file::File,
        place: Place,
    ) -> Option<Vec<Arc<crate::core::settings::EndpointSettings>>> {
        let list = match self.may_be_empty {
            true => items(&file.endpoints),
            false => self.list(&file.endpoints, "endpoints", "the file", place),
        };
        self.unique(list.iter().map(|at| &at.value.name), "endpoint");
        self.unique_routes(&list);
        let profile = file.profile.value().copied().unwrap_or(file::Profile::Aks);
        let limit = file.max_deployments_per_endpoint.value().map_or(MAX_DEPLOYMENTS, |limit| limit.get());
        let endpoints: Vec<_> = list.iter().map(|at| self.endpoint(at, profile, limit)).collect();
        endpoints.into_iter().map(|endpoint| endpoint.map(Arc::new)).collect()
    }

    fn unique_routes(&mut self, endpoints: &[&At<file::Endpoint>]) {
        let mut seen = HashMap::new();
        for at in endpoints.iter().filter_map(|at| at.value.scoring_route.given()) {
            if let Some(line) = seen.insert(&at.value.0, self.line(at.place)) {
                let message = format!("`scoring_route` {} is already taken by another endpoint", at.value.0);
                self.error(at.place, message, format!("the other one is on line {line}"));
            }
        }
    }

    /// Names are compared without case: as part of a host name they have none.
    fn unique<'f>(&mut self, names: impl Iterator<Item = &'f Field<String>>, what: &str) {
        let mut seen = HashMap::new();
        for at in names.filter_map(Field::given) {
            let line = self.line(at.place);
            if let Some(first) = seen.insert(at.value.to_ascii_lowercase(), line) {
                let quote = self.source.quote(at.place);
                let message = format!("two {what}s are called `{quote}`");
                self.error(
                    at.place,
                    message,
                    format!("the other one is on line {first}; case does not count"),
                );
            }
        }
    }

    /// The good items of a required list that must not be empty.
    fn list<'f, T>(
        &mut self,
        field: &'f Field<file::List<T>>,
        key: &str,
        owner: &str,
        place: Place,
    ) -> Vec<&'f At<T>> {
        match field {
            Field::Absent => self.missing(place, key, owner),
            Field::Bad => {}
            Field::Given(at) if at.value.is_empty() => {
                self.error(at.place, format!("`{key}` is empty"), "it needs at least one item");
            }
            Field::Given(_) => {}
        }
        items(field)
    }

    fn name(&mut self, field: &Field<String>, what: &str, owner: Place) -> Option<Name> {
        if field.is_absent() {
            self.missing(owner, "name", what);
        }
        let at = field.given()?;
        match Name::parse(&at.value) {
            Ok(name) => Some(name),
            Err(reason) => {
                let quote = self.source.quote(at.place);
                let message = format!("`{quote}` is not a name of {what}: it {reason}");
                let help = "a name has 3 to 32 letters, digits and hyphens, begins with a letter and does not end \
                    with a hyphen";
                self.error(at.place, message, help);
                None
            }
        }
    }

    /// A required file that must be readable now.
    fn file(&mut self, field: &Field<FilePath>, key: &str, owner: Place) -> PathBuf {
        if field.is_absent() {
            self.missing(owner, key, "this entry");
        }
        let Some(at) = field.given() else { return PathBuf::new() };
        let path = self.base.join(&at.value.0);
        let opened = fs::File::open(&path).and_then(|file| file.metadata());
        match opened {
            Ok(metadata) if metadata.is_dir() => {
                self.error(at.place, format!("`{}` is a folder", path.display()), "name a file");
            }
            Ok(_) => {}
            Err(e) => {
                let message = format!("cannot read `{}`: {e}", path.display());
                self.error(at.place, message, "relative paths begin at the folder of this file");
            }
        }
        path
    }

    fn secret(&mut self, at: &At<SecretRef>) -> Option<Secret> {
        match at.value.resolve(self.base, self.env) {
            Ok(secret) => Some(secret),
            Err(message) => {
                let help =
                    "a secret is `env:NAME`, `file:PATH` (relative to the folder of this file) or a text";
                self.error(at.place, message, help);
                None
            }
        }
    }

    /// A key that clients send.
    fn key(&mut self, at: &At<SecretRef>) -> Option<Key> {
        let secret = self.secret(at)?;
        match secret.key_digest() {
            Ok(digest) => Some(Key { digest, origin: secret.origin }),
            Err(reason) => {
                let origin = match secret.origin.as_str() {
                    "inline" => "the key".to_owned(),
                    origin => format!("the key from `{origin}`"),
                };
                let help = "make one with `openssl rand -hex 24`";
                self.error(at.place, format!("{origin} {reason}"), help);
                None
            }
        }
    }

    fn missing(&mut self, place: Place, key: &str, owner: &str) {
        if !self.is_misspelled(place, key) {
            Finding::error(place, format!("`{key}` is missing in {owner}")).record(self.findings);
        }
    }

    /// Whether a mapping has a key that is reported as a misspelling of this one.
    fn is_misspelled(&self, mapping: Place, key: &str) -> bool {
        let meant = self.findings.iter().filter_map(|finding| finding.meant.as_ref());
        meant.into_iter().any(|(place, meant)| *place == mapping && meant == key)
    }

    fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        Finding::error(place, message).help(help).record(self.findings);
    }

    fn warning(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        Finding::warning(place, message).help(help).record(self.findings);
    }

    fn line(&self, place: Place) -> usize {
        self.source.line(place)
    }
}

/// The good items of a list.
fn items<T>(field: &Field<file::List<T>>) -> Vec<&At<T>> {
    field.value().into_iter().flatten().filter_map(Field::given).collect()
}

/// The good texts of a list.
fn texts(field: &Field<file::List<String>>) -> Vec<String> {
    items(field).into_iter().map(|at| at.value.clone()).collect()
}

fn listener(field: &Field<Listener>, default_port: u16) -> std::net::SocketAddr {
    field.value().map_or_else(|| ([127, 0, 0, 1], default_port).into(), |listener| listener.0)
}

fn millis<const MIN: u64, const MAX: u64>(field: &Field<Int<MIN, MAX>>, default: u64) -> Duration {
    field.value().map_or_else(|| Duration::from_millis(default), |int| int.millis())
}

fn seconds<const MIN: u64, const MAX: u64>(field: &Field<Int<MIN, MAX>>, default: u64) -> Duration {
    field.value().map_or_else(|| Duration::from_secs(default), |int| int.seconds())
}

fn number<const MIN: u64, const MAX: u64>(field: &Field<Int<MIN, MAX>>, default: u32) -> u32 {
    field.value().map_or(default, |int| int.as_u32())
}

fn at_least_one<const MAX: u64>(field: &Field<Int<1, MAX>>, default: u32) -> std::num::NonZeroU32 {
    number(field, default).max(1).try_into().expect("at least one")
}
