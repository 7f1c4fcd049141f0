//! Reason codes (MQTT 5.0 section 2.4), and the only place that maps them to 3.1.1 return codes.
//!
//! Which packet may carry which code is said in the file of that packet.

use crate::error::DecodeError;
use crate::primitive::Reader;
use std::fmt;

/// The result of an operation, as MQTT 5 names it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ReasonCode {
    /// The operation succeeded; also normal disconnection and granted QoS 0.
    Success = 0x00,
    /// The subscription is accepted with at most QoS 1.
    GrantedQoS1 = 0x01,
    /// The subscription is accepted with at most QoS 2.
    GrantedQoS2 = 0x02,
    /// The client leaves and wants its will published.
    DisconnectWithWill = 0x04,
    /// The message is accepted, but nobody subscribes to its topic.
    NoMatchingSubscribers = 0x10,
    /// There was no such subscription to end.
    NoSubscriptionExisted = 0x11,
    /// The next step of the authentication exchange follows.
    ContinueAuthentication = 0x18,
    /// The client starts a new authentication on a live connection.
    ReAuthenticate = 0x19,
    /// Refused without a reason given.
    UnspecifiedError = 0x80,
    /// The bytes do not form a packet.
    MalformedPacket = 0x81,
    /// A packet came that is not allowed here, or contradicts itself.
    ProtocolError = 0x82,
    /// Valid, but not accepted by this implementation.
    ImplementationSpecificError = 0x83,
    /// The protocol version is not spoken here.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is well-formed but not allowed.
    ClientIdentifierNotValid = 0x85,
    /// The credentials are wrong.
    BadUserNameOrPassword = 0x86,
    /// The client may not do this.
    NotAuthorized = 0x87,
    /// The server cannot serve now.
    ServerUnavailable = 0x88,
    /// The server has too much to do; try again later.
    ServerBusy = 0x89,
    /// The client has been shut out by an operator.
    Banned = 0x8A,
    /// The server is going down.
    ServerShuttingDown = 0x8B,
    /// The authentication method is unknown or not the one of the CONNECT.
    BadAuthenticationMethod = 0x8C,
    /// Nothing came for one and a half keep alive periods.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses the same client identifier.
    SessionTakenOver = 0x8E,
    /// The topic filter is well-formed but not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is well-formed but not accepted.
    TopicNameInvalid = 0x90,
    /// The packet identifier belongs to an unfinished exchange.
    PacketIdentifierInUse = 0x91,
    /// No exchange has this packet identifier.
    PacketIdentifierNotFound = 0x92,
    /// More unacknowledged messages came than were announced as possible.
    ReceiveMaximumExceeded = 0x93,
    /// The topic alias is zero or above the announced maximum.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than the announced maximum.
    PacketTooLarge = 0x95,
    /// Messages come too fast.
    MessageRateTooHigh = 0x96,
    /// A limit of the implementation or the operator is reached.
    QuotaExceeded = 0x97,
    /// An operator closed the connection.
    AdministrativeAction = 0x98,
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99,
    /// Retained messages are not served.
    RetainNotSupported = 0x9A,
    /// The QoS is above the maximum announced.
    QoSNotSupported = 0x9B,
    /// For now, another server is the right one.
    UseAnotherServer = 0x9C,
    /// For good, another server is the right one.
    ServerMoved = 0x9D,
    /// Shared subscriptions are not served.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connections come too fast.
    ConnectionRateExceeded = 0x9F,
    /// The connection has lasted as long as it may.
    MaximumConnectTime = 0xA0,
    /// Subscription identifiers are not served.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard subscriptions are not served.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// `None` for a byte that is no reason code.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0x00 => Self::Success,
            0x01 => Self::GrantedQoS1,
            0x02 => Self::GrantedQoS2,
            0x04 => Self::DisconnectWithWill,
            0x10 => Self::NoMatchingSubscribers,
            0x11 => Self::NoSubscriptionExisted,
            0x18 => Self::ContinueAuthentication,
            0x19 => Self::ReAuthenticate,
            0x80 => Self::UnspecifiedError,
            0x81 => Self::MalformedPacket,
            0x82 => Self::ProtocolError,
            0x83 => Self::ImplementationSpecificError,
            0x84 => Self::UnsupportedProtocolVersion,
            0x85 => Self::ClientIdentifierNotValid,
            0x86 => Self::BadUserNameOrPassword,
            0x87 => Self::NotAuthorized,
            0x88 => Self::ServerUnavailable,
            0x89 => Self::ServerBusy,
            0x8A => Self::Banned,
            0x8B => Self::ServerShuttingDown,
            0x8C => Self::BadAuthenticationMethod,
            0x8D => Self::KeepAliveTimeout,
            0x8E => Self::SessionTakenOver,
            0x8F => Self::TopicFilterInvalid,
            0x90 => Self::TopicNameInvalid,
            0x91 => Self::PacketIdentifierInUse,
            0x92 => Self::PacketIdentifierNotFound,
            0x93 => Self::ReceiveMaximumExceeded,
            0x94 => Self::TopicAliasInvalid,
            0x95 => Self::PacketTooLarge,
            0x96 => Self::MessageRateTooHigh,
            0x97 => Self::QuotaExceeded,
            0x98 => Self::AdministrativeAction,
            0x99 => Self::PayloadFormatInvalid,
            0x9A => Self::RetainNotSupported,
            0x9B => Self::QoSNotSupported,
            0x9C => Self::UseAnotherServer,
            0x9D => Self::ServerMoved,
            0x9E => Self::SharedSubscriptionsNotSupported,
            0x9F => Self::ConnectionRateExceeded,
            0xA0 => Self::MaximumConnectTime,
            0xA1 => Self::SubscriptionIdentifiersNotSupported,
            0xA2 => Self::WildcardSubscriptionsNotSupported,
            _ => return None,
        })
    }

    /// Whether the operation failed.
    #[inline]
    #[must_use]
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// Its name in the specification, in lower case.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::GrantedQoS1 => "granted QoS 1",
            Self::GrantedQoS2 => "granted QoS 2",
            Self::DisconnectWithWill => "disconnect with will message",
            Self::NoMatchingSubscribers => "no matching subscribers",
            Self::NoSubscriptionExisted => "no subscription existed",
            Self::ContinueAuthentication => "continue authentication",
            Self::ReAuthenticate => "re-authenticate",
            Self::UnspecifiedError => "unspecified error",
            Self::MalformedPacket => "malformed packet",
            Self::ProtocolError => "protocol error",
            Self::ImplementationSpecificError => "implementation specific error",
            Self::UnsupportedProtocolVersion => "unsupported protocol version",
            Self::ClientIdentifierNotValid => "client identifier not valid",
            Self::BadUserNameOrPassword => "bad user name or password",
            Self::NotAuthorized => "not authorized",
            Self::ServerUnavailable => "server unavailable",
            Self::ServerBusy => "server busy",
            Self::Banned => "banned",
            Self::ServerShuttingDown => "server shutting down",
            Self::BadAuthenticationMethod => "bad authentication method",
            Self::KeepAliveTimeout => "keep alive timeout",
            Self::SessionTakenOver => "session taken over",
            Self::TopicFilterInvalid => "topic filter invalid",
            Self::TopicNameInvalid => "topic name invalid",
            Self::PacketIdentifierInUse => "packet identifier in use",
            Self::PacketIdentifierNotFound => "packet identifier not found",
            Self::ReceiveMaximumExceeded => "receive maximum exceeded",
            Self::TopicAliasInvalid => "topic alias invalid",
            Self::PacketTooLarge => "packet too large",
            Self::MessageRateTooHigh => "message rate too high",
            Self::QuotaExceeded => "quota exceeded",
            Self::AdministrativeAction => "administrative action",
            Self::PayloadFormatInvalid => "payload format invalid",
            Self::RetainNotSupported => "retain not supported",
            Self::QoSNotSupported => "QoS not supported",
            Self::UseAnotherServer => "use another server",
            Self::ServerMoved => "server moved",
            Self::SharedSubscriptionsNotSupported => "shared subscriptions not supported",
            Self::ConnectionRateExceeded => "connection rate exceeded",
            Self::MaximumConnectTime => "maximum connect time",
            Self::SubscriptionIdentifiersNotSupported => "subscription identifiers not supported",
            Self::WildcardSubscriptionsNotSupported => "wildcard subscriptions not supported",
        }
    }

    /// The MQTT 3.1.1 CONNACK return code nearest to it (table 3.1 there).
    ///
    /// Codes without a counterpart become "server unavailable" when trying again may help and
    /// "not authorized" when it will not.
    #[must_use]
    pub const fn connect_return_code(self) -> u8 {
        match self {
            code if !code.is_error() => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::UnspecifiedError
            | Self::ImplementationSpecificError
            | Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::KeepAliveTimeout
            | Self::SessionTakenOver
            | Self::MessageRateTooHigh
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded
            | Self::MaximumConnectTime => 3,
            Self::BadUserNameOrPassword => 4,
            _ => 5,
        }
    }

    /// The code that an MQTT 3.1.1 CONNACK return code stands for; `None` for a reserved one.
    pub(crate) const fn from_connect_return_code(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// Reads a code that must be one of `allowed`.
    pub(crate) fn decode(reader: &mut Reader<'_>, allowed: &[Self]) -> Result<Self, DecodeError> {
        Self::from_u8(reader.u8()?)
            .filter(|code| allowed.contains(code))
            .ok_or(DecodeError::ReasonCodeNotAllowed)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} (0x{:02X})", *self as u8)
    }
}

/// Whether every byte of a SUBACK or UNSUBACK payload is one of `allowed`, and there is one.
pub(crate) fn check_codes(codes: &[u8], allowed: &[ReasonCode]) -> Result<(), DecodeError> {
    if codes.is_empty() {
        return Err(DecodeError::NoReasonCodes);
    }
    let is_allowed = |&byte: &u8| allowed.iter().any(|&code| code as u8 == byte);
    if codes.iter().all(is_allowed) {
        Ok(())
    } else {
        Err(DecodeError::ReasonCodeNotAllowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own_byte() {
        let codes: Vec<_> = (0..=255).filter_map(ReasonCode::from_u8).collect();
        assert_eq!(codes.len(), 43);
        for code in codes {
            assert_eq!(ReasonCode::from_u8(code as u8), Some(code));
            assert_eq!(code.is_error(), code as u8 >= 0x80);
        }
    }

    #[test]
    fn return_codes_map_back_to_themselves() {
        // table 3.1 of MQTT 3.1.1; everything a 3.1.1 client can be told is one of the six
        for byte in 0..=5 {
            let code = ReasonCode::from_connect_return_code(byte);
            assert_eq!(code.map(ReasonCode::connect_return_code), Some(byte));
        }
        assert_eq!(ReasonCode::from_connect_return_code(6), None);
        for code in (0..=255).filter_map(ReasonCode::from_u8) {
            let refused = code.connect_return_code();
            assert_eq!(refused != 0, code.is_error(), "{code}");
            assert!(refused <= 5);
        }
        assert_eq!(ReasonCode::Banned.connect_return_code(), 5);
        assert_eq!(ReasonCode::ServerBusy.connect_return_code(), 3);
        assert_eq!(ReasonCode::Success.to_string(), "Success (0x00)");
    }
}
