//! Clients in other languages: the scripts in `tests/clients`, one JSON line for each check that holds.

use super::site::Site;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn paho_over_every_transport() {
    check(
        &|| python("paho_check.py"),
        &["tcp", "tls", "ws", "wss", "unix"],
    );
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn aiomqtt_over_every_transport() {
    check(
        &|| python("aiomqtt_check.py"),
        &["tcp", "tls", "ws", "wss", "unix"],
    );
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn gmqtt_over_tcp_and_mutual_tls() {
    check(&|| python("gmqtt_check.py"), &["tcp", "tls"]);
}

/// Needs `NODE_PATH`, where `npm ci` has put the packages of `tests/clients/package.json`.
#[test]
#[ignore = "needs programs that .ci/run installs"]
fn mqttjs_over_tcp_mutual_tls_and_websocket() {
    check(&|| node("mqttjs_check.cjs"), &["tcp", "tls", "ws", "wss"]);
}

pub(super) fn python(script: &str) -> Command {
    program("python3", script)
}

fn node(script: &str) -> Command {
    program("node", script)
}

fn program(interpreter: &str, script: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(folder().join(script));
    command
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs a script in both versions over each transport; every check must have been made.
fn check(script: &dyn Fn() -> Command, transports: &[&str]) {
    let site = Site::start();
    for version in ["3.1.1", "5"] {
        for over in transports {
            let mut command = script();
            command.args([version, over]).args(site.reach(over));
            let made: Vec<String> = succeed(&mut command)
                .lines()
                .map(|line| {
                    let told: Value = serde_json::from_str(line).unwrap();
                    assert_eq!(told["version"], version, "{told}");
                    assert_eq!(told["over"], *over, "{told}");
                    told["check"].as_str().unwrap().to_owned()
                })
                .collect();
            assert_eq!(made, CHECKS, "MQTT {version} over {over}");
        }
    }
}

/// What the program prints; its messages when it fails.
pub(super) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{command:?}:\n{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    told.into_owned()
}

const CHECKS: [&str; 8] = [
    "live",
    "granted_qos",
    "retained",
    "will",
    "wildcard",
    "unsubscribe",
    "resume",
    "shared",
];
