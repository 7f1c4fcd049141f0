//! Scripted clients in memory: a broker, its journal and a clock in hand, and peers that feed bytes and read packets.
//!
//! Nothing moves by itself: a test sends, lets things settle, reads, turns the clock on. The journal commits at once unless
//! [`Bench::holds_commits`] is set.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a script that goes wrong must stop at once"
)]

use crate::watch::Watch;
use motemq_codec::{
    Ack, AckKind, Auth, Connect, ConnectProperties, Decoded, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscribeFilters,
    SubscribeOptions, Unsubscribe, UnsubscribeFilters, UserProperties, Will, decode,
};
use motemq_core::{
    AssignedIds, Broker, Close, Connection, ConnectionRules, Event, ExchangeAnswer, ExchangeStage,
    ExchangeStep, Identity, Image, Limits, SharedRate, SimDisk, SimJournal, SimJournalRules,
    Timestamp, Verdict,
};
use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// What a client reads, without borrows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    /// CONNACK without an authentication method: session present, reason code.
    ConnAck(bool, ReasonCode),
    /// CONNACK with an authentication method: session present, method, data.
    Authenticated(bool, String, String),
    /// AUTH: reason code, method, data.
    Auth(ReasonCode, String, String),
    /// PUBLISH.
    Publish(Box<GotPublish>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(&'static str, u16, ReasonCode),
    /// SUBACK.
    SubAck(u16, Vec<u8>),
    /// UNSUBACK.
    UnsubAck(u16, Vec<u8>),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(ReasonCode),
}

/// A PUBLISH.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GotPublish {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// QoS as a number.
    pub qos: u8,
    /// DUP.
    pub dup: bool,
    /// RETAIN.
    pub retain: bool,
    /// Packet id; 0 for none.
    pub id: u16,
    /// Message Expiry Interval.
    pub expiry_s: Option<u32>,
    /// Topic alias.
    pub alias: Option<u16>,
    /// Subscription identifiers.
    pub subscription_ids: Vec<u32>,
    /// The properties that travel unaltered, as their wire form.
    pub forwarded: Vec<u8>,
}

/// How a client connects. The defaults: MQTT 5, clean start, no expiry.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// Version.
    pub version: ProtocolVersion,
    /// Client identifier.
    pub id: &'a str,
    /// Clean Start.
    pub clean: bool,
    /// Session Expiry Interval.
    pub expiry_s: Option<u32>,
    /// Keep Alive.
    pub keep_alive_s: u16,
    /// Receive Maximum.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size.
    pub packet_bytes_max: Option<u32>,
    /// Request Problem Information.
    pub problem_information: bool,
    /// Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Request Response Information.
    pub response_information: bool,
    /// Will.
    pub will: Option<Will<'a>>,
    /// Authentication Method and Authentication Data.
    pub authentication: Option<(&'a str, &'a str)>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a str>,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Self {
            version: ProtocolVersion::V5,
            id: "client",
            clean: true,
            expiry_s: None,
            keep_alive_s: 0,
            receive_maximum: None,
            packet_bytes_max: None,
            problem_information: true,
            topic_alias_max: 0,
            response_information: false,
            will: None,
            authentication: None,
            username: None,
            password: None,
        }
    }
}

impl<'a> Hello<'a> {
    /// MQTT 5, a clean session.
    #[must_use]
    pub fn clean(id: &'a str) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    /// MQTT 5, a session that lives for an hour, taken up if it is there.
    #[must_use]
    pub fn durable(id: &'a str) -> Self {
        Self {
            id,
            clean: false,
            expiry_s: Some(3600),
            ..Self::default()
        }
    }

    /// MQTT 3.1.1.
    #[must_use]
    pub fn v3(id: &'a str, clean: bool) -> Self {
        Self {
            id,
            clean,
            version: ProtocolVersion::V3_1_1,
            ..Self::default()
        }
    }

    /// The bytes of the CONNECT.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let connect = Connect {
            version: self.version,
            client_id: self.id,
            clean_start: self.clean,
            keep_alive_s: self.keep_alive_s,
            username: self.username,
            password: self.password.map(str::as_bytes),
            will: self.will,
            properties: ConnectProperties {
                session_expiry_s: self.expiry_s,
                receive_maximum: self.receive_maximum.and_then(NonZeroU16::new),
                packet_bytes_max: self.packet_bytes_max.and_then(NonZeroU32::new),
                request_problem_information: self.problem_information,
                topic_alias_max: self.topic_alias_max,
                request_response_information: self.response_information,
                authentication_method: self.authentication.map(|(method, _)| method),
                authentication_data: self.authentication.map(|(_, data)| data.as_bytes()),
                ..ConnectProperties::default()
            },
        };
        encoded(&Packet::Connect(Box::new(connect)), self.version)
    }
}

/// A peer's number on its bench.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Peer(usize);

/// A broker with everything around it.
pub struct Bench {
    /// The broker.
    pub broker: Broker,
    /// Its journal.
    pub journal: Arc<SimJournal>,
    /// Virtual time.
    pub now: Timestamp,
    /// Records wait until [`Bench::commit`].
    pub holds_commits: bool,
    /// The listener's `qos_max`.
    pub qos_max: QoS,
    /// The listener's name.
    pub listener: Option<Arc<str>>,
    /// What all clients of the listener together may publish.
    pub publish_rate: Option<Arc<SharedRate>>,
    /// What the check of every client's credentials finds.
    pub verdict: Verdict,
    limits: Arc<Limits>,
    boot: u32,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    machine: Connection,
    version: ProtocolVersion,
    received: Vec<u8>,
    down: VecDeque<Got>,
    bytes_down: usize,
    is_finished: bool,
    /// Output is not taken.
    is_slow: bool,
    last_bytes: Vec<u8>,
    welcome: Vec<u8>,
    watch: Watch,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Bench {
    /// An empty broker with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = Arc::new(limits);
        let journal = SimJournal::new(SimJournalRules::default(), SimDisk::default());
        let now = Timestamp::from_ms(1_000_000);
        Self {
            broker: Broker::new(limits.clone(), journal.clone(), Image::default(), 1, now),
            journal,
            now,
            holds_commits: false,
            qos_max: QoS::ExactlyOnce,
            listener: None,
            publish_rate: None,
            verdict: Verdict::Accepted {
                login: Identity::Anonymous.into(),
                entropy: 7,
            },
            limits,
            boot: 1,
            lines: Vec::new(),
        }
    }

    /// A new connection on which nothing was sent yet.
    pub fn open(&mut self, version: ProtocolVersion) -> Peer {
        let rules = ConnectionRules {
            qos_max: self.qos_max,
            listener: self.listener.clone(),
            publish_rate: self.publish_rate.clone(),
            assigned_ids: AssignedIds::Random,
        };
        self.lines.push(Line {
            machine: Connection::new(rules, &self.broker, self.now),
            version,
            received: Vec::new(),
            down: VecDeque::new(),
            bytes_down: 0,
            is_finished: false,
            is_slow: false,
            last_bytes: Vec::new(),
            welcome: Vec::new(),
            watch: Watch::default(),
        });
        Peer(self.lines.len() - 1)
    }

    /// Connects and expects to be accepted; says whether a session is present.
    pub fn connect_for(&mut self, hello: &Hello<'_>) -> (Peer, bool) {
        let peer = self.open(hello.version);
        self.send_bytes(peer, &hello.bytes());
        match self.take(peer) {
            Some(Got::ConnAck(present, ReasonCode::Success)) => (peer, present),
            other => panic!("CONNACK expected, got {other:?}"),
        }
    }

    /// Connects and expects to be accepted.
    pub fn connect(&mut self, hello: &Hello<'_>) -> Peer {
        self.connect_for(hello).0
    }

    /// Sends raw bytes and lets everything settle.
    pub fn send_bytes(&mut self, peer: Peer, bytes: &[u8]) {
        let line = self.line(peer);
        line.watch.sent(bytes);
        line.received.extend_from_slice(bytes);
        self.settle();
    }

    /// Sends a packet and lets everything settle.
    pub fn send(&mut self, peer: Peer, packet: &Packet<'_>) {
        let bytes = encoded(packet, self.line(peer).version);
        self.send_bytes(peer, &bytes);
    }

    /// Publishes; `id` 0 for QoS 0.
    pub fn publish(&mut self, peer: Peer, topic: &str, payload: &str, qos: u8, id: u16) {
        self.send(peer, &publish(topic, payload, qos, id));
    }

    /// Publishes a message to be retained.
    pub fn retain(&mut self, peer: Peer, topic: &str, payload: &str, qos: u8, id: u16) {
        let Packet::Publish(mut packet) = publish(topic, payload, qos, id) else {
            return;
        };
        packet.retain = true;
        self.send(peer, &Packet::Publish(packet));
    }

    /// Subscribes and expects the QoS to be granted; retained messages come after.
    pub fn subscribe(&mut self, peer: Peer, filter: &str, qos: u8) {
        self.subscribe_with(peer, filter, options(qos), None);
    }

    /// Subscribes with options and an identifier.
    pub fn subscribe_with(
        &mut self,
        peer: Peer,
        filter: &str,
        options: SubscribeOptions,
        id: Option<u32>,
    ) {
        self.send(peer, &subscribe(1, &[(filter, options)], id));
        assert_eq!(
            self.take(peer),
            Some(Got::SubAck(1, vec![options.qos as u8]))
        );
    }

    /// Unsubscribes.
    pub fn unsubscribe(&mut self, peer: Peer, filter: &str) -> Option<Got> {
        let filters = [filter];
        let packet = Unsubscribe {
            packet_id: packet_id(2),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::from_list(&filters),
        };
        self.send(peer, &Packet::Unsubscribe(packet));
        self.take(peer)
    }

    /// Sends an AUTH.
    pub fn auth(&mut self, peer: Peer, code: ReasonCode, method: Option<&str>, data: &str) {
        let auth = Auth {
            code,
            authentication_method: method,
            authentication_data: method.map(|_| data.as_bytes()),
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        self.send(peer, &Packet::Auth(auth));
    }

    /// Gives the answer that a step with the data `wait` still waits for; the bench gives all others at once, see [`METHOD`].
    pub fn answer(&mut self, peer: Peer, answer: ExchangeAnswer) {
        let (broker, now) = (&self.broker, self.now);
        if let Some(line) = self.lines.get_mut(peer.0) {
            let mut out = Vec::new();
            line.machine.handle_answer(answer, broker, now, &mut out);
            line.read(&out);
        }
        self.settle();
    }

    /// Sends an acknowledgement.
    pub fn ack(&mut self, peer: Peer, kind: AckKind, id: u16, code: ReasonCode) {
        let ack = Ack::new(packet_id(id), code);
        let packet = match kind {
            AckKind::PubAck => Packet::PubAck(ack),
            AckKind::PubRec => Packet::PubRec(ack),
            AckKind::PubRel => Packet::PubRel(ack),
            AckKind::PubComp => Packet::PubComp(ack),
        };
        self.send(peer, &packet);
    }

    /// The next packet that the peer reads.
    pub fn take(&mut self, peer: Peer) -> Option<Got> {
        self.line(peer).down.pop_front()
    }

    /// The bytes of the CONNACK that the peer got.
    #[must_use]
    pub fn welcome(&self, peer: Peer) -> &[u8] {
        self.lines.get(peer.0).map_or(&[], |line| &line.welcome)
    }

    /// How many bytes the broker has sent to the peer.
    #[must_use]
    pub fn bytes_down(&self, peer: Peer) -> usize {
        self.lines.get(peer.0).map_or(0, |line| line.bytes_down)
    }

    /// The next packet, which must be a PUBLISH.
    pub fn take_publish(&mut self, peer: Peer) -> GotPublish {
        match self.take(peer) {
            Some(Got::Publish(publish)) => *publish,
            other => panic!("PUBLISH expected, got {other:?}"),
        }
    }

    /// The last packet that arrived for the peer, as it was on the wire.
    #[must_use]
    pub fn last_bytes(&self, peer: Peer) -> &[u8] {
        self.lines.get(peer.0).map_or(&[], |line| &line.last_bytes)
    }

    /// Everything that the peer has not read yet.
    pub fn take_all(&mut self, peer: Peer) -> Vec<Got> {
        self.line(peer).down.drain(..).collect()
    }

    /// The payloads of everything unread, all of it PUBLISHes.
    pub fn payloads(&mut self, peer: Peer) -> Vec<String> {
        let mut payloads = Vec::new();
        while let Some(got) = self.take(peer) {
            match got {
                Got::Publish(publish) => payloads.push(publish.payload),
                other => panic!("PUBLISH expected, got {other:?}"),
            }
        }
        payloads
    }

    /// Why the broker has closed the connection, if it has.
    #[must_use]
    pub fn closed(&self, peer: Peer) -> Option<Close> {
        self.lines.get(peer.0)?.machine.closed().cloned()
    }

    /// The peer vanishes.
    pub fn cut(&mut self, peer: Peer) {
        let (broker, now) = (&self.broker, self.now);
        if let Some(line) = self.lines.get_mut(peer.0)
            && !line.is_finished
        {
            line.machine.finish(broker, now);
            line.is_finished = true;
        }
        self.settle();
    }

    /// The peer takes no output any more, or takes it again.
    pub fn set_slow(&mut self, peer: Peer, is_slow: bool) {
        self.line(peer).is_slow = is_slow;
        self.settle();
    }

    /// Time passes, with a stop at each deadline.
    pub fn pass(&mut self, ms: u64) {
        let target = self.now + Duration::from_millis(ms);
        loop {
            let deadlines = self.lines.iter().filter(|line| !line.is_finished);
            let next = deadlines.filter_map(|line| line.machine.poll_timeout());
            let next = next.chain(self.broker.poll_timeout()).min();
            match next {
                Some(at) if at <= target => {
                    self.now = self.now.max(at);
                    self.broker.handle_timeout(self.now);
                    let now = self.now;
                    for line in self.lines.iter_mut().filter(|line| !line.is_finished) {
                        let mut out = Vec::new();
                        line.machine.handle_timeout(now, &mut out);
                        line.read(&out);
                    }
                    self.settle();
                }
                _ => break,
            }
        }
        self.now = target;
        self.settle();
    }

    /// Everything submitted becomes durable.
    pub fn commit(&mut self) {
        // As in the server, where reading does not wait for what is to be written.
        while self.journal.answer_read() {}
        while self.journal.begin_commit(usize::MAX) > 0 {
            self.journal.end_commit();
        }
        while self.journal.answer_read() {}
        self.run();
    }

    /// Power is lost; `survivors` of the records being written reach the disk. Every connection is gone.
    pub fn restart(&mut self, survivors: usize) {
        let disk = self.journal.lose_power(survivors);
        let image = disk.image();
        for line in &mut self.lines {
            line.is_finished = true;
        }
        self.boot += 1;
        self.journal = SimJournal::new(SimJournalRules::default(), disk);
        self.broker = Broker::new(
            self.limits.clone(),
            self.journal.clone(),
            image,
            self.boot,
            self.now,
        );
        self.settle();
    }

    /// Runs everybody, and the journal unless commits are held, until nothing moves.
    pub fn settle(&mut self) {
        self.run();
        if self.holds_commits {
            return;
        }
        while !self.journal.is_idle() {
            self.commit();
        }
    }

    fn run(&mut self) {
        for _ in 0..4 {
            for line in self.lines.iter_mut().filter(|line| !line.is_finished) {
                line.run(&self.broker, &self.verdict, self.now);
            }
        }
    }

    fn line(&mut self, peer: Peer) -> &mut Line {
        self.lines.get_mut(peer.0).expect("peers come from `open`")
    }
}

impl Line {
    fn run(&mut self, broker: &Broker, verdict: &Verdict, now: Timestamp) {
        let mut out = Vec::new();
        self.machine.begin(Waker::noop(), &mut out);
        loop {
            self.feed(broker, verdict, now, &mut out);
            let was_paused = self.machine.is_paused();
            while !self.is_slow && self.machine.poll_output(broker, now, 1000, &mut out) {}
            // What had to wait for CONNACK, or for replies, is taken now.
            if !was_paused || self.machine.is_paused() {
                break;
            }
        }
        self.read(&out);
        self.machine.flush_tally(broker, || now);
        if self.machine.closed().is_some() {
            self.machine.finish(broker, now);
            self.is_finished = true;
        }
    }

    fn feed(&mut self, broker: &Broker, verdict: &Verdict, now: Timestamp, out: &mut Vec<u8>) {
        loop {
            let shown = std::mem::take(&mut self.received);
            if shown.is_empty() {
                break;
            }
            let (done, event) = self.machine.handle_bytes(&shown, broker, now, out);
            self.received
                .extend_from_slice(shown.get(done.consumed..).unwrap_or_default());
            match event {
                Some(Event::Authenticate(_)) => {
                    self.machine
                        .handle_verdict(verdict.clone(), broker, now, out);
                    self.machine.begin(Waker::noop(), out);
                    continue;
                }
                Some(Event::Exchange(step)) => {
                    if let Some(answer) = method_answer(&step) {
                        self.machine.handle_answer(answer, broker, now, out);
                        self.machine.begin(Waker::noop(), out);
                        continue;
                    }
                }
                None => {}
            }
            if done.consumed == 0 || self.machine.closed().is_some() {
                break;
            }
        }
    }

    fn read(&mut self, mut bytes: &[u8]) {
        self.bytes_down += bytes.len();
        while !bytes.is_empty() {
            match decode(bytes, self.version, usize::MAX) {
                Ok(Decoded::Packet { packet, length }) => {
                    self.watch.wrote(&packet, length);
                    if matches!(packet, Packet::ConnAck(_)) {
                        self.welcome = bytes.get(..length).unwrap_or_default().to_vec();
                    }
                    self.down.push_back(got(&packet));
                    self.last_bytes = bytes.get(..length).unwrap_or_default().to_vec();
                    bytes = bytes.get(length..).unwrap_or_default();
                }
                other => panic!("the broker wrote {bytes:02x?}: {other:?}"),
            }
        }
    }
}

/// The method of the bench. The client's data is its script: `ask:X` is answered with X, `user:X` lets the user X in with the
/// last data `bye`, `wait` waits for [`Bench::answer`], all else is refused.
pub const METHOD: &str = "SCRIPT";

fn method_answer(step: &ExchangeStep) -> Option<ExchangeAnswer> {
    let refused = |code| {
        let reason = "refused by the script";
        Some(ExchangeAnswer::Refused { code, reason })
    };
    if let ExchangeStage::Connect { method, .. } = &step.stage
        && **method != *METHOD
    {
        return refused(ReasonCode::BadAuthenticationMethod);
    }
    match str::from_utf8(&step.data)
        .unwrap_or_default()
        .split_once(':')
    {
        Some(("ask", question)) => Some(ExchangeAnswer::Continue(question.into())),
        Some(("user", user)) => Some(accepted(user)),
        None if step.data == b"wait" => None,
        _ => refused(ReasonCode::NotAuthorized),
    }
}

/// The answer that lets a user in.
#[must_use]
pub fn accepted(user: &str) -> ExchangeAnswer {
    ExchangeAnswer::Accepted {
        login: Identity::User(user.into()).into(),
        entropy: 7,
        data: b"bye".to_vec(),
    }
}

/// What a client reads.
#[must_use]
pub fn got(packet: &Packet<'_>) -> Got {
    let ack = |name, ack: &Ack<'_>| Got::Ack(name, ack.packet_id.get(), ack.code);
    let text = |data: Option<&[u8]>| String::from_utf8_lossy(data.unwrap_or_default()).into_owned();
    match packet {
        Packet::ConnAck(connack) if connack.properties.authentication_method.is_some() => {
            assert_eq!(connack.code, ReasonCode::Success);
            Got::Authenticated(
                connack.session_present,
                connack
                    .properties
                    .authentication_method
                    .unwrap_or_default()
                    .to_owned(),
                text(connack.properties.authentication_data),
            )
        }
        Packet::Auth(auth) => {
            // [MQTT5-3.15.2-2] [MQTT5-3.15.2-3]
            assert!(auth.reason_string.is_none() && auth.user_properties.iter().next().is_none());
            Got::Auth(
                auth.code,
                auth.authentication_method.unwrap_or_default().to_owned(),
                text(auth.authentication_data),
            )
        }
        Packet::ConnAck(connack) => Got::ConnAck(connack.session_present, connack.code),
        Packet::Publish(publish) => {
            let mut forwarded = Vec::new();
            publish.properties.forwarded.write_to(&mut forwarded);
            Got::Publish(Box::new(GotPublish {
                topic: publish.topic.to_owned(),
                payload: String::from_utf8_lossy(publish.payload).into_owned(),
                qos: publish.qos as u8,
                dup: publish.dup,
                retain: publish.retain,
                id: publish.packet_id.map_or(0, PacketId::get),
                expiry_s: publish.properties.message_expiry_s,
                alias: publish.properties.topic_alias.map(NonZeroU16::get),
                subscription_ids: publish.properties.subscription_ids.iter().collect(),
                forwarded,
            }))
        }
        Packet::PubAck(packet) => ack("PUBACK", packet),
        Packet::PubRec(packet) => ack("PUBREC", packet),
        Packet::PubRel(packet) => ack("PUBREL", packet),
        Packet::PubComp(packet) => ack("PUBCOMP", packet),
        Packet::SubAck(suback) => Got::SubAck(suback.packet_id.get(), suback.codes.to_vec()),
        Packet::UnsubAck(unsuback) => {
            Got::UnsubAck(unsuback.packet_id.get(), unsuback.codes.to_vec())
        }
        Packet::PingResp => Got::PingResp,
        Packet::Disconnect(disconnect) => Got::Disconnect(disconnect.code),
        other => panic!("a server does not send {other:?}"),
    }
}

/// The bytes of a packet.
#[must_use]
pub fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet
        .encode(version, &mut bytes)
        .expect("the script's packets are encodable");
    bytes
}

/// A PUBLISH; `id` 0 for QoS 0.
#[must_use]
pub fn publish<'a>(topic: &'a str, payload: &'a str, qos: u8, id: u16) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::from_bits(qos).expect("0, 1 or 2"),
        retain: false,
        topic,
        packet_id: PacketId::new(id),
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    })
}

/// Subscribe options with nothing but a QoS.
#[must_use]
pub fn options(qos: u8) -> SubscribeOptions {
    SubscribeOptions {
        qos: QoS::from_bits(qos).expect("0, 1 or 2"),
        ..SubscribeOptions::default()
    }
}

/// A SUBSCRIBE, leaked: scripts are short.
#[must_use]
pub fn subscribe(
    id: u16,
    filters: &[(&str, SubscribeOptions)],
    subscription_id: Option<u32>,
) -> Packet<'static> {
    let list: Vec<SubscribeFilter<'static>> = filters
        .iter()
        .map(|(filter, options)| SubscribeFilter {
            filter: String::leak((*filter).to_owned()),
            options: *options,
        })
        .collect();
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(id),
        subscription_id,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::from_list(Vec::leak(list)),
    })
}

/// A packet id.
#[must_use]
pub fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}
