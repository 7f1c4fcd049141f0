//! Takes a sample of the world each second.

use crate::ledger::{Counts, Interval};
use crate::report::{Distribution, Sample, Timeline};
use crate::world::World;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);
/// Samples at full resolution for the live display.
const RECENT_MAX: usize = 240;

/// Takes a sample of the world each second.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    next_at: Duration,
    last: Totals,
    timeline: Timeline,
    /// Seconds that each sample covers, and the sample; the newest last.
    recent: VecDeque<(f64, Sample)>,
}

/// What only grows, as of the last sample.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    at: Duration,
    counts: Counts,
    reconnects: u64,
    failures: u64,
    up_bytes: u64,
    down_bytes: u64,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            next_at: EVERY,
            ..Self::default()
        }
    }

    /// Whether a second has passed.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.next_at
    }

    /// Takes a sample; returns the latencies of its interval, cohort by cohort.
    pub(super) fn record(&mut self, world: &World, now: Duration) -> Vec<Interval> {
        while self.next_at <= now {
            self.next_at += EVERY;
        }
        let troops = world.troops.iter();
        let intervals: Vec<Interval> = troops.map(|troop| troop.ledger().take_interval()).collect();
        let mut all = Interval::default();
        for interval in &intervals {
            all.add(interval);
        }
        // The end of the run may lie a little before the last sample.
        let totals = Totals::now(world, now.max(self.last.at));
        let sample = totals.since(&self.last, world, &all);
        let span_s = (totals.at - self.last.at).as_secs_f64();
        self.last = totals;
        self.recent.push_back((span_s, sample.clone()));
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        self.timeline.push(sample);
        intervals
    }

    /// The samples of the last minutes with the seconds that each covers, the newest last.
    pub(super) fn recent(&self) -> &VecDeque<(f64, Sample)> {
        &self.recent
    }

    pub(super) fn into_timeline(self) -> Timeline {
        self.timeline
    }
}

impl Totals {
    fn now(world: &World, at: Duration) -> Self {
        Self {
            at,
            counts: world.counts(),
            reconnects: world.sum(|tally| tally.reconnects.load(Ordering::Relaxed)),
            failures: world.sum(|tally| tally.failures.load(Ordering::Relaxed)),
            up_bytes: world.sum(|tally| tally.up_bytes.load(Ordering::Relaxed)),
            down_bytes: world.sum(|tally| tally.down_bytes.load(Ordering::Relaxed)),
        }
    }

    fn since(&self, last: &Self, world: &World, latencies: &Interval) -> Sample {
        let grown = |total: fn(&Self) -> u64| total(self).saturating_sub(total(last));
        let ack = Distribution::of(&latencies.ack_latency);
        let delivery = Distribution::of(&latencies.delivery_latency);
        let if_any = |times: &Distribution, value: f64| times.measured().map(|_| value);
        Sample {
            at_s: self.at.as_secs_f64(),
            up: world.sum(|tally| tally.up.load(Ordering::Relaxed).into()),
            published: grown(|totals| totals.counts.published),
            acknowledged: grown(|totals| totals.counts.acknowledged),
            delivered: grown(|totals| totals.counts.delivered),
            reconnects: grown(|totals| totals.reconnects),
            connection_failures: grown(|totals| totals.failures),
            up_bytes: grown(|totals| totals.up_bytes),
            down_bytes: grown(|totals| totals.down_bytes),
            ack_p50_s: if_any(&ack, ack.p50),
            ack_p99_s: if_any(&ack, ack.p99),
            delivery_p50_s: if_any(&delivery, delivery.p50),
            delivery_p99_s: if_any(&delivery, delivery.p99),
        }
    }
}
