//! A1, A2, A3: lengths that lie.

use crate::site::Site;
use motemq_codec::{
    Ack, Connect, ConnectProperties, Disconnect, Packet, ProtocolVersion, QoS, ReasonCode,
    Unsubscribe, UnsubscribeFilters, UserProperties, Will,
};
use motemq_tests::peer::{Got, Hello, encoded, options, packet_id, publish, subscribe};
use motemq_tests::socket::Client;

#[test]
fn a1_an_announced_length_costs_nothing_before_its_bytes_are_there() {
    let site = Site::start();
    let before = site.memory();
    // 256 MB before CONNECT: more than a stranger may send, so the connection ends and nothing is said.
    let mut bombers: Vec<_> = (0..SOCKETS)
        .map(|_| Client::open(site.port(), ProtocolVersion::V5))
        .collect();
    for bomber in &mut bombers {
        bomber.send_bytes(&[0x10, 0xff, 0xff, 0xff, 0x7f]);
        bomber.send_bytes(&[0, 4, b'M', b'Q']);
    }
    for bomber in &mut bombers {
        assert_eq!(bomber.take(), None);
    }
    // The most that limits.connect_packet_bytes_max allows, and little of it sent.
    let mut bombers: Vec<_> = (0..SOCKETS)
        .map(|_| Client::open(site.port(), ProtocolVersion::V5))
        .collect();
    let length = 131_072 - 4_u32;
    for bomber in &mut bombers {
        bomber.send_bytes(&header(0x10, length));
        bomber.send_bytes(b"\x00\x04MQTT\x05\x02");
    }
    site.await_metric("mqtt_broker_connections_unauthenticated", |count| {
        count == SOCKETS as f64
    });
    assert_grown_below(&site, before, 20 << 20);
    // One byte more is refused.
    let mut over = Client::open(site.port(), ProtocolVersion::V5);
    over.send_bytes(&header(0x10, length + 1));
    assert_eq!(over.take(), None);
    drop(bombers);
    site.finish();
}

#[test]
fn a1_an_announced_length_costs_nothing_after_connect_either() {
    let site = Site::start();
    let mut bombers: Vec<_> = (0..200)
        .map(|number| Client::connect(site.port(), &Hello::clean(&format!("bomber-{number}"))))
        .collect();
    let before = site.memory();
    // All of limits.packet_bytes_max announced, 1 KiB sent.
    for bomber in &mut bombers {
        bomber.send_bytes(&header(0x30, 1_048_576 - 4));
        bomber.send_bytes(&[0; 1024]);
    }
    assert_grown_below(&site, before, 20 << 20);
    // One byte more than announced as Maximum Packet Size ends it with 0x95.
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        for length in [1_048_576 - 3, 268_435_455] {
            let hello = Hello {
                version,
                ..Hello::clean("over")
            };
            let mut over = Client::connect(site.port(), &hello);
            over.send_bytes(&header(0x30, length));
            assert_end(&mut over, version, ReasonCode::PacketTooLarge);
        }
    }
    drop(bombers);
    site.finish();
}

#[test]
fn a2_a_variable_byte_integer_has_four_bytes_at_most_and_no_useless_one() {
    let site = Site::start();
    let wrong: [&[u8]; 6] = [
        &[0x80, 0x00],
        &[0xff, 0x80, 0x00],
        &[0x80, 0x80, 0x80, 0x00],
        &[0x80, 0x80, 0x80, 0x80, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x01],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    ];
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        for length in wrong {
            for first in [0x10, 0x30, 0x82, 0xa2, 0xc0, 0xe0] {
                // As the first packet: nothing is said.
                let mut stranger = Client::open(site.port(), version);
                stranger.send_bytes(&[&[first], length].concat());
                assert_eq!(stranger.take(), None, "{first:#x} {length:02x?}");
                // As a later one, in the fixed header [MQTT5-1.5.5-1].
                let hello = Hello {
                    version,
                    ..Hello::clean("varint")
                };
                let mut client = Client::connect(site.port(), &hello);
                client.send_bytes(&[&[first], length].concat());
                assert_end(&mut client, version, ReasonCode::MalformedPacket);
            }
        }
    }
    // In front of the properties: PUBLISH, SUBSCRIBE, DISCONNECT.
    for length in wrong {
        let heads: [(u8, &[u8]); 3] = [(0x30, &[0, 1, b't']), (0x82, &[0, 1]), (0xe0, &[0])];
        for (first, head) in heads {
            let mut client = Client::connect(site.port(), &Hello::clean("varint"));
            let body = [head, length, &[0; 8]].concat();
            client.send_bytes(&[&[first, body.len() as u8], body.as_slice()].concat());
            assert_end(
                &mut client,
                ProtocolVersion::V5,
                ReasonCode::MalformedPacket,
            );
        }
    }
    // An integer that never ends, one byte at a time.
    let mut client = Client::connect(site.port(), &Hello::clean("varint"));
    for byte in [0x30, 0xff, 0xff, 0xff, 0xff] {
        client.send_bytes(&[byte]);
    }
    assert_end(
        &mut client,
        ProtocolVersion::V5,
        ReasonCode::MalformedPacket,
    );
    site.finish();
}

#[test]
fn a3_a_packet_cut_anywhere_ends_its_connection_and_nothing_else() {
    let site = Site::start();
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        for packet in corpus(version) {
            let body = &packet[2..];
            for length in 0..body.len() {
                // Complete by its own length, too short by its content.
                let cut = [&[packet[0], length as u8], &body[..length]].concat();
                run(&site, version, &packet, &cut);
                // Not complete, and the connection ends.
                run(&site, version, &packet, &packet[..2 + length]);
            }
        }
    }
    site.finish();
}

#[test]
fn a3_a_packet_with_any_byte_changed_is_survived() {
    // Every length field is among the bytes: one more, one less, none, the most.
    let site = Site::start();
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        for packet in corpus(version) {
            for index in 1..packet.len() {
                let old = packet[index];
                for new in [old.wrapping_add(1), old.wrapping_sub(1), 0, 0xff, 0x80] {
                    let mut changed = packet.clone();
                    changed[index] = new;
                    run(&site, version, &packet, &changed);
                }
            }
        }
    }
    site.finish();
}

#[test]
fn a3_the_packets_that_killed_others_are_malformed() {
    let site = Site::start();
    let (v3, v5) = (ProtocolVersion::V3_1_1, ProtocolVersion::V5);
    let killers: [(ProtocolVersion, &[u8], ReasonCode); 8] = [
        // comqtt: a SUBSCRIBE of seven bytes, its filter longer than it.
        (
            v3,
            &[0x82, 5, 0, 1, 0, 9, b'a'],
            ReasonCode::MalformedPacket,
        ),
        (v5, &[0x82, 5, 0, 1, 0, 0, 9], ReasonCode::MalformedPacket),
        // NanoMQ: an empty filter, and no option byte.
        (v3, &[0x82, 4, 0, 1, 0, 0], ReasonCode::MalformedPacket),
        (v5, &[0x82, 5, 0, 1, 0, 0, 0], ReasonCode::MalformedPacket),
        // NanoMQ: a QoS 1 PUBLISH that ends before its packet id.
        (v3, &[0x32, 3, 0, 1, b't'], ReasonCode::MalformedPacket),
        (v5, &[0x32, 4, 0, 1, b't', 0], ReasonCode::MalformedPacket),
        // A topic longer than its packet.
        (
            v5,
            &[0x30, 3, 0xff, 0xff, b't'],
            ReasonCode::MalformedPacket,
        ),
        // No filter at all.
        (v5, &[0x82, 3, 0, 1, 0], ReasonCode::ProtocolError),
    ];
    for (version, bytes, code) in killers {
        let hello = Hello {
            version,
            ..Hello::clean("killer")
        };
        let mut client = Client::connect(site.port(), &hello);
        client.send_bytes(bytes);
        assert_end(&mut client, version, code);
    }
    site.finish();
}

/// Sends bytes in place of `packet`, then no more, and reads what comes: well-formed packets, and the end.
fn run(site: &Site, version: ProtocolVersion, packet: &[u8], bytes: &[u8]) {
    let mut client = Client::open(site.port(), version);
    let is_connect = packet[0] == 0x10;
    if !is_connect {
        let hello = Hello {
            version,
            ..Hello::clean("mutant")
        };
        client.send_bytes(&hello.bytes());
    }
    client.send_bytes(bytes);
    client.finish_sending();
    if is_connect {
        // Its version may be among what was changed.
        return client.await_end();
    }
    let got = client.take_all();
    let is_answered = matches!(got.first(), Some(Got::ConnAck(false, _)));
    assert!(is_answered, "{bytes:02x?}: {got:?}");
}

/// One packet of each kind a client sends, with every field it can have; all shorter than 128 bytes.
fn corpus(version: ProtocolVersion) -> Vec<Vec<u8>> {
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "will",
        payload: b"gone",
        delay_s: 1,
        message_expiry_s: None,
        forwarded: motemq_codec::Forwarded::from_block(&[]),
    };
    let connect = Packet::Connect(Box::new(Connect {
        version,
        client_id: "corpus",
        clean_start: true,
        keep_alive_s: 60,
        username: Some("u"),
        password: Some(b"p"),
        will: Some(will),
        properties: ConnectProperties::default(),
    }));
    let filters = [("a/+", options(1)), ("$share/g/b/#", options(0))];
    let ack = Ack::new(packet_id(1), ReasonCode::Success);
    let unsubscribe = Packet::Unsubscribe(Unsubscribe {
        packet_id: packet_id(2),
        user_properties: UserProperties::default(),
        filters: UnsubscribeFilters::from_list(&["a/+", "b/#"]),
    });
    let mut packets = vec![
        connect,
        publish("a/b", "payload", 0, 0),
        publish("a/b", "payload", 1, 1),
        publish("a/b", "payload", 2, 1),
        subscribe(1, &filters, None),
        unsubscribe,
        Packet::PubAck(ack),
        Packet::PubRec(ack),
        Packet::PubRel(ack),
        Packet::PubComp(ack),
        Packet::PingReq,
    ];
    if version == ProtocolVersion::V5 {
        packets.push(subscribe(1, &filters, Some(5)));
        let mut disconnect = Disconnect::new(ReasonCode::DisconnectWithWill);
        disconnect.reason_string = Some("why");
        packets.push(Packet::Disconnect(disconnect));
    }
    let mut corpus: Vec<_> = packets
        .iter()
        .map(|packet| encoded(packet, version))
        .collect();
    if version == ProtocolVersion::V5 {
        // All properties of a PUBLISH: format, expiry, content type, response topic, correlation data, alias, user property.
        let properties =
            b"\x01\x01\x02\0\0\0\x3c\x03\0\x01t\x08\0\x01r\x09\0\x01c\x23\0\x01\x26\0\x01k\0\x01v";
        let mut body = vec![0, 1, b't', 0, 1, properties.len() as u8];
        body.extend(properties);
        body.push(b'!');
        corpus.push([&[0x32, body.len() as u8], body.as_slice()].concat());
    }
    assert!(corpus.iter().all(|packet| packet.len() < 128));
    corpus
}

/// A fixed header.
pub(crate) fn header(first: u8, mut length: u32) -> Vec<u8> {
    let mut bytes = vec![first];
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes
}

/// The connection ends; MQTT 5 says why [MQTT5-4.13.1-1].
pub(crate) fn assert_end(client: &mut Client, version: ProtocolVersion, code: ReasonCode) {
    if version == ProtocolVersion::V5 {
        assert_eq!(client.take(), Some(Got::Disconnect(code)));
    }
    assert_eq!(client.take(), None);
}

/// Memory is at most so much larger than before. The bystander's own store is among it.
pub(crate) fn assert_grown_below(site: &Site, before: u64, bytes: u64) {
    let after = site.memory();
    println!("memory: {before} before, {after} after");
    assert!(after < before + bytes, "{before} bytes have become {after}");
}

const SOCKETS: usize = 1000;
