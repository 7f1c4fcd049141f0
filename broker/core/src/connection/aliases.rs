//! Topic aliases towards the client (MQTT 5.0 section 3.3.2.3.4), given where they pay.
//!
//! An alias costs three bytes when it is set and saves the topic, less three bytes, each time it is used. So a topic gets one
//! when its length times the repeats to be expected is worth it; when all are taken, it takes the one that is worth least.
//! Counts fade, so that the table follows the traffic. What was learnt survives the connection as [`Hints`].
//!
//! Invariants: no alias above what the client takes [MQTT5-3.1.2-26] [MQTT5-3.1.2-27]; an alias is used without its topic only
//! after a packet that set it was written; mappings end with the connection [MQTT5-3.3.2-7].
//!
//! Does not know: packets, who publishes.

use crate::message::TopicName;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::num::NonZeroU16;

/// The aliases of one connection.
#[derive(Debug)]
pub(super) struct OutboundAliases {
    aliases_max: usize,
    /// The topics with an alias; alias 1 is the first.
    slots: Vec<Slot>,
    places: HashMap<TopicName, Place, RandomState>,
    /// Deliveries until all counts are halved.
    until_fading: u32,
    /// Deliveries of topics never seen before, and of the others; they fade too.
    firsts: u32,
    repeats: u32,
}

#[derive(Debug)]
struct Slot {
    topic: TopicName,
    /// Recent deliveries.
    count: u32,
}

#[derive(Copy, Clone, Debug)]
enum Place {
    /// Has the alias of this slot.
    Slot(usize),
    /// Has none; so many recent deliveries.
    Candidate(u32),
}

/// How to send a topic.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// By its name.
    Name,
    /// By its name, setting this alias.
    Set(NonZeroU16),
    /// By this alias alone.
    Alias(NonZeroU16),
}

/// The topics worth an alias on an earlier connection, with their counts, best first.
pub(crate) type Hints = Box<[(TopicName, u32)]>;

impl OutboundAliases {
    /// Aliases for a client that takes `aliases_max` of them, at least 1.
    pub(super) fn new(aliases_max: u16, hints: &Hints) -> Self {
        let aliases_max = usize::from(aliases_max);
        let hints = hints.iter().take(aliases_max * CANDIDATES_PER_ALIAS);
        Self {
            aliases_max,
            slots: Vec::new(),
            places: hints
                .map(|(topic, count)| (topic.clone(), Place::Candidate(*count)))
                .collect(),
            until_fading: fading_interval(aliases_max),
            firsts: 1,
            repeats: 1,
        }
    }

    /// How to send `topic` now. A choice to set an alias counts once [`set`](Self::set) confirms that it was written.
    pub(super) fn choose(&mut self, topic: &TopicName) -> Choice {
        let Some(saved) = saved_bytes(topic) else {
            return Choice::Name;
        };
        self.fade();
        let count = match self.places.get_mut(topic) {
            Some(Place::Slot(index)) => {
                let index = *index;
                self.repeats += 1;
                if let Some(slot) = self.slots.get_mut(index) {
                    slot.count += 1;
                }
                return alias(index).map_or(Choice::Name, Choice::Alias);
            }
            Some(Place::Candidate(count)) => {
                self.repeats += 1;
                *count += 1;
                *count
            }
            None => {
                self.firsts += 1;
                self.remember(topic);
                1
            }
        };
        let chosen = if self.slots.len() < self.aliases_max {
            // Nothing is known of a new topic but how often topics come again here.
            let (repeats, firsts) = match count {
                1 => (self.repeats, self.firsts),
                count => (count, 1),
            };
            (u64::from(repeats) * saved > SETTING_BYTES * u64::from(firsts))
                .then_some(self.slots.len())
        } else {
            let worth = u64::from(count) * saved;
            self.cheapest()
                .filter(|(_, least)| count > 1 && worth > least + SETTING_BYTES)
                .map(|(index, _)| index)
        };
        chosen.and_then(alias).map_or(Choice::Name, Choice::Set)
    }

    /// Notes that a packet that sets `alias` to `topic` was written.
    pub(super) fn set(&mut self, alias: NonZeroU16, topic: &TopicName) {
        let index = usize::from(alias.get()) - 1;
        let count = match self.places.insert(topic.clone(), Place::Slot(index)) {
            Some(Place::Candidate(count)) => count,
            _ => 1,
        };
        let slot = Slot {
            topic: topic.clone(),
            count,
        };
        match self.slots.get_mut(index) {
            Some(before) => {
                let before = std::mem::replace(before, slot);
                self.places
                    .insert(before.topic, Place::Candidate(before.count));
            }
            None => self.slots.push(slot),
        }
    }

    /// What the next connection of the session should know.
    pub(super) fn hints(self) -> Hints {
        let mut known: Vec<_> = self
            .slots
            .into_iter()
            .map(|slot| (slot.topic, slot.count.max(2)))
            .collect();
        known.sort_by_key(|(topic, count)| {
            std::cmp::Reverse(u64::from(*count) * saved_bytes(topic).unwrap_or(0))
        });
        known.into()
    }

    fn remember(&mut self, topic: &TopicName) {
        if self.places.len() >= self.aliases_max * (CANDIDATES_PER_ALIAS + 1) {
            self.halve();
        }
        if self.places.len() < self.aliases_max * (CANDIDATES_PER_ALIAS + 1) {
            self.places.insert(topic.clone(), Place::Candidate(1));
        }
    }

    fn cheapest(&self) -> Option<(usize, u64)> {
        let worth = |slot: &Slot| u64::from(slot.count) * saved_bytes(&slot.topic).unwrap_or(0);
        let slots = self.slots.iter().enumerate();
        slots
            .map(|(index, slot)| (index, worth(slot)))
            .min_by_key(|(_, worth)| *worth)
    }

    fn fade(&mut self) {
        match self.until_fading.checked_sub(1) {
            Some(left) => self.until_fading = left,
            None => {
                self.until_fading = fading_interval(self.aliases_max);
                self.halve();
            }
        }
    }

    fn halve(&mut self) {
        self.firsts = self.firsts.div_ceil(2);
        self.repeats /= 2;
        for slot in &mut self.slots {
            slot.count /= 2;
        }
        self.places.retain(|_, place| match place {
            Place::Slot(_) => true,
            Place::Candidate(count) => {
                *count /= 2;
                *count > 0
            }
        });
    }
}

/// Bytes that an alias saves each time it stands for `topic`, if any.
pub(super) fn saved_bytes(topic: &TopicName) -> Option<u64> {
    let bytes = topic.as_str().len() as u64;
    bytes.checked_sub(SETTING_BYTES).filter(|saved| *saved > 0)
}

fn fading_interval(aliases_max: usize) -> u32 {
    let aliases = u32::try_from(aliases_max).unwrap_or(u32::MAX);
    aliases.saturating_mul(DELIVERIES_PER_FADING)
}

fn alias(index: usize) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(index + 1).ok()?)
}

/// The property: its identifier and two bytes.
const SETTING_BYTES: u64 = 3;
/// Topics without an alias that are watched, per alias.
const CANDIDATES_PER_ALIAS: usize = 4;
/// Deliveries after which counts are halved, per alias.
const DELIVERIES_PER_FADING: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap as Peer;

    /// Sends `topics` and resolves them as a client does. Gives the bytes spent on topics and aliases.
    fn send(aliases: &mut OutboundAliases, peer: &mut Peer<u16, String>, topics: &[&str]) -> usize {
        let mut bytes = 0;
        for topic in topics {
            let name = TopicName::new(topic);
            bytes += match aliases.choose(&name) {
                Choice::Name => topic.len(),
                Choice::Set(alias) => {
                    assert!(usize::from(alias.get()) <= aliases.aliases_max);
                    aliases.set(alias, &name);
                    peer.insert(alias.get(), (*topic).to_owned());
                    topic.len() + 3
                }
                Choice::Alias(alias) => {
                    assert_eq!(peer.get(&alias.get()).map(String::as_str), Some(*topic));
                    3
                }
            };
        }
        bytes
    }

    fn none() -> Hints {
        Box::default()
    }

    #[test]
    fn a_repeated_topic_is_sent_once() {
        let mut aliases = OutboundAliases::new(1, &none());
        let bytes = send(&mut aliases, &mut Peer::new(), &["plant/7/valve"; 100]);
        assert_eq!(bytes, 13 + 3 + 99 * 3);
    }

    #[test]
    fn a_topic_shorter_than_an_alias_is_left_alone() {
        let mut aliases = OutboundAliases::new(4, &none());
        assert_eq!(send(&mut aliases, &mut Peer::new(), &["abc"; 10]), 30);
    }

    #[test]
    fn topics_that_never_come_again_cost_next_to_nothing() {
        let topics: Vec<String> = (0..1000)
            .map(|number| format!("meter/{number:04}"))
            .collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let mut aliases = OutboundAliases::new(64, &none());
        let bytes = send(&mut aliases, &mut Peer::new(), &topics);
        assert!(bytes <= 10 * 1000 + 3 * 10, "{bytes}");
    }

    #[test]
    fn the_table_follows_the_traffic() {
        let mut aliases = OutboundAliases::new(2, &none());
        let mut peer = Peer::new();
        send(
            &mut aliases,
            &mut peer,
            &["first/long/topic", "second/long/topic"].repeat(50),
        );
        let later = ["third/long/topic", "fourth/long/topic"].repeat(100);
        let named: usize = later.iter().map(|topic| topic.len()).sum();
        let bytes = send(&mut aliases, &mut peer, &later);
        assert!(bytes < named / 2, "{bytes} of {named}");
    }

    #[test]
    fn a_rare_topic_does_not_push_a_frequent_one_out() {
        let mut aliases = OutboundAliases::new(1, &none());
        let mut peer = Peer::new();
        let mut topics = vec!["often/used/topic"; 9];
        topics.push("rarely/used");
        let bytes = send(&mut aliases, &mut peer, &topics.repeat(20));
        assert_eq!(bytes, 16 + 3 + 179 * 3 + 20 * 11);
    }

    #[test]
    fn an_alias_that_was_not_written_is_not_used() {
        let mut aliases = OutboundAliases::new(1, &none());
        let topic = TopicName::new("plant/7/valve");
        assert!(matches!(aliases.choose(&topic), Choice::Set(_)));
        assert!(matches!(aliases.choose(&topic), Choice::Set(_)));
    }

    #[test]
    fn hints_give_the_next_connection_its_aliases_at_once() {
        let mut aliases = OutboundAliases::new(2, &none());
        send(&mut aliases, &mut Peer::new(), &["plant/7/valve"; 10]);
        let hints = aliases.hints();
        let mut next = OutboundAliases::new(2, &hints);
        // Many topics that never come again would have spoiled the chances of a new one.
        next.firsts = 100;
        assert!(matches!(
            next.choose(&TopicName::new("another/topic")),
            Choice::Name
        ));
        assert!(matches!(
            next.choose(&TopicName::new("plant/7/valve")),
            Choice::Set(_)
        ));
    }
}
