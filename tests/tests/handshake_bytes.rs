//! What a TLS handshake costs on the wire, both ways together: mutual TLS with P-256 certificates of `motemq-certs`, as a device on a
//! narrow link does it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq_certs::{Authority, Issued};
use motemq_tests::in_process::InProcess;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn a_handshake_fits_a_narrow_link() {
    let site = Site::new();
    for (version, full_max, resumed_max) in [(&TLS13, 1_650, 760), (&TLS12, 1_500, 400)] {
        let device = site.device(version);
        let full = site.handshake(&device);
        let resumed = site.handshake(&device);
        println!("{:?}: {full:?}, {resumed:?}", version.version);
        let kinds = (full.kind, resumed.kind);
        assert_eq!(kinds, (HandshakeKind::Full, HandshakeKind::Resumed));
        assert!(full.total() <= full_max, "{full:?}");
        assert!(resumed.total() <= resumed_max, "{resumed:?}");
        // One, and short: what the broker keeps is found by it, nothing else is in it.
        let tickets = if version.version == ProtocolVersion::TLSv1_3 {
            1
        } else {
            0
        };
        assert_eq!((full.tickets, resumed.tickets), (tickets, tickets));
    }
    site.broker.stop();
}

/// What one handshake took.
#[derive(Debug)]
struct Handshake {
    kind: HandshakeKind,
    sent: usize,
    received: usize,
    tickets: u32,
}

impl Handshake {
    fn total(&self) -> usize {
        self.sent + self.received
    }
}

struct Site {
    folder: TempDir,
    certificate: Issued,
    broker: InProcess,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::create(&path("pki"), "Acme Fleet").unwrap();
        let server = authority.issue_server(&["broker.example.org".to_owned()]);
        server
            .unwrap()
            .write(&path("server.crt"), &path("server.key"))
            .unwrap();
        let text = "data_dir = \"\"\n[http]\nbind = \"\"\n[[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:0\"\n\
             [listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"pki/ca.crt\"\n";
        std::fs::write(path("motemq.toml"), text).unwrap();
        let broker = InProcess::from_file(&path("motemq.toml")).0;
        Self {
            certificate: authority.issue_device("meter-000017").unwrap(),
            folder,
            broker,
        }
    }

    fn device(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.folder.path().join("pki/ca.crt"));
        roots.add(ca.unwrap()).unwrap();
        let mut provider = default_provider();
        provider.kx_groups = vec![kx_group::X25519];
        let own = CertificateDer::from_pem_slice(self.certificate.certificate_pem.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.certificate.private_key_pem.as_bytes());
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own.unwrap()], key.unwrap());
        Arc::new(config.unwrap())
    }

    fn handshake(&self, device: &Arc<ClientConfig>) -> Handshake {
        let socket = TcpStream::connect(self.broker.address("mqtts")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let name = "broker.example.org".try_into().unwrap();
        let connection = ClientConnection::new(device.clone(), name).unwrap();
        let counted = Counted {
            socket,
            sent: 0,
            received: 0,
        };
        let mut stream = StreamOwned::new(connection, counted);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        let sent = stream.sock.sent;
        stream
            .write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
            .unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        // Header, type or nonce, tag; the broker prefers AES-GCM.
        let overhead = match stream.conn.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => 5 + 1 + 16,
            _ => 5 + 8 + 16,
        };
        Handshake {
            kind: stream.conn.handshake_kind().unwrap(),
            sent,
            received: stream.sock.received - (connack.len() + overhead),
            tickets: stream.conn.tls13_tickets_received(),
        }
    }
}

/// Counts what goes through a socket.
struct Counted {
    socket: TcpStream,
    sent: usize,
    received: usize,
}

impl Read for Counted {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.socket.read(bytes)?;
        self.received += count;
        Ok(count)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.socket.write(bytes)?;
        self.sent += count;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}
