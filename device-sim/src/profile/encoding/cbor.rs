//! CBOR (RFC 8949): one map with JSON's keys, in JSON's order, the label first.
//!
//! Whole numbers are integers, others the shorter of the two floats that give their decimals back. Lengths are
//! definite and heads shortest. The reader takes exactly that shape: a label in another order is not ours.
//!
//! Written here and not by a crate: four kinds of items are needed, minicbor's licence (BlueOak-1.0.0) is not on
//! our list, and ciborium had no release for years. ciborium reads it all back in the tests.

use super::micros;
use crate::label::Label;
use crate::profile::command::Command;
use crate::profile::measure::{Measure, Reading, Shape};
use std::time::Duration;

const UNSIGNED: u8 = 0x00;
const NEGATIVE: u8 = 0x20;
const TEXT: u8 = 0x60;
const MAP: u8 = 0xA0;
const FALSE: u8 = 0xF4;
const TRUE: u8 = 0xF5;
const FLOAT_32: u8 = 0xFA;
const FLOAT_64: u8 = 0xFB;
/// Steps below this are told apart by a 32-bit float.
const FLOAT_32_STEPS: u64 = 1 << 22;

pub(super) fn encode(measure: Measure, label: &Label, reading: &Reading, payload: &mut Vec<u8>) {
    let pairs = 3 + usize::from(reading.clock_s.is_some()) + reading.fields(measure).count();
    push_head(payload, MAP, pairs as u64);
    push_pair(payload, "d", label.device.into());
    push_pair(payload, "n", label.sequence.into());
    push_pair(payload, "t", micros(label.intended_at));
    if let Some(clock_s) = reading.clock_s {
        push_pair(payload, "ts", clock_s.into());
    }
    for (field, step) in reading.fields(measure) {
        push_text(payload, field.key);
        match field.shape {
            Shape::Number { decimals: 0, .. } => push_integer(payload, step),
            Shape::Number { decimals, .. } => push_decimal(payload, step, decimals),
            Shape::Flag => push_flag(payload, step != 0),
            Shape::Choice(names) => {
                let name = usize::try_from(step)
                    .ok()
                    .and_then(|index| names.get(index));
                push_text(payload, name.copied().unwrap_or_default());
            }
        }
    }
}

pub(super) fn label(payload: &[u8]) -> Option<Label> {
    let mut items = Items(payload);
    let pairs = items.map()?.checked_sub(3)?;
    let label = Label {
        device: items.pair("d")?.try_into().ok()?,
        sequence: items.pair("n")?.try_into().ok()?,
        intended_at: Duration::from_micros(items.pair("t")?),
    };
    for _ in 0..pairs {
        items.text()?;
        items.skip_value()?;
    }
    items.0.is_empty().then_some(label)
}

/// `{"cmd": 3, "d": 17, "t": 12000000, "on": true}`, in this order.
pub(super) fn encode_command(command: &Command, payload: &mut Vec<u8>) {
    push_head(payload, MAP, 4);
    push_pair(payload, "cmd", command.sequence.into());
    push_pair(payload, "d", command.device.into());
    push_pair(payload, "t", micros(command.intended_at));
    push_text(payload, "on");
    push_flag(payload, command.is_on);
}

pub(super) fn command(payload: &[u8]) -> Option<Command> {
    let mut items = Items(payload);
    if items.map()? != 4 {
        return None;
    }
    let command = Command {
        sequence: items.pair("cmd")?.try_into().ok()?,
        device: items.pair("d")?.try_into().ok()?,
        intended_at: Duration::from_micros(items.pair("t")?),
        is_on: items.key("on")?.flag()?,
    };
    items.0.is_empty().then_some(command)
}

fn push_head(payload: &mut Vec<u8>, kind: u8, number: u64) {
    let bytes = number.to_be_bytes();
    let (more, used) = match number {
        0..24 => (number as u8, 0),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    payload.push(kind | more);
    payload.extend_from_slice(bytes.get(bytes.len() - used..).unwrap_or_default());
}

fn push_text(payload: &mut Vec<u8>, text: &str) {
    push_head(payload, TEXT, text.len() as u64);
    payload.extend_from_slice(text.as_bytes());
}

fn push_pair(payload: &mut Vec<u8>, key: &str, number: u64) {
    push_text(payload, key);
    push_head(payload, UNSIGNED, number);
}

fn push_integer(payload: &mut Vec<u8>, number: i64) {
    match u64::try_from(number) {
        Ok(number) => push_head(payload, UNSIGNED, number),
        // -1 - n, which is n with all bits turned.
        Err(_) => push_head(payload, NEGATIVE, !number as u64),
    }
}

fn push_decimal(payload: &mut Vec<u8>, steps: i64, decimals: u8) {
    let value = steps as f64 / 10_f64.powi(decimals.into());
    if steps.unsigned_abs() < FLOAT_32_STEPS {
        payload.push(FLOAT_32);
        payload.extend_from_slice(&(value as f32).to_be_bytes());
    } else {
        payload.push(FLOAT_64);
        payload.extend_from_slice(&value.to_be_bytes());
    }
}

fn push_flag(payload: &mut Vec<u8>, is_set: bool) {
    payload.push(if is_set { TRUE } else { FALSE });
}

/// Items that are still to be read.
struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// How many pairs a map has that follows.
    fn map(&mut self) -> Option<u64> {
        self.head(MAP)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.head(TEXT)?.try_into().ok()?;
        self.take(length)
    }

    /// Reads over this key.
    fn key(&mut self, key: &str) -> Option<&mut Self> {
        (self.text()? == key.as_bytes()).then_some(self)
    }

    /// The whole number under this key.
    fn pair(&mut self, key: &str) -> Option<u64> {
        self.key(key)?.head(UNSIGNED)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take(1)? {
            [TRUE] => Some(true),
            [FALSE] => Some(false),
            _ => None,
        }
    }

    /// Reads over what the encoder writes as a value.
    fn skip_value(&mut self) -> Option<()> {
        match self.0.first()? {
            0x00..0x40 => self.head(*self.0.first()? & 0xE0).map(drop),
            0x60..0x80 => self.text().map(drop),
            &(FALSE | TRUE) => self.take(1).map(drop),
            &FLOAT_32 => self.take(5).map(drop),
            &FLOAT_64 => self.take(9).map(drop),
            _ => None,
        }
    }

    /// The number in the head of an item of this kind.
    fn head(&mut self, kind: u8) -> Option<u64> {
        let &[first] = self.take(1)? else {
            return None;
        };
        let more = first.checked_sub(kind)?;
        let used = match more {
            0..24 => return Some(more.into()),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return None,
        };
        let digits = self.take(used)?;
        Some(
            digits
                .iter()
                .fold(0, |number, digit| number << 8 | u64::from(*digit)),
        )
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}
