//! What a look at a store found, as data and as text.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is in a store, and what in it is not what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rows and bytes by table.
    pub tables: Vec<TableCount>,
    /// Sessions.
    pub sessions: u64,
    /// Subscriptions of them.
    pub subscriptions: u64,
    /// Deliveries waiting in queues.
    pub queued: u64,
    /// Retained messages.
    pub retained: u64,
    /// The position of the last record.
    pub position: u64,
    /// The first findings.
    pub damage: Vec<Damage>,
    /// All findings.
    pub damage_count: u64,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCount {
    /// Its name.
    pub name: String,
    /// Rows read.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// Something that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The table; `file` for the file below them.
    pub table: String,
    /// The key.
    pub key: String,
    /// What is wrong.
    pub why: String,
}

impl Damage {
    pub(super) fn new(table: &str, key: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            table: table.to_owned(),
            key: key.into(),
            why: why.into(),
        }
    }
}

impl Report {
    /// Whether everything is what was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    /// Whether part of the journal is damaged: what it held is not known.
    #[must_use]
    pub fn has_journal_damage(&self) -> bool {
        let is_unknown = |damage: &Damage| matches!(damage.table.as_str(), "journal" | "file");
        self.damage.iter().any(is_unknown)
    }

    /// Notes a finding; only the first ones are kept.
    pub(super) fn add(&mut self, damage: Damage) {
        self.damage_count += 1;
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(damage);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14} {:>12} {:>14}", "table", "rows", "bytes")?;
        for table in &self.tables {
            writeln!(
                f,
                "{:<14} {:>12} {:>14}",
                table.name, table.rows, table.bytes
            )?;
        }
        write!(
            f,
            "{} sessions, {} subscriptions, {} queued messages, {} retained messages, last record {}",
            self.sessions, self.subscriptions, self.queued, self.retained, self.position
        )
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}, key {}: {}", self.table, self.key, self.why)
    }
}

/// The findings of a report, without the report.
#[derive(Debug)]
pub struct DamageList<'a>(pub &'a Report);

impl fmt::Display for DamageList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for damage in &self.0.damage {
            writeln!(f, "  {damage}")?;
        }
        let more = self.0.damage_count - self.0.damage.len() as u64;
        if more > 0 {
            writeln!(f, "  and {more} more")?;
        }
        Ok(())
    }
}

/// Findings that a report keeps.
const DAMAGE_MAX: usize = 100;
