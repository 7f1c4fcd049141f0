//! What happened lately to clients and messages: one ring of events for all, the drop ledger among them.
//!
//! Invariants:
//! - Memory is bounded by `bytes_max` and taken only as events come; an uneventful client costs nothing here.
//! - A reader does not hold up who writes: it takes the chunks as they are and reads them without a lock.
//! - Everything that is not kept one by one is counted in an event ([`Pace`]).
//! - The lock is taken with no other one held, once for all that one run of a connection has lost.
//!
//! Does not know: clocks, who asks.

mod event;
mod loss;
mod pace;
mod ring;

pub use event::{ClientMatch, EventFilter, EventKind, HistoryEvent};
pub use loss::LossReason;
pub(crate) use loss::{Losses, Lost};
pub use ring::Snapshot;

use crate::counters::DropReason;
use crate::message::{ClientId, Message, TopicName};
use crate::sync::lock;
use crate::time::Timestamp;
use loss::Loss;
use pace::Pace;
use ring::Ring;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The events.
#[derive(Debug)]
pub struct History {
    is_on: AtomicBool,
    /// Events that were only counted.
    suppressed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    pace: Pace,
}

impl History {
    /// An empty history that holds so many bytes; with 0 there is none.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            is_on: AtomicBool::new(bytes_max > 0),
            suppressed: AtomicU64::new(0),
            state: Mutex::new(State {
                ring: Ring::new(bytes_max),
                pace: Pace::default(),
            }),
        }
    }

    /// Changes how many bytes it holds.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.is_on.store(bytes_max > 0, Ordering::Relaxed);
        let mut state = lock(&self.state);
        state.ring.set_bytes_max(bytes_max);
        if bytes_max == 0 {
            state.pace = Pace::default();
        }
    }

    /// Notes an event, or counts it when the client has caused too many within this second.
    pub fn note(&self, event: &HistoryEvent<'_>) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let mut state = lock(&self.state);
        self.turn(&mut state, event.at);
        // Who has no name yet is known by where it came from.
        let who = match event.client_id.is_empty() {
            true => event.peer,
            false => event.client_id,
        };
        if state
            .pace
            .admits(event.kind, who, event.reason, event.count)
        {
            state.ring.push(event);
        } else {
            self.suppress(event.count);
        }
    }

    /// Notes what was lost in one run. What comes back has its topics in the store, if anywhere.
    pub(crate) fn note_losses(
        self: &Arc<Self>,
        losses: Losses,
        now: Timestamp,
    ) -> Option<Obituary> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        let mut stored = Vec::new();
        let mut state = lock(&self.state);
        self.turn(&mut state, now);
        for loss in losses.list {
            if self.note_loss(&mut state, &loss, now) {
                stored.push(loss);
            }
        }
        if let Some((client, reason, count)) = &losses.more_of {
            let kept = state.pace.admits(
                EventKind::Suppressed,
                client.as_str(),
                reason.label(),
                *count,
            );
            if kept {
                state
                    .ring
                    .push(&suppressed(now, client.as_str(), reason.label(), *count));
            }
            self.suppress(*count);
        }
        if losses.more > 0 {
            state.pace.count_rest(losses.more);
            self.suppress(losses.more);
        }
        (!stored.is_empty()).then(|| Obituary {
            history: self.clone(),
            at: now,
            losses: stored,
        })
    }

    /// `true` when the loss is to be told once its topic is known.
    fn note_loss(&self, state: &mut State, loss: &Loss, now: Timestamp) -> bool {
        let reason = loss.reason.label();
        let client = loss.client.as_str();
        let topic = loss.topic.as_ref().map_or("", TopicName::as_str);
        let count = if loss.reason == LossReason::Dropped(DropReason::NoSubscriber) {
            match state.pace.note_unheard(client, topic, loss.count) {
                Some(count) => count,
                None => return false,
            }
        } else if state
            .pace
            .admits(EventKind::Dropped, client, reason, loss.count)
        {
            loss.count
        } else {
            self.suppress(loss.count);
            return false;
        };
        if loss.position.is_some() {
            return true;
        }
        state.ring.push(&HistoryEvent {
            topic,
            qos: loss.qos,
            publisher: loss.publisher.as_ref().map_or("", ClientId::as_str),
            detail: &loss.detail,
            count,
            ..HistoryEvent::new(now, EventKind::Dropped, client, reason)
        });
        false
    }

    fn suppress(&self, count: u32) {
        self.suppressed.fetch_add(count.into(), Ordering::Relaxed);
    }

    /// Writes what was left out in a second that is over.
    fn turn(&self, state: &mut State, now: Timestamp) {
        let Some((at, left_out)) = state.pace.turn(now) else {
            return;
        };
        for left in left_out {
            state
                .ring
                .push(&suppressed(at, &left.client, &left.reason, left.count));
        }
    }

    /// The events of this moment.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let mut state = lock(&self.state);
        self.turn(&mut state, now);
        state.ring.snapshot()
    }

    /// The time of the latest event, for what happens without one.
    pub(crate) fn latest(&self) -> Timestamp {
        lock(&self.state).ring.latest()
    }

    /// What the events cost in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        lock(&self.state).ring.bytes()
    }

    /// Events that were only counted, since the start.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }
}

/// Losses of messages of which only the store knows what they were.
#[derive(Debug)]
pub(crate) struct Obituary {
    history: Arc<History>,
    at: Timestamp,
    losses: Vec<Loss>,
}

impl Obituary {
    /// What to ask the store for: a number of our own, and the position.
    pub(crate) fn wanted(&self) -> Vec<(u64, u64)> {
        let positions = self.losses.iter().map(|loss| loss.position.unwrap_or(0));
        (0..).zip(positions).collect()
    }

    /// Tells of the losses with what the store still knew.
    pub(crate) fn write(self, bodies: Vec<(u64, Option<Arc<Message>>)>) {
        let mut state = lock(&self.history.state);
        let bodies = bodies
            .into_iter()
            .map(|(_, body)| body)
            .chain(std::iter::repeat(None));
        for (loss, body) in self.losses.iter().zip(bodies) {
            let (client, reason) = (loss.client.as_str(), loss.reason.label());
            let body = body.as_deref();
            state.ring.push(&HistoryEvent {
                topic: body.map_or("", |message| message.topic.as_str()),
                qos: loss.qos,
                publisher: body.map_or("", |message| message.publisher.as_str()),
                detail: &loss.detail,
                count: loss.count,
                ..HistoryEvent::new(self.at, EventKind::Dropped, client, reason)
            });
        }
    }
}

fn suppressed<'a>(at: Timestamp, client: &'a str, reason: &'a str, count: u32) -> HistoryEvent<'a> {
    HistoryEvent {
        count,
        ..HistoryEvent::new(at, EventKind::Suppressed, client, reason)
    }
}

/// The bytes of a history unless somebody says otherwise.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::DropReason;
    use motemq_codec::QoS;

    const NOW: Timestamp = Timestamp::from_ms(10_000);

    fn all(history: &History, now: Timestamp) -> Vec<(EventKind, String, String, String, u32)> {
        let snapshot = history.snapshot(now);
        let filter = EventFilter::default();
        let told = snapshot.latest_first(&filter).map(|event| {
            let texts = [event.client_id, event.reason, event.topic];
            let [client, reason, topic] = texts.map(str::to_owned);
            (event.kind, client, reason, topic, event.count)
        });
        told.collect()
    }

    #[test]
    fn losses_that_repeat_are_one_event_with_a_count() {
        let history = Arc::new(History::new(1 << 20));
        let mut losses = Losses::default();
        let reason = LossReason::Dropped(DropReason::QueueFull);
        let client = ClientId::new("c");
        for topic in ["a", "a", "a", "b"] {
            let message = Message::sample(topic);
            losses.note(
                reason,
                &client,
                Lost::Message(&message),
                QoS::AtLeastOnce,
                "",
            );
        }
        assert!(history.note_losses(losses, NOW).is_none());
        let told: Vec<_> = all(&history, NOW)
            .into_iter()
            .map(|(_, _, _, topic, count)| (topic, count))
            .collect();
        assert_eq!(told, [("b".to_owned(), 1), ("a".to_owned(), 3)]);
    }

    #[test]
    fn what_is_left_out_is_told_when_the_second_is_over() {
        let history = Arc::new(History::new(1 << 20));
        let client = ClientId::new("c");
        for number in 0..100 {
            let mut losses = Losses::default();
            let message = Message::sample(&format!("t/{number}"));
            let reason = LossReason::Dropped(DropReason::Expired);
            losses.note(
                reason,
                &client,
                Lost::Message(&message),
                QoS::AtLeastOnce,
                "",
            );
            assert!(history.note_losses(losses, NOW).is_none());
        }
        assert_eq!(all(&history, NOW).len(), 8);
        let told = all(&history, NOW + std::time::Duration::from_secs(1));
        let rest = (
            EventKind::Suppressed,
            "c".to_owned(),
            "expired".to_owned(),
            String::new(),
            92,
        );
        assert_eq!(told.first(), Some(&rest));
        assert_eq!((told.len(), history.suppressed()), (9, 92));
    }

    #[test]
    fn a_run_that_loses_without_end_takes_bounded_memory() {
        let mut losses = Losses::default();
        let client = ClientId::new("c");
        for number in 0..100_000 {
            let topic = format!("t/{}", number % 2);
            let message = Message::sample(&topic);
            let reason = LossReason::Dropped(DropReason::QueueFull);
            losses.note(
                reason,
                &client,
                Lost::Message(&message),
                QoS::AtLeastOnce,
                "",
            );
            let reason = LossReason::Dropped(DropReason::RateExceeded);
            losses.note_own(reason, &client, &topic, QoS::AtMostOnce, || "".into());
        }
        assert!(losses.list.len() <= 1100, "{}", losses.list.len());
        let history = Arc::new(History::new(1 << 20));
        assert!(history.note_losses(losses, NOW).is_none());
        let told = all(&history, NOW + std::time::Duration::from_secs(1));
        let counted: u32 = told.iter().map(|(.., count)| count).sum();
        assert_eq!(counted, 200_000, "nothing goes uncounted");
    }

    #[test]
    fn without_room_there_is_no_history() {
        let history = History::new(0);
        let event = HistoryEvent::new(NOW, EventKind::Connected, "c", "");
        history.note(&event);
        assert_eq!((all(&history, NOW), history.bytes()), (vec![], 0));
        history.set_bytes_max(1 << 16);
        history.note(&event);
        assert_eq!(all(&history, NOW).len(), 1);
    }
}
