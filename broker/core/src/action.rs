//! The durable facts: one action is one whole MQTT event.
//!
//! Invariants:
//! - Replaying a prefix of the actions, in order, gives the state that was acknowledged by the end of that prefix.
//! - Every action is a set or a removal by key, so replaying one over its own effect changes nothing. (That lets the
//!   store fold early actions into tables that already hold later effects.)
//!
//! Does not know: how actions are laid out on disk, which of them are still pending.

use crate::login::Attributes;
use crate::message::{ClientId, Expiry, Identity, Message};
use crate::time::Timestamp;
use motemq_codec::{PacketId, QoS, SubscribeOptions};
use std::sync::Arc;

/// The durable owner of a backlog. Never reused within a store.
///
/// The upper byte is the kind: 0 a session, 1 a share group; 2 to 255 are reserved for queues, streams and bridges.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(u64);

impl QueueId {
    /// The queue of the `number`-th session of this store.
    #[must_use]
    pub const fn session(number: u64) -> Self {
        Self(number & NUMBER)
    }

    /// The queue of the `number`-th share group of this store.
    #[must_use]
    pub const fn share_group(number: u64) -> Self {
        Self((number & NUMBER) | SHARE_GROUP)
    }

    /// Whether a share group owns the queue.
    #[must_use]
    pub const fn is_share_group(self) -> bool {
        self.0 & !NUMBER == SHARE_GROUP
    }

    /// The number within the store, whatever the kind.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 & NUMBER
    }

    /// From its stored number.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// Its stored number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

const NUMBER: u64 = 0x00ff_ffff_ffff_ffff;
const SHARE_GROUP: u64 = 1 << 56;

/// One copy of a message in one durable queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueRef {
    /// The queue.
    pub queue: QueueId,
    /// The position in the queue; a QoS 1 or 2 PUBLISH carries packet id `sequence mod 65,535 + 1`.
    pub sequence: u64,
    /// The quality of service of this delivery.
    pub qos: QoS,
    /// The RETAIN flag of this delivery.
    pub retain: bool,
    /// The subscription identifiers to send along [MQTT5-3.3.4-3].
    pub subscription_ids: Option<Arc<[u32]>>,
}

/// What a message does to the retained message of its topic.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RetainedEffect {
    /// Nothing.
    None,
    /// It becomes the retained message [MQTT5-3.3.1-5].
    Set,
    /// The retained message is removed [MQTT5-3.3.1-6].
    Clear,
}

/// A will, as kept with its session [MQTT5-3.1.2-7].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Will {
    /// The message; `received_at` and `expires_at` are set when it is published.
    pub message: Message,
    /// The Message Expiry Interval in seconds, counted from publication.
    pub message_expiry_s: Option<u32>,
    /// Seconds between the end of the connection and publication [MQTT5-3.1.2-8].
    pub delay_s: u32,
}

/// A durable session's own facts; its subscriptions and queue are separate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionRow {
    /// The session's queue.
    pub queue: QueueId,
    /// The client identifier.
    pub client_id: ClientId,
    /// Who owns the session.
    pub identity: Identity,
    /// What its last login said besides.
    pub attributes: Arc<Attributes>,
    /// Counts the connections of this session; a lower one is fenced.
    pub epoch: u64,
    /// How long it outlives its connection.
    pub expiry: Expiry,
    /// When its last connection ended; `None` while connected.
    pub disconnected_at: Option<Timestamp>,
    /// Deliveries of its queue below this sequence were sent; known only while disconnected.
    pub sent_below: u64,
    /// The will to publish, if any.
    pub will: Option<Arc<Will>>,
}

/// A subscription, as kept with its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredSubscription {
    /// The topic filter as the client wrote it.
    pub filter: Box<str>,
    /// The granted options.
    pub options: SubscribeOptions,
    /// The subscription identifier.
    pub subscription_id: Option<u32>,
}

/// A message with everything that must become durable together with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishAction {
    /// The message; its body is stored once.
    pub message: Arc<Message>,
    /// Its copies in durable queues.
    pub refs: Vec<QueueRef>,
    /// What happens to the retained message of the topic.
    pub retained: RetainedEffect,
    /// The publisher's QoS 2 packet id that is now taken [MQTT5-4.3.3-10].
    pub inbound: Option<(QueueId, PacketId)>,
    /// The session whose will this is; the will is removed.
    pub will_of: Option<QueueId>,
}

/// One durable fact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A message was accepted.
    Publish(PublishAction),
    /// A delivery has ended: acknowledged, refused, expired or dropped.
    Settle {
        /// The queue.
        queue: QueueId,
        /// The delivery's position.
        sequence: u64,
    },
    /// A stored delivery went from one queue to another: a share group gave it to a member, or got it back. Only one that is
    /// there is moved: its body must be too.
    Move {
        /// Where it was.
        from: (QueueId, u64),
        /// Where it is.
        to: QueueRef,
        /// The position of its body.
        position: u64,
        /// The size that its message is counted with.
        bytes: u32,
    },
    /// PUBREC was received for a QoS 2 delivery [MQTT5-4.3.3-4].
    Release {
        /// The queue.
        queue: QueueId,
        /// The delivery's position.
        sequence: u64,
    },
    /// PUBREL was received: the inbound packet id is free [MQTT5-4.3.3-12].
    InboundRemoved {
        /// The publisher's session.
        queue: QueueId,
        /// The packet id.
        packet_id: PacketId,
    },
    /// A session was created, taken up again, or its connection ended.
    SessionPut(Box<SessionRow>),
    /// A session, or a share group, ended with everything it owned.
    SessionEnded {
        /// Its queue.
        queue: QueueId,
    },
    /// Subscriptions were added or replaced. A share group that is to be durable subscribes to its own filter.
    Subscribed {
        /// The queue of the session or share group.
        queue: QueueId,
        /// The subscriptions.
        subscriptions: Vec<StoredSubscription>,
    },
    /// Subscriptions were removed.
    Unsubscribed {
        /// The session's queue.
        queue: QueueId,
        /// Their topic filters.
        filters: Vec<Box<str>>,
    },
}
