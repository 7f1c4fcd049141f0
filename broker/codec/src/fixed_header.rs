//! The fixed header (section 2.1): packet type, flags and remaining length.
//!
//! Cuts one packet out of a buffer. Type and flags are judged by the first byte, the size by the
//! length alone, so a bad or too large packet is refused before its body has arrived.
//!
//! Does not know: what is inside.

use crate::error::{DecodeError, EncodeError};
use crate::primitive::{Counter, Sink, VARIABLE_INTEGER_MAX};
use crate::version::ProtocolVersion;

/// The packet types, by their number on the wire.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type of a packet that starts with `byte`; `None` where the version reserves it.
    #[inline]
    const fn from_first_byte(byte: u8, version: ProtocolVersion) -> Option<Self> {
        Some(match byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 if version.has_properties() => Self::Auth,
            _ => return None,
        })
    }

    /// Whether the flags are those of the type; those of PUBLISH are fields of its own.
    ///
    /// MQTT 3.1 lets a repeated PUBREL, SUBSCRIBE or UNSUBSCRIBE carry DUP (its section 2.1).
    /// [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1]
    /// [MQTT5-3.15.1-1] [MQTT3-2.2.2-1] [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] [MQTT3-3.8.1-1]
    /// [MQTT3-3.10.1-1]
    #[inline]
    const fn allows(self, flags: u8, version: ProtocolVersion) -> bool {
        match self {
            Self::Publish => true,
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => {
                flags == 0b0010 || (flags == 0b1010 && matches!(version, ProtocolVersion::V3_1))
            }
            _ => flags == 0,
        }
    }

    /// The first byte of a packet of this type; PUBLISH adds its flags.
    #[inline]
    pub(crate) const fn first_byte(self) -> u8 {
        let flags = match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        ((self as u8) << 4) | flags
    }
}

/// A packet cut out of the buffer, or what is missing of it.
#[derive(Debug)]
pub(crate) enum Cut<'a> {
    Incomplete {
        needed: usize,
    },
    Whole {
        packet_type: PacketType,
        flags: u8,
        body: &'a [u8],
        length: usize,
    },
}

/// Looks at the packet at the start of `bytes`.
#[inline]
pub(crate) fn cut(
    bytes: &[u8],
    version: ProtocolVersion,
    packet_bytes_max: usize,
) -> Result<Cut<'_>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(Cut::Incomplete { needed: 2 });
    };
    let packet_type =
        PacketType::from_first_byte(first, version).ok_or(DecodeError::ReservedPacketType)?;
    let flags = first & 0x0F;
    if !packet_type.allows(flags, version) {
        return Err(DecodeError::FixedHeaderFlags);
    }
    let Some((remaining, length_bytes)) = remaining_length(rest)? else {
        return Ok(Cut::Incomplete { needed: 1 });
    };
    let length = 1 + length_bytes + remaining;
    if length > packet_bytes_max {
        return Err(DecodeError::PacketTooLarge);
    }
    match bytes.get(1 + length_bytes..length) {
        Some(body) => Ok(Cut::Whole {
            packet_type,
            flags,
            body,
            length,
        }),
        None => Ok(Cut::Incomplete {
            needed: length - bytes.len(),
        }),
    }
}

/// The remaining length and how many bytes it takes; `None` while it goes on past the end.
///
/// [MQTT5-1.5.5-1]
#[inline]
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    if let Some(&byte @ 0..0x80) = bytes.first() {
        return Ok(Some((usize::from(byte), 1)));
    }
    long_remaining_length(bytes)
}

fn long_remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            if byte == 0 {
                return Err(DecodeError::VariableIntegerNotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(DecodeError::VariableIntegerTooLong)
    }
}

/// What follows the fixed header of a packet that is to be encoded.
pub(crate) trait Body {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink);
}

/// The length of a whole packet.
#[inline]
pub(crate) fn encoded_len(
    body: &impl Body,
    version: ProtocolVersion,
) -> Result<usize, EncodeError> {
    let remaining = body_len(body, version)?;
    let mut header = Counter::default();
    header.variable_integer(remaining);
    Ok(1 + header.length + remaining)
}

/// Appends a packet to `out`, or nothing at all.
#[inline]
pub(crate) fn encode(
    first_byte: u8,
    body: &impl Body,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let remaining = body_len(body, version)?;
    let start = out.len();
    out.reserve(5 + remaining);
    out.u8(first_byte);
    out.variable_integer(remaining);
    body.write(version, out);
    debug_assert!(out.len() > start + remaining);
    Ok(())
}

#[inline]
fn body_len(body: &impl Body, version: ProtocolVersion) -> Result<usize, EncodeError> {
    let mut counter = Counter::default();
    body.write(version, &mut counter);
    match counter.refused {
        Some(error) => Err(error),
        None if counter.length > VARIABLE_INTEGER_MAX => Err(EncodeError::PacketTooLarge),
        None => Ok(counter.length),
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_error, check_valid, framed, id};
    use crate::error::{DecodeError, EncodeError};
    use crate::packet::{Decoded, Packet, decode};
    use crate::publish::{Publish, PublishProperties};
    use crate::qos::QoS;
    use crate::version::ProtocolVersion::{self, V3_1, V3_1_1, V5};

    #[test]
    fn flags_are_those_of_the_type() {
        // [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1]
        // [MQTT5-3.15.1-1] [MQTT3-2.2.2-1] [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] [MQTT3-3.8.1-1]
        // [MQTT3-3.10.1-1]
        for version in [V3_1_1, V5] {
            for packet_type in [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] {
                let allowed = if matches!(packet_type, 6 | 8 | 10) {
                    2
                } else {
                    0
                };
                for flags in (0..16).filter(|&flags| flags != allowed) {
                    let first = packet_type << 4 | flags;
                    check_error(version, &[first], DecodeError::FixedHeaderFlags);
                }
            }
        }
        check_error(V5, &[0xF1], DecodeError::FixedHeaderFlags);
    }

    #[test]
    fn mqtt_3_1_repeats_with_dup() {
        check_valid(V3_1, &framed(0x8A, &[b"\x00\x01\x00\x01a\x00"]));
        check_valid(V3_1, &framed(0xAA, &[b"\x00\x01\x00\x01a"]));
        check_valid(V3_1, &framed(0x6A, &[b"\x00\x01"]));
        check_error(V3_1_1, &[0x6A], DecodeError::FixedHeaderFlags);
        check_error(V3_1, &[0x4A], DecodeError::FixedHeaderFlags);
    }

    #[test]
    fn reserved_types_are_refused_by_their_first_byte() {
        for version in [V3_1, V3_1_1, V5] {
            check_error(version, &[0x00], DecodeError::ReservedPacketType);
        }
        for version in [V3_1, V3_1_1] {
            check_error(version, &[0xF0], DecodeError::ReservedPacketType);
        }
    }

    #[test]
    fn remaining_length_is_minimal_and_at_most_four_bytes() {
        // [MQTT5-1.5.5-1]
        let not_minimal = DecodeError::VariableIntegerNotMinimal;
        for version in [V3_1_1, V5] {
            check_error(version, b"\xC0\x80\x00", not_minimal);
            check_error(version, b"\x30\x85\x80\x00", not_minimal);
            check_error(version, b"\x30\x80\x80\x80\x00", not_minimal);
            let too_long = DecodeError::VariableIntegerTooLong;
            check_error(version, b"\x30\x80\x80\x80\x80", too_long);
            check_error(version, b"\x30\xFF\xFF\xFF\xFF\x01", too_long);
        }
    }

    #[test]
    fn what_is_missing_is_counted_as_far_as_it_is_known() {
        for (bytes, needed) in [
            (&b""[..], 2),
            (b"\x30", 1),
            (b"\x30\x80", 1),
            (b"\x30\x80\x80\x80", 1),
            (b"\x30\x05", 5),
            (b"\x30\x05\x00", 4),
            (b"\x30\x80\x01", 128),
        ] {
            let decoded = decode(bytes, V5, 1000);
            assert_eq!(decoded, Ok(Decoded::Incomplete { needed }), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_packet_over_the_maximum_is_refused_by_its_length() {
        // MQTT 5.0 section 3.2.2.3.6
        let bytes = b"\x30\xFF\xFF\xFF\x7F";
        assert_eq!(decode(bytes, V5, 1000), Err(DecodeError::PacketTooLarge));
        let bytes = framed(0x30, &[b"\x00\x01a\x00", &[0; 100]]);
        assert!(decode(&bytes, V5, bytes.len()).is_ok());
        let decoded = decode(&bytes, V5, bytes.len() - 1);
        assert_eq!(decoded, Err(DecodeError::PacketTooLarge));
    }

    #[test]
    fn an_encoder_that_fails_writes_nothing() {
        let long = "x".repeat(65_536);
        let too_long = publish(QoS::AtMostOnce, &long, b"");
        check_refused(&too_long, EncodeError::StringTooLong);
        let mut without_id = publish(QoS::AtLeastOnce, "a", b"");
        without_id.packet_id = None;
        check_refused(&without_id, EncodeError::PacketIdMissing);
        let large = vec![0; 268_435_455];
        let too_large = publish(QoS::AtMostOnce, "a", &large);
        check_refused(&too_large, EncodeError::PacketTooLarge);
    }

    #[test]
    fn every_length_of_the_remaining_length_is_written() {
        for size in [0, 124, 125, 16_380, 16_381, 2_097_148, 2_097_149] {
            let payload = vec![7; size];
            let packet = Packet::Publish(publish(QoS::AtMostOnce, "a", &payload));
            let mut out = Vec::new();
            assert_eq!(packet.encode(V3_1_1, &mut out), Ok(()));
            assert_eq!(packet.encoded_len(V3_1_1), Ok(out.len()));
            let length = out.len();
            let decoded = decode(&out, V3_1_1, length);
            assert_eq!(decoded, Ok(Decoded::Packet { packet, length }));
        }
    }

    fn check_refused(publish: &Publish<'_>, error: EncodeError) {
        let versions: [ProtocolVersion; 3] = [V3_1, V3_1_1, V5];
        for version in versions {
            let mut out = b"before".to_vec();
            assert_eq!(publish.encode(version, &mut out), Err(error));
            assert_eq!(publish.encoded_len(version), Err(error));
            assert_eq!(out, b"before");
        }
    }

    fn publish<'a>(qos: QoS, topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: Some(id(1)).filter(|_| qos != QoS::AtMostOnce),
            properties: PublishProperties::default(),
            payload,
        }
    }
}
