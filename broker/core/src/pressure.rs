//! What the broker does when its memory is nearly used up, in this order: publishers that send most are not read, new connections are
//! refused, QoS 0 is dropped.
//!
//! Whoever knows how much memory is in use says the [level](Pressure::set). Invariant: at level 0 nobody is held up.
//!
//! Does not know: how much memory there is.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// How hard the broker holds its clients back.
#[derive(Debug)]
pub struct Pressure {
    level: AtomicU8,
    /// Bytes a second that a publisher may send now.
    bytes_rate: AtomicU64,
}

/// How nearly the memory is used up.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum PressureLevel {
    /// There is enough.
    #[default]
    None = 0,
    /// The heaviest publishers are not read.
    SlowPublishers = 1,
    /// New connections are refused with 0x89 as well.
    RefuseConnections = 2,
    /// QoS 0 messages are dropped as well.
    DropQoS0 = 3,
}

impl PressureLevel {
    /// All levels.
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::SlowPublishers,
        Self::RefuseConnections,
        Self::DropQoS0,
    ];
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            level: AtomicU8::new(0),
            bytes_rate: AtomicU64::new(UNLIMITED),
        }
    }
}

impl Pressure {
    /// Sets the level, and how many bytes a second each publisher may send from level 1 on; 0 stops everybody who publishes.
    pub fn set(&self, level: PressureLevel, bytes_rate: u64) {
        let bytes_rate = match level {
            PressureLevel::None => UNLIMITED,
            _ => bytes_rate.min(UNLIMITED - 1),
        };
        self.bytes_rate.store(bytes_rate, Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// The level.
    #[must_use]
    pub fn level(&self) -> PressureLevel {
        let level = self.level.load(Ordering::Relaxed);
        let known = PressureLevel::ALL.get(usize::from(level));
        known.copied().unwrap_or_default()
    }

    /// Whether QoS 0 messages are dropped.
    pub(crate) fn drops_qos0(&self) -> bool {
        self.level() >= PressureLevel::DropQoS0
    }

    /// Whether new connections are refused.
    pub(crate) fn refuses_connections(&self) -> bool {
        self.level() >= PressureLevel::RefuseConnections
    }

    /// Bytes a second that a publisher may send; `None` when it does not matter.
    #[inline]
    pub(crate) fn bytes_rate(&self) -> Option<u64> {
        let bytes_rate = self.bytes_rate.load(Ordering::Relaxed);
        (bytes_rate != UNLIMITED).then_some(bytes_rate)
    }
}

const UNLIMITED: u64 = u64::MAX;
