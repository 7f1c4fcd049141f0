//! A mosquitto.conf under mosquitto, and under this broker after `motemq import`: the same clients fare the same.
//!
//! Compared are what each client was told, what was delivered, and what is there afterwards. What differs on purpose is left out, and
//! stands in `deploy/FROM-MOSQUITTO.md`: which reason code refuses a login, and that 3.1.1 clients are disconnected for a message that is too
//! large, and that overlapping subscriptions of an MQTT 5 client make one delivery.

use motemq_certs::{Authority, Issued};
use motemq_codec::{AckKind, Packet, ProtocolVersion};
use motemq_tests::in_process::tls_config;
use motemq_tests::kill_ledger::broker::{binary, free_port};
use motemq_tests::peer::{Got, Hello, encoded, options, publish, subscribe};
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const RULES: &str = "\
user boss
topic readwrite #
topic read $SYS/#

user alice
topic a/#
topic deny a/secret
topic read only/read
topic write only/write

pattern write devices/%u/up
pattern read devices/%u/down
";

/// Forty lines, with the ports of five listeners.
fn configuration([plain, tls, password_tls, web, few]: [u16; 5]) -> String {
    format!(
        "\
# MQTT at the plant
user root
pid_file mosquitto.pid
per_listener_settings false
allow_anonymous false
password_file passwords
acl_file rules
persistence true
persistence_location store/
autosave_interval 300
autosave_on_changes false
persistent_client_expiration 1d
max_inflight_messages 10
max_queued_messages 20
max_queued_bytes 100000
queue_qos0_messages false
max_packet_size 4000
message_size_limit 1000
max_keepalive 600
retain_available true
set_tcp_nodelay true
sys_interval 1
upgrade_outgoing_qos false
connection_messages true
log_type error
log_type warning
log_type notice
log_dest stderr
log_timestamp true
log_timestamp_format %Y-%m-%dT%H:%M:%S

listener {plain} 127.0.0.1
max_qos 2
listener {tls} 127.0.0.1
certfile server.crt
keyfile server.key
cafile ca.crt
require_certificate true
use_identity_as_username true
tls_version tlsv1.2
listener {password_tls} 127.0.0.1
certfile server.crt
keyfile server.key
cafile ca.crt
require_certificate false
listener {web} 127.0.0.1
protocol websockets
listener {few} 127.0.0.1
max_connections 3
"
    )
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn clients_fare_the_same_after_an_import() {
    let site = Site::new();
    let theirs = {
        let _mosquitto = site.mosquitto();
        site.outcomes()
    };
    site.import();
    let ours = {
        let _broker = site.motemq();
        site.outcomes()
    };
    let pairs = theirs.iter().zip(&ours);
    let differences: Vec<_> = pairs.filter(|(theirs, ours)| theirs != ours).collect();
    assert!(differences.is_empty(), "(mosquitto, here) {differences:#?}");
    assert_eq!(ours.len(), theirs.len());
    // It is no proof that both do nothing.
    assert!(theirs.len() > 60, "{theirs:#?}");
}

struct Site {
    folder: tempfile::TempDir,
    ports: [u16; 5],
    meter: Issued,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let ports = [(); 5].map(|()| free_port().unwrap());
        let text = configuration(ports);
        assert!(text.lines().count() >= 40);
        fs::write(at("mosquitto.conf"), text).unwrap();
        fs::write(at("rules"), RULES).unwrap();
        fs::create_dir(at("store")).unwrap();
        for (user, make) in [("boss", "-c"), ("alice", "-b")] {
            let mut command = Command::new("mosquitto_passwd");
            command.arg(make).args((make == "-c").then_some("-b"));
            let status = command.arg(at("passwords")).args([user, PASSWORD]).status();
            assert!(status.unwrap().success());
        }
        let authority = Authority::create(&at("authority"), "test").unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = authority.issue_server(&names).unwrap();
        server.write(&at("server.crt"), &at("server.key")).unwrap();
        fs::copy(authority.certificate_path(), at("ca.crt")).unwrap();
        let meter = authority.issue_device("meter-7").unwrap();
        Self {
            folder,
            ports,
            meter,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn mosquitto(&self) -> Running {
        // Debian has it where only root's PATH leads.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg("mosquitto.conf");
        self.start(command, "mosquitto.log")
    }

    /// With the program itself: exit code 0, since nothing is left to do.
    fn import(&self) {
        let output = Command::new(binary())
            .current_dir(self.folder.path())
            .args(["import", "mosquitto.conf", "-o", "ours"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(": valid\n"));
    }

    fn motemq(&self) -> Running {
        let mut command = Command::new(binary());
        command.args(["run", "-c", "ours/motemq.toml", "--set", "http.bind="]);
        self.start(command, "motemq.log")
    }

    fn start(&self, mut command: Command, log: &str) -> Running {
        let child = command
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(File::create(self.at(log)).unwrap())
            .spawn()
            .unwrap();
        let running = Running(child);
        let watch = Stopwatch::start();
        // Not the listener that takes few: these would count.
        for port in &self.ports[..4] {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err() {
                let log = fs::read_to_string(self.at(log)).unwrap_or_default();
                assert!(watch.elapsed() < PATIENCE, "nobody listens: {log}");
                std::thread::yield_now();
            }
        }
        running
    }

    /// Everything that clients try, one line each.
    fn outcomes(&self) -> Vec<String> {
        let mut outcomes = Vec::new();
        for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
            let mut note = |what: &str, outcome: &dyn std::fmt::Debug| {
                outcomes.push(format!("{version}: {what}: {outcome:?}"));
            };
            self.logins(version, &mut note);
            self.rights(version, &mut note);
            self.certificates(version, &mut note);
            self.sizes(version, &mut note);
            self.queue(version, &mut note);
            self.statistics(version, &mut note);
        }
        outcomes.push(format!("WebSocket: {}", self.upgrade("/any/path")));
        outcomes.push(format!("connections: {}", self.connections()));
        outcomes
    }

    fn logins(&self, version: ProtocolVersion, note: &mut dyn FnMut(&str, &dyn std::fmt::Debug)) {
        let [plain, tls, password_tls, ..] = self.ports;
        let logins = [
            ("nobody", None, None),
            ("a wrong password", Some("alice"), Some("wrong")),
            ("no password", Some("alice"), None),
            ("an unknown user", Some("carol"), Some(PASSWORD)),
            ("alice", Some("alice"), Some(PASSWORD)),
        ];
        for (what, username, password) in logins {
            let hello = hello(version, "login", username, password);
            let mut client = Client::open(plain, version);
            note(what, &is_admitted(&mut client, &hello));
            let config = tls_config(&self.at("ca.crt"), None);
            let mut client = Client::open_tls(password_tls, config, version);
            note(
                &format!("{what} over TLS"),
                &is_admitted(&mut client, &hello),
            );
            let config = tls_config(&self.at("ca.crt"), None);
            let mut client = Client::open_tls(tls, config, version);
            note(
                &format!("{what} without a certificate"),
                &is_admitted(&mut client, &hello),
            );
        }
    }

    fn rights(&self, version: ProtocolVersion, note: &mut dyn FnMut(&str, &dyn std::fmt::Debug)) {
        let mut boss = self.boss("boss");
        for topic in ["a/x", "a/secret", "other/x"] {
            put(&mut boss, topic, "kept", true);
        }
        let mut alice = self.log_in(version, "alice", "alice");
        for filter in ["a/#", "only/read", "other/#", "#"] {
            let code = alice.subscribe(filter, 1);
            note(&format!("subscribe to {filter}"), &code);
        }
        note("retained", &topics(&mut alice, "kept"));
        for topic in ["a/x", "a/secret", "only/read", "other/x"] {
            put(&mut boss, topic, "live", false);
        }
        note("live", &topics(&mut alice, "live"));
        let mut watcher = self.boss("watcher");
        assert_eq!(watcher.subscribe("#", 1), 1);
        watcher.ping().unwrap();
        for topic in [
            "a/y",
            "a/secret",
            "only/read",
            "only/write",
            "devices/alice/up",
            "devices/bob/up",
        ] {
            let code = put(&mut alice, topic, "own", false);
            note(&format!("publish to {topic}"), &code);
        }
        note("published", &topics(&mut watcher, "own"));
        put(&mut boss, "a/x", "", true);
        let mut late = self.log_in(version, "late", "alice");
        late.subscribe("a/#", 0);
        note("retained and cleared", &topics(&mut late, "kept"));
    }

    fn certificates(
        &self,
        version: ProtocolVersion,
        note: &mut dyn FnMut(&str, &dyn std::fmt::Debug),
    ) {
        let mut watcher = self.boss("watcher");
        assert_eq!(watcher.subscribe("devices/#", 1), 1);
        let config = tls_config(&self.at("ca.crt"), Some(&self.meter));
        let mut meter = Client::open_tls(self.ports[1], config, version);
        note(
            "a certificate",
            &is_admitted(&mut meter, &hello(version, "meter", None, None)),
        );
        note("down", &meter.subscribe("devices/meter-7/down", 1));
        for topic in ["devices/meter-7/up", "devices/meter-8/up", "a/x"] {
            let code = put(&mut meter, topic, "own", false);
            note(&format!("meter-7 publishes to {topic}"), &code);
        }
        note("published by meter-7", &topics(&mut watcher, "own"));
        put(&mut watcher, "devices/meter-7/down", "order", false);
        note("orders", &topics(&mut meter, "order"));
    }

    fn sizes(&self, version: ProtocolVersion, note: &mut dyn FnMut(&str, &dyn std::fmt::Debug)) {
        let mut watcher = self.boss("watcher");
        assert_eq!(watcher.subscribe("a/#", 1), 1);
        for bytes in [999, 1_000, 1_001, 3_000, 5_000] {
            let payload = "x".repeat(bytes);
            let code = self.code_of(version, &payload);
            if version == ProtocolVersion::V5 || bytes <= 1_000 || bytes > 4_000 {
                note(&format!("{bytes} bytes are refused"), &code);
            }
            let delivered = topics(&mut watcher, &payload);
            note(&format!("{bytes} bytes delivered"), &delivered);
        }
    }

    /// Publishes; whether the acknowledgement has an error, `None` when the connection ends. Read byte by byte: mosquitto uses a code
    /// that a PUBACK may not have.
    fn code_of(&self, version: ProtocolVersion, payload: &str) -> Option<bool> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[0])).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = hello(version, "large", Some("alice"), Some(PASSWORD));
        (&socket).write_all(&hello.bytes()).unwrap();
        let packet = || {
            let mut head = [0; 2];
            (&socket).read_exact(&mut head).ok()?;
            let mut body = vec![0; usize::from(head[1])];
            (&socket).read_exact(&mut body).ok()?;
            Some((head[0], body))
        };
        assert_eq!(packet().unwrap().0, 0x20);
        let bytes = encoded(&publish("a/large", payload, 1, 7), version);
        (&socket).write_all(&bytes).unwrap();
        match packet()? {
            (0x40, body) => Some(body.get(2).is_some_and(|code| *code >= 0x80)),
            _ => None,
        }
    }

    fn queue(&self, version: ProtocolVersion, note: &mut dyn FnMut(&str, &dyn std::fmt::Debug)) {
        let mut boss = self.boss("boss");
        let mut away = self.durable(version);
        assert_eq!(away.subscribe("a/queue", 1), 1);
        away.send_bytes(&[0xE0, 0]);
        away.await_end();
        for number in 0..60 {
            put(&mut boss, "a/queue", &number.to_string(), false);
        }
        let mut back = self.durable(version);
        let mut payloads = Vec::new();
        loop {
            let got = back.ping().unwrap();
            let mut is_over = true;
            for got in got {
                if let Got::Publish(publish) = got {
                    back.ack(AckKind::PubAck, publish.id);
                    payloads.push(publish.payload);
                    is_over = false;
                }
            }
            if is_over {
                break;
            }
        }
        note("of 60 in the queue", &payloads);
        let mut end = self.log_in(version, "away", "alice");
        end.ping().unwrap();
    }

    fn statistics(
        &self,
        version: ProtocolVersion,
        note: &mut dyn FnMut(&str, &dyn std::fmt::Debug),
    ) {
        let mut boss = self.boss("boss");
        assert_eq!(boss.subscribe("$SYS/broker/uptime", 0), 0);
        let uptime = boss.take_publish();
        note("statistics", &(uptime.topic, uptime.retain));
        let mut alice = self.log_in(version, "alice", "alice");
        alice.send(&subscribe(1, &[("$SYS/#", options(0))], None));
        note("statistics for alice", &topics(&mut alice, "").len());
    }

    /// The answer to a WebSocket handshake, without what is random.
    fn upgrade(&self, path: &str) -> String {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[3])).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://elsewhere.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; 12];
        socket.read_exact(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many connections a listener with `max_connections 3` has room for.
    fn connections(&self) -> usize {
        let version = ProtocolVersion::V5;
        let open = |number: usize| {
            let id = format!("c{number}");
            let mut client = Client::open(self.ports[4], version);
            let hello = hello(version, &id, Some("alice"), Some(PASSWORD));
            is_admitted(&mut client, &hello).then_some(client)
        };
        let clients: Vec<_> = (0..6).filter_map(open).collect();
        clients.len()
    }

    fn boss(&self, id: &str) -> Client {
        self.log_in(ProtocolVersion::V5, id, "boss")
    }

    fn log_in(&self, version: ProtocolVersion, id: &str, user: &str) -> Client {
        let mut client = Client::open(self.ports[0], version);
        assert!(is_admitted(
            &mut client,
            &hello(version, id, Some(user), Some(PASSWORD))
        ));
        client
    }

    fn durable(&self, version: ProtocolVersion) -> Client {
        let mut client = Client::open(self.ports[0], version);
        let hello = Hello {
            clean: false,
            expiry_s: (version == ProtocolVersion::V5).then_some(3_600),
            ..hello(version, "away", Some("alice"), Some(PASSWORD))
        };
        assert!(is_admitted(&mut client, &hello));
        client
    }
}

fn hello<'a>(
    version: ProtocolVersion,
    id: &'a str,
    username: Option<&'a str>,
    password: Option<&'a str>,
) -> Hello<'a> {
    Hello {
        version,
        id,
        username,
        password,
        ..Hello::default()
    }
}

/// Whether a CONNECT was accepted; otherwise it was refused or the connection ended.
fn is_admitted(client: &mut Client, hello: &Hello<'_>) -> bool {
    client.send_bytes(&hello.bytes());
    matches!(client.take(), Some(Got::ConnAck(_, code)) if !code.is_error())
}

/// Publishes with QoS 1; the reason code, `None` when the connection ended.
fn put(client: &mut Client, topic: &str, payload: &str, retain: bool) -> Option<bool> {
    let Packet::Publish(mut packet) = publish(topic, payload, 1, 9) else {
        return None;
    };
    packet.retain = retain;
    client.send(&Packet::Publish(packet));
    loop {
        match client.take() {
            Some(Got::Ack("PUBACK", 9, code)) => return Some(code.is_error()),
            Some(Got::Publish(publish)) if publish.qos == 1 => {
                client.ack(AckKind::PubAck, publish.id)
            }
            Some(_) => {}
            None => return None,
        }
    }
}

/// The topics of the messages with this payload that wait for a client, all of them if it is empty; they are acknowledged.
fn topics(client: &mut Client, payload: &str) -> Vec<String> {
    let mut topics = Vec::new();
    for got in client.ping().expect("an open connection") {
        if let Got::Publish(publish) = got {
            if publish.qos == 1 {
                client.ack(AckKind::PubAck, publish.id);
            }
            if payload.is_empty() || publish.payload == payload {
                topics.push(publish.topic);
            }
        }
    }
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A child that is already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const PASSWORD: &str = "secret";
