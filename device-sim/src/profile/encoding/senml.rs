//! SenML (RFC 8428) as JSON: one array of records.
//!
//! ```json
//! [{"bn":"motemq-sim:000017:","bt":1767247212,"n":"seq","v":3},{"n":"t","u":"s","v":12.000000},
//!  {"n":"power","u":"W","v":412}]
//! ```
//!
//! The base name ends in the device, `bt` is its clock; the records `seq` and `t` complete the label, where `t`
//! counts seconds of the run. Units are those of the registry's first table, so that no `bver` is needed:
//! energy in J, volume in m3. Floating point carries `t` exactly, to the microsecond, for almost nine years.

use super::decimal::{push, push_device, push_integer};
use super::json::{push_choice, push_flag};
use super::micros;
use crate::label::Label;
use crate::profile::command::Command;
use crate::profile::measure::{Measure, Reading, Shape};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::time::Duration;

const READING: &str = "motemq-sim:";
const COMMAND: &str = "motemq-cmd:";
const SECONDS_MAX: f64 = 281_474_977.0;

pub(super) fn encode(measure: Measure, label: &Label, reading: &Reading, payload: &mut Vec<u8>) {
    open(READING, label.device, payload);
    if let Some(clock_s) = reading.clock_s {
        payload.extend_from_slice(b",\"bt\":");
        push_integer(payload, clock_s.into());
    }
    number_and_time(label.sequence, label.intended_at, payload);
    for (field, step) in reading.fields(measure) {
        payload.extend_from_slice(b",{\"n\":\"");
        payload.extend_from_slice(field.name.as_bytes());
        if !field.unit.symbol.is_empty() {
            payload.extend_from_slice(b"\",\"u\":\"");
            payload.extend_from_slice(field.unit.symbol.as_bytes());
        }
        payload.extend_from_slice(b"\",\"v");
        match field.shape {
            Shape::Number { decimals, .. } => {
                payload.extend_from_slice(b"\":");
                let steps = step.saturating_mul(field.unit.factor);
                push(payload, steps, decimals + field.unit.decimals);
            }
            Shape::Flag => {
                payload.extend_from_slice(b"b\":");
                push_flag(payload, step != 0);
            }
            Shape::Choice(names) => {
                payload.extend_from_slice(b"s\":");
                push_choice(payload, names, step);
            }
        }
        payload.push(b'}');
    }
    payload.push(b']');
}

pub(super) fn encode_command(command: &Command, payload: &mut Vec<u8>) {
    open(COMMAND, command.device, payload);
    number_and_time(command.sequence, command.intended_at, payload);
    payload.extend_from_slice(b",{\"n\":\"on\",\"vb\":");
    push_flag(payload, command.is_on);
    payload.extend_from_slice(b"}]");
}

pub(super) fn label(payload: &[u8]) -> Option<Label> {
    let pack: Pack<'_> = serde_json::from_slice(payload).ok()?;
    pack.label(READING)
}

pub(super) fn command(payload: &[u8]) -> Option<Command> {
    let pack: Pack<'_> = serde_json::from_slice(payload).ok()?;
    let label = pack.label(COMMAND)?;
    Some(Command {
        device: label.device,
        sequence: label.sequence,
        intended_at: label.intended_at,
        is_on: pack.is_on?,
    })
}

fn open(kind: &str, device: u32, payload: &mut Vec<u8>) {
    payload.extend_from_slice(b"[{\"bn\":\"");
    payload.extend_from_slice(kind.as_bytes());
    push_device(payload, device);
    payload.extend_from_slice(b":\"");
}

fn number_and_time(sequence: u32, intended_at: Duration, payload: &mut Vec<u8>) {
    payload.extend_from_slice(b",\"n\":\"seq\",\"v\":");
    push_integer(payload, sequence.into());
    payload.extend_from_slice(b"},{\"n\":\"t\",\"u\":\"s\",\"v\":");
    push(payload, micros(intended_at) as i64, 6);
    payload.push(b'}');
}

/// What a label or a command needs of all the records; the others are read over.
#[derive(Default)]
struct Pack<'a> {
    base_name: Option<&'a str>,
    sequence: Option<f64>,
    intended_s: Option<f64>,
    is_on: Option<bool>,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    bn: Option<&'a str>,
    #[serde(borrow)]
    n: Option<&'a str>,
    v: Option<f64>,
    vb: Option<bool>,
}

impl<'a> Pack<'a> {
    fn add(&mut self, record: &Record<'a>) {
        self.base_name = self.base_name.or(record.bn);
        match record.n {
            Some("seq") => self.sequence = self.sequence.or(record.v),
            Some("t") => self.intended_s = self.intended_s.or(record.v),
            Some("on") => self.is_on = self.is_on.or(record.vb),
            _ => {}
        }
    }

    fn label(&self, kind: &str) -> Option<Label> {
        let device = self.base_name?.strip_prefix(kind)?.strip_suffix(':')?;
        if !device.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let sequence = self.sequence?;
        let intended_s = self.intended_s?;
        let is_number = (0.0..=f64::from(u32::MAX)).contains(&sequence) && sequence.fract() == 0.0;
        if !is_number || !(0.0..=SECONDS_MAX).contains(&intended_s) {
            return None;
        }
        Some(Label {
            device: device.parse().ok()?,
            sequence: sequence as u32,
            intended_at: Duration::from_micros((intended_s * 1e6).round() as u64),
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pack<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Records;
        impl<'de> Visitor<'de> for Records {
            type Value = Pack<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of SenML records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<Pack<'de>, A::Error> {
                let mut pack = Pack::default();
                while let Some(record) = records.next_element::<Record<'de>>()? {
                    pack.add(&record);
                }
                Ok(pack)
            }
        }
        deserializer.deserialize_seq(Records)
    }
}
