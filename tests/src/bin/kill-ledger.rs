//! kill -9 on the real broker under mixed QoS 1 and 2 load: `kill-ledger --kills 50 --seed 1`.
//!
//! Runs the binary named by `MOTEMQ_BIN`, or `target/release/motemq`. Ends with 0 when the ledger adds up.
#![expect(clippy::print_stdout, reason = "its output is for a reader")]

use motemq_tests::kill_ledger::broker::{BrokerError, binary};
use motemq_tests::kill_ledger::{Plan, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut plan = Plan { kills: 50, seed: 1 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (name.as_str(), value) {
            ("--kills", Some(value)) => plan.kills = u32::try_from(value).unwrap_or(u32::MAX),
            ("--seed", Some(value)) => plan.seed = value,
            _ => {
                println!("usage: kill-ledger [--kills N] [--seed N]");
                return ExitCode::FAILURE;
            }
        }
    }
    let binary = binary();
    if !binary.exists() {
        println!("{} is missing: cargo build --release", binary.display());
        return ExitCode::FAILURE;
    }
    match run(&binary, plan) {
        Ok(verdict) => {
            for story in &verdict.stories {
                println!("{story}");
            }
            println!("{verdict}");
            if verdict.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(BrokerError::Ended(status, log)) => {
            println!("the broker ended by itself ({status}):\n{log}");
            ExitCode::FAILURE
        }
        Err(BrokerError::Silent(log)) => {
            println!("the broker does not listen:\n{log}");
            ExitCode::FAILURE
        }
        Err(BrokerError::Io(error)) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
