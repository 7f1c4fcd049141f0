//! The receiving side of a device: its subscription to commands, and each command once per session.
//!
//! Invariants:
//! - A subscription is asked for again when the broker has no session for it.
//! - A QoS 2 message is passed on once, until the broker has released its packet id [MQTT5-4.3.3-10].
//!
//! Does not know: what a command means, who counts it, sockets, the clock.

use crate::wire::{self, ConnAck, Delivery, Packet, Version, WireError};

/// One device's subscription.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    is_subscribed: bool,
    /// The QoS that the broker granted, once it has.
    granted: Option<u8>,
    /// QoS 2 packet ids that the broker may still repeat; it sends few at once.
    unreleased: Vec<u16>,
}

/// What a packet was to the receiving side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard<'a> {
    /// Nothing, or nothing new.
    Nothing,
    /// A message, on a subscription of at most this QoS.
    Message(&'a Delivery, u8),
    /// From now on messages come.
    Subscribed,
    /// The subscription was refused with this code.
    Unsubscribed(u8),
}

impl Receiver {
    /// The broker accepted a connection; writes SUBSCRIBE if it is needed.
    pub(crate) fn connected(
        &mut self,
        connack: &ConnAck,
        version: Version,
        filter: &str,
        qos: u8,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        if !connack.session_present {
            self.is_subscribed = false;
            self.unreleased = Vec::new();
        }
        if !self.is_subscribed {
            out.extend(wire::subscribe(version, wire::SUBSCRIBE_ID, filter, qos)?);
        }
        Ok(())
    }

    /// Handles a packet and writes the answer to it.
    pub(crate) fn handle<'a>(
        &mut self,
        packet: &'a Packet,
        out: &mut Vec<u8>,
    ) -> Result<Heard<'a>, WireError> {
        match packet {
            Packet::Publish(delivery) => {
                let id = delivery.id;
                let is_new = match delivery.qos {
                    0 => true,
                    1 => {
                        out.extend(wire::puback(id)?);
                        true
                    }
                    _ => {
                        out.extend(wire::pubrec(id)?);
                        let is_new = !self.unreleased.contains(&id);
                        if is_new {
                            self.unreleased.push(id);
                        }
                        is_new
                    }
                };
                match is_new {
                    true => Ok(Heard::Message(delivery, self.granted.unwrap_or(2))),
                    false => Ok(Heard::Nothing),
                }
            }
            Packet::PubRel(id) => {
                self.unreleased.retain(|unreleased| unreleased != id);
                out.extend(wire::pubcomp(*id)?);
                Ok(Heard::Nothing)
            }
            Packet::SubAck { codes, .. } => match codes.first() {
                Some(code) if *code >= 0x80 => Ok(Heard::Unsubscribed(*code)),
                code => {
                    self.is_subscribed = true;
                    self.granted = code.copied();
                    Ok(Heard::Subscribed)
                }
            },
            _ => Ok(Heard::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_subscribes_once_per_session() {
        let mut receiver = Receiver::default();
        let subscribe = b"\x82\x06\xff\xff\0\x01c\x01";
        assert_eq!(connected(&mut receiver, false), subscribe);
        // The broker kept the session, but no SUBACK came.
        assert_eq!(connected(&mut receiver, true), subscribe);
        let suback = Packet::SubAck {
            id: 0xFFFF,
            codes: vec![1],
        };
        assert_eq!(handle(&mut receiver, &suback), (Heard::Subscribed, vec![]));
        assert_eq!(connected(&mut receiver, true), b"");
        assert_eq!(connected(&mut receiver, false), subscribe);
    }

    #[test]
    fn a_refusal_is_no_subscription() {
        let mut receiver = Receiver::default();
        let suback = Packet::SubAck {
            id: 0xFFFF,
            codes: vec![0x87],
        };
        assert_eq!(handle(&mut receiver, &suback).0, Heard::Unsubscribed(0x87));
        assert_ne!(connected(&mut receiver, true), b"");
    }

    #[test]
    fn each_qos_has_its_answer() {
        let mut receiver = Receiver::default();
        let (at_0, at_1, at_2) = (message(0, 0), message(1, 7), message(2, 7));
        let new = |packet| Heard::Message(delivery(packet), 2);
        assert_eq!(handle(&mut receiver, &at_0), (new(&at_0), vec![]));
        let puback = vec![0x40, 2, 0, 7];
        assert_eq!(handle(&mut receiver, &at_1), (new(&at_1), puback));
        let pubrec = vec![0x50, 2, 0, 7];
        assert_eq!(handle(&mut receiver, &at_2), (new(&at_2), pubrec.clone()));
        assert_eq!(
            handle(&mut receiver, &message(2, 7)),
            (Heard::Nothing, pubrec.clone())
        );
        let released = (Heard::Nothing, vec![0x70, 2, 0, 7]);
        assert_eq!(handle(&mut receiver, &Packet::PubRel(7)), released);
        assert_eq!(handle(&mut receiver, &at_2), (new(&at_2), pubrec));
    }

    #[test]
    fn packet_ids_end_with_the_session() {
        let mut receiver = Receiver::default();
        handle(&mut receiver, &message(2, 7));
        connected(&mut receiver, true);
        assert_eq!(handle(&mut receiver, &message(2, 7)).0, Heard::Nothing);
        connected(&mut receiver, false);
        let message = message(2, 7);
        let new = Heard::Message(delivery(&message), 2);
        assert_eq!(handle(&mut receiver, &message).0, new);
    }

    fn connected(receiver: &mut Receiver, session_present: bool) -> Vec<u8> {
        let connack = ConnAck {
            session_present,
            ..ConnAck::default()
        };
        let mut out = Vec::new();
        receiver
            .connected(&connack, Version::V4, "c", 1, &mut out)
            .unwrap();
        out
    }

    fn handle<'a>(receiver: &mut Receiver, packet: &'a Packet) -> (Heard<'a>, Vec<u8>) {
        let mut out = Vec::new();
        let heard = receiver.handle(packet, &mut out).unwrap();
        (heard, out)
    }

    fn message(qos: u8, id: u16) -> Packet {
        Packet::Publish(Delivery::new(qos, id, false, "t", b"x"))
    }

    fn delivery(packet: &Packet) -> &Delivery {
        match packet {
            Packet::Publish(delivery) => delivery,
            _ => panic!("{packet:?} is no message"),
        }
    }
}
