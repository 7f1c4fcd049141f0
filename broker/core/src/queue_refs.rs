//! The unsettled deliveries of one durable queue, by sequence, in little memory.
//!
//! A queue may hold millions, settled mostly from the front. Chunks of up to 64 neighbours in one allocation cost a delivery
//! hardly more than its own bytes, where a map of single deliveries costs as much again.
//!
//! Invariants: chunks are never empty; each holds the deliveries whose sequence divided by 64 is its key, in order.
//!
//! Does not know: what a delivery means.

use crate::image::StoredRef;
use std::collections::BTreeMap;
use std::ops::Range;

/// Unsettled deliveries by sequence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueRefs {
    chunks: BTreeMap<u64, Vec<StoredRef>>,
    len: usize,
}

impl QueueRefs {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The delivery with this sequence.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<&StoredRef> {
        let chunk = self.chunks.get(&key(sequence))?;
        chunk.get(place(chunk, sequence).ok()?)
    }

    /// The delivery with this sequence.
    pub fn get_mut(&mut self, sequence: u64) -> Option<&mut StoredRef> {
        let chunk = self.chunks.get_mut(&key(sequence))?;
        let place = place(chunk, sequence).ok()?;
        chunk.get_mut(place)
    }

    /// Adds a delivery; the one that had its sequence before is returned.
    pub fn insert(&mut self, stored: StoredRef) -> Option<StoredRef> {
        let chunk = self.chunks.entry(key(stored.sequence)).or_default();
        match place(chunk, stored.sequence) {
            Ok(place) => chunk
                .get_mut(place)
                .map(|before| std::mem::replace(before, stored)),
            Err(place) => {
                chunk.insert(place, stored);
                self.len += 1;
                None
            }
        }
    }

    /// Removes a delivery.
    pub fn remove(&mut self, sequence: u64) -> Option<StoredRef> {
        let chunk = self.chunks.get_mut(&key(sequence))?;
        let place = place(chunk, sequence).ok()?;
        let removed = chunk.remove(place);
        if chunk.is_empty() {
            self.chunks.remove(&key(sequence));
        }
        self.len -= 1;
        Some(removed)
    }

    /// Keeps only what `keeps` says.
    pub fn retain(&mut self, mut keeps: impl FnMut(&StoredRef) -> bool) {
        self.chunks.retain(|_, chunk| {
            chunk.retain(&mut keeps);
            !chunk.is_empty()
        });
        self.len = self.chunks.values().map(Vec::len).sum();
    }

    /// All, in order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &StoredRef> {
        self.chunks.values().flatten()
    }

    /// All, in order.
    pub fn into_values(self) -> impl Iterator<Item = StoredRef> {
        self.chunks.into_values().flatten()
    }

    /// Their sequences, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.values().map(|stored| stored.sequence)
    }

    /// Those with a sequence in `range`, in order.
    pub fn range(&self, range: Range<u64>) -> impl Iterator<Item = &StoredRef> {
        let chunks = self.chunks.range(key(range.start)..=key(range.end));
        chunks
            .flat_map(|(_, chunk)| chunk)
            .filter(move |stored| range.contains(&stored.sequence))
    }
}

fn key(sequence: u64) -> u64 {
    sequence / CHUNK
}

fn place(chunk: &[StoredRef], sequence: u64) -> Result<usize, usize> {
    chunk.binary_search_by_key(&sequence, |stored| stored.sequence)
}

/// Deliveries in one allocation, at most.
const CHUNK: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_codec::QoS;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((0_u64..300, 0_u8..4), 0..400)) {
            let mut refs = QueueRefs::default();
            let mut map = BTreeMap::new();
            for (position, (sequence, step)) in (0..).zip(steps) {
                match step {
                    0 | 1 => {
                        let stored = stored(sequence, position);
                        prop_assert_eq!(
                            refs.insert(stored.clone()),
                            map.insert(sequence, stored)
                        );
                    }
                    2 => prop_assert_eq!(refs.remove(sequence), map.remove(&sequence)),
                    _ => prop_assert_eq!(refs.get(sequence), map.get(&sequence)),
                }
                prop_assert_eq!(refs.len(), map.len());
                prop_assert!(refs.values().eq(map.values()));
                let range = sequence..sequence + 100;
                prop_assert!(refs.range(range.clone()).eq(map.range(range).map(|(_, stored)| stored)));
            }
        }
    }

    fn stored(sequence: u64, position: u64) -> StoredRef {
        StoredRef {
            sequence,
            position,
            qos: QoS::AtLeastOnce,
            retain: false,
            is_released: false,
            subscription_ids: None,
            bytes: 1,
        }
    }
}
