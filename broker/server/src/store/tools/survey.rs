//! Reads a whole store and says what in it is not what was written.
//!
//! Every tag and every link of the journal's chain is checked; every row is understood; every queued delivery must have its
//! message. The result is the state after all that can be trusted, so that salvage builds on the same reading.
//!
//! A page of the journal is proven by its own tag, which covers the tag of the page before. If a page before is lost, the tag
//! cannot be checked; the page is then taken if all of it makes sense, and counted as unproven.

use super::report::{Damage, Report, TableCount};
use super::rows::{Read, Table};
use super::snapshot::Snapshot;
use crate::store::StoreError;
use crate::store::engine::{FORMAT, filter_key, page_records, page_tag, pair_key};
use crate::store::layout::{
    read_action, read_chunk, read_message, read_session, read_subscription,
};
use crate::store::tables::{
    BODIES, INBOUND, JOURNAL, META, QUEUES, RETAINED, SESSIONS, SUBSCRIPTIONS, StoreKey,
};
use motemq_codec::PacketId;
use motemq_core::{Action, Image, Message, QueueId, StoredRef};
use redb::TableHandle as _;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whether retained messages keep their payloads.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Payloads {
    /// To write them elsewhere.
    Kept,
    /// To count only.
    Dropped,
}

/// A store, read.
#[derive(Debug)]
pub(super) struct Survey {
    /// What is durable, as far as it can be read.
    pub(super) image: Image,
    /// The key of the tags, if it can be read.
    pub(super) key: Option<StoreKey>,
    /// As stored.
    pub(super) key_bytes: Option<[u8; 16]>,
    /// How often the store was opened.
    pub(super) boot: u32,
    /// The last position.
    pub(super) last: u64,
    /// Rows whose tag could not be checked.
    pub(super) unproven: u64,
    /// Pages of the journal that could be used, by first position.
    pub(super) pages: Vec<u64>,
    pub(super) report: Report,
    payloads: Payloads,
    folded: Option<(u64, u64)>,
    /// Positions in `bodies`, ascending.
    bodies: Vec<u64>,
    /// Positions of messages in the journal, ascending.
    journal_bodies: Vec<u64>,
    chain: Chain,
}

/// What the next page of the journal must follow from.
#[derive(Debug, Default)]
struct Chain {
    /// Tags that the page before may have had.
    previous: Vec<u64>,
    /// The position that comes next, if the page before could be read.
    next: Option<u64>,
    /// A page whose tag does not fit, and the tag that it should have had.
    doubtful: Option<(u64, Vec<u8>, u64)>,
}

impl Survey {
    /// Reads all of `snapshot`.
    ///
    /// # Errors
    /// When the work must end, or the store is of another format.
    pub(super) fn run(snapshot: &mut Snapshot, payloads: Payloads) -> Result<Self, StoreError> {
        let mut survey = Self {
            image: Image::default(),
            key: None,
            key_bytes: None,
            boot: 0,
            last: 0,
            unproven: 0,
            pages: Vec::new(),
            report: Report::default(),
            payloads,
            folded: None,
            bodies: Vec::new(),
            journal_bodies: Vec::new(),
            chain: Chain::default(),
        };
        survey.meta(snapshot)?;
        survey.sessions(snapshot)?;
        survey.queues(snapshot)?;
        survey.retained(snapshot)?;
        survey.bodies(snapshot)?;
        survey.journal(snapshot)?;
        survey.find_missing();
        survey.count();
        Ok(survey)
    }

    /// Whether the message at `position` can be read.
    pub(super) fn has_body(&self, position: u64) -> bool {
        self.bodies.binary_search(&position).is_ok()
            || self.journal_bodies.binary_search(&position).is_ok()
    }

    fn meta(&mut self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        let mut facts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let read = META_ROWS.read(snapshot, &mut |name, value| {
            facts.insert(name.to_owned(), value.to_vec());
        })?;
        self.take(META.name(), read);
        match facts
            .get("format")
            .map(|value| <[u8; 4]>::try_from(&**value))
        {
            Some(Ok(format)) if u32::from_le_bytes(format) != FORMAT => {
                return Err(StoreError::Format {
                    found: u32::from_le_bytes(format),
                    known: FORMAT,
                });
            }
            Some(Ok(_)) => {}
            _ => self.add(META.name(), "format", "it is missing or has another length"),
        }
        let key = facts
            .get("key")
            .and_then(|value| value.as_slice().try_into().ok());
        match key {
            Some(key) => {
                self.key_bytes = Some(key);
                self.key = Some(StoreKey::from_bytes(key));
            }
            None => self.add(
                META.name(),
                "key",
                "it is missing or has another length: no tag can be checked",
            ),
        }
        let fact = |name: &str| {
            let sealed = facts.get(name).map_or(&[][..], Vec::as_slice);
            let opened = self.open(META.name(), name.as_bytes(), sealed);
            opened.map(<[u8]>::to_vec)
        };
        let (boot, folded, next_queue) = (fact("boot"), fact("folded"), fact("next_queue"));
        match boot.map(<[u8; 4]>::try_from) {
            Some(Ok(boot)) => self.boot = u32::from_le_bytes(boot),
            _ => self.add(META.name(), "boot", WRONG_TAG),
        }
        match folded.as_deref().and_then(two_numbers) {
            Some(folded) => {
                self.last = folded.0;
                self.folded = Some(folded);
            }
            _ => self.add(META.name(), "folded", WRONG_TAG),
        }
        match next_queue.map(<[u8; 8]>::try_from) {
            Some(Ok(next)) => self.image.next_queue = u64::from_le_bytes(next),
            _ => self.add(META.name(), "next_queue", WRONG_TAG),
        }
        Ok(())
    }

    fn sessions(&mut self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        let read = SESSION_ROWS.read(snapshot, &mut |queue, sealed| {
            let key = queue.to_be_bytes();
            let row = self.row(SESSIONS.name(), &key, sealed, &queue, read_session);
            if let Some(row) = row {
                let next = row.queue.number() + 1;
                self.image.next_queue = self.image.next_queue.max(next);
                self.image.sessions.insert(row.queue, row);
            }
        })?;
        self.take(SESSIONS.name(), read);
        let read = SUBSCRIPTION_ROWS.read(snapshot, &mut |(queue, filter), sealed| {
            let key = filter_key(queue, filter);
            let shown = format!("{queue}, {filter}");
            let stored = self.row(SUBSCRIPTIONS.name(), &key, sealed, &shown, |bytes| {
                read_subscription(filter, bytes)
            });
            if let Some(stored) = stored {
                let queue = QueueId::from_u64(queue);
                let known = self.image.subscriptions.entry(queue).or_default();
                known.insert(stored.filter.clone(), stored);
            }
        })?;
        self.take(SUBSCRIPTIONS.name(), read);
        let read = INBOUND_ROWS.read(snapshot, &mut |(queue, id), sealed| {
            let key = pair_key(queue, id.into());
            let shown = format!("{queue}, {id}");
            let is_good = self.row(
                INBOUND.name(),
                &key,
                sealed,
                &shown,
                |_| Ok::<_, String>(()),
            );
            match PacketId::new(id) {
                Some(id) if is_good.is_some() => {
                    self.image.inbound.insert((QueueId::from_u64(queue), id));
                }
                Some(_) => {}
                None => self.add(INBOUND.name(), shown, "packet id 0"),
            }
        })?;
        self.take(INBOUND.name(), read);
        Ok(())
    }

    fn queues(&mut self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        let read = QUEUE_ROWS.read(snapshot, &mut |(queue, chunk), sealed| {
            let key = pair_key(queue, chunk);
            let shown = format!("{queue}, {chunk}");
            let refs = self.row(QUEUES.name(), &key, sealed, &shown, read_chunk);
            for stored in refs.into_iter().flatten() {
                let queue = self
                    .image
                    .queues
                    .entry(QueueId::from_u64(queue))
                    .or_default();
                queue.next_sequence = queue.next_sequence.max(stored.sequence + 1);
                queue.refs.insert(stored);
            }
        })?;
        self.take(QUEUES.name(), read);
        Ok(())
    }

    fn retained(&mut self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        let read = RETAINED_ROWS.read(snapshot, &mut |topic, sealed| {
            let kept = self.row(RETAINED.name(), topic.as_bytes(), sealed, &topic, |bytes| {
                let (position, message) = bytes.split_first_chunk().ok_or("too short")?;
                let message = read_message(message).map_err(|error| error.to_string())?;
                Ok::<_, String>((u64::from_le_bytes(*position), message))
            });
            if let Some((position, message)) = kept {
                let kept = (position, Arc::new(self.kept(message)));
                self.image.retained.insert(kept.1.topic.clone(), kept);
            }
        })?;
        self.take(RETAINED.name(), read);
        Ok(())
    }

    fn bodies(&mut self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        let read = BODY_ROWS.read(snapshot, &mut |position, sealed| {
            let key = position.to_be_bytes();
            let row = self.row(BODIES.name(), &key, sealed, &position, read_message);
            if row.is_some() {
                self.bodies.push(position);
            }
        })?;
        self.take(BODIES.name(), read);
        Ok(())
    }

    fn journal(&mut self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        self.chain.previous = self.folded.iter().map(|(_, tag)| *tag).collect();
        self.chain.next = self.folded.map(|(position, _)| position + 1);
        let read = JOURNAL_ROWS.read(snapshot, &mut |first, value| self.page(first, value))?;
        self.take(JOURNAL.name(), read);
        self.give_up_doubtful();
        Ok(())
    }

    fn page(&mut self, first: u64, value: &[u8]) {
        let name = JOURNAL.name();
        let Some((tag, page)) = value.split_first_chunk() else {
            self.add(name, first.to_string(), "too short");
            return;
        };
        if first > StoredRef::POSITION_MAX - page.len() as u64 {
            self.add(name, first.to_string(), "no journal comes so far");
            return;
        }
        let tag = u64::from_le_bytes(*tag);
        if let Some((_, _, should_be)) = self.chain.doubtful
            && self.is_link(should_be, first, page, tag)
        {
            // Only the tag of the page before is damaged: this page proves its content.
            if let Some((before, bytes, _)) = self.chain.doubtful.take() {
                self.add(
                    name,
                    before.to_string(),
                    "its tag is damaged, its content is not",
                );
                self.replay(before, &bytes);
            }
            self.chain.previous = vec![should_be];
        }
        self.give_up_doubtful();
        let is_gap = self.chain.next.is_some_and(|next| next != first);
        let is_proven = self
            .chain
            .previous
            .iter()
            .any(|previous| self.is_link(*previous, first, page, tag));
        if is_gap {
            let next = self.chain.next.unwrap_or_default();
            self.add(
                name,
                next.to_string(),
                format!("the pages before {first} are missing"),
            );
        }
        let is_provable = self.key.is_some() && !is_gap && !self.chain.previous.is_empty();
        if is_proven || !is_provable {
            self.unproven += u64::from(!is_proven);
            self.replay(first, page);
        } else {
            let should_be = self.chain.previous.first().zip(self.key);
            let should_be =
                should_be.and_then(|(previous, key)| page_tag(key, *previous, first, page));
            self.chain.doubtful = Some((first, page.to_vec(), should_be.unwrap_or(0)));
            self.chain.next = None;
        }
        self.chain.previous = vec![tag];
    }

    fn is_link(&self, previous: u64, first: u64, page: &[u8], tag: u64) -> bool {
        self.key
            .is_some_and(|key| page_tag(key, previous, first, page) == Some(tag))
    }

    fn give_up_doubtful(&mut self) {
        if let Some((first, ..)) = self.chain.doubtful.take() {
            let why = "the tag does not follow from the page before";
            self.add(JOURNAL.name(), first.to_string(), why);
        }
    }

    /// Applies a page.
    fn replay(&mut self, first: u64, page: &[u8]) {
        let mut position = first;
        for record in page_records(page) {
            let action = record.map(|record| read_action(record.action));
            let Some(Ok(action)) = action else {
                let why = match action {
                    Some(Err(error)) => error.to_string(),
                    _ => "the page ends within an action".to_owned(),
                };
                self.add(JOURNAL.name(), position.to_string(), why);
                self.chain.next = None;
                return;
            };
            let action = match action {
                Action::Publish(mut publish) => {
                    self.journal_bodies.push(position);
                    if self.payloads == Payloads::Dropped {
                        let message = Message::clone(&publish.message);
                        publish.message = Arc::new(self.kept(message));
                    }
                    Action::Publish(publish)
                }
                other => other,
            };
            self.image.apply(position, &action, &mut |_| ());
            position += 1;
        }
        self.pages.push(first);
        self.last = self.last.max(position.saturating_sub(1));
        self.chain.next = Some(position);
    }

    fn find_missing(&mut self) {
        let mut missing = Vec::new();
        for (queue, known) in &self.image.queues {
            let lost = known
                .refs
                .values()
                .filter(|stored| !self.has_body(stored.position));
            missing.extend(lost.map(|stored| (queue.as_u64(), stored.sequence, stored.position)));
        }
        for (queue, sequence, position) in missing {
            let key = format!("{queue}, {}, sequence {sequence}", sequence / 512);
            self.add(
                QUEUES.name(),
                key,
                format!("the message at {position} is missing"),
            );
        }
    }

    fn count(&mut self) {
        let image = &self.image;
        self.report.sessions = image.sessions.len() as u64;
        self.report.subscriptions = image
            .subscriptions
            .values()
            .map(|known| known.len() as u64)
            .sum();
        self.report.queued = image
            .queues
            .values()
            .map(|queue| queue.refs.len() as u64)
            .sum();
        self.report.retained = image.retained.len() as u64;
        self.report.position = self.last;
    }

    /// A row's value without its tag, understood by `read`.
    fn row<T, E: std::fmt::Display>(
        &mut self,
        table: &'static str,
        key: &[u8],
        sealed: &[u8],
        shown: &dyn std::fmt::Display,
        read: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Option<T> {
        let value = match self.open(table, key, sealed) {
            Some(value) => read(value).map_err(|error| error.to_string()),
            None => Err(WRONG_TAG.to_owned()),
        };
        self.unproven += u64::from(self.key.is_none());
        value
            .map_err(|why| self.add(table, shown.to_string(), why))
            .ok()
    }

    /// The value of a row; without the store's key nothing can be checked.
    fn open<'a>(&self, table: &'static str, key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
        match self.key {
            Some(store_key) => store_key.open(table, key, sealed).ok(),
            None => sealed.split_last_chunk::<8>().map(|(value, _)| value),
        }
    }

    fn kept(&self, mut message: Message) -> Message {
        if self.payloads == Payloads::Dropped {
            message.payload = Box::default();
        }
        message
    }

    fn take(&mut self, name: &str, read: Read) {
        self.report.tables.push(TableCount {
            name: name.to_owned(),
            rows: read.rows,
            bytes: read.bytes,
        });
        for damage in read.damage {
            self.report.add(damage);
        }
    }

    fn add(&mut self, table: &str, key: impl Into<String>, why: impl Into<String>) {
        self.report.add(Damage::new(table, key, why));
    }
}

fn two_numbers(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = bytes.split_first_chunk()?;
    Some((
        u64::from_le_bytes(*first),
        u64::from_le_bytes(second.try_into().ok()?),
    ))
}

const WRONG_TAG: &str = "the tag does not fit the value";

pub(super) const META_ROWS: Table<&str> = Table {
    definition: META,
    show: |name| (*name).to_owned(),
};
pub(super) const JOURNAL_ROWS: Table<u64> = Table {
    definition: JOURNAL,
    show: u64::to_string,
};
pub(super) const BODY_ROWS: Table<u64> = Table {
    definition: BODIES,
    show: u64::to_string,
};
pub(super) const QUEUE_ROWS: Table<(u64, u64)> = Table {
    definition: QUEUES,
    show: |(queue, chunk)| format!("{queue}, {chunk}"),
};
pub(super) const SESSION_ROWS: Table<u64> = Table {
    definition: SESSIONS,
    show: u64::to_string,
};
pub(super) const SUBSCRIPTION_ROWS: Table<(u64, &str)> = Table {
    definition: SUBSCRIPTIONS,
    show: |(queue, filter)| format!("{queue}, {filter}"),
};
pub(super) const INBOUND_ROWS: Table<(u64, u16)> = Table {
    definition: INBOUND,
    show: |(queue, id)| format!("{queue}, {id}"),
};
pub(super) const RETAINED_ROWS: Table<&str> = Table {
    definition: RETAINED,
    show: |topic| (*topic).to_owned(),
};
