//! A backup of the real broker under load, restored and proven.
//!
//! Publishers send numbered QoS 1 messages at a steady rate for a durable subscriber that is away. Meanwhile `motemq store
//! backup` runs. Then the broker is killed, the backup restored into an empty folder, checked, started from and drained.
//!
//! Checked: every message acknowledged before the backup began is there, none is there twice, all are in order, each is
//! what was sent, and none is there that had not been sent when the backup ended.
#![expect(
    clippy::disallowed_methods,
    reason = "the harness of a real process runs in real time"
)]

use crate::kill_ledger::broker::{Broker, BrokerError};
use crate::kill_ledger::wire::{Received, Wire};
use motemq_codec::{
    AckKind, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    Subscribe, SubscribeFilter, SubscribeFilters, SubscribeOptions, UserProperties,
};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much to do.
#[derive(Copy, Clone, Debug)]
pub struct Plan {
    /// Messages a second, over all publishers.
    pub rate: u64,
    /// How long the publishers go on, at least; a third of it before the backup.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Messages acknowledged in all.
    pub acknowledged: u64,
    /// Of them, before the backup began.
    pub acknowledged_before: u64,
    /// Messages a second acknowledged before the backup.
    pub rate_before: f64,
    /// The same while it ran.
    pub rate_during: f64,
    /// Time from PUBLISH to PUBACK of the slowest in a hundred, before and during the backup, in milliseconds.
    pub p99_ms: (f64, f64),
    /// The slowest of all, before and during the backup, in milliseconds.
    pub slowest_ms: (f64, f64),
    /// How long the backup took, in milliseconds.
    pub backup_ms: u128,
    /// Its size.
    pub backup_bytes: u64,
    /// Messages drained from the restored broker.
    pub drained: u64,
    /// Acknowledged before the backup and not there.
    pub lost: u64,
    /// There twice.
    pub twice: u64,
    /// There after a later one, or with others missing before it.
    pub out_of_order: u64,
    /// There although they were not sent by then, or altered.
    pub strange: u64,
    /// What the tools said, where they failed.
    pub stories: Vec<String>,
}

impl Verdict {
    /// Whether the backup is what it promises.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.twice + self.out_of_order + self.strange == 0
            && self.acknowledged_before > 0
            && self.stories.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} acknowledged a second before the backup, {:.0} during it (p99 {:.1} and {:.1} ms, slowest {:.1} and {:.1} ms); \
             backup of {} bytes in {} ms; {} acknowledged before it, {} drained from the restored broker: \
             {} lost, {} twice, {} out of order, {} strange",
            self.rate_before,
            self.rate_during,
            self.p99_ms.0,
            self.p99_ms.1,
            self.slowest_ms.0,
            self.slowest_ms.1,
            self.backup_bytes,
            self.backup_ms,
            self.acknowledged_before,
            self.drained,
            self.lost,
            self.twice,
            self.out_of_order,
            self.strange
        )
    }
}

/// What the publishers share.
#[derive(Debug, Default)]
struct Shared {
    port: u16,
    sent: [AtomicU64; PUBLISHERS],
    acknowledged: [AtomicU64; PUBLISHERS],
    /// 0 before the backup, 1 during it, 2 after it.
    phase: AtomicU8,
    is_over: AtomicBool,
}

/// Times from PUBLISH to PUBACK, by phase.
type Latencies = [Vec<Duration>; 3];

/// Runs the broker in `binary` through the plan.
///
/// # Errors
/// When the broker cannot be started, a connection breaks, or a tool cannot be run.
pub fn run(binary: &Path, plan: Plan) -> Result<Verdict, BrokerError> {
    let mut broker = Broker::new(binary)?;
    broker.start()?;
    let shared = Shared {
        port: broker.port(),
        ..Shared::default()
    };
    subscribe(broker.port())?;
    let backup = broker.folder().join("backup.redb");
    let mut verdict = Verdict::default();
    let mut upper = [0; PUBLISHERS];
    let mut lower = [0; PUBLISHERS];
    std::thread::scope(|scope| -> Result<(), BrokerError> {
        let threads: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                scope.spawn({
                    let shared = &shared;
                    move || publish(shared, number, plan.rate)
                })
            })
            .collect();
        let started = Instant::now();
        std::thread::sleep(plan.duration / 3);
        lower = counts(&shared.acknowledged);
        let before = started.elapsed();
        shared.phase.store(1, Ordering::Release);
        let output = store(binary, broker.folder(), &["backup", "backup.redb"]);
        shared.phase.store(2, Ordering::Release);
        let took = started.elapsed() - before;
        let after = counts(&shared.acknowledged);
        upper = counts(&shared.sent);
        if let Some(rest) = plan.duration.checked_sub(started.elapsed()) {
            std::thread::sleep(rest);
        }
        shared.is_over.store(true, Ordering::Release);
        let mut latencies = Latencies::default();
        for thread in threads {
            match thread.join() {
                Ok(Ok(times)) => (0..3).for_each(|phase| latencies[phase].extend(&times[phase])),
                Ok(Err(error)) => verdict.stories.push(format!("a publisher failed: {error}")),
                Err(_) => verdict.stories.push("a publisher panicked".to_owned()),
            }
        }
        verdict.note(&output?);
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        verdict.acknowledged = sum(&counts(&shared.acknowledged));
        verdict.acknowledged_before = sum(&lower);
        verdict.rate_before = sum(&lower) as f64 / before.as_secs_f64();
        verdict.rate_during = (sum(&after) - sum(&lower)) as f64 / took.as_secs_f64();
        verdict.backup_ms = took.as_millis();
        verdict.p99_ms = (
            slowest(&mut latencies[0], 99),
            slowest(&mut latencies[1], 99),
        );
        verdict.slowest_ms = (
            slowest(&mut latencies[0], 100),
            slowest(&mut latencies[1], 100),
        );
        Ok(())
    })?;
    broker.kill()?;
    verdict.backup_bytes = std::fs::metadata(&backup).map_or(0, |file| file.len());
    restore(binary, &mut broker, &mut verdict)?;
    drain(broker.port(), &lower, &upper, &mut verdict)?;
    broker.stop()?;
    Ok(verdict)
}

impl Verdict {
    fn note(&mut self, output: &Output) {
        if !output.status.success() {
            let told = [&output.stdout[..], &output.stderr].concat();
            self.stories
                .push(String::from_utf8_lossy(&told).into_owned());
        }
    }
}

/// Restores into a folder that is not there yet, checks, and starts from it.
fn restore(binary: &Path, broker: &mut Broker, verdict: &mut Verdict) -> Result<(), BrokerError> {
    let file = broker.folder().join("motemq.toml");
    let configuration = std::fs::read_to_string(file)?;
    let elsewhere = configuration.replace("data_dir = \"data\"", "data_dir = \"restored\"");
    broker.configure(&elsewhere)?;
    for arguments in [
        &["restore", "backup.redb"][..],
        &["check"],
        &["check", "backup.redb"],
    ] {
        verdict.note(&store(binary, broker.folder(), arguments)?);
    }
    broker.start()?;
    verdict.note(&store(binary, broker.folder(), &["check"])?);
    Ok(())
}

fn store(binary: &Path, folder: &Path, arguments: &[&str]) -> io::Result<Output> {
    Command::new(std::path::absolute(binary)?)
        .arg("store")
        .args(arguments)
        .args(["-c", "motemq.toml"])
        .current_dir(folder)
        .output()
}

/// Makes the durable session, which then goes away.
fn subscribe(port: u16) -> io::Result<()> {
    let (mut wire, _) = Wire::connect(port, ProtocolVersion::V5, SUBSCRIBER)?;
    let options = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        ..SubscribeOptions::default()
    };
    let filters = [SubscribeFilter {
        filter: "load/#",
        options,
    }];
    wire.send(&Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).ok_or(io::ErrorKind::InvalidInput)?,
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::from_list(&filters),
    }))?;
    loop {
        if let Some(Received::SubAck(_)) = wire.receive()? {
            return Ok(());
        }
    }
}

/// Publishes at its share of the rate until it is over and everything is acknowledged.
fn publish(shared: &Shared, number: usize, rate: u64) -> io::Result<Latencies> {
    let client_id = format!("publisher-{number}");
    let (mut wire, _) = Wire::connect(shared.port, ProtocolVersion::V5, &client_id)?;
    let topic = format!("load/{number}");
    let started = Instant::now();
    let mut latencies = Latencies::default();
    let mut waiting = VecDeque::new();
    let mut sent = 0;
    loop {
        let is_over = shared.is_over.load(Ordering::Acquire);
        let due = started.elapsed().as_micros() as u64 * rate / PUBLISHERS as u64 / 1_000_000;
        while !is_over && sent < due && waiting.len() < WINDOW {
            // Counted first: what the backup shows cannot be more than was sent.
            shared.sent[number].store(sent + 1, Ordering::Release);
            wire.send(&Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: &topic,
                packet_id: PacketId::new((sent % 60_000) as u16 + 1),
                properties: PublishProperties::default(),
                payload: &payload(sent),
            }))?;
            waiting.push_back(Instant::now());
            sent += 1;
        }
        if is_over && waiting.is_empty() {
            return Ok(latencies);
        }
        match wire.receive()? {
            Some(Received::Ack(AckKind::PubAck, _, code)) if !code.is_error() => {
                // Acknowledgements come in the order of the messages [MQTT5-4.6.0-2].
                shared.acknowledged[number].fetch_add(1, Ordering::AcqRel);
                let phase = usize::from(shared.phase.load(Ordering::Acquire));
                if let Some(since) = waiting.pop_front() {
                    latencies[phase].push(since.elapsed());
                }
            }
            Some(Received::Ack(_, _, code)) if code != ReasonCode::Success => {
                return Err(io::Error::other(format!("{code:?}")));
            }
            _ => {}
        }
    }
}

/// Takes everything that the restored broker has, and compares.
fn drain(
    port: u16,
    lower: &[u64; PUBLISHERS],
    upper: &[u64; PUBLISHERS],
    verdict: &mut Verdict,
) -> io::Result<()> {
    let (mut wire, is_present) = Wire::connect(port, ProtocolVersion::V5, SUBSCRIBER)?;
    if !is_present {
        verdict.stories.push("the session is not there".to_owned());
    }
    let mut next = [0_u64; PUBLISHERS];
    let mut last = Instant::now();
    while last.elapsed() < SILENCE {
        let Some(received) = wire.receive()? else {
            continue;
        };
        last = Instant::now();
        let Received::Publish {
            packet_id: Some(packet_id),
            topic,
            payload: bytes,
            ..
        } = received
        else {
            continue;
        };
        wire.acknowledge(AckKind::PubAck, packet_id)?;
        verdict.drained += 1;
        let publisher = topic
            .strip_prefix("load/")
            .and_then(|name| name.parse::<usize>().ok());
        let number = bytes
            .first_chunk()
            .map(|number| u64::from_be_bytes(*number));
        match publisher.zip(number) {
            Some((publisher, number)) if publisher < PUBLISHERS && bytes == payload(number) => {
                verdict.strange += u64::from(number >= upper[publisher]);
                verdict.twice += u64::from(number < next[publisher]);
                verdict.out_of_order += u64::from(number > next[publisher]);
                next[publisher] = next[publisher].max(number + 1);
            }
            _ => verdict.strange += 1,
        }
    }
    let missing = lower
        .iter()
        .zip(next)
        .map(|(lower, next)| lower.saturating_sub(next));
    verdict.lost = missing.sum();
    Ok(())
}

fn counts(counts: &[AtomicU64; PUBLISHERS]) -> [u64; PUBLISHERS] {
    std::array::from_fn(|number| counts[number].load(Ordering::Acquire))
}

/// The slowest of so many percent, in milliseconds.
fn slowest(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let last = (times.len() * percent / 100)
        .min(times.len())
        .saturating_sub(1);
    times.get(last).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// The number, and bytes that follow from it.
fn payload(number: u64) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((0..PAYLOAD_BYTES).map(|at| (at + number) as u8));
    bytes
}

/// Each has a topic of its own.
const PUBLISHERS: usize = 4;
const SUBSCRIBER: &str = "subscriber";
/// Unanswered messages of a publisher; below the broker's `receive_maximum`.
const WINDOW: usize = 90;
const PAYLOAD_BYTES: u64 = 120;
/// The drain ends when nothing came for so long.
const SILENCE: Duration = Duration::from_secs(2);
