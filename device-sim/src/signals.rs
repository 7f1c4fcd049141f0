//! Requests to end: Ctrl-C, SIGTERM, and SIGHUP where it is not ignored.
//!
//! Invariant: from [`Signals::listen`] on, none of them ends the process by itself; whoever listens has to.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens to requests to end.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` when who started us wants us to outlive the terminal, as nohup does.
    hang_up: Option<Signal>,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hang_up = SignalKind::hangup();
        let is_ignored = is_ignored(&status, hang_up.as_raw_value());
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: (!is_ignored).then(|| signal(hang_up)).transpose()?,
        })
    }

    /// Waits for the next request; one at a time is remembered.
    pub(crate) async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// Whether the process ignores a signal, after Linux's account of it.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(signal - 1).ok();
    let bit = bit.and_then(|bit| 1_u64.checked_shl(bit));
    mask.zip(bit).is_some_and(|(mask, bit)| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_is_known() {
        let status = |mask| format!("Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t{mask}\n");
        assert!(is_ignored(&status("0000000000000001"), 1));
        assert!(is_ignored(&status("0000000000001005"), 1));
        assert!(!is_ignored(&status("0000000000001000"), 1));
        assert!(!is_ignored(&status("0000000000000001"), 2));
        assert!(!is_ignored("", 1));
    }
}
