//! The report for people: a table, remarks, and a last line that says what was lost.

use super::{Distribution, Figures, Report};
use crate::client::refusal;
use std::fmt::{Display, Formatter, Result};

impl Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        self.write_head(formatter)?;
        self.write_table(formatter)?;
        self.write_cohorts(formatter)?;
        if let Some(commands) = &self.outcome.commands {
            writeln!(
                formatter,
                "  commands: {} sent, {} acknowledged, {} delivered   duplicated {}   reordered {}   altered {}   lost {}",
                commands.published,
                commands.acknowledged,
                commands.delivered,
                commands.duplicated,
                commands.reordered,
                commands.altered,
                commands.lost
            )?;
        }
        self.write_traffic(formatter)?;
        self.write_connects(formatter)?;
        self.write_memory(formatter)?;
        self.write_remarks(formatter)?;
        let total = &self.outcome.total;
        writeln!(
            formatter,
            "duplicated {}   reordered {}   altered {}   lost {}",
            self.duplicated(),
            total.reordered,
            total.altered,
            total.lost
        )
    }
}

impl Report {
    fn write_head(&self, formatter: &mut Formatter<'_>) -> Result {
        let (plan, measured) = (&self.plan, &self.measured);
        let scenario = match plan.digest.as_str() {
            "" => String::new(),
            digest => format!("   scenario {} ({digest})", plan.name),
        };
        writeln!(
            formatter,
            "motemq-sim {}   seed {}{scenario}   run {}   -> {}",
            self.version, plan.seed, measured.run, measured.broker
        )?;
        if let [cohort] = plan.cohorts.as_slice() {
            writeln!(
                formatter,
                "  {} devices, {} every {} s, QoS {}, link {}, client {}",
                cohort.devices,
                cohort.profile,
                cohort.every_s,
                cohort.qos,
                cohort.link,
                cohort.client
            )?;
        }
        writeln!(
            formatter,
            "  took {:.0} s   connected {} of {}   reconnects {}   failed connections {}",
            measured.took_s,
            measured.total.connected,
            plan.devices,
            measured.total.reconnects,
            measured.total.connection_failures,
        )
    }

    fn write_table(&self, formatter: &mut Formatter<'_>) -> Result {
        let (counted, figures) = (&self.outcome.total, &self.measured.total);
        writeln!(
            formatter,
            "  {:<13}{:>10}{:>13}{:>10}{:>10}{:>10}{:>10}{:>10}   from when it was due",
            "", "total", "steady rate", "p50", "p90", "p99", "p99.9", "max"
        )?;
        let commands = self.outcome.commands;
        let rows = [
            (
                "published",
                counted.published,
                figures.published_per_second,
                None,
            ),
            (
                "acknowledged",
                counted.acknowledged,
                figures.acknowledged_per_second,
                Some(&figures.publish_ack_seconds),
            ),
            (
                "delivered",
                counted.delivered,
                figures.delivered_per_second,
                Some(&figures.delivery_seconds),
            ),
            (
                "commands",
                commands.map_or(0, |commands| commands.delivered),
                self.measured.commands_per_second,
                Some(&self.measured.command_seconds),
            ),
            (
                "connected",
                figures.connect_seconds.count,
                None,
                Some(&figures.connect_seconds),
            ),
            (
                "reconnected",
                figures.reconnect_seconds.count,
                None,
                Some(&figures.reconnect_seconds),
            ),
            (
                "generator lag",
                figures.generator_lag_seconds.count,
                None,
                Some(&figures.generator_lag_seconds),
            ),
        ];
        for (name, total, rate, times) in rows {
            if total > 0 || name == "published" || name == "delivered" {
                write_row(formatter, name, total, rate, times)?;
            }
        }
        Ok(())
    }

    /// A line for each cohort, when there are several.
    fn write_cohorts(&self, formatter: &mut Formatter<'_>) -> Result {
        if self.plan.cohorts.len() < 2 {
            return Ok(());
        }
        writeln!(
            formatter,
            "  {:<16}{:>9} {:<16}{:>4}{:>10}{:>10}{:>7}{:>10}{:>10}{:>12}",
            "cohort",
            "devices",
            "link",
            "QoS",
            "published",
            "delivered",
            "lost",
            "p50",
            "p99",
            "B/delivered"
        )?;
        let parts = self.plan.cohorts.iter().zip(&self.outcome.cohorts);
        for ((planned, outcome), measured) in parts.zip(&self.measured.cohorts) {
            let times = measured.figures.delivery_seconds.measured();
            let time = |of: fn(&Distribution) -> f64| {
                times.map_or_else(|| "-".to_owned(), |times| time_text(of(times)))
            };
            let bytes = measured.figures.bytes_per_delivered;
            writeln!(
                formatter,
                "  {:<16}{:>9} {:<16}{:>4}{:>10}{:>10}{:>7}{:>10}{:>10}{:>12}",
                planned.name,
                planned.devices,
                planned.link,
                planned.qos,
                outcome.counted.published,
                outcome.counted.delivered,
                outcome.counted.lost,
                time(|times| times.p50),
                time(|times| times.p99),
                bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}")),
            )?;
        }
        Ok(())
    }

    fn write_traffic(&self, formatter: &mut Formatter<'_>) -> Result {
        let figures = &self.measured.total;
        let mut parts = Vec::new();
        if let (Some(up), Some(down)) = (
            figures.up_bytes_per_device_hour,
            figures.down_bytes_per_device_hour,
        ) {
            let (up, down) = (bytes_text(up), bytes_text(down));
            parts.push(format!(
                "per device and hour, steady: up {up}   down {down}"
            ));
        }
        if let Some(bytes) = figures.bytes_per_delivered {
            let bytes = bytes_text(bytes);
            parts.push(format!("per delivered reading, whole run: {bytes}"));
        }
        if !parts.is_empty() {
            writeln!(formatter, "  {}", parts.join("   "))?;
        }
        if figures.tls_full + figures.tls_resumed > 0 {
            let (full, resumed) = (figures.tls_full, figures.tls_resumed);
            writeln!(formatter, "  TLS full {full}, resumed {resumed}")?;
        }
        Ok(())
    }

    fn write_connects(&self, formatter: &mut Formatter<'_>) -> Result {
        let total = &self.measured.total;
        if total.killed + total.partitioned > 0 {
            let (killed, partitioned) = (total.killed, total.partitioned);
            writeln!(formatter, "  killed {killed}   cut off {partitioned}")?;
        }
        for cost in &self.measured.connect_costs {
            let each = |bytes: u64| bytes_text(bytes as f64 / cost.seconds.count.max(1) as f64);
            writeln!(
                formatter,
                "  connecting, {} {}: {} times   up {}   down {}   p50 {}   p99 {}   max {}",
                cost.cohort,
                cost.handshake,
                cost.seconds.count,
                each(cost.up_bytes),
                each(cost.down_bytes),
                time_text(cost.seconds.p50),
                time_text(cost.seconds.p99),
                time_text(cost.seconds.max),
            )?;
        }
        Ok(())
    }

    fn write_memory(&self, formatter: &mut Formatter<'_>) -> Result {
        // With few devices, what does not depend on their number would count as theirs.
        let bytes = self.measured.memory.bytes_per_device;
        match bytes.filter(|_| self.plan.devices >= 1_000) {
            Some(bytes) => writeln!(
                formatter,
                "  memory of the simulator per device {}",
                bytes_text(bytes as f64)
            ),
            None => Ok(()),
        }
    }

    fn write_remarks(&self, formatter: &mut Formatter<'_>) -> Result {
        for remark in self.remarks() {
            writeln!(formatter, "  {remark}")?;
        }
        for doubt in &self.measured.doubts {
            writeln!(formatter, "  NOT PROVEN: {doubt}")?;
        }
        for violation in &self.outcome.violations {
            writeln!(formatter, "  VIOLATION: {violation}")?;
        }
        for threshold in &self.measured.thresholds {
            let verdict = if threshold.met { "met" } else { "MISSED" };
            let (figure, demand) = (&threshold.figure, &threshold.demand);
            let value = threshold_text(threshold.value);
            writeln!(
                formatter,
                "  threshold {verdict}: {figure} {demand}, was {value}"
            )?;
        }
        Ok(())
    }

    /// What is worth knowing and breaks no promise.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let (counted, measured) = (&self.outcome.total, &self.measured);
        let figures: &Figures = &measured.total;
        let mut remarks = Vec::new();
        if figures.connack_refusal != 0 {
            let reason = refusal(figures.connack_refusal);
            remarks.push(format!("the broker refused connections: {reason}"));
        }
        if counted.unfinished > 0 {
            let what = if self.plan.cohorts.iter().all(|cohort| cohort.qos == 0) {
                "arrived"
            } else {
                "acknowledged"
            };
            let unfinished = counted.unfinished;
            remarks.push(format!("{unfinished} not {what} when the run ended"));
        }
        let commands = self.outcome.commands.unwrap_or_default();
        let foreign = counted.foreign + commands.foreign;
        if foreign > 0 {
            remarks.push(format!("{foreign} foreign deliveries, not the run's"));
        }
        if counted.overflowed > 0 {
            let overflowed = counted.overflowed;
            remarks.push(format!(
                "{overflowed} dropped by devices whose buffer was full"
            ));
        }
        if counted.rejected > 0 {
            let (rejected, reason) = (counted.rejected, refusal(figures.publish_refusal));
            remarks.push(format!("{rejected} refused by the broker: {reason}"));
        }
        if counted.given_up > 0 {
            let given_up = counted.given_up;
            remarks.push(format!(
                "{given_up} given up by devices whose session the broker had forgotten"
            ));
        }
        let verifier = &measured.verifier;
        if verifier.reconnects > 0 {
            remarks.push(format!(
                "the verifier reconnected {} times; the broker had forgotten its session {} times",
                verifier.reconnects, verifier.sessions_lost
            ));
        }
        if verifier.uncleaned > 0 {
            let uncleaned = verifier.uncleaned;
            remarks.push(format!("{uncleaned} sessions remain on the broker"));
        }
        remarks
    }
}

fn write_row(
    formatter: &mut Formatter<'_>,
    name: &str,
    total: u64,
    rate: Option<f64>,
    times: Option<&Distribution>,
) -> Result {
    let rate = rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s"));
    write!(formatter, "  {name:<13}{total:>10}{rate:>13}")?;
    match times.and_then(Distribution::measured) {
        Some(times) => {
            for seconds in [times.p50, times.p90, times.p99, times.p99_9, times.max] {
                write!(formatter, "{:>10}", time_text(seconds))?;
            }
        }
        None => {
            for _ in 0..5 {
                write!(formatter, "{:>10}", "-")?;
            }
        }
    }
    writeln!(formatter)
}

/// A threshold's value.
pub(crate) fn threshold_text(value: Option<f64>) -> String {
    match value {
        Some(value) => {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        None => "not measured".to_owned(),
    }
}

/// A time with three digits and its unit.
pub(crate) fn time_text(seconds: f64) -> String {
    match seconds {
        _ if seconds < 0.000_999_5 => format!("{:.0} us", seconds * 1e6),
        _ if seconds < 0.009_995 => format!("{:.2} ms", seconds * 1e3),
        _ if seconds < 0.099_95 => format!("{:.1} ms", seconds * 1e3),
        _ if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        _ if seconds < 9.995 => format!("{seconds:.2} s"),
        _ if seconds < 99.95 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// Bytes with three digits and their unit.
pub(crate) fn bytes_text(bytes: f64) -> String {
    match bytes {
        _ if bytes < 999.5 => format!("{bytes:.0} B"),
        _ if bytes < 9_995.0 => format!("{:.2} kB", bytes / 1e3),
        _ if bytes < 99_950.0 => format!("{:.1} kB", bytes / 1e3),
        _ if bytes < 999_500.0 => format!("{:.0} kB", bytes / 1e3),
        _ if bytes < 9_995_000.0 => format!("{:.2} MB", bytes / 1e6),
        _ if bytes < 999_500_000.0 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.2} GB", bytes / 1e9),
    }
}

/// A number in groups of three digits.
pub(crate) fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::report;

    #[test]
    fn numbers_have_three_digits_and_units() {
        for (seconds, text) in [
            (0.0, "0 us"),
            (0.000_999_7, "1.00 ms"),
            (0.012_34, "12.3 ms"),
            (0.999_9, "1.00 s"),
            (12.34, "12.3 s"),
            (1_234.0, "1234 s"),
        ] {
            assert_eq!(time_text(seconds), text);
        }
        for (bytes, text) in [
            (12.0, "12 B"),
            (1_234.0, "1.23 kB"),
            (999_600.0, "1.00 MB"),
            (123e6, "123.0 MB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
        assert_eq!(count_text(1_234_567), "1 234 567");
        assert_eq!(count_text(123), "123");
    }

    #[test]
    fn refusals_say_their_code_and_what_it_means() {
        let mut report = report();
        report.outcome.total.rejected = 24;
        report.measured.total.publish_refusal = 0x97;
        report.measured.total.connack_refusal = 0x8C;
        let text = report.to_string();
        for expected in [
            "24 refused by the broker: quota exceeded (code 0x97)",
            "the broker refused connections: bad authentication method (code 0x8c)",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(refusal(0xEE).contains("0xee"));
        assert!(refusal(5).contains("(code 5)"));
    }

    #[test]
    fn the_text_fits_a_terminal_and_ends_with_what_was_lost() {
        let text = report().to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
        assert!(
            text.contains("threshold MISSED: lost == 0, was 2"),
            "{text}"
        );
        assert!(text.contains("VIOLATION: meters: 2 acknowledged"), "{text}");
        assert!(
            text.ends_with("duplicated 3   reordered 0   altered 0   lost 2\n"),
            "{text}"
        );
    }
}
