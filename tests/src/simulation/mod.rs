//! A seeded, deterministic simulation of clients, crashes and a misbehaving journal, with a checker for the delivery
//! contract.
//!
//! One thread, one sequence of dice per seed: clients that keep the protocol, wires that cut and dawdle, the broker with
//! its machines, a journal that commits when it likes and loses power at any moment. The [`ledger`] judges from what the
//! clients sent and saw, never from inside the broker. [`Fault`] breaks one rule on purpose: a checker that has never
//! failed proves nothing.
//!
//! A failure names its seed; `cargo run --release -p motemq-tests --bin simulate -- --seed N --verbose` tells the story.

pub mod client;
pub mod dice;
pub mod ledger;
pub mod life;
pub mod link;
pub mod saboteur;
pub mod shares;
pub mod world;

pub use ledger::{Broken, Rule};
pub use saboteur::Fault;
pub use world::{Counts, Traffic};

use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// Runs one seed.
///
/// # Errors
/// The first broken promise.
pub fn run(seed: u64, fault: Fault, traffic: Traffic) -> Result<Counts, Broken> {
    let mut world = World::new(seed, fault, traffic, false);
    guarded(&mut world)
}

/// Runs one seed again and tells its last events.
#[must_use]
pub fn story(seed: u64, fault: Fault, traffic: Traffic) -> Vec<String> {
    let mut world = World::new(seed, fault, traffic, true);
    let outcome = guarded(&mut world);
    let mut story = world.story();
    story.push(match outcome {
        Ok(counts) => format!("{counts:?}"),
        Err(broken) => broken.to_string(),
    });
    story
}

/// What a failing seed looks like to its reader.
#[must_use]
pub fn report(seed: u64, fault: Fault, traffic: Traffic) -> String {
    format!(
        "{}\nseed {seed}, fault {fault:?}, traffic {traffic:?}\n\
         cargo run --release -p motemq-tests --bin simulate -- --seed {seed} --verbose",
        story(seed, fault, traffic).join("\n")
    )
}

fn guarded(world: &mut World) -> Result<Counts, Broken> {
    match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            ledger::broken(Rule::Panic, text.unwrap_or_default())
        }
    }
}
