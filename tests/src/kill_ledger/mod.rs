//! The ledger of kill -9 on the real binary.
//!
//! Publishers with durable sessions send QoS 1 and 2 and note what the broker acknowledged; durable subscribers note what
//! they received and acknowledge by hand, late, sometimes not at all. Meanwhile the broker is killed at random moments, a
//! quarter of the time again while it recovers. At the end everything is drained and compared.
//!
//! Checked: nothing acknowledged is lost, nothing at QoS 2 arrives twice, order holds per publisher, topic and QoS, the
//! session is always there, every payload is what was sent.
#![expect(
    clippy::indexing_slicing,
    reason = "a checker fails by panicking; its indexes come from its own lists"
)]

pub mod broker;
mod ledger;
mod publisher;
mod subscriber;
pub mod wire;

pub use ledger::{Ledger, Verdict};

use crate::power_loss::Chance;
use broker::{Broker, BrokerError};
use motemq_codec::{ProtocolVersion, QoS};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How much to do.
#[derive(Copy, Clone, Debug)]
pub struct Plan {
    /// Kills.
    pub kills: u32,
    /// Where chance starts.
    pub seed: u64,
}

/// What all threads share.
#[derive(Debug)]
struct Shared {
    port: u16,
    ledger: Ledger,
    /// Publishers go on with new messages.
    is_publishing: AtomicBool,
    /// Publishers whose last message is not acknowledged.
    publishers: AtomicUsize,
    /// Subscribers whose subscription is not acknowledged.
    unsubscribed: AtomicUsize,
    /// Subscribers no longer go offline by themselves.
    is_draining: AtomicBool,
    is_over: AtomicBool,
}

/// Runs the broker in `binary` through the plan.
///
/// # Errors
/// When the broker cannot be started, or ends by itself.
pub fn run(binary: &Path, plan: Plan) -> Result<Verdict, BrokerError> {
    let mut chance = Chance::new(plan.seed);
    let mut broker = Broker::new(binary)?;
    broker.start()?;
    let shared = Arc::new(Shared {
        port: broker.port(),
        ledger: Ledger::default(),
        is_publishing: AtomicBool::new(true),
        publishers: AtomicUsize::new(PUBLISHERS.len()),
        unsubscribed: AtomicUsize::new(SUBSCRIBERS.len()),
        is_draining: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
    });
    let outcome = std::thread::scope(|scope| {
        for (number, (version, qos)) in (0..).zip(SUBSCRIBERS) {
            let (shared, chance) = (&shared, Chance::new(plan.seed ^ (100 + number)));
            scope.spawn(move || subscriber::run(shared, number, version, qos, chance));
        }
        wait(READY, || shared.unsubscribed.load(Ordering::Acquire) == 0);
        for (number, version) in (0..).zip(PUBLISHERS) {
            let (shared, chance) = (&shared, Chance::new(plan.seed ^ (200 + number)));
            scope.spawn(move || publisher::run(shared, number, version, chance));
        }
        let killed = kill_often(&mut broker, plan.kills, &mut chance);
        shared.is_publishing.store(false, Ordering::Release);
        shared.is_draining.store(true, Ordering::Release);
        if killed.is_ok() {
            wait(FINISH, || shared.publishers.load(Ordering::Acquire) == 0);
            drain(&shared.ledger);
        }
        shared.is_over.store(true, Ordering::Release);
        killed
    });
    let in_recovery = outcome?;
    broker.stop()?;
    let mut verdict = shared.ledger.verdict();
    verdict.kills = plan.kills;
    verdict.kills_in_recovery = in_recovery;
    verdict.unfinished = shared.publishers.load(Ordering::Acquire) as u64;
    Ok(verdict)
}

/// Kills and starts again; says how often it was during a recovery.
fn kill_often(broker: &mut Broker, kills: u32, chance: &mut Chance) -> Result<u32, BrokerError> {
    let mut in_recovery = 0;
    let mut done = 0;
    while done < kills {
        std::thread::sleep(Duration::from_millis(chance.between(20, 900)));
        broker.kill()?;
        done += 1;
        while done < kills && chance.per_mille(330) {
            broker.spawn()?;
            std::thread::sleep(Duration::from_millis(chance.below(31)));
            broker.kill()?;
            done += 1;
            in_recovery += 1;
        }
        broker.start()?;
    }
    Ok(in_recovery)
}

/// Waits until every subscriber has what was acknowledged, or nothing comes any more.
fn drain(ledger: &Ledger) {
    let mut last = ledger.received();
    let mut since = now();
    while ledger.verdict().lost > 0 && now().duration_since(since) < SILENCE {
        std::thread::sleep(Duration::from_millis(100));
        let received = ledger.received();
        if received != last {
            last = received;
            since = now();
        }
    }
    // What comes twice comes soon after.
    std::thread::sleep(Duration::from_millis(500));
}

fn wait(at_most: Duration, mut is_done: impl FnMut() -> bool) {
    let start = now();
    while !is_done() && now().duration_since(start) < at_most {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the harness of a real process runs in real time; this is its only clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// The versions that publishers speak.
const PUBLISHERS: [ProtocolVersion; 4] = [
    ProtocolVersion::V5,
    ProtocolVersion::V3_1_1,
    ProtocolVersion::V5,
    ProtocolVersion::V3_1_1,
];
/// What subscribers speak, and the QoS they ask for.
const SUBSCRIBERS: [(ProtocolVersion, QoS); 3] = [
    (ProtocolVersion::V5, QoS::ExactlyOnce),
    (ProtocolVersion::V3_1_1, QoS::ExactlyOnce),
    (ProtocolVersion::V5, QoS::AtLeastOnce),
];
/// Longest wait for the first subscriptions.
const READY: Duration = Duration::from_secs(10);
/// Longest wait for the last acknowledgements.
const FINISH: Duration = Duration::from_secs(30);
/// The drain ends when nothing came for so long.
const SILENCE: Duration = Duration::from_secs(10);
