//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): four packets of one form.
//!
//! Before MQTT 5 they are a packet identifier and nothing else; what MQTT 5 adds may be left out
//! when it says nothing.

use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, PacketType};
use crate::primitive::{PacketId, Reader, Sink};
use crate::property::{self, ReasonProperties, UserProperties, write_block};
use crate::reason::ReasonCode;
use crate::version::ProtocolVersion;

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]
const RECEIPT_CODES: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
];

/// [MQTT5-3.6.2-1] [MQTT5-3.7.2-1]
const RELEASE_CODES: &[ReasonCode] = &[ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];

/// Which of the four packets an [`Ack`] is.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum AckKind {
    /// Answers a QoS 1 PUBLISH.
    PubAck,
    /// Answers a QoS 2 PUBLISH.
    PubRec,
    /// Answers PUBREC.
    PubRel,
    /// Answers PUBREL.
    PubComp,
}

impl AckKind {
    const fn packet_type(self) -> PacketType {
        match self {
            Self::PubAck => PacketType::PubAck,
            Self::PubRec => PacketType::PubRec,
            Self::PubRel => PacketType::PubRel,
            Self::PubComp => PacketType::PubComp,
        }
    }

    const fn codes(self) -> &'static [ReasonCode] {
        match self {
            Self::PubAck | Self::PubRec => RECEIPT_CODES,
            Self::PubRel | Self::PubComp => RELEASE_CODES,
        }
    }
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// That of the PUBLISH [MQTT5-2.2.1-5] [MQTT3-2.3.1-6].
    pub packet_id: PacketId,
    /// How it went.
    pub code: ReasonCode,
    /// What happened, for people.
    pub reason_string: Option<&'a str>,
    /// Names and values of the sender's own.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement without properties.
    #[inline]
    #[must_use]
    pub fn new(packet_id: PacketId, code: ReasonCode) -> Self {
        Self {
            packet_id,
            code,
            reason_string: None,
            user_properties: UserProperties::default(),
        }
    }

    #[inline]
    pub(crate) fn decode(
        kind: AckKind,
        mut reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut ack = Self::new(reader.packet_id()?, ReasonCode::Success);
        if version.has_properties() && !reader.is_empty() {
            ack.decode_reason(kind, &mut reader)?;
        }
        reader.finish()?;
        Ok(ack)
    }

    /// The reason code and the properties, of which the latter may be left out.
    fn decode_reason(&mut self, kind: AckKind, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        self.code = ReasonCode::decode(reader, kind.codes())?;
        if !reader.is_empty() {
            let properties = ReasonProperties::decode(reader)?;
            self.reason_string = properties.reason_string;
            self.user_properties = properties.user_properties;
        }
        Ok(())
    }

    /// Appends the packet to `out`, as a packet of `kind`.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    #[inline]
    pub fn encode(
        &self,
        kind: AckKind,
        version: ProtocolVersion,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        fixed_header::encode(kind.packet_type().first_byte(), self, version, out)
    }

    /// How many bytes [`encode`](Self::encode) appends; the same for every kind.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encoded_len(&self, _: AckKind, version: ProtocolVersion) -> Result<usize, EncodeError> {
        fixed_header::encoded_len(self, version)
    }
}

impl Body for Ack<'_> {
    #[inline]
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if !version.has_properties() {
            return;
        }
        let properties = ReasonProperties {
            reason_string: self.reason_string,
            user_properties: self.user_properties,
        };
        let has_properties = !property::is_empty(&properties);
        if has_properties || self.code != ReasonCode::Success {
            sink.u8(self.code as u8);
        }
        if has_properties {
            write_block(&properties, sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_decodes, check_error, framed, id};
    use crate::packet::Packet;
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    type Variant = fn(Ack<'static>) -> Packet<'static>;

    /// First byte, variant, a code the packet may carry, one that it may not.
    const KINDS: [(u8, Variant, ReasonCode, u8); 4] = [
        (0x40, Packet::PubAck, ReasonCode::QuotaExceeded, 0x92),
        (
            0x50,
            Packet::PubRec,
            ReasonCode::NoMatchingSubscribers,
            0x92,
        ),
        (
            0x62,
            Packet::PubRel,
            ReasonCode::PacketIdentifierNotFound,
            0x10,
        ),
        (
            0x70,
            Packet::PubComp,
            ReasonCode::PacketIdentifierNotFound,
            0x80,
        ),
    ];

    #[test]
    fn success_is_a_packet_id_in_all_versions() {
        // [MQTT5-2.2.1-5] [MQTT3-2.3.1-6]
        for (first, variant, ..) in KINDS {
            let ack = variant(Ack::new(id(258), ReasonCode::Success));
            for version in [V3_1, V3_1_1, V5] {
                check(version, &[first, 2, 1, 2], &ack);
            }
            // said in full, it is the same
            check_decodes(V5, &[first, 3, 1, 2, 0], &ack);
            check_decodes(V5, &[first, 4, 1, 2, 0, 0], &ack);
        }
    }

    #[test]
    fn a_code_and_properties() {
        // [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1]
        for (first, variant, code, _) in KINDS {
            let ack = Ack::new(id(258), code);
            check(V5, &[first, 3, 1, 2, code as u8], &variant(ack));
            check_decodes(V5, &[first, 4, 1, 2, code as u8, 0], &variant(ack));
            let full = Ack {
                reason_string: Some("no"),
                user_properties: UserProperties::from_pairs(&[("a", "b"), ("a", "")]),
                ..ack
            };
            let properties = b"\x11\x1F\x00\x02no\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x00";
            let properties = [&[0x12], properties.split_at(1).1].concat();
            let bytes = framed(first, &[&[1, 2, code as u8], &properties]);
            check(V5, &bytes, &variant(full));
            // MQTT 3 cannot say why
            let mut out = Vec::new();
            assert_eq!(variant(full).encode(V3_1_1, &mut out), Ok(()));
            assert_eq!(out, [first, 2, 1, 2]);
        }
    }

    #[test]
    fn codes_of_other_packets_are_refused() {
        for (first, _, _, code) in KINDS {
            for code in [code, 0x01, 0x81, 0xFF] {
                let bytes = [first, 3, 1, 2, code];
                check_error(V5, &bytes, DecodeError::ReasonCodeNotAllowed);
            }
        }
    }

    #[test]
    fn every_code_is_allowed_where_the_tables_say() {
        for kind in [AckKind::PubAck, AckKind::PubRec] {
            assert_eq!(kind.codes().len(), 9);
        }
        for kind in [AckKind::PubRel, AckKind::PubComp] {
            assert_eq!(kind.codes().len(), 2);
        }
    }

    #[test]
    fn malformed_acknowledgements() {
        // [MQTT5-2.2.1-3] [MQTT3-2.3.1-1] [MQTT5-2.2.2-1]
        for (first, ..) in KINDS {
            for version in [V3_1_1, V5] {
                check_error(version, &[first, 2, 0, 0], DecodeError::PacketIdZero);
                check_error(version, &[first, 1, 1], DecodeError::UnexpectedEnd);
                check_error(version, &[first, 0], DecodeError::UnexpectedEnd);
            }
            check_error(V3_1_1, &[first, 3, 1, 2, 0], DecodeError::TrailingBytes);
            for (end, error) in [
                (&b"\x00\x00"[..], DecodeError::TrailingBytes),
                (b"\x03\x21\x00\x01", DecodeError::PropertyMisplaced),
                (
                    b"\x06\x1F\x00\x00\x1F\x00\x00",
                    DecodeError::PropertyDuplicate,
                ),
                (b"\x80", DecodeError::UnexpectedEnd),
                (b"\x04\x1F\x00\x00", DecodeError::UnexpectedEnd),
            ] {
                check_error(V5, &framed(first, &[&[1, 2, 0], end]), error);
            }
        }
    }
}
