//! Deliveries of one queue whose bodies are in the store, by sequence, in little memory.
//!
//! A queue may hold millions, settled mostly from the front. A delivery is 12 bytes here, in chunks of up to 64 neighbours in
//! one allocation; what few have (subscription identifiers) is beside them. The writer's image has all durable deliveries in
//! this form, a mailbox those whose turn is far off.
//!
//! Invariants: chunks are never empty; each holds the deliveries whose sequence divided by 64 is its key, in order.
//!
//! Does not know: what a delivery means.

use crate::image::StoredRef;
use motemq_codec::QoS;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Unsettled deliveries by sequence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueRefs {
    chunks: BTreeMap<u64, Vec<Packed>>,
    len: usize,
    /// Of the deliveries that have any.
    subscription_ids: BTreeMap<u64, Arc<[u32]>>,
}

/// A delivery: 8 bytes of position (56 bits) and sequence within the chunk (6), 4 of size (28 bits) and flags. Three
/// integers, because a larger one would be aligned to 16 bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Packed([u32; 3]);

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
    pub fn get(&self, sequence: u64) -> Option<StoredRef> {
        let chunk = self.chunks.get(&key(sequence))?;
        let packed = chunk.get(place(chunk, sequence).ok()?)?;
        Some(self.unpack(key(sequence), *packed))
    }

    /// Notes that PUBREC was received for the delivery with this sequence.
    pub fn release(&mut self, sequence: u64) {
        if let Some(chunk) = self.chunks.get_mut(&key(sequence))
            && let Ok(place) = place(chunk, sequence)
            && let Some(packed) = chunk.get_mut(place)
        {
            packed.0[2] |= RELEASED;
        }
    }

    /// Adds a delivery; the one that had its sequence before is returned.
    pub fn insert(&mut self, stored: StoredRef) -> Option<StoredRef> {
        let packed = Packed::new(&stored);
        let chunk = self.chunks.entry(key(stored.sequence)).or_default();
        // Almost always it is the newest.
        let place = match chunk.last() {
            Some(last) if last.offset() >= packed.offset() => place(chunk, stored.sequence),
            _ => Err(chunk.len()),
        };
        match place {
            Ok(place) => {
                let before = chunk
                    .get_mut(place)
                    .map(|before| std::mem::replace(before, packed));
                let before = before.map(|before| self.unpack(key(stored.sequence), before));
                self.put_ids(stored);
                before
            }
            Err(place) => {
                chunk.insert(place, packed);
                self.len += 1;
                self.put_ids(stored);
                None
            }
        }
    }

    /// Removes a delivery.
    pub fn remove(&mut self, sequence: u64) -> Option<StoredRef> {
        let chunk = self.chunks.get_mut(&key(sequence))?;
        let place = place(chunk, sequence).ok()?;
        let packed = chunk.remove(place);
        if chunk.is_empty() {
            self.chunks.remove(&key(sequence));
        }
        self.len -= 1;
        let mut removed = self.unpack(key(sequence), packed);
        removed.subscription_ids = self.subscription_ids.remove(&sequence);
        Some(removed)
    }

    /// Removes the delivery with the lowest sequence.
    pub fn pop_first(&mut self) -> Option<StoredRef> {
        self.remove(self.first()?)
    }

    /// The lowest sequence.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        let (key, chunk) = self.chunks.first_key_value()?;
        Some(key * CHUNK + u64::from(chunk.first()?.offset()))
    }

    /// The highest sequence.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        let (key, chunk) = self.chunks.last_key_value()?;
        Some(key * CHUNK + u64::from(chunk.last()?.offset()))
    }

    /// Keeps only what `keeps` says.
    pub fn retain(&mut self, mut keeps: impl FnMut(&StoredRef) -> bool) {
        let gone: Vec<_> = self
            .values()
            .filter(|stored| !keeps(stored))
            .map(|stored| stored.sequence)
            .collect();
        for sequence in gone {
            self.remove(sequence);
        }
    }

    /// All, in order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = StoredRef> {
        self.chunks.iter().flat_map(|(key, chunk)| {
            let unpack = |packed: &Packed| self.unpack(*key, *packed);
            chunk.iter().map(unpack)
        })
    }

    /// The positions of their bodies, in the order of the deliveries.
    pub fn positions(&self) -> impl Iterator<Item = u64> {
        self.chunks
            .values()
            .flatten()
            .map(|packed| packed.position())
    }

    /// The sum of the sizes that they are counted with.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let packed = self.chunks.values().flatten();
        packed.map(|packed| u64::from(packed.bytes())).sum()
    }

    /// Their sequences, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.values().map(|stored| stored.sequence)
    }

    /// Those with a sequence in `range`, in order.
    pub fn range(&self, range: Range<u64>) -> impl Iterator<Item = StoredRef> {
        let chunks = self.chunks.range(key(range.start)..=key(range.end));
        chunks
            .flat_map(|(key, chunk)| chunk.iter().map(|packed| self.unpack(*key, *packed)))
            .filter(move |stored| range.contains(&stored.sequence))
    }

    fn put_ids(&mut self, stored: StoredRef) {
        if let Some(ids) = stored.subscription_ids {
            self.subscription_ids.insert(stored.sequence, ids);
        } else if !self.subscription_ids.is_empty() {
            self.subscription_ids.remove(&stored.sequence);
        }
    }

    fn unpack(&self, key: u64, packed: Packed) -> StoredRef {
        let sequence = key * CHUNK + u64::from(packed.offset());
        let flags = packed.0[2];
        StoredRef {
            sequence,
            position: packed.position(),
            qos: match flags >> QOS_SHIFT & 3 {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            retain: flags & RETAIN != 0,
            is_released: flags & RELEASED != 0,
            // Nobody has any in most queues.
            subscription_ids: match self.subscription_ids.is_empty() {
                true => None,
                false => self.subscription_ids.get(&sequence).cloned(),
            },
            bytes: packed.bytes(),
        }
    }
}

impl Packed {
    fn new(stored: &StoredRef) -> Self {
        assert!(
            stored.position <= StoredRef::POSITION_MAX,
            "a store ends before position 2^56"
        );
        let place = stored.position << 8 | u64::from(offset(stored.sequence));
        let rest = stored.bytes.min(StoredRef::BYTES_MAX)
            | (stored.qos as u32) << QOS_SHIFT
            | if stored.retain { RETAIN } else { 0 }
            | if stored.is_released { RELEASED } else { 0 };
        Self([low(place), low(place >> 32), rest])
    }

    fn position(self) -> u64 {
        (u64::from(self.0[1]) << 32 | u64::from(self.0[0])) >> 8
    }

    fn offset(self) -> u8 {
        self.0[0].to_le_bytes()[0]
    }

    fn bytes(self) -> u32 {
        self.0[2] & StoredRef::BYTES_MAX
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
fn low(value: u64) -> u32 {
    value as u32
}

fn key(sequence: u64) -> u64 {
    sequence / CHUNK
}

/// The sequence within its chunk.
fn offset(sequence: u64) -> u8 {
    sequence.to_le_bytes()[0] % CHUNK.to_le_bytes()[0]
}

fn place(chunk: &[Packed], sequence: u64) -> Result<usize, usize> {
    // Most are settled in order.
    match chunk.first() {
        Some(first) if first.offset() == offset(sequence) => Ok(0),
        _ => chunk.binary_search_by_key(&offset(sequence), |packed| packed.offset()),
    }
}

/// Deliveries in one allocation, at most.
const CHUNK: u64 = 64;
const QOS_SHIFT: u32 = 28;
const RETAIN: u32 = 1 << 30;
const RELEASED: u32 = 1 << 31;

// A queue may hold millions of these.
const _: () = assert!(size_of::<Packed>() == 12);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((0_u64..300, 0_u8..7), 0..400)) {
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
                    3 => {
                        refs.release(sequence);
                        if let Some(stored) = map.get_mut(&sequence) {
                            stored.is_released = true;
                        }
                    }
                    4 => {
                        refs.retain(|stored| stored.sequence % 7 != 1);
                        map.retain(|sequence, _| sequence % 7 != 1);
                    }
                    5 => prop_assert_eq!(
                        refs.pop_first(),
                        map.pop_first().map(|(_, stored)| stored)
                    ),
                    _ => prop_assert_eq!(refs.get(sequence), map.get(&sequence).cloned()),
                }
                prop_assert_eq!(refs.len(), map.len());
                prop_assert!(refs.values().eq(map.values().cloned()));
                prop_assert!(refs.values().rev().eq(map.values().rev().cloned()));
                prop_assert!(refs.positions().eq(map.values().map(|stored| stored.position)));
                let bytes: u64 = map.values().map(|stored| u64::from(stored.bytes)).sum();
                prop_assert_eq!(refs.bytes(), bytes);
                prop_assert_eq!(refs.first(), map.keys().next().copied());
                prop_assert_eq!(refs.last(), map.keys().next_back().copied());
                let range = sequence..sequence + 100;
                prop_assert!(refs.range(range.clone()).eq(map.range(range).map(|(_, stored)| stored.clone())));
            }
        }
    }

    /// Every fact takes every value somewhere.
    fn stored(sequence: u64, step: u64) -> StoredRef {
        StoredRef {
            sequence,
            position: match step % 5 {
                0 => StoredRef::POSITION_MAX - step,
                _ => step << (step % 40),
            },
            qos: match step % 2 {
                0 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            retain: step.is_multiple_of(3),
            is_released: step.is_multiple_of(7),
            subscription_ids: step.is_multiple_of(4).then(|| [1, 2].into()),
            bytes: match step % 6 {
                0 => StoredRef::BYTES_MAX,
                other => u32::try_from(other).unwrap(),
            },
        }
    }
}
