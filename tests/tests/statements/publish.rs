//! PUBLISH from a client: strings, answers, what becomes of it.

use super::{OK, V3, V5, clean_hellos};
use motemq_codec::{AckKind, ReasonCode};
use motemq_core::{Limits, Room};
use motemq_tests::peer::{Bench, Got, Hello, encoded, publish};

/// Trap 1. [MQTT5-1.5.4-1] [MQTT3-1.5.3-1]; trap 2. [MQTT5-1.5.4-2] [MQTT3-1.5.3-2] [MQTT5-1.5.7-1] [MQTT5-3.3.2-1] [MQTT5-3.3.2-13]
/// [MQTT5-3.3.2-19] [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT5-4.7.3-2] [MQTT3-3.3.2-1] [MQTT3-3.8.3-1] [MQTT3-3.10.3-1] [MQTT3-4.7.3-2]:
/// a surrogate, an overlong form and U+0000 end the connection wherever a string stands.
#[test]
fn strings_that_are_none_end_the_connection() {
    for bad in [
        &[0xed, 0xa0, 0x80][..],
        &[0xc0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
        b"a\0b",
    ] {
        let mut string = vec![0, u8::try_from(bad.len()).unwrap()];
        string.extend(bad);
        let with = |head: &[u8], tail: &[u8]| [head, &string, tail].concat();
        let property = |id: &[u8], tail: &[u8]| {
            let value = with(id, tail);
            let length = u8::try_from(value.len()).unwrap();
            [&[0, 1, b't', length][..], &value, b"x"].concat()
        };
        let bodies = [
            (V3, 0x30, with(&[], b"x")),
            (V3, 0x82, with(&[0, 1], &[0])),
            (V3, 0xa2, with(&[0, 1], &[])),
            (V5, 0x30, with(&[], &[0, b'x'])),
            (V5, 0x82, with(&[0, 1, 0], &[0])),
            (V5, 0xa2, with(&[0, 1, 0], &[])),
            // Content type, response topic, name and value of a user property.
            (V5, 0x30, property(&[0x03], &[])),
            (V5, 0x30, property(&[0x08], &[])),
            (V5, 0x30, property(&[0x26], &[0, 0])),
            (V5, 0x30, property(&[0x26, 0, 0], &[])),
        ];
        for (version, first, body) in bodies {
            let mut bench = Bench::default();
            let peer = bench.connect(&Hello {
                version,
                ..Hello::clean("a")
            });
            let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
            bytes.extend(body);
            bench.send_bytes(peer, &bytes);
            let expected: &[Got] = match version {
                V5 => &[Got::Disconnect(ReasonCode::MalformedPacket)],
                _ => &[],
            };
            assert_eq!(bench.take_all(peer), expected, "{bytes:02x?}");
            assert!(bench.closed(peer).is_some(), "{bytes:02x?}");
        }
    }
}

/// Trap 3. [MQTT5-1.5.4-3] [MQTT3-1.5.3-3] [MQTT5-4.7.3-4] [MQTT3-4.7.3-4]: names are compared byte by byte; a byte order mark is a
/// character, and nothing is normalised.
#[test]
fn topics_are_compared_byte_by_byte() {
    // The mark; upper case; the composed and the decomposed form of one letter; a space; a slash.
    let topics = [
        "a",
        "\u{feff}a",
        "A",
        "\u{e4}",
        "a\u{308}",
        "a ",
        "/a",
        "a/",
    ];
    for hello in clean_hellos("a") {
        for subscribed in topics {
            let mut bench = Bench::default();
            let peer = bench.connect(&hello);
            bench.subscribe(peer, subscribed, 0);
            for topic in topics {
                bench.publish(peer, topic, topic, 0, 0);
                bench.retain(peer, topic, "", 0, 0);
            }
            assert_eq!(bench.payloads(peer), [subscribed, ""]);
        }
    }
}

/// Trap 4. [MQTT5-1.5.5-1]; trap 5. [MQTT5-2.1.3-1] [MQTT3-2.2.2-1] [MQTT3-2.2.2-2] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1]
/// [MQTT3-3.6.1-1] [MQTT3-3.8.1-1] [MQTT3-3.10.1-1]; trap 6. [MQTT5-2.2.1-3] [MQTT3-2.3.1-1]; trap 7.; trap 8. [MQTT5-4.13.1-1]
/// [MQTT3-4.8.0-1]: packets that are none end the connection, and nothing is answered but why.
#[test]
fn packets_that_are_none_end_the_connection() {
    let both: [&[u8]; 13] = [
        // A length of five bytes, or not in its shortest form.
        &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01],
        &[0xc0, 0x80, 0x00],
        // Reserved flags.
        &[0x60, 2, 0, 1],
        &[0x80, 6, 0, 1, 0, 1, b't', 0],
        &[0xa0, 5, 0, 1, 0, 1, b't'],
        &[0xc1, 0],
        &[0xe1, 0],
        &[0x41, 2, 0, 1],
        // Type 0; packet identifier 0; bytes after the last field; a packet that ends within one.
        &[0x00, 0],
        &[0x32, 5, 0, 1, b't', 0, 0],
        &[0x40, 2, 0, 0],
        &[0xc0, 1, 0],
        &[0x32, 4, 0, 1, b't', 0],
    ];
    let v5: [&[u8]; 5] = [
        // Properties of other packets, unknown ones, two of one kind; a property length not in its shortest form.
        &[0x40, 7, 0, 1, 0, 3, 0x21, 0, 1],
        &[0xe0, 4, 0, 2, 0x7f, 0],
        &[0x30, 9, 0, 1, b't', 4, 0x01, 0, 0x01, 0, b'x'],
        &[0x30, 5, 0, 1, b't', 0x80, 0x00],
        &[0x82, 7, 0, 0, 0, 0, 1, b't', 0],
    ];
    let cases = both.iter().flat_map(|bytes| [(V3, *bytes), (V5, *bytes)]);
    for (version, bytes) in cases.chain(v5.iter().map(|bytes| (V5, *bytes))) {
        let mut bench = Bench::default();
        let peer = bench.connect(&Hello {
            version,
            ..Hello::clean("a")
        });
        bench.send_bytes(peer, bytes);
        assert!(bench.closed(peer).is_some(), "{version:?} {bytes:02x?}");
        let all = bench.take_all(peer);
        let is_told = matches!(all.as_slice(), [Got::Disconnect(code)] if code.is_error());
        assert!(is_told || version == V3 && all.is_empty(), "{all:?}");
    }
}

/// [MQTT5-3.3.4-1] [MQTT5-2.2.1-5] [MQTT5-4.3.2-4] [MQTT5-4.3.3-8] [MQTT5-4.3.3-11] [MQTT3-3.3.4-1] [MQTT3-2.3.1-6] [MQTT3-4.3.2-2]
/// [MQTT3-4.3.3-2]: each QoS has its answers, with the id of the PUBLISH.
#[test]
fn a_publish_is_answered_by_its_qos() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "other/#", 0);
        let reader = bench.connect(&Hello::clean("reader"));
        bench.subscribe(reader, "t", 0);
        bench.publish(peer, "t", "0", 0, 0);
        assert_eq!(bench.take_all(peer), []);
        bench.publish(peer, "t", "1", 1, 77);
        assert_eq!(bench.take_all(peer), [Got::Ack("PUBACK", 77, OK)]);
        bench.publish(peer, "t", "2", 2, 65_535);
        assert_eq!(bench.take_all(peer), [Got::Ack("PUBREC", 65_535, OK)]);
        bench.ack(peer, AckKind::PubRel, 65_535, OK);
        assert_eq!(bench.take_all(peer), [Got::Ack("PUBCOMP", 65_535, OK)]);
        assert_eq!(bench.payloads(reader), ["0", "1", "2"]);
    }
}

/// [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT5-4.6.0-4] [MQTT3-4.6.0-2] [MQTT3-4.6.0-3] [MQTT3-4.6.0-4]: answers leave in the order of what
/// they answer, also where the earlier ones wait for the disk and the later need not. The statements bind clients in MQTT 5.
#[test]
fn answers_leave_in_the_order_of_what_they_answer() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let reader = bench.connect(&Hello {
            version: hello.version,
            ..Hello::durable("reader")
        });
        bench.subscribe(reader, "stored", 2);
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "mine", 2);
        bench.holds_commits = true;
        for (id, topic, qos) in [(9, "stored", 1), (2, "stored", 2), (5, "mine", 2)] {
            bench.publish(peer, topic, "x", qos, id);
        }
        bench.publish(peer, "mine", "x", 1, 1);
        let answers = |all: Vec<Got>| -> Vec<_> {
            let ids = all.into_iter().filter_map(|got| match got {
                Got::Ack(kind, id, _) => Some((kind, id)),
                _ => None,
            });
            ids.collect()
        };
        assert_eq!(answers(bench.take_all(peer)), []);
        bench.commit();
        let expected = [("PUBACK", 9), ("PUBREC", 2), ("PUBREC", 5), ("PUBACK", 1)];
        assert_eq!(answers(bench.take_all(peer)), expected);
        bench.holds_commits = false;
        bench.take_all(reader);
        bench.publish(peer, "stored", "y", 2, 3);
        bench.take_all(reader);
        for id in [3, 2] {
            bench.ack(reader, AckKind::PubRec, id, OK);
        }
        let expected = [("PUBREL", 3), ("PUBREL", 2)];
        assert_eq!(answers(bench.take_all(reader)), expected);
    }
}

/// [MQTT3-3.3.1-3] [MQTT3-3.3.1-5] [MQTT3-3.3.1-6] [MQTT3-3.3.1-7] [MQTT3-3.3.1-8] [MQTT3-3.3.1-9] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11]
/// [MQTT3-3.3.1-12] and their like in MQTT 5: the life of a retained message, and DUP and RETAIN of what is delivered.
#[test]
fn a_retained_message_is_replaced_kept_and_cleared_by_the_flag() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        let live = bench.connect(&Hello {
            id: "live",
            ..hello.clone()
        });
        bench.subscribe(live, "t", 2);
        let stored = |bench: &mut Bench| {
            let late = bench.connect(&Hello {
                id: "late",
                ..hello.clone()
            });
            bench.subscribe(late, "t", 2);
            let got = bench.take_all(late);
            bench.cut(late);
            got.into_iter().map(|got| match got {
                Got::Publish(got) => (got.payload, got.qos, got.retain),
                other => panic!("{other:?}"),
            })
        };
        let mut seen = Vec::new();
        bench.retain(peer, "t", "two", 2, 1);
        bench.ack(peer, AckKind::PubRel, 1, OK);
        seen.extend(stored(&mut bench));
        let mut again = encoded(&publish("t", "", 1, 2), hello.version);
        again[0] |= 0x08;
        bench.send_bytes(peer, &again);
        seen.extend(stored(&mut bench));
        bench.retain(peer, "t", "zero", 0, 0);
        seen.extend(stored(&mut bench));
        let expected = [("two", 2, true), ("two", 2, true), ("zero", 0, true)];
        assert_eq!(
            seen,
            expected.map(|(payload, qos, retain)| (payload.to_owned(), qos, retain))
        );
        bench.retain(peer, "t", "", 1, 3);
        assert_eq!(stored(&mut bench).count(), 0);
        for payload in ["two", "", "zero", ""] {
            let got = bench.take_publish(live);
            assert_eq!(
                (got.payload.as_str(), got.dup, got.retain),
                (payload, false, false)
            );
        }
    }
}

/// [MQTT5-4.3.2-5] [MQTT3-4.3.2-2]: after PUBACK the same id is a new message, DUP or not.
#[test]
fn after_puback_an_id_is_a_new_message() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        let reader = bench.connect(&Hello::clean("reader"));
        bench.subscribe(reader, "t", 1);
        bench.publish(peer, "t", "1", 1, 5);
        bench.publish(peer, "t", "2", 1, 5);
        let mut again = encoded(&publish("t", "3", 1, 5), hello.version);
        again[0] |= 0x08;
        bench.send_bytes(peer, &again);
        assert_eq!(
            bench.take_all(peer),
            [const { Got::Ack("PUBACK", 5, OK) }; 3]
        );
        assert_eq!(bench.payloads(reader), ["1", "2", "3"]);
    }
}

/// [MQTT5-4.3.3-9]: after a PUBREC with an error the same id is a new message.
#[test]
fn after_a_refusing_pubrec_an_id_is_a_new_message() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 2);
    let peer = bench.connect(&Hello::clean("a"));
    bench.journal.set_room(Some(Room::Full));
    bench.publish(peer, "t", "refused", 2, 5);
    assert_eq!(
        bench.take_all(peer),
        [Got::Ack("PUBREC", 5, ReasonCode::QuotaExceeded)]
    );
    bench.journal.set_room(None);
    bench.publish(peer, "t", "taken", 2, 5);
    assert_eq!(bench.take_all(peer), [Got::Ack("PUBREC", 5, OK)]);
    assert_eq!(bench.payloads(reader), ["taken"]);
}

/// [MQTT3-3.3.5-2] [MQTT3-4.8.0-2] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]: a publish that is not allowed, or finds no room, is refused by
/// its code; 3.1.1 has none, so its connection ends.
#[test]
fn a_refused_publish_is_told_or_ends_the_connection() {
    for (topic, room, code) in [
        ("$SYS/x", None, ReasonCode::NotAuthorized),
        ("t", Some(Room::Full), ReasonCode::QuotaExceeded),
    ] {
        for qos in 1..=2 {
            let mut bench = Bench::default();
            let reader = bench.connect(&Hello::durable("reader"));
            bench.subscribe(reader, "t", 2);
            let peer = bench.connect(&Hello::clean("a"));
            let old = bench.connect(&Hello::v3("b", true));
            bench.journal.set_room(room);
            bench.publish(peer, topic, "x", qos, 1);
            let kind = if qos == 1 { "PUBACK" } else { "PUBREC" };
            assert_eq!(bench.take_all(peer), [Got::Ack(kind, 1, code)]);
            bench.publish(old, topic, "x", qos, 1);
            assert_eq!(bench.take_all(old), []);
            assert!(bench.closed(old).is_some());
            assert_eq!(bench.take_all(reader), []);
        }
    }
}

/// [MQTT5-3.3.4-7] for a server that says 2: the third unacknowledged QoS 1 or 2 message ends the connection, QoS 0 never does; PUBACK,
/// PUBCOMP and a refusing PUBREC make room. Trap 44.
#[test]
fn the_announced_receive_maximum_is_enforced() {
    let mut bench = Bench::new(Limits {
        receive_maximum: std::num::NonZeroU16::new(2).unwrap(),
        ..Limits::default()
    });
    let peer = bench.connect(&Hello::clean("a"));
    for id in 1..=2 {
        bench.publish(peer, "t", "x", 2, id);
        bench.ack(peer, AckKind::PubRel, id, OK);
    }
    for id in 3..=9 {
        bench.publish(peer, "t", "x", 1, id);
        bench.publish(peer, "$SYS/x", "x", 2, id);
        bench.publish(peer, "t", "x", 0, 0);
    }
    bench.publish(peer, "t", "x", 2, 10);
    bench.publish(peer, "t", "x", 2, 11);
    bench.publish(peer, "t", "x", 0, 0);
    assert_eq!(bench.closed(peer), None);
    bench.take_all(peer);
    bench.publish(peer, "t", "x", 1, 12);
    assert_eq!(
        bench.take_all(peer),
        [Got::Disconnect(ReasonCode::ReceiveMaximumExceeded)]
    );
}

/// Trap 46. [MQTT5-3.2.2-15]: a packet above the announced maximum ends the connection by its header; one of that size is taken.
#[test]
fn the_announced_packet_size_is_enforced() {
    for (size, is_closed) in [(100, false), (101, true)] {
        let mut bench = Bench::new(Limits {
            packet_bytes_max: 100,
            ..Limits::default()
        });
        let peer = bench.connect(&Hello::clean("a"));
        bench.publish(peer, "t", &"x".repeat(size - 6), 0, 0);
        assert_eq!(bench.closed(peer).is_some(), is_closed);
        let expected: &[Got] = if is_closed {
            &[Got::Disconnect(ReasonCode::PacketTooLarge)]
        } else {
            &[]
        };
        assert_eq!(bench.take_all(peer), expected);
    }
}
