//! How many events are kept one by one, so that a flood, of one client or of all, does not wash everything else away.
//!
//! Invariants: nothing is left out that is not counted in a `suppressed` event of the same second, but repetitions of "no subscriber",
//! which the next such event counts. Tables are bounded, and emptied every second. Does not know: the ring.

use super::event::EventKind;
use crate::counters::DropReason;
use crate::time::Timestamp;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::hash::BuildHasher;

/// What an event counts as.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Class {
    /// Losses of messages.
    Loss,
    /// Connections that come and go.
    Life,
    /// What strangers can cause.
    Refusal,
}

impl Class {
    const fn of(kind: EventKind) -> Self {
        match kind {
            EventKind::Dropped | EventKind::Suppressed => Self::Loss,
            EventKind::Connected | EventKind::Disconnected | EventKind::Takeover => Self::Life,
            EventKind::Refused => Self::Refusal,
        }
    }

    /// Events a second, of all clients together.
    const fn per_second(self) -> u32 {
        match self {
            Self::Loss => LOSSES_PER_SECOND,
            Self::Life => LIVES_PER_SECOND,
            Self::Refusal => REFUSALS_PER_SECOND,
        }
    }
}

/// What one client has caused in this second.
#[derive(Debug, Default)]
struct Row {
    losses: u32,
    others: u32,
    suppressed: Option<Box<Suppressed>>,
}

/// Events that were left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Suppressed {
    /// Empty where it is of many.
    pub(super) client: Box<str>,
    /// Of the first.
    pub(super) reason: Box<str>,
    pub(super) count: u32,
}

/// Messages of one client to one topic that nobody subscribes to.
#[derive(Copy, Clone, Debug)]
struct Unheard {
    since_s: u64,
    /// Since the event about it.
    count: u32,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    second: u64,
    clients: HashMap<u64, Row, RandomState>,
    /// Events of this second by class.
    all: [u32; 3],
    /// What was left out and belongs to no row.
    rest: Suppressed,
    unheard: HashMap<u64, Unheard, RandomState>,
    unheard_swept_at_s: u64,
    hasher: RandomState,
}

impl Pace {
    /// Begins a new second, if there is one; what was left out in the one before, and when that ended.
    pub(super) fn turn(&mut self, now: Timestamp) -> Option<(Timestamp, Vec<Suppressed>)> {
        let second = now.as_ms() / 1000;
        // Runs of different threads come with slightly different times.
        if second <= self.second {
            return None;
        }
        let ended_at = Timestamp::from_ms(self.second * 1000 + 999);
        self.second = second;
        self.all = [0; 3];
        let rows = self.clients.drain().filter_map(|(_, row)| row.suppressed);
        let mut suppressed: Vec<_> = rows.map(|suppressed| *suppressed).collect();
        if self.rest.count > 0 {
            suppressed.push(std::mem::take(&mut self.rest));
        }
        if self.clients.capacity() > ROWS_KEPT {
            self.clients = HashMap::default();
        }
        Some((ended_at, suppressed))
    }

    /// Whether an event about this client is kept; else it is counted.
    pub(super) fn admits(
        &mut self,
        kind: EventKind,
        client: &str,
        reason: &str,
        count: u32,
    ) -> bool {
        let class = Class::of(kind);
        let hash = self.hasher.hash_one(client);
        let is_room = self.clients.len() < ROWS_MAX || self.clients.contains_key(&hash);
        let row = is_room.then(|| self.clients.entry(hash).or_default());
        let all = self.all.get_mut(class as usize);
        let Some((row, all)) = row.zip(all) else {
            self.rest.count = self.rest.count.saturating_add(count);
            return false;
        };
        let of_client = match class {
            Class::Loss => &mut row.losses,
            Class::Life | Class::Refusal => &mut row.others,
        };
        if *of_client < CLIENT_PER_SECOND && *all < class.per_second() {
            *of_client += 1;
            *all += 1;
            return true;
        }
        let suppressed = row.suppressed.get_or_insert_with(|| {
            Box::new(Suppressed {
                client: super::event::cut(client).into(),
                reason: reason.into(),
                count: 0,
            })
        });
        suppressed.count = suppressed.count.saturating_add(count);
        false
    }

    /// Counts what nobody can be named for.
    pub(super) fn count_rest(&mut self, count: u32) {
        self.rest.count = self.rest.count.saturating_add(count);
    }

    /// Counts messages of a client to a topic that nobody subscribes to: how many an event is to speak of now, or `None` when
    /// there was one within [`UNHEARD_S`] or the client has caused too many.
    pub(super) fn note_unheard(&mut self, client: &str, topic: &str, count: u32) -> Option<u32> {
        let hash = self.hasher.hash_one((client, topic));
        let (reason, second) = (DropReason::NoSubscriber.label(), self.second);
        if let Some(known) = self.unheard.get_mut(&hash) {
            known.count = known.count.saturating_add(count);
            if known.since_s + UNHEARD_S > second {
                return None;
            }
            let count = std::mem::take(&mut known.count);
            known.since_s = second;
            let is_kept = self.admits(EventKind::Dropped, client, reason, count);
            return is_kept.then_some(count);
        }
        if !self.admits(EventKind::Dropped, client, reason, count) {
            return None;
        }
        if self.unheard.len() >= UNHEARD_MAX && self.unheard_swept_at_s != second {
            self.unheard_swept_at_s = second;
            self.unheard
                .retain(|_, known| known.since_s + UNHEARD_S > second);
        }
        if self.unheard.len() < UNHEARD_MAX {
            let known = Unheard {
                since_s: second,
                count: 0,
            };
            self.unheard.insert(hash, known);
        }
        Some(count)
    }
}

/// Events of one client that are kept one by one in a second: losses, and the same of all others.
const CLIENT_PER_SECOND: u32 = 8;
/// Losses of all clients that are kept in a second.
const LOSSES_PER_SECOND: u32 = 2_000;
/// Connections that come, go or are taken over, in a second.
const LIVES_PER_SECOND: u32 = 10_000;
/// Refusals in a second.
const REFUSALS_PER_SECOND: u32 = 200;
/// Clients that are told apart within a second.
const ROWS_MAX: usize = 16_384;
/// Places for them that are kept when it is over.
const ROWS_KEPT: usize = 1_024;
/// How long an event about a topic without subscriber stands for those that follow, seconds.
const UNHEARD_S: u64 = 60;
/// Clients and topics for which that is known; 16 bytes each.
const UNHEARD_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(pace: &mut Pace, client: &str) -> bool {
        pace.admits(EventKind::Dropped, client, "queue_full", 1)
    }

    #[test]
    fn a_flooded_client_has_a_few_events_a_second_and_the_rest_is_counted() {
        let mut pace = Pace::default();
        pace.turn(Timestamp::from_ms(5_000));
        let admitted = (0..1000).filter(|_| admits(&mut pace, "a")).count();
        assert_eq!(admitted, CLIENT_PER_SECOND as usize);
        assert!(admits(&mut pace, "b"), "others are not held back by it");
        assert_eq!(pace.turn(Timestamp::from_ms(5_999)), None);
        let (at, suppressed) = pace.turn(Timestamp::from_ms(6_000)).unwrap();
        let of_a = Suppressed {
            client: "a".into(),
            reason: "queue_full".into(),
            count: 1000 - CLIENT_PER_SECOND,
        };
        assert_eq!((at.as_ms(), suppressed), (5_999, vec![of_a]));
        assert!(admits(&mut pace, "a"));
    }

    #[test]
    fn all_together_have_a_bound_too_and_nothing_goes_uncounted() {
        let mut pace = Pace::default();
        pace.turn(Timestamp::from_ms(1_000));
        let clients: Vec<_> = (0..40_000).map(|number| number.to_string()).collect();
        let admitted = clients
            .iter()
            .filter(|client| admits(&mut pace, client))
            .count();
        assert_eq!(admitted, LOSSES_PER_SECOND as usize);
        assert!(pace.clients.len() <= ROWS_MAX);
        let (_, suppressed) = pace.turn(Timestamp::from_ms(2_000)).unwrap();
        let counted: u32 = suppressed.iter().map(|suppressed| suppressed.count).sum();
        assert_eq!(counted as usize + admitted, clients.len());
    }

    #[test]
    fn strangers_do_not_use_up_the_events_of_losses() {
        let mut pace = Pace::default();
        pace.turn(Timestamp::from_ms(1_000));
        for number in 0..2 * REFUSALS_PER_SECOND {
            pace.admits(EventKind::Refused, &number.to_string(), "timeout", 1);
        }
        assert!(admits(&mut pace, "a"));
    }

    #[test]
    fn a_topic_without_subscriber_is_one_event_a_minute_for_each_publisher() {
        let mut pace = Pace::default();
        let mut heard = Vec::new();
        for second in 1..=150 {
            pace.turn(Timestamp::from_ms(second * 1000));
            heard.extend(pace.note_unheard("a", "t", 10));
        }
        assert_eq!(heard, [10, 600, 600]);
        assert_eq!(pace.note_unheard("a", "other", 1), Some(1));
        assert_eq!(pace.note_unheard("b", "t", 1), Some(1));
    }

    #[test]
    fn a_fleet_without_subscriber_takes_bounded_memory() {
        let mut pace = Pace::default();
        for second in 1..=60 {
            pace.turn(Timestamp::from_ms(second * 1000));
            for number in 0..5_000 {
                let client = (second * 5_000 + number).to_string();
                pace.note_unheard(&client, "t", 1);
            }
        }
        assert!(pace.unheard.len() <= UNHEARD_MAX);
        pace.turn(Timestamp::from_ms(1_000_000));
        for number in 0..2_000 {
            pace.note_unheard(&number.to_string(), "t", 1);
        }
        assert!(pace.unheard.len() <= UNHEARD_MAX);
    }
}
