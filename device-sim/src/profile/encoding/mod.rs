//! How readings are written, and how a message is known again.
//!
//! Every payload carries its label: device, sequence and intended time in microseconds of the run. The first
//! byte tells the encodings apart, and [`label`] reads it out of any of them:
//!
//! | first byte | encoding | label |
//! |---|---|---|
//! | `{` | [`json`] | `"d"`, `"n"`, `"t"` |
//! | `0xA0..=0xB7` | [`cbor`] | the first three pairs `"d"`, `"n"`, `"t"` |
//! | `[` | [`senml`] | the base name, the records `seq` and `t` |
//! | `0x01` | [`packed`] | bytes 2 to 15 |
//!
//! A label is only read out of a payload that is whole: one that lost its end is not ours.

mod cbor;
mod decimal;
mod json;
mod packed;
mod senml;

use super::command::Command;
use super::measure::{Measure, Reading};
use crate::label::Label;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How payloads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One object with short keys.
    Json,
    /// One map with the same keys (RFC 8949).
    Cbor,
    /// An array of records (RFC 8428).
    SenMl,
    /// Fixed places.
    Packed,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Json, Self::Cbor, Self::SenMl, Self::Packed];

    /// Its name in options and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Cbor => "cbor",
            Self::SenMl => "senml",
            Self::Packed => "packed",
        }
    }

    /// Whether payloads can be read by people.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::Json | Self::SenMl)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL
            .into_iter()
            .find(|encoding| encoding.name() == text);
        known.ok_or_else(|| format!("{text:?} is no encoding: write json, cbor, senml or packed"))
    }
}

/// Appends a reading.
pub(crate) fn encode(
    encoding: Encoding,
    measure: Measure,
    label: &Label,
    reading: &Reading,
    payload: &mut Vec<u8>,
) {
    match encoding {
        Encoding::Json => json::encode(measure, label, reading, payload),
        Encoding::Cbor => cbor::encode(measure, label, reading, payload),
        Encoding::SenMl => senml::encode(measure, label, reading, payload),
        Encoding::Packed => packed::encode(measure, label, reading, payload),
    }
}

/// Who sent a payload, and which of its messages it is; `None` when it is not one of ours, or not whole.
#[must_use]
pub fn label(payload: &[u8]) -> Option<Label> {
    match payload.first()? {
        b'{' => json::label(payload),
        b'[' => senml::label(payload),
        0xA0..=0xB7 => cbor::label(payload),
        &packed::READING => packed::label(payload),
        _ => None,
    }
}

/// Appends a command.
pub(crate) fn encode_command(encoding: Encoding, command: &Command, payload: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json::encode_command(command, payload),
        Encoding::Cbor => cbor::encode_command(command, payload),
        Encoding::SenMl => senml::encode_command(command, payload),
        Encoding::Packed => packed::encode_command(command, payload),
    }
}

/// Reads a command in any encoding.
pub(crate) fn command(payload: &[u8]) -> Option<Command> {
    match payload.first()? {
        b'{' => json::command(payload),
        b'[' => senml::command(payload),
        0xA0..=0xB7 => cbor::command(payload),
        &packed::COMMAND => packed::command(payload),
        _ => None,
    }
}

/// Microseconds of the run, as far as all encodings carry them: almost nine years.
fn micros(at: Duration) -> u64 {
    let micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
    micros.min((1 << 48) - 1)
}

#[cfg(test)]
mod tests;
