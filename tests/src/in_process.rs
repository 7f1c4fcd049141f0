//! A broker within the test's process, on real sockets.
//!
//! Does not know: what is configured, what the clients say.
#![expect(
    clippy::expect_used,
    reason = "a script that goes wrong must stop at once"
)]

use motemq::config::{Config, HttpConfig, Sources, load_with_settings};
use motemq::reload::Reloader;
use motemq::server::{Running, start};
use motemq_certs::Issued;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A running broker and the runtime it runs on.
#[derive(Debug)]
pub struct InProcess {
    runtime: Runtime,
    running: Running,
}

impl InProcess {
    /// Starts a broker.
    #[must_use]
    pub fn start(config: Config) -> Self {
        let runtime = motemq::runtime::build().expect("a runtime");
        let running = runtime.block_on(start(config)).expect("the broker starts");
        Self { runtime, running }
    }

    /// Starts a broker as the file says; the other one reads it again.
    #[must_use]
    pub fn from_file(file: &Path) -> (Self, Reloader) {
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        let (config, settings) = load_with_settings(&sources).expect("a configuration");
        let reloader = Reloader::new(&sources, settings);
        (Self::start(config), reloader)
    }

    /// The broker.
    #[must_use]
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Where a client reaches a TCP listener.
    #[must_use]
    pub fn address(&self, listener: &str) -> SocketAddr {
        let addresses = self.running.addresses();
        let known = addresses.iter().find(|(name, _)| name == listener);
        let (_, address) = known.expect("a listener of the configuration");
        (Ipv4Addr::LOCALHOST, address.port()).into()
    }

    /// Stops the broker.
    pub fn stop(self) {
        self.runtime.block_on(self.running.stop());
    }

    /// Stops the broker, which must not take longer than `time`.
    pub fn stop_within(self, time: Duration) {
        let stop = async { tokio::time::timeout(time, self.running.stop()).await };
        self.runtime.block_on(stop).expect("it stops in time");
    }
}

/// No HTTP port.
#[must_use]
pub fn no_http() -> HttpConfig {
    HttpConfig {
        bind: None,
        metrics_bind: None,
        ..HttpConfig::default()
    }
}

/// A TLS client, before its handshake, that trusts the authority in the file `ca`.
#[must_use]
pub fn tls_over(socket: TcpStream, ca: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    tls_with(socket, ca, None)
}

/// As [`tls_over`], with a certificate and its key, if any.
#[must_use]
pub fn tls_with(
    socket: TcpStream,
    ca: &Path,
    certificate: Option<&Issued>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "localhost".try_into().expect("a name");
    let config = tls_config(ca, certificate);
    let connection = ClientConnection::new(config, name).expect("a client");
    StreamOwned::new(connection, socket)
}

/// As [`tls_client`], with a certificate that was just issued, if any.
#[must_use]
pub fn tls_config(ca: &Path, certificate: Option<&Issued>) -> Arc<ClientConfig> {
    let own = certificate.map(|issued| {
        let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(issued.private_key_pem.as_bytes());
        (certificate.expect("a certificate"), key.expect("a key"))
    });
    tls_client(ca, own)
}

/// A TLS client that trusts the authority in the file `ca`, and shows a certificate if it has one and is asked.
#[must_use]
pub fn tls_client(
    ca: &Path,
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).expect("a certificate");
    roots.add(ca).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of the provider")
        .with_root_certificates(roots);
    Arc::new(match own {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config
            .with_client_auth_cert(vec![certificate], key)
            .expect("a certificate and its key"),
    })
}

/// Reads as many bytes as `expected` has, which must be those.
///
/// # Panics
/// When they are others, or do not come.
pub fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).expect("an answer");
    assert_eq!(bytes, expected);
}
