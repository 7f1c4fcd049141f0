//! What a mailbox holds under its lock: the queues, the in-flight window, and what of it is in memory.
//!
//! Invariants:
//! - The first `sent` entries were sent at least once, the first `resent` of them on this connection; a settled entry leaves
//!   when its elders have.
//! - The queue is `entries`, then `cold`, then `recent`, in the order of the sequences. What is in `cold` was never sent and
//!   has its body in the store; it costs 12 bytes and becomes an entry again when its turn comes to be read back. What was
//!   pushed since, and may not be stored yet, is in `recent`.
//!
//! Does not know: the journal beyond reporting an end, who waits.

use super::entry::{Body, Ended, Entry, Phase, SEQUENCE_SPAN, Volatile, body_bytes, packet_id};
use super::{Batch, Home, Outgoing, Push, Settlement, Window};
use crate::action::{QueueId, QueueRef};
use crate::counters::{DropReason, Limit, Tally};
use crate::history::Lost;
use crate::journal::{Journal, NO_POSITION};
use crate::limits::{QueueFull, QueueLimits};
use crate::message::ClientId;
use crate::queue_refs::QueueRefs;
use crate::time::Timestamp;
use crate::wakeup::Wakeup;
use motemq_codec::{PacketId, QoS};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) limits: QueueLimits,
    pub(super) epoch: u64,
    /// A connection is attached.
    pub(super) is_online: bool,
    /// The session outlives its connection and is kept in the store.
    pub(super) is_durable: bool,
    /// It has overflowed, or something of it is unreadable.
    pub(super) has_trouble: bool,
    /// The receiver must be disconnected: its queue overflowed under that policy.
    pub(super) overflowed: bool,
    /// Unacknowledged QoS 1 and 2 messages that the receiver takes; share groups give it no more than that.
    pub(super) window: usize,
    /// QoS 0 deliveries.
    pub(super) volatile: VecDeque<Volatile>,
    pub(super) volatile_bytes: usize,
    /// The oldest QoS 1 and 2 deliveries by sequence; the first `sent` were sent at least once.
    pub(super) entries: VecDeque<Entry>,
    /// Those behind them whose bodies are in the store.
    pub(super) cold: QueueRefs,
    /// Those behind these.
    pub(super) recent: VecDeque<Entry>,
    pub(super) sent: usize,
    /// Of the first `sent`, those before this index were sent on this connection.
    pub(super) resent: usize,
    /// Unsettled deliveries sent on this connection.
    pub(super) in_flight: usize,
    /// PUBRELs that wait for their record, in the order of the PUBRECs [MQTT5-4.6.0-4].
    pub(super) releases: VecDeque<u64>,
    pub(super) next_sequence: u64,
    /// Of the unsent entries.
    pub(super) queued_bytes: usize,
    /// What the bodies of durable entries that are held in memory cost.
    pub(super) memory_bytes: usize,
    /// Entries from this sequence on give up their body once it is stored.
    pub(super) cold_from: Option<u64>,
    pub(super) is_loading: bool,
    /// Deliveries that were lost in the store and not counted yet.
    pub(super) unreadable: u32,
    /// Something of it may be a share group's.
    pub(super) has_shared: bool,
}

impl State {
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.full(bytes).is_some()
    }

    /// QoS 1 and 2 deliveries, sent or not.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.cold.len() + self.recent.len()
    }

    /// QoS 1 and 2 deliveries that were never sent.
    pub(super) fn unsent(&self) -> usize {
        self.len() - self.sent
    }

    /// The sequence of the oldest delivery that was never sent, or of the next to come.
    pub(super) fn sent_below(&self) -> u64 {
        let unsent = self.entries.get(self.sent).map(|entry| entry.sequence);
        unsent
            .or_else(|| self.cold.first())
            .or_else(|| self.recent.front().map(|entry| entry.sequence))
            .unwrap_or(self.next_sequence)
    }

    /// When the oldest delivery that was never sent was received, as far as that is in memory.
    pub(super) fn oldest_at(&self) -> Option<Timestamp> {
        let first = match self.entries.get(self.sent) {
            None if self.cold.is_empty() => self.recent.front(),
            first => first,
        };
        let first = first.and_then(Entry::held_message);
        let first = first.map(|message| message.received_at);
        let volatile = self.volatile.front();
        let volatile = volatile.map(|volatile| volatile.message.received_at);
        first.into_iter().chain(volatile).min()
    }

    /// Whether there is anything behind `entries`. Most mailboxes never have; looking here first saves 90 instructions a message.
    #[inline]
    fn has_backlog(&self) -> bool {
        !(self.cold.is_empty() && self.recent.is_empty())
    }

    fn last_sequence(&self) -> Option<u64> {
        if !self.has_backlog() {
            return self.entries.back().map(|entry| entry.sequence);
        }
        let recent = self.recent.back().map(|entry| entry.sequence);
        recent
            .or_else(|| self.cold.last())
            .or_else(|| self.entries.back().map(|entry| entry.sequence))
    }

    /// The limit that another delivery would exceed.
    pub(super) fn full(&self, bytes: usize) -> Option<Limit> {
        if self.unsent() >= self.limits.messages_max {
            return Some(Limit::QueueMessages);
        }
        (self.queued_bytes + bytes > self.limits.bytes_max).then_some(Limit::QueueBytes)
    }

    /// The limit that another QoS 0 delivery would exceed.
    pub(super) fn volatile_full(&self, bytes: usize) -> Option<Limit> {
        if self.volatile.len() >= self.limits.messages_max {
            return Some(Limit::QueueMessages);
        }
        (self.volatile_bytes + bytes > self.limits.bytes_max).then_some(Limit::QueueBytes)
    }

    pub(super) fn push_volatile(
        &mut self,
        push: Push<'_>,
        owner: &ClientId,
        tally: &mut Tally,
    ) -> bool {
        let qos = QoS::AtMostOnce;
        if !self.is_online {
            let message = Lost::Message(push.message);
            tally.drop_message(DropReason::OfflineQoS0, owner, message, qos, "");
            return false;
        }
        let bytes = push.message.size_bytes();
        while let Some(limit) = self.volatile_full(bytes) {
            tally.reach(limit);
            let reason = DropReason::SlowReader;
            let oldest = match self.limits.full {
                QueueFull::DropOldest => self.volatile.pop_front(),
                _ => None,
            };
            let Some(oldest) = oldest else {
                let message = Lost::Message(push.message);
                tally.drop_message(reason, owner, message, qos, limit.label());
                return false;
            };
            self.volatile_bytes -= oldest.message.size_bytes();
            let message = Lost::Message(&oldest.message);
            tally.drop_message(reason, owner, message, qos, limit.label());
        }
        self.volatile_bytes += bytes;
        self.volatile.push_back(Volatile {
            message: push.message.clone(),
            barrier: push.record.filter(|record| record.is_barrier()).cloned(),
            retain: push.retain,
            subscription_ids: push.subscription_ids,
            group: push.group.cloned(),
        });
        true
    }

    /// Gives a QoS 1 or 2 delivery its sequence, and names it in its record if it is to be durable; says whether it is.
    pub(super) fn number(&mut self, queue: QueueId, push: &Push<'_>) -> (u64, bool) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let Some(record) = push.record.filter(|_| self.is_durable) else {
            return (sequence, false);
        };
        record.add(QueueRef {
            queue,
            sequence,
            qos: push.qos,
            retain: push.retain,
            subscription_ids: push.subscription_ids.clone(),
        });
        (sequence, true)
    }

    /// Adds an unsent delivery in the order of the sequences.
    pub(super) fn insert_unsent(&mut self, entry: Entry) {
        let bytes = entry.bytes as usize;
        self.queued_bytes += bytes;
        if entry.is_durable && matches!(entry.body, Body::Recorded(_) | Body::Loaded(..)) {
            self.memory_bytes += entry.body_bytes();
        }
        let is_last = self
            .last_sequence()
            .is_none_or(|last| last < entry.sequence);
        if !is_last {
            self.cold_from = self.cold_from.map(|cold| cold.min(entry.sequence));
        }
        if !self.has_backlog() {
            insert_by_sequence(&mut self.entries, self.sent, entry);
            return;
        }
        let is_recent = match self.cold.last() {
            Some(last) => last < entry.sequence,
            None => self
                .recent
                .front()
                .is_some_and(|oldest| oldest.sequence < entry.sequence),
        };
        if is_recent {
            insert_by_sequence(&mut self.recent, 0, entry);
            return;
        }
        // Taken back from a member of a share group, and seldom from between the cold ones.
        while self
            .cold
            .first()
            .is_some_and(|oldest| oldest < entry.sequence)
        {
            let stored = self.cold.pop_first();
            self.entries.extend(stored.map(Entry::from_stored));
        }
        insert_by_sequence(&mut self.entries, self.sent, entry);
    }

    /// Makes entries of the next cold deliveries, as many as may be read back at once, when no other is unsent.
    #[inline]
    pub(super) fn thaw(&mut self) {
        if self.has_backlog() && self.entries.len() <= self.sent {
            self.thaw_backlog();
        }
    }

    fn thaw_backlog(&mut self) {
        let mut bytes = 0;
        while self.entries.len() - self.sent < BACKLOG_CHUNK
            && (bytes == 0 || bytes < self.limits.memory_bytes)
            && let Some(stored) = self.cold.pop_first()
        {
            bytes += body_bytes(stored.bytes);
            self.entries.push_back(Entry::from_stored(stored));
        }
        if bytes == 0 {
            self.entries.append(&mut self.recent);
        }
    }

    /// Takes the oldest delivery that was never sent.
    fn pop_unsent(&mut self) -> Option<Entry> {
        self.entries
            .remove(self.sent)
            .or_else(|| self.cold.pop_first().map(Entry::from_stored))
            .or_else(|| self.recent.pop_front())
    }

    pub(super) fn take_volatile(
        &mut self,
        window: &Window,
        wakeup: &Arc<Wakeup>,
        owner: &ClientId,
        tally: &mut Tally,
        batch: &mut Batch<'_>,
    ) {
        while !batch.is_full(window)
            && let Some(next) = self.volatile.front()
        {
            if next
                .barrier
                .as_ref()
                .is_some_and(|record| record.holds_back(wakeup))
            {
                return;
            }
            let Some(next) = self.volatile.pop_front() else {
                return;
            };
            self.volatile_bytes -= next.message.size_bytes();
            if next.message.is_expired(window.now) {
                let (qos, message) = (QoS::AtMostOnce, Lost::Message(&next.message));
                tally.drop_message(DropReason::Expired, owner, message, qos, "");
                continue;
            }
            batch.push(Outgoing::Publish {
                message: next.message,
                packet_id: None,
                qos: QoS::AtMostOnce,
                dup: false,
                retain: next.retain,
                subscription_ids: next.subscription_ids,
            });
        }
        if self.volatile.is_empty() && self.volatile.capacity() > VOLATILE_KEPT {
            self.volatile = VecDeque::new();
        }
    }

    pub(super) fn take_releases(&mut self, wakeup: &Arc<Wakeup>, batch: &mut Batch<'_>) {
        while let Some(sequence) = self.releases.front().copied() {
            // What this connection has not sent yet, `resend` will.
            if let Some(index) = self.index_of(sequence)
                && index < self.resent
                && let Some(entry) = self.entries.get_mut(index)
                && let Phase::AwaitingRelease(record) = &entry.phase
            {
                if record.holds_back(wakeup) {
                    return;
                }
                entry.phase = Phase::Released;
                batch.push(Outgoing::PubRel(packet_id(sequence)));
            }
            self.releases.pop_front();
        }
    }

    /// Lists stored deliveries from `index` on, as many as fit the memory for bodies.
    pub(super) fn want_from(&self, index: usize, bytes_max: usize, wanted: &mut Vec<(u64, u64)>) {
        let mut bytes = 0;
        for entry in self.entries.range(index..) {
            match entry.body {
                Body::Stored(position) => wanted.push((entry.sequence, position)),
                Body::Gone => continue,
                _ => return,
            }
            bytes += entry.body_bytes();
            if wanted.len() >= BACKLOG_CHUNK || bytes >= bytes_max {
                return;
            }
        }
    }

    pub(super) fn index_of(&self, sequence: u64) -> Option<usize> {
        self.entries
            .binary_search_by_key(&sequence, |entry| entry.sequence)
            .ok()
    }

    /// The delivery that uses `packet_id` now.
    pub(super) fn find(&self, packet_id: PacketId, qos: QoS) -> Option<usize> {
        let oldest = self.entries.front()?.sequence;
        let wanted = u64::from(packet_id.get()) - 1;
        let sequence = oldest + (wanted + SEQUENCE_SPAN - oldest % SEQUENCE_SPAN) % SEQUENCE_SPAN;
        let index = self.index_of(sequence)?;
        let entry = self.entries.get(index)?;
        (index < self.sent && entry.qos == qos && !matches!(entry.phase, Phase::Settled))
            .then_some(index)
    }

    /// Ends a sent delivery.
    pub(super) fn settle(
        &mut self,
        index: usize,
        home: &Home,
        outcome: Settlement,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) {
        if index < self.resent {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        if let Settlement::Dropped(reason) = outcome {
            entry.drop_for(reason, &home.owner, "", tally);
        }
        entry.phase = Phase::Settled;
        let body = std::mem::replace(&mut entry.body, Body::Gone);
        let ended = Ended::of(entry, home.queue);
        entry.shared = None;
        self.forget_memory(&body, ended);
        ended.report(body, journal);
        self.pop_settled();
    }

    /// Drops the oldest delivery that was never sent.
    pub(super) fn drop_unsent(
        &mut self,
        home: &Home,
        (reason, detail): (DropReason, &'static str),
        journal: &dyn Journal,
        tally: &mut Tally,
    ) {
        let Some(entry) = self.pop_unsent() else {
            return;
        };
        entry.drop_for(reason, &home.owner, detail, tally);
        let ended = Ended::of(&entry, home.queue);
        self.queued_bytes = self.queued_bytes.saturating_sub(ended.bytes as usize);
        self.forget_memory(&entry.body, ended);
        ended.report(entry.body, journal);
    }

    /// Gives up an entry whose body is lost; the store has already reported it.
    pub(super) fn forget(&mut self, index: usize) {
        if index >= self.sent {
            if let Some(entry) = self.entries.remove(index) {
                self.queued_bytes = self.queued_bytes.saturating_sub(entry.bytes as usize);
            }
        } else if let Some(entry) = self.entries.get_mut(index) {
            entry.phase = Phase::Settled;
            entry.body = Body::Gone;
            self.pop_settled();
        }
    }

    pub(super) fn pop_settled(&mut self) {
        while self.sent > 0
            && self
                .entries
                .front()
                .is_some_and(|entry| matches!(entry.phase, Phase::Settled))
        {
            self.entries.pop_front();
            self.sent -= 1;
            self.resent = self.resent.saturating_sub(1);
        }
    }

    pub(super) fn forget_memory(&mut self, body: &Body, ended: Ended) {
        let held = match body {
            Body::Recorded(_) => ended.is_durable,
            Body::Loaded(..) => true,
            Body::Live(_) | Body::Stored(_) | Body::Gone => false,
        };
        if held {
            self.memory_bytes = self.memory_bytes.saturating_sub(body_bytes(ended.bytes));
        }
    }

    /// Lets bodies beyond the memory limit go once they can be read back.
    pub(super) fn evict(&mut self) {
        let bytes_max = self.limits.memory_bytes;
        if self.memory_bytes <= bytes_max {
            return;
        }
        let last = self.last_sequence().unwrap_or(0);
        let from = *self.cold_from.get_or_insert(last);
        let start = place_of(&self.entries, from).max(self.sent);
        let recent = place_of(&self.recent, from);
        let entries = self.entries.range_mut(start..);
        for entry in entries.chain(self.recent.range_mut(recent..)) {
            if let Body::Recorded(record) = &entry.body {
                match record.position() {
                    Some(position) if position != NO_POSITION && entry.is_durable => {
                        entry.body = Body::Stored(position);
                        let bytes = entry.body_bytes();
                        self.memory_bytes = self.memory_bytes.saturating_sub(bytes);
                    }
                    _ => break,
                }
            }
            self.cold_from = Some(entry.sequence + 1);
        }
        self.freeze(start);
    }

    /// Makes cold ones of the stored entries: of those from index `start` on if there is nothing cold yet, else of the
    /// recent ones.
    fn freeze(&mut self, start: usize) {
        // What is asked for must stay an entry.
        if self.cold.is_empty() && self.recent.is_empty() && !self.is_loading {
            let first = self.entries.get(start);
            if first.is_some_and(|entry| entry.as_stored().is_some()) {
                self.recent = self.entries.split_off(start);
                self.entries.shrink_to(self.entries.len() * 2);
            }
        }
        self.freeze_recent();
    }

    fn freeze_recent(&mut self) {
        while let Some(stored) = self.recent.front().and_then(Entry::as_stored) {
            self.recent.pop_front();
            self.cold.insert(stored);
        }
    }

    /// Lets bodies that were read back go; the next connection reads them again.
    pub(super) fn unload(&mut self) {
        for entry in self.entries.iter_mut().chain(&mut self.recent) {
            if let Body::Loaded(loaded) = &entry.body {
                entry.body = Body::Stored(loaded.position);
                let bytes = entry.body_bytes();
                self.memory_bytes = self.memory_bytes.saturating_sub(bytes);
            }
        }
        while self.entries.len() > self.sent
            && let Some(stored) = self.entries.back().and_then(Entry::as_stored)
        {
            self.entries.pop_back();
            self.cold.insert(stored);
        }
        self.freeze_recent();
    }
}

/// The index of the first entry whose sequence is not below `sequence`.
fn place_of(entries: &VecDeque<Entry>, sequence: u64) -> usize {
    // Seldom within.
    match (entries.front(), entries.back()) {
        (Some(first), _) if first.sequence >= sequence => 0,
        (_, Some(last)) if last.sequence < sequence => entries.len(),
        _ => entries.partition_point(|entry| entry.sequence < sequence),
    }
}

/// Inserts behind the first `after` entries.
fn insert_by_sequence(entries: &mut VecDeque<Entry>, after: usize, entry: Entry) {
    let is_last = entries
        .back()
        .is_none_or(|last| last.sequence < entry.sequence);
    match is_last {
        true => entries.push_back(entry),
        false => {
            let index = place_of(entries, entry.sequence).max(after);
            entries.insert(index, entry);
        }
    }
}

/// Bodies asked for in one go.
pub(super) const BACKLOG_CHUNK: usize = 512;
/// Places for QoS 0 deliveries that an empty mailbox keeps allocated.
pub(super) const VOLATILE_KEPT: usize = 64;
