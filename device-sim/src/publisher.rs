//! The MQTT side of a device: messages wait, fly, and are acknowledged.
//!
//! Invariants:
//! - Messages leave in the order in which they were offered, and are sent again in that order.
//! - What is not acknowledged is kept and sent again, marked as a repetition, on the next connection.
//! - At most [`WAITING_MAX`] messages wait and [`IN_FLIGHT_MAX`] fly; a device refuses readings beyond that.
//!
//! Does not know: sockets, links, the clock.

use crate::label::Label;
use crate::wire::{self, Packet, Template, WireError};
use std::collections::VecDeque;

/// A constrained device's send window.
const IN_FLIGHT_MAX: usize = 8;
/// Readings that a device buffers while it cannot send.
const WAITING_MAX: usize = 64;

/// Whether a device had room for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It will be sent.
    Accepted,
    /// The buffer is full: the reading is dropped on the device.
    Refused,
}

/// One device's outgoing messages.
#[derive(Debug)]
pub(crate) struct Publisher {
    qos: u8,
    last_id: u16,
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
    pub(crate) fn new(qos: u8) -> Self {
        Self {
            qos,
            last_id: 0,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
        }
    }

    /// Takes a message to be sent when its turn comes.
    pub(crate) fn offer(&mut self, label: Label, frame: Box<[u8]>) -> Offer {
        if self.waiting.len() >= WAITING_MAX {
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

    /// Writes what a new connection must repeat.
    pub(crate) fn resume(&mut self, out: &mut Vec<u8>) -> Result<(), WireError> {
        for message in &mut self.in_flight {
            match message.stage {
                Stage::Published => {
                    wire::set_duplicate(&mut message.frame);
                    out.extend_from_slice(&message.frame);
                }
                Stage::Released => out.extend(wire::pubrel(message.id)?),
            }
        }
        Ok(())
    }

    /// Writes the next message if it may be sent now; `false` when none may.
    pub(crate) fn transmit(&mut self, template: &Template, out: &mut Vec<u8>) -> bool {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return false;
        }
        let Some(mut message) = self.waiting.pop_front() else {
            self.waiting.shrink_to_fit();
            return false;
        };
        if self.qos == 0 {
            out.extend_from_slice(&message.frame);
            return true;
        }
        message.id = self.next_id();
        template.set_id(&mut message.frame, message.id);
        out.extend_from_slice(&message.frame);
        self.in_flight.push_back(message);
        true
    }

    /// Handles an acknowledgement; returns the message that it completes. One that answers nothing is ignored.
    pub(crate) fn handle(
        &mut self,
        packet: &Packet,
        out: &mut Vec<u8>,
    ) -> Result<Option<Label>, WireError> {
        match *packet {
            Packet::PubAck(id) if self.qos == 1 => Ok(self.complete(id, Stage::Published)),
            Packet::PubComp(id) => Ok(self.complete(id, Stage::Released)),
            Packet::PubRec(id) if self.qos == 2 => {
                let message = self.in_flight.iter_mut().find(|message| message.id == id);
                if let Some(message) = message {
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

    fn complete(&mut self, id: u16, stage: Stage) -> Option<Label> {
        let is_it = |message: &Message| message.id == id && message.stage == stage;
        let position = self.in_flight.iter().position(is_it)?;
        let message = self.in_flight.remove(position)?;
        if self.in_flight.is_empty() {
            self.in_flight.shrink_to_fit();
        }
        Some(message.label)
    }

    fn next_id(&mut self) -> u16 {
        // At most IN_FLIGHT_MAX ids are taken, so a free one is near.
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            if self.in_flight.iter().all(|message| message.id != id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn qos_1_is_complete_with_its_puback_and_repeated_until_then() {
        let (mut publisher, template) = publisher_with(1, 2);
        let sent = transmit(&mut publisher, &template);
        assert_eq!(first_bytes(&sent), [0x32, 0x32]);
        assert_eq!(handle(&mut publisher, Packet::PubAck(1)).0, Some(0));
        assert_eq!(handle(&mut publisher, Packet::PubAck(1)).0, None);
        assert_eq!(first_bytes(&resume(&mut publisher)), [0x3A]);
        assert_eq!(handle(&mut publisher, Packet::PubAck(2)).0, Some(1));
        assert!(publisher.is_idle());
    }

    #[test]
    fn qos_2_is_released_in_between_and_resumed_where_it_was() {
        let (mut publisher, template) = publisher_with(2, 2);
        transmit(&mut publisher, &template);
        assert_eq!(handle(&mut publisher, Packet::PubComp(1)).0, None);
        let (complete, answer) = handle(&mut publisher, Packet::PubRec(1));
        assert_eq!((complete, answer), (None, vec![0x62, 2, 0, 1]));
        assert_eq!(first_bytes(&resume(&mut publisher)), [0x62, 0x3C]);
        assert_eq!(handle(&mut publisher, Packet::PubComp(1)).0, Some(0));
        assert!(!publisher.is_idle());
    }

    #[test]
    fn qos_0_is_done_when_sent() {
        let (mut publisher, template) = publisher_with(0, 3);
        assert_eq!(first_bytes(&transmit(&mut publisher, &template)), [0x30; 3]);
        assert!(publisher.is_idle());
    }

    #[test]
    fn window_and_buffer_are_bounded_and_keep_the_order() {
        let (mut publisher, template) = publisher_with(1, WAITING_MAX);
        assert_eq!(offer(&mut publisher, &template, 99), Offer::Refused);
        assert_eq!(
            first_bytes(&transmit(&mut publisher, &template)).len(),
            IN_FLIGHT_MAX
        );
        for sequence in 0..WAITING_MAX {
            let id = u16::try_from(sequence + 1).unwrap();
            let complete = handle(&mut publisher, Packet::PubAck(id)).0;
            assert_eq!(complete, u32::try_from(sequence).ok());
            transmit(&mut publisher, &template);
        }
        assert!(publisher.is_idle());
    }

    #[test]
    fn packet_ids_wrap_around_those_in_flight() {
        let (mut publisher, template) = publisher_with(1, 1);
        transmit(&mut publisher, &template);
        publisher.last_id = u16::MAX;
        offer(&mut publisher, &template, 1);
        transmit(&mut publisher, &template);
        assert_eq!(publisher.in_flight[1].id, 2);
    }

    fn publisher_with(qos: u8, messages: usize) -> (Publisher, Template) {
        let template = Template::new("0123abcd", "c", "sim/{run}/{index}".parse().unwrap(), qos);
        let mut publisher = Publisher::new(qos);
        for sequence in 0..messages {
            let sequence = u32::try_from(sequence).unwrap();
            assert_eq!(offer(&mut publisher, &template, sequence), Offer::Accepted);
        }
        (publisher, template)
    }

    fn offer(publisher: &mut Publisher, template: &Template, sequence: u32) -> Offer {
        let label = Label {
            device: 0,
            sequence,
            intended_at: Duration::ZERO,
        };
        publisher.offer(label, template.fill(0, "id", 0, b"{}").unwrap())
    }

    fn transmit(publisher: &mut Publisher, template: &Template) -> Vec<u8> {
        let mut out = Vec::new();
        while publisher.transmit(template, &mut out) {}
        out
    }

    fn resume(publisher: &mut Publisher) -> Vec<u8> {
        let mut out = Vec::new();
        publisher.resume(&mut out).unwrap();
        out
    }

    fn handle(publisher: &mut Publisher, packet: Packet) -> (Option<u32>, Vec<u8>) {
        let mut out = Vec::new();
        let complete = publisher.handle(&packet, &mut out).unwrap();
        (complete.map(|label| label.sequence), out)
    }

    /// The first byte of each packet; all here are shorter than 128 bytes.
    fn first_bytes(mut stream: &[u8]) -> Vec<u8> {
        let mut firsts = Vec::new();
        while let [first, length, rest @ ..] = stream {
            firsts.push(*first);
            stream = &rest[usize::from(*length)..];
        }
        firsts
    }
}
