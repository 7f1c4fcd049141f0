//! What results must be, such as `"lost" = "== 0"`.

use std::fmt;
use std::str::FromStr;

/// A demand on one figure of the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// The figure's name, such as `lost` or `publish_ack_seconds.p99`.
    pub figure: String,
    /// What it must be.
    pub demand: Demand,
}

/// A comparison with a number; times are seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    relation: Relation,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

const RELATIONS: [(&str, Relation); 5] = [
    ("<=", Relation::LessOrEqual),
    (">=", Relation::GreaterOrEqual),
    ("==", Relation::Equal),
    ("<", Relation::Less),
    (">", Relation::Greater),
];

impl Demand {
    /// Whether `figure` is as it must be; a figure that was not measured (NaN) is not.
    #[must_use]
    pub fn is_met(&self, figure: f64) -> bool {
        let bound = self.bound;
        match self.relation {
            Relation::Less => figure < bound,
            Relation::LessOrEqual => figure <= bound,
            Relation::Equal => (figure - bound).abs() < 1e-9,
            Relation::GreaterOrEqual => figure >= bound,
            Relation::Greater => figure > bound,
        }
    }
}

impl FromStr for Demand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no demand: write a relation and a number, such as \"== 0\", \"< 5s\" or \">= 99 %\""
            )
        };
        let text = text.trim();
        let starts = |(sign, _): &&(&str, Relation)| text.starts_with(sign);
        let (sign, relation) = RELATIONS.iter().find(starts).ok_or_else(wrong)?;
        let number = text.strip_prefix(sign).unwrap_or_default().trim();
        let bound = match (number.parse(), number.strip_suffix('%')) {
            (Ok(number), _) => number,
            (_, Some(percent)) => percent.trim().parse::<f64>().map_err(|_| wrong())? / 100.0,
            _ => crate::text::duration(number)
                .map_err(|_| wrong())?
                .as_secs_f64(),
        };
        let relation = *relation;
        if bound.is_finite() {
            Ok(Self { relation, bound })
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = RELATIONS
            .iter()
            .find(|(_, relation)| *relation == self.relation);
        write!(
            formatter,
            "{} {}",
            sign.map_or("", |(sign, _)| sign),
            self.bound
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_compare_numbers_times_and_shares() {
        check("== 0", 0.0, 1.0);
        check("< 5s", 4.999, 5.0);
        check("<= 200ms", 0.2, 0.201);
        check(">= 99 %", 0.99, 0.98);
        check("> 1000", 1_001.0, 1_000.0);
        for wrong in ["", "0", "= 0", "== ", "< 5 parsecs", "== NaN", "< inf"] {
            assert!(wrong.parse::<Demand>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_not_measured_meets_no_demand() {
        for demand in ["== 0", "< 5", "> 0", ">= 0", "<= 1"] {
            assert!(
                !demand.parse::<Demand>().unwrap().is_met(f64::NAN),
                "{demand}"
            );
        }
    }

    fn check(demand: &str, met: f64, missed: f64) {
        let demand: Demand = demand.parse().unwrap();
        assert!(demand.is_met(met) && !demand.is_met(missed), "{demand}");
    }
}
