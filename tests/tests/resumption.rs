//! Resumed TLS sessions with client certificates, over real sockets: what survives a restart, and what must not.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::clock;
use motemq_certs::Authority;
use motemq_tests::in_process::{InProcess, tls_config};
use motemq_tests::revocation::write_list;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn a_device_resumes_its_tls_session_after_a_restart() {
    // In TLS 1.2 what a restart would need must not be on disk.
    for (version, after_restart) in [
        (&TLS13, HandshakeKind::Resumed),
        (&TLS12, HandshakeKind::Full),
    ] {
        let site = Site::new();
        let device = site.device(DAY, version);
        let broker = site.start("client_ca = \"pki/ca.crt\"");
        assert_eq!(visit(&broker, &device), (HandshakeKind::Full, ACCEPTED));
        assert_eq!(visit(&broker, &device), (HandshakeKind::Resumed, ACCEPTED));
        broker.stop();
        let broker = site.start("client_ca = \"pki/ca.crt\"");
        assert_eq!(visit(&broker, &device), (after_restart, ACCEPTED));
        broker.stop();
    }
}

#[test]
fn other_authorities_end_what_was_verified_by_the_old_ones() {
    let site = Site::new();
    let device = site.device(DAY, &TLS13);
    let broker = site.start("client_ca = \"pki/ca.crt\"");
    assert_eq!(visit(&broker, &device), (HandshakeKind::Full, ACCEPTED));
    broker.stop();
    let pem = ["pki/ca.crt", "other/ca.crt"].map(|name| std::fs::read(site.path(name)).unwrap());
    std::fs::write(site.path("both.crt"), pem.concat()).unwrap();
    let broker = site.start("client_ca = \"both.crt\"");
    assert_eq!(visit(&broker, &device), (HandshakeKind::Full, ACCEPTED));
    broker.stop();
}

#[test]
fn a_certificate_that_has_expired_is_refused_on_a_resumed_session() {
    // The certificate lives for seconds; the device comes back until it has expired, and its sessions are resumed throughout.
    for identity in ["cn", "none"] {
        let site = Site::new();
        let device = site.device(Duration::from_secs(3), &TLS13);
        let rules = format!("client_ca = \"pki/ca.crt\"\nidentity = \"{identity}\"");
        let broker = site.start(&rules);
        let end = clock::now() + Duration::from_secs(30);
        assert_eq!(visit(&broker, &device), (HandshakeKind::Full, ACCEPTED));
        loop {
            let (handshake, code) = visit(&broker, &device);
            assert_eq!(handshake, HandshakeKind::Resumed);
            if code == BAD_CREDENTIALS || code == NOT_AUTHORIZED {
                break;
            }
            assert_eq!(code, ACCEPTED);
            assert!(
                clock::now() < end,
                "identity {identity}: it is never refused"
            );
        }
        broker.stop();
    }
}

#[test]
fn a_connection_ends_when_its_certificate_does() {
    for identity in ["cn", "none"] {
        let site = Site::new();
        let device = site.device(Duration::from_secs(3), &TLS13);
        let rules = format!("client_ca = \"pki/ca.crt\"\nidentity = \"{identity}\"");
        let broker = site.start(&rules);
        let mut stream = open(&broker, &device);
        stream
            .write_all(b"\x10\x13\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x06device")
            .unwrap();
        let mut bytes = Vec::new();
        // The socket's patience is longer than the certificate's life.
        let _ = stream.read_to_end(&mut bytes);
        assert_eq!(bytes.first(), Some(&0x20), "CONNACK");
        let disconnect = bytes.get(2 + usize::from(bytes[1])..).unwrap();
        assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x87), "{identity}");
        broker.stop();
    }
}

#[test]
fn a_fleet_resumes_after_a_restart_but_for_the_one_that_was_revoked() {
    let site = Site::new();
    let (authority, _) = Authority::open_or_create(&site.path("pki"), "test").unwrap();
    let mut issued: Vec<_> = (0..1000)
        .map(|number| authority.issue_device(&format!("d{number}")).unwrap())
        .collect();
    let fleet: Vec<_> = issued
        .iter()
        .map(|issued| tls_config(&site.path("pki/ca.crt"), Some(issued)))
        .collect();
    let rules = "client_ca = \"pki/ca.crt\"\ncrl = \"crl.pem\"";
    write_list(&site.path("pki"), &site.path("crl.pem"), &[], 2040);
    let broker = site.start(rules);
    for (number, device) in fleet.iter().enumerate() {
        let expected = (HandshakeKind::Full, ACCEPTED);
        assert_eq!(visit_as(&number.to_string(), &broker, device), expected);
    }
    assert_eq!(handshakes(&broker), [("full", 1000), ("resumed", 0)]);
    broker.stop();
    let stolen = issued.swap_remove(500);
    write_list(&site.path("pki"), &site.path("crl.pem"), &[&stolen], 2040);
    let broker = site.start(rules);
    for (number, device) in fleet.iter().enumerate() {
        if number == 500 {
            let mut stream = open(&broker, device);
            stream.write_all(&connect("500")).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "it gets an answer");
            let kind = stream.conn.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Resumed));
        } else {
            let expected = (HandshakeKind::Resumed, ACCEPTED);
            assert_eq!(visit_as(&number.to_string(), &broker, device), expected);
        }
    }
    assert_eq!(handshakes(&broker), [("full", 0), ("resumed", 1000)]);
    let metrics = motemq::metrics::render(broker.running().server());
    let line = "mqtt_broker_tls_handshakes_total{listener=\"mqtts\",result=\"resumed\",version=\"1.3\"} 1000";
    assert!(metrics.contains(line), "{metrics}");
    broker.stop();
}

struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let site = Self { folder };
        let authority = Authority::create(&site.path("pki"), "test").unwrap();
        Authority::create(&site.path("other"), "other").unwrap();
        let issued = authority.issue_server(&["localhost".to_owned()]).unwrap();
        issued
            .write(&site.path("server.crt"), &site.path("server.key"))
            .unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, rules: &str) -> InProcess {
        let file = self.path("motemq.toml");
        let text = format!(
            "data_dir = \"data\"\n[http]\nbind = \"\"\n[[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
             [listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\n{rules}\n"
        );
        std::fs::write(&file, text).unwrap();
        InProcess::from_file(&file).0
    }

    /// A device with a certificate for so long, and tickets of its own.
    fn device(
        &self,
        lifetime: Duration,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "device");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(clock::now().as_ms());
        params.not_before = now - Duration::from_secs(60);
        params.not_after = now + lifetime;
        let text = |name| std::fs::read_to_string(self.path(name)).unwrap();
        let ca_key = KeyPair::from_pem(&text("pki/ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&text("pki/ca.crt"), ca_key).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("pki/ca.crt")).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.resumption = Resumption::in_memory_sessions(1);
        Arc::new(config)
    }
}

/// A connection, before its handshake.
fn open(
    broker: &InProcess,
    device: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(broker.address("mqtts")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(device.clone(), name).unwrap();
    StreamOwned::new(connection, socket)
}

/// Connects once; how the handshake went, and the return code of CONNACK.
fn visit(broker: &InProcess, device: &Arc<ClientConfig>) -> (HandshakeKind, u8) {
    visit_as("device", broker, device)
}

fn visit_as(id: &str, broker: &InProcess, device: &Arc<ClientConfig>) -> (HandshakeKind, u8) {
    let mut stream = open(broker, device);
    stream.write_all(&connect(id)).unwrap();
    let mut connack = [0; 4];
    // The ticket comes before it.
    stream.read_exact(&mut connack).unwrap();
    (stream.conn.handshake_kind().unwrap(), connack[3])
}

/// How many handshakes there were, by kind.
fn handshakes(broker: &InProcess) -> [(&'static str, u64); 2] {
    broker.running().server().listeners()[0].handshakes()
}

fn connect(id: &str) -> Vec<u8> {
    let length = id.len() as u8;
    let head = [0x10, 12 + length];
    let fixed = b"\x00\x04MQTT\x04\x02\x00\x00\x00";
    [&head[..], fixed, &[length], id.as_bytes()].concat()
}

const DAY: Duration = Duration::from_secs(86_400);
const ACCEPTED: u8 = 0;
const BAD_CREDENTIALS: u8 = 4;
const NOT_AUTHORIZED: u8 = 5;
