//! Handshakes over loopback: names, versions, reload with open connections.

use std::io;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme};
use rustls::{SupportedProtocolVersion, version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::shutdown::Tasks;

/// Writes a fresh self-signed certificate for the names and its key; gives the certificate in DER form too.
pub(crate) fn write_pair(folder: &TempDir, file: &str, names: &[&str]) -> (CertificateFiles, Vec<u8>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let path = |end| folder.path().join(format!("{file}.{end}"));
    let files = CertificateFiles { certificate: path("crt"), key: path("key") };
    std::fs::write(&files.certificate, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    (files, certificate.der().to_vec())
}

pub(crate) fn settings<const N: usize>(certificates: [&CertificateFiles; N]) -> TlsSettings {
    TlsSettings { certificates: certificates.map(Clone::clone).into(), redirect_from: None }
}

/// A server that sends back what it gets, and a client that takes any certificate.
pub(crate) struct Echo {
    port: u16,
    client: ClientConfig,
    tasks: Tasks,
}

impl Echo {
    pub(crate) async fn start(tls: &ServerTls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::clone(tls.config()));
        let tasks = Tasks::new();
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let accepted = acceptor.accept(stream);
                connections.spawn(async move {
                    let Ok(mut stream) = accepted.await else { return };
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte).await {
                        stream.write_all(&byte).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                });
            }
        });
        Self { port, client: client(&[&version::TLS13]), tasks }
    }

    /// Connects and exchanges a byte, so that tickets have arrived.
    pub(crate) async fn connect(&self, name: &'static str) -> TlsStream<TcpStream> {
        self.try_connect(&self.client, name).await.unwrap()
    }

    async fn try_connect(
        &self,
        client: &ClientConfig,
        name: &'static str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from(name).unwrap();
        let mut stream = TlsConnector::from(Arc::new(client.clone())).connect(name, tcp).await?;
        say(&mut stream).await;
        Ok(stream)
    }

    /// The certificate that a new client is shown.
    pub(crate) async fn shown(&self, name: &'static str) -> Vec<u8> {
        leaf(&self.connect(name).await)
    }
}

/// Says something on an open connection, and hears it.
pub(crate) async fn say(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"x");
}

fn leaf(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn client(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAll))
        .with_no_client_auth()
}

#[derive(Debug)]
struct TrustsAll;

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (a, a_der) = write_pair(&folder, "a", &["a.example", "Both.Example"]);
    let (b, b_der) = write_pair(&folder, "b", &["b.example", "*.b.example", "both.example"]);
    let (c, c_der) = write_pair(&folder, "c", &["exact.b.example"]);
    let tls = ServerTls::load(&settings([&a, &b, &c])).unwrap();
    let echo = Echo::start(&tls).await;
    for (name, expected) in [
        ("a.example", &a_der),
        ("A.EXAMPLE", &a_der),
        ("both.example", &a_der),
        ("b.example", &b_der),
        ("x.B.example", &b_der),
        ("exact.b.example", &c_der),
        ("x.y.b.example", &a_der),
        ("unknown", &a_der),
        ("127.0.0.1", &a_der),
    ] {
        assert!(echo.shown(name).await == *expected, "{name}");
    }
    let infos = tls.certificates();
    assert_eq!(infos[1].names, ["b.example", "*.b.example", "both.example"]);
    assert!(infos.iter().all(|info| info.not_after.is_some_and(|time| time > 1_800_000_000)));
}

#[tokio::test]
async fn both_versions_and_protocols_are_offered_and_sessions_are_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = write_pair(&folder, "a", &["a.example"]);
    let tls = ServerTls::load(&settings([&files])).unwrap();
    let echo = Echo::start(&tls).await;
    for (version, number) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        for alpn in ["h2", "http/1.1"] {
            let mut client = client(&[version]);
            client.alpn_protocols = vec![alpn.into()];
            let first = echo.try_connect(&client, "a.example").await.unwrap();
            let connection = first.get_ref().1;
            assert_eq!(connection.protocol_version(), Some(number));
            assert_eq!(connection.alpn_protocol(), Some(alpn.as_bytes()));
            let second = echo.try_connect(&client, "a.example").await.unwrap();
            assert_eq!(
                second.get_ref().1.handshake_kind(),
                Some(HandshakeKind::Resumed),
                "{number:?} {alpn}"
            );
        }
    }
    let mut other = client(&[&version::TLS13]);
    other.alpn_protocols = vec!["smtp".into()];
    assert!(echo.try_connect(&other, "a.example").await.is_err());
}

#[tokio::test]
async fn a_reload_serves_new_connections_and_leaves_open_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (files, old) = write_pair(&folder, "a", &["a.example"]);
    let tls = ServerTls::load(&settings([&files])).unwrap();
    let echo = Echo::start(&tls).await;
    let mut open = echo.connect("a.example").await;
    assert!(leaf(&open) == old);
    assert!(!tls.reload(&settings([&files])).unwrap());

    let (_, new) = write_pair(&folder, "a", &["a.example"]);
    let (more, more_der) = write_pair(&folder, "b", &["b.example"]);
    assert!(tls.reload(&settings([&files, &more])).unwrap());
    say(&mut open).await;
    // Another client: the first one would resume its session, in which no certificate is shown.
    let fresh = Echo { port: echo.port, client: client(&[&version::TLS13]), tasks: echo.tasks.clone() };
    assert!(fresh.shown("a.example").await == new);
    assert!(fresh.shown("b.example").await == more_der);
    assert_eq!(tls.settings(), settings([&files, &more]));
}

#[tokio::test]
async fn a_bad_reload_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (good, der) = write_pair(&folder, "good", &["a.example"]);
    let tls = ServerTls::load(&settings([&good])).unwrap();
    let echo = Echo::start(&tls).await;
    let (other, _) = write_pair(&folder, "other", &["other.example"]);
    let mismatch = CertificateFiles { key: good.key.clone(), ..other.clone() };
    assert!(matches!(tls.reload(&settings([&other, &mismatch])), Err(TlsError::Mismatch { .. })));
    assert!(echo.shown("other.example").await == der);
    assert_eq!(tls.settings(), settings([&good]));
}

#[test]
fn each_mistake_is_named_with_its_file_and_without_content() {
    let folder = tempfile::tempdir().unwrap();
    let (good, _) = write_pair(&folder, "good", &["a.example"]);
    let (other, _) = write_pair(&folder, "other", &["b.example"]);
    let (nameless, _) = write_pair(&folder, "nameless", &["10.0.0.1"]);
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let key = std::fs::read_to_string(&good.key).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let cut = file("cut.key", &format!("-----BEGIN PRIVATE KEY-----\n{secret}\n"));
    let odd = file("odd.key", &format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"));
    let locked = file("locked.key", &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    let garbage = file("bad.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let with_key = |key: PathBuf| CertificateFiles { key, ..good.clone() };
    let with_certificate = |certificate: PathBuf| CertificateFiles { certificate, ..good.clone() };
    for (settings, expected, file) in [
        (settings([&with_key("/nowhere/a.key".into())]), "cannot read", "/nowhere/a.key"),
        (settings([&with_key(cut)]), "no private key", "cut.key"),
        (settings([&with_key(odd)]), "not supported", "odd.key"),
        (settings([&with_key(locked)]), "passphrase", "locked.key"),
        (settings([&with_key(good.certificate.clone())]), "no private key", "good.crt"),
        (settings([&with_key(other.key)]), "does not belong", "other.key"),
        (settings([&with_certificate(good.key.clone())]), "no certificate", "good.key"),
        (settings([&with_certificate(garbage)]), "not a valid", "bad.crt"),
        (settings([&good, &nameless]), "no DNS host", "nameless.crt"),
        (settings([]), "no certificate", ""),
    ] {
        let error = ServerTls::load(&settings).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(file), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
    assert!(ServerTls::load(&settings([&nameless])).is_ok());
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let certificate = CertificateParams::new(["e.example".to_owned()]).unwrap().self_signed(&ed).unwrap();
    std::fs::write(&good.certificate, certificate.pem()).unwrap();
    std::fs::write(&good.key, ed.serialize_pem()).unwrap();
    assert!(ServerTls::load(&settings([&good])).is_ok());
}
