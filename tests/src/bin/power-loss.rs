//! Cuts the power under the real store, many times: `power-loss --images 20000 --double 20000 --seed 1`.
//!
//! Ends with 0 when nothing acknowledged was lost and nothing is corrupt; with `--lies 50` (of 1000 fsyncs so many do
//! nothing) a sound checker ends with 1. `--world S` runs one world and tells what it found. `--flips N` flips N bits in
//! closed stores instead, one at a time.
#![expect(clippy::print_stdout, reason = "its output is for a reader")]

use motemq_tests::power_loss::{Plan, RotTotals, Totals, World, flip_bits, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut plan = Plan {
        images: 20_000,
        doubles: 20_000,
        seed: 1,
        lies_per_mille: 0,
        workers: std::thread::available_parallelism().map_or(1, Into::into),
    };
    let mut world = None;
    let mut flips = 0;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let Some(value) = arguments.next().and_then(|value| value.parse().ok()) else {
            println!("{name} needs a number");
            return ExitCode::FAILURE;
        };
        match name.as_str() {
            "--images" => plan.images = value,
            "--double" => plan.doubles = value,
            "--seed" => plan.seed = value,
            "--lies" => plan.lies_per_mille = value,
            "--world" => world = Some(value),
            "--flips" => flips = value,
            _ => {
                println!(
                    "unknown: {name} (--images N --double N --seed N --lies N --world N --flips N)"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if let Some(seed) = world {
        let outcome = World::new(seed, plan.lies_per_mille).live(&mut Totals::default());
        println!("world {seed}: {outcome:?}");
        return if outcome.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    // A panic is a finding, and told as one.
    std::panic::set_hook(Box::new(|_| ()));
    if flips > 0 {
        return rot(plan.seed, flips);
    }
    let totals = run(plan);
    for story in &totals.stories {
        println!("{story}");
    }
    println!(
        "{} power-loss images and {} double crashes ({} worlds from seed {}, {} commits, {} images with the commit in \
         flight, {} bodies read): {} lost, {} corrupt",
        totals.images,
        totals.doubles,
        totals.worlds,
        plan.seed,
        totals.commits,
        totals.in_flight,
        totals.bodies,
        totals.lost,
        totals.corrupt
    );
    if totals.lost + totals.corrupt == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn rot(seed: u64, flips: u64) -> ExitCode {
    let mut totals = RotTotals::default();
    for seed in seed.. {
        if totals.flips >= flips {
            break;
        }
        match flip_bits(seed, FLIPS_PER_STORE) {
            Ok(found) => totals.add(found),
            Err(violation) => {
                println!("seed {seed}: {violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    for story in totals.silent.iter().chain(&totals.panics) {
        println!("{story}");
    }
    println!(
        "{} flipped bits: {} harmless, {} refused by name, {} answered by a panic of redb, {} unnoticed",
        totals.flips,
        totals.harmless,
        totals.refused,
        totals.panics.len(),
        totals.silent.len()
    );
    if totals.silent.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Bits flipped in each store.
const FLIPS_PER_STORE: u64 = 500;
