//! Two reports side by side: what differs in plan and outcome, and how the measurements compare.
//!
//! Plan and outcome must be equal for equal seeds, so any difference there is one; measurements always differ, so
//! they are set against each other. Lists whose parts have names are compared by name.
//!
//! Does not know: the report's types. A report of another version with the same schema can be compared.

use crate::report::{SCHEMA_VERSION, bytes_text, threshold_text, time_text};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::{self, Display, Formatter};

/// Statistics of a distribution that the text shows; the JSON has all.
const SHOWN: [&str; 3] = ["p50", "p99", "max"];
/// Differences that the text shows.
const DIFFERENCES_MAX: usize = 40;

/// Why two reports cannot be compared.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// The bytes are not JSON.
    #[error("is not JSON: {0}")]
    NotJson(String),
    /// The JSON is something else.
    #[error("is no report of `motemq-sim run`: it has no schema, plan, outcome and measured")]
    NoReport,
    /// The report is of another schema.
    #[error(
        "has schema {0}, and this version compares schema {SCHEMA_VERSION}: make the report again, or use the version that made it"
    )]
    Schema(String),
}

/// Two reports, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether plan and outcome are equal.
    pub equal: bool,
    /// Facts of the first run.
    pub a: Side,
    /// Facts of the second run.
    pub b: Side,
    /// What differs in plan and outcome.
    pub differences: Vec<Difference>,
    /// The numbers of both.
    pub measured: Vec<Pair>,
}

/// Which run it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Its name.
    pub run: String,
    /// Its broker.
    pub broker: String,
    /// When it began.
    pub started_at: String,
}

/// What differs and should not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where in the report.
    pub place: String,
    /// What the first one says; `null` also when it says nothing.
    pub a: Value,
    /// What the second one says.
    pub b: Value,
}

/// A number of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Where in the report, below `measured`.
    pub figure: String,
    /// In the first one; `null` when it was not measured.
    pub a: Option<f64>,
    /// In the second one.
    pub b: Option<f64>,
    /// The second in parts of the first.
    pub ratio: Option<f64>,
}

/// A report that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed(Value);

impl Parsed {
    /// Reads a report.
    ///
    /// # Errors
    /// It is none, or of another schema.
    pub fn read(bytes: &[u8]) -> Result<Self, DiffError> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| DiffError::NotJson(error.to_string()))?;
        let schema = value.get("schema").ok_or(DiffError::NoReport)?;
        if schema.as_u64() != Some(SCHEMA_VERSION.into()) {
            return Err(DiffError::Schema(schema.to_string()));
        }
        let parts = ["plan", "outcome", "measured"];
        if parts
            .iter()
            .all(|part| value.get(part).is_some_and(Value::is_object))
        {
            Ok(Self(value))
        } else {
            Err(DiffError::NoReport)
        }
    }

    fn part(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    fn side(&self) -> Side {
        let text = |name| {
            let value = self.part("measured").get(name);
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Side {
            run: text("run"),
            broker: text("broker"),
            started_at: text("started_at"),
        }
    }
}

/// Compares two reports.
#[must_use]
pub fn compare(a: &Parsed, b: &Parsed) -> Comparison {
    let mut differences = Vec::new();
    for part in ["plan", "outcome"] {
        let (a, b) = (leaves(part, a.part(part)), leaves(part, b.part(part)));
        differences.extend(
            joined(a, b)
                .filter(|(_, a, b)| a != b)
                .map(|(place, a, b)| Difference { place, a, b }),
        );
    }
    let numbers = |report: &Parsed| {
        let measured = ["took_s", "memory", "total", "cohorts", "verifier"].into_iter();
        let measured = measured.map(|name| {
            let value = report.part("measured").get(name);
            leaves(name, value.unwrap_or(&Value::Null))
        });
        measured.flatten().collect::<Vec<_>>()
    };
    let measured = joined(numbers(a), numbers(b)).map(|(figure, a, b)| {
        let (a, b) = (a.as_f64(), b.as_f64());
        let ratio = a.zip(b).filter(|(a, _)| *a != 0.0).map(|(a, b)| b / a);
        Pair {
            figure,
            a,
            b,
            ratio,
        }
    });
    Comparison {
        equal: differences.is_empty(),
        a: a.side(),
        b: b.side(),
        measured: measured
            .filter(|pair| pair.a.is_some() || pair.b.is_some())
            .collect(),
        differences,
    }
}

/// Every value that has no parts, with its place.
fn leaves(place: &str, value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Object(map) => {
            let parts = map.iter();
            parts
                .flat_map(|(name, value)| leaves(&format!("{place}.{name}"), value))
                .collect()
        }
        Value::Array(values) => {
            let parts = values.iter().enumerate();
            let leaves = parts.flat_map(|(number, value)| {
                let name = value.as_object().and_then(name_of);
                let name = name.unwrap_or_else(|| number.to_string());
                leaves(&format!("{place}[{name}]"), value)
            });
            leaves.collect()
        }
        value => vec![(place.to_owned(), value.clone())],
    }
}

fn name_of(map: &Map<String, Value>) -> Option<String> {
    ["name", "figure"]
        .iter()
        .find_map(|key| map.get(*key)?.as_str())
        .map(str::to_owned)
}

/// The leaves of both in the order of the first; what only the second has comes last.
fn joined(
    a: Vec<(String, Value)>,
    b: Vec<(String, Value)>,
) -> impl Iterator<Item = (String, Value, Value)> {
    let mut rest: std::collections::BTreeMap<String, Value> = b.into_iter().collect();
    let mut both: Vec<(String, Value, Value)> = a
        .into_iter()
        .map(|(place, value)| {
            let other = rest.remove(&place).unwrap_or_default();
            (place, value, other)
        })
        .collect();
    both.extend(
        rest.into_iter()
            .map(|(place, value)| (place, Value::Null, value)),
    );
    both.into_iter()
}

impl Display for Comparison {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for (name, side) in [("A", &self.a), ("B", &self.b)] {
            let (run, broker, started_at) = (&side.run, &side.broker, &side.started_at);
            writeln!(
                formatter,
                "{name}  run {run} against {broker}, {started_at}"
            )?;
        }
        if self.equal {
            writeln!(formatter, "plan and outcome are equal")?;
        } else {
            writeln!(
                formatter,
                "{} differences in plan and outcome",
                self.differences.len()
            )?;
            for Difference { place, a, b } in self.differences.iter().take(DIFFERENCES_MAX) {
                writeln!(formatter, "  {place}: {a} -> {b}")?;
            }
            let more = self.differences.len().saturating_sub(DIFFERENCES_MAX);
            if more > 0 {
                writeln!(formatter, "  and {more} more: --json has them all")?;
            }
        }
        writeln!(
            formatter,
            "  {:<42}{:>14}{:>14}{:>9}",
            "measured", "A", "B", "B / A"
        )?;
        let cohorts = self.measured.iter().filter(|pair| {
            pair.figure.starts_with("cohorts[") && pair.figure.ends_with("].connected")
        });
        let has_cohorts = cohorts.count() > 1;
        for pair in self
            .measured
            .iter()
            .filter(|pair| pair.is_shown(has_cohorts))
        {
            let ratio = match pair.ratio {
                Some(ratio) => format!("{ratio:.2}"),
                None => "-".to_owned(),
            };
            writeln!(
                formatter,
                "  {:<42}{:>14}{:>14}{ratio:>9}",
                pair.figure.trim_start_matches("total."),
                pair.text(pair.a),
                pair.text(pair.b),
            )?;
        }
        Ok(())
    }
}

impl Pair {
    /// The text leaves out what says nothing: zeros, percentiles between others, the only cohort.
    fn is_shown(&self, has_cohorts: bool) -> bool {
        let statistic = self.figure.split_once("_seconds.");
        let is_zero = |side: Option<f64>| side.is_none_or(|value| value == 0.0);
        (has_cohorts || !self.figure.starts_with("cohorts["))
            && statistic.is_none_or(|(_, name)| SHOWN.contains(&name))
            && !(is_zero(self.a) && is_zero(self.b))
    }

    fn text(&self, value: Option<f64>) -> String {
        match value {
            None => "-".to_owned(),
            Some(value) if self.figure.contains("_seconds.") || self.figure == "took_s" => {
                time_text(value)
            }
            Some(value) if self.figure.contains("bytes") => bytes_text(value),
            Some(value) => threshold_text(Some(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::report;

    #[test]
    fn one_report_is_equal_to_itself() {
        let (a, b) = (read(report()), read(report()));
        let comparison = compare(&a, &b);
        assert!(comparison.equal, "{comparison}");
        let text = comparison.to_string();
        assert!(text.contains("plan and outcome are equal"));
        assert!(text.contains("publish_ack_seconds.p99"));
        assert!(!text.contains("publish_ack_seconds.p90"));
    }

    #[test]
    fn differences_are_named_and_measurements_set_against_each_other() {
        let mut other = report();
        other.plan.seed = 43;
        other.outcome.cohorts[1].counted.lost = 7;
        other.measured.total.up_bytes *= 2;
        let comparison = compare(&read(report()), &read(other));
        let places: Vec<&str> = comparison
            .differences
            .iter()
            .map(|difference| difference.place.as_str())
            .collect();
        assert_eq!(places, ["plan.seed", "outcome.cohorts[trackers].lost"]);
        let bytes = comparison
            .measured
            .iter()
            .find(|pair| pair.figure == "total.up_bytes");
        assert_eq!(bytes.unwrap().ratio, Some(2.0));
        let text = comparison.to_string();
        assert!(text.contains("plan.seed: 42 -> 43"), "{text}");
    }

    #[test]
    fn a_cohort_more_is_a_difference() {
        let mut other = report();
        other.outcome.cohorts.pop();
        let comparison = compare(&read(other), &read(report()));
        assert!(!comparison.equal);
        let is_absent = |difference: &Difference| difference.a.is_null();
        assert!(comparison.differences.iter().all(is_absent));
    }

    #[test]
    fn what_is_no_report_of_this_schema_is_refused() {
        let refused = |text: &str| Parsed::read(text.as_bytes()).unwrap_err();
        assert!(matches!(refused("{"), DiffError::NotJson(_)));
        assert_eq!(refused("[]"), DiffError::NoReport);
        assert_eq!(refused("{\"schema\": 2}"), DiffError::NoReport);
        let old = refused("{\"schema\": 1, \"lost\": 0}");
        assert!(old.to_string().contains("has schema 1"), "{old}");
    }

    fn read(report: crate::Report) -> Parsed {
        Parsed::read(&serde_json::to_vec(&report).unwrap()).unwrap()
    }
}
