//! DISCONNECT (section 3.14): the last packet of a connection.
//!
//! Before MQTT 5 it is two bytes, and only a client sends it.

use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, PacketType};
use crate::primitive::{Reader, Sink};
use crate::property::{self, Property, PropertyBlock, PropertyReader, UserProperties, write_block};
use crate::reason::ReasonCode;
use crate::version::ProtocolVersion;

/// The codes of either side, by tables 2-6 and 3-10 [MQTT5-3.14.2-1].
const CODES: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::DisconnectWithWill,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerBusy,
    ReasonCode::ServerShuttingDown,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::KeepAliveTimeout,
    ReasonCode::SessionTakenOver,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::TopicNameInvalid,
    ReasonCode::ReceiveMaximumExceeded,
    ReasonCode::TopicAliasInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::MessageRateTooHigh,
    ReasonCode::QuotaExceeded,
    ReasonCode::AdministrativeAction,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QoSNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::ConnectionRateExceeded,
    ReasonCode::MaximumConnectTime,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];

/// A DISCONNECT packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Disconnect<'a> {
    /// Why the connection ends.
    pub code: ReasonCode,
    /// How long the session outlives the connection, if not as said before.
    pub session_expiry_s: Option<u32>,
    /// What happened, for people.
    pub reason_string: Option<&'a str>,
    /// Names and values of the sender's own.
    pub user_properties: UserProperties<'a>,
    /// Which server to use instead.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    /// A DISCONNECT without properties.
    #[must_use]
    pub fn new(code: ReasonCode) -> Self {
        Self {
            code,
            session_expiry_s: None,
            reason_string: None,
            user_properties: UserProperties::default(),
            server_reference: None,
        }
    }

    /// Reason code and properties may each be left out.
    pub(crate) fn decode(
        mut reader: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::Success);
        if version.has_properties() && !reader.is_empty() {
            disconnect.code = ReasonCode::decode(&mut reader, CODES)?;
            if !reader.is_empty() {
                disconnect.decode_properties(&mut reader)?;
            }
        }
        reader.finish()?;
        Ok(disconnect)
    }

    fn decode_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::decode(reader)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval(value) => self.session_expiry_s = Some(value),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                Property::UserProperty(..) => {}
                other => return other.misplaced(),
            }
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        fixed_header::encode(PacketType::Disconnect.first_byte(), self, version, out)
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

impl Body for Disconnect<'_> {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        if !version.has_properties() {
            return;
        }
        if self.code == ReasonCode::Success && property::is_empty(self) {
            return;
        }
        sink.u8(self.code as u8);
        // the length could be left out when it is 0, but there are clients that miss it then
        write_block(self, sink);
    }
}

impl PropertyBlock for Disconnect<'_> {
    fn write(&self, sink: &mut impl Sink) {
        if let Some(value) = self.session_expiry_s {
            Property::SessionExpiryInterval(value).write(sink);
        }
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(sink);
        }
        if let Some(text) = self.server_reference {
            Property::ServerReference(text).write(sink);
        }
        self.user_properties.write(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_decodes, check_error, framed};
    use crate::packet::Packet;
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    #[test]
    fn a_normal_disconnect_is_two_bytes() {
        let packet = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
        for version in [V3_1, V3_1_1, V5] {
            check(version, b"\xE0\x00", &packet);
        }
        check_decodes(V5, b"\xE0\x01\x00", &packet);
        check_decodes(V5, b"\xE0\x02\x00\x00", &packet);
    }

    #[test]
    fn a_code_with_and_without_a_property_length() {
        for &code in CODES.iter().filter(|&&code| code != ReasonCode::Success) {
            let packet = Packet::Disconnect(Disconnect::new(code));
            check(V5, &[0xE0, 2, code as u8, 0], &packet);
            check_decodes(V5, &[0xE0, 1, code as u8], &packet);
        }
        // MQTT 3 cannot say why
        let mut out = Vec::new();
        let disconnect = Disconnect::new(ReasonCode::SessionTakenOver);
        assert_eq!(disconnect.encode(V3_1_1, &mut out), Ok(()));
        assert_eq!(out, b"\xE0\x00");
    }

    #[test]
    fn all_properties() {
        let packet = Packet::Disconnect(Disconnect {
            code: ReasonCode::ServerMoved,
            session_expiry_s: Some(1),
            reason_string: Some("r"),
            user_properties: UserProperties::from_pairs(&[("k", "v")]),
            server_reference: Some("s"),
        });
        let properties = b"\x11\x00\x00\x00\x01\x1F\x00\x01r\x1C\x00\x01s\x26\x00\x01k\x00\x01v";
        check(V5, &framed(0xE0, &[b"\x9D\x14", properties]), &packet);
    }

    #[test]
    fn codes_of_other_packets_are_refused() {
        // [MQTT5-3.14.2-1]
        for code in [
            0x01, 0x10, 0x18, 0x84, 0x85, 0x86, 0x88, 0x8A, 0x91, 0x92, 0xA3,
        ] {
            check_error(V5, &[0xE0, 1, code], DecodeError::ReasonCodeNotAllowed);
        }
    }

    #[test]
    fn malformed_packets() {
        check_error(V3_1_1, b"\xE0\x01\x00", DecodeError::TrailingBytes);
        for (end, error) in [
            (&b"\x00\x00"[..], DecodeError::TrailingBytes),
            (b"\x01", DecodeError::UnexpectedEnd),
            (b"\x80\x00", DecodeError::VariableIntegerNotMinimal),
            (b"\x03\x21\x00\x01", DecodeError::PropertyMisplaced),
            (
                b"\x06\x1F\x00\x00\x1F\x00\x00",
                DecodeError::PropertyDuplicate,
            ),
        ] {
            check_error(V5, &framed(0xE0, &[b"\x00", end]), error);
        }
    }
}
