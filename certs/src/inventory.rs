//! The append-only list of what was issued: one JSON object per line in `inventory.jsonl`.
//!
//! A line is written with a single append, so that lines of two processes do not mix. Nothing is ever
//! changed in place: a later line about the same serial supersedes an earlier one.

use crate::{CertsError, Issued};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// One line of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The device's id, the server's first name or the authority's name.
    pub id: String,
    /// What the certificate is for.
    pub kind: Kind,
    /// The serial, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 over the DER certificate.
    pub fingerprint: String,
    /// When the certificate's validity ends, in seconds since 1970.
    pub not_after: i64,
    /// What holds for the certificate from this line on.
    pub status: Status,
}

impl Entry {
    /// The line that says that `issued` was issued to `id`.
    #[must_use]
    pub fn issued(id: &str, kind: Kind, issued: &Issued) -> Self {
        Self {
            id: id.to_owned(),
            kind,
            serial: issued.serial_hex.clone(),
            fingerprint: issued.fingerprint_sha256.clone(),
            not_after: issued.not_after_unix_s,
            status: Status::Issued,
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A broker's certificate.
    Server,
    /// A device's certificate.
    Device,
}

/// What holds for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was issued and is in use until it expires.
    Issued,
}

/// Appends `entry` to the inventory in the authority's directory.
///
/// # Errors
/// [`CertsError::File`] when the file cannot be opened or written.
pub fn record(dir: &Path, entry: &Entry) -> Result<(), CertsError> {
    let path = dir.join("inventory.jsonl");
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(&line)?;
            file.sync_all()
        })
        .map_err(|error| CertsError::file(&path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_appended_a_line_each() {
        let directory = tempfile::tempdir().unwrap();
        let entry = Entry {
            id: "meter-1".to_owned(),
            kind: Kind::Device,
            serial: "0a".to_owned(),
            fingerprint: "AB:CD".to_owned(),
            not_after: 1_800_000_000,
            status: Status::Issued,
        };
        record(directory.path(), &entry).unwrap();
        record(directory.path(), &entry).unwrap();
        let text = std::fs::read_to_string(directory.path().join("inventory.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            assert_eq!(serde_json::from_str::<Entry>(line).unwrap(), entry);
        }
    }
}
