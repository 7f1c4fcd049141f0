//! Bit rot: one flipped bit in a closed store must show as an error, or change nothing that is read.

use super::world::{Closed, Violation, World, check_bodies, compare, guarded, open_database};
use super::{Chance, Disk};
use motemq::store::engine::Engine;
use motemq_core::Image;

/// What one flip did.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Rot {
    /// Everything reads back as written.
    Harmless,
    /// An error said so.
    Refused,
    /// redb panicked.
    Panicked(String),
    /// It opened, and something else than was written came out.
    Silent(String),
}

/// What many flips did.
#[derive(Clone, Debug, Default)]
pub struct RotTotals {
    /// Flips.
    pub flips: u64,
    /// Those that changed nothing that is read.
    pub harmless: u64,
    /// Those that an error named.
    pub refused: u64,
    /// Those that redb answered with a panic, with their stories.
    pub panics: Vec<String>,
    /// Those that went unnoticed, with their stories.
    pub silent: Vec<String>,
}

impl RotTotals {
    /// Adds what was found in another store.
    pub fn add(&mut self, other: Self) {
        self.flips += other.flips;
        self.harmless += other.harmless;
        self.refused += other.refused;
        self.panics.extend(other.panics);
        self.silent.extend(other.silent);
    }
}

/// Flips `flips` bits, one at a time, in a store of `seed`.
///
/// # Errors
/// When the store cannot be made in the first place.
pub fn flip_bits(seed: u64, flips: u64) -> Result<RotTotals, Violation> {
    let mut chance = Chance::new(seed);
    let closed = World::closed(seed, chance.between(60, 200))?;
    let used: Vec<usize> = (0..closed.file.len())
        .filter(|offset| closed.file[*offset] != 0)
        .collect();
    let mut totals = RotTotals::default();
    for _ in 0..flips {
        let offset = match chance.below(10) {
            0 => chance.below(HEADER_BYTES) as usize,
            1 => chance.below(closed.file.len() as u64) as usize,
            _ => used[chance.below(used.len() as u64) as usize],
        };
        let bit = chance.below(8) as u8;
        totals.flips += 1;
        let told = |story| format!("seed {seed}, byte {offset}, bit {bit}: {story}");
        match flip(&closed, offset, bit) {
            Rot::Harmless => totals.harmless += 1,
            Rot::Refused => totals.refused += 1,
            Rot::Panicked(story) => totals.panics.push(told(story)),
            Rot::Silent(story) => totals.silent.push(told(story)),
        }
    }
    Ok(totals)
}

fn flip(closed: &Closed, offset: usize, bit: u8) -> Rot {
    let disk = Disk::new(closed.file.clone(), 0, Chance::new(0));
    disk.flip(offset, bit);
    let outcome = guarded(|| {
        let Ok(db) = open_database(&disk, CACHE_BYTES) else {
            return Ok(Rot::Refused);
        };
        let Ok((engine, _)) = Engine::open(&db, closed.options) else {
            return Ok(Rot::Refused);
        };
        if *engine.image() == Image::default() {
            return Ok(Rot::Silent("it is empty".to_owned()));
        }
        if engine.last_position() != closed.last {
            let story = format!(
                "it ends at {}, not at {}",
                engine.last_position(),
                closed.last
            );
            return Ok(Rot::Silent(story));
        }
        if let Err(difference) = compare(&closed.image, engine.image()) {
            return Ok(Rot::Silent(difference.to_string()));
        }
        Ok(match check_bodies(&db, &engine, &closed.messages) {
            Ok(_) => Rot::Harmless,
            Err(Violation::Corrupt(story)) if story.starts_with("another body") => {
                Rot::Silent(story)
            }
            Err(_) => Rot::Refused,
        })
    });
    match outcome {
        Ok(rot) => rot,
        Err(panic) => Rot::Panicked(panic.to_string()),
    }
}

/// Where redb keeps its roots.
const HEADER_BYTES: u64 = 320;
/// The page cache while a flipped store is read.
const CACHE_BYTES: usize = 1 << 20;
