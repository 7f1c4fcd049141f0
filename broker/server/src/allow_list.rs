//! The inventory of `motemq-certs` as a list of who may connect: a certificate that is not in it as issued is not admitted.
//!
//! Promises:
//! - A certificate counts by its fingerprint; a later line about the same serial number replaces what an earlier one said. Only the status
//!   `issued` admits; any other, also one that this version does not know, does not.
//! - The file is followed as it grows: what was appended is read, not the whole again. A last line that is not complete admits nobody.
//! - At the start and at a reload a line that cannot be read is an error. In a file that breaks while it is followed it adds nobody: who was
//!   admitted stays so as far as what can be read still says so, until the file is mended.
//!
//! Does not know: certificates' validity, who asks; who wrote the file.

use crate::client_certificate::CertificateFingerprint;
use crate::clock;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

/// The lists of all listeners, each file read once.
#[derive(Debug, Default)]
pub(crate) struct AllowLists(Mutex<Vec<Weak<AllowList>>>);

impl AllowLists {
    /// The list in a file, as it is now.
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub(crate) fn open(&self, path: &Path) -> Result<Arc<AllowList>, String> {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.retain(|list| list.strong_count() > 0);
        let mut known = lists.iter().filter_map(Weak::upgrade);
        if let Some(list) = known.find(|list| list.path == path) {
            list.follow();
            return match list.fault() {
                None => Ok(list),
                Some(fault) => Err(fault),
            };
        }
        let list = Arc::new(AllowList::read(path)?);
        lists.push(Arc::downgrade(&list));
        Ok(list)
    }

    /// Reads what has been appended to files, or those that have changed otherwise.
    pub(crate) fn follow(&self) -> Followed {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lists: Vec<_> = lists.iter().filter_map(Weak::upgrade).collect();
        let followed = lists.iter().map(|list| {
            let followed = list.follow();
            // Or somebody was lost at another look, which could tell nobody.
            match list.has_lost.swap(false, Ordering::AcqRel) {
                true => Followed::Lost,
                false => followed,
            }
        });
        followed.max().unwrap_or(Followed::Unchanged)
    }
}

/// What came of a look at files.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Followed {
    /// They are as they were.
    Unchanged,
    /// Something was read.
    Read,
    /// And somebody is not admitted any more.
    Lost,
}

/// The list in one file.
#[derive(Debug)]
pub(crate) struct AllowList {
    path: PathBuf,
    issued: RwLock<Issued>,
    /// Locked before `issued`, for as long as the file is read.
    read: Mutex<HasRead>,
    /// Somebody is not admitted any more, and the connections have not been told.
    has_lost: AtomicBool,
}

/// Certificates that may be used.
#[derive(Debug, Default)]
struct Issued {
    by_serial: HashMap<Serial, CertificateFingerprint>,
    /// The same ones.
    fingerprints: HashSet<CertificateFingerprint>,
}

impl Issued {
    /// Takes over what a line says. `true` when somebody is not admitted any more.
    fn apply(&mut self, (serial, fingerprint): Line) -> bool {
        let before = match fingerprint {
            Some(fingerprint) => self.by_serial.insert(serial, fingerprint),
            None => self.by_serial.remove(&serial),
        };
        let lost = before.filter(|before| fingerprint != Some(*before));
        if let Some(lost) = &lost {
            self.fingerprints.remove(lost);
        }
        self.fingerprints.extend(fingerprint);
        lost.is_some()
    }
}

/// Most significant byte first, filled up with zeros in front.
type Serial = [u8; 20];

/// How far the file was read.
#[derive(Debug, Default)]
struct HasRead {
    stamp: Option<Stamp>,
    /// When it was read it had not been changed just before; else another change could leave no trace in its times.
    is_settled: bool,
    /// Behind the last complete line.
    bytes: u64,
    lines: u64,
    /// Behind that is a line that counts and may yet be removed.
    has_unfinished: bool,
    /// The last complete line, to see whether the file only grew.
    last: Vec<u8>,
    fault: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> std::io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }

    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed_ms = seconds
            .saturating_mul(1000)
            .saturating_add(nanoseconds / 1_000_000);
        let now_ms = i64::try_from(clock::now().as_ms()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(changed_ms) > TICK_MS
    }
}

impl AllowList {
    fn read(path: &Path) -> Result<Self, String> {
        let mut issued = Issued::default();
        let has_read = read_whole(path, &mut issued)?;
        match has_read.fault {
            Some(fault) => Err(fault),
            None => Ok(Self {
                path: path.to_owned(),
                issued: RwLock::new(issued),
                read: Mutex::new(has_read),
                has_lost: AtomicBool::new(false),
            }),
        }
    }

    /// Whether a certificate may be used.
    pub(crate) fn has(&self, certificate: CertificateFingerprint) -> bool {
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        issued.fingerprints.contains(&certificate)
    }

    /// As [`has`](Self::has), and looks at the file before it says no: the certificate may have been issued just now. Not at a broken
    /// file, which would be read from its beginning in each handshake; whoever watches files does that.
    pub(crate) fn has_by_now(&self, certificate: CertificateFingerprint) -> bool {
        let is_whole = || self.fault().is_none();
        let is_news = || is_whole() && self.follow() != Followed::Unchanged;
        self.has(certificate) || is_news() && self.has(certificate)
    }

    /// How many certificates may be used.
    pub(crate) fn len(&self) -> usize {
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        issued.fingerprints.len()
    }

    /// What is wrong with the file as it is now.
    pub(crate) fn fault(&self) -> Option<String> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.fault.clone()
    }

    /// Reads what is new.
    pub(crate) fn follow(&self) -> Followed {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = std::fs::metadata(&self.path);
        let now = now.map(|metadata| Stamp::from(&metadata)).ok();
        if now.is_some() && now == read.stamp && read.is_settled {
            return Followed::Unchanged;
        }
        let known_fault = read.fault.clone();
        let lost = match self.read_appended(&mut read) {
            Some(lost) => lost,
            None => self.read_again(&mut read),
        };
        if read.fault != known_fault {
            let path = self.path.display();
            match &read.fault {
                Some(fault) => {
                    tracing::error!(allow_list = %path, %fault, "the inventory cannot be read: until it is mended whoever was on it is admitted, and nobody else");
                }
                None => tracing::info!(allow_list = %path, "the inventory can be read again"),
            }
        }
        if lost {
            self.has_lost.store(true, Ordering::Release);
            return Followed::Lost;
        }
        Followed::Read
    }

    /// `None` when the file did not just grow by lines that can be read.
    fn read_appended(&self, read: &mut HasRead) -> Option<bool> {
        let can_go_on = read.fault.is_none() && !read.has_unfinished;
        let before = read.stamp.filter(|_| can_go_on)?;
        let mut file = File::open(&self.path).ok()?;
        let now = Stamp::of(&file).ok()?;
        if now.file != before.file || now.bytes < read.bytes {
            return None;
        }
        let last = read.last.len() as u64;
        file.seek(SeekFrom::Start(read.bytes.checked_sub(last)?))
            .ok()?;
        let mut reader = BufReader::new(file);
        let mut same = vec![0; read.last.len()];
        reader.read_exact(&mut same).ok()?;
        if same != read.last {
            return None;
        }
        // Into a list of its own first: a line that cannot be read takes the whole of it back.
        let mut appended = Vec::new();
        let mut position = HasRead {
            stamp: Some(now),
            is_settled: now.is_settled(),
            bytes: read.bytes,
            lines: read.lines,
            last: same,
            ..HasRead::default()
        };
        read_lines(&mut reader, &mut position, |line| appended.push(line));
        if position.fault.is_some() {
            return None;
        }
        *read = position;
        let mut issued = self.issued.write().unwrap_or_else(PoisonError::into_inner);
        let mut lost = false;
        for line in appended {
            lost |= issued.apply(line);
        }
        Some(lost)
    }

    /// From the beginning.
    fn read_again(&self, read: &mut HasRead) -> bool {
        let mut fresh = Issued::default();
        match read_whole(&self.path, &mut fresh) {
            Ok(position) => *read = position,
            Err(fault) => {
                *read = HasRead {
                    fault: Some(fault),
                    ..HasRead::default()
                };
                return false;
            }
        }
        let mut issued = self.issued.write().unwrap_or_else(PoisonError::into_inner);
        let lost = !issued.fingerprints.is_subset(&fresh.fingerprints);
        if read.fault.is_some() {
            let stays = |known: &CertificateFingerprint| fresh.fingerprints.contains(known);
            issued.by_serial.retain(|_, known| stays(known));
            issued.fingerprints.retain(stays);
        } else {
            *issued = fresh;
        }
        lost
    }
}

/// What a line says of a serial number: the certificate that may be used, if any.
type Line = (Serial, Option<CertificateFingerprint>);

/// Adds what the file says to `issued`; a fault does not keep the lines behind it from being read.
fn read_whole(path: &Path, issued: &mut Issued) -> Result<HasRead, String> {
    let failed = |error: std::io::Error| error.to_string();
    let file = File::open(path).map_err(failed)?;
    let stamp = Stamp::of(&file).map_err(failed)?;
    let mut position = HasRead {
        stamp: Some(stamp),
        is_settled: stamp.is_settled(),
        ..HasRead::default()
    };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    read_lines(&mut reader, &mut position, |line| {
        issued.apply(line);
    });
    Ok(position)
}

/// Reads lines until the end; the first that cannot be read is the fault.
fn read_lines(reader: &mut impl BufRead, position: &mut HasRead, mut each: impl FnMut(Line)) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = reader.by_ref().take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut line);
        let number = position.lines + 1;
        match read {
            Err(error) => {
                let fault = format!("line {number}: {error}");
                position.fault.get_or_insert(fault);
                return;
            }
            Ok(0) => return,
            Ok(bytes) if line.ends_with(b"\n") => {
                position.bytes += bytes as u64;
                position.lines = number;
                std::mem::swap(&mut position.last, &mut line);
                match parse(&position.last) {
                    Ok(Some(line)) => each(line),
                    Ok(None) => {}
                    Err(why) => {
                        position
                            .fault
                            .get_or_insert_with(|| format!("line {number}: {why}"));
                    }
                }
            }
            Ok(bytes) if bytes as u64 == LINE_BYTES_MAX => {
                let fault = format!("line {number}: longer than {LINE_BYTES_MAX} bytes");
                position.fault.get_or_insert(fault);
                return;
            }
            Ok(_) => {
                // Somebody is writing it, or a crash left it, and motemq-certs removes it: it admits nobody. If it takes somebody back,
                // that holds for as long as it is there.
                if let Ok(Some((serial, None))) = parse(&line) {
                    position.has_unfinished = true;
                    each((serial, None));
                }
                return;
            }
        }
    }
}

/// What of a line matters here; `motemq-certs` may write more.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    serial: Cow<'a, str>,
    #[serde(borrow)]
    fingerprint: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

/// `None` for an empty line.
fn parse(line: &[u8]) -> Result<Option<Line>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| {
        format!("not a line of an inventory of motemq-certs: {error}; mend or remove it")
    })?;
    let serial = hex(&fields.serial).and_then(|bytes| serial_of(&bytes));
    let serial = serial.ok_or("its serial is not hexadecimal of at most 20 bytes")?;
    if fields.status != ISSUED {
        return Ok(Some((serial, None)));
    }
    let fingerprint = hex(&fields.fingerprint).filter(|bytes| bytes.len() == 32);
    let half = fingerprint.and_then(|bytes| bytes.first_chunk().copied());
    let half = half.ok_or("its fingerprint is not a SHA-256 in hexadecimal")?;
    Ok(Some((serial, Some(half))))
}

/// The bytes of hexadecimal digits, of which colons may keep pairs apart.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().filter(|byte| *byte != b':');
    let mut values = digits.map(|byte| char::from(byte).to_digit(16));
    let mut bytes = Vec::with_capacity(32);
    while let Some(high) = values.next() {
        let (high, low) = (high?, values.next()??);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(bytes)
}

fn serial_of(bytes: &[u8]) -> Option<Serial> {
    let significant = bytes.iter().position(|byte| *byte != 0)?;
    let bytes = bytes.get(significant..)?;
    let mut serial = Serial::default();
    let start = serial.len().checked_sub(bytes.len())?;
    serial.get_mut(start..)?.copy_from_slice(bytes);
    Some(serial)
}

/// The status of a certificate that may be used.
const ISSUED: &str = "issued";
/// Longest line.
const LINE_BYTES_MAX: u64 = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;
/// Longer than file systems take to tell one change from the next.
const TICK_MS: i64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_certificate::CertificateId;
    use motemq_certs::{Authority, Entry, Inventory, Order};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use std::io::Write as _;
    use tempfile::TempDir;

    #[test]
    fn what_motemq_certs_records_is_admitted_and_nothing_else() {
        let site = Site::new();
        let [listed, other] = ["a", "b"].map(|id| site.issue(id));
        let mut inventory = Inventory::open(site.folder.path()).unwrap();
        inventory
            .append(std::slice::from_ref(&listed.entry))
            .unwrap();
        let list = AllowList::read(&site.path).unwrap();
        assert!(list.has(listed.id.fingerprint()) && !list.has(other.id.fingerprint()));
        assert_eq!(list.len(), 1);
        // The serial number alone is not enough.
        site.append(&line(&serial(&other), &"ab".repeat(32), "issued"));
        assert_eq!(list.follow(), Followed::Read);
        assert!(!list.has(other.id.fingerprint()));
    }

    #[test]
    fn only_what_was_issued_last_counts() {
        let site = Site::new();
        let device = site.issue("a");
        site.record(&device);
        let list = AllowList::read(&site.path).unwrap();
        for status in ["revoked", "on_hold"] {
            site.append(&line(&serial(&device), "", status));
            assert_eq!(list.follow(), Followed::Lost, "{status}");
            assert!(!list.has(device.id.fingerprint()), "{status}");
            site.record(&device);
            assert_eq!(list.follow(), Followed::Read);
            assert!(list.has(device.id.fingerprint()));
        }
    }

    #[test]
    fn half_a_line_waits_for_the_rest() {
        let site = Site::new();
        let [first, second] = ["a", "b"].map(|id| site.issue(id));
        site.record(&first);
        let list = AllowList::read(&site.path).unwrap();
        let text = line(&serial(&second), &second.fingerprint, "issued");
        for at in [1, text.len() / 2, text.len() - 1] {
            site.write(&line(&serial(&first), &first.fingerprint, "issued"));
            list.follow();
            site.append(&text[..at]);
            assert!(list.follow() == Followed::Read && list.fault().is_none());
            assert!(!list.has(second.id.fingerprint()));
            site.append(&text[at..]);
            assert!(list.follow() == Followed::Read && list.fault().is_none());
            assert!(list.has(first.id.fingerprint()) && list.has(second.id.fingerprint()));
        }
        // One that takes back counts for as long as it is there.
        let whole = std::fs::read_to_string(&site.path).unwrap();
        site.append(line(&serial(&second), "", "revoked").trim_end());
        assert_eq!(list.follow(), Followed::Lost);
        assert!(list.has(first.id.fingerprint()) && !list.has(second.id.fingerprint()));
        site.write(&whole);
        assert_eq!(list.follow(), Followed::Read);
        assert!(list.has(second.id.fingerprint()));
    }

    #[test]
    fn a_file_that_was_written_anew_is_read_anew() {
        let site = Site::new();
        let [first, second] = ["a", "b"].map(|id| site.issue(id));
        let lines =
            [&first, &second].map(|known| line(&serial(known), &known.fingerprint, "issued"));
        site.write(&lines[0]);
        let list = AllowList::read(&site.path).unwrap();
        // In the same file, of the same size; then with a line before the one that was read.
        site.write(&lines[1]);
        assert_eq!(list.follow(), Followed::Lost);
        assert!(!list.has(first.id.fingerprint()) && list.has(second.id.fingerprint()));
        site.write(&lines.concat());
        assert_eq!(list.follow(), Followed::Read);
        assert!(list.has(first.id.fingerprint()) && list.has(second.id.fingerprint()));
    }

    #[test]
    fn a_broken_line_is_named_and_adds_nobody() {
        let site = Site::new();
        let [first, second, third] = ["a", "b", "c"].map(|id| site.issue(id));
        site.record(&first);
        site.record(&second);
        let list = AllowList::read(&site.path).unwrap();
        let good = std::fs::read_to_string(&site.path).unwrap();
        site.append("{\"id\":\"to{\"id\"\n");
        site.append(&line(&serial(&second), "", "revoked"));
        site.record(&third);
        assert_eq!(list.follow(), Followed::Lost);
        let fault = list.fault().unwrap();
        assert!(fault.starts_with("line 3: "), "{fault}");
        let admitted = [&first, &second, &third].map(|known| list.has(known.id.fingerprint()));
        assert_eq!(admitted, [true, false, false]);
        let refused = AllowList::read(&site.path).unwrap_err();
        assert!(refused.starts_with("line 3: "), "{refused}");
        // A file that is gone changes nothing.
        std::fs::remove_file(&site.path).unwrap();
        assert_eq!(list.follow(), Followed::Read);
        assert!(list.fault().is_some() && list.has(first.id.fingerprint()));
        site.write(&good);
        site.record(&third);
        assert_eq!(list.follow(), Followed::Read);
        assert!(
            list.fault().is_none()
                && list.has(third.id.fingerprint())
                && list.has(second.id.fingerprint())
        );
    }

    #[test]
    fn a_hundred_thousand_lines_are_read_and_followed() {
        let site = Site::new();
        let device = site.issue("a");
        let lines: String = (1..=100_000)
            .map(|number| {
                line(
                    &format!("{number:032x}"),
                    &format!("{number:08X}").repeat(8),
                    "issued",
                )
            })
            .collect();
        site.write(&lines);
        let before = clock::monotonic();
        let list = AllowList::read(&site.path).unwrap();
        let whole = clock::monotonic() - before;
        assert_eq!(list.len(), 100_000);
        site.record(&device);
        let before = clock::monotonic();
        assert!(list.follow() == Followed::Read && list.has(device.id.fingerprint()));
        let appended = clock::monotonic() - before;
        println!("100,000 lines: {whole:?}; one more: {appended:?}");
        assert!(appended < whole, "it is not read again");
    }

    struct Site {
        folder: TempDir,
        path: PathBuf,
        authority: Authority,
    }

    struct Known {
        id: CertificateId,
        fingerprint: String,
        entry: Entry,
    }

    impl Site {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let authority = Authority::create(folder.path(), "test").unwrap();
            let path = folder.path().join("inventory.jsonl");
            std::fs::write(&path, "").unwrap();
            Self {
                folder,
                path,
                authority,
            }
        }

        fn issue(&self, id: &str) -> Known {
            let issued = self.authority.issue_device(id).unwrap();
            let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes());
            Known {
                id: CertificateId::of(&certificate.unwrap()).unwrap(),
                fingerprint: issued.fingerprint_sha256.clone(),
                entry: Entry::issued(&Order::device(id).unwrap(), &issued),
            }
        }

        fn record(&self, known: &Known) {
            let line = serde_json::to_string(&known.entry).unwrap();
            self.append(&format!("{line}\n"));
        }

        fn append(&self, text: &str) {
            let mut file = File::options().append(true).open(&self.path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.path, text).unwrap();
        }
    }

    fn serial(known: &Known) -> String {
        known.entry.serial.clone()
    }

    fn line(serial: &str, fingerprint: &str, status: &str) -> String {
        format!(
            "{{\"id\":\"x\",\"kind\":\"device\",\"serial\":\"{serial}\",\"fingerprint\":\"{fingerprint}\",\"not_after\":1,\"status\":\"{status}\"}}\n"
        )
    }
}
