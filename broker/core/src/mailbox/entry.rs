//! One delivery in a mailbox: where its body is, how far it has come, and how its end is reported.
//!
//! Does not know: the queue around it.

use super::Outgoing;
use crate::action::{Action, QueueId};
use crate::counters::{DropReason, Tally};
use crate::history::Lost;
use crate::image::StoredRef;
use crate::journal::Journal;
use crate::message::{ClientId, Message};
use crate::record::{Record, RecordState, SettleNeeds};
use crate::share_group::ShareGroup;
use crate::wakeup::Wakeup;
use motemq_codec::{PacketId, QoS};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Volatile {
    pub(super) message: Arc<Message>,
    pub(super) barrier: Option<Arc<Record>>,
    pub(super) retain: bool,
    pub(super) subscription_ids: Option<Arc<[u32]>>,
    /// The share group that gave it.
    pub(super) group: Option<Arc<ShareGroup>>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) body: Body,
    /// Boxed, because it is rare and a queue may hold millions.
    pub(super) subscription_ids: Option<Box<Arc<[u32]>>>,
    pub(super) phase: Phase,
    pub(super) bytes: u32,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) is_durable: bool,
    /// A process that crashed may have sent it, or not.
    pub(super) maybe_sent: bool,
    /// Where it comes from, if not from a subscription of the session alone.
    pub(super) shared: Option<Box<Shared>>,
}

/// A delivery's place in the share group that gave it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) group: Arc<ShareGroup>,
    /// Its sequence in the group's queue.
    pub(super) sequence: u64,
    /// The message's own RETAIN flag.
    pub(super) retain: bool,
    /// The store has it in the member's queue, no longer in the group's.
    pub(super) is_assigned: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    /// Not in any record.
    Live(Arc<Message>),
    /// In a record that may still be on its way to the disk.
    Recorded(Arc<Record>),
    /// In the store, at this position.
    Stored(u64),
    /// Read back from this position.
    Loaded(Box<Loaded>),
    /// Ended; nothing left.
    Gone,
}

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) message: Arc<Message>,
    pub(super) position: u64,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Must not be sent before the store has it in this queue.
    AwaitingAssignment(Arc<Record>),
    /// Not sent, or sent and not answered.
    Publish,
    /// PUBREC received, its record on the way to the disk.
    AwaitingRelease(Arc<Record>),
    /// PUBREL may be, or was, sent.
    Released,
    /// Ended; waits for its elders to end.
    Settled,
}

pub(super) enum Available {
    Now(Arc<Message>),
    /// The receiver will be woken.
    Later,
    InStore,
}

impl Entry {
    /// A new delivery, in `record` if there is one.
    pub(super) fn new(
        sequence: u64,
        message: &Arc<Message>,
        record: Option<&Arc<Record>>,
        qos: QoS,
        retain: bool,
        is_durable: bool,
    ) -> Self {
        Self {
            sequence,
            body: match record {
                Some(record) => Body::Recorded(record.clone()),
                None => Body::Live(message.clone()),
            },
            subscription_ids: None,
            phase: Phase::Publish,
            bytes: u32::try_from(message.size_bytes()).unwrap_or(u32::MAX),
            qos,
            retain,
            is_durable,
            maybe_sent: false,
            shared: None,
        }
    }

    pub(super) fn from_stored(stored: StoredRef) -> Self {
        Self {
            sequence: stored.sequence,
            body: Body::Stored(stored.position),
            subscription_ids: stored.subscription_ids.map(Box::new),
            phase: if stored.is_released {
                Phase::Released
            } else {
                Phase::Publish
            },
            bytes: stored.bytes,
            qos: stored.qos,
            retain: stored.retain,
            is_durable: true,
            maybe_sent: false,
            shared: None,
        }
    }

    /// The delivery as the store has it, if that is all there is to know: never sent, and its body can be read back.
    pub(super) fn as_stored(&self) -> Option<StoredRef> {
        match (&self.body, &self.phase, &self.shared) {
            (Body::Stored(position), Phase::Publish, None) if self.is_durable => Some(StoredRef {
                sequence: self.sequence,
                position: *position,
                qos: self.qos,
                retain: self.retain,
                is_released: false,
                subscription_ids: self.subscription_ids.as_deref().cloned(),
                bytes: self.bytes,
            }),
            _ => None,
        }
    }

    /// What holding its body in memory costs.
    pub(super) fn body_bytes(&self) -> usize {
        body_bytes(self.bytes)
    }

    pub(super) fn message(&self, wakeup: &Arc<Wakeup>) -> Available {
        match &self.body {
            Body::Live(message) => Available::Now(message.clone()),
            Body::Loaded(loaded) => Available::Now(loaded.message.clone()),
            Body::Recorded(record) => {
                if record.is_barrier() && record.wait(wakeup) {
                    return Available::Later;
                }
                match (record.state(), record.message()) {
                    (RecordState::Failed(_), _) | (_, None) => Available::Later,
                    (_, Some(message)) => Available::Now(message.clone()),
                }
            }
            Body::Stored(_) => Available::InStore,
            Body::Gone => Available::Later,
        }
    }

    /// Counts that `owner` does not get it.
    #[cold]
    pub(super) fn drop_for(
        &self,
        reason: DropReason,
        owner: &ClientId,
        detail: &'static str,
        tally: &mut Tally,
    ) {
        let lost = match &self.body {
            Body::Live(message) => Lost::Message(message),
            Body::Loaded(loaded) => Lost::Message(&loaded.message),
            Body::Recorded(record) => record
                .message()
                .map_or(Lost::Unknown, |message| Lost::Message(message)),
            Body::Stored(position) => Lost::Stored(*position),
            Body::Gone => Lost::Unknown,
        };
        tally.drop_message(reason, owner, lost, self.qos, detail);
    }

    /// The message, if it is in memory.
    pub(super) fn held_message(&self) -> Option<Arc<Message>> {
        match &self.body {
            Body::Live(message) => Some(message.clone()),
            Body::Loaded(loaded) => Some(loaded.message.clone()),
            Body::Recorded(record) => record.message().cloned(),
            Body::Stored(_) | Body::Gone => None,
        }
    }

    /// Where the store has the body, as far as that is known.
    pub(super) fn position(&self) -> Option<u64> {
        match &self.body {
            Body::Recorded(record) => record.position(),
            Body::Stored(position) => Some(*position),
            Body::Loaded(loaded) => Some(loaded.position),
            Body::Live(_) | Body::Gone => None,
        }
    }

    pub(super) fn publish(&self, message: Arc<Message>, dup: bool) -> Outgoing {
        Outgoing::Publish {
            message,
            packet_id: Some(packet_id(self.sequence)),
            qos: self.qos,
            dup,
            retain: self.retain,
            subscription_ids: self.subscription_ids.as_deref().cloned(),
        }
    }
}

/// What must still be known of an entry when it ends.
#[derive(Copy, Clone)]
pub(super) struct Ended {
    /// Where the store has it.
    pub(super) queue: QueueId,
    pub(super) sequence: u64,
    pub(super) bytes: u32,
    pub(super) is_durable: bool,
}

impl Ended {
    pub(super) fn of(entry: &Entry, queue: QueueId) -> Self {
        let (queue, sequence) = match &entry.shared {
            Some(shared) if !shared.is_assigned => (shared.group.queue(), shared.sequence),
            _ => (queue, entry.sequence),
        };
        Self {
            queue,
            sequence,
            bytes: entry.bytes,
            is_durable: entry.is_durable,
        }
    }

    /// Gives the record that makes the end durable, if it needs one.
    pub(super) fn report(self, body: Body, journal: &dyn Journal) -> Option<Arc<Record>> {
        if !self.is_durable {
            return None;
        }
        let needs = match body {
            Body::Recorded(record) => record.settle(self.queue, self.sequence),
            _ => SettleNeeds::Action,
        };
        (needs == SettleNeeds::Action).then(|| {
            let record = Record::new(Action::Settle {
                queue: self.queue,
                sequence: self.sequence,
            });
            journal.submit(record.clone());
            record
        })
    }
}

/// The packet id of a delivery: its sequence modulo 65,535, plus 1.
pub(super) fn packet_id(sequence: u64) -> PacketId {
    let id = u16::try_from(sequence % SEQUENCE_SPAN).unwrap_or(0) + 1;
    #[expect(
        clippy::expect_used,
        reason = "the remainder is at most 65,534, so this is 1 to 65,535"
    )]
    PacketId::new(id).expect("not zero")
}

/// What a body that counts with `bytes` costs in memory: beside its own bytes there are the record and the message around
/// them, some 400 bytes.
pub(super) fn body_bytes(bytes: u32) -> usize {
    bytes as usize + size_of::<Record>() + size_of::<Message>() + ALLOCATIONS_BYTES
}

/// The counts of the three shared allocations (record, message, payload), and what the allocator rounds them up by.
const ALLOCATIONS_BYTES: usize = 3 * (16 + 16);
/// Packet ids repeat after so many deliveries.
pub(super) const SEQUENCE_SPAN: u64 = 65_535;

// As many as `mailbox_memory_bytes` has bodies, and what is in flight.
const _: () = assert!(size_of::<Entry>() <= 64);
