//! What the machine gives: open files, and the time.

use super::Finding;
use motemq::clock;
use motemq::config::Config;
use rustix::process::{Resource, getrlimit};
use std::time::SystemTime;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    vec![open_files(config), clock(Some(config))]
}

/// `main` has raised the limit as far as it goes, as it does for a run.
fn open_files(config: &Config) -> Finding {
    let connections = config.listeners.iter();
    let connections: u64 = connections
        .map(|listener| u64::from(listener.max_connections))
        .sum();
    judge_files(getrlimit(Resource::Nofile).current, connections)
}

/// `None` is no limit.
fn judge_files(limit: Option<u64>, connections: u64) -> Finding {
    let Some(limit) = limit else {
        return Finding::ok(FILES, "the number of open files is not limited");
    };
    let room = limit.saturating_sub(RESERVED);
    if room >= connections {
        return Finding::ok(
            FILES,
            format!("{limit} open files: enough for {connections} connections"),
        );
    }
    let message = format!(
        "{limit} open files, from where this runs: the listeners allow {connections} connections, of which about {room} find room"
    );
    let hint = format!(
        "LimitNOFILE={} in the unit of systemd, --ulimit nofile=... of docker run; or lower max_connections of the listeners to what is expected",
        connections + RESERVED
    );
    match limit {
        ..FILES_MIN => Finding::failed(FILES, message, hint),
        _ => Finding::warning(FILES, message, hint),
    }
}

/// Whether the time can be true.
pub(super) fn clock(config: Option<&Config>) -> Finding {
    let now_s = clock::now().as_ms() / 1000;
    let store = config.and_then(|config| config.data_dir.as_ref());
    let store = store.and_then(|dir| dir.join("store.redb").metadata().ok());
    let written = store.and_then(|store| store.modified().ok());
    let written = written.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    judge_clock(now_s, written.map(|at| at.as_secs()))
}

fn judge_clock(now_s: u64, store_written_s: Option<u64>) -> Finding {
    let shown = motemq_certs::date_time(i64::try_from(now_s).unwrap_or(i64::MAX));
    let shown = format!("it is {shown}");
    let hint =
        "set the clock: timedatectl set-ntp true; without it certificates and expiries go wrong";
    if !(RELEASED_S..CENTURY_S).contains(&now_s) {
        return Finding::failed(
            CLOCK,
            format!("{shown}, by the clock of this machine"),
            hint,
        );
    }
    match store_written_s {
        Some(written_s) if written_s > now_s + 60 => Finding::warning(
            CLOCK,
            format!(
                "{shown}, but the store was written {} s later than that",
                written_s - now_s
            ),
            hint,
        ),
        _ => Finding::ok(CLOCK, shown),
    }
}

const FILES: &str = "open files";
const CLOCK: &str = "clock";
/// Files that are no connections.
const RESERVED: u64 = 200;
/// Fewer open files are too few for anything.
const FILES_MIN: u64 = 256;
/// 2026-01-01: there was no MoteMQ before.
const RELEASED_S: u64 = 1_767_225_600;
/// 2100-01-01.
const CENTURY_S: u64 = 4_102_444_800;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn open_files_are_judged_by_the_connections_that_are_allowed() {
        for (limit, expected) in [
            (None, Verdict::Ok),
            (Some(1_048_576), Verdict::Ok),
            (Some(20_000), Verdict::Warning),
            (Some(100), Verdict::Failed),
        ] {
            assert_eq!(judge_files(limit, 100_000).verdict, expected, "{limit:?}");
        }
        let hint = judge_files(Some(1024), 5_000).hint.unwrap();
        assert!(hint.contains("LimitNOFILE=5200"), "{hint}");
    }

    #[test]
    fn a_clock_that_starts_in_1970_or_goes_back_is_found() {
        assert_eq!(judge_clock(12, None).verdict, Verdict::Failed);
        let now_s = RELEASED_S + 1_000;
        assert_eq!(judge_clock(now_s, Some(now_s - 5)).verdict, Verdict::Ok);
        assert_eq!(
            judge_clock(now_s, Some(now_s + 500)).verdict,
            Verdict::Warning
        );
        assert_eq!(judge_clock(CENTURY_S, None).verdict, Verdict::Failed);
    }
}
