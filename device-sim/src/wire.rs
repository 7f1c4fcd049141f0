//! MQTT 3.1.1 packets to and from bytes, without the broker's codec.
//!
//! Out: packets are made with `mqttbytes`; packet ids are
//! patched in when a message is sent. In: a reader of our own that takes bytes in any pieces and understands what a publisher and a
//! subscriber can receive. A mistake in the broker's codec cannot hide behind the same mistake here.
//!
//! Of the defects of `mqttbytes`, these are avoided here: packet id 0 (templates carry 1 until patched),
//! strings over 65,535 bytes and a password without a user name (refused when the plan is made), lengths that
//! its writers return wrongly (not used).

use crate::topic::{Names, TopicPattern};
use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4;

/// Larger packets end the connection: nothing in a run is nearly as long.
const PACKET_BYTES_MAX: usize = 256 * 1024;
const DUP: u8 = 0x08;
/// What cannot be understood or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A packet type that a broker does not send to us, or wrong flags.
    #[error("unexpected first byte {0:#04x}")]
    FirstByte(u8),
    /// A remaining length of more than four bytes.
    #[error("malformed remaining length")]
    RemainingLength,
    /// A packet that is longer than any in a run.
    #[error("packet of {0} bytes")]
    TooLong(usize),
    /// A packet whose body does not have the length or the fields of its type.
    #[error("malformed packet with first byte {0:#04x}")]
    Malformed(u8),
    /// `mqttbytes` would not encode a packet.
    #[error("packet cannot be encoded: {0:?}")]
    Encode(mqttbytes::Error),
}

/// What a broker sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The answer to CONNECT.
    ConnAck {
        /// Whether the broker kept the session.
        session_present: bool,
        /// 0, or why not.
        code: u8,
    },
    /// A message.
    Publish(Delivery),
    /// The end of a QoS 1 message that we sent.
    PubAck(u16),
    /// The broker has our QoS 2 message.
    PubRec(u16),
    /// The broker will not send this QoS 2 message again.
    PubRel(u16),
    /// The end of a QoS 2 message that we sent.
    PubComp(u16),
    /// The answer to a subscription with one filter; 0x80 is a refusal.
    SubAck {
        /// The subscription's packet id.
        id: u16,
        /// The granted QoS or 0x80.
        code: u8,
    },
    /// The answer to a ping.
    PingResp,
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// 0, 1 or 2.
    pub qos: u8,
    /// 0 at QoS 0.
    pub id: u16,
    /// The payload; the topic is not of interest.
    pub payload: Vec<u8>,
}

/// Cuts a stream of bytes into packets.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    /// Where the first unread byte is.
    start: usize,
}

impl Reader {
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
            *self = Self::default();
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
        let packet = packet(*first, body)?;
        self.start += 1 + length_bytes + length;
        Ok(Some(packet))
    }
}

/// The remaining length and how many bytes say it; `None` when it is cut off.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
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

fn packet(first: u8, body: &[u8]) -> Result<Packet, WireError> {
    if first >> 4 == 3 {
        return publish(first, body).ok_or(WireError::Malformed(first));
    }
    let packet = match (first, body) {
        (0x20, &[flags @ (0 | 1), code]) => Packet::ConnAck {
            session_present: flags == 1,
            code,
        },
        (0x40, &[high, low]) => Packet::PubAck(u16::from_be_bytes([high, low])),
        (0x50, &[high, low]) => Packet::PubRec(u16::from_be_bytes([high, low])),
        (0x62, &[high, low]) => Packet::PubRel(u16::from_be_bytes([high, low])),
        (0x70, &[high, low]) => Packet::PubComp(u16::from_be_bytes([high, low])),
        (0x90, &[high, low, code]) => Packet::SubAck {
            id: u16::from_be_bytes([high, low]),
            code,
        },
        (0xD0, []) => Packet::PingResp,
        (0x20 | 0x40 | 0x50 | 0x62 | 0x70 | 0x90 | 0xD0, _) => {
            return Err(WireError::Malformed(first));
        }
        _ => return Err(WireError::FirstByte(first)),
    };
    Ok(packet)
}

fn publish(first: u8, body: &[u8]) -> Option<Packet> {
    let qos = (first >> 1) & 0x03;
    let (length, rest) = body.split_first_chunk::<2>()?;
    let after_topic = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
    let (id, payload) = match qos {
        0 => (0, after_topic),
        1 | 2 => {
            let (id, payload) = after_topic.split_first_chunk::<2>()?;
            (u16::from_be_bytes(*id), payload)
        }
        _ => return None,
    };
    if qos > 0 && id == 0 {
        return None;
    }
    let payload = payload.to_vec();
    Some(Packet::Publish(Delivery { qos, id, payload }))
}

/// The publish packets of a cohort.
#[derive(Debug, Clone)]
pub struct Template {
    topic: TopicPattern,
    run: String,
    cohort: String,
    qos: u8,
}

impl Template {
    /// Messages of this cohort of the run `run`.
    #[must_use]
    pub fn new(run: &str, cohort: &str, topic: TopicPattern, qos: u8) -> Self {
        let (run, cohort) = (run.to_owned(), cohort.to_owned());
        Self {
            topic,
            run,
            cohort,
            qos,
        }
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

    /// The PUBLISH with this payload; its packet id, if it has one, is 1 until [`Template::set_id`].
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
        let mut publish = v4::Publish::new(topic, quality(self.qos), payload);
        publish.pkid = u16::from(self.qos > 0);
        let frame = encode(|buffer| publish.write(buffer))?;
        Ok(frame.into_boxed_slice())
    }

    /// Puts the packet id into a filled frame.
    pub fn set_id(&self, frame: &mut [u8], id: u16) {
        if self.qos == 0 {
            return;
        }
        let length_bytes = frame
            .iter()
            .skip(1)
            .take_while(|byte| **byte >= 0x80)
            .count()
            + 1;
        let topic_at = 1 + length_bytes;
        let Some(topic_bytes) = frame.get(topic_at..).and_then(<[u8]>::first_chunk::<2>) else {
            return;
        };
        let id_at = topic_at + 2 + usize::from(u16::from_be_bytes(*topic_bytes));
        if let Some(bytes) = frame.get_mut(id_at..id_at + 2) {
            bytes.copy_from_slice(&id.to_be_bytes());
        }
    }
}

/// Marks a publish frame as a repetition.
pub fn set_duplicate(frame: &mut [u8]) {
    if let Some(first) = frame.first_mut() {
        *first |= DUP;
    }
}

/// Whether the broker is asked to keep the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It ends with the connection, and what was kept is dropped.
    Clean,
    /// It is kept, and resumed if there is one.
    Kept,
}

impl Session {
    /// QoS 2 needs the broker's memory of packet ids to survive a reconnect; nothing else does.
    #[must_use]
    pub fn needed_for(qos: u8) -> Self {
        if qos == 2 { Self::Kept } else { Self::Clean }
    }
}

/// A user name with its password, which may be empty.
#[derive(Clone, Debug)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// CONNECT.
///
/// # Errors
/// The packet cannot be encoded.
pub fn connect(
    client_id: &str,
    session: Session,
    keep_alive_s: u16,
    login: Option<&Login>,
) -> Result<Vec<u8>, WireError> {
    let mut connect = v4::Connect::new(client_id);
    connect.keep_alive = keep_alive_s;
    connect.clean_session = session == Session::Clean;
    connect.login = login.map(|login| v4::Login {
        username: login.username.clone(),
        password: login.password.clone(),
    });
    encode(|buffer| connect.write(buffer))
}

/// SUBSCRIBE to one filter, with packet id 1.
///
/// # Errors
/// The packet cannot be encoded.
pub fn subscribe(filter: &str, qos: u8) -> Result<Vec<u8>, WireError> {
    let mut subscribe = v4::Subscribe::new(filter, quality(qos));
    subscribe.pkid = 1;
    encode(|buffer| subscribe.write(buffer))
}

/// PUBREL for a message that the broker has received.
///
/// # Errors
/// The packet cannot be encoded.
pub fn pubrel(id: u16) -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PubRel::new(id).write(buffer))
}

/// PUBACK.
///
/// # Errors
/// The packet cannot be encoded.
pub fn puback(id: u16) -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PubAck::new(id).write(buffer))
}

/// PUBREC.
///
/// # Errors
/// The packet cannot be encoded.
pub fn pubrec(id: u16) -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PubRec::new(id).write(buffer))
}

/// PUBCOMP.
///
/// # Errors
/// The packet cannot be encoded.
pub fn pubcomp(id: u16) -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::PubComp::new(id).write(buffer))
}

/// DISCONNECT.
///
/// # Errors
/// The packet cannot be encoded.
pub fn disconnect() -> Result<Vec<u8>, WireError> {
    encode(|buffer| v4::Disconnect.write(buffer))
}

fn encode(
    write: impl FnOnce(&mut BytesMut) -> Result<usize, mqttbytes::Error>,
) -> Result<Vec<u8>, WireError> {
    let mut buffer = BytesMut::new();
    write(&mut buffer).map_err(WireError::Encode)?;
    Ok(buffer.to_vec())
}

fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_template_is_a_publish_with_its_id() {
        for qos in 0..=2 {
            for payload in [&b""[..], b"{}", &[7; 130], &[7; 20_000]] {
                let mut frame = template(qos).fill(123_456, "id", 0, payload).unwrap();
                template(qos).set_id(&mut frame, 0xABCD);
                let mut buffer = BytesMut::from(&*frame);
                let v4::Packet::Publish(publish) = v4::read(&mut buffer, 30_000).unwrap() else {
                    panic!("no publish");
                };
                assert!(buffer.is_empty());
                assert_eq!(publish.topic, "sim/0123abcd/123456/power");
                assert_eq!(publish.pkid, if qos == 0 { 0 } else { 0xABCD });
                assert_eq!(publish.payload, payload);
            }
        }
    }

    #[test]
    fn a_repetition_differs_in_one_bit() {
        let mut frame = template(2).fill(0, "id", 0, b"").unwrap();
        set_duplicate(&mut frame);
        assert_eq!(frame[0], 0x3C);
    }

    fn template(qos: u8) -> Template {
        let pattern = "sim/{run}/{index}/power".parse().unwrap();
        Template::new("0123abcd", "meters", pattern, qos)
    }

    #[test]
    fn packets_are_read_however_the_bytes_are_split() {
        let packets = every_packet();
        let stream: Vec<u8> = packets
            .iter()
            .flat_map(|(bytes, _)| bytes.clone())
            .collect();
        let expected: Vec<Packet> = packets.into_iter().map(|(_, packet)| packet).collect();
        for piece in 1..=stream.len() {
            let mut reader = Reader::default();
            let mut read = Vec::new();
            for bytes in stream.chunks(piece) {
                reader.push(bytes);
                while let Some(packet) = reader.next_packet().unwrap() {
                    read.push(packet);
                }
            }
            assert_eq!(read, expected, "pieces of {piece}");
            assert_eq!(reader.buffer.capacity(), 0);
        }
    }

    #[test]
    fn what_a_broker_never_sends_is_an_error() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader::default();
            reader.push(bytes);
            reader.next_packet().unwrap_err()
        };
        assert_eq!(read(&[0x10, 0]), WireError::FirstByte(0x10));
        assert_eq!(read(&[0x60, 2, 0, 1]), WireError::FirstByte(0x60));
        assert_eq!(read(&[0x20, 3, 0, 0, 0]), WireError::Malformed(0x20));
        assert_eq!(read(&[0x32, 4, 0, 9, 0, 1]), WireError::Malformed(0x32));
        assert_eq!(
            read(&[0x32, 5, 0, 1, b'a', 0, 0]),
            WireError::Malformed(0x32)
        );
        assert_eq!(read(&[0x36, 3, 0, 1, b'a']), WireError::Malformed(0x36));
        assert_eq!(
            read(&[0x30, 0x80, 0x80, 0x80, 0x80, 1]),
            WireError::RemainingLength
        );
        assert!(matches!(
            read(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]),
            WireError::TooLong(_)
        ));
    }

    fn every_packet() -> Vec<(Vec<u8>, Packet)> {
        let connack = |session_present, code| Packet::ConnAck {
            session_present,
            code,
        };
        let publish = |qos, id, payload: &[u8]| {
            let payload = payload.to_vec();
            Packet::Publish(Delivery { qos, id, payload })
        };
        let long = [0x55; 300];
        let mut long_publish = vec![0x32, 0xB1, 0x02, 0, 1, b'a', 0, 9];
        long_publish.extend_from_slice(&long);
        vec![
            (vec![0x20, 2, 0, 0], connack(false, 0)),
            (vec![0x20, 2, 1, 5], connack(true, 5)),
            (vec![0x90, 3, 0, 1, 2], Packet::SubAck { id: 1, code: 2 }),
            (vec![0x30, 5, 0, 1, b'a', 1, 2], publish(0, 0, &[1, 2])),
            (vec![0x3D, 6, 0, 1, b'a', 0, 7, 3], publish(2, 7, &[3])),
            (long_publish, publish(1, 9, &long)),
            (vec![0x40, 2, 1, 2], Packet::PubAck(0x0102)),
            (vec![0x50, 2, 0, 2], Packet::PubRec(2)),
            (vec![0x62, 2, 0, 3], Packet::PubRel(3)),
            (vec![0x70, 2, 0, 4], Packet::PubComp(4)),
            (vec![0xD0, 0], Packet::PingResp),
        ]
    }
}
