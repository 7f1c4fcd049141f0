//! The only caller of the system clocks.
//!
//! The broker's time is the wall time of the process's start plus monotonic time since, so it never steps back while the
//! process runs; keep-alive and expiry are safe from clock changes, which take effect at the next start.

use motemq_core::Timestamp;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<(Instant, SystemTime)> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "this module is the clock")]
    (Instant::now(), SystemTime::now())
});

/// Time since the clock was first read.
#[must_use]
pub fn monotonic() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this module is the clock")]
    let now = Instant::now();
    now.saturating_duration_since(START.0)
}

/// When the clock was first read: the start of the process, as nearly as matters.
#[must_use]
pub fn started_at() -> Timestamp {
    Timestamp::default() + START.1.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The broker's present time.
#[must_use]
pub fn now() -> Timestamp {
    started_at() + monotonic()
}
