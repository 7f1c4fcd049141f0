//! Share groups under real threads: nothing is lost, nothing waits while a member is idle, and order holds.
//!
//! Publishers and members run as a server's tasks would: a member does nothing until it is woken, so a wake-up that gets
//! lost ends the test. A thread commits in the background. (The simulation knows the rules in full, but is one thread.)
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a thread that finds something wrong must stop at once"
)]

use motemq_codec::{AckKind, Decoded, Packet, ProtocolVersion, ReasonCode, decode};
use motemq_core::{
    AssignedIds, Broker, Connection, ConnectionRules, Event, Identity, Image, Limits, SimDisk,
    SimJournal, SimJournalRules, Timestamp, Verdict,
};
use motemq_tests::peer::{Hello, encoded, options, packet_id, publish, subscribe};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

/// Each acknowledged QoS 1 message reaches a member, although members come and go.
#[test]
fn no_qos_1_message_is_lost_when_members_come_and_go() {
    let stage = Stage::new(1, Members::ComeAndGo);
    stage.run();
}

/// Each QoS 2 message reaches one member, once [MQTT5-4.8.2-4].
#[test]
fn qos_2_messages_arrive_once_when_members_come_and_go() {
    let stage = Stage::new(2, Members::ComeAndGo);
    stage.run();
    let received = stage.received.lock().unwrap();
    let twice: Vec<_> = received.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// What a member takes from the backlog is not overtaken by what is published meanwhile [MQTT5-4.6.0-5].
#[test]
fn a_member_receives_in_order_from_backlog_and_publisher() {
    for qos in 1..=2 {
        Stage::new(qos, Members::Stay).run();
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Members {
    Stay,
    ComeAndGo,
}

/// What all threads share.
struct Stage {
    broker: Broker,
    journal: Arc<SimJournal>,
    qos: u8,
    members: Members,
    received: Mutex<BTreeMap<String, u32>>,
    alarms: Vec<Arc<Alarm>>,
    is_over: AtomicBool,
}

/// Wakes one thread.
#[derive(Default)]
struct Alarm {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.is_set.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Alarm {
    /// Waits for a wake-up; `false` when none came for far too long.
    fn wait(&self) -> bool {
        let is_set = self.is_set.lock().unwrap();
        let (mut is_set, timeout) = self
            .changed
            .wait_timeout_while(is_set, PATIENCE, |is_set| !*is_set)
            .unwrap();
        *is_set = false;
        !timeout.timed_out()
    }
}

/// One client's connection, with its driver.
struct Line {
    machine: Connection,
    waker: Waker,
    up: Vec<u8>,
    /// Came with CONNACK.
    early: Vec<Vec<u8>>,
}

impl Stage {
    fn new(qos: u8, members: Members) -> Self {
        let journal = SimJournal::new(SimJournalRules::default(), SimDisk::default());
        let limits = Limits {
            inflight_messages_max: 3,
            mailbox_memory_bytes: 200,
            ..Limits::default()
        };
        let broker = Broker::new(Arc::new(limits), journal.clone(), Image::default(), 1, NOW);
        Self {
            broker,
            journal,
            qos,
            members,
            received: Mutex::default(),
            alarms: (0..MEMBERS + PUBLISHERS)
                .map(|_| Arc::new(Alarm::default()))
                .collect(),
            is_over: AtomicBool::new(false),
        }
    }

    fn run(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.commit());
            let mut lines = Vec::new();
            for number in 0..MEMBERS {
                let mut line = self.connect(number, &format!("m{number}"));
                self.join(number, &mut line);
                lines.push(line);
            }
            let mut threads = Vec::new();
            for (number, line) in lines.into_iter().enumerate() {
                threads.push(scope.spawn(move || self.be_member(number, line)));
            }
            for number in 0..PUBLISHERS {
                threads.push(scope.spawn(move || self.be_publisher(number)));
            }
            let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            self.finish();
            assert!(outcomes.iter().all(Result::is_ok), "a thread has failed");
        });
        assert_eq!(self.received.lock().unwrap().len(), PUBLISHERS * MESSAGES);
    }

    fn finish(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        for alarm in &self.alarms {
            alarm.clone().wake();
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn commit(&self) {
        while !self.is_over() {
            let begun = self.journal.begin_commit(50);
            self.journal.end_commit();
            let answered = self.journal.answer_read();
            if begun == 0 && !answered {
                std::thread::yield_now();
            }
        }
    }

    fn connect(&self, alarm: usize, name: &str) -> Line {
        let rules = ConnectionRules {
            qos_max: motemq_codec::QoS::ExactlyOnce,
            listener: None,
            publish_rate: None,
            assigned_ids: AssignedIds::Random,
        };
        let waker = Waker::from(self.alarms[alarm].clone());
        let mut line = Line {
            machine: Connection::new(rules, &self.broker, NOW),
            waker,
            up: Hello::durable(name).bytes(),
            early: Vec::new(),
        };
        while line.early.is_empty() && !self.is_over() {
            line.early = self.turn(&mut line);
            if line.early.is_empty() {
                self.rest(alarm);
            }
        }
        line
    }

    /// SUBSCRIBE, until SUBACK.
    fn join(&self, alarm: usize, line: &mut Line) {
        let packet = subscribe(1, &[("$share/g/t/+", options(self.qos))], None);
        line.up.extend(encoded(&packet, ProtocolVersion::V5));
        while self.turn(line).is_empty() && !self.is_over() {
            self.rest(alarm);
        }
    }

    fn rest(&self, alarm: usize) {
        if !self.alarms[alarm].wait() && !self.is_over() {
            let count = self.received.lock().unwrap().len();
            self.finish();
            panic!("client {alarm} was not woken; {count} messages have arrived");
        }
    }

    /// Runs the driver once; gives the packets that came out.
    fn turn(&self, line: &mut Line) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        line.machine.begin(&line.waker, &mut out);
        loop {
            let shown = std::mem::take(&mut line.up);
            let (done, event) = line
                .machine
                .handle_bytes(&shown, &self.broker, NOW, &mut out);
            line.up.extend_from_slice(&shown[done.consumed..]);
            if let Some(Event::Authenticate(_)) = event {
                let verdict = Verdict::Accepted {
                    login: Identity::Anonymous.into(),
                    entropy: 7,
                };
                line.machine
                    .handle_verdict(verdict, &self.broker, NOW, &mut out);
                line.machine.begin(&line.waker, &mut out);
            }
            let more = line
                .machine
                .poll_output(&self.broker, NOW, OUT_BYTES, &mut out);
            if !more && (line.up.is_empty() || done.consumed == 0) {
                break;
            }
        }
        let mut packets = Vec::new();
        let mut rest = out.as_slice();
        while let Ok(Decoded::Packet { length, .. }) = decode(rest, ProtocolVersion::V5, usize::MAX)
        {
            packets.push(rest[..length].to_vec());
            rest = &rest[length..];
        }
        packets
    }

    fn be_member(&self, number: usize, mut line: Line) {
        let mut lot = number as u32 + 1;
        let mut inbound = BTreeSet::new();
        let mut newest: BTreeMap<String, u32> = BTreeMap::new();
        while !self.is_over() {
            let mut packets = std::mem::take(&mut line.early);
            packets.extend(self.turn(&mut line));
            if packets.is_empty() && line.up.is_empty() {
                self.rest(number);
                continue;
            }
            for bytes in packets {
                self.take(&bytes, &mut line, &mut inbound, &mut newest);
            }
            lot = lot.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if self.members == Members::ComeAndGo && lot >> 24 < 8 {
                // What it has written is lost, or not.
                if lot & (1 << 20) != 0 {
                    self.turn(&mut line);
                }
                line.machine.finish(&self.broker, NOW);
                line = self.connect(number, &format!("m{number}"));
            }
        }
        line.machine.finish(&self.broker, NOW);
    }

    fn take(
        &self,
        bytes: &[u8],
        line: &mut Line,
        inbound: &mut BTreeSet<u16>,
        newest: &mut BTreeMap<String, u32>,
    ) {
        let Ok(Decoded::Packet { packet, .. }) = decode(bytes, ProtocolVersion::V5, usize::MAX)
        else {
            panic!("undecodable");
        };
        match packet {
            Packet::Publish(publish) => {
                let id = publish.packet_id.map_or(0, |id| id.get());
                let is_new = self.qos == 1 || inbound.insert(id);
                if is_new {
                    let payload = String::from_utf8_lossy(publish.payload).into_owned();
                    self.check_order(&payload, newest);
                    let mut received = self.received.lock().unwrap();
                    *received.entry(payload).or_default() += 1;
                    let is_all = received.len() == PUBLISHERS * MESSAGES;
                    drop(received);
                    if is_all {
                        self.finish();
                    }
                }
                let kind = match self.qos {
                    1 => AckKind::PubAck,
                    _ => AckKind::PubRec,
                };
                acknowledge(line, kind, id);
            }
            Packet::PubRel(ack) => {
                inbound.remove(&ack.packet_id.get());
                acknowledge(line, AckKind::PubComp, ack.packet_id.get());
            }
            _ => {}
        }
    }

    fn check_order(&self, payload: &str, newest: &mut BTreeMap<String, u32>) {
        // At the end the members leave one after the other.
        if self.members != Members::Stay || self.is_over() {
            return;
        }
        let (publisher, number) = payload.split_once('.').unwrap();
        let number = number.parse().unwrap();
        let before = newest.insert(publisher.to_owned(), number);
        assert!(
            before.is_none_or(|before| before < number),
            "{payload} came after {before:?}"
        );
    }

    fn be_publisher(&self, number: usize) {
        let alarm = MEMBERS + number;
        let mut line = self.connect(alarm, &format!("p{number}"));
        let topic = format!("t/{number}");
        let mut sent = 0;
        let mut done = 0;
        while done < MESSAGES && !self.is_over() {
            while sent < MESSAGES && sent - done < 20 {
                sent += 1;
                let payload = format!("{number}.{sent}");
                let id = (sent % 60_000) as u16 + 1;
                let packet = publish(&topic, &payload, self.qos, id);
                line.up.extend(encoded(&packet, ProtocolVersion::V5));
            }
            let packets = self.turn(&mut line);
            if packets.is_empty() && line.up.is_empty() {
                self.rest(alarm);
            }
            for bytes in packets {
                let id = u16::from_be_bytes([bytes[2], bytes[3]]);
                match bytes[0] >> 4 {
                    PUBACK | PUBCOMP => done += 1,
                    PUBREC => acknowledge(&mut line, AckKind::PubRel, id),
                    _ => {}
                }
            }
        }
    }
}

fn acknowledge(line: &mut Line, kind: AckKind, id: u16) {
    let ack = motemq_codec::Ack::new(packet_id(id), ReasonCode::Success);
    let written = ack.encode(kind, ProtocolVersion::V5, &mut line.up);
    assert!(written.is_ok());
}

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);
const MEMBERS: usize = 3;
const PUBLISHERS: usize = 2;
const MESSAGES: usize = 3000;
const OUT_BYTES: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(20);
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBCOMP: u8 = 7;
