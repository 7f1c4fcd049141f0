//! The MQTT side of a device: messages wait, fly, and are acknowledged.
//!
//! Invariants:
//! - Messages leave in the order in which they were offered, and are sent again in that order.
//! - What is not acknowledged is kept with its whole topic and sent again, marked as a repetition, on the next
//!   connection; QoS 2 messages only if the broker has the session, for else they could arrive twice.
//! - No more messages fly than the broker's receive maximum [MQTT5-3.3.4-9].
//! - A topic alias is introduced on each connection before it is used alone [MQTT5-3.3.2-8].
//!
//! Does not know: sockets, links, the clock.

use crate::label::Label;
use crate::wire::{self, Ack, ConnAck, Naming, Packet, WireError};
use std::collections::VecDeque;

/// A constrained device's send window.
const IN_FLIGHT_MAX: u16 = 8;
/// Readings that a device buffers while it cannot send.
const WAITING_MAX: u16 = 64;

/// Whether a device had room for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It will be sent.
    Accepted,
    /// The buffer is full: the reading is dropped on the device.
    Refused,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The broker has it.
    Acknowledged(Label),
    /// The broker did not take it, for this reason code.
    Rejected(Label, u8),
}

/// One client's outgoing messages.
#[derive(Debug)]
pub(crate) struct Publisher {
    last_id: u16,
    waiting_max: u16,
    in_flight_max: u16,
    /// What the broker takes at once on this connection.
    window: u16,
    /// How many of those in flight were sent on this connection: the first ones.
    sent: u16,
    /// How many topic aliases this connection may have.
    aliases_max: u16,
    /// The topics that have one on this connection: the first has alias 1.
    aliases: Vec<Box<[u8]>>,
    waiting: VecDeque<Message>,
    in_flight: VecDeque<Message>,
}

#[derive(Debug)]
struct Message {
    label: Label,
    id: u16,
    stage: Stage,
    frame: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// PUBLISH was sent.
    Published,
    /// The broker has it (QoS 2); PUBREL was sent.
    Released,
}

impl Publisher {
    /// A device's.
    pub(crate) fn new() -> Self {
        Self::with_room(IN_FLIGHT_MAX, WAITING_MAX)
    }

    pub(crate) fn with_room(in_flight_max: u16, waiting_max: u16) -> Self {
        Self {
            last_id: 0,
            waiting_max,
            in_flight_max,
            window: 0,
            sent: 0,
            aliases_max: 0,
            aliases: Vec::new(),
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
        }
    }

    /// Takes a message to be sent when its turn comes.
    pub(crate) fn offer(&mut self, label: Label, frame: Box<[u8]>) -> Offer {
        if self.waiting.len() >= self.waiting_max.into() {
            return Offer::Refused;
        }
        let (id, stage) = (0, Stage::Published);
        self.waiting.push_back(Message {
            label,
            id,
            stage,
            frame,
        });
        Offer::Accepted
    }

    /// The broker accepted a new connection. Returns the QoS 2 messages that were given up because the broker has
    /// forgotten whether it has them.
    pub(crate) fn connected(&mut self, connack: &ConnAck, wants_alias: bool) -> Vec<Label> {
        self.window = connack.receive_maximum.min(self.in_flight_max);
        self.sent = 0;
        self.aliases = Vec::new();
        self.aliases_max = match wants_alias {
            true => connack.topic_alias_maximum,
            false => 0,
        };
        let mut given_up = Vec::new();
        if !connack.session_present {
            self.in_flight.retain(|message| {
                let is_repeatable = wire::quality_of(&message.frame) < 2;
                given_up.extend((!is_repeatable).then_some(message.label));
                is_repeatable
            });
        }
        for message in &mut self.in_flight {
            wire::set_duplicate(&mut message.frame);
        }
        given_up
    }

    /// Writes the next packet that may be sent now, first what earlier connections left; `false` when there is none.
    pub(crate) fn transmit(&mut self, out: &mut Vec<u8>) -> Result<bool, WireError> {
        if self.sent >= self.window {
            return Ok(false);
        }
        if let Some(message) = self.in_flight.get(self.sent.into()) {
            match message.stage {
                Stage::Published => {
                    let naming = name(&message.frame, &mut self.aliases, self.aliases_max);
                    wire::write_publish(&message.frame, naming, out);
                }
                Stage::Released => out.extend(wire::pubrel(message.id)?),
            }
            self.sent += 1;
            return Ok(true);
        }
        let Some(mut message) = self.waiting.pop_front() else {
            self.waiting.shrink_to_fit();
            return Ok(false);
        };
        let naming = name(&message.frame, &mut self.aliases, self.aliases_max);
        if wire::quality_of(&message.frame) == 0 {
            wire::write_publish(&message.frame, naming, out);
            return Ok(true);
        }
        message.id = self.next_id();
        wire::set_id(&mut message.frame, message.id);
        wire::write_publish(&message.frame, naming, out);
        self.in_flight.push_back(message);
        self.sent += 1;
        Ok(true)
    }

    /// Handles an acknowledgement; returns how that ended a message. One that answers nothing is ignored.
    pub(crate) fn handle(
        &mut self,
        packet: &Packet,
        out: &mut Vec<u8>,
    ) -> Result<Option<End>, WireError> {
        match *packet {
            Packet::PubAck(ack) => Ok(self.end(ack, 1, Stage::Published)),
            Packet::PubComp(id) => Ok(self.end(Ack { id, reason: 0 }, 2, Stage::Released)),
            Packet::PubRec(ack) if ack.is_refusal() => Ok(self.end(ack, 2, Stage::Published)),
            Packet::PubRec(Ack { id, .. }) => {
                let is_it = |message: &&mut Message| is_message(message, id, 2);
                if let Some(message) = self.in_flight.iter_mut().find(is_it) {
                    message.stage = Stage::Released;
                }
                // A PUBREC for nothing is answered too: the broker would wait for it forever.
                out.extend(wire::pubrel(id)?);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Whether everything offered has been sent and acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Whether the broker owes an answer on this connection.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.sent > 0
    }

    fn end(&mut self, ack: Ack, qos: u8, stage: Stage) -> Option<End> {
        let is_it = |message: &Message| is_message(message, ack.id, qos) && message.stage == stage;
        let position = self.in_flight.iter().position(is_it)?;
        let message = self.in_flight.remove(position)?;
        if position < self.sent.into() {
            self.sent -= 1;
        }
        if self.in_flight.is_empty() {
            self.in_flight.shrink_to_fit();
        }
        Some(match ack.is_refusal() {
            true => End::Rejected(message.label, ack.reason),
            false => End::Acknowledged(message.label),
        })
    }

    fn next_id(&mut self) -> u16 {
        // Few ids are taken, so a free one is near.
        loop {
            self.last_id = self.last_id % (wire::SUBSCRIBE_ID - 1) + 1;
            let id = self.last_id;
            if self.in_flight.iter().all(|message| message.id != id) {
                return id;
            }
        }
    }
}

fn is_message(message: &Message, id: u16, qos: u8) -> bool {
    message.id == id && wire::quality_of(&message.frame) == qos
}

/// How a PUBLISH names its topic: a topic that has no alias yet gets one, as long as there are any.
fn name(frame: &[u8], aliases: &mut Vec<Box<[u8]>>, aliases_max: u16) -> Naming {
    if aliases_max == 0 {
        return Naming::Topic;
    }
    let topic = wire::topic_of(frame);
    // A gateway has a hundred topics, other devices one.
    for (alias, known) in (1..).zip(&*aliases) {
        if **known == *topic {
            return Naming::Alias(alias);
        }
    }
    match u16::try_from(aliases.len() + 1) {
        Ok(alias) if alias <= aliases_max => {
            aliases.push(topic.into());
            Naming::Introduction(alias)
        }
        _ => Naming::Topic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Template, Version};
    use std::time::Duration;

    #[test]
    fn qos_1_is_complete_with_its_puback_and_repeated_until_then() {
        let mut publisher = publisher_with(1, 2);
        let sent = transmit(&mut publisher);
        assert_eq!(first_bytes(&sent), [0x32, 0x32]);
        assert_eq!(handle(&mut publisher, acked(1)).0, Some(0));
        assert_eq!(handle(&mut publisher, acked(1)).0, None);
        assert_eq!(first_bytes(&resume(&mut publisher, true)), [0x3A]);
        assert_eq!(first_bytes(&resume(&mut publisher, false)), [0x3A]);
        assert_eq!(handle(&mut publisher, acked(2)).0, Some(1));
        assert!(publisher.is_idle());
    }

    #[test]
    fn qos_2_is_released_in_between_and_resumed_where_it_was() {
        let mut publisher = publisher_with(2, 2);
        transmit(&mut publisher);
        assert_eq!(handle(&mut publisher, Packet::PubComp(1)).0, None);
        let (complete, answer) = handle(&mut publisher, received(1, 0));
        assert_eq!((complete, answer), (None, vec![0x62, 2, 0, 1]));
        assert_eq!(first_bytes(&resume(&mut publisher, true)), [0x62, 0x3C]);
        assert_eq!(handle(&mut publisher, Packet::PubComp(1)).0, Some(0));
        assert!(!publisher.is_idle());
    }

    #[test]
    fn qos_2_is_given_up_with_the_session() {
        let mut publisher = publisher_with(2, 3);
        transmit(&mut publisher);
        handle(&mut publisher, received(1, 0));
        let given_up = publisher.connected(&ConnAck::default(), false);
        assert_eq!(given_up, [0, 1, 2].map(label));
        assert!(publisher.is_idle());
    }

    #[test]
    fn qos_0_is_done_when_sent() {
        let mut publisher = publisher_with(0, 3);
        assert_eq!(first_bytes(&transmit(&mut publisher)), [0x30; 3]);
        assert!(publisher.is_idle() && !publisher.awaits_answer());
    }

    #[test]
    fn window_and_buffer_are_bounded_and_keep_the_order() {
        let mut publisher = publisher_with(1, WAITING_MAX.into());
        assert_eq!(offer(&mut publisher, 1, 99), Offer::Refused);
        assert_eq!(
            first_bytes(&transmit(&mut publisher)).len(),
            usize::from(IN_FLIGHT_MAX)
        );
        for sequence in 0..WAITING_MAX {
            let complete = handle(&mut publisher, acked(sequence + 1)).0;
            assert_eq!(complete, Some(sequence.into()));
            transmit(&mut publisher);
        }
        assert!(publisher.is_idle() && !publisher.awaits_answer());
    }

    #[test]
    fn no_more_messages_fly_than_the_broker_takes() {
        let mut publisher = publisher_with(1, 6);
        assert_eq!(first_bytes(&transmit(&mut publisher)), [0x32; 6]);
        let connack = ConnAck {
            receive_maximum: 2,
            ..ConnAck::default()
        };
        publisher.connected(&connack, false);
        assert_eq!(first_bytes(&transmit(&mut publisher)), [0x3A; 2]);
        for id in 1..=6 {
            assert!(publisher.awaits_answer());
            let complete = handle(&mut publisher, acked(id)).0;
            assert_eq!(complete, Some(u32::from(id) - 1));
            transmit(&mut publisher);
        }
        assert!(publisher.is_idle() && !publisher.awaits_answer());
    }

    #[test]
    fn a_refused_message_is_not_acknowledged() {
        let mut publisher = publisher_with(1, 2);
        transmit(&mut publisher);
        let refused = |id, reason| Packet::PubAck(Ack { id, reason });
        assert_eq!(
            end(&mut publisher, refused(1, 0x97)),
            Some(End::Rejected(label(0), 0x97))
        );
        // No matching subscribers is no refusal.
        assert_eq!(
            end(&mut publisher, refused(2, 0x10)),
            Some(End::Acknowledged(label(1)))
        );
        let mut publisher = publisher_with(2, 2);
        transmit(&mut publisher);
        assert_eq!(
            end(&mut publisher, received(2, 0x87)),
            Some(End::Rejected(label(1), 0x87))
        );
        let (complete, answer) = handle(&mut publisher, received(2, 0x87));
        assert_eq!((complete, answer), (None, vec![]));
        assert_eq!(handle(&mut publisher, received(1, 0x10)).1, [0x62, 2, 0, 1]);
        assert_eq!(end(&mut publisher, received(1, 0x87)), None);
    }

    #[test]
    fn an_alias_is_introduced_on_each_connection() {
        let mut publisher = publisher_with(1, 2);
        let connack = ConnAck {
            topic_alias_maximum: 1,
            ..ConnAck::default()
        };
        for _ in 0..2 {
            publisher.connected(&connack, true);
            let sent = transmit(&mut publisher);
            let topic_lengths = lengths(&sent);
            assert_eq!(topic_lengths, [19, 0]);
        }
        // A broker that takes no aliases gets none, also in what was sent with one before.
        assert_eq!(lengths(&resume(&mut publisher, true)), [19, 19]);
    }

    #[test]
    fn each_topic_has_an_alias_of_its_own_while_there_are_any() {
        let mut publisher = Publisher::new();
        let connack = ConnAck {
            topic_alias_maximum: 2,
            ..ConnAck::default()
        };
        publisher.connected(&connack, true);
        let pattern = "t/{leaf}".parse().unwrap();
        let template = Template::new(Version::V5, "r", "c", pattern, 0).unwrap();
        let mut out = Vec::new();
        for leaf in [1, 2, 3, 2, 1, 3] {
            let frame = template.fill(0, "id", leaf, b"").unwrap();
            publisher.offer(label(0), frame);
        }
        while publisher.transmit(&mut out).unwrap() {}
        let expected: [&[u8]; 6] = [
            b"\x30\x0b\0\x05t/001\x03\x23\0\x01",
            b"\x30\x0b\0\x05t/002\x03\x23\0\x02",
            b"\x30\x08\0\x05t/003\0",
            b"\x30\x06\0\0\x03\x23\0\x02",
            b"\x30\x06\0\0\x03\x23\0\x01",
            b"\x30\x08\0\x05t/003\0",
        ];
        assert_eq!(packets(&out), expected);
    }

    #[test]
    fn packet_ids_wrap_around_those_in_flight_and_the_subscription() {
        let mut publisher = publisher_with(1, 1);
        transmit(&mut publisher);
        publisher.last_id = wire::SUBSCRIBE_ID - 1;
        offer(&mut publisher, 1, 1);
        transmit(&mut publisher);
        assert_eq!(publisher.in_flight[1].id, 2);
    }

    fn publisher_with(qos: u8, messages: usize) -> Publisher {
        let mut publisher = Publisher::new();
        publisher.connected(&ConnAck::default(), false);
        for sequence in 0..messages {
            let sequence = u32::try_from(sequence).unwrap();
            assert_eq!(offer(&mut publisher, qos, sequence), Offer::Accepted);
        }
        publisher
    }

    fn offer(publisher: &mut Publisher, qos: u8, sequence: u32) -> Offer {
        let pattern = "sim/{run}/{index}".parse().unwrap();
        let template = Template::new(Version::V5, "0123abcd", "c", pattern, qos).unwrap();
        let frame = template.fill(0, "id", 0, b"{}").unwrap();
        publisher.offer(label(sequence), frame)
    }

    fn label(sequence: u32) -> Label {
        Label {
            device: 0,
            sequence,
            intended_at: Duration::ZERO,
        }
    }

    fn transmit(publisher: &mut Publisher) -> Vec<u8> {
        let mut out = Vec::new();
        while publisher.transmit(&mut out).unwrap() {}
        out
    }

    fn resume(publisher: &mut Publisher, session_present: bool) -> Vec<u8> {
        let connack = ConnAck {
            session_present,
            ..ConnAck::default()
        };
        assert_eq!(publisher.connected(&connack, true), []);
        transmit(publisher)
    }

    fn acked(id: u16) -> Packet {
        Packet::PubAck(Ack { id, reason: 0 })
    }

    fn received(id: u16, reason: u8) -> Packet {
        Packet::PubRec(Ack { id, reason })
    }

    fn end(publisher: &mut Publisher, packet: Packet) -> Option<End> {
        publisher.handle(&packet, &mut Vec::new()).unwrap()
    }

    /// The number of an acknowledged message, and our answer.
    fn handle(publisher: &mut Publisher, packet: Packet) -> (Option<u32>, Vec<u8>) {
        let mut out = Vec::new();
        let end = publisher.handle(&packet, &mut out).unwrap();
        let sequence = match end {
            Some(End::Acknowledged(label)) => Some(label.sequence),
            _ => None,
        };
        (sequence, out)
    }

    /// The first byte of each packet; all here are shorter than 128 bytes.
    fn first_bytes(stream: &[u8]) -> Vec<u8> {
        packets(stream).iter().map(|packet| packet[0]).collect()
    }

    /// The length of each PUBLISH's topic.
    fn lengths(stream: &[u8]) -> Vec<u8> {
        packets(stream).iter().map(|packet| packet[3]).collect()
    }

    fn packets(mut stream: &[u8]) -> Vec<&[u8]> {
        let mut packets = Vec::new();
        while let [_, length, ..] = stream {
            let (packet, rest) = stream.split_at(usize::from(*length) + 2);
            packets.push(packet);
            stream = rest;
        }
        packets
    }
}
