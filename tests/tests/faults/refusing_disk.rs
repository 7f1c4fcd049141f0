//! Writes and syncs that fail at the n-th call, by a library that is loaded in front of libc.

use crate::site::{Ledger, Site};
use motemq_codec::{AckKind, ReasonCode};
use motemq_tests::peer::{Got, Hello};
use motemq_tests::power_loss::Chance;
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(super) fn fails_while_it_runs() {
    let shim = Shim::new();
    let mut chance = Chance::new(5);
    for call in ["sync", "write"] {
        for last in [3, 12, 60, 250] {
            let at = chance.between(1, last);
            let lasts = chance.per_mille(500);
            println!("the {at}th {call} after the start fails, lasting: {lasts}");
            let data = tempfile::tempdir().unwrap();
            let mut site = Site::new(data.path(), "journal_bytes_max = \"1MiB\"");
            // The store is made and the session subscribed before faults are counted.
            site.start();
            site.subscribe_keeper();
            site.broker.kill().unwrap();
            let fired = site.broker.folder().join("fired");
            site.start_by(&shim.variables("EIO", call, Counted::OnceListening, at, lasts, &fired));
            site.start();
            let mut ledger = Ledger::default();
            publish_until_the_end(&site, &mut ledger, &fired);
            check_end(&mut site);
            check_restart(&mut site, &ledger);
        }
    }
}

pub(super) fn fails_while_it_recovers() {
    let shim = Shim::new();
    let data = tempfile::tempdir().unwrap();
    let mut site = Site::new(data.path(), "journal_bytes_max = \"1MiB\"");
    site.start();
    site.subscribe_keeper();
    let mut ledger = Ledger::default();
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    for round in 0..6 {
        let mut publisher_again = Client::connect(site.port(), &Hello::clean("again"));
        for _ in 0..40 {
            ledger.publish(&mut publisher_again, 3000);
        }
        site.broker.kill().unwrap();
        let (call, at) = (["sync", "write"][round % 2], 1 + round as u64 / 2);
        let fired = site.broker.folder().join("fired");
        site.start_by(&shim.variables("EIO", call, Counted::FromTheStart, at, true, &fired));
        site.broker.spawn().unwrap();
        // An open store may need less than `at` calls before it is ready: then it runs until the first commit.
        let watch = Stopwatch::start();
        let status = loop {
            if let Some(status) = site.broker.ended().unwrap() {
                break status;
            }
            if let Ok(socket) = std::net::TcpStream::connect(("127.0.0.1", site.port())) {
                drop(socket);
                let mut client = Client::open(site.port(), motemq_codec::ProtocolVersion::V5);
                client.send_bytes(&Hello::durable("provoker").bytes());
                let _ = client.take();
            }
            assert!(watch.elapsed() < PATIENCE, "{}", site.log());
        };
        println!("the {at}th {call} of the recovery failed: {status}");
        assert!(fired.exists());
        assert_eq!(status.code(), Some(1), "{}", site.log());
        assert!(site.log().contains("Input/output error"), "{}", site.log());
        std::fs::remove_file(&fired).unwrap();
        site.start_by("");
        site.start();
        publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    }
    ledger.publish_until_accepted(&mut publisher, 100);
    ledger.assert_kept(&Ledger::drain(&site, usize::MAX));
}

pub(super) fn recovers_from_what_passes() {
    let shim = Shim::new();
    for (kind, call, at) in [
        ("SHORT", "write", 5),
        ("ENOSPC", "write", 9),
        ("ENOSPC", "write", 70),
        ("ENOSPC", "sync", 7),
    ] {
        println!("{kind} at the {at}th {call}");
        let data = tempfile::tempdir().unwrap();
        let mut site = Site::new(data.path(), "journal_bytes_max = \"1MiB\"");
        site.start();
        site.subscribe_keeper();
        site.broker.kill().unwrap();
        let fired = site.broker.folder().join("fired");
        let lasts = kind == "SHORT";
        site.start_by(&shim.variables(kind, call, Counted::OnceListening, at, lasts, &fired));
        site.start();
        let mut ledger = Ledger::default();
        let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
        for _ in 0..100 {
            // Refused for a moment, then taken.
            ledger.publish_until_accepted(&mut publisher, 2000);
        }
        assert!(fired.exists(), "the fault has not happened");
        match (kind, call) {
            // The reserve takes it.
            ("ENOSPC", "write") => {
                assert!(
                    site.log().contains("gives its reserve up"),
                    "{}",
                    site.log()
                );
            }
            ("ENOSPC", _) => {
                assert!(site.metric("mqtt_broker_storage_full_total") >= 1.0);
                assert!(site.log().contains("the disk is full"), "{}", site.log());
            }
            _ => {}
        }
        site.start_by("");
        site.kill_and_restart();
        ledger.assert_kept(&Ledger::drain(&site, usize::MAX));
    }
}

/// Publishes in batches at QoS 1 and 2 until the broker is gone. Once the fault has happened and everything that was on its
/// way before it is read, nothing may be acknowledged.
fn publish_until_the_end(site: &Site, ledger: &mut Ledger, fired: &Path) {
    let mut publisher = Client::open(site.port(), motemq_codec::ProtocolVersion::V5);
    publisher.send_bytes(&Hello::clean("publisher").bytes());
    if !matches!(publisher.take(), Some(Got::ConnAck(..))) {
        return;
    }
    let watch = Stopwatch::start();
    let mut is_over = false;
    loop {
        assert!(watch.elapsed() < 2 * PATIENCE, "{}", site.log());
        let first = ledger.next;
        let batch = ledger.batch(40, 1500);
        publisher.send_bytes(&batch);
        let mut answers = 0;
        while answers < 60 {
            // The shim makes its mark a second before the call returns: what was released earlier is read by then.
            let has_fired = fired.exists();
            match publisher.take_within(Duration::from_millis(50)) {
                Some(Got::Ack(kind, id, code)) => {
                    assert!(!is_over, "{kind} {id} after the fault");
                    assert_eq!(code, ReasonCode::Success);
                    answers += 1;
                    if kind == "PUBREC" {
                        publisher.ack(AckKind::PubRel, id);
                    }
                    if kind != "PUBCOMP" {
                        ledger.acknowledged.insert(first + usize::from(id) - 1);
                    }
                }
                Some(Got::Disconnect(_)) => {}
                None if publisher.is_closed() => return,
                None => is_over = has_fired,
                other => panic!("{other:?}"),
            }
            assert!(watch.elapsed() < 2 * PATIENCE, "{}", site.log());
        }
    }
}

/// It ends with an error, and says which file refused what.
fn check_end(site: &mut Site) {
    let status = site.await_end();
    let log = site.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the store has failed"), "{log}");
    assert!(log.contains("Input/output error"), "{log}");
    assert!(
        log.contains("store.redb"),
        "the log does not name the file: {log}"
    );
}

fn check_restart(site: &mut Site, ledger: &Ledger) {
    site.start_by("");
    site.start();
    ledger.assert_kept(&Ledger::drain(site, usize::MAX));
}

/// Which calls count.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Counted {
    /// Those that open the store too.
    FromTheStart,
    /// Those after the broker listens.
    OnceListening,
}

/// The library.
struct Shim {
    folder: tempfile::TempDir,
}

impl Shim {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
            .arg(folder.path().join("shim.so"))
            .arg(source)
            .arg("-ldl")
            .status()
            .expect("a C compiler");
        assert!(status.success());
        Self { folder }
    }

    /// The variables that tell it what to do, in front of a command.
    fn variables(
        &self,
        kind: &str,
        call: &str,
        counted: Counted,
        at: u64,
        lasts: bool,
        fired: &Path,
    ) -> String {
        let library: PathBuf = self.folder.path().join("shim.so");
        format!(
            "export FAULT_KIND={kind} FAULT_CALL={call} FAULT_AT={at} FAULT_LASTS={} FAULT_WAITS={} FAULT_MARK={} LD_PRELOAD={};",
            u8::from(lasts),
            u8::from(counted == Counted::OnceListening),
            fired.display(),
            library.display()
        )
    }
}
