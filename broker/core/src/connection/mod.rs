//! One client's protocol state, from its first byte to its last.
//!
//! Bytes go in by [`Connection::handle_bytes`], time by [`handle_timeout`](Connection::handle_timeout), the verdict on its
//! credentials by [`handle_verdict`](Connection::handle_verdict) or, step by step, by
//! [`handle_answer`](Connection::handle_answer); bytes come out of
//! [`poll_output`](Connection::poll_output) and work for the driver as [`Event`]s.
//!
//! Invariants:
//! - CONNACK is the first packet out [MQTT5-3.2.0-1], but for the AUTHs that lead to it; nothing is sent after a DISCONNECT.
//! - Replies leave in the order of the packets they answer [MQTT5-4.6.0-2] [MQTT5-4.6.0-3], each only when what it
//!   promises is durable or elided (contracts section 3).
//! - What it holds is bounded: replies and inbound exchanges by `receive_maximum`, aliases by `topic_alias_max`.
//!
//! Does not know: who receives what it publishes, sockets, TLS, how credentials are checked.

mod access;
mod aliases;
mod authentication;
mod enrolment;
mod handshake;
mod inbound;
mod meters;
mod outbound;
mod routes;
mod samples;
mod throttle;
mod tracing;
mod violation;

pub use access::{Denial, DeniedAction};
pub(crate) use aliases::Hints;
pub use authentication::{ExchangeAnswer, ExchangeStage, ExchangeStep};
pub use handshake::{ConnectRequest, Verdict};
pub use meters::Meters;
pub use violation::{Close, Violation};

use crate::broker::{Broker, Ending, Replay, ReplayWish};
use crate::counters::{Direction, Limit, Occasion, PacketKind, Tally};
use crate::limits::Limits;
use crate::login::Scope;
use crate::mailbox::Outgoing;
use crate::message::{ClientId, Expiry};
use crate::rate::SharedRate;
use crate::record::Record;
use crate::session::Session;
use crate::share_group::ShareGroup;
use crate::time::Timestamp;
use crate::trace::ConnectionTraces;
use access::Access;
use aliases::OutboundAliases;
use authentication::Enhanced;
use enrolment::Requests;
use handshake::Hello;
use motemq_codec::{
    Decoded, Disconnect, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, decode, decode_connect,
};
use routes::Routes;
use samples::Samples;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use throttle::Throttle;

/// What the listener allows its clients.
#[derive(Clone, Debug)]
pub struct ConnectionRules {
    /// The highest quality of service.
    pub qos_max: QoS,
    /// Its name, if it has one.
    pub listener: Option<Arc<str>>,
    /// What all its clients together may publish in a second, if that is limited.
    pub publish_rate: Option<Arc<SharedRate>>,
    /// What clients without an identifier get.
    pub assigned_ids: AssignedIds,
}

/// Which client identifiers are assigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AssignedIds {
    /// A random one.
    Random,
    /// The name that the login proved; without a name, none: the client is refused.
    User,
}

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Connection {
    rules: ConnectionRules,
    limits: Arc<Limits>,
    /// Unique over restarts; the first half of the ids of its messages.
    number: u64,
    version: ProtocolVersion,
    last_received: Timestamp,
    /// Bytes that were shown before and not consumed: only what comes on top is a sign of life.
    shown: usize,
    phase: Phase,
    /// Set once: nothing is taken or sent any more.
    closed: Option<Close>,
    tally: Tally,
    meters: Meters,
    /// The first thing that was denied since it was asked for last.
    denial: Option<Box<Denial>>,
    /// The last bytes cost so much that others go first.
    is_tired: bool,
    /// Whoever traces it, as of this generation of the traces.
    traces: Option<Box<ConnectionTraces>>,
    traced_as_of: u64,
}

#[derive(Debug)]
enum Phase {
    /// Nothing but a CONNECT may come.
    AwaitConnect,
    /// The driver is checking the credentials, or the client owes an AUTH.
    Authenticating(Box<Hello>),
    /// A session is attached.
    Active(Box<Active>),
}

#[derive(Debug)]
struct Active {
    session: Arc<Session>,
    epoch: u64,
    client_id: ClientId,
    scope: Scope,
    /// What it has asked of the enrolment service lately.
    requests: Requests,
    keep_alive_ms: u64,
    /// The session expiry of CONNECT, which DISCONNECT may change.
    expiry: Expiry,
    /// Largest packet that the client takes.
    packet_bytes_max: usize,
    inflight_max: u16,
    /// Reason strings are wanted [MQTT5-3.1.2-29].
    problem_information: bool,
    /// The authentication method of CONNECT, if it named one.
    enhanced: Option<Box<Enhanced>>,
    /// CONNACK is out.
    is_announced: bool,
    /// Topics that the client's aliases stand for.
    aliases: Vec<Option<Box<str>>>,
    /// Aliases towards the client, if it takes any.
    outbound_aliases: Option<Box<OutboundAliases>>,
    messages: u64,
    /// When the login ends.
    login_ends_at: Option<Timestamp>,
    access: Access,
    throttle: Option<Box<Throttle>>,
    routes: Routes,
    replies: VecDeque<Pending>,
    /// QoS 1 messages received and not yet acknowledged.
    unacknowledged: usize,
    /// QoS 2 exchanges that count against Receive Maximum on this connection.
    exchanges: Vec<PacketId>,
    /// Retained messages still to be sent for a new subscription.
    replay: VecDeque<Replay>,
    /// The new subscriptions whose turn comes then, by filter.
    replay_wishes: BTreeMap<Box<str>, ReplayWish>,
    /// Share groups that may have something for the session.
    groups: Vec<Arc<ShareGroup>>,
    outgoing: Vec<Outgoing>,
    samples: Samples,
}

/// A reply that waits for its turn and its record.
#[derive(Debug)]
struct Pending {
    reply: Reply,
    awaited: Option<Arc<Record>>,
}

#[derive(Debug)]
enum Reply {
    ConnAck(Box<handshake::Welcome>),
    PubAck(PacketId, Answer),
    PubRec(PacketId, Answer),
    PubComp(PacketId, ReasonCode),
    SubAck(PacketId, Vec<u8>, BTreeMap<Box<str>, ReplayWish>),
    UnsubAck(PacketId, Vec<u8>),
}

/// The answer to a publish: a reason code and, for a refusal, what would change it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Answer {
    code: ReasonCode,
    reason: Option<&'static str>,
}

impl From<ReasonCode> for Answer {
    fn from(code: ReasonCode) -> Self {
        let reason = match code {
            ReasonCode::QuotaExceeded => {
                Some("a queue (limits.queue_full), the retained messages or the store has no room")
            }
            _ => None,
        };
        Self { code, reason }
    }
}

/// What [`Connection::handle_bytes`] did.
#[derive(Debug)]
pub struct Progress {
    /// Bytes that are done with; the rest must be shown again, with more behind it.
    pub consumed: usize,
    /// At least so many bytes must be there before another call gets further.
    pub needed: usize,
}

/// Work for the driver.
#[derive(Debug)]
pub enum Event {
    /// Check these credentials and answer with [`Connection::handle_verdict`].
    Authenticate(ConnectRequest),
    /// Ask the authentication method and answer with [`Connection::handle_answer`].
    Exchange(ExchangeStep),
}

impl Connection {
    /// The state of a connection that was just accepted.
    #[must_use]
    pub fn new(rules: ConnectionRules, broker: &Broker, now: Timestamp) -> Self {
        Self {
            rules,
            limits: broker.limits(),
            number: broker.next_connection(),
            version: ProtocolVersion::V3_1_1,
            last_received: now,
            shown: 0,
            phase: Phase::AwaitConnect,
            closed: None,
            tally: Tally::default(),
            meters: Meters::default(),
            denial: None,
            is_tired: false,
            traces: None,
            traced_as_of: 0,
        }
    }

    /// Takes whole packets off the front of `bytes`. Replies go to `out`.
    pub fn handle_bytes(
        &mut self,
        bytes: &[u8],
        broker: &Broker,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> (Progress, Option<Event>) {
        if bytes.len() > self.shown {
            self.last_received = now;
        }
        let mut consumed = 0;
        let mut event = None;
        self.is_tired = false;
        let work_max = self.work() + WORK_MAX;
        let needed = loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            if self.closed.is_some() {
                break 0;
            }
            if event.is_some() {
                break rest.len();
            }
            if let Phase::Active(active) = &self.phase {
                if active.routes.work() > work_max && !rest.is_empty() {
                    self.is_tired = true;
                    break 0;
                }
                let throttle = active.throttle.as_ref();
                if throttle.is_some_and(|throttle| !throttle.is_ready(now))
                    && self.must_wait(rest, now)
                {
                    break rest.len();
                }
            }
            let decoded = match &self.phase {
                Phase::AwaitConnect => {
                    decode_connect(rest, self.limits.connect_packet_bytes_max as usize)
                }
                Phase::Active(active) if !self.is_stalled(active) => {
                    decode(rest, self.version, self.limits.packet_bytes_max as usize)
                }
                Phase::Authenticating(hello) if !hello.awaits_driver() => {
                    let bytes_max = self.limits.connect_packet_bytes_max as usize;
                    decode(rest, self.version, bytes_max)
                }
                Phase::Active(_) | Phase::Authenticating(_) => break rest.len(),
            };
            match decoded {
                Ok(Decoded::Incomplete { needed }) => break rest.len() + needed,
                Ok(Decoded::Packet { packet, length }) => {
                    consumed += length;
                    if let Err(violation) = self.handle_packet(packet, broker, now, out, &mut event)
                    {
                        self.violate(violation, out);
                    }
                }
                Err(error) => self.reject_bytes(error, out),
            }
        };
        self.shown = bytes.len() - consumed;
        self.tally.transfer(Direction::In, consumed);
        self.meters.bytes_in += consumed as u64;
        (Progress { consumed, needed }, event)
    }

    /// Whether the last call of [`handle_bytes`](Self::handle_bytes) left bytes because the ones before were so much work, matching
    /// topics with filters, that others should go first.
    #[must_use]
    pub fn is_tired(&self) -> bool {
        self.is_tired
    }

    fn work(&self) -> usize {
        match &self.phase {
            Phase::Active(active) => active.routes.work(),
            _ => 0,
        }
    }

    /// Whether bytes would be left alone: too many replies wait for the disk, or the credentials are being checked.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        match &self.phase {
            Phase::Active(active) => self.is_stalled(active),
            Phase::Authenticating(hello) => hello.awaits_driver(),
            Phase::AwaitConnect => false,
        }
    }

    /// What follows CONNECT is handled when CONNACK is out, so that nothing can precede or replace it [MQTT5-3.2.0-1]. 3.1.1 has
    /// no Receive Maximum; its clients are simply not read any further.
    fn is_stalled(&self, active: &Active) -> bool {
        !active.is_announced
            || active.is_throttled()
            || active.replies.len()
                >= usize::from(self.limits.receive_maximum.get()).max(REPLIES_MIN)
    }

    fn handle_packet(
        &mut self,
        packet: Packet<'_>,
        broker: &Broker,
        now: Timestamp,
        out: &mut Vec<u8>,
        event: &mut Option<Event>,
    ) -> Result<(), Violation> {
        if broker.traces().is_any() {
            // A copy: one that is handed on by reference is copied on the path without a trace.
            self.trace_inbound(packet.clone(), broker, now);
        }
        let may_precede_connack = matches!(packet, Packet::Auth(_) | Packet::Disconnect(_));
        if matches!(self.phase, Phase::Authenticating(_)) && !may_precede_connack {
            return Err(Violation::BeforeConnAck);
        }
        match packet {
            Packet::Publish(publish) => self.handle_publish(&publish, broker, now, out),
            Packet::PubAck(ack) => self.handle_puback(&ack, broker, now),
            Packet::PubRec(ack) => self.handle_pubrec(&ack, broker, out),
            Packet::PubRel(ack) => self.handle_pubrel(&ack, broker, out),
            Packet::PubComp(ack) => self.handle_pubcomp(&ack, broker, now),
            Packet::Subscribe(subscribe) => self.handle_subscribe(&subscribe, broker, out),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe, broker, out),
            Packet::PingReq => {
                self.tally.packet(Direction::In, PacketKind::PingReq);
                self.tally.packet(Direction::Out, PacketKind::PingResp);
                self.meters.pings = self.meters.pings.saturating_add(1);
                self.encode(&Packet::PingResp, out);
                Ok(())
            }
            Packet::Disconnect(disconnect) => {
                self.tally.packet(Direction::In, PacketKind::Disconnect);
                self.handle_disconnect(&disconnect)
            }
            Packet::Connect(connect) if matches!(self.phase, Phase::AwaitConnect) => {
                self.tally.packet(Direction::In, PacketKind::Connect);
                *event = self.handle_connect(&connect, broker, out);
                Ok(())
            }
            Packet::Connect(_) => Err(Violation::SecondConnect),
            Packet::Auth(auth) => {
                self.tally.packet(Direction::In, PacketKind::Auth);
                *event = Some(self.handle_auth(&auth)?);
                Ok(())
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Violation::ServerPacket)
            }
        }
    }

    fn handle_disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Violation> {
        let Phase::Active(active) = &mut self.phase else {
            self.closed = Some(Close::Normal);
            return Ok(());
        };
        if let Some(wish) = disconnect.session_expiry_s.map(Expiry::from_seconds) {
            if active.expiry == Expiry::WithConnection && wish.is_durable() {
                return Err(Violation::ExpiryFromZero);
            }
            active.expiry = wish.capped(self.limits.session_expiry_max_s);
            if active.expiry != wish {
                self.tally.reach(Limit::SessionExpiry);
            }
        }
        self.closed = Some(match disconnect.code {
            ReasonCode::Success => Close::Normal,
            _ => Close::NormalWithWill,
        });
        Ok(())
    }

    /// Ends a connection that sent bytes which are not MQTT. Before a CONNACK nothing is answered but what is owed.
    fn reject_bytes(&mut self, error: motemq_codec::DecodeError, out: &mut Vec<u8>) {
        if matches!(self.phase, Phase::AwaitConnect) {
            self.refuse_connect_bytes(error, out);
        } else {
            self.violate(Violation::Malformed(error), out);
        }
    }

    fn violate(&mut self, violation: Violation, out: &mut Vec<u8>) {
        if violation == Violation::KeepAliveTimeout {
            self.tally.note(Occasion::KeepAliveTimeout);
        }
        if let Some(limit) = violation.limit() {
            self.tally.reach(limit);
        }
        self.close(Close::Violation(violation), out);
    }

    /// Ends the connection from our side, with a DISCONNECT where the version has one [MQTT5-3.14.0-1].
    pub fn close(&mut self, close: Close, out: &mut Vec<u8>) {
        if self.closed.is_some() {
            return;
        }
        let code = match &close {
            Close::Violation(violation) => Some(violation.reason_code()),
            Close::ReauthenticationFailed(code, _) | Close::Dismissed(code, _) => Some(*code),
            Close::LoginEnded(_) => Some(ReasonCode::NotAuthorized),
            Close::TakenOver => Some(ReasonCode::SessionTakenOver),
            Close::QueueOverflow => Some(ReasonCode::QuotaExceeded),
            Close::StoreFailed => Some(ReasonCode::ImplementationSpecificError),
            Close::ServerShutdown => Some(ReasonCode::ServerShuttingDown),
            Close::Normal | Close::NormalWithWill | Close::Refused(_) | Close::Lost => None,
        };
        if let (Phase::Active(active), Some(code), ProtocolVersion::V5) =
            (&self.phase, code, self.version)
            && active.is_announced
        {
            let reason = match &close {
                Close::Violation(violation) => Some(violation.to_string()),
                Close::ReauthenticationFailed(_, reason)
                | Close::LoginEnded(reason)
                | Close::Dismissed(_, reason) => Some((*reason).to_owned()),
                Close::QueueOverflow => Some("the queue is full: limits.queue_full".to_owned()),
                _ => None,
            };
            let packet_bytes_max = active.packet_bytes_max;
            let mut disconnect = Disconnect::new(code);
            disconnect.reason_string = reason.as_deref();
            // [MQTT5-3.14.2-3]
            let fits = disconnect
                .encoded_len(self.version)
                .is_ok_and(|length| length <= packet_bytes_max);
            if !fits {
                disconnect.reason_string = None;
            }
            self.tally.packet(Direction::Out, PacketKind::Disconnect);
            self.encode(&Packet::Disconnect(disconnect), out);
        }
        if let (Phase::Authenticating(_), Close::Violation(violation)) = (&self.phase, &close) {
            // A CONNACK cannot carry every code of a DISCONNECT [MQTT5-3.2.2-8].
            let code = match violation.reason_code() {
                code @ (ReasonCode::MalformedPacket | ReasonCode::PacketTooLarge) => code,
                _ => ReasonCode::ProtocolError,
            };
            let reason = violation.to_string();
            self.send_refusal(self.packet_bytes_max(), code, Some(&reason), out);
        }
        self.closed.get_or_insert(close);
    }

    /// Lets go of the session: the last call. The will is published unless DISCONNECT forbade it.
    pub fn finish(&mut self, broker: &Broker, now: Timestamp) {
        if let Phase::Active(active) = &mut self.phase {
            if let Some(aliases) = active.outbound_aliases.take() {
                active.session.lock().alias_hints = aliases.hints();
            }
            let ending = match self.closed {
                Some(Close::Normal) => Ending::Normal,
                _ => Ending::WithWill,
            };
            let expiry = Some(active.expiry);
            broker.detach(
                &active.session,
                active.epoch,
                ending,
                expiry,
                now,
                &mut self.tally,
            );
        }
        self.closed.get_or_insert(Close::Lost);
        if let Phase::Active(active) = &mut self.phase {
            // Nobody waits for them any more.
            active.unacknowledged = 0;
            active.exchanges.clear();
        }
        if self.traces.is_some() || broker.traces().is_any() {
            self.trace_end(broker, now);
        }
        self.flush_tally(broker, || now);
    }

    /// Why the connection must end, once it must.
    #[must_use]
    pub fn closed(&self) -> Option<&Close> {
        self.closed.as_ref()
    }

    /// The client's session, once attached.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        match &self.phase {
            Phase::Active(active) => Some(&active.session),
            _ => None,
        }
    }

    /// The version that the client speaks.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// What the client's login is good for.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match &self.phase {
            Phase::Active(active) => active.scope,
            _ => Scope::Full,
        }
    }

    /// The client identifier, once a session is attached.
    #[must_use]
    pub fn client_id(&self) -> Option<&ClientId> {
        match &self.phase {
            Phase::Active(active) => Some(&active.client_id),
            _ => None,
        }
    }

    /// What it has moved.
    #[must_use]
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// The keep-alive in force, in seconds; 0 is none.
    #[must_use]
    pub fn keep_alive_s(&self) -> u64 {
        // What is kept is one and a half times of it.
        self.session_part()
            .map_or(0, |active| active.keep_alive_ms * 2 / 3 / 1000)
    }

    fn session_part(&self) -> Option<&Active> {
        match &self.phase {
            Phase::Active(active) => Some(active),
            _ => None,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let Phase::Active(active) = &self.phase else {
            return None;
        };
        let silent_at = self.silent_at(active);
        let others = active.login_ends_at.into_iter().chain(active.resume_at());
        silent_at.into_iter().chain(others).min()
    }

    /// When silence becomes too long.
    fn silent_at(&self, active: &Active) -> Option<Timestamp> {
        let keep_alive = Duration::from_millis(active.keep_alive_ms);
        // Who is not read cannot be heard.
        let is_heard = active.keep_alive_ms > 0 && !active.is_throttled();
        is_heard.then(|| self.last_received + keep_alive)
    }

    /// Ends the connection when its client was silent for too long [MQTT5-3.1.2-22] [MQTT3-3.1.2-24], or its login has ended.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        self.resume(now);
        self.touch_traces(now);
        let Phase::Active(active) = &self.phase else {
            return;
        };
        if active.login_ends_at.is_some_and(|at| at <= now) {
            let reason = match active.scope {
                Scope::Full | Scope::Operator => {
                    "the token or certificate of the login has expired"
                }
                Scope::Enrolment => "the time to ask for a certificate is over",
            };
            self.close(Close::LoginEnded(reason), out);
        } else if self.silent_at(active).is_some_and(|at| at <= now) {
            self.violate(Violation::KeepAliveTimeout, out);
        }
    }

    /// What was denied to the client since the last call, the first of it; all of it is counted.
    pub fn take_denial(&mut self) -> Option<Box<Denial>> {
        self.denial.take()
    }

    /// Starts a run of the driver: news that arrive from here on wake `waker`. Notices a take-over.
    pub fn begin(&mut self, waker: &Waker, out: &mut Vec<u8>) {
        if let Phase::Active(active) = &self.phase
            && !active.session.mailbox().wakeup().begin(active.epoch, waker)
        {
            self.close(Close::TakenOver, out);
        }
    }

    /// Asks to be woken when the journal has room again.
    pub fn wait_for_room(&self, broker: &Broker) {
        if let Phase::Active(active) = &self.phase {
            broker
                .journal()
                .wait_for_room(active.session.mailbox().wakeup());
        }
    }

    /// With so many bytes that the socket did not take, nothing more is to be encoded for the client, nor read from it.
    #[must_use]
    pub fn output_bytes_max(&self) -> usize {
        self.limits.output_bytes_max
    }

    /// How many messages the client has published since [`flush_tally`](Self::flush_tally) that went to anybody.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.tally.routed()
    }

    /// Shares what was counted since the last call. `now` is asked only if something was lost.
    pub fn flush_tally(&mut self, broker: &Broker, now: impl FnOnce() -> Timestamp) {
        if let Phase::Active(active) = &mut self.phase {
            let in_flight = active.unacknowledged + active.exchanges.len();
            let samples = &mut active.samples;
            samples.count_in_flight(in_flight, broker.counters(), self.number);
        }
        broker.add_tally(&mut self.tally, self.version, self.number, now);
    }

    fn encode(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        // What the broker makes itself is within the wire format's limits; the codec writes nothing otherwise.
        let _ = packet.encode(self.version, out);
        if self.traces.is_some() {
            self.trace_outbound(packet);
        }
    }
}

/// Nodes and subscriptions that one call may look at, and one message's worth more: about a millisecond.
const WORK_MAX: usize = 20_000;
/// Replies that a 3.1.1 client may always have waiting.
const REPLIES_MIN: usize = 16;
