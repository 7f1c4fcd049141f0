//! MQTT 3.1.1 and 5 packets to and from bytes, without the broker's codec.
//!
//! Out: packets are made with `mqttbytes`; topic, payload and packet id of a PUBLISH are put into what it made.
//! In: a [`Reader`] of our own that takes bytes in any pieces and understands what a publisher and a subscriber can
//! receive. A mistake in the broker's codec cannot hide behind the same mistake here.
//!
//! Of the defects of `mqttbytes`, these are avoided here: packet id 0 (templates carry 1 until patched),
//! strings over 65,535 bytes and a password without a user name (refused), lengths that its writers return wrongly
//! (not used), everything it cannot read (not used).

mod packets;
mod properties;
mod reader;
mod template;
#[cfg(test)]
mod tests;

pub(crate) use packets::{connect, encode, quality};
pub(crate) use reader::remaining_length;

pub use packets::{
    Connect, EXPIRY_S, disconnect, pingreq, puback, pubcomp, pubrec, pubrel, subscribe,
    subscribe_all,
};
pub use reader::Reader;
pub use template::{Naming, Template, quality_of, set_duplicate, set_id, topic_of, write_publish};

use std::fmt;
use std::str::FromStr;

/// The longest string of MQTT.
const STRING_BYTES_MAX: usize = 65_535;
/// A packet id that no message of [`crate`]'s publishers has: that of a device's SUBSCRIBE.
pub const SUBSCRIBE_ID: u16 = u16::MAX;
/// The lowest reason code that says no.
const REFUSALS: u8 = 0x80;

/// What cannot be understood or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A packet type that a broker does not send to us, or wrong flags.
    #[error("unexpected first byte {0:#04x}")]
    FirstByte(u8),
    /// A remaining length of more than four bytes.
    #[error("malformed remaining length")]
    RemainingLength,
    /// A packet that is longer than any in a run, or than MQTT allows.
    #[error("packet of {0} bytes")]
    TooLong(usize),
    /// A packet whose body does not have the length or the fields of its type.
    #[error("malformed packet with first byte {0:#04x}")]
    Malformed(u8),
    /// A string that is longer than MQTT allows.
    #[error("string of {0} bytes, MQTT allows 65535")]
    StringTooLong(usize),
    /// `mqttbytes` would not encode a packet.
    #[error("packet cannot be encoded: {0:?}")]
    Encode(mqttbytes::Error),
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    #[default]
    V4,
    /// 5.0.
    V5,
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3.1.1" | "4" => Ok(Self::V4),
            "5" | "5.0" => Ok(Self::V5),
            _ => Err(format!("{text:?} is no version: write 3.1.1 or 5")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "3.1.1",
            Self::V5 => "5",
        })
    }
}

/// What a broker sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The answer to CONNECT.
    ConnAck(ConnAck),
    /// A message.
    Publish(Delivery),
    /// The end of a QoS 1 message that we sent.
    PubAck(Ack),
    /// The broker has our QoS 2 message, or will not take it.
    PubRec(Ack),
    /// The broker will not send this QoS 2 message again.
    PubRel(u16),
    /// The end of a QoS 2 message that we sent.
    PubComp(u16),
    /// The answer to a subscription.
    SubAck {
        /// The subscription's packet id.
        id: u16,
        /// For each filter the granted QoS, or a refusal of 0x80 and above.
        codes: Vec<u8>,
    },
    /// The answer to a ping.
    PingResp,
    /// The broker ends the connection (MQTT 5).
    Disconnect {
        /// Why.
        reason: u8,
        /// In words, if it said so.
        text: Option<String>,
    },
}

/// CONNACK. What a broker of MQTT 3.1.1 cannot say has its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether the broker kept the session.
    pub session_present: bool,
    /// 0, or why not: a return code of 3.1.1 or a reason code of 5.
    pub code: u8,
    /// How many messages of ours the broker takes at once.
    pub receive_maximum: u16,
    /// The highest topic alias it takes.
    pub topic_alias_maximum: u16,
    /// The highest QoS it takes.
    pub maximum_qos: u8,
    /// The keep-alive that counts instead of ours, seconds.
    pub server_keep_alive_s: Option<u16>,
    /// The client id that it gave us.
    pub assigned_client_id: Option<String>,
    /// Why not, in words.
    pub text: Option<String>,
}

impl Default for ConnAck {
    fn default() -> Self {
        Self {
            session_present: false,
            code: 0,
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
            maximum_qos: 2,
            server_keep_alive_s: None,
            assigned_client_id: None,
            text: None,
        }
    }
}

/// An answer to a message of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The message's packet id.
    pub id: u16,
    /// From 0x80 on the broker did not take the message.
    pub reason: u8,
}

impl Ack {
    /// Whether the broker did not take the message.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        self.reason >= REFUSALS
    }
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// 0, 1 or 2.
    pub qos: u8,
    /// 0 at QoS 0.
    pub id: u16,
    /// Whether the broker had kept it when the subscription began.
    pub is_retained: bool,
    topic_bytes: usize,
    /// Topic and payload, in one piece for one allocation.
    bytes: Vec<u8>,
}

impl Delivery {
    /// With the packet id 0 at QoS 0.
    #[must_use]
    pub fn new(qos: u8, id: u16, is_retained: bool, topic: &str, payload: &[u8]) -> Self {
        Self {
            qos,
            id,
            is_retained,
            topic_bytes: topic.len(),
            bytes: [topic.as_bytes(), payload].concat(),
        }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &[u8] {
        self.bytes.get(..self.topic_bytes).unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.topic_bytes..).unwrap_or_default()
    }
}

/// Whether the broker is asked to keep the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It ends with the connection, and what was kept is dropped.
    Clean,
    /// It is kept, and resumed if there is one.
    Kept,
}

impl Session {
    /// QoS 2 needs the broker's memory of packet ids to survive a reconnect; nothing else does.
    #[must_use]
    pub fn needed_for(qos: u8) -> Self {
        if qos == 2 { Self::Kept } else { Self::Clean }
    }
}

/// A user name with its password, which may be empty.
#[derive(Clone, Debug)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}
