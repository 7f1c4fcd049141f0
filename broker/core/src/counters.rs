//! What the broker counts, without a metrics library on the path of a message.
//!
//! A connection counts in a plain [`Tally`] and adds it to the shared [`Counters`] once per run; whoever renders metrics
//! reads the sums. Counters only grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a message was not delivered.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// The receiver's queue was full.
    QueueFull,
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
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::QueueFull,
        Self::Expired,
        Self::TooLarge,
        Self::OfflineQoS0,
        Self::Rejected,
        Self::Unreadable,
        Self::NotAuthorized,
        Self::RateExceeded,
        Self::MemoryFull,
    ];

    /// The value of the metric's `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::OfflineQoS0 => "qos0_offline",
            Self::Rejected => "rejected",
            Self::Unreadable => "unreadable",
            Self::NotAuthorized => "not_authorized",
            Self::RateExceeded => "rate_exceeded",
            Self::MemoryFull => "memory_full",
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
}

impl Occasion {
    const COUNT: usize = Self::KeepAliveTimeout as usize + 1;
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

/// What a tally rarely has.
#[derive(Clone, Debug, Default)]
struct Exceptions {
    drops: [u32; DropReason::ALL.len()],
    limits: [u32; Limit::ALL.len()],
    occasions: [u32; Occasion::COUNT],
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of one run of a connection, not yet shared.
        #[derive(Clone, Debug, Default)]
        pub struct Tally {
            $($(#[$doc])* pub $name: u64,)*
            /// Apart, because every connection has a tally and few have this.
            exceptions: Option<Box<Exceptions>>,
        }

        /// Sums over all connections since the start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            drops: [AtomicU64; DropReason::ALL.len()],
            limits: [AtomicU64; Limit::ALL.len()],
            occasions: [AtomicU64; Occasion::COUNT],
        }

        impl Counters {
            /// Adds a tally and empties it.
            pub fn add(&self, tally: &mut Tally) {
                $(if tally.$name != 0 {
                    self.$name.fetch_add(tally.$name, Ordering::Relaxed);
                })*
                if let Some(exceptions) = &tally.exceptions {
                    let drops = self.drops.iter().zip(exceptions.drops);
                    let limits = self.limits.iter().zip(exceptions.limits);
                    let occasions = self.occasions.iter().zip(exceptions.occasions);
                    for (sum, count) in drops.chain(limits).chain(occasions) {
                        sum.fetch_add(count.into(), Ordering::Relaxed);
                    }
                }
                *tally = Tally::default();
            }
        }
    };
}

counters! {
    /// PUBLISH packets received.
    publish_in,
    /// PUBLISH packets sent.
    publish_out,
    /// Payload bytes received.
    payload_bytes_in,
    /// Payload bytes sent.
    payload_bytes_out,
    /// MQTT bytes received.
    bytes_in,
    /// MQTT bytes sent.
    bytes_out,
    /// Bytes that topic aliases saved towards clients.
    alias_bytes_saved,
    /// Publishes that no subscription matched.
    unrouted,
    /// Acknowledgements given after their record was on disk.
    acks_fsynced,
    /// Acknowledgements given because every durable receiver had acknowledged first.
    acks_elided,
    /// Acknowledgements that promised nothing durable.
    acks_volatile,
}

impl Tally {
    /// Counts a message that was not delivered.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    pub fn drop_message(&mut self, reason: DropReason) {
        self.exceptions.get_or_insert_default().drops[reason as usize] += 1;
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

impl Counters {
    /// Messages not delivered for `reason`.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
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
