//! TLS for loads: one configuration per device, so that each has its own tickets.

use super::Options;
use super::client::dial;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What all devices of a load have in common.
#[derive(Clone)]
pub(super) struct Tls {
    config: ClientConfig,
    name: ServerName<'static>,
}

impl Tls {
    /// From the files `ca`, and `cert` and `key`: all devices show the same certificate, because a broker that verifies one for the
    /// thousandth time has as much work as with the first.
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(options.text("ca")?).map_err(io::Error::other)?;
        roots.add(ca).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(io::Error::other)?;
        let provider = rustls::crypto::CryptoProvider {
            // As a device would: no post-quantum share of a kilobyte.
            kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519],
            ..Arc::unwrap_or_clone(provider)
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_webpki_verifier(verifier);
        let config = if let Ok(path) = options.text("cert") {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
                .map_err(io::Error::other)?
                .collect();
            let key = PrivateKeyDer::from_pem_file(options.text("key")?);
            builder
                .with_client_auth_cert(
                    chain.map_err(io::Error::other)?,
                    key.map_err(io::Error::other)?,
                )
                .map_err(io::Error::other)?
        } else {
            builder.with_no_client_auth()
        };
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        Ok(Self { config, name })
    }

    /// Another device, with tickets of its own, or with none.
    pub(super) fn device(&self, resumes: bool) -> Device {
        let mut config = self.config.clone();
        config.resumption = match resumes {
            true => Resumption::in_memory_sessions(1),
            false => Resumption::disabled(),
        };
        Device {
            connector: TlsConnector::from(Arc::new(config)),
            name: self.name.clone(),
        }
    }
}

/// One device's side of TLS.
pub(super) struct Device {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Device {
    /// Connects; the second says whether the handshake resumed a session.
    pub(super) async fn dial(&self, port: u16) -> io::Result<(TlsStream<TcpStream>, bool)> {
        let stream = dial(port).await?;
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((stream, resumed))
    }
}
