//! Names the commit of a release build: `BUILD_COMMIT`, or what git says (a name with MOTEMQ_ would be a key of the configuration). Other builds are made many times between two commits, and
//! say "unknown".

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    let named = env::var("BUILD_COMMIT")
        .ok()
        .filter(|name| !name.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = named.or_else(|| is_release.then(head).flatten());
    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
}

/// The commit that is checked out, if this is a clone and git is there.
fn head() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let is_said = output.status.success() && !text.trim().is_empty();
        is_said.then(|| text.trim().to_owned())
    };
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    git(&["rev-parse", "--short=12", "HEAD"])
}
