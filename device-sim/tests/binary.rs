//! The program as its users meet it: signals, exit codes, files that cannot be written.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[expect(dead_code, reason = "other tests of this folder use more of it")]
mod double;

use double::{Double, Fault};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

#[test]
fn who_is_told_to_end_drains_tidies_up_and_reports() {
    for signal in signals() {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("run.json");
        let mut fleet = Fleet::start(Fault::None, "1h", &json);
        fleet.wait_until_something_arrived();
        fleet.signal(signal);
        let (code, report) = fleet.end();
        // An interrupted run proves nothing.
        assert_eq!(code, Some(1), "{signal}: {report}");
        assert!(report.contains("it was interrupted"), "{signal}: {report}");
        assert!(report.ends_with("lost 0\n"), "{signal}: {report}");
        assert!(!report.contains("remain on the broker"), "{report}");
        assert!(json.is_file());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn who_is_told_to_end_before_the_run_began_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(Fault::Late, "1h", &folder.path().join("run.json"));
    // The verifier is connected and waits for the answer to its subscription.
    fleet.broker.wait_for_a_connection();
    fleet.signal("TERM");
    let (code, report) = fleet.end();
    assert_eq!((code, report.as_str()), (Some(1), ""));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_report_that_cannot_be_written_changes_no_verdict_and_is_printed() {
    for (fault, verdict) in [(Fault::None, 1), (Fault::Drop, 99)] {
        let folder = tempfile::tempdir().unwrap();
        let mut fleet = Fleet::start(fault, "3s", &folder.path().join("run.json"));
        fleet.wait_until_something_arrived();
        folder.close().unwrap();
        let (code, report) = fleet.end();
        assert_eq!(code, Some(verdict), "{fault:?}: {report}");
        assert!(report.contains("generator lag"), "{fault:?}: {report}");
    }
}

#[test]
fn a_proxy_that_is_told_to_end_prints_its_totals() {
    for signal in signals() {
        let mut proxy = simulator("proxy --listen 127.0.0.1:0 --link lte-m");
        let mut errors = BufReader::new(proxy.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert!(line.contains("Ctrl-C ends it"), "{line}");
        kill(&proxy, signal);
        let Output { status, stdout, .. } = proxy.wait_with_output().unwrap();
        assert!(status.success(), "{signal}");
        let text = String::from_utf8(stdout).unwrap();
        assert!(text.starts_with("total of 0 connections: "), "{text}");
    }
}

#[test]
fn a_bench_refuses_a_report_that_cannot_be_written_before_it_measures() {
    // Nobody listens at this port: whoever measures first says so.
    let bench = simulator("bench conn -h 127.0.0.1 -p 1 --json /nonexistent/x.json");
    let output = bench.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("its folder does not exist"), "{errors}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_text_that_cannot_be_printed_is_no_success() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motemq-sim"));
    command.arg("links").stderr(Stdio::piped());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("standard output"), "{errors}");
}

/// A run of the program.
struct Fleet {
    broker: Double,
    process: Child,
    errors: BufReader<ChildStderr>,
}

impl Fleet {
    fn start(fault: Fault, duration: &str, json: &Path) -> Self {
        let broker = Double::start(fault);
        let (port, json) = (broker.port(), json.display());
        let mut process = simulator(&format!(
            "run --broker mqtt://127.0.0.1:{port} --devices 1 --every 20ms --qos 2 --duration {duration} --drain 1s --json {json}"
        ));
        let errors = BufReader::new(process.stderr.take().unwrap());
        Self {
            broker,
            process,
            errors,
        }
    }

    fn wait_until_something_arrived(&mut self) {
        let mut line = String::new();
        while line.is_empty() || line.contains("arrived 0 ") {
            line.clear();
            assert!(self.errors.read_line(&mut line).unwrap() > 0);
        }
    }

    fn signal(&self, name: &str) {
        kill(&self.process, name);
    }

    /// The exit code and what was printed.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.errors.read_to_string(&mut rest).unwrap();
        let output = self.process.wait_with_output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), report)
    }
}

fn simulator(arguments: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motemq-sim"));
    command.args(arguments.split(' '));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Those that end a run; whoever ignores SIGHUP, as under nohup, passes that on to what it starts.
fn signals() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mut signals = vec!["INT", "TERM"];
    if ignored.is_some_and(|mask| mask & 1 == 0) {
        signals.push("HUP");
    }
    signals
}

fn kill(process: &Child, signal: &str) {
    let mut command = Command::new("kill");
    command.args(["-s", signal, &process.id().to_string()]);
    assert!(command.status().unwrap().success());
}
