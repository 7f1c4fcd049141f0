//! CONNECT, CONNACK, keep alive, wills, DISCONNECT.

use super::{OK, V3, V5, clean_hellos, durable_hellos, will};
use motemq_codec::{
    AckKind, Decoded, Disconnect, Forwarded, Packet, PublishProperties, QoS, ReasonCode, Will,
    decode,
};
use motemq_core::{Close, Identity, Limits, Verdict, Violation};
use motemq_tests::peer::{Bench, Got, Hello, Peer, encoded, options, publish, subscribe};
use std::num::NonZeroU16;

/// What CONNACK says that matters here.
#[derive(PartialEq, Eq, Debug, Default)]
struct Welcome {
    assigned: Option<String>,
    keep_alive_s: Option<u16>,
    qos_max: Option<QoS>,
    has_reason: bool,
}

fn welcome(bench: &Bench, peer: Peer) -> Welcome {
    let Ok(Decoded::Packet { packet, .. }) = decode(bench.welcome(peer), V5, usize::MAX) else {
        unreachable!("`connect` saw a packet")
    };
    let Packet::ConnAck(connack) = packet else {
        unreachable!("`connect` saw CONNACK")
    };
    Welcome {
        assigned: connack.properties.assigned_client_id.map(str::to_owned),
        keep_alive_s: connack.properties.keep_alive_s,
        qos_max: connack.properties.qos_max,
        has_reason: connack.properties.reason_string.is_some(),
    }
}

/// [MQTT5-3.1.2-4] [MQTT5-3.1.4-4] [MQTT3-3.1.2-6] [MQTT3-3.1.4-3]: a clean start forgets subscriptions, messages and
/// half-received publishes, and what it begins is not found by a later session either.
#[test]
fn a_clean_start_discards_the_session() {
    for (kept, clean) in durable_hellos("a").into_iter().zip(clean_hellos("a")) {
        let mut bench = Bench::default();
        let publisher = bench.connect(&Hello::clean("p"));
        let peer = bench.connect(&kept);
        bench.subscribe(peer, "t", 1);
        bench.publish(peer, "elsewhere", "half", 2, 9);
        bench.cut(peer);
        bench.publish(publisher, "t", "queued", 1, 1);
        let (peer, present) = bench.connect_for(&clean);
        assert!(!present);
        bench.publish(publisher, "t", "live", 1, 2);
        assert_eq!(bench.take_all(peer), []);
        bench.ack(peer, AckKind::PubRel, 9, OK);
        let known = bench.take(peer) == Some(Got::Ack("PUBCOMP", 9, OK));
        assert!(!known || kept.version == V3, "the id is still known");
        bench.subscribe(peer, "t", 1);
        bench.cut(peer);
        let (peer, present) = bench.connect_for(&kept);
        assert!(!present);
        bench.publish(publisher, "t", "later", 1, 3);
        assert_eq!(bench.take_all(peer), []);
    }
}

/// [MQTT5-3.1.2-5] [MQTT5-3.1.2-6] [MQTT5-3.1.3-2] [MQTT5-3.2.2-3] [MQTT3-3.1.2-4] [MQTT3-3.1.3-2] [MQTT3-3.2.2-2]
/// [MQTT3-3.2.2-3] [MQTT3-4.1.0-1]: the session belongs to the client id; without one of that id there is a new one.
#[test]
fn a_session_is_resumed_by_its_client_id_alone() {
    for (one, other) in durable_hellos("one").into_iter().zip(durable_hellos("two")) {
        let mut bench = Bench::default();
        let publisher = bench.connect(&Hello::clean("p"));
        let (peer, present) = bench.connect_for(&one);
        assert!(!present);
        bench.subscribe(peer, "t", 1);
        bench.cut(peer);
        let (peer, present) = bench.connect_for(&other);
        assert!(!present);
        bench.publish(publisher, "t", "x", 1, 1);
        assert_eq!(bench.take_all(peer), []);
        let (peer, present) = bench.connect_for(&one);
        assert!(present);
        assert_eq!(bench.payloads(peer), ["x"]);
        // Subscribed as before.
        bench.publish(publisher, "t", "y", 1, 2);
        assert_eq!(bench.payloads(peer), ["y"]);
    }
}

/// [MQTT5-3.1.2-23] [MQTT5-4.5.0-1] [MQTT3-3.1.2-5] [MQTT3-4.5.0-1]: QoS 1 and 2 messages for a client that is away are
/// part of its session, also across power loss.
#[test]
fn messages_for_a_client_that_is_away_are_kept() {
    for hello in durable_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "t", 2);
        bench.cut(peer);
        let publisher = bench.connect(&Hello::clean("p"));
        bench.publish(publisher, "t", "1", 1, 1);
        bench.publish(publisher, "t", "2", 2, 2);
        bench.restart(0);
        let peer = bench.connect(&hello);
        assert_eq!(bench.payloads(peer), ["1", "2"]);
    }
}

/// [MQTT5-4.1.0-1] [MQTT3-4.1.0-2]: the expiry counts from the end of the connection only.
#[test]
fn a_session_lives_as_long_as_its_connection() {
    for hello in [
        Hello {
            expiry_s: Some(10),
            ..Hello::durable("a")
        },
        Hello::clean("a"),
        Hello::v3("a", true),
    ] {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "t", 1);
        bench.pass(1_000_000);
        let publisher = bench.connect(&Hello::clean("p"));
        bench.publish(publisher, "t", "x", 1, 1);
        assert_eq!(bench.payloads(peer), ["x"]);
        bench.cut(peer);
        let (_, present) = bench.connect_for(&Hello {
            clean: false,
            ..hello.clone()
        });
        assert_eq!(present, hello.expiry_s.is_some());
    }
}

/// [MQTT3-3.1.2-7]: retained messages are not part of the session.
#[test]
fn retained_messages_outlive_the_session_of_their_publisher() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.retain(peer, "t", "x", 1, 1);
        bench.cut(peer);
        bench.connect(&hello);
        bench.restart(0);
        let reader = bench.connect(&Hello::clean("b"));
        bench.subscribe(reader, "t", 1);
        assert_eq!(bench.payloads(reader), ["x"]);
    }
}

/// [MQTT5-3.1.2-7] [MQTT5-3.1.2-14] [MQTT5-3.1.2-15] [MQTT3-3.1.2-8] [MQTT3-3.1.2-16] [MQTT3-3.1.2-17]
#[test]
fn a_will_is_published_and_retained_as_asked() {
    for hello in clean_hellos("a") {
        for retain in [false, true] {
            let mut bench = Bench::default();
            let watcher = bench.connect(&Hello::clean("watcher"));
            bench.subscribe(watcher, "w", 1);
            let peer = bench.connect(&Hello {
                will: Some(will("gone", retain)),
                ..hello.clone()
            });
            assert_eq!(bench.take_all(watcher), []);
            bench.cut(peer);
            let got = bench.take_publish(watcher);
            assert_eq!(
                (got.payload.as_str(), got.qos, got.retain),
                ("gone", 1, false)
            );
            assert_eq!(bench.broker.retained("w").is_some(), retain);
        }
    }
}

/// [MQTT3-3.1.2-10] [MQTT3-3.1.2-12] [MQTT3-3.14.4-3] [MQTT5-3.1.2-10]: after DISCONNECT there is no will, and a client
/// without one leaves none.
#[test]
fn no_will_is_published_after_disconnect_or_without_one() {
    for hello in durable_hellos("a") {
        let mut bench = Bench::default();
        let watcher = bench.connect(&Hello::clean("watcher"));
        bench.subscribe(watcher, "#", 1);
        let peer = bench.connect(&Hello {
            will: Some(will("gone", false)),
            ..hello.clone()
        });
        bench.send(peer, &Packet::Disconnect(Disconnect::new(OK)));
        assert_eq!(bench.closed(peer), Some(Close::Normal));
        let peer = bench.connect(&hello);
        bench.cut(peer);
        bench.pass(10_000_000);
        assert_eq!(bench.take_all(watcher), []);
    }
}

/// [MQTT5-3.1.3-10] [MQTT5-3.1.2-9]: user properties of the will keep their order, and everything else arrives too.
#[test]
fn the_wills_properties_arrive_unaltered() {
    let block = [
        0x26, 0, 1, b'z', 0, 1, b'1', 0x26, 0, 1, b'a', 0, 1, b'2', 0x26, 0, 1, b'z', 0, 1, b'3',
        0x03, 0, 1, b'c', 0x08, 0, 1, b'r', 0x09, 0, 1, 7, 0x01, 1,
    ];
    let mut bench = Bench::default();
    let watcher = bench.connect(&Hello::clean("watcher"));
    bench.subscribe(watcher, "w", 0);
    let peer = bench.connect(&Hello {
        will: Some(Will {
            forwarded: Forwarded::from_block(&block),
            ..will("gone", false)
        }),
        ..Hello::clean("a")
    });
    bench.cut(peer);
    assert_eq!(bench.take_publish(watcher).forwarded, block);
}

/// [MQTT5-3.1.3-5] [MQTT3-3.1.3-5]; longer ones, and ones with other characters, are taken too.
#[test]
fn client_ids_of_letters_and_digits_are_allowed() {
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut ids = vec!["a", "0", letters, "ü/+#$ ."];
    ids.extend((0..40).filter_map(|start| letters.get(start..start + 23)));
    for id in ids {
        for hello in clean_hellos(id) {
            let mut bench = Bench::default();
            let peer = bench.connect(&hello);
            assert_eq!(bench.closed(peer), None);
        }
    }
}

/// [MQTT5-3.1.3-8] [MQTT5-3.1.4-2] [MQTT5-3.2.2-7] [MQTT5-4.13.2-1] [MQTT3-3.2.2-5]: a refusal ends the connection, and who
/// is connected under that id stays.
#[test]
fn a_client_that_is_not_let_in_is_told_and_closed() {
    let user = |name: &str| Verdict::Accepted {
        login: Identity::User(name.into()).into(),
        entropy: 7,
    };
    let refused = Verdict::Refused {
        code: ReasonCode::BadUserNameOrPassword,
        reason: "no",
    };
    for (verdict, code) in [
        (user("other"), ReasonCode::NotAuthorized),
        (refused, ReasonCode::BadUserNameOrPassword),
    ] {
        for hello in clean_hellos("a") {
            let mut bench = Bench::default();
            bench.verdict = user("owner");
            let old = bench.connect(&Hello::durable("a"));
            bench.verdict = verdict.clone();
            let peer = bench.open(hello.version);
            bench.send_bytes(peer, &hello.bytes());
            assert_eq!(bench.take_all(peer), [Got::ConnAck(false, code)]);
            assert_eq!(bench.closed(peer), Some(Close::Refused(code)));
            assert_eq!(bench.closed(old), None);
        }
    }
}

/// [MQTT5-3.1.4-1] [MQTT5-3.1.2-1] [MQTT3-3.1.4-1] [MQTT3-3.1.2-1]: a CONNECT that is none closes, 3.1.1 without CONNACK.
#[test]
fn a_malformed_connect_is_closed() {
    for level in [4, 5] {
        for body in [
            // Another protocol; a reserved flag; a client id that is too long for the packet.
            &[0, 4, b'M', b'Q', b'T', b'S', level, 2, 0, 0, 0, 0][..],
            &[0, 4, b'M', b'Q', b'T', b'T', level, 3, 0, 0, 0, 0],
            &[0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0, 0, 9],
        ] {
            let mut bench = Bench::default();
            let peer = bench.open(V3);
            let mut bytes = vec![0x10, 12];
            bytes.extend(body);
            bench.send_bytes(peer, &bytes);
            assert!(bench.closed(peer).is_some(), "{bytes:02x?}");
            assert_eq!(bench.take_all(peer), [], "{bytes:02x?}");
        }
    }
}

/// [MQTT5-3.1.4-5] [MQTT5-3.2.0-1] [MQTT5-3.2.0-2] [MQTT3-3.1.4-4] [MQTT3-3.2.0-1]: one CONNACK, first, for a client that is let
/// in; messages that wait for it come after.
#[test]
fn a_client_that_is_let_in_gets_one_connack_first() {
    for hello in durable_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "t", 1);
        bench.cut(peer);
        let publisher = bench.connect(&Hello::clean("p"));
        bench.publish(publisher, "t", "x", 1, 1);
        let peer = bench.open(hello.version);
        bench.send_bytes(peer, &hello.bytes());
        bench.send(peer, &Packet::PingReq);
        let all = bench.take_all(peer);
        assert_eq!(all.first(), Some(&Got::ConnAck(true, OK)));
        assert_eq!(all.len(), 3, "{all:?}");
    }
}

/// Trap 16. [MQTT5-3.2.2-16] [MQTT5-3.1.3-7] [MQTT5-3.1.3-6] [MQTT3-3.1.3-6]: the assigned id is that of no session, stored
/// ones included, whatever the dice say; it is returned, and resumes.
#[test]
fn an_assigned_client_id_is_new_and_resumes() {
    let mut bench = Bench::default();
    let taken = "auto-00000000000000000000000000000007";
    let stored = bench.connect(&Hello::durable(taken));
    bench.cut(stored);
    bench.restart(0);
    // The bench's dice always show 7.
    let first = bench.connect(&Hello::durable(""));
    let second = bench.connect(&Hello::durable(""));
    let clean = bench.connect(&Hello::clean(""));
    bench.connect(&Hello::v3("", true));
    for peer in [first, second, clean] {
        assert_eq!(bench.closed(peer), None);
    }
    let ids = [first, second, clean].map(|peer| welcome(&bench, peer).assigned.unwrap());
    assert!(!ids.contains(&taken.to_owned()));
    assert_ne!(ids[0], ids[1]);
    assert_ne!(ids[1], ids[2]);
    bench.restart(0);
    assert!(bench.connect_for(&Hello::durable(&ids[0])).1);
    assert!(bench.connect_for(&Hello::durable(&ids[1])).1);
    assert!(!bench.connect_for(&Hello::durable(&ids[2])).1);
    // A client that has an id is assigned none.
    let named = bench.connect(&Hello::durable("named"));
    assert_eq!(welcome(&bench, named).assigned, None);
}

/// Trap 22. Section 3.1.2.11: a maximum of 0, and a flag that is neither 0 nor 1, are refused.
#[test]
fn impossible_properties_of_connect_are_refused() {
    for property in [
        &[0x21, 0, 0][..],
        &[0x27, 0, 0, 0, 0],
        &[0x17, 2],
        &[0x19, 2],
    ] {
        let mut bench = Bench::default();
        let peer = bench.open(V5);
        let length = u8::try_from(property.len()).unwrap();
        let mut bytes = vec![0x10, 14 + length, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0];
        bytes.push(length);
        bytes.extend(property);
        bytes.extend([0, 1, b'a']);
        bench.send_bytes(peer, &bytes);
        assert!(
            matches!(
                bench.closed(peer),
                Some(Close::Violation(Violation::Malformed(_)))
            ),
            "{property:02x?}"
        );
        assert_eq!(bench.broker.session_totals().sessions, 0);
    }
}

/// Trap 20. [MQTT5-3.2.2-19] [MQTT5-3.1.2-24]: the reason of a refusal is told where it fits, to the byte, and a client that
/// takes nothing of that size is told nothing.
#[test]
fn the_reason_of_a_refused_connect_fits_the_client() {
    let mut too_long = will("x", false);
    too_long.topic = "$SYS/x";
    let wills = [Some(too_long), None];
    for will in wills {
        let refuse = |packet_bytes_max| {
            let mut bench = Bench::default();
            let user = |name: &str| Verdict::Accepted {
                login: Identity::User(name.into()).into(),
                entropy: 7,
            };
            bench.verdict = user("owner");
            bench.connect(&Hello::durable("a"));
            bench.verdict = user("other");
            let peer = bench.open(V5);
            let hello = Hello {
                will,
                packet_bytes_max,
                ..Hello::clean("a")
            };
            bench.send_bytes(peer, &hello.bytes());
            assert!(matches!(bench.closed(peer), Some(Close::Refused(_))));
            bench.bytes_down(peer)
        };
        let full = refuse(None);
        assert!(full > 20, "{full}");
        assert_eq!(refuse(u32::try_from(full).ok()), full);
        assert_eq!(refuse(u32::try_from(full - 1).ok()), 5);
        assert_eq!(refuse(Some(5)), 5);
        assert_eq!(refuse(Some(4)), 0);
    }
}

/// [MQTT5-3.1.2-24]: a client whose Maximum Packet Size has no room for what CONNACK must say is refused, before it could take
/// a session over.
#[test]
fn a_client_without_room_for_connack_is_refused() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    let size = bench.welcome(peer).len();
    bench.cut(peer);
    let old = bench.connect(&Hello::durable("a"));
    for (less, is_refused) in [(1, true), (0, false)] {
        let peer = bench.open(V5);
        let hello = Hello {
            packet_bytes_max: u32::try_from(size - less).ok(),
            ..Hello::clean("a")
        };
        bench.send_bytes(peer, &hello.bytes());
        let code = if is_refused {
            ReasonCode::PacketTooLarge
        } else {
            OK
        };
        assert_eq!(bench.take(peer), Some(Got::ConnAck(false, code)));
        assert_eq!(bench.closed(peer).is_some(), is_refused);
        assert_eq!(bench.closed(old).is_some(), !is_refused);
    }
}

/// Trap 24. [MQTT5-3.2.2-21] [MQTT5-3.2.2-22] [MQTT5-3.1.2-21]: the keep alive that CONNACK gives is the one that counts; without
/// one the client's own does.
#[test]
fn the_keep_alive_of_connack_counts() {
    for (asked, given, silence_ms) in [
        (0, Some(20), Some(30_000)),
        (60, Some(20), Some(30_000)),
        (20, None, Some(30_000)),
        (10, None, Some(15_000)),
    ] {
        let mut bench = Bench::new(Limits {
            keep_alive_max_s: 20,
            ..Limits::default()
        });
        let peer = bench.connect(&Hello {
            keep_alive_s: asked,
            ..Hello::clean("a")
        });
        assert_eq!(welcome(&bench, peer).keep_alive_s, given);
        let silence_ms = silence_ms.unwrap();
        bench.pass(silence_ms - 1);
        assert_eq!(bench.closed(peer), None, "{asked}");
        bench.pass(1);
        assert_eq!(
            bench.take_all(peer),
            [Got::Disconnect(ReasonCode::KeepAliveTimeout)]
        );
    }
}

/// [MQTT5-3.2.2-9] [MQTT5-3.2.2-10] [MQTT5-3.2.2-11] [MQTT5-3.2.2-12]: a listener with a lower QoS says so, grants no more, takes no
/// more, and refuses wills above it.
#[test]
fn a_lower_qos_is_announced_and_kept() {
    for (qos_max, above) in [(QoS::AtMostOnce, 1), (QoS::AtLeastOnce, 2)] {
        let mut bench = Bench::default();
        bench.qos_max = qos_max;
        let peer = bench.connect(&Hello::clean("a"));
        assert_eq!(welcome(&bench, peer).qos_max, Some(qos_max));
        let filters = [("a", options(0)), ("b", options(1)), ("c", options(2))];
        bench.send(peer, &subscribe(1, &filters, None));
        let granted = (0..3).map(|asked| asked.min(qos_max as u8)).collect();
        assert_eq!(bench.take(peer), Some(Got::SubAck(1, granted)));
        bench.publish(peer, "t", "x", above, 1);
        assert_eq!(
            bench.take_all(peer),
            [Got::Disconnect(ReasonCode::QoSNotSupported)]
        );
        let peer = bench.open(V5);
        let hello = Hello {
            will: Some(Will {
                qos: QoS::ExactlyOnce,
                ..will("x", false)
            }),
            ..Hello::clean("b")
        };
        bench.send_bytes(peer, &hello.bytes());
        let code = ReasonCode::QoSNotSupported;
        assert_eq!(bench.take_all(peer), [Got::ConnAck(false, code)]);
        assert!(bench.closed(peer).is_some());
    }
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    assert_eq!(welcome(&bench, peer).qos_max, None);
}

/// [MQTT5-3.1.2-22] [MQTT3-3.1.2-24] and [MQTT5-3.1.0-2] [MQTT3-3.1.0-2]: silence and a second CONNECT end the connection as if the
/// network had failed, so the will is published.
#[test]
fn silence_and_a_second_connect_publish_the_will() {
    for hello in clean_hellos("a") {
        for is_silent in [true, false] {
            let mut bench = Bench::default();
            let watcher = bench.connect(&Hello::clean("watcher"));
            bench.subscribe(watcher, "w", 0);
            let hello = Hello {
                keep_alive_s: 10,
                will: Some(will("gone", false)),
                ..hello.clone()
            };
            let peer = bench.connect(&hello);
            bench.pass(14_999);
            assert_eq!(bench.closed(peer), None);
            let violation = if is_silent {
                bench.pass(1);
                Violation::KeepAliveTimeout
            } else {
                bench.send_bytes(peer, &hello.bytes());
                Violation::SecondConnect
            };
            assert_eq!(bench.closed(peer), Some(Close::Violation(violation)));
            assert_eq!(bench.take_all(peer).len(), usize::from(hello.version == V5));
            assert_eq!(bench.payloads(watcher), ["gone"]);
        }
    }
}

/// [MQTT5-3.1.4-6] [MQTT3-3.1.4-5]: what comes behind a CONNECT that is refused is not handled.
#[test]
fn nothing_behind_a_refused_connect_is_handled() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        bench.verdict = Verdict::Refused {
            code: ReasonCode::NotAuthorized,
            reason: "no",
        };
        let Packet::Publish(mut packet) = publish("t", "x", 0, 0) else {
            panic!()
        };
        packet.retain = true;
        let mut bytes = hello.bytes();
        bytes.extend(encoded(&Packet::Publish(packet), hello.version));
        let peer = bench.open(hello.version);
        bench.send_bytes(peer, &bytes);
        let code = ReasonCode::NotAuthorized;
        assert_eq!(bench.take_all(peer), [Got::ConnAck(false, code)]);
        assert!(bench.broker.retained("t").is_none());
    }
}

/// [MQTT5-3.12.4-1] [MQTT3-3.12.4-1]
#[test]
fn pingreq_is_answered() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.send_bytes(peer, &[0xc0, 0, 0xc0, 0]);
        assert_eq!(bench.take_all(peer), [Got::PingResp, Got::PingResp]);
    }
}

/// [MQTT5-3.14.4-1] [MQTT5-3.14.4-2] [MQTT5-3.14.2-1] [MQTT5-4.13.1-1] [MQTT5-4.13.2-1]: DISCONNECT from the broker is the last
/// packet, nothing that came behind the fault is handled, and the connection is closed.
#[test]
fn disconnect_is_the_brokers_last_packet() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    let mut bytes = vec![0x36, 7, 0, 1, b'a', 0, 1, 0, b'c'];
    bytes.extend(encoded(&publish("t", "x", 1, 2), V5));
    bytes.extend([0xc0, 0]);
    bench.send_bytes(peer, &bytes);
    bench.send_bytes(peer, &[0xc0, 0]);
    assert_eq!(
        bench.take_all(peer),
        [Got::Disconnect(ReasonCode::MalformedPacket)]
    );
    assert!(bench.closed(peer).is_some());
}

/// [MQTT5-3.14.4-1] [MQTT3-3.14.4-1] [MQTT3-3.14.4-2]: a client's DISCONNECT is its last packet; the broker closes, and what comes
/// behind is not handled.
#[test]
fn nothing_behind_a_clients_disconnect_is_handled() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        let mut bytes = vec![0xe0, 0];
        let Packet::Publish(mut packet) = publish("t", "x", 0, 0) else {
            panic!()
        };
        packet.retain = true;
        bytes.extend(encoded(&Packet::Publish(packet), hello.version));
        bench.send_bytes(peer, &bytes);
        assert_eq!(bench.closed(peer), Some(Close::Normal));
        assert_eq!(bench.take_all(peer), []);
        assert!(bench.broker.retained("t").is_none());
    }
}

/// [MQTT5-3.14.1-1] [MQTT3-3.14.1-1]: reserved bits of DISCONNECT.
#[test]
fn reserved_bits_in_disconnect_close_with_the_will() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let watcher = bench.connect(&Hello::clean("watcher"));
        bench.subscribe(watcher, "w", 0);
        let peer = bench.connect(&Hello {
            will: Some(will("gone", false)),
            ..hello.clone()
        });
        bench.send_bytes(peer, &[0xe1, 0]);
        let expected: &[Got] = match hello.version {
            V5 => &[Got::Disconnect(ReasonCode::MalformedPacket)],
            _ => &[],
        };
        assert_eq!(bench.take_all(peer), expected);
        assert_eq!(bench.payloads(watcher), ["gone"]);
    }
}

/// Trap 20. [MQTT5-3.14.2-3]: the reason in DISCONNECT is told where it fits, to the byte.
#[test]
fn the_reason_in_disconnect_fits_the_client() {
    let length = |packet_bytes_max| {
        let mut bench = Bench::default();
        let peer = bench.connect(&Hello {
            packet_bytes_max,
            ..Hello::clean("a")
        });
        bench.send_bytes(peer, &Hello::clean("a").bytes());
        assert_eq!(
            bench.take(peer),
            Some(Got::Disconnect(ReasonCode::ProtocolError))
        );
        bench.last_bytes(peer).len()
    };
    let full = length(None);
    assert!(full > 25, "{full}");
    assert_eq!(length(u32::try_from(full).ok()), full);
    assert_eq!(length(u32::try_from(full - 1).ok()), 4);
}

/// [MQTT5-3.2.2-17] [MQTT5-3.2.2-18] [MQTT5-3.3.2-9] [MQTT5-3.3.2-12]: each alias up to the announced maximum is taken, none above
/// it, none at all where the maximum is 0.
#[test]
fn aliases_up_to_the_announced_maximum_are_taken() {
    for topic_alias_max in [0, 3] {
        for number in 1..=4 {
            let mut bench = Bench::new(Limits {
                topic_alias_max,
                ..Limits::default()
            });
            let peer = bench.connect(&Hello::clean("a"));
            let Packet::Publish(mut packet) = publish("t", "x", 0, 0) else {
                panic!()
            };
            packet.properties = PublishProperties {
                topic_alias: NonZeroU16::new(number),
                ..PublishProperties::default()
            };
            bench.send(peer, &Packet::Publish(packet));
            let expected: &[Got] = if number <= topic_alias_max {
                &[]
            } else {
                &[Got::Disconnect(ReasonCode::TopicAliasInvalid)]
            };
            assert_eq!(
                bench.take_all(peer),
                expected,
                "{number} of {topic_alias_max}"
            );
        }
    }
}
