//! What decoding and encoding cost: small packets, as a broker meets them most.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark may fail loudly"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use motemq_codec::{Decoded, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS};
use std::hint::black_box;

const TOPIC: &str = "sensors/12345/temp/c";
const PAYLOAD: &[u8] = &[b'x'; 32];

criterion_group!(benches, decode, encode);
criterion_main!(benches);

fn decode(criterion: &mut Criterion) {
    for (name, version, qos) in publish_cases() {
        let wire = encoded(&publish(qos), version);
        criterion.bench_function(&format!("decode PUBLISH {name}"), |bencher| {
            bencher.iter(|| consume(motemq_codec::decode(black_box(&wire), version, 1 << 20)));
        });
    }
    let connect = b"\x10\x2C\x00\x04MQTT\x05\xC2\x00\x3C\x05\x11\x00\x00\x00\x3C\
        \x00\x0Csensor-12345\x00\x04user\x00\x06secret";
    criterion.bench_function("decode CONNECT 5", |bencher| {
        bencher.iter(|| consume(motemq_codec::decode_connect(black_box(connect), 1 << 20)));
    });
    let subscribe = b"\x82\x21\x00\x01\x00\x00\x0Esensors/+/temp\x01\x00\x0Aactors/#/x\x02";
    criterion.bench_function("decode SUBSCRIBE 5, 2 filters", |bencher| {
        let version = ProtocolVersion::V5;
        bencher.iter(|| consume(motemq_codec::decode(black_box(subscribe), version, 1 << 20)));
    });
    let puback = b"\x40\x02\x00\x01";
    criterion.bench_function("decode PUBACK 5", |bencher| {
        let version = ProtocolVersion::V5;
        bencher.iter(|| consume(motemq_codec::decode(black_box(puback), version, 1 << 20)));
    });
}

fn encode(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(1024);
    for (name, version, qos) in publish_cases() {
        let publish = publish(qos);
        criterion.bench_function(&format!("encode PUBLISH {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&publish).encode(version, &mut out).unwrap();
                black_box(out.len())
            });
        });
    }
}

fn publish_cases() -> [(&'static str, ProtocolVersion, QoS); 4] {
    [
        ("3.1.1 QoS 0", ProtocolVersion::V3_1_1, QoS::AtMostOnce),
        ("3.1.1 QoS 1", ProtocolVersion::V3_1_1, QoS::AtLeastOnce),
        ("5 QoS 0", ProtocolVersion::V5, QoS::AtMostOnce),
        ("5 QoS 1", ProtocolVersion::V5, QoS::AtLeastOnce),
    ]
}

fn publish(qos: QoS) -> Publish<'static> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: TOPIC,
        packet_id: PacketId::new(7).filter(|_| qos != QoS::AtMostOnce),
        properties: PublishProperties::default(),
        payload: PAYLOAD,
    }
}

fn encoded(publish: &Publish<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    publish.encode(version, &mut out).unwrap();
    out
}

/// Makes sure that the packet is good, and that its fields have to be there.
fn consume(decoded: Result<Decoded<'_>, motemq_codec::DecodeError>) -> usize {
    match decoded {
        Ok(Decoded::Packet { packet, length }) => {
            if let Packet::Publish(publish) = &packet {
                black_box((publish.topic, publish.payload));
            }
            black_box(&packet);
            length
        }
        other => panic!("{other:?}"),
    }
}
