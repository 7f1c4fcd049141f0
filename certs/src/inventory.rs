//! The append-only list of what was issued: one JSON object per line in `inventory.jsonl`.
//!
//! Invariants: nothing is ever changed in place, a later line about the same serial supersedes an earlier one. Lines of several
//! processes do not mix, and each sees what the others wrote before it writes. A line that a crash left half written is not one.
//!
//! A certificate is entered before its files appear, so whatever is out there can be revoked.

use crate::{CertsError, Order, Signed};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// One line of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The device's id, the server's first name or the claim's name.
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
    /// When this line was written, in seconds since 1970.
    #[serde(default)]
    pub at: i64,
    /// Why it was revoked: a reason of RFC 5280, 5.3.1, in kebab case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Kind of the key, such as `p256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_type: Option<String>,
    /// What else is known of the device, such as its site; not in the certificate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What it was enrolled with, if it was: `certificate SERIAL`, `claim NAME` or `token SHA-256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_by: Option<String>,
    /// SHA-256 over the subject public key info, lower-case hexadecimal, if it was enrolled: who asks again with the same key
    /// gets the same certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

impl Entry {
    /// The line that says that `signed` was issued as ordered.
    #[must_use]
    pub fn issued(order: &Order, signed: &Signed) -> Self {
        Self {
            id: order.id().to_owned(),
            kind: order.kind(),
            serial: signed.serial_hex.clone(),
            fingerprint: signed.fingerprint_sha256.clone(),
            not_after: signed.not_after_unix_s,
            status: Status::Issued,
            at: crate::clock::now_unix_s(),
            reason: None,
            key_type: Some(signed.key_type.clone()),
            attributes: order.kept_attributes().clone(),
            enrolled_by: None,
            public_key: None,
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
    /// A certificate that several devices hold until each has its own.
    Claim,
    /// The enrolment service's own certificate.
    Service,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Server, Self::Device, Self::Claim, Self::Service];

    /// As it is written on the command line and in the inventory.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Device => "device",
            Self::Claim => "claim",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What holds for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was issued and is in use until it expires.
    Issued,
    /// It was taken back.
    Revoked,
}

/// The inventory of an authority, as read and for appending.
#[derive(Debug)]
pub struct Inventory {
    path: PathBuf,
    /// In the order of their first lines, each with its latest.
    entries: Vec<Entry>,
    by_serial: HashMap<String, usize>,
    by_id: HashMap<String, Vec<usize>>,
    /// What of the file has been read: whole lines.
    read_bytes: u64,
    lines: usize,
}

impl Inventory {
    /// Reads the inventory in the authority's directory; where there is none yet, it is empty.
    ///
    /// # Errors
    /// [`CertsError::File`] when it cannot be read, [`CertsError::InventoryLine`] when a line of it is none.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let mut inventory = Self {
            path: dir.join(FILE_NAME),
            entries: Vec::new(),
            by_serial: HashMap::new(),
            by_id: HashMap::new(),
            read_bytes: 0,
            lines: 0,
        };
        inventory.refresh()?;
        Ok(inventory)
    }

    /// Reads what was appended since, by whomever.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn refresh(&mut self) -> Result<(), CertsError> {
        match File::open(&self.path) {
            Ok(mut file) => self.read_on(&mut file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(CertsError::file(&self.path, error)),
        }
    }

    /// Every certificate, in the order in which they were issued, each as it is now.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The certificate with this serial, lower-case hexadecimal.
    #[must_use]
    pub fn with_serial(&self, serial: &str) -> Option<&Entry> {
        self.entries.get(*self.by_serial.get(serial)?)
    }

    /// The certificates that were issued to `id`, the oldest first.
    pub fn of_id(&self, id: &str) -> impl DoubleEndedIterator<Item = &Entry> {
        let places = self.by_id.get(id).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|place| self.entries.get(*place))
    }

    /// Appends entries, all or none, and has them on disk.
    ///
    /// # Errors
    /// [`CertsError::File`] when the file cannot be opened or written, and those of [`open`](Self::open).
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), CertsError> {
        self.append_if(|_| Ok(entries.to_vec()))
    }

    /// As [`append`](Self::append), with what `decide` makes of the inventory as it is while nobody else can write.
    ///
    /// # Errors
    /// Those of [`append`](Self::append) and of `decide`.
    pub fn append_if<E: From<CertsError>>(
        &mut self,
        decide: impl FnOnce(&Self) -> Result<Vec<Entry>, E>,
    ) -> Result<(), E> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&self.path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| CertsError::file(&self.path, error))?;
        self.read_on(&mut file)?;
        let entries = decide(self)?;
        self.write(&mut file, &entries)?;
        self.read_on(&mut file)?;
        Ok(())
    }

    fn write(&self, file: &mut File, entries: &[Entry]) -> Result<(), CertsError> {
        let failed = |error| CertsError::file(&self.path, error);
        let length = file.metadata().map_err(failed)?.len();
        if length != self.read_bytes {
            // What a crash left behind: the lock says that nobody is writing it.
            file.set_len(self.read_bytes).map_err(failed)?;
        }
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }

    /// Reads whole lines from where reading stopped.
    fn read_on(&mut self, file: &mut File) -> Result<(), CertsError> {
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(self.read_bytes))
            .and_then(|_| file.read_to_end(&mut text))
            .map_err(|error| CertsError::file(&self.path, error))?;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some(entry) = line.strip_suffix(b"\n") else {
                break;
            };
            self.lines += 1;
            let entry =
                serde_json::from_slice(entry).map_err(|error| CertsError::InventoryLine {
                    path: self.path.clone(),
                    line: self.lines,
                    problem: error.to_string(),
                })?;
            self.read_bytes += line.len() as u64;
            self.take(entry);
        }
        Ok(())
    }

    fn take(&mut self, entry: Entry) {
        if let Some(known) = self.by_serial.get(&entry.serial)
            && let Some(place) = self.entries.get_mut(*known)
        {
            *place = entry;
            return;
        }
        let place = self.entries.len();
        self.by_serial.insert(entry.serial.clone(), place);
        self.by_id.entry(entry.id.clone()).or_default().push(place);
        self.entries.push(entry);
    }
}

const FILE_NAME: &str = "inventory.jsonl";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_line_about_a_serial_counts() {
        let directory = tempfile::tempdir().unwrap();
        let mut inventory = Inventory::open(directory.path()).unwrap();
        let mut first = entry("meter-1", "0a");
        inventory
            .append(&[first.clone(), entry("meter-2", "0b")])
            .unwrap();
        first.status = Status::Revoked;
        inventory.append(std::slice::from_ref(&first)).unwrap();
        let again = Inventory::open(directory.path()).unwrap();
        for inventory in [inventory, again] {
            assert_eq!(inventory.with_serial("0a"), Some(&first));
            assert_eq!(inventory.of_id("meter-1").collect::<Vec<_>>(), [&first]);
            assert_eq!(inventory.entries().count(), 2);
        }
    }

    #[test]
    fn what_another_process_wrote_is_seen_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut one = Inventory::open(directory.path()).unwrap();
        let mut other = Inventory::open(directory.path()).unwrap();
        one.append(&[entry("meter-1", "0a")]).unwrap();
        let done = other.append_if(|now| {
            assert!(now.with_serial("0a").is_some());
            Ok::<_, CertsError>(vec![entry("meter-2", "0b")])
        });
        done.unwrap();
        one.refresh().unwrap();
        assert!(one.with_serial("0b").is_some());
    }

    #[test]
    fn half_a_line_is_none_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let mut inventory = Inventory::open(directory.path()).unwrap();
        inventory.append(&[entry("meter-1", "0a")]).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"id\":\"met").unwrap();
        let mut inventory = Inventory::open(directory.path()).unwrap();
        assert_eq!(inventory.entries().count(), 1);
        inventory.append(&[entry("meter-2", "0b")]).unwrap();
        assert_eq!(
            Inventory::open(directory.path()).unwrap().entries().count(),
            2
        );
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut inventory = Inventory::open(directory.path()).unwrap();
        inventory.append(&[entry("meter-1", "0a")]).unwrap();
        let path = directory.path().join(FILE_NAME);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"nothing\n").unwrap();
        let error = Inventory::open(directory.path()).unwrap_err();
        assert!(
            matches!(error, CertsError::InventoryLine { line: 2, .. }),
            "{error}"
        );
    }

    fn entry(id: &str, serial: &str) -> Entry {
        Entry {
            id: id.to_owned(),
            kind: Kind::Device,
            serial: serial.to_owned(),
            fingerprint: "AB:CD".to_owned(),
            not_after: 1_800_000_000,
            status: Status::Issued,
            at: 1_700_000_000,
            reason: None,
            key_type: None,
            attributes: BTreeMap::new(),
            enrolled_by: None,
            public_key: None,
        }
    }
}
