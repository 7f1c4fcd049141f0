//! Time since the run began: the only place that reads the system's clocks.
//!
//! Everything else in this crate gets the time as an argument, a [`Duration`] since the start of the run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that started with the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_at: SystemTime,
}

impl Clock {
    /// Starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "the run's clock is started here")]
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    /// The time of day at the start, since 1970.
    pub(crate) fn started_at(self) -> Duration {
        let since_epoch = self.started_at.duration_since(UNIX_EPOCH);
        since_epoch.unwrap_or_default()
    }

    /// Time since the start.
    pub(crate) fn now(self) -> Duration {
        self.started.elapsed()
    }

    /// The instant that lies `at` after the start.
    pub(crate) fn instant(self, at: Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started) + at
    }
}

/// A number that two runs on one machine do not share: the time and the process.
#[expect(
    clippy::disallowed_methods,
    reason = "the name of a run comes from the wall clock"
)]
pub(crate) fn run_number() -> u32 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since_epoch
        .subsec_nanos()
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add(std::process::id().rotate_left(16))
        .wrapping_add(u32::try_from(since_epoch.as_secs() & 0xFFFF_FFFF).unwrap_or(0))
}
