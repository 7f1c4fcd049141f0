use super::*;
use bytes::BytesMut;
use mqttbytes::{v4, v5};
use proptest::prelude::*;

#[test]
fn a_filled_template_is_what_mqttbytes_would_have_made() {
    for version in [Version::V4, Version::V5] {
        for qos in 0..=2 {
            for payload in [&b""[..], b"{}", &[7; 91], &[7; 130], &[7; 20_000]] {
                let mut frame = template(version, qos)
                    .fill(123_456, "id", 0, payload)
                    .unwrap();
                assert_eq!(quality_of(&frame), qos);
                set_id(&mut frame, 0xABCD);
                assert_eq!(&*frame, made_by_mqttbytes(version, qos, None, payload));
            }
        }
    }
}

#[test]
fn an_alias_is_put_in_as_mqttbytes_would_have_done() {
    for qos in 0..=2 {
        for payload in [&b""[..], b"{}", &[7; 99], &[7; 20_000]] {
            let mut frame = template(Version::V5, qos)
                .fill(123_456, "id", 0, payload)
                .unwrap();
            set_id(&mut frame, 0xABCD);
            for (naming, topic) in [
                (Naming::Introduction(300), "sim/0123abcd/123456/power"),
                (Naming::Alias(300), ""),
            ] {
                let mut out = Vec::new();
                write_publish(&frame, naming, &mut out);
                let expected = made_by_mqttbytes(Version::V5, qos, Some(topic), payload);
                assert_eq!(out, expected);
            }
            let mut out = Vec::new();
            write_publish(&frame, Naming::Topic, &mut out);
            assert_eq!(*out, *frame);
        }
    }
}

#[test]
fn a_repetition_differs_in_one_bit() {
    let mut frame = template(Version::V5, 2).fill(0, "id", 0, b"").unwrap();
    set_duplicate(&mut frame);
    assert_eq!(frame[0], 0x3C);
}

#[test]
fn packets_are_read_however_the_bytes_are_split() {
    for version in [Version::V4, Version::V5] {
        let packets = every_packet(version);
        let stream: Vec<u8> = packets
            .iter()
            .flat_map(|(bytes, _)| bytes.clone())
            .collect();
        let expected: Vec<Packet> = packets.into_iter().map(|(_, packet)| packet).collect();
        for piece in 1..=stream.len() {
            let mut reader = Reader::new(version);
            let mut read = Vec::new();
            for bytes in stream.chunks(piece) {
                reader.push(bytes);
                while let Some(packet) = reader.next_packet().unwrap() {
                    read.push(packet);
                }
            }
            assert_eq!(read, expected, "pieces of {piece}");
            assert_eq!(reader.capacity(), 0);
        }
    }
}

#[test]
fn what_a_broker_never_sends_is_an_error() {
    for version in [Version::V4, Version::V5] {
        assert_eq!(error(version, &[0x10, 0]), WireError::FirstByte(0x10));
        assert_eq!(error(version, &[0x60, 2, 0, 1]), WireError::FirstByte(0x60));
        assert_eq!(error(version, &[0xF0, 0]), WireError::FirstByte(0xF0));
        for malformed in [
            &[0x20, 3, 0, 0, 1][..],
            &[0x20, 1, 0],
            &[0x20, 2, 2, 0],
            &[0x32, 4, 0, 9, 0, 1],
            &[0x32, 6, 0, 1, b'a', 0, 0, 0],
            &[0x36, 4, 0, 1, b'a', 0],
            &[0x30, 3, 0, 0, 0],
            &[0x30, 4, 0, 1, 0xFF, 0],
            &[0x40, 1, 1],
            &[0x40, 2, 0, 0],
            &[0x40, 5, 0, 1, 0, 0, 0],
            &[0x90, 2, 0, 1],
            &[0xD0, 1, 0],
        ] {
            assert_eq!(
                error(version, malformed),
                WireError::Malformed(malformed[0]),
                "{malformed:?}"
            );
        }
        assert_eq!(
            error(version, &[0x30, 0x80, 0x80, 0x80, 0x80, 1]),
            WireError::RemainingLength
        );
        assert!(matches!(
            error(version, &[0x30, 0xFF, 0xFF, 0xFF, 0x7F]),
            WireError::TooLong(_)
        ));
    }
    assert_eq!(error(Version::V4, &[0xE0, 0]), WireError::FirstByte(0xE0));
    for malformed in [
        &b"\x20\x06\0\0\x03\x21\0\0"[..], // receive maximum 0
        b"\x20\x05\0\0\x02\x24\x02",      // maximum QoS 2
        b"\x20\x02\0\0",                  // accepted without properties
        b"\x30\x07\0\x01a\x03\x23\0\x01", // an alias that we never allowed
        b"\xe0\x02\0\x01",                // properties cut off
    ] {
        let error = error(Version::V5, malformed);
        assert_eq!(error, WireError::Malformed(malformed[0]), "{malformed:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn random_bytes_never_panic(v5: bool, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let whole = read_all(version, &bytes);
        let mut reader = Reader::new(version);
        let mut pieces = Ok(Vec::new());
        for byte in &bytes {
            reader.push(&[*byte]);
            while let Ok(packets) = &mut pieces {
                match reader.next_packet() {
                    Ok(Some(packet)) => packets.push(packet),
                    Ok(None) => break,
                    Err(error) => pieces = Err(error),
                }
            }
        }
        prop_assert_eq!(whole, pieces);
    }

    /// Nearly all random bytes fail in the fixed header; these have a good one.
    #[test]
    fn random_bodies_never_panic(
        v5: bool,
        first in prop::sample::select(&[0x20_u8, 0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x70, 0x90, 0xD0, 0xE0][..]),
        id in prop::sample::select(&[0x0B_u8, 0x11, 0x12, 0x13, 0x16, 0x1F, 0x21, 0x22, 0x24, 0x26][..]),
        mut body in prop::collection::vec(any::<u8>(), 0..40),
        has_properties: bool,
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        if has_properties && let Some(property) = body.get_mut(3) {
            *property = id;
        }
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend_from_slice(&body);
        let _ = read_all(version, &bytes);
        set_id(&mut bytes, 7);
        let _ = topic_of(&bytes);
        for naming in [Naming::Topic, Naming::Introduction(1), Naming::Alias(1)] {
            write_publish(&bytes, naming, &mut Vec::new());
        }
    }

    #[test]
    fn every_publish_of_ours_is_read_by_mqttbytes(
        v5: bool,
        qos in 0..=2_u8,
        device in 0..1_000_000_u32,
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let frame = template(version, qos).fill(device, "id", 0, &payload).unwrap();
        let mut buffer = BytesMut::from(&*frame);
        let (topic, read) = match v5 {
            false => match v4::read(&mut buffer, 1_000) {
                Ok(v4::Packet::Publish(publish)) => (publish.topic, publish.payload),
                other => panic!("{other:?}"),
            },
            true => match v5::read(&mut buffer, 1_000) {
                Ok(v5::Packet::Publish(publish)) => (publish.topic, publish.payload),
                other => panic!("{other:?}"),
            },
        };
        prop_assert_eq!(topic, format!("sim/0123abcd/{device:06}/power"));
        prop_assert_eq!(read, payload);
    }
}

fn read_all(version: Version, bytes: &[u8]) -> Result<Vec<Packet>, WireError> {
    let mut reader = Reader::new(version);
    reader.push(bytes);
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet()? {
        packets.push(packet);
    }
    Ok(packets)
}

fn error(version: Version, bytes: &[u8]) -> WireError {
    read_all(version, bytes).unwrap_err()
}

fn template(version: Version, qos: u8) -> Template {
    let pattern = "sim/{run}/{index}/power".parse().unwrap();
    Template::new(version, "0123abcd", "meters", pattern, qos).unwrap()
}

/// With this topic and the alias 300, or with the topic of device 123456 and no alias.
fn made_by_mqttbytes(version: Version, qos: u8, topic: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let quality = quality(qos);
    let name = topic.unwrap_or("sim/0123abcd/123456/power");
    let pkid = if qos == 0 { 0 } else { 0xABCD };
    let mut buffer = BytesMut::new();
    match version {
        Version::V4 => {
            let mut publish = v4::Publish::new(name, quality, payload);
            publish.pkid = pkid;
            publish.write(&mut buffer).unwrap();
        }
        Version::V5 => {
            let mut publish = v5::Publish::new(name, quality, payload);
            publish.pkid = pkid;
            publish.properties = topic.map(|_| v5::PublishProperties {
                payload_format_indicator: None,
                message_expiry_interval: None,
                topic_alias: Some(300),
                response_topic: None,
                correlation_data: None,
                user_properties: Vec::new(),
                subscription_identifiers: Vec::new(),
                content_type: None,
            });
            publish.write(&mut buffer).unwrap();
        }
    }
    buffer.to_vec()
}

fn every_packet(version: Version) -> Vec<(Vec<u8>, Packet)> {
    let ack = |id, reason| Ack { id, reason };
    let mut packets = vec![
        (vec![0x40, 2, 1, 2], Packet::PubAck(ack(0x0102, 0))),
        (vec![0x50, 2, 0, 2], Packet::PubRec(ack(2, 0))),
        (vec![0x62, 2, 0, 3], Packet::PubRel(3)),
        (vec![0x70, 2, 0, 4], Packet::PubComp(4)),
        (vec![0xD0, 0], Packet::PingResp),
    ];
    packets.extend(match version {
        Version::V4 => packets_of_v4(),
        Version::V5 => packets_of_v5(),
    });
    packets
}

fn packets_of_v4() -> Vec<(Vec<u8>, Packet)> {
    let mut long = vec![0x32, 0xB1, 0x02, 0, 1, b'a', 0, 9];
    long.extend_from_slice(&[0x55; 300]);
    vec![
        (vec![0x20, 2, 0, 0], connack(|_| ())),
        (
            vec![0x20, 2, 1, 5],
            connack(|connack| {
                connack.session_present = true;
                connack.code = 5;
            }),
        ),
        (vec![0x90, 4, 0, 1, 2, 0x80], suback(&[2, 0x80])),
        (vec![0x30, 5, 0, 1, b'a', 1, 2], publish(0, 0, &[1, 2])),
        (vec![0x3D, 6, 0, 1, b'a', 0, 7, 3], retained(2, 7, &[3])),
        (long, publish(1, 9, &[0x55; 300])),
    ]
}

fn packets_of_v5() -> Vec<(Vec<u8>, Packet)> {
    let refused = |id, reason| Ack { id, reason };
    let bytes = |bytes: &[u8]| bytes.to_vec();
    vec![
        (bytes(b"\x20\x03\0\0\0"), connack(|_| ())),
        // A broker of 3.1.1 only.
        (
            bytes(b"\x20\x02\0\x01"),
            connack(|connack| connack.code = 1),
        ),
        (
            bytes(b"\x20\x14\x01\0\x11\x21\0\x05\x22\0\x0a\x13\0\x3c\x24\x01\x12\0\x03abc"),
            connack(|connack| {
                connack.session_present = true;
                connack.receive_maximum = 5;
                connack.topic_alias_maximum = 10;
                connack.server_keep_alive_s = Some(60);
                connack.maximum_qos = 1;
                connack.assigned_client_id = Some("abc".to_owned());
            }),
        ),
        (
            bytes(b"\x20\x08\0\x87\x05\x1f\0\x02no"),
            connack(|connack| {
                connack.code = 0x87;
                connack.text = Some("no".to_owned());
            }),
        ),
        // MoteMQ's and mosquitto's usual properties: packet size, aliases, expiry, retain, wildcards.
        (
            bytes(b"\x20\x14\0\0\x11\x27\0\x10\0\0\x22\0\x0a\x11\0\0\0\x3c\x25\x01\x28\x01"),
            connack(|connack| connack.topic_alias_maximum = 10),
        ),
        (
            bytes(b"\x40\x03\0\x01\x10"),
            Packet::PubAck(refused(1, 0x10)),
        ),
        (
            bytes(b"\x40\x09\0\x01\x97\x05\x1f\0\x02ab"),
            Packet::PubAck(refused(1, 0x97)),
        ),
        (
            bytes(b"\x50\x04\0\x02\x87\0"),
            Packet::PubRec(refused(2, 0x87)),
        ),
        (bytes(b"\x62\x03\0\x02\x92"), Packet::PubRel(2)),
        (bytes(b"\x70\x04\0\x02\x92\0"), Packet::PubComp(2)),
        (bytes(b"\x90\x05\0\x01\0\x01\x87"), suback(&[1, 0x87])),
        (bytes(b"\x30\x06\0\x01a\0\x01\x02"), publish(0, 0, &[1, 2])),
        (
            bytes(b"\x3d\x0e\0\x01a\0\x07\x07\x0b\x01\x0b\x80\x01\x01\x01\x03"),
            retained(2, 7, &[3]),
        ),
        (bytes(b"\xe0\0"), disconnected(0, None)),
        (bytes(b"\xe0\x01\x8e"), disconnected(0x8E, None)),
        (bytes(b"\xe0\x02\x8b\0"), disconnected(0x8B, None)),
        (
            bytes(b"\xe0\x07\x97\x05\x1f\0\x02ab"),
            disconnected(0x97, Some("ab")),
        ),
    ]
}

fn connack(change: impl FnOnce(&mut ConnAck)) -> Packet {
    let mut connack = ConnAck::default();
    change(&mut connack);
    Packet::ConnAck(connack)
}

fn publish(qos: u8, id: u16, payload: &[u8]) -> Packet {
    Packet::Publish(Delivery::new(qos, id, false, "a", payload))
}

fn retained(qos: u8, id: u16, payload: &[u8]) -> Packet {
    Packet::Publish(Delivery::new(qos, id, true, "a", payload))
}

fn suback(codes: &[u8]) -> Packet {
    let codes = codes.to_vec();
    Packet::SubAck { id: 1, codes }
}

fn disconnected(reason: u8, text: Option<&str>) -> Packet {
    let text = text.map(str::to_owned);
    Packet::Disconnect { reason, text }
}
