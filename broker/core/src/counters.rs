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
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::Expired,
        Self::TooLarge,
        Self::OfflineQoS0,
        Self::Rejected,
        Self::Unreadable,
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
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of one run of a connection, not yet shared.
        #[derive(Clone, Debug, Default)]
        pub struct Tally {
            $($(#[$doc])* pub $name: u64,)*
            drops: [u64; DropReason::ALL.len()],
        }

        /// Sums over all connections since the start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            drops: [AtomicU64; DropReason::ALL.len()],
        }

        impl Counters {
            /// Adds a tally and empties it.
            pub fn add(&self, tally: &mut Tally) {
                $(if tally.$name != 0 {
                    self.$name.fetch_add(tally.$name, Ordering::Relaxed);
                })*
                for (sum, count) in self.drops.iter().zip(tally.drops) {
                    if count != 0 {
                        sum.fetch_add(count, Ordering::Relaxed);
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
    /// Publishes refused (0x97 and the like).
    publish_refused,
    /// Wills published.
    wills_published,
    /// Sessions taken over by a newer connection.
    takeovers,
    /// Connections ended for silence.
    keep_alive_timeouts,
}

impl Tally {
    /// Counts a message that was not delivered.
    #[expect(
        clippy::indexing_slicing,
        reason = "the array has a place for every variant"
    )]
    pub fn drop_message(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
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
}
