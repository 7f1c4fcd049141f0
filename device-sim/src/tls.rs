//! TLS as small devices speak it: X25519 or P-256 key shares, resumption on, one session store per device.

use crate::SimError;
use crate::endpoint::Endpoint;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files that TLS needs.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The authority that the broker's certificate must come from.
    pub authority: Option<PathBuf>,
    /// The certificate that all devices present.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub private_key: Option<PathBuf>,
}

/// What all TLS connections of a run share.
#[derive(Debug)]
pub(crate) struct Tls {
    config: ClientConfig,
    pub(crate) server_name: ServerName<'static>,
}

impl Tls {
    /// Loads the files.
    pub(crate) fn load(files: &TlsFiles, endpoint: &Endpoint) -> Result<Self, SimError> {
        let Some(authority) = &files.authority else {
            return Err(SimError::Options(
                "mqtts:// needs the authority of the broker's certificate: add --cafile pki/ca.crt",
            ));
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(authority)?);
        let config = match (&files.certificate, &files.private_key) {
            (Some(certificate), Some(private_key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(private_key)
                    .map_err(|error| unusable(private_key, error))?;
                builder.with_client_auth_cert(chain, key)?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(SimError::Options("--cert and --key go together")),
        };
        let server_name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| SimError::Options("the broker's host is no name that TLS could verify"))?;
        Ok(Self {
            config,
            server_name,
        })
    }

    /// A configuration whose sessions are one device's own.
    pub(crate) fn device_config(&self) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(1);
        config.into()
    }
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

fn roots(path: &Path) -> Result<RootCertStore, SimError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SimError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, error))?;
    if certificates.is_empty() {
        return Err(unusable(path, "contains no certificate"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, problem: impl ToString) -> SimError {
    SimError::Certificate {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}
