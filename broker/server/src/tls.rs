//! TLS: one configuration per listener, tuned for narrow links.
//!
//! TLS 1.2 and 1.3, X25519 first; one session id per connection (resumption without the client's certificate on the wire,
//! `tls_sessions.rs`), no list of accepted authorities in the handshake. Only this module and `accept` know
//! rustls.

use crate::client_certificate::CertificateId;
use crate::clock;
use crate::config::{ClientCert, Identity, ListenerConfig, TlsConfig};
use crate::crl::{self, Revoked};
use crate::tls_sessions::TlsSessions;
use motemq_codec::ReasonCode;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the right kind.
    #[error("{what} {path}: {why}")]
    File {
        /// The key that names it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// rustls refuses the combination.
    #[error("the certificate {path} cannot be used, or not with its key: {source}")]
    Unusable {
        /// The certificate file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// The TLS of a listener: how handshakes go, and who may stay that has been through one.
#[derive(Debug)]
pub(crate) struct ListenerTls {
    config: Arc<ServerConfig>,
    client_cert: ClientCert,
    identity: Identity,
    roots: Vec<Root>,
    revoked: Revoked,
}

/// An authority that signs client certificates.
#[derive(Debug, PartialEq, Eq)]
struct Root {
    /// Its name, in DER.
    subject: Box<[u8]>,
    certificate: CertificateDer<'static>,
}

impl ListenerTls {
    /// How handshakes go.
    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Which certificates have been taken back.
    pub(crate) fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Whether a client that showed these certificates to `before` would still be let in.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) fn may_keep(
        &self,
        before: &Self,
        certificates: Option<&[CertificateId]>,
    ) -> Result<(), (ReasonCode, &'static str)> {
        let Some(certificates) = certificates else {
            return match self.client_cert {
                ClientCert::Required => Err((
                    ReasonCode::NotAuthorized,
                    "a client certificate is required now",
                )),
                ClientCert::Optional | ClientCert::None => Ok(()),
            };
        };
        let refused = |reason| Err((ReasonCode::NotAuthorized, reason));
        if self.revoked.has_any(certificates) {
            return refused("the client certificate has been revoked");
        }
        // Which root verified it is not known; a name that only roots have which are still there leaves no doubt.
        let is_kept = |root: &Root| self.roots.contains(root);
        let is_issuer = |root: &&Root| {
            certificates
                .iter()
                .any(|certificate| certificate.issuer() == &*root.subject)
        };
        let mut issuers = before.roots.iter().filter(is_issuer).peekable();
        if !before.roots.iter().all(is_kept) && (issuers.peek().is_none() || !issuers.all(is_kept))
        {
            return refused(
                "the authority of the client certificate may have been removed from client_ca",
            );
        }
        match self.identity == before.identity {
            true => Ok(()),
            false => {
                refused("identity has changed: another part of the certificate names the user")
            }
        }
    }
}

/// Builds the TLS of a listener, if it has any; clients resume what is in `sessions`, if they were verified by the same rules.
///
/// # Errors
/// When a file is missing or wrong; the error names it.
pub(crate) fn of_listener(
    listener: &ListenerConfig,
    sessions: &Arc<TlsSessions>,
) -> Result<Option<ListenerTls>, TlsError> {
    let Some(config) = &listener.tls else {
        return Ok(None);
    };
    let certificates = read_certificates("cert", &config.cert)?;
    check_private(&config.key)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(file_error("key", &config.key))?;
    let mut client_roots = Vec::new();
    let mut revoked = Revoked::default();
    let unusable = |source| TlsError::Unusable {
        path: config.cert.clone(),
        source,
    };
    let provider = Arc::new(rustls::crypto::CryptoProvider {
        kx_groups: vec![
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
            kx_group::X25519MLKEM768,
        ],
        ..aws_lc_rs::default_provider()
    });
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?;
    let mut rules = Rules::of(&listener.name, config);
    let builder = match (config.client_cert, &config.client_ca) {
        (ClientCert::None, _) | (_, None) => builder.with_no_client_auth(),
        (wish, Some(path)) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates("client_ca", path)? {
                rules.add(&certificate);
                if let Ok((_, parsed)) = X509Certificate::from_der(&certificate) {
                    client_roots.push(Root {
                        subject: parsed.subject().as_raw().into(),
                        certificate: certificate.clone(),
                    });
                }
                roots
                    .add(certificate)
                    .map_err(|source| TlsError::Unusable {
                        path: path.clone(),
                        source,
                    })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .clear_root_hint_subjects();
            let verifier = match wish {
                ClientCert::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let mut lists = Vec::new();
            if let Some(crl) = &config.crl {
                (lists, revoked) = crl::read(crl).map_err(file_error("crl", crl))?;
                report_lists(&listener.name, crl, &revoked, &client_roots);
            }
            // The lists decide about those whose issuers have one.
            let verifier = verifier.with_crls(lists).allow_unknown_revocation_status();
            let verifier = verifier.build().map_err(|error| TlsError::File {
                what: match &config.crl {
                    Some(_) => "client_ca or crl",
                    None => "client_ca",
                },
                path: path.clone(),
                why: error.to_string(),
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut tls = builder
        .with_single_cert(certificates, key)
        .map_err(unusable)?;
    tls.session_storage = sessions.of_listener(&rules.0);
    tls.send_tls13_tickets = 1;
    tls.max_fragment_size = Some(usize::from(config.record_bytes_max));
    Ok(Some(ListenerTls {
        config: Arc::new(tls),
        client_cert: config.client_cert,
        identity: config.identity,
        roots: client_roots,
        revoked,
    }))
}

/// Says what an operator should know of lists that hold all the same.
fn report_lists(listener: &str, path: &Path, revoked: &Revoked, roots: &[Root]) {
    let path = path.display();
    if is_overdue(revoked) {
        tracing::warn!(listener, crl = %path, "a certificate revocation list is past its nextUpdate: it still holds, but renew it");
    }
    let is_known = |issuer: &[u8]| roots.iter().any(|root| *root.subject == *issuer);
    if !revoked.issuers().all(is_known) {
        tracing::warn!(listener, crl = %path, "a certificate revocation list is of an issuer that is not in client_ca: it matters for intermediates only");
    }
}

/// Whether a list should have been renewed.
pub(crate) fn is_overdue(revoked: &Revoked) -> bool {
    let now_s = i64::try_from(clock::now().as_ms() / 1000).unwrap_or(i64::MAX);
    revoked.next_update_s().is_some_and(|by| by < now_s)
}

/// Refuses a private key that others may read.
fn check_private(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path).map_err(file_error("key", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    match mode & OPEN_TO_OTHERS {
        0 => Ok(()),
        _ => Err(TlsError::File {
            what: "key",
            path: path.to_owned(),
            why: format!(
                "it is open to others (mode {mode:04o}); run: chmod 600 {}",
                path.display()
            ),
        }),
    }
}

/// What the clients of a listener are verified by, as bytes: a session made under other rules is not resumed.
struct Rules(Vec<u8>);

impl Rules {
    fn of(name: &str, config: &TlsConfig) -> Self {
        let mut rules = Self(vec![config.client_cert as u8]);
        rules.add(name.as_bytes());
        rules
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.extend((bytes.len() as u64).to_le_bytes());
        self.0.extend(bytes);
    }
}

fn read_certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(file_error(what, path))?
        .collect::<Result<_, _>>()
        .map_err(file_error(what, path))?;
    if certificates.is_empty() {
        return Err(TlsError::File {
            what,
            path: path.to_owned(),
            why: "holds no certificate in PEM".to_owned(),
        });
    }
    Ok(certificates)
}

fn file_error<E: std::fmt::Display>(what: &'static str, path: &Path) -> impl FnOnce(E) -> TlsError {
    move |error| TlsError::File {
        what,
        path: path.to_owned(),
        why: error.to_string(),
    }
}

/// Permission bits that a private key must not have: any for others, writing for the group.
const OPEN_TO_OTHERS: u32 = 0o027;
