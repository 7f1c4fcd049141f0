//! AUTH (MQTT 5.0 section 3.15): one step of an extended authentication.
//!
//! Older versions have no such packet. Whether a method has to be named is the session's to say,
//! which knows the one of the CONNECT.

use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, PacketType};
use crate::primitive::{Reader, Sink};
use crate::property::{self, Property, PropertyBlock, PropertyReader, UserProperties, write_block};
use crate::reason::ReasonCode;
use crate::version::ProtocolVersion;

/// [MQTT5-3.15.2-1]
const CODES: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::ContinueAuthentication,
    ReasonCode::ReAuthenticate,
];

/// An AUTH packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// Where the exchange stands.
    pub code: ReasonCode,
    /// The method of the exchange.
    pub authentication_method: Option<&'a str>,
    /// What the method has to say.
    pub authentication_data: Option<&'a [u8]>,
    /// What happened, for people.
    pub reason_string: Option<&'a str>,
    /// Names and values of the sender's own.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let mut auth = Self {
            code: ReasonCode::Success,
            authentication_method: None,
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        // an empty AUTH says success and nothing else; otherwise both fields are there
        if !reader.is_empty() {
            auth.code = ReasonCode::decode(&mut reader, CODES)?;
            auth.decode_properties(&mut reader)?;
        }
        reader.finish()?;
        Ok(auth)
    }

    fn decode_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::decode(reader)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::AuthenticationMethod(text) => self.authentication_method = Some(text),
                Property::AuthenticationData(data) => self.authentication_data = Some(data),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::UserProperty(..) => {}
                other => return other.misplaced(),
            }
        }
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    ///
    /// When it has no wire form, which is always so before MQTT 5; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        fixed_header::encode(PacketType::Auth.first_byte(), self, version, out)
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

impl Body for Auth<'_> {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        if !version.has_properties() {
            return sink.refuse(EncodeError::NotInVersion);
        }
        if self.code == ReasonCode::Success && property::is_empty(self) {
            return;
        }
        sink.u8(self.code as u8);
        write_block(self, sink);
    }
}

impl PropertyBlock for Auth<'_> {
    fn write(&self, sink: &mut impl Sink) {
        if let Some(text) = self.authentication_method {
            Property::AuthenticationMethod(text).write(sink);
        }
        if let Some(data) = self.authentication_data {
            Property::AuthenticationData(data).write(sink);
        }
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(sink);
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

    const EMPTY: Auth<'_> = Auth {
        code: ReasonCode::Success,
        authentication_method: None,
        authentication_data: None,
        reason_string: None,
        user_properties: UserProperties::from_pairs(&[]),
    };

    #[test]
    fn success_is_two_bytes() {
        check(V5, b"\xF0\x00", &Packet::Auth(EMPTY));
        check_decodes(V5, b"\xF0\x02\x00\x00", &Packet::Auth(EMPTY));
        let again = Auth {
            code: ReasonCode::ReAuthenticate,
            ..EMPTY
        };
        check(V5, b"\xF0\x02\x19\x00", &Packet::Auth(again));
    }

    #[test]
    fn all_properties() {
        let packet = Packet::Auth(Auth {
            code: ReasonCode::ContinueAuthentication,
            authentication_method: Some("m"),
            authentication_data: Some(b"\x00\xFF"),
            reason_string: Some("r"),
            user_properties: UserProperties::from_pairs(&[("k", "v")]),
        });
        let properties = b"\x15\x00\x01m\x16\x00\x02\x00\xFF\x1F\x00\x01r\x26\x00\x01k\x00\x01v";
        check(V5, &framed(0xF0, &[b"\x18\x14", properties]), &packet);
    }

    #[test]
    fn malformed_packets() {
        // [MQTT5-3.15.2-1]
        for (body, error) in [
            (&b"\x01\x00"[..], DecodeError::ReasonCodeNotAllowed),
            (b"\x8C\x00", DecodeError::ReasonCodeNotAllowed),
            (b"\x18", DecodeError::UnexpectedEnd),
            (b"\x18\x00\x00", DecodeError::TrailingBytes),
            (
                b"\x18\x03\x16\x00\x00",
                DecodeError::AuthenticationDataWithoutMethod,
            ),
            (
                b"\x18\x06\x15\x00\x00\x15\x00\x00",
                DecodeError::PropertyDuplicate,
            ),
            (b"\x18\x03\x21\x00\x01", DecodeError::PropertyMisplaced),
        ] {
            check_error(V5, &framed(0xF0, &[body]), error);
        }
    }

    #[test]
    fn older_versions_have_no_auth() {
        for version in [V3_1, V3_1_1] {
            check_error(version, b"\xF0\x00", DecodeError::ReservedPacketType);
            let mut out = Vec::new();
            assert_eq!(
                EMPTY.encode(version, &mut out),
                Err(EncodeError::NotInVersion)
            );
            assert_eq!(EMPTY.encoded_len(version), Err(EncodeError::NotInVersion));
            assert!(out.is_empty());
        }
    }
}
