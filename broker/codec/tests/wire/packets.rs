//! Any packet that can be built comes back from its bytes as it was, in every version.

use crate::fuzz;
use motemq_codec::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Decoded, Disconnect,
    Forwarded, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscribeFilters, SubscribeOptions,
    SubscriptionIds, UnsubAck, Unsubscribe, UnsubscribeFilters, UserProperties, Will, decode,
};
use proptest::prelude::*;
use std::num::{NonZeroU16, NonZeroU32};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn packets_come_back_as_they_were(
        values in values(),
        kind in 0..15u8,
        choice in 0..3u8,
    ) {
        let version = version(choice);
        let pairs = values.pairs();
        let filters = values.filters(version);
        let names: Vec<_> = filters.iter().map(|filter| filter.filter).collect();
        let block = values.block();
        let parts = Parts { values: &values, version, pairs: &pairs, filters: &filters,
            names: &names, block: &block };
        let packet = parts.packet(kind);
        let mut encoded = Vec::new();
        let result = packet.encode(version, &mut encoded);
        if matches!(packet, Packet::Auth(_)) && version != ProtocolVersion::V5 {
            prop_assert!(result.is_err() && encoded.is_empty());
            return Ok(());
        }
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(packet.encoded_len(version), Ok(encoded.len()));
        let length = encoded.len();
        let decoded = decode(&encoded, version, length);
        prop_assert_eq!(decoded, Ok(Decoded::Packet { packet, length }));
        let input = [&[choice][..], &encoded].concat();
        fuzz::decode(&input);
        fuzz::roundtrip(&input);
        fuzz::differential(&input);
    }
}

fn version(choice: u8) -> ProtocolVersion {
    match choice {
        0 => ProtocolVersion::V3_1,
        1 => ProtocolVersion::V3_1_1,
        _ => ProtocolVersion::V5,
    }
}

/// What packets are made of.
#[derive(Debug)]
struct Values {
    flags: Vec<bool>,
    numbers: Vec<u32>,
    texts: Vec<String>,
    data: Vec<Vec<u8>>,
    pairs: Vec<(String, String)>,
    filters: Vec<(String, u8)>,
    ids: Vec<u32>,
}

prop_compose! {
    fn values()(
        flags in prop::collection::vec(any::<bool>(), 24),
        numbers in prop::collection::vec(prop_oneof![1..300u32, 1..=u32::MAX], 8),
        texts in prop::collection::vec("[ -*,-~é\u{FEFF}😀&&[^#]]{1,20}", 8),
        data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 3),
        pairs in prop::collection::vec(("[a-zü]{0,6}", "[a-zü]{0,150}"), 0..4),
        filters in prop::collection::vec(("[a-c/+#]{1,8}", any::<u8>()), 1..5),
        ids in prop::collection::vec(1..=268_435_455u32, 0..4),
    ) -> Values {
        Values { flags, numbers, texts, data, pairs, filters, ids }
    }
}

impl Values {
    fn pairs(&self) -> Vec<(&str, &str)> {
        let pairs = self.pairs.iter();
        pairs
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    fn filters(&self, version: ProtocolVersion) -> Vec<SubscribeFilter<'_>> {
        let filters = self.filters.iter();
        filters
            .map(|(filter, bits)| SubscribeFilter {
                filter,
                options: options(*bits, version),
            })
            .collect()
    }

    /// The forwarded properties in wire form, written without the codec.
    fn block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        let mut field = |id: u8, fields: &[&[u8]]| {
            block.push(id);
            for field in fields {
                block.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
                block.extend(*field);
            }
        };
        if self.flags[16] {
            field(0x09, &[&self.data[1]]);
        }
        for (name, value) in &self.pairs {
            field(0x26, &[name.as_bytes(), value.as_bytes()]);
        }
        if self.flags[17] {
            field(0x08, &[self.texts[6].as_bytes()]);
        }
        if self.flags[18] {
            field(0x03, &[self.texts[7].as_bytes()]);
        }
        if self.flags[19] {
            block.extend([0x01, u8::from(self.flags[20])]);
        }
        block
    }
}

fn options(bits: u8, version: ProtocolVersion) -> SubscribeOptions {
    let qos = QoS::from_bits(bits % 3).unwrap();
    if version != ProtocolVersion::V5 {
        return SubscribeOptions {
            qos,
            ..SubscribeOptions::default()
        };
    }
    SubscribeOptions {
        qos,
        no_local: bits & 0x10 != 0,
        retain_as_published: bits & 0x20 != 0,
        retain_handling: match bits >> 6 {
            0 => RetainHandling::SendAlways,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        },
    }
}

/// Values, arranged for one version.
struct Parts<'a> {
    values: &'a Values,
    version: ProtocolVersion,
    pairs: &'a [(&'a str, &'a str)],
    filters: &'a [SubscribeFilter<'a>],
    names: &'a [&'a str],
    block: &'a [u8],
}

impl<'a> Parts<'a> {
    fn packet(&self, kind: u8) -> Packet<'a> {
        match kind {
            0 => Packet::Connect(Box::new(self.connect())),
            1 => Packet::ConnAck(Box::new(self.connack())),
            2 => Packet::Publish(self.publish()),
            3 => Packet::PubAck(self.ack(ReasonCode::NoMatchingSubscribers)),
            4 => Packet::PubRec(self.ack(ReasonCode::QuotaExceeded)),
            5 => Packet::PubRel(self.ack(ReasonCode::PacketIdentifierNotFound)),
            6 => Packet::PubComp(self.ack(ReasonCode::PacketIdentifierNotFound)),
            7 => Packet::Subscribe(self.subscribe()),
            8 => Packet::SubAck(self.suback()),
            9 => Packet::Unsubscribe(self.unsubscribe()),
            10 => Packet::UnsubAck(self.unsuback()),
            11 => Packet::PingReq,
            12 => Packet::PingResp,
            13 => Packet::Disconnect(self.disconnect()),
            _ => Packet::Auth(self.auth()),
        }
    }

    fn flag(&self, index: usize) -> bool {
        self.values.flags[index]
    }

    fn is_v5(&self) -> bool {
        self.version == ProtocolVersion::V5
    }

    /// `Some` if the flag is set.
    fn maybe<T>(&self, flag: usize, value: T) -> Option<T> {
        Some(value).filter(|_| self.flag(flag))
    }

    /// `Some` if the flag is set and the version can say it.
    fn property<T>(&self, flag: usize, value: T) -> Option<T> {
        self.maybe(flag, value).filter(|_| self.is_v5())
    }

    fn text(&self, index: usize) -> &'a str {
        &self.values.texts[index]
    }

    fn data(&self, index: usize) -> &'a [u8] {
        &self.values.data[index]
    }

    fn number(&self, index: usize) -> u32 {
        self.values.numbers[index]
    }

    fn short(&self, index: usize) -> u16 {
        u16::try_from(self.number(index) % 65_535).unwrap() + 1
    }

    fn non_zero(&self, index: usize) -> NonZeroU16 {
        NonZeroU16::new(self.short(index)).unwrap()
    }

    fn packet_id(&self) -> PacketId {
        PacketId::new(self.short(0)).unwrap()
    }

    fn qos(&self) -> QoS {
        QoS::from_bits(u8::try_from(self.number(1) % 3).unwrap()).unwrap()
    }

    fn user_properties(&self) -> UserProperties<'a> {
        let pairs = if self.is_v5() { self.pairs } else { &[] };
        UserProperties::from_pairs(pairs)
    }

    fn forwarded(&self) -> Forwarded<'a> {
        Forwarded::from_block(if self.is_v5() { self.block } else { &[] })
    }

    fn connect(&self) -> Connect<'a> {
        let username = self.maybe(1, self.text(0));
        let password = self.maybe(2, self.data(0));
        let will = Will {
            qos: self.qos(),
            retain: self.flag(4),
            topic: self.text(1),
            payload: self.data(2),
            delay_s: self.property(5, self.number(2)).unwrap_or(0),
            message_expiry_s: self.property(6, self.number(3)),
            forwarded: self.forwarded(),
        };
        Connect {
            version: self.version,
            client_id: self.text(2),
            clean_start: self.flag(0),
            keep_alive_s: self.short(4),
            username,
            password: password.filter(|_| username.is_some() || self.is_v5()),
            will: self.maybe(3, will),
            properties: if self.is_v5() {
                self.connect_properties()
            } else {
                ConnectProperties::default()
            },
        }
    }

    fn connect_properties(&self) -> ConnectProperties<'a> {
        let method = self.property(12, self.text(3));
        ConnectProperties {
            session_expiry_s: self.property(7, self.number(5)),
            receive_maximum: self.property(8, self.non_zero(5)),
            packet_bytes_max: self.property(9, NonZeroU32::new(self.number(6)).unwrap()),
            topic_alias_max: self.short(7) - 1,
            request_response_information: self.flag(10),
            request_problem_information: self.flag(11),
            user_properties: self.user_properties(),
            authentication_method: method,
            authentication_data: method.and_then(|_| self.property(13, self.data(1))),
        }
    }

    fn connack(&self) -> ConnAck<'a> {
        let code = [ReasonCode::Success, ReasonCode::NotAuthorized][usize::from(self.flag(0))];
        let can_be_present = !code.is_error() && self.version != ProtocolVersion::V3_1;
        ConnAck {
            session_present: self.flag(1) && can_be_present,
            code,
            properties: self.connack_properties(),
        }
    }

    fn connack_properties(&self) -> ConnAckProperties<'a> {
        let method = self.property(2, self.text(0));
        let qos_max = [QoS::AtMostOnce, QoS::AtLeastOnce][usize::from(self.flag(20))];
        ConnAckProperties {
            session_expiry_s: self.property(3, self.number(0)),
            receive_maximum: self.property(4, self.non_zero(1)),
            qos_max: self.property(5, qos_max),
            retain_available: self.property(6, self.flag(21)),
            packet_bytes_max: self.property(7, NonZeroU32::new(self.number(2)).unwrap()),
            assigned_client_id: self.property(8, self.text(1)),
            topic_alias_max: self.property(9, self.short(3) - 1),
            reason_string: self.property(10, self.text(2)),
            user_properties: self.user_properties(),
            wildcard_subscription_available: self.property(11, self.flag(22)),
            subscription_ids_available: self.property(12, self.flag(23)),
            shared_subscription_available: self.property(13, self.flag(19)),
            keep_alive_s: self.property(14, self.short(4)),
            response_information: self.property(15, self.text(3)),
            server_reference: self.property(16, self.text(4)),
            authentication_method: method,
            authentication_data: method.and_then(|_| self.property(17, self.data(0))),
        }
    }

    fn publish(&self) -> Publish<'a> {
        let qos = self.qos();
        let topic_alias = self.property(2, self.non_zero(2));
        let is_empty = topic_alias.is_some() && self.flag(3);
        let ids = if self.is_v5() {
            &self.values.ids[..]
        } else {
            &[]
        };
        Publish {
            dup: self.flag(0) && qos != QoS::AtMostOnce,
            qos,
            retain: self.flag(1),
            topic: if is_empty { "" } else { self.text(0) },
            packet_id: Some(self.packet_id()).filter(|_| qos != QoS::AtMostOnce),
            properties: PublishProperties {
                message_expiry_s: self.property(4, self.number(3)),
                topic_alias,
                subscription_ids: SubscriptionIds::from_list(ids),
                forwarded: self.forwarded(),
            },
            payload: self.data(0),
        }
    }

    fn ack(&self, code: ReasonCode) -> Ack<'a> {
        Ack {
            reason_string: self.property(1, self.text(0)),
            user_properties: self.user_properties(),
            ..Ack::new(
                self.packet_id(),
                self.property(0, code).unwrap_or(ReasonCode::Success),
            )
        }
    }

    fn subscribe(&self) -> Subscribe<'a> {
        Subscribe {
            packet_id: self.packet_id(),
            subscription_id: self.property(0, self.number(1) % 268_435_455 + 1),
            user_properties: self.user_properties(),
            filters: SubscribeFilters::from_list(self.filters),
        }
    }

    fn suback(&self) -> SubAck<'a> {
        SubAck {
            packet_id: self.packet_id(),
            codes: if self.is_v5() {
                &[1, 0x8F, 0]
            } else {
                &[2, 0x80]
            },
            reason_string: self.property(0, self.text(0)),
            user_properties: self.user_properties(),
        }
    }

    fn unsubscribe(&self) -> Unsubscribe<'a> {
        Unsubscribe {
            packet_id: self.packet_id(),
            user_properties: self.user_properties(),
            filters: UnsubscribeFilters::from_list(self.names),
        }
    }

    fn unsuback(&self) -> UnsubAck<'a> {
        UnsubAck {
            packet_id: self.packet_id(),
            codes: if self.is_v5() { &[0, 0x11] } else { &[] },
            reason_string: self.property(0, self.text(0)),
            user_properties: self.user_properties(),
        }
    }

    fn disconnect(&self) -> Disconnect<'a> {
        let code = self.property(0, ReasonCode::UseAnotherServer);
        Disconnect {
            session_expiry_s: self.property(1, self.number(1)),
            reason_string: self.property(2, self.text(0)),
            user_properties: self.user_properties(),
            server_reference: self.property(3, self.text(1)),
            ..Disconnect::new(code.unwrap_or(ReasonCode::Success))
        }
    }

    fn auth(&self) -> Auth<'a> {
        let method = self.maybe(1, self.text(0));
        Auth {
            code: self
                .maybe(0, ReasonCode::ReAuthenticate)
                .unwrap_or(ReasonCode::Success),
            authentication_method: method,
            authentication_data: method.and_then(|_| self.maybe(2, self.data(0))),
            reason_string: self.maybe(3, self.text(1)),
            user_properties: self.user_properties(),
        }
    }
}
