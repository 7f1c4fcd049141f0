//! Text in columns, as wide as what stands in them.

use super::{clean, say};
use serde_json::Value;

/// Rows, shown all at once.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings; without any, rows of names and values.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let headings: Vec<_> = headings.iter().map(|text| (*text).to_owned()).collect();
        Self {
            rows: match headings.is_empty() {
                true => Vec::new(),
                false => vec![headings],
            },
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a row for each value in `value`, under names that say where.
    pub(crate) fn pairs(&mut self, name: &str, value: &Value) {
        match value {
            Value::Null => {}
            Value::Object(fields) => {
                for (field, value) in fields {
                    self.pairs(&format!("{name}.{field}"), value);
                }
            }
            Value::Array(items) => {
                for item in items {
                    let text = match item {
                        Value::Object(fields) => fields
                            .iter()
                            .filter(|(_, value)| !value.is_null())
                            .map(|(name, value)| format!("{name}={}", text(value)))
                            .collect::<Vec<_>>()
                            .join(" "),
                        other => text(other),
                    };
                    self.row([name.to_owned(), clean(&text)]);
                }
            }
            other => self.row([name.to_owned(), clean(&text(other))]),
        }
    }

    /// Writes it to standard output.
    pub(crate) fn show(&self) {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            say(line.join("  ").trim_end());
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
