//! A6: packets at the wrong time, or from the wrong side.

use crate::framing::assert_end;
use crate::site::Site;
use motemq_codec::{ProtocolVersion, ReasonCode};
use motemq_tests::peer::{Got, Hello, encoded, publish};
use motemq_tests::socket::Client;

#[test]
fn a6_packets_of_a_server_and_packets_out_of_turn_end_the_connection() {
    let site = Site::start();
    let second = Hello::clean("out-of-turn").bytes();
    let cases: [(&str, &[u8], ReasonCode); 14] = [
        ("CONNACK", &[0x20, 3, 0, 0, 0], ReasonCode::ProtocolError),
        ("SUBACK", &[0x90, 4, 0, 1, 0, 0], ReasonCode::ProtocolError),
        (
            "UNSUBACK",
            &[0xb0, 4, 0, 1, 0, 0],
            ReasonCode::ProtocolError,
        ),
        ("PINGRESP", &[0xd0, 0], ReasonCode::ProtocolError),
        ("a second CONNECT", &second, ReasonCode::ProtocolError),
        (
            "AUTH without a method",
            &[0xf0, 0],
            ReasonCode::ProtocolError,
        ),
        (
            "AUTH re-authenticate",
            &[0xf0, 2, 0x19, 0],
            ReasonCode::ProtocolError,
        ),
        ("type 0", &[0x00, 0], ReasonCode::MalformedPacket),
        (
            "PINGREQ with flags",
            &[0xc1, 0],
            ReasonCode::MalformedPacket,
        ),
        (
            "PUBREL without flags",
            &[0x60, 2, 0, 1],
            ReasonCode::MalformedPacket,
        ),
        (
            "QoS 3",
            &[0x36, 6, 0, 1, b't', 0, 1, 0],
            ReasonCode::MalformedPacket,
        ),
        // mosquitto: a topic without a character.
        (
            "an empty topic",
            &[0x30, 3, 0, 0, 0],
            ReasonCode::ProtocolError,
        ),
        (
            "packet id 0",
            &[0x32, 6, 0, 1, b't', 0, 0, 0],
            ReasonCode::ProtocolError,
        ),
        (
            "a wildcard",
            &[0x30, 4, 0, 1, b'#', 0],
            ReasonCode::TopicNameInvalid,
        ),
    ];
    for (what, bytes, code) in cases {
        println!("{what}");
        let mut client = Client::connect(site.port(), &Hello::clean("out-of-turn"));
        client.send_bytes(bytes);
        assert_end(&mut client, ProtocolVersion::V5, code);
    }
    site.finish();
}

#[test]
fn a6_version_3_1_1_closes_on_the_same() {
    let site = Site::start();
    let second = Hello::v3("out-of-turn", true).bytes();
    let cases: [&[u8]; 9] = [
        &[0x20, 2, 0, 0],
        &[0x90, 3, 0, 1, 0],
        &[0xb0, 2, 0, 1],
        &[0xd0, 0],
        &second,
        // AUTH does not exist here.
        &[0xf0, 0],
        &[0x00, 0],
        &[0x30, 2, 0, 0],
        &[0x32, 5, 0, 1, b't', 0, 0],
    ];
    for bytes in cases {
        let mut client = Client::connect(site.port(), &Hello::v3("out-of-turn", true));
        client.send_bytes(bytes);
        assert_eq!(client.take(), None, "{bytes:02x?}");
    }
    site.finish();
}

#[test]
fn a6_nothing_is_answered_before_connect() {
    let site = Site::start();
    let mut packets = vec![
        vec![0x20, 2, 0, 0],
        vec![0x82, 7, 0, 1, 0, 0, 1, b't', 1],
        vec![0xc0, 0],
        vec![0xe0, 0],
        vec![0xf0, 0],
        vec![0x00, 0],
    ];
    packets.push(encoded(
        &publish("bystander/own", "forged", 1, 1),
        ProtocolVersion::V5,
    ));
    for packet in packets {
        let mut stranger = Client::open(site.port(), ProtocolVersion::V5);
        // What follows must not be taken for a first packet either.
        stranger.send_bytes(&[packet.clone(), Hello::clean("late").bytes()].concat());
        assert_eq!(stranger.take(), None, "{packet:02x?}");
    }
    site.finish();
}

#[test]
fn a6_packets_behind_connect_in_one_segment_wait_for_connack() {
    let site = Site::start();
    let mut client = Client::open(site.port(), ProtocolVersion::V5);
    let hello = Hello::clean("hasty").bytes();
    client.send_bytes(&[hello.clone(), vec![0xc0, 0], hello].concat());
    assert_eq!(
        client.take(),
        Some(Got::ConnAck(false, ReasonCode::Success))
    );
    assert_eq!(client.take(), Some(Got::PingResp));
    assert_end(&mut client, ProtocolVersion::V5, ReasonCode::ProtocolError);
    site.finish();
}
