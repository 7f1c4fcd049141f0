//! TLS of EST: our certificate, and the clients', which are optional.
//!
//! A client's certificate is verified against the authority here; whether it was revoked, the inventory says at each request, with a
//! reason. Sessions are not resumed: that would skip the verification, and a device enrols once a year.
//!
//! Certificate and key are read again when a file changes; ones that cannot be used leave the old in place.

use super::super::{ServeError, identity, log};
use motemq_certs::{Authority, CertificateFacts};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_rustls::TlsAcceptor;

/// What handshakes need.
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    dir: PathBuf,
    clients: Arc<dyn ClientCertVerifier>,
    acceptor: TlsAcceptor,
    stamps: [Stamp; 2],
    looked_at_s: i64,
}

/// What changes with a file.
type Stamp = Option<(SystemTime, u64)>;

impl Tls {
    pub(super) fn open(
        dir: &Path,
        certificate: PathBuf,
        key: PathBuf,
        authority: &Authority,
    ) -> Result<Self, ServeError> {
        let pem = format!("{}{}", authority.root_pem(), authority.certificate_pem());
        let roots = Arc::new(identity::trusted(pem.as_bytes()));
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|_| ServeError::NoAuthority(authority.certificate_path()))?;
        let stamps = [stamp(&certificate), stamp(&key)];
        let config = config(dir, &certificate, &key, Arc::clone(&clients))?;
        Ok(Self {
            certificate,
            key,
            dir: dir.to_owned(),
            clients,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            stamps,
            looked_at_s: 0,
        })
    }

    /// For the next handshake.
    pub(super) fn acceptor(&mut self, now_s: i64) -> TlsAcceptor {
        // At most once in a second.
        if self.looked_at_s != now_s {
            self.looked_at_s = now_s;
            self.look();
        }
        self.acceptor.clone()
    }

    fn look(&mut self) {
        let stamps = [stamp(&self.certificate), stamp(&self.key)];
        if stamps == self.stamps {
            return;
        }
        let clients = Arc::clone(&self.clients);
        match config(&self.dir, &self.certificate, &self.key, clients) {
            Ok(config) => {
                self.acceptor = TlsAcceptor::from(Arc::new(config));
                log("EST: read the certificate and its key again");
            }
            // Said once for each state of the files: between two of them, one is new and the other old.
            Err(error) => log(&format!("EST: the certificate stays the old one: {error}")),
        }
        self.stamps = stamps;
    }
}

/// The serial and the fingerprint of the client's certificate, if it showed one.
pub(super) fn peer(connection: &ServerConnection) -> Option<(String, String)> {
    let certificate = connection.peer_certificates()?.first()?;
    let facts = CertificateFacts::of_der(certificate).ok()?;
    Some((facts.serial, facts.fingerprint))
}

fn config(
    dir: &Path,
    certificate: &Path,
    key: &Path,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, ServeError> {
    let unusable = |path: &Path, why: &str| ServeError::EstFile {
        path: path.to_owned(),
        why: why.to_owned(),
        dir: dir.to_owned(),
    };
    let read = |path: &Path| {
        fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => unusable(path, "is missing"),
            _ => unusable(path, &format!("cannot be read ({error})")),
        })
    };
    let chain = identity::certificates(&read(certificate)?);
    if chain.is_empty() {
        return Err(unusable(certificate, "holds no certificate in PEM"));
    }
    let private_key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| unusable(key, "holds no private key in PEM"))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, private_key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                unusable(key, &format!("is not the key of {}", certificate.display()))
            }
            error => unusable(certificate, &format!("cannot be used ({error})")),
        })?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
