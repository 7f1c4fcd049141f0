//! The durable facts as one value: what a replay of actions gives.
//!
//! The journal implementations keep one beside the disk and recovery hands it to the broker, so "what does this action
//! mean" is written once. Applying an action over its own effect changes nothing.
//!
//! Does not know: files, what is pending, time.

use crate::action::{
    Action, PublishAction, QueueId, QueueRef, RetainedEffect, SessionRow, StoredSubscription,
};
use crate::message::{Message, TopicName};
use crate::queue_refs::QueueRefs;
use motemq_codec::{PacketId, QoS};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A delivery in a durable queue, with the position of its message's body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRef {
    /// The position in the queue.
    pub sequence: u64,
    /// Where the body is.
    pub position: u64,
    /// The quality of service of the delivery.
    pub qos: QoS,
    /// The RETAIN flag of the delivery.
    pub retain: bool,
    /// PUBREC was received.
    pub is_released: bool,
    /// The subscription identifiers.
    pub subscription_ids: Option<Arc<[u32]>>,
    /// The size that the message is counted with.
    pub bytes: u32,
}

/// One durable queue.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueImage {
    /// Unsettled deliveries by sequence.
    pub refs: QueueRefs,
    /// Above every sequence of a live delivery, and of every action replayed.
    pub next_sequence: u64,
}

/// Everything that is durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    /// Sessions by queue.
    pub sessions: BTreeMap<QueueId, SessionRow>,
    /// Subscriptions by queue and filter.
    pub subscriptions: BTreeMap<QueueId, BTreeMap<Box<str>, StoredSubscription>>,
    /// Queues with their unsettled deliveries.
    pub queues: BTreeMap<QueueId, QueueImage>,
    /// Inbound QoS 2 packet ids that are taken.
    pub inbound: BTreeSet<(QueueId, PacketId)>,
    /// Retained messages and their positions.
    pub retained: BTreeMap<TopicName, (u64, Arc<Message>)>,
    /// Above every session number seen.
    pub next_queue: u64,
}

impl Image {
    /// Applies `action`, stored at `position`; calls `freed` with the position of each delivery that is no more.
    pub fn apply(&mut self, position: u64, action: &Action, freed: &mut dyn FnMut(u64)) {
        match action {
            Action::Publish(publish) => self.publish(position, publish, freed),
            Action::Settle { queue, sequence } => {
                if let Some(queue) = self.queues.get_mut(queue)
                    && let Some(stored) = queue.refs.remove(*sequence)
                {
                    freed(stored.position);
                }
            }
            Action::Move {
                from: (queue, sequence),
                to,
                position,
                bytes,
            } => {
                if let Some(from) = self.queues.get_mut(queue) {
                    from.refs.remove(*sequence);
                }
                if self.is_owner(to.queue) {
                    self.put(to, *position, *bytes, freed);
                } else {
                    freed(*position);
                }
            }
            Action::Release { queue, sequence } => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.refs.release(*sequence);
                }
            }
            Action::InboundRemoved { queue, packet_id } => {
                self.inbound.remove(&(*queue, *packet_id));
            }
            Action::SessionPut(row) => {
                self.next_queue = self.next_queue.max(row.queue.number() + 1);
                self.sessions.insert(row.queue, SessionRow::clone(row));
            }
            Action::SessionEnded { queue } => self.end(*queue, freed),
            Action::Subscribed {
                queue,
                subscriptions,
            } => {
                if queue.is_share_group() {
                    self.next_queue = self.next_queue.max(queue.number() + 1);
                }
                if queue.is_share_group() || self.sessions.contains_key(queue) {
                    let known = self.subscriptions.entry(*queue).or_default();
                    for subscription in subscriptions {
                        known.insert(subscription.filter.clone(), subscription.clone());
                    }
                }
            }
            Action::Unsubscribed { queue, filters } => {
                if let Some(known) = self.subscriptions.get_mut(queue) {
                    for filter in filters {
                        known.remove(filter);
                    }
                }
            }
        }
    }

    /// The deliveries, inbound ids and subscriptions of a session that is not there do not exist: it has ended, and a
    /// publisher that matched it a moment before may still name it.
    fn publish(&mut self, position: u64, publish: &PublishAction, freed: &mut dyn FnMut(u64)) {
        let bytes = u32::try_from(publish.message.size_bytes()).unwrap_or(u32::MAX);
        for queue_ref in &publish.refs {
            if self.is_owner(queue_ref.queue) {
                self.put(queue_ref, position, bytes, freed);
            }
        }
        match publish.retained {
            RetainedEffect::None => {}
            RetainedEffect::Set => {
                let topic = publish.message.topic.clone();
                self.retained
                    .insert(topic, (position, publish.message.clone()));
            }
            RetainedEffect::Clear => {
                self.retained.remove(&publish.message.topic);
            }
        }
        if let Some((queue, packet_id)) = publish.inbound
            && self.sessions.contains_key(&queue)
        {
            self.inbound.insert((queue, packet_id));
        }
        if let Some(queue) = publish.will_of
            && let Some(row) = self.sessions.get_mut(&queue)
        {
            row.will = None;
        }
    }

    /// Whether a session or share group with this queue exists.
    fn is_owner(&self, queue: QueueId) -> bool {
        if queue.is_share_group() {
            self.subscriptions.contains_key(&queue)
        } else {
            self.sessions.contains_key(&queue)
        }
    }

    fn put(&mut self, queue_ref: &QueueRef, position: u64, bytes: u32, freed: &mut dyn FnMut(u64)) {
        let queue = self.queues.entry(queue_ref.queue).or_default();
        queue.next_sequence = queue.next_sequence.max(queue_ref.sequence + 1);
        let stored = StoredRef::new(queue_ref, position, bytes);
        if let Some(before) = queue.refs.insert(stored)
            && before.position != position
        {
            freed(before.position);
        }
    }

    fn end(&mut self, queue: QueueId, freed: &mut dyn FnMut(u64)) {
        self.sessions.remove(&queue);
        self.subscriptions.remove(&queue);
        if let Some(ended) = self.queues.remove(&queue) {
            ended.refs.positions().for_each(freed);
        }
        self.inbound.retain(|(owner, _)| *owner != queue);
    }
}

impl StoredRef {
    /// The highest position that a delivery may name.
    pub const POSITION_MAX: u64 = (1 << 56) - 1;
    /// The largest size that a message is counted with; MQTT allows no larger one.
    pub const BYTES_MAX: u32 = (1 << 28) - 1;

    fn new(queue_ref: &QueueRef, position: u64, bytes: u32) -> Self {
        Self {
            sequence: queue_ref.sequence,
            position,
            qos: queue_ref.qos,
            retain: queue_ref.retain,
            is_released: false,
            subscription_ids: queue_ref.subscription_ids.clone(),
            bytes,
        }
    }
}
