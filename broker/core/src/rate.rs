//! Token buckets, as one number each: the generic cell rate algorithm (ITU-T I.371), with a burst of one second's worth.
//!
//! Invariants: over any time `t` at most `rate * (t + 1 s)` and one message more pass, as long as no message overdraws by more than
//! its debt. What is charged may overdraw, so that a message larger than the burst passes when its turn comes, and what follows waits
//! the longer: 30 seconds at most for a client's own rate, two where others would wait as well.
//!
//! Does not know: what is counted, what happens to what is too much.

use crate::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Messages and bytes a second; 0 is no limit.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct RateLimit {
    /// Messages a second.
    pub messages: u32,
    /// Bytes a second: topics, properties and payloads.
    pub bytes: u64,
}

impl RateLimit {
    /// Whether there is none.
    #[must_use]
    pub const fn is_unlimited(self) -> bool {
        self.messages == 0 && self.bytes == 0
    }
}

/// What a message and a byte cost of a bucket.
#[derive(Copy, Clone, Default, Debug)]
struct Price {
    /// Nanoseconds per message; 0 where messages are not limited.
    message_ns: u64,
    bytes_per_s: u64,
}

impl From<RateLimit> for Price {
    fn from(limit: RateLimit) -> Self {
        Self {
            message_ns: SECOND_NS.checked_div(limit.messages.into()).unwrap_or(0),
            bytes_per_s: limit.bytes,
        }
    }
}

impl Price {
    fn of_bytes_ns(self, bytes: u64) -> u64 {
        let cost = bytes.saturating_mul(SECOND_NS);
        cost.checked_div(self.bytes_per_s).unwrap_or(0)
    }
}

/// A moment, in nanoseconds since the epoch. A bucket is one: when it is full again.
type Nanoseconds = u64;

/// The rate of a publisher, or what several have together: those of a listener, or of an identity. A bucket for messages and one for
/// bytes.
#[derive(Debug)]
pub struct SharedRate {
    /// As in [`Price`].
    message_ns: AtomicU64,
    bytes_per_s: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// How far it can be overdrawn, in nanoseconds.
    debt_max_ns: u64,
}

impl SharedRate {
    /// With this limit, for several: who overdraws it makes the others wait for two seconds at most.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        Self::with_debt(limit, SHARED_DEBT_MAX_NS)
    }

    /// With this limit, for one publisher: it waits for half a minute at most.
    pub(crate) fn of_one(limit: RateLimit) -> Self {
        Self::with_debt(limit, OWN_DEBT_MAX_NS)
    }

    fn with_debt(limit: RateLimit, debt_max_ns: u64) -> Self {
        let price = Price::from(limit);
        Self {
            debt_max_ns,
            message_ns: AtomicU64::new(price.message_ns),
            bytes_per_s: AtomicU64::new(price.bytes_per_s),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Changes the limit; what was used stays used.
    pub fn set_limit(&self, limit: RateLimit) {
        let price = Price::from(limit);
        self.message_ns.store(price.message_ns, Relaxed);
        self.bytes_per_s.store(price.bytes_per_s, Relaxed);
    }

    fn price(&self) -> Price {
        Price {
            message_ns: self.message_ns.load(Relaxed),
            bytes_per_s: self.bytes_per_s.load(Relaxed),
        }
    }

    /// Counts so much; says when the next message may come.
    fn charge(&self, price: Price, messages: u64, bytes: u64, now: Moment) -> Moment {
        let latest = now.0 + SECOND_NS + self.debt_max_ns;
        let add = |bucket: &AtomicU64, cost: u64| {
            let filled = |full_at: u64| full_at.max(now.0).saturating_add(cost).min(latest);
            let before = bucket.fetch_update(Relaxed, Relaxed, |full_at| Some(filled(full_at)));
            filled(before.unwrap_or(0))
        };
        let messages = add(&self.messages, price.message_ns.saturating_mul(messages));
        let bytes = add(&self.bytes, price.of_bytes_ns(bytes));
        Moment::before_full(messages.max(bytes))
    }

    /// When the next message may come.
    pub(crate) fn ready(&self) -> Moment {
        Moment::before_full(self.messages.load(Relaxed).max(self.bytes.load(Relaxed)))
    }
}

/// One connection's part of a rate: it takes a hundredth of a second's worth at a time, so that the others' cores are seldom
/// asked.
#[derive(Debug)]
pub(crate) struct Share {
    rate: Arc<SharedRate>,
    messages_left: u64,
    bytes_left: u64,
    ready: Moment,
}

impl From<Arc<SharedRate>> for Share {
    fn from(rate: Arc<SharedRate>) -> Self {
        Self {
            rate,
            messages_left: 0,
            bytes_left: 0,
            ready: Moment(0),
        }
    }
}

impl Share {
    /// Counts a message; says when the next one may come.
    #[inline]
    pub(crate) fn charge(&mut self, bytes: usize, now: Moment) -> Moment {
        let bytes = bytes as u64;
        if self.messages_left == 0 || self.bytes_left < bytes {
            self.take(bytes, now);
        }
        self.messages_left -= 1;
        self.bytes_left -= bytes;
        self.ready
    }

    #[cold]
    fn take(&mut self, bytes: u64, now: Moment) {
        let price = self.rate.price();
        let part = SECOND_NS / PARTS;
        let messages = part
            .checked_div(price.message_ns)
            .unwrap_or(PART_MESSAGES_MAX);
        let messages = messages.clamp(1, PART_MESSAGES_MAX);
        let bytes_part = match price.bytes_per_s {
            0 => PART_BYTES_MAX,
            per_s => (per_s / PARTS).min(PART_BYTES_MAX),
        };
        // What was taken before and is left counts on.
        let more_messages = messages.saturating_sub(self.messages_left);
        let more_bytes = bytes_part.max(bytes).saturating_sub(self.bytes_left);
        self.messages_left += more_messages;
        self.bytes_left += more_bytes;
        self.ready = self.rate.charge(price, more_messages, more_bytes, now);
    }

    /// Whether the next message takes from the rate that others may have used meanwhile.
    pub(crate) fn is_used_up(&self) -> bool {
        self.messages_left == 0
    }

    /// Changes the limit, for all that share it; what was used stays used.
    pub(crate) fn set_limit(&self, limit: RateLimit) {
        self.rate.set_limit(limit);
    }

    /// When the next message may come.
    pub(crate) fn ready(&self) -> Moment {
        match self.messages_left {
            0 => self.rate.ready(),
            _ => self.ready,
        }
    }
}

/// A moment of a bucket's time.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Moment(Nanoseconds);

impl Moment {
    /// After every other.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// When something passes again of a bucket that is full at `full_at`.
    fn before_full(full_at: Nanoseconds) -> Self {
        Self(full_at.saturating_sub(SECOND_NS))
    }
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        // Beyond the year 2500 it begins anew.
        Self(time.as_us().wrapping_mul(MICROSECOND_NS))
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        Self::default() + Duration::from_micros(moment.0.div_ceil(MICROSECOND_NS))
    }
}

const SECOND_NS: u64 = 1_000_000_000;
const MICROSECOND_NS: u64 = 1_000;
/// A connection takes this part of a second's worth of a shared rate at a time, and no more than the next two.
const PARTS: u64 = 100;
const PART_MESSAGES_MAX: u64 = 64;
const PART_BYTES_MAX: u64 = 64 << 10;
const SHARED_DEBT_MAX_NS: u64 = 2 * SECOND_NS;
const OWN_DEBT_MAX_NS: u64 = 30 * SECOND_NS;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const START: Timestamp = Timestamp::from_ms(1_000_000);

    fn share(limit: RateLimit) -> Share {
        Arc::new(SharedRate::of_one(limit)).into()
    }

    /// Messages that pass within `ms` when as many are sent as may be.
    fn passed(limit: RateLimit, bytes: usize, ms: u64) -> u64 {
        let mut rate = share(limit);
        let mut count = 0;
        for now in (0..ms).map(|ms| START + Duration::from_millis(ms)) {
            while Timestamp::from(rate.ready()) <= now {
                rate.charge(bytes, now.into());
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
        let ready = share(limit).charge(5000, START.into());
        assert_eq!(Timestamp::from(ready), START + Duration::from_secs(4));
    }

    #[test]
    fn idle_time_is_not_saved_up_beyond_a_second() {
        let limit = RateLimit {
            messages: 10,
            bytes: 0,
        };
        let mut rate = share(limit);
        rate.charge(0, START.into());
        let later = START + Duration::from_secs(3600);
        let mut burst = 0;
        while rate.ready() <= later.into() {
            rate.charge(0, later.into());
            burst += 1;
        }
        assert_eq!(burst, 11);
    }

    #[test]
    fn what_two_share_passes_once() {
        for (messages, expected) in [(10, 10), (10_000, 10_000)] {
            let rate = Arc::new(SharedRate::new(RateLimit { messages, bytes: 0 }));
            let mut shares = [rate.clone(), rate].map(Share::from);
            let mut passed = [0; 2];
            let mut ready = [Moment(0); 2];
            for now in (0..3_000).map(|ms| START + Duration::from_millis(ms)) {
                for (number, share) in shares.iter_mut().enumerate() {
                    while Timestamp::from(ready[number]) <= now {
                        ready[number] = share.charge(1, now.into());
                        passed[number] += 1;
                    }
                }
            }
            let sum = passed[0] + passed[1];
            // The burst, three seconds, and what each has taken ahead.
            let ahead = 2 * (i32::try_from(PART_MESSAGES_MAX).unwrap() + 1);
            let all = 4 * expected;
            assert!((all - ahead..=all + ahead).contains(&sum), "{passed:?}");
            assert!(passed.iter().all(|each| *each > 0), "{passed:?}");
        }
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let mut rate = share(RateLimit::default());
        for _ in 0..1000 {
            rate.charge(1_000_000, START.into());
        }
        assert!(rate.ready() <= START.into());
    }
}
