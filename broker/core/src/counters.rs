//! What the broker counts, without a metrics library on the path of a message.
//!
//! A connection counts in a plain [`Tally`] and adds it to the shared [`Counters`] once per run; whoever renders metrics
//! reads the sums. Counters only grow. What every message counts is kept in a few stripes, each in cache lines of its own: the
//! threads of the runtime do not wait for each other's.

use crate::histogram::Histogram;
use crate::history::{LossReason, Losses, Lost};
use crate::message::{ClientId, Message};
use motemq_codec::{AckKind, ProtocolVersion, QoS};
use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Why a message was not delivered.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// The receiver's queue was full.
    QueueFull,
    /// QoS 0, and the receiver takes less than it is sent: what waits for its socket is up to the limits.
    SlowReader,
    /// The message expired before its turn.
    Expired,
    /// Larger than the receiver's Maximum Packet Size.
    TooLarge,
    /// QoS 0 while the receiver's session was offline.
    OfflineQoS0,
    /// The receiver refused it (PUBACK or PUBREC with an error).
    Rejected,
    /// The body could not be read back from the store.
    Unreadable,
    /// The ACL does not let the receiver have it.
    NotAuthorized,
    /// QoS 0, and the publisher is faster than it may be.
    RateExceeded,
    /// QoS 0, and the memory is nearly used up.
    MemoryFull,
    /// Nobody subscribes to its topic.
    NoSubscriber,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::QueueFull,
        Self::SlowReader,
        Self::Expired,
        Self::TooLarge,
        Self::OfflineQoS0,
        Self::Rejected,
        Self::Unreadable,
        Self::NotAuthorized,
        Self::RateExceeded,
        Self::MemoryFull,
        Self::NoSubscriber,
    ];

    /// The value of the metric's `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::SlowReader => "slow_reader",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::OfflineQoS0 => "qos0_offline",
            Self::Rejected => "rejected",
            Self::Unreadable => "unreadable",
            Self::NotAuthorized => "not_authorized",
            Self::RateExceeded => "rate_exceeded",
            Self::MemoryFull => "memory_full",
            Self::NoSubscriber => "no_subscriber",
        }
    }
}

/// Something that happens now and then.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Occasion {
    /// A publish was refused (0x97 and the like).
    PublishRefused,
    /// The ACL did not allow a PUBLISH.
    PublishDenied,
    /// The ACL did not allow a filter of a SUBSCRIBE.
    SubscribeDenied,
    /// The ACL did not allow the will of a CONNECT.
    ConnectDenied,
    /// A will was published.
    WillPublished,
    /// A will was not published, because the ACL does not allow it any more.
    WillDenied,
    /// A session was taken over by a newer connection.
    Takeover,
    /// A request for a certificate went to the enrolment service.
    EnrolmentRelayed,
    /// A request for a certificate was refused before the enrolment service saw it.
    EnrolmentRefused,
    /// An answer of the enrolment service went to who had asked.
    EnrolmentAnswered,
    /// An answer of the enrolment service found nobody: who had asked is gone.
    EnrolmentUnclaimed,
    /// A connection was ended for silence.
    KeepAliveTimeout,
    /// A session ended because its expiry had passed.
    SessionExpired,
}

impl Occasion {
    const COUNT: usize = Self::SessionExpired as usize + 1;
}

/// A limit of the configuration that a client or message ran into, or that lowered what a client asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Limit {
    /// `packet_bytes_max`: the connection was closed.
    PacketBytes,
    /// `connect_packet_bytes_max`: the connection was closed.
    ConnectPacketBytes,
    /// `payload_bytes_max`: a publish or CONNECT was refused.
    PayloadBytes,
    /// `receive_maximum`: the connection was closed.
    ReceiveMaximum,
    /// `queue_messages_max`: `queue_full` decided.
    QueueMessages,
    /// `queue_bytes_max`: `queue_full` decided.
    QueueBytes,
    /// `session_expiry_max_s`: a session's expiry was lowered.
    SessionExpiry,
    /// `keep_alive_max_s`: a client's keep-alive was lowered.
    KeepAlive,
    /// `topic_levels_max`: a publish, subscription or CONNECT was refused.
    TopicLevels,
    /// `topic_alias_max`: the connection was closed.
    TopicAlias,
    /// `subscriptions_max`: a subscription was refused.
    Subscriptions,
    /// `retained_messages_max`: a publish was refused.
    RetainedMessages,
    /// `retained_bytes_max`: a publish was refused.
    RetainedBytes,
    /// `subscription_bytes_max`: a subscription was refused.
    SubscriptionBytes,
    /// `publish_rate_max`: `publish_rate_full` decided; also for `publish_bytes_rate_max` and what a listener or identity may.
    PublishRate,
    /// `memory_bytes_max`: a publisher was not read for a moment, a CONNECT refused or QoS 0 dropped.
    Memory,
    /// `sessions_max`: a CONNECT was refused.
    Sessions,
    /// `identity_sessions_max`: a CONNECT was refused.
    IdentitySessions,
    /// `identity_connections_max`: a CONNECT was refused.
    IdentityConnections,
    /// `client_retained_messages_max`: a publish was refused.
    ClientRetainedMessages,
    /// `client_retained_bytes_max`: a publish was refused.
    ClientRetainedBytes,
    /// `store_bytes_max` or the disk: a publish, subscription or CONNECT was refused.
    Store,
    /// `enrolment.requests_max`: a request for a certificate was refused.
    EnrolmentRequests,
    /// `enrolment.request_bytes_max`: a request for a certificate was refused.
    EnrolmentRequestBytes,
    /// `enrolment.applicants_max`: a CONNECT of a client that could only enrol was refused.
    Applicants,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 25] = [
        Self::PacketBytes,
        Self::ConnectPacketBytes,
        Self::PayloadBytes,
        Self::ReceiveMaximum,
        Self::QueueMessages,
        Self::QueueBytes,
        Self::SessionExpiry,
        Self::KeepAlive,
        Self::TopicLevels,
        Self::TopicAlias,
        Self::Subscriptions,
        Self::RetainedMessages,
        Self::RetainedBytes,
        Self::SubscriptionBytes,
        Self::PublishRate,
        Self::Memory,
        Self::Sessions,
        Self::IdentitySessions,
        Self::IdentityConnections,
        Self::ClientRetainedMessages,
        Self::ClientRetainedBytes,
        Self::Store,
        Self::EnrolmentRequests,
        Self::EnrolmentRequestBytes,
        Self::Applicants,
    ];

    /// The key in the configuration, and the value of the metric's `limit` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PacketBytes => "packet_bytes_max",
            Self::ConnectPacketBytes => "connect_packet_bytes_max",
            Self::PayloadBytes => "payload_bytes_max",
            Self::ReceiveMaximum => "receive_maximum",
            Self::QueueMessages => "queue_messages_max",
            Self::QueueBytes => "queue_bytes_max",
            Self::SessionExpiry => "session_expiry_max_s",
            Self::KeepAlive => "keep_alive_max_s",
            Self::TopicLevels => "topic_levels_max",
            Self::TopicAlias => "topic_alias_max",
            Self::Subscriptions => "subscriptions_max",
            Self::RetainedMessages => "retained_messages_max",
            Self::RetainedBytes => "retained_bytes_max",
            Self::SubscriptionBytes => "subscription_bytes_max",
            Self::PublishRate => "publish_rate_max",
            Self::Memory => "memory_bytes_max",
            Self::Sessions => "sessions_max",
            Self::IdentitySessions => "identity_sessions_max",
            Self::IdentityConnections => "identity_connections_max",
            Self::ClientRetainedMessages => "client_retained_messages_max",
            Self::ClientRetainedBytes => "client_retained_bytes_max",
            Self::Store => "store_bytes_max",
            Self::EnrolmentRequests => "requests_max",
            Self::EnrolmentRequestBytes => "request_bytes_max",
            Self::Applicants => "applicants_max",
        }
    }
}

/// Which way a packet went, as the broker sees it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From a client.
    In,
    /// To a client.
    Out,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The value of the metric's `direction` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// A type of packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PacketKind {
    /// CONNECT.
    Connect,
    /// CONNACK.
    ConnAck,
    /// PUBLISH.
    Publish,
    /// PUBACK.
    PubAck,
    /// PUBREC.
    PubRec,
    /// PUBREL.
    PubRel,
    /// PUBCOMP.
    PubComp,
    /// SUBSCRIBE.
    Subscribe,
    /// SUBACK.
    SubAck,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// UNSUBACK.
    UnsubAck,
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect,
    /// AUTH.
    Auth,
}

impl PacketKind {
    /// Those that clients send.
    pub const IN: [Self; 11] = [
        Self::Connect,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::PingReq,
        Self::Disconnect,
        Self::Auth,
    ];
    /// Those that the broker sends.
    pub const OUT: [Self; 11] = [
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::SubAck,
        Self::UnsubAck,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];
    const COUNT: usize = Self::Auth as usize + 1;

    /// The value of the metric's `type` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnAck => "connack",
            Self::Publish => "publish",
            Self::PubAck => "puback",
            Self::PubRec => "pubrec",
            Self::PubRel => "pubrel",
            Self::PubComp => "pubcomp",
            Self::Subscribe => "subscribe",
            Self::SubAck => "suback",
            Self::Unsubscribe => "unsubscribe",
            Self::UnsubAck => "unsuback",
            Self::PingReq => "pingreq",
            Self::PingResp => "pingresp",
            Self::Disconnect => "disconnect",
            Self::Auth => "auth",
        }
    }
}

impl From<AckKind> for PacketKind {
    fn from(kind: AckKind) -> Self {
        match kind {
            AckKind::PubAck => Self::PubAck,
            AckKind::PubRec => Self::PubRec,
            AckKind::PubRel => Self::PubRel,
            AckKind::PubComp => Self::PubComp,
        }
    }
}

/// What an acknowledgement rests on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Basis {
    /// Its record is on disk.
    Fsynced,
    /// Every durable receiver had acknowledged first.
    Elided,
    /// It promised nothing durable.
    Volatile,
}

impl Basis {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fsynced, Self::Elided, Self::Volatile];

    /// The value of the metric's `basis` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fsynced => "fsynced",
            Self::Elided => "elided",
            Self::Volatile => "volatile",
        }
    }
}

/// What a tally has a number for: packets, and bytes. PUBLISH in and out and their payloads have one for each QoS.
#[derive(Copy, Clone)]
enum Sum {
    PublishIn = 0,
    PublishOut = 3,
    PayloadIn = 6,
    PayloadOut = 9,
    BytesIn = 12,
    BytesOut,
    AliasSaved,
    PubAckIn,
    PubRecIn,
    PubRelIn,
    PubCompIn,
    PubAckOut,
    PubRecOut,
    PubRelOut,
    PubCompOut,
    PingReqIn,
    PingRespOut,
    Fsynced,
    Elided,
    Unrouted,
}

/// As many as a word has bits.
const SUMS: usize = u32::BITS as usize;
const _: () = assert!((Sum::Unrouted as usize) < SUMS);

/// What a tally rarely has.
#[derive(Clone, Debug, Default)]
struct Exceptions {
    drops: [u32; DropReason::ALL.len()],
    limits: [u32; Limit::ALL.len()],
    occasions: [u32; Occasion::COUNT],
    packets_in: [u32; PacketKind::COUNT],
    packets_out: [u32; PacketKind::COUNT],
    /// How often each of the tally's sums has gone past 32 bits.
    carries: [u32; SUMS],
    /// For the history.
    losses: Losses,
}

/// Counts of one run of a connection, not yet shared.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    sums: [u32; SUMS],
    /// A bit for each of `sums` that is not 0, so that adding costs what was counted.
    counted: u32,
    /// Apart, because every connection has a tally and few have this.
    exceptions: Option<Box<Exceptions>>,
}

/// Sums over all connections since the start.
#[derive(Debug)]
pub struct Counters {
    stripes: [Stripe; STRIPES],
    drops: [AtomicU64; DropReason::ALL.len()],
    limits: [AtomicU64; Limit::ALL.len()],
    occasions: [AtomicU64; Occasion::COUNT],
    packets_in: [AtomicU64; PacketKind::COUNT],
    packets_out: [AtomicU64; PacketKind::COUNT],
    delivery_latency: [Histogram; 3],
    ack_round_trip: [Histogram; 2],
}

/// What the connections that share a stripe have counted, by version. Two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    by_version: [[AtomicU64; SUMS]; 3],
    in_flight: AtomicI64,
}

impl Exceptions {
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    fn count(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}

impl Tally {
    /// Counts a PUBLISH.
    #[inline]
    pub fn publish(&mut self, direction: Direction, qos: QoS, payload_bytes: usize) {
        let (count, bytes) = match direction {
            Direction::In => (Sum::PublishIn, Sum::PayloadIn),
            Direction::Out => (Sum::PublishOut, Sum::PayloadOut),
        };
        self.count(count as usize + qos as usize);
        self.sum(bytes as usize + qos as usize, payload_bytes);
    }

    /// Counts a packet that is no PUBLISH.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    #[inline]
    pub fn packet(&mut self, direction: Direction, kind: PacketKind) {
        let count = match (direction, kind) {
            (Direction::In, PacketKind::PubAck) => Sum::PubAckIn,
            (Direction::In, PacketKind::PubRec) => Sum::PubRecIn,
            (Direction::In, PacketKind::PubRel) => Sum::PubRelIn,
            (Direction::In, PacketKind::PubComp) => Sum::PubCompIn,
            (Direction::In, PacketKind::PingReq) => Sum::PingReqIn,
            (Direction::Out, PacketKind::PubAck) => Sum::PubAckOut,
            (Direction::Out, PacketKind::PubRec) => Sum::PubRecOut,
            (Direction::Out, PacketKind::PubRel) => Sum::PubRelOut,
            (Direction::Out, PacketKind::PubComp) => Sum::PubCompOut,
            (Direction::Out, PacketKind::PingResp) => Sum::PingRespOut,
            (Direction::In, _) => {
                self.exceptions.get_or_insert_default().packets_in[kind as usize] += 1;
                return;
            }
            (Direction::Out, _) => {
                self.exceptions.get_or_insert_default().packets_out[kind as usize] += 1;
                return;
            }
        };
        self.count(count as usize);
    }

    /// Counts an acknowledgement to a client, and what it rests on.
    #[inline]
    pub fn acknowledge(&mut self, kind: AckKind, basis: Basis) {
        self.packet(Direction::Out, kind.into());
        match basis {
            Basis::Fsynced => self.count(Sum::Fsynced as usize),
            Basis::Elided => self.count(Sum::Elided as usize),
            // The rest.
            Basis::Volatile => {}
        }
    }

    /// Adds MQTT bytes.
    #[inline]
    pub fn transfer(&mut self, direction: Direction, bytes: usize) {
        let of = match direction {
            Direction::In => Sum::BytesIn,
            Direction::Out => Sum::BytesOut,
        };
        self.sum(of as usize, bytes);
    }

    /// Adds bytes that a topic alias saved towards a client.
    pub fn save_by_alias(&mut self, bytes: u64) {
        // A topic is at most 64 KiB.
        let bytes = usize::try_from(bytes).unwrap_or(0);
        self.sum(Sum::AliasSaved as usize, bytes);
    }

    /// Publishes that were received and went to somebody.
    #[must_use]
    pub(crate) fn routed(&self) -> u64 {
        let [at_most_once, at_least_once, exactly_once, ..] = self.sums;
        let received = at_most_once + at_least_once + exactly_once;
        let unrouted = self.sums.get(Sum::Unrouted as usize).copied();
        received.saturating_sub(unrouted.unwrap_or_default()).into()
    }

    /// Counts one. Not as many packets fit into a run as would not fit into the sum.
    #[expect(clippy::indexing_slicing, reason = "`at` is below the length")]
    #[inline]
    fn count(&mut self, at: usize) {
        let at = at % SUMS;
        self.sums[at] = self.sums[at].wrapping_add(1);
        self.counted |= 1 << at;
    }

    /// A packet is at most 256 MiB, so that what is added fits.
    #[expect(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "`at` is a `Sum`, and the bytes of one call are less than 4 GiB"
    )]
    #[inline]
    fn sum(&mut self, at: usize, number: usize) {
        let at = at % SUMS;
        let (sum, is_carried) = self.sums[at].overflowing_add(number as u32);
        self.sums[at] = sum;
        self.counted |= 1 << at;
        if is_carried {
            self.carry(at);
        }
    }

    #[cold]
    #[inline(never)]
    fn carry(&mut self, at: usize) {
        let carries = &mut self.exceptions.get_or_insert_default().carries;
        if let Some(carry) = carries.get_mut(at) {
            *carry += 1;
        }
    }

    /// Counts a message that was not delivered, and tells the history who did not get it.
    #[cold]
    pub(crate) fn drop_message(
        &mut self,
        reason: DropReason,
        receiver: &ClientId,
        lost: Lost<'_>,
        qos: QoS,
        detail: &'static str,
    ) {
        let exceptions = self.exceptions.get_or_insert_default();
        exceptions.count(reason);
        let reason = LossReason::Dropped(reason);
        exceptions.losses.note(reason, receiver, lost, qos, detail);
    }

    /// Counts a message that its publisher had to be spared.
    #[cold]
    pub(crate) fn drop_own(
        &mut self,
        reason: DropReason,
        publisher: &ClientId,
        topic: &str,
        qos: QoS,
    ) {
        self.exceptions.get_or_insert_default().count(reason);
        let reason = LossReason::Dropped(reason);
        self.lose_own(reason, publisher, topic, qos, || "".into());
    }

    /// Tells the history of a message that did not get further than its publisher; others count it.
    #[cold]
    pub(crate) fn lose_own(
        &mut self,
        reason: LossReason,
        publisher: &ClientId,
        topic: &str,
        qos: QoS,
        detail: impl FnOnce() -> Cow<'static, str>,
    ) {
        let losses = &mut self.exceptions.get_or_insert_default().losses;
        losses.note_own(reason, publisher, topic, qos, detail);
    }

    /// Counts a message that no subscription matched.
    #[cold]
    pub(crate) fn lose_unrouted(&mut self, message: &Message) {
        self.count(Sum::Unrouted as usize);
        let losses = &mut self.exceptions.get_or_insert_default().losses;
        let (publisher, qos) = (&message.publisher, message.qos);
        losses.note(
            LossReason::Dropped(DropReason::NoSubscriber),
            publisher,
            Lost::Message(message),
            qos,
            "",
        );
    }

    /// Tells the history that so many messages ended with the session that they waited in.
    pub(crate) fn lose_waiting(&mut self, client: &ClientId, count: usize) {
        if count > 0 {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let losses = &mut self.exceptions.get_or_insert_default().losses;
            losses.note_many(LossReason::SessionEnded, client, count);
        }
    }

    /// Whether there is anything rare.
    #[inline]
    pub(crate) fn has_exceptions(&self) -> bool {
        self.exceptions.is_some()
    }

    /// What the history is to know.
    pub(crate) fn take_losses(&mut self) -> Option<Losses> {
        let losses = &mut self.exceptions.as_mut()?.losses;
        (!losses.is_empty()).then(|| std::mem::take(losses))
    }

    /// Counts something that happens now and then.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    pub fn note(&mut self, occasion: Occasion) {
        self.exceptions.get_or_insert_default().occasions[occasion as usize] += 1;
    }

    /// Counts that a limit was reached.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    pub fn reach(&mut self, limit: Limit) {
        self.exceptions.get_or_insert_default().limits[limit as usize] += 1;
    }
}

impl Default for Counters {
    fn default() -> Self {
        let zeros = || AtomicU64::new(0);
        Self {
            stripes: std::array::from_fn(|_| Stripe::default()),
            drops: std::array::from_fn(|_| zeros()),
            limits: std::array::from_fn(|_| zeros()),
            occasions: std::array::from_fn(|_| zeros()),
            packets_in: std::array::from_fn(|_| zeros()),
            packets_out: std::array::from_fn(|_| zeros()),
            delivery_latency: std::array::from_fn(|_| Histogram::of_durations()),
            ack_round_trip: std::array::from_fn(|_| Histogram::of_durations()),
        }
    }
}

impl Counters {
    /// Adds what the broker did by itself, and empties the tally.
    pub fn add(&self, tally: &mut Tally) {
        self.add_of(tally, ProtocolVersion::V5, 0);
    }

    /// Adds what the connection with this number did, and empties the tally.
    pub fn add_of(&self, tally: &mut Tally, version: ProtocolVersion, number: u64) {
        self.add_exceptions(tally, version, number);
        self.add_regular(tally, version, number);
    }

    /// Adds what the connection with this number did, but for what is rare.
    #[expect(
        clippy::indexing_slicing,
        reason = "the arrays have a place for every bit of a word"
    )]
    #[inline]
    pub(crate) fn add_regular(&self, tally: &mut Tally, version: ProtocolVersion, number: u64) {
        let sums = self.sums_of(version, number);
        while tally.counted != 0 {
            let at = tally.counted.trailing_zeros() as usize % SUMS;
            tally.counted &= tally.counted - 1;
            let sum = std::mem::take(&mut tally.sums[at]);
            sums[at].fetch_add(sum.into(), Ordering::Relaxed);
        }
    }

    /// So many more publishes of the connection with this number are unacknowledged than before.
    #[cold]
    #[inline(never)]
    pub(crate) fn change_in_flight(&self, change: i64, number: u64) {
        let in_flight = &self.stripe(number).in_flight;
        in_flight.fetch_add(change, Ordering::Relaxed);
    }

    #[inline]
    fn stripe(&self, number: u64) -> &Stripe {
        let [first, ..] = &self.stripes;
        let at = usize::try_from(number % STRIPES as u64).unwrap_or(0);
        self.stripes.get(at).unwrap_or(first)
    }

    #[inline]
    fn sums_of(&self, version: ProtocolVersion, number: u64) -> &[AtomicU64; SUMS] {
        let by_version @ [.., last] = &self.stripe(number).by_version;
        by_version.get(place(version)).unwrap_or(last)
    }

    /// Adds what is rare.
    #[cold]
    #[inline(never)]
    pub(crate) fn add_exceptions(&self, tally: &mut Tally, version: ProtocolVersion, number: u64) {
        let Some(exceptions) = tally.exceptions.take() else {
            return;
        };
        let sums = self.sums_of(version, number);
        for (sum, carries) in sums.iter().zip(exceptions.carries) {
            sum.fetch_add(u64::from(carries) << u32::BITS, Ordering::Relaxed);
        }
        let drops = self.drops.iter().zip(exceptions.drops);
        let limits = self.limits.iter().zip(exceptions.limits);
        let occasions = self.occasions.iter().zip(exceptions.occasions);
        let packets_in = self.packets_in.iter().zip(exceptions.packets_in);
        let packets_out = self.packets_out.iter().zip(exceptions.packets_out);
        let packets = packets_in.chain(packets_out);
        for (sum, count) in drops.chain(limits).chain(occasions).chain(packets) {
            if count != 0 {
                sum.fetch_add(count.into(), Ordering::Relaxed);
            }
        }
    }

    /// PUBLISH packets of a QoS, from or to clients of a version.
    #[must_use]
    pub fn publishes(&self, direction: Direction, qos: QoS, version: ProtocolVersion) -> u64 {
        let first = match direction {
            Direction::In => Sum::PublishIn,
            Direction::Out => Sum::PublishOut,
        };
        self.counted(version, first as usize + qos as usize)
    }

    /// Their payload bytes.
    #[must_use]
    pub fn payload_bytes(&self, direction: Direction, qos: QoS, version: ProtocolVersion) -> u64 {
        let first = match direction {
            Direction::In => Sum::PayloadIn,
            Direction::Out => Sum::PayloadOut,
        };
        self.counted(version, first as usize + qos as usize)
    }

    /// Payload bytes of all PUBLISH packets.
    #[must_use]
    pub fn all_payload_bytes(&self, direction: Direction) -> u64 {
        let of = |(qos, version)| self.payload_bytes(direction, qos, version);
        every_qos_and_version().map(of).sum()
    }

    /// Packets of a type.
    #[expect(
        clippy::indexing_slicing,
        reason = "the arrays have a place for every variant"
    )]
    #[must_use]
    pub fn packets(&self, direction: Direction, kind: PacketKind) -> u64 {
        let count = match (direction, kind) {
            (_, PacketKind::Publish) => {
                let of = |(qos, version)| self.publishes(direction, qos, version);
                return every_qos_and_version().map(of).sum();
            }
            (Direction::In, PacketKind::PubAck) => Sum::PubAckIn,
            (Direction::In, PacketKind::PubRec) => Sum::PubRecIn,
            (Direction::In, PacketKind::PubRel) => Sum::PubRelIn,
            (Direction::In, PacketKind::PubComp) => Sum::PubCompIn,
            (Direction::In, PacketKind::PingReq) => Sum::PingReqIn,
            (Direction::Out, PacketKind::PubAck) => Sum::PubAckOut,
            (Direction::Out, PacketKind::PubRec) => Sum::PubRecOut,
            (Direction::Out, PacketKind::PubRel) => Sum::PubRelOut,
            (Direction::Out, PacketKind::PubComp) => Sum::PubCompOut,
            (Direction::Out, PacketKind::PingResp) => Sum::PingRespOut,
            (Direction::In, _) => return self.packets_in[kind as usize].load(Ordering::Relaxed),
            (Direction::Out, _) => return self.packets_out[kind as usize].load(Ordering::Relaxed),
        };
        self.counted_all(count as usize)
    }

    /// MQTT bytes.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.counted_all(match direction {
            Direction::In => Sum::BytesIn as usize,
            Direction::Out => Sum::BytesOut as usize,
        })
    }

    /// Bytes that topic aliases saved towards clients.
    #[must_use]
    pub fn alias_bytes_saved(&self) -> u64 {
        self.counted_all(Sum::AliasSaved as usize)
    }

    /// Acknowledgements to clients that rest on `basis`.
    #[must_use]
    pub fn acknowledgements(&self, basis: Basis) -> u64 {
        let fsynced = self.counted_all(Sum::Fsynced as usize);
        let elided = self.counted_all(Sum::Elided as usize);
        match basis {
            Basis::Fsynced => fsynced,
            Basis::Elided => elided,
            Basis::Volatile => {
                let kinds = [PacketKind::PubAck, PacketKind::PubRec, PacketKind::PubComp];
                let sent = kinds.map(|kind| self.packets(Direction::Out, kind));
                // Read one after the other while others count.
                sent.iter().sum::<u64>().saturating_sub(fsynced + elided)
            }
        }
    }

    /// Publishes of clients that are received and not yet acknowledged, QoS 2 until their exchange is over.
    #[must_use]
    pub fn in_flight_in(&self) -> u64 {
        let of = |stripe: &Stripe| stripe.in_flight.load(Ordering::Relaxed);
        let sum = self.stripes.iter().map(of).sum::<i64>();
        u64::try_from(sum).unwrap_or(0)
    }

    /// From the run that read a message to its leaving for the socket of one receiver, in microseconds; of a sample.
    #[must_use]
    pub fn delivery_latency(&self, qos: QoS) -> &Histogram {
        let [at_most_once, at_least_once, exactly_once] = &self.delivery_latency;
        match qos {
            QoS::AtMostOnce => at_most_once,
            QoS::AtLeastOnce => at_least_once,
            QoS::ExactlyOnce => exactly_once,
        }
    }

    /// From PUBLISH out to the PUBACK or PUBCOMP that ends it, in microseconds; of a sample. QoS 0 has none.
    #[must_use]
    pub fn ack_round_trip(&self, qos: QoS) -> &Histogram {
        let [at_least_once, exactly_once] = &self.ack_round_trip;
        match qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => at_least_once,
            QoS::ExactlyOnce => exactly_once,
        }
    }

    fn counted(&self, version: ProtocolVersion, at: usize) -> u64 {
        let place = place(version);
        let of = |stripe: &Stripe| {
            let sum = stripe.by_version.get(place)?.get(at)?;
            Some(sum.load(Ordering::Relaxed))
        };
        self.stripes.iter().filter_map(of).sum()
    }

    fn counted_all(&self, at: usize) -> u64 {
        let of = VERSIONS.map(|version| self.counted(version, at));
        of.iter().sum()
    }

    /// Messages not delivered for `reason`.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let unrouted = match reason {
            DropReason::NoSubscriber => self.counted_all(Sum::Unrouted as usize),
            _ => 0,
        };
        unrouted + self.drops[reason as usize].load(Ordering::Relaxed)
    }

    /// How often `occasion` was there.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    #[must_use]
    pub fn noted(&self, occasion: Occasion) -> u64 {
        self.occasions[occasion as usize].load(Ordering::Relaxed)
    }

    /// How often `limit` was reached.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    #[must_use]
    pub fn reached(&self, limit: Limit) -> u64 {
        self.limits[limit as usize].load(Ordering::Relaxed)
    }
}

/// The place of a version's sums.
const fn place(version: ProtocolVersion) -> usize {
    match version {
        ProtocolVersion::V3_1 => 0,
        ProtocolVersion::V3_1_1 => 1,
        ProtocolVersion::V5 => 2,
    }
}

fn every_qos_and_version() -> impl Iterator<Item = (QoS, ProtocolVersion)> {
    let every = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let versions = VERSIONS.into_iter();
    versions.flat_map(move |version| every.into_iter().map(move |qos| (qos, version)))
}

const VERSIONS: [ProtocolVersion; 3] = [
    ProtocolVersion::V3_1,
    ProtocolVersion::V3_1_1,
    ProtocolVersion::V5,
];
/// A power of two, so that a connection's is found without a division.
const STRIPES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> ClientId {
        ClientId::new("c")
    }

    #[test]
    fn what_is_counted_in_any_stripe_is_in_the_sum_and_counted_once() {
        let counters = Counters::default();
        for number in 0..20 {
            let mut tally = Tally::default();
            tally.publish(Direction::In, QoS::AtLeastOnce, 10);
            tally.acknowledge(AckKind::PubAck, Basis::Elided);
            tally.acknowledge(AckKind::PubAck, Basis::Volatile);
            tally.packet(Direction::In, PacketKind::Subscribe);
            tally.drop_own(DropReason::Expired, &client(), "a", QoS::AtLeastOnce);
            counters.change_in_flight(1, number);
            for _ in 0..2 {
                // The second time there is nothing left to add.
                counters.add_of(&mut tally, ProtocolVersion::V3_1_1, number);
            }
        }
        let (qos, version) = (QoS::AtLeastOnce, ProtocolVersion::V3_1_1);
        assert_eq!(counters.publishes(Direction::In, qos, version), 20);
        assert_eq!(
            counters.publishes(Direction::In, qos, ProtocolVersion::V5),
            0
        );
        assert_eq!(counters.publishes(Direction::Out, qos, version), 0);
        assert_eq!(counters.payload_bytes(Direction::In, qos, version), 200);
        assert_eq!(counters.all_payload_bytes(Direction::In), 200);
        assert_eq!(counters.packets(Direction::In, PacketKind::Publish), 20);
        assert_eq!(counters.packets(Direction::In, PacketKind::Subscribe), 20);
        assert_eq!(counters.packets(Direction::Out, PacketKind::PubAck), 40);
        assert_eq!(counters.acknowledgements(Basis::Elided), 20);
        assert_eq!(counters.acknowledgements(Basis::Volatile), 20);
        assert_eq!(counters.dropped(DropReason::Expired), 20);
        assert_eq!(counters.in_flight_in(), 20);
    }

    #[test]
    fn publishes_that_nobody_got_are_not_among_those_that_were_routed() {
        let mut tally = Tally::default();
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            tally.publish(Direction::In, qos, 1);
        }
        tally.lose_unrouted(&Message::sample("a"));
        assert_eq!(tally.routed(), 2);
        let counters = Counters::default();
        counters.add(&mut tally);
        assert_eq!(counters.dropped(DropReason::NoSubscriber), 1);
    }
}
