//! What a run showed: text for people, JSON for programs. `REPORT.md` describes the JSON.
//!
//! Three parts: [`Planned`] is what was asked for, [`Outcome`] what a seed and an honest broker determine,
//! [`Measured`] everything that depends on time. Two runs of one plan with one seed agree in the first two.
//! Fields may be added; [`SCHEMA_VERSION`] grows when one changes its meaning or goes.

pub use crate::connects::ConnectCost;

mod calendar;
mod doubts;
mod figures;
mod machine;
mod measured;
mod outcome;
mod planned;
#[cfg(test)]
pub(crate) mod sample;
mod text;
mod timeline;

pub use figures::check_figure;
pub use machine::{Machine, Memory};
pub use measured::{
    CohortFigures, Distribution, Figures, Measured, ThresholdResult, VerifierFigures,
};
pub use outcome::{CohortOutcome, Counted, Outcome};
pub use planned::{Planned, PlannedCohort, PlannedPhase, PlannedThreshold};
pub use timeline::{Sample, Timeline};

pub(crate) use machine::resident_bytes;
pub(crate) use text::{bytes_text, count_text, threshold_text, time_text};

use crate::world::World;
use serde::Serialize;
use std::time::Duration;

/// The version of the JSON report.
pub const SCHEMA_VERSION: u32 = 2;

/// A run's report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema: u32,
    /// The simulator's version.
    pub version: &'static str,
    /// What was asked for.
    pub plan: Planned,
    /// What a seed and an honest broker determine.
    pub outcome: Outcome,
    /// What depends on time.
    pub measured: Measured,
}

/// What a run proves; the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The broker broke a promise.
    Broken,
    /// A threshold was missed.
    Missed,
    /// There are doubts: what should have happened did not, for whatever reason.
    Unproven,
    /// Every promise was kept.
    Kept,
}

impl Report {
    pub(crate) fn new(world: &World, took: Duration, timeline: Timeline) -> Self {
        let mut report = Self {
            schema: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION"),
            plan: Planned::new(&world.plan),
            outcome: Outcome::new(world),
            measured: Measured::new(world, took, timeline),
        };
        let thresholds = world.plan.thresholds.iter();
        report.measured.thresholds = thresholds
            .map(|threshold| {
                let value = report.figure(&threshold.figure);
                ThresholdResult {
                    figure: threshold.figure.clone(),
                    demand: threshold.demand.to_string(),
                    value,
                    met: threshold.demand.is_met(value.unwrap_or(f64::NAN)),
                }
            })
            .collect();
        report.measured.doubts = doubts::doubts(world, &report);
        report
    }

    /// Deliveries of what had been delivered before, whether the quality of service allows it or not.
    #[must_use]
    pub fn duplicated(&self) -> u64 {
        self.outcome.total.duplicated + self.measured.total.redelivered
    }

    /// The thresholds that were missed.
    pub fn missed(&self) -> impl Iterator<Item = &ThresholdResult> {
        let thresholds = self.measured.thresholds.iter();
        thresholds.filter(|threshold| !threshold.met)
    }

    /// What the run proves.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if !self.outcome.violations.is_empty() {
            Verdict::Broken
        } else if self.missed().next().is_some() {
            Verdict::Missed
        } else if !self.measured.doubts.is_empty() {
            Verdict::Unproven
        } else {
            Verdict::Kept
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use std::collections::BTreeSet;

    const MANUAL: &str = include_str!("../../REPORT.md");

    #[test]
    fn the_manual_names_every_field() {
        let report = serde_json::to_value(super::sample::report()).unwrap();
        let mut names = BTreeSet::new();
        collect(&report, &mut names);
        assert!(names.len() > 90, "{}", names.len());
        names.retain(|name| !MANUAL.contains(&format!("`{name}`")));
        assert!(names.is_empty(), "not in REPORT.md: {names:?}");
    }

    fn collect(value: &Value, names: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    names.insert(name.clone());
                    collect(value, names);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
            _ => {}
        }
    }
}
