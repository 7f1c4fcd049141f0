//! What the fuzz targets check. The codec's ordinary tests include this file and run the same
//! checks on the corpus, on mutations of it and on random bytes.
//!
//! `cargo fuzz run --fuzz-dir tests/fuzz decode`; the seeds of all targets are in `corpus/decode`.
//!
//! The first byte of an input chooses the protocol version, the others are what arrives.

use motemq_codec::{
    Connect, DecodeError, Decoded, Forwarded, Packet, ProtocolVersion, Publish, TopicFilter, Will,
    connect_version, decode_connect, parse_subscription,
};

const PACKET_BYTES_MAX: usize = 1 << 20;
const VERSIONS: [ProtocolVersion; 3] = [
    ProtocolVersion::V3_1,
    ProtocolVersion::V3_1_1,
    ProtocolVersion::V5,
];

/// Splits an input into a version and the bytes of a peer.
pub fn split(data: &[u8]) -> Option<(ProtocolVersion, &[u8])> {
    let (&choice, bytes) = data.split_first()?;
    let version = VERSIONS.get(usize::from(choice % 3))?;
    Some((*version, bytes))
}

/// Any bytes: a packet, a request for more, or an error, and never a panic.
pub fn decode(data: &[u8]) {
    let Some((version, bytes)) = split(data) else {
        return;
    };
    let decoded = motemq_codec::decode(bytes, version, PACKET_BYTES_MAX);
    match decoded {
        Ok(Decoded::Incomplete { needed }) => assert!(needed > 0),
        Ok(Decoded::Packet { packet, length }) => {
            check_length(bytes, version, length);
            walk(&packet);
        }
        Err(error) => assert!(error.reason_code().is_error()),
    }
    if let Ok(Decoded::Packet { packet, .. }) = decode_connect(bytes, PACKET_BYTES_MAX) {
        assert!(matches!(packet, Packet::Connect(connect)
            if connect_version(bytes) == Some(connect.version)));
    }
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(subscription) = parse_subscription(text)
    {
        check_filter(subscription.filter);
    }
}

/// A packet is as long as it says, however much follows it or is missing.
fn check_length(bytes: &[u8], version: ProtocolVersion, length: usize) {
    let (whole, _) = bytes.split_at(length);
    let exactly = motemq_codec::decode(whole, version, length);
    assert!(matches!(exactly, Ok(Decoded::Packet { length: again, .. }) if again == length));
    let too_large = motemq_codec::decode(whole, version, length - 1);
    assert_eq!(too_large, Err(DecodeError::PacketTooLarge));
    let (cut, _) = whole.split_at(length - 1);
    let cut = motemq_codec::decode(cut, version, PACKET_BYTES_MAX);
    assert_eq!(cut, Ok(Decoded::Incomplete { needed: 1 }));
}

/// Looks at everything in a packet that is only read on demand.
fn walk(packet: &Packet<'_>) {
    match packet {
        Packet::Publish(publish) => {
            let ids = publish.properties.subscription_ids;
            assert!(ids.iter().all(|id| (1..=268_435_455).contains(&id)));
            assert_eq!(ids.is_empty(), ids.iter().next().is_none());
            walk_forwarded(&publish.properties.forwarded);
        }
        Packet::Connect(connect) => {
            if let Some(will) = &connect.will {
                walk_forwarded(&will.forwarded);
            }
        }
        Packet::Subscribe(subscribe) => {
            assert!(subscribe.filters.iter().next().is_some());
            for filter in subscribe.filters.iter() {
                assert!(!filter.filter.is_empty());
                let _ = parse_subscription(filter.filter);
            }
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert!(unsubscribe.filters.iter().all(|filter| !filter.is_empty()));
        }
        _ => {}
    }
}

/// The block that goes on with a message says the same as the packet it came in.
fn walk_forwarded(forwarded: &Forwarded<'_>) {
    let mut block = Vec::new();
    forwarded.write_to(&mut block);
    assert_eq!(block.len(), forwarded.len());
    assert_eq!(block.is_empty(), forwarded.is_empty());
    let kept = Forwarded::from_block(&block);
    assert_eq!(kept, *forwarded);
    assert!(same_values(&kept, forwarded));
}

fn check_filter(filter: TopicFilter<'_>) {
    let name = filter.as_str().replace(['+', '#'], "x");
    let hidden = name.starts_with('$') != filter.as_str().starts_with('$');
    assert!(hidden || filter.matches(&name), "{filter} {name}");
    assert_eq!(filter.levels().count(), filter.as_str().split('/').count());
}

/// What decodes can be encoded again, and means the same then.
pub fn roundtrip(data: &[u8]) {
    let Some((version, bytes)) = split(data) else {
        return;
    };
    let decoded = motemq_codec::decode(bytes, version, PACKET_BYTES_MAX);
    let Ok(Decoded::Packet { packet, .. }) = decoded else {
        return;
    };
    let own_version = match &packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    for version in VERSIONS {
        let encoded = encode(&packet, version);
        if version != own_version {
            continue;
        }
        let encoded = encoded.expect("what came in this version can be said in it");
        let again = motemq_codec::decode(&encoded, version, PACKET_BYTES_MAX);
        let Ok(Decoded::Packet {
            packet: again,
            length,
        }) = again
        else {
            panic!("{packet:?} became {encoded:02x?}, which is {again:?}");
        };
        assert_eq!(again, packet);
        assert_eq!(length, encoded.len());
        assert_eq!(encode(&again, version), Some(encoded.clone()));
    }
}

/// The packet's bytes, after the checks every encoding has to pass.
fn encode(packet: &Packet<'_>, version: ProtocolVersion) -> Option<Vec<u8>> {
    let mut out = vec![0xAA];
    let result = packet.encode(version, &mut out);
    assert_eq!(out.first(), Some(&0xAA));
    let encoded = out.split_off(1);
    match result {
        Ok(()) => {
            assert_eq!(packet.encoded_len(version), Ok(encoded.len()));
            Some(encoded)
        }
        Err(error) => {
            assert_eq!(packet.encoded_len(version), Err(error));
            assert!(encoded.is_empty());
            None
        }
    }
}

/// The codec against mqttbytes 0.6.0, but for its known defects: where both can read a packet,
/// mqttbytes writes what it has read, and that is the same packet; where the codec refuses, and
/// mqttbytes is known to look, it refuses too.
pub fn differential(data: &[u8]) {
    let Some((version, bytes)) = split(data) else {
        return;
    };
    if version == ProtocolVersion::V3_1 || is_out_of_reach(bytes, version) {
        return;
    }
    match motemq_codec::decode(bytes, version, PACKET_BYTES_MAX) {
        Ok(Decoded::Incomplete { .. }) => assert!(reread(bytes, version).is_none()),
        Err(error) => {
            if both_refuse(error) && !may_miscount(bytes) {
                let theirs = reread(bytes, version);
                assert_eq!(theirs, None, "{error} {bytes:02x?}");
            }
        }
        Ok(Decoded::Packet { packet, length }) if can_read(&packet, version, length) => {
            let Some(theirs) = reread(bytes, version) else {
                panic!("mqttbytes cannot read {packet:?}");
            };
            if can_write(&packet) {
                let again = motemq_codec::decode(&theirs, version, PACKET_BYTES_MAX);
                let Ok(Decoded::Packet { packet: again, .. }) = again else {
                    panic!("{packet:?} became {theirs:02x?}, which is {again:?}");
                };
                assert!(same(&packet, &again), "{packet:?} became {again:?}");
            }
        }
        Ok(Decoded::Packet { .. }) => {}
    }
}

/// What cannot be compared: CONNECT of another version than the reader's, AUTH, and UNSUBSCRIBE of
/// MQTT 5, which mqttbytes prints to the terminal.
fn is_out_of_reach(bytes: &[u8], version: ProtocolVersion) -> bool {
    match bytes.first().map_or(0, |first| first >> 4) {
        1 => connect_version(bytes).is_some_and(|own| own != version),
        10 => version == ProtocolVersion::V5,
        15 => true,
        _ => false,
    }
}

/// Defects A of mqttbytes: valid packets it does not understand.
fn can_read(packet: &Packet<'_>, version: ProtocolVersion, length: usize) -> bool {
    match packet {
        // takes the password for a string
        Packet::Connect(connect) => connect
            .password
            .is_none_or(|password| str::from_utf8(password).is_ok()),
        // counts the identifier byte of subscription identifiers twice
        Packet::Publish(publish) => publish.properties.subscription_ids.iter().count() < 2,
        // misses the short forms and one reason code
        Packet::Disconnect(disconnect) => {
            version != ProtocolVersion::V5 || (length >= 4 && disconnect.code as u8 != 0x8C)
        }
        _ => true,
    }
}

/// Defects E and F: packets it does not write as it has read them.
fn can_write(packet: &Packet<'_>) -> bool {
    match packet {
        // an empty user name or password is none
        Packet::Connect(connect) => {
            connect.username != Some("") && connect.password != Some(&[][..])
        }
        // leaves out the property length
        Packet::ConnAck(connack) => connack.properties != Default::default(),
        // loses the reason if there are no properties
        Packet::Disconnect(_) => false,
        _ => true,
    }
}

/// What mqttbytes checks as well; the rest is its defects C and D.
fn both_refuse(error: DecodeError) -> bool {
    matches!(
        error,
        DecodeError::ReservedPacketType
            | DecodeError::VariableIntegerTooLong
            | DecodeError::StringNotUtf8
            | DecodeError::PropertyUnknown
            | DecodeError::PropertyMisplaced
            | DecodeError::UnknownProtocolName
            | DecodeError::UnsupportedProtocolVersion
            | DecodeError::WillFlagsWithoutWill
            | DecodeError::RetainHandlingInvalid
            | DecodeError::ReasonCodeNotAllowed
            | DecodeError::NoReasonCodes
    )
}

/// Whether a subscription identifier may be there, after which mqttbytes takes a byte less for
/// properties than there is.
fn may_miscount(bytes: &[u8]) -> bool {
    let has_properties = matches!(bytes.first().map(|first| first >> 4), Some(3 | 8));
    has_properties && bytes.contains(&0x0B)
}

/// Equal, but for the order of the properties that mqttbytes sorts.
fn same(a: &Packet<'_>, b: &Packet<'_>) -> bool {
    match (a, b) {
        (Packet::Publish(a), Packet::Publish(b)) => {
            bare_publish(a) == bare_publish(b)
                && same_values(&a.properties.forwarded, &b.properties.forwarded)
        }
        (Packet::Connect(a), Packet::Connect(b)) => {
            let forwarded = |connect: &Connect<'_>| connect.will.is_some();
            bare_connect(a) == bare_connect(b)
                && forwarded(a) == forwarded(b)
                && a.will
                    .iter()
                    .zip(&b.will)
                    .all(|(a, b)| same_values(&a.forwarded, &b.forwarded))
        }
        _ => a == b,
    }
}

fn same_values(a: &Forwarded<'_>, b: &Forwarded<'_>) -> bool {
    a.payload_format_is_utf8() == b.payload_format_is_utf8()
        && a.response_topic() == b.response_topic()
        && a.correlation_data() == b.correlation_data()
        && a.content_type() == b.content_type()
        && a.user_properties() == b.user_properties()
}

fn bare_publish<'a>(publish: &Publish<'a>) -> Publish<'a> {
    let mut bare = *publish;
    bare.properties.forwarded = Forwarded::default();
    bare
}

fn bare_connect<'a>(connect: &Connect<'a>) -> Connect<'a> {
    let bare = |will: Will<'a>| Will {
        forwarded: Forwarded::default(),
        ..will
    };
    Connect {
        will: connect.will.map(bare),
        ..connect.clone()
    }
}

/// Reads a packet and writes it again; `None` if it cannot be read.
macro_rules! reread_with {
    ($version:ident, $bytes:expr, $disconnect:pat => $write_disconnect:expr) => {{
        use mqttbytes::$version::{Packet, PingReq, PingResp, read};
        let mut stream = $bytes.into();
        let packet = read(&mut stream, PACKET_BYTES_MAX).ok()?;
        let mut out = Default::default();
        let written = match packet {
            Packet::Connect(packet) => packet.write(&mut out),
            Packet::ConnAck(packet) => packet.write(&mut out),
            Packet::Publish(packet) => packet.write(&mut out),
            Packet::PubAck(packet) => packet.write(&mut out),
            Packet::PubRec(packet) => packet.write(&mut out),
            Packet::PubRel(packet) => packet.write(&mut out),
            Packet::PubComp(packet) => packet.write(&mut out),
            Packet::Subscribe(packet) => packet.write(&mut out),
            Packet::SubAck(packet) => packet.write(&mut out),
            Packet::Unsubscribe(packet) => packet.write(&mut out),
            Packet::UnsubAck(packet) => packet.write(&mut out),
            Packet::PingReq => PingReq.write(&mut out),
            Packet::PingResp => PingResp.write(&mut out),
            $disconnect => $write_disconnect.write(&mut out),
        };
        // refuses to write packet id 0, which it reads
        written.map_or_else(|_| Some(Vec::new()), |_| Some(out.to_vec()))
    }};
}

fn reread(bytes: &[u8], version: ProtocolVersion) -> Option<Vec<u8>> {
    if version == ProtocolVersion::V5 {
        reread_with!(v5, bytes, Packet::Disconnect(packet) => packet)
    } else {
        reread_with!(v4, bytes, Packet::Disconnect => mqttbytes::v4::Disconnect)
    }
}
