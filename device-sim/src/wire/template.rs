//! PUBLISH packets of a cohort, and what is done to one between its making and its sending.
//!
//! `mqttbytes` makes one PUBLISH per cohort; a device's topic and payload are put around what it wrote between the
//! two. The frame that a device keeps has the whole topic, so that it can be sent again on any connection; a topic
//! alias is put in only on the way out.

use super::packets::{check_string, encode, quality};
use super::{Version, WireError};
use crate::topic::{Names, TopicPattern};
use mqttbytes::{v4, v5};

const DUP: u8 = 0x08;
/// What four bytes of seven bits can say.
const REMAINING_LENGTH_MAX: usize = 268_435_455;
/// The property Topic Alias.
const TOPIC_ALIAS: u8 = 0x23;

/// The publish packets of a cohort.
#[derive(Debug, Clone)]
pub struct Template {
    topic: TopicPattern,
    run: String,
    cohort: String,
    /// Type and QoS.
    first: u8,
    /// Between topic and payload: packet id 1 if there is one, and no properties.
    middle: Box<[u8]>,
}

/// How a PUBLISH of MQTT 5 names its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By the topic.
    Topic,
    /// By the topic, which also gets this alias.
    Introduction(u16),
    /// By the alias.
    Alias(u16),
}

impl Template {
    /// Messages of this cohort of the run `run`.
    ///
    /// # Errors
    /// `mqttbytes` would not encode them.
    pub fn new(
        version: Version,
        run: &str,
        cohort: &str,
        topic: TopicPattern,
        qos: u8,
    ) -> Result<Self, WireError> {
        let id = u16::from(qos > 0);
        let frame = match version {
            Version::V4 => {
                let mut publish = v4::Publish::new("t", quality(qos), "");
                publish.pkid = id;
                encode(|buffer| publish.write(buffer))?
            }
            Version::V5 => {
                let mut publish = v5::Publish::new("t", quality(qos), "");
                publish.pkid = id;
                encode(|buffer| publish.write(buffer))?
            }
        };
        let &[first, _, 0, 1, b't', ref middle @ ..] = frame.as_slice() else {
            return Err(WireError::Malformed(0x30));
        };
        Ok(Self {
            topic,
            run: run.to_owned(),
            cohort: cohort.to_owned(),
            first,
            middle: middle.into(),
        })
    }

    /// The topic of a device's leaf; other devices than gateways have leaf 0 only.
    #[must_use]
    pub fn topic(&self, device: u32, client_id: &str, leaf: u8) -> String {
        self.topic.topic(&Names {
            run: &self.run,
            cohort: &self.cohort,
            device,
            client_id,
            leaf,
        })
    }

    /// The PUBLISH with this payload; its packet id, if it has one, is 1 until [`set_id`].
    ///
    /// # Errors
    /// The packet cannot be encoded.
    pub fn fill(
        &self,
        device: u32,
        client_id: &str,
        leaf: u8,
        payload: &[u8],
    ) -> Result<Box<[u8]>, WireError> {
        let topic = self.topic(device, client_id, leaf);
        check_string(&topic)?;
        let topic_length = u16::try_from(topic.len()).unwrap_or(u16::MAX);
        let length = 2 + topic.len() + self.middle.len() + payload.len();
        if length > REMAINING_LENGTH_MAX {
            return Err(WireError::TooLong(length));
        }
        let mut frame = Vec::with_capacity(1 + length_bytes(length) + length);
        frame.push(self.first);
        write_length(length, &mut frame);
        frame.extend_from_slice(&topic_length.to_be_bytes());
        frame.extend_from_slice(topic.as_bytes());
        frame.extend_from_slice(&self.middle);
        frame.extend_from_slice(payload);
        Ok(frame.into_boxed_slice())
    }
}

/// The QoS of a publish frame.
#[must_use]
pub fn quality_of(frame: &[u8]) -> u8 {
    frame.first().map_or(0, |first| (first >> 1) & 0x03)
}

/// Marks a publish frame as a repetition.
pub fn set_duplicate(frame: &mut [u8]) {
    if let Some(first) = frame.first_mut() {
        *first |= DUP;
    }
}

/// Puts the packet id into a publish frame that has one.
pub fn set_id(frame: &mut [u8], id: u16) {
    if quality_of(frame) == 0 {
        return;
    }
    let Some((_, topic_end)) = topic_range(frame) else {
        return;
    };
    if let Some(bytes) = frame.get_mut(topic_end..topic_end + 2) {
        bytes.copy_from_slice(&id.to_be_bytes());
    }
}

/// Appends a publish frame as it goes out; one that names an alias is of MQTT 5 and came from [`Template::fill`].
pub fn write_publish(frame: &[u8], naming: Naming, out: &mut Vec<u8>) {
    let (alias, is_known) = match naming {
        Naming::Topic => return out.extend_from_slice(frame),
        Naming::Introduction(alias) => (alias, false),
        Naming::Alias(alias) => (alias, true),
    };
    let Some(Parts { topic, id, payload }) = split(frame) else {
        return out.extend_from_slice(frame);
    };
    let topic = if is_known { &[0, 0] } else { topic };
    let [high, low] = alias.to_be_bytes();
    let properties = &[3, TOPIC_ALIAS, high, low];
    let parts = [topic, id, properties, payload];
    out.extend(frame.first());
    write_length(parts.iter().map(|part| part.len()).sum(), out);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The topic of a publish frame, with its length.
#[must_use]
pub fn topic_of(frame: &[u8]) -> &[u8] {
    let range = topic_range(frame);
    let topic = range.and_then(|(start, end)| frame.get(start..end));
    topic.unwrap_or_default()
}

/// What a frame of MQTT 5 without properties consists of.
struct Parts<'a> {
    /// With its length.
    topic: &'a [u8],
    /// Empty at QoS 0.
    id: &'a [u8],
    payload: &'a [u8],
}

fn split(frame: &[u8]) -> Option<Parts<'_>> {
    let (start, end) = topic_range(frame)?;
    let id_bytes = if quality_of(frame) == 0 { 0 } else { 2 };
    let (id, rest) = frame.get(end..)?.split_at_checked(id_bytes)?;
    let payload = rest.strip_prefix(&[0])?;
    let topic = frame.get(start..end)?;
    Some(Parts { topic, id, payload })
}

/// Where the topic's length begins and where the topic ends.
fn topic_range(frame: &[u8]) -> Option<(usize, usize)> {
    let continued = frame.iter().skip(1).take_while(|byte| **byte >= 0x80);
    let start = 2 + continued.count();
    let length = frame.get(start..)?.first_chunk()?;
    Some((start, start + 2 + usize::from(u16::from_be_bytes(*length))))
}

fn write_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn length_bytes(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
