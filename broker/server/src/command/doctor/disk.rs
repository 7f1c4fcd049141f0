//! What the disk below `data_dir` can do: how fast it syncs, how much room there is, whether it keeps anything.

use super::Finding;
use motemq::clock;
use motemq::config::Config;
use rustix::fs::{statfs, statvfs};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let Some(dir) = &config.data_dir else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    // A first start makes the folder.
    let Some(existing) = existing(dir) else {
        return findings;
    };
    findings.extend(room(config, &existing));
    findings.extend(kind(&existing));
    if !dir.is_dir() {
        findings.push(Finding::ok(
            DISK,
            format!(
                "{} is not there yet, a start makes it; how fast it syncs was not measured",
                dir.display()
            ),
        ));
        return findings;
    }
    findings.push(match Syncs::measure(dir) {
        Ok(syncs) => syncs.judge(dir),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding::warning(
            DISK,
            format!("{} may not be written by this user", dir.display()),
            "run this as the broker's user: sudo -u motemq motemq doctor -c FILE",
        ),
        Err(error) => Finding::failed(
            DISK,
            format!("{} cannot be written: {error}", dir.display()),
            "give the broker a data_dir that it can write to",
        ),
    });
    findings
}

/// The folder, or the nearest one above it that there is.
fn existing(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    dir.ancestors().find(|dir| dir.is_dir()).map(Path::to_owned)
}

fn room(config: &Config, dir: &Path) -> Option<Finding> {
    let disk = statvfs(dir).ok()?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let bytes = disk.f_blocks.saturating_mul(disk.f_frsize).max(1);
    let reserve_bytes = config.persistence.reserve_bytes;
    let wished_bytes = reserve_bytes + config.persistence.journal_bytes_max;
    let message = format!(
        "{} free of {} below {}",
        size(free_bytes),
        size(bytes),
        dir.display()
    );
    let hint = "make room or move data_dir; persistence.store_bytes_max bounds the store, limits.queue_bytes_max and limits.session_expiry_max_s what it holds";
    Some(if free_bytes < reserve_bytes.max(MEBIBYTE) {
        Finding::failed(
            DISK,
            format!("{message}: the broker would refuse messages"),
            hint,
        )
    } else if free_bytes < wished_bytes || free_bytes < bytes / 20 {
        Finding::warning(DISK, message, hint)
    } else {
        Finding::ok(DISK, message)
    })
}

/// File systems that are no place for a store.
fn kind(dir: &Path) -> Option<Finding> {
    // Its type differs between architectures, and so does its sign.
    let magic = u32::try_from(i128::from(statfs(dir).ok()?.f_type) & 0xffff_ffff).ok()?;
    let (what, hint) = match magic {
        0x0102_1994 | 0x8584_58f6 => (
            "is in memory (tmpfs): a reboot loses all of it",
            "move data_dir to a disk, such as /var/lib/motemq",
        ),
        0x794c_7630 => (
            "is in the layer of a container (overlayfs): it goes with the container",
            "mount a volume there: docker run -v motemq:/var/lib/motemq",
        ),
        0x6969 | 0xff53_4d42 | 0xfe53_4d42 => (
            "is on a network file system: syncs and locks depend on the server",
            "move data_dir to a local disk",
        ),
        _ => return None,
    };
    let message = format!("{} {what}", dir.display());
    Some(Finding::warning(DISK, message, hint))
}

/// How long syncs took, the shortest first.
struct Syncs(Vec<Duration>);

impl Syncs {
    fn measure(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!(".doctor-{}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(&path)?;
        let measured = Self::of(file);
        let removed = std::fs::remove_file(&path);
        removed.and(measured)
    }

    fn of(mut file: File) -> io::Result<Self> {
        let mut times = Vec::new();
        let start = clock::monotonic();
        while times.len() < SYNCS && clock::monotonic() - start < MEASURE_TIME {
            file.write_all(&[0x5a; 4096])?;
            let before = clock::monotonic();
            file.sync_data()?;
            times.push(clock::monotonic() - before);
        }
        times.sort_unstable();
        Ok(Self(times))
    }

    fn at(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let at = self.0.get(last * percent / 100);
        at.copied().unwrap_or_default()
    }

    fn judge(&self, dir: &Path) -> Finding {
        let (p50, p99) = (self.at(50), self.at(99));
        let message = format!(
            "{} syncs of 4 KiB in {}: p50 {:.2} ms, p99 {:.2} ms",
            self.0.len(),
            dir.display(),
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3
        );
        if p99 > SLOW_SYNC {
            let hint = "acknowledgements of QoS 1 and 2 wait for a sync: move data_dir to an SSD, or look for who else writes (iostat -x 1); commits of many messages share one sync";
            return Finding::warning(DISK, message, hint);
        }
        if p50 < UNBELIEVABLE_SYNC {
            let message = format!("{message}: that is faster than disks are");
            let hint = "see that the disk or the virtual machine does not pretend to sync (cache=unsafe, libeatmydata): a power cut would lose what was acknowledged";
            return Finding::warning(DISK, message, hint);
        }
        Finding::ok(DISK, message)
    }
}

fn size(bytes: u64) -> String {
    match bytes / MEBIBYTE {
        mebibytes @ 0..10_000 => format!("{mebibytes} MiB"),
        mebibytes => format!("{} GiB", mebibytes / 1024),
    }
}

const DISK: &str = "disk";
const MEBIBYTE: u64 = 1 << 20;
/// How often it is synced, at most.
const SYNCS: usize = 50;
/// For how long, at most, but for the last one.
const MEASURE_TIME: Duration = Duration::from_secs(2);
/// Longer is slow: a client notices.
const SLOW_SYNC: Duration = Duration::from_millis(50);
/// No disk takes less.
const UNBELIEVABLE_SYNC: Duration = Duration::from_micros(10);

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn syncs_are_judged_by_the_slowest_and_the_middle() {
        let check = |micros: [u64; 3], expected| {
            let syncs = Syncs(micros.map(Duration::from_micros).into());
            assert_eq!(
                syncs.judge(Path::new("data")).verdict,
                expected,
                "{micros:?}"
            );
        };
        check([900, 1_000, 2_000], Verdict::Ok);
        check([900, 1_000, 200_000], Verdict::Ok);
        check([60_000, 70_000, 200_000], Verdict::Warning);
        check([1, 2, 3], Verdict::Warning);
    }

    #[test]
    fn measuring_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let syncs = Syncs::measure(dir.path()).unwrap();
        assert!(!syncs.0.is_empty() && syncs.at(50) <= syncs.at(99));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
