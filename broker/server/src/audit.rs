//! Limits the lines that refused clients cause: in a storm the log must not be the outage.

use crate::clock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines of one kind: at most [`LINES_PER_SECOND`].
#[derive(Debug, Default)]
pub(crate) struct AuditLimit {
    second: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl AuditLimit {
    /// A limit that has seen nothing yet.
    pub(crate) const fn new() -> Self {
        Self {
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now; if so, how many were suppressed before it.
    pub(crate) fn admit(&self) -> Option<u64> {
        let second = clock::monotonic().as_secs() + 1;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Lines that one kind of refusal may cause in a second.
const LINES_PER_SECOND: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_causes_few_lines_and_says_how_many_are_missing() {
        let limit = AuditLimit::new();
        let admitted = (0..1000).filter(|_| limit.admit().is_some()).count() as u64;
        // The second may change once while this runs.
        assert!((LINES_PER_SECOND..=2 * LINES_PER_SECOND).contains(&admitted));
    }
}
