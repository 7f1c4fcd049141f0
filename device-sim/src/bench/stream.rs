//! What one subscriber has received from one publisher: missing, late and repeated messages, exactly.
//!
//! Nothing is kept but the next expected number and the gaps, so an orderly stream costs two words.

use std::ops::Range;

/// More gaps than these are not remembered one by one: the oldest counts as lost for good.
const GAPS_MAX: usize = 1_024;

/// One publisher's messages as one subscriber sees them.
#[derive(Debug, Default)]
pub(super) struct Stream {
    next: u64,
    gaps: Vec<Range<u64>>,
    /// Missing numbers that are no longer among `gaps`.
    forgotten: u64,
}

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The first with this number, behind all others; so many numbers have been passed, itself included.
    InOrder { passed: u64 },
    /// The first with this number, after later ones.
    Late,
    /// It was here before.
    Repeated,
}

impl Stream {
    /// A stream whose first message may have any number.
    pub(super) fn from(first: u64) -> Self {
        Self {
            next: first,
            ..Self::default()
        }
    }

    /// Takes note of a message.
    pub(super) fn arrived(&mut self, sequence: u64) -> Arrival {
        if sequence == self.next {
            self.next += 1;
            return Arrival::InOrder { passed: 1 };
        }
        if sequence > self.next {
            return self.skipped_to(sequence);
        }
        let gap = self.gaps.iter().position(|gap| gap.contains(&sequence));
        let Some(position) = gap else {
            return Arrival::Repeated;
        };
        let gap = self.gaps.remove(position);
        let halves = [gap.start..sequence, sequence + 1..gap.end];
        let left = halves.into_iter().filter(|half| !half.is_empty());
        self.gaps.splice(position..position, left);
        Arrival::Late
    }

    /// Every number below this one has been received or passed.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How many numbers before `end` are missing.
    pub(super) fn missing_before(&self, end: u64) -> u64 {
        let within = |gap: &Range<u64>| gap.end.min(end).saturating_sub(gap.start);
        let gaps: u64 = self.gaps.iter().map(within).sum();
        gaps + self.forgotten + end.saturating_sub(self.next)
    }

    /// The first missing number before `end`.
    pub(super) fn first_missing_before(&self, end: u64) -> Option<u64> {
        let gap = self.gaps.first().map_or(self.next, |gap| gap.start);
        (gap < end).then_some(gap)
    }

    fn skipped_to(&mut self, sequence: u64) -> Arrival {
        let passed = sequence - self.next + 1;
        if self.gaps.len() == GAPS_MAX {
            let oldest = self.gaps.remove(0);
            self.forgotten += oldest.end - oldest.start;
        }
        self.gaps.push(self.next..sequence);
        self.next = sequence + 1;
        Arrival::InOrder { passed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orderly_stream_misses_nothing() {
        let (stream, arrivals) = received(&[0, 1, 2]);
        assert_eq!(arrivals, [Arrival::InOrder { passed: 1 }; 3]);
        assert_eq!(stream.missing_before(3), 0);
        assert_eq!(stream.first_missing_before(3), None);
        assert_eq!(stream.missing_before(5), 2);
        assert_eq!(stream.first_missing_before(5), Some(3));
    }

    #[test]
    fn late_and_repeated_are_told_apart_however_old() {
        let (mut stream, arrivals) = received(&[0, 5, 3, 3, 5, 1]);
        let passed = |passed| Arrival::InOrder { passed };
        let expected = [
            passed(1),
            passed(5),
            Arrival::Late,
            Arrival::Repeated,
            Arrival::Repeated,
            Arrival::Late,
        ];
        assert_eq!(arrivals, expected);
        assert_eq!(stream.missing_before(6), 2);
        assert_eq!(stream.missing_before(3), 1);
        for sequence in 6..1_000 {
            stream.arrived(sequence);
        }
        assert_eq!(stream.first_missing_before(1_000), Some(2));
        assert_eq!(stream.arrived(4), Arrival::Late);
        assert_eq!(stream.arrived(2), Arrival::Late);
        assert_eq!(stream.missing_before(1_000), 0);
    }

    #[test]
    fn gaps_beyond_the_limit_stay_lost() {
        let mut stream = Stream::default();
        for sequence in 0..2_000 {
            stream.arrived(sequence * 2 + 1);
        }
        assert_eq!(stream.gaps.len(), GAPS_MAX);
        assert_eq!(stream.missing_before(4_000), 2_000);
    }

    #[test]
    fn a_stream_may_begin_anywhere() {
        let mut stream = Stream::from(100);
        assert_eq!(stream.arrived(100), Arrival::InOrder { passed: 1 });
        assert_eq!(stream.missing_before(stream.next()), 0);
    }

    fn received(sequences: &[u64]) -> (Stream, Vec<Arrival>) {
        let mut stream = Stream::default();
        let arrivals = sequences.iter().map(|&sequence| stream.arrived(sequence));
        let arrivals = arrivals.collect();
        (stream, arrivals)
    }
}
