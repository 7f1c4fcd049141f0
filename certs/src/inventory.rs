//! The append-only list of what was issued: one JSON object per line in `inventory.jsonl`.
//!
//! A later line about the same serial supersedes an earlier one.
//!
//! A certificate is entered before its files appear, so whatever is out there can be revoked.

use crate::files::Access;
use crate::json_lines::{JsonLines, News};
use crate::{CertsError, Order, Signed};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

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
    log: JsonLines,
    /// In the order of their first lines, each with its latest.
    entries: Vec<Entry>,
    by_serial: HashMap<String, usize>,
    by_id: HashMap<String, Vec<usize>>,
}

impl Inventory {
    /// Reads the inventory in the authority's directory; where there is none yet, it is empty.
    ///
    /// # Errors
    /// [`CertsError::File`] when it cannot be read, [`CertsError::Line`] when a line of it is none.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let mut inventory = Self {
            log: JsonLines::new(dir.join(FILE_NAME), Access::Everyone),
            entries: Vec::new(),
            by_serial: HashMap::new(),
            by_id: HashMap::new(),
        };
        inventory.refresh()?;
        Ok(inventory)
    }

    /// As [`open`](Self::open), to issue: an inventory that `init` has made and that is gone is not begun anew, or a broker that lets in
    /// only who is in it would throw out everybody.
    ///
    /// # Errors
    /// [`CertsError::InventoryLost`], and those of [`open`](Self::open).
    pub fn open_to_issue(dir: &Path) -> Result<Self, CertsError> {
        let path = dir.join(FILE_NAME);
        match !path.exists() && dir.join(CRL_FILE_NAME).exists() {
            true => Err(CertsError::InventoryLost(path)),
            false => Self::open(dir),
        }
    }

    /// Reads what was appended since, by whomever.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn refresh(&mut self) -> Result<(), CertsError> {
        let news = self.log.read()?;
        self.take(news);
        Ok(())
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
        let mut file = self.log.lock()?;
        let news = self.log.read_on(&mut file)?;
        self.take(news);
        let entries = decide(self)?;
        self.log.append(&mut file, &entries)?;
        let news = self.log.read_on(&mut file)?;
        self.take(news);
        Ok(())
    }

    fn take(&mut self, news: News<Entry>) {
        if news.is_another_file {
            self.entries.clear();
            self.by_serial.clear();
            self.by_id.clear();
        }
        for entry in news.lines {
            self.take_line(entry);
        }
    }

    fn take_line(&mut self, entry: Entry) {
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
/// `init` leaves one behind, too.
const CRL_FILE_NAME: &str = "ca.crl";

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
    fn an_inventory_that_was_lost_is_not_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let mut inventory = Inventory::open_to_issue(dir).unwrap();
        inventory.append(&[entry("meter-1", "0a")]).unwrap();
        std::fs::write(dir.join(CRL_FILE_NAME), "").unwrap();
        assert!(Inventory::open_to_issue(dir).is_ok());
        std::fs::remove_file(dir.join(FILE_NAME)).unwrap();
        let error = Inventory::open_to_issue(dir).unwrap_err();
        assert!(matches!(error, CertsError::InventoryLost(_)), "{error}");
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
