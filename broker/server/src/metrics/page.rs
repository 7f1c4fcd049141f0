//! The text format of Prometheus: one family after the other, each with its help text and type.
//!
//! Invariants: a family is written once, only under a name of the table, and with the labels that it declares.
//!
//! Does not know: where values come from.

use super::table::{Kind, Metric};
use motemq_core::Buckets;
use std::fmt::{Display, Write as _};

/// A page that is being written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// A family with one value and no labels.
    pub(super) fn plain(&mut self, metric: &Metric, value: impl Display) {
        self.family(metric, [([], value)]);
    }

    /// A family with a value for each set of label values. Without any it is left out.
    pub(super) fn family<'a, const LABELS: usize, V: Display>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([&'a str; LABELS], V)>,
    ) {
        let mut is_first = true;
        for (values, value) in samples {
            if std::mem::take(&mut is_first) {
                self.head(metric);
            }
            self.line(metric, "", &values, None, value);
        }
    }

    /// A family of histograms. Their values are divided by `per_unit` to become seconds, bytes or numbers.
    pub(super) fn histograms<'a, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        per_unit: f64,
        samples: impl IntoIterator<Item = ([&'a str; LABELS], Buckets)>,
    ) {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        let mut is_first = true;
        for (values, buckets) in samples {
            if std::mem::take(&mut is_first) {
                self.head(metric);
            }
            let mut sum = 0;
            for (bound, count) in &buckets.counts {
                sum += count;
                let bound = (*bound as f64 / per_unit).to_string();
                self.line(metric, "_bucket", &values, Some(&bound), sum);
            }
            // The same number twice, whatever is counted meanwhile.
            let all = sum + buckets.above;
            self.line(metric, "_bucket", &values, Some("+Inf"), all);
            self.line(metric, "_sum", &values, None, buckets.sum as f64 / per_unit);
            self.line(metric, "_count", &values, None, all);
        }
    }

    /// The page.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, metric: &Metric) {
        let Metric {
            name, kind, help, ..
        } = metric;
        // Writing into a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {}", kind.label());
    }

    fn line(
        &mut self,
        metric: &Metric,
        suffix: &str,
        values: &[&str],
        bound: Option<&str>,
        value: impl Display,
    ) {
        debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
        let _ = write!(self.text, "{}{suffix}", metric.name);
        let labels = metric.labels.iter().copied().zip(values.iter().copied());
        let mut separator = '{';
        for (label, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            let _ = write!(self.text, "{separator}{label}=\"");
            self.escape(value);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A listener may have any name.
    fn escape(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Metric = Metric {
        name: "sizes_bytes",
        kind: Kind::Histogram,
        labels: &["of"],
        help: "Sizes.",
    };

    #[test]
    fn a_histogram_s_buckets_are_cumulative_and_its_labels_escaped() {
        let mut page = Page::default();
        let buckets = Buckets {
            counts: vec![(1_000, 2), (2_500, 1)],
            above: 4,
            sum: 90_000,
        };
        page.histograms(&SIZES, 1e3, [(["a\"b\\c\nd"], buckets)]);
        let lines = [
            "# HELP sizes_bytes Sizes.",
            "# TYPE sizes_bytes histogram",
            "sizes_bytes_bucket{of=\"a\\\"b\\\\c\\nd\",le=\"1\"} 2",
            "sizes_bytes_bucket{of=\"a\\\"b\\\\c\\nd\",le=\"2.5\"} 3",
            "sizes_bytes_bucket{of=\"a\\\"b\\\\c\\nd\",le=\"+Inf\"} 7",
            "sizes_bytes_sum{of=\"a\\\"b\\\\c\\nd\"} 90",
            "sizes_bytes_count{of=\"a\\\"b\\\\c\\nd\"} 7",
        ];
        assert_eq!(page.into_text().lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn a_family_without_values_is_left_out() {
        let mut page = Page::default();
        page.family::<1, u64>(&SIZES, []);
        assert_eq!(page.into_text(), "");
    }
}
