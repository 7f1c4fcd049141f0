//! Every rule a client can break after its bytes were valid MQTT, one variant each; and how a connection ends.

use crate::counters::Limit;
use motemq_codec::{DecodeError, ReasonCode};
use std::fmt;

/// A rule that the client broke. The connection ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// The bytes are not MQTT.
    Malformed(DecodeError),
    /// A second CONNECT [MQTT5-3.1.0-2].
    SecondConnect,
    /// A packet that only servers send.
    ServerPacket,
    /// A Subscription Identifier in a client's PUBLISH [MQTT5-3.3.4-6].
    SubscriptionIdInPublish,
    /// A QoS above what CONNACK announced [MQTT5-3.2.2-11].
    QoSNotSupported,
    /// An alias above the announced maximum [MQTT5-3.3.2-9].
    TopicAliasTooLarge,
    /// An alias that this connection never set [MQTT5-3.3.2-12].
    TopicAliasUnknown,
    /// More unacknowledged QoS 1 and 2 messages than the announced Receive Maximum [MQTT5-3.3.4-7].
    ReceiveMaximumExceeded,
    /// AUTH without an Authentication Method in CONNECT [MQTT5-4.12.0-7].
    UnexpectedAuth,
    /// AUTH with another Authentication Method than CONNECT [MQTT5-4.12.0-5] [MQTT5-4.12.1-1].
    OtherAuthMethod,
    /// AUTH with a reason code that was not the client's to send now [MQTT5-4.12.0-3].
    AuthOutOfTurn,
    /// Neither AUTH nor DISCONNECT while CONNACK depends on an exchange [MQTT5-3.1.2-30].
    BeforeConnAck,
    /// DISCONNECT sets a session expiry where CONNECT had none (MQTT 5 section 3.14.2.2.2).
    ExpiryFromZero,
    /// A publish was refused and the protocol version has no way to say so [MQTT3-3.3.5-2].
    PublishRefused(ReasonCode, &'static str),
    /// The client takes no packet as large as the answer to its SUBSCRIBE or UNSUBSCRIBE [MQTT5-3.1.2-24].
    ReplyTooLarge,
    /// More messages a second than the client may publish, under the policy `disconnect`.
    RateExceeded,
    /// Nothing arrived for one and a half times the keep-alive [MQTT5-3.1.2-22].
    KeepAliveTimeout,
}

impl Violation {
    /// The limit of the configuration that it exceeds.
    #[must_use]
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            Self::Malformed(error) if error.reason_code() == ReasonCode::PacketTooLarge => {
                Some(Limit::PacketBytes)
            }
            Self::TopicAliasTooLarge => Some(Limit::TopicAlias),
            Self::ReceiveMaximumExceeded => Some(Limit::ReceiveMaximum),
            Self::RateExceeded => Some(Limit::PublishRate),
            _ => None,
        }
    }

    /// The reason code for DISCONNECT.
    #[must_use]
    pub fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Malformed(error) => error.reason_code(),
            Self::SecondConnect
            | Self::ServerPacket
            | Self::SubscriptionIdInPublish
            | Self::TopicAliasUnknown
            | Self::UnexpectedAuth
            | Self::OtherAuthMethod
            | Self::AuthOutOfTurn
            | Self::BeforeConnAck
            | Self::ExpiryFromZero => ReasonCode::ProtocolError,
            Self::QoSNotSupported => ReasonCode::QoSNotSupported,
            Self::TopicAliasTooLarge => ReasonCode::TopicAliasInvalid,
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::PublishRefused(code, _) => *code,
            Self::ReplyTooLarge => ReasonCode::PacketTooLarge,
            Self::RateExceeded => ReasonCode::MessageRateTooHigh,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "{error}"),
            Self::SecondConnect => f.write_str("a second CONNECT on one connection"),
            Self::ServerPacket => f.write_str("a packet that only servers send"),
            Self::SubscriptionIdInPublish => f.write_str("a subscription identifier in PUBLISH"),
            Self::QoSNotSupported => f.write_str("QoS above the listener's qos_max"),
            Self::TopicAliasTooLarge => f.write_str("a topic alias above limits.topic_alias_max"),
            Self::TopicAliasUnknown => f.write_str("a topic alias that was never set"),
            Self::ReceiveMaximumExceeded => {
                f.write_str("more unacknowledged messages than limits.receive_maximum")
            }
            Self::UnexpectedAuth => f.write_str("AUTH without an authentication method"),
            Self::OtherAuthMethod => {
                f.write_str("AUTH names another authentication method than CONNECT")
            }
            Self::AuthOutOfTurn => f.write_str("AUTH with a reason code out of turn"),
            Self::BeforeConnAck => {
                f.write_str("a packet other than AUTH and DISCONNECT before CONNACK")
            }
            Self::ExpiryFromZero => {
                f.write_str("DISCONNECT sets a session expiry, CONNECT had none")
            }
            Self::PublishRefused(_, reason) => write!(f, "a publish was refused: {reason}"),
            Self::ReplyTooLarge => {
                f.write_str("the reply is larger than the client's own maximum packet size")
            }
            Self::RateExceeded => {
                f.write_str("more a second than limits.publish_rate_max or publish_bytes_rate_max")
            }
            Self::KeepAliveTimeout => f.write_str("nothing arrived within the keep-alive"),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Close {
    /// The client sent DISCONNECT.
    Normal,
    /// The client sent DISCONNECT with a code that publishes the will.
    NormalWithWill,
    /// The client was refused at CONNECT.
    Refused(ReasonCode),
    /// The client failed to authenticate again [MQTT5-4.12.1-2]; with what it is told.
    ReauthenticationFailed(ReasonCode, &'static str),
    /// The login that let the client in has ended or is not valid any more; with what it is told.
    LoginEnded(&'static str),
    /// An operator's change does not admit the client any more; with what it is told.
    Dismissed(ReasonCode, &'static str),
    /// The client broke a rule.
    Violation(Violation),
    /// A newer connection has the session [MQTT5-3.1.4-3].
    TakenOver,
    /// The client's queue overflowed under the policy `disconnect`.
    QueueOverflow,
    /// The store has failed; nothing more can be acknowledged.
    StoreFailed,
    /// The broker is stopping.
    ServerShutdown,
    /// The peer closed, or the network failed.
    Lost,
}

impl Close {
    /// Every value of [`label`](Self::label).
    pub const LABELS: [&'static str; 12] = [
        "normal",
        "refused",
        "keepalive_timeout",
        "rate_exceeded",
        "protocol_error",
        "not_authorized",
        "dismissed",
        "taken_over",
        "slow_consumer",
        "store_failed",
        "shutdown",
        "io_error",
    ];

    /// The value of the metric's `reason` label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Normal | Self::NormalWithWill => "normal",
            Self::Refused(_) => "refused",
            Self::Violation(Violation::KeepAliveTimeout) => "keepalive_timeout",
            Self::Violation(Violation::RateExceeded) => "rate_exceeded",
            Self::Violation(_) => "protocol_error",
            Self::ReauthenticationFailed(..) | Self::LoginEnded(_) => "not_authorized",
            Self::Dismissed(..) => "dismissed",
            Self::TakenOver => "taken_over",
            Self::QueueOverflow => "slow_consumer",
            Self::StoreFailed => "store_failed",
            Self::ServerShutdown => "shutdown",
            Self::Lost => "io_error",
        }
    }
}
