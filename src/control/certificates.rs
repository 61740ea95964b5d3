//! Watches the certificate files of the data listener and takes them when they change.
//!
//! Content is compared, not times or names, so that files that are renamed into place and the links of Kubernetes
//! volumes work too. Whether new files are good is decided in `data::tls`; connections that exist are not touched.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::core::identity::KeyDigest;
use crate::core::settings::TlsSettings;
use crate::data::files::read_small;
use crate::data::tls::{ServerTls, TlsError};
use crate::data::verify::digest_of;
use crate::shutdown::Drain;

/// Time between two looks at the files.
const PERIOD: Duration = Duration::from_secs(1);

/// What one look at the files has led to.
#[derive(Debug)]
pub enum Look {
    /// Other files, and they cannot be used: what was in use stays.
    Refused(TlsError),
    /// Other certificates are in use now.
    Taken,
    /// Nothing to do.
    Unchanged,
}

/// The watch over the files of one listener.
#[derive(Debug)]
pub struct CertificateWatch {
    tls: Arc<ServerTls>,
    /// What the files were when they were read last; empty before the first look, so that a change between the
    /// load and the first look is not missed.
    seen: Vec<(PathBuf, Result<KeyDigest, ErrorKind>)>,
}

impl CertificateWatch {
    /// A watch that has not looked yet.
    pub fn new(tls: Arc<ServerTls>) -> Self {
        Self { tls, seen: Vec::new() }
    }

    /// Looks each second until the end of the drain, and logs what comes of it.
    pub async fn run(mut self, mut drain: Drain) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.over() => return,
                _ = ticks.tick() => {}
            }
            match self.look() {
                Look::Refused(error) => {
                    tracing::error!(%error, "certificates not taken; the last good ones stay in use");
                }
                Look::Taken => {
                    for certificate in self.tls.certificates() {
                        let (path, names) = (certificate.path.display(), certificate.names.join(" "));
                        tracing::info!(file = %path, names, "certificate taken");
                    }
                }
                Look::Unchanged => {}
            }
        }
    }

    /// Reads the files, and takes them if they are other ones than at the last look.
    pub fn look(&mut self) -> Look {
        let settings = self.tls.settings();
        let seen = fingerprints(&settings);
        if seen == self.seen {
            return Look::Unchanged;
        }
        self.seen = seen;
        match self.tls.reload(&settings) {
            Ok(true) => Look::Taken,
            Ok(false) => Look::Unchanged,
            Err(error) => Look::Refused(error),
        }
    }
}

fn fingerprints(settings: &TlsSettings) -> Vec<(PathBuf, Result<KeyDigest, ErrorKind>)> {
    let files = settings.certificates.iter().flat_map(|files| [&files.certificate, &files.key]);
    let digest = |path: &PathBuf| match read_small(path) {
        Ok(content) => Ok(digest_of(&content)),
        Err(error) => Err(error.kind()),
    };
    files.map(|path| (path.clone(), digest(path))).collect()
}

#[cfg(test)]
mod tests;
