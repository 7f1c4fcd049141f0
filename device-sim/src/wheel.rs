//! A hierarchical timer wheel: what is due when, for many thousands, in constant time each.
//!
//! Four levels of 64 slots; a slot of the first lasts a [`TICK`], one of the next as long as all of the level below.
//! Times come up at the first tick that is not earlier, so never early and at most a tick late. What lies beyond the
//! last level waits in its farthest slot and is sorted in again from there. Nothing is ever taken out: whoever changed
//! its mind is told all the same, and knows better.
//!
//! Does not know: the clock, what an entry means.

use std::time::Duration;

/// The resolution.
pub(crate) const TICK: Duration = Duration::from_millis(1);
const LEVELS: usize = 4;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;

/// Entries by their time.
#[derive(Debug)]
pub(crate) struct Wheel {
    levels: [Level; LEVELS],
    /// The first tick that has not been handed out.
    now: u64,
}

#[derive(Debug)]
struct Level {
    slots: [Vec<Entry>; SLOTS],
    /// A bit for each slot that is not empty.
    taken: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tick: u64,
    key: u32,
}

impl Wheel {
    /// An empty wheel at time zero.
    pub(crate) fn new() -> Self {
        Self {
            levels: [(); LEVELS].map(|()| Level::new()),
            now: 0,
        }
    }

    /// Hands `key` out at the first tick that is not before `at`; at the next one, if that is over.
    pub(crate) fn insert(&mut self, at: Duration, key: u32) {
        let tick = at.as_nanos().div_ceil(TICK.as_nanos());
        let tick = u64::try_from(tick).unwrap_or(u64::MAX).max(self.now);
        self.place(Entry { tick, key });
    }

    /// Appends all keys that are due at `now`, the earlier ones first.
    pub(crate) fn advance(&mut self, now: Duration, due: &mut Vec<u32>) {
        let until = u64::try_from(now.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX);
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= until) {
            self.now = tick;
            // What is in a coarse slot belongs to this tick or to a finer slot.
            for level in (1..LEVELS).rev() {
                for entry in self.take(level, tick) {
                    self.place(entry);
                }
            }
            due.extend(self.take(0, tick).iter().map(|entry| entry.key));
            self.now = tick + 1;
        }
        self.now = self.now.max(until.saturating_add(1));
    }

    /// When to advance next: not after the first entry is due, and not long before.
    pub(crate) fn next(&self) -> Option<Duration> {
        let tick = self.next_tick()?;
        Some(Duration::from_millis(tick))
    }

    /// The first tick from now on at which a slot begins that is not empty.
    fn next_tick(&self) -> Option<u64> {
        let levels = (0..).zip(&self.levels);
        levels
            .filter_map(|(number, level)| level.next(self.now, number))
            .min()
    }

    fn place(&mut self, entry: Entry) {
        // The level at which the entry is in another slot than now, and all above in the same one.
        let differing = entry.tick ^ self.now;
        let bits = u64::BITS - differing.leading_zeros();
        let number = (bits.saturating_sub(1) / SLOT_BITS) as usize;
        let number = number.min(LEVELS - 1);
        // On the last level slots come round; the one before the present is the last to do so.
        let farthest = self.now.saturating_add((SLOTS as u64 - 1) << shift(number));
        let tick = entry.tick.min(farthest);
        if let Some(level) = self.levels.get_mut(number) {
            level.put(slot(number, tick), entry);
        }
    }

    /// Empties the slot of a level that begins at `tick`; none does, and nothing is taken, at most ticks.
    fn take(&mut self, number: usize, tick: u64) -> Vec<Entry> {
        let begins = tick & ((1 << shift(number)) - 1) == 0;
        let level = self.levels.get_mut(number).filter(|_| begins);
        level
            .map(|level| level.take(slot(number, tick)))
            .unwrap_or_default()
    }
}

impl Level {
    fn new() -> Self {
        Self {
            slots: [const { Vec::new() }; SLOTS],
            taken: 0,
        }
    }

    fn put(&mut self, slot: usize, entry: Entry) {
        if let Some(entries) = self.slots.get_mut(slot) {
            entries.push(entry);
            self.taken |= 1 << slot;
        }
    }

    fn take(&mut self, slot: usize) -> Vec<Entry> {
        self.taken &= !(1 << slot);
        self.slots
            .get_mut(slot)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// When the next slot that is not empty begins, from tick `now` on; one that has begun comes round again.
    fn next(&self, now: u64, number: usize) -> Option<u64> {
        let shift = shift(number);
        // The first slot that begins at or after now.
        let first = now.div_ceil(1 << shift);
        let turned = self.taken.rotate_right((first % SLOTS as u64) as u32);
        (turned != 0).then(|| (first + u64::from(turned.trailing_zeros())) << shift)
    }
}

/// How many bits of a tick are below a level.
fn shift(number: usize) -> u32 {
    SLOT_BITS * number as u32
}

fn slot(number: usize, tick: u64) -> usize {
    ((tick >> shift(number)) % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;
    use rand_pcg::Pcg32;
    use std::collections::BTreeSet;

    #[test]
    fn it_agrees_with_a_sorted_list() {
        for seed in 0..50 {
            let mut rng = Pcg32::new(seed, 1);
            let (mut wheel, mut list) = (Wheel::new(), BTreeSet::new());
            let mut now = Duration::ZERO;
            for key in 0..3_000 {
                // From less than a tick to several turns of the last level.
                let scale = 10_u64.pow(rng.random_range(2..12));
                let at = now + Duration::from_micros(rng.random_range(0..scale));
                wheel.insert(at, key);
                list.insert((at, key));
                if rng.random_bool(0.3) {
                    let next = wheel.next().unwrap();
                    let first = list.first().unwrap().0;
                    assert!(
                        next <= first.max(now) + TICK,
                        "seed {seed}: {next:?} {first:?}"
                    );
                    let skipped = Duration::from_micros(rng.random_range(0..scale));
                    now = now.max(next) + skipped / 2;
                    compare(&mut wheel, &mut list, now, seed);
                }
            }
            while let Some(next) = wheel.next() {
                now = now.max(next);
                compare(&mut wheel, &mut list, now, seed);
            }
            assert!(list.is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn what_is_over_comes_up_at_once_and_nothing_early() {
        let mut wheel = Wheel::new();
        let mut due = Vec::new();
        wheel.advance(Duration::from_secs(100), &mut due);
        wheel.insert(Duration::from_secs(1), 7);
        wheel.insert(Duration::from_micros(100_500_001), 8);
        assert_eq!(wheel.next(), Some(Duration::from_millis(100_001)));
        wheel.advance(Duration::from_millis(100_001), &mut due);
        assert_eq!(due, [7]);
        wheel.advance(Duration::from_micros(100_500_999), &mut due);
        assert_eq!(due, [7]);
        wheel.advance(Duration::from_millis(100_501), &mut due);
        assert_eq!(due, [7, 8]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_far_entry_costs_a_few_steps_and_not_one_for_each_tick() {
        let mut wheel = Wheel::new();
        let year = Duration::from_secs(365 * 86_400);
        wheel.insert(year, 1);
        let (mut steps, mut due) = (0, Vec::new());
        while let Some(next) = wheel.next() {
            wheel.advance(next, &mut due);
            steps += 1;
        }
        assert_eq!(due, [1]);
        assert!(steps < 10_000, "{steps}");
    }

    /// Due are all entries up to the last tick that is over, and perhaps some of the present one.
    fn compare(wheel: &mut Wheel, list: &mut BTreeSet<(Duration, u32)>, now: Duration, seed: u64) {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        let mut due: BTreeSet<u32> = due.into_iter().collect();
        list.retain(|(at, key)| {
            let is_due = due.remove(key);
            assert!(!is_due || *at <= now, "seed {seed}: {key} is early");
            assert!(is_due || *at + TICK > now, "seed {seed}: {key} is late");
            !is_due
        });
        assert!(due.is_empty(), "seed {seed}: twice");
    }
}
