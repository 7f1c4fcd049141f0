//! The report's figures by name, for thresholds: `lost`, `publish_ack_seconds.p99`, `meters.delivered_share`.
//!
//! A name is a figure, or a cohort's name, a dot and a figure of cohorts.

use super::{Counted, Distribution, Figures, Report};
use std::fmt::Write;

/// One cohort's parts of a report, or all cohorts'.
struct Part<'a> {
    counted: &'a Counted,
    figures: &'a Figures,
}

type Count = fn(&Part<'_>) -> Option<f64>;
type Statistic = fn(&Distribution) -> f64;
type OfRun = fn(&Report) -> Option<f64>;
type Times = fn(&Figures) -> &Distribution;

/// What all cohorts have, each and together.
const FIGURES: [(&str, Count); 31] = [
    ("published", |part| number(part.counted.published)),
    ("overflowed", |part| number(part.counted.overflowed)),
    ("acknowledged", |part| number(part.counted.acknowledged)),
    ("rejected", |part| number(part.counted.rejected)),
    ("given_up", |part| number(part.counted.given_up)),
    ("delivered", |part| number(part.counted.delivered)),
    ("lost", |part| number(part.counted.lost)),
    ("unfinished", |part| number(part.counted.unfinished)),
    ("reordered", |part| number(part.counted.reordered)),
    ("altered", |part| number(part.counted.altered)),
    ("foreign", |part| number(part.counted.foreign)),
    ("duplicates", |part| {
        number(part.counted.duplicated + part.figures.redelivered)
    }),
    // Of what was taken, not of what the buffers let through.
    ("acknowledged_share", |part| {
        share(part.counted.acknowledged, part.counted.published)
    }),
    ("delivered_share", |part| {
        share(part.counted.delivered, part.counted.published)
    }),
    ("late_share", |part| {
        share(part.figures.late, part.counted.published)
    }),
    ("connected", |part| number(part.figures.connected)),
    ("ever_connected", |part| number(part.figures.ever_connected)),
    ("reconnects", |part| number(part.figures.reconnects)),
    ("connection_failures", |part| {
        number(part.figures.connection_failures)
    }),
    ("killed", |part| number(part.figures.killed)),
    ("partitioned", |part| number(part.figures.partitioned)),
    ("tls_full", |part| number(part.figures.tls_full)),
    ("tls_resumed", |part| number(part.figures.tls_resumed)),
    ("tls_resumed_share", |part| {
        let (full, resumed) = (part.figures.tls_full, part.figures.tls_resumed);
        share(resumed, full + resumed)
    }),
    ("up_bytes", |part| bytes(part, part.figures.up_bytes)),
    ("down_bytes", |part| bytes(part, part.figures.down_bytes)),
    ("up_bytes_per_device_hour", |part| {
        part.figures.up_bytes_per_device_hour
    }),
    ("down_bytes_per_device_hour", |part| {
        part.figures.down_bytes_per_device_hour
    }),
    ("bytes_per_delivered", |part| {
        part.figures.bytes_per_delivered
    }),
    ("up_bytes_per_delivered", |part| {
        let up = bytes(part, part.figures.up_bytes)?;
        per(up, part.counted.delivered)
    }),
    ("down_bytes_per_delivered", |part| {
        let down = bytes(part, part.figures.down_bytes)?;
        per(down, part.counted.delivered)
    }),
];

const TIMES: [(&str, Times); 5] = [
    ("publish_ack_seconds", |figures| {
        &figures.publish_ack_seconds
    }),
    ("delivery_seconds", |figures| &figures.delivery_seconds),
    ("generator_lag_seconds", |figures| {
        &figures.generator_lag_seconds
    }),
    ("connect_seconds", |figures| &figures.connect_seconds),
    ("reconnect_seconds", |figures| &figures.reconnect_seconds),
];

const STATISTICS: [(&str, Statistic); 6] = [
    ("p50", |times| times.p50),
    ("p90", |times| times.p90),
    ("p99", |times| times.p99),
    ("p99.9", |times| times.p99_9),
    ("max", |times| times.max),
    ("mean", |times| times.mean),
];

/// What only the whole run has.
const RUN_FIGURES: [(&str, OfRun); 11] = [
    ("violations", |report| {
        number(report.outcome.violations.len() as u64)
    }),
    ("duplicates.qos0", |report| duplicates(report, 0)),
    ("duplicates.qos1", |report| duplicates(report, 1)),
    ("duplicates.qos2", |report| duplicates(report, 2)),
    ("commands_lost", |report| {
        number(report.outcome.commands.map_or(0, |commands| commands.lost))
    }),
    ("took_seconds", |report| Some(report.measured.took_s)),
    ("published_per_second", |report| {
        report.measured.total.published_per_second
    }),
    ("delivered_per_second", |report| {
        report.measured.total.delivered_per_second
    }),
    ("memory_bytes_max", |report| {
        number(report.measured.memory.resident_bytes_max?)
    }),
    ("verifier_reconnects", |report| {
        number(report.measured.verifier.reconnects)
    }),
    ("uncleaned", |report| {
        number(report.measured.verifier.uncleaned)
    }),
];

/// Checks that a figure of this name can be in the report of a run with these cohorts.
///
/// # Errors
/// What the name might have been meant to be.
pub fn check_figure<'a>(
    name: &str,
    cohorts: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), String> {
    let of_cohorts = || cohort_figures().collect::<Vec<_>>();
    let mut known: Vec<String> = of_cohorts();
    known.extend(RUN_FIGURES.iter().map(|(figure, _)| (*figure).to_owned()));
    for cohort in cohorts {
        known.extend(
            of_cohorts()
                .iter()
                .map(|figure| format!("{cohort}.{figure}")),
        );
    }
    if known.iter().any(|figure| figure == name) {
        return Ok(());
    }
    let likeness = |figure: &&String| (strsim::jaro_winkler(name, figure) * 1e6) as u64;
    let mut problem = format!("{name:?} is no figure of the report");
    if let Some(nearest) = known.iter().max_by_key(likeness) {
        let _ = write!(
            problem,
            ": did you mean {nearest:?}? device-sim/REPORT.md lists them all"
        );
    }
    Err(problem)
}

fn cohort_figures() -> impl Iterator<Item = String> {
    let counts = FIGURES.iter().map(|(name, _)| (*name).to_owned());
    counts.chain(TIMES.iter().flat_map(|(times, _)| {
        let of = move |(statistic, _): &(&str, _)| format!("{times}.{statistic}");
        STATISTICS.iter().map(of)
    }))
}

impl Report {
    /// The figure of this name; `None` when there is none or it was not measured.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<f64> {
        if let Some((_, figure)) = RUN_FIGURES.iter().find(|(known, _)| *known == name) {
            return figure(self);
        }
        let total = Part {
            counted: &self.outcome.total,
            figures: &self.measured.total,
        };
        if let Some(figure) = part_figure(&total, name) {
            return figure;
        }
        let cohorts = self.outcome.cohorts.iter().zip(&self.measured.cohorts);
        for (outcome, measured) in cohorts {
            let rest = name.strip_prefix(&outcome.name);
            let part = Part {
                counted: &outcome.counted,
                figures: &measured.figures,
            };
            let figure = rest.and_then(|rest| rest.strip_prefix('.'));
            if let Some(figure) = figure.and_then(|figure| part_figure(&part, figure)) {
                return figure;
            }
        }
        None
    }
}

/// `None` when there is no such figure, `Some(None)` when it was not measured.
fn part_figure(part: &Part<'_>, name: &str) -> Option<Option<f64>> {
    if let Some((_, figure)) = FIGURES.iter().find(|(known, _)| *known == name) {
        return Some(figure(part));
    }
    let (times, statistic) = name.split_once('.')?;
    let (_, times) = TIMES.iter().find(|(known, _)| *known == times)?;
    let (_, statistic) = STATISTICS.iter().find(|(known, _)| *known == statistic)?;
    Some(times(part.figures).measured().map(statistic))
}

fn duplicates(report: &Report, qos: u8) -> Option<f64> {
    let cohorts = report.plan.cohorts.iter().zip(&report.outcome.cohorts);
    let cohorts = cohorts.zip(&report.measured.cohorts);
    let of_qos = cohorts.filter(|((planned, _), _)| planned.qos == qos);
    number(
        of_qos
            .map(|((_, outcome), measured)| {
                outcome.counted.duplicated + measured.figures.redelivered
            })
            .sum(),
    )
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a figure may be missing, this one is not"
)]
fn number(count: u64) -> Option<f64> {
    Some(count as f64)
}

fn share(part: u64, whole: u64) -> Option<f64> {
    per(part as f64, whole)
}

fn per(sum: f64, number: u64) -> Option<f64> {
    (number > 0).then(|| sum / number as f64)
}

/// Bytes; `None` when there was no link that counted them.
fn bytes(part: &Part<'_>, bytes: u64) -> Option<f64> {
    (part.figures.up_bytes + part.figures.down_bytes > 0).then_some(bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::report;

    #[test]
    fn every_figure_that_a_threshold_may_name_has_a_value() {
        let report = report();
        let mut names: Vec<String> = cohort_figures().collect();
        names.extend(cohort_figures().map(|figure| format!("trackers.{figure}")));
        names.extend(RUN_FIGURES.iter().map(|(figure, _)| (*figure).to_owned()));
        for name in names {
            assert_eq!(
                check_figure(&name, ["meters", "trackers"].into_iter()),
                Ok(())
            );
            assert!(report.figure(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn figures_are_what_the_report_says() {
        let report = report();
        let p99 = report.measured.total.publish_ack_seconds.p99;
        assert_eq!(report.figure("publish_ack_seconds.p99"), Some(p99));
        let p999 = report.measured.cohorts[0].figures.delivery_seconds.p99_9;
        assert_eq!(report.figure("meters.delivery_seconds.p99.9"), Some(p999));
        assert_eq!(
            report.figure("lost"),
            Some(report.outcome.total.lost as f64)
        );
        assert_eq!(report.figure("duplicates.qos0"), Some(0.0));
        assert_eq!(report.figure("duplicates.qos1"), Some(3.0));
        assert_eq!(report.figure("nobody.lost"), None);
        // 30 devices in 20 s; the run took 30 s.
        assert_eq!(
            report.figure("up_bytes_per_device_hour"),
            Some(80_000.0 / 20.0 * 3_600.0 / 30.0)
        );
        assert_eq!(report.figure("published_per_second"), Some(5.0));
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        for (wrong, meant) in [
            ("losst", "lost"),
            ("publish_ack_second.p99", "publish_ack_seconds.p99"),
            ("publish_ack_seconds.p98", "publish_ack_seconds.p99"),
            ("duplicate.qos2", "duplicates.qos2"),
            ("meter.lost", "meters.lost"),
        ] {
            let problem = check_figure(wrong, ["meters"].into_iter()).unwrap_err();
            assert!(
                problem.contains(&format!("did you mean {meant:?}")),
                "{problem}"
            );
        }
    }
}
