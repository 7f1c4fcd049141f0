//! The real broker with its default configuration, besieged, and a bystander who must not notice.
//!
//! Promises: each phase runs for its time or count and says what the bystander saw: the time from its PUBLISH at QoS 1 to the message
//! back, the time that a newcomer needs from the connection to CONNACK, and the broker's memory. The siege fails when the bystander is
//! disconnected or waits too long, a newcomer is turned away, memory passes the ceiling, or the broker dies.
//!
//! Does not know: how the broker defends itself.

mod attacks;
mod bystander;

use crate::kill_ledger::broker::{Broker, BrokerError};
use crate::socket::Stopwatch;
use bystander::{Bystander, Seen};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// How much of everything.
#[derive(Copy, Clone, Debug)]
pub struct Plan {
    /// Malformed packets, each on a connection of its own.
    pub malformed: u64,
    /// Half-open connections.
    pub half_open: usize,
    /// How long the phases last that hold what they have.
    pub hold: Duration,
    /// `limits.memory_bytes_max` of the broker.
    pub memory_bytes_max: u64,
    /// What the bystander may wait, 99 times in 100.
    pub patience: Duration,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Verdict {
    rows: Vec<Row>,
    /// What must not have happened.
    pub stories: Vec<String>,
}

#[derive(Debug)]
struct Row {
    phase: &'static str,
    done: String,
    seen: Seen,
    memory: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18}{:>8}{:>9}{:>9}{:>9}{:>7}{:>9}{:>9}{:>9}  what",
            "phase", "rounds", "p50 ms", "p99 ms", "max ms", "new", "p99 ms", "max ms", "MiB"
        )?;
        for row in &self.rows {
            let (rounds, new) = (&row.seen.rounds, &row.seen.newcomers);
            writeln!(
                f,
                "{:<18}{:>8}{:>9.1}{:>9.1}{:>9.1}{:>7}{:>9.1}{:>9.1}{:>9}  {}",
                row.phase,
                rounds.count(),
                rounds.percentile_ms(50),
                rounds.percentile_ms(99),
                rounds.percentile_ms(100),
                new.count(),
                new.percentile_ms(99),
                new.percentile_ms(100),
                row.memory >> 20,
                row.done,
            )?;
        }
        Ok(())
    }
}

/// Besieges the broker `binary`.
///
/// # Errors
/// When there is no broker to besiege.
pub fn run(binary: &Path, plan: Plan) -> Result<Verdict, BrokerError> {
    let mut broker = Broker::new(binary)?;
    // The defaults, but for a port of its own, clients without passwords (they may do everything then), and a ceiling to see.
    broker.configure(&format!(
        "data_dir = \"data\"\n[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{}\"\nanonymous = true\n\
         [limits]\nmemory_bytes_max = {}\n[http]\nbind = \"\"\n[log]\nlevel = \"warn\"\n",
        broker.port(),
        plan.memory_bytes_max
    ))?;
    broker.start()?;
    let mut verdict = Verdict::default();
    let bystander = Bystander::start(broker.port());
    let port = broker.port();
    let phases: [(&'static str, attacks::Attack); 8] = [
        ("peace", attacks::nothing),
        ("announced 256 MB", attacks::announce),
        ("half-open", attacks::half_open),
        ("malformed", attacks::malformed),
        ("property bombs", attacks::property_bombs),
        ("wildcard bombs", attacks::wildcard_bombs),
        ("slow readers", attacks::slow_readers),
        ("peace again", attacks::nothing),
    ];
    for (phase, attack) in phases {
        bystander.take_seen();
        let memory = MemoryPeak::default();
        let done = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| memory.watch(broker.process()));
            let done = attack(port, plan);
            memory.stop();
            // A watcher that has failed has seen nothing, which is told.
            (done, watcher.join().unwrap_or_default())
        });
        let row = Row {
            phase,
            done: done.0,
            seen: bystander.take_seen(),
            memory: done.1,
        };
        verdict.judge(&row, plan);
        verdict.rows.push(row);
    }
    if let Some(story) = bystander.finish() {
        verdict.stories.push(story);
    }
    if let Some(status) = broker.ended()? {
        verdict.stories.push(format!("the broker ended: {status}"));
    }
    let log = std::fs::read_to_string(broker.folder().join("log"))?;
    verdict.stories.extend(
        log.lines()
            .filter(|line| line.contains("panicked"))
            .map(str::to_owned),
    );
    Ok(verdict)
}

impl Verdict {
    fn judge(&mut self, row: &Row, plan: Plan) {
        let phase = row.phase;
        let late = row.seen.rounds.percentile_ms(99);
        if row.seen.rounds.count() == 0 || late > plan.patience.as_secs_f64() * 1e3 {
            self.stories
                .push(format!("{phase}: the bystander waited {late:.1} ms"));
        }
        let is_at_peace = phase.starts_with("peace");
        if row.seen.refused > 0 && is_at_peace {
            self.stories.push(format!(
                "{phase}: {} newcomers were refused",
                row.seen.refused
            ));
        }
        if row.memory == 0 || row.memory > plan.memory_bytes_max {
            self.stories
                .push(format!("{phase}: {} bytes of memory", row.memory));
        }
    }
}

#[derive(Debug, Default)]
struct MemoryPeak(std::sync::atomic::AtomicBool);

impl MemoryPeak {
    fn stop(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }

    /// The most that the broker has used until it is stopped.
    fn watch(&self, process: Option<u32>) -> u64 {
        let mut peak = 0;
        while !self.0.load(std::sync::atomic::Ordering::Acquire) {
            peak = peak.max(process.and_then(resident_bytes).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(20));
        }
        peak
    }
}

fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

/// Real time until a deadline.
fn until(time: Duration) -> impl Fn() -> bool {
    let watch = Stopwatch::start();
    move || watch.elapsed() < time
}
