//! The broker's default configuration under attack: `siege --malformed 1000000 --half-open 18000 --hold-s 10`.
//!
//! Runs the binary named by `MOTEMQ_BIN`, or `target/release/motemq`. Ends with 0 when the bystander noticed nothing.
#![expect(clippy::print_stdout, reason = "its output is for a reader")]

use motemq_tests::kill_ledger::broker::binary;
use motemq_tests::siege::{Plan, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut plan = Plan {
        malformed: 1_000_000,
        half_open: 18_000,
        hold: Duration::from_secs(10),
        memory_bytes_max: 512 << 20,
        patience: Duration::from_millis(100),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value: Option<u64> = arguments.next().and_then(|value| value.parse().ok());
        match (name.as_str(), value) {
            ("--malformed", Some(value)) => plan.malformed = value,
            ("--half-open", Some(value)) => {
                plan.half_open = usize::try_from(value).unwrap_or(usize::MAX);
            }
            ("--hold-s", Some(value)) => plan.hold = Duration::from_secs(value),
            ("--memory-mib", Some(value)) => plan.memory_bytes_max = value << 20,
            ("--patience-ms", Some(value)) => plan.patience = Duration::from_millis(value),
            _ => {
                println!(
                    "usage: siege [--malformed N] [--half-open N] [--hold-s N] [--memory-mib N] [--patience-ms N]"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    match run(&binary(), plan) {
        Ok(verdict) => {
            println!("{verdict}");
            for story in &verdict.stories {
                println!("{story}");
            }
            match verdict.stories.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            println!("{error:?}: cargo build --release");
            ExitCode::FAILURE
        }
    }
}
