//! UNSUBSCRIBE and UNSUBACK (sections 3.10 and 3.11).
//!
//! A decoded UNSUBSCRIBE holds at least one filter, none of them empty. Whether a filter is
//! well-formed is the session's question, as with SUBSCRIBE. Before MQTT 5 an UNSUBACK has no
//! codes.

use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, PacketType};
use crate::primitive::{PacketId, Reader, Sink};
use crate::property::{
    Property, PropertyBlock, PropertyReader, ReasonProperties, UserProperties, write_block,
};
use crate::reason::{self, ReasonCode};
use crate::version::ProtocolVersion;
use std::fmt;

/// [MQTT5-3.11.3-2]
const CODES: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoSubscriptionExisted,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
];

/// An UNSUBSCRIBE packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Unsubscribe<'a> {
    /// What the UNSUBACK will name.
    pub packet_id: PacketId,
    /// Names and values of the client's own.
    pub user_properties: UserProperties<'a>,
    /// The subscriptions to end.
    pub filters: UnsubscribeFilters<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(
        mut reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let user_properties = if version.has_properties() {
            decode_properties(&mut reader)?
        } else {
            UserProperties::default()
        };
        Ok(Self {
            packet_id,
            user_properties,
            filters: UnsubscribeFilters::decode(reader.rest())?,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        fixed_header::encode(PacketType::Unsubscribe.first_byte(), self, version, out)
    }

    /// How many bytes [`encode`](Self::encode) appends.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        fixed_header::encoded_len(self, version)
    }
}

fn decode_properties<'a>(reader: &mut Reader<'a>) -> Result<UserProperties<'a>, DecodeError> {
    let mut properties = PropertyReader::decode(reader)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::UserProperty(..) => {}
            other => return other.misplaced(),
        }
    }
    Ok(properties.user_properties())
}

impl Body for Unsubscribe<'_> {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if version.has_properties() {
            write_block(self, sink);
        }
        for filter in self.filters.iter() {
            sink.string(filter);
        }
    }
}

impl PropertyBlock for Unsubscribe<'_> {
    fn write(&self, sink: &mut impl Sink) {
        self.user_properties.write(sink);
    }
}

/// The filters of an UNSUBSCRIBE, in their order.
#[derive(Copy, Clone)]
pub struct UnsubscribeFilters<'a>(Source<'a>);

#[derive(Copy, Clone)]
enum Source<'a> {
    /// Checked wire form.
    Wire(&'a [u8]),
    List(&'a [&'a str]),
}

impl<'a> UnsubscribeFilters<'a> {
    /// Filters for a packet that is to be encoded.
    #[must_use]
    pub const fn from_list(filters: &'a [&'a str]) -> Self {
        Self(Source::List(filters))
    }

    /// Checks the payload of an UNSUBSCRIBE.
    ///
    /// [MQTT5-3.10.3-1] [MQTT5-3.10.3-2] [MQTT3-3.10.3-1] [MQTT3-3.10.3-2]
    fn decode(wire: &'a [u8]) -> Result<Self, DecodeError> {
        if wire.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        let mut reader = Reader::new(wire);
        while !reader.is_empty() {
            if reader.string()?.is_empty() {
                return Err(DecodeError::FilterEmpty);
            }
        }
        Ok(Self(Source::Wire(wire)))
    }

    /// The filters in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || rest.take_first())
    }
}

impl<'a> Source<'a> {
    fn take_first(&mut self) -> Option<&'a str> {
        match self {
            Source::List(filters) => {
                let (&first, rest) = filters.split_first()?;
                *filters = rest;
                Some(first)
            }
            Source::Wire(wire) => {
                let mut reader = Reader::new(wire);
                let first = reader.string().ok()?;
                *wire = reader.rest();
                Some(first)
            }
        }
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UnsubscribeFilters<'_> {}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// An UNSUBACK packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct UnsubAck<'a> {
    /// That of the UNSUBSCRIBE [MQTT5-2.2.1-6] [MQTT3-2.3.1-7].
    pub packet_id: PacketId,
    /// One code per filter, in their order; before MQTT 5 none is written.
    pub codes: &'a [u8],
    /// What happened, for people.
    pub reason_string: Option<&'a str>,
    /// Names and values of the server's own.
    pub user_properties: UserProperties<'a>,
}

impl<'a> UnsubAck<'a> {
    pub(crate) fn decode(
        mut reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut unsuback = Self {
            packet_id: reader.packet_id()?,
            codes: &[],
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        if version.has_properties() {
            let properties = ReasonProperties::decode(&mut reader)?;
            unsuback.reason_string = properties.reason_string;
            unsuback.user_properties = properties.user_properties;
            unsuback.codes = reader.rest();
            reason::check_codes(unsuback.codes, CODES)?;
        }
        reader.finish()?;
        Ok(unsuback)
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        fixed_header::encode(PacketType::UnsubAck.first_byte(), self, version, out)
    }

    /// How many bytes [`encode`](Self::encode) appends.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        fixed_header::encoded_len(self, version)
    }
}

impl Body for UnsubAck<'_> {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if version.has_properties() {
            let properties = ReasonProperties {
                reason_string: self.reason_string,
                user_properties: self.user_properties,
            };
            write_block(&properties, sink);
            sink.bytes(self.codes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_error, check_valid, framed, id};
    use crate::packet::Packet;
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    #[test]
    fn filters_in_all_versions() {
        let unsubscribe = Unsubscribe {
            packet_id: id(10),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::from_list(&["a/+", "#"]),
        };
        let packet = Packet::Unsubscribe(unsubscribe);
        let wire = b"\x00\x03a/+\x00\x01#";
        check(V3_1, &framed(0xA2, &[b"\x00\x0A", wire]), &packet);
        check(V3_1_1, &framed(0xA2, &[b"\x00\x0A", wire]), &packet);
        check(V5, &framed(0xA2, &[b"\x00\x0A\x00", wire]), &packet);
        let with_properties = Packet::Unsubscribe(Unsubscribe {
            user_properties: UserProperties::from_pairs(&[("k", "v")]),
            ..unsubscribe
        });
        let properties = b"\x07\x26\x00\x01k\x00\x01v";
        let bytes = framed(0xA2, &[b"\x00\x0A", properties, wire]);
        check(V5, &bytes, &with_properties);
    }

    #[test]
    fn there_is_a_filter_and_it_is_not_empty() {
        // [MQTT5-3.10.3-2] [MQTT5-4.7.3-1] [MQTT3-3.10.3-2] [MQTT3-4.7.3-1]
        check_error(V3_1_1, b"\xA2\x02\x00\x0A", DecodeError::NoFilters);
        check_error(V5, b"\xA2\x03\x00\x0A\x00", DecodeError::NoFilters);
        check_error(
            V3_1_1,
            b"\xA2\x04\x00\x0A\x00\x00",
            DecodeError::FilterEmpty,
        );
        let bytes = b"\xA2\x08\x00\x0A\x00\x00\x01a\x00\x00";
        check_error(V5, bytes, DecodeError::FilterEmpty);
    }

    #[test]
    fn malformed_packets() {
        // [MQTT5-2.2.1-3] [MQTT5-3.10.3-1] [MQTT3-2.3.1-1] [MQTT3-3.10.3-1]
        for (body, error) in [
            (&b"\x00\x00\x00\x00\x01a"[..], DecodeError::PacketIdZero),
            (b"\x00\x0A\x00\x00\x02a", DecodeError::UnexpectedEnd),
            (b"\x00\x0A\x00\x00\x01a\x00", DecodeError::UnexpectedEnd),
            (b"\x00\x0A\x00\x00\x01\xFF", DecodeError::StringNotUtf8),
            (b"\x00\x0A\x00\x00\x01\0", DecodeError::StringHasNul),
            (
                b"\x00\x0A\x02\x0B\x01\x00\x01a",
                DecodeError::PropertyMisplaced,
            ),
            (
                b"\x00\x0A\x04\x1F\x00\x01r\x00\x01a",
                DecodeError::PropertyMisplaced,
            ),
        ] {
            check_error(V5, &framed(0xA2, &[body]), error);
        }
        check_valid(V3_1_1, &framed(0xA2, &[b"\x00\x0A\x00\x05a/#/b"]));
    }

    #[test]
    fn unsuback() {
        // [MQTT5-3.11.3-1] [MQTT5-3.11.3-2] [MQTT3-3.10.4-4]
        let mut unsuback = UnsubAck {
            packet_id: id(10),
            codes: &[],
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        check(V3_1_1, b"\xB0\x02\x00\x0A", &Packet::UnsubAck(unsuback));
        unsuback.codes = &[0, 0x11];
        let bytes = b"\xB0\x05\x00\x0A\x00\x00\x11";
        check(V5, bytes, &Packet::UnsubAck(unsuback));
        let mut out = Vec::new();
        assert_eq!(unsuback.encode(V3_1_1, &mut out), Ok(()));
        assert_eq!(out, b"\xB0\x02\x00\x0A");
        unsuback.reason_string = Some("r");
        unsuback.user_properties = UserProperties::from_pairs(&[("k", "v")]);
        let properties = b"\x0B\x1F\x00\x01r\x26\x00\x01k\x00\x01v";
        let bytes = framed(0xB0, &[b"\x00\x0A", properties, b"\x00\x11"]);
        check(V5, &bytes, &Packet::UnsubAck(unsuback));
    }

    #[test]
    fn malformed_unsubacks() {
        check_error(V3_1_1, b"\xB0\x03\x00\x0A\x00", DecodeError::TrailingBytes);
        check_error(V3_1_1, b"\xB0\x02\x00\x00", DecodeError::PacketIdZero);
        check_error(V5, b"\xB0\x03\x00\x0A\x00", DecodeError::NoReasonCodes);
        for code in [0x01, 0x92, 0xFF] {
            let bytes = [0xB0, 4, 0, 10, 0, code];
            check_error(V5, &bytes, DecodeError::ReasonCodeNotAllowed);
        }
    }

    #[test]
    fn filters_of_both_sources_are_equal() {
        let wire = UnsubscribeFilters::decode(b"\x00\x01a\x00\x01b");
        assert_eq!(wire, Ok(UnsubscribeFilters::from_list(&["a", "b"])));
        assert_eq!(format!("{wire:?}"), r#"Ok(["a", "b"])"#);
    }
}
