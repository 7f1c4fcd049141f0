//! How the tests of the packet files state their cases.

use crate::error::DecodeError;
use crate::packet::{Decoded, Packet, decode};
use crate::primitive::{PacketId, Sink};
use crate::version::ProtocolVersion;

const PACKET_BYTES_MAX: usize = 1 << 20;

/// The packet and the bytes are the same thing, in both directions.
#[track_caller]
pub(crate) fn check(version: ProtocolVersion, bytes: &[u8], packet: &Packet<'_>) {
    check_decodes(version, bytes, packet);
    let mut encoded = Vec::new();
    assert_eq!(packet.encode(version, &mut encoded), Ok(()));
    assert_eq!(encoded, bytes);
    assert_eq!(packet.encoded_len(version), Ok(bytes.len()));
}

/// The bytes are the packet, though not in the form we write.
#[track_caller]
pub(crate) fn check_decodes(version: ProtocolVersion, bytes: &[u8], packet: &Packet<'_>) {
    let decoded = decode(bytes, version, PACKET_BYTES_MAX);
    let (packet, length) = (packet.clone(), bytes.len());
    assert_eq!(decoded, Ok(Decoded::Packet { packet, length }));
}

/// The bytes are accepted.
#[track_caller]
pub(crate) fn check_valid(version: ProtocolVersion, bytes: &[u8]) {
    let decoded = decode(bytes, version, PACKET_BYTES_MAX);
    assert!(
        matches!(decoded, Ok(Decoded::Packet { length, .. }) if length == bytes.len()),
        "{decoded:?}"
    );
}

/// The bytes break this rule.
#[track_caller]
pub(crate) fn check_error(version: ProtocolVersion, bytes: &[u8], error: DecodeError) {
    let decoded = decode(bytes, version, PACKET_BYTES_MAX);
    assert_eq!(decoded, Err(error), "{bytes:02x?}");
}

/// A packet with its remaining length counted.
pub(crate) fn framed(first_byte: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut bytes = vec![first_byte];
    bytes.variable_integer(body.len());
    bytes.extend(body);
    bytes
}

/// A packet identifier.
pub(crate) fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not zero")
}
