//! Making and opening a store: tables, then the journal after them. Whatever is not what was written ends the start.

use super::{
    Engine, EngineOptions, FORMAT, Round, at, broken_chain, filter_key, page_records, page_tag,
    pair_key, sealed_meta,
};
use crate::store::StoreError;
use crate::store::layout::{
    read_action, read_chunk, read_message, read_session, read_subscription,
};
use crate::store::tables::{
    BODIES, INBOUND, JOURNAL, META, QUEUES, RETAINED, SESSIONS, SUBSCRIPTIONS, StoreKey,
};
use motemq_codec::PacketId;
use motemq_core::{Image, QueueId};
use redb::{Database, ReadableDatabase};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

impl Engine {
    /// Writes the facts of a new store.
    ///
    /// # Errors
    /// When redb fails.
    pub fn create(db: &Database, key: [u8; 16]) -> Result<(), StoreError> {
        let mut txn = db.begin_write()?;
        txn.set_two_phase_commit(true);
        {
            let mut meta = txn.open_table(META)?;
            meta.insert("format", FORMAT.to_le_bytes().as_slice())?;
            meta.insert("key", key.as_slice())?;
            let key = StoreKey::from_bytes(key);
            meta.insert("boot", sealed_meta(key, "boot", &[0; 4]).as_slice())?;
            meta.insert("folded", sealed_meta(key, "folded", &[0; 16]).as_slice())?;
            meta.insert(
                "next_queue",
                sealed_meta(key, "next_queue", &[0; 8]).as_slice(),
            )?;
            txn.open_table(JOURNAL)?;
            txn.open_table(BODIES)?;
            txn.open_table(QUEUES)?;
            txn.open_table(SESSIONS)?;
            txn.open_table(SUBSCRIPTIONS)?;
            txn.open_table(INBOUND)?;
            txn.open_table(RETAINED)?;
        }
        Ok(txn.commit()?)
    }

    /// Loads a store, and counts its starts.
    ///
    /// # Errors
    /// When redb fails, the format is a later one, or anything in the store is not what was written; the error names
    /// table and key. Nothing is ever left out.
    pub fn open(db: &Database, options: EngineOptions) -> Result<(Self, u32), StoreError> {
        let mut engine = Self::load(db, options)?;
        let boot = u32::from_le_bytes(meta_open(db, engine.key, "boot")?).wrapping_add(1);
        let mut txn = db.begin_write()?;
        txn.set_two_phase_commit(true);
        {
            let mut meta = txn.open_table(META)?;
            let value = sealed_meta(engine.key, "boot", &boot.to_le_bytes());
            meta.insert("boot", value.as_slice())?;
            let mut bodies = txn.open_table(BODIES)?;
            for position in engine.dead_bodies.drain(..) {
                bodies.remove(position)?;
            }
        }
        txn.commit()?;
        Ok((engine, boot))
    }

    /// Reads everything and changes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn load(db: &Database, options: EngineOptions) -> Result<Self, StoreError> {
        let format = u32::from_le_bytes(meta_array(db, "format")?);
        if format != FORMAT {
            return Err(StoreError::Format {
                found: format,
                known: FORMAT,
            });
        }
        let key = StoreKey::from_bytes(meta_array(db, "key")?);
        let folded = read_folded(db, key)?;
        let mut engine = Self {
            options,
            key,
            image: Image::default(),
            pages: VecDeque::new(),
            journal_bytes: 0,
            last: folded.0,
            chain: folded.1,
            folded,
            shared_bodies: HashMap::new(),
            dead_bodies: Vec::new(),
            chunks: HashSet::new(),
            moved: HashMap::new(),
            round: Round::default(),
            is_tight: false,
            is_eager: false,
        };
        engine.image.next_queue = u64::from_le_bytes(meta_open(db, key, "next_queue")?);
        engine.load_tables(db)?;
        engine.replay(db)?;
        engine.find_orphans(db)?;
        Ok(engine)
    }

    fn load_tables(&mut self, db: &Database) -> Result<(), StoreError> {
        let txn = db.begin_read()?;
        for row in txn.open_table(SESSIONS)?.range::<u64>(..)? {
            let (queue, sealed) = row?;
            let bytes = self
                .key
                .open("sessions", &queue.value().to_be_bytes(), sealed.value())?;
            let session = read_session(bytes).map_err(at("sessions", queue.value()))?;
            self.image.next_queue = self.image.next_queue.max(session.queue.number() + 1);
            self.image.sessions.insert(session.queue, session);
        }
        for row in txn.open_table(SUBSCRIPTIONS)?.range::<(u64, &str)>(..)? {
            let (place, sealed) = row?;
            let (queue, filter) = place.value();
            let bytes =
                self.key
                    .open("subscriptions", &filter_key(queue, filter), sealed.value())?;
            let stored = read_subscription(filter, bytes).map_err(at("subscriptions", filter))?;
            let known = self
                .image
                .subscriptions
                .entry(QueueId::from_u64(queue))
                .or_default();
            known.insert(stored.filter.clone(), stored);
        }
        for row in txn.open_table(QUEUES)?.range::<(u64, u64)>(..)? {
            let (place, sealed) = row?;
            let (queue, chunk) = place.value();
            let bytes = self
                .key
                .open("queues", &pair_key(queue, chunk), sealed.value())?;
            let refs = read_chunk(bytes).map_err(at("queues", format!("{queue}, {chunk}")))?;
            let known = self
                .image
                .queues
                .entry(QueueId::from_u64(queue))
                .or_default();
            for stored in refs {
                known.next_sequence = known.next_sequence.max(stored.sequence + 1);
                known.refs.insert(stored);
            }
            self.chunks.insert((queue, chunk));
        }
        for row in txn.open_table(INBOUND)?.range::<(u64, u16)>(..)? {
            let (place, sealed) = row?;
            let (queue, id) = place.value();
            self.key
                .open("inbound", &pair_key(queue, id.into()), sealed.value())?;
            let packet_id = PacketId::new(id).ok_or_else(|| StoreError::Corrupt {
                table: "inbound",
                key: format!("{queue}, {id}"),
                why: "packet id 0",
            })?;
            self.image
                .inbound
                .insert((QueueId::from_u64(queue), packet_id));
        }
        for row in txn.open_table(RETAINED)?.range::<&str>(..)? {
            let (topic, sealed) = row?;
            let bytes = self
                .key
                .open("retained", topic.value().as_bytes(), sealed.value())?;
            let (position, message) =
                bytes
                    .split_first_chunk()
                    .ok_or_else(|| StoreError::Corrupt {
                        table: "retained",
                        key: topic.value().to_owned(),
                        why: "too short",
                    })?;
            let message = read_message(message).map_err(at("retained", topic.value()))?;
            let position = u64::from_le_bytes(*position);
            let kept = (position, Arc::new(message));
            self.image.retained.insert(kept.1.topic.clone(), kept);
        }
        Ok(())
    }

    fn replay(&mut self, db: &Database) -> Result<(), StoreError> {
        let txn = db.begin_read()?;
        for row in txn.open_table(JOURNAL)?.range::<u64>(..)? {
            let (first, value) = row?;
            let (first, value) = (first.value(), value.value());
            let corrupt = |why| StoreError::Corrupt {
                table: "journal",
                key: first.to_string(),
                why,
            };
            if first != self.last + 1 {
                return Err(corrupt("a page before this one is missing"));
            }
            let (tag, page) = value
                .split_first_chunk()
                .ok_or_else(|| corrupt("too short"))?;
            let tag = u64::from_le_bytes(*tag);
            if Some(tag) != page_tag(self.key, self.chain, first, page) {
                return Err(broken_chain(first));
            }
            let mut count = 0;
            for record in page_records(page) {
                let record = record.ok_or_else(|| corrupt("the page ends within an action"))?;
                let action = read_action(record.action).map_err(at("journal", first))?;
                self.note_move(&action);
                self.image.apply(first + count, &action, &mut |_| ());
                count += 1;
            }
            self.push_page(first, count, value.len() as u64, tag);
        }
        Ok(())
    }

    /// Finds the bodies in `bodies` that several deliveries share, and those that none has.
    fn find_orphans(&mut self, db: &Database) -> Result<(), StoreError> {
        let folded = self.folded.0;
        let mut positions: Vec<u64> = self
            .image
            .queues
            .values()
            .flat_map(|queue| queue.refs.positions())
            .filter(|position| *position <= folded)
            .collect();
        positions.sort_unstable();
        for same in positions.chunk_by(|first, second| first == second) {
            if let (Some(position), Ok(live @ 2..)) = (same.first(), u32::try_from(same.len())) {
                self.shared_bodies.insert(*position, live);
            }
        }
        let txn = db.begin_read()?;
        for row in txn.open_table(BODIES)?.range::<u64>(..)? {
            let position = row?.0.value();
            if positions.binary_search(&position).is_err() {
                self.dead_bodies.push(position);
            }
        }
        Ok(())
    }
}

fn meta_array<const N: usize>(db: &Database, name: &'static str) -> Result<[u8; N], StoreError> {
    let corrupt = |why| StoreError::Corrupt {
        table: "meta",
        key: name.to_owned(),
        why,
    };
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let value = meta.get(name)?.ok_or_else(|| corrupt("it is missing"))?;
    value
        .value()
        .try_into()
        .map_err(|_| corrupt("it has another length"))
}

/// A value of `meta` that is sealed, as all but `format` and `key` are.
fn meta_open<const N: usize>(
    db: &Database,
    key: StoreKey,
    name: &'static str,
) -> Result<[u8; N], StoreError> {
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let sealed = meta.get(name)?;
    let sealed = sealed.as_ref().map_or(&[][..], |value| value.value());
    let value = key.open("meta", name.as_bytes(), sealed)?;
    value.try_into().map_err(|_| StoreError::Corrupt {
        table: "meta",
        key: name.to_owned(),
        why: "it has another length",
    })
}

/// The last position folded, and the tag of its page.
pub(super) fn read_folded(db: &Database, key: StoreKey) -> Result<(u64, u64), StoreError> {
    let folded: [u8; 16] = meta_open(db, key, "folded")?;
    let (position, tag) = folded.split_at(8);
    Ok((u64_of(position), u64_of(tag)))
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
