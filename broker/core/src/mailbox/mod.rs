//! The mailbox seam: a bounded queue from many publishers to one receiver, with settlement.
//!
//! Invariants:
//! - Deliveries of one quality of service leave in the order of their pushes [MQTT5-4.6.0-5], backlog before live ones.
//! - A QoS 1 or 2 delivery has a sequence number for life; its packet id is the number modulo 65,535 plus 1. Sending
//!   pauses when the span from the oldest unsettled delivery would reach 65,535, so no id is in use twice.
//! - Every QoS 1 or 2 delivery ends exactly once, by [`Settlement`]. For a durable delivery that end is durable too.
//! - Nothing passes a delivery whose record must be durable first (received at QoS 2, or a will).
//! - Memory is bounded: counts and bytes by the queue limits, bodies of durable deliveries by `mailbox_memory_bytes`;
//!   what is beyond waits as a position in the store.
//!
//! Does not know: packets on the wire, subscriptions, sockets. The receiver's task encodes what it takes.

mod entry;
mod shared;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use shared::{GivingUp, Offer, Place, Returned, Unplaced};

use crate::action::{Action, QueueId};
use crate::counters::{DropReason, Limit, Tally};
use crate::history::Lost;
use crate::journal::{Asker, BacklogRequest, Journal};
use crate::limits::{Limits, QueueFull, QueueLimits};
use crate::message::{ClientId, Message};
use crate::queue_refs::QueueRefs;
use crate::record::Record;
use crate::share_group::ShareGroup;
use crate::sync::lock;
use crate::time::Timestamp;
use crate::wakeup::Wakeup;
use entry::{Available, Body, Ended, Entry, Loaded, Phase, SEQUENCE_SPAN, packet_id};
use motemq_codec::{PacketId, QoS};
use state::State;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Something for the receiver's task to encode.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A PUBLISH.
    Publish {
        /// The message.
        message: Arc<Message>,
        /// The packet id, for QoS 1 and 2.
        packet_id: Option<PacketId>,
        /// The quality of service of this delivery.
        qos: QoS,
        /// Sent before on an earlier connection [MQTT5-4.4.0-1].
        dup: bool,
        /// The RETAIN flag.
        retain: bool,
        /// The subscription identifiers.
        subscription_ids: Option<Arc<[u32]>>,
    },
    /// A PUBREL.
    PubRel(PacketId),
}

/// How a delivery ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Settlement {
    /// The receiver has it.
    Accepted,
    /// It was given up, for this reason.
    Dropped(DropReason),
}

/// A delivery to push.
#[derive(Debug)]
pub(crate) struct Push<'a> {
    pub(crate) message: &'a Arc<Message>,
    /// The record that carries the message, if there is one.
    pub(crate) record: Option<&'a Arc<Record>>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Option<Arc<[u32]>>,
    /// The share group that gives it, for QoS 0.
    pub(crate) group: Option<&'a Arc<ShareGroup>>,
}

/// What a connection takes with it into [`Mailbox::take`].
#[derive(Copy, Clone, Debug)]
pub(crate) struct Window {
    pub(crate) epoch: u64,
    /// Unacknowledged QoS 1 and 2 messages allowed.
    pub(crate) inflight_max: u16,
    /// At most so many deliveries in one go.
    pub(crate) count_max: usize,
    /// No further delivery once so many bytes are taken.
    pub(crate) bytes_max: usize,
    pub(crate) now: Timestamp,
}

/// What one call of [`Mailbox::take`] has taken so far.
#[derive(Debug)]
struct Batch<'a> {
    out: &'a mut Vec<Outgoing>,
    bytes: usize,
}

impl Batch<'_> {
    fn is_full(&self, window: &Window) -> bool {
        self.out.len() >= window.count_max || self.bytes >= window.bytes_max
    }

    fn push(&mut self, outgoing: Outgoing) {
        if let Outgoing::Publish { message, .. } = &outgoing {
            self.bytes += message.size_bytes();
        }
        self.out.push(outgoing);
    }
}

/// What a mailbox holds, at one moment.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// A connection takes deliveries.
    pub is_online: bool,
    /// Deliveries that wait to be sent.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// QoS 1 and 2 deliveries sent on this connection and not settled.
    pub in_flight: usize,
    /// When the oldest that waits was received, if its body is in memory.
    pub oldest_at: Option<Timestamp>,
}

/// The receiver's connection is not the newest one of its session any more.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fenced;

/// How a packet about a delivery was taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Handled {
    /// As expected.
    Done,
    /// PUBREL may leave now.
    SendPubRel,
    /// No such packet id is in use for this step.
    UnknownPacketId,
}

/// Whose a mailbox is.
#[derive(Debug)]
struct Home {
    queue: QueueId,
    /// The client, or `$share/name/filter`: for the history.
    owner: ClientId,
}

/// The queue of one receiver.
#[derive(Debug)]
pub struct Mailbox {
    home: Home,
    /// The policy is `refuse`; outside of the lock, because every publish asks.
    may_refuse: AtomicBool,
    wakeup: Arc<Wakeup>,
    state: Mutex<State>,
}

impl Mailbox {
    /// An empty, offline mailbox.
    #[must_use]
    pub(crate) fn new(queue: QueueId, owner: ClientId, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            home: Home { queue, owner },
            may_refuse: AtomicBool::new(limits.queue_full == QueueFull::Refuse),
            wakeup: Arc::new(Wakeup::default()),
            state: Mutex::new(State {
                limits: QueueLimits::from(limits),
                ..State::default()
            }),
        })
    }

    /// Changes the limits from the next delivery on; what is queued stays.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        lock(&self.state).limits = QueueLimits::from(limits);
        let may_refuse = limits.queue_full == QueueFull::Refuse;
        self.may_refuse.store(may_refuse, Ordering::Relaxed);
    }

    /// The mailbox of a durable session as the store has it.
    #[must_use]
    pub(crate) fn restored(
        queue: QueueId,
        owner: ClientId,
        limits: &Limits,
        mut refs: QueueRefs,
        next_sequence: u64,
        sent_below: Option<u64>,
    ) -> Arc<Self> {
        let mailbox = Self::new(queue, owner, limits);
        let mut state = lock(&mailbox.state);
        state.is_durable = true;
        state.next_sequence = next_sequence;
        // A released delivery was sent. Of the others, those were that the session's row says; after a crash with the client
        // connected, as many as fit a window may have been. They are sent again, with DUP [MQTT5-3.3.1-1].
        let released = refs.values().rev().find(|stored| stored.is_released);
        let released = released.map(|stored| stored.sequence);
        let mut maybe_sent = usize::from(limits.inflight_messages_max);
        while let Some(sequence) = refs.first() {
            let is_sent = match sent_below {
                Some(sent_below) => sequence < sent_below,
                None => maybe_sent > 0,
            };
            if !is_sent && released.is_none_or(|released| sequence > released) {
                break;
            }
            let Some(stored) = refs.pop_first() else {
                break;
            };
            let mut entry = Entry::from_stored(stored);
            entry.maybe_sent = is_sent && sent_below.is_none();
            maybe_sent = maybe_sent.saturating_sub(1);
            state.entries.push_back(entry);
        }
        state.sent = state.entries.len();
        state.queued_bytes = usize::try_from(refs.bytes()).unwrap_or(usize::MAX);
        state.cold = refs;
        state.cold_from = Some(0);
        drop(state);
        mailbox
    }

    /// The durable name of the queue.
    #[must_use]
    pub fn queue(&self) -> QueueId {
        self.home.queue
    }

    /// Whose it is: a client, or `$share/name/filter`.
    #[must_use]
    pub(crate) fn owner(&self) -> &ClientId {
        &self.home.owner
    }

    /// Wakes the receiver's task.
    #[must_use]
    pub fn wakeup(&self) -> &Arc<Wakeup> {
        &self.wakeup
    }

    /// Deliveries waiting to be sent, and their bytes.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (
            state.unsent() + state.volatile.len(),
            state.queued_bytes + state.volatile_bytes,
        )
    }

    /// What waits and what is on its way, in one look.
    #[must_use]
    pub fn load(&self) -> Load {
        let state = lock(&self.state);
        let messages = state.unsent() + state.volatile.len();
        Load {
            is_online: state.is_online,
            messages,
            bytes: state.queued_bytes + state.volatile_bytes,
            in_flight: match state.is_online {
                true => state.in_flight,
                false => 0,
            },
            oldest_at: (messages > 0).then(|| state.oldest_at()).flatten(),
        }
    }

    /// The limit for which another QoS 1 or 2 delivery would be refused under the `refuse` policy.
    #[must_use]
    pub(crate) fn refuses(&self, bytes: usize) -> Option<Limit> {
        match self.may_refuse.load(Ordering::Relaxed) {
            true => lock(&self.state).full(bytes),
            false => None,
        }
    }

    /// Whether another delivery would be kept, and none given up for it.
    #[must_use]
    pub(crate) fn has_room(&self, qos: QoS, bytes: usize) -> bool {
        let state = lock(&self.state);
        let full = match qos {
            QoS::AtMostOnce => state.volatile_full(bytes),
            QoS::AtLeastOnce | QoS::ExactlyOnce => state.full(bytes),
        };
        full.is_none()
    }

    /// Whether a connection takes deliveries.
    #[must_use]
    pub(crate) fn is_online(&self) -> bool {
        lock(&self.state).is_online
    }

    /// Whether a QoS 1 or 2 delivery pushed now must be durable.
    #[must_use]
    pub(crate) fn is_durable(&self) -> bool {
        lock(&self.state).is_durable
    }

    /// Appends a delivery and wakes the receiver, or drops it as the limits say.
    pub(crate) fn push(&self, push: Push<'_>, journal: &dyn Journal, tally: &mut Tally) {
        let mut state = lock(&self.state);
        let pushed = if push.qos == QoS::AtMostOnce {
            state.push_volatile(push, &self.home.owner, tally)
        } else {
            self.push_entry(&mut state, push, journal, tally)
        };
        drop(state);
        if pushed {
            self.wakeup.wake();
        }
    }

    fn push_entry(
        &self,
        state: &mut State,
        push: Push<'_>,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) -> bool {
        let bytes = push.message.size_bytes();
        if let Some(limit) = state.full(bytes) {
            tally.reach(limit);
            match self.queue_full(state) {
                QueueFull::DropOldest => {
                    while state.is_full(bytes) && state.unsent() > 0 {
                        let reason = (DropReason::QueueFull, limit.label());
                        state.drop_unsent(&self.home, reason, journal, tally);
                    }
                }
                QueueFull::DropNewest | QueueFull::Refuse => {
                    self.drop_push(&push, limit, tally);
                    return false;
                }
                QueueFull::Disconnect => {
                    self.drop_push(&push, limit, tally);
                    state.overflowed = true;
                    state.has_trouble = true;
                    return state.is_online;
                }
            }
        }
        let (sequence, is_durable) = state.number(self.home.queue, &push);
        let (message, record) = (push.message, push.record);
        let mut entry = Entry::new(sequence, message, record, push.qos, push.retain, is_durable);
        entry.subscription_ids = push.subscription_ids.map(Box::new);
        state.insert_unsent(entry);
        if is_durable {
            state.evict();
        }
        state.is_online
    }

    #[cold]
    fn drop_push(&self, push: &Push<'_>, limit: Limit, tally: &mut Tally) {
        let (owner, lost) = (&self.home.owner, Lost::Message(push.message));
        let detail = limit.label();
        tally.drop_message(DropReason::QueueFull, owner, lost, push.qos, detail);
    }

    /// The policy at the queue limits. A share group has no one receiver to disconnect.
    fn queue_full(&self, state: &State) -> QueueFull {
        match state.limits.full {
            QueueFull::Disconnect if self.home.queue.is_share_group() => QueueFull::DropOldest,
            policy => policy,
        }
    }

    /// Connects the receiver of `epoch`: everything unsettled is sent again before anything new [MQTT5-4.4.0-1].
    /// A share group gives it at most `window` deliveries at a time.
    pub(crate) fn attach(&self, epoch: u64, is_durable: bool, window: u16) {
        self.wakeup.fence(epoch);
        let mut state = lock(&self.state);
        state.epoch = epoch;
        state.is_online = true;
        state.is_durable = is_durable;
        state.overflowed = false;
        state.window = window.into();
        state.resent = 0;
        state.in_flight = 0;
        // `resend` sees to the releases that an earlier connection left.
        state.releases.clear();
    }

    /// Takes the receiver of `epoch` off; QoS 0 deliveries that wait are dropped. Says below which sequence all were sent.
    pub(crate) fn detach(&self, epoch: u64, tally: &mut Tally) -> u64 {
        self.wakeup.clear(epoch);
        let mut state = lock(&self.state);
        let sent_below = state.sent_below();
        if state.epoch != epoch {
            return sent_below;
        }
        state.is_online = false;
        for waiting in std::mem::take(&mut state.volatile) {
            let (reason, owner) = (DropReason::OfflineQoS0, &self.home.owner);
            let lost = Lost::Message(&waiting.message);
            tally.drop_message(reason, owner, lost, QoS::AtMostOnce, "");
        }
        state.volatile_bytes = 0;
        state.evict();
        state.unload();
        state.entries.shrink_to_fit();
        state.recent.shrink_to_fit();
        sent_below
    }

    /// Empties the mailbox of a session that has ended.
    pub(crate) fn clear(&self, journal: &dyn Journal, tally: &mut Tally) {
        let mut state = lock(&self.state);
        let epoch = state.epoch;
        let next_sequence = state.next_sequence;
        tally.lose_waiting(&self.home.owner, state.unsent() + state.volatile.len());
        // The end of the session removes the cold ones from the store.
        let entries = std::mem::take(&mut state.entries);
        let recent = std::mem::take(&mut state.recent);
        *state = State {
            limits: state.limits,
            epoch,
            next_sequence,
            ..State::default()
        };
        drop(state);
        for entry in entries.into_iter().chain(recent) {
            let ended = Ended::of(&entry, self.home.queue);
            if ended.queue != self.home.queue {
                // A QoS 2 delivery of a share group that was sent: nobody else may have it [MQTT5-4.8.2-5].
                ended.report(entry.body, journal);
            } else if let (Body::Recorded(record), true) = (&entry.body, entry.is_durable) {
                // The end of the session removes the deliveries from the store; a pending record need not wait for them.
                let _ = record.settle(self.home.queue, entry.sequence);
            }
        }
    }

    /// Takes what may be sent now. Resent deliveries come first, then PUBRELs, QoS 0, and new QoS 1 and 2. `true` when the
    /// window for one call was used up, so that there may be more.
    pub(crate) fn take(
        self: &Arc<Self>,
        window: Window,
        journal: &dyn Journal,
        tally: &mut Tally,
        out: &mut Vec<Outgoing>,
    ) -> Result<bool, Fenced> {
        let mut state = lock(&self.state);
        if state.epoch != window.epoch || state.has_trouble && self.is_over(&mut state, tally) {
            return Err(Fenced);
        }
        let mut wanted = Vec::new();
        let mut batch = Batch { out, bytes: 0 };
        let is_resent = self.resend(&mut state, &window, journal, tally, &mut wanted, &mut batch);
        // The window holds back neither PUBREL nor QoS 0 [MQTT5-4.9.0-3].
        state.take_releases(&self.wakeup, &mut batch);
        state.take_volatile(&window, &self.wakeup, &self.home.owner, tally, &mut batch);
        if is_resent {
            self.take_new(&mut state, &window, journal, tally, &mut wanted, &mut batch);
        }
        let is_full = batch.is_full(&window);
        self.read_back(state, wanted, journal);
        Ok(is_full)
    }

    /// Asks for the bodies of the `wanted` deliveries, one request at a time.
    fn read_back(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        wanted: Vec<(u64, u64)>,
        journal: &dyn Journal,
    ) {
        let request = !wanted.is_empty() && !state.is_loading;
        state.is_loading |= request;
        drop(state);
        if request {
            journal.read_backlog(BacklogRequest {
                asker: Asker::Mailbox(self.clone()),
                wanted,
            });
        }
    }

    /// Sends again what an earlier connection left unsettled. `true` when nothing of that is left to send.
    fn resend(
        &self,
        state: &mut State,
        window: &Window,
        journal: &dyn Journal,
        tally: &mut Tally,
        wanted: &mut Vec<(u64, u64)>,
        batch: &mut Batch<'_>,
    ) -> bool {
        while state.resent < state.sent {
            if batch.is_full(window) || state.in_flight >= usize::from(window.inflight_max) {
                return false;
            }
            let index = state.resent;
            let Some(entry) = state.entries.get_mut(index) else {
                return true;
            };
            match &entry.phase {
                Phase::Settled => {
                    state.resent += 1;
                    continue;
                }
                // Never sent, so never here.
                Phase::AwaitingAssignment(_) => return true,
                Phase::AwaitingRelease(record) => {
                    if record.holds_back(&self.wakeup) {
                        return false;
                    }
                    entry.phase = Phase::Released;
                    batch.push(Outgoing::PubRel(packet_id(entry.sequence)));
                }
                Phase::Released => batch.push(Outgoing::PubRel(packet_id(entry.sequence))),
                Phase::Publish => match entry.message(&self.wakeup) {
                    // A QoS 2 exchange that may have begun is finished, expired or not [MQTT5-4.3.3-13].
                    Available::Now(message)
                        if entry.maybe_sent
                            && entry.qos == QoS::AtLeastOnce
                            && message.is_expired(window.now) =>
                    {
                        let expired = Settlement::Dropped(DropReason::Expired);
                        state.settle(index, &self.home, expired, journal, tally);
                        continue;
                    }
                    Available::Now(message) => batch.push(entry.publish(message, true)),
                    Available::Later => return false,
                    Available::InStore => {
                        state.want_from(index, usize::MAX, wanted);
                        return false;
                    }
                },
            }
            state.resent += 1;
            state.in_flight += 1;
        }
        true
    }

    fn take_new(
        &self,
        state: &mut State,
        window: &Window,
        journal: &dyn Journal,
        tally: &mut Tally,
        wanted: &mut Vec<(u64, u64)>,
        batch: &mut Batch<'_>,
    ) {
        while !batch.is_full(window) && state.in_flight < usize::from(window.inflight_max) {
            state.thaw();
            let oldest = state.entries.front().map_or(0, |entry| entry.sequence);
            let sent = state.sent;
            let Some(entry) = state.entries.get_mut(sent) else {
                return;
            };
            if entry.sequence - oldest >= SEQUENCE_SPAN {
                return;
            }
            if let Phase::AwaitingAssignment(record) = &entry.phase {
                if record.holds_back(&self.wakeup) {
                    return;
                }
                entry.phase = Phase::Publish;
            }
            let message = match entry.message(&self.wakeup) {
                Available::Now(message) => message,
                Available::Later => return,
                Available::InStore => {
                    state.want_from(state.sent, state.limits.memory_bytes, wanted);
                    return;
                }
            };
            if message.is_expired(window.now) {
                let expired = (DropReason::Expired, "");
                state.drop_unsent(&self.home, expired, journal, tally);
                continue;
            }
            batch.push(entry.publish(message, false));
            state.queued_bytes = state.queued_bytes.saturating_sub(entry.bytes as usize);
            state.sent += 1;
            state.resent = state.sent;
            state.in_flight += 1;
        }
    }

    /// PUBACK: the QoS 1 delivery has ended.
    pub(crate) fn handle_puback(
        &self,
        epoch: u64,
        packet_id: PacketId,
        outcome: Settlement,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) -> Result<Handled, Fenced> {
        let mut state = self.lock_epoch(epoch)?;
        let Some(index) = state.find(packet_id, QoS::AtLeastOnce) else {
            return Ok(Handled::UnknownPacketId);
        };
        state.settle(index, &self.home, outcome, journal, tally);
        Ok(Handled::Done)
    }

    /// PUBREC: a success releases the QoS 2 delivery, durably before PUBREL; an error ends it [MQTT5-4.4.0-2].
    pub(crate) fn handle_pubrec(
        &self,
        epoch: u64,
        packet_id: PacketId,
        outcome: Settlement,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) -> Result<Handled, Fenced> {
        let mut state = self.lock_epoch(epoch)?;
        let Some(index) = state.find(packet_id, QoS::ExactlyOnce) else {
            return Ok(Handled::UnknownPacketId);
        };
        if outcome != Settlement::Accepted {
            state.settle(index, &self.home, outcome, journal, tally);
            return Ok(Handled::Done);
        }
        let Some(entry) = state.entries.get_mut(index) else {
            return Ok(Handled::UnknownPacketId);
        };
        if let Some(shared) = &entry.shared
            && !shared.is_assigned
        {
            // It was never this member's in the store, and now it is no one else's any more.
            state.disown(index, self.home.queue, journal);
            return Ok(Handled::SendPubRel);
        }
        match entry.phase {
            Phase::Publish if entry.is_durable => {
                let sequence = entry.sequence;
                let record = Record::new(Action::Release {
                    queue: self.home.queue,
                    sequence,
                });
                entry.phase = Phase::AwaitingRelease(record.clone());
                state.releases.push_back(sequence);
                journal.submit(record);
                drop(state);
                self.wakeup.wake();
                Ok(Handled::Done)
            }
            Phase::Publish => {
                entry.phase = Phase::Released;
                Ok(Handled::SendPubRel)
            }
            Phase::AwaitingRelease(_) => Ok(Handled::Done),
            Phase::Released => Ok(Handled::SendPubRel),
            Phase::Settled | Phase::AwaitingAssignment(_) => Ok(Handled::UnknownPacketId),
        }
    }

    /// PUBCOMP: the QoS 2 delivery has ended.
    pub(crate) fn handle_pubcomp(
        &self,
        epoch: u64,
        packet_id: PacketId,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) -> Result<Handled, Fenced> {
        let mut state = self.lock_epoch(epoch)?;
        let Some(index) = state.find(packet_id, QoS::ExactlyOnce) else {
            return Ok(Handled::UnknownPacketId);
        };
        let released = state
            .entries
            .get(index)
            .is_some_and(|entry| matches!(entry.phase, Phase::Released));
        if !released {
            return Ok(Handled::UnknownPacketId);
        }
        state.settle(index, &self.home, Settlement::Accepted, journal, tally);
        Ok(Handled::Done)
    }

    /// A delivery that was taken but is not sent ends as if delivered: too large for the receiver [MQTT5-3.1.2-25], or not for it.
    pub(crate) fn give_up(
        &self,
        packet_id: PacketId,
        qos: QoS,
        reason: DropReason,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) {
        let mut state = lock(&self.state);
        if let Some(index) = state.find(packet_id, qos) {
            let dropped = Settlement::Dropped(reason);
            state.settle(index, &self.home, dropped, journal, tally);
        }
        drop(state);
        self.wakeup.wake();
    }

    /// Receives message bodies asked for with a [`BacklogRequest`]; `None` for one that cannot be read.
    pub fn handle_backlog(&self, bodies: Vec<(u64, Option<Arc<Message>>)>) {
        let mut state = lock(&self.state);
        state.is_loading = false;
        for (sequence, message) in bodies {
            let Some(index) = state.index_of(sequence) else {
                continue;
            };
            let Some(entry) = state.entries.get_mut(index) else {
                continue;
            };
            let Body::Stored(position) = entry.body else {
                continue;
            };
            let bytes = entry.body_bytes();
            match message {
                Some(message) => {
                    entry.body = Body::Loaded(Box::new(Loaded { message, position }));
                    state.memory_bytes += bytes;
                }
                None => {
                    state.unreadable += 1;
                    state.has_trouble = true;
                    state.forget(index);
                }
            }
        }
        drop(state);
        self.wakeup.wake();
    }

    /// Sees to what seldom happens; whether the receiver must be disconnected.
    #[cold]
    #[inline(never)]
    fn is_over(&self, state: &mut State, tally: &mut Tally) -> bool {
        self.count_unreadable(state, tally);
        state.has_trouble = state.overflowed;
        state.overflowed
    }

    /// Counts deliveries whose bodies the store could not give back.
    fn count_unreadable(&self, state: &mut State, tally: &mut Tally) {
        for _ in 0..std::mem::take(&mut state.unreadable) {
            let owner = &self.home.owner;
            let lost = Lost::Unknown;
            tally.drop_message(DropReason::Unreadable, owner, lost, QoS::AtLeastOnce, "");
        }
    }

    /// Whether the receiver must be disconnected because its queue overflowed.
    pub(crate) fn has_overflowed(&self) -> bool {
        lock(&self.state).overflowed
    }

    fn lock_epoch(&self, epoch: u64) -> Result<MutexGuard<'_, State>, Fenced> {
        let state = lock(&self.state);
        if state.epoch == epoch {
            Ok(state)
        } else {
            Err(Fenced)
        }
    }
}
