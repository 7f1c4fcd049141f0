//! `motemq man`: manual pages, made of what `--help` says.

use super::say;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// Write motemq.1 and a page for each verb (motemq-run.1 ...) to this folder; without it, motemq.1 goes to standard output.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs, command: clap::Command) -> ExitCode {
    match &args.out {
        Some(dir) => write(dir, command),
        None => show(command),
    }
}

fn show(command: clap::Command) -> ExitCode {
    let mut page = Vec::new();
    match clap_mangen::Man::new(command).render(&mut page) {
        Ok(()) => {
            // Whoever closed standard output has seen enough.
            let _ = std::io::stdout().write_all(&page);
            ExitCode::SUCCESS
        }
        Err(error) => crate::fail(&error),
    }
}

fn write(dir: &Path, command: clap::Command) -> ExitCode {
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    match written {
        Ok(()) => {
            say(format_args!(
                "the pages are in {}: read one with man {0}/motemq.1",
                dir.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => crate::fail(&format_args!("{}: {error}", dir.display())),
    }
}
