//! `revoke`: takes certificates back.

use motemq_certs::{
    Authority, CertsError, Done, Entry, Inventory, Kind, Reason, Revocation, Target, crl_path, date,
};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// More certificates than this are counted and not named.
const NAMED_MAX: usize = 20;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Arguments {
    /// Ids: all of their certificates that have not expired.
    #[arg(group = "what", value_name = "ID")]
    ids: Vec<String>,
    /// One certificate, by its serial in hexadecimal, and those that were renewed from it; may be repeated.
    #[arg(long = "serial", group = "what", value_name = "HEX")]
    serials: Vec<String>,
    /// All in a CSV file with a column `id`, or `serial_hex`; where it has both, the id counts.
    #[arg(long, group = "what", value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Why; the list says it, the broker does not ask. With `superseded`, what was renewed from it stays valid.
    #[arg(long, value_name = "REASON", value_parser = reason())]
    reason: Option<Reason>,
    /// Which certificates are meant where an id has several kinds: device, server, claim or service.
    #[arg(long, value_parser = super::kind())]
    kind: Option<Kind>,
    /// Take a --serial that the inventory does not know, because that was lost.
    #[arg(long)]
    force: bool,
    /// With a claim, also the certificates that were enrolled by it, and those that were renewed from these.
    #[arg(long)]
    with_enrolled: bool,
    /// Days until the list must be written again; without it as many as for the list before, at first 7.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: Option<u32>,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let mut targets: Vec<Target> = arguments.ids.iter().cloned().map(Target::Id).collect();
    targets.extend(arguments.serials.iter().cloned().map(Target::Serial));
    if let Some(manifest) = &arguments.manifest {
        targets.extend(listed(manifest)?);
    }
    let authority = Authority::open(dir)?;
    let revocation = Revocation {
        reason: arguments.reason,
        kind: arguments.kind,
        force: arguments.force,
        with_enrolled: arguments.with_enrolled,
    };
    let mut inventory = Inventory::open(dir)?;
    let done = authority.revoke(&mut inventory, &targets, revocation, arguments.days)?;
    Ok(told(dir, &done))
}

/// The certificates that a manifest names.
fn listed(path: &Path) -> Result<Vec<Target>, CertsError> {
    let problem = |line: u64, problem: String| CertsError::Table {
        path: path.to_owned(),
        line,
        problem,
    };
    let text = fs::read(path).map_err(|source| CertsError::File {
        path: path.to_owned(),
        source,
    })?;
    // Spreadsheets begin with a mark of the encoding.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text);
    let unreadable = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        problem(line, format!("cannot be read: {error}"))
    };
    let columns = reader.headers().map_err(unreadable)?.clone();
    let place = |name: &str| columns.iter().position(|column| column == name);
    let (ids, serials) = (place("id"), place("serial_hex"));
    if ids.is_none() && serials.is_none() {
        return Err(problem(1, "has no column `id` or `serial_hex`".to_owned()));
    }
    let mut targets = Vec::new();
    for row in reader.records() {
        let row = row.map_err(unreadable)?;
        let field = |column: Option<usize>| {
            let field = column.and_then(|column| row.get(column));
            field.filter(|field| !field.is_empty())
        };
        targets.push(match (field(ids), field(serials)) {
            (Some(id), _) => Target::Id(id.to_owned()),
            (None, Some(serial)) => Target::Serial(serial.to_owned()),
            (None, None) => {
                let line = row.position().map_or(0, csv::Position::line);
                return Err(problem(line, "names neither an id nor a serial".to_owned()));
            }
        });
    }
    if targets.is_empty() {
        return Err(problem(1, "is followed by no rows".to_owned()));
    }
    Ok(targets)
}

fn told(dir: &Path, done: &Done) -> String {
    let mut text = String::new();
    name_all(&mut text, "revoked", &done.revoked, |entry| {
        let reason = entry.reason.as_deref().unwrap_or("no reason given");
        format!("{}, {reason}", entry.kind)
    });
    // Writing to a string cannot fail.
    if done.followed > 0 {
        let number = done.followed;
        let _ = writeln!(
            text,
            "             {number} of these because they were renewed from, or enrolled by, what was named"
        );
    }
    if done.enrolled > 0 {
        let number = done.enrolled;
        let _ = writeln!(
            text,
            "enrolled     {number} valid certificates by this claim stay valid: --with-enrolled revokes them, too"
        );
    }
    name_all(&mut text, "already", &done.already, |entry| {
        let reason = entry.reason.as_deref().map(|reason| format!(" ({reason})"));
        format!("revoked {}{}", date(entry.at), reason.unwrap_or_default())
    });
    name_all(&mut text, "expired", &done.expired, |entry| {
        format!("{}, needs no revocation", date(entry.not_after))
    });
    text + &super::crl::told(dir, &done.list) + &applied(dir)
}

fn name_all(text: &mut String, word: &str, entries: &[Entry], describe: impl Fn(&Entry) -> String) {
    if entries.len() > NAMED_MAX {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{word:<13}{} certificates", entries.len());
        return;
    }
    for entry in entries {
        let (id, what) = (&entry.id, describe(entry));
        let name = if id.is_empty() { "unknown id" } else { id };
        let _ = writeln!(text, "{word:<13}{name}  serial {}  {what}", entry.serial);
    }
}

fn applied(dir: &Path) -> String {
    format!(
        "             a broker with crl = \"{}\" applies it within a second; take it to brokers on other machines\n",
        crl_path(dir).display()
    )
}

fn reason() -> impl clap::builder::TypedValueParser<Value = Reason> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(Reason::ALL.map(Reason::name)).try_map(|name| name.parse::<Reason>())
}
