//! TLS: one configuration per listener, tuned for narrow links.
//!
//! TLS 1.2 and 1.3, X25519 first; one session id per connection (resumption without the client's certificate on the wire,
//! `tls_sessions.rs`), no list of accepted authorities in the handshake. Only this module, `tls_handshake` and
//! `accept` know rustls.

use crate::allow_list::{AllowList, AllowLists};
use crate::client_certificate::{CertificateId, name_shown};
use crate::clock;
use crate::config::{ClientCert, CrlOverdue, Identity, ListenerConfig, TlsConfig};
use crate::crl::{self, Revoked};
use crate::tls_handshake::ClientVerifier;
use crate::tls_sessions::TlsSessions;
use motemq_codec::ReasonCode;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SignatureScheme};
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
    crl_overdue: CrlOverdue,
    allow_list: Option<Arc<AllowList>>,
    /// When the first certificate of the server's chain, and the first of `client_ca`, expires; Unix seconds.
    certificate_ends_s: i64,
    client_ca_ends_s: Option<i64>,
    /// What the server's key can sign by.
    schemes: Vec<SignatureScheme>,
}

/// An authority that signs client certificates.
#[derive(Debug, PartialEq, Eq)]
struct Root {
    /// Its name, in DER.
    subject: Box<[u8]>,
    certificate: CertificateDer<'static>,
}

/// What is good until some time.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Dated {
    /// The server's certificate.
    Certificate,
    /// The authorities of clients.
    ClientCa,
    /// The lists of revoked certificates.
    Crl,
}

impl Dated {
    /// The value of the metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::ClientCa => "client_ca",
            Self::Crl => "crl",
        }
    }
}

/// Why a certificate that was verified is not admitted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotAdmitted {
    /// Its issuer's list has it.
    Revoked,
    /// Nobody knows whether it is revoked.
    CrlOverdue,
    /// The inventory does not have it as issued.
    NotListed,
}

impl NotAdmitted {
    /// In words, for client and log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Revoked => "the client certificate has been revoked",
            Self::CrlOverdue => {
                "the revocation list of the client certificate's issuer is overdue (crl_overdue)"
            }
            Self::NotListed => "the client certificate is not in allow_list as issued",
        }
    }
}

impl ListenerTls {
    /// How handshakes go.
    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// What of a certificate is the user name.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// What the server's key can sign by.
    pub(crate) fn schemes(&self) -> &[SignatureScheme] {
        &self.schemes
    }

    /// The names of the authorities that client certificates may be from.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = String> {
        self.roots.iter().map(|root| name_shown(&root.subject))
    }

    /// The inventory that says who may connect, if that is asked.
    pub(crate) fn allow_list(&self) -> Option<&AllowList> {
        self.allow_list.as_deref()
    }

    /// Whether who has shown these certificates, its own first, may come in. An inventory is looked at again before it says no.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admits(
        &self,
        certificates: &[CertificateId],
        now_s: i64,
    ) -> Result<(), NotAdmitted> {
        let is_refused = self.crl_overdue == CrlOverdue::Refuse;
        if is_refused && self.revoked.is_overdue_for(certificates, now_s) {
            return Err(NotAdmitted::CrlOverdue);
        }
        if let (Some(list), Some(own)) = (&self.allow_list, certificates.first())
            && !list.has_by_now(own.fingerprint())
        {
            return Err(NotAdmitted::NotListed);
        }
        self.tolerates(certificates)
    }

    /// Whether who is in may stay, as far as lists say.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn tolerates(&self, certificates: &[CertificateId]) -> Result<(), NotAdmitted> {
        if self.revoked.has_any(certificates) {
            return Err(NotAdmitted::Revoked);
        }
        match (&self.allow_list, certificates.first()) {
            (Some(list), Some(own)) if !list.has(own.fingerprint()) => Err(NotAdmitted::NotListed),
            _ => Ok(()),
        }
    }

    /// Whether this may take the place of `before`.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn check_follows(&self, before: &Self) -> Result<(), String> {
        let followed = self.revoked.check_follows(&before.revoked);
        followed.map_err(|why| format!("crl: {why}"))
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
        if let Err(why) = self.tolerates(certificates) {
            return refused(why.reason());
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

    /// What is good until when, in Unix seconds.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (Dated, i64)> {
        let ends = [
            (Dated::Certificate, Some(self.certificate_ends_s)),
            (Dated::ClientCa, self.client_ca_ends_s),
            (Dated::Crl, self.revoked.next_update_s()),
        ];
        let ends = ends.into_iter();
        ends.filter_map(|(what, end_s)| Some((what, end_s?)))
    }

    /// Whether a list should have been renewed.
    pub(crate) fn is_crl_overdue(&self) -> bool {
        self.revoked.next_update_s().is_some_and(|by| by < now_s())
    }

    /// What an operator should look at although it works.
    pub(crate) fn warnings(&self, config: &TlsConfig) -> Vec<String> {
        let mut warnings = Vec::new();
        let shown = |path: &Option<PathBuf>| {
            let path = path.as_deref().map(Path::display);
            path.map_or_else(String::new, |path| path.to_string())
        };
        for (what, end_s) in self.ends() {
            let left_s = end_s - now_s();
            let days = left_s / DAY_S;
            match what {
                Dated::Certificate | Dated::ClientCa if left_s < WARN_DAYS * DAY_S => {
                    let file = match what {
                        Dated::Certificate => config.cert.display().to_string(),
                        _ => shown(&config.client_ca),
                    };
                    let what = match what {
                        Dated::Certificate => "cert",
                        _ => "client_ca",
                    };
                    warnings.push(match left_s {
                        ..0 => format!("{what} {file}: a certificate has expired; renew it"),
                        _ => {
                            format!("{what} {file}: a certificate expires in {days} days; renew it")
                        }
                    });
                }
                Dated::Crl if left_s < 0 => {
                    let effect = match self.crl_overdue {
                        CrlOverdue::Warn => "it still holds, but renew it",
                        CrlOverdue::Refuse => {
                            "certificates of its issuer are refused (crl_overdue = \"refuse\"): renew it"
                        }
                    };
                    let file = shown(&config.crl);
                    warnings.push(format!(
                        "crl {file}: a revocation list is past its nextUpdate; {effect}: motemq-certs crl"
                    ));
                }
                _ => {}
            }
        }
        let is_known = |issuer: &[u8]| self.roots.iter().any(|root| *root.subject == *issuer);
        let mut strange = self.revoked.issuers().filter(|issuer| !is_known(issuer));
        if let Some(issuer) = strange.next() {
            warnings.push(format!(
                "crl {}: the issuer \"{}\" of a revocation list is not in client_ca: the list matters for certificates of that intermediate only, and its signature is not checked before one is shown",
                shown(&config.crl),
                name_shown(issuer)
            ));
        }
        warnings
    }
}

/// What all listeners have in common.
#[derive(Debug)]
pub(crate) struct TlsState {
    pub(crate) sessions: Arc<TlsSessions>,
    pub(crate) allow_lists: AllowLists,
}

impl TlsState {
    pub(crate) fn new(sessions: Arc<TlsSessions>) -> Self {
        Self {
            sessions,
            allow_lists: AllowLists::default(),
        }
    }
}

/// Builds the TLS of a listener, if it has any; clients resume sessions if they were verified by the same rules.
///
/// # Errors
/// When a file is missing or wrong; the error names it.
pub(crate) fn of_listener(
    listener: &ListenerConfig,
    state: &TlsState,
) -> Result<Option<ListenerTls>, TlsError> {
    let Some(config) = &listener.tls else {
        return Ok(None);
    };
    let certificates = read_certificates("cert", &config.cert)?;
    if let Some(own) = certificates.first() {
        check_serves(own).map_err(file_error("cert", &config.cert))?;
    }
    check_private(&config.key)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(file_error("key", &config.key))?;
    let certificate_ends_s =
        first_end_s(&certificates).map_err(file_error("cert", &config.cert))?;
    let unusable = |source| TlsError::Unusable {
        path: config.cert.clone(),
        source,
    };
    let provider = Arc::new(provider());
    let signing = provider.key_provider.load_private_key(key.clone_key());
    let signing = signing.map_err(unusable)?;
    let supported = provider.signature_verification_algorithms;
    let mut schemes = supported.supported_schemes();
    schemes.retain(|scheme| signing.choose_scheme(&[*scheme]).is_some());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?;
    let mut rules = Rules::of(&listener.name, config);
    let allow_list = match &config.allow_list {
        None => None,
        Some(path) => {
            let list = state.allow_lists.open(path);
            Some(list.map_err(file_error("allow_list", path))?)
        }
    };
    let asked = Asked::read(config, provider, allow_list.clone(), &mut rules)?;
    let builder = match asked.verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut tls = builder
        .with_single_cert(certificates, key)
        .map_err(unusable)?;
    tls.session_storage = state.sessions.of_listener(&rules.0);
    tls.send_tls13_tickets = 1;
    tls.max_fragment_size = Some(usize::from(config.record_bytes_max));
    Ok(Some(ListenerTls {
        config: Arc::new(tls),
        client_cert: config.client_cert,
        identity: config.identity,
        roots: asked.roots,
        revoked: asked.revoked,
        crl_overdue: config.crl_overdue,
        allow_list,
        certificate_ends_s,
        client_ca_ends_s: asked.ends_s,
        schemes,
    }))
}

/// X25519 first, then what devices have in hardware; the large one last.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
            kx_group::X25519MLKEM768,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// What clients are asked for.
#[derive(Default)]
struct Asked {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    roots: Vec<Root>,
    /// When the first of them expires.
    ends_s: Option<i64>,
    revoked: Revoked,
}

impl Asked {
    fn read(
        config: &TlsConfig,
        provider: Arc<CryptoProvider>,
        allow_list: Option<Arc<AllowList>>,
        rules: &mut Rules,
    ) -> Result<Self, TlsError> {
        let (ClientCert::Required | ClientCert::Optional, Some(path)) =
            (config.client_cert, &config.client_ca)
        else {
            return Ok(Self::default());
        };
        let certificates = read_certificates("client_ca", path)?;
        let ends_s = first_end_s(&certificates).map_err(file_error("client_ca", path))?;
        let mut store = RootCertStore::empty();
        let mut roots = Vec::new();
        for certificate in &certificates {
            rules.add(certificate);
            if let Ok((_, parsed)) = X509Certificate::from_der(certificate) {
                roots.push(Root {
                    subject: parsed.subject().as_raw().into(),
                    certificate: certificate.clone(),
                });
            }
            store
                .add(certificate.clone())
                .map_err(|source| TlsError::Unusable {
                    path: path.clone(),
                    source,
                })?;
        }
        let (lists, revoked) = match &config.crl {
            None => Default::default(),
            Some(crl) => {
                // Lists are looked up by the issuer's name: the certificates of one of the two would all be refused.
                check_names_differ(&roots).map_err(file_error("client_ca", path))?;
                crl::read(crl, &certificates).map_err(file_error("crl", crl))?
            }
        };
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
            .clear_root_hint_subjects()
            // The lists decide about those whose issuers have one.
            .with_crls(lists)
            .allow_unknown_revocation_status();
        if config.client_cert == ClientCert::Optional {
            verifier = verifier.allow_unauthenticated();
        }
        if config.crl_overdue == CrlOverdue::Refuse {
            verifier = verifier.enforce_revocation_expiration();
        }
        let verifier = verifier.build().map_err(|error| TlsError::File {
            what: match &config.crl {
                Some(_) => "client_ca or crl",
                None => "client_ca",
            },
            path: path.clone(),
            why: error.to_string(),
        })?;
        Ok(Self {
            verifier: Some(ClientVerifier::over(verifier, allow_list)),
            roots,
            ends_s: Some(ends_s),
            revoked,
        })
    }
}

/// With revocation lists, no two authorities may have one name.
fn check_names_differ(roots: &[Root]) -> Result<(), String> {
    let has_twin = |(at, root): (usize, &Root)| {
        let mut before = roots.iter().take(at);
        before
            .any(|other| other.subject == root.subject && other.certificate != root.certificate)
            .then(|| name_shown(&root.subject))
    };
    match roots.iter().enumerate().find_map(has_twin) {
        None => Ok(()),
        Some(name) => Err(format!(
            "two authorities are called \"{name}\", so a revocation list could be of either: give each a listener of its own, or the new one another name (motemq-certs init --name)"
        )),
    }
}

/// A certificate that says what it is for must say that it is a server's.
fn check_serves(certificate: &CertificateDer<'_>) -> Result<(), String> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("a certificate cannot be read: {error}"))?;
    match parsed.extended_key_usage() {
        Ok(Some(usage)) if !usage.value.server_auth && !usage.value.any => Err(
            "it is not a server's certificate (extended key usage), so every client would refuse it: make one with motemq-certs server NAME"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// When the first of the certificates expires, in Unix seconds.
fn first_end_s(certificates: &[CertificateDer<'_>]) -> Result<i64, String> {
    let mut first = i64::MAX;
    for certificate in certificates {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("a certificate cannot be read: {error}"))?;
        first = first.min(parsed.validity().not_after.timestamp());
    }
    Ok(first)
}

/// Now, in Unix seconds.
pub(crate) fn now_s() -> i64 {
    i64::try_from(clock::now().as_ms() / 1000).unwrap_or(i64::MAX)
}

/// Says in the log what an operator should look at.
pub(crate) fn warn(listener: &ListenerConfig, tls: &ListenerTls) {
    let Some(config) = &listener.tls else { return };
    for warning in tls.warnings(config) {
        tracing::warn!(listener = %listener.name, "{warning}");
    }
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
/// A certificate that expires in fewer days is spoken of.
const WARN_DAYS: i64 = 30;
pub(crate) const DAY_S: i64 = 86_400;
