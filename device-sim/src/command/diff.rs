//! `motemq-sim diff`: two reports side by side.
//!
//! Exit codes, as of diff(1): 0 plan and outcome are equal, 1 they differ, 2 they cannot be compared.

use crate::diff::{Parsed, compare};
use clap::Args;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXIT_TROUBLE: u8 = 2;

/// Compares two reports: of one broker before and after, or of two brokers under one plan.
///
/// Plan and outcome must be equal for equal seeds; measurements are set against each other.
#[derive(Args, Debug)]
pub(super) struct DiffArguments {
    /// The JSON of a run.
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// The JSON of another one.
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// Write the comparison as JSON.
    #[arg(long)]
    json: bool,
}

/// Compares; what to print and how to end. Errors go to standard error.
pub(super) fn diff(arguments: &DiffArguments) -> (String, ExitCode) {
    let comparison = match (read(&arguments.a), read(&arguments.b)) {
        (Ok(a), Ok(b)) => compare(&a, &b),
        (Err(error), _) | (_, Err(error)) => {
            let _ = writeln!(io::stderr(), "motemq-sim: {error}");
            return (String::new(), ExitCode::from(EXIT_TROUBLE));
        }
    };
    let code = if comparison.equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    if !arguments.json {
        return (comparison.to_string(), code);
    }
    match serde_json::to_string_pretty(&comparison) {
        Ok(text) => (text + "\n", code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "motemq-sim: {error}");
            (String::new(), ExitCode::from(EXIT_TROUBLE))
        }
    }
}

fn read(path: &Path) -> Result<Parsed, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Parsed::read(&bytes).map_err(|error| format!("{} {error}", path.display()))
}
