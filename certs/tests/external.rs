//! What was issued, in the eyes of OpenSSL and Python, and how curl gets it.
//!
//! Needs openssl, curl, a C compiler and python3 with the packages that `tests/clients` names; `.ci/run` provides them.
#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod external {
    mod chains;
    mod est;
    mod forms;

    use std::path::Path;
    use std::process::{Command, Output};

    /// Runs a program in `folder`.
    fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder);
        command.output().unwrap()
    }

    /// Runs a program that should succeed; returns what it prints.
    fn printed(folder: &Path, program: &str, arguments: &[&str]) -> String {
        let output = run(folder, program, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {errors}{}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the tool, which should succeed.
    fn certs(folder: &Path, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        printed(folder, env!("CARGO_BIN_EXE_motemq-certs"), &arguments)
    }
}
