//! Rules of sessions, publishing, acknowledgements and subscriptions, one small script each, in virtual time.
//!
//! The traps are those of `spec-traps.md`; 23 is in `authentication.rs`, 59 in `shared.rs`.

use motemq_codec::{
    AckKind, Decoded, Disconnect, Forwarded, Packet, ProtocolVersion, Publish, PublishProperties,
    QoS, ReasonCode, RetainHandling, SubscribeOptions, SubscriptionIds, Will, decode,
};
use motemq_core::{
    Close, Enrolment, Identity, Image, Limit, Limits, Login, PressureLevel, QueueFull, Room, Scope,
    Verdict, Violation,
};
use motemq_tests::peer::{Bench, Got, Hello, encoded, options, publish, subscribe};
use std::num::NonZeroU16;
use std::sync::Arc;

const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const V5: ProtocolVersion = ProtocolVersion::V5;
const OK: ReasonCode = ReasonCode::Success;

fn will<'a>(topic: &'a str, payload: &'a str, delay_s: u32) -> Option<Will<'a>> {
    Some(Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic,
        payload: payload.as_bytes(),
        delay_s,
        message_expiry_s: None,
        forwarded: Forwarded::default(),
    })
}

fn with_properties<'a>(
    topic: &'a str,
    payload: &'a str,
    properties: PublishProperties<'a>,
) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties,
        payload: payload.as_bytes(),
    })
}

fn repeated<'a>(topic: &'a str, payload: &'a str, qos: u8, id: u16) -> Packet<'a> {
    match publish(topic, payload, qos, id) {
        Packet::Publish(packet) => Packet::Publish(Publish {
            dup: true,
            ..packet
        }),
        other => other,
    }
}

fn expiring<'a>(topic: &'a str, payload: &'a str, qos: u8, id: u16, expiry_s: u32) -> Packet<'a> {
    match publish(topic, payload, qos, id) {
        Packet::Publish(mut packet) => {
            packet.properties.message_expiry_s = Some(expiry_s);
            Packet::Publish(packet)
        }
        other => other,
    }
}

fn disconnect(code: ReasonCode) -> Packet<'static> {
    Packet::Disconnect(Disconnect::new(code))
}

// ---- CONNECT and CONNACK ----

/// Trap 9. [MQTT5-3.1.0-1] [MQTT3-3.1.0-1] [MQTT5-3.14.0-1]
#[test]
fn anything_but_connect_first_is_closed_without_a_word() {
    for version in [V3, V5] {
        let mut bench = Bench::default();
        let peer = bench.open(version);
        bench.send(peer, &Packet::PingReq);
        assert!(bench.closed(peer).is_some());
        assert_eq!(bench.take_all(peer), []);
    }
}

/// Trap 10. [MQTT5-3.1.0-2] [MQTT3-3.1.0-2]
#[test]
fn a_second_connect_closes_and_publishes_the_will() {
    let mut bench = Bench::default();
    let watcher = bench.connect(&Hello::clean("watcher"));
    bench.subscribe(watcher, "w", 1);
    let hello = Hello {
        will: will("w", "gone", 0),
        ..Hello::clean("a")
    };
    let peer = bench.connect(&hello);
    bench.send_bytes(peer, &hello.bytes());
    assert_eq!(
        bench.closed(peer),
        Some(Close::Violation(Violation::SecondConnect))
    );
    assert_eq!(
        bench.take(peer),
        Some(Got::Disconnect(ReasonCode::ProtocolError))
    );
    assert_eq!(bench.payloads(watcher), ["gone"]);
}

/// Trap 11. [MQTT3-3.1.2-2] [MQTT5-3.1.2-2]
#[test]
fn an_unsupported_level_gets_the_3_1_1_refusal() {
    let mut bench = Bench::default();
    let peer = bench.open(V3);
    bench.send_bytes(
        peer,
        &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 6, 2, 0, 0, 0, 0],
    );
    assert_eq!(
        bench.take(peer),
        Some(Got::ConnAck(false, ReasonCode::UnsupportedProtocolVersion))
    );
    assert!(bench.closed(peer).is_some());
}

/// Trap 12. [MQTT5-3.1.2-3] [MQTT3-3.1.2-3], trap 13. [MQTT5-3.1.2-11] [MQTT5-3.1.2-12] [MQTT5-3.1.2-13], trap 14. [MQTT3-3.1.2-22]
#[test]
fn wrong_connect_flags_are_refused() {
    // Reserved bit; will QoS, will retain without will; will QoS 3; password without user name.
    for flags in [0x03, 0x0a, 0x22, 0x1e, 0x42] {
        let mut bench = Bench::default();
        let peer = bench.open(V3);
        bench.send_bytes(
            peer,
            &[
                0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0, 0, 1, b'a',
            ],
        );
        assert!(bench.closed(peer).is_some(), "{flags:02x}");
        assert_eq!(bench.take_all(peer), [], "{flags:02x}");
    }
}

/// Trap 15. [MQTT3-3.1.3-8] [MQTT3-3.1.3-9] [MQTT3-3.2.2-5]; [MQTT5-3.1.3-7]
#[test]
fn an_empty_client_id_is_refused_or_assigned() {
    let mut bench = Bench::default();
    let peer = bench.open(V3);
    bench.send_bytes(
        peer,
        &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0, 0, 0],
    );
    assert_eq!(
        bench.take(peer),
        Some(Got::ConnAck(false, ReasonCode::ClientIdentifierNotValid))
    );
    let code = ReasonCode::ClientIdentifierNotValid;
    assert_eq!(bench.closed(peer), Some(Close::Refused(code)));
    let peer = bench.connect(&Hello::durable(""));
    bench.subscribe(peer, "t", 1);
    bench.cut(peer);
    let (_, present) = bench.connect_for(&Hello::durable("auto-00000000000000000000000000000007"));
    assert!(present);
}

/// Trap 17. [MQTT5-3.1.4-3] [MQTT3-3.1.4-2]
#[test]
fn a_take_over_tells_the_old_connection_and_publishes_its_will() {
    let mut bench = Bench::default();
    let watcher = bench.connect(&Hello::clean("watcher"));
    bench.subscribe(watcher, "w", 0);
    let old = bench.connect(&Hello {
        will: will("w", "taken", 0),
        ..Hello::durable("a")
    });
    let (_, present) = bench.connect_for(&Hello::durable("a"));
    assert!(present);
    assert_eq!(
        bench.take(old),
        Some(Got::Disconnect(ReasonCode::SessionTakenOver))
    );
    assert_eq!(bench.closed(old), Some(Close::TakenOver));
    assert_eq!(bench.payloads(watcher), ["taken"]);
    let old = bench.connect(&Hello::v3("b", false));
    bench.connect(&Hello::v3("b", false));
    assert_eq!(bench.take_all(old), []);
    assert_eq!(bench.closed(old), Some(Close::TakenOver));
}

/// Trap 18. [MQTT5-3.2.2-2] [MQTT5-3.2.2-3] [MQTT3-3.2.2-1] [MQTT3-3.2.2-2]
#[test]
fn session_present_is_one_only_for_a_resumed_session() {
    let mut bench = Bench::default();
    for hello in [Hello::durable("a"), Hello::v3("b", false)] {
        let (peer, present) = bench.connect_for(&hello);
        assert!(!present);
        bench.cut(peer);
        let (peer, present) = bench.connect_for(&hello);
        assert!(present);
        bench.cut(peer);
        let (peer, present) = bench.connect_for(&Hello {
            clean: true,
            ..hello.clone()
        });
        assert!(!present);
        bench.cut(peer);
    }
}

/// Trap 18, over a crash.
#[test]
fn session_present_is_exact_after_power_loss() {
    let mut bench = Bench::default();
    bench.connect(&Hello::durable("a"));
    bench.connect(&Hello::clean("b"));
    bench.restart(0);
    assert!(bench.connect_for(&Hello::durable("a")).1);
    assert!(!bench.connect_for(&Hello::durable("b")).1);
}

/// Trap 19. [MQTT5-3.1.2-23] [MQTT5-4.1.0-2]
#[test]
fn a_session_without_expiry_ends_with_its_connection() {
    let mut bench = Bench::default();
    let hello = Hello {
        expiry_s: None,
        ..Hello::durable("a")
    };
    let peer = bench.connect(&hello);
    bench.cut(peer);
    assert!(!bench.connect_for(&hello).1);
}

/// Trap 19. The session ends when its expiry has passed, not a millisecond earlier.
#[test]
fn a_session_expires_on_time() {
    let hello = Hello {
        expiry_s: Some(10),
        ..Hello::durable("a")
    };
    for (ms, lives) in [(9_999, true), (10_000, false)] {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.cut(peer);
        bench.pass(ms);
        assert_eq!(bench.connect_for(&hello).1, lives, "{ms}");
    }
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::v3("b", false));
    bench.cut(peer);
    bench.pass(86_400_000);
    assert!(bench.connect_for(&Hello::v3("b", false)).1);
}

/// Trap 22. Section 3.1.2.11.3: Receive Maximum 0.
#[test]
fn receive_maximum_zero_is_refused() {
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    bench.send_bytes(
        peer,
        &[
            0x10, 17, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 3, 0x21, 0, 0, 0, 1, b'a',
        ],
    );
    assert!(bench.closed(peer).is_some());
    assert_eq!(bench.broker.session_totals().sessions, 0);
}

/// Trap 24. [MQTT5-3.1.2-22] [MQTT3-3.1.2-24]
#[test]
fn silence_for_one_and_a_half_keep_alives_closes_and_publishes_the_will() {
    let mut bench = Bench::default();
    let watcher = bench.connect(&Hello::clean("watcher"));
    bench.subscribe(watcher, "w", 0);
    let peer = bench.connect(&Hello {
        keep_alive_s: 10,
        will: will("w", "silent", 0),
        ..Hello::clean("a")
    });
    bench.subscribe(peer, "t", 0);
    bench.pass(14_000);
    // What is sent to the client does not count.
    bench.publish(watcher, "t", "x", 0, 0);
    assert_eq!(bench.closed(peer), None);
    bench.pass(1_000);
    assert_eq!(
        bench.closed(peer),
        Some(Close::Violation(Violation::KeepAliveTimeout))
    );
    assert_eq!(bench.payloads(watcher), ["silent"]);
}

/// Trap 24. Keep alive 0 never ends.
#[test]
fn keep_alive_zero_is_never_closed() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.pass(1_000_000_000);
    assert_eq!(bench.closed(peer), None);
}

/// Trap 25. [MQTT5-3.1.4-6] [MQTT3-3.1.4-5]
#[test]
fn packets_behind_a_refused_connect_are_not_processed() {
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    let mut bytes = vec![
        0x10, 18, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 4, 0x15, 0, 1, b'x', 0, 1, b'a',
    ];
    bytes.extend([0x31, 6, 0, 1, b't', 0, b'h', b'i']);
    bench.send_bytes(peer, &bytes);
    assert!(bench.broker.retained("t").is_none());
}

/// [MQTT5-3.2.0-1]: PINGRESP once overtook CONNACK, and a bad packet right behind CONNECT took CONNACK's place.
#[test]
fn connack_precedes_whatever_follows_connect_in_one_segment() {
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    let mut bytes = Hello::durable("a").bytes();
    bytes.extend([0xc0, 0]);
    bench.send_bytes(peer, &bytes);
    assert_eq!(bench.take(peer), Some(Got::ConnAck(false, OK)));
    assert_eq!(bench.take(peer), Some(Got::PingResp));

    let peer = bench.open(V5);
    let mut bytes = Hello::durable("b").bytes();
    bytes.extend([0x36, 7, 0, 1, b'a', 0, 1, 0, b'c']);
    bench.send_bytes(peer, &bytes);
    assert_eq!(bench.take(peer), Some(Got::ConnAck(false, OK)));
    assert_eq!(
        bench.take(peer),
        Some(Got::Disconnect(ReasonCode::MalformedPacket))
    );
}

/// Trap 26. [MQTT5-3.2.0-1]
#[test]
fn connect_subscribe_and_publish_in_one_segment_are_answered_in_order() {
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    let mut bytes = Hello::durable("a").bytes();
    bytes.extend(encoded(&subscribe(1, &[("t", options(1))], None), V5));
    bytes.extend(encoded(&publish("t", "x", 1, 2), V5));
    bench.send_bytes(peer, &bytes);
    assert_eq!(bench.take(peer), Some(Got::ConnAck(false, OK)));
    // The delivery may come before SUBACK, which waits for the disk; the replies keep their order [MQTT5-4.6.0-2].
    let rest = bench.take_all(peer);
    let suback = rest.iter().position(|got| *got == Got::SubAck(1, vec![1]));
    let puback = rest
        .iter()
        .position(|got| *got == Got::Ack("PUBACK", 2, OK));
    assert!(suback.is_some() && suback < puback, "{rest:?}");
    assert!(
        rest.iter().any(|got| matches!(got, Got::Publish(_))),
        "{rest:?}"
    );
}

/// [MQTT5-3.1.2-28]: Response Information comes where it is configured and asked for; [MQTT5-3.1.2-24]: a client whose packets
/// are too small for its CONNACK is not served.
#[test]
fn response_information_is_told_to_who_asks() {
    for (template, asks, expected) in [
        ("reply/%c/", true, Some("reply/a/")),
        ("reply/%c/", false, None),
        ("", true, None),
    ] {
        let mut bench = Bench::new(Limits {
            response_information: template.into(),
            ..Limits::default()
        });
        let hello = Hello {
            response_information: asks,
            ..Hello::clean("a")
        };
        let peer = bench.connect(&hello);
        let bytes = bench.last_bytes(peer).to_vec();
        let Ok(Decoded::Packet {
            packet: Packet::ConnAck(connack),
            ..
        }) = decode(&bytes, V5, usize::MAX)
        else {
            unreachable!("connect() saw the CONNACK")
        };
        assert_eq!(connack.properties.response_information, expected);
        for (spare, is_served) in [(0, true), (1, false)] {
            let peer = bench.open(V5);
            let hello = Hello {
                packet_bytes_max: u32::try_from(bytes.len() - spare).ok(),
                ..hello.clone()
            };
            bench.send_bytes(peer, &hello.bytes());
            assert_eq!(bench.closed(peer).is_none(), is_served);
            let code = if is_served {
                OK
            } else {
                ReasonCode::PacketTooLarge
            };
            assert_eq!(bench.take_all(peer), [Got::ConnAck(false, code)]);
        }
    }
}

/// Trap 20. [MQTT5-3.1.2-24] [MQTT5-3.4.2-2] [MQTT5-3.5.2-2] [MQTT5-3.1.2-29]
///
/// Traps 20 and 21: the reason of a refusal is told where it is wanted and fits, to the byte.
#[test]
fn reasons_are_told_where_they_are_wanted_and_fit() {
    let length = |packet_bytes_max, problem_information, qos: u8| {
        let mut bench = Bench::default();
        let peer = bench.connect(&Hello {
            packet_bytes_max,
            problem_information,
            ..Hello::clean("a")
        });
        bench.publish(peer, "$not/yours", "x", qos, 1);
        assert!(matches!(
            bench.take(peer),
            Some(Got::Ack(_, 1, ReasonCode::NotAuthorized))
        ));
        bench.last_bytes(peer).len()
    };
    for qos in 1..=2 {
        let full = length(None, true, qos);
        assert!(full > 30, "{full}");
        assert_eq!(length(u32::try_from(full).ok(), true, qos), full);
        assert_eq!(length(u32::try_from(full - 1).ok(), true, qos), 5);
        assert_eq!(length(None, false, qos), 5);
    }
}

/// [MQTT5-3.1.2-24]: nothing larger than the client takes, not even a SUBACK.
#[test]
fn a_suback_that_the_client_does_not_take_ends_the_connection() {
    let filters: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
        .into_iter()
        .chain(["m", "n", "o", "p", "q", "r", "s", "t", "u", "v", "w", "x"])
        .map(|filter| (filter, options(0)))
        .collect();
    for (packet_bytes_max, is_closed) in [(29, false), (28, true)] {
        let mut bench = Bench::default();
        let peer = bench.connect(&Hello {
            packet_bytes_max: Some(packet_bytes_max),
            ..Hello::clean("a")
        });
        bench.send(peer, &subscribe(1, &filters, None));
        let got = bench.take(peer);
        if is_closed {
            assert_eq!(got, Some(Got::Disconnect(ReasonCode::PacketTooLarge)));
        } else {
            assert!(matches!(got, Some(Got::SubAck(1, _))), "{got:?}");
        }
    }
}

// ---- PUBLISH ----

/// Trap 27. [MQTT5-3.3.1-3] [MQTT3-3.3.1-3]
#[test]
fn dup_is_not_passed_on() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.subscribe(peer, "t", 1);
    bench.send(peer, &repeated("t", "x", 1, 1));
    assert_eq!(bench.take(peer), Some(Got::Ack("PUBACK", 1, OK)));
    assert!(!bench.take_publish(peer).dup);
}

/// Trap 28. [MQTT5-3.3.1-4] [MQTT5-3.3.1-2] [MQTT3-3.3.1-2] [MQTT3-3.3.1-4]
#[test]
fn qos_3_and_dup_at_qos_0_close() {
    for first in [0x36, 0x38] {
        let mut bench = Bench::default();
        let peer = bench.connect(&Hello::v3("a", true));
        bench.send_bytes(peer, &[first, 5, 0, 1, b't', 0, 1]);
        assert!(bench.closed(peer).is_some(), "{first:02x}");
    }
}

/// Trap 29. [MQTT5-3.3.1-5] [MQTT3-3.3.1-7]
#[test]
fn a_qos_0_retained_message_replaces_a_qos_2_one() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.retain(peer, "t", "two", 2, 1);
    bench.ack(peer, AckKind::PubRel, 1, OK);
    bench.retain(peer, "t", "zero", 0, 0);
    let reader = bench.connect(&Hello::clean("b"));
    bench.subscribe(reader, "t", 2);
    let got = bench.take_publish(reader);
    assert_eq!(
        (got.payload.as_str(), got.qos, got.retain),
        ("zero", 0, true)
    );
}

/// Trap 29. Retained messages are delivered with the lower of their own and the granted QoS.
#[test]
fn a_retained_message_keeps_its_qos() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.retain(peer, "t", "x", 1, 1);
    for (granted, expected) in [(0, 0), (1, 1), (2, 1)] {
        let reader = bench.connect(&Hello::clean("b"));
        bench.subscribe(reader, "t", granted);
        assert_eq!(bench.take_publish(reader).qos, expected);
    }
}

/// Trap 30. [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11]
#[test]
fn an_empty_retained_message_clears_and_is_forwarded() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.retain(peer, "t", "x", 0, 0);
    bench.subscribe(peer, "t", 0);
    bench.take_all(peer);
    bench.retain(peer, "t", "", 0, 0);
    assert_eq!(bench.payloads(peer), [""]);
    assert!(bench.broker.retained("t").is_none());
    bench.restart(0);
    assert!(bench.broker.retained("t").is_none());
}

/// Trap 31. [MQTT5-3.3.1-8] [MQTT3-3.3.1-12]
#[test]
fn a_message_without_retain_leaves_the_retained_one_alone() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.retain(peer, "t", "x", 0, 0);
    bench.publish(peer, "t", "", 0, 0);
    assert!(bench.broker.retained("t").is_some());
}

/// Trap 32. [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
#[test]
fn retain_handling_decides_when_retained_messages_are_sent() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.retain(peer, "t", "x", 0, 0);
    let handling = |retain_handling, qos| SubscribeOptions {
        retain_handling,
        ..options(qos)
    };
    bench.subscribe_with(peer, "t", handling(RetainHandling::DoNotSend, 0), None);
    assert_eq!(bench.payloads(peer), [""; 0]);
    bench.subscribe_with(peer, "t", handling(RetainHandling::SendIfNew, 1), Some(5));
    assert_eq!(bench.payloads(peer), [""; 0]);
    bench.subscribe_with(peer, "t", handling(RetainHandling::SendAlways, 0), None);
    assert_eq!(bench.payloads(peer), ["x"]);
    bench.unsubscribe(peer, "t");
    bench.subscribe_with(peer, "t", handling(RetainHandling::SendIfNew, 0), None);
    assert_eq!(bench.payloads(peer), ["x"]);
}

/// Trap 33. [MQTT5-3.3.1-12] [MQTT5-3.3.1-13] [MQTT3-3.3.1-8] [MQTT3-3.3.1-9]
#[test]
fn retain_as_published_keeps_the_flag_of_live_messages() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    let keeps = SubscribeOptions {
        retain_as_published: true,
        ..options(0)
    };
    bench.subscribe_with(peer, "kept/#", keeps, None);
    bench.subscribe(peer, "cleared/#", 0);
    let old = bench.connect(&Hello::v3("b", true));
    bench.subscribe(old, "kept/t", 0);
    bench.retain(peer, "kept/t", "x", 0, 0);
    bench.retain(peer, "cleared/t", "x", 0, 0);
    assert!(bench.take_publish(peer).retain);
    assert!(!bench.take_publish(peer).retain);
    assert!(!bench.take_publish(old).retain);
    bench.subscribe(peer, "cleared/t", 0);
    assert!(bench.take_publish(peer).retain);
}

/// Trap 34. [MQTT5-3.3.2-2] [MQTT3-3.3.2-2] and section 3.3.2.1
#[test]
fn wildcards_and_empty_topics_in_publish_close() {
    for version in [V3, V5] {
        for topic in ["a/+", "#", ""] {
            let mut bench = Bench::default();
            let peer = bench.connect(&Hello {
                version,
                ..Hello::clean("a")
            });
            bench.send(peer, &publish(topic, "x", 0, 0));
            assert!(bench.closed(peer).is_some(), "{topic:?}");
        }
    }
}

/// Trap 35. [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn message_expiry_counts_down_in_the_queue_and_expired_messages_are_dropped() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 1);
    bench.cut(reader);
    let peer = bench.connect(&Hello::clean("a"));
    bench.send(peer, &expiring("t", "short", 1, 1, 5));
    bench.send(peer, &expiring("t", "long", 1, 2, 20));
    bench.publish(peer, "t", "forever", 1, 3);
    bench.pass(5_000);
    let reader = bench.connect(&Hello::durable("reader"));
    let long = bench.take_publish(reader);
    assert_eq!((long.payload.as_str(), long.expiry_s), ("long", Some(15)));
    assert_eq!(bench.payloads(reader), ["forever"]);
}

/// Trap 35, for retained messages and wills, whose interval starts with their publication.
#[test]
fn message_expiry_counts_down_for_retained_messages_and_wills() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello {
        will: Some(Will {
            retain: true,
            message_expiry_s: Some(10),
            ..will("w", "will", 0).unwrap()
        }),
        ..Hello::clean("a")
    });
    let Packet::Publish(mut retained) = expiring("r", "x", 0, 0, 10) else {
        panic!()
    };
    retained.retain = true;
    bench.send(peer, &Packet::Publish(retained));
    bench.pass(4_000);
    bench.cut(peer);
    bench.pass(3_000);
    let reader = bench.connect(&Hello::clean("b"));
    bench.subscribe(reader, "r", 0);
    assert_eq!(bench.take_publish(reader).expiry_s, Some(3));
    bench.subscribe(reader, "w", 0);
    assert_eq!(bench.take_publish(reader).expiry_s, Some(7));
    bench.pass(3_000);
    bench.subscribe(reader, "r", 0);
    assert_eq!(bench.take_all(reader), []);
}

/// Trap 36. [MQTT5-4.3.3-7] [MQTT5-4.3.3-13]
#[test]
fn once_sent_a_qos_2_message_no_longer_expires() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 2);
    let peer = bench.connect(&Hello::clean("a"));
    bench.send(peer, &expiring("t", "x", 2, 1, 5));
    let sent = bench.take_publish(reader);
    bench.cut(reader);
    bench.pass(60_000);
    let reader = bench.connect(&Hello::durable("reader"));
    let again = bench.take_publish(reader);
    assert_eq!(
        (again.id, again.dup, again.payload.as_str()),
        (sent.id, true, "x")
    );
}

/// Trap 38. [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]
#[test]
fn aliases_towards_a_client_are_those_it_can_resolve() {
    let mut bench = Bench::new(Limits {
        topic_alias_max: 2,
        ..Limits::default()
    });
    let publisher = bench.connect(&Hello::clean("p"));
    for topic_alias_max in [0, 1, 9] {
        let hello = Hello {
            topic_alias_max,
            ..Hello::durable("a")
        };
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "plant/#", 1);
        let mut known = std::collections::HashMap::new();
        let (mut named, mut highest) = (0, 0);
        for round in 0..30 {
            for topic in ["plant/7/valve", "plant/7/pressure", "plant/8/valve"] {
                bench.publish(publisher, topic, topic, round % 2, u16::from(round % 2));
                let got = bench.take_publish(peer);
                bench.ack(peer, AckKind::PubAck, got.id.max(1), OK);
                highest = highest.max(got.alias.unwrap_or(0));
                if !got.topic.is_empty() {
                    named += 1;
                    known.insert(got.alias, got.topic.clone());
                }
                let resolved = match got.alias {
                    Some(_) => known.get(&got.alias).cloned(),
                    None => Some(got.topic),
                };
                assert_eq!(resolved.as_deref(), Some(got.payload.as_str()));
            }
        }
        // [MQTT5-3.1.2-26] [MQTT5-3.1.2-27], and never above our own limit.
        assert_eq!(highest, topic_alias_max.min(2));
        match topic_alias_max {
            0 => assert_eq!(named, 90),
            _ => assert!(named < 70, "{named} of 90 sent by name"),
        }
        bench.take_all(publisher);
        bench.cut(peer);
    }
}

/// Mappings end with the connection [MQTT5-3.3.2-7]; a packet that was not written sets none.
#[test]
fn an_alias_is_set_again_after_a_reconnect_and_after_a_packet_that_did_not_fit() {
    let mut bench = Bench::default();
    let publisher = bench.connect(&Hello::clean("p"));
    let hello = Hello {
        topic_alias_max: 5,
        packet_bytes_max: Some(60),
        ..Hello::durable("a")
    };
    let peer = bench.connect(&hello);
    bench.subscribe(peer, "plant/7/valve", 1);
    bench.publish(publisher, "plant/7/valve", &"x".repeat(100), 1, 1);
    for (id, expected) in [(2, ("plant/7/valve", Some(1))), (3, ("", Some(1)))] {
        bench.publish(publisher, "plant/7/valve", "1", 1, id);
        let got = bench.take_publish(peer);
        assert_eq!((got.topic.as_str(), got.alias), expected);
    }
    let peer = bench.connect(&hello);
    let again: Vec<_> = std::iter::from_fn(|| bench.take(peer)).collect();
    let topics: Vec<_> = again
        .iter()
        .map(|got| match got {
            Got::Publish(publish) => (publish.topic.as_str(), publish.alias, publish.dup),
            _ => ("another packet", None, false),
        })
        .collect();
    assert_eq!(
        topics,
        [("plant/7/valve", Some(1), true), ("", Some(1), true)]
    );
}

/// Trap 37. [MQTT5-3.3.2-7] [MQTT5-3.3.2-9] [MQTT5-3.3.2-12], and trap 38: an alias is not passed on.
#[test]
fn inbound_aliases_are_resolved_and_never_forwarded() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::clean("reader"));
    bench.subscribe(reader, "#", 0);
    let peer = bench.connect(&Hello::durable("a"));
    let alias = |number| PublishProperties {
        topic_alias: NonZeroU16::new(number),
        ..PublishProperties::default()
    };
    bench.send(peer, &with_properties("one", "1", alias(3)));
    bench.send(peer, &with_properties("", "2", alias(3)));
    bench.send(peer, &with_properties("two", "3", alias(3)));
    bench.send(peer, &with_properties("", "4", alias(3)));
    for topic in ["one", "one", "two", "two"] {
        let got = bench.take_publish(reader);
        assert_eq!((got.topic.as_str(), got.alias), (topic, None));
    }
    // Aliases end with the connection, not with the session.
    let peer = bench.connect(&Hello::durable("a"));
    bench.send(peer, &with_properties("", "5", alias(3)));
    assert_eq!(
        bench.closed(peer),
        Some(Close::Violation(Violation::TopicAliasUnknown))
    );
    let peer = bench.connect(&Hello::durable("a"));
    bench.send(peer, &with_properties("t", "6", alias(65)));
    assert_eq!(
        bench.take(peer),
        Some(Got::Disconnect(ReasonCode::TopicAliasInvalid))
    );
}

/// Trap 39. [MQTT5-3.3.2-4] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
#[test]
fn forwarded_properties_arrive_unaltered_through_queue_and_restart() {
    // Content type, user properties in order and twice, correlation data, payload format.
    let block = [
        0x03, 0, 1, b'c', 0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 0, 0, 0, 0x26, 0, 1, b'k', 0, 1,
        b'v', 0x09, 0, 2, 0, 255, 0x01, 1,
    ];
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 1);
    bench.cut(reader);
    let peer = bench.connect(&Hello::clean("a"));
    let Packet::Publish(mut packet) = publish("t", "x", 1, 1) else {
        panic!()
    };
    packet.retain = true;
    packet.properties.forwarded = Forwarded::from_block(&block);
    bench.send(peer, &Packet::Publish(packet));
    bench.restart(0);
    let reader = bench.connect(&Hello::durable("reader"));
    assert_eq!(bench.take_publish(reader).forwarded, block);
    let other = bench.connect(&Hello::clean("other"));
    bench.subscribe(other, "t", 0);
    assert_eq!(bench.take_publish(other).forwarded, block);
}

/// Trap 40. [MQTT5-3.3.2-14]
#[test]
fn a_response_topic_with_wildcards_closes() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.send_bytes(peer, &[0x30, 9, 0, 1, b't', 4, 0x08, 0, 1, b'#', b'x']);
    assert!(bench.closed(peer).is_some());
}

/// Trap 41. [MQTT5-3.3.4-6]
#[test]
fn a_subscription_identifier_from_a_client_closes() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    let properties = PublishProperties {
        subscription_ids: SubscriptionIds::from_list(&[1]),
        ..PublishProperties::default()
    };
    bench.send(peer, &with_properties("t", "x", properties));
    assert_eq!(
        bench.closed(peer),
        Some(Close::Violation(Violation::SubscriptionIdInPublish))
    );
}

/// Trap 42. [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4] [MQTT5-3.3.4-5]
#[test]
fn overlapping_subscriptions_give_one_copy_with_all_identifiers_and_the_highest_qos() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.subscribe_with(peer, "a/#", options(0), Some(7));
    bench.subscribe_with(peer, "a/+", options(2), Some(9));
    bench.subscribe_with(peer, "a/b", options(1), None);
    bench.publish(peer, "a/b", "x", 1, 1);
    assert_eq!(bench.take(peer), Some(Got::Ack("PUBACK", 1, OK)));
    let mut got = bench.take_publish(peer);
    got.subscription_ids.sort_unstable();
    assert_eq!((got.qos, got.subscription_ids), (1, vec![7, 9]));
    assert_eq!(bench.take_all(peer), []);
}

/// Trap 43. [MQTT5-3.3.4-9] [MQTT5-3.3.4-10] [MQTT5-4.9.0-2] [MQTT5-4.9.0-3]
#[test]
fn receive_maximum_holds_back_qos_1_and_2_and_nothing_else() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello {
        receive_maximum: Some(1),
        ..Hello::durable("reader")
    });
    bench.subscribe(reader, "t", 2);
    let peer = bench.connect(&Hello::clean("a"));
    bench.publish(peer, "t", "1", 2, 1);
    bench.publish(peer, "t", "2", 1, 2);
    bench.publish(peer, "t", "3", 0, 0);
    assert_eq!(bench.payloads(reader), ["1", "3"]);
    bench.send(reader, &Packet::PingReq);
    assert_eq!(bench.take(reader), Some(Got::PingResp));
    bench.ack(reader, AckKind::PubRec, 1, OK);
    assert_eq!(bench.take_all(reader), [Got::Ack("PUBREL", 1, OK)]);
    bench.ack(reader, AckKind::PubComp, 1, OK);
    assert_eq!(bench.payloads(reader), ["2"]);
}

/// Trap 43. The quota starts full on every connection, and what is sent again counts; PUBREL and QoS 0 do not wait for it.
#[test]
fn a_resumed_session_with_a_smaller_receive_maximum_moves_on() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 2);
    let peer = bench.connect(&Hello::clean("a"));
    bench.publish(peer, "t", "1", 2, 1);
    bench.publish(peer, "t", "2", 2, 2);
    bench.cut(reader);
    let reader = bench.connect(&Hello {
        receive_maximum: Some(1),
        ..Hello::durable("reader")
    });
    assert_eq!(bench.payloads(reader), ["1"]);
    bench.publish(peer, "t", "zero", 0, 0);
    assert_eq!(bench.payloads(reader), ["zero"]);
    bench.ack(reader, AckKind::PubRec, 1, OK);
    assert_eq!(bench.take_all(reader), [Got::Ack("PUBREL", 1, OK)]);
    bench.ack(reader, AckKind::PubComp, 1, OK);
    assert_eq!(bench.payloads(reader), ["2"]);
}

/// Trap 44. Section 3.3.4: more than the server's Receive Maximum.
#[test]
fn too_many_unacknowledged_publishes_close_with_0x93() {
    let mut bench = Bench::new(Limits {
        receive_maximum: NonZeroU16::new(2).unwrap(),
        ..Limits::default()
    });
    let peer = bench.connect(&Hello::durable("a"));
    for id in 1..=2 {
        bench.publish(peer, "t", "x", 2, id);
    }
    assert_eq!(bench.closed(peer), None);
    // The same id again is not one more.
    bench.send(peer, &repeated("t", "x", 2, 2));
    assert_eq!(bench.closed(peer), None);
    bench.take_all(peer);
    bench.publish(peer, "t", "x", 2, 3);
    assert_eq!(
        bench.take(peer),
        Some(Got::Disconnect(ReasonCode::ReceiveMaximumExceeded))
    );
}

/// Trap 45. [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn a_message_too_big_for_the_client_is_dropped_and_holds_nothing_up() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello {
        packet_bytes_max: Some(40),
        receive_maximum: Some(1),
        ..Hello::durable("reader")
    });
    bench.subscribe(reader, "t", 2);
    let peer = bench.connect(&Hello::clean("a"));
    let big = "x".repeat(100);
    bench.publish(peer, "t", &big, 2, 1);
    bench.publish(peer, "t", &big, 1, 2);
    bench.publish(peer, "t", &big, 0, 0);
    bench.publish(peer, "t", "small", 1, 3);
    assert_eq!(bench.payloads(reader), ["small"]);
    bench.restart(0);
    let reader = bench.connect(&Hello::durable("reader"));
    assert_eq!(bench.payloads(reader), ["small"]);
}

/// Trap 46. Section 3.2.2.3.6
#[test]
fn a_packet_above_the_announced_maximum_closes_by_its_header() {
    let mut bench = Bench::new(Limits {
        packet_bytes_max: 100,
        ..Limits::default()
    });
    let peer = bench.connect(&Hello::clean("a"));
    bench.send_bytes(peer, &[0x30, 0xff, 0x01]);
    assert_eq!(
        bench.take(peer),
        Some(Got::Disconnect(ReasonCode::PacketTooLarge))
    );
}

// ---- acknowledgements and sessions ----

/// Trap 47. [MQTT5-4.3.3-10] [MQTT5-4.3.3-12]
#[test]
fn a_repeated_qos_2_publish_is_forwarded_once_also_over_a_reconnect_and_a_restart() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 2);
    let peer = bench.connect(&Hello::durable("a"));
    bench.publish(peer, "t", "x", 2, 1);
    assert_eq!(bench.take(peer), Some(Got::Ack("PUBREC", 1, OK)));
    bench.send(peer, &repeated("t", "x", 2, 1));
    assert_eq!(bench.take(peer), Some(Got::Ack("PUBREC", 1, OK)));
    let peer = bench.connect(&Hello::durable("a"));
    bench.send(peer, &repeated("t", "x", 2, 1));
    assert_eq!(bench.take(peer), Some(Got::Ack("PUBREC", 1, OK)));
    assert_eq!(bench.payloads(reader), ["x"]);
    bench.restart(0);
    let reader = bench.connect(&Hello::durable("reader"));
    let peer = bench.connect(&Hello::durable("a"));
    bench.send(peer, &repeated("t", "x", 2, 1));
    assert_eq!(bench.take(peer), Some(Got::Ack("PUBREC", 1, OK)));
    assert_eq!(bench.payloads(reader), ["x"]);
    bench.ack(peer, AckKind::PubRel, 1, OK);
    assert_eq!(bench.take(peer), Some(Got::Ack("PUBCOMP", 1, OK)));
    bench.publish(peer, "t", "new", 2, 1);
    assert_eq!(bench.payloads(reader), ["new"]);
}

/// Trap 48. [MQTT5-4.3.3-11]
#[test]
fn pubrel_for_an_unknown_id_is_answered_and_the_connection_stays() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.ack(peer, AckKind::PubRel, 9, OK);
    assert_eq!(
        bench.take(peer),
        Some(Got::Ack("PUBCOMP", 9, ReasonCode::PacketIdentifierNotFound))
    );
    let old = bench.connect(&Hello::v3("b", true));
    bench.ack(old, AckKind::PubRel, 9, OK);
    assert_eq!(bench.take(old), Some(Got::Ack("PUBCOMP", 9, OK)));
    assert_eq!((bench.closed(peer), bench.closed(old)), (None, None));
}

/// Trap 49. [MQTT5-4.4.0-1] [MQTT3-4.4.0-1]
#[test]
fn on_resume_unacknowledged_publishes_and_pubrels_go_out_again_in_order_before_new_messages() {
    for hello in [Hello::durable("reader"), Hello::v3("reader", false)] {
        let mut bench = Bench::default();
        let reader = bench.connect(&hello);
        bench.subscribe(reader, "t", 2);
        let peer = bench.connect(&Hello::clean("a"));
        for (id, qos) in [(1, 1), (2, 2), (3, 1)] {
            bench.publish(peer, "t", &id.to_string(), qos, id);
        }
        bench.ack(reader, AckKind::PubRec, 2, OK);
        bench.take_all(reader);
        bench.pass(600_000);
        assert_eq!(
            bench.take_all(reader),
            [],
            "nothing is sent again on a living connection"
        );
        bench.cut(reader);
        bench.publish(peer, "t", "new", 1, 4);
        let reader = bench.connect(&hello);
        let first = bench.take_publish(reader);
        assert_eq!(
            (first.payload.as_str(), first.id, first.dup),
            ("1", 1, true)
        );
        assert_eq!(bench.take(reader), Some(Got::Ack("PUBREL", 2, OK)));
        let third = bench.take_publish(reader);
        assert_eq!(
            (third.payload.as_str(), third.id, third.dup),
            ("3", 3, true)
        );
        let new = bench.take_publish(reader);
        assert_eq!((new.payload.as_str(), new.dup), ("new", false));
    }
}

/// Trap 50. [MQTT5-4.4.0-2] [MQTT5-4.3.3-4]
#[test]
fn an_error_in_puback_or_pubrec_ends_the_exchange() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello {
        receive_maximum: Some(1),
        ..Hello::durable("reader")
    });
    bench.subscribe(reader, "t", 2);
    let peer = bench.connect(&Hello::clean("a"));
    for (id, qos) in [(1, 1), (2, 2), (3, 1)] {
        bench.publish(peer, "t", &id.to_string(), qos, id);
    }
    assert_eq!(bench.payloads(reader), ["1"]);
    bench.ack(reader, AckKind::PubAck, 1, ReasonCode::QuotaExceeded);
    assert_eq!(bench.payloads(reader), ["2"]);
    bench.ack(reader, AckKind::PubRec, 2, ReasonCode::UnspecifiedError);
    assert_eq!(bench.payloads(reader), ["3"]);
    bench.restart(0);
    let reader = bench.connect(&Hello::durable("reader"));
    assert_eq!(bench.payloads(reader), ["3"]);
}

/// Trap 51. [MQTT5-4.6.0-5] [MQTT5-4.6.0-6] [MQTT3-4.6.0-6]
#[test]
fn order_is_kept_when_a_stored_queue_meets_live_traffic() {
    let mut bench = Bench::new(Limits {
        mailbox_memory_bytes: 0,
        inflight_messages_max: 3,
        ..Limits::default()
    });
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 1);
    bench.cut(reader);
    let peer = bench.connect(&Hello::clean("a"));
    for id in 1..=20 {
        bench.publish(peer, "t", &id.to_string(), 1, id);
    }
    let reader = bench.connect(&Hello::durable("reader"));
    let mut seen = Vec::new();
    for id in 21..=60 {
        if id <= 30 {
            bench.publish(peer, "t", &id.to_string(), 1, id);
        }
        for got in bench.take_all(reader) {
            let Got::Publish(got) = got else { panic!() };
            bench.ack(reader, AckKind::PubAck, got.id, OK);
            seen.push(got.payload);
        }
    }
    assert_eq!(seen, (1..=30).map(|id| id.to_string()).collect::<Vec<_>>());
}

/// Trap 52. [MQTT5-3.14.4-3] [MQTT3-3.14.4-3] [MQTT5-3.1.2-10]
#[test]
fn only_a_normal_disconnect_discards_the_will() {
    let mut bench = Bench::default();
    let watcher = bench.connect(&Hello::clean("watcher"));
    bench.subscribe(watcher, "w", 0);
    let hello = Hello {
        will: will("w", "will", 0),
        ..Hello::durable("a")
    };
    let peer = bench.connect(&hello);
    bench.send(peer, &disconnect(OK));
    assert_eq!(bench.take_all(watcher), []);
    for code in [ReasonCode::DisconnectWithWill, ReasonCode::QuotaExceeded] {
        let peer = bench.connect(&hello);
        bench.send(peer, &disconnect(code));
        assert_eq!(bench.payloads(watcher), ["will"]);
    }
    let peer = bench.connect(&Hello {
        will: None,
        ..hello
    });
    bench.cut(peer);
    assert_eq!(bench.take_all(watcher), [], "the old will is gone");
}

/// Trap 53. [MQTT5-3.1.2-8] [MQTT5-3.1.3-9]
#[test]
fn a_delayed_will_is_published_on_time_or_cancelled() {
    let hello = Hello {
        will: will("w", "will", 10),
        ..Hello::durable("a")
    };
    let start = || {
        let mut bench = Bench::default();
        let watcher = bench.connect(&Hello::clean("watcher"));
        bench.subscribe(watcher, "w", 0);
        let peer = bench.connect(&hello);
        bench.cut(peer);
        bench.pass(9_999);
        assert_eq!(bench.take_all(watcher), []);
        (bench, watcher)
    };
    let (mut bench, watcher) = start();
    bench.pass(1);
    assert_eq!(bench.payloads(watcher), ["will"]);
    // A reconnect in time cancels it.
    let (mut bench, watcher) = start();
    bench.connect(&Hello::durable("a"));
    bench.pass(60_000);
    assert_eq!(bench.take_all(watcher), []);
    // A clean start ends the session: at once.
    let (mut bench, watcher) = start();
    bench.connect(&Hello::clean("a"));
    assert_eq!(bench.payloads(watcher), ["will"]);
}

/// Trap 53. The end of the session comes first.
#[test]
fn a_delayed_will_is_published_at_the_latest_when_the_session_ends() {
    let mut bench = Bench::default();
    let watcher = bench.connect(&Hello::clean("watcher"));
    bench.subscribe(watcher, "w", 0);
    let peer = bench.connect(&Hello {
        will: will("w", "will", 100),
        expiry_s: Some(10),
        ..Hello::durable("a")
    });
    bench.cut(peer);
    bench.pass(10_000);
    assert_eq!(bench.payloads(watcher), ["will"]);
}

/// Trap 53. A will of a session that was connected when power was lost.
#[test]
fn a_will_survives_power_loss_and_is_published_once() {
    let mut bench = Bench::default();
    let watcher = bench.connect(&Hello::durable("watcher"));
    bench.subscribe(watcher, "w", 1);
    bench.connect(&Hello {
        will: will("w", "will", 10),
        ..Hello::durable("a")
    });
    bench.restart(0);
    let watcher = bench.connect(&Hello::durable("watcher"));
    bench.pass(9_999);
    assert_eq!(bench.take_all(watcher), []);
    bench.pass(1);
    let got = bench.take_publish(watcher);
    assert_eq!(got.payload, "will");
    bench.ack(watcher, AckKind::PubAck, got.id, OK);
    bench.restart(0);
    let watcher = bench.connect(&Hello::durable("watcher"));
    bench.pass(60_000);
    assert_eq!(bench.take_all(watcher), []);
}

/// Trap 54. Section 3.14.2.2.2
#[test]
fn disconnect_changes_the_expiry_but_not_from_zero() {
    let leave = |expiry_s| {
        let mut packet = Disconnect::new(OK);
        packet.session_expiry_s = Some(expiry_s);
        Packet::Disconnect(packet)
    };
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.send(peer, &leave(10));
    assert_eq!(
        bench.closed(peer),
        Some(Close::Violation(Violation::ExpiryFromZero))
    );
    let peer = bench.connect(&Hello::durable("b"));
    bench.send(peer, &leave(0));
    assert!(!bench.connect_for(&Hello::durable("b")).1);
}

// ---- SUBSCRIBE and UNSUBSCRIBE ----

/// Trap 55. [MQTT5-3.8.3-4] [MQTT5-3.8.3-5] [MQTT3-3.8.3-4] [MQTT5-3.8.3-2] [MQTT5-3.10.3-2]
#[test]
fn reserved_subscribe_options_and_empty_lists_close() {
    let v3: [&[u8]; 4] = [
        &[0x82, 6, 0, 1, 0, 1, b't', 0x04],
        &[0x82, 6, 0, 1, 0, 1, b't', 0x03],
        &[0x82, 2, 0, 1],
        &[0xa2, 2, 0, 1],
    ];
    let v5: [&[u8]; 5] = [
        &[0x82, 7, 0, 1, 0, 0, 1, b't', 0x40],
        &[0x82, 7, 0, 1, 0, 0, 1, b't', 0x03],
        &[0x82, 7, 0, 1, 0, 0, 1, b't', 0x30],
        &[0x82, 3, 0, 1, 0],
        // No Local with a shared subscription.
        &[
            0x82, 16, 0, 1, 0, 0, 10, b'$', b's', b'h', b'a', b'r', b'e', b'/', b'g', b'/', b't',
            0x04,
        ],
    ];
    for (version, cases) in [(V3, v3.as_slice()), (V5, v5.as_slice())] {
        for bytes in cases {
            let mut bench = Bench::default();
            let peer = bench.connect(&Hello {
                version,
                ..Hello::clean("a")
            });
            bench.send_bytes(peer, bytes);
            assert!(bench.closed(peer).is_some(), "{bytes:02x?}");
        }
    }
}

/// Trap 56. [MQTT5-3.9.3-1] [MQTT5-3.11.3-1] [MQTT3-3.8.4-5] [MQTT5-3.10.4-5]; trap 58. refused filters; trap 59. shared ones.
#[test]
fn each_filter_has_its_code_in_order() {
    let filters = [
        ("a", options(1)),
        ("a+", options(1)),
        ("#/a", options(0)),
        ("b/#", options(2)),
        ("$share//t", options(0)),
    ];
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.send(peer, &subscribe(5, &filters, None));
    assert_eq!(
        bench.take(peer),
        Some(Got::SubAck(5, vec![1, 0x8f, 0x8f, 2, 0x8f]))
    );
    assert_eq!(
        bench.unsubscribe(peer, "none"),
        Some(Got::UnsubAck(2, vec![0x11]))
    );
    assert_eq!(
        bench.unsubscribe(peer, "a"),
        Some(Got::UnsubAck(2, vec![0]))
    );
    let old = bench.connect(&Hello::v3("b", true));
    bench.send(old, &subscribe(5, &filters, None));
    assert_eq!(
        bench.take(old),
        Some(Got::SubAck(5, vec![1, 0x80, 0x80, 2, 0x80]))
    );
    assert_eq!(
        bench.unsubscribe(old, "none"),
        Some(Got::UnsubAck(2, vec![]))
    );
}

/// Trap 57. [MQTT5-3.8.4-3] [MQTT5-3.8.4-4] [MQTT3-3.8.4-3]
#[test]
fn the_same_filter_again_replaces_the_subscription() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.subscribe_with(peer, "t", options(0), Some(7));
    bench.subscribe_with(peer, "t", options(1), None);
    bench.publish(peer, "t", "x", 1, 1);
    assert_eq!(bench.take(peer), Some(Got::Ack("PUBACK", 1, OK)));
    let got = bench.take_publish(peer);
    assert_eq!((got.qos, got.subscription_ids), (1, vec![]));
    assert_eq!(bench.take_all(peer), []);
}

/// Trap 58. [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.2-1]
#[test]
fn filters_match_as_written() {
    for (filter, topic, matches) in [
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("/+", "/", true),
        ("+", "/", false),
        ("a/+/b", "a//b", true),
        ("a/+", "a/b/c", false),
        ("#", "a", true),
        ("+/b", "a/b", true),
    ] {
        let mut bench = Bench::default();
        let peer = bench.connect(&Hello::clean("a"));
        bench.retain(peer, topic, "retained", 0, 0);
        bench.subscribe(peer, filter, 0);
        bench.publish(peer, topic, "live", 0, 0);
        let expected: &[&str] = if matches { &["retained", "live"] } else { &[] };
        assert_eq!(bench.payloads(peer), expected, "{filter} {topic}");
    }
}

/// Contracts section 7, [MQTT5-4.7.2-1]: `$SYS` is never writable.
#[test]
fn topics_with_a_dollar_are_refused_to_publishers() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.publish(peer, "$SYS/x", "x", 1, 1);
    assert_eq!(
        bench.take(peer),
        Some(Got::Ack("PUBACK", 1, ReasonCode::NotAuthorized))
    );
    let old = bench.connect(&Hello::v3("b", true));
    bench.publish(old, "$SYS/x", "x", 1, 1);
    assert!(bench.closed(old).is_some());
}

/// [MQTT5-3.8.3-3]
#[test]
fn no_local_leaves_out_the_clients_own_messages() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    let no_local = SubscribeOptions {
        no_local: true,
        ..options(0)
    };
    bench.subscribe_with(peer, "t", no_local, None);
    let other = bench.connect(&Hello::clean("b"));
    bench.publish(peer, "t", "own", 0, 0);
    bench.publish(other, "t", "other", 0, 0);
    assert_eq!(bench.payloads(peer), ["other"]);
}

// ---- contracts section 3: when what may leave ----

fn held() -> Bench {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 2);
    bench.cut(reader);
    bench
}

/// PUBACK and PUBREC leave when their record is durable, in the order received [MQTT5-4.6.0-2] [MQTT5-4.6.0-3].
#[test]
fn puback_and_pubrec_wait_for_the_commit() {
    let mut bench = held();
    let peer = bench.connect(&Hello::clean("a"));
    bench.holds_commits = true;
    bench.publish(peer, "t", "1", 1, 1);
    bench.publish(peer, "t", "2", 2, 2);
    bench.publish(peer, "nobody", "3", 1, 3);
    assert_eq!(bench.take_all(peer), []);
    bench.journal.begin_commit(1);
    bench.settle();
    assert_eq!(bench.take_all(peer), []);
    bench.journal.end_commit();
    bench.settle();
    assert_eq!(bench.take_all(peer), [Got::Ack("PUBACK", 1, OK)]);
    bench.commit();
    let nobody = ReasonCode::NoMatchingSubscribers;
    assert_eq!(
        bench.take_all(peer),
        [Got::Ack("PUBREC", 2, OK), Got::Ack("PUBACK", 3, nobody)]
    );
}

/// A QoS 1 message goes to its receiver at once; acknowledged by all, its record is elided (section 4).
#[test]
fn an_acknowledged_delivery_elides_the_pending_record() {
    let mut bench = held();
    let reader = bench.connect(&Hello::durable("reader"));
    let peer = bench.connect(&Hello::clean("a"));
    bench.holds_commits = true;
    bench.publish(peer, "t", "1", 1, 1);
    assert_eq!(bench.payloads(reader), ["1"]);
    assert_eq!(bench.take_all(peer), []);
    bench.ack(reader, AckKind::PubAck, 1, OK);
    bench.settle();
    assert_eq!(bench.take_all(peer), [Got::Ack("PUBACK", 1, OK)]);
}

/// A message received at QoS 2 is delivered after the commit of its id, whatever the receiver's QoS.
#[test]
fn a_message_received_at_qos_2_waits_for_its_id_for_every_receiver() {
    let mut bench = held();
    let zero = bench.connect(&Hello::clean("zero"));
    bench.subscribe(zero, "t", 0);
    let one = bench.connect(&Hello::clean("one"));
    bench.subscribe(one, "t", 1);
    let peer = bench.connect(&Hello::durable("a"));
    bench.holds_commits = true;
    bench.publish(peer, "t", "x", 2, 1);
    assert_eq!(
        (bench.take_all(zero), bench.take_all(one)),
        (vec![], vec![])
    );
    bench.commit();
    assert_eq!(
        (bench.payloads(zero), bench.payloads(one)),
        (vec!["x".to_owned()], vec!["x".to_owned()])
    );
}

/// PUBCOMP leaves when the removal of the id is durable; a repeated PUBREL waits for the same.
#[test]
fn pubcomp_waits_for_the_removal_of_the_id() {
    let mut bench = held();
    let peer = bench.connect(&Hello::durable("a"));
    bench.publish(peer, "t", "x", 2, 1);
    bench.take_all(peer);
    bench.holds_commits = true;
    bench.ack(peer, AckKind::PubRel, 1, OK);
    bench.ack(peer, AckKind::PubRel, 1, OK);
    assert_eq!(bench.take_all(peer), []);
    bench.commit();
    assert_eq!(
        bench.take_all(peer),
        [Got::Ack("PUBCOMP", 1, OK), Got::Ack("PUBCOMP", 1, OK)]
    );
}

/// PUBREL leaves when "PUBREC received" is durable, in the order of the PUBRECs [MQTT5-4.6.0-4].
#[test]
fn pubrel_waits_for_the_release() {
    let mut bench = held();
    let peer = bench.connect(&Hello::clean("a"));
    bench.publish(peer, "t", "1", 2, 1);
    bench.publish(peer, "t", "2", 2, 2);
    let reader = bench.connect(&Hello::durable("reader"));
    assert_eq!(bench.payloads(reader), ["1", "2"]);
    bench.holds_commits = true;
    bench.ack(reader, AckKind::PubRec, 2, OK);
    bench.ack(reader, AckKind::PubRec, 1, OK);
    assert_eq!(bench.take_all(reader), []);
    bench.commit();
    assert_eq!(
        bench.take_all(reader),
        [Got::Ack("PUBREL", 2, OK), Got::Ack("PUBREL", 1, OK)]
    );
}

/// SUBACK, UNSUBACK and CONNACK of a durable session wait for their records.
#[test]
fn suback_unsuback_and_connack_of_durable_sessions_wait_for_the_commit() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::durable("a"));
    bench.holds_commits = true;
    bench.send(peer, &subscribe(1, &[("t", options(1))], None));
    assert_eq!(bench.unsubscribe(peer, "t"), None);
    bench.commit();
    assert_eq!(
        bench.take_all(peer),
        [Got::SubAck(1, vec![1]), Got::UnsubAck(2, vec![0])]
    );
    let new = bench.open(V5);
    bench.send_bytes(new, &Hello::durable("a").bytes());
    assert_eq!(bench.take_all(new), []);
    bench.commit();
    assert_eq!(bench.take_all(new), [Got::ConnAck(true, OK)]);
}

/// CONNACK with session present 0 waits until the old state is gone from disk, however it ended.
#[test]
fn session_present_zero_waits_for_the_end_of_the_old_session() {
    for takes_over in [true, false] {
        let mut bench = Bench::default();
        let old = bench.connect(&Hello::durable("a"));
        bench.holds_commits = true;
        if !takes_over {
            let mut packet = Disconnect::new(OK);
            packet.session_expiry_s = Some(0);
            bench.send(old, &Packet::Disconnect(packet));
        }
        let new = bench.open(V5);
        bench.send_bytes(new, &Hello::clean("a").bytes());
        assert_eq!(bench.take_all(new), [], "{takes_over}");
        bench.commit();
        assert_eq!(bench.take_all(new), [Got::ConnAck(false, OK)]);
    }
}

/// A failed record is never taken for a durable one.
#[test]
fn nothing_that_waits_leaves_when_the_journal_fails() {
    let mut bench = held();
    let zero = bench.connect(&Hello::clean("zero"));
    bench.subscribe(zero, "t", 0);
    let old = bench.connect(&Hello::clean("old"));
    bench.publish(old, "t", "1", 2, 1);
    bench.take_all(zero);
    let reader = bench.connect(&Hello::durable("reader"));
    bench.take_all(reader);
    let peer = bench.connect(&Hello::durable("a"));
    bench.holds_commits = true;
    bench.ack(reader, AckKind::PubRec, 1, OK);
    bench.publish(peer, "t", "2", 2, 1);
    bench.journal.fail(motemq_core::JournalFailure::Unknown);
    bench.settle();
    assert_eq!(bench.take_all(zero), []);
    assert!(!bench.take_all(reader).contains(&Got::Ack("PUBREL", 1, OK)));
    assert!(
        !bench
            .take_all(peer)
            .iter()
            .any(|got| matches!(got, Got::Ack(..)))
    );
    assert_eq!(bench.closed(peer), Some(Close::StoreFailed));
}

/// QoS 0, and receivers that are not durable, never touch the disk (section 1).
#[test]
fn volatile_traffic_writes_nothing() {
    let mut bench = Bench::default();
    let a = bench.connect(&Hello::clean("a"));
    let b = bench.connect(&Hello::v3("b", true));
    bench.holds_commits = true;
    for peer in [a, b] {
        bench.subscribe(peer, "t/#", 2);
    }
    for (qos, id) in [(0, 0), (1, 1), (2, 2)] {
        bench.publish(a, "t/x", "x", qos, id);
    }
    bench.ack(a, AckKind::PubRel, 2, OK);
    bench.cut(a);
    bench.cut(b);
    assert!(bench.journal.is_idle());
    assert_eq!(bench.journal.image(), Image::default());
}

// ---- limits ----

/// A full disk refuses what must be stored: 0x97, or the end of the connection before MQTT 5.
#[test]
fn a_full_disk_refuses_publishes_that_need_it() {
    let mut bench = held();
    let peer = bench.connect(&Hello::clean("a"));
    let old = bench.connect(&Hello::v3("b", true));
    bench.journal.set_room(Some(Room::Full));
    bench.publish(peer, "t", "x", 1, 1);
    bench.publish(peer, "t", "x", 2, 2);
    bench.publish(peer, "nobody", "x", 1, 3);
    let full = ReasonCode::QuotaExceeded;
    assert_eq!(
        bench.take_all(peer),
        [
            Got::Ack("PUBACK", 1, full),
            Got::Ack("PUBREC", 2, full),
            Got::Ack("PUBACK", 3, ReasonCode::NoMatchingSubscribers)
        ]
    );
    bench.publish(old, "t", "x", 1, 1);
    assert!(bench.closed(old).is_some());
}

/// Each policy of a full queue does what its name says.
#[test]
fn a_full_queue_follows_its_policy() {
    for (queue_full, expected, code) in [
        (QueueFull::DropOldest, ["2", "3"], OK),
        (QueueFull::DropNewest, ["1", "2"], OK),
        (QueueFull::Refuse, ["1", "2"], ReasonCode::QuotaExceeded),
        (QueueFull::Disconnect, ["1", "2"], OK),
    ] {
        let mut bench = Bench::new(Limits {
            queue_messages_max: 2,
            queue_full,
            ..Limits::default()
        });
        let reader = bench.connect(&Hello::durable("reader"));
        bench.subscribe(reader, "t", 1);
        bench.cut(reader);
        let peer = bench.connect(&Hello::clean("a"));
        for id in 1..=3 {
            bench.publish(peer, "t", &id.to_string(), 1, id);
        }
        assert_eq!(
            bench.take_all(peer).last(),
            Some(&Got::Ack("PUBACK", 3, code)),
            "{queue_full:?}"
        );
        let reader = bench.connect(&Hello::durable("reader"));
        assert_eq!(bench.payloads(reader), expected, "{queue_full:?}");
    }
}

/// A limit of queues that changes holds for queues that are there already; one that was told to a client, from its next
/// CONNECT on.
#[test]
fn changed_limits_hold_without_a_restart() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "t", 1);
    bench.cut(reader);
    let peer = bench.connect(&Hello::clean("a"));
    bench.publish(peer, "t", "1", 1, 1);
    let limits = Limits {
        queue_messages_max: 2,
        queue_full: QueueFull::Refuse,
        receive_maximum: NonZeroU16::new(7).unwrap(),
        ..Limits::default()
    };
    bench.broker.set_limits(Arc::new(limits));
    for id in 2..=3 {
        bench.publish(peer, "t", &id.to_string(), 1, id);
    }
    let refused = Got::Ack("PUBACK", 3, ReasonCode::QuotaExceeded);
    assert_eq!(bench.take_all(peer).last(), Some(&refused));
    let reader = bench.connect(&Hello::durable("reader"));
    assert_eq!(bench.payloads(reader), ["1", "2"]);
    assert_eq!(bench.broker.limits().receive_maximum.get(), 7);
}

/// A slow reader stops nobody else, and gets everything in order once it reads again.
#[test]
fn a_slow_reader_is_served_later() {
    let mut bench = Bench::default();
    let slow = bench.connect(&Hello::durable("slow"));
    bench.subscribe(slow, "t", 1);
    let quick = bench.connect(&Hello::clean("quick"));
    bench.subscribe(quick, "t", 0);
    bench.set_slow(slow, true);
    for id in 1..=3 {
        bench.publish(quick, "t", &id.to_string(), 1, id);
    }
    assert_eq!(bench.take_all(slow), []);
    assert_eq!(bench.take_all(quick).len(), 6);
    bench.set_slow(slow, false);
    assert_eq!(bench.payloads(slow), ["1", "2", "3"]);
}

/// A CONNECT that is refused for lack of room changes nothing: the living connection and its session stay.
#[test]
fn a_connect_refused_by_a_full_disk_takes_nothing_over() {
    let mut bench = Bench::default();
    let old = bench.connect(&Hello::clean("a"));
    bench.journal.set_room(Some(Room::Full));
    let new = bench.open(V5);
    bench.send_bytes(new, &Hello::durable("a").bytes());
    let full = ReasonCode::QuotaExceeded;
    assert_eq!(bench.take(new), Some(Got::ConnAck(false, full)));
    assert_eq!(bench.closed(old), None);
    bench.send(old, &Packet::PingReq);
    assert_eq!(bench.take(old), Some(Got::PingResp));
}

/// Every limit of the core is counted under its key when it is reached.
#[test]
fn every_limit_is_counted_when_it_is_reached() {
    let limits = Limits {
        packet_bytes_max: 300,
        payload_bytes_max: 100,
        connect_packet_bytes_max: 250,
        receive_maximum: NonZeroU16::MIN,
        queue_messages_max: 2,
        queue_bytes_max: 150,
        session_expiry_max_s: 60,
        keep_alive_max_s: 10,
        topic_levels_max: 3,
        topic_alias_max: 1,
        subscriptions_max: 2,
        subscription_bytes_max: 20,
        retained_messages_max: 2,
        retained_bytes_max: 150,
        sessions_max: 5,
        identity_sessions_max: 3,
        identity_connections_max: 2,
        ..Limits::default()
    };
    let x = |length: usize| "x".repeat(length);
    let attempt = |limit: Limit| {
        let mut limits = limits.clone();
        match limit {
            Limit::PublishRate => limits.publish_rate.messages = 1,
            Limit::ClientRetainedMessages => limits.client_retained_messages_max = 1,
            Limit::ClientRetainedBytes => limits.client_retained_bytes_max = 10,
            _ => {}
        }
        let mut bench = Bench::new(limits);
        let peer = bench.connect(&Hello::clean("a"));
        match limit {
            Limit::PacketBytes => bench.send_bytes(peer, &[0x30, 0xff, 0x02]),
            Limit::ConnectPacketBytes => {
                let new = bench.open(V5);
                bench.send_bytes(new, &[0x10, 0xff, 0x01]);
            }
            Limit::PayloadBytes => bench.publish(peer, "t", &x(101), 0, 0),
            Limit::ReceiveMaximum => {
                bench.publish(peer, "t", "x", 2, 1);
                bench.publish(peer, "t", "x", 2, 2);
            }
            Limit::QueueMessages | Limit::QueueBytes => {
                let reader = bench.connect(&Hello::durable("reader"));
                bench.subscribe(reader, "t", 1);
                bench.cut(reader);
                let length = if limit == Limit::QueueBytes { 90 } else { 1 };
                for id in 1..=3 {
                    bench.publish(peer, "t", &x(length), 1, id);
                }
            }
            Limit::SessionExpiry => {
                let reader = bench.connect(&Hello::durable("reader"));
                bench.cut(reader);
            }
            Limit::KeepAlive => {
                let quiet = bench.connect(&Hello {
                    keep_alive_s: 11,
                    ..Hello::clean("b")
                });
                bench.cut(quiet);
            }
            Limit::TopicLevels => bench.publish(peer, "a/b/c/d", "x", 0, 0),
            Limit::TopicAlias => bench.send(
                peer,
                &with_properties(
                    "t",
                    "x",
                    PublishProperties {
                        topic_alias: NonZeroU16::new(2),
                        ..PublishProperties::default()
                    },
                ),
            ),
            Limit::Subscriptions => {
                let filters = ["a", "b", "c"].map(|filter| (filter, options(0)));
                bench.send(peer, &subscribe(1, &filters, None));
            }
            Limit::SubscriptionBytes => {
                bench.send(peer, &subscribe(1, &[(&x(21), options(0))], None));
            }
            Limit::PublishRate => {
                for _ in 0..3 {
                    bench.publish(peer, "t", "x", 0, 0);
                }
            }
            Limit::Memory => {
                let pressure = bench.broker.pressure();
                pressure.set(PressureLevel::SlowPublishers, 0);
                for _ in 0..2 {
                    bench.publish(peer, "t", "x", 0, 0);
                }
            }
            Limit::Sessions => {
                for id in ["b", "c", "d", "e", "f"] {
                    let new = bench.open(V5);
                    bench.send_bytes(new, &Hello::clean(id).bytes());
                }
            }
            Limit::IdentitySessions | Limit::IdentityConnections => {
                bench.verdict = Verdict::Accepted {
                    login: Identity::User("u".into()).into(),
                    entropy: 1,
                };
                for id in ["b", "c", "d", "e"] {
                    let new = bench.open(V5);
                    bench.send_bytes(new, &Hello::durable(id).bytes());
                    if limit == Limit::IdentitySessions {
                        bench.cut(new);
                    }
                }
            }
            Limit::ClientRetainedMessages | Limit::ClientRetainedBytes => {
                let length = if limit == Limit::ClientRetainedBytes {
                    9
                } else {
                    1
                };
                for topic in ["a", "b"] {
                    bench.retain(peer, topic, &x(length), 0, 0);
                }
            }
            Limit::RetainedMessages => {
                for topic in ["a", "b", "c"] {
                    bench.retain(peer, topic, "x", 0, 0);
                }
            }
            Limit::RetainedBytes => {
                for topic in ["a", "b"] {
                    bench.retain(peer, topic, &x(90), 0, 0);
                }
            }
            Limit::EnrolmentRequests | Limit::EnrolmentRequestBytes | Limit::Applicants => {
                bench.broker.set_enrolment(Some(Enrolment {
                    signer: "s".into(),
                    request_bytes_max: 100,
                    requests_max: 1,
                    applicants_max: 0,
                    connection_max_s: 60,
                }));
                bench.publish(peer, "$certs/csr", &x(100), 0, 0);
                bench.publish(peer, "$certs/csr", "", 0, 0);
                bench.verdict = Verdict::Accepted {
                    login: Login {
                        scope: Scope::Enrolment,
                        ..Identity::Anonymous.into()
                    },
                    entropy: 1,
                };
                let new = bench.open(V5);
                bench.send_bytes(new, &Hello::clean("b").bytes());
            }
            Limit::Store => {
                bench.journal.set_room(Some(Room::Full));
                bench.retain(peer, "t", "x", 1, 1);
            }
        }
        bench.cut(peer);
        Limit::ALL.map(|limit| bench.broker.counters().reached(limit) > 0)
    };
    for limit in Limit::ALL {
        let reached: Vec<_> = Limit::ALL
            .into_iter()
            .zip(attempt(limit))
            .filter_map(|(limit, is_reached)| is_reached.then_some(limit.label()))
            .collect();
        assert!(reached.contains(&limit.label()), "{limit:?}: {reached:?}");
    }
}
