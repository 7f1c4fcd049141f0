//! Properties of MQTT 5 in what a broker sends.
//!
//! Every property that a packet may have is measured and, but for user properties and subscription identifiers,
//! allowed once (MQTT 5, 2.2.2); one that does not belong to the packet makes it malformed.

/// One property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Property<'a> {
    pub(super) id: u8,
    pub(super) value: Value<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A byte or an integer of two or four bytes, or of variable length.
    Number(u32),
    Text(&'a str),
    /// Binary data or a user property, of no interest.
    Other,
}

impl Value<'_> {
    pub(super) fn number(self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }
}

pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub(super) const SESSION_EXPIRY: u8 = 0x11;
pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(super) const REASON_STRING: u8 = 0x1F;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(super) const MAXIMUM_QOS: u8 = 0x24;
pub(super) const USER_PROPERTY: u8 = 0x26;

/// Reads the properties at the front of `bytes`, calls `take` with each, and returns what follows them; `None` when
/// they are malformed or one is not among `allowed`.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    allowed: &[u8],
    mut take: impl FnMut(Property<'a>) -> Option<()>,
) -> Option<&'a [u8]> {
    let (length, bytes) = variable(bytes)?;
    let (mut properties, rest) = bytes.split_at_checked(length.try_into().ok()?)?;
    let mut seen = 0_u64;
    while let Some((id, bytes)) = properties.split_first() {
        let (value, bytes) = value(*id, bytes)?;
        properties = bytes;
        let bit = 1_u64.checked_shl((*id).into())?;
        let is_repeatable = matches!(*id, USER_PROPERTY | SUBSCRIPTION_IDENTIFIER);
        if !allowed.contains(id) || (seen & bit != 0 && !is_repeatable) {
            return None;
        }
        seen |= bit;
        take(Property { id: *id, value })?;
    }
    Some(rest)
}

fn value(id: u8, bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    Some(match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => {
            let (byte, rest) = bytes.split_first()?;
            (Value::Number((*byte).into()), rest)
        }
        0x13 | 0x21..=0x23 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (Value::Number(u16::from_be_bytes(*number).into()), rest)
        }
        0x02 | 0x11 | 0x18 | 0x27 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (Value::Number(u32::from_be_bytes(*number)), rest)
        }
        0x0B => {
            let (number, rest) = variable(bytes)?;
            (Value::Number(number), rest)
        }
        0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => {
            let (text, rest) = string(bytes)?;
            (Value::Text(text), rest)
        }
        0x09 | 0x16 => (Value::Other, counted(bytes)?.1),
        0x26 => {
            let (_, rest) = string(bytes)?;
            (Value::Other, string(rest)?.1)
        }
        _ => return None,
    })
}

/// Bytes with their length before them, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, bytes) = bytes.split_first_chunk()?;
    bytes.split_at_checked(u16::from_be_bytes(*length).into())
}

/// A string, and what follows.
pub(super) fn string(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (text, rest) = counted(bytes)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// An integer of one to four bytes, and what follows.
fn variable(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0;
    for (position, byte) in bytes.iter().take(4).enumerate() {
        number |= u32::from(byte & 0x7F) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(position + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_value_has_its_length() {
        let bytes = b"\x1c\x24\x01\x21\x01\x02\x11\0\0\x01\0\x0b\x80\x01\x1f\0\x01x\x09\0\x02ab\x26\0\x01k\0\0rest";
        let mut found = Vec::new();
        let allowed = [0x24, 0x21, 0x11, 0x0B, 0x1F, 0x09, 0x26];
        let rest = read(bytes, &allowed, |property| {
            found.push((property.id, property.value));
            Some(())
        });
        assert_eq!(rest, Some(&b"rest"[..]));
        assert_eq!(
            found,
            [
                (0x24, Value::Number(1)),
                (0x21, Value::Number(258)),
                (0x11, Value::Number(256)),
                (0x0B, Value::Number(128)),
                (0x1F, Value::Text("x")),
                (0x09, Value::Other),
                (0x26, Value::Other),
            ]
        );
    }

    #[test]
    fn what_is_not_as_it_should_be_is_malformed() {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\x05\x1f\0\x01x",      // longer than what is there
            b"\x04\x24\x01\x24\x01", // twice
            b"\x02\x25\x01",         // does not belong there
            b"\x02\x7f\x01",         // unknown
            b"\x04\x1f\0\x01\xff",   // not UTF-8
            b"\x03\x1f\0\x05",       // a string beyond the properties
            b"\xff\xff\xff\xff\x01", // a length of five bytes
        ] {
            let rest = read(bytes, &[0x24, 0x1F], |_| Some(()));
            assert_eq!(rest, None, "{bytes:?}");
        }
    }
}
