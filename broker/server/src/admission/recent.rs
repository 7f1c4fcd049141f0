//! A map with bounded memory that forgets what was not asked for lately.
//!
//! Invariants: at most `entries_max` entries; an entry that was looked at is kept for the next `entries_max / 2` other keys at least.
//!
//! Does not know: time.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is looked at moves to the young one; when that is full, it becomes the old one, and the old one goes.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, V: Default> Recent<K, V> {
    /// The entry of `key`, made where there is none.
    pub(crate) fn entry(&mut self, key: K, entries_max: usize) -> &mut V {
        let is_young = self.young.contains_key(&key);
        if !is_young && self.young.len() >= (entries_max / 2).max(1) {
            self.old = std::mem::take(&mut self.young);
        }
        let known = if is_young {
            None
        } else {
            self.old.remove(&key)
        };
        self.young
            .entry(key)
            .or_insert_with(|| known.unwrap_or_default())
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_who_was_not_asked_for_and_stays_within_its_bound() {
        let mut recent = Recent::<i32, u32>::default();
        for key in 0..1000 {
            *recent.entry(key, 100) += 1;
            *recent.entry(-1, 100) += 1;
            assert!(recent.len() <= 100, "{}", recent.len());
        }
        assert_eq!(*recent.entry(-1, 100), 1000);
        assert_eq!(*recent.entry(0, 100), 0);
        assert_eq!(*recent.entry(999, 100), 1);
    }
}
