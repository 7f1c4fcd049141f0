//! What was sent, acknowledged and received, and whether it adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Messages of one publisher at one QoS: a topic of their own, numbered from 0.
pub(super) type Stream = (u64, u8);

/// The ledger; shared by all clients.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    sent: u64,
    refused: u64,
    acknowledged: BTreeMap<Stream, BTreeSet<u64>>,
    /// By subscriber and stream.
    receipts: BTreeMap<(u64, Stream), Receipts>,
    subscribers: u64,
    received: u64,
    duplicates: u64,
    redelivered: u64,
    reordered: u64,
    altered: u64,
    wrong_session: u64,
    connections: u64,
    stories: Vec<String>,
}

#[derive(Debug, Default)]
struct Receipts {
    seen: BTreeSet<u64>,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Kills.
    pub kills: u32,
    /// Of them, during a recovery.
    pub kills_in_recovery: u32,
    /// Messages sent.
    pub sent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages refused with a reason code.
    pub refused: u64,
    /// Receipts, over all subscribers.
    pub received: u64,
    /// Acknowledged messages that a subscriber never received.
    pub lost: u64,
    /// QoS 2 messages received again.
    pub duplicates: u64,
    /// QoS 1 messages received again, which is allowed.
    pub redelivered: u64,
    /// Messages first received after a later one of their stream.
    pub reordered: u64,
    /// Payloads other than sent.
    pub altered: u64,
    /// CONNACKs with session present 0 for a known session.
    pub wrong_session: u64,
    /// CONNACKs.
    pub connections: u64,
    /// Publishers that could not finish.
    pub unfinished: u64,
    /// The first findings.
    pub stories: Vec<String>,
}

impl Verdict {
    /// Whether the broker kept its promise.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicates + self.reordered + self.altered + self.wrong_session == 0
            && self.unfinished == 0
            && self.acknowledged > 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills ({} during recovery), {} connections, {} sent, {} acknowledged, {} received ({} again at QoS 1): {} \
             lost, {} QoS 2 duplicates, {} reordered, {} altered, {} sessions missing, {} refused, {} publishers stuck",
            self.kills,
            self.kills_in_recovery,
            self.connections,
            self.sent,
            self.acknowledged,
            self.received,
            self.redelivered,
            self.lost,
            self.duplicates,
            self.reordered,
            self.altered,
            self.wrong_session,
            self.refused,
            self.unfinished
        )
    }
}

impl Ledger {
    pub(super) fn add_subscriber(&self) {
        self.lock().subscribers += 1;
    }

    pub(super) fn send(&self) {
        self.lock().sent += 1;
    }

    pub(super) fn acknowledge(&self, stream: Stream, number: u64) {
        self.lock()
            .acknowledged
            .entry(stream)
            .or_default()
            .insert(number);
    }

    pub(super) fn refuse(&self, story: String) {
        let mut books = self.lock();
        books.refused += 1;
        books.tell(story);
    }

    /// A CONNACK; `is_known` when an earlier one had established the session.
    pub(super) fn connect(&self, client: &str, is_known: bool, is_present: bool) {
        let mut books = self.lock();
        books.connections += 1;
        if is_known && !is_present {
            books.wrong_session += 1;
            books.tell(format!("{client}: session present 0 for a known session"));
        }
    }

    pub(super) fn receive(
        &self,
        subscriber: u64,
        topic: &str,
        payload: &[u8],
        is_exactly_once: bool,
        dup: bool,
    ) {
        let mut books = self.lock();
        books.received += 1;
        let Some((stream, number)) = parse(topic, payload) else {
            books.altered += 1;
            books.tell(format!(
                "subscriber {subscriber}: strange payload on {topic}"
            ));
            return;
        };
        let receipts = books.receipts.entry((subscriber, stream)).or_default();
        let newest = receipts.seen.last().copied();
        let is_new = receipts.seen.insert(number);
        if !is_new && is_exactly_once {
            books.duplicates += 1;
            books.tell(format!(
                "subscriber {subscriber}: {stream:?} number {number} again at QoS 2 (dup {dup}), newest {newest:?}"
            ));
        } else if !is_new {
            books.redelivered += 1;
        } else if newest.is_some_and(|newest| newest > number) {
            books.reordered += 1;
            books.tell(format!(
                "subscriber {subscriber}: {stream:?} number {number} after {newest:?} (dup {dup})"
            ));
        }
    }

    /// Receipts so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.lock().received
    }

    /// How it stands.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let books = self.lock();
        let mut lost = 0;
        let mut stories = books.stories.clone();
        for subscriber in 0..books.subscribers {
            for (stream, acknowledged) in &books.acknowledged {
                let receipts = books.receipts.get(&(subscriber, *stream));
                let missing: Vec<_> = acknowledged
                    .iter()
                    .filter(|number| {
                        receipts.is_none_or(|receipts| !receipts.seen.contains(number))
                    })
                    .collect();
                lost += missing.len() as u64;
                if !missing.is_empty() && stories.len() < STORIES_MAX {
                    let first = &missing[..missing.len().min(5)];
                    stories.push(format!(
                        "subscriber {subscriber}: {stream:?} lacks {} from {first:?} of {}",
                        missing.len(),
                        acknowledged.len()
                    ));
                }
            }
        }
        Verdict {
            sent: books.sent,
            acknowledged: books
                .acknowledged
                .values()
                .map(|numbers| numbers.len() as u64)
                .sum(),
            refused: books.refused,
            received: books.received,
            lost,
            duplicates: books.duplicates,
            redelivered: books.redelivered,
            reordered: books.reordered,
            altered: books.altered,
            wrong_session: books.wrong_session,
            connections: books.connections,
            stories,
            ..Verdict::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn tell(&mut self, story: String) {
        if self.stories.len() < STORIES_MAX {
            self.stories.push(story);
        }
    }
}

pub(super) fn topic(stream: Stream) -> String {
    format!("ledger/{}/{}", stream.0, stream.1)
}

/// The number, and bytes that follow from it; one in 50 is large.
pub(super) fn payload(number: u64) -> Vec<u8> {
    let length = if number % 50 == 7 {
        20_000
    } else {
        number * 37 % 400
    };
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((0..length).map(|at| (at + number) as u8));
    bytes
}

fn parse(topic: &str, bytes: &[u8]) -> Option<(Stream, u64)> {
    let (publisher, qos) = topic.strip_prefix("ledger/")?.split_once('/')?;
    let number = u64::from_be_bytes(*bytes.first_chunk()?);
    (payload(number) == bytes).then_some(((publisher.parse().ok()?, qos.parse().ok()?), number))
}

const STORIES_MAX: usize = 20;
