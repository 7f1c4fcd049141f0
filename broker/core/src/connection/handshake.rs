//! CONNECT until accepted or refused.
//!
//! The credentials leave as an event and the verdict comes back as input, so a slow check blocks nobody. Both versions
//! become one form at once: 3.1.1 clean session 1 is clean start with expiry 0, clean session 0 is resume without expiry
//! (capped by `session_expiry_max_s`).

use super::access::{Access, DeniedAction};
use super::aliases::OutboundAliases;
use super::authentication::{Enhanced, ExchangeStage, ExchangeStep, Turn};
use super::enrolment::Requests;
use super::samples::Samples;
use super::throttle::Throttle;
use super::{Active, AssignedIds, Close, Connection, Event, Pending, Phase, Reply};
use crate::action::Will;
use crate::broker::{AttachRequest, Broker};
use crate::counters::{Direction, Limit, Occasion, PacketKind};
use crate::enrolment::session_key;
use crate::login::{Login, Principal, Scope};
use crate::message::{ClientId, Expiry, Message, MessageId, Origin, TopicName, Urgency};
use crate::time::Timestamp;
use motemq_codec::{
    ConnAck, ConnAckProperties, Connect, DecodeError, Packet, ProtocolVersion, QoS, ReasonCode,
};
use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

/// What a client presents.
#[derive(Clone)]
pub struct ConnectRequest {
    /// The client identifier; empty when the server is to assign one.
    pub client_id: String,
    /// The user name.
    pub username: Option<String>,
    /// The password. Never logged.
    pub password: Option<Vec<u8>>,
}

impl std::fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What the check of the credentials found.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The client is who it says.
    Accepted {
        /// Who that is.
        login: Login,
        /// Random bits for an assigned client identifier.
        entropy: u128,
    },
    /// The client may not connect; the reason string names the key to change, as far as the client may know it.
    Refused {
        /// The reason code.
        code: ReasonCode,
        /// The reason string.
        reason: &'static str,
    },
}

/// CONNECT, as far as it is needed after the verdict.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) client_id: String,
    clean_start: bool,
    /// As the client wishes it.
    expiry: Expiry,
    keep_alive_s: u16,
    receive_maximum: u16,
    pub(super) packet_bytes_max: usize,
    problem_information: bool,
    /// Aliases that the client takes.
    topic_alias_max: u16,
    /// Response Information is wanted [MQTT5-3.1.2-28].
    response_information: bool,
    will: Option<Will>,
    /// The client named an authentication method.
    pub(super) enhanced: Option<Box<Enhanced>>,
    /// The method's last data, for CONNACK.
    pub(super) authentication_data: Option<Vec<u8>>,
}

impl Hello {
    /// Whether the driver owes a verdict or an answer; else it is the client who owes an AUTH.
    pub(super) fn awaits_driver(&self) -> bool {
        let turn = self.enhanced.as_ref().map(|enhanced| enhanced.turn);
        turn.is_none_or(|turn| turn == Turn::Method)
    }
}

/// CONNACK for an accepted client.
#[derive(Debug)]
pub(super) struct Welcome {
    session_present: bool,
    assigned_client_id: Option<String>,
    session_expiry_s: Option<u32>,
    keep_alive_s: Option<u16>,
    response_information: Option<String>,
    authentication_method: Option<Box<str>>,
    authentication_data: Option<Vec<u8>>,
}

impl Connection {
    pub(super) fn handle_connect(
        &mut self,
        connect: &Connect<'_>,
        broker: &Broker,
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        self.version = connect.version;
        let properties = &connect.properties;
        let wish = match (connect.version, connect.clean_start) {
            (ProtocolVersion::V5, _) => {
                Expiry::from_seconds(properties.session_expiry_s.unwrap_or(0))
            }
            (_, true) => Expiry::WithConnection,
            (_, false) => Expiry::Never,
        };
        let packet_bytes_max = properties
            .packet_bytes_max
            .map_or(u32::MAX, NonZeroU32::get);
        let method = properties.authentication_method.map(Box::<str>::from);
        let enhanced = method.clone().map(|method| Enhanced {
            method,
            turn: Turn::Method,
        });
        let hello = Hello {
            client_id: connect.client_id.to_owned(),
            clean_start: connect.clean_start,
            expiry: wish,
            keep_alive_s: connect.keep_alive_s,
            receive_maximum: properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
            packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
            problem_information: properties.request_problem_information,
            topic_alias_max: properties.topic_alias_max,
            response_information: properties.request_response_information,
            will: connect.will.as_ref().map(will_of),
            enhanced: enhanced.map(Box::new),
            authentication_data: None,
        };
        self.phase = Phase::Authenticating(Box::new(hello));
        if broker.pressure().refuses_connections() {
            self.tally.reach(Limit::Memory);
            let reason = "the broker's memory is nearly used up: limits.memory_bytes_max";
            self.refuse(ReasonCode::ServerBusy, Some(reason), out);
            return None;
        }
        let refusal = connect
            .will
            .as_ref()
            .and_then(|will| self.will_refusal(will));
        if let Some((code, reason)) = refusal {
            self.refuse(code, Some(reason), out);
            return None;
        }
        let request = ConnectRequest {
            client_id: connect.client_id.to_owned(),
            username: connect.username.map(str::to_owned),
            password: connect.password.map(<[u8]>::to_vec),
        };
        Some(match method {
            None => Event::Authenticate(request),
            Some(method) => Event::Exchange(ExchangeStep {
                stage: ExchangeStage::Connect { method, request },
                data: properties.authentication_data.unwrap_or_default().to_vec(),
            }),
        })
    }

    fn will_refusal(
        &mut self,
        will: &motemq_codec::Will<'_>,
    ) -> Option<(ReasonCode, &'static str)> {
        if will.qos > self.rules.qos_max {
            return Some((
                ReasonCode::QoSNotSupported,
                "the will's QoS is above qos_max",
            ));
        }
        self.topic_refusal(will.topic)
    }

    /// Continues after the driver has checked the credentials.
    pub fn handle_verdict(
        &mut self,
        verdict: Verdict,
        broker: &Broker,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        self.touch_traces(now);
        match verdict {
            Verdict::Accepted { login, entropy } => {
                self.accept_waiting(login, entropy, broker, now, out);
            }
            Verdict::Refused { code, reason } => {
                if matches!(self.phase, Phase::Authenticating(_)) {
                    self.refuse(code, Some(reason), out);
                }
            }
        }
    }

    /// Lets the client in that waits for it.
    pub(super) fn accept_waiting(
        &mut self,
        login: Login,
        entropy: u128,
        broker: &Broker,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        self.last_received = now;
        match std::mem::replace(&mut self.phase, Phase::AwaitConnect) {
            Phase::Authenticating(hello) => {
                self.accept(*hello, login, entropy, broker, now, out);
            }
            other => self.phase = other,
        }
    }

    fn accept(
        &mut self,
        hello: Hello,
        login: Login,
        entropy: u128,
        broker: &Broker,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        let assigned = match (self.rules.assigned_ids, login.scope) {
            _ if !hello.client_id.is_empty() => None,
            // The name of a claim is not that of a client.
            (AssignedIds::Random, _) | (_, Scope::Enrolment) => {
                Some(new_client_id(entropy, broker))
            }
            (AssignedIds::User, Scope::Full | Scope::Operator) => {
                login.identity.name().map(str::to_owned)
            }
        };
        if hello.client_id.is_empty() && assigned.is_none() {
            let reason = "without a user name the client needs an identifier";
            let code = ReasonCode::ClientIdentifierNotValid;
            return self.refuse_within(hello.packet_bytes_max, code, Some(reason), out);
        }
        let client_id = ClientId::new(assigned.as_deref().unwrap_or(&hello.client_id));
        self.limits = broker.limits_of(self.rules.listener.as_deref(), &login.identity, &client_id);
        let scope = login.scope;
        let session_expiry_max_s = match scope {
            Scope::Full => self.limits.session_expiry_max_s,
            Scope::Enrolment | Scope::Operator => 0,
        };
        let expiry = hello.expiry.capped(session_expiry_max_s);
        // 3.1.1 clients cannot ask for less than for ever.
        if expiry != hello.expiry && self.version == ProtocolVersion::V5 {
            self.tally.reach(Limit::SessionExpiry);
        }
        let topic_alias_max = hello.topic_alias_max.min(self.limits.topic_alias_max);
        let number = self.number;
        let will = hello.will.map(|mut will| {
            will.message.publisher = client_id.clone();
            will.message.id = MessageId {
                connection: number,
                sequence: 0,
            };
            Arc::new(will)
        });
        let enrolment = broker.enrolment();
        if let Some(enrolment) = &enrolment
            && *enrolment.signer == *client_id.as_str()
            && scope != Scope::Enrolment
            && !enrolment.is_signer(scope, &login.identity, &login.attributes)
        {
            let reason = "this client id is the enrolment service's: choose another one";
            let code = ReasonCode::ClientIdentifierNotValid;
            return self.refuse_within(hello.packet_bytes_max, code, Some(reason), out);
        }
        if will.is_some() && scope == Scope::Enrolment {
            let reason = "this login may only ask for a certificate, without a will";
            let code = ReasonCode::NotAuthorized;
            return self.refuse_within(hello.packet_bytes_max, code, Some(reason), out);
        }
        if let Some(will) = &will
            && !self.may_leave(&login, &client_id, will, broker)
        {
            let reason = "the ACL does not allow the will";
            let code = ReasonCode::NotAuthorized;
            return self.refuse_within(hello.packet_bytes_max, code, Some(reason), out);
        }
        let payload_bytes_max = self.limits.payload_bytes_max as usize;
        let payload_bytes = will.as_ref().map_or(0, |will| will.message.payload.len());
        if payload_bytes > payload_bytes_max {
            self.tally.reach(Limit::PayloadBytes);
            let reason = "the will is above limits.payload_bytes_max";
            let code = ReasonCode::QuotaExceeded;
            return self.refuse_within(hello.packet_bytes_max, code, Some(reason), out);
        }
        let login_ends_at = match (scope, enrolment) {
            (Scope::Enrolment, Some(enrolment)) => {
                let over = now.plus_s(enrolment.connection_max_s);
                login.expires_at.into_iter().chain([over]).min()
            }
            _ => login.expires_at,
        };
        let inflight_max = hello.receive_maximum.min(self.limits.inflight_messages_max);
        let lowered_s = self.lowered_keep_alive_s(hello.keep_alive_s);
        let keep_alive_s = lowered_s.unwrap_or(hello.keep_alive_s);
        let template = &self.limits.response_information;
        let response_information = (hello.response_information && !template.is_empty())
            .then(|| template.replace("%c", client_id.as_str()));
        let mut enhanced = hello.enhanced;
        if let Some(enhanced) = &mut enhanced {
            enhanced.turn = Turn::Nobody;
        }
        let mut welcome = Welcome {
            authentication_method: enhanced.as_ref().map(|enhanced| enhanced.method.clone()),
            authentication_data: hello.authentication_data,
            session_present: false,
            assigned_client_id: assigned,
            session_expiry_s: (expiry != hello.expiry).then(|| expiry.as_seconds()),
            keep_alive_s: lowered_s,
            response_information,
        };
        // [MQTT5-3.1.2-24], before anything is taken over.
        let fits = self
            .connack(&welcome)
            .encoded_len(self.version)
            .is_ok_and(|length| length <= hello.packet_bytes_max);
        if !fits {
            let reason = "CONNACK is above the client's Maximum Packet Size";
            let code = ReasonCode::PacketTooLarge;
            return self.refuse_within(hello.packet_bytes_max, code, Some(reason), out);
        }
        let request = AttachRequest {
            client_id: match scope {
                Scope::Full | Scope::Operator => client_id.clone(),
                Scope::Enrolment => session_key(self.number),
            },
            connection: self.number,
            login,
            clean_start: hello.clean_start,
            expiry,
            inflight_max,
            will,
            limits: self.limits.clone(),
            listener: self.rules.listener.clone(),
        };
        let attached = match broker.attach(request, now, &mut self.tally) {
            Ok(attached) => attached,
            Err(code) => {
                let reason = match code {
                    ReasonCode::NotAuthorized => "the client id belongs to another identity",
                    _ => {
                        "no room for another session or connection: limits.sessions_max, identity_sessions_max, identity_connections_max, enrolment.applicants_max or persistence.store_bytes_max"
                    }
                };
                return self.refuse_within(hello.packet_bytes_max, code, Some(reason), out);
            }
        };
        let listener_rate = self.rules.publish_rate.iter().cloned();
        let shared_rates = listener_rate.chain(attached.publish_rate);
        welcome.session_present = attached.session_present;
        if welcome.keep_alive_s.is_some() {
            self.tally.reach(Limit::KeepAlive);
        }
        let outbound_aliases = (topic_alias_max > 0).then(|| {
            let hints = std::mem::take(&mut attached.session.lock().alias_hints);
            Box::new(OutboundAliases::new(topic_alias_max, &hints))
        });
        self.phase = Phase::Active(Box::new(Active {
            session: attached.session,
            epoch: attached.epoch,
            client_id,
            scope,
            requests: Requests::default(),
            keep_alive_ms: u64::from(keep_alive_s) * 1500,
            expiry,
            packet_bytes_max: hello.packet_bytes_max,
            inflight_max,
            problem_information: hello.problem_information,
            enhanced,
            is_announced: false,
            aliases: Vec::new(),
            outbound_aliases,
            messages: 0,
            login_ends_at,
            access: Access::default(),
            throttle: Throttle::new(&self.limits, shared_rates),
            routes: super::Routes::default(),
            replies: VecDeque::from([Pending {
                reply: Reply::ConnAck(Box::new(welcome)),
                awaited: attached.awaited,
            }]),
            unacknowledged: 0,
            exchanges: Vec::new(),
            replay: VecDeque::new(),
            replay_wishes: BTreeMap::new(),
            groups: attached.groups,
            outgoing: Vec::new(),
            samples: Samples::since(now),
        }));
    }

    /// Whether the client may publish its will; asked again when it is due.
    fn may_leave(
        &mut self,
        login: &Login,
        client_id: &ClientId,
        will: &Will,
        broker: &Broker,
    ) -> bool {
        if login.scope == Scope::Operator {
            return true;
        }
        let rights = broker.acl().rights(&Arc::new(Principal {
            client_id: client_id.clone(),
            identity: login.identity.clone(),
            attributes: login.attributes.clone(),
        }));
        let topic = will.message.topic.as_str();
        let (qos, retain) = (will.message.qos, will.message.retain);
        match rights {
            Some(rights) if !rights.publish(topic).allows(qos, retain) => {
                self.tally.note(Occasion::ConnectDenied);
                let why = || rights.explain_publish(topic, qos, retain).text;
                self.note_denial(DeniedAction::Will, topic, why);
                false
            }
            _ => true,
        }
    }

    /// The Server Keep Alive, where the client's own is above the limit; only MQTT 5 can say so.
    fn lowered_keep_alive_s(&self, asked_s: u16) -> Option<u16> {
        let keep_alive_max_s = self.limits.keep_alive_max_s;
        let is_lowered = self.version == ProtocolVersion::V5
            && keep_alive_max_s < u16::MAX
            && (asked_s == 0 || asked_s > keep_alive_max_s);
        is_lowered.then_some(keep_alive_max_s)
    }

    pub(super) fn welcome(&mut self, welcome: &Welcome, out: &mut Vec<u8>) {
        self.tally.packet(Direction::Out, PacketKind::ConnAck);
        self.encode(&Packet::ConnAck(Box::new(self.connack(welcome))), out);
        if let Phase::Active(active) = &mut self.phase {
            active.is_announced = true;
        }
    }

    fn connack<'a>(&self, welcome: &'a Welcome) -> ConnAck<'a> {
        let is_below_qos2 = self.rules.qos_max != QoS::ExactlyOnce;
        let properties = ConnAckProperties {
            session_expiry_s: welcome.session_expiry_s,
            receive_maximum: Some(self.limits.receive_maximum),
            qos_max: is_below_qos2.then_some(self.rules.qos_max),
            packet_bytes_max: NonZeroU32::new(self.limits.packet_bytes_max),
            assigned_client_id: welcome.assigned_client_id.as_deref(),
            topic_alias_max: Some(self.limits.topic_alias_max),
            keep_alive_s: welcome.keep_alive_s,
            response_information: welcome.response_information.as_deref(),
            // [MQTT5-4.12.0-5]
            authentication_method: welcome.authentication_method.as_deref(),
            authentication_data: welcome.authentication_data.as_deref(),
            ..ConnAckProperties::default()
        };
        ConnAck {
            session_present: welcome.session_present,
            code: ReasonCode::Success,
            properties,
        }
    }

    /// CONNACK with an error, then the end [MQTT5-3.2.2-7].
    pub(super) fn refuse(&mut self, code: ReasonCode, reason: Option<&str>, out: &mut Vec<u8>) {
        self.refuse_within(self.packet_bytes_max(), code, reason, out);
    }

    fn refuse_within(
        &mut self,
        packet_bytes_max: usize,
        code: ReasonCode,
        reason: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        self.send_refusal(packet_bytes_max, code, reason, out);
        self.closed = Some(Close::Refused(code));
    }

    /// A CONNACK no larger than the client takes: without its reason where that is too much [MQTT5-3.2.2-19], and none at all
    /// where even the code is [MQTT5-3.1.2-24].
    pub(super) fn send_refusal(
        &mut self,
        packet_bytes_max: usize,
        code: ReasonCode,
        reason: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        for reason_string in [reason, None] {
            let connack = ConnAck {
                session_present: false,
                code,
                properties: ConnAckProperties {
                    reason_string,
                    ..ConnAckProperties::default()
                },
            };
            let fits = connack
                .encoded_len(self.version)
                .is_ok_and(|length| length <= packet_bytes_max);
            if fits {
                self.tally.packet(Direction::Out, PacketKind::ConnAck);
                return self.encode(&Packet::ConnAck(Box::new(connack)), out);
            }
        }
    }

    /// Bytes that are no valid CONNECT. Only what the specification gives an answer to gets one.
    pub(super) fn refuse_connect_bytes(&mut self, error: DecodeError, out: &mut Vec<u8>) {
        match error.reason_code() {
            // The 3.1.1 form is understood by every client [MQTT3-3.1.2-2] [MQTT5-3.1.2-2].
            ReasonCode::UnsupportedProtocolVersion => {
                self.version = ProtocolVersion::V3_1_1;
                self.refuse(ReasonCode::UnsupportedProtocolVersion, None, out);
            }
            // [MQTT3-3.1.3-8]
            ReasonCode::ClientIdentifierNotValid => {
                self.version = ProtocolVersion::V3_1_1;
                self.refuse(ReasonCode::ClientIdentifierNotValid, None, out);
            }
            code => {
                if code == ReasonCode::PacketTooLarge {
                    self.tally.reach(Limit::ConnectPacketBytes);
                }
                self.closed = Some(Close::Violation(super::Violation::Malformed(error)));
            }
        }
    }
}

/// A name that no session has, stored ones included [MQTT5-3.1.3-6] [MQTT5-3.2.2-16]. With 128 random bits the first try is good.
fn new_client_id(entropy: u128, broker: &Broker) -> String {
    let mut number = entropy;
    loop {
        let client_id = format!("auto-{number:032x}");
        if broker.session(&client_id).is_none() {
            return client_id;
        }
        number = number.wrapping_add(1);
    }
}

fn will_of(will: &motemq_codec::Will<'_>) -> Will {
    let mut forwarded = Vec::with_capacity(will.forwarded.len());
    will.forwarded.write_to(&mut forwarded);
    Will {
        message: Message {
            topic: TopicName::new(will.topic),
            payload: will.payload.into(),
            forwarded: forwarded.into(),
            qos: will.qos,
            retain: will.retain,
            publisher: ClientId::new(""),
            origin: Origin::Will,
            hops: 0,
            received_at: Timestamp::default(),
            expires_at: None,
            urgency: Urgency::default(),
            id: MessageId::default(),
            attempts: 0,
        },
        message_expiry_s: will.message_expiry_s,
        delay_s: will.delay_s,
    }
}
