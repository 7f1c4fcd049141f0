//! The data types of the wire: integers, variable byte integers, strings and binary data.
//!
//! [`Reader`] takes fields off the front of a packet and refuses to run past its end. [`Sink`] is
//! what fields are written to, and has two forms: [`Counter`] learns the length (and whether a
//! value has no wire form), then `Vec<u8>` takes the bytes, so that no length is computed by a
//! second formula. MQTT 5.0 section 1.5, MQTT 3.1.1 section 1.5.
//!
//! Does not know: packets, properties, versions.

use crate::error::{DecodeError, EncodeError};
use std::fmt;
use std::num::NonZeroU16;

/// The largest value of a variable byte integer.
pub(crate) const VARIABLE_INTEGER_MAX: usize = 268_435_455;

/// A packet identifier: never zero.
///
/// [MQTT5-2.2.1-3] [MQTT3-2.3.1-1]
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// `None` for zero.
    #[inline]
    #[must_use]
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The identifier as a number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Takes fields off the front of a byte slice.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left, without taking it.
    #[inline]
    pub(crate) const fn peek(&self) -> &'a [u8] {
        self.0
    }

    /// Takes everything that is left.
    #[inline]
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Ends a packet: it must hold nothing more.
    ///
    /// [MQTT5-4.13.1-1] [MQTT3-4.8.0-1]
    #[inline]
    pub(crate) const fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&value, rest) = self.0.split_first().ok_or(DecodeError::UnexpectedEnd)?;
        self.0 = rest;
        Ok(value)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(*self.array()?))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(*self.array()?))
    }

    /// A variable byte integer in its shortest form.
    ///
    /// [MQTT5-1.5.5-1]
    #[inline]
    pub(crate) fn variable_integer(&mut self) -> Result<u32, DecodeError> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        self.variable_integer_after(first)
    }

    /// The bytes after the first one, which announced them.
    fn variable_integer_after(&mut self, first: u8) -> Result<u32, DecodeError> {
        let mut value = u32::from(first & 0x7F);
        for shift in [7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            match byte {
                0 => return Err(DecodeError::VariableIntegerNotMinimal),
                1..0x80 => return Ok(value),
                _ => {}
            }
        }
        Err(DecodeError::VariableIntegerTooLong)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::UnexpectedEnd)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Binary data: a two-byte length, then the bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }

    /// A string whose U+0000 the caller looks for.
    ///
    /// [MQTT5-1.5.4-1] [MQTT3-1.5.3-1]; a byte order mark is a character like any other
    /// [MQTT5-1.5.4-3] [MQTT3-1.5.3-3].
    #[inline]
    pub(crate) fn string_with_nul(&mut self) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.binary()?).map_err(|_| DecodeError::StringNotUtf8)
    }

    /// A string: well-formed UTF-8 without U+0000.
    ///
    /// [MQTT5-1.5.4-2] [MQTT5-1.5.7-1] [MQTT3-1.5.3-2]
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let string = self.string_with_nul()?;
        if string.as_bytes().contains(&0) {
            return Err(DecodeError::StringHasNul);
        }
        Ok(string)
    }

    /// [MQTT5-2.2.1-3] [MQTT3-2.3.1-1]
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or(DecodeError::UnexpectedEnd)?;
        self.0 = rest;
        Ok(array)
    }
}

/// Where fields are written to.
pub(crate) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    /// Notes a value that has no wire form; nothing is written for it.
    fn refuse(&mut self, error: EncodeError);

    #[inline]
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// In the shortest form [MQTT5-1.5.5-1].
    #[inline]
    fn variable_integer(&mut self, value: usize) {
        const fn low(bits: usize) -> u8 {
            let [low, ..] = bits.to_le_bytes();
            low & 0x7F
        }
        match value {
            0..0x80 => self.u8(low(value)),
            0x80..0x4000 => self.bytes(&[low(value) | 0x80, low(value >> 7)]),
            0x4000..0x20_0000 => {
                self.bytes(&[low(value) | 0x80, low(value >> 7) | 0x80, low(value >> 14)]);
            }
            0x20_0000..=VARIABLE_INTEGER_MAX => self.bytes(&[
                low(value) | 0x80,
                low(value >> 7) | 0x80,
                low(value >> 14) | 0x80,
                low(value >> 21),
            ]),
            _ => self.refuse(EncodeError::VariableIntegerTooLarge),
        }
    }

    #[inline]
    fn binary(&mut self, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(length) => {
                self.u16(length);
                self.bytes(bytes);
            }
            Err(_) => self.refuse(EncodeError::StringTooLong),
        }
    }

    #[inline]
    fn string(&mut self, string: &str) {
        self.binary(string.as_bytes());
    }
}

/// A sink that keeps only the length and the first refusal.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    pub(crate) length: usize,
    pub(crate) refused: Option<EncodeError>,
}

impl Sink for Counter {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len());
    }

    fn refuse(&mut self, error: EncodeError) {
        self.refused.get_or_insert(error);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    /// Never reached: the counter has seen the same value before.
    fn refuse(&mut self, _: EncodeError) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_integers_at_the_edges_of_each_length() {
        // [MQTT5-1.5.5-1], table 1-1
        for (value, wire) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            out.variable_integer(value);
            assert_eq!(out, wire);
            let read = Reader::new(wire).variable_integer();
            assert_eq!(read.map(|value| value as usize), Ok(value));
        }
    }

    #[test]
    fn variable_integers_are_minimal_and_at_most_four_bytes() {
        // [MQTT5-1.5.5-1]
        for wire in [&[0x80, 0x00][..], &[0xFF, 0x00], &[0x80, 0x80, 0x80, 0x00]] {
            let read = Reader::new(wire).variable_integer();
            assert_eq!(read, Err(DecodeError::VariableIntegerNotMinimal));
        }
        let read = Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x01]).variable_integer();
        assert_eq!(read, Err(DecodeError::VariableIntegerTooLong));
        let read = Reader::new(&[0x80, 0x80]).variable_integer();
        assert_eq!(read, Err(DecodeError::UnexpectedEnd));
        let mut counter = Counter::default();
        counter.variable_integer(VARIABLE_INTEGER_MAX + 1);
        assert_eq!(counter.refused, Some(EncodeError::VariableIntegerTooLarge));
        assert_eq!(counter.length, 0);
    }

    #[test]
    fn strings_are_well_formed_utf_8() {
        // [MQTT5-1.5.4-1] [MQTT3-1.5.3-1]: surrogates, overlong forms, beyond U+10FFFF, cut off
        for bytes in [
            &[0xED, 0xA0, 0x80][..],
            &[0xED, 0xBF, 0xBF],
            &[0xC0, 0x80],
            &[0xE0, 0x80, 0xAF],
            &[0xF4, 0x90, 0x80, 0x80],
            &[0xFF],
            &[0xC3],
        ] {
            let mut wire = Vec::new();
            wire.binary(bytes);
            let read = Reader::new(&wire).string();
            assert_eq!(read, Err(DecodeError::StringNotUtf8), "{bytes:02x?}");
        }
    }

    #[test]
    fn strings_hold_no_nul() {
        // [MQTT5-1.5.4-2] [MQTT3-1.5.3-2]
        let read = Reader::new(b"\x00\x03a\0b").string();
        assert_eq!(read, Err(DecodeError::StringHasNul));
    }

    #[test]
    fn a_byte_order_mark_stays() {
        // [MQTT5-1.5.4-3] [MQTT3-1.5.3-3]
        let read = Reader::new(b"\x00\x04\xEF\xBB\xBFa").string();
        assert_eq!(read, Ok("\u{FEFF}a"));
    }

    #[test]
    fn no_field_reaches_past_the_end() {
        let end = DecodeError::UnexpectedEnd;
        assert_eq!(Reader::new(&[]).u8(), Err(end));
        assert_eq!(Reader::new(&[1]).u16(), Err(end));
        assert_eq!(Reader::new(&[1, 2, 3]).u32(), Err(end));
        assert_eq!(Reader::new(&[0, 2, 3]).binary(), Err(end));
        assert_eq!(Reader::new(&[1]).finish(), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn a_string_over_65535_bytes_is_refused() {
        let mut counter = Counter::default();
        counter.string(&"x".repeat(65_535));
        assert_eq!((counter.length, counter.refused), (65_537, None));
        counter.string(&"x".repeat(65_536));
        assert_eq!(counter.refused, Some(EncodeError::StringTooLong));
    }

    #[test]
    fn packet_ids_are_not_zero() {
        // [MQTT5-2.2.1-3] [MQTT3-2.3.1-1]
        assert_eq!(PacketId::new(0), None);
        assert_eq!(
            Reader::new(&[0, 0]).packet_id(),
            Err(DecodeError::PacketIdZero)
        );
        let id = Reader::new(&[1, 2]).packet_id();
        assert_eq!(id.map(PacketId::get), Ok(258));
    }
}
