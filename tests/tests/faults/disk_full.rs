//! A full disk: contracts section 5.

use crate::site::{Ledger, Outcome, Site};
use crate::small_disk::SmallDisk;
use motemq_codec::ReasonCode;
use motemq_tests::peer::{Got, Hello};
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};

pub(super) fn refuses_and_drains() {
    let Some((_disk, mut site)) = small_site("") else {
        return;
    };
    site.start();
    site.subscribe_keeper();
    let mut live = Client::connect(site.port(), &Hello::clean("live"));
    assert_eq!(live.subscribe("live", 1), 1);
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    let mut ledger = Ledger::default();
    assert_eq!(
        ledger.fill(&mut publisher, MESSAGE),
        ReasonCode::QuotaExceeded
    );
    assert!(ledger.acknowledged.len() > 100);
    assert_full_is_told(&site);
    // With a reason for who can read one; 3.1.1 knows no refusal, so the connection ends.
    assert_reason(&site);
    let mut old = Client::connect(site.port(), &Hello::v3("old", true));
    assert_eq!(ledger.publish(&mut old, MESSAGE), Outcome::Closed);
    // What nobody must store goes on.
    for qos in [0, 1] {
        publisher.publish("live", "still", qos, 9);
        assert_eq!(live.take_publish().payload, "still");
    }
    assert_eq!(
        publisher.take(),
        Some(Got::Ack("PUBACK", 9, ReasonCode::Success))
    );
    // Acknowledgements are deletes: the session takes two thirds, which makes room without a restart.
    let most = ledger.acknowledged.len() * 2 / 3;
    let mut drained = Ledger::drain(&site, most);
    ledger.publish_until_accepted(&mut publisher, MESSAGE);
    assert!(site.log().contains("the store has room again"));
    // Full again, killed, and full at the start.
    assert_eq!(
        ledger.fill(&mut publisher, MESSAGE),
        ReasonCode::QuotaExceeded
    );
    site.kill_and_restart();
    drained.extend(Ledger::drain(&site, usize::MAX));
    ledger.assert_kept(&drained);
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    ledger.publish_until_accepted(&mut publisher, MESSAGE);
    site.kill_and_restart();
    drained.extend(Ledger::drain(&site, usize::MAX));
    ledger.assert_kept(&drained);
}

pub(super) fn accepts_when_there_is_room() {
    let Some((mut disk, mut site)) = small_site("") else {
        return;
    };
    let ballast = disk.path().join("ballast").display().to_string();
    assert!(disk.run(&format!("fallocate -l 10M {ballast}")));
    site.start();
    site.subscribe_keeper();
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    let mut ledger = Ledger::default();
    assert_eq!(
        ledger.fill(&mut publisher, MESSAGE),
        ReasonCode::QuotaExceeded
    );
    assert_full_is_told(&site);
    assert!(disk.run(&format!("rm {ballast}")));
    ledger.publish_until_accepted(&mut publisher, MESSAGE);
    // It is ready again, and there is room for more than one.
    let watch = Stopwatch::start();
    while !site.get("/readyz").contains("200 OK") {
        assert!(watch.elapsed() < PATIENCE);
    }
    for _ in 0..50 {
        assert_eq!(
            ledger.publish(&mut publisher, MESSAGE),
            Outcome::Acknowledged
        );
    }
    // Somebody else takes the rest of the disk at once: what does not fit is refused, or waits for room and is not lost.
    let take_all =
        format!("cat /dev/zero 2>/dev/null | head -c 30000000 > {ballast} 2>/dev/null; true");
    assert!(disk.run(&take_all));
    ledger.fill_or_stall(&mut publisher, MESSAGE);
    assert!(disk.run(&format!("rm {ballast}")));
    ledger.publish_until_accepted(&mut publisher, MESSAGE);
    site.kill_and_restart();
    ledger.assert_kept(&Ledger::drain(&site, usize::MAX));
}

pub(super) fn names_a_read_only_disk() {
    let Some((mut disk, mut site)) = small_site("") else {
        return;
    };
    site.start();
    site.subscribe_keeper();
    let mut ledger = Ledger::default();
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    for _ in 0..20 {
        assert_eq!(
            ledger.publish(&mut publisher, MESSAGE),
            Outcome::Acknowledged
        );
    }
    site.broker.kill().unwrap();
    let path = disk.path().display().to_string();
    assert!(disk.run(&format!("mount -o remount,ro {path}")));
    site.broker.spawn().unwrap();
    let status = site.await_end();
    assert_eq!(status.code(), Some(1), "{}", site.log());
    let log = site.log();
    assert!(log.contains("Read-only file system"), "{log}");
    assert!(log.contains(&path), "{log}");
    assert!(disk.run(&format!("mount -o remount,rw {path}")));
    site.start();
    ledger.assert_kept(&Ledger::drain(&site, usize::MAX));
}

/// A broker on a file system of 24 MiB, of which it keeps 4 in reserve.
fn small_site(persistence: &str) -> Option<(SmallDisk, Site)> {
    let disk = match SmallDisk::new(24) {
        Ok(disk) => disk,
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    };
    let persistence =
        format!("reserve_bytes = \"4MiB\"\njournal_bytes_max = \"1MiB\"\n{persistence}");
    let site = Site::new(&disk.data_dir(), &persistence);
    site.start_within(&disk.entrance());
    Some((disk, site))
}

/// In the log, in the metrics, and to who asks whether it is ready.
fn assert_full_is_told(site: &Site) {
    let log = site.log();
    assert!(log.contains("the disk"), "{log}");
    assert!(site.metric("mqtt_broker_publish_refused_total") >= 1.0);
    // It stayed 0 when a commit found out before the writer's next look did.
    assert!(site.metric("mqtt_broker_storage_full_total") >= 1.0);
    let ready = site.get("/readyz");
    assert!(ready.contains("503") && ready.contains("full"), "{ready}");
}

/// A v5 publisher reads why: from the bytes, because the scripted client does not keep reason strings.
fn assert_reason(site: &Site) {
    use std::io::{Read, Write};
    let address = (std::net::Ipv4Addr::LOCALHOST, site.port());
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.write_all(&Hello::clean("reader").bytes()).unwrap();
    let mut answer = [0; 256];
    assert!(socket.read(&mut answer).unwrap() > 4);
    socket
        .write_all(b"\x32\x0a\x00\x04kept\x00\x05\x00!")
        .unwrap();
    let count = socket.read(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert_eq!((answer[0], answer[4]), (0x40, 0x97), "{text}");
    assert!(text.contains("store"), "{text}");
}

const MESSAGE: usize = 20_000;
