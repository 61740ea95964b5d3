//! TLS of the data listener: certificates by the name that a client asks for, and their exchange while connections
//! go on.
//!
//! New files are read and checked as a whole before anything changes. When to read them again is decided in
//! `control::certificates`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use crate::core::settings::{CertificateFiles, TlsSettings};
use crate::data::files::read_small;

mod validity;

/// Denial certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate file holds no chain in PEM.
    #[error("{} holds no certificate in PEM (BEGIN CERTIFICATE), or a broken one", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The first certificate is none that a server can show.
    #[error("the first certificate in {} is not a valid X.509 v3 certificate: {reason}", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key file holds no key, or one with a passphrase.
    #[error("{} holds no private key in PEM without a passphrase (PKCS#8, PKCS#1 or SEC1)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is of a kind or size that TLS cannot use.
    #[error("the private key in {} is of a kind or size that is not supported", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one of the certificate.
    #[error("the private key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// No client could ever be given this certificate, because it is not the first one.
    #[error("the certificate in {} names no DNS host (subjectAltName), so no client would get it", path.display())]
    NoNames {
        /// The file.
        path: PathBuf,
    },
    /// There is not one certificate.
    #[error("no certificate is configured")]
    Empty,
    /// The TLS library refused its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What is known of a certificate that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The file of the chain.
    pub path: PathBuf,
    /// DNS names, in small letters, wildcards included.
    pub names: Vec<String>,
    /// When it expires, seconds since 1970; `None` if that could not be read.
    pub not_after: Option<i64>,
}

/// TLS of one listener, shared by all workers.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
}

impl ServerTls {
    /// Reads and checks all certificates.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let resolver = Arc::new(Resolver(ArcSwap::from_pointee(Certificates::load(settings, &provider)?)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Resolver>::clone(&resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets instead of the session store: resumption without a lock that all workers share.
        config.ticketer = Ticketer::new()?;
        Ok(Self { config: Arc::new(config), resolver })
    }

    /// What connections are accepted with. It stays the same when certificates change.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The settings that are in force.
    pub fn settings(&self) -> TlsSettings {
        self.resolver.0.load().settings.clone()
    }

    /// What is shown to clients now, in the order of the settings.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        self.resolver.0.load().infos.clone()
    }

    /// Reads all files again and takes them for new connections if every one is good; `false` when they hold what
    /// is in use already.
    ///
    /// # Errors
    /// The first file that cannot be used. What is in use then stays.
    pub fn reload(&self, settings: &TlsSettings) -> Result<bool, TlsError> {
        let new = Certificates::load(settings, self.config.crypto_provider())?;
        let is_other = !new.same_chains(&self.resolver.0.load());
        // Stored in any case: the settings may name other files with the same content.
        self.resolver.0.store(Arc::new(new));
        Ok(is_other)
    }
}

/// Chooses among the certificates of the moment.
#[derive(Debug)]
struct Resolver(ArcSwap<Certificates>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.0.load().pick(hello.server_name())))
    }
}

/// All certificates of one load.
#[derive(Debug)]
struct Certificates {
    settings: TlsSettings,
    infos: Vec<CertificateInfo>,
    /// For clients that name no host or an unknown one.
    first: Arc<CertifiedKey>,
    /// By name in small letters; a wildcard stands as `*.` and the rest.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    fn load(settings: &TlsSettings, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut infos = Vec::new();
        let mut by_name = HashMap::new();
        let mut all = Vec::new();
        for files in &settings.certificates {
            let certified = Arc::new(read_pair(files, provider)?);
            let info = describe(&files.certificate, &certified)?;
            if info.names.is_empty() && !all.is_empty() {
                return Err(TlsError::NoNames { path: files.certificate.clone() });
            }
            for name in &info.names {
                by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&certified));
            }
            infos.push(info);
            all.push(certified);
        }
        let first = Arc::clone(all.first().ok_or(TlsError::Empty)?);
        Ok(Self { settings: settings.clone(), infos, first, by_name, all })
    }

    /// The exact name, then the wildcard for its first label (RFC 6125 §6.4.3), then the first certificate.
    fn pick(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.first;
        };
        let wildcard = || {
            let (_, rest) = name.split_once('.')?;
            self.by_name.get(&format!("*.{rest}"))
        };
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.first)
    }

    /// Whether the same certificates are shown; the keys follow from them.
    fn same_chains(&self, other: &Self) -> bool {
        self.all.iter().map(|c| &c.cert).eq(other.all.iter().map(|c| &c.cert))
    }
}

fn read_pair(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let CertificateFiles { certificate, key } = files;
    let read =
        |path: &Path| read_small(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate { path: certificate.clone() })?;
    // The reasons of the parsers are left out for keys: they may quote what they read.
    let secret =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| TlsError::NoKey { path: key.clone() })?;
    let secret =
        provider.key_provider.load_private_key(secret).map_err(|_| TlsError::BadKey { path: key.clone() })?;
    let certified = CertifiedKey::new(chain, secret);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: certificate.clone(), key: key.clone() })
        }
        Err(error) => Err(TlsError::BadCertificate { path: certificate.clone(), reason: error.to_string() }),
    }
}

fn describe(path: &Path, certified: &CertifiedKey) -> Result<CertificateInfo, TlsError> {
    let leaf = certified.end_entity_cert()?;
    let parsed = EndEntityCert::try_from(leaf)
        .map_err(|error| TlsError::BadCertificate { path: path.to_owned(), reason: error.to_string() })?;
    Ok(CertificateInfo {
        path: path.to_owned(),
        names: parsed.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        not_after: validity::not_after(leaf),
    })
}

#[cfg(test)]
pub(crate) mod tests;
