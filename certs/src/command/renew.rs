//! `renew`: certificates that say the same and end later, under the names of the old ones.

use motemq_certs::{
    Authority, CertsError, Entry, Held, Inventory, Issued, Kind, Order, Reason, Revocation, Signed,
    Status, Target, Validity, date, now_unix_s,
};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// More certificates than this are counted and not named.
const NAMED_MAX: usize = 20;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Arguments {
    /// Devices or claims whose certificates are here.
    #[arg(group = "what", value_name = "ID")]
    ids: Vec<String>,
    /// The broker's certificate.
    #[arg(long, group = "what")]
    server: bool,
    /// Every certificate here that ends within so many days, such as 30d.
    #[arg(long, group = "what", value_name = "DAYS", value_parser = super::ls::days)]
    within: Option<i64>,
    /// Keep the key; so do certificates whose key is not here.
    #[arg(long)]
    reuse_key: bool,
    /// Validity in days, or `forever` [default: as long as the old one].
    #[arg(long)]
    days: Option<Validity>,
    /// Revoke the old certificates: devices that do not have the new ones yet are cut off.
    #[arg(long)]
    revoke: bool,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let authority = Authority::open(dir)?;
    let mut inventory = Inventory::open_to_issue(dir)?;
    let mut text = String::new();
    let mut chosen = Vec::new();
    if arguments.server {
        let held = Held::open(&dir.join("server"))?;
        chosen.push(held.ok_or_else(|| nothing_to_renew(dir, "server"))?);
    }
    for id in &arguments.ids {
        chosen.push(of_id(dir, id)?);
    }
    for held in &chosen {
        if is_revoked(&inventory, held) {
            return Err(CertsError::RenewRevoked(held.certificate().to_owned()));
        }
    }
    let mut failed = 0;
    if let Some(within_s) = arguments.within {
        let end_unix_s = now_unix_s() + within_s;
        let (ending, unreadable) = ending(dir, &inventory, end_unix_s)?;
        failed += unreadable;
        // What ends with its authority would not end later.
        let authority_ends = authority.not_after_unix_s();
        let (bound, ending) = ending
            .into_iter()
            .partition::<Vec<_>, _>(|held| held.not_after_unix_s() >= authority_ends);
        chosen.extend(ending);
        if !bound.is_empty() {
            let _ = writeln!(
                text,
                "authority    ends {}, and {} certificates with it: make a new one with `motemq-certs --out DIR init`",
                date(authority_ends),
                bound.len()
            );
        }
        name_elsewhere(&mut text, dir, &inventory, end_unix_s);
    }
    let mut seen = HashSet::new();
    chosen.retain(|held| seen.insert(held.certificate().to_owned()));
    let renewed = chosen
        .iter()
        .map(|held| Renewed::of(&authority, &inventory, held, arguments))
        .collect::<Result<Vec<_>, _>>()?;
    let entries: Vec<Entry> = renewed.iter().map(Renewed::entry).collect();
    inventory.append(&entries)?;
    put_in_place(&renewed)?;
    tell(&mut text, &renewed);
    if arguments.revoke && !renewed.is_empty() {
        let serials = chosen.iter().map(|held| held.serial().to_owned());
        let targets: Vec<Target> = serials.map(Target::Serial).collect();
        let revocation = Revocation {
            reason: Some(Reason::Superseded),
            kind: None,
            // The inventory may have been lost.
            force: true,
            with_enrolled: false,
        };
        let done = authority.revoke(&mut inventory, &targets, revocation, None)?;
        let _ = writeln!(text, "revoked      {} old", done.revoked.len());
        text += &super::crl::told(dir, &done.list);
    }
    if failed == 0 {
        return Ok(text);
    }
    let _ = io::stdout().write_all(text.as_bytes());
    Err(CertsError::NotAll(failed, "renewed"))
}

/// The certificate of a device, or else of a claim.
fn of_id(dir: &Path, id: &str) -> Result<Held, CertsError> {
    for folder in ["devices", "claims"] {
        if let Some(held) = Held::open(&dir.join(folder).join(id))? {
            return Ok(held);
        }
    }
    Err(nothing_to_renew(dir, id))
}

fn nothing_to_renew(dir: &Path, id: &str) -> CertsError {
    CertsError::NothingToRenew {
        id: id.to_owned(),
        dir: dir.to_owned(),
    }
}

fn is_revoked(inventory: &Inventory, held: &Held) -> bool {
    let entry = inventory.with_serial(held.serial());
    entry.is_some_and(|entry| entry.status == Status::Revoked)
}

/// What ends in time, and how much could not be read, which is named.
fn ending(
    dir: &Path,
    inventory: &Inventory,
    end_unix_s: i64,
) -> Result<(Vec<Held>, usize), CertsError> {
    let (mut ending, mut unreadable) = (Vec::new(), 0);
    for stem in stems(dir)? {
        match Held::open(&stem) {
            Ok(Some(held)) => {
                if held.not_after_unix_s() < end_unix_s && !is_revoked(inventory, &held) {
                    ending.push(held);
                }
            }
            Ok(None) => {}
            // What else lies beside the authority's files is no concern of ours.
            Err(CertsError::NotOurs { .. }) if stem.parent() == Some(dir) => {}
            Err(error) => {
                unreadable += 1;
                let _ = writeln!(io::stderr(), "motemq-certs: {error}");
            }
        }
    }
    Ok((ending, unreadable))
}

/// Where certificates lie that were issued here, without their endings.
fn stems(dir: &Path) -> Result<Vec<PathBuf>, CertsError> {
    let mut stems = Vec::new();
    for entry in fs::read_dir(dir).map_err(|source| file(dir, source))? {
        let path = entry.map_err(|source| file(dir, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        // The authority's own are not renewed like this.
        let is_leaf = name
            .is_some_and(|name| name.ends_with(".crt") && name != "ca.crt" && name != "root.crt");
        if is_leaf {
            stems.push(path.with_extension(""));
        }
    }
    for folder in ["devices", "claims"].map(|folder| dir.join(folder)) {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.map_err(|source| file(&folder, source))?.path();
            if path.extension().is_some_and(|end| end == "crt") {
                stems.push(path.with_extension(""));
            }
        }
    }
    stems.sort();
    Ok(stems)
}

fn file(path: &Path, source: io::Error) -> CertsError {
    CertsError::File {
        path: path.to_owned(),
        source,
    }
}

/// Says how many end in time whose certificates are not here: nobody here can put a new one in their place.
fn name_elsewhere(text: &mut String, dir: &Path, inventory: &Inventory, end_unix_s: i64) {
    let now = now_unix_s();
    let is_here = |entry: &Entry| match entry.kind {
        Kind::Server => dir.join("server.crt").exists(),
        Kind::Device => dir.join(format!("devices/{}.crt", entry.id)).exists(),
        Kind::Claim => dir.join(format!("claims/{}.crt", entry.id)).exists(),
        Kind::Service => true,
    };
    let elsewhere = inventory.entries().filter(|entry| {
        let newest = inventory
            .of_id(&entry.id)
            .filter(|other| other.kind == entry.kind)
            .max_by_key(|other| other.not_after);
        newest.is_some_and(|newest| newest.serial == entry.serial)
            && entry.status == Status::Issued
            && (now..end_unix_s).contains(&entry.not_after)
            && !is_here(entry)
    });
    let count = elsewhere.count();
    if count > 0 {
        let _ = writeln!(
            text,
            "elsewhere    {count} more end by then that are not here as PEM: renew der, p12, c-header and nvs files, and those in other \
             folders, with batch in a new folder; devices that enrolled renew by themselves"
        );
    }
}

/// A new certificate and the one whose place it takes.
struct Renewed<'a> {
    held: &'a Held,
    order: Order,
    new: New,
}

enum New {
    /// With a new key.
    Pair(Box<Issued>),
    /// For the old key.
    Certificate(Signed),
}

impl<'a> Renewed<'a> {
    fn of(
        authority: &Authority,
        inventory: &Inventory,
        held: &'a Held,
        arguments: &Arguments,
    ) -> Result<Self, CertsError> {
        let mut order = held.order(arguments.days)?;
        if let Some(entry) = inventory.with_serial(held.serial()) {
            order = order.attributes(entry.attributes.clone())?;
        }
        let new = if arguments.reuse_key || !held.has_private_key() {
            New::Certificate(authority.sign(&order, held.public_key())?)
        } else {
            let no_new_key = || CertsError::NoNewKey {
                path: held.certificate().to_owned(),
                kind: held.public_key().type_name().to_owned(),
            };
            let key_type = held.key_type().ok_or_else(no_new_key)?;
            New::Pair(Box::new(authority.issue(&order, key_type)?))
        };
        Ok(Self { held, order, new })
    }

    fn signed(&self) -> &Signed {
        match &self.new {
            New::Pair(issued) => issued,
            New::Certificate(signed) => signed,
        }
    }

    fn entry(&self) -> Entry {
        Entry::issued(&self.order, self.signed())
    }

    fn put_in_place(&self) -> Result<(), CertsError> {
        match &self.new {
            New::Pair(issued) => self.held.replace_pair(issued),
            New::Certificate(signed) => self.held.replace_certificate(signed),
        }
    }
}

/// Puts all in place, several at once: what takes time is waiting for the disk.
fn put_in_place(renewed: &[Renewed<'_>]) -> Result<(), CertsError> {
    const THREADS: usize = 16;
    let part = renewed.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let parts = renewed
            .chunks(part)
            .map(|part| scope.spawn(|| part.iter().try_for_each(Renewed::put_in_place)));
        let parts: Vec<_> = parts.collect();
        let outcomes = parts.into_iter().map(|part| match part.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        outcomes.collect::<Result<Vec<()>, _>>().map(drop)
    })
}

fn tell(text: &mut String, renewed: &[Renewed<'_>]) {
    if renewed.is_empty() {
        text.push_str("nothing to renew\n");
        return;
    }
    let named = renewed.len() <= NAMED_MAX;
    for Renewed { held, new, .. } in renewed.iter().filter(|_| named) {
        let (key, kept, signed) = match new {
            New::Pair(issued) => ("new key", "and its key", &issued.signed),
            New::Certificate(signed) => ("same key", "alone", signed),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "renewed      {}  {key}, serial {}, until {}\n\
             old one      {}.{}  {kept}, valid until {}",
            held.certificate().display(),
            signed.serial_hex,
            date(signed.not_after_unix_s),
            held.certificate().display(),
            held.serial(),
            date(held.not_after_unix_s()),
        );
    }
    if !named {
        let _ = writeln!(text, "renewed      {} certificates", renewed.len());
    }
    if renewed
        .iter()
        .any(|renewed| renewed.held.kind() == Kind::Server)
    {
        text.push_str(
            "             a broker that watches the files takes them over in a few seconds\n",
        );
    }
    if renewed
        .iter()
        .any(|renewed| renewed.held.kind() != Kind::Server)
    {
        text.push_str("             take the new files to the devices before the old ones end\n");
    }
}
