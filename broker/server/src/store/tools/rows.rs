//! Every row of a table, also of a damaged one.
//!
//! Rows are given in order. Where redb cannot go on from the front, what follows the damage is read from the back. A panic
//! of redb over a damaged page is an error like any other.

use super::report::Damage;
use super::snapshot::Snapshot;
use crate::store::StoreError;
use redb::{Key, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle};
use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A table of the store: how to read it and how to name its keys.
pub(super) struct Table<K: Key + 'static> {
    pub(super) definition: TableDefinition<'static, K, &'static [u8]>,
    pub(super) show: fn(&K::SelfType<'_>) -> String,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) damage: Vec<Damage>,
}

impl<K: Key + 'static> Table<K> {
    /// Gives every readable row to `row`.
    ///
    /// # Errors
    /// When the work must end. Anything else is among the damage.
    pub(super) fn read(
        &self,
        snapshot: &mut Snapshot,
        row: &mut dyn FnMut(K::SelfType<'_>, &[u8]),
    ) -> Result<Read, StoreError> {
        let mut read = Read::default();
        let mut last: Option<Vec<u8>> = None;
        let forward = guarded(|| {
            let table = snapshot.txn().open_table(self.definition)?;
            let declared = table.len()?;
            for item in table.iter()? {
                snapshot.check_ended()?;
                let (key, value) = item?;
                let (key, value) = (key.value(), value.value());
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(K::as_bytes(&key).as_ref());
                read.rows += 1;
                read.bytes += (last.len() + value.len()) as u64;
                row(key, value);
            }
            Ok(declared)
        });
        let after = last.as_deref().map_or_else(
            || "its beginning".to_owned(),
            |key| (self.show)(&K::from_bytes(key)),
        );
        match forward {
            Ok(declared) if declared == read.rows => {}
            Ok(declared) => read.damage.push(Damage::new(
                self.definition.name(),
                "(all)",
                format!("{declared} rows should be there, {} are", read.rows),
            )),
            Err(StoreError::Interrupted) => return Err(StoreError::Interrupted),
            Err(error) => {
                let why = format!("unreadable from here: {}", reason(&error));
                read.damage
                    .push(Damage::new(self.definition.name(), after, why));
                snapshot.renew()?;
                self.read_backward(snapshot, last.as_deref(), &mut read, row)?;
            }
        }
        Ok(read)
    }

    fn read_backward(
        &self,
        snapshot: &mut Snapshot,
        last: Option<&[u8]>,
        read: &mut Read,
        row: &mut dyn FnMut(K::SelfType<'_>, &[u8]),
    ) -> Result<(), StoreError> {
        let mut rest: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let backward = guarded(|| {
            let table = snapshot.txn().open_table(self.definition)?;
            for item in table.iter()?.rev() {
                snapshot.check_ended()?;
                let (key, value) = item?;
                let key = K::as_bytes(&key.value()).as_ref().to_vec();
                let is_behind = |other: &[u8]| K::compare(&key, other) == Ordering::Greater;
                // A damaged page may also send redb in circles.
                let is_new = rest
                    .last()
                    .is_none_or(|(before, _)| K::compare(&key, before) == Ordering::Less);
                if !last.is_none_or(is_behind) || !is_new {
                    break;
                }
                rest.push((key, value.value().to_vec()));
            }
            Ok(())
        });
        if let Err(StoreError::Interrupted) = backward {
            return Err(StoreError::Interrupted);
        }
        if backward.is_err() {
            snapshot.renew()?;
        }
        if let Some((key, _)) = rest.last() {
            let key = (self.show)(&K::from_bytes(key));
            let why = "readable again from here".to_owned();
            read.damage
                .push(Damage::new(self.definition.name(), key, why));
        }
        for (key, value) in rest.into_iter().rev() {
            read.rows += 1;
            read.bytes += (key.len() + value.len()) as u64;
            row(K::from_bytes(&key), &value);
        }
        Ok(())
    }
}

/// Runs what redb may answer with a panic.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let told = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        let story = format!("a page makes no sense ({told})");
        Err(StoreError::Database(Box::new(redb::Error::Corrupted(
            story,
        ))))
    })
}

fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Database(error) => error.to_string(),
        other => other.to_string(),
    }
}
