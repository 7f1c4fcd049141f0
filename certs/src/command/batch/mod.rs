//! `batch`: issues the certificates of many devices, and goes on where it was stopped.
//!
//! What is there is left as it is: devices whose files exist are skipped. Nothing is issued before the whole order was checked.

mod format;
pub(crate) mod ids;
mod manifest;
mod staging;

use super::device::Profile;
use super::warn_about;
use format::{Common, Format};
use ids::{DEVICES_MAX, Device};
use indicatif::{ProgressBar, ProgressStyle};
use motemq_certs::{Authority, CertsError, Entry, Inventory, Order, Status, Stopwatch};
use staging::Staging;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How many certificates appear at once, at most: ten thousand files and one entry of the journal are brought to disk together.
const PART_DEVICES: usize = 5_000;
/// How long a part is worked at: a batch that is killed makes at most so much again.
const PART_TIME: Duration = Duration::from_secs(1);
/// The longest id that can be a file's name, with what follows it.
const ID_BYTES_MAX: usize = 240;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["count", "from"])))]
pub(crate) struct Arguments {
    /// How many devices, numbered after the prefix.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=DEVICES_MAX), requires = "prefix")]
    count: Option<u64>,
    /// What the ids of the devices start with.
    #[arg(long, requires = "count")]
    prefix: Option<String>,
    /// The first number.
    #[arg(long, default_value_t = 1, requires = "count", value_parser = clap::value_parser!(u64).range(..=u64::MAX / 2))]
    start: u64,
    /// Digits of the number, filled with zeros [default: those of the last number, 6 at least].
    #[arg(long, requires = "count", value_parser = clap::value_parser!(u8).range(1..=20))]
    digits: Option<u8>,
    /// A CSV file with the devices: a column `id`; other columns become attributes in the inventory.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    profile: Profile,
    /// In which form certificates and keys are written.
    #[arg(long, value_enum, default_value_t = Format::Pem)]
    format: Format,
    /// Where the files go [default: devices in the authority's directory].
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// A CSV file to write with serial, fingerprint, expiry and files of each device.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// A file whose first line is the password of the .p12 files; MOTEMQ_P12_PASSWORD in the environment does as well.
    #[arg(long, value_name = "FILE")]
    p12_password_file: Option<PathBuf>,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let profile = &arguments.profile;
    let devices = devices(arguments)?;
    let authority = Authority::open(dir)?;
    let common = common(arguments, &authority)?;
    let mut inventory = Inventory::open_to_issue(dir)?;
    let directory = arguments.files.clone();
    let directory = directory.unwrap_or_else(|| dir.join("devices"));
    if let Some(path) = &arguments.manifest {
        manifest::check(path, &devices)?;
    }
    warn_about(profile.key);
    let (staging, finished) = Staging::open(&directory, &mut inventory)?;
    if finished > 0 {
        let _ = writeln!(
            io::stderr(),
            "motemq-certs: finished {finished} certificates of a batch that was interrupted"
        );
    }
    let to_do = without_files(&devices, &directory, common.format, &inventory)?;
    let stopwatch = Stopwatch::start();
    let batch = Batch {
        authority: &authority,
        profile,
        common: &common,
        staging: &staging,
        progress: progress(to_do.len()),
    };
    let mut rest = to_do.as_slice();
    while !rest.is_empty() {
        match batch.issue(rest, &mut inventory) {
            Ok(issued) => rest = rest.get(issued..).unwrap_or_default(),
            Err(error) => {
                batch.progress.abandon();
                let _ = writeln!(
                    io::stderr(),
                    "motemq-certs: stopped after {} of {} certificates; the same command goes on from there",
                    to_do.len() - rest.len(),
                    to_do.len()
                );
                return Err(error);
            }
        }
    }
    batch.progress.finish_and_clear();
    staging.close()?;
    let seconds = stopwatch.elapsed().as_secs_f64();
    let entries = manifest::entries(&devices, &inventory, &directory, common.format)?;
    if let Some(path) = &arguments.manifest {
        manifest::write(path, &entries, &directory, common.format)?;
    }
    Ok(told(arguments, &directory, &entries, to_do.len(), seconds))
}

/// What the workers share.
struct Batch<'a> {
    authority: &'a Authority,
    profile: &'a Profile,
    common: &'a Common,
    staging: &'a Staging,
    progress: ProgressBar,
}

impl Batch<'_> {
    /// Issues the first of these on every processor, and has them appear as a whole. Returns how many.
    fn issue(&self, rest: &[&Device], inventory: &mut Inventory) -> Result<usize, CertsError> {
        let part = rest.get(..PART_DEVICES).unwrap_or(rest);
        let (next, stopwatch) = (AtomicUsize::new(0), Stopwatch::start());
        let work = || -> Result<Vec<(usize, Entry)>, CertsError> {
            let mut entries = Vec::new();
            // Whoever takes a place finishes it, so those that are done have no gaps.
            while entries.is_empty() || stopwatch.elapsed() < PART_TIME {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(device) = part.get(place) else {
                    break;
                };
                let entry = self.stage(device).inspect_err(|_| {
                    next.store(part.len(), Ordering::Relaxed);
                })?;
                entries.push((place, entry));
                self.progress.inc(1);
            }
            Ok(entries)
        };
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let mut entries = thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let mut entries = Vec::new();
            for thread in threads {
                entries.extend(thread.join().map_err(|_| CertsError::Worker)??);
            }
            Ok::<_, CertsError>(entries)
        })?;
        entries.sort_unstable_by_key(|(place, _)| *place);
        let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
        self.staging.commit(&entries, inventory)?;
        Ok(entries.len())
    }

    fn stage(&self, device: &Device) -> Result<Entry, CertsError> {
        let order = order(self.profile, device)?;
        let issued = self.authority.issue(&order, self.profile.key)?;
        let contents = self.common.contents(&device.id, &issued)?;
        for (kind, contents) in self.common.format.kinds().iter().zip(&contents) {
            let name = [&device.id, kind.suffix].concat();
            self.staging.write(&name, contents, kind.is_private)?;
        }
        Ok(Entry::issued(&order, &issued))
    }
}

/// The devices, each of which can have a certificate.
fn devices(arguments: &Arguments) -> Result<Vec<Device>, CertsError> {
    let check = |device: &Device| -> Result<(), CertsError> {
        order(&arguments.profile, device)?;
        if device.id.len() > ID_BYTES_MAX {
            let (id, problem) = (device.id.clone(), "is too long for a file's name");
            return Err(CertsError::DeviceId { id, problem });
        }
        Ok(())
    };
    if let Some(path) = &arguments.from {
        return ids::from_file(path, check);
    }
    let digits = arguments.digits.map(usize::from);
    let prefix = arguments.prefix.as_deref().unwrap_or_default();
    let devices = ids::counted(
        prefix,
        arguments.start,
        arguments.count.unwrap_or_default(),
        digits,
    );
    devices.iter().try_for_each(check)?;
    Ok(devices)
}

fn order(profile: &Profile, device: &Device) -> Result<Order, CertsError> {
    profile
        .order(&device.id)?
        .attributes(device.attributes.clone())
}

fn common(arguments: &Arguments, authority: &Authority) -> Result<Common, CertsError> {
    let (format, has_chain) = (arguments.format, arguments.profile.has_chain());
    if has_chain && !matches!(format, Format::Pem | Format::P12) {
        return Err(CertsError::ChainFormat);
    }
    Ok(Common {
        format,
        has_chain: has_chain && authority.is_intermediate(),
        root_der: motemq_certs::certificate_der(authority.root_pem())?,
        issuer_der: motemq_certs::certificate_der(authority.certificate_pem())?,
        p12_password: match format {
            Format::P12 => p12_password(arguments.p12_password_file.as_deref())?,
            _ => String::new(),
        },
    })
}

fn p12_password(file: Option<&Path>) -> Result<String, CertsError> {
    let text = match file {
        Some(path) => fs::read_to_string(path).map_err(|source| CertsError::File {
            path: path.to_owned(),
            source,
        })?,
        None => std::env::var("MOTEMQ_P12_PASSWORD").unwrap_or_default(),
    };
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(CertsError::P12Password),
    }
}

/// The devices that have no files yet.
fn without_files<'a>(
    devices: &'a [Device],
    directory: &Path,
    format: Format,
    inventory: &Inventory,
) -> Result<Vec<&'a Device>, CertsError> {
    let failed = |source| CertsError::File {
        path: directory.to_owned(),
        source,
    };
    let present = fs::read_dir(directory)
        .and_then(|files| {
            files
                .map(|file| Ok(file?.file_name()))
                .collect::<io::Result<HashSet<OsString>>>()
        })
        .map_err(failed)?;
    let (mut to_do, mut in_the_way) = (Vec::new(), Vec::new());
    for device in devices {
        let names = format
            .kinds()
            .iter()
            .map(|kind| [&device.id, kind.suffix].concat());
        let (there, missing): (Vec<_>, Vec<_>) =
            names.partition(|name| present.contains(name.as_ref() as &std::ffi::OsStr));
        if there.is_empty() {
            to_do.push(device);
        } else if let Some(missing) = missing.first() {
            in_the_way.push(format!("{} without {missing}", there.join(" and ")));
        } else if manifest::entry(&device.id, inventory, directory, format)?.is_none() {
            in_the_way.push(format!("{}, unknown to the inventory", there.join(" and ")));
        }
    }
    if in_the_way.is_empty() {
        return Ok(to_do);
    }
    let directory = directory.to_owned();
    let files = ids::told(&in_the_way);
    Err(CertsError::InTheWay { directory, files })
}

/// A bar on a terminal; nothing elsewhere.
fn progress(devices: usize) -> ProgressBar {
    let template = "{wide_bar} {pos} of {len}, {per_sec}, {eta} left";
    let progress = ProgressBar::new(devices as u64);
    match ProgressStyle::with_template(template) {
        Ok(style) => progress.with_style(style),
        Err(_) => progress,
    }
}

fn told(
    arguments: &Arguments,
    directory: &Path,
    entries: &[&Entry],
    issued: usize,
    seconds: f64,
) -> String {
    let mut text = format!("issued       {issued}");
    let skipped = entries.len() - issued;
    if skipped > 0 {
        text.push_str(&format!(", and {skipped} were there already"));
    }
    let revoked = entries
        .iter()
        .filter(|entry| entry.status == Status::Revoked)
        .count();
    if revoked > 0 {
        text.push_str(&format!(", {revoked} of them revoked"));
    }
    let suffixes = arguments.format.kinds().iter().rev();
    let files: Vec<String> = suffixes
        .map(|kind| {
            directory
                .join(format!("ID{}", kind.suffix))
                .display()
                .to_string()
        })
        .collect();
    text.push_str(&format!(
        "\ntime         {seconds:.2} s, {:.0} pairs/s\nfiles        {}\n",
        issued as f64 / seconds.max(0.001),
        files.join(", "),
    ));
    if let Some(path) = &arguments.manifest {
        text.push_str(&format!("manifest     {}\n", path.display()));
    }
    text
}
