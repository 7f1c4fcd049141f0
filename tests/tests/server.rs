//! The whole server in this process, on port 0, with real sockets: what only a transport can get wrong.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::config::{
    AnonymousAccess, ClientCert, Config, CrlOverdue, Identity, ListenerConfig, TlsConfig,
};
use motemq::server::Running;
use motemq_certs::Authority;
use motemq_codec::{Decoded, Packet, ProtocolVersion, decode};
use motemq_tests::in_process::{InProcess, expect, no_http, tls_over};
use rustls::{ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// [MQTT5-4.2-1] [MQTT5-4.2.0-1] [MQTT3-7.1.1-1]: over TCP and TLS, everything in its order.
#[test]
fn a_tls_client_that_stops_reading_for_a_while_gets_everything() {
    // TLS keeps what the socket did not take. It was pushed again only when something new was sent, so the last bytes for a
    // slow client could wait for ever.
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut reader = server.tls_client(dir.path());
    reader.write_all(&connect("reader")).unwrap();
    expect(&mut reader, &[0x20, 2, 0, 0]);
    reader.write_all(&[0x82, 6, 0, 1, 0, 1, b't', 0]).unwrap();
    expect(&mut reader, &[0x90, 3, 0, 1, 0]);
    let mut publisher = TcpStream::connect(server.address("mqtt")).unwrap();
    publisher.write_all(&connect("publisher")).unwrap();
    expect(&mut publisher, &[0x20, 2, 0, 0]);
    for number in 0..MESSAGES {
        publisher.write_all(&publish(number)).unwrap();
    }
    // The answer says that all of them have been handed over.
    publisher.write_all(&[0xc0, 0]).unwrap();
    expect(&mut publisher, &[0xd0, 0]);
    let mut received = Vec::new();
    let mut expected = 0;
    while expected < MESSAGES {
        let mut bytes = [0; 16384];
        let count = reader
            .read(&mut bytes)
            .expect("the rest must come by itself");
        received.extend_from_slice(&bytes[..count]);
        let mut done = 0;
        while let Ok(Decoded::Packet { packet, length }) =
            decode(&received[done..], ProtocolVersion::V3_1_1, usize::MAX)
        {
            let Packet::Publish(publish) = packet else {
                panic!("expected a PUBLISH, got {packet:?}");
            };
            assert_eq!(publish.payload[..4], expected.to_be_bytes());
            expected += 1;
            done += length;
        }
        received.drain(..done);
    }
    server.stop();
}

#[test]
fn a_stop_tells_version_5_clients_and_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = TcpStream::connect(server.address("mqtt")).unwrap();
    // Version 5, clean start 0, session expiry 100 s.
    let properties = [5, 0x11, 0, 0, 0, 100];
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0, 0, 0];
    body.extend(properties);
    body.extend([0, 1, b'c']);
    client.write_all(&packet(0x10, &body)).unwrap();
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    let mut rest = vec![0; usize::from(head[1])];
    client.read_exact(&mut rest).unwrap();
    assert_eq!((head[0], rest[1]), (0x20, 0));
    // Subscribes to its own topic at QoS 1 and publishes, but never acknowledges the delivery.
    client
        .write_all(&[0x82, 7, 0, 1, 0, 0, 1, b't', 1])
        .unwrap();
    expect(&mut client, &[0x90, 4, 0, 1, 0, 1]);
    client
        .write_all(&[0x32, 7, 0, 1, b't', 0, 9, 0, b'x'])
        .unwrap();
    let mut answers = [0; 9 + 4];
    client.read_exact(&mut answers).unwrap();
    assert!(
        answers.windows(4).any(|bytes| bytes == [0x40, 2, 0, 9]),
        "{answers:02x?}"
    );
    server.stop();
    // [MQTT5-3.14.0-1] allows it only after CONNACK; 0x8B says that the server is going.
    let mut last = Vec::new();
    client.read_to_end(&mut last).unwrap();
    assert_eq!(last.first(), Some(&0xe0));
    assert_eq!(last.get(2), Some(&0x8b));

    let server = Server::start(dir.path());
    let session = server.running().server().broker().session("c");
    let session = session.expect("the session was durable");
    // Sent once, so not among what waits to be sent for the first time; it is sent again when the client is back.
    assert_eq!(session.mailbox().depth().0, 0);
    assert_eq!(server.running().server().broker().subscriptions(), 1);
    server.stop();
}

#[test]
fn a_client_connects_while_the_journal_is_congested() {
    // It was left alone as a publisher is, but nothing woke it again before limits.connect_timeout_s.
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), |config| {
        config.persistence.journal_queue_bytes_max = 0;
        config.persistence.commit_delay_ms = 500;
    });
    let open = || {
        let socket = TcpStream::connect(server.address("mqtt")).unwrap();
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).unwrap();
        socket
    };
    let mut lasting = connect("lasting");
    lasting[9] = 0;
    let mut receiver = open();
    receiver.write_all(&lasting).unwrap();
    expect(&mut receiver, &[0x20, 2, 0, 0]);
    receiver.write_all(&[0x82, 6, 0, 1, 0, 1, b't', 1]).unwrap();
    expect(&mut receiver, &[0x90, 3, 0, 1, 1]);
    drop(receiver);
    let mut publisher = open();
    publisher.write_all(&connect("publisher")).unwrap();
    expect(&mut publisher, &[0x20, 2, 0, 0]);
    // Half a second from here the record waits for its commit; the answer to the ping says that it does.
    publisher
        .write_all(&[0x32, 5, 0, 1, b't', 0, 1, 0xc0, 0])
        .unwrap();
    expect(&mut publisher, &[0xd0, 0]);
    let mut other = open();
    other.write_all(&connect("other")).unwrap();
    expect(&mut other, &[0x20, 2, 0, 0]);
    server.stop();
}

#[test]
fn a_stop_waits_neither_for_a_slow_reader_nor_for_a_stuck_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    // Subscribed, and reads nothing of the twelve megabytes that it is owed.
    let mut slow = server.tls_client(dir.path());
    slow.write_all(&connect("slow")).unwrap();
    expect(&mut slow, &[0x20, 2, 0, 0]);
    slow.write_all(&[0x82, 6, 0, 1, 0, 1, b't', 0]).unwrap();
    expect(&mut slow, &[0x90, 3, 0, 1, 0]);
    let mut publisher = TcpStream::connect(server.address("mqtt")).unwrap();
    publisher.write_all(&connect("publisher")).unwrap();
    expect(&mut publisher, &[0x20, 2, 0, 0]);
    for number in 0..MESSAGES {
        publisher.write_all(&publish(number)).unwrap();
    }
    publisher.write_all(&[0xc0, 0]).unwrap();
    expect(&mut publisher, &[0xd0, 0]);
    // A handshake record that never ends, one that has not begun, and a CONNECT that never ends.
    let mut stuck: Vec<_> = ["mqtts", "mqtts", "mqtt"]
        .map(|name| TcpStream::connect(server.address(name)).unwrap())
        .into();
    stuck[0].write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    stuck[2].write_all(&[0x10, 0x20]).unwrap();
    while server.running().server().unauthenticated() < 3 {
        std::thread::yield_now();
    }
    // Less than limits.stop_timeout_s, after which they would be cut.
    server.0.stop_within(Duration::from_secs(4));
}

/// A server with a plain and a TLS listener.
struct Server(InProcess);

impl Server {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| {})
    }

    fn start_with(dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let (authority, _) = Authority::open_or_create(&dir.join("pki"), "test").unwrap();
        let (cert, key) = (dir.join("server.crt"), dir.join("server.key"));
        if !cert.exists() {
            let issued = authority.issue_server(&["localhost".to_owned()]).unwrap();
            issued.write(&cert, &key).unwrap();
        }
        let tls = TlsConfig {
            cert,
            key,
            client_ca: None,
            crl: None,
            crl_overdue: CrlOverdue::Warn,
            allow_list: None,
            client_cert: ClientCert::None,
            identity: Identity::None,
            record_bytes_max: 16384,
        };
        let mut config = Config {
            data_dir: Some(dir.join("data")),
            listeners: vec![listener("mqtt", None), listener("mqtts", Some(tls))],
            http: no_http(),
            ..Config::default()
        };
        change(&mut config);
        Self(InProcess::start(config))
    }

    fn running(&self) -> &Running {
        self.0.running()
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.0.address(name)
    }

    fn tls_client(&self, dir: &Path) -> StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect(self.address("mqtts")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        tls_over(socket, &dir.join("pki/ca.crt"))
    }

    fn stop(self) {
        self.0.stop();
    }
}

fn listener(name: &str, tls: Option<TlsConfig>) -> ListenerConfig {
    ListenerConfig {
        name: name.to_owned(),
        bind: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        anonymous: AnonymousAccess::Allowed,
        tls,
        ..ListenerConfig::default()
    }
}

fn connect(client_id: &str) -> Vec<u8> {
    let mut body = vec![
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        4,
        2,
        0,
        0,
        0,
        client_id.len() as u8,
    ];
    body.extend(client_id.as_bytes());
    packet(0x10, &body)
}

fn publish(number: u32) -> Vec<u8> {
    let mut body = vec![0, 1, b't'];
    body.extend(number.to_be_bytes());
    body.resize(PAYLOAD_BYTES, 0);
    packet(0x30, &body)
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut length = body.len();
    while length >= 0x80 {
        packet.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend(body);
    packet
}

/// More than the buffers of both sockets hold, less than the queue limit.
const MESSAGES: u32 = 1500;
const PAYLOAD_BYTES: usize = 8000;
