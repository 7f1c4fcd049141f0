//! CONNECT (section 3.1): who the client is, what it wants kept, and its will.
//!
//! The packet says its own version; the fields of all versions are read here, in the order in
//! which section 3.1.3 lists them.
//!
//! Does not know: whether the client may connect, or how long identifiers may be.

use crate::error::{DecodeError, EncodeError};
use crate::fixed_header::{self, Body, PacketType};
use crate::forwarded::Forwarded;
use crate::primitive::{Reader, Sink};
use crate::property::{Property, PropertyBlock, PropertyReader, UserProperties, write_block};
use crate::qos::QoS;
use crate::topic;
use crate::version::ProtocolVersion;
use std::num::{NonZeroU16, NonZeroU32};

/// A CONNECT packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connect<'a> {
    /// The version of the whole connection.
    pub version: ProtocolVersion,
    /// Names the session; empty asks the server for a name.
    pub client_id: &'a str,
    /// Whether an old session is to be forgotten; before MQTT 5 "clean session".
    pub clean_start: bool,
    /// The longest silence the client promises; 0 for no promise.
    pub keep_alive_s: u16,
    /// The user name, if the client gives one.
    pub username: Option<&'a str>,
    /// The password, if the client gives one; any bytes.
    pub password: Option<&'a [u8]>,
    /// What to publish when the client is lost.
    pub will: Option<Will<'a>>,
    /// What MQTT 5 adds.
    pub properties: ConnectProperties<'a>,
}

impl<'a> Connect<'a> {
    pub(crate) fn decode(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let version = ProtocolVersion::decode(&mut reader)?;
        let flags = Flags::decode(&mut reader, version)?;
        let keep_alive_s = reader.u16()?;
        let properties = if version.has_properties() {
            ConnectProperties::decode(&mut reader)?
        } else {
            ConnectProperties::default()
        };
        // [MQTT5-3.1.3-1] [MQTT5-3.1.3-3] [MQTT5-3.1.3-4] [MQTT3-3.1.3-1] [MQTT3-3.1.3-3]
        // [MQTT3-3.1.3-4]
        let client_id = reader.string()?;
        if client_id.is_empty() {
            check_empty_client_id(version, flags.is_set(Flags::CLEAN_START))?;
        }
        let will = if flags.is_set(Flags::WILL) {
            Some(Will::decode(&mut reader, flags, version)?)
        } else {
            None
        };
        // [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.3-12] [MQTT3-3.1.2-18] [MQTT3-3.1.2-19]
        // [MQTT3-3.1.3-11]
        let username = if flags.is_set(Flags::USER_NAME) {
            Some(reader.string()?)
        } else {
            None
        };
        // [MQTT5-3.1.2-18] [MQTT5-3.1.2-19] [MQTT3-3.1.2-20] [MQTT3-3.1.2-21]
        let password = if flags.is_set(Flags::PASSWORD) {
            Some(reader.binary()?)
        } else {
            None
        };
        reader.finish()?;
        Ok(Self {
            version,
            client_id,
            clean_start: flags.is_set(Flags::CLEAN_START),
            keep_alive_s,
            username,
            password,
            will,
            properties,
        })
    }

    /// Appends the packet to `out`; `version` is that of the packet.
    ///
    /// # Errors
    ///
    /// When it has no wire form; nothing is written then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        fixed_header::encode(PacketType::Connect.first_byte(), self, version, out)
    }

    /// How many bytes [`encode`](Self::encode) appends.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        fixed_header::encoded_len(self, version)
    }

    /// The password; MQTT 3 cannot say it without a user name [MQTT3-3.1.2-22].
    fn password_in(&self, version: ProtocolVersion) -> Option<&'a [u8]> {
        self.password
            .filter(|_| version.has_properties() || self.username.is_some())
    }
}

impl Body for Connect<'_> {
    fn write(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        if version != self.version {
            sink.refuse(EncodeError::OtherVersion);
        }
        let password = self.password_in(version);
        version.write(sink);
        sink.u8(Flags::of(self, password.is_some()).0);
        sink.u16(self.keep_alive_s);
        if version.has_properties() {
            write_block(&self.properties, sink);
        }
        sink.string(self.client_id);
        if let Some(will) = &self.will {
            will.write_fields(version, sink);
        }
        if let Some(username) = self.username {
            sink.string(username);
        }
        if let Some(password) = password {
            sink.binary(password);
        }
    }
}

/// Where an empty client identifier is not allowed; MQTT 5 always allows it [MQTT5-3.1.3-6].
///
/// [MQTT3-3.1.3-7] [MQTT3-3.1.3-8]
fn check_empty_client_id(version: ProtocolVersion, clean_start: bool) -> Result<(), DecodeError> {
    match version {
        ProtocolVersion::V5 => Ok(()),
        ProtocolVersion::V3_1_1 if clean_start => Ok(()),
        ProtocolVersion::V3_1_1 | ProtocolVersion::V3_1 => Err(DecodeError::ClientIdEmpty),
    }
}

/// The CONNECT flags (section 3.1.2.3).
#[derive(Copy, Clone, Debug)]
struct Flags(u8);

impl Flags {
    const RESERVED: u8 = 0b0000_0001;
    const CLEAN_START: u8 = 0b0000_0010;
    const WILL: u8 = 0b0000_0100;
    const WILL_QOS: u8 = 0b0001_1000;
    const WILL_RETAIN: u8 = 0b0010_0000;
    const PASSWORD: u8 = 0b0100_0000;
    const USER_NAME: u8 = 0b1000_0000;

    fn decode(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = Self(reader.u8()?);
        // [MQTT5-3.1.2-3] [MQTT3-3.1.2-3]
        if flags.is_set(Self::RESERVED) {
            return Err(DecodeError::ConnectFlagReserved);
        }
        // [MQTT5-3.1.2-11] [MQTT5-3.1.2-13] [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-15]
        if !flags.is_set(Self::WILL) && flags.is_set(Self::WILL_QOS | Self::WILL_RETAIN) {
            return Err(DecodeError::WillFlagsWithoutWill);
        }
        // [MQTT3-3.1.2-22]
        let password_only = flags.is_set(Self::PASSWORD) && !flags.is_set(Self::USER_NAME);
        if password_only && !version.has_properties() {
            return Err(DecodeError::PasswordWithoutUserName);
        }
        flags.will_qos()?;
        Ok(flags)
    }

    fn of(connect: &Connect<'_>, has_password: bool) -> Self {
        let flag = |mask, is_set| if is_set { mask } else { 0 };
        let will = connect.will.as_ref().map_or(0, |will| {
            Self::WILL | ((will.qos as u8) << 3) | flag(Self::WILL_RETAIN, will.retain)
        });
        Self(
            flag(Self::CLEAN_START, connect.clean_start)
                | will
                | flag(Self::PASSWORD, has_password)
                | flag(Self::USER_NAME, connect.username.is_some()),
        )
    }

    /// Whether any bit of `mask` is set.
    const fn is_set(self, mask: u8) -> bool {
        self.0 & mask != 0
    }

    /// [MQTT5-3.1.2-12] [MQTT3-3.1.2-14]
    fn will_qos(self) -> Result<QoS, DecodeError> {
        QoS::from_bits((self.0 & Self::WILL_QOS) >> 3).ok_or(DecodeError::QosInvalid)
    }
}

/// The properties of a CONNECT.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ConnectProperties<'a> {
    /// How long the session outlives the connection; absent means not at all.
    pub session_expiry_s: Option<u32>,
    /// How many unacknowledged messages the client takes; absent means 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet the client takes; absent means any.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// The highest topic alias the client takes; 0 for none.
    pub topic_alias_max: u16,
    /// Whether the client wants Response Information.
    pub request_response_information: bool,
    /// Whether the client wants reason strings and user properties with refusals.
    pub request_problem_information: bool,
    /// Names and values of the client's own.
    pub user_properties: UserProperties<'a>,
    /// How the client wants to authenticate beyond user name and password.
    pub authentication_method: Option<&'a str>,
    /// The first data of that method.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry_s: None,
            receive_maximum: None,
            packet_bytes_max: None,
            topic_alias_max: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::default(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl<'a> ConnectProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut properties = PropertyReader::decode(reader)?;
        let mut decoded = Self::default();
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval(value) => decoded.session_expiry_s = Some(value),
                Property::ReceiveMaximum(value) => decoded.receive_maximum = Some(value),
                Property::MaximumPacketSize(value) => decoded.packet_bytes_max = Some(value),
                Property::TopicAliasMaximum(value) => decoded.topic_alias_max = value,
                Property::RequestResponseInformation(value) => {
                    decoded.request_response_information = value;
                }
                Property::RequestProblemInformation(value) => {
                    decoded.request_problem_information = value;
                }
                Property::AuthenticationMethod(value) => {
                    decoded.authentication_method = Some(value);
                }
                Property::AuthenticationData(value) => decoded.authentication_data = Some(value),
                Property::UserProperty(..) => {}
                other => return other.misplaced(),
            }
        }
        if decoded.authentication_data.is_some() && decoded.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        decoded.user_properties = properties.user_properties();
        Ok(decoded)
    }
}

impl PropertyBlock for ConnectProperties<'_> {
    fn write(&self, sink: &mut impl Sink) {
        if let Some(value) = self.session_expiry_s {
            Property::SessionExpiryInterval(value).write(sink);
        }
        if let Some(value) = self.receive_maximum {
            Property::ReceiveMaximum(value).write(sink);
        }
        if let Some(value) = self.packet_bytes_max {
            Property::MaximumPacketSize(value).write(sink);
        }
        if self.topic_alias_max != 0 {
            Property::TopicAliasMaximum(self.topic_alias_max).write(sink);
        }
        if self.request_response_information {
            Property::RequestResponseInformation(true).write(sink);
        }
        if !self.request_problem_information {
            Property::RequestProblemInformation(false).write(sink);
        }
        if let Some(value) = self.authentication_method {
            Property::AuthenticationMethod(value).write(sink);
        }
        if let Some(value) = self.authentication_data {
            Property::AuthenticationData(value).write(sink);
        }
        self.user_properties.write(sink);
    }
}

/// What the server publishes when the client is lost.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// The QoS to publish it with.
    pub qos: QoS,
    /// Whether it is kept for later subscribers.
    pub retain: bool,
    /// The topic name to publish it to.
    pub topic: &'a str,
    /// The message, any bytes.
    pub payload: &'a [u8],
    /// How long the client may be lost before it counts.
    pub delay_s: u32,
    /// For how long the message is worth delivering once published.
    pub message_expiry_s: Option<u32>,
    /// What the message keeps all the way.
    pub forwarded: Forwarded<'a>,
}

impl<'a> Will<'a> {
    /// [MQTT5-3.1.2-9] [MQTT5-3.1.3-11] [MQTT3-3.1.2-9] [MQTT3-3.1.3-10]
    fn decode(
        reader: &mut Reader<'a>,
        flags: Flags,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut will = Self {
            qos: flags.will_qos()?,
            retain: flags.is_set(Flags::WILL_RETAIN),
            topic: "",
            payload: &[],
            delay_s: 0,
            message_expiry_s: None,
            forwarded: Forwarded::default(),
        };
        if version.has_properties() {
            will.decode_properties(reader)?;
        }
        will.topic = reader.string()?;
        topic::validate_topic_name(will.topic).map_err(DecodeError::WillTopic)?;
        will.payload = reader.binary()?;
        Ok(will)
    }

    fn decode_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::decode(reader)?;
        let mut forwarded_length = 0;
        while let Some((property, wire)) = properties.next_with_wire()? {
            match property {
                Property::WillDelayInterval(delay_s) => self.delay_s = delay_s,
                Property::MessageExpiryInterval(value) => self.message_expiry_s = Some(value),
                forwarded if forwarded.is_forwarded() => forwarded_length += wire.len(),
                other => return other.misplaced(),
            }
        }
        self.forwarded = Forwarded::among(properties.block(), forwarded_length);
        Ok(())
    }

    fn write_fields(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        if version.has_properties() {
            write_block(self, sink);
        }
        sink.string(self.topic);
        sink.binary(self.payload);
    }
}

impl PropertyBlock for Will<'_> {
    fn write(&self, sink: &mut impl Sink) {
        if self.delay_s != 0 {
            Property::WillDelayInterval(self.delay_s).write(sink);
        }
        if let Some(expiry_s) = self.message_expiry_s {
            Property::MessageExpiryInterval(expiry_s).write(sink);
        }
        self.forwarded.write(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_error, check_valid, framed};
    use crate::packet::Packet;
    use crate::topic::TopicNameError;
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    const HEAD_3_1: &[u8] = b"\x00\x06MQIsdp\x03";
    const HEAD_3_1_1: &[u8] = b"\x00\x04MQTT\x04";
    const HEAD_5: &[u8] = b"\x00\x04MQTT\x05";

    fn connect(version: ProtocolVersion) -> Connect<'static> {
        Connect {
            version,
            client_id: "c",
            clean_start: true,
            keep_alive_s: 60,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
        }
    }

    fn will() -> Will<'static> {
        Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "w",
            payload: b"\x00\xFF",
            delay_s: 0,
            message_expiry_s: None,
            forwarded: Forwarded::default(),
        }
    }

    #[test]
    fn the_smallest_packet_of_each_version() {
        for (version, head, properties) in [
            (V3_1, HEAD_3_1, &b""[..]),
            (V3_1_1, HEAD_3_1_1, b""),
            (V5, HEAD_5, b"\x00"),
        ] {
            let bytes = framed(0x10, &[head, b"\x02\x00\x3C", properties, b"\x00\x01c"]);
            check(
                version,
                &bytes,
                &Packet::Connect(Box::new(connect(version))),
            );
        }
    }

    #[test]
    fn will_user_name_and_password_in_their_order() {
        // [MQTT5-3.1.3-1] [MQTT3-3.1.3-1]
        for (version, head, none) in [
            (V3_1, HEAD_3_1, &b""[..]),
            (V3_1_1, HEAD_3_1_1, b""),
            (V5, HEAD_5, b"\x00"),
        ] {
            let packet = Packet::Connect(Box::new(Connect {
                username: Some("u"),
                password: Some(b"\xFF\x00"),
                will: Some(will()),
                ..connect(version)
            }));
            let payload = b"\x00\x01w\x00\x02\x00\xFF\x00\x01u\x00\x02\xFF\x00";
            let head = [head, b"\xEE\x00\x3C", none, b"\x00\x01c", none];
            check(version, &framed(0x10, &[&head.concat(), payload]), &packet);
        }
    }

    #[test]
    fn all_properties() {
        let properties = ConnectProperties {
            session_expiry_s: Some(u32::MAX),
            receive_maximum: NonZeroU16::new(20),
            packet_bytes_max: NonZeroU32::new(1000),
            topic_alias_max: 8,
            request_response_information: true,
            request_problem_information: false,
            user_properties: UserProperties::from_pairs(&[("a", "1"), ("a", "2")]),
            authentication_method: Some("M"),
            authentication_data: Some(b"\x00"),
        };
        let packet = Connect {
            properties,
            ..connect(V5)
        };
        let wire = b"\x11\xFF\xFF\xFF\xFF\x21\x00\x14\x27\x00\x00\x03\xE8\x22\x00\x08\x19\x01\
            \x17\x00\x15\x00\x01M\x16\x00\x01\x00\x26\x00\x01a\x00\x011\x26\x00\x01a\x00\x012";
        let bytes = framed(0x10, &[HEAD_5, b"\x02\x00\x3C\x2A", wire, b"\x00\x01c"]);
        check(V5, &bytes, &Packet::Connect(Box::new(packet)));
    }

    #[test]
    fn all_will_properties() {
        // [MQTT5-3.1.2-9]
        let packet = Connect {
            will: Some(Will {
                delay_s: 30,
                message_expiry_s: Some(60),
                forwarded: Forwarded::from_block(b"\x01\x01\x08\x00\x01r\x26\x00\x01a\x00\x011"),
                ..will()
            }),
            ..connect(V5)
        };
        let properties = b"\x18\x00\x00\x00\x1E\x02\x00\x00\x00\x3C\
            \x01\x01\x08\x00\x01r\x26\x00\x01a\x00\x011";
        let head = [HEAD_5, b"\x2E\x00\x3C\x00\x00\x01c"].concat();
        let will = b"\x00\x01w\x00\x02\x00\xFF";
        let bytes = framed(0x10, &[&head, b"\x17", properties, will]);
        check(V5, &bytes, &Packet::Connect(Box::new(packet)));
    }

    #[test]
    fn unknown_names_and_levels() {
        // [MQTT5-3.1.2-1] [MQTT5-3.1.2-2] [MQTT3-3.1.2-1] [MQTT3-3.1.2-2]
        let tail = b"\x02\x00\x3C\x00\x01c";
        for (head, error) in [
            (
                &b"\x00\x04MQTT\x03"[..],
                DecodeError::UnsupportedProtocolVersion,
            ),
            (b"\x00\x04MQTT\x06", DecodeError::UnsupportedProtocolVersion),
            (b"\x00\x04MQTT\x84", DecodeError::UnsupportedProtocolVersion),
            (
                b"\x00\x06MQIsdp\x04",
                DecodeError::UnsupportedProtocolVersion,
            ),
            (b"\x00\x04mqtt\x04", DecodeError::UnknownProtocolName),
            (b"\x00\x04HTTP\x04", DecodeError::UnknownProtocolName),
            (b"\x00\x00\x04", DecodeError::UnknownProtocolName),
            (b"\x00\x20MQTT\x04", DecodeError::UnexpectedEnd),
        ] {
            check_error(V5, &framed(0x10, &[head, tail]), error);
        }
    }

    #[test]
    fn flags_that_contradict_each_other() {
        // [MQTT5-3.1.2-3] [MQTT5-3.1.2-11] [MQTT5-3.1.2-12] [MQTT5-3.1.2-13]
        // [MQTT3-3.1.2-3] [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-14] [MQTT3-3.1.2-15]
        for (version, head) in [(V3_1, HEAD_3_1), (V3_1_1, HEAD_3_1_1), (V5, HEAD_5)] {
            for (flags, error) in [
                (0x03, DecodeError::ConnectFlagReserved),
                (0x0A, DecodeError::WillFlagsWithoutWill),
                (0x12, DecodeError::WillFlagsWithoutWill),
                (0x22, DecodeError::WillFlagsWithoutWill),
                (0x1E, DecodeError::QosInvalid),
            ] {
                let tail = b"\x00\x3C\x00\x00\x00\x00\x00\x00";
                check_error(version, &framed(0x10, &[head, &[flags], tail]), error);
            }
        }
    }

    #[test]
    fn the_flags_say_which_fields_there_are() {
        // [MQTT5-3.1.2-9] [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18] [MQTT5-3.1.2-19] [MQTT5-3.1.3-3]
        // [MQTT3-3.1.2-9] [MQTT3-3.1.2-11] [MQTT3-3.1.2-18] [MQTT3-3.1.2-19] [MQTT3-3.1.2-20] [MQTT3-3.1.2-21]
        // [MQTT3-3.1.3-3]
        for (version, head, none) in [(V3_1_1, HEAD_3_1_1, &b""[..]), (V5, HEAD_5, b"\x00")] {
            let bytes = |flags: u8, fields: &[u8]| {
                framed(0x10, &[head, &[flags], b"\x00\x3C", none, fields])
            };
            let will = [none, b"\x00\x01w\x00\x01m"].concat();
            let (id, user, password) = (&b"\x00\x01c"[..], &b"\x00\x01u"[..], &b"\x00\x01p"[..]);
            for (flags, fields) in [
                (0x02, &[id][..]),
                (0x06, &[id, &will]),
                (0x82, &[id, user]),
                (0xC2, &[id, user, password]),
                (0xC6, &[id, &will, user, password]),
            ] {
                check_valid(version, &bytes(flags, &fields.concat()));
                let one_less = fields[..fields.len() - 1].concat();
                check_error(
                    version,
                    &bytes(flags, &one_less),
                    DecodeError::UnexpectedEnd,
                );
                let one_more = [&fields.concat(), password].concat();
                check_error(
                    version,
                    &bytes(flags, &one_more),
                    DecodeError::TrailingBytes,
                );
            }
        }
    }

    #[test]
    fn a_password_without_a_user_name() {
        // [MQTT3-3.1.2-22]; MQTT 5 allows it
        let tail: &[u8] = b"\x42\x00\x3C\x00\x01c\x00\x01p";
        let error = DecodeError::PasswordWithoutUserName;
        check_error(V3_1, &framed(0x10, &[HEAD_3_1, tail]), error);
        check_error(V3_1_1, &framed(0x10, &[HEAD_3_1_1, tail]), error);
        let packet = |version| Connect {
            password: Some(b"p"),
            ..connect(version)
        };
        let bytes = framed(0x10, &[HEAD_5, b"\x42\x00\x3C\x00\x00\x01c\x00\x01p"]);
        check(V5, &bytes, &Packet::Connect(Box::new(packet(V5))));
        // what 3.1.1 cannot say is left out
        let mut out = Vec::new();
        assert_eq!(packet(V3_1_1).encode(V3_1_1, &mut out), Ok(()));
        assert_eq!(out, framed(0x10, &[HEAD_3_1_1, b"\x02\x00\x3C\x00\x01c"]));
    }

    #[test]
    fn an_empty_client_id() {
        // [MQTT3-3.1.3-6] [MQTT3-3.1.3-7] [MQTT3-3.1.3-8] [MQTT5-3.1.3-6]
        let error = DecodeError::ClientIdEmpty;
        for flags in [b"\x00", b"\x02"] {
            let bytes = framed(0x10, &[HEAD_3_1, flags, b"\x00\x3C\x00\x00"]);
            check_error(V3_1, &bytes, error);
            check_valid(V5, &framed(0x10, &[HEAD_5, flags, b"\x00\x3C\x00\x00\x00"]));
        }
        let bytes = framed(0x10, &[HEAD_3_1_1, b"\x00\x00\x3C\x00\x00"]);
        check_error(V3_1_1, &bytes, error);
        check_valid(
            V3_1_1,
            &framed(0x10, &[HEAD_3_1_1, b"\x02\x00\x3C\x00\x00"]),
        );
        let long = b"\x00\x18012345678901234567890123";
        check_valid(V3_1, &framed(0x10, &[HEAD_3_1, b"\x02\x00\x3C", long]));
    }

    #[test]
    fn strings_are_checked_everywhere() {
        // [MQTT5-1.5.4-1] [MQTT5-3.1.3-4] [MQTT5-3.1.3-11] [MQTT5-3.1.3-12] [MQTT3-1.5.3-1]
        // [MQTT3-3.1.3-4] [MQTT3-3.1.3-10] [MQTT3-3.1.3-11]
        let error = DecodeError::StringNotUtf8;
        let bad = b"\x00\x03\xED\xA0\x80";
        let head = [HEAD_3_1_1, b"\xC6\x00\x3C"].concat();
        check_error(V3_1_1, &framed(0x10, &[&head, bad]), error);
        check_error(V3_1_1, &framed(0x10, &[&head, b"\x00\x01c", bad]), error);
        let will = b"\x00\x01w\x00\x00";
        let bytes = framed(0x10, &[&head, b"\x00\x01c", will, bad]);
        check_error(V3_1_1, &bytes, error);
        // the password alone is binary
        check_valid(
            V3_1_1,
            &framed(0x10, &[&head, b"\x00\x01c", will, b"\x00\x01u", bad]),
        );
        let bytes = framed(0x10, &[&head, b"\x00\x02c\0", will, b"\x00\x01u", bad]);
        check_error(V3_1_1, &bytes, DecodeError::StringHasNul);
    }

    #[test]
    fn a_will_topic_is_a_name() {
        // [MQTT5-3.3.2-2] [MQTT3-3.3.2-2]
        let head = [HEAD_3_1_1, b"\x06\x00\x3C\x00\x01c"].concat();
        for (topic, error) in [
            (&b"\x00\x03a/#"[..], TopicNameError::HasWildcard),
            (b"\x00\x00", TopicNameError::Empty),
        ] {
            let bytes = framed(0x10, &[&head, topic, b"\x00\x00"]);
            check_error(V3_1_1, &bytes, DecodeError::WillTopic(error));
        }
    }

    #[test]
    fn properties_out_of_place_range_or_number() {
        // MQTT 5.0 sections 3.1.2.11.3, 3.1.2.11.4, 3.1.2.11.6, 3.1.2.11.7, 3.1.2.11.10
        for (properties, error) in [
            (&b"\x21\x00\x00"[..], DecodeError::ReceiveMaximumZero),
            (b"\x27\x00\x00\x00\x00", DecodeError::PacketBytesMaxZero),
            (b"\x17\x07", DecodeError::PropertyNotBoolean),
            (b"\x19\x02", DecodeError::PropertyNotBoolean),
            (
                b"\x16\x00\x01d",
                DecodeError::AuthenticationDataWithoutMethod,
            ),
            (
                b"\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01",
                DecodeError::PropertyDuplicate,
            ),
            (b"\x21\x00\x01\x21\x00\x01", DecodeError::PropertyDuplicate),
            (b"\x01\x01", DecodeError::PropertyMisplaced),
            (b"\x13\x00\x01", DecodeError::PropertyMisplaced),
            (b"\x0B\x01", DecodeError::PropertyMisplaced),
            (b"\x7F", DecodeError::PropertyUnknown),
        ] {
            let length = [u8::try_from(properties.len()).unwrap()];
            let head = [HEAD_5, b"\x02\x00\x3C", &length, properties].concat();
            check_error(V5, &framed(0x10, &[&head, b"\x00\x01c"]), error);
        }
    }

    #[test]
    fn will_properties_out_of_place() {
        for (properties, error) in [
            (
                &b"\x05\x11\x00\x00\x00\x01"[..],
                DecodeError::PropertyMisplaced,
            ),
            (b"\x03\x23\x00\x01", DecodeError::PropertyMisplaced),
            (b"\x02\x0B\x01", DecodeError::PropertyMisplaced),
            (b"\x02\x01\x09", DecodeError::PropertyNotBoolean),
        ] {
            let head = [HEAD_5, b"\x06\x00\x3C\x00\x00\x01c"].concat();
            let will = b"\x00\x01w\x00\x00";
            check_error(V5, &framed(0x10, &[&head, properties, will]), error);
        }
    }

    #[test]
    fn bytes_missing_or_left_over() {
        // [MQTT5-4.13.1-1] [MQTT3-4.8.0-1]
        let head = [HEAD_3_1_1, b"\xC2\x00\x3C\x00\x01c"].concat();
        let end = DecodeError::UnexpectedEnd;
        check_error(V3_1_1, &framed(0x10, &[&head]), end);
        check_error(V3_1_1, &framed(0x10, &[&head, b"\x00\x01u"]), end);
        check_error(V3_1_1, &framed(0x10, &[&head, b"\x00\x01u\x00\x02p"]), end);
        let trailing = DecodeError::TrailingBytes;
        let bytes = framed(0x10, &[&head, b"\x00\x01u\x00\x01p!"]);
        check_error(V3_1_1, &bytes, trailing);
        check_error(V5, &framed(0x10, &[]), end);
    }

    #[test]
    fn a_connect_is_of_one_version() {
        let mut out = Vec::new();
        let result = connect(V5).encode(V3_1_1, &mut out);
        assert_eq!(result, Err(EncodeError::OtherVersion));
        assert!(out.is_empty());
    }
}
