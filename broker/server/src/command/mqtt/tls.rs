//! What the client trusts and shows in TLS, and what a failed handshake means for who typed the command.

use super::{Failure, failure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whom the client trusts, and what it shows.
pub(super) struct Trust {
    cafile: PathBuf,
    config: Arc<ClientConfig>,
    has_own: bool,
}

impl Trust {
    /// Reads the files; `own` is a certificate and its key.
    pub(super) fn load(cafile: &Path, own: Option<(&Path, &Path)>) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(cafile)? {
            if let Err(error) = roots.add(certificate) {
                return failure(format!("{}: {error}", cafile.display()));
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure(error.to_string()))?
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                    Failure(format!("{}: no private key: {error}", key.display()))
                })?;
                let config = builder.with_client_auth_cert(chain, private);
                config.map_err(|error| {
                    let (certificate, key) = (certificate.display(), key.display());
                    Failure(format!(
                        "{certificate} and {key} do not go together: {error}"
                    ))
                })?
            }
        };
        Ok(Self {
            cafile: cafile.to_owned(),
            config: Arc::new(config),
            has_own: own.is_some(),
        })
    }

    pub(super) async fn connect(
        &self,
        socket: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let Ok(name) = ServerName::try_from(host.to_owned()) else {
            return failure(format!("{host} is no name that a certificate can have"));
        };
        let connector = TlsConnector::from(self.config.clone());
        let connected = connector.connect(name, socket).await;
        connected.map_err(|error| Failure(self.explain(&error, host)))
    }

    /// What an error of a TLS connection means.
    pub(super) fn explain(&self, error: &io::Error, host: &str) -> String {
        let tls = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<rustls::Error>());
        let cafile = self.cafile.display();
        match tls {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => format!(
                "the broker's certificate is not from the authority in {cafile}: give --cafile with the one that issued it (root.crt of motemq-certs)"
            ),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => format!(
                "the broker's certificate is not for {host}: give -h with a name or address that stands in it"
            ),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {
                "the broker's certificate has expired: renew it, or set this machine's clock right"
                    .to_owned()
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                "what answers does not speak TLS: leave --cafile away, or give -p with the TLS port"
                    .to_owned()
            }
            Some(rustls::Error::AlertReceived(alert)) => self.explain_alert(*alert),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the broker closed the connection in the TLS handshake: it may not speak TLS at this port (leave --cafile away, or give -p)"
                    .to_owned()
            }
            _ => format!("TLS: {error}"),
        }
    }

    fn explain_alert(&self, alert: AlertDescription) -> String {
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure
                if !self.has_own =>
            {
                "the broker wants a client certificate: give --cert and --key".to_owned()
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired => format!(
                "the broker does not accept the certificate in --cert ({alert:?}): is it from an authority that the broker trusts, valid and not revoked?"
            ),
            _ => format!("the broker ended the TLS handshake: {alert:?}"),
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let shown = file.display();
    let read = CertificateDer::pem_file_iter(file);
    let read = read.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => {
            failure(format!("{shown}: there is no certificate in it (PEM)"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => failure(format!("{shown}: {error}")),
    }
}
