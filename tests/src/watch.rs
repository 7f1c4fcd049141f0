//! What holds for every packet that the broker writes to a client, whatever the script is about.
//!
//! A watch sees both directions of one connection and panics at the first byte that breaks a rule, so each script of
//! [`crate::peer`] checks all of them. That the packets decode is checked before: reserved bits, allowed reason codes and
//! properties are the codec's rules. Does not know: sessions, subscriptions, and what the broker should have sent instead.
#![expect(clippy::panic, reason = "a broken rule must stop the script")]

use motemq_codec::{
    Ack, Connect, Decoded, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    UserProperties, decode, decode_connect,
};
use std::collections::HashSet;

/// One connection as a bystander sees it.
#[derive(Debug, Default)]
pub struct Watch {
    sent: Vec<u8>,
    client: Option<Client>,
    /// The client broke off the stream of packets: what it says no longer counts.
    is_garbled: bool,
    phase: Phase,
    /// Ids of PUBLISHes to the client that wait for the end of their exchange.
    inflight: HashSet<PacketId>,
}

/// What the client said of itself.
#[derive(Debug)]
struct Client {
    version: ProtocolVersion,
    packet_bytes_max: usize,
    receive_maximum: usize,
    topic_alias_max: u16,
    wants_problems: bool,
    wants_responses: bool,
    has_method: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    BeforeConnAck,
    Connected,
    /// CONNACK with an error, or DISCONNECT, went out.
    Over,
}

impl Watch {
    /// The client sends.
    pub fn sent(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        while !self.is_garbled {
            let sent = std::mem::take(&mut self.sent);
            let decoded = match &self.client {
                None => decode_connect(&sent, usize::MAX),
                Some(client) => decode(&sent, client.version, usize::MAX),
            };
            let length = match decoded {
                Ok(Decoded::Packet { packet, length }) => {
                    self.note(&packet);
                    length
                }
                Ok(Decoded::Incomplete { .. }) => 0,
                Err(_) => {
                    self.is_garbled = true;
                    0
                }
            };
            self.sent.extend(sent.get(length..).unwrap_or_default());
            if length == 0 {
                break;
            }
        }
    }

    fn note(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Connect(connect) if self.client.is_none() => {
                self.client = Some(Client::of(connect));
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                self.inflight.remove(&ack.packet_id);
            }
            Packet::PubRec(ack) if ack.code.is_error() => {
                self.inflight.remove(&ack.packet_id);
            }
            _ => {}
        }
    }

    /// The broker has written a packet of so many bytes.
    pub fn wrote(&mut self, packet: &Packet<'_>, length: usize) {
        self.check_turn(packet);
        let Some(client) = &self.client else { return };
        client.check(packet, length);
        if let Packet::Publish(publish) = packet {
            self.check_flight(publish);
        }
    }

    /// What may come when.
    ///
    /// - CONNACK is the first packet but for AUTH, and the only one [MQTT5-3.2.0-1] [MQTT5-3.2.0-2] [MQTT3-3.2.0-1].
    /// - A refusal has no session [MQTT5-3.2.2-6] [MQTT3-3.2.2-4] and is the last packet.
    /// - DISCONNECT comes after a successful CONNACK [MQTT5-3.14.0-1] and is the last packet [MQTT5-3.14.4-1].
    fn check_turn(&mut self, packet: &Packet<'_>) {
        self.phase = match (self.phase, packet) {
            (Phase::BeforeConnAck, Packet::Auth(_)) => Phase::BeforeConnAck,
            (Phase::BeforeConnAck, Packet::ConnAck(connack)) => {
                let is_error = connack.code.is_error();
                assert!(!is_error || !connack.session_present, "{connack:?}");
                if is_error {
                    Phase::Over
                } else {
                    Phase::Connected
                }
            }
            (Phase::Connected, Packet::Disconnect(_)) => Phase::Over,
            (Phase::Connected, packet) if !matches!(packet, Packet::ConnAck(_)) => Phase::Connected,
            (phase, packet) => panic!("{phase:?}, and the broker writes {packet:?}"),
        };
    }

    /// What is on its way to the client.
    ///
    /// - A new message has an id that is not in use [MQTT5-2.2.1-4] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT3-2.3.1-4].
    /// - Nothing is sent twice on one connection [MQTT5-4.4.0-1], still less once PUBREL went out [MQTT5-4.3.3-6].
    /// - There are never more than the client's Receive Maximum [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2].
    fn check_flight(&mut self, publish: &Publish<'_>) {
        let Some(packet_id) = publish.packet_id else {
            // [MQTT5-3.3.1-2] [MQTT5-4.3.1-1] [MQTT3-3.3.1-2]
            assert!(!publish.dup, "{publish:?}");
            return;
        };
        let is_new = self.inflight.insert(packet_id);
        assert!(is_new, "id in use: {publish:?}");
        let receive_maximum = self.client.as_ref().map(|client| client.receive_maximum);
        assert!(
            Some(self.inflight.len()) <= receive_maximum,
            "{:?} are on their way, Receive Maximum is {receive_maximum:?}",
            self.inflight
        );
    }
}

impl Client {
    fn of(connect: &Connect<'_>) -> Self {
        let properties = &connect.properties;
        let bytes_max = properties.packet_bytes_max.map(|max| max.get() as usize);
        let receive_maximum = properties.receive_maximum.map(|max| max.get());
        Self {
            version: connect.version,
            packet_bytes_max: bytes_max.unwrap_or(usize::MAX),
            receive_maximum: receive_maximum.unwrap_or(u16::MAX).into(),
            topic_alias_max: properties.topic_alias_max,
            wants_problems: properties.request_problem_information,
            wants_responses: properties.request_response_information,
            has_method: properties.authentication_method.is_some(),
        }
    }

    /// What the client has asked for.
    ///
    /// - No packet exceeds its Maximum Packet Size [MQTT5-3.1.2-24], so no reason string makes one exceed it
    ///   [MQTT5-3.2.2-19] [MQTT5-3.4.2-2] [MQTT5-3.5.2-2] [MQTT5-3.6.2-2] [MQTT5-3.7.2-2] [MQTT5-3.9.2-1] [MQTT5-3.11.2-1]
    ///   [MQTT5-3.14.2-3].
    /// - The broker sends no user properties of its own [MQTT5-3.2.2-20] [MQTT5-3.4.2-3] [MQTT5-3.5.2-3] [MQTT5-3.6.2-3]
    ///   [MQTT5-3.7.2-3] [MQTT5-3.9.2-2] [MQTT5-3.11.2-2] [MQTT5-3.14.2-4].
    /// - Without Request Problem Information reasons are told in CONNACK and DISCONNECT only [MQTT5-3.1.2-29].
    /// - Without Request Response Information there is none [MQTT5-3.1.2-28].
    /// - Without a method there are no AUTH and no method in CONNACK [MQTT5-4.12.0-6].
    /// - DISCONNECT has no Session Expiry Interval [MQTT5-3.14.2-2].
    /// - No alias is above the client's maximum [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11].
    fn check(&self, packet: &Packet<'_>, length: usize) {
        assert!(
            length <= self.packet_bytes_max,
            "{length} bytes for a client that takes {}: {packet:?}",
            self.packet_bytes_max
        );
        let (reason, pairs) = told(packet);
        assert_eq!(pairs.map_or(0, |pairs| pairs.iter().count()), 0);
        let is_free = matches!(packet, Packet::ConnAck(_) | Packet::Disconnect(_));
        assert!(
            reason.is_none() || is_free || self.wants_problems,
            "{packet:?}"
        );
        match packet {
            Packet::ConnAck(connack) => {
                let properties = &connack.properties;
                assert!(properties.response_information.is_none() || self.wants_responses);
                assert!(properties.authentication_method.is_none() || self.has_method);
            }
            Packet::Auth(_) => assert!(self.has_method),
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.session_expiry_s, None);
                assert_ne!(disconnect.code, ReasonCode::DisconnectWithWill);
            }
            Packet::Publish(publish) => {
                let alias = publish
                    .properties
                    .topic_alias
                    .map_or(0, |alias| alias.get());
                assert!(alias <= self.topic_alias_max, "{publish:?}");
                assert!(!publish.topic.is_empty() || alias > 0, "{publish:?}");
                assert!(publish.qos != QoS::AtMostOnce || publish.packet_id.is_none());
            }
            _ => {}
        }
    }
}

/// The reason string and the user properties of a packet that is not a PUBLISH.
fn told<'a>(packet: &'a Packet<'a>) -> (Option<&'a str>, Option<&'a UserProperties<'a>>) {
    let of_ack = |ack: &'a Ack<'a>| (ack.reason_string, Some(&ack.user_properties));
    match packet {
        Packet::ConnAck(connack) => {
            let properties = &connack.properties;
            (properties.reason_string, Some(&properties.user_properties))
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            of_ack(ack)
        }
        Packet::SubAck(suback) => (suback.reason_string, Some(&suback.user_properties)),
        Packet::UnsubAck(unsuback) => (unsuback.reason_string, Some(&unsuback.user_properties)),
        Packet::Disconnect(disconnect) => {
            (disconnect.reason_string, Some(&disconnect.user_properties))
        }
        Packet::Auth(auth) => (auth.reason_string, Some(&auth.user_properties)),
        _ => (None, None),
    }
}
