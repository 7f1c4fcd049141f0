//! C1, C2, C3, C5: packet ids and topic aliases, used as nobody should.

use crate::framing::{assert_end, assert_grown_below};
use crate::site::Site;
use motemq_codec::{AckKind, Packet, ProtocolVersion, ReasonCode};
use motemq_tests::peer::{Got, Hello, encoded, publish};
use motemq_tests::power_loss::Chance;
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn c1_one_packet_id_sent_a_hundred_thousand_times_is_one_message() {
    for hello in [Hello::clean("repeater"), Hello::durable("repeater")] {
        let site = Site::start();
        let mut receiver = Client::connect(site.port(), &Hello::clean("receiver"));
        assert_eq!(receiver.subscribe("c1", 2), 2);
        let mut repeater = Client::connect(site.port(), &hello);
        let batch = encoded(&publish("c1", "once", 2, 7), ProtocolVersion::V5).repeat(100);
        let repeat = |repeater: &mut Client, batches: usize| {
            for _ in 0..batches {
                repeater.send_bytes(&batch);
                for _ in 0..100 {
                    let expected = Got::Ack("PUBREC", 7, ReasonCode::Success);
                    assert_eq!(repeater.take(), Some(expected));
                }
            }
        };
        repeat(&mut repeater, 100);
        let before = site.memory();
        repeat(&mut repeater, 900);
        assert_grown_below(&site, before, 6 << 20);
        assert_eq!(receiver.take_publish().payload, "once");
        assert_eq!(receiver.ping(), Some(Vec::new()));
        site.finish();
    }
}

#[test]
fn c1_what_is_never_completed_is_bounded() {
    let site = Site::start();
    // Towards the broker: no more than limits.receive_maximum, 100, without PUBREL [MQTT5-3.3.4-9].
    let mut sender = Client::connect(site.port(), &Hello::clean("sender"));
    for id in 1..=100 {
        sender.publish("c1", "x", 2, id);
        let expected = Got::Ack("PUBREC", id, ReasonCode::NoMatchingSubscribers);
        assert_eq!(sender.take(), Some(expected));
    }
    sender.publish("c1", "x", 2, 101);
    assert_end(
        &mut sender,
        ProtocolVersion::V5,
        ReasonCode::ReceiveMaximumExceeded,
    );
    // From the broker: a receiver that never answers gets as many as it announced, and not one more.
    let mut silent = Client::connect(
        site.port(),
        &Hello {
            receive_maximum: Some(5),
            ..Hello::clean("silent")
        },
    );
    assert_eq!(silent.subscribe("c1", 2), 2);
    let mut sender = Client::connect(site.port(), &Hello::clean("sender"));
    for _ in 0..50 {
        sender.publish("c1", "x", 2, 1);
        assert_eq!(
            sender.take(),
            Some(Got::Ack("PUBREC", 1, ReasonCode::Success))
        );
        sender.ack(AckKind::PubRel, 1);
        assert_eq!(
            sender.take(),
            Some(Got::Ack("PUBCOMP", 1, ReasonCode::Success))
        );
    }
    assert_eq!(silent.ping().map(|got| got.len()), Some(5));
    // PUBREC without PUBCOMP frees nothing either.
    silent.ack(AckKind::PubRec, 1);
    assert_eq!(
        silent.take(),
        Some(Got::Ack("PUBREL", 1, ReasonCode::Success))
    );
    assert_eq!(silent.ping(), Some(Vec::new()));
    // Answers to nothing: by their code, and no more comes of it.
    for id in [6, 1000, 65_535] {
        sender.ack(AckKind::PubRel, id);
        let unknown = ReasonCode::PacketIdentifierNotFound;
        assert_eq!(sender.take(), Some(Got::Ack("PUBCOMP", id, unknown)));
        silent.ack(AckKind::PubRec, id);
        assert_eq!(silent.take(), Some(Got::Ack("PUBREL", id, unknown)));
        silent.ack(AckKind::PubAck, id);
        silent.ack(AckKind::PubComp, id);
    }
    assert_eq!(silent.ping(), Some(Vec::new()));
    site.finish();
}

/// Here with cut connections and three kills; the long run is `external::three_kills_lose_nothing` and `kill-ledger`.
#[test]
fn c2_an_exchange_cut_anywhere_delivers_once() {
    let mut site = Site::start_alone("");
    let mut chance = Chance::new(2);
    let mut receiver = Client::connect(site.port(), &Hello::durable("receiver"));
    assert_eq!(receiver.subscribe("c2", 1), 1);
    drop(receiver);
    for round in 0..ROUNDS {
        let payload = round.to_string();
        let mut stage = 0;
        while stage < 2 {
            if round % 20 == 10 && chance.per_mille(300) {
                site.kill_and_restart();
            }
            let hello = Hello {
                clean: false,
                ..Hello::durable("sender")
            };
            let (mut sender, is_present) = Client::connect_for(site.port(), &hello);
            assert!(is_present || round + stage == 0);
            // What was sent before is sent again, until its answer is there.
            if stage == 0 {
                sender.publish("c2", &payload, 2, 7);
                if chance.per_mille(300) {
                    continue;
                }
                let expected = Got::Ack("PUBREC", 7, ReasonCode::Success);
                assert_eq!(sender.take(), Some(expected));
                stage = 1;
                if chance.per_mille(300) {
                    continue;
                }
            }
            sender.ack(AckKind::PubRel, 7);
            if chance.per_mille(300) {
                continue;
            }
            match sender.take() {
                // 0x92 when the id was free already, because an earlier PUBREL had come through.
                Some(Got::Ack("PUBCOMP", 7, _)) => stage = 2,
                other => panic!("{other:?} for PUBREL"),
            }
        }
    }
    let mut receiver = Client::connect(site.port(), &Hello::durable("receiver"));
    let mut numbers = Vec::new();
    while numbers.len() < ROUNDS {
        let publish = receiver.take_publish();
        numbers.push(publish.payload.parse::<usize>().unwrap());
        receiver.ack(AckKind::PubAck, publish.id);
    }
    assert!(numbers.iter().copied().eq(0..ROUNDS), "{numbers:?}");
    assert_eq!(receiver.ping(), Some(Vec::new()));
    site.finish();
}

const ROUNDS: usize = 100;

#[test]
fn c3_no_packet_id_is_used_again_before_its_acknowledgement() {
    let site = Site::start_with(
        "receive_maximum = 2000\ninflight_messages_max = 65535\nqueue_messages_max = 300000\n\
         queue_bytes_max = \"256MiB\"",
    );
    let port = site.port();
    let mut holder = Holder::new(port);
    let publisher = std::thread::spawn(move || publish_many(port));
    holder.take_all();
    publisher.join().unwrap();
    site.finish();
}

/// Publishes [`MESSAGES`] numbers, a thousand on their way at a time.
fn publish_many(port: u16) {
    let mut publisher = Client::connect(port, &Hello::clean("publisher"));
    let mut number = 0;
    while number < MESSAGES {
        let mut batch = Vec::new();
        for id in 1..=1000 {
            let packet = publish("c3", "", 1, id);
            let Packet::Publish(mut packet) = packet else {
                continue;
            };
            let payload = number.to_string();
            packet.payload = payload.as_bytes();
            batch.extend(encoded(&Packet::Publish(packet), ProtocolVersion::V5));
            number += 1;
        }
        publisher.send_bytes(&batch);
        for id in 1..=1000 {
            let expected = Got::Ack("PUBACK", id, ReasonCode::Success);
            assert_eq!(publisher.take(), Some(expected));
        }
    }
}

/// A subscriber that keeps some acknowledgements back, for long, and loses its connection now and then.
struct Holder {
    client: Client,
    port: u16,
    /// Packet ids received and not acknowledged, with the number they came with.
    held: std::collections::BTreeMap<u16, usize>,
    seen: BTreeSet<usize>,
    chance: Chance,
}

impl Holder {
    fn new(port: u16) -> Self {
        let mut client = Client::connect(port, &Hello::durable("holder"));
        assert_eq!(client.subscribe("c3", 1), 1);
        Self {
            client,
            port,
            held: std::collections::BTreeMap::new(),
            seen: BTreeSet::new(),
            chance: Chance::new(3),
        }
    }

    fn take_all(&mut self) {
        let watch = Stopwatch::start();
        while self.seen.len() < MESSAGES {
            assert!(watch.elapsed() < 4 * PATIENCE, "{} seen", self.seen.len());
            match self.client.take_within(STALL) {
                Some(Got::Publish(publish)) => {
                    self.note(publish.id, publish.payload.parse().unwrap(), publish.dup);
                }
                None if self.client.is_closed() => panic!("the broker hung up"),
                // The window is full: the oldest one held is 65,534 deliveries back, or all of them are held.
                None => self.let_go(),
                other => panic!("{other:?}"),
            }
        }
        self.let_go();
    }

    fn note(&mut self, id: u16, number: usize, dup: bool) {
        match self.held.get(&id) {
            // Again after a new connection [MQTT5-4.4.0-1].
            Some(before) => assert_eq!((*before, dup), (number, true), "id {id} is in use"),
            None => {
                self.seen.insert(number);
                if self.chance.below(1000) == 0 {
                    self.held.insert(id, number);
                    return;
                }
                self.client.ack(AckKind::PubAck, id);
            }
        }
        if self.chance.below(20_000) == 0 {
            // Acknowledgements on their way may be lost with the connection: they are waited for first.
            for got in self.client.ping().expect("a connection") {
                if let Got::Publish(publish) = got {
                    let number = publish.payload.parse().unwrap();
                    self.held.entry(publish.id).or_insert(number);
                    self.seen.insert(number);
                }
            }
            let (client, is_present) = Client::connect_for(self.port, &Hello::durable("holder"));
            assert!(is_present);
            self.client = client;
        }
    }

    fn let_go(&mut self) {
        for id in std::mem::take(&mut self.held).into_keys() {
            self.client.ack(AckKind::PubAck, id);
        }
    }
}

const MESSAGES: usize = 200_000;
/// Nothing came for so long: the broker waits for an acknowledgement.
const STALL: Duration = Duration::from_millis(500);

#[test]
fn c5_a_topic_alias_ends_with_its_connection_and_never_reaches_others() {
    let site = Site::start();
    let by_alias = |alias: u8, topic: &str| {
        let mut body = vec![0, topic.len() as u8];
        body.extend(topic.as_bytes());
        body.extend([3, 0x23, 0, alias, b'!']);
        [&[0x30, body.len() as u8], body.as_slice()].concat()
    };
    let cases = [
        // 0, and above limits.topic_alias_max.
        (by_alias(0, "c5/a"), ReasonCode::TopicAliasInvalid),
        (by_alias(0, ""), ReasonCode::TopicAliasInvalid),
        (by_alias(65, "c5/a"), ReasonCode::TopicAliasInvalid),
        (by_alias(255, ""), ReasonCode::TopicAliasInvalid),
        // Never set: the specification calls it a protocol error [MQTT5-3.3.2-12].
        (by_alias(64, ""), ReasonCode::ProtocolError),
    ];
    for (bytes, code) in &cases {
        let mut client = Client::connect(site.port(), &Hello::clean("alias"));
        client.send_bytes(bytes);
        assert_end(&mut client, ProtocolVersion::V5, *code);
    }
    // Set, used, bound anew.
    let mut receivers: Vec<_> = [0, 10]
        .map(|topic_alias_max| {
            let id = format!("receiver-{topic_alias_max}");
            let hello = Hello {
                topic_alias_max,
                ..Hello::clean(&id)
            };
            let mut receiver = Client::connect(site.port(), &hello);
            assert_eq!(receiver.subscribe("c5/#", 0), 0);
            receiver
        })
        .into();
    let mut absent = Client::connect(site.port(), &Hello::durable("absent"));
    assert_eq!(absent.subscribe("c5/#", 1), 1);
    drop(absent);
    let mut client = Client::connect(site.port(), &Hello::durable("alias"));
    for (topic, expected) in [
        ("c5/a", "c5/a"),
        ("", "c5/a"),
        ("c5/b", "c5/b"),
        ("", "c5/b"),
    ] {
        client.send_bytes(&by_alias(64, topic));
        let got = receivers[0].take_publish();
        assert_eq!((got.topic.as_str(), got.alias), (expected, None));
        // Its own aliases, if any: never the sender's.
        let got = receivers[1].take_publish();
        assert!(got.alias.is_none_or(|alias| alias <= 10), "{got:?}");
    }
    // Retained and queued by alias alone: topic [0, 0], id 9, QoS 1, retain.
    client.send_bytes(&[0x33, 9, 0, 0, 0, 9, 3, 0x23, 0, 64, b'!']);
    assert_eq!(
        client.take(),
        Some(Got::Ack("PUBACK", 9, ReasonCode::Success))
    );
    drop(client);
    // A new connection knows none, also in the same session.
    let mut client = Client::connect(site.port(), &Hello::durable("alias"));
    client.send_bytes(&by_alias(64, ""));
    assert_end(&mut client, ProtocolVersion::V5, ReasonCode::ProtocolError);
    // A will cannot carry one.
    let mut will = Client::open(site.port(), ProtocolVersion::V5);
    will.send_bytes(
        b"\x10\x1a\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x03\x23\x00\x01\x00\x04c5/w\x00\x00",
    );
    assert_eq!(will.take(), None);
    site.finish();
}

#[test]
fn c5_no_alias_is_stored() {
    let mut site = Site::start_alone("");
    let mut absent = Client::connect(site.port(), &Hello::durable("absent"));
    assert_eq!(absent.subscribe("c5/queued", 1), 1);
    drop(absent);
    let mut client = Client::connect(site.port(), &Hello::clean("alias"));
    for (first, id, topic) in [
        (0x32, 1, "c5/queued"),
        (0x32, 2, ""),
        (0x33, 3, "c5/kept"),
        (0x33, 4, ""),
    ] {
        let mut body = vec![0, topic.len() as u8];
        body.extend(topic.as_bytes());
        body.extend([0, id, 3, 0x23, 0, 5, b'0' + id]);
        client.send_bytes(&[&[first, body.len() as u8], body.as_slice()].concat());
        let acknowledged = client.take();
        assert!(
            matches!(acknowledged, Some(Got::Ack("PUBACK", _, code)) if !code.is_error()),
            "{acknowledged:?}"
        );
    }
    site.kill_and_restart();
    let mut absent = Client::connect(site.port(), &Hello::durable("absent"));
    for payload in ["1", "2"] {
        let got = absent.take_publish();
        let facts = (got.topic.as_str(), got.payload.as_str(), got.alias);
        assert_eq!(facts, ("c5/queued", payload, None));
    }
    let mut late = Client::connect(site.port(), &Hello::clean("late"));
    assert_eq!(late.subscribe("c5/kept", 0), 0);
    let got = late.take_publish();
    let facts = (got.topic.as_str(), got.payload.as_str(), got.alias);
    assert_eq!(facts, ("c5/kept", "4", None));
    site.finish();
}
