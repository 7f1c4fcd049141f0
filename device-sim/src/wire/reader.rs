//! Cuts a broker's bytes into packets, of either version.
//!
//! Invariants:
//! - The same bytes give the same packets, in whatever pieces they come.
//! - No bytes can make it panic; it holds no more than one packet of [`PACKET_BYTES_MAX`] and what came with it.
//! - What MQTT forbids a broker to send is an error, not passed over.

use super::properties::{
    self, ASSIGNED_CLIENT_ID, MAXIMUM_QOS, REASON_STRING, RECEIVE_MAXIMUM, SERVER_KEEP_ALIVE,
    SESSION_EXPIRY, SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS_MAXIMUM, USER_PROPERTY,
};
use super::{Ack, ConnAck, Delivery, Packet, Version, WireError};

/// Larger packets end the connection: nothing in a run is nearly as long.
const PACKET_BYTES_MAX: usize = 256 * 1024;

/// The flag of a PUBLISH.
const RETAIN: u8 = 0x01;

const IN_CONNACK: [u8; 17] = [
    SESSION_EXPIRY,
    ASSIGNED_CLIENT_ID,
    SERVER_KEEP_ALIVE,
    0x15,
    0x16,
    0x1A,
    0x1C,
    REASON_STRING,
    RECEIVE_MAXIMUM,
    TOPIC_ALIAS_MAXIMUM,
    MAXIMUM_QOS,
    0x25,
    USER_PROPERTY,
    0x27,
    0x28,
    0x29,
    0x2A,
];
/// Not 0x23: we grant no topic aliases.
const IN_PUBLISH: [u8; 7] = [
    0x01,
    0x02,
    0x03,
    0x08,
    0x09,
    SUBSCRIPTION_IDENTIFIER,
    USER_PROPERTY,
];
const IN_ACK: [u8; 2] = [REASON_STRING, USER_PROPERTY];
const IN_DISCONNECT: [u8; 3] = [REASON_STRING, USER_PROPERTY, 0x1C];

/// Cuts a stream of bytes into packets.
#[derive(Debug, Default)]
pub struct Reader {
    version: Version,
    buffer: Vec<u8>,
    /// Where the first unread byte is.
    start: usize,
}

impl Reader {
    /// For a broker that was greeted in this version.
    #[must_use]
    pub fn new(version: Version) -> Self {
        let (buffer, start) = (Vec::new(), 0);
        Self {
            version,
            buffer,
            start,
        }
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet; `None` until more bytes have come.
    ///
    /// # Errors
    /// The stream is not MQTT as a broker speaks it; it cannot be read on.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, WireError> {
        let unread = self.buffer.get(self.start..).unwrap_or_default();
        let Some((first, rest)) = unread.split_first() else {
            // An idle device holds no buffer.
            *self = Self::new(self.version);
            return Ok(None);
        };
        let Some((length, length_bytes)) = remaining_length(rest)? else {
            return Ok(None);
        };
        if length > PACKET_BYTES_MAX {
            return Err(WireError::TooLong(length));
        }
        let Some(body) = rest.get(length_bytes..length_bytes + length) else {
            return Ok(None);
        };
        let packet = packet(self.version, *first, body)?;
        self.start += 1 + length_bytes + length;
        Ok(Some(packet))
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// The remaining length and how many bytes say it; `None` when it is cut off.
pub(crate) fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut length = 0;
    for (position, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * position);
        if byte & 0x80 == 0 {
            return Ok(Some((length, position + 1)));
        }
    }
    if bytes.len() < 4 {
        return Ok(None);
    }
    Err(WireError::RemainingLength)
}

fn packet(version: Version, first: u8, body: &[u8]) -> Result<Packet, WireError> {
    let packet = match first {
        0x20 => connack(version, body).map(Packet::ConnAck),
        0x30..=0x3F => publish(version, first, body).map(Packet::Publish),
        0x40 => ack(version, body).map(Packet::PubAck),
        0x50 => ack(version, body).map(Packet::PubRec),
        0x62 => ack(version, body).map(|ack| Packet::PubRel(ack.id)),
        0x70 => ack(version, body).map(|ack| Packet::PubComp(ack.id)),
        0x90 => suback(version, body),
        0xD0 => body.is_empty().then_some(Packet::PingResp),
        0xE0 if version == Version::V5 => disconnect(body),
        _ => return Err(WireError::FirstByte(first)),
    };
    packet.ok_or(WireError::Malformed(first))
}

fn connack(version: Version, body: &[u8]) -> Option<ConnAck> {
    let (&[flags @ (0 | 1), code], properties) = body.split_first_chunk()? else {
        return None;
    };
    let mut connack = ConnAck {
        session_present: flags == 1,
        code,
        ..ConnAck::default()
    };
    // A broker that knows 3.1.1 only refuses MQTT 5 in its own way [MQTT3-3.1.2-2].
    let is_short = version == Version::V4 || (code != 0 && properties.is_empty());
    if is_short {
        return properties.is_empty().then_some(connack);
    }
    let rest = properties::read(properties, &IN_CONNACK, |property| {
        let number = property.value.number();
        let short = number.and_then(|number| u16::try_from(number).ok());
        match property.id {
            RECEIVE_MAXIMUM => connack.receive_maximum = short.filter(|maximum| *maximum > 0)?,
            TOPIC_ALIAS_MAXIMUM => connack.topic_alias_maximum = short?,
            // Its absence means 2 (MQTT 5, 3.2.2.3.4).
            MAXIMUM_QOS => connack.maximum_qos = short.filter(|qos| *qos < 2)?.try_into().ok()?,
            SERVER_KEEP_ALIVE => connack.server_keep_alive_s = Some(short?),
            ASSIGNED_CLIENT_ID => connack.assigned_client_id = property.value.text(),
            REASON_STRING => connack.text = property.value.text(),
            _ => {}
        }
        Some(())
    })?;
    rest.is_empty().then_some(connack)
}

fn publish(version: Version, first: u8, body: &[u8]) -> Option<Delivery> {
    let qos = (first >> 1) & 0x03;
    let (topic, rest) = properties::string(body)?;
    let (id, rest) = match qos {
        0 => (0, rest),
        1 | 2 => {
            let (id, rest) = rest.split_first_chunk()?;
            (u16::from_be_bytes(*id), rest)
        }
        _ => return None,
    };
    if topic.is_empty() || (qos > 0 && id == 0) {
        return None;
    }
    let payload = match version {
        Version::V4 => rest,
        Version::V5 => properties::read(rest, &IN_PUBLISH, |_| Some(()))?,
    };
    let is_retained = first & RETAIN != 0;
    Some(Delivery::new(qos, id, is_retained, topic, payload))
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
fn ack(version: Version, body: &[u8]) -> Option<Ack> {
    let (id, rest) = body.split_first_chunk()?;
    let id = u16::from_be_bytes(*id);
    let reason = match (version, rest) {
        (_, []) => 0,
        (Version::V4, _) => return None,
        (Version::V5, [reason]) => *reason,
        (Version::V5, [reason, properties @ ..]) => {
            let rest = properties::read(properties, &IN_ACK, |_| Some(()))?;
            rest.is_empty().then_some(*reason)?
        }
    };
    (id > 0).then_some(Ack { id, reason })
}

fn suback(version: Version, body: &[u8]) -> Option<Packet> {
    let (id, rest) = body.split_first_chunk()?;
    let id = u16::from_be_bytes(*id);
    let codes = match version {
        Version::V4 => rest,
        Version::V5 => properties::read(rest, &IN_ACK, |_| Some(()))?,
    };
    let codes = codes.to_vec();
    (id > 0 && !codes.is_empty()).then_some(Packet::SubAck { id, codes })
}

fn disconnect(body: &[u8]) -> Option<Packet> {
    let (reason, properties) = match body {
        [] => (0, &[0][..]),
        [reason] => (*reason, &[0][..]),
        [reason, properties @ ..] => (*reason, properties),
    };
    let mut text = None;
    let rest = properties::read(properties, &IN_DISCONNECT, |property| {
        if property.id == REASON_STRING {
            text = property.value.text();
        }
        Some(())
    })?;
    rest.is_empty()
        .then_some(Packet::Disconnect { reason, text })
}
