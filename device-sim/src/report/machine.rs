//! What the simulator ran on, and how much of it it took.

use crate::world::World;
use serde::Serialize;

/// What the simulator ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Such as `linux`.
    pub os: &'static str,
    /// Such as `x86_64`.
    pub architecture: &'static str,
    /// Threads that can run at the same time.
    pub cores: usize,
    /// What the processor calls itself, where the system tells.
    pub processor: Option<String>,
}

/// The simulator's own memory, where the system tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The most that was resident.
    pub resident_bytes_max: Option<u64>,
    /// What was resident more than before the fleet was there, for each device.
    pub bytes_per_device: Option<u64>,
}

impl Machine {
    pub(super) fn this() -> Self {
        Self {
            os: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: value_in("/proc/cpuinfo", "model name"),
        }
    }
}

impl Memory {
    pub(super) fn of(world: &World) -> Self {
        Self {
            resident_bytes_max: kilobytes("VmHWM"),
            bytes_per_device: world.memory_per_device(),
        }
    }
}

/// The memory that is resident now.
pub(crate) fn resident_bytes() -> Option<u64> {
    kilobytes("VmRSS")
}

fn kilobytes(name: &str) -> Option<u64> {
    let value = value_in("/proc/self/status", name)?;
    let kilobytes: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

/// The value of the first line `name: value`.
fn value_in(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned())
}
