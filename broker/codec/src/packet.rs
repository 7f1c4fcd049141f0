//! All fifteen control packets as one type, and the way in from bytes.
//!
//! The bodiless packets, PINGREQ and PINGRESP, live here; each other family has a file.

use crate::ack::{Ack, AckKind};
use crate::auth::Auth;
use crate::connack::ConnAck;
use crate::connect::Connect;
use crate::disconnect::Disconnect;
use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, Cut, PacketType};
use crate::primitive::{Reader, Sink};
use crate::publish::Publish;
use crate::subscribe::{SubAck, Subscribe};
use crate::unsubscribe::{UnsubAck, Unsubscribe};
use crate::version::ProtocolVersion;

/// What the start of a buffer holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded<'a> {
    /// Not yet a whole packet.
    Incomplete {
        /// At least so many more bytes must arrive before another attempt can get further.
        needed: usize,
    },
    /// A whole packet, which may be followed by others.
    Packet {
        /// The packet, borrowing from the buffer.
        packet: Packet<'a>,
        /// How many bytes it takes.
        length: usize,
    },
}

/// Decodes the packet at the start of `bytes`.
///
/// # Errors
///
/// The first rule found broken. A packet over `packet_bytes_max` is refused by its announced
/// length, before its body is there.
#[inline]
pub fn decode(
    bytes: &[u8],
    version: ProtocolVersion,
    packet_bytes_max: usize,
) -> Result<Decoded<'_>, DecodeError> {
    match fixed_header::cut(bytes, version, packet_bytes_max)? {
        Cut::Incomplete { needed } => Ok(Decoded::Incomplete { needed }),
        Cut::Whole {
            packet_type,
            flags,
            body,
            length,
        } => {
            let packet = Packet::decode(packet_type, flags, Reader::new(body), version)?;
            Ok(Decoded::Packet { packet, length })
        }
    }
}

/// Decodes the first packet of a connection, which says its version itself.
///
/// # Errors
///
/// As [`decode`]; [`DecodeError::NotConnect`] as soon as the first byte is not that of CONNECT
/// [MQTT5-3.1.0-1] [MQTT3-3.1.0-1].
pub fn decode_connect(bytes: &[u8], packet_bytes_max: usize) -> Result<Decoded<'_>, DecodeError> {
    match bytes.first() {
        Some(first) if first >> 4 != PacketType::Connect as u8 => Err(DecodeError::NotConnect),
        // the fixed header of CONNECT is the same in all versions
        _ => decode(bytes, ProtocolVersion::V5, packet_bytes_max),
    }
}

/// The version that a CONNECT asks for, even if the rest of it is missing or wrong; `None` if it
/// does not get so far, or asks for one that does not exist. Tells how to word a refusal.
#[must_use]
pub fn connect_version(bytes: &[u8]) -> Option<ProtocolVersion> {
    let mut reader = Reader::new(bytes);
    if reader.u8().ok()? >> 4 != PacketType::Connect as u8 {
        return None;
    }
    reader.variable_integer().ok()?;
    ProtocolVersion::decode(&mut reader).ok()
}

/// A control packet. CONNECT and CONNACK, large and rare, are boxed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// Section 3.1.
    Connect(Box<Connect<'a>>),
    /// Section 3.2.
    ConnAck(Box<ConnAck<'a>>),
    /// Section 3.3.
    Publish(Publish<'a>),
    /// Section 3.4.
    PubAck(Ack<'a>),
    /// Section 3.5.
    PubRec(Ack<'a>),
    /// Section 3.6.
    PubRel(Ack<'a>),
    /// Section 3.7.
    PubComp(Ack<'a>),
    /// Section 3.8.
    Subscribe(Subscribe<'a>),
    /// Section 3.9.
    SubAck(SubAck<'a>),
    /// Section 3.10.
    Unsubscribe(Unsubscribe<'a>),
    /// Section 3.11.
    UnsubAck(UnsubAck<'a>),
    /// Section 3.12.
    PingReq,
    /// Section 3.13.
    PingResp,
    /// Section 3.14.
    Disconnect(Disconnect<'a>),
    /// MQTT 5.0 section 3.15.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    #[inline]
    fn decode(
        packet_type: PacketType,
        flags: u8,
        reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let ack = |kind| Ack::decode(kind, reader, version);
        Ok(match packet_type {
            PacketType::Connect => Self::Connect(Box::new(Connect::decode(reader)?)),
            PacketType::ConnAck => Self::ConnAck(Box::new(ConnAck::decode(reader, version)?)),
            PacketType::Publish => Self::Publish(Publish::decode(flags, reader, version)?),
            PacketType::PubAck => Self::PubAck(ack(AckKind::PubAck)?),
            PacketType::PubRec => Self::PubRec(ack(AckKind::PubRec)?),
            PacketType::PubRel => Self::PubRel(ack(AckKind::PubRel)?),
            PacketType::PubComp => Self::PubComp(ack(AckKind::PubComp)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(reader, version)?),
            PacketType::SubAck => Self::SubAck(SubAck::decode(reader, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(reader, version)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::decode(reader, version)?),
            PacketType::PingReq => reader.finish().map(|()| Self::PingReq)?,
            PacketType::PingResp => reader.finish().map(|()| Self::PingResp)?,
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(reader, version)?),
            PacketType::Auth => Self::Auth(Auth::decode(reader)?),
        })
    }

    /// Appends the packet to `out`. What `version` cannot say is left out.
    ///
    /// # Errors
    ///
    /// When the packet has no wire form in `version`; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(connect) => connect.encode(version, out),
            Self::ConnAck(connack) => connack.encode(version, out),
            Self::Publish(publish) => publish.encode(version, out),
            Self::PubAck(ack) => ack.encode(AckKind::PubAck, version, out),
            Self::PubRec(ack) => ack.encode(AckKind::PubRec, version, out),
            Self::PubRel(ack) => ack.encode(AckKind::PubRel, version, out),
            Self::PubComp(ack) => ack.encode(AckKind::PubComp, version, out),
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::SubAck(suback) => suback.encode(version, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::UnsubAck(unsuback) => unsuback.encode(version, out),
            Self::PingReq => encode_empty(PacketType::PingReq, version, out),
            Self::PingResp => encode_empty(PacketType::PingResp, version, out),
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(auth) => auth.encode(version, out),
        }
    }

    /// How many bytes [`encode`](Self::encode) appends.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        match self {
            Self::Connect(connect) => connect.encoded_len(version),
            Self::ConnAck(connack) => connack.encoded_len(version),
            Self::Publish(publish) => publish.encoded_len(version),
            Self::PubAck(ack) => ack.encoded_len(AckKind::PubAck, version),
            Self::PubRec(ack) => ack.encoded_len(AckKind::PubRec, version),
            Self::PubRel(ack) => ack.encoded_len(AckKind::PubRel, version),
            Self::PubComp(ack) => ack.encoded_len(AckKind::PubComp, version),
            Self::Subscribe(subscribe) => subscribe.encoded_len(version),
            Self::SubAck(suback) => suback.encoded_len(version),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encoded_len(version),
            Self::UnsubAck(unsuback) => unsuback.encoded_len(version),
            Self::PingReq | Self::PingResp => fixed_header::encoded_len(&Empty, version),
            Self::Disconnect(disconnect) => disconnect.encoded_len(version),
            Self::Auth(auth) => auth.encoded_len(version),
        }
    }
}

/// The body of PINGREQ and PINGRESP.
struct Empty;

impl Body for Empty {
    fn write(&self, _: ProtocolVersion, _: &mut impl Sink) {}
}

fn encode_empty(
    packet_type: PacketType,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    fixed_header::encode(packet_type.first_byte(), &Empty, version, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_error};
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    const CONNECT: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c";

    #[test]
    fn pings() {
        for version in [V3_1, V3_1_1, V5] {
            check(version, b"\xC0\x00", &Packet::PingReq);
            check(version, b"\xD0\x00", &Packet::PingResp);
            check_error(version, b"\xC0\x01\x00", DecodeError::TrailingBytes);
            check_error(version, b"\xD0\x01\x00", DecodeError::TrailingBytes);
        }
    }

    #[test]
    fn the_first_packet_is_connect() {
        // [MQTT5-3.1.0-1] [MQTT3-3.1.0-1]: known by the first byte
        for first in (0..=u8::MAX).filter(|first| first >> 4 != 1) {
            let error = Err(DecodeError::NotConnect);
            assert_eq!(decode_connect(&[first], 100), error);
        }
        assert_eq!(
            decode_connect(&[0x11], 100),
            Err(DecodeError::FixedHeaderFlags)
        );
        let incomplete = Ok(Decoded::Incomplete { needed: 2 });
        assert_eq!(decode_connect(&[], 100), incomplete);
        assert_eq!(
            decode_connect(CONNECT, 10),
            Err(DecodeError::PacketTooLarge)
        );
    }

    #[test]
    fn connect_says_its_version_itself() {
        for version in [V3_1, V3_1_1, V5] {
            let decoded = decode(CONNECT, version, 100);
            assert_eq!(decoded, decode_connect(CONNECT, 100));
            let Ok(Decoded::Packet {
                packet: Packet::Connect(connect),
                ..
            }) = decoded
            else {
                panic!("{decoded:?}");
            };
            assert_eq!(connect.version, V3_1_1);
        }
    }

    #[test]
    fn the_version_is_known_before_the_rest() {
        assert_eq!(connect_version(CONNECT), Some(V3_1_1));
        assert_eq!(connect_version(b"\x10\xFF\x01\x00\x04MQTT\x05"), Some(V5));
        assert_eq!(connect_version(b"\x10\x0F\x00\x06MQIsdp\x03"), Some(V3_1));
        for bytes in [
            &b""[..],
            b"\x20\x0D\x00\x04MQTT\x04",
            b"\x10\x0D\x00\x04MQTT",
        ] {
            assert_eq!(connect_version(bytes), None);
        }
        assert_eq!(connect_version(b"\x10\x0D\x00\x04MQTT\x06"), None);
    }

    #[test]
    fn a_packet_is_small_enough_to_move() {
        assert!(size_of::<Packet<'_>>() <= 112);
    }
}
