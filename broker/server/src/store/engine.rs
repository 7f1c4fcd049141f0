//! Actions into redb and back: one commit at a time, without threads.
//!
//! A commit appends its actions as journal pages and folds a bounded number of the oldest ones into the tables. Folding
//! writes the present state of every key that an old action touched, which may already include later actions; because
//! every action is a set or a removal by key, replaying the later ones over it changes nothing. A message that is still
//! queued when its page is folded moves to `bodies` under the same position; most are settled by then and never do.
//!
//! Invariants:
//! - What is in the tables, plus the journal after `folded`, gives the [`Image`] of all committed actions.
//! - A page and the positions in it are never seen unless the pages before it are.
//! - Folding is bounded per commit until the journal holds half of its limit.

use super::StoreError;
use super::layout::{
    read_action, read_action_message, read_chunk, read_message, read_session, read_subscription,
    write_action, write_chunk, write_message, write_session, write_subscription,
};
use super::tables::{
    BODIES, INBOUND, JOURNAL, META, QUEUES, RETAINED, SESSIONS, SUBSCRIPTIONS, StoreKey,
};
use motemq_codec::PacketId;
use motemq_core::{Action, Image, Message, PublishAction, QueueId, RetainedEffect};
use redb::{Database, ReadableDatabase, WriteTransaction};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How the store commits and folds.
#[derive(Copy, Clone, Debug)]
pub struct EngineOptions {
    /// Two-phase commits always; otherwise only where a single one would not do.
    pub two_phase_commit: bool,
    /// Bytes of journal pages beyond which folding has no bound.
    pub journal_bytes_max: u64,
    /// Actions folded per commit.
    pub fold_rows_max: usize,
    /// Time spent folding per commit.
    pub fold_time_max: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            two_phase_commit: false,
            journal_bytes_max: 256 << 20,
            fold_rows_max: 2000,
            fold_time_max: Duration::from_millis(5),
        }
    }
}

/// The store's tables and what the writer must know of them.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    key: StoreKey,
    image: Image,
    pages: VecDeque<Page>,
    journal_bytes: u64,
    /// The last position given out.
    last: u64,
    /// Tag of the last page.
    chain: u64,
    /// The last position folded, and the tag of its page.
    folded: (u64, u64),
    /// Live deliveries per body in `bodies`.
    body_refs: HashMap<u64, u32>,
    /// Bodies that nobody needs any more, to be removed with the next commit.
    dead_bodies: Vec<u64>,
    /// Chunks in `queues`.
    chunks: HashSet<(u64, u64)>,
}

#[derive(Copy, Clone, Debug)]
struct Page {
    first: u64,
    count: u64,
    bytes: u64,
    tag: u64,
}

/// What a commit did.
#[derive(Debug)]
pub struct Committed {
    /// The position of the first action; the others follow.
    pub first: u64,
}

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
            body_refs: HashMap::new(),
            dead_bodies: Vec::new(),
            chunks: HashSet::new(),
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
            self.image.next_queue = self.image.next_queue.max(session.queue.as_u64() + 1);
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
                known.refs.insert(stored.sequence, stored);
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
            if tag != self.key.chain(self.chain, first, page) {
                return Err(broken_chain(first));
            }
            let mut count = 0;
            for bytes in page_actions(page) {
                let bytes = bytes.ok_or_else(|| corrupt("the page ends within an action"))?;
                let action = read_action(bytes).map_err(at("journal", first))?;
                self.image.apply(first + count, &action, &mut |_| ());
                count += 1;
            }
            self.push_page(first, count, value.len() as u64, tag);
        }
        Ok(())
    }

    /// Counts the live deliveries of each body in `bodies`, and lists the bodies without any.
    fn find_orphans(&mut self, db: &Database) -> Result<(), StoreError> {
        for queue in self.image.queues.values() {
            for stored in queue
                .refs
                .values()
                .filter(|stored| stored.position <= self.folded.0)
            {
                *self.body_refs.entry(stored.position).or_default() += 1;
            }
        }
        for row in db.begin_read()?.open_table(BODIES)?.range::<u64>(..)? {
            let position = row?.0.value();
            if !self.body_refs.contains_key(&position) {
                self.dead_bodies.push(position);
            }
        }
        Ok(())
    }

    fn push_page(&mut self, first: u64, count: u64, bytes: u64, tag: u64) {
        self.pages.push_back(Page {
            first,
            count,
            bytes,
            tag,
        });
        self.journal_bytes += bytes;
        self.last = first + count - 1;
        self.chain = tag;
    }

    /// Everything that is durable.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The key of this store's tags, for readers.
    #[must_use]
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// The last position given out.
    #[must_use]
    pub fn last_position(&self) -> u64 {
        self.last
    }

    /// Bytes of journal pages not yet folded.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        self.journal_bytes
    }

    /// Makes `actions` durable, all or none, in order.
    ///
    /// `elapsed` says how long the commit has taken so far.
    ///
    /// # Errors
    /// When redb fails; then nothing was changed here, and whether it was on disk is unknown.
    pub fn commit(
        &mut self,
        db: &Database,
        actions: &[Action],
        elapsed: &dyn Fn() -> Duration,
    ) -> Result<Committed, StoreError> {
        let mut txn = db.begin_write()?;
        if self.options.two_phase_commit {
            txn.set_two_phase_commit(true);
        }
        let first = self.last + 1;
        let written = self.append(&txn, actions)?;
        let fold = self.fold(&txn, elapsed)?;
        txn.commit()?;
        for page in written {
            self.push_page(page.first, page.count, page.bytes, page.tag);
        }
        self.finish_fold(fold);
        let folded = self.folded.0;
        for (position, action) in (first..).zip(actions) {
            let (body_refs, dead_bodies) = (&mut self.body_refs, &mut self.dead_bodies);
            self.image.apply(position, action, &mut |freed| {
                if freed <= folded
                    && let Some(refs) = body_refs.get_mut(&freed)
                {
                    *refs -= 1;
                    if *refs == 0 {
                        body_refs.remove(&freed);
                        dead_bodies.push(freed);
                    }
                }
            });
        }
        Ok(Committed { first })
    }

    fn append(&self, txn: &WriteTransaction, actions: &[Action]) -> Result<Vec<Page>, StoreError> {
        let mut journal = txn.open_table(JOURNAL)?;
        let mut pages = Vec::new();
        let mut chain = self.chain;
        let mut first = self.last + 1;
        let mut rest = actions;
        let mut value = Vec::new();
        while !rest.is_empty() {
            value.clear();
            value.extend([0; 8]);
            let mut count = 0;
            while let Some((action, others)) = rest.split_first()
                && (count == 0 || value.len() < PAGE_BYTES)
            {
                let start = value.len();
                value.extend([0; 4]);
                write_action(action, &mut value);
                let length = (value.len() - start - 4) as u32;
                value[start..start + 4].copy_from_slice(&length.to_le_bytes());
                count += 1;
                rest = others;
            }
            let tag = self.key.chain(chain, first, &value[8..]);
            value[..8].copy_from_slice(&tag.to_le_bytes());
            journal.insert(first, value.as_slice())?;
            pages.push(Page {
                first,
                count,
                bytes: value.len() as u64,
                tag,
            });
            chain = tag;
            first += count;
        }
        Ok(pages)
    }

    fn fold(
        &self,
        txn: &WriteTransaction,
        elapsed: &dyn Fn() -> Duration,
    ) -> Result<Fold, StoreError> {
        let mut fold = Fold::default();
        let half = self.options.journal_bytes_max / 2;
        let mut remaining = self.journal_bytes;
        let mut rows = 0;
        if remaining > self.fold_start() {
            let mut journal = txn.open_table(JOURNAL)?;
            let started = elapsed();
            let mut chain = self.folded.1;
            for page in &self.pages {
                let is_bounded = remaining <= half;
                let is_spent = rows >= self.options.fold_rows_max
                    || elapsed().saturating_sub(started) >= self.options.fold_time_max;
                if remaining <= self.fold_start() || (is_bounded && is_spent) {
                    break;
                }
                let removed = journal.remove(page.first)?;
                let removed = removed.ok_or_else(|| StoreError::Corrupt {
                    table: "journal",
                    key: page.first.to_string(),
                    why: "the page is missing",
                })?;
                // What is folded gets a new tag, so it must be what was written.
                let actions = removed.value().get(8..).unwrap_or_default();
                if self.key.chain(chain, page.first, actions) != page.tag {
                    return Err(broken_chain(page.first));
                }
                chain = page.tag;
                for (position, bytes) in (page.first..).zip(page_actions(actions)) {
                    let action =
                        read_action(bytes.unwrap_or_default()).map_err(at("journal", position))?;
                    self.fold_action(position, action, &mut fold);
                    rows += 1;
                }
                drop(removed);
                fold.pages += 1;
                fold.folded = Some((page.first + page.count - 1, page.tag));
                remaining -= page.bytes;
            }
        }
        self.write_fold(txn, &fold)?;
        Ok(fold)
    }

    /// Folding starts when the journal holds this many bytes: short-lived messages are settled before.
    fn fold_start(&self) -> u64 {
        self.options.journal_bytes_max / 8
    }

    fn fold_action(&self, position: u64, action: Action, fold: &mut Fold) {
        match action {
            Action::Publish(publish) => self.fold_publish(position, publish, fold),
            Action::Settle { queue, sequence } | Action::Release { queue, sequence } => {
                fold.chunks.insert((queue.as_u64(), sequence / CHUNK));
            }
            Action::InboundRemoved { queue, packet_id } => {
                fold.inbound.insert((queue, packet_id));
            }
            Action::SessionPut(row) => {
                fold.sessions.insert(row.queue);
            }
            Action::SessionEnded { queue } => {
                fold.sessions.insert(queue);
                fold.ended.insert(queue);
            }
            Action::Subscribed {
                queue,
                subscriptions,
            } => {
                let filters = subscriptions
                    .into_iter()
                    .map(|stored| (queue, stored.filter));
                fold.subscriptions.extend(filters);
            }
            Action::Unsubscribed { queue, filters } => {
                fold.subscriptions
                    .extend(filters.into_iter().map(|filter| (queue, filter)));
            }
        }
    }

    fn fold_publish(&self, position: u64, publish: PublishAction, fold: &mut Fold) {
        let mut live = 0;
        for queue_ref in &publish.refs {
            let stored = self
                .image
                .queues
                .get(&queue_ref.queue)
                .and_then(|queue| queue.refs.get(&queue_ref.sequence));
            if stored.is_some_and(|stored| stored.position == position) {
                live += 1;
                fold.chunks
                    .insert((queue_ref.queue.as_u64(), queue_ref.sequence / CHUNK));
            }
        }
        if live > 0 {
            fold.bodies.push((position, publish.message.clone(), live));
        }
        if publish.retained != RetainedEffect::None {
            fold.retained.insert(publish.message.topic.clone());
        }
        if let Some(inbound) = publish.inbound {
            fold.inbound.insert(inbound);
        }
        if let Some(queue) = publish.will_of {
            fold.sessions.insert(queue);
        }
    }

    fn write_fold(&self, txn: &WriteTransaction, fold: &Fold) -> Result<(), StoreError> {
        if !self.dead_bodies.is_empty() || !fold.bodies.is_empty() {
            let mut bodies = txn.open_table(BODIES)?;
            for position in &self.dead_bodies {
                bodies.remove(position)?;
            }
            for (position, message, _) in &fold.bodies {
                let mut value = Vec::new();
                write_message(message, &mut value);
                self.key.seal("bodies", &position.to_be_bytes(), &mut value);
                bodies.insert(position, value.as_slice())?;
            }
        }
        let Some((position, tag)) = fold.folded else {
            return Ok(());
        };
        self.write_chunks(txn, fold)?;
        self.write_sessions(txn, fold)?;
        self.write_retained(txn, fold)?;
        let mut meta = txn.open_table(META)?;
        let mut folded = position.to_le_bytes().to_vec();
        folded.extend(tag.to_le_bytes());
        meta.insert(
            "folded",
            sealed_meta(self.key, "folded", &folded).as_slice(),
        )?;
        let next_queue = self.image.next_queue.to_le_bytes();
        meta.insert(
            "next_queue",
            sealed_meta(self.key, "next_queue", &next_queue).as_slice(),
        )?;
        Ok(())
    }

    fn write_chunks(&self, txn: &WriteTransaction, fold: &Fold) -> Result<(), StoreError> {
        let mut queues = txn.open_table(QUEUES)?;
        for (queue, chunk) in &fold.chunks {
            let first = chunk * CHUNK;
            let refs: Vec<_> = self
                .image
                .queues
                .get(&QueueId::from_u64(*queue))
                .into_iter()
                .flat_map(|queue| queue.refs.range(first..first + CHUNK))
                .map(|(_, stored)| stored)
                .collect();
            if refs.is_empty() {
                if self.chunks.contains(&(*queue, *chunk)) {
                    queues.remove((*queue, *chunk))?;
                }
                continue;
            }
            let mut value = Vec::new();
            write_chunk(refs.into_iter(), &mut value);
            self.key
                .seal("queues", &pair_key(*queue, *chunk), &mut value);
            queues.insert((*queue, *chunk), value.as_slice())?;
        }
        Ok(())
    }

    fn write_sessions(&self, txn: &WriteTransaction, fold: &Fold) -> Result<(), StoreError> {
        let mut sessions = txn.open_table(SESSIONS)?;
        for queue in &fold.sessions {
            let number = queue.as_u64();
            match self.image.sessions.get(queue) {
                Some(row) => {
                    let mut value = Vec::new();
                    write_session(row, &mut value);
                    self.key.seal("sessions", &number.to_be_bytes(), &mut value);
                    sessions.insert(number, value.as_slice())?;
                }
                None => {
                    sessions.remove(number)?;
                }
            }
        }
        let mut subscriptions = txn.open_table(SUBSCRIPTIONS)?;
        let mut inbound = txn.open_table(INBOUND)?;
        for queue in &fold.ended {
            let number = queue.as_u64();
            subscriptions.retain_in((number, "")..(number + 1, ""), |_, _| false)?;
            inbound.retain_in((number, 0)..=(number, u16::MAX), |_, _| false)?;
            let mut queues = txn.open_table(QUEUES)?;
            queues.retain_in((number, 0)..=(number, u64::MAX), |_, _| false)?;
        }
        for (queue, filter) in &fold.subscriptions {
            let number = queue.as_u64();
            let known = self
                .image
                .subscriptions
                .get(queue)
                .and_then(|known| known.get(filter));
            match known {
                Some(stored) => {
                    let mut value = Vec::new();
                    write_subscription(stored, &mut value);
                    self.key
                        .seal("subscriptions", &filter_key(number, filter), &mut value);
                    subscriptions.insert((number, &**filter), value.as_slice())?;
                }
                None => {
                    subscriptions.remove((number, &**filter))?;
                }
            }
        }
        for (queue, packet_id) in &fold.inbound {
            let place = (queue.as_u64(), packet_id.get());
            if self.image.inbound.contains(&(*queue, *packet_id)) {
                let mut value = Vec::new();
                self.key
                    .seal("inbound", &pair_key(place.0, place.1.into()), &mut value);
                inbound.insert(place, value.as_slice())?;
            } else {
                inbound.remove(place)?;
            }
        }
        Ok(())
    }

    fn write_retained(&self, txn: &WriteTransaction, fold: &Fold) -> Result<(), StoreError> {
        let mut retained = txn.open_table(RETAINED)?;
        for topic in &fold.retained {
            match self.image.retained.get(topic) {
                Some((position, message)) => {
                    let mut value = position.to_le_bytes().to_vec();
                    write_message(message, &mut value);
                    self.key
                        .seal("retained", topic.as_str().as_bytes(), &mut value);
                    retained.insert(topic.as_str(), value.as_slice())?;
                }
                None => {
                    retained.remove(topic.as_str())?;
                }
            }
        }
        Ok(())
    }

    fn finish_fold(&mut self, fold: Fold) {
        self.dead_bodies.clear();
        for (position, _, live) in fold.bodies {
            self.body_refs.insert(position, live);
        }
        for (queue, chunk) in fold.chunks {
            let is_live = self
                .image
                .queues
                .get(&QueueId::from_u64(queue))
                .is_some_and(|known| {
                    known
                        .refs
                        .range(chunk * CHUNK..(chunk + 1) * CHUNK)
                        .next()
                        .is_some()
                });
            if is_live {
                self.chunks.insert((queue, chunk));
            } else {
                self.chunks.remove(&(queue, chunk));
            }
        }
        if !fold.ended.is_empty() {
            let ended = |queue: u64| fold.ended.contains(&QueueId::from_u64(queue));
            self.chunks.retain(|(queue, _)| !ended(*queue));
        }
        for page in self.pages.drain(..fold.pages) {
            self.journal_bytes -= page.bytes;
        }
        if let Some(folded) = fold.folded {
            self.folded = folded;
        }
    }
}

/// Bytes of the file that redb can use again without growing it.
///
/// # Errors
/// When redb fails.
pub fn free_bytes(db: &Database, file_bytes: u64) -> Result<u64, StoreError> {
    let txn = db.begin_write()?;
    let stats = txn.stats()?;
    let used = stats.allocated_pages() * stats.page_size() as u64;
    txn.abort()?;
    Ok(file_bytes.saturating_sub(used))
}

/// The keys that a fold must bring up to date.
#[derive(Debug, Default)]
struct Fold {
    pages: usize,
    folded: Option<(u64, u64)>,
    bodies: Vec<(u64, Arc<Message>, u32)>,
    chunks: BTreeSet<(u64, u64)>,
    sessions: BTreeSet<QueueId>,
    ended: BTreeSet<QueueId>,
    subscriptions: BTreeSet<(QueueId, Box<str>)>,
    inbound: BTreeSet<(QueueId, PacketId)>,
    retained: BTreeSet<motemq_core::TopicName>,
}

/// Reads bodies, from `bodies` or from the journal; a page of the journal is checked once for all bodies in it.
#[derive(Debug)]
pub struct BodyReader<'a> {
    db: &'a Database,
    key: StoreKey,
    /// The journal page last looked at: its first position and its actions.
    page: Option<(u64, Vec<u8>)>,
}

impl<'a> BodyReader<'a> {
    /// A reader of the present state.
    #[must_use]
    pub fn new(db: &'a Database, key: StoreKey) -> Self {
        Self {
            db,
            key,
            page: None,
        }
    }

    /// The body at `position`.
    ///
    /// # Errors
    /// When redb fails or the body is not there as it was written.
    pub fn read(&mut self, position: u64) -> Result<Message, StoreError> {
        let txn = self.db.begin_read()?;
        if let Some(sealed) = txn.open_table(BODIES)?.get(position)? {
            let bytes = self
                .key
                .open("bodies", &position.to_be_bytes(), sealed.value())?;
            return read_message(bytes).map_err(at("bodies", position));
        }
        let missing = || StoreError::Corrupt {
            table: "journal",
            key: position.to_string(),
            why: "the message is missing",
        };
        let journal = txn.open_table(JOURNAL)?;
        let mut pages = journal.range(..=position)?.rev();
        let (first, value) = pages.next().ok_or_else(missing)??;
        let first = first.value();
        if self.page.as_ref().is_none_or(|(known, _)| *known != first) {
            let previous = match pages.next() {
                Some(page) => page?
                    .1
                    .value()
                    .first_chunk()
                    .map_or(0, |tag| u64::from_le_bytes(*tag)),
                None => read_folded(self.db, self.key)?.1,
            };
            let (tag, actions) = value.value().split_first_chunk().ok_or_else(missing)?;
            if self.key.chain(previous, first, actions) != u64::from_le_bytes(*tag) {
                return Err(broken_chain(first));
            }
            self.page = Some((first, actions.to_vec()));
        }
        let actions = self.page.as_ref().map_or(&[][..], |(_, actions)| actions);
        let index = usize::try_from(position - first).map_err(|_| missing())?;
        let bytes = page_actions(actions)
            .nth(index)
            .flatten()
            .ok_or_else(missing)?;
        read_action_message(bytes)
            .map_err(at("journal", position))?
            .ok_or_else(missing)
    }
}

/// Reads the body at `position`.
///
/// # Errors
/// As [`BodyReader::read`].
pub fn read_body(db: &Database, key: StoreKey, position: u64) -> Result<Message, StoreError> {
    BodyReader::new(db, key).read(position)
}

/// The actions of a page (without its tag); `None` for one that the page cuts off.
fn page_actions(mut page: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if page.is_empty() {
            return None;
        }
        let action = page.split_first_chunk().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        page = action.map_or(&[], |(_, rest)| rest);
        Some(action.map(|(action, _)| action))
    })
}

fn at<E: std::fmt::Display>(
    table: &'static str,
    key: impl ToString,
) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Unreadable {
        table,
        key: key.to_string(),
        why: error.to_string(),
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

fn sealed_meta(key: StoreKey, name: &str, value: &[u8]) -> Vec<u8> {
    let mut sealed = value.to_vec();
    key.seal("meta", name.as_bytes(), &mut sealed);
    sealed
}

/// The last position folded, and the tag of its page.
fn read_folded(db: &Database, key: StoreKey) -> Result<(u64, u64), StoreError> {
    let folded: [u8; 16] = meta_open(db, key, "folded")?;
    let (position, tag) = folded.split_at(8);
    Ok((u64_of(position), u64_of(tag)))
}

fn broken_chain(first: u64) -> StoreError {
    StoreError::Corrupt {
        table: "journal",
        key: first.to_string(),
        why: "the tag does not follow from the page before",
    }
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn pair_key(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

fn filter_key(queue: u64, filter: &str) -> Vec<u8> {
    let mut key = queue.to_be_bytes().to_vec();
    key.extend(filter.as_bytes());
    key
}

/// The format that this release writes.
const FORMAT: u32 = 1;
/// Deliveries per chunk of a queue.
const CHUNK: u64 = 512;
/// A journal page is closed when it holds this many bytes.
const PAGE_BYTES: usize = 64 << 10;
