//! What can be wrong with bytes, and with values that are to become bytes.
//!
//! [`DecodeError`] has one variant per rule a peer can break, so that tests and logs name the rule;
//! [`DecodeError::reason_code`] is what an MQTT 5 peer is told. Running out of bytes is no error:
//! that is [`Decoded::Incomplete`](crate::Decoded::Incomplete).

use crate::reason::ReasonCode;
use crate::topic::TopicNameError;
use std::error::Error;
use std::fmt;

/// The rule that some bytes break.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first packet of a connection is not CONNECT [MQTT5-3.1.0-1] [MQTT3-3.1.0-1].
    NotConnect,
    /// Packet type 0 in any version, or 15 (AUTH) before MQTT 5.
    ReservedPacketType,
    /// The low four bits of the first byte are not those of the packet type [MQTT5-2.1.3-1]
    /// [MQTT3-2.2.2-2].
    FixedHeaderFlags,
    /// A variable byte integer (a length, an identifier) goes on after four bytes
    /// [MQTT5-1.5.5-1].
    VariableIntegerTooLong,
    /// A variable byte integer ends in a zero byte [MQTT5-1.5.5-1].
    VariableIntegerNotMinimal,
    /// The packet is larger than the receiver takes (MQTT 5.0 section 3.2.2.3.6).
    PacketTooLarge,
    /// A field reaches past the end of the packet or of its properties.
    UnexpectedEnd,
    /// Bytes follow the last field of a packet.
    TrailingBytes,
    /// A string is not well-formed UTF-8 [MQTT5-1.5.4-1] [MQTT3-1.5.3-1].
    StringNotUtf8,
    /// A string holds U+0000 [MQTT5-1.5.4-2] [MQTT3-1.5.3-2].
    StringHasNul,
    /// A packet identifier is zero [MQTT5-2.2.1-3] [MQTT3-2.3.1-1].
    PacketIdZero,
    /// A QoS field holds 3 [MQTT5-3.3.1-4] [MQTT3-3.3.1-4].
    QosInvalid,
    /// A property identifier is not in table 2-4 of MQTT 5.0.
    PropertyUnknown,
    /// A property is not one of those the packet type may carry (table 2-4 of MQTT 5.0).
    PropertyMisplaced,
    /// A property that may be there once is there again.
    PropertyDuplicate,
    /// A property that says yes or no is neither 0 nor 1.
    PropertyNotBoolean,
    /// Receive Maximum is zero (MQTT 5.0 section 3.1.2.11.3).
    ReceiveMaximumZero,
    /// Maximum Packet Size is zero (MQTT 5.0 section 3.1.2.11.4).
    PacketBytesMaxZero,
    /// Maximum QoS is neither 0 nor 1 (MQTT 5.0 section 3.2.2.3.4).
    MaximumQosInvalid,
    /// Topic Alias is zero [MQTT5-3.3.2-8].
    TopicAliasZero,
    /// Subscription Identifier is zero (MQTT 5.0 section 3.8.2.1.2).
    SubscriptionIdZero,
    /// Authentication Data without Authentication Method (MQTT 5.0 section 3.1.2.11.10).
    AuthenticationDataWithoutMethod,
    /// CONNECT names neither `MQTT` nor `MQIsdp` [MQTT5-3.1.2-1] [MQTT3-3.1.2-1].
    UnknownProtocolName,
    /// CONNECT names MQTT, but a level not spoken here [MQTT5-3.1.2-2] [MQTT3-3.1.2-2].
    UnsupportedProtocolVersion,
    /// Bit 0 of the CONNECT flags is set [MQTT5-3.1.2-3] [MQTT3-3.1.2-3].
    ConnectFlagReserved,
    /// Will QoS or Will Retain is set without Will Flag [MQTT5-3.1.2-11] [MQTT5-3.1.2-13]
    /// [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-15].
    WillFlagsWithoutWill,
    /// Before MQTT 5: Password Flag without User Name Flag [MQTT3-3.1.2-22].
    PasswordWithoutUserName,
    /// An empty client identifier in MQTT 3.1, or with clean session 0 in MQTT 3.1.1
    /// [MQTT3-3.1.3-7] [MQTT3-3.1.3-8].
    ClientIdEmpty,
    /// DUP is set on a QoS 0 PUBLISH [MQTT5-3.3.1-2] [MQTT3-3.3.1-2].
    DupWithQos0,
    /// A PUBLISH with neither topic nor alias (MQTT 5.0 section 3.3.2.1); before MQTT 5, with an
    /// empty topic [MQTT3-4.7.3-1].
    TopicMissing,
    /// The topic of a PUBLISH is no topic name [MQTT5-3.3.2-2] [MQTT3-3.3.2-2].
    TopicName(TopicNameError),
    /// The topic of a will is no topic name [MQTT5-3.1.3-11] [MQTT3-3.1.3-10].
    WillTopic(TopicNameError),
    /// A response topic is no topic name [MQTT5-3.3.2-14].
    ResponseTopic(TopicNameError),
    /// SUBSCRIBE or UNSUBSCRIBE without a filter [MQTT5-3.8.3-2] [MQTT5-3.10.3-2] [MQTT3-3.8.3-3]
    /// [MQTT3-3.10.3-2].
    NoFilters,
    /// A topic filter without a character [MQTT5-4.7.3-1] [MQTT3-4.7.3-1].
    FilterEmpty,
    /// A reserved bit of the subscription options is set [MQTT5-3.8.3-5] [MQTT3-3.8.3-4].
    SubscribeOptionsReserved,
    /// Retain Handling is 3 (MQTT 5.0 section 3.8.3.1).
    RetainHandlingInvalid,
    /// No Local on a shared subscription [MQTT5-3.8.3-4].
    NoLocalShared,
    /// A reason or return code is unknown, or not one of the packet's.
    ReasonCodeNotAllowed,
    /// SUBACK or UNSUBACK without a code [MQTT5-3.9.3-1] [MQTT5-3.11.3-1].
    NoReasonCodes,
    /// A reserved bit of the CONNACK flags is set [MQTT5-3.2.2-1].
    ConnAckFlags,
    /// A CONNACK that refuses says there is a session [MQTT5-3.2.2-6] [MQTT3-3.2.2-4].
    SessionPresentOnRefusal,
}

impl DecodeError {
    /// What to tell an MQTT 5 peer before closing [MQTT5-4.13.1-1].
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::NotConnect
            | Self::PacketIdZero
            | Self::PropertyMisplaced
            | Self::PropertyDuplicate
            | Self::PropertyNotBoolean
            | Self::ReceiveMaximumZero
            | Self::PacketBytesMaxZero
            | Self::MaximumQosInvalid
            | Self::SubscriptionIdZero
            | Self::AuthenticationDataWithoutMethod
            | Self::UnknownProtocolName
            | Self::TopicMissing
            | Self::ResponseTopic(_)
            | Self::NoFilters
            | Self::RetainHandlingInvalid
            | Self::NoLocalShared
            | Self::NoReasonCodes
            | Self::SessionPresentOnRefusal => ReasonCode::ProtocolError,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::UnsupportedProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientIdEmpty => ReasonCode::ClientIdentifierNotValid,
            Self::TopicName(_) | Self::WillTopic(_) => ReasonCode::TopicNameInvalid,
            Self::ReservedPacketType
            | Self::FixedHeaderFlags
            | Self::VariableIntegerTooLong
            | Self::VariableIntegerNotMinimal
            | Self::UnexpectedEnd
            | Self::TrailingBytes
            | Self::StringNotUtf8
            | Self::StringHasNul
            | Self::QosInvalid
            | Self::PropertyUnknown
            | Self::ConnectFlagReserved
            | Self::WillFlagsWithoutWill
            | Self::PasswordWithoutUserName
            | Self::DupWithQos0
            | Self::FilterEmpty
            | Self::SubscribeOptionsReserved
            | Self::ReasonCodeNotAllowed
            | Self::ConnAckFlags => ReasonCode::MalformedPacket,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConnect => "the first packet is not CONNECT",
            Self::ReservedPacketType => "reserved packet type",
            Self::FixedHeaderFlags => "wrong fixed header flags",
            Self::VariableIntegerTooLong => "variable byte integer over four bytes",
            Self::VariableIntegerNotMinimal => "variable byte integer not in its shortest form",
            Self::PacketTooLarge => "packet larger than the maximum",
            Self::UnexpectedEnd => "field reaches past the end",
            Self::TrailingBytes => "bytes after the last field",
            Self::StringNotUtf8 => "string is not UTF-8",
            Self::StringHasNul => "string holds U+0000",
            Self::PacketIdZero => "packet identifier is zero",
            Self::QosInvalid => "QoS 3",
            Self::PropertyUnknown => "unknown property",
            Self::PropertyMisplaced => "property not allowed in this packet",
            Self::PropertyDuplicate => "property given twice",
            Self::PropertyNotBoolean => "property is neither 0 nor 1",
            Self::ReceiveMaximumZero => "receive maximum is zero",
            Self::PacketBytesMaxZero => "maximum packet size is zero",
            Self::MaximumQosInvalid => "maximum QoS is neither 0 nor 1",
            Self::TopicAliasZero => "topic alias is zero",
            Self::SubscriptionIdZero => "subscription identifier is zero",
            Self::AuthenticationDataWithoutMethod => "authentication data without a method",
            Self::UnknownProtocolName => "unknown protocol name",
            Self::UnsupportedProtocolVersion => "unsupported protocol version",
            Self::ConnectFlagReserved => "reserved CONNECT flag is set",
            Self::WillFlagsWithoutWill => "will QoS or will retain without a will",
            Self::PasswordWithoutUserName => "password without a user name",
            Self::ClientIdEmpty => "empty client identifier",
            Self::DupWithQos0 => "DUP with QoS 0",
            Self::TopicMissing => "empty topic without a topic alias",
            Self::TopicName(error) => return write!(f, "PUBLISH: {error}"),
            Self::WillTopic(error) => return write!(f, "will: {error}"),
            Self::ResponseTopic(error) => return write!(f, "response topic: {error}"),
            Self::NoFilters => "no topic filter",
            Self::FilterEmpty => "empty topic filter",
            Self::SubscribeOptionsReserved => "reserved subscription option is set",
            Self::RetainHandlingInvalid => "retain handling 3",
            Self::NoLocalShared => "no local on a shared subscription",
            Self::ReasonCodeNotAllowed => "reason code not allowed in this packet",
            Self::NoReasonCodes => "no reason code",
            Self::ConnAckFlags => "reserved CONNACK flag is set",
            Self::SessionPresentOnRefusal => "session present on a refusal",
        })
    }
}

impl Error for DecodeError {}

/// Why a packet has no wire form. Nothing has been written then.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    StringTooLong,
    /// A variable byte integer above 268,435,455 (a subscription identifier).
    VariableIntegerTooLarge,
    /// The packet is longer than 268,435,455 bytes after its fixed header.
    PacketTooLarge,
    /// The version has no such packet.
    NotInVersion,
    /// A CONNECT was to be encoded for another version than its own.
    OtherVersion,
    /// A PUBLISH with QoS above 0 lacks its packet identifier.
    PacketIdMissing,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StringTooLong => "string over 65,535 bytes",
            Self::VariableIntegerTooLarge => "variable byte integer over 268,435,455",
            Self::PacketTooLarge => "packet over 268,435,455 bytes",
            Self::NotInVersion => "packet does not exist in this version",
            Self::OtherVersion => "CONNECT is of another version",
            Self::PacketIdMissing => "QoS above 0 without a packet identifier",
        })
    }
}

impl Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_is_told() {
        // [MQTT5-4.13.1-1]
        for (error, code) in [
            (DecodeError::FixedHeaderFlags, ReasonCode::MalformedPacket),
            (DecodeError::StringNotUtf8, ReasonCode::MalformedPacket),
            (DecodeError::PropertyDuplicate, ReasonCode::ProtocolError),
            (DecodeError::TopicMissing, ReasonCode::ProtocolError),
            (DecodeError::TopicAliasZero, ReasonCode::TopicAliasInvalid),
            (DecodeError::PacketTooLarge, ReasonCode::PacketTooLarge),
            (
                DecodeError::ClientIdEmpty,
                ReasonCode::ClientIdentifierNotValid,
            ),
            (
                DecodeError::UnsupportedProtocolVersion,
                ReasonCode::UnsupportedProtocolVersion,
            ),
            (
                DecodeError::TopicName(TopicNameError::HasWildcard),
                ReasonCode::TopicNameInvalid,
            ),
        ] {
            assert_eq!(error.reason_code(), code);
        }
    }

    #[test]
    fn errors_name_the_rule() {
        let error = DecodeError::WillTopic(TopicNameError::HasWildcard);
        assert_eq!(error.to_string(), "will: wildcard in a topic name");
        assert_eq!(DecodeError::QosInvalid.to_string(), "QoS 3");
        let error = EncodeError::StringTooLong;
        assert_eq!(error.to_string(), "string over 65,535 bytes");
    }
}
