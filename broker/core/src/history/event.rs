//! One event: what happened to a client or a message; its bytes in the ring; and which ones somebody wants.
//!
//! Invariants: texts are cut to [`TEXT_MAX`] bytes at a character; what was encoded is what is decoded. Does not know: who
//! writes or reads.

use crate::glob::glob_matches;
use crate::time::Timestamp;
use motemq_codec::{QoS, TopicFilter};

/// What kind of event.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum EventKind {
    /// A client connected.
    Connected = 0,
    /// Its connection ended.
    Disconnected = 1,
    /// A connection, client or wish of a client was refused.
    Refused = 2,
    /// A newer connection of the same client took its session.
    Takeover = 3,
    /// A message did not reach somebody.
    Dropped = 4,
    /// More events of a client within one second than are kept one by one.
    Suppressed = 5,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Connected,
        Self::Disconnected,
        Self::Refused,
        Self::Takeover,
        Self::Dropped,
        Self::Suppressed,
    ];

    /// Its name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Refused => "refused",
            Self::Takeover => "takeover",
            Self::Dropped => "dropped",
            Self::Suppressed => "suppressed",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

/// Something that happened. Texts that do not apply are empty.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct HistoryEvent<'a> {
    /// Its place among all events since the start: higher is later. Given by the history.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// The client that it happened to: of a dropped message who would have received it, or who published it where that is
    /// as far as it came. `$share/name/filter` is the queue of a share group.
    pub client_id: &'a str,
    /// Why, in a word of the metrics.
    pub reason: &'a str,
    /// The topic of a message; empty also where only the store knew it.
    pub topic: &'a str,
    /// The quality of service of a delivery.
    pub qos: Option<QoS>,
    /// Who published the message.
    pub publisher: &'a str,
    /// Where the client came from.
    pub peer: &'a str,
    /// More about it, for people.
    pub detail: &'a str,
    /// How many times.
    pub count: u32,
}

impl<'a> HistoryEvent<'a> {
    /// An event with nothing but its kind, client and reason.
    #[must_use]
    pub const fn new(at: Timestamp, kind: EventKind, client_id: &'a str, reason: &'a str) -> Self {
        Self {
            number: 0,
            at,
            kind,
            client_id,
            reason,
            topic: "",
            qos: None,
            publisher: "",
            peer: "",
            detail: "",
            count: 1,
        }
    }

    /// Appends its bytes, which can be found from either end.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.at.as_ms().to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.push(self.kind as u8);
        out.push(self.qos.map_or(NO_QOS, |qos| qos as u8));
        for text in [
            self.client_id,
            self.reason,
            self.topic,
            self.publisher,
            self.peer,
            self.detail,
        ] {
            let text = cut(text);
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
    }

    /// The bytes that it takes.
    pub(super) fn encoded_len(&self) -> usize {
        let texts = [
            self.client_id,
            self.reason,
            self.topic,
            self.publisher,
            self.peer,
            self.detail,
        ];
        let texts = texts.into_iter().map(|text| 2 + cut(text).len());
        8 + 4 + 1 + 1 + texts.sum::<usize>() + 2
    }

    /// The last event of `bytes`, and the bytes before it.
    pub(super) fn decode_last(bytes: &'a [u8], number: u64) -> Option<(Self, &'a [u8])> {
        let (rest, length) = bytes.split_last_chunk()?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (before, body) = rest.split_at_checked(rest.len().checked_sub(length)?)?;
        let (at, body) = body.split_first_chunk()?;
        let (count, body) = body.split_first_chunk()?;
        let (&[kind, qos], mut body) = body.split_first_chunk()?;
        let mut text = || {
            let (length, rest) = body.split_first_chunk()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            body = rest;
            std::str::from_utf8(text).ok()
        };
        let event = Self {
            number,
            at: Timestamp::from_ms(u64::from_le_bytes(*at)),
            kind: EventKind::ALL.into_iter().find(|it| *it as u8 == kind)?,
            client_id: text()?,
            reason: text()?,
            topic: text()?,
            publisher: text()?,
            peer: text()?,
            detail: text()?,
            qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                .into_iter()
                .find(|known| *known as u8 == qos),
            count: u32::from_le_bytes(*count),
        };
        Some((event, before))
    }
}

/// Which clients somebody wants to hear of.
#[derive(Copy, Clone, Debug, Default)]
pub enum ClientMatch<'a> {
    /// All.
    #[default]
    Any,
    /// This one.
    Exactly(&'a str),
    /// Those of a pattern, in which `*` is any text and `?` any character.
    Glob(&'a str),
}

impl ClientMatch<'_> {
    /// Whether it wants this client.
    #[must_use]
    pub fn matches(self, client_id: &str) -> bool {
        match self {
            Self::Any => true,
            // What is kept of a long identifier is its beginning.
            Self::Exactly(wanted) => cut(wanted) == client_id,
            Self::Glob(pattern) => glob_matches(pattern, client_id),
        }
    }
}

/// Which events somebody wants.
#[derive(Copy, Clone, Debug, Default)]
pub struct EventFilter<'a> {
    /// Whose; of dropped messages also the publisher's.
    pub client: ClientMatch<'a>,
    /// Of messages with such topics.
    pub topic: Option<TopicFilter<'a>>,
    /// Of these kinds; none is all.
    pub kinds: &'a [EventKind],
    /// For this reason.
    pub reason: Option<&'a str>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before the event of this number.
    pub before: Option<u64>,
}

impl EventFilter<'_> {
    /// Whether it wants this event.
    #[must_use]
    pub fn matches(&self, event: &HistoryEvent<'_>) -> bool {
        self.before.is_none_or(|number| event.number < number)
            && self.since.is_none_or(|since| event.at >= since)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.reason.is_none_or(|reason| event.reason == reason)
            && self
                .topic
                .is_none_or(|filter| !event.topic.is_empty() && filter.matches(event.topic))
            && (self.client.matches(event.client_id)
                || !event.publisher.is_empty() && self.client.matches(event.publisher))
    }
}

/// The beginning of a text, as much as is kept.
pub(super) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX))
        .unwrap_or_default()
}

/// Bytes that are kept of each text.
pub(super) const TEXT_MAX: usize = 512;
const NO_QOS: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = "é".repeat(TEXT_MAX);
        let event = HistoryEvent::new(Timestamp::default(), EventKind::Connected, &text, "");
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let (read, _) = HistoryEvent::decode_last(&bytes, 0).unwrap();
        assert_eq!(read.client_id, "é".repeat(TEXT_MAX / 2));
        assert!(ClientMatch::Exactly(&text).matches(read.client_id));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            texts in proptest::array::uniform6("[a-zé/+ ]{0,40}"),
            kind in 0..EventKind::ALL.len(),
            qos in proptest::option::of(0u8..3),
            at in 0..u64::MAX / 1_000_000,
            count: u32,
        ) {
            let event = HistoryEvent {
                number: 7,
                at: Timestamp::from_ms(at),
                kind: EventKind::ALL[kind],
                client_id: &texts[0],
                reason: &texts[1],
                topic: &texts[2],
                qos: qos.and_then(|qos| {
                    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].get(usize::from(qos)).copied()
                }),
                publisher: &texts[3],
                peer: &texts[4],
                detail: &texts[5],
                count,
            };
            let mut bytes = b"before".to_vec();
            event.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), 6 + event.encoded_len());
            prop_assert_eq!(HistoryEvent::decode_last(&bytes, 7), Some((event, &b"before"[..])));
        }

        #[test]
        fn no_bytes_panic_when_they_are_decoded(bytes: Vec<u8>) {
            let _ = HistoryEvent::decode_last(&bytes, 0);
        }
    }
}
