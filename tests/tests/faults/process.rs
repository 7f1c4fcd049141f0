//! No more file descriptors, and a process that is stopped for a while.

use crate::site::{Ledger, Outcome, Site};
use motemq_codec::{ProtocolVersion, ReasonCode};
use motemq_tests::peer::{Got, Hello};
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use std::process::Command;
use std::time::Duration;

pub(super) fn survives_without_descriptors() {
    let data = tempfile::tempdir().unwrap();
    let mut site = Site::new(data.path(), "");
    site.start_by("ulimit -n 64;");
    site.start();
    site.subscribe_keeper();
    let mut bystander = Client::connect(site.port(), &Hello::clean("bystander"));
    let mut ledger = Ledger::default();
    // The kernel takes them all; the broker can accept some forty.
    let crowd: Vec<_> = (0..150)
        .map(|_| {
            let mut client = Client::open(site.port(), ProtocolVersion::V5);
            client.send_bytes(&Hello::clean("").bytes());
            client
        })
        .collect();
    let watch = Stopwatch::start();
    while !is_short(&site) {
        assert!(watch.elapsed() < PATIENCE, "{}", site.log());
        let outcome = ledger.publish(&mut bystander, 3000);
        assert_eq!(outcome, Outcome::Acknowledged);
    }
    for _ in 0..100 {
        let outcome = ledger.publish(&mut bystander, 3000);
        assert_eq!(outcome, Outcome::Acknowledged);
    }
    drop(crowd);
    // Somebody new is let in again, once the broker has seen that the others are gone.
    let watch = Stopwatch::start();
    let mut late = loop {
        let (mut client, _) = Client::connect_for_any(site.port(), &Hello::clean("late"));
        if client.ping().is_some() {
            break client;
        }
        assert!(watch.elapsed() < PATIENCE, "{}", site.log());
    };
    assert_eq!(ledger.publish(&mut late, 3000), Outcome::Acknowledged);
    assert_eq!(bystander.ping(), Some(Vec::new()));
    assert!(
        site.log()
            .lines()
            .filter(|line| line.contains("cannot accept") || line.contains(DESCRIPTORS))
            .count()
            < 1000
    );
    site.start_by("");
    site.kill_and_restart();
    ledger.assert_kept(&Ledger::drain(&site, usize::MAX));
}

/// It keeps some descriptors back, and refuses before the system does.
fn is_short(site: &Site) -> bool {
    let log = site.log();
    log.contains("cannot accept") || log.contains(DESCRIPTORS)
}

const DESCRIPTORS: &str = "limit of open files";

pub(super) fn survives_a_stop() {
    let data = tempfile::tempdir().unwrap();
    let mut site = Site::new(data.path(), "");
    site.start();
    site.subscribe_keeper();
    let hello = Hello {
        keep_alive_s: 1,
        ..Hello::clean("pinger")
    };
    let mut pinger = Client::connect(site.port(), &hello);
    let process = site.broker.process().unwrap().to_string();
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &process]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    // The signal reaches its threads one after the other.
    let is_stopped = || {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        threads.map(Result::unwrap).all(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            status.contains("State:\tT")
        })
    };
    let watch = Stopwatch::start();
    while !is_stopped() {
        assert!(watch.elapsed() < PATIENCE);
    }
    // For twice its keep-alive and more the client does what it should, and gets no answer.
    for _ in 0..8 {
        pinger.send_bytes(&[0xc0, 0]);
        assert_eq!(pinger.take_within(Duration::from_millis(400)), None);
    }
    // The kernel accepts for the broker meanwhile.
    let mut waiting = Client::open(site.port(), ProtocolVersion::V5);
    waiting.send_bytes(&Hello::clean("waiting").bytes());
    signal("-CONT");
    for _ in 0..8 {
        assert_eq!(pinger.take(), Some(Got::PingResp));
    }
    assert_eq!(
        waiting.take(),
        Some(Got::ConnAck(false, ReasonCode::Success))
    );
    let mut ledger = Ledger::default();
    let outcome = ledger.publish(&mut waiting, 100);
    assert_eq!(outcome, Outcome::Acknowledged);
    assert_eq!(pinger.ping(), Some(Vec::new()));
    ledger.assert_kept(&Ledger::drain(&site, usize::MAX));
}
