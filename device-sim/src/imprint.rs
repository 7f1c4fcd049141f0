//! What is remembered of a message between sending and delivery: enough to see whether it arrived as it was sent.
//!
//! Hashes are 32 bits of SipHash-2-4 with key 0: of four thousand million alterations, one goes unseen.
//!
//! Invariant: a device's memory is bounded by what is in flight or lost, and by [`REMEMBERED_MAX`].
//!
//! Does not know: labels, counts, what an alteration means for a run.

use crate::wire::{self, Delivery};
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::Hasher;

/// Messages that are remembered of each device. Of older ones neither payload nor topic is compared: a device and
/// its broker hold far less, so these are lost ones of QoS 0.
const REMEMBERED_MAX: usize = 1_024;
/// What an idle device may keep for its next messages.
const IDLE_MAX: usize = 8;

/// The hashes of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imprint {
    topic: u32,
    payload: u32,
}

/// How a message arrived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    /// What arrived.
    pub imprint: Imprint,
    /// The QoS it came with.
    pub qos: u8,
    /// The highest QoS that the broker granted the receiver.
    pub granted: u8,
    /// Whether it came with the retain flag, as no message of a fleet may: devices set none, and a broker sets it only
    /// for what it had kept when a subscription began [MQTT3-3.3.1-9] [MQTT5-3.3.1-12].
    pub is_retained: bool,
}

/// What a broker did to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alteration {
    /// It is not among the messages that its device has sent.
    Invented,
    Payload,
    Topic,
    Qos {
        is: u8,
        due: u8,
    },
    Retained,
}

/// What is known of a message that arrives for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Sent(Imprint),
    /// It may have been sent, too long ago.
    Forgotten,
    NeverSent,
}

/// The messages of a device that have not arrived.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// In the order of their numbers.
    messages: Vec<(u32, Imprint)>,
    /// Numbers below may have been forgotten.
    forgotten_before: u32,
}

impl Imprint {
    /// Of a message to this topic.
    #[must_use]
    pub fn of(topic: &[u8], payload: &[u8]) -> Self {
        Self {
            topic: hash(topic),
            payload: hash(payload),
        }
    }

    /// Of a publish frame with this payload.
    pub(crate) fn of_frame(frame: &[u8], payload: &[u8]) -> Self {
        // The length of the topic comes first.
        let topic = wire::topic_of(frame).get(2..).unwrap_or_default();
        Self::of(topic, payload)
    }
}

impl Arrival {
    /// At a receiver to which the broker granted at most this QoS.
    pub(crate) fn of(delivery: &Delivery, granted: u8) -> Self {
        Self {
            imprint: Imprint::of(delivery.topic(), delivery.payload()),
            qos: delivery.qos,
            granted,
            is_retained: delivery.is_retained,
        }
    }

    /// How it differs from what was sent at this QoS.
    pub(crate) fn alteration(&self, sent: Memory, qos: u8) -> Option<Alteration> {
        let due = qos.min(self.granted);
        match sent {
            Memory::NeverSent => return Some(Alteration::Invented),
            Memory::Sent(sent) if sent.payload != self.imprint.payload => {
                return Some(Alteration::Payload);
            }
            Memory::Sent(sent) if sent.topic != self.imprint.topic => {
                return Some(Alteration::Topic);
            }
            Memory::Sent(_) | Memory::Forgotten => {}
        }
        if self.qos != due {
            return Some(Alteration::Qos { is: self.qos, due });
        }
        self.is_retained.then_some(Alteration::Retained)
    }
}

impl fmt::Display for Alteration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invented => formatter.write_str("never sent"),
            Self::Payload => formatter.write_str("payload altered"),
            Self::Topic => formatter.write_str("topic altered"),
            Self::Qos { is, due } => write!(formatter, "QoS {is} instead of {due}"),
            Self::Retained => formatter.write_str("retain flag set"),
        }
    }
}

impl Remembered {
    /// A message was sent; its number is above those before.
    pub(crate) fn remember(&mut self, sequence: u32, imprint: Imprint) {
        if self.messages.len() >= REMEMBERED_MAX {
            let (forgotten, _) = self.messages.remove(0);
            self.forgotten_before = forgotten.saturating_add(1);
        }
        self.messages.push((sequence, imprint));
    }

    /// A message arrived for the first time.
    pub(crate) fn take(&mut self, sequence: u32) -> Memory {
        let place = self.messages.binary_search_by_key(&sequence, |(of, _)| *of);
        let Ok(place) = place else {
            return match sequence < self.forgotten_before {
                true => Memory::Forgotten,
                false => Memory::NeverSent,
            };
        };
        let (_, imprint) = self.messages.remove(place);
        if self.messages.is_empty() && self.messages.capacity() > IDLE_MAX {
            self.messages = Vec::new();
        }
        Memory::Sent(imprint)
    }
}

fn hash(bytes: &[u8]) -> u32 {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_broker_changes_is_seen() {
        let sent = Memory::Sent(Imprint::of(b"t", b"12"));
        let honest = Arrival {
            imprint: Imprint::of(b"t", b"12"),
            qos: 1,
            granted: 2,
            is_retained: false,
        };
        let with = |topic: &[u8], payload: &[u8]| Arrival {
            imprint: Imprint::of(topic, payload),
            ..honest
        };
        let retained = Arrival {
            is_retained: true,
            ..honest
        };
        for (arrival, qos, alteration) in [
            (honest, 1, None),
            (
                Arrival {
                    granted: 1,
                    ..honest
                },
                2,
                None,
            ),
            (with(b"t", b"13"), 1, Some(Alteration::Payload)),
            (with(b"s", b"12"), 1, Some(Alteration::Topic)),
            (honest, 2, Some(Alteration::Qos { is: 1, due: 2 })),
            (honest, 0, Some(Alteration::Qos { is: 1, due: 0 })),
            (retained, 1, Some(Alteration::Retained)),
        ] {
            assert_eq!(arrival.alteration(sent, qos), alteration);
        }
        let invented = honest.alteration(Memory::NeverSent, 1);
        assert_eq!(invented, Some(Alteration::Invented));
        assert_eq!(honest.alteration(Memory::Forgotten, 1), None);
    }

    #[test]
    fn what_has_arrived_is_not_remembered_and_the_rest_is_bounded() {
        let imprint = |sequence: u32| Imprint::of(b"t", &sequence.to_be_bytes());
        let mut remembered = Remembered::default();
        for sequence in 0..2_000 {
            remembered.remember(sequence, imprint(sequence));
        }
        assert_eq!(remembered.messages.len(), REMEMBERED_MAX);
        assert_eq!(remembered.take(975), Memory::Forgotten);
        assert_eq!(remembered.take(2_000), Memory::NeverSent);
        for sequence in 976..2_000 {
            let sent = Memory::Sent(imprint(sequence));
            assert_eq!(remembered.take(sequence), sent);
            assert_eq!(remembered.take(sequence), Memory::NeverSent);
        }
        assert_eq!(remembered.messages.capacity(), 0);
    }
}
