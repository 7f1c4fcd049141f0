//! What the process counts of itself: sockets that do not take what is ready, reloads, how late its tasks run, and when the
//! certificates of connected clients end.
//!
//! Does not know: what the numbers are for.

use crate::clock;
use motemq_core::{Histogram, Timestamp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The counts.
#[derive(Debug)]
pub struct Vitals {
    stalls: AtomicU64,
    slow_consumers: AtomicUsize,
    reloads: AtomicU64,
    reloads_failed: AtomicU64,
    /// When the configuration in force was read, in milliseconds since the epoch.
    configured_at: AtomicU64,
    loop_lag: Histogram,
    /// Connected clients by the day on which their certificate ends.
    certificates: Mutex<BTreeMap<u64, usize>>,
}

impl Default for Vitals {
    fn default() -> Self {
        Self {
            stalls: AtomicU64::new(0),
            slow_consumers: AtomicUsize::new(0),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            configured_at: AtomicU64::new(clock::now().as_ms()),
            loop_lag: Histogram::of_durations(),
            certificates: Mutex::default(),
        }
    }
}

impl Vitals {
    /// A client's socket does not take what is ready for it.
    pub(crate) fn note_stall(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        self.slow_consumers.fetch_add(1, Ordering::Relaxed);
    }

    /// It has taken it, or is gone.
    pub(crate) fn note_stall_over(&self) {
        self.slow_consumers.fetch_sub(1, Ordering::Relaxed);
    }

    /// How often a client's socket did not take what was ready for it.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Clients whose socket does not take what is ready for it, now.
    #[must_use]
    pub fn slow_consumers(&self) -> usize {
        self.slow_consumers.load(Ordering::Relaxed)
    }

    /// Notes how a reload ended.
    pub(crate) fn note_reload(&self, has_taken_effect: bool) {
        if has_taken_effect {
            let now = clock::now().as_ms();
            self.configured_at.store(now, Ordering::Relaxed);
            self.reloads.fetch_add(1, Ordering::Relaxed);
        } else {
            self.reloads_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reloads that took effect, and those that were refused.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.reloads), of(&self.reloads_failed))
    }

    /// When the configuration in force was read.
    #[must_use]
    pub fn configured_at(&self) -> Timestamp {
        Timestamp::from_ms(self.configured_at.load(Ordering::Relaxed))
    }

    /// How late tasks run, in microseconds.
    #[must_use]
    pub fn loop_lag(&self) -> &Histogram {
        &self.loop_lag
    }

    /// Counts a connected client's certificate until the answer is dropped.
    pub(crate) fn watch_certificate(self: &Arc<Self>, ends_at: Timestamp) -> WatchedCertificate {
        let ends_on = day(ends_at);
        *self.certificates().entry(ends_on).or_default() += 1;
        WatchedCertificate {
            vitals: self.clone(),
            ends_on,
        }
    }

    /// Connected clients whose certificate ends within so many days, or has.
    #[must_use]
    pub fn certificates_ending(&self, now: Timestamp, days: u64) -> usize {
        let certificates = self.certificates();
        certificates
            .range(..=day(now) + days)
            .map(|(_, clients)| clients)
            .sum()
    }

    fn certificates(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificate of a connected client.
#[derive(Debug)]
pub(crate) struct WatchedCertificate {
    vitals: Arc<Vitals>,
    ends_on: u64,
}

impl Drop for WatchedCertificate {
    fn drop(&mut self) {
        let mut certificates = self.vitals.certificates();
        if let Some(clients) = certificates.get_mut(&self.ends_on) {
            *clients -= 1;
            if *clients == 0 {
                certificates.remove(&self.ends_on);
            }
        }
    }
}

/// Measures how late a task runs that wanted to run now. One for each thread of the runtime: a thread that is busy with something
/// else, or a machine that has no time for it, shows in as many of them.
pub(crate) async fn watch_loop_lag(vitals: Arc<Vitals>) {
    loop {
        let wanted = clock::monotonic() + LAG_INTERVAL;
        tokio::time::sleep(LAG_INTERVAL).await;
        // A timer of the runtime is up to a millisecond late by design.
        let late = clock::monotonic().saturating_sub(wanted + TIMER_GRAIN);
        let us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        vitals.loop_lag.observe(us);
    }
}

fn day(at: Timestamp) -> u64 {
    at.as_ms() / (24 * 60 * 60 * 1000)
}

/// How often a thread's lag is measured.
const LAG_INTERVAL: Duration = Duration::from_secs(1);
/// What the runtime's timers round up.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_counted_while_their_clients_are_connected() {
        let vitals = Arc::new(Vitals::default());
        let now = Timestamp::from_ms(1_800_000_000_000);
        let in_days = |days: u32| now.plus_s(days * 24 * 60 * 60);
        let watched = [0, 6, 6, 29, 200].map(|days| vitals.watch_certificate(in_days(days)));
        let ending = || [7, 30, 90].map(|days| vitals.certificates_ending(now, days));
        assert_eq!(ending(), [3, 4, 4]);
        drop(watched);
        assert_eq!(ending(), [0, 0, 0]);
        assert!(vitals.certificates().is_empty());
    }
}
