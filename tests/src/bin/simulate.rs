//! Runs the simulation for as long as one likes.
//!
//! `simulate --seeds N [--start S] [--failures F]` stops at the F-th failing seed and tells its story;
//! `simulate --seed X --verbose` tells the story of one.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for the terminal, which says how fast it was"
)]

use motemq_tests::simulation::{self, Fault, Traffic};
use std::time::Instant;

fn main() {
    let options: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let place = options.iter().position(|option| option == name)?;
        options.get(place + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--seed") {
        println!("{}", simulation::report(seed, Fault::None, Traffic::Mixed));
        return;
    }
    let start = number("--start").unwrap_or(0);
    let seeds = number("--seeds").unwrap_or(10_000);
    let failures_max = number("--failures").unwrap_or(1);
    let began = Instant::now();
    let mut failures = 0;
    let (mut published, mut delivered, mut crashes) = (0, 0, 0);
    for seed in start..start + seeds {
        match simulation::run(seed, Fault::None, Traffic::Mixed) {
            Ok(counts) => {
                published += counts.published;
                delivered += counts.delivered;
                crashes += counts.crashes;
            }
            Err(broken) => {
                println!("seed {seed}: {broken}");
                failures += 1;
                if failures >= failures_max {
                    println!("{}", simulation::report(seed, Fault::None, Traffic::Mixed));
                    std::process::exit(1);
                }
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds from {start} in {seconds:.1} s, {:.0} a second: {published} published, {delivered} delivered, {crashes} crashes",
        seeds as f64 / seconds
    );
}
