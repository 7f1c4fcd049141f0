//! Power-loss images on the real redb tables.
//!
//! A [`World`] drives the store's engine over a [`Disk`] in memory, cuts the power at a random operation, tears what was
//! not synced at 512-byte sectors, opens what is left and compares it with its own model: the state after the last
//! acknowledged commit, or after the one in flight. The power may fail again during that recovery, several times.
//!
//! Promises: a run depends on its seed only; a failure names the world's seed. [`run`] with lies (an fsync that does
//! nothing now and then) is the control: it must find losses.
//!
//! Does not know: threads of the journal, files, sockets.
#![expect(
    clippy::indexing_slicing,
    reason = "a checker fails by panicking; its indexes come from its own lists"
)]

mod disk;
mod rot;
mod workload;
mod world;

pub use disk::Disk;
pub use rot::{RotTotals, flip_bits};
pub use workload::Workload;
pub use world::{Violation, World};

use rand::Rng;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How much to do.
#[derive(Copy, Clone, Debug)]
pub struct Plan {
    /// Images of a first power loss to check.
    pub images: u64,
    /// Images of a power loss during recovery to check.
    pub doubles: u64,
    /// The first world's seed; the others follow.
    pub seed: u64,
    /// Of 1000 fsyncs so many do nothing; 0 for an honest disk.
    pub lies_per_mille: u64,
    /// Threads.
    pub workers: usize,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Worlds that lived.
    pub worlds: u64,
    /// Commits that were acknowledged.
    pub commits: u64,
    /// Images checked after one power loss.
    pub images: u64,
    /// Images checked after a power loss during recovery.
    pub doubles: u64,
    /// Of all images, those that held the commit in flight as well.
    pub in_flight: u64,
    /// Bodies read back and compared.
    pub bodies: u64,
    /// Images that lacked something acknowledged.
    pub lost: u64,
    /// Images that did not open, or held something else than was written.
    pub corrupt: u64,
    /// The first violations, each with its world's seed.
    pub stories: Vec<String>,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.commits += other.commits;
        self.images += other.images;
        self.doubles += other.doubles;
        self.in_flight += other.in_flight;
        self.bodies += other.bodies;
        self.lost += other.lost;
        self.corrupt += other.corrupt;
        self.stories.extend(other.stories);
        self.stories.truncate(STORIES_MAX);
    }

    fn note(&mut self, seed: u64, violation: &Violation) {
        match violation {
            Violation::Lost(_) => self.lost += 1,
            Violation::Corrupt(_) => self.corrupt += 1,
        }
        if self.stories.len() < STORIES_MAX {
            self.stories.push(format!("world {seed}: {violation}"));
        }
    }
}

/// Runs worlds until the plan is fulfilled, or an honest disk has shown a few violations.
#[must_use]
pub fn run(plan: Plan) -> Totals {
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(plan.seed);
    let is_done = AtomicBool::new(false);
    let work = || {
        while !is_done.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let mut found = Totals {
                worlds: 1,
                ..Totals::default()
            };
            let outcome = World::new(seed, plan.lies_per_mille).live(&mut found);
            if let Err(violation) = outcome {
                found.note(seed, &violation);
            }
            let mut totals = totals
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            totals.add(found);
            let is_hopeless = plan.lies_per_mille == 0 && totals.stories.len() >= STORIES_MAX;
            if is_hopeless || (totals.images >= plan.images && totals.doubles >= plan.doubles) {
                is_done.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..plan.workers {
            scope.spawn(work);
        }
        work();
    });
    totals
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Chance, from one seed.
#[derive(Clone, Debug)]
pub struct Chance(Pcg64Mcg);

impl Chance {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(end);
        (wide >> 64) as u64
    }

    /// A number from `first` to `last`.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// True in `count` of 1000 throws.
    pub fn per_mille(&mut self, count: u64) -> bool {
        self.below(1000) < count
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Stories kept, and violations after which an honest run stops.
const STORIES_MAX: usize = 10;
