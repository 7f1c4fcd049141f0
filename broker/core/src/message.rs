//! An application message inside the broker, and the names of who sent it.
//!
//! A message is immutable and shared by count. It has all the fields that queues, streams, bridges, link-aware delivery
//! and a cluster need, so that none of them changes the stored format. It does not know its receivers.

use crate::time::Timestamp;
use motemq_codec::QoS;
use std::fmt;
use std::sync::Arc;

/// A concrete topic, shared between the messages published to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Wraps a topic that the codec (or our own store) has validated.
    #[must_use]
    pub fn new(topic: &str) -> Self {
        Self(topic.into())
    }

    /// The topic's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both are the same name in memory; equal ones need not be.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A client identifier [MQTT5-3.1.3-2].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Wraps an identifier that the codec has validated.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The identifier's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a client was authenticated as; a session belongs to one identity for its whole life.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// Nobody: the listener admits anonymous clients.
    Anonymous,
    /// A user name whose password was verified.
    User(Arc<str>),
    /// The name in a verified client certificate.
    Certificate(Arc<str>),
}

impl Identity {
    /// The name that was proved, if one was.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::User(name) | Self::Certificate(name) => Some(name),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => write!(f, "user {name}"),
            Self::Certificate(name) => write!(f, "certificate {name}"),
        }
    }
}

/// How long a session outlives its connection [MQTT5-3.1.2-23]; 3.1.1 knows only the two ends of it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// The session ends with its connection.
    WithConnection,
    /// The session ends this many seconds after its connection.
    AfterSeconds(u32),
    /// The session never expires.
    Never,
}

impl Expiry {
    /// From a Session Expiry Interval in seconds; 0xFFFFFFFF never expires.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Self {
        match seconds {
            0 => Self::WithConnection,
            u32::MAX => Self::Never,
            seconds => Self::AfterSeconds(seconds),
        }
    }

    /// As a Session Expiry Interval.
    #[must_use]
    pub const fn as_seconds(self) -> u32 {
        match self {
            Self::WithConnection => 0,
            Self::AfterSeconds(seconds) => seconds,
            Self::Never => u32::MAX,
        }
    }

    /// At most `seconds_max`.
    #[must_use]
    pub const fn capped(self, seconds_max: u32) -> Self {
        if self.as_seconds() > seconds_max {
            Self::from_seconds(seconds_max)
        } else {
            self
        }
    }

    /// Whether the session is kept on disk.
    #[must_use]
    pub const fn is_durable(self) -> bool {
        !matches!(self, Self::WithConnection)
    }
}

/// Where a message entered the system.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Origin {
    /// A PUBLISH of a connected client.
    Client = 0,
    /// The will of a client.
    Will = 1,
    /// The broker itself.
    Broker = 2,
    /// A bridge or another node; never sent back there.
    Peer = 3,
}

impl Origin {
    /// From its stored number.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Client),
            1 => Some(Self::Will),
            2 => Some(Self::Broker),
            3 => Some(Self::Peer),
            _ => None,
        }
    }
}

/// How urgent a message is: 0 is ordinary, higher is sooner. Kept, not yet acted on.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Urgency(pub u8);

/// A name for a message that stays the same through storage, retries and bridges.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MessageId {
    /// The connection that published it, unique over restarts.
    pub connection: u64,
    /// Its number on that connection.
    pub sequence: u64,
}

/// An application message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The concrete topic.
    pub topic: TopicName,
    /// The payload, any bytes.
    pub payload: Box<[u8]>,
    /// The MQTT 5 properties that travel unaltered, in wire form (see `motemq_codec::Forwarded`).
    pub forwarded: Box<[u8]>,
    /// The quality of service at which it was received.
    pub qos: QoS,
    /// The RETAIN flag with which it was received.
    pub retain: bool,
    /// Who published it.
    pub publisher: ClientId,
    /// Where it entered.
    pub origin: Origin,
    /// Bridges and nodes it has crossed.
    pub hops: u8,
    /// When it was received.
    pub received_at: Timestamp,
    /// When it may no longer be delivered, if ever [MQTT5-3.3.2-5].
    pub expires_at: Option<Timestamp>,
    /// How urgent it is.
    pub urgency: Urgency,
    /// Its stable name.
    pub id: MessageId,
    /// How often its delivery was started before.
    pub attempts: u16,
}

impl Message {
    /// Whether the message must not be delivered any more.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The Message Expiry Interval to forward, in seconds: what is left of it, rounded up [MQTT5-3.3.2-6].
    #[must_use]
    pub fn expiry_left_s(&self, now: Timestamp) -> Option<u32> {
        let left = self.expires_at?.since(now).as_millis().div_ceil(1000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// The bytes that this message is counted with in queue limits: topic, properties, payload.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.topic.as_str().len() + self.forwarded.len() + self.payload.len()
    }
}

#[cfg(test)]
impl Message {
    /// A small message of QoS 1 to `topic`, for unit tests to change.
    pub(crate) fn sample(topic: &str) -> Self {
        Self {
            topic: TopicName::new(topic),
            payload: [].into(),
            forwarded: [].into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: ClientId::new("p"),
            origin: Origin::Client,
            hops: 0,
            received_at: Timestamp::default(),
            expires_at: None,
            urgency: Urgency::default(),
            id: MessageId::default(),
            attempts: 0,
        }
    }
}
