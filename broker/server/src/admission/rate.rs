//! So many a second, and as many at once: a token bucket in one number.
//!
//! Does not know: what is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A bucket that several tasks share.
#[derive(Debug, Default)]
pub(crate) struct Rate(AtomicU64);

impl Rate {
    /// Whether one more is within `per_second`; 0 is no limit.
    pub(crate) fn admit(&self, now: Duration, per_second: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let relaxed = Ordering::Relaxed;
        let next = |full_at| next(full_at, now, per_second);
        self.0.fetch_update(relaxed, relaxed, next).is_ok()
    }
}

/// The bucket of one address.
#[derive(Debug, Default)]
pub(crate) struct Bucket(u64);

impl Bucket {
    /// Whether one more is within `per_second`, which is not 0.
    pub(crate) fn admit(&mut self, now: Duration, per_second: u32) -> bool {
        let next = next(self.0, now, per_second);
        self.0 = next.unwrap_or(self.0);
        next.is_some()
    }
}

/// `full_at` is the nanosecond at which all tokens are back; one more makes it later. `None` when that would be over a second away.
fn next(full_at: u64, now: Duration, per_second: u32) -> Option<u64> {
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let one = SECOND_NS / u64::from(per_second.max(1));
    let next = full_at.max(now) + one;
    (next <= now + SECOND_NS).then_some(next)
}

const SECOND_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_passes_at_once_and_then_one_by_one() {
        let rate = Rate::default();
        let at = Duration::from_millis;
        let admitted = |now| (0..50).filter(|_| rate.admit(now, 10)).count();
        assert_eq!(admitted(at(5_000)), 10);
        assert_eq!(admitted(at(5_100)), 1);
        assert_eq!(admitted(at(5_350)), 2);
        assert_eq!(admitted(at(9_000)), 10);
        assert!((0..1000).all(|_| rate.admit(at(9_000), 0)));
    }
}
