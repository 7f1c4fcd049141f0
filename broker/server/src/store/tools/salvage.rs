//! What is readable of a damaged store, as a new store.
//!
//! Only rows whose tags prove them are taken (all that make sense, where the store's key itself is lost). A queued delivery
//! whose message is lost is left out; everything left out is reported by table and key. What a client acknowledged in a lost
//! page of the journal is delivered again: salvage prefers twice to never.

use super::copy::{NewFile, refuse_existing, unfinished};
use super::replace::verify;
use super::snapshot::Snapshot;
use super::survey::{BODY_ROWS, JOURNAL_ROWS, Payloads, Survey};
use super::{Report, ToolError};
use crate::store::StoreError;
use crate::store::engine::{CHUNK, Engine, filter_key, page_records, pair_key, sealed_meta};
use crate::store::layout::{
    read_action_message, write_chunk, write_message, write_session, write_subscription,
};
use crate::store::tables::{
    BODIES, INBOUND, META, QUEUES, RETAINED, SESSIONS, SUBSCRIPTIONS, StoreKey,
};
use motemq_core::Image;
use redb::{Database, Key, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A salvage that succeeded.
#[derive(Debug)]
pub struct Salvaged {
    /// What was found in the damaged store.
    pub found: Report,
    /// What is in the new one.
    pub saved: Report,
    /// Queued deliveries left out because their message is lost.
    pub deliveries_lost: u64,
    /// Rows taken although their tag could not be checked.
    pub unproven: u64,
}

impl Salvaged {
    /// Whether something could not be saved, or not proven.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        !self.found.is_sound() || self.unproven > 0
    }
}

/// Writes what is readable of the store in `from` to the new store `to`. `key` is for a store whose own is lost.
///
/// # Errors
/// When nothing of `from` can be read, or `to` exists or cannot be written.
pub fn salvage(from: &Path, to: &Path, key: [u8; 16]) -> Result<Salvaged, ToolError> {
    refuse_existing(to)?;
    let (mut snapshot, refusal) = match Snapshot::of_file(from) {
        Ok(snapshot) => (snapshot, None),
        Err(error) if error.is_damage() => (Snapshot::of_damaged_file(from)?, Some(error)),
        Err(error) => return Err(error.into()),
    };
    let mut survey = Survey::run(&mut snapshot, Payloads::Kept)?;
    if let Some(refusal) = refusal {
        let file = from.display().to_string();
        let finding = super::Damage::new("file", file, refusal.to_string());
        survey.report.add(finding);
    }
    let mut image = std::mem::take(&mut survey.image);
    let mut deliveries_lost = 0;
    for queue in image.queues.values_mut() {
        let before = queue.refs.len();
        queue.refs.retain(|stored| survey.has_body(stored.position));
        deliveries_lost += (before - queue.refs.len()) as u64;
    }
    let key = survey.key_bytes.unwrap_or(key);
    let file = NewFile::create(&unfinished(to))?;
    Engine::create(file.db()?, key).map_err(ToolError::write(to))?;
    let mut writer = Writer {
        db: file.db()?,
        key: StoreKey::from_bytes(key),
        txn: None,
        batch: 0,
    };
    writer.image(&image).map_err(ToolError::write(to))?;
    writer.bodies(&mut snapshot, &survey, &image)?;
    writer
        .facts(&survey, image.next_queue)
        .map_err(ToolError::write(to))?;
    writer.flush().map_err(ToolError::write(to))?;
    let file = file.close()?;
    let saved = verify(file.path())?;
    file.name(to)?;
    Ok(Salvaged {
        found: survey.report,
        saved,
        deliveries_lost,
        unproven: survey.unproven,
    })
}

/// Writes rows, some megabytes to a commit.
struct Writer<'a> {
    db: &'a Database,
    key: StoreKey,
    txn: Option<WriteTransaction>,
    batch: usize,
}

impl Writer<'_> {
    fn image(&mut self, image: &Image) -> Result<(), StoreError> {
        for row in image.sessions.values() {
            let (queue, mut value) = (row.queue.as_u64(), Vec::new());
            write_session(row, &mut value);
            self.put(SESSIONS, queue, &queue.to_be_bytes(), value)?;
        }
        for (queue, known) in &image.subscriptions {
            for stored in known.values() {
                let (queue, mut value) = (queue.as_u64(), Vec::new());
                write_subscription(stored, &mut value);
                let key = filter_key(queue, &stored.filter);
                self.put(SUBSCRIPTIONS, (queue, &*stored.filter), &key, value)?;
            }
        }
        for (queue, id) in &image.inbound {
            let (queue, id) = (queue.as_u64(), id.get());
            self.put(
                INBOUND,
                (queue, id),
                &pair_key(queue, id.into()),
                Vec::new(),
            )?;
        }
        for (queue, known) in &image.queues {
            let queue = queue.as_u64();
            let mut chunks: BTreeMap<u64, Vec<_>> = BTreeMap::new();
            for stored in known.refs.values() {
                chunks
                    .entry(stored.sequence / CHUNK)
                    .or_default()
                    .push(stored);
            }
            for (chunk, refs) in chunks {
                let mut value = Vec::new();
                write_chunk(&refs, &mut value);
                self.put(QUEUES, (queue, chunk), &pair_key(queue, chunk), value)?;
            }
        }
        for (topic, (position, message)) in &image.retained {
            let mut value = position.to_le_bytes().to_vec();
            write_message(message, &mut value);
            let topic = topic.as_str();
            self.put(RETAINED, topic, topic.as_bytes(), value)?;
        }
        Ok(())
    }

    /// The messages that a queue still needs, from the table or from the journal.
    fn bodies(
        &mut self,
        snapshot: &mut Snapshot,
        survey: &Survey,
        image: &Image,
    ) -> Result<(), ToolError> {
        let queues = image.queues.values();
        let mut needed: BTreeSet<u64> = queues.flat_map(|queue| queue.refs.positions()).collect();
        let mut result = Ok(());
        BODY_ROWS.read(snapshot, &mut |position, sealed| {
            let bytes = match survey.key {
                Some(key) => key.open("bodies", &position.to_be_bytes(), sealed).ok(),
                None => sealed.split_last_chunk::<8>().map(|(value, _)| value),
            };
            if let Some(bytes) = bytes.filter(|_| result.is_ok() && needed.remove(&position)) {
                result = self.body(position, bytes.to_vec());
            }
        })?;
        JOURNAL_ROWS.read(snapshot, &mut |first, value| {
            if survey.pages.binary_search(&first).is_err() {
                return;
            }
            let page = value.get(8..).unwrap_or_default();
            for (position, record) in (first..).zip(page_records(page)) {
                let message = record.and_then(|record| read_action_message(record.action).ok()?);
                if let Some(message) =
                    message.filter(|_| result.is_ok() && needed.remove(&position))
                {
                    let mut bytes = Vec::new();
                    write_message(&message, &mut bytes);
                    result = self.body(position, bytes);
                }
            }
        })?;
        Ok(result?)
    }

    fn body(&mut self, position: u64, value: Vec<u8>) -> Result<(), StoreError> {
        self.put(BODIES, position, &position.to_be_bytes(), value)
    }

    /// Everything counts as folded: the new journal is empty.
    fn facts(&mut self, survey: &Survey, next_queue: u64) -> Result<(), StoreError> {
        let mut folded = survey.last.to_le_bytes().to_vec();
        folded.extend([0; 8]);
        let facts = [
            ("boot", survey.boot.to_le_bytes().to_vec()),
            ("folded", folded),
            ("next_queue", next_queue.to_le_bytes().to_vec()),
        ];
        for (name, value) in facts {
            let sealed = sealed_meta(self.key, name, &value);
            let txn = self.txn()?;
            txn.open_table(META)?.insert(name, sealed.as_slice())?;
        }
        Ok(())
    }

    fn put<K: Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
        place: K::SelfType<'_>,
        key: &[u8],
        mut value: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.key
            .seal(redb::TableHandle::name(&table), key, &mut value);
        self.batch += value.len();
        let txn = self.txn()?;
        txn.open_table(table)?.insert(place, value.as_slice())?;
        if self.batch >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn txn(&mut self) -> Result<&WriteTransaction, StoreError> {
        if self.txn.is_none() {
            let mut txn = self.db.begin_write()?;
            txn.set_two_phase_commit(true);
            self.txn = Some(txn);
        }
        self.txn.as_ref().ok_or(StoreError::Interrupted)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.batch = 0;
        match self.txn.take() {
            Some(txn) => Ok(txn.commit()?),
            None => Ok(()),
        }
    }
}

/// Bytes of values in one commit.
const BATCH_BYTES: usize = 4 << 20;
