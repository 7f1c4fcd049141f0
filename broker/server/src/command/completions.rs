//! `motemq completions`: what a shell needs to complete the words of `motemq`.

use clap_complete::Shell;
use std::io::Write as _;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

const EXAMPLES: &str = "Examples:
  motemq completions bash > /etc/bash_completion.d/motemq
  motemq completions zsh > ~/.zfunc/_motemq
  motemq completions fish > ~/.config/fish/completions/motemq.fish";

pub(crate) fn run(args: &CompletionsArgs, mut command: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "motemq", &mut script);
    // Whoever closed standard output has seen enough.
    let _ = std::io::stdout().write_all(&script);
    ExitCode::SUCCESS
}
