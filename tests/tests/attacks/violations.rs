//! E3: what the specification forbids and other brokers let pass, sometimes into places where it means something else.

use crate::site::Site;
use motemq_codec::ProtocolVersion;
use motemq_tests::peer::Hello;
use motemq_tests::socket::Client;

const V3: ProtocolVersion = ProtocolVersion::V3_1_1;

#[test]
fn e3_a_connect_that_breaks_a_rule_lets_nobody_in() {
    let site = Site::start();
    let before = site.metric("mqtt_broker_sessions");
    let id = b"\0\x01a".as_slice();
    let (surrogate, nul, overlong) = (b"\0\x03\xed\xa0\x80", b"\0\x01\0", b"\0\x02\xc0\x80");
    let will = b"\0\x01t\0\x01m".as_slice();
    let cases: [(&str, u8, Vec<&[u8]>); 14] = [
        ("the reserved flag", 0b0000_0011, vec![id]),
        ("will QoS without a will", 0b0000_1010, vec![id]),
        ("will retain without a will", 0b0010_0010, vec![id]),
        ("will QoS 3", 0b0001_1110, vec![id, will]),
        (
            "a will topic with a wildcard",
            0b0000_0110,
            vec![id, b"\0\x01#\0\x01m"],
        ),
        ("an empty will topic", 0b0000_0110, vec![id, b"\0\0\0\x01m"]),
        (
            "a will topic with U+0000",
            0b0000_0110,
            vec![id, nul, b"\0\x01m"],
        ),
        ("a will that is cut", 0b0000_0110, vec![id, b"\0\x05t"]),
        (
            "a password without a user",
            0b0100_0010,
            vec![id, b"\0\x01p"],
        ),
        ("a user name that is missing", 0b1000_0010, vec![id]),
        ("a client id with a surrogate", 0b0000_0010, vec![surrogate]),
        ("a client id with U+0000", 0b0000_0010, vec![nul]),
        ("a client id in overlong UTF-8", 0b0000_0010, vec![overlong]),
        ("bytes behind the end", 0b0000_0010, vec![id, b"x"]),
    ];
    for (what, flags, payload) in cases {
        let payload = payload.concat();
        let mut packet = vec![0x10, u8::try_from(10 + payload.len()).unwrap()];
        packet.extend([0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 60]);
        packet.extend(payload);
        let mut client = Client::open(site.port(), V3);
        client.send_bytes(&packet);
        client.await_end();
        assert_eq!(site.metric("mqtt_broker_sessions"), before, "{what}");
    }
    for name in [b"\0\x04MQTX\x04", b"\0\x04mqtt\x04", b"\0\x04MQTT\x07"] {
        let mut packet = vec![0x10, 13];
        packet.extend(name);
        packet.extend([2, 0, 60, 0, 1, b'a']);
        let mut client = Client::open(site.port(), V3);
        client.send_bytes(&packet);
        client.await_end();
    }
    site.finish();
}

#[test]
fn e3_a_packet_that_breaks_a_rule_ends_its_connection_and_reaches_nobody() {
    let site = Site::start();
    let mut witness = Client::connect(site.port(), &Hello::clean("witness"));
    assert_eq!(witness.subscribe("#", 2), 2);
    let cases: [(&str, &[u8]); 17] = [
        ("QoS 3", b"\x36\x06\0\x01t\0\x01m"),
        ("DUP with QoS 0", b"\x38\x04\0\x01tm"),
        ("an empty topic", b"\x30\x03\0\0m"),
        ("a topic with +", b"\x30\x04\0\x01+m"),
        ("a topic with #", b"\x30\x06\0\x03a/#m"),
        ("a topic with U+0000", b"\x30\x04\0\x01\0m"),
        ("a topic with a surrogate", b"\x30\x06\0\x03\xed\xa0\x80m"),
        ("packet id 0", b"\x32\x06\0\x01t\0\0m"),
        ("SUBSCRIBE without its flags", b"\x80\x06\0\x01\0\x01a\0"),
        ("SUBSCRIBE without filters", b"\x82\x02\0\x01"),
        ("SUBSCRIBE with QoS 3", b"\x82\x06\0\x01\0\x01a\x03"),
        ("SUBSCRIBE with reserved bits", b"\x82\x06\0\x01\0\x01a\x40"),
        ("SUBSCRIBE with packet id 0", b"\x82\x06\0\0\0\x01a\0"),
        ("UNSUBSCRIBE without filters", b"\xa2\x02\0\x01"),
        ("PUBREL without its flags", b"\x60\x02\0\x01"),
        ("PUBACK with flags", b"\x42\x02\0\x01"),
        ("DISCONNECT with flags", b"\xe1\x00"),
    ];
    for (what, bytes) in cases {
        let mut client = Client::connect(site.port(), &Hello::v3("breaker", true));
        client.send_bytes(bytes);
        client.await_end();
        let seen = witness.ping().unwrap();
        assert!(
            seen.iter().all(|got| !format!("{got:?}").contains("\"m\"")),
            "{what}: {seen:?}"
        );
    }
    // The next client with that name is not troubled.
    let mut after = Client::connect(site.port(), &Hello::v3("breaker", true));
    assert_eq!(after.ping(), Some(Vec::new()));
    site.finish();
}
