//! Time as an argument: a number that a test can write.
//!
//! The server passes wall time that never steps back while it runs (its clock adds monotonic time to the wall time of
//! its start), so the same value serves keep-alive and expiry.

use std::ops::Add;
use std::time::Duration;

/// Microseconds since the Unix epoch: latencies are told apart below a millisecond. The store keeps milliseconds.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1000))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_us(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0 / 1000
    }

    /// This moment plus whole seconds; saturates.
    #[must_use]
    pub const fn plus_s(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds as u64 * 1_000_000))
    }

    /// How long after `earlier` this is; zero when the clock stepped back in between.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(us))
    }
}
