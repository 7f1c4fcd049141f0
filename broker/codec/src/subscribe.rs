//! SUBSCRIBE and SUBACK (sections 3.8 and 3.9).
//!
//! A decoded SUBSCRIBE holds at least one filter, none of them empty, all options valid. Whether
//! a filter is well-formed is not decided here: the session answers each one with a code of its
//! own, see [`parse_subscription`](crate::parse_subscription).

use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, PacketType};
use crate::primitive::{PacketId, Reader, Sink};
use crate::property::{
    Property, PropertyBlock, PropertyReader, ReasonProperties, UserProperties, write_block,
};
use crate::qos::QoS;
use crate::reason::{self, ReasonCode};
use crate::topic;
use crate::version::ProtocolVersion;
use std::fmt;

/// [MQTT5-3.9.3-2]
const CODES: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::GrantedQoS1,
    ReasonCode::GrantedQoS2,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];

/// The return codes of MQTT 3.1.1 (section 3.9.3 there).
const RETURN_CODES: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::GrantedQoS1,
    ReasonCode::GrantedQoS2,
    ReasonCode::UnspecifiedError,
];

/// A SUBSCRIBE packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Subscribe<'a> {
    /// What the SUBACK will name.
    pub packet_id: PacketId,
    /// What messages for these subscriptions are to be marked with, in `1..=268_435_455`.
    pub subscription_id: Option<u32>,
    /// Names and values of the client's own.
    pub user_properties: UserProperties<'a>,
    /// The subscriptions asked for.
    pub filters: SubscribeFilters<'a>,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(
        mut reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut subscribe = Self {
            packet_id: reader.packet_id()?,
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_list(&[]),
        };
        if version.has_properties() {
            subscribe.decode_properties(&mut reader)?;
        }
        subscribe.filters = SubscribeFilters::decode(reader.rest(), version)?;
        Ok(subscribe)
    }

    fn decode_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::decode(reader)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SubscriptionIdentifier(id) if self.subscription_id.is_none() => {
                    self.subscription_id = Some(id);
                }
                Property::SubscriptionIdentifier(_) => return Err(DecodeError::PropertyDuplicate),
                Property::UserProperty(..) => {}
                other => return other.misplaced(),
            }
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        fixed_header::encode(PacketType::Subscribe.first_byte(), self, version, out)
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

impl Body for Subscribe<'_> {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if version.has_properties() {
            write_block(self, sink);
        }
        for SubscribeFilter { filter, options } in self.filters.iter() {
            sink.string(filter);
            sink.u8(options.to_byte(version));
        }
    }
}

impl PropertyBlock for Subscribe<'_> {
    fn write(&self, sink: &mut impl Sink) {
        if let Some(id) = self.subscription_id {
            Property::SubscriptionIdentifier(id).write(sink);
        }
        self.user_properties.write(sink);
    }
}

/// One subscription that is asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SubscribeFilter<'a> {
    /// A topic filter, perhaps shared, perhaps malformed.
    pub filter: &'a str,
    /// How to deliver what matches.
    pub options: SubscribeOptions,
}

impl<'a> SubscribeFilter<'a> {
    fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        // [MQTT5-3.8.3-1] [MQTT3-3.8.3-1]
        let filter = reader.string()?;
        if filter.is_empty() {
            return Err(DecodeError::FilterEmpty);
        }
        let options = SubscribeOptions::from_byte(reader.u8()?, version)?;
        // [MQTT5-3.8.3-4]
        if options.no_local && topic::is_shared(filter) {
            return Err(DecodeError::NoLocalShared);
        }
        Ok(Self { filter, options })
    }
}

/// How messages are to be delivered for a subscription.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SubscribeOptions {
    /// The highest QoS to deliver with.
    pub qos: QoS,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether messages keep the retain flag they were published with.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    const NO_LOCAL: u8 = 0b0100;
    const RETAIN_AS_PUBLISHED: u8 = 0b1000;
    const RESERVED: u8 = 0b1100_0000;
    /// Before MQTT 5 there is the QoS and nothing else.
    const RESERVED_BEFORE_V5: u8 = 0b1111_1100;

    /// [MQTT5-3.8.3-5] [MQTT3-3.8.3-4]
    fn from_byte(byte: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let reserved = if version.has_properties() {
            Self::RESERVED
        } else {
            Self::RESERVED_BEFORE_V5
        };
        if byte & reserved != 0 {
            return Err(DecodeError::SubscribeOptionsReserved);
        }
        Ok(Self {
            qos: QoS::from_bits(byte & 0b11).ok_or(DecodeError::QosInvalid)?,
            no_local: byte & Self::NO_LOCAL != 0,
            retain_as_published: byte & Self::RETAIN_AS_PUBLISHED != 0,
            retain_handling: RetainHandling::from_bits((byte >> 4) & 0b11)
                .ok_or(DecodeError::RetainHandlingInvalid)?,
        })
    }

    fn to_byte(self, version: ProtocolVersion) -> u8 {
        if !version.has_properties() {
            return self.qos as u8;
        }
        let no_local = if self.no_local { Self::NO_LOCAL } else { 0 };
        let as_published = if self.retain_as_published {
            Self::RETAIN_AS_PUBLISHED
        } else {
            0
        };
        self.qos as u8 | no_local | as_published | ((self.retain_handling as u8) << 4)
    }
}

/// When retained messages are sent because of a SUBSCRIBE.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Each time.
    #[default]
    SendAlways = 0,
    /// If there was no such subscription.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

impl RetainHandling {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::SendAlways),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::DoNotSend),
            _ => None,
        }
    }
}

/// The subscriptions of a SUBSCRIBE, in their order.
#[derive(Copy, Clone)]
pub struct SubscribeFilters<'a>(Source<'a>);

#[derive(Copy, Clone)]
enum Source<'a> {
    /// Checked wire form. The options of older versions read the same as those of MQTT 5.
    Wire(&'a [u8]),
    List(&'a [SubscribeFilter<'a>]),
}

impl<'a> SubscribeFilters<'a> {
    /// Subscriptions for a packet that is to be encoded.
    #[must_use]
    pub const fn from_list(filters: &'a [SubscribeFilter<'a>]) -> Self {
        Self(Source::List(filters))
    }

    /// Checks the payload of a SUBSCRIBE.
    ///
    /// [MQTT5-3.8.3-2] [MQTT3-3.8.3-3]
    fn decode(wire: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        if wire.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        let mut reader = Reader::new(wire);
        while !reader.is_empty() {
            SubscribeFilter::decode(&mut reader, version)?;
        }
        Ok(Self(Source::Wire(wire)))
    }

    /// The subscriptions in their order.
    pub fn iter(&self) -> impl Iterator<Item = SubscribeFilter<'a>> + Clone + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || rest.take_first())
    }
}

impl<'a> Source<'a> {
    fn take_first(&mut self) -> Option<SubscribeFilter<'a>> {
        match self {
            Source::List(filters) => {
                let (&first, rest) = filters.split_first()?;
                *filters = rest;
                Some(first)
            }
            Source::Wire(wire) => {
                let mut reader = Reader::new(wire);
                let first = SubscribeFilter::decode(&mut reader, ProtocolVersion::V5).ok()?;
                *wire = reader.rest();
                Some(first)
            }
        }
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A SUBACK packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SubAck<'a> {
    /// That of the SUBSCRIBE [MQTT5-2.2.1-6] [MQTT3-2.3.1-7].
    pub packet_id: PacketId,
    /// One code per subscription, in their order and already right for the version.
    pub codes: &'a [u8],
    /// What happened, for people.
    pub reason_string: Option<&'a str>,
    /// Names and values of the server's own.
    pub user_properties: UserProperties<'a>,
}

impl<'a> SubAck<'a> {
    pub(crate) fn decode(
        mut reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let (properties, allowed) = if version.has_properties() {
            (ReasonProperties::decode(&mut reader)?, CODES)
        } else {
            (ReasonProperties::default(), RETURN_CODES)
        };
        let codes = reader.rest();
        reason::check_codes(codes, allowed)?;
        Ok(Self {
            packet_id,
            codes,
            reason_string: properties.reason_string,
            user_properties: properties.user_properties,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        fixed_header::encode(PacketType::SubAck.first_byte(), self, version, out)
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

impl Body for SubAck<'_> {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if version.has_properties() {
            let properties = ReasonProperties {
                reason_string: self.reason_string,
                user_properties: self.user_properties,
            };
            write_block(&properties, sink);
        }
        sink.bytes(self.codes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_error, check_valid, framed, id};
    use crate::packet::Packet;
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    fn filter(filter: &str, qos: QoS) -> SubscribeFilter<'_> {
        let options = SubscribeOptions {
            qos,
            ..SubscribeOptions::default()
        };
        SubscribeFilter { filter, options }
    }

    fn subscribe<'a>(filters: &'a [SubscribeFilter<'a>]) -> Subscribe<'a> {
        Subscribe {
            packet_id: id(10),
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_list(filters),
        }
    }

    #[test]
    fn filters_and_their_qos() {
        let filters = [
            filter("a/#", QoS::AtMostOnce),
            filter("+", QoS::ExactlyOnce),
        ];
        let packet = Packet::Subscribe(subscribe(&filters));
        let wire = b"\x00\x03a/#\x00\x00\x01+\x02";
        check(V3_1, &framed(0x82, &[b"\x00\x0A", wire]), &packet);
        check(V3_1_1, &framed(0x82, &[b"\x00\x0A", wire]), &packet);
        check(V5, &framed(0x82, &[b"\x00\x0A\x00", wire]), &packet);
    }

    #[test]
    fn all_options_and_properties() {
        let options = SubscribeOptions {
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        };
        let filters = [SubscribeFilter {
            filter: "a",
            options,
        }];
        let packet = Subscribe {
            subscription_id: Some(128),
            user_properties: UserProperties::from_pairs(&[("k", "v")]),
            ..subscribe(&filters)
        };
        let properties = b"\x0A\x0B\x80\x01\x26\x00\x01k\x00\x01v";
        let bytes = framed(0x82, &[b"\x00\x0A", properties, b"\x00\x01a\x2D"]);
        check(V5, &bytes, &Packet::Subscribe(packet));
        let mut out = Vec::new();
        assert_eq!(packet.encode(V3_1_1, &mut out), Ok(()));
        assert_eq!(out, b"\x82\x06\x00\x0A\x00\x01a\x01");
        check_valid(V5, &framed(0x82, &[b"\x00\x0A\x00\x00\x01a\x10"]));
    }

    #[test]
    fn options_out_of_range() {
        // [MQTT5-3.8.3-5] [MQTT3-3.8.3-4]
        for (options, error) in [
            (0x03, DecodeError::QosInvalid),
            (0x30, DecodeError::RetainHandlingInvalid),
            (0x40, DecodeError::SubscribeOptionsReserved),
            (0x80, DecodeError::SubscribeOptionsReserved),
            (0xC0, DecodeError::SubscribeOptionsReserved),
        ] {
            let bytes = framed(0x82, &[b"\x00\x0A\x00\x00\x01a", &[options]]);
            check_error(V5, &bytes, error);
        }
        for options in [0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFC] {
            let bytes = framed(0x82, &[b"\x00\x0A\x00\x01a", &[options]]);
            check_error(V3_1_1, &bytes, DecodeError::SubscribeOptionsReserved);
        }
        let bytes = framed(0x82, &[b"\x00\x0A\x00\x01a\x03"]);
        check_error(V3_1_1, &bytes, DecodeError::QosInvalid);
    }

    #[test]
    fn no_local_on_a_shared_subscription() {
        // [MQTT5-3.8.3-4]
        let bytes = framed(0x82, &[b"\x00\x0A\x00\x00\x0A$share/g/t\x04"]);
        check_error(V5, &bytes, DecodeError::NoLocalShared);
        check_valid(V5, &framed(0x82, &[b"\x00\x0A\x00\x00\x0A$share/g/t\x00"]));
    }

    #[test]
    fn there_is_a_filter_and_it_is_not_empty() {
        // [MQTT5-3.8.3-2] [MQTT5-4.7.3-1] [MQTT3-3.8.3-3] [MQTT3-4.7.3-1]
        check_error(
            V3_1_1,
            &framed(0x82, &[b"\x00\x0A"]),
            DecodeError::NoFilters,
        );
        check_error(
            V5,
            &framed(0x82, &[b"\x00\x0A\x00"]),
            DecodeError::NoFilters,
        );
        let bytes = framed(0x82, &[b"\x00\x0A\x00\x00\x00"]);
        check_error(V3_1_1, &bytes, DecodeError::FilterEmpty);
        let bytes = framed(0x82, &[b"\x00\x0A\x00\x00\x01a\x00\x00\x00\x00"]);
        check_error(V5, &bytes, DecodeError::FilterEmpty);
    }

    #[test]
    fn malformed_filters_are_left_to_the_session() {
        for wire in [
            &b"\x00\x05a/#/b\x00"[..],
            b"\x00\x06sport+\x00",
            b"\x00\x08$share//\x00",
        ] {
            check_valid(V3_1_1, &framed(0x82, &[b"\x00\x0A", wire]));
            check_valid(V5, &framed(0x82, &[b"\x00\x0A\x00", wire]));
        }
    }

    #[test]
    fn malformed_packets() {
        // [MQTT5-2.2.1-3] [MQTT5-3.8.3-1] [MQTT3-2.3.1-1] [MQTT3-3.8.3-1]
        for (body, error) in [
            (&b"\x00\x00\x00\x00\x01a\x00"[..], DecodeError::PacketIdZero),
            (b"\x00\x0A", DecodeError::UnexpectedEnd),
            (b"\x00\x0A\x00\x00\x01a", DecodeError::UnexpectedEnd),
            (b"\x00\x0A\x00\x00\x03a\x00", DecodeError::UnexpectedEnd),
            (b"\x00\x0A\x00\x00\x01a\x00\x00", DecodeError::UnexpectedEnd),
            (b"\x00\x0A\x00\x00\x01\xFF\x00", DecodeError::StringNotUtf8),
            (b"\x00\x0A\x00\x00\x01\0\x00", DecodeError::StringHasNul),
            (
                b"\x00\x0A\x02\x0B\x00\x00\x01a\x00",
                DecodeError::SubscriptionIdZero,
            ),
            (
                b"\x00\x0A\x04\x0B\x01\x0B\x02\x00\x01a\x00",
                DecodeError::PropertyDuplicate,
            ),
            (
                b"\x00\x0A\x03\x21\x00\x01\x00\x01a\x00",
                DecodeError::PropertyMisplaced,
            ),
        ] {
            check_error(V5, &framed(0x82, &[body]), error);
        }
    }

    #[test]
    fn suback_codes() {
        // [MQTT5-3.9.3-1] [MQTT5-3.9.3-2] [MQTT3-3.8.4-5]
        let suback = |codes| {
            Packet::SubAck(SubAck {
                packet_id: id(10),
                codes,
                reason_string: None,
                user_properties: UserProperties::default(),
            })
        };
        let bytes = b"\x90\x06\x00\x0A\x00\x01\x02\x80";
        check(V3_1_1, bytes, &suback(&[0, 1, 2, 0x80]));
        check(V5, b"\x90\x05\x00\x0A\x00\x8F\x02", &suback(&[0x8F, 2]));
        let not_allowed = DecodeError::ReasonCodeNotAllowed;
        for code in [0x03, 0x8F, 0xFF] {
            check_error(V3_1_1, &[0x90, 3, 0, 10, code], not_allowed);
        }
        for code in [0x03, 0x11, 0x81, 0xFF] {
            check_error(V5, &[0x90, 4, 0, 10, 0, code], not_allowed);
        }
        check_error(V3_1_1, b"\x90\x02\x00\x0A", DecodeError::NoReasonCodes);
        check_error(V5, b"\x90\x03\x00\x0A\x00", DecodeError::NoReasonCodes);
        check_error(V3_1_1, b"\x90\x03\x00\x00\x00", DecodeError::PacketIdZero);
    }

    #[test]
    fn suback_properties() {
        let suback = SubAck {
            packet_id: id(10),
            codes: &[0],
            reason_string: Some("r"),
            user_properties: UserProperties::from_pairs(&[("k", "v")]),
        };
        let properties = b"\x0B\x1F\x00\x01r\x26\x00\x01k\x00\x01v";
        let bytes = framed(0x90, &[b"\x00\x0A", properties, b"\x00"]);
        check(V5, &bytes, &Packet::SubAck(suback));
        let bytes = framed(0x90, &[b"\x00\x0A\x02\x0B\x01\x00"]);
        check_error(V5, &bytes, DecodeError::PropertyMisplaced);
    }

    #[test]
    fn filters_of_both_sources_are_equal() {
        let list = [filter("a", QoS::AtLeastOnce)];
        let wire = SubscribeFilters::decode(b"\x00\x01a\x01", V3_1_1);
        assert_eq!(wire, Ok(SubscribeFilters::from_list(&list)));
        assert!(format!("{wire:?}").contains("AtLeastOnce"));
    }
}
