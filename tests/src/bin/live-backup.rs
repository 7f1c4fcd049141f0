//! A live backup under load, restored and proven: `live-backup --rate 5000 --seconds 30`.
//!
//! Runs the binary named by `MOTEMQ_BIN`, or `target/release/motemq`. Ends with 0 when nothing is missing.
#![expect(clippy::print_stdout, reason = "its output is for a reader")]

use motemq_tests::kill_ledger::broker::binary;
use motemq_tests::live_backup::{Plan, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut plan = Plan {
        rate: 5000,
        duration: Duration::from_secs(30),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (name.as_str(), value) {
            ("--rate", Some(value)) => plan.rate = value,
            ("--seconds", Some(value)) => plan.duration = Duration::from_secs(value),
            _ => {
                println!("usage: live-backup [--rate N] [--seconds N]");
                return ExitCode::FAILURE;
            }
        }
    }
    match run(&binary(), plan) {
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
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
