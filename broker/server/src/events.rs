//! What happened, as tools and people are told: the events that a question is after, and what a loss means.
//!
//! Promises: a page goes on where the last one ended, whatever came since; every reason has words and, where one decides, the key.
//!
//! Does not know: how a question travels.

use crate::clock;
use motemq_codec::TopicFilter;
use motemq_core::{
    ClientMatch, EventFilter, EventKind, History, HistoryEvent, LossReason, Timestamp,
};
use serde::{Deserialize, Serialize};

/// Which events somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventQuery {
    /// Clients, `*` is any text and `?` any character; of lost messages also their publishers.
    pub client: Option<String>,
    /// A filter that the topic of a message matches.
    pub topic: Option<String>,
    /// A kind, or some with commas between.
    pub kind: Option<String>,
    /// A reason.
    pub reason: Option<String>,
    /// Not before, Unix time in milliseconds.
    pub since_ms: Option<u64>,
    /// At most so many; 100 unless said, 1000 at most.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventQueryError {
    /// `topic` is no filter.
    #[error(
        "topic is not a topic filter: {0}; `+` and `#` stand for whole levels, as in home/+/power"
    )]
    Topic(String),
    /// There is no such kind.
    #[error(
        "there is no kind {0}: connected, disconnected, refused, takeover, dropped or suppressed"
    )]
    Kind(String),
    /// `after` is not from a page.
    #[error("after must be the `next` of a page")]
    After,
}

/// An event. What does not apply is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventItem {
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
    /// connected, disconnected, refused, takeover, dropped, suppressed.
    pub kind: String,
    /// Whom it happened to.
    pub client_id: String,
    /// Why.
    pub reason: String,
    /// Of a message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub topic: Option<String>,
    /// Of a message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub qos: Option<u8>,
    /// Who published it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub publisher: Option<String>,
    /// Where the client came from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer: Option<String>,
    /// More, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// How many times.
    pub count: u32,
}

/// Some events, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// The events.
    pub items: Vec<EventItem>,
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
}

impl From<HistoryEvent<'_>> for EventItem {
    fn from(event: HistoryEvent<'_>) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            at_ms: event.at.as_ms(),
            kind: event.kind.label().to_owned(),
            client_id: event.client_id.to_owned(),
            reason: event.reason.to_owned(),
            topic: some(event.topic),
            qos: event.qos.map(|qos| qos as u8),
            publisher: some(event.publisher),
            peer: some(event.peer),
            detail: some(event.detail),
            count: event.count,
        }
    }
}

/// Answers a question. It may look at everything that is kept: some milliseconds of work.
///
/// # Errors
/// When the question makes no sense.
pub fn find(history: &History, query: &EventQuery) -> Result<EventPage, EventQueryError> {
    let topic = query.topic.as_deref().map(|topic| {
        TopicFilter::parse(topic).map_err(|error| EventQueryError::Topic(error.to_string()))
    });
    let kinds = query.kind.iter().flat_map(|kinds| kinds.split(','));
    let kinds = kinds.map(|kind| {
        EventKind::from_label(kind).ok_or_else(|| EventQueryError::Kind(kind.to_owned()))
    });
    let kinds: Vec<_> = kinds.collect::<Result<_, _>>()?;
    let before = query.after.as_deref().map(str::parse).transpose();
    let filter = EventFilter {
        client: query
            .client
            .as_deref()
            .map_or(ClientMatch::Any, ClientMatch::Glob),
        topic: topic.transpose()?,
        kinds: &kinds,
        reason: query.reason.as_deref(),
        since: query.since_ms.map(Timestamp::from_ms),
        before: before.map_err(|_| EventQueryError::After)?,
    };
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    Ok(page(history, &filter, limit))
}

/// The latest events of one client.
#[must_use]
pub fn of_client(history: &History, client_id: &str, limit: usize) -> Vec<EventItem> {
    let filter = EventFilter {
        client: ClientMatch::Exactly(client_id),
        ..EventFilter::default()
    };
    page(history, &filter, limit).items
}

fn page(history: &History, filter: &EventFilter<'_>, limit: usize) -> EventPage {
    let snapshot = history.snapshot(clock::now());
    let mut last = None;
    let found = snapshot.latest_first(filter).take(limit);
    let items: Vec<_> = found
        .inspect(|event| last = Some(event.number))
        .map(EventItem::from)
        .collect();
    let is_full = items.len() == limit;
    EventPage {
        items,
        next: last.filter(|_| is_full).map(|number| number.to_string()),
    }
}

/// What a reason of the ledger means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What happened to the message.
    pub what: &'static str,
    /// What would change it.
    pub key: &'static str,
}

/// What `reason` means, if it is one of the ledger.
#[must_use]
pub fn meaning(reason: &str) -> Option<Meaning> {
    let known = LossReason::all();
    let known = known.into_iter().find(|known| known.label() == reason)?;
    let (what, key) = match known.label() {
        "queue_full" => (
            "the queue of the client was full",
            "limits.queue_messages_max, limits.queue_bytes_max, limits.queue_full",
        ),
        "slow_reader" => (
            "the client takes less than it is sent, and its queue for QoS 0 was full",
            "limits.queue_messages_max, limits.queue_bytes_max; QoS 1, which waits for the client; or fewer subscriptions",
        ),
        "expired" => (
            "it expired before the client could have it",
            "the publisher's message expiry interval",
        ),
        "too_large" => (
            "it is larger than the client takes",
            "the client's own maximum packet size",
        ),
        "qos0_offline" => (
            "the client was away, and QoS 0 does not wait",
            "publish and subscribe with QoS 1",
        ),
        "rejected" => (
            "the client refused it with an error code",
            "the client: its log says why",
        ),
        "unreadable" => (
            "the store could not give its body back",
            "the store: motemq store check",
        ),
        "not_authorized" => (
            "the access rules do not let the client have it",
            "auth.acl_file: what the client may subscribe to (motemq acl test)",
        ),
        "rate_exceeded" => (
            "QoS 0, and its publisher is faster than it may be",
            "limits.publish_rate_max, limits.publish_bytes_rate_max, those of the listener or identity, limits.publish_rate_full",
        ),
        "memory_full" => (
            "QoS 0, and the broker's memory was nearly used up",
            "limits.memory_bytes_max",
        ),
        "no_subscriber" => ("no subscription matches its topic", "a subscription"),
        "publish_denied" => (
            "the access rules do not let its publisher send it",
            "auth.acl_file: what the publisher may publish (motemq acl test)",
        ),
        "publish_refused" => ("it was refused to its publisher", "what the detail says"),
        "session_ended" => (
            "it waited in a session that has ended",
            "the client's session expiry, limits.session_expiry_max_s",
        ),
        _ => return None,
    };
    Some(Meaning { what, key })
}

/// Events of a page, unless somebody says otherwise.
const LIMIT: usize = 100;
/// Events of a page at most.
pub(crate) const LIMIT_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let history = History::new(1 << 20);
        for number in 0..6_u64 {
            let client = format!("meter-{number}");
            let at = Timestamp::from_ms(1000 * number);
            history.note(&HistoryEvent {
                topic: "home/power",
                ..HistoryEvent::new(at, EventKind::Dropped, &client, "expired")
            });
        }
        history
    }

    #[test]
    fn every_reason_of_the_ledger_has_words() {
        for reason in LossReason::all() {
            assert!(meaning(reason.label()).is_some(), "{}", reason.label());
        }
        assert_eq!(meaning("moon"), None);
    }

    #[test]
    fn pages_follow_each_other_and_the_last_has_no_next() {
        let history = history();
        let mut query = EventQuery {
            limit: Some(4),
            topic: Some("home/#".to_owned()),
            ..EventQuery::default()
        };
        let first = find(&history, &query).unwrap();
        assert_eq!(first.items.len(), 4);
        assert_eq!(first.items[0].client_id, "meter-5");
        query.after = first.next;
        let second = find(&history, &query).unwrap();
        assert_eq!((second.items.len(), second.next), (2, None));
    }

    #[test]
    fn a_question_that_makes_no_sense_says_what_would() {
        let history = history();
        let topic = EventQuery {
            topic: Some("a/#/b".to_owned()),
            ..EventQuery::default()
        };
        let kind = EventQuery {
            kind: Some("lost".to_owned()),
            ..EventQuery::default()
        };
        let after = EventQuery {
            after: Some("x".to_owned()),
            ..EventQuery::default()
        };
        for (query, hint) in [(topic, "home/+/power"), (kind, "dropped"), (after, "next")] {
            let error = find(&history, &query).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}
