//! The wall clock, read in this one place.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; 0 when the clock is set before that.
#[expect(
    clippy::disallowed_methods,
    reason = "the only caller of the clock in this crate"
)]
pub(crate) fn now_unix_s() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}
