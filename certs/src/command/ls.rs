//! `ls`: lists what was issued, a table for people and JSON lines for programs.

use motemq_certs::{Authority, CertsError, Entry, Inventory, Kind, Status, date, now_unix_s};
use std::fmt::Write as _;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only certificates of these ids.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Only certificates that end within this time, such as 30d, or have ended, and were neither revoked nor replaced.
    #[arg(long, value_name = "DAYS", value_parser = days, conflicts_with = "revoked")]
    expiring: Option<i64>,
    /// Only certificates that were revoked.
    #[arg(long)]
    revoked: bool,
    /// Only certificates of this kind.
    #[arg(long, value_enum)]
    kind: Option<KindArgument>,
    /// One JSON object per line, as in the inventory.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum KindArgument {
    Server,
    Device,
    Claim,
    Service,
}

impl From<KindArgument> for Kind {
    fn from(kind: KindArgument) -> Self {
        match kind {
            KindArgument::Server => Self::Server,
            KindArgument::Device => Self::Device,
            KindArgument::Claim => Self::Claim,
            KindArgument::Service => Self::Service,
        }
    }
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let inventory = Inventory::open(dir)?;
    if inventory.entries().next().is_none() {
        // An empty list of a directory that holds no authority would be a wrong answer.
        Authority::open(dir)?;
    }
    let now_unix_s = now_unix_s();
    let is_asked_for = |entry: &&Entry| {
        let is_due = |within_s| {
            entry.status == Status::Issued
                && entry.not_after < now_unix_s.saturating_add(within_s)
                && !is_replaced(entry, &inventory)
        };
        (arguments.ids.is_empty() || arguments.ids.contains(&entry.id))
            && arguments.kind.is_none_or(|kind| entry.kind == kind.into())
            && (!arguments.revoked || entry.status == Status::Revoked)
            && arguments.expiring.is_none_or(is_due)
    };
    let entries: Vec<&Entry> = inventory.entries().filter(is_asked_for).collect();
    if arguments.json {
        return json(&entries);
    }
    Ok(table(&entries, now_unix_s))
}

/// Whether one that ends later and was not revoked has taken its place.
fn is_replaced(entry: &Entry, inventory: &Inventory) -> bool {
    inventory.of_id(&entry.id).any(|other| {
        other.kind == entry.kind
            && other.status == Status::Issued
            && other.not_after > entry.not_after
    })
}

fn json(entries: &[&Entry]) -> Result<String, CertsError> {
    let mut lines = String::new();
    for entry in entries {
        lines.push_str(&serde_json::to_string(entry)?);
        lines.push('\n');
    }
    Ok(lines)
}

fn table(entries: &[&Entry], now_unix_s: i64) -> String {
    let width = entries.iter().map(|entry| entry.id.chars().count()).max();
    let width = width.unwrap_or_default().max("ID".len());
    let mut text = format!(
        "{:width$}  KIND     SERIAL                            KEY      UNTIL       STATUS\n",
        "ID"
    );
    let (mut expired, mut revoked) = (0, 0);
    for entry in entries {
        let status = match (entry.status, &entry.reason) {
            (Status::Revoked, reason) => {
                revoked += 1;
                let reason = reason.as_deref().map(|reason| format!(", {reason}"));
                format!("revoked{}", reason.unwrap_or_default())
            }
            (Status::Issued, _) if entry.not_after < now_unix_s => {
                expired += 1;
                "expired".to_owned()
            }
            (Status::Issued, _) => "valid".to_owned(),
        };
        let kind = match entry.kind {
            Kind::Server => "server",
            Kind::Device => "device",
            Kind::Claim => "claim",
            Kind::Service => "service",
        };
        let key = entry.key_type.as_deref().unwrap_or("?");
        let attributes = entry.attributes.iter();
        let attributes = attributes.fold(String::new(), |text, (name, value)| {
            text + "  " + name + "=" + value
        });
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:width$}  {kind:7}  {:32}  {key:7}  {:10}  {status}{attributes}",
            entry.id,
            entry.serial,
            date(entry.not_after),
        );
    }
    let valid = entries.len() - expired - revoked;
    let _ = writeln!(text, "{valid} valid, {expired} expired, {revoked} revoked");
    text
}

/// A number of days, in seconds.
pub(super) fn days(text: &str) -> Result<i64, String> {
    let days = text.strip_suffix('d').unwrap_or(text).parse::<u32>();
    let days = days.map_err(|_| "give a number of days, such as 30d".to_owned())?;
    Ok(i64::from(days) * 24 * 60 * 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_certs::{KeyType, Order, Validity};

    #[test]
    fn those_that_end_soon_and_are_in_use_are_listed() {
        let (folder, mut inventory) = site();
        issue(folder.path(), &mut inventory, "old", 10);
        issue(folder.path(), &mut inventory, "old", 100);
        issue(folder.path(), &mut inventory, "due", 10);
        issue(folder.path(), &mut inventory, "fresh", 100);
        let lost = issue(folder.path(), &mut inventory, "lost", 10);
        let status = Status::Revoked;
        let reason = Some("key-compromise".to_owned());
        let lost = Entry {
            status,
            reason,
            ..lost
        };
        inventory.append(&[lost]).unwrap();

        let ids = |arguments: &[&str]| -> Vec<String> {
            let arguments = [&["ls", "--json"], arguments].concat();
            let lines = run(folder.path(), &parsed(&arguments)).unwrap();
            lines
                .lines()
                .map(|line| serde_json::from_str::<Entry>(line).unwrap().id)
                .collect()
        };
        assert_eq!(ids(&[]), ["old", "old", "due", "fresh", "lost"]);
        assert_eq!(ids(&["--expiring", "30d"]), ["due"]);
        assert_eq!(ids(&["--expiring", "200"]), ["old", "due", "fresh"]);
        assert_eq!(ids(&["--revoked"]), ["lost"]);
        assert_eq!(ids(&["--kind", "server"]), [""; 0]);
        assert_eq!(ids(&["due", "lost"]), ["due", "lost"]);
        let table = run(folder.path(), &parsed(&["ls"])).unwrap();
        assert!(table.contains("revoked, key-compromise\n"), "{table}");
        assert!(
            table.ends_with("4 valid, 0 expired, 1 revoked\n"),
            "{table}"
        );
    }

    #[test]
    fn a_directory_without_an_authority_is_not_an_empty_list() {
        let folder = tempfile::tempdir().unwrap();
        assert!(run(folder.path(), &parsed(&["ls"])).is_err());
        let (folder, _inventory) = site();
        let table = run(folder.path(), &parsed(&["ls"])).unwrap();
        assert!(
            table.ends_with("0 valid, 0 expired, 0 revoked\n"),
            "{table}"
        );
    }

    fn site() -> (tempfile::TempDir, Inventory) {
        let folder = tempfile::tempdir().unwrap();
        Authority::create(folder.path(), "test").unwrap();
        let inventory = Inventory::open(folder.path()).unwrap();
        (folder, inventory)
    }

    fn issue(dir: &Path, inventory: &mut Inventory, id: &str, days: u32) -> Entry {
        let order = Order::device(id).unwrap().valid(Validity::Days(days));
        let authority = Authority::open(dir).unwrap();
        let issued = authority.issue(&order, KeyType::P256).unwrap();
        let entry = Entry::issued(&order, &issued);
        inventory.append(std::slice::from_ref(&entry)).unwrap();
        entry
    }

    fn parsed(arguments: &[&str]) -> Arguments {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let line: Line = clap::Parser::parse_from(arguments);
        line.arguments
    }
}
