//! Reloads under load: everybody publishes while access rules, revocation list and server certificate change.
//!
//! Every message is published at QoS 1 and has to arrive; whoever may stay keeps the connection; the one device whose certificate each
//! reload revokes is thrown out.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a script that goes wrong must stop at once"
)]

use crate::in_process::{InProcess, tls_with};
use crate::peer::{Got, Hello};
use crate::revocation::write_list;
use crate::socket::{Client, PATIENCE, Stopwatch};
use motemq_certs::{Authority, Issued};
use motemq_codec::AckKind;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Messages published, acknowledged and received.
    pub messages: u64,
    /// Clients that published all the while.
    pub clients: usize,
    /// Reloads.
    pub reloads: usize,
    /// The longest one.
    pub slowest: Duration,
    /// The whole of it.
    pub elapsed: Duration,
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// Runs `clients` publishers, every tenth with TLS and a certificate, through so many reloads.
///
/// # Panics
/// When a message is lost, or somebody is thrown out who may stay, or stays who may not.
#[must_use]
pub fn run(clients: usize, reloads: usize) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (authority, _) = Authority::open_or_create(&path("pki"), "test").expect("an authority");
    let victims: Vec<_> = (0..reloads)
        .map(|number| issue(&authority, &format!("victim-{number}")))
        .collect();
    write_rules(&path("acl"), 0);
    write_list(&path("pki"), &path("crl.pem"), &[], 2040);
    write_server(&authority, folder.path());
    std::fs::write(path("motemq.toml"), CONFIGURATION).expect("a file");
    let (broker, mut reloader) = InProcess::from_file(&path("motemq.toml"));
    let (plain, tls) = (broker.address("mqtt"), broker.address("mqtts"));
    let ca = path("pki/ca.crt");
    let open = |name: &str, certificate: Option<&Issued>| -> Box<dyn Stream> {
        let address = if certificate.is_some() { tls } else { plain };
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).expect("a socket");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("an open socket");
        socket.set_nodelay(true).expect("an open socket");
        let mut stream: Box<dyn Stream> = match certificate {
            None => Box::new(socket),
            Some(issued) => Box::new(tls_with(socket, &ca, Some(issued))),
        };
        stream.write_all(&connect(name)).expect("an open socket");
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).expect("a CONNACK");
        assert_eq!(connack, [0x20, 2, 0, 0], "{name}");
        stream
    };
    let mut condemned: Vec<_> = victims
        .iter()
        .enumerate()
        .map(|(number, issued)| open(&format!("victim-{number}"), Some(issued)))
        .collect();
    let mut crowds: Vec<Vec<Box<dyn Stream>>> = (0..CROWDS).map(|_| Vec::new()).collect();
    for number in 0..clients {
        let name = format!("client-{number}");
        let certificate = (number % 10 == 9).then(|| issue(&authority, &name));
        crowds[number % CROWDS].push(open(&name, certificate.as_ref()));
    }
    let received: Arc<[AtomicU64]> = (0..CROWDS).map(|_| AtomicU64::new(0)).collect();
    let is_over = AtomicBool::new(false);
    let watch = Stopwatch::start();
    let mut slowest = Duration::ZERO;
    let mut collector = Client::connect(plain.port(), &Hello::clean("collector"));
    assert_eq!(collector.subscribe("load/#", 1), 1);
    let messages = std::thread::scope(|scope| {
        let is_over = &is_over;
        let counts = received.clone();
        scope.spawn(move || collect(&mut collector, &counts));
        let publishers: Vec<_> = crowds
            .into_iter()
            .enumerate()
            .map(|(number, crowd)| {
                let received = received.clone();
                scope.spawn(move || publish_until(crowd, number, &received[number], is_over))
            })
            .collect();
        let total = || {
            received
                .iter()
                .map(|count| count.load(Ordering::Acquire))
                .sum::<u64>()
        };
        for (number, victim) in condemned.iter_mut().enumerate() {
            // Everybody has had a turn since the one before, more or less.
            let goal = total() + clients as u64;
            let waiting = Stopwatch::start();
            while total() < goal {
                assert!(waiting.elapsed() < PATIENCE, "the messages do not come");
                std::thread::yield_now();
            }
            write_rules(&path("acl"), number + 1);
            let revoked: Vec<_> = victims.iter().take(number + 1).collect();
            write_list(&path("pki"), &path("crl.pem"), &revoked, 2040);
            write_server(&authority, folder.path());
            let reloading = Stopwatch::start();
            assert!(
                reloader.reload(broker.running().server()),
                "reload {number}"
            );
            slowest = slowest.max(reloading.elapsed());
            let end = victim.read(&mut [0; 2]).unwrap_or(0);
            assert_eq!(end, 0, "3.1.1 has no DISCONNECT");
        }
        is_over.store(true, Ordering::Release);
        let messages = publishers
            .into_iter()
            .map(|publisher| publisher.join().expect("a publisher was disturbed"))
            .sum::<u64>();
        let mut last = Client::connect(plain.port(), &Hello::clean("last"));
        last.publish("load/end", "", 1, 1);
        messages
    });
    let elapsed = watch.elapsed();
    broker.stop();
    Report {
        messages,
        clients,
        reloads,
        slowest,
        elapsed,
    }
}

/// Counts what arrives from each crowd, until the end.
fn collect(collector: &mut Client, counts: &[AtomicU64]) {
    loop {
        match collector.take() {
            Some(Got::Publish(publish)) => {
                collector.ack(AckKind::PubAck, publish.id);
                let Some(crowd) = publish.topic.strip_prefix("load/crowd-") else {
                    return;
                };
                let crowd: usize = crowd.parse().expect("a crowd");
                counts[crowd].fetch_add(1, Ordering::AcqRel);
            }
            other => panic!("the collector got {other:?}"),
        }
    }
}

/// Rounds of one message from each of a crowd; each round has arrived before the next.
fn publish_until(
    mut crowd: Vec<Box<dyn Stream>>,
    number: usize,
    received: &AtomicU64,
    is_over: &AtomicBool,
) -> u64 {
    let topic = format!("load/crowd-{number}");
    let mut packet = vec![0x32, u8::try_from(topic.len() + 8).expect("short"), 0];
    packet.push(u8::try_from(topic.len()).expect("short"));
    packet.extend(topic.as_bytes());
    packet.extend([0, 1, 1, 2, 3, 4]);
    let mut sent = 0;
    while !is_over.load(Ordering::Acquire) {
        for stream in &mut crowd {
            stream
                .write_all(&packet)
                .expect("who may stay is thrown out");
            stream.flush().expect("who may stay is thrown out");
        }
        for stream in &mut crowd {
            let mut puback = [0; 4];
            stream
                .read_exact(&mut puback)
                .expect("who may stay is thrown out");
            assert_eq!(puback, [0x40, 2, 0, 1]);
        }
        sent += crowd.len() as u64;
        let watch = Stopwatch::start();
        while received.load(Ordering::Acquire) < sent {
            assert!(watch.elapsed() < PATIENCE, "a message is lost");
            std::thread::yield_now();
        }
    }
    assert_eq!(received.load(Ordering::Acquire), sent);
    sent
}

fn issue(authority: &Authority, name: &str) -> Issued {
    authority.issue_device(name).expect("a certificate")
}

fn write_server(authority: &Authority, folder: &Path) {
    let issued = authority
        .issue_server(&["localhost".to_owned()])
        .expect("a certificate");
    for file in ["server.crt", "server.key"] {
        // The issuer does not overwrite.
        let _ = std::fs::remove_file(folder.join(file));
    }
    issued
        .write(&folder.join("server.crt"), &folder.join("server.key"))
        .expect("files");
}

fn write_rules(file: &Path, number: usize) {
    let rules = format!(
        "[everyone]\nallow all load/#\nallow publish reload/{number}\ndeny all secret/{number}/#\n"
    );
    std::fs::write(file, rules).expect("a file");
}

fn connect(name: &str) -> Vec<u8> {
    let mut packet = vec![0x10, u8::try_from(name.len() + 12).expect("short")];
    packet.extend(b"\x00\x04MQTT\x04\x02\x00\x00\x00");
    packet.push(u8::try_from(name.len()).expect("short"));
    packet.extend(name.as_bytes());
    packet
}

const CONFIGURATION: &str = r#"
data_dir = ""
[[listeners]]
name = "mqtt"
bind = "127.0.0.1:0"
anonymous = true
[[listeners]]
name = "mqtts"
bind = "127.0.0.1:0"
[listeners.tls]
cert = "server.crt"
key = "server.key"
client_ca = "pki/ca.crt"
crl = "crl.pem"
[auth]
acl_file = "acl"
[http]
bind = ""
[limits]
queue_messages_max = 1000000
queue_bytes_max = "1GiB"
"#;
/// Threads that publish.
const CROWDS: usize = 4;
