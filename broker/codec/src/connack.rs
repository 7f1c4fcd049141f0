//! CONNACK (section 3.2): whether the client is in, and what the server is ready to do.
//!
//! Before MQTT 5 the reason becomes one of six return codes, and the limits cannot be said.

use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, PacketType};
use crate::primitive::{Reader, Sink};
use crate::property::{Property, PropertyBlock, PropertyReader, UserProperties, write_block};
use crate::qos::QoS;
use crate::reason::ReasonCode;
use crate::version::ProtocolVersion;
use std::num::{NonZeroU16, NonZeroU32};

/// The codes a CONNACK may carry [MQTT5-3.2.2-8].
const CODES: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerUnavailable,
    ReasonCode::ServerBusy,
    ReasonCode::Banned,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QoSNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::ConnectionRateExceeded,
];

/// A CONNACK packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnAck<'a> {
    /// Whether an old session goes on; never together with an error.
    pub session_present: bool,
    /// Success or the reason for the refusal.
    pub code: ReasonCode,
    /// What MQTT 5 adds.
    pub properties: ConnAckProperties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(
        mut reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        // [MQTT5-3.2.2-1]; MQTT 3.1 reserves the whole byte
        let session_present = match reader.u8()? {
            0 => false,
            1 if version != ProtocolVersion::V3_1 => true,
            _ => return Err(DecodeError::ConnAckFlags),
        };
        let code = if version.has_properties() {
            ReasonCode::decode(&mut reader, CODES)?
        } else {
            ReasonCode::from_connect_return_code(reader.u8()?)
                .ok_or(DecodeError::ReasonCodeNotAllowed)?
        };
        // [MQTT5-3.2.2-6] [MQTT3-3.2.2-4]
        if session_present && code.is_error() {
            return Err(DecodeError::SessionPresentOnRefusal);
        }
        let properties = if version.has_properties() {
            ConnAckProperties::decode(&mut reader)?
        } else {
            ConnAckProperties::default()
        };
        reader.finish()?;
        Ok(Self {
            session_present,
            code,
            properties,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        fixed_header::encode(PacketType::ConnAck.first_byte(), self, version, out)
    }

    /// How many bytes [`encode`](Self::encode) appends.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        fixed_header::encoded_len(self, version)
    }
}

impl Body for ConnAck<'_> {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        // [MQTT5-3.2.2-6] [MQTT3-3.2.2-4]
        let session_present = self.session_present && !self.code.is_error();
        sink.u8(u8::from(
            session_present && version != ProtocolVersion::V3_1,
        ));
        if version.has_properties() {
            sink.u8(self.code as u8);
            write_block(&self.properties, sink);
        } else {
            sink.u8(self.code.connect_return_code());
        }
    }
}

/// The properties of a CONNACK; what is absent has the default of section 3.2.2.3.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnAckProperties<'a> {
    /// How long the session is kept, if not as long as the client asked.
    pub session_expiry_s: Option<u32>,
    /// How many unacknowledged messages the server takes.
    pub receive_maximum: Option<NonZeroU16>,
    /// The highest QoS the server takes; QoS 2 is the default and not written.
    pub qos_max: Option<QoS>,
    /// Whether retained messages are served.
    pub retain_available: Option<bool>,
    /// The largest packet the server takes.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// The name given to a client that came without.
    pub assigned_client_id: Option<&'a str>,
    /// The highest topic alias the server takes.
    pub topic_alias_max: Option<u16>,
    /// What happened, for people.
    pub reason_string: Option<&'a str>,
    /// Names and values of the server's own.
    pub user_properties: UserProperties<'a>,
    /// Whether filters may hold wildcards.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether subscriptions may have identifiers.
    pub subscription_ids_available: Option<bool>,
    /// Whether subscriptions may be shared.
    pub shared_subscription_available: Option<bool>,
    /// The keep alive that counts instead of the client's.
    pub keep_alive_s: Option<u16>,
    /// The basis of response topics, if the client asked for it.
    pub response_information: Option<&'a str>,
    /// Which server to use instead.
    pub server_reference: Option<&'a str>,
    /// The method the client is being authenticated with.
    pub authentication_method: Option<&'a str>,
    /// The last data of that method.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> ConnAckProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut properties = PropertyReader::decode(reader)?;
        let mut decoded = Self::default();
        while let Some(property) = properties.next()? {
            decoded.set(property)?;
        }
        if decoded.authentication_data.is_some() && decoded.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        decoded.user_properties = properties.user_properties();
        Ok(decoded)
    }

    fn set(&mut self, property: Property<'a>) -> Result<(), DecodeError> {
        match property {
            Property::SessionExpiryInterval(value) => self.session_expiry_s = Some(value),
            Property::ReceiveMaximum(value) => self.receive_maximum = Some(value),
            Property::MaximumQoS(value) => self.qos_max = Some(value),
            Property::RetainAvailable(value) => self.retain_available = Some(value),
            Property::MaximumPacketSize(value) => self.packet_bytes_max = Some(value),
            Property::AssignedClientIdentifier(value) => self.assigned_client_id = Some(value),
            Property::TopicAliasMaximum(value) => self.topic_alias_max = Some(value),
            Property::ReasonString(value) => self.reason_string = Some(value),
            Property::UserProperty(..) => {}
            Property::WildcardSubscriptionAvailable(value) => {
                self.wildcard_subscription_available = Some(value);
            }
            Property::SubscriptionIdentifierAvailable(value) => {
                self.subscription_ids_available = Some(value);
            }
            Property::SharedSubscriptionAvailable(value) => {
                self.shared_subscription_available = Some(value);
            }
            Property::ServerKeepAlive(value) => self.keep_alive_s = Some(value),
            Property::ResponseInformation(value) => self.response_information = Some(value),
            Property::ServerReference(value) => self.server_reference = Some(value),
            Property::AuthenticationMethod(value) => self.authentication_method = Some(value),
            Property::AuthenticationData(value) => self.authentication_data = Some(value),
            other => return other.misplaced(),
        }
        Ok(())
    }

    fn limits(&self) -> [Option<Property<'a>>; 10] {
        let qos_max = self.qos_max.filter(|&qos| qos != QoS::ExactlyOnce);
        [
            self.session_expiry_s.map(Property::SessionExpiryInterval),
            self.receive_maximum.map(Property::ReceiveMaximum),
            qos_max.map(Property::MaximumQoS),
            self.retain_available.map(Property::RetainAvailable),
            self.packet_bytes_max.map(Property::MaximumPacketSize),
            self.topic_alias_max.map(Property::TopicAliasMaximum),
            self.wildcard_subscription_available
                .map(Property::WildcardSubscriptionAvailable),
            self.subscription_ids_available
                .map(Property::SubscriptionIdentifierAvailable),
            self.shared_subscription_available
                .map(Property::SharedSubscriptionAvailable),
            self.keep_alive_s.map(Property::ServerKeepAlive),
        ]
    }

    fn texts(&self) -> [Option<Property<'a>>; 6] {
        [
            self.assigned_client_id
                .map(Property::AssignedClientIdentifier),
            self.response_information.map(Property::ResponseInformation),
            self.server_reference.map(Property::ServerReference),
            self.authentication_method
                .map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
            self.reason_string.map(Property::ReasonString),
        ]
    }
}

impl PropertyBlock for ConnAckProperties<'_> {
    fn write(&self, sink: &mut impl Sink) {
        for property in self.limits().into_iter().chain(self.texts()).flatten() {
            property.write(sink);
        }
        self.user_properties.write(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_error, framed};
    use crate::packet::Packet;
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    fn connack(session_present: bool, code: ReasonCode) -> ConnAck<'static> {
        ConnAck {
            session_present,
            code,
            properties: ConnAckProperties::default(),
        }
    }

    fn packet(session_present: bool, code: ReasonCode) -> Packet<'static> {
        Packet::ConnAck(Box::new(connack(session_present, code)))
    }

    #[test]
    fn accepted() {
        // [MQTT5-3.2.2-2] [MQTT5-3.2.2-3] [MQTT3-3.2.2-1] [MQTT3-3.2.2-2]
        let success = ReasonCode::Success;
        check(V3_1, b"\x20\x02\x00\x00", &packet(false, success));
        check(V3_1_1, b"\x20\x02\x00\x00", &packet(false, success));
        check(V3_1_1, b"\x20\x02\x01\x00", &packet(true, success));
        check(V5, b"\x20\x03\x00\x00\x00", &packet(false, success));
        check(V5, b"\x20\x03\x01\x00\x00", &packet(true, success));
        // MQTT 3.1 has no such flag
        check_error(V3_1, b"\x20\x02\x01\x00", DecodeError::ConnAckFlags);
        let mut out = Vec::new();
        assert_eq!(connack(true, success).encode(V3_1, &mut out), Ok(()));
        assert_eq!(out, b"\x20\x02\x00\x00");
    }

    #[test]
    fn refused() {
        for (code, byte) in [
            (ReasonCode::UnsupportedProtocolVersion, 1),
            (ReasonCode::ClientIdentifierNotValid, 2),
            (ReasonCode::ServerUnavailable, 3),
            (ReasonCode::BadUserNameOrPassword, 4),
            (ReasonCode::NotAuthorized, 5),
        ] {
            check(V3_1_1, &[0x20, 2, 0, byte], &packet(false, code));
            check(V5, &[0x20, 3, 0, code as u8, 0], &packet(false, code));
        }
        check_error(
            V3_1_1,
            b"\x20\x02\x00\x06",
            DecodeError::ReasonCodeNotAllowed,
        );
        for code in [0x01, 0x04, 0x8B, 0x8D, 0x92, 0xA2, 0xFF] {
            // [MQTT5-3.2.2-8]
            let bytes = [0x20, 3, 0, code, 0];
            check_error(V5, &bytes, DecodeError::ReasonCodeNotAllowed);
        }
    }

    #[test]
    fn a_refusal_has_no_session() {
        // [MQTT5-3.2.2-6] [MQTT3-3.2.2-4]
        let error = DecodeError::SessionPresentOnRefusal;
        check_error(V3_1_1, b"\x20\x02\x01\x05", error);
        check_error(V5, b"\x20\x03\x01\x87\x00", error);
        let mut out = Vec::new();
        let refusal = connack(true, ReasonCode::NotAuthorized);
        assert_eq!(refusal.encode(V5, &mut out), Ok(()));
        assert_eq!(out, b"\x20\x03\x00\x87\x00");
    }

    #[test]
    fn reserved_flags() {
        // [MQTT5-3.2.2-1]
        for flags in [0x02, 0x80, 0xFF] {
            check_error(V3_1_1, &[0x20, 2, flags, 0], DecodeError::ConnAckFlags);
            check_error(V5, &[0x20, 3, flags, 0, 0], DecodeError::ConnAckFlags);
        }
    }

    #[test]
    fn all_properties() {
        let mut connack = connack(false, ReasonCode::Success);
        connack.properties = ConnAckProperties {
            session_expiry_s: Some(5),
            receive_maximum: NonZeroU16::new(6),
            qos_max: Some(QoS::AtLeastOnce),
            retain_available: Some(false),
            packet_bytes_max: NonZeroU32::new(7),
            assigned_client_id: Some("id"),
            topic_alias_max: Some(0),
            reason_string: Some("ok"),
            user_properties: UserProperties::from_pairs(&[("", "")]),
            wildcard_subscription_available: Some(true),
            subscription_ids_available: Some(false),
            shared_subscription_available: Some(true),
            keep_alive_s: Some(30),
            response_information: Some("i"),
            server_reference: Some("s"),
            authentication_method: Some("m"),
            authentication_data: Some(b""),
        };
        let properties = b"\x11\x00\x00\x00\x05\x21\x00\x06\x24\x01\x25\x00\x27\x00\x00\x00\x07\
            \x22\x00\x00\x28\x01\x29\x00\x2A\x01\x13\x00\x1E\x12\x00\x02id\x1A\x00\x01i\
            \x1C\x00\x01s\x15\x00\x01m\x16\x00\x00\x1F\x00\x02ok\x26\x00\x00\x00\x00";
        let length = [u8::try_from(properties.len()).unwrap()];
        let bytes = framed(0x20, &[b"\x00\x00", &length, properties]);
        check(V5, &bytes, &Packet::ConnAck(Box::new(connack.clone())));
        let mut out = Vec::new();
        assert_eq!(connack.encode(V3_1_1, &mut out), Ok(()));
        assert_eq!(out, b"\x20\x02\x00\x00");
    }

    #[test]
    fn qos_2_as_the_maximum_is_not_said() {
        // MQTT 5.0 section 3.2.2.3.4
        let mut connack = connack(false, ReasonCode::Success);
        connack.properties.qos_max = Some(QoS::ExactlyOnce);
        let mut out = Vec::new();
        assert_eq!(connack.encode(V5, &mut out), Ok(()));
        assert_eq!(out, b"\x20\x03\x00\x00\x00");
    }

    #[test]
    fn properties_out_of_place_range_or_number() {
        for (properties, error) in [
            (&b"\x24\x02"[..], DecodeError::MaximumQosInvalid),
            (b"\x24\xFF", DecodeError::MaximumQosInvalid),
            (b"\x21\x00\x00", DecodeError::ReceiveMaximumZero),
            (b"\x27\x00\x00\x00\x00", DecodeError::PacketBytesMaxZero),
            (b"\x2A\x02", DecodeError::PropertyNotBoolean),
            (
                b"\x16\x00\x00",
                DecodeError::AuthenticationDataWithoutMethod,
            ),
            (b"\x1F\x00\x00\x1F\x00\x00", DecodeError::PropertyDuplicate),
            (b"\x23\x00\x01", DecodeError::PropertyMisplaced),
            (b"\x17\x01", DecodeError::PropertyMisplaced),
        ] {
            let length = [u8::try_from(properties.len()).unwrap()];
            check_error(
                V5,
                &framed(0x20, &[b"\x00\x00", &length, properties]),
                error,
            );
        }
    }

    #[test]
    fn bytes_missing_or_left_over() {
        check_error(V3_1_1, b"\x20\x01\x00", DecodeError::UnexpectedEnd);
        check_error(V3_1_1, b"\x20\x03\x00\x00\x00", DecodeError::TrailingBytes);
        check_error(V5, b"\x20\x02\x00\x00", DecodeError::UnexpectedEnd);
        check_error(V5, b"\x20\x04\x00\x00\x00\x00", DecodeError::TrailingBytes);
    }
}
