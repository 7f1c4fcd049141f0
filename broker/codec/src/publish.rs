//! PUBLISH (section 3.3): a message on its way.
//!
//! The hot path of the codec: one scan of the topic, no allocation, and without properties no
//! property loop either.
//!
//! Does not know: which topic a topic alias stands for; that a client may not send subscription
//! identifiers. Both are the session's.

use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, PacketType};
use crate::forwarded::Forwarded;
use crate::primitive::{PacketId, Reader, Sink};
use crate::property::{Property, PropertyBlock, PropertyReader, write_block};
use crate::qos::QoS;
use crate::topic::{self, TopicNameError};
use crate::version::ProtocolVersion;
use std::fmt;
use std::num::NonZeroU16;

const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;

/// A PUBLISH packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// Whether this may be a repetition.
    pub dup: bool,
    /// How the message is to be delivered.
    pub qos: QoS,
    /// To the server: keep the message. To a client: the message was kept.
    pub retain: bool,
    /// The topic name; empty when a topic alias stands for it.
    pub topic: &'a str,
    /// `Some` if and only if `qos` is above 0.
    pub packet_id: Option<PacketId>,
    /// What MQTT 5 adds.
    pub properties: PublishProperties<'a>,
    /// The message, any bytes.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    #[inline]
    pub(crate) fn decode(
        flags: u8,
        mut reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let dup = flags & DUP != 0;
        // [MQTT5-3.3.1-4] [MQTT3-3.3.1-4]
        let qos = QoS::from_bits((flags >> 1) & 0b11).ok_or(DecodeError::QosInvalid)?;
        // [MQTT5-3.3.1-2] [MQTT3-3.3.1-2]
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::DupWithQos0);
        }
        // [MQTT5-3.3.2-1] [MQTT3-3.3.2-1]
        let topic = reader.string_with_nul()?;
        // [MQTT5-2.2.1-2] [MQTT5-2.2.1-4] [MQTT3-2.3.1-5]
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
        };
        let properties = if version.has_properties() {
            PublishProperties::decode(&mut reader)?
        } else {
            PublishProperties::default()
        };
        check_topic(topic, properties.topic_alias)?;
        Ok(Self {
            dup,
            qos,
            retain: flags & RETAIN != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    #[inline]
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let flags = (u8::from(self.dup) << 3) | ((self.qos as u8) << 1) | u8::from(self.retain);
        fixed_header::encode(PacketType::Publish.first_byte() | flags, self, version, out)
    }

    /// How many bytes [`encode`](Self::encode) appends.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    #[inline]
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        fixed_header::encoded_len(self, version)
    }
}

/// [MQTT5-3.3.2-2] [MQTT5-4.7.3-1] [MQTT3-3.3.2-2] [MQTT3-4.7.3-1]
#[inline]
fn check_topic(topic: &str, alias: Option<NonZeroU16>) -> Result<(), DecodeError> {
    match topic::validate_topic_name(topic) {
        Ok(()) => Ok(()),
        Err(TopicNameError::Empty) if alias.is_some() => Ok(()),
        Err(TopicNameError::Empty) => Err(DecodeError::TopicMissing),
        Err(TopicNameError::HasNul) => Err(DecodeError::StringHasNul),
        Err(error) => Err(DecodeError::TopicName(error)),
    }
}

impl Body for Publish<'_> {
    #[inline]
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.string(self.topic);
        if self.qos != QoS::AtMostOnce {
            match self.packet_id {
                Some(packet_id) => sink.u16(packet_id.get()),
                None => sink.refuse(EncodeError::PacketIdMissing),
            }
        }
        if version.has_properties() {
            if self.properties.is_empty() {
                sink.u8(0); // no need to count them
            } else {
                write_block(&self.properties, sink);
            }
        }
        sink.bytes(self.payload);
    }
}

/// The properties of a PUBLISH.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct PublishProperties<'a> {
    /// For how many more seconds the message is worth delivering.
    pub message_expiry_s: Option<u32>,
    /// Stands for the topic, from this packet on or since an earlier one.
    pub topic_alias: Option<NonZeroU16>,
    /// Which subscriptions the message was delivered for; only a server sends them.
    pub subscription_ids: SubscriptionIds<'a>,
    /// What the message keeps all the way.
    pub forwarded: Forwarded<'a>,
}

impl<'a> PublishProperties<'a> {
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let properties = PropertyReader::decode(reader)?;
        if properties.is_empty() {
            return Ok(Self::default());
        }
        Self::decode_block(properties)
    }

    fn decode_block(mut properties: PropertyReader<'a>) -> Result<Self, DecodeError> {
        let block = properties.block();
        let mut decoded = Self::default();
        let mut forwarded_length = 0;
        while let Some((property, wire)) = properties.next_with_wire()? {
            match property {
                Property::MessageExpiryInterval(expiry_s) => {
                    decoded.message_expiry_s = Some(expiry_s);
                }
                Property::TopicAlias(alias) => decoded.topic_alias = Some(alias),
                Property::SubscriptionIdentifier(_) => {
                    decoded.subscription_ids = SubscriptionIds(Source::Block(block));
                }
                forwarded if forwarded.is_forwarded() => forwarded_length += wire.len(),
                other => return other.misplaced(),
            }
        }
        decoded.forwarded = Forwarded::among(block, forwarded_length);
        Ok(decoded)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.message_expiry_s.is_none()
            && self.topic_alias.is_none()
            && self.subscription_ids.is_empty()
            && self.forwarded.is_empty()
    }
}

impl PropertyBlock for PublishProperties<'_> {
    #[inline]
    fn write(&self, sink: &mut impl Sink) {
        if let Some(expiry_s) = self.message_expiry_s {
            Property::MessageExpiryInterval(expiry_s).write(sink);
        }
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias).write(sink);
        }
        for id in self.subscription_ids.iter() {
            Property::SubscriptionIdentifier(id).write(sink);
        }
        self.forwarded.write(sink);
    }
}

/// The subscription identifiers of a PUBLISH, each in `1..=268_435_455`.
#[derive(Copy, Clone)]
pub struct SubscriptionIds<'a>(Source<'a>);

#[derive(Copy, Clone)]
enum Source<'a> {
    /// A checked property block in which others may stand between them.
    Block(&'a [u8]),
    List(&'a [u32]),
}

impl<'a> SubscriptionIds<'a> {
    /// Identifiers for a packet that is to be encoded.
    #[inline]
    #[must_use]
    pub const fn from_list(ids: &'a [u32]) -> Self {
        Self(Source::List(ids))
    }

    /// The identifiers in their order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || rest.take_first())
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl Source<'_> {
    #[inline]
    fn take_first(&mut self) -> Option<u32> {
        match self {
            Source::List(ids) => {
                let (&first, rest) = ids.split_first()?;
                *ids = rest;
                Some(first)
            }
            Source::Block(block) => take_id(block),
        }
    }
}

fn take_id(block: &mut &[u8]) -> Option<u32> {
    let mut reader = Reader::new(block);
    while !reader.is_empty() {
        let property = Property::decode(&mut reader).ok()?;
        *block = reader.peek();
        if let Property::SubscriptionIdentifier(id) = property {
            return Some(id);
        }
    }
    None
}

impl Default for SubscriptionIds<'_> {
    fn default() -> Self {
        Self::from_list(&[])
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_error, check_valid, framed, id};
    use crate::packet::Packet;
    use crate::property::UserProperties;
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    const EMPTY: Publish<'_> = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: None,
        properties: PublishProperties {
            message_expiry_s: None,
            topic_alias: None,
            subscription_ids: SubscriptionIds::from_list(&[]),
            forwarded: Forwarded::from_block(&[]),
        },
        payload: b"",
    };

    #[test]
    fn the_same_packet_in_all_versions() {
        let publish = Packet::Publish(Publish {
            payload: b"hi",
            ..EMPTY
        });
        check(V3_1, b"\x30\x07\x00\x03a/bhi", &publish);
        check(V3_1_1, b"\x30\x07\x00\x03a/bhi", &publish);
        check(V5, b"\x30\x08\x00\x03a/b\x00hi", &publish);
    }

    #[test]
    fn dup_qos_retain_and_packet_id() {
        // [MQTT5-2.2.1-2] [MQTT3-2.3.1-5]: no packet identifier with QoS 0
        let publish = Packet::Publish(Publish {
            dup: true,
            qos: QoS::ExactlyOnce,
            retain: true,
            packet_id: Some(id(0x1234)),
            ..EMPTY
        });
        check(V3_1_1, b"\x3D\x07\x00\x03a/b\x12\x34", &publish);
        check(V5, b"\x3D\x08\x00\x03a/b\x12\x34\x00", &publish);
        let publish = Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(id(1)),
            ..EMPTY
        });
        check(V3_1_1, b"\x32\x07\x00\x03a/b\x00\x01", &publish);
    }

    #[test]
    fn qos_3_and_dup_with_qos_0_are_refused() {
        // [MQTT5-3.3.1-4] [MQTT5-3.3.1-2] [MQTT3-3.3.1-4] [MQTT3-3.3.1-2]
        for version in [V3_1, V3_1_1, V5] {
            let body: &[&[u8]] = &[b"\x00\x01a\x00\x01\x00"];
            check_error(version, &framed(0x36, body), DecodeError::QosInvalid);
            check_error(version, &framed(0x3E, body), DecodeError::QosInvalid);
            check_error(version, &framed(0x38, body), DecodeError::DupWithQos0);
        }
    }

    #[test]
    fn a_packet_id_is_not_zero() {
        // [MQTT5-2.2.1-3] [MQTT3-2.3.1-1]
        for version in [V3_1_1, V5] {
            let bytes = framed(0x32, &[b"\x00\x01a\x00\x00\x00"]);
            check_error(version, &bytes, DecodeError::PacketIdZero);
        }
    }

    #[test]
    fn topics_are_names() {
        // [MQTT5-3.3.2-1] [MQTT5-3.3.2-2] [MQTT5-4.7.0-1] [MQTT3-3.3.2-1] [MQTT3-3.3.2-2]
        let wildcard = DecodeError::TopicName(TopicNameError::HasWildcard);
        for version in [V3_1, V3_1_1, V5] {
            for (topic, error) in [
                (&b"\x00\x03a/#"[..], wildcard),
                (b"\x00\x03+/a", wildcard),
                (b"\x00\x0A123456789+", wildcard),
                (b"\x00\x03a\0b", DecodeError::StringHasNul),
                (b"\x00\x03\xED\xA0\x80", DecodeError::StringNotUtf8),
                (b"\x00\x04abc\xFF", DecodeError::StringNotUtf8),
                (b"\x00\x09abc", DecodeError::UnexpectedEnd),
                (b"\x00", DecodeError::UnexpectedEnd),
                (b"", DecodeError::UnexpectedEnd),
            ] {
                let end: &[u8] = if version == V5 && topic.len() > 4 {
                    b"\0"
                } else {
                    b""
                };
                let end = if topic == b"\x00\x09abc" { b"" } else { end };
                check_error(version, &framed(0x30, &[topic, end]), error);
            }
        }
    }

    #[test]
    fn an_empty_topic_needs_an_alias() {
        // MQTT 5.0 section 3.3.2.1, [MQTT3-4.7.3-1]
        let missing = DecodeError::TopicMissing;
        check_error(V3_1_1, &framed(0x30, &[b"\x00\x00hi"]), missing);
        check_error(V5, &framed(0x30, &[b"\x00\x00\x00hi"]), missing);
        let mut publish = Publish {
            topic: "",
            payload: b"hi",
            ..EMPTY
        };
        publish.properties.topic_alias = NonZeroU16::new(7);
        let publish = Packet::Publish(publish);
        check(V5, b"\x30\x08\x00\x00\x03\x23\x00\x07hi", &publish);
    }

    #[test]
    fn a_topic_alias_is_not_zero() {
        // [MQTT5-3.3.2-8]
        let bytes = framed(0x30, &[b"\x00\x01a\x03\x23\x00\x00"]);
        check_error(V5, &bytes, DecodeError::TopicAliasZero);
        assert_eq!(
            DecodeError::TopicAliasZero.reason_code(),
            crate::ReasonCode::TopicAliasInvalid
        );
    }

    #[test]
    fn all_properties() {
        let mut publish = EMPTY;
        publish.properties = PublishProperties {
            message_expiry_s: Some(0x0102_0304),
            topic_alias: NonZeroU16::new(5),
            subscription_ids: SubscriptionIds::from_list(&[1, 268_435_455]),
            forwarded: Forwarded::from_block(
                b"\x01\x01\x08\x00\x01r\x09\x00\x02\x00\xFF\x03\x00\x01t",
            ),
        };
        let properties = b"\x02\x01\x02\x03\x04\x23\x00\x05\x0B\x01\x0B\xFF\xFF\xFF\x7F\
            \x01\x01\x08\x00\x01r\x09\x00\x02\x00\xFF\x03\x00\x01t";
        let bytes = framed(0x30, &[b"\x00\x03a/b\x1E", properties]);
        check(V5, &bytes, &Packet::Publish(publish));
        // older versions cannot say any of them
        let mut out = Vec::new();
        assert_eq!(publish.encode(V3_1_1, &mut out), Ok(()));
        assert_eq!(out, b"\x30\x05\x00\x03a/b");
    }

    #[test]
    fn three_subscription_ids_leave_the_payload_alone() {
        // [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]; mqttbytes takes the last bytes for payload
        let mut publish = EMPTY;
        publish.properties.subscription_ids = SubscriptionIds::from_list(&[1, 2, 3]);
        publish.payload = b"hi";
        let bytes = b"\x30\x0E\x00\x03a/b\x06\x0B\x01\x0B\x02\x0B\x03hi";
        check(V5, bytes, &Packet::Publish(publish));
    }

    #[test]
    fn properties_out_of_place_range_or_number_are_refused() {
        for (properties, error) in [
            (&b"\x11\x00\x00\x00\x01"[..], DecodeError::PropertyMisplaced),
            (b"\x18\x00\x00\x00\x01", DecodeError::PropertyMisplaced),
            (b"\x1F\x00\x01a", DecodeError::PropertyMisplaced),
            (b"\x00", DecodeError::PropertyUnknown),
            (b"\x04\x00", DecodeError::PropertyUnknown),
            (b"\x81\x00\x01", DecodeError::PropertyUnknown),
            (b"\x01\x02", DecodeError::PropertyNotBoolean),
            (b"\x01\x00\x01\x00", DecodeError::PropertyDuplicate),
            (b"\x23\x00\x01\x23\x00\x01", DecodeError::PropertyDuplicate),
            (b"\x03\x00\x00\x03\x00\x00", DecodeError::PropertyDuplicate),
            (b"\x0B\x00", DecodeError::SubscriptionIdZero),
            (b"\x0B\x80\x00", DecodeError::VariableIntegerNotMinimal),
            (
                b"\x0B\x80\x80\x80\x80\x01",
                DecodeError::VariableIntegerTooLong,
            ),
            (b"\x02\x00\x00\x00", DecodeError::UnexpectedEnd),
            (b"\x26\x00\x01a\x00\x02b", DecodeError::UnexpectedEnd),
            (b"\x03\x00\x01\xFF", DecodeError::StringNotUtf8),
            (b"\x26\x00\x01\0\x00\x00", DecodeError::StringHasNul),
        ] {
            let length = [u8::try_from(properties.len()).unwrap()];
            let bytes = framed(0x30, &[b"\x00\x01a", &length, properties, b"payload"]);
            check_error(V5, &bytes, error);
        }
    }

    #[test]
    fn a_response_topic_is_a_name() {
        // [MQTT5-3.3.2-13] [MQTT5-3.3.2-14]
        for (properties, error) in [
            (b"\x05\x08\x00\x02a#", TopicNameError::HasWildcard),
            (b"\x05\x08\x00\x02+/", TopicNameError::HasWildcard),
        ] {
            let bytes = framed(0x30, &[b"\x00\x01a", properties]);
            check_error(V5, &bytes, DecodeError::ResponseTopic(error));
        }
        let bytes = framed(0x30, &[b"\x00\x01a\x03\x08\x00\x00"]);
        check_error(
            V5,
            &bytes,
            DecodeError::ResponseTopic(TopicNameError::Empty),
        );
    }

    #[test]
    fn the_property_length_is_checked() {
        // [MQTT5-2.2.2-1] [MQTT5-1.5.5-1]
        let bytes = framed(0x30, &[b"\x00\x01a"]);
        check_error(V5, &bytes, DecodeError::UnexpectedEnd);
        let bytes = framed(0x30, &[b"\x00\x01a\x05\x01\x01"]);
        check_error(V5, &bytes, DecodeError::UnexpectedEnd);
        let bytes = framed(0x30, &[b"\x00\x01a\x80\x00"]);
        check_error(V5, &bytes, DecodeError::VariableIntegerNotMinimal);
    }

    #[test]
    fn the_payload_is_any_bytes() {
        // [MQTT5-3.3.2-4]: the format indicator is not checked here
        check_valid(
            V5,
            &framed(0x30, &[b"\x00\x01a\x02\x01\x01\xFF\x00\xED\xA0\x80"]),
        );
    }

    #[test]
    fn subscription_ids_of_both_sources_are_equal() {
        let block = SubscriptionIds(Source::Block(b"\x0B\x05\x01\x01\x0B\x80\x01"));
        let list = SubscriptionIds::from_list(&[5, 128]);
        assert_eq!(block, list);
        assert_eq!(format!("{block:?}"), "[5, 128]");
        assert!(!block.is_empty());
        assert!(SubscriptionIds::default().is_empty());
        assert!(UserProperties::default().is_empty());
    }
}
