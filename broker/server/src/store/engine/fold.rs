//! Folding: old actions leave the journal, the present state of what they touched goes to the tables.

use super::{
    CHUNK, Engine, at, broken_chain, filter_key, page_records, page_tag, pair_key, sealed_meta,
};
use crate::store::StoreError;
use crate::store::layout::{
    read_action, write_chunk, write_message, write_session, write_subscription,
};
use crate::store::tables::{
    BODIES, INBOUND, JOURNAL, META, QUEUES, RETAINED, SESSIONS, SUBSCRIPTIONS,
};
use motemq_codec::PacketId;
use motemq_core::{Action, Message, PublishAction, QueueId, RetainedEffect, TopicName};
use redb::WriteTransaction;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The keys that a fold must bring up to date.
#[derive(Debug, Default)]
pub(super) struct Fold {
    pages: usize,
    folded: Option<(u64, u64)>,
    bodies: Vec<(u64, Arc<Message>, u32)>,
    chunks: BTreeSet<(u64, u64)>,
    sessions: BTreeSet<QueueId>,
    ended: BTreeSet<QueueId>,
    subscriptions: BTreeSet<(QueueId, Box<str>)>,
    inbound: BTreeSet<(QueueId, PacketId)>,
    retained: BTreeSet<TopicName>,
}

impl Engine {
    pub(super) fn fold(
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
                let rows_max = match self.is_eager {
                    true => EAGER_ROWS_MAX,
                    false => self.options.fold_rows_max,
                };
                let is_spent = rows >= rows_max
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
                if page_tag(self.key, chain, page.first, actions) != Some(page.tag) {
                    return Err(broken_chain(page.first));
                }
                chain = page.tag;
                for (position, record) in (page.first..).zip(page_records(actions)) {
                    let bytes = record.map_or(&[][..], |record| record.action);
                    let action = read_action(bytes).map_err(at("journal", position))?;
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
        match self.is_eager {
            true => 0,
            false => self.options.journal_bytes_max / 8,
        }
    }

    fn fold_action(&self, position: u64, action: Action, fold: &mut Fold) {
        match action {
            Action::Publish(publish) => self.fold_publish(position, publish, fold),
            Action::Settle { queue, sequence } | Action::Release { queue, sequence } => {
                fold.chunks.insert((queue.as_u64(), sequence / CHUNK));
            }
            Action::Move { from, to, .. } => {
                fold.chunks.insert((from.0.as_u64(), from.1 / CHUNK));
                fold.chunks.insert((to.queue.as_u64(), to.sequence / CHUNK));
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
        let written = publish.refs.iter().map(|to| (to.queue, to.sequence));
        let mut check = |(queue, sequence): (QueueId, u64)| {
            let known = self.image.queues.get(&queue);
            let stored = known.and_then(|queue| queue.refs.get(sequence));
            if stored.is_some_and(|stored| stored.position == position) {
                live += 1;
                fold.chunks.insert((queue.as_u64(), sequence / CHUNK));
            }
        };
        match self.moved.get(&position) {
            None => written.for_each(&mut check),
            Some(moved) => {
                let places: BTreeSet<_> = moved.iter().copied().chain(written).collect();
                places.into_iter().for_each(&mut check);
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
                .collect();
            if refs.is_empty() {
                if self.chunks.contains(&(*queue, *chunk)) {
                    queues.remove((*queue, *chunk))?;
                }
                continue;
            }
            let mut value = Vec::new();
            write_chunk(&refs, &mut value);
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

    pub(super) fn finish_fold(&mut self, fold: Fold) {
        self.dead_bodies.clear();
        for (position, _, live) in fold.bodies {
            if live > 1 {
                self.shared_bodies.insert(position, live);
            }
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
            self.moved.retain(|position, _| *position > folded.0);
        }
    }
}

/// Actions folded per eager commit: what is still queued moves within the disk space kept in reserve.
const EAGER_ROWS_MAX: usize = 256;
