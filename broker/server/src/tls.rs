//! TLS: one configuration per listener, tuned for narrow links.
//!
//! TLS 1.2 and 1.3, X25519 first; one session id per connection (resumption without the client's certificate on the wire,
//! `tls_sessions.rs`), no list of accepted authorities in the handshake. Only this module and `accept` know
//! rustls.

use crate::auth::{PeerCertificate, VerifiedCertificate};
use crate::clock;
use crate::config::{ClientCert, Identity, ListenerConfig, TlsConfig};
use crate::crl::{self, CertificateId, Revoked};
use crate::tls_sessions::TlsSessions;
use motemq_codec::ReasonCode;
use motemq_core::{Attributes, Timestamp};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, GeneralName, X509Certificate};

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

/// What a verified certificate says. `now_unix_s` is checked against its validity, because a resumed session is not verified again.
///
/// Where the listener logs in by a name, that must be there once and plain (attack class B7): else the certificate is unusable. So is one
/// that has expired.
pub(crate) fn read(
    certificate: &CertificateDer<'_>,
    kind: Identity,
    now_unix_s: i64,
) -> PeerCertificate {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return PeerCertificate::Unusable;
    };
    let validity = parsed.validity();
    let (start, end) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let name = name(&parsed, kind);
    if !(start..=end).contains(&now_unix_s) || name.is_none() && kind != Identity::None {
        return PeerCertificate::Unusable;
    }
    let expires_ms = u64::try_from(end).unwrap_or_default().saturating_mul(1000);
    PeerCertificate::Verified(Arc::new(VerifiedCertificate {
        claim: claim(&parsed),
        name: name.map(Arc::from),
        attributes: Arc::new(Attributes {
            fields: fields(&parsed),
            ..Attributes::default()
        }),
        // The last second counts.
        expires_at: Timestamp::from_ms(expires_ms.saturating_add(1000)),
    }))
}

/// What a certificate claims that several devices hold to enrol with; one that has such a name, whatever else it has, is no other.
fn claim(certificate: &X509Certificate<'_>) -> Option<Arc<str>> {
    let mut claims = san_uris(certificate).filter_map(|uri| uri?.strip_prefix(CLAIM_URI));
    let claim = claims.next()?;
    Some(
        claim
            .chars()
            .take(NAME_BYTES_MAX)
            .collect::<String>()
            .into(),
    )
}

/// The name of that kind; `None` when there is none, or more than one, or one that is not plain.
fn name(certificate: &X509Certificate<'_>, kind: Identity) -> Option<String> {
    let name = match kind {
        Identity::None => None,
        Identity::Cn => only(texts(certificate.subject().iter_common_name())),
        Identity::SanUri => only(san_uris(certificate)),
        Identity::SanDns => only(san_dns(certificate)),
    };
    name.filter(|name| is_plain(name)).map(str::to_owned)
}

/// The fields that rules may ask for: each that is there once and plain.
fn fields(certificate: &X509Certificate<'_>) -> Box<[(Box<str>, Box<str>)]> {
    let subject = certificate.subject();
    let serial = certificate.raw_serial();
    let significant = serial.iter().position(|byte| *byte != 0).unwrap_or(0);
    let serial: String = serial
        .iter()
        .skip(significant)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let fields = [
        ("cn", only(texts(subject.iter_common_name()))),
        ("san-dns", only(san_dns(certificate))),
        ("san-uri", only(san_uris(certificate))),
        ("o", only(texts(subject.iter_organization()))),
        ("ou", only(texts(subject.iter_organizational_unit()))),
        ("serial", Some(serial.as_str())),
    ];
    let plain = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| is_plain(value))?)));
    plain
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// What could be taken for something else than a name of one client is none: no wildcards of topics or hosts, no way up a path.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '+' | '#' | '*'))
        && !name.split('/').any(|level| level == "..")
}

/// Each value as text; `None` for one that is not UTF-8, so that it still counts.
fn texts<'a>(
    values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> impl Iterator<Item = Option<&'a str>> {
    values.map(|value| value.as_str().ok())
}

fn san_uris<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = Option<&'a str>> {
    san(certificate).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Some(*uri)),
        _ => None,
    })
}

fn san_dns<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = Option<&'a str>> {
    san(certificate).filter_map(|name| match name {
        GeneralName::DNSName(dns) => Some(Some(*dns)),
        _ => None,
    })
}

fn san<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension
        .into_iter()
        .flat_map(|san| &san.value.general_names)
}

fn only<'a>(mut names: impl Iterator<Item = Option<&'a str>>) -> Option<&'a str> {
    let name = names.next()?;
    name.filter(|_| names.next().is_none())
}

/// Permission bits that a private key must not have: any for others, writing for the group.
const OPEN_TO_OTHERS: u32 = 0o027;
/// How the URI among the alternative names of a claim certificate begins, as `motemq-certs claim` writes it.
const CLAIM_URI: &str = "urn:mqtt:claim:";
/// Longest identity.
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_certs::Authority;
    use rustls::pki_types::pem::PemObject;
    use tempfile::TempDir;

    #[test]
    fn a_certificate_says_its_fields_and_when_it_ends() {
        let folder = TempDir::new().unwrap();
        let authority = Authority::create(&folder.path().join("ca"), "test").unwrap();
        let (path, key) = (folder.path().join("crt"), folder.path().join("key"));
        let issued = authority.issue_device("meter-7").unwrap();
        issued.write(&path, &key).unwrap();
        let leaf = CertificateDer::from_pem_file(&path).unwrap();
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        let (start, end) = (
            parsed.validity().not_before.timestamp(),
            parsed.validity().not_after.timestamp(),
        );
        let PeerCertificate::Verified(certificate) = read(&leaf, Identity::Cn, start) else {
            panic!("a good certificate")
        };
        assert_eq!(certificate.name.as_deref(), Some("meter-7"));
        assert_eq!(certificate.expires_at.as_ms() / 1000, end as u64 + 1);
        let field = |name: &str| {
            let fields = &certificate.attributes.fields;
            let found = fields.iter().find(|(known, _)| &**known == name);
            found.map(|(_, value)| value.to_string())
        };
        assert_eq!(field("cn").as_deref(), Some("meter-7"));
        assert_eq!(field("ou"), None);
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let serial = serial.strip_prefix("00").unwrap_or(&serial).to_owned();
        assert_eq!(field("serial"), Some(serial));
        // Without a login by name there is none, and the fields are there all the same.
        let PeerCertificate::Verified(certificate) = read(&leaf, Identity::None, end) else {
            panic!("a good certificate")
        };
        assert!(certificate.name.is_none() && !certificate.attributes.fields.is_empty());
        for (kind, now) in [(Identity::Cn, start - 1), (Identity::None, end + 1)] {
            assert!(matches!(read(&leaf, kind, now), PeerCertificate::Unusable));
        }
    }
}
