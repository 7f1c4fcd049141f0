//! Folding: old actions leave the journal, the present state of what they touched goes to the tables.
//!
//! It goes in rounds, each spread over many commits, because queues that are filled together share every page: a queue's row
//! is written once for all that a round has of it, not once for every few of its deliveries. A round reads the oldest pages
//! and moves the bodies in them that are still needed, then writes the keys that they touched, then removes the pages.
//!
//! Invariants: `folded` passes a page only when all that it touched is written; a body is in `bodies` before its page goes.
//! A round that a crash cuts off begins again; bodies that it had moved are then nobody's and are removed.

use super::{
    CHUNK, Engine, at, broken_chain, filter_key, page_records, page_tag, pair_key, sealed_meta,
};
use crate::store::StoreError;
use crate::store::layout::{
    StoredPublish, read_action, read_stored_publish, write_chunk, write_message, write_session,
    write_subscription,
};
use crate::store::tables::{
    BODIES, INBOUND, JOURNAL, META, QUEUES, RETAINED, SESSIONS, SUBSCRIPTIONS,
};
use motemq_codec::PacketId;
use motemq_core::{Action, QueueId, RetainedEffect, TopicName};
use redb::{ReadableTable, Table, WriteTransaction};
use std::collections::BTreeSet;
use std::time::Duration;

/// What has been read and is not yet folded.
#[derive(Debug, Default)]
pub(super) struct Round {
    step: Step,
    /// Pages read, from the oldest on, and their bytes.
    pages: usize,
    bytes: u64,
    /// The last position in them, and the tag of the last.
    last: Option<(u64, u64)>,
    keys: Keys,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
enum Step {
    #[default]
    Read,
    Write,
    Remove,
}

/// The keys that a round must bring up to date.
#[derive(Debug, Default)]
struct Keys {
    chunks: BTreeSet<(u64, u64)>,
    sessions: BTreeSet<QueueId>,
    ended: BTreeSet<QueueId>,
    subscriptions: BTreeSet<(QueueId, Box<str>)>,
    inbound: BTreeSet<(QueueId, PacketId)>,
    retained: BTreeSet<TopicName>,
}

impl Keys {
    fn len(&self) -> usize {
        self.chunks.len()
            + self.sessions.len()
            + self.ended.len()
            + self.subscriptions.len()
            + self.inbound.len()
            + self.retained.len()
    }
}

/// What one commit may still spend.
struct Budget<'a> {
    rows: usize,
    started: Duration,
    elapsed: &'a dyn Fn() -> Duration,
}

impl Engine {
    /// Does a bounded part of a round, if there is enough to fold.
    pub(super) fn fold(
        &mut self,
        txn: &WriteTransaction,
        elapsed: &dyn Fn() -> Duration,
    ) -> Result<(), StoreError> {
        self.remove_dead_bodies(txn)?;
        let mut budget = Budget {
            rows: match self.is_eager {
                true => EAGER_ROWS_MAX,
                false => self.options.fold_rows_max,
            },
            started: elapsed(),
            elapsed,
        };
        let folded = self.folded;
        while self.has_round() && !self.is_spent(&budget) {
            match self.round.step {
                Step::Read => self.read_pages(txn, &mut budget)?,
                Step::Write => self.write_keys(txn, &mut budget)?,
                Step::Remove => self.remove_pages(txn, &mut budget)?,
            }
        }
        if self.folded != folded {
            self.write_folded(txn)?;
        }
        Ok(())
    }

    /// The last position whose body is in `bodies`, if it is still needed.
    pub(super) fn bodies_to(&self) -> u64 {
        self.round.last.unwrap_or(self.folded).0
    }

    fn has_round(&self) -> bool {
        let is_begun = self.round.last.is_some();
        is_begun || self.journal_bytes > 2 * self.fold_to()
    }

    /// A round leaves this many bytes in the journal: short-lived messages are settled before.
    fn fold_to(&self) -> u64 {
        match self.is_eager {
            true => 0,
            false => self.options.journal_bytes_max / 8,
        }
    }

    /// Beyond half of its limit the journal is folded whatever it costs.
    fn is_spent(&self, budget: &Budget<'_>) -> bool {
        self.journal_bytes <= self.options.journal_bytes_max / 2
            && (budget.rows == 0
                || (budget.elapsed)().saturating_sub(budget.started) >= self.options.fold_time_max)
    }

    /// Counts a row; says whether it was the last for now.
    fn spend(&self, budget: &mut Budget<'_>) -> bool {
        budget.rows = budget.rows.saturating_sub(1);
        self.is_spent(budget)
    }

    fn remove_dead_bodies(&mut self, txn: &WriteTransaction) -> Result<(), StoreError> {
        if self.dead_bodies.is_empty() {
            return Ok(());
        }
        let mut bodies = txn.open_table(BODIES)?;
        for position in self.dead_bodies.drain(..) {
            bodies.remove(position)?;
        }
        Ok(())
    }

    fn read_pages(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<(), StoreError> {
        let journal = txn.open_table(JOURNAL)?;
        let mut bodies = txn.open_table(BODIES)?;
        while let Some(page) = self.pages.get(self.round.pages).copied() {
            let value = journal
                .get(page.first)?
                .ok_or_else(|| missing(page.first))?;
            // What is folded gets a new tag, so it must be what was written.
            let actions = value.value().get(8..).unwrap_or_default();
            let chain = self.round.last.unwrap_or(self.folded).1;
            if page_tag(self.key, chain, page.first, actions) != Some(page.tag) {
                return Err(broken_chain(page.first));
            }
            for (position, record) in (page.first..).zip(page_records(actions)) {
                let bytes = record.map_or(&[][..], |record| record.action);
                match read_stored_publish(bytes).map_err(at("journal", position))? {
                    Some(publish) => self.read_publish(position, publish, &mut bodies)?,
                    None => self.read_other(read_action(bytes).map_err(at("journal", position))?),
                }
                budget.rows = budget.rows.saturating_sub(1);
            }
            let round = &mut self.round;
            round.last = Some((page.first + page.count - 1, page.tag));
            round.pages += 1;
            round.bytes += page.bytes;
            let is_enough = self.journal_bytes - self.round.bytes <= self.fold_to()
                || self.is_tight && self.round.bytes >= TIGHT_ROUND_BYTES;
            if is_enough || self.round.keys.len() >= ROUND_KEYS_MAX {
                break;
            }
            if self.is_spent(budget) {
                return Ok(());
            }
        }
        let read = self.bodies_to();
        self.moved.retain(|position, _| *position > read);
        self.round.step = Step::Write;
        Ok(())
    }

    fn read_other(&mut self, action: Action) {
        let keys = &mut self.round.keys;
        match action {
            // It was read without its message.
            Action::Publish(_) => {}
            Action::Settle { queue, sequence } | Action::Release { queue, sequence } => {
                keys.chunks.insert((queue.as_u64(), sequence / CHUNK));
            }
            Action::Move { from, to, .. } => {
                keys.chunks.insert((from.0.as_u64(), from.1 / CHUNK));
                keys.chunks.insert((to.queue.as_u64(), to.sequence / CHUNK));
            }
            Action::InboundRemoved { queue, packet_id } => {
                keys.inbound.insert((queue, packet_id));
            }
            Action::SessionPut(row) => {
                keys.sessions.insert(row.queue);
            }
            Action::SessionEnded { queue } => {
                keys.sessions.insert(queue);
                keys.ended.insert(queue);
            }
            Action::Subscribed {
                queue,
                subscriptions,
            } => {
                let filters = subscriptions
                    .into_iter()
                    .map(|stored| (queue, stored.filter));
                keys.subscriptions.extend(filters);
            }
            Action::Unsubscribed { queue, filters } => {
                keys.subscriptions
                    .extend(filters.into_iter().map(|filter| (queue, filter)));
            }
        }
    }

    fn read_publish(
        &mut self,
        position: u64,
        publish: StoredPublish<'_>,
        bodies: &mut Table<'_, u64, &'static [u8]>,
    ) -> Result<(), StoreError> {
        let keys = &mut self.round.keys;
        let mut live = 0;
        let written = publish.refs.iter().map(|to| (to.queue, to.sequence));
        let mut check = |(queue, sequence): (QueueId, u64)| {
            let known = self.image.queues.get(&queue);
            let stored = known.and_then(|queue| queue.refs.get(sequence));
            if stored.is_some_and(|stored| stored.position == position) {
                live += 1;
                keys.chunks.insert((queue.as_u64(), sequence / CHUNK));
            }
        };
        match self.moved.get(&position) {
            None => written.for_each(&mut check),
            Some(moved) => {
                let places: BTreeSet<_> = moved.iter().copied().chain(written).collect();
                places.into_iter().for_each(&mut check);
            }
        }
        if publish.retained != RetainedEffect::None {
            keys.retained.insert(TopicName::new(publish.topic));
        }
        keys.inbound.extend(publish.inbound);
        keys.sessions.extend(publish.will_of);
        if live > 0 {
            let mut value = publish.message.to_vec();
            self.key.seal("bodies", &position.to_be_bytes(), &mut value);
            bodies.insert(position, value.as_slice())?;
        }
        if live > 1 {
            self.shared_bodies.insert(position, live);
        }
        Ok(())
    }

    fn write_keys(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<(), StoreError> {
        let is_written = self.write_sessions(txn, budget)?
            && self.write_ended(txn, budget)?
            && self.write_subscriptions(txn, budget)?
            && self.write_inbound(txn, budget)?
            && self.write_retained(txn, budget)?
            && self.write_chunks(txn, budget)?;
        if is_written {
            self.round.step = Step::Remove;
        }
        Ok(())
    }

    fn write_chunks(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<bool, StoreError> {
        let mut queues = txn.open_table(QUEUES)?;
        while let Some((queue, chunk)) = self.round.keys.chunks.pop_first() {
            self.write_chunk(queue, chunk, &mut queues)?;
            if self.spend(budget) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_chunk(
        &mut self,
        queue: u64,
        chunk: u64,
        queues: &mut Table<'_, (u64, u64), &'static [u8]>,
    ) -> Result<(), StoreError> {
        let first = chunk * CHUNK;
        let refs: Vec<_> = self
            .image
            .queues
            .get(&QueueId::from_u64(queue))
            .into_iter()
            .flat_map(|queue| queue.refs.range(first..first + CHUNK))
            .collect();
        if refs.is_empty() {
            if self.chunks.remove(&(queue, chunk)) {
                queues.remove((queue, chunk))?;
            }
            return Ok(());
        }
        let mut value = Vec::new();
        write_chunk(&refs, &mut value);
        self.key.seal("queues", &pair_key(queue, chunk), &mut value);
        queues.insert((queue, chunk), value.as_slice())?;
        self.chunks.insert((queue, chunk));
        Ok(())
    }

    fn remove_pages(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<(), StoreError> {
        let mut journal = txn.open_table(JOURNAL)?;
        while self.round.pages > 0
            && let Some(page) = self.pages.pop_front()
        {
            let removed = journal.remove(page.first)?;
            removed.ok_or_else(|| missing(page.first))?;
            self.round.pages -= 1;
            self.journal_bytes -= page.bytes;
            self.folded = (page.first + page.count - 1, page.tag);
            if self.spend(budget) {
                break;
            }
        }
        if self.round.pages == 0 {
            self.round = Round::default();
        }
        Ok(())
    }

    fn write_folded(&self, txn: &WriteTransaction) -> Result<(), StoreError> {
        let (position, tag) = self.folded;
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

    /// Writes what the sessions of the round are now; `false` when the budget ended before.
    fn write_sessions(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<bool, StoreError> {
        let mut sessions = txn.open_table(SESSIONS)?;
        while let Some(queue) = self.round.keys.sessions.pop_first() {
            let number = queue.as_u64();
            match self.image.sessions.get(&queue) {
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
            if self.spend(budget) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_ended(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<bool, StoreError> {
        let mut subscriptions = txn.open_table(SUBSCRIPTIONS)?;
        let mut inbound = txn.open_table(INBOUND)?;
        let mut queues = txn.open_table(QUEUES)?;
        let mut ended = BTreeSet::new();
        let mut is_spent = false;
        while !is_spent && let Some(queue) = self.round.keys.ended.pop_first() {
            let number = queue.as_u64();
            subscriptions.retain_in((number, "")..(number + 1, ""), |_, _| false)?;
            inbound.retain_in((number, 0)..=(number, u16::MAX), |_, _| false)?;
            queues.retain_in((number, 0)..=(number, u64::MAX), |_, _| false)?;
            ended.insert(number);
            is_spent = self.spend(budget);
        }
        if !ended.is_empty() {
            self.chunks.retain(|(queue, _)| !ended.contains(queue));
        }
        Ok(!is_spent)
    }

    fn write_subscriptions(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<bool, StoreError> {
        let mut subscriptions = txn.open_table(SUBSCRIPTIONS)?;
        while let Some((queue, filter)) = self.round.keys.subscriptions.pop_first() {
            let number = queue.as_u64();
            let known = self.image.subscriptions.get(&queue);
            match known.and_then(|known| known.get(&filter)) {
                Some(stored) => {
                    let mut value = Vec::new();
                    write_subscription(stored, &mut value);
                    self.key
                        .seal("subscriptions", &filter_key(number, &filter), &mut value);
                    subscriptions.insert((number, &*filter), value.as_slice())?;
                }
                None => {
                    subscriptions.remove((number, &*filter))?;
                }
            }
            if self.spend(budget) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_inbound(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<bool, StoreError> {
        let mut inbound = txn.open_table(INBOUND)?;
        while let Some(place) = self.round.keys.inbound.pop_first() {
            let (queue, packet_id) = (place.0.as_u64(), place.1.get());
            if self.image.inbound.contains(&place) {
                let mut value = Vec::new();
                self.key
                    .seal("inbound", &pair_key(queue, packet_id.into()), &mut value);
                inbound.insert((queue, packet_id), value.as_slice())?;
            } else {
                inbound.remove((queue, packet_id))?;
            }
            if self.spend(budget) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_retained(
        &mut self,
        txn: &WriteTransaction,
        budget: &mut Budget<'_>,
    ) -> Result<bool, StoreError> {
        let mut retained = txn.open_table(RETAINED)?;
        while let Some(topic) = self.round.keys.retained.pop_first() {
            match self.image.retained.get(&topic) {
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
            if self.spend(budget) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn missing(first: u64) -> StoreError {
    StoreError::Corrupt {
        table: "journal",
        key: first.to_string(),
        why: "the page is missing",
    }
}

/// Keys that a round brings up to date, about; a queue counts for each of its chunks. Costs memory.
const ROUND_KEYS_MAX: usize = 16_384;
/// Bytes of journal in a round while the disk is full: the bodies in them find room in the reserve before the pages go.
const TIGHT_ROUND_BYTES: u64 = 1 << 20;
/// Actions folded per eager commit: what is still queued moves within the disk space kept in reserve.
const EAGER_ROWS_MAX: usize = 256;
