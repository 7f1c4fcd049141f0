//! How much memory the process uses, and how hard that presses on the clients (`limits.memory_bytes_max`).
//!
//! Promises: every change of the level is in the log, with the numbers; the levels are those of [`PressureLevel`], from 85, 90 and
//! 95 % of the ceiling on, and each ends a little below where it began. While the level is not 0, the rate that each publisher has
//! falls as long as the use does not, so that those who send most wait first and longest.
//!
//! Does not know: who uses it, connections.

use crate::server::Server;
use motemq_core::{Direction, PressureLevel};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The memory of the process, in bytes, as last seen.
#[derive(Debug, Default)]
pub struct Memory {
    used: AtomicU64,
    max: AtomicU64,
}

impl Memory {
    /// Memory in use: the resident set.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The ceiling.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// From how many bytes on each level holds.
    pub fn marks(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let max = self.max_bytes();
        let labels = ["slow_publishers", "refuse_connections", "drop_qos0"];
        let marks = MARKS.iter().map(move |(_, percent)| max / 100 * percent);
        labels.into_iter().zip(marks)
    }

    /// Changes the ceiling; 0 is four fifths of what there is.
    pub(crate) fn set_max(&self, bytes: u64) {
        let bytes = match bytes {
            0 => available_bytes() / 5 * 4,
            bytes => bytes,
        };
        self.max.store(bytes, Ordering::Relaxed);
    }
}

/// Looks at the memory again and again, and says how hard it presses.
pub(crate) async fn watch(server: Arc<Server>) {
    let mut gauge = Gauge::default();
    loop {
        let memory = server.memory();
        let Some(used) = resident_bytes() else {
            tracing::warn!(
                "/proc/self/statm cannot be read: limits.memory_bytes_max has no effect"
            );
            return;
        };
        memory.used.store(used, Ordering::Relaxed);
        let max = memory.max_bytes();
        let broker = server.broker();
        let before = gauge.level;
        let sent = broker.counters().all_payload_bytes(Direction::In);
        let publishers: usize = server.listeners().iter().map(|each| each.connected()).sum();
        let rate = gauge.look(used, max, sent, publishers as u64);
        broker.pressure().set(gauge.level, rate);
        report(before, gauge.level, used, max);
        if gauge.level != PressureLevel::None {
            stir();
        }
        let is_far = max.saturating_sub(used) > FAR_BYTES && gauge.level == PressureLevel::None;
        tokio::time::sleep(if is_far { FAR_INTERVAL } else { INTERVAL }).await;
    }
}

/// Lets the allocator give memory back: a thread that does nothing keeps what others have freed of it.
fn stir() {
    for _ in 0..STIRRED {
        tokio::spawn(async { drop(std::hint::black_box(vec![0_u8; 1 << 20])) });
    }
}

fn report(before: PressureLevel, now: PressureLevel, used_bytes: u64, max_bytes: u64) {
    if now == before {
        return;
    }
    let what = match now {
        PressureLevel::None => {
            tracing::info!(used_bytes, max_bytes, "there is memory again");
            return;
        }
        PressureLevel::SlowPublishers => "the publishers that send most are not read for a while",
        PressureLevel::RefuseConnections => {
            "publishers are slowed down; new clients, subscriptions and retained messages are refused"
        }
        PressureLevel::DropQoS0 => {
            "publishers are slowed down; new clients, and what MQTT 5 clients publish, are refused, QoS 0 is dropped"
        }
    };
    tracing::warn!(
        used_bytes,
        max_bytes,
        "memory is nearly used up: {what}. Raise limits.memory_bytes_max, or lower what one client may hold: queue_bytes_max, output_bytes_max, retained_bytes_max"
    );
}

/// The level, and the rate of a publisher that goes with it.
#[derive(Debug, Default)]
struct Gauge {
    level: PressureLevel,
    used: u64,
    /// Payload bytes that had been received at the last look.
    sent: u64,
    rate: u64,
}

impl Gauge {
    /// Takes the numbers of a look; says how many payload bytes a second each publisher may send.
    fn look(&mut self, used: u64, max: u64, sent: u64, publishers: u64) -> u64 {
        let level = level(self.level, used, max);
        let received = sent.saturating_sub(self.sent);
        self.rate = match (self.level, level) {
            (_, PressureLevel::None) => 0,
            // Those who send more than most begin to wait.
            (PressureLevel::None, _) => received * LOOKS_PER_SECOND / publishers.max(1) * 2,
            _ if used > self.used => self.rate / 2,
            // It gets no worse: a little more again.
            _ => self.rate + self.rate / 8 + RATE_STEP,
        };
        self.level = level;
        self.used = used;
        self.sent = sent;
        self.rate
    }
}

fn level(before: PressureLevel, used: u64, max: u64) -> PressureLevel {
    let percent = used.saturating_mul(100) / max.max(1);
    let is_reached = |(level, mark): &&(PressureLevel, u64)| {
        let mark = mark - if *level <= before { HYSTERESIS } else { 0 };
        percent >= mark
    };
    let reached = MARKS.iter().rev().find(is_reached);
    reached.map_or(PressureLevel::None, |(level, _)| *level)
}

/// The resident set of this process.
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// What the machine has, or the control group if that is less.
fn available_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    });
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.map(|path| format!("/sys/fs/cgroup{path}/memory.max"));
    let groups = [
        own.as_deref(),
        Some("/sys/fs/cgroup/memory.max"),
        Some("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ];
    let groups = groups.into_iter().flatten().filter_map(limit_in);
    groups.chain(machine).min().unwrap_or(u64::MAX)
}

/// The number in the file of a control group; "max" is none.
fn limit_in(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Where the levels begin, in percent of the ceiling.
const MARKS: [(PressureLevel, u64); 3] = [
    (PressureLevel::SlowPublishers, 85),
    (PressureLevel::RefuseConnections, 90),
    (PressureLevel::DropQoS0, 95),
];
/// A level ends so many percent below its mark.
const HYSTERESIS: u64 = 3;
const INTERVAL: Duration = Duration::from_millis(100);
/// Tasks that find every thread of the runtime, or most.
const STIRRED: usize = 8;
const LOOKS_PER_SECOND: u64 = 10;
/// So much below the ceiling a look a second is enough.
const FAR_BYTES: u64 = 1 << 30;
const FAR_INTERVAL: Duration = Duration::from_secs(1);
/// What a publisher may send more after each look, in bytes a second, while the use does not grow.
const RATE_STEP: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_come_in_order_and_go_a_little_later() {
        let mut now = PressureLevel::None;
        let mut seen = Vec::new();
        for used in [50, 84, 85, 89, 90, 95, 93, 91, 90, 88, 86, 83, 82, 81, 50] {
            now = level(now, used, 100);
            seen.push(now as u8);
        }
        assert_eq!(seen, [0, 0, 1, 1, 2, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn the_rate_starts_above_the_mean_and_falls_until_the_use_does() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.look(50, 100, 1_000_000, 10), 0);
        // 100,000 bytes in a tenth of a second, ten publishers: twice their mean.
        assert_eq!(gauge.look(86, 100, 1_100_000, 10), 200_000);
        assert_eq!(gauge.look(87, 100, 1_200_000, 10), 100_000);
        assert_eq!(gauge.look(88, 100, 1_200_000, 10), 50_000);
        assert_eq!(gauge.look(88, 100, 1_200_000, 10), 56_314);
        assert_eq!(gauge.look(86, 100, 1_200_000, 10), 63_417);
        assert_eq!(gauge.look(50, 100, 1_200_000, 10), 0);
        assert_eq!(gauge.level, PressureLevel::None);
    }

    #[test]
    fn the_machine_s_memory_and_the_process_s_are_known() {
        let used = resident_bytes().unwrap();
        assert!(used > 1 << 20 && used < available_bytes());
    }
}
