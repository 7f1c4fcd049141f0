//! The command line of the fleet simulator; the library's `command` has it.

use std::process::ExitCode;

fn main() -> ExitCode {
    motemq_sim::command::main()
}
