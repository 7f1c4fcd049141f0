//! What travels with a message unaltered: payload format indicator, response topic, correlation
//! data, content type and user properties.
//!
//! They stay as they came, in wire form and order, inside the property block of their packet, so
//! that forwarding is copying. Nothing is allocated; a value is looked up when somebody asks.
//!
//! Does not know: message expiry, topic aliases and subscription identifiers, which the broker
//! makes anew for every receiver.

use crate::primitive::Sink;
use crate::property::{Property, PropertyReader, UserProperties};
use std::fmt;

/// The properties of a message that a broker may not touch.
///
/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]
/// [MQTT5-3.3.2-20]
#[derive(Copy, Clone, Default)]
pub struct Forwarded<'a> {
    /// A checked property block.
    block: &'a [u8],
    /// How many bytes of the block are forwarded; fewer than all if others stand between them.
    length: usize,
}

impl<'a> Forwarded<'a> {
    /// The properties in `block`, which [`write_to`](Self::write_to) has made.
    #[must_use]
    pub const fn from_block(block: &'a [u8]) -> Self {
        Self {
            block,
            length: block.len(),
        }
    }

    /// Those among a packet's checked properties; they take `length` bytes of `block`.
    pub(crate) const fn among(block: &'a [u8], length: usize) -> Self {
        Self { block, length }
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bytes [`write_to`](Self::write_to) writes.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Appends the properties in wire form and original order, without a length.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.length);
        self.write(out);
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        if self.length == self.block.len() {
            sink.bytes(self.block);
        } else {
            self.entries().for_each(|(_, wire)| sink.bytes(wire));
        }
    }

    /// Whether the payload is said to be UTF-8 text.
    #[must_use]
    pub fn payload_format_is_utf8(&self) -> bool {
        self.entries()
            .any(|(property, _)| property == Property::PayloadFormatIndicator(true))
    }

    /// The topic on which the sender wants the answer.
    #[must_use]
    pub fn response_topic(&self) -> Option<&'a str> {
        self.entries().find_map(|(property, _)| match property {
            Property::ResponseTopic(topic) => Some(topic),
            _ => None,
        })
    }

    /// By what the sender knows which request an answer belongs to.
    #[must_use]
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.entries().find_map(|(property, _)| match property {
            Property::CorrelationData(data) => Some(data),
            _ => None,
        })
    }

    /// What the payload is, in the sender's words.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        self.entries().find_map(|(property, _)| match property {
            Property::ContentType(text) => Some(text),
            _ => None,
        })
    }

    /// The user properties.
    #[must_use]
    pub const fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::from_block(self.block)
    }

    /// The forwarded properties with their wire form.
    fn entries(&self) -> impl Iterator<Item = (Property<'a>, &'a [u8])> + use<'a> {
        let mut properties = PropertyReader::new(self.block);
        std::iter::from_fn(move || properties.next_with_wire().ok().flatten())
            .filter(|(property, _)| property.is_forwarded())
    }
}

/// A block of forwarded properties that the broker itself makes.
#[derive(Clone, Default, Debug)]
pub struct ForwardedBlock(Vec<u8>);

impl ForwardedBlock {
    /// Adds a response topic, which must be a valid topic name.
    pub fn response_topic(&mut self, topic: &str) {
        Property::ResponseTopic(topic).write(&mut self.0);
    }

    /// Adds correlation data.
    pub fn correlation_data(&mut self, data: &[u8]) {
        Property::CorrelationData(data).write(&mut self.0);
    }

    /// Adds a content type.
    pub fn content_type(&mut self, text: &str) {
        Property::ContentType(text).write(&mut self.0);
    }

    /// Adds a user property.
    pub fn user_property(&mut self, name: &str, value: &str) {
        Property::UserProperty(name, value).write(&mut self.0);
    }

    /// The block, as [`Forwarded::from_block`] takes it.
    #[must_use]
    pub fn into_bytes(self) -> Box<[u8]> {
        self.0.into_boxed_slice()
    }
}

impl PartialEq for Forwarded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.entries().eq(other.entries())
    }
}

impl Eq for Forwarded<'_> {}

impl fmt::Debug for Forwarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties = self.entries().map(|(property, _)| property);
        f.debug_list().entries(properties).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Decoded, Packet, decode};
    use crate::version::ProtocolVersion;

    /// Two user properties around everything, with others in between.
    const BLOCK: &[u8] = b"\x26\x00\x01k\x00\x011\x23\x00\x07\x01\x01\x09\x00\x02\x00\xFF\
        \x02\x00\x00\x00\x09\x08\x00\x02re\x0B\x05\x03\x00\x01t\x26\x00\x01k\x00\x012";

    #[test]
    fn what_is_forwarded_stays_as_it_came() {
        // [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]
        // [MQTT5-3.3.2-20]
        let wire = [b"\x30\x2C\x00\x01a\x28", BLOCK].concat();
        let Ok(Decoded::Packet {
            packet: Packet::Publish(publish),
            ..
        }) = decode(&wire, ProtocolVersion::V5, 100)
        else {
            panic!("not a PUBLISH");
        };
        let forwarded = publish.properties.forwarded;
        let mut block = Vec::new();
        forwarded.write_to(&mut block);
        assert_eq!(
            block,
            b"\x26\x00\x01k\x00\x011\x01\x01\x09\x00\x02\x00\xFF\
            \x08\x00\x02re\x03\x00\x01t\x26\x00\x01k\x00\x012"
        );
        assert_eq!(forwarded.len(), block.len());
        for forwarded in [forwarded, Forwarded::from_block(&block)] {
            assert!(!forwarded.is_empty());
            assert!(forwarded.payload_format_is_utf8());
            assert_eq!(forwarded.correlation_data(), Some(&[0x00, 0xFF][..]));
            assert_eq!(forwarded.response_topic(), Some("re"));
            assert_eq!(forwarded.content_type(), Some("t"));
            let pairs: Vec<_> = forwarded.user_properties().iter().collect();
            assert_eq!(pairs, [("k", "1"), ("k", "2")]);
        }
        assert_eq!(forwarded, Forwarded::from_block(&block));
        assert!(publish.properties.subscription_ids.iter().eq([5]));
    }

    #[test]
    fn a_block_that_was_made_reads_as_one_that_came() {
        let mut made = ForwardedBlock::default();
        made.user_property("k", "1");
        made.correlation_data(&[0x00, 0xFF]);
        made.response_topic("re");
        made.content_type("t");
        let block = made.into_bytes();
        assert_eq!(
            *block,
            *b"\x26\x00\x01k\x00\x011\x09\x00\x02\x00\xFF\x08\x00\x02re\x03\x00\x01t"
        );
        let forwarded = Forwarded::from_block(&block);
        assert_eq!(forwarded.response_topic(), Some("re"));
        assert_eq!(forwarded.user_properties().iter().count(), 1);
    }

    #[test]
    fn nothing_is_forwarded_by_default() {
        let none = Forwarded::default();
        assert!(none.is_empty());
        assert_eq!(none.len(), 0);
        assert!(!none.payload_format_is_utf8());
        assert_eq!(none.response_topic(), None);
        assert!(none.user_properties().is_empty());
        assert_eq!(format!("{none:?}"), "[]");
        // a format indicator of 0 is not the same as none: it goes on
        let bytes = Forwarded::from_block(b"\x01\x00");
        assert!(!bytes.payload_format_is_utf8());
        assert_ne!(bytes, none);
    }
}
