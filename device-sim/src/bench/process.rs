//! What a process has used: CPU time and memory, from /proc.

use std::time::Duration;

/// A process that can be watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pid: u32,
    ticks_per_s: u64,
}

impl Process {
    /// The process with this id; `None` when there is none, or no /proc.
    pub(super) fn with_id(pid: u32) -> Option<Self> {
        let ticks_per_s = rustix::param::clock_ticks_per_second().max(1);
        let process = Self { pid, ticks_per_s };
        process.cpu().map(|_| process)
    }

    /// This process.
    pub(super) fn own() -> Option<Self> {
        Self::with_id(std::process::id())
    }

    /// User and system time of all its threads, in steps of a tick (10 ms).
    pub(super) fn cpu(self) -> Option<Duration> {
        let ticks = cpu_ticks(&self.read("stat")?)?;
        Some(Duration::from_millis(ticks * 1_000 / self.ticks_per_s))
    }

    /// Resident memory now and at most so far, in KiB.
    pub(super) fn memory_kib(self) -> Option<(u64, u64)> {
        let status = self.read("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some((field("VmRSS:")?, field("VmHWM:")?))
    }

    fn read(self, name: &str) -> Option<String> {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).ok()
    }
}

/// Fields 14 and 15 of /proc/PID/stat; the second one, the name, may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a) S 1 2"), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_none() {
        assert!(Process::with_id(u32::MAX - 1).is_none());
    }
}
