//! What an operator types, against a broker in a process of its own.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

#[test]
fn clients_subscriptions_and_retained_messages_are_shown_and_removed() {
    let site = Site::start();
    site.succeeds(&[
        "pub", "-p", &site.port, "-t", "door/1", "-m", "open", "-r", "-q", "1",
    ]);
    let away = ["-i", "meter-17", "-c", "-q", "1", "-t", "home/#", "-W", "1"];
    // It ends because nothing comes, which is no success.
    site.run(&[&["sub", "-p", &site.port], &away[..]].concat());
    for text in ["one", "two"] {
        site.succeeds(&[
            "pub", "-p", &site.port, "-t", "home/a", "-m", text, "-q", "1",
        ]);
    }

    let clients = site.succeeds(&["clients", "meter-*"]);
    let row: Vec<_> = clients.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["meter-17", "-", "offline", "mqtt"], "{clients}");
    let line = site.succeeds(&["clients", "--sort", "queue-messages", "--json"]);
    let item: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_eq!(item["queue_messages"], 2);
    let shown = site.succeeds(&["client", "show", "meter-17"]);
    assert!(
        shown.contains("home/#") && shown.contains("kind=connected"),
        "{shown}"
    );
    assert!(site.succeeds(&["subs"]).contains("home/#"));
    assert!(
        site.succeeds(&["retained", "ls", "door/+"])
            .contains("door/1")
    );
    assert_eq!(site.succeeds(&["retained", "get", "door/1"]), "open");
    site.succeeds(&["retained", "rm", "door/1"]);
    let status: serde_json::Value =
        serde_json::from_str(&site.succeeds(&["status", "--json"])).unwrap();
    assert_eq!(
        (&status["sessions"], &status["retained"]),
        (&1.into(), &0.into())
    );
    site.succeeds(&["client", "purge", "meter-17"]);
    for gone in [
        &["client", "show", "meter-17"][..],
        &["client", "kick", "meter-17"],
        &["client", "purge", "meter-17"],
        &["retained", "get", "door/1"],
        &["retained", "rm", "door/1"],
    ] {
        assert_eq!(site.run(gone).status.code(), Some(4), "{gone:?}");
    }
}

#[test]
fn without_a_broker_the_error_names_the_socket() {
    let mut site = Site::start();
    site.broker.kill().unwrap();
    site.broker.wait().unwrap();
    for command in [
        &["clients"][..],
        &["status"],
        &["subs"],
        &["retained", "ls"],
    ] {
        let output = site.run(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("admin.sock"), "{error}");
    }
}

/// A broker in a process of its own.
struct Site {
    folder: TempDir,
    broker: Child,
    port: String,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = "data_dir = \"data\"\n\
            [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
            [http]\nbind = \"\"\n";
        std::fs::write(folder.path().join("motemq.toml"), configuration).unwrap();
        let mut broker = command(&folder, &["run"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(broker.stderr.take().unwrap());
        let (mut line, mut port) = (String::new(), String::new());
        while !line.contains(" ready ") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the broker ended");
            if let Some((_, address)) = line.split_once("address=127.0.0.1:") {
                address.trim().clone_into(&mut port);
            }
        }
        // The rest of the log goes nowhere, but somewhere.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            folder,
            broker,
            port,
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        command(&self.folder, args).output().unwrap()
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.broker.kill();
        let _ = self.broker.wait();
    }
}

fn command(folder: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motemq"));
    command
        .args(args)
        .current_dir(folder.path())
        .env("MOTEMQ_CONFIG", folder.path().join("motemq.toml"));
    command
}
