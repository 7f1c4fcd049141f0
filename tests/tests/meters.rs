//! What a connection costs by layer, as its own task tells it: over real sockets, whose bytes are counted at the client's end.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::config::{
    AnonymousAccess, ClientCert, Config, CrlOverdue, Identity, ListenerConfig, TlsConfig,
};
use motemq::meters::{Both, ConnectionFacts};
use motemq_certs::Authority;
use motemq_tests::in_process::{InProcess, expect, no_http, tls_config};
use rustls::ClientConnection;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

fn start(tls: Option<TlsConfig>) -> InProcess {
    InProcess::start(Config {
        data_dir: None,
        listeners: vec![ListenerConfig {
            name: "mqtt".to_owned(),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
            anonymous: AnonymousAccess::Allowed,
            tls,
            ..ListenerConfig::default()
        }],
        http: no_http(),
        ..Config::default()
    })
}

fn facts(broker: &InProcess, client: &str) -> Option<ConnectionFacts> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    runtime.block_on(broker.running().server().connection_facts(client))
}

/// CONNECT of MQTT 3.1.1 with a keep-alive of 60 s, SUBSCRIBE to `t` at QoS 0, a message to it of five bytes of payload, and a PINGREQ.
const SENT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c\
    \x82\x06\x00\x01\x00\x01t\x00\
    \x30\x08\x00\x01thello\
    \xc0\x00";
/// What comes back, the message first: nothing has to wait for it.
const RECEIVED: usize = 4 + 5 + 10 + 2;

fn talk(stream: &mut (impl Read + Write)) {
    stream.write_all(&SENT[..15]).unwrap();
    expect(stream, &[0x20, 2, 0, 0]);
    stream.write_all(&SENT[15..23]).unwrap();
    expect(stream, &[0x90, 3, 0, 1, 0]);
    stream.write_all(&SENT[23..]).unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
}

const fn both(incoming: u64, outgoing: u64) -> Both {
    Both { incoming, outgoing }
}

#[test]
fn a_connection_tells_its_bytes_by_layer_and_what_the_kernel_knows() {
    let broker = start(None);
    assert_eq!(facts(&broker, "c"), None, "nobody is there");
    let mut stream = TcpStream::connect(broker.address("mqtt")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    talk(&mut stream);
    let told = facts(&broker, "c").unwrap();
    assert_eq!((told.version, told.keep_alive_s), (4, 60));
    assert_eq!(told.peer, stream.local_addr().unwrap().to_string());
    assert_eq!(told.messages, both(1, 1));
    assert_eq!(told.bytes.payload, both(5, 5));
    assert_eq!(told.bytes.mqtt, both(SENT.len() as u64, RECEIVED as u64));
    assert_eq!((told.tls, told.bytes.tls), (None, None));
    let tcp = told.bytes.tcp.unwrap();
    // SYN, at least three segments with data, and what acknowledges: headers of 40 to 60 bytes.
    let least = told.bytes.mqtt.incoming + 4 * 40;
    assert!((least..least + 2000).contains(&tcp.incoming), "{tcp:?}");
    let kernel = told.tcp.unwrap();
    assert!(kernel.rtt_us > 0 && kernel.lost == 0, "{kernel:?}");
    let all = (SENT.len() + RECEIVED) as f64;
    assert!((told.keep_alive_share - 4.0 / all).abs() < 1e-9);
    drop(stream);
    broker.stop();
}

#[test]
fn a_tls_connection_tells_its_records_its_version_and_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(&dir.path().join("pki"), "test").unwrap();
    let (cert, key) = (dir.path().join("server.crt"), dir.path().join("server.key"));
    let issued = authority.issue_server(&["localhost".to_owned()]).unwrap();
    issued.write(&cert, &key).unwrap();
    let ca = dir.path().join("pki/ca.crt");
    let broker = start(Some(TlsConfig {
        cert,
        key,
        client_ca: Some(ca.clone()),
        crl: None,
        crl_overdue: CrlOverdue::Warn,
        allow_list: None,
        client_cert: ClientCert::Required,
        identity: Identity::Cn,
        record_bytes_max: 16384,
    }));
    let own = authority.issue_device("meter-7").unwrap();
    let mut stream = Counting::connect(broker.address("mqtt"));
    let config = tls_config(&ca, Some(&own));
    let mut session = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    talk(&mut rustls::Stream::new(&mut session, &mut stream));
    let told = facts(&broker, "c").unwrap();
    let tls = told.tls.unwrap();
    assert_eq!((tls.version, tls.is_resumed), ("1.3", false));
    assert_eq!(told.bytes.mqtt, both(SENT.len() as u64, RECEIVED as u64));
    assert_eq!(told.bytes.tls, Some(both(stream.written, stream.read)));
    let certificate = told.certificate.unwrap();
    assert_eq!(certificate.subject, "CN=meter-7");
    assert_eq!(certificate.fingerprint.unwrap().len(), 64);
    assert!(certificate.not_after_ms.unwrap() > told.connected_at_ms);
    let listed = serde_json::to_value(told.bytes).unwrap();
    assert_eq!(listed["payload"], serde_json::json!({"in": 5, "out": 5}));
    drop(stream);
    broker.stop();
}

/// A connection that is stuck, or whose client is not who is asked for, holds nobody up.
#[test]
fn who_asks_for_an_absent_client_is_told_so() {
    let broker = start(None);
    let mut stream = TcpStream::connect(broker.address("mqtt")).unwrap();
    talk(&mut stream);
    assert_eq!(facts(&broker, "other"), None);
    assert!(facts(&broker, "c").is_some());
    broker.stop();
}

/// Counts what crosses a socket.
struct Counting {
    stream: TcpStream,
    read: u64,
    written: u64,
}

impl Counting {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        Self {
            stream,
            read: 0,
            written: 0,
        }
    }
}

impl Read for Counting {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(bytes)?;
        self.read += count as u64;
        Ok(count)
    }
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}
