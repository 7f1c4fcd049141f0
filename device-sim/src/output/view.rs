//! What a live display shows, read from the world at one moment.

use super::record::Recorder;
use crate::client::refusal;
use crate::ledger::{Counts, histogram};
use crate::plan::Event;
use crate::report::{Distribution, Sample};
use crate::steady::{Mark, Totals};
use crate::world::{Stage, World};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long after connections were killed a run is called a storm.
const STORM: Duration = Duration::from_secs(60);

/// A moment of a run.
#[cfg_attr(
    not(feature = "tui"),
    expect(dead_code, reason = "a line shows less than a table")
)]
pub(super) struct View<'a> {
    pub(super) world: &'a World,
    pub(super) now: Duration,
    /// What the run is doing, since when, and for how long.
    pub(super) phase: (&'static str, Duration, Duration),
    pub(super) up: u64,
    pub(super) counts: Counts,
    /// Messages of QoS 1 and 2 are acknowledged.
    pub(super) is_acknowledged: bool,
    pub(super) ack: Distribution,
    pub(super) delivery: Distribution,
    pub(super) lag: Distribution,
    pub(super) reconnects: u64,
    pub(super) failures: u64,
    pub(super) refused: Option<String>,
    pub(super) up_bytes: u64,
    pub(super) down_bytes: u64,
    /// Bytes up and down for each hour of a device, in the steady time so far.
    pub(super) per_device_hour: Option<[f64; 2]>,
    pub(super) tls_full: u64,
    pub(super) tls_resumed: u64,
    /// The newest last.
    pub(super) recent: &'a VecDeque<(f64, Sample)>,
}

impl<'a> View<'a> {
    pub(super) fn new(world: &'a World, recorder: &'a Recorder, now: Duration) -> Self {
        let sum = |figure: fn(&crate::world::Tally) -> &AtomicU64| {
            world.sum(|tally| figure(tally).load(Ordering::Relaxed))
        };
        let [mut ack, mut delivery, mut lag] = [(); 3].map(|()| histogram());
        for troop in &world.troops {
            let ledger = troop.ledger();
            add(&mut ack, &ledger.ack_latency);
            add(&mut delivery, &ledger.delivery_latency);
            add(&mut lag, &ledger.generator_lag);
        }
        let refusals = world.troops.iter();
        let refusals = refusals.map(|troop| troop.tally.refusal.load(Ordering::Relaxed));
        Self {
            world,
            now,
            phase: phase(world, now),
            up: world.sum(|tally| tally.up.load(Ordering::Relaxed).into()),
            counts: world.counts(),
            is_acknowledged: world.plan.cohorts.iter().any(|cohort| cohort.qos > 0),
            ack: Distribution::of(&ack),
            delivery: Distribution::of(&delivery),
            lag: Distribution::of(&lag),
            reconnects: sum(|tally| &tally.reconnects),
            failures: sum(|tally| &tally.failures),
            refused: refusals.max().filter(|code| *code > 0).map(refusal),
            up_bytes: sum(|tally| &tally.up_bytes),
            down_bytes: sum(|tally| &tally.down_bytes),
            per_device_hour: per_device_hour(world, now),
            tls_full: sum(|tally| &tally.tls_full),
            tls_resumed: sum(|tally| &tally.tls_resumed),
            recent: recorder.recent(),
        }
    }

    /// The last second.
    pub(super) fn last(&self) -> Option<&Sample> {
        self.recent.back().map(|(_, sample)| sample)
    }

    /// How many a second, lately.
    pub(super) fn rate(&self, of: fn(&Sample) -> u64) -> f64 {
        let last = self.recent.iter().rev().take(3);
        let (seconds, count) = last.fold((0.0, 0), |(seconds, count), (span_s, sample)| {
            (seconds + span_s, count + of(sample))
        });
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    }
}

fn per_device_hour(world: &World, now: Duration) -> Option<[f64; 2]> {
    let growth = world.steady.growth_until(|| Mark::new(world, now))?;
    let device_hours = f64::from(world.plan.devices()) * growth.seconds / 3_600.0;
    let mut sum = Totals::default();
    for totals in growth.cohorts {
        sum += totals;
    }
    Some([sum.up_bytes, sum.down_bytes].map(|bytes| bytes as f64 / device_hours))
}

fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    // The same bounds everywhere: nothing is left out.
    let _ = sum.add(part);
}

fn phase(world: &World, now: Duration) -> (&'static str, Duration, Duration) {
    let plan = &world.plan;
    let (steady_at, publish_until) = (plan.steady_at(), world.publish_until());
    match world.stage() {
        Stage::Finished => ("leaving", Duration::ZERO, Duration::ZERO),
        Stage::Draining => (
            "draining",
            now.saturating_sub(publish_until),
            plan.drain_max,
        ),
        Stage::Publishing if now < steady_at => ("connecting", now, steady_at),
        Stage::Publishing => {
            let since = now - steady_at;
            let happening = plan.phases.iter().rev().find(|phase| {
                let lasts = match phase.event {
                    Event::Kill(_) => STORM,
                    Event::Partition(time) => time,
                };
                (phase.at..phase.at + lasts).contains(&since)
            });
            let name = match happening.map(|phase| &phase.event) {
                None => "steady",
                Some(Event::Kill(_)) => "storm",
                Some(Event::Partition(_)) => "partition",
            };
            (name, since, plan.duration)
        }
    }
}
