//! What a bench found: text for people, JSON for programs.
//!
//! `plan` is what was asked for, `outcome` what became of connections and messages in the whole run, `measured` what
//! depends on time, of the measured window alone. `fields.md` explains every field; a test compares.

use super::flow::{Counts, Flow, Missing};
use super::plan::{Pace, Plan, Shape};
use crate::wire::Version;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Changes when a field of the JSON changes its name or meaning.
pub const SCHEMA_VERSION: u32 = 1;
/// Every field of the JSON, explained.
pub const FIELDS: &str = include_str!("fields.md");
/// More late messages than this make the measurement the generator's and not the broker's.
const LATE_SHARE_MAX: f64 = 0.05;
/// A generator that uses more of its one core than this may have been the bottleneck.
const BUSY_SHARE: f64 = 0.9;

/// CPU times at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    pub(super) at_ns: u64,
    pub(super) broker: Option<Duration>,
    pub(super) own: Option<Duration>,
}

impl Cpu {
    /// Seconds of CPU per second until `later`.
    pub(super) fn broker_share(&self, later: &Self) -> Option<f64> {
        let used = later.broker?.saturating_sub(self.broker?);
        Some(used.as_secs_f64() / seconds(self.at_ns, later.at_ns))
    }
}

/// The measured time.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) from: Cpu,
    pub(super) to: Cpu,
    pub(super) counts_from: Counts,
    pub(super) counts_to: Counts,
    /// The flow ended before its warm-up did: this is all of it.
    pub(super) is_whole: bool,
}

/// A finished bench.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema: u32,
    /// The program and its version.
    pub program: String,
    /// What was asked for.
    pub plan: PlanReport,
    /// What became of connections and messages.
    pub outcome: Outcome,
    /// What depends on time.
    pub measured: Measured,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    pub command: &'static str,
    pub broker: String,
    pub mqtt: &'static str,
    pub publishers: u32,
    pub subscribers: u32,
    pub connections: u32,
    pub pairs: bool,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub size_bytes: usize,
    pub interval_us: u64,
    pub inflight: u16,
    pub batch: u16,
    pub limit: u64,
    pub connects_per_s: f64,
    pub clean: bool,
    pub warm_up_s: f64,
    pub duration_s: f64,
}

/// What became of connections and messages, from the first to the last.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub connected: u32,
    pub sessions_present: u32,
    pub connections_failed: u32,
    pub connections_lost: u32,
    pub failures: BTreeMap<String, u32>,
    pub sent: u64,
    pub unsent: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub expected: u64,
    pub received: u64,
    pub lost: u64,
    pub lost_acknowledged: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub foreign: u64,
    pub streams: usize,
    pub stalls: u64,
    pub held: u64,
    pub pings: u64,
    pub pongs: u64,
    pub violations: Vec<String>,
}

/// What depends on time.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub model: &'static str,
    pub window_s: f64,
    pub window_is_whole_run: bool,
    pub connects_per_s: f64,
    pub sent_per_s: f64,
    pub acknowledged_per_s: f64,
    pub received_per_s: f64,
    pub received_mb_per_s: f64,
    pub connect_latency: Latency,
    pub latency: Latency,
    pub ack_latency: Latency,
    pub generator: Generator,
    pub broker: Option<Broker>,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub count: u64,
    pub min_us: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// What the generator itself did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generator {
    pub cpu_us_per_message: Option<f64>,
    pub cpu_share: Option<f64>,
    pub lag: Latency,
    pub late: u64,
    pub valid: bool,
}

/// What the broker used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Broker {
    pub cpu_us_per_message: Option<f64>,
    pub cpu_us_per_sent: Option<f64>,
    pub cpu_us_per_connect: Option<f64>,
    pub cpu_share: Option<f64>,
    pub rss_connected_kib: Option<u64>,
    pub rss_end_kib: Option<u64>,
    pub rss_peak_kib: Option<u64>,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        flow: &Flow,
        window: &Window,
        ramp: &Window,
        memory_connected: Option<(u64, u64)>,
        memory_end: Option<(u64, u64)>,
    ) -> Self {
        let missing = flow.missing();
        Self {
            schema: SCHEMA_VERSION,
            program: concat!("motemq-sim ", env!("CARGO_PKG_VERSION")).to_owned(),
            plan: PlanReport::new(plan),
            outcome: Outcome::new(plan, flow, &missing),
            measured: Measured {
                broker: window
                    .from
                    .broker
                    .map(|_| Broker::new(flow, window, ramp, memory_connected, memory_end)),
                ..Measured::new(plan, flow, window)
            },
        }
    }

    /// Why this was not the run that was asked for; `None` when it was.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let (plan, outcome) = (&self.plan, &self.outcome);
        if outcome.connections_failed > 0 {
            let (failed, wanted) = (outcome.connections_failed, plan.connections);
            return Some(format!("{failed} of {wanted} connections failed"));
        }
        if outcome.connections_lost > 0 {
            return Some(format!("{} connections broke", outcome.connections_lost));
        }
        if outcome.refused > 0 {
            return Some(format!("the broker refused {} messages", outcome.refused));
        }
        if plan.publishers > 0 && outcome.sent == 0 {
            return Some("nothing was sent: raise --duration or lower -I".to_owned());
        }
        (outcome.expected > 0 && outcome.received == 0).then(|| "nothing arrived".to_owned())
    }
}

impl PlanReport {
    fn new(plan: &Plan) -> Self {
        let interval = match plan.pace {
            Pace::Every(interval) => interval,
            Pace::Unpaced => Duration::ZERO,
        };
        Self {
            command: plan.shape.name(),
            broker: plan.endpoint.to_string(),
            mqtt: match plan.version {
                Version::V4 => "3.1.1",
                Version::V5 => "5.0",
            },
            publishers: plan.publishers(),
            subscribers: plan.subscribers(),
            connections: plan.connections(),
            pairs: plan.shape == Shape::Pairs,
            topic: plan.topic.clone(),
            qos: plan.qos,
            retain: plan.retain,
            size_bytes: plan.size,
            interval_us: interval.as_micros().try_into().unwrap_or(u64::MAX),
            inflight: plan.inflight,
            batch: plan.batch,
            limit: plan.limit,
            connects_per_s: plan.connects_per_s,
            clean: plan.clean,
            warm_up_s: plan.warm_up.as_secs_f64(),
            duration_s: plan.duration.as_secs_f64(),
        }
    }
}

impl Outcome {
    fn new(plan: &Plan, flow: &Flow, missing: &Missing) -> Self {
        let counts = &flow.counts;
        let failures: u32 = flow.failures.values().sum();
        let lost = counts.lost_connections;
        Self {
            connected: counts.accepted,
            sessions_present: counts.sessions_present,
            connections_failed: plan.connections().saturating_sub(counts.accepted),
            connections_lost: lost.min(failures),
            failures: flow.failures.clone(),
            sent: counts.sent,
            unsent: counts.unsent,
            acknowledged: counts.acknowledged,
            refused: counts.refused,
            expected: missing.expected,
            received: counts.received,
            lost: missing.lost,
            lost_acknowledged: missing.lost_acknowledged,
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            foreign: counts.foreign,
            streams: flow.streams(),
            stalls: counts.stalls,
            held: counts.held,
            pings: counts.pings,
            pongs: counts.pongs,
            violations: violations(plan, counts, missing),
        }
    }
}

/// What the broker promised and did not keep.
fn violations(plan: &Plan, counts: &Counts, missing: &Missing) -> Vec<String> {
    let mut violations = Vec::new();
    if missing.lost_acknowledged > 0 {
        let (publisher, sequence) = missing.first.unwrap_or_default();
        violations.push(format!(
            "{} deliveries lost though their messages were acknowledged, the first: message {sequence} of publisher {publisher}",
            missing.lost_acknowledged
        ));
    }
    if counts.duplicated > 0 && plan.qos != 1 {
        let (count, qos) = (counts.duplicated, plan.qos);
        violations.push(format!("{count} messages delivered twice at QoS {qos}"));
    }
    if counts.reordered > 0 {
        violations.push(format!(
            "{} messages came after later ones of the same publisher",
            counts.reordered
        ));
    }
    violations
}

impl Measured {
    fn new(plan: &Plan, flow: &Flow, window: &Window) -> Self {
        let window_s = seconds(window.from.at_ns, window.to.at_ns);
        let (from, to) = (&window.counts_from, &window.counts_to);
        let rate = |to: u64, from: u64| (to - from) as f64 / window_s;
        let ramp_s = seconds(flow.first_up_ns, flow.last_up_ns);
        let later_connects = flow.counts.accepted.saturating_sub(1);
        Self {
            model: match (plan.shape.publishes(), plan.pace) {
                (false, _) => "none",
                (true, Pace::Every(_)) => "open",
                (true, Pace::Unpaced) => "closed",
            },
            window_s,
            window_is_whole_run: window.is_whole,
            connects_per_s: f64::from(later_connects) / ramp_s,
            sent_per_s: rate(to.sent, from.sent),
            acknowledged_per_s: rate(to.acknowledged, from.acknowledged),
            received_per_s: rate(to.received, from.received),
            received_mb_per_s: rate(to.received_bytes, from.received_bytes) / 1e6,
            connect_latency: Latency::of(&flow.connect_latency),
            latency: Latency::of(&flow.latency),
            ack_latency: Latency::of(&flow.ack_latency),
            generator: Generator::new(flow, window),
            broker: None,
        }
    }
}

impl Generator {
    fn new(flow: &Flow, window: &Window) -> Self {
        let used = used(window.from.own, window.to.own);
        let window_s = seconds(window.from.at_ns, window.to.at_ns);
        let due = flow.lag.len();
        let late = flow.counts.late;
        Self {
            cpu_us_per_message: per(used, messages(window)),
            cpu_share: used.map(|used| used.as_secs_f64() / window_s),
            lag: Latency::of(&flow.lag),
            late,
            valid: late as f64 <= due as f64 * LATE_SHARE_MAX,
        }
    }
}

impl Broker {
    fn new(
        flow: &Flow,
        window: &Window,
        ramp: &Window,
        memory_connected: Option<(u64, u64)>,
        memory_end: Option<(u64, u64)>,
    ) -> Self {
        let in_window = used(window.from.broker, window.to.broker);
        let in_ramp = used(ramp.from.broker, ramp.to.broker);
        let sent = window.counts_to.sent - window.counts_from.sent;
        Self {
            cpu_us_per_message: per(in_window, messages(window)),
            cpu_us_per_sent: per(in_window, sent),
            cpu_us_per_connect: per(in_ramp, flow.counts.accepted.into()),
            cpu_share: window.from.broker_share(&window.to),
            rss_connected_kib: memory_connected.map(|(now, _)| now),
            rss_end_kib: memory_end.map(|(now, _)| now),
            rss_peak_kib: memory_end.map(|(_, peak)| peak),
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        let quantile = |quantile| match histogram.len() {
            0 => 0.0,
            _ => us(histogram.value_at_quantile(quantile)),
        };
        let is_empty = histogram.is_empty();
        Self {
            count: histogram.len(),
            min_us: if is_empty { 0.0 } else { us(histogram.min()) },
            mean_us: if is_empty {
                0.0
            } else {
                (histogram.mean() / 1e3 * 1e3).round() / 1e3
            },
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: us(histogram.max()),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "p50 {}   p90 {}   p99 {}   p99.9 {}   max {}",
            time(self.p50_us),
            time(self.p90_us),
            time(self.p99_us),
            time(self.p999_us),
            time(self.max_us)
        )
    }
}

/// What a figure "per message" is divided by: messages received where somebody receives, else messages sent.
fn messages(window: &Window) -> u64 {
    let (from, to) = (&window.counts_from, &window.counts_to);
    match to.received - from.received {
        0 => to.sent - from.sent,
        received => received,
    }
}

fn used(from: Option<Duration>, to: Option<Duration>) -> Option<Duration> {
    Some(to?.saturating_sub(from?))
}

/// Microseconds per message, to the nanosecond.
fn per(used: Option<Duration>, messages: u64) -> Option<f64> {
    let us = used?.as_secs_f64() * 1e6 / messages as f64;
    (messages > 0).then(|| (us * 1e3).round() / 1e3)
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns).max(1) as f64 / 1e9
}

fn some(count: u32, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn time(us: f64) -> String {
    match us {
        0.0..1_000.0 => format!("{us:.0} us"),
        1_000.0..1_000_000.0 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

impl fmt::Display for Report {
    /// The final text; its last lines say what was lost and what was broken.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_head(formatter)?;
        self.write_connections(formatter)?;
        if self.plan.command != "conn" {
            self.write_rates(formatter)?;
        }
        self.write_use(formatter)?;
        if self.plan.command != "conn" {
            self.write_messages(formatter)?;
        }
        for (reason, count) in &self.outcome.failures {
            writeln!(formatter, "  failed {count} times: {reason}")?;
        }
        for violation in &self.outcome.violations {
            writeln!(formatter, "  VIOLATION: {violation}")?;
        }
        match self.failure() {
            Some(failure) => writeln!(formatter, "  FAILED: {failure}"),
            None => Ok(()),
        }
    }
}

impl Report {
    fn write_head(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        write!(
            formatter,
            "bench {} on {}, MQTT {}: ",
            plan.command, plan.broker, plan.mqtt
        )?;
        match plan.command {
            "conn" => return writeln!(formatter, "{}", some(plan.connections, "connection")),
            "pub" => write!(formatter, "{}", some(plan.publishers, "publisher"))?,
            "sub" => write!(formatter, "{}", some(plan.subscribers, "subscriber"))?,
            _ => write!(
                formatter,
                "{}, {} on {}",
                some(plan.publishers, "publisher"),
                some(plan.subscribers, "subscriber"),
                some(plan.connections, "connection")
            )?,
        }
        write!(formatter, ", QoS {}", plan.qos)?;
        match self.measured.model {
            "open" => writeln!(
                formatter,
                ", {} bytes every {} each (open model)",
                plan.size_bytes,
                time(plan.interval_us as f64)
            ),
            "closed" => writeln!(
                formatter,
                ", {} bytes, {} on the way each in batches of {} (closed model: the broker sets the pace)",
                plan.size_bytes, plan.inflight, plan.batch
            ),
            _ => writeln!(formatter),
        }
    }

    fn write_connections(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connected, asked) = (self.outcome.connected, self.plan.connections);
        write!(formatter, "  connections   {connected} of {asked}")?;
        if connected > 1 {
            write!(formatter, ", {:.0}/s", self.measured.connects_per_s)?;
        }
        writeln!(formatter, "   {}", self.measured.connect_latency)
    }

    fn write_rates(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measured = &self.measured;
        let what = if measured.window_is_whole_run {
            "the whole run, which ended within the warm-up"
        } else {
            "without ramp, warm-up and drain"
        };
        write!(formatter, "  rate         ")?;
        if self.plan.publishers > 0 {
            write!(formatter, " sent {:.0}/s  ", measured.sent_per_s)?;
        }
        if self.plan.publishers > 0 && self.plan.qos > 0 {
            write!(
                formatter,
                " acknowledged {:.0}/s  ",
                measured.acknowledged_per_s
            )?;
        }
        if self.plan.subscribers > 0 {
            write!(
                formatter,
                " received {:.0}/s ({:.2} MB/s)  ",
                measured.received_per_s, measured.received_mb_per_s
            )?;
        }
        writeln!(formatter, " over {:.2} s, {what}", measured.window_s)?;
        if measured.latency.count > 0 {
            writeln!(formatter, "  latency       {}", measured.latency)?;
        }
        if measured.ack_latency.count > 0 {
            writeln!(formatter, "  acknowledged  {}", measured.ack_latency)?;
        }
        Ok(())
    }

    fn write_use(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generator = &self.measured.generator;
        if let Some(broker) = &self.measured.broker {
            write!(formatter, "  broker       ")?;
            if let Some(us) = broker.cpu_us_per_message {
                write!(formatter, " CPU {us:.2} us a message  ")?;
            }
            if let (Some(us), "fanout") = (broker.cpu_us_per_sent, self.plan.command) {
                write!(formatter, " {us:.1} us a message sent  ")?;
            }
            if let Some(us) = broker.cpu_us_per_connect {
                write!(formatter, " {us:.0} us a connect  ")?;
            }
            let share = broker.cpu_share.unwrap_or_default() * 100.0;
            let mib = |kib: Option<u64>| kib.unwrap_or_default() as f64 / 1024.0;
            writeln!(
                formatter,
                " {share:.0} % of a core   RSS {:.1} MiB connected, {:.1} at the end, {:.1} peak",
                mib(broker.rss_connected_kib),
                mib(broker.rss_end_kib),
                mib(broker.rss_peak_kib)
            )?;
        }
        let share = generator.cpu_share.unwrap_or_default();
        write!(formatter, "  generator     ")?;
        if let Some(us) = generator.cpu_us_per_message {
            write!(formatter, "CPU {us:.2} us a message   ")?;
        }
        write!(formatter, "{:.0} % of a core", share * 100.0)?;
        if generator.lag.count > 0 {
            write!(formatter, "   lag {}", generator.lag)?;
        }
        writeln!(formatter)?;
        if self.measured.model == "closed" && share > BUSY_SHARE {
            writeln!(
                formatter,
                "  the generator had no time left: the broker may be faster than this rate"
            )?;
        }
        if self.outcome.unsent > 0 {
            writeln!(
                formatter,
                "  the broker could not keep up with the schedule: latencies lack what was due but not sent"
            )?;
        }
        if !generator.valid {
            writeln!(
                formatter,
                "  INVALID: this machine was too slow, more than 5 % of the messages were late"
            )?;
        }
        Ok(())
    }

    fn write_messages(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = &self.outcome;
        write!(formatter, "  messages     ")?;
        if self.plan.publishers > 0 {
            write!(formatter, " sent {}  ", outcome.sent)?;
        }
        if outcome.unsent > 0 {
            write!(formatter, " due but not sent {}  ", outcome.unsent)?;
        }
        if self.plan.publishers > 0 && self.plan.qos > 0 {
            write!(formatter, " acknowledged {}  ", outcome.acknowledged)?;
        }
        if self.plan.subscribers == 0 {
            return writeln!(formatter);
        }
        write!(
            formatter,
            " received {} of {}   duplicated {}   reordered {}",
            outcome.received, outcome.expected, outcome.duplicated, outcome.reordered
        )?;
        if outcome.foreign > 0 {
            write!(formatter, "   of others {}", outcome.foreign)?;
        }
        if outcome.stalls > 0 {
            write!(formatter, "   stalls {}", outcome.stalls)?;
        }
        write!(formatter, "   lost {}", outcome.lost)?;
        if self.plan.qos > 0 && self.plan.publishers > 0 {
            write!(
                formatter,
                ", {} of them acknowledged",
                outcome.lost_acknowledged
            )?;
        }
        writeln!(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::flow::Flow;
    use crate::bench::plan::tests::plan;

    #[test]
    fn every_field_of_the_json_is_explained() {
        let mut plan = plan();
        plan.shape = Shape::Sub;
        let flow = Flow::new(&plan, 1).unwrap();
        let mut window = Window::default();
        window.from.broker = Some(Duration::ZERO);
        let report = Report::new(&plan, &flow, &window, &Window::default(), None, None);
        let json = serde_json::to_value(&report).unwrap();
        let mut names = Vec::new();
        collect("", &json, &mut names);
        for name in names {
            assert!(
                FIELDS.contains(&format!("`{name}`")),
                "fields.md lacks {name}"
            );
        }
    }

    /// The names of all fields; those of a latency once, as `*.p50_us`.
    fn collect(prefix: &str, json: &serde_json::Value, names: &mut Vec<String>) {
        let serde_json::Value::Object(fields) = json else {
            return;
        };
        for (name, value) in fields {
            let name = match name.as_str() {
                "count" => "*.count".to_owned(),
                _ if name.ends_with("_us") && value.is_f64() => format!("*.{name}"),
                _ => format!("{prefix}{name}"),
            };
            if !value.is_object() {
                names.push(name);
            } else if name != "outcome.failures" {
                names.push(name.clone());
                collect(&format!("{name}."), value, names);
            }
        }
    }

    #[test]
    fn times_have_three_digits_or_so() {
        assert_eq!(time(12.3), "12 us");
        assert_eq!(time(1_234.0), "1.23 ms");
        assert_eq!(time(12_345_678.0), "12.35 s");
    }
}
