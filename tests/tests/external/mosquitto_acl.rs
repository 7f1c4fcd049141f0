//! A mosquitto ACL file read by mosquitto and by this broker: the same clients may do the same.
//!
//! Compared are the codes of SUBSCRIBE and PUBLISH, and what is delivered, live and retained. What differs on purpose is left out:
//! names with `/`, shared subscriptions (`core/src/acl/mosquitto.rs`), and wills that may not be published: mosquitto 2.0 takes
//! the CONNECT.

use motemq::config::{Sources, load};
use motemq::password::set_user;
use motemq_codec::{Connect, ConnectProperties, Packet, ProtocolVersion, ReasonCode};
use motemq_tests::in_process::InProcess;
use motemq_tests::kill_ledger::broker::free_port;
use motemq_tests::peer::{self, Got, encoded, publish};
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const RULES: &str = "\
# for clients without a user
topic read open/#
topic write inbox

topic deny open/secret

user boss
topic readwrite #

user alice
topic a/#
topic deny a/secret
topic read with blanks/#
topic write only/write
pattern read users/%u/#
pattern write devices/%c/up
pattern readwrite both/%c/%u
pattern deny both/c2/#
pattern deny a/overruled
pattern deny users/alice/secret
pattern readwrite 100%/%c

user bob
topic read a/+
topic read %c/literal
topic deny #

user alice
topic read later/#
";

/// User and client id.
const CLIENTS: [(Option<&str>, &str); 8] = [
    (None, "c1"),
    (None, "with+plus"),
    (Some("alice"), "c1"),
    (Some("alice"), "c2"),
    (Some("alice"), "hash#"),
    (Some("bob"), "c1"),
    (Some("carol"), "c1"),
    (Some("wild+"), "c1"),
];

const TOPICS: [&str; 25] = [
    "open",
    "open/x",
    "open/secret",
    "inbox",
    "a",
    "a/x",
    "a/x/y",
    "a/secret",
    "a/overruled",
    "A/x",
    "with blanks/x",
    "only/write",
    "users/alice/x",
    "users/alice/secret",
    "users/carol/x",
    "users/wild/x",
    "devices/c1/up",
    "devices/c2/up",
    "both/c1/alice",
    "both/c2/alice",
    "both/c1/carol",
    "100%/c1",
    "%c/literal",
    "later/x",
    "/",
];

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_mosquitto_acl_means_the_same_to_mosquitto() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acl"), RULES).unwrap();
    let mosquitto = Mosquitto::start(folder.path());
    let broker = start(folder.path());
    let port = broker.address("mqtt").port();
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        for (user, id) in CLIENTS {
            let theirs = outcomes(mosquitto.port, version, user, id);
            let ours = outcomes(port, version, user, id);
            for (theirs, ours) in theirs.iter().zip(&ours) {
                assert_eq!(ours, theirs, "{version:?}, user {user:?}, client {id}");
            }
            assert_eq!(ours.len(), theirs.len());
        }
    }
    broker.stop();
}

/// What a client may do, one line for each thing that it tried.
fn outcomes(port: u16, version: ProtocolVersion, user: Option<&str>, id: &str) -> Vec<String> {
    let mut outcomes = Vec::new();
    let boss = |name| log_in(port, ProtocolVersion::V5, Some("boss"), name);
    let (mut boss, mut watcher) = (boss("boss"), boss("watcher"));
    for topic in TOPICS {
        put(&mut boss, topic, "retained", true);
    }
    let mut client = log_in(port, version, user, id);
    let mut passed = Vec::new();
    for filter in ["#", "a/+", "+/x", "none"] {
        let code = subscribe(&mut client, filter, &mut passed);
        outcomes.push(format!("subscribe to {filter}: {code}"));
    }
    let retained = received(&mut client, passed, "retained");
    outcomes.push(format!("retained: {retained:?}"));
    for topic in TOPICS {
        put(&mut boss, topic, "live", false);
    }
    let live = received(&mut client, Vec::new(), "live");
    outcomes.push(format!("live: {live:?}"));
    assert_eq!(subscribe(&mut watcher, "#", &mut Vec::new()), 0);
    for topic in TOPICS {
        client.send(&publish(topic, "own", 1, 7));
        let code = loop {
            match client.take() {
                Some(Got::Ack("PUBACK", 7, code)) => break Some(code.is_error()),
                Some(Got::Publish(_)) => {}
                _ => break None,
            }
        };
        outcomes.push(format!("publish to {topic} is refused: {code:?}"));
        client.publish(topic, "own", 0, 0);
    }
    client.ping().expect("an open connection");
    let published = received(&mut watcher, Vec::new(), "own");
    outcomes.push(format!("published: {published:?}"));
    outcomes
}

/// Subscribes; the code. What is delivered before it is added to `passed`.
fn subscribe(client: &mut Client, filter: &str, passed: &mut Vec<Got>) -> u8 {
    client.send(&peer::subscribe(1, &[(filter, peer::options(0))], None));
    loop {
        match client.take().expect("an open connection") {
            Got::SubAck(1, codes) => return codes[0],
            got => passed.push(got),
        }
    }
}

/// The topics of the messages with this payload among what came and what waits for a client.
fn received(client: &mut Client, mut got: Vec<Got>, payload: &str) -> BTreeSet<String> {
    got.extend(client.ping().expect("an open connection"));
    let topic = |got| match got {
        Got::Publish(publish) if publish.payload == payload => Some(publish.topic),
        _ => None,
    };
    got.into_iter().filter_map(topic).collect()
}

fn put(client: &mut Client, topic: &str, payload: &str, retain: bool) {
    let Packet::Publish(mut packet) = publish(topic, payload, 1, 7) else {
        return;
    };
    packet.retain = retain;
    client.send(&Packet::Publish(packet));
    let got = client.take();
    assert!(matches!(got, Some(Got::Ack("PUBACK", 7, code)) if !code.is_error()));
}

fn log_in(port: u16, version: ProtocolVersion, user: Option<&str>, id: &str) -> Client {
    let connect = Connect {
        version,
        client_id: id,
        clean_start: true,
        keep_alive_s: 0,
        username: user,
        password: user.map(|_| PASSWORD.as_bytes()),
        will: None,
        properties: ConnectProperties::default(),
    };
    let mut client = Client::open(port, version);
    client.send_bytes(&encoded(&Packet::Connect(Box::new(connect)), version));
    let got = client.take();
    assert_eq!(got, Some(Got::ConnAck(false, ReasonCode::Success)));
    client
}

fn start(folder: &Path) -> InProcess {
    let users = folder.join("users");
    for (user, _) in CLIENTS {
        if let Some(user) = user {
            set_user(&users, user, PASSWORD.as_bytes()).unwrap();
        }
    }
    set_user(&users, "boss", PASSWORD.as_bytes()).unwrap();
    let file = folder.join("motemq.toml");
    let configuration = "[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
        [auth]\npassword_file = \"users\"\nmosquitto_acl_file = \"acl\"\n[http]\nbind = \"\"\n";
    std::fs::write(&file, configuration).unwrap();
    let sources = Sources {
        file: Some(&file),
        ..Sources::default()
    };
    InProcess::start(load(&sources).unwrap())
}

struct Mosquitto {
    child: Child,
    port: u16,
}

impl Mosquitto {
    fn start(folder: &Path) -> Self {
        let port = free_port().unwrap();
        let file = folder.join("mosquitto.conf");
        let rules = folder.join("acl");
        let configuration = format!(
            "listener {port} 127.0.0.1\nuser root\nallow_anonymous true\nacl_file {}\n",
            rules.display()
        );
        std::fs::write(&file, configuration).unwrap();
        // Debian has it where only root's PATH leads.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let child = Command::new("mosquitto")
            .env("PATH", path)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("mosquitto.log")).unwrap())
            .spawn()
            .unwrap();
        let this = Self { child, port };
        let watch = Stopwatch::start();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(watch.elapsed() < PATIENCE, "mosquitto does not listen");
            std::thread::yield_now();
        }
        this
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // A child that is already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PASSWORD: &str = "secret";
