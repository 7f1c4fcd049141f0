//! The ring: encoded events in chunks, of which the oldest goes when there is no more room.
//!
//! Invariants: at most `bytes_max` bytes, taken only as events come; a sealed chunk never changes, so whoever holds it reads it
//! without a lock. Does not know: what events mean.

use super::event::{EventFilter, HistoryEvent};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// Events that lie together.
#[derive(Clone, Debug)]
struct Chunk {
    /// The number of the first.
    first: u64,
    events: u64,
    /// The time of the latest.
    latest: Timestamp,
    bytes: Vec<u8>,
}

impl Chunk {
    fn new(first: u64) -> Self {
        Self {
            first,
            events: 0,
            latest: Timestamp::default(),
            bytes: Vec::new(),
        }
    }

    fn cost(&self) -> usize {
        self.bytes.capacity() + CHUNK_COST
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    bytes_max: usize,
    sealed: VecDeque<Arc<Chunk>>,
    /// What the sealed ones cost.
    sealed_bytes: usize,
    open: Chunk,
}

impl Ring {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            open: Chunk::new(1),
        }
    }

    /// Changes how much it holds; the oldest events go if that is less.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        if self.open.bytes.capacity() > self.chunk_bytes() {
            self.seal();
        }
        self.evict();
        if self.sealed.is_empty() {
            self.sealed.shrink_to_fit();
        }
    }

    pub(super) fn push(&mut self, event: &HistoryEvent<'_>) {
        let length = event.encoded_len();
        let chunk_bytes = self.chunk_bytes();
        if length > chunk_bytes {
            return;
        }
        if self.open.bytes.len() + length > chunk_bytes {
            self.seal();
        }
        let open = &mut self.open;
        if open.bytes.capacity() - open.bytes.len() < length {
            // Doubled, but not beyond what a chunk may have.
            let wanted = (2 * open.bytes.capacity())
                .max(CHUNK_FIRST)
                .min(chunk_bytes);
            let wanted = wanted.max(open.bytes.len() + length);
            open.bytes.reserve_exact(wanted - open.bytes.len());
        }
        event.encode(&mut open.bytes);
        open.events += 1;
        open.latest = open.latest.max(event.at);
        self.evict();
    }

    fn seal(&mut self) {
        let next = self.open.first + self.open.events;
        if self.open.events == 0 {
            self.open = Chunk::new(next);
            return;
        }
        let mut chunk = std::mem::replace(&mut self.open, Chunk::new(next));
        chunk.bytes.shrink_to_fit();
        self.sealed_bytes += chunk.cost();
        self.sealed.push_back(Arc::new(chunk));
    }

    fn evict(&mut self) {
        while self.bytes() > self.bytes_max
            && let Some(oldest) = self.sealed.pop_front()
        {
            self.sealed_bytes -= oldest.cost();
        }
    }

    /// What a chunk may have, so that a small ring forgets its oldest events a few at a time, too.
    fn chunk_bytes(&self) -> usize {
        (self.bytes_max / CHUNKS_MIN)
            .saturating_sub(CHUNK_COST)
            .min(CHUNK_BYTES)
    }

    /// The time of the latest event.
    pub(super) fn latest(&self) -> Timestamp {
        let sealed = self.sealed.back().map(|chunk| chunk.latest);
        self.open.latest.max(sealed.unwrap_or_default())
    }

    /// What it costs.
    pub(super) fn bytes(&self) -> usize {
        self.sealed_bytes + self.open.bytes.capacity()
    }

    /// The events of this moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            sealed: self.sealed.iter().cloned().collect(),
            open: self.open.clone(),
        }
    }
}

/// The events of one moment; it does not hold up who writes more.
#[derive(Debug)]
pub struct Snapshot {
    sealed: Vec<Arc<Chunk>>,
    open: Chunk,
}

impl Snapshot {
    /// The events that `filter` wants, the latest first.
    pub fn latest_first<'a>(
        &'a self,
        filter: &'a EventFilter<'a>,
    ) -> impl Iterator<Item = HistoryEvent<'a>> {
        let chunks = std::iter::once(&self.open);
        chunks
            .chain(self.sealed.iter().rev().map(|chunk| &**chunk))
            .take_while(|chunk| {
                chunk.events == 0 || filter.since.is_none_or(|since| chunk.latest >= since)
            })
            .filter(|chunk| filter.before.is_none_or(|number| chunk.first < number))
            .flat_map(Chunk::latest_first)
            .filter(|event| filter.matches(event))
    }
}

impl Chunk {
    fn latest_first(&self) -> impl Iterator<Item = HistoryEvent<'_>> {
        let mut bytes = &*self.bytes;
        let mut left = self.events;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let (event, before) = HistoryEvent::decode_last(bytes, self.first + left)?;
            bytes = before;
            Some(event)
        })
    }
}

/// The bytes of a chunk, where the ring has room for many.
const CHUNK_BYTES: usize = 64 << 10;
/// What a chunk begins with.
const CHUNK_FIRST: usize = 1 << 10;
/// Chunks that a ring of any size has room for.
const CHUNKS_MIN: usize = 8;
/// What a chunk costs beside its bytes.
const CHUNK_COST: usize = 96;

#[cfg(test)]
mod tests {
    use super::super::event::{ClientMatch, EventKind};
    use super::*;

    fn event(at_ms: u64, client: &str) -> HistoryEvent<'_> {
        let at = Timestamp::from_ms(at_ms);
        HistoryEvent::new(at, EventKind::Connected, client, "test")
    }

    fn numbers(ring: &Ring, filter: &EventFilter<'_>) -> Vec<u64> {
        let snapshot = ring.snapshot();
        let events = snapshot.latest_first(filter);
        events.map(|event| event.number).collect()
    }

    #[test]
    fn the_oldest_events_go_and_the_bound_holds() {
        let bytes_max = 64 << 10;
        let mut ring = Ring::new(bytes_max);
        assert!(ring.bytes() == 0, "memory is taken only as events come");
        for number in 1..=10_000 {
            ring.push(&event(number, "client"));
            assert!(ring.bytes() <= bytes_max);
        }
        let kept = numbers(&ring, &EventFilter::default());
        assert_eq!(kept.first(), Some(&10_000));
        assert!(kept.is_sorted_by(|later, earlier| *later == earlier + 1));
        // 38 bytes each, and not much lost at the end of chunks.
        assert!(kept.len() > bytes_max / 50, "{}", kept.len());
    }

    #[test]
    fn a_reader_keeps_what_it_saw() {
        let mut ring = Ring::new(4 << 10);
        (1..=50).for_each(|number| ring.push(&event(number, "a")));
        let snapshot = ring.snapshot();
        (51..=5000).for_each(|number| ring.push(&event(number, "b")));
        let filter = EventFilter::default();
        let seen: Vec<_> = snapshot.latest_first(&filter).collect();
        assert_eq!(seen.len(), 50);
        assert!(seen.iter().all(|event| event.client_id == "a"));
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let mut ring = Ring::new(1 << 20);
        (1..=3000).for_each(|number| ring.push(&event(number, "client")));
        let mut filter = EventFilter::default();
        let mut seen = Vec::new();
        loop {
            let page: Vec<_> = numbers(&ring, &filter).into_iter().take(700).collect();
            let Some(last) = page.last() else { break };
            filter.before = Some(*last);
            seen.extend(page);
        }
        assert_eq!(seen, (1..=3000).rev().collect::<Vec<_>>());
    }

    #[test]
    fn filters_choose() {
        let mut ring = Ring::new(1 << 20);
        for number in 1..=10 {
            let client = format!("meter-{number}");
            let mut event = event(number * 1000, &client);
            if number % 2 == 0 {
                event.kind = EventKind::Dropped;
                event.reason = "expired";
                event.topic = "home/7/power";
                event.publisher = "bridge";
            }
            ring.push(&event);
        }
        let count = |filter: EventFilter<'_>| numbers(&ring, &filter).len();
        let topic = |filter| motemq_codec::TopicFilter::parse(filter).ok();
        let any = EventFilter::default();
        let client = ClientMatch::Glob("meter-1*");
        assert_eq!(count(EventFilter { client, ..any }), 2);
        let client = ClientMatch::Exactly("meter-1");
        assert_eq!(count(EventFilter { client, ..any }), 1);
        let client = ClientMatch::Glob("bri*");
        assert_eq!(count(EventFilter { client, ..any }), 5);
        let kinds = &[EventKind::Dropped];
        assert_eq!(count(EventFilter { kinds, ..any }), 5);
        let reason = Some("expired");
        assert_eq!(count(EventFilter { reason, ..any }), 5);
        let since = Some(Timestamp::from_ms(9000));
        assert_eq!(count(EventFilter { since, ..any }), 2);
        let filter = EventFilter {
            topic: topic("home/+/power"),
            ..any
        };
        assert_eq!(count(filter), 5);
        let filter = EventFilter {
            topic: topic("home/8/#"),
            ..any
        };
        assert_eq!(count(filter), 0);
    }

    #[test]
    fn a_smaller_bound_forgets_the_oldest() {
        let mut ring = Ring::new(1 << 20);
        (1..=3000).for_each(|number| ring.push(&event(number, "client")));
        ring.set_bytes_max(16 << 10);
        assert!(ring.bytes() <= 16 << 10);
        ring.push(&event(3001, "client"));
        assert_eq!(numbers(&ring, &EventFilter::default()).first(), Some(&3001));
        ring.set_bytes_max(0);
        assert_eq!(ring.bytes(), 0);
        ring.push(&event(3002, "client"));
        assert_eq!(numbers(&ring, &EventFilter::default()), []);
    }
}
