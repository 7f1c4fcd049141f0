//! What the system says of this process.
//!
//! Does not know: metrics.

use rustix::process::{Resource, getrlimit};
use std::fs;

/// The process, at one moment.
#[derive(Debug)]
pub(super) struct Process {
    /// CPU time, user and system.
    pub(super) cpu_s: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_fds: u64,
    /// `None` for no limit.
    pub(super) max_fds: Option<u64>,
}

impl Process {
    /// Looks; `None` where /proc cannot be read.
    pub(super) fn look() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name before the last parenthesis may contain anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<u64> = fields
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        // As proc(5) numbers them; the first one behind the name is the third.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let ticks = rustix::param::clock_ticks_per_second();
        Some(Self {
            cpu_s: (field(14) + field(15)) as f64 / ticks as f64,
            resident_bytes: field(24) * rustix::param::page_size() as u64,
            virtual_bytes: field(23),
            open_fds: open_fds()?,
            max_fds: getrlimit(Resource::Nofile).current,
        })
    }
}

/// The size of the folder is their number since Linux 6.2; counting ten thousand entries would take as long as a whole scrape should.
fn open_fds() -> Option<u64> {
    let known = fs::metadata("/proc/self/fd").ok()?.len();
    match known {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        known => Some(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_used_time_memory_and_descriptors() {
        let before = Process::look().unwrap();
        let file = fs::File::open("/proc/self/stat").unwrap();
        let mut work = 0_u64;
        while Process::look().unwrap().cpu_s <= before.cpu_s {
            work = std::hint::black_box(work + 1);
        }
        assert!(before.resident_bytes > 1 << 20 && before.virtual_bytes > before.resident_bytes);
        assert!((3..100_000).contains(&before.open_fds), "{before:?}");
        assert!(before.max_fds.is_none_or(|max| max > before.open_fds));
        drop(file);
    }
}
