//! Time since the run began: the only place that reads the system's clocks.
//!
//! Everything else in this crate gets the time as an argument, a [`Duration`] since the start of the run.

use std::sync::OnceLock;
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

/// The clock of a run: it stands at zero until all who listen to the fleet are ready.
#[derive(Debug, Default)]
pub(crate) struct RunClock(OnceLock<Clock>);

impl RunClock {
    /// The run begins; only the first time counts.
    pub(crate) fn start(&self) {
        self.0.get_or_init(Clock::start);
    }

    /// The time of day at the start, since 1970.
    pub(crate) fn started_at(&self) -> Duration {
        self.0
            .get()
            .copied()
            .map_or(Duration::ZERO, Clock::started_at)
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.0.get().copied().map_or(Duration::ZERO, Clock::now)
    }

    /// The instant that lies `at` after the start; if the run has not begun, the earliest that it can be.
    pub(crate) fn instant(&self, at: Duration) -> tokio::time::Instant {
        let clock = self.0.get().copied();
        clock.unwrap_or_else(Clock::start).instant(at)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_run_stands_at_zero_until_the_run_begins() {
        let clock = RunClock::default();
        assert_eq!((clock.now(), clock.started_at()), Default::default());
        assert!(clock.instant(Duration::from_secs(1)) > Clock::start().instant(Duration::ZERO));
        clock.start();
        assert!(clock.started_at() > Duration::ZERO);
        let second = clock.instant(Duration::from_secs(1));
        assert_eq!(
            second - clock.instant(Duration::ZERO),
            Duration::from_secs(1)
        );
    }
}
