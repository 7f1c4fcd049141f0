//! A4, A5: properties that are wrong, and properties without end.

use crate::framing::{assert_grown_below, header};
use crate::site::Site;
use motemq_codec::ProtocolVersion;
use motemq_tests::peer::{Got, Hello};
use motemq_tests::socket::Client;
use std::time::Duration;

#[test]
fn a4_wrong_properties_end_the_connection_and_leave_nothing_behind() {
    let site = Site::start();
    // The first round fills caches; the others must not cost more.
    let round = |site: &Site| {
        for block in blocks() {
            for (first, head, tail) in packets() {
                run(site, first, &head, &block, &tail);
            }
        }
    };
    round(&site);
    let before = site.memory();
    for _ in 0..9 {
        round(&site);
    }
    // 12,000 connections: half a kilobyte left by each would show. The rest is the allocator's and the bystander's store.
    assert_grown_below(&site, before, 6 << 20);
    site.finish();
}

/// Sends a packet with these properties. The answer is checked by the client's own reading; the connection always ends.
fn run(site: &Site, first: u8, head: &[u8], block: &[u8], tail: &[u8]) {
    let mut client = Client::open(site.port(), ProtocolVersion::V5);
    if first != 0x10 {
        client.send_bytes(&Hello::clean("properties").bytes());
    }
    let mut body = head.to_vec();
    body.extend(&header(block.len() as u8, 0)[..1]);
    body.extend(block);
    body.extend(tail);
    client.send_bytes(&header(first, body.len() as u32));
    client.send_bytes(&body);
    client.finish_sending();
    let got = client.take_all();
    match (first, got.as_slice()) {
        (0x10, [] | [Got::ConnAck(..), ..]) => {}
        (0x10, _) => panic!("{block:02x?} in CONNECT: {got:?}"),
        (_, [Got::ConnAck(..), ..]) => {}
        _ => panic!("{block:02x?} in {first:#x}: {got:?}"),
    }
}

/// Property blocks: every identifier with every kind of value, twice, and lengths that lie.
fn blocks() -> Vec<Vec<u8>> {
    let values: [&[u8]; 5] = [&[], &[1], &[0, 1], &[0, 0, 0, 1], &[0, 1, b'k', 0, 1, b'v']];
    let mut blocks = Vec::new();
    for id in (0..=0x2b).chain([0x7e, 0x7f, 0xff]) {
        for value in values {
            let property = [&[id], value].concat();
            blocks.push([property.clone(), property.clone()].concat());
            if value.len() == 4 {
                blocks.push(property);
                blocks.push(vec![id, 0xff, 0xff, b'x']);
            }
        }
    }
    blocks
}

/// First byte, what precedes the property length, what follows the properties: CONNECT, CONNECT with a will whose properties
/// they are, PUBLISH, SUBSCRIBE.
fn packets() -> [(u8, Vec<u8>, Vec<u8>); 4] {
    let connect = b"\x00\x04MQTT\x05\x02\x00\x00";
    let will = b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c";
    [
        (0x10, connect.to_vec(), b"\x00\x01c".to_vec()),
        (0x10, will.to_vec(), b"\x00\x01w\x00\x01!".to_vec()),
        (0x30, b"\x00\x01t".to_vec(), b"!".to_vec()),
        (0x82, b"\x00\x01".to_vec(), b"\x00\x01f\x00".to_vec()),
    ]
}

#[test]
fn a5_user_properties_cost_time_in_proportion_to_their_number() {
    let site = Site::start();
    let subscriber = Hello::clean("subscriber");
    let mut subscriber = Client::connect(site.port(), &subscriber);
    assert_eq!(subscriber.subscribe("flood", 0), 0);
    // Four times the properties, a quarter of the packets: a cost per pair of them would show as a factor of four.
    let _warm = flood(&site, &mut subscriber, 2_000, 20);
    let few = flood(&site, &mut subscriber, 2_000, 800);
    let many = flood(&site, &mut subscriber, 8_000, 200);
    println!("2,000 each: {few:?}, 8,000 each: {many:?}");
    assert!(many < few * 3 + Duration::from_millis(100));
    site.finish();
}

/// CONNECTs and PUBLISHes with `count` user properties of seven bytes; the broker's CPU time for them.
fn flood(site: &Site, subscriber: &mut Client, count: usize, packets: u16) -> Duration {
    let properties = b"\x26\x00\x01k\x00\x01v".repeat(count);
    let length = header(0, properties.len() as u32);
    let packet = |first: u8, head: &[u8], tail: &[u8]| {
        let body = [head, &length[1..], &properties, tail].concat();
        [header(first, body.len() as u32), body].concat()
    };
    let connect = packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x00", b"\x00\x05flood");
    let publish = packet(0x30, b"\x00\x05flood", b"!");
    let before = site.cpu();
    for _ in 0..packets {
        let mut client = Client::open(site.port(), ProtocolVersion::V5);
        client.send_bytes(&connect);
        assert!(matches!(client.take(), Some(Got::ConnAck(false, _))));
        client.send_bytes(&publish);
        let received = subscriber.take_publish();
        // [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]: all of them, in order.
        assert_eq!(received.forwarded, properties);
    }
    site.cpu().saturating_sub(before)
}
