//! Token buckets, as one number each: the generic cell rate algorithm (ITU-T I.371), with a burst of one second's worth.
//!
//! Invariants: over any time `t` at most `rate * (t + 1 s)` and one message more pass. What is charged may overdraw, so that a
//! message larger than the burst passes when its turn comes, and what follows waits the longer.
//!
//! Does not know: what is counted, what happens to what is too much.

use crate::sync::lock;
use crate::time::Timestamp;
use std::sync::Mutex;

/// Messages and bytes a second; 0 is no limit.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct RateLimit {
    /// Messages a second.
    pub messages: u32,
    /// Payload bytes a second.
    pub bytes: u64,
}

impl RateLimit {
    /// Whether there is none.
    #[must_use]
    pub const fn is_unlimited(self) -> bool {
        self.messages == 0 && self.bytes == 0
    }
}

/// One bucket: the time, in nanoseconds since the epoch, at which it is full again.
#[derive(Copy, Clone, Default, Debug)]
struct Bucket(u64);

impl Bucket {
    fn charge(&mut self, amount: u64, per_s: u64, now_ns: u64) {
        if per_s > 0 {
            let cost_ns = u128::from(amount) * u128::from(SECOND_NS) / u128::from(per_s);
            let cost_ns = u64::try_from(cost_ns).unwrap_or(u64::MAX);
            self.0 = self.0.max(now_ns).saturating_add(cost_ns);
        }
    }

    /// When something passes again, in nanoseconds since the epoch.
    fn ready_ns(self) -> u64 {
        self.0.saturating_sub(SECOND_NS)
    }
}

/// A bucket for messages and one for bytes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Rate {
    messages: Bucket,
    bytes: Bucket,
}

impl Rate {
    /// Counts a message.
    pub(crate) fn charge(&mut self, bytes: usize, limit: RateLimit, now: Timestamp) {
        let now_ns = nanoseconds(now);
        self.messages.charge(1, limit.messages.into(), now_ns);
        self.bytes.charge(bytes as u64, limit.bytes, now_ns);
    }

    /// When the next message may come.
    pub(crate) fn ready_at(&self) -> Timestamp {
        let ready_ns = self.messages.ready_ns().max(self.bytes.ready_ns());
        Timestamp::from_ms(ready_ns.div_ceil(MILLISECOND_NS))
    }
}

/// A rate that several connections have together: those of a listener, or of an identity.
#[derive(Debug, Default)]
pub struct SharedRate(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    limit: RateLimit,
    rate: Rate,
}

impl SharedRate {
    /// With this limit.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let rate = Rate::default();
        Self(Mutex::new(Shared { limit, rate }))
    }

    /// Changes the limit.
    pub fn set_limit(&self, limit: RateLimit) {
        lock(&self.0).limit = limit;
    }

    pub(crate) fn charge(&self, bytes: usize, now: Timestamp) {
        let mut shared = lock(&self.0);
        let limit = shared.limit;
        shared.rate.charge(bytes, limit, now);
    }

    pub(crate) fn ready_at(&self) -> Timestamp {
        lock(&self.0).rate.ready_at()
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    time.as_ms().saturating_mul(MILLISECOND_NS)
}

const SECOND_NS: u64 = 1_000_000_000;
const MILLISECOND_NS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const START: Timestamp = Timestamp::from_ms(1_000_000);

    /// Messages that pass within `ms` when as many are sent as may be.
    fn passed(limit: RateLimit, bytes: usize, ms: u64) -> u64 {
        let mut rate = Rate::default();
        let mut count = 0;
        for now in (0..ms).map(|ms| START + Duration::from_millis(ms)) {
            while rate.ready_at() <= now {
                rate.charge(bytes, limit, now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_second_s_worth_passes_at_once_and_then_the_rate() {
        let messages = RateLimit {
            messages: 10,
            bytes: 0,
        };
        // The burst, one more, and ten a second.
        assert_eq!(passed(messages, 100, 1), 11);
        assert_eq!(passed(messages, 100, 10_000), 110);
        let bytes = RateLimit {
            messages: 0,
            bytes: 1000,
        };
        assert_eq!(passed(bytes, 100, 10_000), 110);
    }

    #[test]
    fn a_message_above_the_burst_passes_and_is_paid_for_later() {
        let limit = RateLimit {
            messages: 0,
            bytes: 1000,
        };
        let mut rate = Rate::default();
        rate.charge(5000, limit, START);
        assert_eq!(rate.ready_at(), START + Duration::from_secs(4));
    }

    #[test]
    fn idle_time_is_not_saved_up_beyond_a_second() {
        let limit = RateLimit {
            messages: 10,
            bytes: 0,
        };
        let mut rate = Rate::default();
        rate.charge(0, limit, START);
        let later = START + Duration::from_secs(3600);
        let mut burst = 0;
        while rate.ready_at() <= later {
            rate.charge(0, limit, later);
            burst += 1;
        }
        assert_eq!(burst, 11);
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let mut rate = Rate::default();
        for _ in 0..1000 {
            rate.charge(1_000_000, RateLimit::default(), START);
        }
        assert!(rate.ready_at() <= START);
    }
}
