//! Counts of values by size, for `/metrics`.
//!
//! Invariants: a value is counted in the first bucket whose bound is not below it, or beyond the last; nothing is taken back.
//! Shared by whoever counts, without a lock: what is read while others count may lack a value in one place.
//!
//! Does not know: units, names.

use std::sync::atomic::{AtomicU64, Ordering};

/// Values counted by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above the last.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a [`Histogram`] has counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buckets {
    /// Upper bounds, and the values up to each that are above the one before.
    pub counts: Vec<(u64, u64)>,
    /// Values above the last bound.
    pub above: u64,
    /// The values' sum.
    pub sum: u64,
}

impl Histogram {
    /// A histogram with these upper bounds, lowest first.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// A histogram of durations in microseconds, from those of a fast machine to those of a narrow link.
    #[must_use]
    pub fn of_durations() -> Self {
        Self::new(&DURATION_BOUNDS_US)
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        let of = |bucket: &AtomicU64| bucket.load(Ordering::Relaxed);
        let bounds = self.bounds.iter().copied();
        Buckets {
            counts: bounds.zip(self.buckets.iter().map(of)).collect(),
            above: self.buckets.last().map_or(0, of),
            sum: of(&self.sum),
        }
    }
}

impl Buckets {
    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum::<u64>() + self.above
    }
}

/// 100 us to a minute: acknowledgements over narrow links take tens of seconds.
const DURATION_BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 250_000, 1_000_000, 5_000_000,
    15_000_000, 60_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[10, 100]);
        for value in [0, 10, 11, 100, 101, 5_000] {
            histogram.observe(value);
        }
        let buckets = histogram.buckets();
        assert_eq!(buckets.counts, [(10, 2), (100, 2)]);
        assert_eq!((buckets.above, buckets.count()), (2, 6));
        assert_eq!(buckets.sum, 5_222);
    }
}
