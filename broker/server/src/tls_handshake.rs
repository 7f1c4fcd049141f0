//! One TLS handshake, and what the log says when it fails: what the client offered, and what would have matched.
//!
//! Promises: a handshake that succeeds costs a copy of three short lists more than without this module. A failure says the error first,
//! then what would have matched, then the offer; of a certificate that was refused, subject, serial number and issuer.
//!
//! Does not know: certificates' lists after the handshake (`tls.rs`).

use crate::allow_list::AllowList;
use crate::client_certificate::{CertificateId, fingerprint};
use crate::tls::{ListenerTls, NotAdmitted};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, ClientHello};
use rustls::{
    AlertDescription, CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName,
    NamedGroup, PeerIncompatible, SignatureScheme,
};
use std::cell::RefCell;
use std::fmt::{self, Debug};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Does the handshake.
///
/// # Errors
/// When it fails, in words for an operator.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &ListenerTls,
    stream: S,
) -> Result<TlsStream<S>, String> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
    let start = start.map_err(|error| match cause(&error) {
        Some(rustls::Error::InvalidMessage(_)) => {
            format!("{error}: this is not the beginning of TLS")
        }
        Some(rustls::Error::PeerIncompatible(_)) => {
            format!("{error}; would match: TLS 1.3, TLS 1.2")
        }
        _ => error.to_string(),
    })?;
    let offer = Offer::of(&start.client_hello());
    let mut handshake = pin!(start.into_stream(tls.config().clone()));
    let (result, refused) = poll_fn(|cx| {
        REFUSED.take();
        match handshake.as_mut().poll(cx) {
            // The certificate is verified within the call, on this thread.
            Poll::Ready(result) => Poll::Ready((result, REFUSED.take())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    result.map_err(|error| {
        let failure = Failure {
            tls,
            offer: &offer,
            cause: cause(&error),
            refused: refused.as_ref(),
        };
        format!("{error}{failure}")
    })
}

/// What rustls said.
fn cause(error: &std::io::Error) -> Option<&rustls::Error> {
    let cause = error.get_ref();
    cause.and_then(|cause| cause.downcast_ref())
}

/// What a client offered.
struct Offer {
    name: Option<Box<str>>,
    suites: Box<[CipherSuite]>,
    groups: Box<[NamedGroup]>,
    schemes: Box<[SignatureScheme]>,
}

impl Offer {
    fn of(hello: &ClientHello<'_>) -> Self {
        Self {
            name: hello.server_name().map(Into::into),
            suites: hello.cipher_suites().into(),
            groups: hello.named_groups().unwrap_or_default().into(),
            schemes: hello.signature_schemes().into(),
        }
    }
}

/// What is said behind the error.
struct Failure<'a> {
    tls: &'a ListenerTls,
    offer: &'a Offer,
    cause: Option<&'a rustls::Error>,
    /// A certificate that was not verified.
    refused: Option<&'a CertificateId>,
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Some(rustls::Error::InvalidCertificate(why)) => {
                if let Some(refused) = self.refused {
                    write!(f, ": {refused}")?;
                }
                match why {
                    CertificateError::ApplicationVerificationFailure => {
                        write!(f, "; {}", NotAdmitted::NotListed.reason())
                    }
                    CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                        self.write_authorities(f)
                    }
                    _ => Ok(()),
                }
            }
            Some(rustls::Error::NoCertificatesPresented) => self.write_authorities(f),
            Some(rustls::Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
                f.write_str(
                    ": the client does not take the server's certificate: it needs the authority that issued cert, and a name or address that is in it",
                )?;
                self.write_name(f)
            }
            Some(rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)) => {
                let provider = self.provider();
                let suites = provider.cipher_suites.iter().map(|suite| suite.suite());
                write_list(f, "; would match: cipher suites", suites)?;
                write_list(f, "; offered:", self.offer.suites.iter().copied())
            }
            Some(rustls::Error::PeerIncompatible(_) | rustls::Error::AlertReceived(_)) => {
                let groups = self.provider().kx_groups.iter().map(|group| group.name());
                write_list(f, "; would match: TLS 1.3, TLS 1.2; groups", groups)?;
                write_list(f, "; signatures", self.tls.schemes().iter().copied())?;
                write!(f, "; offered: {}", self.versions())?;
                write_list(f, "; groups", self.offer.groups.iter().copied())?;
                write_list(f, "; signatures", self.offer.schemes.iter().copied())?;
                self.write_name(f)
            }
            _ => Ok(()),
        }
    }
}

impl Failure<'_> {
    fn provider(&self) -> &CryptoProvider {
        self.tls.config().crypto_provider()
    }

    fn write_authorities(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("; expected: a certificate issued by")?;
        for (at, authority) in self.tls.authorities().take(SHOWN_MAX).enumerate() {
            let comma = if at == 0 { "" } else { " or" };
            write!(f, "{comma} \"{authority}\"")?;
        }
        f.write_str(" (client_ca)")
    }

    fn write_name(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.offer.name {
            Some(name) => write!(f, "; it asked for \"{name}\""),
            None => f.write_str("; it asked for no name (SNI)"),
        }
    }

    /// The versions themselves are not told; each has cipher suites of its own.
    fn versions(&self) -> &'static str {
        let is_13 = |suite: &CipherSuite| u16::from(*suite) >> 8 == 0x13;
        let suites = &self.offer.suites;
        match (suites.iter().any(is_13), suites.iter().all(is_13)) {
            (true, true) => "TLS 1.3",
            (true, false) => "TLS 1.3, TLS 1.2 or older",
            _ => "TLS 1.2 or older",
        }
    }
}

fn write_list<T: Debug>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    values: impl Iterator<Item = T>,
) -> fmt::Result {
    f.write_str(what)?;
    let values: Vec<_> = values.map(|value| format!("{value:?}")).collect();
    // Those without a name are there to be ignored (GREASE), or nobody has them here.
    let known = values.iter().filter(|value| !value.contains("(0x"));
    let mut count = 0;
    for value in known.take(SHOWN_MAX) {
        write!(f, " {value}")?;
        count += 1;
    }
    match count {
        0 => f.write_str(" none"),
        _ => Ok(()),
    }
}

fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
    )
}

thread_local! {
    /// The certificate that was refused last on this thread.
    static REFUSED: RefCell<Option<CertificateId>> = const { RefCell::new(None) };
}

/// Verifies as another does, and asks the inventory. Notes which certificate was refused: the connection that knew it is gone by then,
/// and any other error would have the client be told something else.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    allow_list: Option<Arc<AllowList>>,
}

impl ClientVerifier {
    pub(crate) fn over(
        verifier: Arc<dyn ClientCertVerifier>,
        allow_list: Option<Arc<AllowList>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            verifier,
            allow_list,
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let mut verified = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now);
        if let (Ok(_), Some(list)) = (&verified, &self.allow_list)
            && !list.has_by_now(fingerprint(end_entity))
        {
            // A session that could be resumed is not even made.
            verified = Err(CertificateError::ApplicationVerificationFailure.into());
        }
        if verified.is_err() {
            REFUSED.set(CertificateId::of(end_entity));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.verifier.requires_raw_public_keys()
    }
}

/// Values of a list in the log.
const SHOWN_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        ClientCert, CrlOverdue, Identity, ListenerConfig, TlsConfig as TlsSettings,
    };
    use crate::tls::{TlsState, of_listener};
    use crate::tls_sessions::TlsSessions;
    use motemq_certs::{Authority, Issued};
    use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, RootCertStore};
    use tempfile::TempDir;
    use tokio::io::AsyncWriteExt as _;
    use tokio_rustls::TlsConnector;

    #[test]
    fn a_failure_says_what_was_offered_and_what_would_match() {
        let site = Site::new();
        let good = site.authority.issue_device("meter-7").unwrap();
        let stranger = Authority::create(&site.folder.path().join("other"), "other").unwrap();
        let foreign = stranger.issue_device("meter-8").unwrap();
        let mut rsa_only = default_provider();
        rsa_only.cipher_suites = vec![cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        let mut quantum_only = default_provider();
        quantum_only.kx_groups = vec![kx_group::MLKEM768];
        let plain = default_provider();
        let serial = &foreign.serial_hex;
        let cases: [Case<'_>; 5] = [
            (
                "cipher suites",
                rsa_only,
                &site.authority,
                Some(&good),
                &[
                    "would match: cipher suites TLS13_AES_256_GCM_SHA384",
                    "offered: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                ],
            ),
            (
                "groups",
                quantum_only,
                &site.authority,
                Some(&good),
                &[
                    "would match: TLS 1.3, TLS 1.2; groups X25519 secp256r1 secp384r1 X25519MLKEM768; signatures ECDSA_NISTP256_SHA256",
                    "offered: TLS 1.3, TLS 1.2 or older; groups MLKEM768; signatures ",
                    "asked for \"localhost\"",
                ],
            ),
            (
                "no certificate",
                plain.clone(),
                &site.authority,
                None,
                &["expected: a certificate issued by \"CN=fleet\" (client_ca)"],
            ),
            (
                "a foreign certificate",
                plain.clone(),
                &site.authority,
                Some(&foreign),
                &[
                    "UnknownIssuer",
                    &format!("subject \"CN=meter-8\", serial {serial}, issuer \"CN=other\""),
                    "expected: a certificate issued by \"CN=fleet\" (client_ca)",
                ],
            ),
            (
                "a foreign server",
                plain,
                &stranger,
                Some(&good),
                &["the client does not take the server's certificate"],
            ),
        ];
        for (what, provider, trusted, own, expected) in cases {
            let said = site.failure(provider, trusted, own);
            for part in expected {
                assert!(said.contains(part), "{what}: {said}");
            }
        }
    }

    #[test]
    fn what_is_no_tls_is_called_so() {
        let site = Site::new();
        let said = site.run(async {
            let (mut client, server) = tokio::io::duplex(1024);
            client
                .write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
                .await
                .unwrap();
            accept(&site.tls, server).await.unwrap_err()
        });
        assert!(said.contains("not the beginning of TLS"), "{said}");
    }

    /// Name, what the client can, whom it trusts, what it shows, what is said.
    type Case<'a> = (
        &'a str,
        CryptoProvider,
        &'a Authority,
        Option<&'a Issued>,
        &'a [&'a str],
    );

    struct Site {
        folder: TempDir,
        authority: Authority,
        tls: ListenerTls,
    }

    impl Site {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let path = |name: &str| folder.path().join(name);
            let authority = Authority::create(&path("pki"), "fleet").unwrap();
            let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
            server.write(&path("crt"), &path("key")).unwrap();
            let listener = ListenerConfig {
                tls: Some(TlsSettings {
                    cert: path("crt"),
                    key: path("key"),
                    client_ca: Some(authority.certificate_path()),
                    crl: None,
                    crl_overdue: CrlOverdue::Warn,
                    allow_list: None,
                    client_cert: ClientCert::Required,
                    identity: Identity::Cn,
                    record_bytes_max: 16_384,
                }),
                ..ListenerConfig::default()
            };
            let state = TlsState::new(TlsSessions::in_memory(10));
            let tls = of_listener(&listener, &state).unwrap().unwrap();
            Self {
                folder,
                authority,
                tls,
            }
        }

        fn run<T>(&self, what: impl Future<Output = T>) -> T {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(what)
        }

        fn failure(
            &self,
            provider: CryptoProvider,
            trusted: &Authority,
            own: Option<&Issued>,
        ) -> String {
            let mut roots = RootCertStore::empty();
            let pem = trusted.certificate_pem().as_bytes();
            roots
                .add(CertificateDer::from_pem_slice(pem).unwrap())
                .unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(provider));
            let versions = match config.crypto_provider().cipher_suites.len() {
                1 => vec![&rustls::version::TLS12],
                _ => rustls::ALL_VERSIONS.to_vec(),
            };
            let config = config
                .with_protocol_versions(&versions)
                .unwrap()
                .with_root_certificates(roots);
            let config = match own {
                None => config.with_no_client_auth(),
                Some(issued) => {
                    let certificate =
                        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes());
                    let key = PrivateKeyDer::from_pem_slice(issued.private_key_pem.as_bytes());
                    config
                        .with_client_auth_cert(vec![certificate.unwrap()], key.unwrap())
                        .unwrap()
                }
            };
            self.run(async {
                let (client, server) = tokio::io::duplex(16 << 10);
                let connector = TlsConnector::from(Arc::new(config));
                let name = "localhost".try_into().unwrap();
                let (_, result) =
                    tokio::join!(connector.connect(name, client), accept(&self.tls, server));
                result.unwrap_err()
            })
        }
    }
}
