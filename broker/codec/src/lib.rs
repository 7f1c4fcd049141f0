//! The MQTT 3.1, 3.1.1 and 5.0 wire format: bytes to packets and back, without state.
//!
//! Decoding is total: every byte string is a packet, a request for more bytes, or a typed
//! [`DecodeError`] naming the rule it breaks. It runs in one pass, borrows from the input and
//! trusts no announced length before the bytes are there. Encoding computes the length first, so
//! a buffer never holds half a packet.
//!
//! The internal form is MQTT 5: a packet of an older version decodes into the same struct, with
//! no properties. What the older versions cannot say is left out when encoding for them.
//!
//! Does not know: connections, sessions, buffers, time, or which side of the connection it is on.
//! Rules that need any of those (a second CONNECT, an unknown topic alias) are the session's.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod fixed_header;
mod forwarded;
mod packet;
mod primitive;
mod property;
mod publish;
mod qos;
mod reason;
mod subscribe;
mod topic;
mod unsubscribe;
mod version;

#[cfg(test)]
mod check;

pub use ack::{Ack, AckKind};
pub use auth::Auth;
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will};
pub use disconnect::Disconnect;
pub use error::{DecodeError, EncodeError};
pub use forwarded::{Forwarded, ForwardedBlock};
pub use packet::{Decoded, Packet, connect_version, decode, decode_connect};
pub use primitive::PacketId;
pub use property::UserProperties;
pub use publish::{Publish, PublishProperties, SubscriptionIds};
pub use qos::QoS;
pub use reason::ReasonCode;
pub use subscribe::{
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscribeFilters, SubscribeOptions,
};
pub use topic::{
    SubscriptionFilter, TopicFilter, TopicFilterError, TopicNameError, is_shared,
    parse_subscription, validate_topic_name,
};
pub use unsubscribe::{UnsubAck, Unsubscribe, UnsubscribeFilters};
pub use version::ProtocolVersion;
