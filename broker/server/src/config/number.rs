//! Numbers and sizes: how they are written, and what a key accepts.
//!
//! Promises: a size such as `"64KiB"` and the integer of its bytes are the same; a number too large for any key is told
//! from what is no number at all; a range shows its bounds as a person would write them.
//!
//! Does not know: keys, documents.

use std::fmt;

/// The numbers a key accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
    /// Whether 0 is accepted too, with a meaning of its own.
    pub or_zero: bool,
    /// What is counted.
    pub unit: Unit,
}

impl Range {
    pub(super) fn contains(&self, number: u64) -> bool {
        (self.min..=self.max).contains(&number) || (self.or_zero && number == 0)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.or_zero {
            write!(formatter, "0 or ")?;
        }
        let (min, max) = (self.unit.show(self.min), self.unit.show(self.max));
        match self.unit {
            Unit::Count => write!(formatter, "from {min} to {max}"),
            Unit::Bytes => write!(formatter, "from {min} to {max} bytes"),
            Unit::Seconds => write!(formatter, "from {min} to {max} seconds"),
            Unit::Milliseconds => write!(formatter, "from {min} to {max} milliseconds"),
        }
    }
}

/// What a number counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes; only these may be written with a unit, such as `"64KiB"`.
    Bytes,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    /// `number` as a person would write it.
    fn show(self, number: u64) -> String {
        let in_units =
            |bytes: u64| (number >= bytes && number.is_multiple_of(bytes)).then(|| number / bytes);
        if self != Self::Bytes {
            return number.to_string();
        }
        SIZE_UNITS
            .iter()
            .filter(|(name, _)| name.ends_with("iB"))
            .find_map(|(name, bytes)| in_units(*bytes).map(|count| format!("{count}{name}")))
            .unwrap_or_else(|| number.to_string())
    }
}

/// The outcome of reading digits.
pub(super) enum Parsed {
    Number(u64),
    /// A number that no key takes: negative or enormous.
    Unfit,
}

impl From<u128> for Parsed {
    fn from(number: u128) -> Self {
        u64::try_from(number).map_or(Self::Unfit, Self::Number)
    }
}

/// Reads digits, with `_` between them if need be, and the unit of a size; `None` when it is no number.
pub(super) fn parse_number(text: &str, unit: Unit) -> Option<Parsed> {
    let text = text.trim();
    if let Some(digits) = text.strip_prefix('-') {
        return parse_number(digits, unit).map(|_| Parsed::Unfit);
    }
    let digits_end = text.find(|character: char| !character.is_ascii_digit() && character != '_');
    let (digits, suffix) = text.split_at(digits_end.unwrap_or(text.len()));
    let digits = digits.replace('_', "");
    if digits.is_empty() {
        return None;
    }
    let factor = match (suffix.trim(), unit) {
        ("", _) => 1,
        (suffix, Unit::Bytes) => {
            let named = |(name, _): &&(&str, u64)| name.eq_ignore_ascii_case(suffix);
            SIZE_UNITS.iter().find(named)?.1
        }
        _ => return None,
    };
    let number = digits
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(factor));
    Some(number.map_or(Parsed::Unfit, Parsed::Number))
}

/// What a key that counts `unit` says it needs.
pub(super) fn expected_number(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "a size: an integer of bytes, or a string such as \"64KiB\" or \"1MiB\"",
        Unit::Count => "an integer",
        Unit::Seconds => "an integer of seconds",
        Unit::Milliseconds => "an integer of milliseconds",
    }
}

/// Units of sizes and their bytes, largest first among those with the same ending.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];
