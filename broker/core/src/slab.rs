//! Numbered places in memory, taken and given back.
//!
//! Invariants: what is in a place stays there until the place is given back. Memory grows by a chunk at a time, so nothing
//! is copied and no half of it lies idle, however many places there are. Does not know: what is in them.

use std::num::NonZeroU32;

#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// All full but the last one.
    chunks: Vec<Vec<T>>,
    free: Vec<PlaceId>,
}

/// The number of a place, from 1.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PlaceId(NonZeroU32);

/// Places in a chunk.
const CHUNK: usize = 256;

impl PlaceId {
    /// The place that is taken first.
    pub(crate) const FIRST: Self = Self(NonZeroU32::MIN);

    pub(crate) const fn number(self) -> u32 {
        self.0.get()
    }

    const fn split(self) -> (usize, usize) {
        let index = self.0.get() as usize - 1;
        (index / CHUNK, index % CHUNK)
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn get(&self, id: PlaceId) -> Option<&T> {
        let (chunk, index) = id.split();
        self.chunks.get(chunk)?.get(index)
    }

    pub(crate) fn get_mut(&mut self, id: PlaceId) -> Option<&mut T> {
        let (chunk, index) = id.split();
        self.chunks.get_mut(chunk)?.get_mut(index)
    }

    /// Puts `value` into a free place.
    pub(crate) fn insert(&mut self, value: T) -> PlaceId {
        if let Some(id) = self.free.pop() {
            if let Some(place) = self.get_mut(id) {
                *place = value;
            }
            return id;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            // The first chunk grows as it must, the others are filled soon.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(value);
        }
        let places = (self.chunks.len() - 1) * CHUNK + self.chunks.last().map_or(0, Vec::len);
        let number = u32::try_from(places).ok().and_then(NonZeroU32::new);
        #[expect(
            clippy::expect_used,
            reason = "four billion places do not fit in memory"
        )]
        PlaceId(number.expect("some places, fewer than 2^32"))
    }

    /// Gives a place back, with `empty` in it until it is taken again.
    pub(crate) fn remove(&mut self, id: PlaceId, empty: T) {
        if let Some(place) = self.get_mut(id) {
            *place = empty;
            self.free.push(id);
        }
    }

    /// Places in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum::<usize>() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_keeps_what_it_was_given_until_it_is_given_back() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..10 * CHUNK).map(|value| slab.insert(value)).collect();
        assert_eq!(ids.first(), Some(&PlaceId::FIRST));
        for id in ids.iter().skip(1).step_by(2) {
            slab.remove(*id, usize::MAX);
        }
        assert_eq!(slab.len(), 5 * CHUNK);
        for value in 0..5 * CHUNK {
            let id = slab.insert(value);
            assert_eq!(slab.get(id), Some(&value));
        }
        assert_eq!(slab.len(), 10 * CHUNK);
        for (value, id) in ids.into_iter().enumerate().step_by(2) {
            assert_eq!(slab.get(id), Some(&value));
        }
    }
}
