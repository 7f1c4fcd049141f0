//! Packed binary: what a device with a slow link would send.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | `0x01`: a reading in this layout |
//! | 1 | what is measured: 1 temperature, 2 power, 3 position, 4 switch, 5 volume, 6 vibration, 7 occupancy, 8 leaf |
//! | 2..6 | device |
//! | 6..10 | sequence |
//! | 10..16 | intended time, microseconds of the run |
//! | 16 | which fields follow: bit 0 the first, bit 1 the second; bit 7 the device's clock |
//! | 17.. | the clock, 4 bytes, seconds since 1970; then the fields in their order |
//!
//! | measure | fields (bytes, step) |
//! |---|---|
//! | temperature | temperature (2, 0.01 °C, signed), humidity (2, 0.1 %), battery (1, %) |
//! | power | power (2, W), voltage (2, 0.1 V), energy (4, Wh), alarm (1: 0 undervoltage, 1 overload) |
//! | position | latitude and longitude (4 each, 0.000001°, signed), speed (2, 0.1 m/s), heading (2, °), battery (1, %) |
//! | switch | on (1), power (2, 0.1 W), energy (4, Wh), command (4) |
//! | volume | volume (4, l), used since the last reading (2, l), alarm (1: 0 leak), battery (1, %) |
//! | vibration | velocity (2, 0.01 mm/s), peak (2, 0.01 m/s²), frequency (2, 0.1 Hz), temperature (2, 0.1 °C, signed) |
//! | occupancy | occupied (1), since (4, s), battery (1, %) |
//! | leaf | leaf (1), temperature (2, 0.01 °C, signed), humidity (2, 0.1 %), signal (1, dBm, signed) |
//!
//! A command is `0x02`, device (4), sequence (4), intended time (6), on (1): 16 bytes.
//! All numbers are big-endian.

use super::micros;
use crate::label::Label;
use crate::profile::command::Command;
use crate::profile::measure::{Measure, Reading};
use std::time::Duration;

pub(super) const READING: u8 = 0x01;
pub(super) const COMMAND: u8 = 0x02;
const HAS_CLOCK: u8 = 0x80;
const CLOCK_BYTES: usize = 4;

pub(super) fn encode(measure: Measure, label: &Label, reading: &Reading, payload: &mut Vec<u8>) {
    payload.extend_from_slice(&[READING, measure as u8]);
    push_label(label.device, label.sequence, label.intended_at, payload);
    let present = (0..measure.fields().len()).filter(|index| reading.step(*index).is_some());
    let mut bits = present.fold(0, |bits, index| bits | 1 << index);
    if reading.clock_s.is_some() {
        bits |= HAS_CLOCK;
    }
    payload.push(bits);
    if let Some(clock_s) = reading.clock_s {
        payload.extend_from_slice(&clock_s.to_be_bytes());
    }
    for (field, step) in reading.fields(measure) {
        let bytes = step.to_be_bytes();
        let unused = bytes.len() - field.shape.packed_bytes();
        payload.extend_from_slice(bytes.get(unused..).unwrap_or_default());
    }
}

pub(super) fn label(payload: &[u8]) -> Option<Label> {
    let (&[first, code], rest) = payload.split_first_chunk()?;
    let measure = Measure::from_code(code).filter(|_| first == READING)?;
    let (label, rest) = read_label(rest)?;
    let (&bits, values) = rest.split_first()?;
    let fields = measure.fields();
    if usize::from(bits & !HAS_CLOCK) >= 1 << fields.len() {
        return None;
    }
    let clock_bytes = if bits & HAS_CLOCK == 0 {
        0
    } else {
        CLOCK_BYTES
    };
    let present = fields
        .iter()
        .enumerate()
        .filter(|(index, _)| bits & 1 << index != 0);
    let field_bytes: usize = present.map(|(_, field)| field.shape.packed_bytes()).sum();
    (values.len() == clock_bytes + field_bytes).then_some(label)
}

pub(super) fn encode_command(command: &Command, payload: &mut Vec<u8>) {
    payload.push(COMMAND);
    push_label(
        command.device,
        command.sequence,
        command.intended_at,
        payload,
    );
    payload.push(command.is_on.into());
}

pub(super) fn command(payload: &[u8]) -> Option<Command> {
    let (&[first], rest) = payload.split_first_chunk()?;
    let (label, rest) = read_label(rest)?;
    match (first, rest) {
        (COMMAND, &[on @ (0 | 1)]) => Some(Command {
            device: label.device,
            sequence: label.sequence,
            intended_at: label.intended_at,
            is_on: on == 1,
        }),
        _ => None,
    }
}

fn push_label(device: u32, sequence: u32, intended_at: Duration, payload: &mut Vec<u8>) {
    payload.extend_from_slice(&device.to_be_bytes());
    payload.extend_from_slice(&sequence.to_be_bytes());
    let [_, _, micros @ ..] = micros(intended_at).to_be_bytes();
    payload.extend_from_slice(&micros);
}

fn read_label(bytes: &[u8]) -> Option<(Label, &[u8])> {
    let (device, rest) = bytes.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (&[a, b, c, d, e, f], rest) = rest.split_first_chunk()?;
    let label = Label {
        device: u32::from_be_bytes(*device),
        sequence: u32::from_be_bytes(*sequence),
        intended_at: Duration::from_micros(u64::from_be_bytes([0, 0, a, b, c, d, e, f])),
    };
    Some((label, rest))
}
