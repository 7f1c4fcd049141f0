//! The packets of a bench: made once with `mqttbytes` and patched in place, read where they lie.
//!
//! Reading understands just what a load generator counts: the frame, a PUBLISH's packet id and payload, the limits
//! that a CONNACK names, reason codes. Bytes that are not MQTT give `Malformed`; they never panic.

use super::label::Label;
use super::plan::Plan;
use crate::wire::{self, Login, Version, WireError, encode, quality, remaining_length};
use mqttbytes::{v4, v5};

/// Longer packets end the connection: what a bench sends is not nearly as long.
pub(super) const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that are not MQTT as a broker speaks it: the first byte of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) u8);

/// CONNECT of one client.
pub(super) fn connect(plan: &Plan, client_id: &str, username: &str) -> Result<Vec<u8>, WireError> {
    let login = (!username.is_empty()).then(|| Login {
        username: username.to_owned(),
        password: plan.password.clone(),
    });
    let (keep_alive_s, expiry_s) = (plan.keep_alive_s, plan.session_expiry_s);
    let (version, login) = (plan.version, login.as_ref());
    wire::connect(
        version,
        client_id,
        keep_alive_s,
        plan.clean,
        login,
        expiry_s,
    )
}

/// SUBSCRIBE to one filter, with packet id 1.
pub(super) fn subscribe(version: Version, filter: &str, qos: u8) -> Result<Vec<u8>, WireError> {
    wire::subscribe(version, 1, filter, qos)
}

/// PINGREQ.
pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];
/// DISCONNECT without a reason, the same in both versions.
pub(super) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70), the same in both versions when all is well.
pub(super) fn answer(first: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [first, 2, high, low]
}

/// A PUBLISH that is ready but for its packet id, sequence and time.
#[derive(Debug)]
pub(super) struct Template {
    frame: Vec<u8>,
    /// Where the packet id is; `None` at QoS 0.
    id_at: Option<usize>,
    payload_at: usize,
}

impl Template {
    pub(super) fn new(plan: &Plan, topic: &str, label: &Label) -> Result<Self, WireError> {
        let payload = label.payload(plan.size);
        let packet_id = u16::from(plan.qos > 0);
        let frame = match plan.version {
            Version::V4 => {
                let mut publish = v4::Publish::new(topic, quality(plan.qos), payload);
                publish.pkid = packet_id;
                publish.retain = plan.retain;
                encode(|buffer| publish.write(buffer))?
            }
            Version::V5 => {
                let mut publish = v5::Publish::new(topic, quality(plan.qos), payload);
                publish.pkid = packet_id;
                publish.retain = plan.retain;
                encode(|buffer| publish.write(buffer))?
            }
        };
        let payload_at = frame.len() - plan.size;
        // In MQTT 5 the length of the properties, one byte, lies between packet id and payload.
        let properties = usize::from(plan.version == Version::V5);
        Ok(Self {
            id_at: (plan.qos > 0).then(|| payload_at - properties - 2),
            payload_at,
            frame,
        })
    }

    /// Appends a message.
    pub(super) fn append(&self, out: &mut Vec<u8>, id: u16, sequence: u64, at_ns: u64) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let Some(frame) = out.get_mut(start..) else {
            return;
        };
        if let Some(field) = self.id_at.and_then(|at| frame.get_mut(at..at + 2)) {
            field.copy_from_slice(&id.to_be_bytes());
        }
        if let Some(payload) = frame.get_mut(self.payload_at..) {
            Label::patch(payload, sequence, at_ns);
        }
    }

    /// Bytes of one message.
    pub(super) fn len(&self) -> usize {
        self.frame.len()
    }
}

/// A whole packet at the start of `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'bytes> {
    pub(super) first: u8,
    pub(super) body: &'bytes [u8],
    /// Bytes of the packet with its header.
    pub(super) length: usize,
}

/// The packet at the start of `bytes`; `None` until more have come.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some((remaining, digits)) = remaining_length(rest).map_err(|_| Malformed(first))? else {
        return Ok(None);
    };
    if remaining > PACKET_BYTES_MAX {
        return Err(Malformed(first));
    }
    let body = rest.get(digits..digits + remaining);
    Ok(body.map(|body| Frame {
        first,
        body,
        length: 1 + digits + remaining,
    }))
}

/// What counts of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publish<'bytes> {
    pub(super) qos: u8,
    pub(super) id: u16,
    pub(super) payload: &'bytes [u8],
}

/// Reads a PUBLISH.
pub(super) fn publish(version: Version, first: u8, body: &[u8]) -> Result<Publish<'_>, Malformed> {
    read_publish(version, first, body).ok_or(Malformed(first))
}

fn read_publish(version: Version, first: u8, body: &[u8]) -> Option<Publish<'_>> {
    let qos = (first >> 1) & 3;
    let (topic_length, rest) = body.split_first_chunk::<2>()?;
    let mut rest = rest.get(usize::from(u16::from_be_bytes(*topic_length))..)?;
    let mut id = 0;
    if qos > 0 {
        let (bytes, after) = rest.split_first_chunk::<2>()?;
        (id, rest) = (u16::from_be_bytes(*bytes), after);
    }
    if version == Version::V5 {
        let (length, digits) = remaining_length(rest).ok()??;
        rest = rest.get(digits + length..)?;
    }
    let is_valid = qos < 3 && (qos == 0 || id > 0);
    is_valid.then_some(Publish {
        qos,
        id,
        payload: rest,
    })
}

/// The packet id and the reason code of PUBACK, PUBREC, PUBREL, PUBCOMP or SUBACK with one filter.
pub(super) fn answered(first: u8, body: &[u8]) -> Result<(u16, u8), Malformed> {
    let (id, rest) = body.split_first_chunk::<2>().ok_or(Malformed(first))?;
    let code = match first >> 4 {
        // A SUBACK's properties come before its one code.
        9 => *rest.last().ok_or(Malformed(first))?,
        _ => rest.first().copied().unwrap_or(0),
    };
    Ok((u16::from_be_bytes(*id), code))
}

/// What a CONNACK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnAck {
    /// 0, or why not.
    pub(super) code: u8,
    pub(super) session_present: bool,
    pub(super) receive_maximum: u16,
    pub(super) maximum_qos: u8,
    /// Largest packet that the broker takes.
    pub(super) packet_bytes_max: u32,
    /// Replaces what we asked for.
    pub(super) keep_alive_s: Option<u16>,
}

/// Reads a CONNACK.
pub(super) fn connack(version: Version, frame: Frame<'_>) -> Result<ConnAck, Malformed> {
    let malformed = Malformed(frame.first);
    let &[flags, code, ref properties @ ..] = frame.body else {
        return Err(malformed);
    };
    if frame.first != 0x20 || flags > 1 {
        return Err(malformed);
    }
    let mut connack = ConnAck {
        code,
        session_present: flags == 1,
        receive_maximum: u16::MAX,
        maximum_qos: 2,
        packet_bytes_max: u32::MAX,
        keep_alive_s: None,
    };
    if version == Version::V5 && !properties.is_empty() {
        let length = remaining_length(properties).ok().flatten();
        let (length, digits) = length.ok_or(malformed)?;
        let properties = properties.get(digits..).unwrap_or_default();
        if length != properties.len() {
            return Err(malformed);
        }
        read_limits(&mut connack, properties).ok_or(malformed)?;
    }
    Ok(connack)
}

/// Walks the properties of a CONNACK.
fn read_limits(connack: &mut ConnAck, mut properties: &[u8]) -> Option<()> {
    while let Some((&property, rest)) = properties.split_first() {
        let length = match property {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => text_length(rest)?,
            0x26 => {
                let name = text_length(rest)?;
                name + text_length(rest.get(name..)?)?
            }
            _ => return None,
        };
        let value = rest.get(..length)?;
        match (property, value) {
            (0x13, &[high, low]) => connack.keep_alive_s = Some(u16::from_be_bytes([high, low])),
            (0x21, &[high, low]) => connack.receive_maximum = u16::from_be_bytes([high, low]),
            (0x24, &[qos]) => connack.maximum_qos = qos,
            (0x27, &[a, b, c, d]) => connack.packet_bytes_max = u32::from_be_bytes([a, b, c, d]),
            _ => {}
        }
        properties = rest.get(length..)?;
    }
    Some(())
}

/// Bytes of a text or binary field with its length.
fn text_length(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.split_first_chunk::<2>()?;
    Some(2 + usize::from(u16::from_be_bytes(*length)))
}

/// What a reason code of a refusal means, in both versions.
pub(super) fn refusal(code: u8) -> &'static str {
    match code {
        1 => "it does not speak this version of MQTT: try -V 4 or -V 5",
        2 => "client identifier rejected: try --prefix",
        3 => "server unavailable",
        4 => "bad user name or password: check -u and -P",
        5 => "not authorized: give -u and -P, or --certfile and --keyfile",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x84 => "it does not speak this version of MQTT: try -V 4",
        0x85 => "client identifier not valid: try --prefix",
        0x86 => "bad user name or password: check -u and -P",
        0x87 => "not authorized: give -u and -P, or --certfile and --keyfile, or allow the topic",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8A => "banned",
        0x8B => "server shutting down",
        0x8D => "keep alive timeout: raise -k",
        0x8E => "session taken over: another client has the same identifier, try --prefix",
        0x8F => "topic filter invalid",
        0x90 => "topic name invalid",
        0x93 => "receive maximum exceeded: lower -F",
        0x95 => "packet too large: lower -s",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x9B => "QoS not supported: lower -q",
        0x9F => "connection rate exceeded: lower -R",
        _ => "see the MQTT specification for this code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::tests::plan;
    use bytes::BytesMut;

    #[test]
    fn a_patched_template_is_a_publish_in_both_versions() {
        for version in [Version::V4, Version::V5] {
            for qos in 0..=2 {
                check_template(version, qos);
            }
        }
    }

    fn check_template(version: Version, qos: u8) {
        let mut plan = plan();
        (plan.version, plan.qos, plan.size) = (version, qos, 200);
        let label = Label {
            run: 1,
            publisher: 2,
            sequence: 0,
            at_ns: 0,
        };
        let template = Template::new(&plan, "a/b", &label).unwrap();
        let mut out = vec![0xD0, 0];
        template.append(&mut out, 0x1234, 3, 4);
        assert_eq!(out.len(), 2 + template.len());
        // mqttbytes reads what was patched ...
        let mut buffer = BytesMut::from(&out[2..]);
        let (topic, id, payload) = match version {
            Version::V4 => match v4::read(&mut buffer, 1_000).unwrap() {
                v4::Packet::Publish(publish) => (publish.topic, publish.pkid, publish.payload),
                other => panic!("{other:?}"),
            },
            Version::V5 => match v5::read(&mut buffer, 1_000).unwrap() {
                v5::Packet::Publish(publish) => (publish.topic, publish.pkid, publish.payload),
                other => panic!("{other:?}"),
            },
        };
        let id_expected = if qos == 0 { 0 } else { 0x1234 };
        assert_eq!(
            (topic.as_str(), id, payload.len()),
            ("a/b", id_expected, 200)
        );
        let patched = Label {
            sequence: 3,
            at_ns: 4,
            ..label
        };
        assert_eq!(Label::read(&payload), Some(patched));
        // ... and so does the reader here.
        let whole = frame(&out[2..]).unwrap().unwrap();
        let read = publish(version, whole.first, whole.body).unwrap();
        assert_eq!(
            (read.qos, read.id, read.payload),
            (qos, id_expected, &payload[..])
        );
    }

    #[test]
    fn a_frame_waits_for_its_last_byte() {
        let mut packet = vec![0x30, 0x85, 0x01];
        packet.resize(3 + 133, 7);
        for end in 0..packet.len() {
            assert_eq!(frame(&packet[..end]), Ok(None), "{end}");
        }
        packet.push(0xD0);
        assert_eq!(frame(&packet).unwrap().unwrap().length, 136);
        assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF]), Err(Malformed(0x30)));
        assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), Err(Malformed(0x30)));
    }

    #[test]
    fn a_connack_names_the_brokers_limits() {
        let body = [
            1, 0, 19, 0x21, 0, 20, 0x24, 1, 0x27, 0, 0, 4, 0, 0x13, 0, 60, 0x26, 0, 1, b'a', 0, 0,
        ];
        let frame = Frame {
            first: 0x20,
            body: &body,
            length: 0,
        };
        let expected = ConnAck {
            code: 0,
            session_present: true,
            receive_maximum: 20,
            maximum_qos: 1,
            packet_bytes_max: 1_024,
            keep_alive_s: Some(60),
        };
        assert_eq!(connack(Version::V5, frame), Ok(expected));
        for end in [0, 1, 5, 7, 10, 17, 20] {
            let mut cut = body[..end].to_vec();
            if let Some(length) = cut.get_mut(2) {
                *length = (end - 3) as u8;
            }
            let frame = Frame {
                body: &cut,
                ..frame
            };
            assert_eq!(connack(Version::V5, frame), Err(Malformed(0x20)), "{end}");
        }
    }

    #[test]
    fn malformed_publishes_are_refused() {
        for (first, body) in [
            (0x30, &[][..]),
            (0x30, &[0, 9, b'a']),
            (0x32, &[0, 1, b'a', 0]),
            (0x32, &[0, 1, b'a', 0, 0]),
            (0x36, &[0, 1, b'a', 0, 1]),
        ] {
            let read = publish(Version::V4, first, body);
            assert_eq!(read, Err(Malformed(first)), "{body:?}");
        }
        let no_properties = publish(Version::V5, 0x30, &[0, 1, b'a']);
        assert_eq!(no_properties, Err(Malformed(0x30)));
        let cut = publish(Version::V5, 0x30, &[0, 1, b'a', 5, 1]);
        assert_eq!(cut, Err(Malformed(0x30)));
    }
}
