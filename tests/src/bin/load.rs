//! One load at a running broker: `load NAME port=PORT [name=value …]`; see `tests/src/load/`. Prints one line of JSON.
#![expect(clippy::print_stdout, reason = "its output is for a script")]

use motemq_tests::load::{Options, chatter, fill, fleet, offline};
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<String> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let options = Options::parse(arguments)?;
    // One thread: the broker under test shares the machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match name.as_str() {
            "chatter" => chatter(&options).await,
            "fleet" => fleet(&options).await,
            "fill" => fill(&options).await,
            "offline" => offline(&options).await,
            _ => Err(io::Error::other(
                "usage: load chatter|fill|fleet|offline port=PORT …",
            )),
        }
    })
}
