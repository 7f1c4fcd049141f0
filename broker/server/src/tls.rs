//! TLS: one configuration per listener, tuned for narrow links.
//!
//! TLS 1.2 and 1.3, X25519 first; one session id per connection (resumption without the client's certificate on the wire,
//! `tls_sessions.rs`), no list of accepted authorities in the handshake. Only this module and `accept` know
//! rustls.

use crate::config::{ClientCert, Identity, ListenerConfig, TlsConfig};
use crate::tls_sessions::TlsSessions;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

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

/// Builds the configuration of a listener, if it has TLS; clients resume what is in `sessions`, if they were verified by the same
/// rules.
///
/// # Errors
/// When a file is missing or wrong; the error names it.
pub fn server_config(
    listener: &ListenerConfig,
    sessions: &Arc<TlsSessions>,
) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let Some(config) = &listener.tls else {
        return Ok(None);
    };
    let certificates = read_certificates("cert", &config.cert)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(file_error("key", &config.key))?;
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
            let verifier = verifier.build().map_err(|error| TlsError::File {
                what: "client_ca",
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
    Ok(Some(Arc::new(tls)))
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

/// The name in a verified certificate; `None` when it has none of that kind, or more than one, or one that is not a
/// plain name (attack class B7). `now_unix_s` is checked against its validity, because a resumed session is not verified
/// again.
#[must_use]
pub fn identity(
    certificate: &CertificateDer<'_>,
    kind: Identity,
    now_unix_s: i64,
) -> Option<Arc<str>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    if !is_in_time(&parsed, now_unix_s) {
        return None;
    }
    let name = match kind {
        Identity::None => return None,
        Identity::Cn => only(
            parsed
                .subject()
                .iter_common_name()
                .filter_map(|cn| cn.as_str().ok()),
        )?,
        Identity::SanUri => only(san(&parsed).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        }))?,
        Identity::SanDns => only(san(&parsed).filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some(*dns),
            _ => None,
        }))?,
    };
    let is_plain = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '+' | '#'));
    is_plain.then(|| name.into())
}

/// Whether a certificate is valid now, where its name is of no interest: a resumed session is not verified again.
#[must_use]
pub fn is_valid_now(certificate: &CertificateDer<'_>, now_unix_s: i64) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| is_in_time(&parsed, now_unix_s))
}

fn is_in_time(certificate: &X509Certificate<'_>, now_unix_s: i64) -> bool {
    let validity = certificate.validity();
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now_unix_s)
}

fn san<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension
        .into_iter()
        .flat_map(|san| &san.value.general_names)
}

fn only<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = names.next()?;
    names.next().is_none().then_some(name)
}

/// Longest identity.
const NAME_BYTES_MAX: usize = 256;
