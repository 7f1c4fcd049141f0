//! What a share group does with mailboxes: its own, the backlog, and those of its members.
//!
//! A delivery that a group gives to a member keeps its place in the group's queue, in memory as [`Shared`] and in the store
//! as the group's; only its packet id is the member's. So it can be taken back, and a member's end settles it where it is.
//!
//! Does not know: who the members are, whose turn it is.

use super::entry::{Body, Ended, Entry, Phase, Shared};
use super::state::State;
use super::{Mailbox, Push};
use crate::action::{Action, PublishAction, QueueId, QueueRef, RetainedEffect};
use crate::counters::{DropReason, Tally};
use crate::journal::Journal;
use crate::limits::{QueueFull, ShareRedispatch};
use crate::message::Message;
use crate::record::Record;
use crate::share_group::ShareGroup;
use crate::sync::lock;
use crate::time::Timestamp;
use motemq_codec::{QoS, SubscribeOptions};
use std::sync::Arc;

/// A message for a share group that no member has yet.
#[derive(Debug)]
pub(crate) struct Unplaced<'a> {
    pub(crate) message: &'a Arc<Message>,
    pub(crate) record: Option<&'a Arc<Record>>,
    pub(crate) qos: QoS,
    /// Its place in the group's queue, for QoS 1 and 2.
    pub(crate) sequence: Option<u64>,
    /// The record names it.
    pub(crate) is_durable: bool,
}

impl Unplaced<'_> {
    fn entry(&self, sequence: u64, qos: QoS, retain: bool) -> Entry {
        let is_durable = self.is_durable;
        Entry::new(sequence, self.message, self.record, qos, retain, is_durable)
    }
}

/// A delivery offered to a member.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    pub(crate) group: &'a Arc<ShareGroup>,
    pub(crate) unplaced: &'a Unplaced<'a>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Option<Arc<[u32]>>,
    /// The member takes it into its queue even when its window is full.
    pub(crate) is_queued: bool,
}

/// Who a delivery from the backlog goes to.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) epoch: u64,
    pub(crate) group: &'a Arc<ShareGroup>,
    pub(crate) options: SubscribeOptions,
    pub(crate) subscription_ids: Option<Arc<[u32]>>,
    /// The member's session is in the store.
    pub(crate) is_durable: bool,
}

/// A delivery on its way from the backlog to a member.
#[derive(Debug)]
pub(crate) struct Pulled(Entry);

/// A delivery that comes back from a member.
#[derive(Debug)]
pub(crate) struct Returned {
    entry: Entry,
    /// The member's queue.
    queue: QueueId,
}

/// What a member that leaves has of its groups.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    pub(crate) returned: Vec<(Arc<ShareGroup>, Returned)>,
    pub(crate) volatile: Vec<Leftover>,
}

/// A QoS 0 message that a member has not had.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) group: Arc<ShareGroup>,
    pub(crate) message: Arc<Message>,
    /// The record that it waits for.
    pub(crate) barrier: Option<Arc<Record>>,
}

/// Why a member gives up what its groups gave it.
#[derive(Copy, Clone, Debug)]
pub(crate) enum GivingUp<'a> {
    /// It left this group: what was sent, it may still acknowledge [MQTT5-3.10.4-3].
    Unsubscribed(&'a Arc<ShareGroup>),
    /// Its connection ended: the QoS 1 deliveries that it has not acknowledged too, if that is configured.
    Disconnected(ShareRedispatch),
    /// Its session ended.
    Ended,
}

impl Returned {
    /// Ends the delivery: its group is no more.
    pub(crate) fn discard(self, journal: &dyn Journal) {
        let ended = Ended::of(&self.entry, self.queue);
        ended.report(self.entry.body, journal);
    }
}

/// The backlog.
impl Mailbox {
    /// Whether the store keeps what is pushed from here on.
    pub(crate) fn set_durable(&self, is_durable: bool) {
        lock(&self.state).is_durable = is_durable;
    }

    /// Gives `unplaced` its place in the queue; when others wait before it, or it must wait, it is queued at once and the
    /// answer is `false`.
    pub(crate) fn number(
        &self,
        unplaced: &mut Unplaced<'_>,
        waits: bool,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) -> bool {
        let push = Push {
            message: unplaced.message,
            record: unplaced.record,
            qos: unplaced.qos,
            retain: unplaced.message.retain,
            subscription_ids: None,
            group: None,
        };
        let mut state = lock(&self.state);
        if waits || state.len() > 0 {
            self.push_entry(&mut state, push, journal, tally);
            drop(state);
            self.wakeup.wake();
            return false;
        }
        let (sequence, is_durable) = state.number(self.home.queue, &push);
        unplaced.sequence = Some(sequence);
        unplaced.is_durable = is_durable;
        true
    }

    /// Queues a message that has its place already and that no member took.
    pub(crate) fn queue_numbered(
        &self,
        unplaced: &Unplaced<'_>,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) {
        let Some(sequence) = unplaced.sequence else {
            return;
        };
        let retain = unplaced.message.retain;
        let entry = unplaced.entry(sequence, unplaced.qos, retain);
        let bytes = entry.bytes as usize;
        let mut state = lock(&self.state);
        let mut detail = "";
        if let Some(limit) = state.full(bytes) {
            tally.reach(limit);
            detail = limit.label();
        }
        if state.is_full(bytes) && self.queue_full(&state) != QueueFull::DropOldest {
            drop(state);
            entry.drop_for(DropReason::QueueFull, &self.home.owner, detail, tally);
            Ended::of(&entry, self.home.queue).report(entry.body, journal);
            return;
        }
        while state.is_full(bytes) && state.len() > 0 {
            let dropped = (DropReason::QueueFull, detail);
            state.drop_unsent(&self.home, dropped, journal, tally);
        }
        state.insert_unsent(entry);
        state.evict();
        drop(state);
        self.wakeup.wake();
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.state).len() == 0
    }

    /// Takes at most `count` deliveries for one member, oldest first, without those that have expired.
    pub(crate) fn pull(
        self: &Arc<Self>,
        count: usize,
        needs_bodies: bool,
        now: Timestamp,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) -> Vec<Pulled> {
        let mut pulled = Vec::new();
        let mut wanted = Vec::new();
        let mut state = lock(&self.state);
        self.count_unreadable(&mut state, tally);
        while pulled.len() < count {
            state.thaw();
            let Some(entry) = state.entries.front() else {
                break;
            };
            let message = match &entry.body {
                Body::Live(message) => Some(message),
                Body::Loaded(loaded) => Some(&loaded.message),
                Body::Recorded(record) => {
                    if record.is_barrier() && record.holds_back(&self.wakeup) {
                        break;
                    }
                    record.message()
                }
                Body::Stored(_) if needs_bodies => {
                    state.want_from(0, state.limits.memory_bytes, &mut wanted);
                    break;
                }
                Body::Stored(_) | Body::Gone => None,
            };
            if message.is_some_and(|message| message.is_expired(now)) {
                let expired = (DropReason::Expired, "");
                state.drop_unsent(&self.home, expired, journal, tally);
                continue;
            }
            pulled.extend(state.remove_unsent(0, self.home.queue).map(Pulled));
        }
        self.read_back(state, wanted, journal);
        pulled
    }

    /// Puts a delivery back in its old place.
    pub(crate) fn take_back(&self, returned: Returned, journal: &dyn Journal) {
        let Returned { mut entry, queue } = returned;
        let Some(shared) = entry.shared.take() else {
            return;
        };
        if !shared.is_assigned {
            // The store has it here, or nowhere.
        } else if let Some(position) = entry.position() {
            let to = QueueRef {
                queue: self.home.queue,
                sequence: shared.sequence,
                qos: entry.qos,
                retain: shared.retain,
                subscription_ids: None,
            };
            journal.submit(Record::new(Action::Move {
                from: (queue, entry.sequence),
                to,
                position,
                bytes: entry.bytes,
            }));
        } else if let Some(message) = entry.held_message() {
            // Its record is still on its way, so it cannot be moved: it is what it was before the member got it.
            let ended = Ended::of(&entry, queue);
            let body = std::mem::replace(&mut entry.body, Body::Live(message));
            ended.report(body, journal);
            entry.is_durable = false;
        }
        entry.sequence = shared.sequence;
        entry.retain = shared.retain;
        entry.subscription_ids = None;
        entry.phase = Phase::Publish;
        let mut state = lock(&self.state);
        state.insert_unsent(entry);
        state.evict();
        drop(state);
        self.wakeup.wake();
    }
}

/// A member.
impl Mailbox {
    /// How many deliveries a share group may give it now.
    pub(crate) fn room(&self) -> usize {
        let state = lock(&self.state);
        match state.is_online {
            true => state.window.saturating_sub(state.len()),
            false => 0,
        }
    }

    /// How many QoS 0 deliveries fit its queue.
    pub(crate) fn volatile_room(&self) -> usize {
        let state = lock(&self.state);
        let queued = state.volatile.len();
        state.limits.messages_max.saturating_sub(queued)
    }

    /// Takes a delivery, if the receiver is connected and has room.
    pub(crate) fn offer(&self, offer: Offer<'_>, tally: &mut Tally) -> bool {
        let unplaced = offer.unplaced;
        let bytes = unplaced.message.size_bytes();
        let mut state = lock(&self.state);
        if !state.is_online {
            return false;
        }
        if offer.qos == QoS::AtMostOnce {
            if state.volatile_full(bytes).is_some() {
                return false;
            }
            let push = Push {
                message: unplaced.message,
                record: unplaced.record,
                qos: offer.qos,
                retain: offer.retain,
                subscription_ids: offer.subscription_ids,
                group: Some(offer.group),
            };
            state.push_volatile(push, &self.home.owner, tally);
            state.has_shared = true;
            drop(state);
            self.wakeup.wake();
            if let (Some(sequence), Some(record), true) =
                (unplaced.sequence, unplaced.record, unplaced.is_durable)
            {
                let _ = record.settle(offer.group.queue(), sequence);
            }
            return true;
        }
        let has_room = match offer.is_queued {
            true => !state.is_full(bytes),
            false => state.len() < state.window,
        };
        let (Some(home), true) = (unplaced.sequence, has_room) else {
            return false;
        };
        let shared = Shared {
            group: offer.group.clone(),
            sequence: home,
            retain: unplaced.message.retain,
            is_assigned: false,
        };
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let mut entry = unplaced.entry(sequence, offer.qos, offer.retain);
        entry.subscription_ids = offer.subscription_ids.map(Box::new);
        entry.shared = Some(Box::new(shared));
        state.insert_unsent(entry);
        state.has_shared = true;
        state.evict();
        drop(state);
        self.wakeup.wake();
        true
    }

    /// Takes a delivery from the backlog.
    pub(crate) fn place(
        &self,
        pulled: Pulled,
        place: Place<'_>,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) -> Result<(), Box<Returned>> {
        let mut entry = pulled.0;
        let mut shared = Box::new(Shared {
            group: place.group.clone(),
            sequence: entry.sequence,
            retain: entry.retain,
            is_assigned: false,
        });
        let mut state = lock(&self.state);
        if state.epoch != place.epoch || !state.is_online {
            entry.shared = Some(shared);
            let queue = self.home.queue;
            return Err(Box::new(Returned { entry, queue }));
        }
        state.has_shared = true;
        entry.qos = entry.qos.min(place.options.qos);
        entry.retain &= place.options.retain_as_published;
        entry.subscription_ids = place.subscription_ids.map(Box::new);
        if entry.qos == QoS::AtMostOnce {
            entry.shared = Some(shared);
            self.place_volatile(&mut state, entry, place.group, journal, tally);
            return Ok(());
        }
        entry.sequence = state.next_sequence;
        state.next_sequence += 1;
        if entry.qos == QoS::ExactlyOnce
            && place.is_durable
            && let Some(record) = self.assign(&mut entry, (place.group.queue(), shared.sequence))
        {
            shared.is_assigned = true;
            entry.phase = Phase::AwaitingAssignment(record.clone());
            journal.submit(record);
        }
        entry.shared = Some(shared);
        state.insert_unsent(entry);
        state.evict();
        Ok(())
    }

    /// What gives a QoS 2 delivery to this queue in the store, which must know every packet id that the client may know. One
    /// that was accepted before the group was durable is stored here for the first time.
    fn assign(&self, entry: &mut Entry, from: (QueueId, u64)) -> Option<Arc<Record>> {
        let to = QueueRef {
            queue: self.home.queue,
            sequence: entry.sequence,
            qos: entry.qos,
            retain: entry.retain,
            subscription_ids: entry.subscription_ids.as_deref().cloned(),
        };
        if entry.is_durable {
            let bytes = entry.bytes;
            return entry.position().map(|position| {
                Record::new(Action::Move {
                    from,
                    to,
                    position,
                    bytes,
                })
            });
        }
        let action = PublishAction {
            message: entry.held_message()?,
            refs: vec![to],
            retained: RetainedEffect::None,
            inbound: None,
            will_of: None,
        };
        let record = Record::new(Action::Publish(action));
        entry.is_durable = true;
        entry.body = Body::Recorded(record.clone());
        Some(record)
    }

    fn place_volatile(
        &self,
        state: &mut State,
        entry: Entry,
        group: &Arc<ShareGroup>,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) {
        let ended = Ended::of(&entry, self.home.queue);
        let message = entry.held_message();
        let end = ended.report(entry.body, journal);
        if let Some(message) = message {
            // What must arrive once is not sent before the group's queue has lost it.
            let barrier = end.filter(|_| message.qos == QoS::ExactlyOnce);
            let push = Push {
                message: &message,
                record: barrier.as_ref(),
                qos: QoS::AtMostOnce,
                retain: entry.retain,
                subscription_ids: entry.subscription_ids.map(|ids| *ids),
                group: Some(group),
            };
            state.push_volatile(push, &self.home.owner, tally);
        }
    }

    /// Gives up what share groups gave and the receiver has not had. A QoS 2 delivery that was sent stays [MQTT5-4.8.2-4].
    pub(crate) fn give_up_shared(&self, scope: GivingUp<'_>) -> Leaving {
        let mut state = lock(&self.state);
        let mut leaving = Leaving::default();
        let and_sent = match scope {
            GivingUp::Unsubscribed(_) => false,
            GivingUp::Disconnected(ShareRedispatch::AtSessionEnd) => {
                state.is_online = false;
                false
            }
            GivingUp::Disconnected(ShareRedispatch::AtDisconnect) | GivingUp::Ended => {
                state.is_online = false;
                true
            }
        };
        let concerns = |group: &Arc<ShareGroup>| match scope {
            GivingUp::Unsubscribed(of) => Arc::ptr_eq(of, group),
            GivingUp::Disconnected(_) | GivingUp::Ended => true,
        };
        if !state.has_shared {
            return leaving;
        }
        let is_given_up = |entry: &Entry, was_sent: bool| {
            let is_undone = match entry.phase {
                Phase::Publish => !was_sent || and_sent && entry.qos == QoS::AtLeastOnce,
                Phase::AwaitingAssignment(_) => true,
                Phase::AwaitingRelease(_) | Phase::Released | Phase::Settled => false,
            };
            let group = entry.shared.as_ref().map(|shared| &shared.group);
            group.filter(|group| is_undone && concerns(group)).cloned()
        };
        let queue = self.home.queue;
        let mut index = 0;
        while let Some(entry) = state.entries.get(index) {
            let was_sent = index < state.sent;
            let Some(group) = is_given_up(entry, was_sent) else {
                index += 1;
                continue;
            };
            let entry = match was_sent {
                true => state.remove_sent(index, queue),
                false => state.remove_unsent(index, queue),
            };
            let returned = entry.map(|entry| (group, Returned { entry, queue }));
            leaving.returned.extend(returned);
        }
        for entry in std::mem::take(&mut state.recent) {
            match is_given_up(&entry, false) {
                Some(group) => {
                    state.forget_unsent(&entry, queue);
                    leaving.returned.push((group, Returned { entry, queue }));
                }
                None => state.recent.push_back(entry),
            }
        }
        state.pop_settled();
        let volatile = std::mem::take(&mut state.volatile);
        for message in volatile {
            match &message.group {
                Some(group) if concerns(group) => {
                    state.volatile_bytes -= message.message.size_bytes();
                    let group = group.clone();
                    leaving.volatile.push(Leftover {
                        group,
                        message: message.message,
                        barrier: message.barrier,
                    });
                }
                _ => state.volatile.push_back(message),
            }
        }
        let mut entries = state.entries.iter().chain(&state.recent);
        let has_shared = entries.any(|entry| entry.shared.is_some());
        state.has_shared =
            has_shared || state.volatile.iter().any(|message| message.group.is_some());
        leaving
    }
}

impl State {
    fn remove_unsent(&mut self, index: usize, queue: QueueId) -> Option<Entry> {
        let entry = self.entries.remove(index)?;
        self.forget_unsent(&entry, queue);
        Some(entry)
    }

    fn forget_unsent(&mut self, entry: &Entry, queue: QueueId) {
        self.queued_bytes = self.queued_bytes.saturating_sub(entry.bytes as usize);
        self.forget_memory(&entry.body, Ended::of(entry, queue));
    }

    fn remove_sent(&mut self, index: usize, queue: QueueId) -> Option<Entry> {
        let entry = self.entries.remove(index)?;
        self.sent -= 1;
        if index < self.resent {
            self.resent -= 1;
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        self.forget_memory(&entry.body, Ended::of(&entry, queue));
        Some(entry)
    }

    /// PUBREC for a delivery that the store has in its group's queue: it ends there; the rest of the exchange is in memory.
    pub(super) fn disown(&mut self, index: usize, queue: QueueId, journal: &dyn Journal) {
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let ended = Ended::of(entry, queue);
        let body = std::mem::replace(&mut entry.body, Body::Gone);
        entry.shared = None;
        entry.phase = Phase::Released;
        entry.is_durable = false;
        self.forget_memory(&body, ended);
        ended.report(body, journal);
    }
}
