//! JSON: one object, `{"d":17,"n":3,"t":12000000,"ts":1767247212,"w":412}`.
//!
//! `d`, `n` and `t` are the label, `ts` the device's clock in seconds, then the measure's fields by their keys.
//! Numbers are exact decimals. Read by serde_json, so that a bridge may have written it anew.

use super::decimal::{push, push_integer};
use super::micros;
use crate::label::Label;
use crate::profile::command::Command;
use crate::profile::measure::{Measure, Reading, Shape};
use serde::Deserialize;
use std::time::Duration;

pub(super) fn encode(measure: Measure, label: &Label, reading: &Reading, payload: &mut Vec<u8>) {
    payload.extend_from_slice(b"{\"d\":");
    push_integer(payload, label.device.into());
    payload.extend_from_slice(b",\"n\":");
    push_integer(payload, label.sequence.into());
    payload.extend_from_slice(b",\"t\":");
    push_integer(payload, micros(label.intended_at));
    if let Some(clock_s) = reading.clock_s {
        payload.extend_from_slice(b",\"ts\":");
        push_integer(payload, clock_s.into());
    }
    for (field, step) in reading.fields(measure) {
        payload.extend_from_slice(b",\"");
        payload.extend_from_slice(field.key.as_bytes());
        payload.extend_from_slice(b"\":");
        match field.shape {
            Shape::Number { decimals, .. } => push(payload, step, decimals),
            Shape::Flag => push_flag(payload, step != 0),
            Shape::Choice(names) => push_choice(payload, names, step),
        }
    }
    payload.push(b'}');
}

pub(super) fn label(payload: &[u8]) -> Option<Label> {
    #[derive(Deserialize)]
    struct Fields {
        d: u32,
        n: u32,
        t: u64,
    }
    let fields: Fields = serde_json::from_slice(payload).ok()?;
    Some(Label {
        device: fields.d,
        sequence: fields.n,
        intended_at: Duration::from_micros(fields.t),
    })
}

/// `{"cmd":3,"d":17,"t":12000000,"on":true}`: without `n`, so that nobody takes it for a reading.
pub(super) fn encode_command(command: &Command, payload: &mut Vec<u8>) {
    payload.extend_from_slice(b"{\"cmd\":");
    push_integer(payload, command.sequence.into());
    payload.extend_from_slice(b",\"d\":");
    push_integer(payload, command.device.into());
    payload.extend_from_slice(b",\"t\":");
    push_integer(payload, micros(command.intended_at));
    payload.extend_from_slice(b",\"on\":");
    push_flag(payload, command.is_on);
    payload.push(b'}');
}

pub(super) fn command(payload: &[u8]) -> Option<Command> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        cmd: u32,
        d: u32,
        t: u64,
        on: bool,
    }
    let fields: Fields = serde_json::from_slice(payload).ok()?;
    Some(Command {
        device: fields.d,
        sequence: fields.cmd,
        intended_at: Duration::from_micros(fields.t),
        is_on: fields.on,
    })
}

pub(super) fn push_flag(payload: &mut Vec<u8>, is_set: bool) {
    payload.extend_from_slice(if is_set { b"true" } else { b"false" });
}

pub(super) fn push_choice(payload: &mut Vec<u8>, names: &[&str], step: i64) {
    let name = usize::try_from(step)
        .ok()
        .and_then(|index| names.get(index));
    payload.push(b'"');
    // Names are our own and need no escapes.
    payload.extend_from_slice(name.copied().unwrap_or_default().as_bytes());
    payload.push(b'"');
}
