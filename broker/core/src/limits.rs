//! The limits that the core enforces; each has a key of the same name in the configuration.

use crate::rate::RateLimit;
use std::num::NonZeroU16;

/// What happens to a delivery when its queue is full.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum QueueFull {
    /// The oldest unsent delivery is dropped.
    DropOldest,
    /// The new delivery is dropped.
    DropNewest,
    /// The publisher is refused with 0x97; a 3.1.1 publisher is disconnected.
    Refuse,
    /// The receiver is disconnected with 0x97 and the new delivery is dropped.
    Disconnect,
}

/// What happens to what a client publishes faster than it may.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RateFull {
    /// The client is not read until it may go on.
    Delay,
    /// QoS 0 messages are dropped; for the others the client is not read until it may go on.
    DropQoS0,
    /// The client is disconnected with 0x96.
    Disconnect,
}

/// Which member of a share group gets a message.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ShareStrategy {
    /// By turns; a member whose window is full is passed over.
    RoundRobin,
    /// By lot; a member whose window is full is passed over.
    Random,
    /// One member, until it leaves or its queue is full.
    Sticky,
    /// The same member for the same publisher.
    HashClient,
    /// The same member for the same topic.
    HashTopic,
}

/// When a member's unacknowledged QoS 1 deliveries go to the other members.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ShareRedispatch {
    /// When its connection ends.
    AtDisconnect,
    /// When its session ends; until then they wait for its return.
    AtSessionEnd,
}

/// The limits, in messages, bytes and seconds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest packet from a client, in bytes; announced as Maximum Packet Size. Above: 0x95.
    pub packet_bytes_max: u32,
    /// Largest payload, in bytes. Above: 0x97; a 3.1.1 client is disconnected.
    pub payload_bytes_max: u32,
    /// Largest CONNECT packet, in bytes. Above: the connection is closed.
    pub connect_packet_bytes_max: u32,
    /// QoS 1 and 2 messages that one client may have unacknowledged towards us. Above: 0x93.
    pub receive_maximum: NonZeroU16,
    /// QoS 1 and 2 messages that one client has unacknowledged from us; the rest waits.
    pub inflight_messages_max: u16,
    /// Unsent messages per session. At the limit: `queue_full`.
    pub queue_messages_max: usize,
    /// Unsent bytes per session (topic, properties, payload). At the limit: `queue_full`.
    pub queue_bytes_max: usize,
    /// What happens when a queue is full.
    pub queue_full: QueueFull,
    /// Memory for a session's durable queued messages, counted with what each costs beside topic and payload; the rest is read
    /// from disk when its turn comes.
    pub mailbox_memory_bytes: usize,
    /// Longest session expiry, in seconds; longer wishes are lowered to it.
    pub session_expiry_max_s: u32,
    /// Longest keep-alive, in seconds; told to MQTT 5 clients by Server Keep Alive.
    pub keep_alive_max_s: u16,
    /// Levels in a topic or filter. Above: 0x8F, 0x90; a 3.1.1 publisher is disconnected.
    pub topic_levels_max: usize,
    /// Topic aliases that a client may set. Above: 0x94.
    pub topic_alias_max: u16,
    /// Subscriptions per client. Above: 0x97 in SUBACK.
    pub subscriptions_max: usize,
    /// Bytes of the filters of one client's subscriptions. Above: 0x97 in SUBACK.
    pub subscription_bytes_max: usize,
    /// What one client may publish in a second. Above: `publish_rate_full`.
    pub publish_rate: RateLimit,
    /// What all clients of one identity together may publish in a second; anonymous ones have none. Above: `publish_rate_full`.
    pub identity_publish_rate: RateLimit,
    /// What happens to what a client publishes faster than it may.
    pub publish_rate_full: RateFull,
    /// Sessions in the broker. At the limit a new one is refused with 0x97.
    pub sessions_max: usize,
    /// Sessions of one identity, 0 for no limit; anonymous clients have none. At the limit a new one is refused with 0x97.
    pub identity_sessions_max: usize,
    /// Connections of one identity, 0 for no limit; anonymous clients have none. At the limit a new one is refused with 0x97.
    pub identity_connections_max: usize,
    /// Retained messages. At the limit a new topic is refused with 0x97.
    pub retained_messages_max: usize,
    /// Bytes of retained messages. At the limit a new topic is refused with 0x97.
    pub retained_bytes_max: usize,
    /// Retained messages that one client published last, 0 for no limit. At the limit a new topic is refused with 0x97.
    pub client_retained_messages_max: usize,
    /// Bytes of them, 0 for no limit. At the limit a new topic or a larger message is refused with 0x97.
    pub client_retained_bytes_max: usize,
    /// Bytes for one client that its socket has not taken; above, nothing more is encoded for it, nor read from it.
    pub output_bytes_max: usize,
    /// Which member of a share group gets a message.
    pub share_strategy: ShareStrategy,
    /// When a member's unacknowledged QoS 1 deliveries go to the other members.
    pub share_redispatch: ShareRedispatch,
    /// Response Information for clients that ask for it (MQTT 5.0 section 3.2.2.3.15); `%c` stands for the client identifier,
    /// empty is none.
    pub response_information: Box<str>,
}

/// The limits of one queue, out of [`Limits`].
#[derive(Copy, Clone, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) full: QueueFull,
}

impl From<&Limits> for QueueLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            messages_max: limits.queue_messages_max,
            bytes_max: limits.queue_bytes_max,
            memory_bytes: limits.mailbox_memory_bytes,
            full: limits.queue_full,
        }
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1_048_576,
            payload_bytes_max: 1_000_000,
            connect_packet_bytes_max: 131_072,
            receive_maximum: const { NonZeroU16::new(100).unwrap() },
            inflight_messages_max: 100,
            queue_messages_max: 10_000,
            queue_bytes_max: 16 << 20,
            queue_full: QueueFull::DropOldest,
            mailbox_memory_bytes: 64 << 10,
            session_expiry_max_s: 2_592_000,
            keep_alive_max_s: 65_535,
            topic_levels_max: 128,
            topic_alias_max: 64,
            subscriptions_max: 10_000,
            subscription_bytes_max: 1 << 20,
            publish_rate: RateLimit::default(),
            identity_publish_rate: RateLimit::default(),
            publish_rate_full: RateFull::Delay,
            sessions_max: 1_000_000,
            identity_sessions_max: 0,
            identity_connections_max: 0,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1 << 30,
            client_retained_messages_max: 0,
            client_retained_bytes_max: 0,
            output_bytes_max: 256 << 10,
            share_strategy: ShareStrategy::RoundRobin,
            share_redispatch: ShareRedispatch::AtDisconnect,
            response_information: Box::default(),
        }
    }
}
