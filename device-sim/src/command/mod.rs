//! The command line.
//!
//! Exit codes: 0 the broker kept its promises; 1 the run could not take place or proves nothing; 2 wrong
//! usage; 99 acknowledged messages were lost, QoS 2 was delivered twice, the order was broken, or a threshold missed.

mod bench;
mod diff;
mod explain;
mod links;
mod profiles;
mod proxy;
mod run;

use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::process::ExitCode;

/// Simulates fleets of constrained MQTT devices behind narrow links and audits delivery.
#[derive(Debug, Parser)]
#[command(name = "motemq-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a fleet against a broker and report what arrived.
    Run(Box<run::RunArguments>),
    /// Load any broker with plain connections and count what becomes of every message.
    Bench(Box<bench::BenchArguments>),
    /// Compare two reports: plan and outcome must be equal for equal seeds.
    Diff(diff::DiffArguments),
    /// Show the link presets and where their figures come from.
    Links(links::LinksArguments),
    /// Say what a schedule of readings costs on a link: bytes, seconds, MB a month.
    Explain(explain::ExplainArguments),
    /// Put a link between any MQTT client and any broker, and count what crosses it.
    Proxy(proxy::ProxyArguments),
    /// Show the device profiles, and what their messages look like.
    Profiles(profiles::ProfilesArguments),
}

/// What the binary does.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Explain(arguments) => {
            explain::explain_link(arguments).map(|text| (text, ExitCode::SUCCESS))
        }
        Command::Proxy(arguments) => proxy::proxy(arguments).map(|text| (text, ExitCode::SUCCESS)),
        Command::Links(arguments) => Ok((links::links(&arguments), ExitCode::SUCCESS)),
        Command::Diff(arguments) => Ok(diff::diff(&arguments)),
        Command::Bench(arguments) => Ok(bench::bench(*arguments)),
        Command::Profiles(arguments) => Ok((profiles::profiles(&arguments), ExitCode::SUCCESS)),
        Command::Run(arguments) => run::run(*arguments),
    };
    match outcome {
        Ok((text, code)) => {
            let mut output = io::stdout();
            let written = output.write_all(text.as_bytes());
            match written.and_then(|()| output.flush()) {
                // A reader that went away does not change the outcome.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    let _ = writeln!(io::stderr(), "motemq-sim: standard output: {error}");
                    at_least_failure(code)
                }
                _ => code,
            }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "motemq-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for is missing: no success, but a worse verdict stands.
fn at_least_failure(code: ExitCode) -> ExitCode {
    match code {
        ExitCode::SUCCESS => ExitCode::FAILURE,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
