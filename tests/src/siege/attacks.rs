//! The attacks. Each says what it has done.

use super::{Plan, until};
use crate::peer::{Hello, encoded, options, publish, subscribe};
use motemq_codec::{Ack, Packet, ProtocolVersion, ReasonCode};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) type Attack = fn(u16, Plan) -> String;

/// Nothing: what the machine does without an attack.
pub(super) fn nothing(_: u16, plan: Plan) -> String {
    std::thread::sleep(plan.hold);
    String::new()
}

/// 1,000 sockets announce 256 MB, half of them before CONNECT and half behind it, and send a byte now and then.
pub(super) fn announce(port: u16, plan: Plan) -> String {
    let bomb = [0x10, 0xff, 0xff, 0xff, 0x7f];
    let mut sockets = Vec::new();
    for number in 0..1000_u32 {
        let Ok(mut socket) = connect(port, number) else {
            continue;
        };
        if number % 2 == 0 {
            let _ = socket.write_all(&Hello::clean(&format!("bomber-{number}")).bytes());
            let _ = socket.write_all(&[0x30]);
        }
        let _ = socket.write_all(bomb.get(usize::from(number % 2 == 0)..).unwrap_or_default());
        sockets.push(socket);
    }
    let goes_on = until(plan.hold);
    let mut sent = 0;
    while goes_on() {
        for socket in &mut sockets {
            sent += u64::from(socket.write_all(b"x").is_ok());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    format!(
        "{} sockets, {sent} bytes behind their announcements",
        sockets.len()
    )
}

/// Half a CONNECT on as many sockets as there may be; those that are closed come again.
pub(super) fn half_open(port: u16, plan: Plan) -> String {
    let half = Hello::clean("half").bytes();
    let half = half.get(..half.len() / 2).unwrap_or_default();
    let goes_on = until(plan.hold * 2);
    let mut sockets = std::collections::VecDeque::new();
    let (mut opened, mut number) = (0_u64, 0_u32);
    while goes_on() {
        number += 1;
        if sockets.len() >= plan.half_open {
            // The oldest has been closed long ago.
            sockets.pop_front();
        }
        match connect(port, number) {
            Ok(mut socket) => {
                let _ = socket.write_all(half);
                opened += 1;
                sockets.push_back(socket);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    format!("{opened} opened, {} held", sockets.len())
}

/// Packets of every type, cut, lengthened or changed, each on a connection of its own.
pub(super) fn malformed(port: u16, plan: Plan) -> String {
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let sent = &sent;
            scope.spawn(move || {
                let mut dice = Pcg64::seed_from_u64(thread.into());
                while sent.fetch_add(1, Ordering::Relaxed) < plan.malformed {
                    let _ = send_malformed(port, thread, &mut dice);
                }
            });
        }
    });
    format!("{} packets", plan.malformed)
}

fn send_malformed(port: u16, thread: u32, dice: &mut Pcg64) -> io::Result<()> {
    let version = match dice.random_range(0..2) {
        0 => ProtocolVersion::V3_1_1,
        _ => ProtocolVersion::V5,
    };
    let hello = Hello {
        version,
        ..Hello::clean("malformed")
    };
    let valid = valid_packets(version);
    let place = dice.random_range(0..=valid.len());
    let mut bytes = Vec::new();
    let mut packet = match valid.get(place) {
        None => hello.bytes(),
        Some(packet) => {
            bytes = hello.bytes();
            packet.clone()
        }
    };
    let index = dice.random_range(0..packet.len());
    match dice.random_range(0..4) {
        // What comes behind fills it up.
        0 => packet.truncate(index),
        1 => {
            if let Some(byte) = packet.get_mut(index) {
                *byte = byte.wrapping_add(dice.random_range(1..=255));
            }
        }
        2 => {
            if let Some(length) = packet.get_mut(1) {
                *length = length.wrapping_add(if dice.random() { 1 } else { u8::MAX }) & 0x7f;
            }
        }
        _ => packet.insert(index, dice.random()),
    }
    bytes.extend(packet);
    bytes.extend([0xff; 8]);
    let mut socket = connect(port, thread)?;
    socket.write_all(&bytes)?;
    // What became valid by chance would wait for more.
    socket.shutdown(std::net::Shutdown::Write)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut rest = [0; 512];
    while socket.read(&mut rest)? > 0 {}
    Ok(())
}

fn valid_packets(version: ProtocolVersion) -> Vec<Vec<u8>> {
    let ack = |kind: fn(Ack<'static>) -> Packet<'static>| {
        let id = crate::peer::packet_id(7);
        encoded(&kind(Ack::new(id, ReasonCode::Success)), version)
    };
    vec![
        encoded(&publish("siege/a", "payload", 0, 0), version),
        encoded(&publish("siege/a", "payload", 1, 7), version),
        encoded(&publish("siege/a", "payload", 2, 7), version),
        encoded(
            &subscribe(
                7,
                &[("siege/+/#", options(1)), ("$share/g/siege", options(2))],
                None,
            ),
            version,
        ),
        vec![0xa2, 5, 0, 7, 0, 1, b'a'],
        ack(Packet::PubAck),
        ack(Packet::PubRec),
        ack(Packet::PubRel),
        ack(Packet::PubComp),
        vec![0xc0, 0],
        vec![0xe0, 0],
        vec![0xf0, 2, 0x18, 0],
    ]
}

/// CONNECT and PUBLISH full of user properties.
pub(super) fn property_bombs(port: u16, plan: Plan) -> String {
    // 7 bytes each: the identifier, two lengths, a character and a character.
    let properties = [0x26, 0, 1, b'a', 0, 1, b'b'].repeat(9_000);
    let mut connect_packet = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60];
    put_length(properties.len(), &mut connect_packet);
    connect_packet.extend(&properties);
    connect_packet.extend([0, 1, b'p']);
    let mut publish_packet = vec![0, 1, b't'];
    put_length(properties.len(), &mut publish_packet);
    publish_packet.extend(&properties);
    let packets = [(0x10, connect_packet), (0x30, publish_packet)].map(|(first, body)| {
        let mut packet = vec![first];
        put_length(body.len(), &mut packet);
        packet.extend(body);
        packet
    });
    let goes_on = until(plan.hold);
    let (mut connects, mut publishes) = (0, 0);
    while goes_on() {
        let Ok(mut socket) = connect(port, connects) else {
            continue;
        };
        connects += 1;
        let [connect_packet, publish_packet] = &packets;
        let _ = socket.write_all(connect_packet);
        for _ in 0..20 {
            publishes += u32::from(socket.write_all(publish_packet).is_ok());
        }
    }
    format!("{connects} CONNECTs and {publishes} PUBLISHes of 63 kB of user properties")
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    let mut rest = length;
    loop {
        let byte = u8::try_from(rest % 128).unwrap_or_default();
        rest /= 128;
        out.push(byte | if rest > 0 { 0x80 } else { 0 });
        if rest == 0 {
            return;
        }
    }
}

/// 20 clients with every mixture of `+` and `x` over 12 levels, and publishes that match them all.
pub(super) fn wildcard_bombs(port: u16, plan: Plan) -> String {
    let mut sockets = Vec::new();
    let mixture = |bits: u32| {
        let level = |place: u32| if bits >> place & 1 == 1 { "+" } else { "x" };
        (0..12).map(level).collect::<Vec<_>>().join("/")
    };
    for number in 0..20 {
        let Ok(mut socket) = connect(port, number) else {
            continue;
        };
        let _ = socket.write_all(&Hello::clean(&format!("wild-{number}")).bytes());
        for chunk in (0..4096_u32).collect::<Vec<_>>().chunks(256) {
            let filters: Vec<String> = chunk.iter().map(|bits| mixture(*bits)).collect();
            let filters: Vec<_> = filters.iter().map(|f| (f.as_str(), options(0))).collect();
            let packet = subscribe(1, &filters, None);
            let _ = socket.write_all(&encoded(&packet, ProtocolVersion::V5));
        }
        sockets.push(socket);
    }
    let Ok(mut publisher) = connect(port, 99) else {
        return "no publisher".to_owned();
    };
    let _ = publisher.write_all(&Hello::clean("wild-publisher").bytes());
    let goes_on = until(plan.hold);
    let mut published = 0_u64;
    while goes_on() {
        // Another topic each time, so that nothing is remembered.
        let topic = format!("{}x{published}", "x/".repeat(11));
        let packet = publish(&topic, "m", 0, 0);
        if publisher
            .write_all(&encoded(&packet, ProtocolVersion::V5))
            .is_err()
        {
            break;
        }
        published += 1;
    }
    format!("{} filters, {published} topics", sockets.len() * 4096)
}

/// 500 clients subscribe to everything and read nothing, while four publish.
pub(super) fn slow_readers(port: u16, plan: Plan) -> String {
    let mut sockets = Vec::new();
    for number in 0..500 {
        let Ok(mut socket) = connect(port, number) else {
            continue;
        };
        let _ = SockRef::from(&socket).set_recv_buffer_size(4096);
        let _ = socket.write_all(&Hello::clean(&format!("slow-{number}")).bytes());
        let packet = subscribe(
            1,
            &[("siege/#", options(u8::try_from(number % 3).unwrap_or(0)))],
            None,
        );
        let _ = socket.write_all(&encoded(&packet, ProtocolVersion::V5));
        sockets.push(socket);
    }
    let published = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let published = &published;
            scope.spawn(move || {
                let goes_on = until(plan.hold * 2);
                let Ok(mut publisher) = connect(port, thread) else {
                    return;
                };
                let name = format!("flood-{thread}");
                let _ = publisher.write_all(&Hello::clean(&name).bytes());
                let _ = publisher.set_write_timeout(Some(Duration::from_millis(100)));
                let payload = "x".repeat(8192);
                let packet = publish("siege/flood", &payload, 0, 0);
                let packet = encoded(&packet, ProtocolVersion::V5);
                while goes_on() {
                    // What was written in part is written on, so that the packets stay whole.
                    let mut rest = packet.as_slice();
                    while !rest.is_empty() && goes_on() {
                        match publisher.write(rest) {
                            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                            Err(_) => return,
                        }
                    }
                    published.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let published = published.load(Ordering::Relaxed);
    format!(
        "{} readers, {published} messages of 8 KiB for each",
        sockets.len()
    )
}

/// A socket from one of many loopback addresses, so that ports do not run out; closing it leaves nothing behind.
fn connect(port: u16, number: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let [_, _, high, low] = (number % SOURCES).to_be_bytes();
    let source = Ipv4Addr::new(127, 7, high, low.max(1));
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket.into())
}

/// Addresses that the attackers come from.
const SOURCES: u32 = 16;
