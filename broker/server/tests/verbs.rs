//! The verbs of `motemq` as an operator meets them: what they print, how they end, and what they say where no broker runs.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

#[test]
fn health_is_asked_for_at_the_socket_and_the_answer_is_the_exit_code() {
    let site = Site::new("");
    let told = site.run(&["healthcheck"]);
    assert_eq!(told.code, 1);
    let socket = site.path("data/admin.sock");
    assert!(told.err.contains(socket.to_str().unwrap()), "{}", told.err);
    assert!(
        told.err.contains("start it with motemq run"),
        "{}",
        told.err
    );
    assert_eq!(site.run(&["healthcheck", "--json"]).json()["ready"], false);

    let _broker = site.start();
    let told = site.run(&["healthcheck"]);
    assert_eq!((told.code, told.out.as_str()), (0, "ready\n"));
    let told = site.run(&["healthcheck", "--json"]).json();
    assert_eq!(
        (&told["ready"], &told["at"]),
        (&true.into(), &socket.to_str().unwrap().into())
    );
}

#[test]
fn a_port_that_does_not_answer_as_a_broker_is_not_healthy() {
    let site = Site::new("");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let told = site.run(&["healthcheck", "--timeout", "1", "--url", &url]);
    assert_eq!(told.code, 1);
    assert!(
        told.err.contains("does not answer within 1 s"),
        "{}",
        told.err
    );
    assert_eq!(site.run(&["healthcheck", "--timeout", "0"]).code, 2);
}

#[test]
fn the_doctor_looks_at_everything_and_warnings_are_no_failure() {
    let site = Site::new("");
    let report = site.run(&["doctor", "--json"]);
    assert_eq!(report.code, 0, "{}", report.out);
    let report = report.json();
    let checks: Vec<_> = findings(&report)
        .map(|found| found["check"].clone())
        .collect();
    for check in ["configuration", "open files", "clock", "disk", "broker"] {
        assert!(
            checks.contains(&check.into()),
            "{check} is not in {checks:?}"
        );
    }
    for found in findings(&report).filter(|found| found["verdict"] != "ok") {
        assert!(
            found["hint"].as_str().is_some_and(|hint| hint.len() > 5),
            "{found}"
        );
    }
    let human = site.run(&["doctor"]);
    assert_eq!(human.code, 0);
    assert!(human.out.contains("0 failed, "), "{}", human.out);

    let _broker = site.start();
    let report = site.run(&["doctor", "--json"]).json();
    assert!(
        message(&report, "broker").contains("a broker answers"),
        "{report}"
    );
    assert!(message(&report, "disk").contains("free of"), "{report}");
    let syncs = findings(&report).any(|found| found["message"].to_string().contains("p99"));
    assert!(syncs, "{report}");
}

#[test]
fn the_doctor_fails_where_the_broker_would() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let site = Site::new("");
    let told = site.run(&["doctor", "--set", &format!("listeners.mqtt.bind={address}")]);
    assert_eq!(told.code, 1, "{}", told.out);
    assert!(
        told.out
            .contains(&format!("listener mqtt: {address} cannot be had")),
        "{}",
        told.out
    );
    assert!(told.out.contains("ss -ltnp"), "{}", told.out);

    let told = site.run(&["doctor", "--set", "auth.acl_file=absent"]);
    assert_eq!(told.code, 1);
    assert!(told.out.contains("failed   configuration"), "{}", told.out);
    let told = site.run(&[
        "doctor",
        "--json",
        "--set",
        "limits.receive_maximum=0",
        "--set",
        "x=1",
    ]);
    assert_eq!(told.code, 1);
    let report = told.json();
    assert_eq!(report["verdict"], "failed");
    let mistakes = findings(&report).filter(|found| found["check"] == "configuration");
    assert_eq!(mistakes.count(), 2, "{report}");

    std::fs::create_dir(site.path("data")).unwrap();
    std::fs::write(site.path("data/api.token"), "0123456789012345678901234").unwrap();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(site.path("data/api.token"), open).unwrap();
    let told = site.run(&["doctor"]);
    assert_eq!(told.code, 1);
    assert!(told.out.contains("chmod 600"), "{}", told.out);
}

#[test]
fn completions_and_manual_name_every_verb() {
    let site = Site::new("");
    for shell in ["bash", "zsh", "fish"] {
        let told = site.bare(&["completions", shell]);
        assert_eq!(told.code, 0);
        for verb in ["healthcheck", "doctor", "drops"] {
            assert!(told.out.contains(verb), "{shell} {verb}");
        }
    }
    assert_eq!(site.bare(&["completions", "dos"]).code, 2);
    let page = site.bare(&["man"]);
    assert!(
        page.code == 0 && page.out.contains(".TH motemq 1"),
        "{}",
        page.out
    );
    let told = site.bare(&["man", "--out", "pages"]);
    assert_eq!(told.code, 0, "{}", told.err);
    for page in [
        "motemq.1",
        "motemq-run.1",
        "motemq-doctor.1",
        "motemq-ban-add.1",
    ] {
        assert!(site.path("pages").join(page).exists(), "{page}");
    }
}

fn findings(report: &Value) -> impl Iterator<Item = &Value> {
    report["findings"].as_array().unwrap().iter()
}

fn message(report: &Value, check: &str) -> String {
    let found = findings(report).find(|found| found["check"] == check);
    found.unwrap()["message"].as_str().unwrap().to_owned()
}

/// A folder with a configuration.
struct Site {
    folder: TempDir,
}

/// What a command did.
struct Told {
    code: i32,
    out: String,
    err: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

impl Site {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = format!(
            "data_dir = \"data\"\n[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n[http]\nbind = \"\"\n{more}"
        );
        std::fs::write(folder.path().join("motemq.toml"), configuration).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_motemq"));
        command.args(arguments).current_dir(self.folder.path());
        command.env_remove("RUST_LOG").env("NO_COLOR", "1");
        command
    }

    /// With the configuration.
    fn run(&self, arguments: &[&str]) -> Told {
        let configuration = self.path("motemq.toml");
        let configuration = ["-c", configuration.to_str().unwrap()];
        self.bare(&[arguments, &configuration].concat())
    }

    fn bare(&self, arguments: &[&str]) -> Told {
        let output = self.command(arguments).output().unwrap();
        Told {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a broker until it is ready.
    fn start(&self) -> Broker {
        let mut command = self.command(&["run", "-c", "motemq.toml"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let broker = Broker(child);
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it has not started");
        }
        // Nobody reads on: what it logs later goes nowhere.
        broker
    }
}

/// A broker that runs; killed when dropped.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
