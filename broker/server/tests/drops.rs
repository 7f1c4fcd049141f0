//! Where did my message go: one message is lost for each reason, over real sockets, and found with one command.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq_codec::{
    Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    RetainHandling, Subscribe, SubscribeFilter, SubscribeFilters, SubscribeOptions, UserProperties,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const V5: ProtocolVersion = ProtocolVersion::V5;

#[test]
fn a_message_that_is_lost_for_any_reason_is_found_with_one_command() {
    let site = Site::start();
    // Away, with a queue for five.
    site.reader("full", "full/#", 1, 0).leave();
    let expiring = site.reader("late", "late/#", 1, 0);
    expiring.leave();
    let mut small = site.reader("small", "small/#", 1, 50);
    let eager = site.reader("eager", "eager/#", 0, 0);
    let mut publisher = site.connect("bridge", 0);
    let published = motemq::clock::monotonic();
    publisher.publish("late/7", b"x", 1, 1);
    for number in 1..=6 {
        publisher.publish(&format!("full/{number}"), b"x", 1, 0);
    }
    publisher.publish("small/7", &[b'x'; 100], 1, 0);
    publisher.publish("nobody/7", b"x", 1, 0);
    publisher.publish("secret/7", b"x", 1, 0);
    // More than sockets and the queue of `eager` hold, who reads nothing.
    for _ in 0..500 {
        publisher.publish("eager/7", &[b'x'; 60_000], 0, 0);
    }
    publisher.ping();
    small.ping();
    while motemq::clock::monotonic() - published < Duration::from_millis(1_200) {
        publisher.ping();
    }
    site.reader("late", "late/#", 1, 0).ping();
    for (topic, reason, client, key) in [
        ("full/1", "queue_full", "full", "limits.queue_messages_max"),
        ("late/7", "expired", "late", "message expiry interval"),
        ("small/7", "too_large", "small", "maximum packet size"),
        ("nobody/7", "no_subscriber", "bridge", "a subscription"),
        ("secret/7", "publish_denied", "bridge", "auth.acl_file"),
        (
            "eager/7",
            "slow_reader",
            "eager",
            "limits.queue_messages_max",
        ),
    ] {
        let said = site.drops(&["--topic", topic]);
        let line = said.lines().next().unwrap_or_default();
        assert!(line.contains(reason), "{topic}: {said}");
        assert!(line.contains(topic) && line.contains(client), "{said}");
        assert!(line.contains("bridge"), "{said}");
        assert!(said.contains(key), "{said}");
        let by_client = site.drops(&["--client", &format!("{}*", &client[..3]), "--json"]);
        let found = format!("\"reason\":\"{reason}\"");
        assert!(by_client.contains(&found), "{by_client}");
        assert!(
            site.drops(&["--reason", reason, "--since", "10m"])
                .contains(topic)
        );
    }
    assert!(
        site.drops(&["--topic", "full/6"])
            .contains("nothing of that kind was lost")
    );
    println!(
        "{}{}",
        site.drops(&[]),
        site.drops(&["--json", "--limit", "2"])
    );
    eager.stream.shutdown(std::net::Shutdown::Both).unwrap();
}

/// A broker in a process of its own.
struct Site {
    folder: TempDir,
    broker: Child,
    port: u16,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = "data_dir = \"data\"\n\
            [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
            [limits]\nqueue_messages_max = 5\n\
            [auth]\nacl_file = \"acl\"\n\
            [http]\nbind = \"\"\n";
        std::fs::write(folder.path().join("motemq.toml"), configuration).unwrap();
        let acl = "[everyone]\nallow subscribe #\nallow publish #\ndeny publish secret/#\n";
        std::fs::write(folder.path().join("acl"), acl).unwrap();
        let mut broker = command(&folder, &["run"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(broker.stderr.take().unwrap());
        let (mut line, mut port) = (String::new(), 0);
        while !line.contains(" ready") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the broker ends");
            if let Some((_, address)) = line.split_once("address=") {
                let address = address.split_whitespace().next().unwrap();
                port = address.parse::<SocketAddr>().unwrap().port();
            }
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            folder,
            broker,
            port,
        }
    }

    /// What `motemq drops` says.
    fn drops(&self, arguments: &[&str]) -> String {
        let arguments = [&["drops"], arguments].concat();
        let output = command(&self.folder, &arguments).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}{errors}");
        said
    }

    /// A client whose session lives for an hour; 0 is no maximum packet size.
    fn connect(&self, id: &str, packet_bytes_max: u32) -> Client {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut client = Client { stream };
        client.send(&Packet::Connect(Box::new(Connect {
            version: V5,
            client_id: id,
            clean_start: false,
            keep_alive_s: 0,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties {
                session_expiry_s: Some(3600),
                packet_bytes_max: NonZeroU32::new(packet_bytes_max),
                ..ConnectProperties::default()
            },
        })));
        client.read_until(0x20);
        client
    }

    fn reader(&self, id: &str, filter: &str, qos: u8, packet_bytes_max: u32) -> Client {
        let mut client = self.connect(id, packet_bytes_max);
        let filters = [SubscribeFilter {
            filter,
            options: SubscribeOptions {
                qos: QoS::from_bits(qos).unwrap(),
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::SendAlways,
            },
        }];
        client.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_list(&filters),
        }));
        client.read_until(0x90);
        client
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.broker.kill();
        let _ = self.broker.wait();
    }
}

fn command(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motemq"));
    command.args(arguments).args(["-c", "motemq.toml"]);
    command.current_dir(folder.path());
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

struct Client {
    stream: TcpStream,
}

impl Client {
    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(V5, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// Reads packets until there is one that begins with `first`.
    fn read_until(&mut self, first: u8) {
        loop {
            let mut head = [0; 1];
            self.stream.read_exact(&mut head).unwrap();
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let mut byte = [0; 1];
                self.stream.read_exact(&mut byte).unwrap();
                length |= usize::from(byte[0] & 0x7f) << shift;
                shift += 7;
                if byte[0] & 0x80 == 0 {
                    break;
                }
            }
            self.stream.read_exact(&mut vec![0; length]).unwrap();
            if head[0] & 0xf0 == first {
                return;
            }
        }
    }

    /// Publishes, and waits for the acknowledgement of QoS 1.
    fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, expiry_s: u32) {
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::from_bits(qos).unwrap(),
            retain: false,
            topic,
            packet_id: (qos > 0).then(|| PacketId::new(1).unwrap()),
            properties: PublishProperties {
                message_expiry_s: (expiry_s > 0).then_some(expiry_s),
                ..PublishProperties::default()
            },
            payload,
        }));
        if qos > 0 {
            self.read_until(0x40);
        }
    }

    fn ping(&mut self) {
        self.send(&Packet::PingReq);
        self.read_until(0xd0);
    }

    /// Says good-bye, and waits until the broker has heard it.
    fn leave(self) {
        let mut stream = self.stream;
        stream.write_all(&[0xe0, 0]).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
}
