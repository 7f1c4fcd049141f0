//! Everything that depends on time, on the broker or on the machine.

use super::calendar::rfc3339;
use super::{Machine, Memory, Timeline};
use crate::commander;
use crate::connects::ConnectCost;
use crate::ledger::histogram;
use crate::steady::Totals;
use crate::world::{Troop, World};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// More than this part of the readings taken late makes a run invalid.
const LATE_SHARE_MAX: f64 = 0.05;

/// Everything that depends on time, on the broker or on the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The run's name in topics and client ids.
    pub run: String,
    /// The broker's address.
    pub broker: String,
    /// When the run began, RFC 3339.
    pub started_at: String,
    /// How long it took, from the first connection to the last delivery.
    pub took_s: f64,
    /// How long all devices published, which is what rates are over; nothing when it was less than a second.
    pub steady_s: Option<f64>,
    /// What the simulator ran on.
    pub machine: Machine,
    /// The simulator's own memory.
    pub memory: Memory,
    /// Whether at most 5 % of the readings were taken late; else the machine was too slow for the plan.
    pub valid: bool,
    /// The figures of all cohorts.
    pub total: Figures,
    /// The figures of each, in the plan's order.
    pub cohorts: Vec<CohortFigures>,
    /// What connecting cost, by cohort and handshake.
    pub connect_costs: Vec<ConnectCost>,
    /// From when a command was due to its first arrival at the device.
    pub command_seconds: Distribution,
    /// Commands that arrived, a second of the steady time.
    pub commands_per_second: Option<f64>,
    /// How the verifier fared.
    pub verifier: VerifierFigures,
    /// Which demands were met.
    pub thresholds: Vec<ThresholdResult>,
    /// Why the run proves nothing, in words; empty when it does.
    pub doubts: Vec<String>,
    /// How it went, second by second.
    pub timeline: Timeline,
}

/// The figures of a cohort.
#[derive(Clone, Debug, Serialize)]
pub struct CohortFigures {
    /// Its name.
    pub name: String,
    /// What was measured.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What was measured of some devices.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Devices connected at the end.
    pub connected: u64,
    /// Devices that were connected at least once.
    pub ever_connected: u64,
    /// Connections after a device's first.
    pub reconnects: u64,
    /// Connections that failed or broke, those of killed devices aside.
    pub connection_failures: u64,
    /// How often a phase killed a device.
    pub killed: u64,
    /// How often a phase cut the link of a device.
    pub partitioned: u64,
    /// CONNACK's code of the last refused connection, or 0.
    pub connack_refusal: u8,
    /// The reason code of the last refused message, or 0 (MQTT 5).
    pub publish_refusal: u8,
    /// Repeated deliveries at QoS 1, which allows them.
    pub redelivered: u64,
    /// Readings that the simulator took more than 50 ms late.
    pub late: u64,
    /// From when a reading was due to its acknowledgement at the device.
    pub publish_ack_seconds: Distribution,
    /// From when a reading was due to its first delivery at the verifier.
    pub delivery_seconds: Distribution,
    /// How late the simulator itself was.
    pub generator_lag_seconds: Distribution,
    /// From when a device should have begun to connect to its first accepted connection.
    pub connect_seconds: Distribution,
    /// From when a connection was lost to the next accepted one.
    pub reconnect_seconds: Distribution,
    /// Bytes from devices on the link, with TCP and IP headers and retransmissions.
    pub up_bytes: u64,
    /// Bytes to devices, likewise.
    pub down_bytes: u64,
    /// Readings taken, a second of the steady time.
    pub published_per_second: Option<f64>,
    /// Messages acknowledged, likewise.
    pub acknowledged_per_second: Option<f64>,
    /// Messages delivered, likewise.
    pub delivered_per_second: Option<f64>,
    /// Bytes up for each hour of a device, in the steady time.
    pub up_bytes_per_device_hour: Option<f64>,
    /// Bytes down, likewise.
    pub down_bytes_per_device_hour: Option<f64>,
    /// Bytes both ways for each reading that arrived, in the whole run, connecting included.
    pub bytes_per_delivered: Option<f64>,
    /// Full TLS handshakes.
    pub tls_full: u64,
    /// Resumed TLS sessions.
    pub tls_resumed: u64,
}

/// A distribution of times, in seconds; without `count`, all are zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many were measured.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// Nine in ten are at most this.
    pub p90: f64,
    /// Ninety-nine in a hundred are at most this.
    pub p99: f64,
    /// All but one in a thousand are at most this.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
    /// Share of the measured, and the time that it does not exceed; for drawing.
    #[serde(skip)]
    pub(crate) curve: Vec<(f64, f64)>,
}

/// How the verifier fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VerifierFigures {
    /// How often its connection broke.
    pub reconnects: u64,
    /// How often the broker had then forgotten its session.
    pub sessions_lost: u64,
    /// Sessions that could not be removed from the broker at the end.
    pub uncleaned: u64,
}

/// Whether a demand was met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThresholdResult {
    /// The figure's name.
    pub figure: String,
    /// What it had to be.
    pub demand: String,
    /// What it was; `null` when it was not measured.
    pub value: Option<f64>,
    /// Whether it was as it had to be; what was not measured was not.
    pub met: bool,
}

/// The sums that figures are made from.
struct Sums {
    figures: Figures,
    published: u64,
    delivered: u64,
    steady: Totals,
    devices: u32,
    /// In the order of the distributions of [`Figures`].
    times: [Histogram<u64>; 5],
}

impl Measured {
    pub(super) fn new(world: &World, took: Duration, timeline: Timeline) -> Self {
        let mut total = Sums::new();
        let (mut cohorts, mut connect_costs) = (Vec::new(), Vec::new());
        let growth = world.steady.growth();
        let steady_s = growth.as_ref().map(|growth| growth.seconds);
        for (place, troop) in world.troops.iter().enumerate() {
            let steady = growth.as_ref().and_then(|growth| growth.cohorts.get(place));
            let steady = steady.copied().unwrap_or_default();
            let mut sums = Sums::new();
            sums.add(troop, steady);
            total.add(troop, steady);
            connect_costs.extend(troop.connects().costs(&troop.cohort.name));
            cohorts.push(CohortFigures {
                name: troop.cohort.name.clone(),
                figures: sums.finish(steady_s),
            });
        }
        let published = total.published;
        let total = total.finish(steady_s);
        let verifier = &world.verifier;
        Self {
            run: world.plan.run.clone(),
            broker: world.plan.endpoint.to_string(),
            started_at: rfc3339(world.clock.started_at()),
            took_s: took.as_secs_f64(),
            steady_s,
            machine: Machine::this(),
            memory: Memory::of(world),
            valid: total.late as f64 <= published as f64 * LATE_SHARE_MAX,
            total,
            cohorts,
            connect_costs,
            command_seconds: Distribution::of(&commander::latency(world)),
            commands_per_second: growth
                .as_ref()
                .map(|growth| growth.commands as f64 / growth.seconds),
            verifier: VerifierFigures {
                reconnects: verifier.reconnects.load(Ordering::Relaxed),
                sessions_lost: verifier.sessions_lost.load(Ordering::Relaxed),
                uncleaned: verifier.uncleaned.load(Ordering::Relaxed),
            },
            thresholds: Vec::new(),
            doubts: Vec::new(),
            timeline,
        }
    }
}

impl Sums {
    fn new() -> Self {
        let none = Distribution::default;
        Self {
            figures: Figures {
                connected: 0,
                ever_connected: 0,
                reconnects: 0,
                connection_failures: 0,
                killed: 0,
                partitioned: 0,
                connack_refusal: 0,
                publish_refusal: 0,
                redelivered: 0,
                late: 0,
                publish_ack_seconds: none(),
                delivery_seconds: none(),
                generator_lag_seconds: none(),
                connect_seconds: none(),
                reconnect_seconds: none(),
                up_bytes: 0,
                down_bytes: 0,
                published_per_second: None,
                acknowledged_per_second: None,
                delivered_per_second: None,
                up_bytes_per_device_hour: None,
                down_bytes_per_device_hour: None,
                bytes_per_delivered: None,
                tls_full: 0,
                tls_resumed: 0,
            },
            published: 0,
            delivered: 0,
            steady: Totals::default(),
            devices: 0,
            times: [(); 5].map(|()| histogram()),
        }
    }

    fn add(&mut self, troop: &Troop, steady: Totals) {
        let (cohort, tally) = (&troop.cohort, &troop.tally);
        let ledger = troop.ledger();
        let connects = troop.connects();
        let parts = [
            &ledger.ack_latency,
            &ledger.delivery_latency,
            &ledger.generator_lag,
            &connects.first,
            &connects.away,
        ];
        for (sum, part) in self.times.iter_mut().zip(parts) {
            // The same bounds everywhere: nothing is left out.
            let _ = sum.add(part);
        }
        let counts = ledger.counts();
        self.published += counts.published;
        self.delivered += counts.delivered;
        self.steady += steady;
        self.devices += cohort.devices;
        let figures = &mut self.figures;
        figures.connected += u64::from(tally.up.load(Ordering::Relaxed));
        figures.ever_connected += connects.first.len();
        figures.reconnects += connects.away.len();
        figures.connection_failures += tally.failures.load(Ordering::Relaxed);
        figures.killed += tally.killed.load(Ordering::Relaxed);
        figures.partitioned += tally.partitioned.load(Ordering::Relaxed);
        let refusal = tally.refusal.load(Ordering::Relaxed);
        figures.connack_refusal = figures.connack_refusal.max(refusal);
        let refusal = tally.rejection.load(Ordering::Relaxed);
        figures.publish_refusal = figures.publish_refusal.max(refusal);
        figures.redelivered += if cohort.qos == 1 {
            counts.duplicated
        } else {
            0
        };
        figures.late += counts.late;
        figures.up_bytes += tally.up_bytes.load(Ordering::Relaxed);
        figures.down_bytes += tally.down_bytes.load(Ordering::Relaxed);
        figures.tls_full += tally.tls_full.load(Ordering::Relaxed);
        figures.tls_resumed += tally.tls_resumed.load(Ordering::Relaxed);
    }

    fn finish(self, steady_s: Option<f64>) -> Figures {
        let mut figures = self.figures;
        let [ack, delivery, lag, connect, reconnect] = self.times.each_ref().map(Distribution::of);
        figures.publish_ack_seconds = ack;
        figures.delivery_seconds = delivery;
        figures.generator_lag_seconds = lag;
        figures.connect_seconds = connect;
        figures.reconnect_seconds = reconnect;
        // Without a link, nobody counted.
        let (up, down) = (figures.up_bytes, figures.down_bytes);
        let is_counted = up + down > 0;
        let per_second = |count: u64| steady_s.map(|seconds| count as f64 / seconds);
        let per_device_hour = |bytes: u64| {
            let rate = per_second(bytes).filter(|_| is_counted)?;
            Some(rate * 3_600.0 / f64::from(self.devices))
        };
        let steady = &self.steady;
        figures.published_per_second = per_second(steady.published);
        figures.acknowledged_per_second = per_second(steady.acknowledged);
        figures.delivered_per_second = per_second(steady.delivered);
        figures.up_bytes_per_device_hour = per_device_hour(steady.up_bytes);
        figures.down_bytes_per_device_hour = per_device_hour(steady.down_bytes);
        figures.bytes_per_delivered =
            (is_counted && self.delivered > 0).then(|| (up + down) as f64 / self.delivered as f64);
        figures
    }
}

impl Distribution {
    /// Of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let quantile = |share| seconds(histogram.value_at_quantile(share));
        Self {
            count: histogram.len(),
            mean: histogram.mean().round() / 1e6,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: seconds(histogram.max()),
            curve: percentile_curve(histogram),
        }
    }

    /// What was measured, or nothing.
    #[must_use]
    pub fn measured(&self) -> Option<&Self> {
        (self.count > 0).then_some(self)
    }
}

/// Share of the measured and the seconds that it does not exceed, denser towards the longest.
pub(crate) fn percentile_curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = histogram.iter_quantiles(8);
    steps
        .map(|step| (step.quantile(), seconds(step.value_iterated_to())))
        .collect()
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
