//! Properties (MQTT 5.0 section 2.2.2): identifiers, types, ranges, how often each may occur.
//!
//! [`Property`] is the table of all properties, with their form in both directions.
//! [`PropertyReader`] walks one property block and enforces what holds for every packet; which
//! properties a packet may carry is said by the `match` in that packet's file, whose last arm is
//! [`Property::misplaced`]. [`UserProperties`] stay in wire form until somebody asks.

use crate::error::DecodeError;
use crate::primitive::{Counter, Reader, Sink};
use crate::qos::QoS;
use crate::topic;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

/// One property, by the name the specification gives it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::enum_variant_names,
    reason = "User Property is the specification's name"
)]
pub(crate) enum Property<'a> {
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQoS(QoS),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(NonZeroU32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    /// Reads an identifier and the value that belongs to it.
    ///
    /// All identifiers are below 128, so that one byte of the variable byte integer says it.
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0x01 => Self::PayloadFormatIndicator(boolean(reader)?),
            0x02 => Self::MessageExpiryInterval(reader.u32()?),
            0x03 => Self::ContentType(reader.string()?),
            0x08 => Self::ResponseTopic(response_topic(reader)?),
            0x09 => Self::CorrelationData(reader.binary()?),
            0x0B => Self::SubscriptionIdentifier(subscription_id(reader)?),
            0x11 => Self::SessionExpiryInterval(reader.u32()?),
            0x12 => Self::AssignedClientIdentifier(reader.string()?),
            0x13 => Self::ServerKeepAlive(reader.u16()?),
            0x15 => Self::AuthenticationMethod(reader.string()?),
            0x16 => Self::AuthenticationData(reader.binary()?),
            0x17 => Self::RequestProblemInformation(boolean(reader)?),
            0x18 => Self::WillDelayInterval(reader.u32()?),
            0x19 => Self::RequestResponseInformation(boolean(reader)?),
            0x1A => Self::ResponseInformation(reader.string()?),
            0x1C => Self::ServerReference(reader.string()?),
            0x1F => Self::ReasonString(reader.string()?),
            0x21 => Self::ReceiveMaximum(non_zero(reader, DecodeError::ReceiveMaximumZero)?),
            0x22 => Self::TopicAliasMaximum(reader.u16()?),
            0x23 => Self::TopicAlias(non_zero(reader, DecodeError::TopicAliasZero)?),
            0x24 => Self::MaximumQoS(maximum_qos(reader)?),
            0x25 => Self::RetainAvailable(boolean(reader)?),
            0x26 => Self::UserProperty(reader.string()?, reader.string()?),
            0x27 => Self::MaximumPacketSize(
                NonZeroU32::new(reader.u32()?).ok_or(DecodeError::PacketBytesMaxZero)?,
            ),
            0x28 => Self::WildcardSubscriptionAvailable(boolean(reader)?),
            0x29 => Self::SubscriptionIdentifierAvailable(boolean(reader)?),
            0x2A => Self::SharedSubscriptionAvailable(boolean(reader)?),
            _ => return Err(DecodeError::PropertyUnknown),
        })
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        sink.u8(self.id());
        match *self {
            Self::PayloadFormatIndicator(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => sink.u8(u8::from(value)),
            Self::MaximumQoS(qos) => sink.u8(qos as u8),
            Self::ServerKeepAlive(value) | Self::TopicAliasMaximum(value) => sink.u16(value),
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => sink.u16(value.get()),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value) => sink.u32(value),
            Self::MaximumPacketSize(value) => sink.u32(value.get()),
            Self::SubscriptionIdentifier(value) => sink.variable_integer(value as usize),
            Self::CorrelationData(data) | Self::AuthenticationData(data) => sink.binary(data),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => sink.string(text),
            Self::UserProperty(name, value) => {
                sink.string(name);
                sink.string(value);
            }
        }
    }

    /// The identifier, as in table 2-4.
    const fn id(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(_) => 0x01,
            Self::MessageExpiryInterval(_) => 0x02,
            Self::ContentType(_) => 0x03,
            Self::ResponseTopic(_) => 0x08,
            Self::CorrelationData(_) => 0x09,
            Self::SubscriptionIdentifier(_) => 0x0B,
            Self::SessionExpiryInterval(_) => 0x11,
            Self::AssignedClientIdentifier(_) => 0x12,
            Self::ServerKeepAlive(_) => 0x13,
            Self::AuthenticationMethod(_) => 0x15,
            Self::AuthenticationData(_) => 0x16,
            Self::RequestProblemInformation(_) => 0x17,
            Self::WillDelayInterval(_) => 0x18,
            Self::RequestResponseInformation(_) => 0x19,
            Self::ResponseInformation(_) => 0x1A,
            Self::ServerReference(_) => 0x1C,
            Self::ReasonString(_) => 0x1F,
            Self::ReceiveMaximum(_) => 0x21,
            Self::TopicAliasMaximum(_) => 0x22,
            Self::TopicAlias(_) => 0x23,
            Self::MaximumQoS(_) => 0x24,
            Self::RetainAvailable(_) => 0x25,
            Self::UserProperty(..) => 0x26,
            Self::MaximumPacketSize(_) => 0x27,
            Self::WildcardSubscriptionAvailable(_) => 0x28,
            Self::SubscriptionIdentifierAvailable(_) => 0x29,
            Self::SharedSubscriptionAvailable(_) => 0x2A,
        }
    }

    /// Whether it travels with a message unaltered.
    ///
    /// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-20]
    pub(crate) const fn is_forwarded(&self) -> bool {
        matches!(
            self,
            Self::PayloadFormatIndicator(_)
                | Self::ContentType(_)
                | Self::ResponseTopic(_)
                | Self::CorrelationData(_)
                | Self::UserProperty(..)
        )
    }

    /// A packet that may not carry this property ends its `match` with this error.
    pub(crate) const fn misplaced<T>(self) -> Result<T, DecodeError> {
        Err(DecodeError::PropertyMisplaced)
    }
}

fn boolean(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyNotBoolean),
    }
}

/// [MQTT5-3.3.2-13] [MQTT5-3.3.2-14]
fn response_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let topic = reader.string()?;
    topic::validate_topic_name(topic).map_err(DecodeError::ResponseTopic)?;
    Ok(topic)
}

fn subscription_id(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    match reader.variable_integer()? {
        0 => Err(DecodeError::SubscriptionIdZero),
        id => Ok(id),
    }
}

fn maximum_qos(reader: &mut Reader<'_>) -> Result<QoS, DecodeError> {
    match QoS::from_bits(reader.u8()?) {
        Some(qos @ (QoS::AtMostOnce | QoS::AtLeastOnce)) => Ok(qos),
        _ => Err(DecodeError::MaximumQosInvalid),
    }
}

fn non_zero(reader: &mut Reader<'_>, error: DecodeError) -> Result<NonZeroU16, DecodeError> {
    NonZeroU16::new(reader.u16()?).ok_or(error)
}

/// Walks a property block. Only user properties and subscription identifiers may come twice;
/// the latter only in PUBLISH, which SUBSCRIBE sees to.
#[derive(Debug)]
pub(crate) struct PropertyReader<'a> {
    block: &'a [u8],
    rest: Reader<'a>,
    /// One bit per identifier met.
    seen: u64,
}

impl<'a> PropertyReader<'a> {
    /// Takes the property length and as many bytes off `reader`.
    #[inline]
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let length = reader.variable_integer()?;
        let block = reader.bytes(length as usize)?;
        Ok(Self::new(block))
    }

    #[inline]
    pub(crate) const fn new(block: &'a [u8]) -> Self {
        Self {
            block,
            rest: Reader::new(block),
            seen: 0,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    pub(crate) const fn block(&self) -> &'a [u8] {
        self.block
    }

    /// The next property, or `None` at the end of the block.
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        Ok(self.next_with_wire()?.map(|(property, _)| property))
    }

    /// Like [`next`](Self::next), together with the bytes it was read from.
    pub(crate) fn next_with_wire(
        &mut self,
    ) -> Result<Option<(Property<'a>, &'a [u8])>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let wire = self.rest.peek();
        let property = Property::decode(&mut self.rest)?;
        self.note(&property)?;
        let length = wire.len() - self.rest.peek().len();
        let wire = Reader::new(wire).bytes(length)?;
        Ok(Some((property, wire)))
    }

    fn note(&mut self, property: &Property<'a>) -> Result<(), DecodeError> {
        let bit = 1 << property.id();
        let repeats = matches!(
            property,
            Property::UserProperty(..) | Property::SubscriptionIdentifier(_)
        );
        if self.seen & bit != 0 && !repeats {
            return Err(DecodeError::PropertyDuplicate);
        }
        self.seen |= bit;
        Ok(())
    }

    /// The user properties among those read so far.
    pub(crate) const fn user_properties(&self) -> UserProperties<'a> {
        if self.seen & (1 << Property::UserProperty("", "").id()) == 0 {
            UserProperties::EMPTY
        } else {
            UserProperties::from_block(self.block)
        }
    }
}

/// Properties that a packet writes as one block.
pub(crate) trait PropertyBlock {
    fn write(&self, sink: &mut impl Sink);
}

/// Writes the property length, then the properties.
#[inline]
pub(crate) fn write_block(block: &impl PropertyBlock, sink: &mut impl Sink) {
    let mut counter = Counter::default();
    block.write(&mut counter);
    sink.variable_integer(counter.length);
    block.write(sink);
}

/// Whether a packet would write no property at all.
pub(crate) fn is_empty(block: &impl PropertyBlock) -> bool {
    let mut counter = Counter::default();
    block.write(&mut counter);
    counter.length == 0 && counter.refused.is_none()
}

/// Reason String and User Property: all that PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK
/// may carry.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct ReasonProperties<'a> {
    pub(crate) reason_string: Option<&'a str>,
    pub(crate) user_properties: UserProperties<'a>,
}

impl<'a> ReasonProperties<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut properties = PropertyReader::decode(reader)?;
        let mut reason_string = None;
        while let Some(property) = properties.next()? {
            match property {
                Property::ReasonString(text) => reason_string = Some(text),
                Property::UserProperty(..) => {}
                other => return other.misplaced(),
            }
        }
        Ok(Self {
            reason_string,
            user_properties: properties.user_properties(),
        })
    }
}

impl PropertyBlock for ReasonProperties<'_> {
    fn write(&self, sink: &mut impl Sink) {
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(sink);
        }
        self.user_properties.write(sink);
    }
}

/// The user properties of a packet: names and values in order, names may repeat.
#[derive(Copy, Clone)]
pub struct UserProperties<'a>(Source<'a>);

#[derive(Copy, Clone)]
enum Source<'a> {
    /// A property block in which others may stand between them.
    Block(&'a [u8]),
    Pairs(&'a [(&'a str, &'a str)]),
}

impl<'a> UserProperties<'a> {
    const EMPTY: Self = Self(Source::Pairs(&[]));

    /// User properties for a packet that is to be encoded.
    #[must_use]
    pub const fn from_pairs(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self(Source::Pairs(pairs))
    }

    /// Those in `block`, which has been checked.
    pub(crate) const fn from_block(block: &'a [u8]) -> Self {
        Self(Source::Block(block))
    }

    /// Names and values in their order [MQTT5-3.3.2-18].
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || rest.take_first())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        for (name, value) in self.iter() {
            Property::UserProperty(name, value).write(sink);
        }
    }
}

impl<'a> Source<'a> {
    fn take_first(&mut self) -> Option<(&'a str, &'a str)> {
        match self {
            Source::Pairs(pairs) => {
                let (&first, rest) = pairs.split_first()?;
                *pairs = rest;
                Some(first)
            }
            Source::Block(block) => {
                let mut reader = Reader::new(block);
                while !reader.is_empty() {
                    let property = Property::decode(&mut reader).ok()?;
                    *block = reader.peek();
                    if let Property::UserProperty(name, value) = property {
                        return Some((name, value));
                    }
                }
                None
            }
        }
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Property<'static>> {
        vec![
            Property::PayloadFormatIndicator(true),
            Property::MessageExpiryInterval(1),
            Property::ContentType("a"),
            Property::ResponseTopic("a"),
            Property::CorrelationData(b"a"),
            Property::SubscriptionIdentifier(268_435_455),
            Property::SessionExpiryInterval(1),
            Property::AssignedClientIdentifier("a"),
            Property::ServerKeepAlive(1),
            Property::AuthenticationMethod("a"),
            Property::AuthenticationData(b"a"),
            Property::RequestProblemInformation(false),
            Property::WillDelayInterval(1),
            Property::RequestResponseInformation(false),
            Property::ResponseInformation("a"),
            Property::ServerReference("a"),
            Property::ReasonString("a"),
            Property::ReceiveMaximum(NonZeroU16::MIN),
            Property::TopicAliasMaximum(0),
            Property::TopicAlias(NonZeroU16::MAX),
            Property::MaximumQoS(QoS::AtMostOnce),
            Property::RetainAvailable(true),
            Property::UserProperty("a", "b"),
            Property::MaximumPacketSize(NonZeroU32::MAX),
            Property::WildcardSubscriptionAvailable(true),
            Property::SubscriptionIdentifierAvailable(true),
            Property::SharedSubscriptionAvailable(true),
        ]
    }

    #[test]
    fn every_property_is_read_as_it_is_written() {
        // table 2-4 of MQTT 5.0
        for property in all() {
            let mut wire = Vec::new();
            property.write(&mut wire);
            assert_eq!(wire.first(), Some(&property.id()));
            let mut reader = Reader::new(&wire);
            assert_eq!(Property::decode(&mut reader), Ok(property));
            assert!(reader.is_empty());
            for length in 0..wire.len() {
                let mut reader = Reader::new(wire.split_at(length).0);
                let read = Property::decode(&mut reader);
                assert_eq!(read, Err(DecodeError::UnexpectedEnd));
            }
        }
        let known: Vec<_> = all().iter().map(Property::id).collect();
        for id in (0..=u8::MAX).filter(|id| !known.contains(id)) {
            let wire = [id, 0, 0, 0, 0];
            let read = Property::decode(&mut Reader::new(&wire));
            assert_eq!(read, Err(DecodeError::PropertyUnknown));
        }
    }

    #[test]
    fn properties_come_once_except_two() {
        for property in all() {
            let mut wire = Vec::new();
            property.write(&mut wire);
            property.write(&mut wire);
            let mut reader = PropertyReader::new(&wire);
            assert_eq!(reader.next(), Ok(Some(property)));
            let second = match property {
                Property::UserProperty(..) | Property::SubscriptionIdentifier(_) => {
                    Ok(Some(property))
                }
                _ => Err(DecodeError::PropertyDuplicate),
            };
            assert_eq!(reader.next(), second);
        }
    }

    #[test]
    fn user_properties_keep_order_and_duplicates() {
        // [MQTT5-3.3.2-18]
        let wire = b"\x26\x00\x01b\x00\x011\x1F\x00\x00\x26\x00\x01a\x00\x00\x26\x00\x01b\x00\x012";
        let mut reader = PropertyReader::new(wire);
        while reader.next().unwrap().is_some() {}
        let pairs = [("b", "1"), ("a", ""), ("b", "2")];
        assert_eq!(reader.user_properties(), UserProperties::from_pairs(&pairs));
        assert!(reader.user_properties().iter().eq(pairs));
        assert!(UserProperties::default().is_empty());
        assert_eq!(
            format!("{:?}", UserProperties::from_pairs(&pairs[..1])),
            r#"[("b", "1")]"#
        );
    }
}
