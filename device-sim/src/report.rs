//! What a run showed: text for people, JSON for programs.
//!
//! The JSON's fields are stable: they may be added to, and [`SCHEMA_VERSION`] grows when one changes.

use crate::connects::ConnectCost;
use crate::ledger::{Counts, histogram};
use crate::plan::{ClientKind, Cohort};
use crate::world::{Tally, World};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The version of the JSON report.
pub const SCHEMA_VERSION: u32 = 1;

/// A run's report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema: u32,
    /// The simulator's version.
    pub version: &'static str,
    /// The run's name in topics and client ids.
    pub run: String,
    /// What determined schedule, readings and losses.
    pub seed: u64,
    /// The broker's address.
    pub broker: String,
    /// The link's preset.
    pub link: String,
    /// What devices measure.
    pub profile: String,
    /// The devices' client stack.
    pub client: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// How many devices there were.
    pub devices: u32,
    /// Mean time between a device's readings.
    pub every_s: f64,
    /// How long all devices published.
    pub duration_s: f64,
    /// How long the run took, from the first connection to the last delivery.
    pub took_s: f64,
    /// Devices connected at the end.
    pub connected: u64,
    /// Connections after a device's first.
    pub reconnects: u64,
    /// Connections that failed or broke.
    pub connection_failures: u64,
    /// How often a phase killed a device.
    pub killed: u64,
    /// How often a phase cut the link of a device.
    pub partitioned: u64,
    /// From the loss of a connection to the next CONNACK.
    pub away: Latency,
    /// What connecting cost.
    pub connect_costs: Vec<ConnectCost>,
    /// CONNACK's return code of the last refused connection, or 0.
    pub connack_refusal: u8,
    /// Readings that devices meant to send.
    pub published: u64,
    /// Readings that devices dropped because their buffer was full.
    pub overflowed: u64,
    /// Messages that the broker refused with a reason code (MQTT 5).
    pub rejected: u64,
    /// QoS 2 messages that devices gave up because the broker had forgotten their session.
    pub given_up: u64,
    /// Messages that the broker acknowledged.
    pub acknowledged: u64,
    /// Messages that reached the verifier.
    pub delivered: u64,
    /// Acknowledged messages that did not.
    pub lost: u64,
    /// Published, but neither acknowledged nor dropped when the run ended (QoS 0: not delivered).
    pub unfinished: u64,
    /// Repeated deliveries.
    pub duplicated: u64,
    /// Deliveries out of order.
    pub reordered: u64,
    /// Deliveries that were not the run's.
    pub foreign: u64,
    /// From the intended send time to the acknowledgement at the device.
    pub ack_latency: Latency,
    /// From the intended send time to the verifier.
    pub delivery_latency: Latency,
    /// How late the simulator itself was.
    pub generator_lag: Latency,
    /// Whether at most 5 % of the readings were taken late; else the machine was too slow for the plan.
    pub valid: bool,
    /// Bytes from all devices, with TCP and IP headers and retransmissions.
    pub up_bytes: u64,
    /// Bytes to all devices, likewise.
    pub down_bytes: u64,
    /// Full TLS handshakes.
    pub tls_full: u64,
    /// Resumed TLS sessions.
    pub tls_resumed: u64,
    /// How often the verifier's connection broke.
    pub verifier_reconnects: u64,
    /// How often the broker had then forgotten its session.
    pub verifier_sessions_lost: u64,
    /// Sessions that could not be removed from the broker at the end.
    pub uncleaned: u64,
    /// The broken promises, in words.
    pub violations: Vec<String>,
}

/// A distribution of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The median, microseconds.
    pub p50_us: u64,
    /// Nine in ten are at most this, microseconds.
    pub p90_us: u64,
    /// Ninety-nine in a hundred are at most this, microseconds.
    pub p99_us: u64,
    /// The longest, microseconds.
    pub max_us: u64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

impl Report {
    pub(crate) fn new(world: &World, took: Duration) -> Self {
        let (plan, counts) = (&world.plan, world.counts());
        let [mut ack, mut delivery, mut lag, mut away] = [(); 4].map(|()| histogram());
        let mut violations = Vec::new();
        let mut connect_costs = Vec::new();
        for troop in &world.troops {
            let (ledger, connects) = (troop.ledger(), troop.connects());
            for (sum, part) in [
                (&mut ack, &ledger.ack_latency),
                (&mut delivery, &ledger.delivery_latency),
                (&mut lag, &ledger.generator_lag),
                (&mut away, &connects.away),
            ] {
                // The same bounds everywhere: nothing is left out.
                let _ = sum.add(part);
            }
            violations.extend(ledger.violations());
            connect_costs.extend(connects.costs(&troop.cohort.name));
        }
        let cohorts = plan.cohorts.iter();
        let qos = cohorts.clone().map(|cohort| cohort.qos).max().unwrap_or(0);
        let every = cohorts
            .clone()
            .map(|cohort| cohort.every)
            .min()
            .unwrap_or_default();
        let names = |name: fn(&Cohort) -> &str| {
            let mut names: Vec<&str> = cohorts.clone().map(name).collect();
            names.dedup();
            names.join(", ")
        };
        let sum = |figure: fn(&Tally) -> &AtomicU64| {
            world.sum(|tally| figure(tally).load(Ordering::Relaxed))
        };
        let refusals = world.troops.iter();
        let refusals = refusals.map(|troop| troop.tally.refusal.load(Ordering::Relaxed));
        Self {
            schema: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION"),
            run: plan.run.clone(),
            seed: plan.seed,
            broker: plan.endpoint.to_string(),
            link: names(|cohort| &cohort.preset.name),
            profile: names(|cohort| &cohort.profile.name),
            client: names(|cohort| match cohort.client {
                ClientKind::Simulated => "simulated",
                ClientKind::Rumqttc => "rumqttc",
            }),
            qos,
            devices: plan.devices(),
            every_s: every.as_secs_f64(),
            duration_s: plan.duration.as_secs_f64(),
            took_s: took.as_secs_f64(),
            connected: world.sum(|tally| tally.up.load(Ordering::Relaxed).into()),
            reconnects: sum(|tally| &tally.reconnects),
            connection_failures: sum(|tally| &tally.failures),
            killed: sum(|tally| &tally.killed),
            partitioned: sum(|tally| &tally.partitioned),
            away: Latency::of(&away),
            connect_costs,
            connack_refusal: refusals.max().unwrap_or(0),
            published: counts.published,
            overflowed: counts.overflowed,
            rejected: counts.rejected,
            given_up: counts.given_up,
            acknowledged: counts.acknowledged,
            delivered: counts.delivered,
            lost: counts.lost,
            unfinished: unfinished(&counts, qos),
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            foreign: counts.foreign,
            ack_latency: Latency::of(&ack),
            delivery_latency: Latency::of(&delivery),
            generator_lag: Latency::of(&lag),
            valid: counts.late * 20 <= counts.published,
            up_bytes: sum(|tally| &tally.up_bytes),
            down_bytes: sum(|tally| &tally.down_bytes),
            tls_full: sum(|tally| &tally.tls_full),
            tls_resumed: sum(|tally| &tally.tls_resumed),
            verifier_reconnects: world.verifier.reconnects.load(Ordering::Relaxed),
            verifier_sessions_lost: world.verifier.sessions_lost.load(Ordering::Relaxed),
            uncleaned: world.verifier.uncleaned.load(Ordering::Relaxed),
            violations,
        }
    }

    fn write_row(
        &self,
        formatter: &mut fmt::Formatter<'_>,
        name: &str,
        total: u64,
        latency: Option<&Latency>,
    ) -> fmt::Result {
        let rate = format!("{:.1}/s", total as f64 / self.took_s.max(0.001));
        let [p50, p90, p99, max] = match latency.filter(|latency| latency.count > 0) {
            Some(latency) => [
                latency.p50_us,
                latency.p90_us,
                latency.p99_us,
                latency.max_us,
            ]
            .map(time),
            None => [const { String::new() }; 4].map(|_| "-".to_owned()),
        };
        writeln!(
            formatter,
            "  {name:<13}{total:>9}{rate:>12}{p50:>11}{p90:>11}{p99:>11}{max:>11}"
        )
    }

    fn write_traffic(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.up_bytes + self.down_bytes == 0 {
            return Ok(());
        }
        let per_device = |bytes: u64| bytes as f64 / f64::from(self.devices) / 1_000.0;
        write!(
            formatter,
            "  traffic per device   up {:.2} kB   down {:.2} kB   with headers, retransmissions, connecting",
            per_device(self.up_bytes),
            per_device(self.down_bytes),
        )?;
        if self.tls_full + self.tls_resumed > 0 {
            let (full, resumed) = (self.tls_full, self.tls_resumed);
            write!(formatter, "   TLS full {full}, resumed {resumed}")?;
        }
        writeln!(formatter)
    }

    fn write_connects(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.killed + self.partitioned > 0 {
            let (killed, partitioned, away) = (self.killed, self.partitioned, &self.away);
            let [p50, p99, max] = [away.p50_us, away.p99_us, away.max_us].map(time);
            writeln!(
                formatter,
                "  killed {killed}, cut off {partitioned}   back after p50 {p50}   p99 {p99}   max {max}"
            )?;
        }
        for cost in &self.connect_costs {
            let (count, took) = (cost.took.count, &cost.took);
            let each = |bytes: u64| bytes / count.max(1);
            writeln!(
                formatter,
                "  connecting, {} {}: {count} times   up {} B   down {} B   p50 {}   p99 {}   max {}",
                cost.cohort,
                cost.handshake,
                each(cost.up_bytes),
                each(cost.down_bytes),
                time(took.p50_us),
                time(took.p99_us),
                time(took.max_us),
            )?;
        }
        Ok(())
    }

    fn write_remarks(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unfinished > 0 {
            let (unfinished, qos) = (self.unfinished, self.qos);
            let what = if qos == 0 { "arrived" } else { "acknowledged" };
            writeln!(formatter, "  {unfinished} not {what} when the run ended")?;
        }
        if self.overflowed > 0 {
            writeln!(
                formatter,
                "  {} dropped by devices whose buffer was full",
                self.overflowed
            )?;
        }
        if self.rejected > 0 {
            writeln!(formatter, "  {} refused by the broker", self.rejected)?;
        }
        if self.given_up > 0 {
            writeln!(
                formatter,
                "  {} given up by devices whose session the broker had forgotten",
                self.given_up
            )?;
        }
        if self.verifier_reconnects > 0 {
            writeln!(
                formatter,
                "  the verifier reconnected {} times; the broker had forgotten its session {} times",
                self.verifier_reconnects, self.verifier_sessions_lost
            )?;
        }
        if self.uncleaned > 0 {
            writeln!(
                formatter,
                "  {} sessions remain on the broker",
                self.uncleaned
            )?;
        }
        if !self.valid {
            writeln!(
                formatter,
                "  INVALID: this machine was too slow, more than 5 % of the readings were late"
            )?;
        }
        for violation in &self.violations {
            writeln!(formatter, "  VIOLATION: {violation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    /// The final text; its last line says what was lost.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "motemq-sim {}   seed {}   run {}   -> {}   link {}   client {}",
            self.version, self.seed, self.run, self.broker, self.link, self.client
        )?;
        writeln!(
            formatter,
            "  {} devices, {} every {} s, QoS {}, {:.0} s   connected {}   reconnects {}   failures {}",
            self.devices,
            self.profile,
            self.every_s,
            self.qos,
            self.took_s,
            self.connected,
            self.reconnects,
            self.connection_failures
        )?;
        writeln!(
            formatter,
            "  {:<13}{:>9}{:>12}{:>11}{:>11}{:>11}{:>11}   from the intended send time",
            "", "total", "rate", "p50", "p90", "p99", "max"
        )?;
        self.write_row(formatter, "published", self.published, None)?;
        if self.qos > 0 {
            self.write_row(
                formatter,
                "acknowledged",
                self.acknowledged,
                Some(&self.ack_latency),
            )?;
        }
        self.write_row(
            formatter,
            "delivered",
            self.delivered,
            Some(&self.delivery_latency),
        )?;
        self.write_row(
            formatter,
            "generator lag",
            self.generator_lag.count,
            Some(&self.generator_lag),
        )?;
        self.write_traffic(formatter)?;
        self.write_connects(formatter)?;
        self.write_remarks(formatter)?;
        writeln!(
            formatter,
            "duplicated {}   reordered {}   lost {}",
            self.duplicated, self.reordered, self.lost
        )
    }
}

fn unfinished(counts: &Counts, qos: u8) -> u64 {
    let arrived = if qos == 0 {
        counts.delivered
    } else {
        counts.acknowledged
    };
    counts
        .sent()
        .saturating_sub(arrived + counts.rejected + counts.given_up)
}

/// A time with three digits and its unit.
fn time(us: u64) -> String {
    let us = us as f64;
    match us {
        _ if us < 1_000.0 => format!("{us:.0} us"),
        _ if us < 100_000.0 => format!("{:.1} ms", us / 1_000.0),
        _ if us < 1_000_000.0 => format!("{:.0} ms", us / 1_000.0),
        _ => format!("{:.2} s", us / 1_000_000.0),
    }
}
