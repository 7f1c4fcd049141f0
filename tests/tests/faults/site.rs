//! The real binary behind a wrapper, and what was acknowledged to its clients.

use motemq_codec::{AckKind, Packet, ProtocolVersion, ReasonCode};
use motemq_tests::kill_ledger::broker::{Broker, binary, free_port};
use motemq_tests::peer::{Got, Hello, encoded, publish};
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// A broker, started by a script that the test writes.
pub(super) struct Site {
    pub(super) broker: Broker,
    scripts: tempfile::TempDir,
    http: u16,
}

impl Site {
    /// A broker that is not started yet; its store is in `data_dir`, with these lines in `[persistence]`.
    pub(super) fn new(data_dir: &Path, persistence: &str) -> Self {
        let scripts = tempfile::tempdir().unwrap();
        let broker = Broker::new(&scripts.path().join("motemq")).unwrap();
        let http = free_port().unwrap();
        let configuration = format!(
            "data_dir = \"{}\"\n\
             [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{}\"\nanonymous = true\n\
             [limits]\nqueue_messages_max = 1000000\nqueue_bytes_max = \"2GiB\"\n\
             [persistence]\n{persistence}\n\
             [http]\nbind = \"127.0.0.1:{http}\"\n",
            data_dir.display(),
            broker.port()
        );
        broker.configure(&configuration).unwrap();
        let site = Self {
            broker,
            scripts,
            http,
        };
        site.start_by("");
        site
    }

    /// From the next start on, the binary is started behind these shell words.
    pub(super) fn start_by(&self, words: &str) {
        let path = self.scripts.path().join("motemq");
        let script = format!("#!/bin/sh\n{words} exec {} \"$@\"\n", binary().display());
        self.write_script(&path, &script);
    }

    /// As [`start_by`](Self::start_by), where the words are a program that runs another.
    pub(super) fn start_within(&self, program: &str) {
        let path = self.scripts.path().join("motemq");
        let script = format!("#!/bin/sh\nexec {program} {} \"$@\"\n", binary().display());
        self.write_script(&path, &script);
    }

    fn write_script(&self, path: &PathBuf, script: &str) {
        std::fs::write(path, script).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    pub(super) fn port(&self) -> u16 {
        self.broker.port()
    }

    pub(super) fn start(&mut self) {
        self.broker.start().unwrap();
    }

    pub(super) fn kill_and_restart(&mut self) {
        self.broker.kill().unwrap();
        self.start();
    }

    /// Waits until it ends by itself.
    pub(super) fn await_end(&mut self) -> ExitStatus {
        let watch = Stopwatch::start();
        loop {
            if let Some(status) = self.broker.ended().unwrap() {
                return status;
            }
            assert!(watch.elapsed() < PATIENCE, "it runs on\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Its whole log.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.broker.folder().join("log")).unwrap_or_default()
    }

    /// What the HTTP port answers.
    pub(super) fn get(&self, path: &str) -> String {
        let mut http = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).unwrap();
        write!(http, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).unwrap();
        text
    }

    /// The sum of a metric over its labels.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let of_line = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let is_whole = rest.starts_with(' ') || rest.starts_with('{');
            let (_, value) = rest.rsplit_once(' ')?;
            value.parse::<f64>().ok().filter(|_| is_whole)
        };
        self.get("/metrics").lines().filter_map(of_line).sum()
    }

    /// Makes the session that keeps everything.
    pub(super) fn subscribe_keeper(&self) {
        let mut keeper = Client::connect(self.port(), &Hello::durable("keeper"));
        assert_eq!(keeper.subscribe("kept", 2), 2);
    }
}

/// Numbered messages, and which of them the broker answered for.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) next: usize,
    pub(super) acknowledged: BTreeSet<usize>,
    /// Sent with id 8 and not answered.
    stalled: Option<usize>,
}

/// How a publish ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Acknowledged,
    Refused(ReasonCode),
    Closed,
}

impl Ledger {
    /// Publishes one message of `bytes` bytes at QoS 1 and waits for what comes of it.
    pub(super) fn publish(&mut self, client: &mut Client, bytes: usize) -> Outcome {
        let payload = payload(self.next, bytes);
        self.next += 1;
        client.publish("kept", &payload, 1, 7);
        loop {
            match client.take() {
                Some(Got::Ack("PUBACK", 7, code)) if code.is_error() => {
                    return Outcome::Refused(code);
                }
                Some(Got::Ack("PUBACK", 7, _)) => {
                    self.acknowledged.insert(self.next - 1);
                    return Outcome::Acknowledged;
                }
                Some(Got::Ack("PUBACK", 8, code)) if !code.is_error() => {
                    self.acknowledged.extend(self.stalled.take());
                }
                Some(Got::Disconnect(_)) => {}
                None => return Outcome::Closed,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Publishes until something is refused; its code.
    pub(super) fn fill(&mut self, client: &mut Client, bytes: usize) -> ReasonCode {
        for _ in 0..100_000 {
            match self.publish(client, bytes) {
                Outcome::Acknowledged => {}
                Outcome::Refused(code) => return code,
                Outcome::Closed => panic!("the connection has ended"),
            }
        }
        panic!("the disk takes everything");
    }

    /// Publishes until something is refused or waits for room.
    pub(super) fn fill_or_stall(&mut self, client: &mut Client, bytes: usize) {
        loop {
            let payload = payload(self.next, bytes);
            self.next += 1;
            client.publish("kept", &payload, 1, 8);
            match client.take_within(SILENCE) {
                Some(Got::Ack("PUBACK", 8, code)) if !code.is_error() => {
                    self.acknowledged.insert(self.next - 1);
                }
                Some(Got::Ack("PUBACK", 8, _)) => return,
                None => {
                    println!("number {} waits for room", self.next - 1);
                    self.stalled = Some(self.next - 1);
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Publishes until something is taken again.
    pub(super) fn publish_until_accepted(&mut self, client: &mut Client, bytes: usize) {
        let watch = Stopwatch::start();
        while self.publish(client, bytes) != Outcome::Acknowledged {
            assert!(
                !client.is_closed() && watch.elapsed() < PATIENCE,
                "still refused"
            );
            // A refusal costs the broker little; the disk is looked at once a second.
            assert_eq!(
                client.take_within(std::time::Duration::from_millis(50)),
                None
            );
        }
    }

    /// Bytes of a batch of publishes at QoS 1 and 2, ids from 1.
    pub(super) fn batch(&mut self, messages: u16, bytes: usize) -> Vec<u8> {
        let mut batch = Vec::new();
        for id in 1..=messages {
            let payload = payload(self.next, bytes);
            let packet: Packet<'_> = publish("kept", &payload, 1 + (id % 2) as u8, id);
            batch.extend(encoded(&packet, ProtocolVersion::V5));
            self.next += 1;
        }
        batch
    }

    /// The session takes everything it has, at most `messages`, and acknowledges it; the numbers.
    pub(super) fn drain(site: &Site, messages: usize) -> BTreeSet<usize> {
        let (mut keeper, is_present) = Client::connect_for(site.port(), &Hello::durable("keeper"));
        assert!(is_present, "the session is gone");
        let mut numbers = BTreeSet::new();
        while numbers.len() < messages {
            match keeper.take_within(SILENCE) {
                Some(Got::Publish(publish)) => {
                    let number = publish.payload.split(' ').next().unwrap().parse().unwrap();
                    assert_eq!(publish.payload, payload(number, publish.payload.len()));
                    numbers.insert(number);
                    match publish.qos {
                        1 => keeper.ack(AckKind::PubAck, publish.id),
                        _ => keeper.ack(AckKind::PubRec, publish.id),
                    }
                }
                Some(Got::Ack("PUBREL", id, _)) => keeper.ack(AckKind::PubComp, id),
                None if !keeper.is_closed() => break,
                other => panic!("{other:?}"),
            }
        }
        keeper.ping().expect("a connection");
        numbers
    }

    /// Everything acknowledged is among what was drained.
    pub(super) fn assert_kept(&self, drained: &BTreeSet<usize>) {
        let lost: Vec<_> = self.acknowledged.difference(drained).collect();
        assert!(
            lost.is_empty(),
            "of {} acknowledged {} are lost: {lost:?}",
            self.acknowledged.len(),
            lost.len()
        );
        println!(
            "{} sent, {} acknowledged, {} drained",
            self.next,
            self.acknowledged.len(),
            drained.len()
        );
    }
}

fn payload(number: usize, bytes: usize) -> String {
    let mut text = format!("{number} ");
    let filler = (b'a' + (number % 26) as u8) as char;
    while text.len() < bytes {
        text.push(filler);
    }
    text
}

/// Nothing more comes when nothing came for so long.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(2);
