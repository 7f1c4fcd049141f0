//! `crl`: writes or shows the list of revoked certificates.

use motemq_certs::{
    Authority, CertsError, Inventory, RevocationList, crl_path, date_time, now_unix_s,
};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Days until the list must be written again; without it as many as for the list before, at first 7.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3_650), conflicts_with = "show")]
    days: Option<u32>,
    /// Show the list as it is, and write none.
    #[arg(long)]
    show: bool,
    /// Write the list to this file too, in DER.
    #[arg(long, value_name = "FILE")]
    der: Option<PathBuf>,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let mut inventory = Inventory::open(dir)?;
    let (list, text) = if arguments.show {
        let Some(list) = RevocationList::open(dir)? else {
            return Err(CertsError::NoList(crl_path(dir)));
        };
        let text = shown(&list, &inventory);
        (list, text)
    } else {
        let list = Authority::open(dir)?.write_crl(&mut inventory, arguments.days)?;
        let text = told(dir, &list);
        (list, text)
    };
    if let Some(path) = &arguments.der {
        list.write_der(path)?;
    }
    Ok(text)
}

/// What to say of a list that was written.
pub(super) fn told(dir: &Path, list: &RevocationList) -> String {
    let next = list.next_update_unix_s.unwrap_or_default();
    format!(
        "list         {}  number {}, {} revoked\n\
         valid until  {}   run `motemq-certs crl` before, by cron or a timer\n",
        crl_path(dir).display(),
        list.number.unwrap_or_default(),
        list.revoked.len(),
        date_time(next),
    )
}

fn shown(list: &RevocationList, inventory: &Inventory) -> String {
    let number = list
        .number
        .map_or_else(|| "none".to_owned(), |n| n.to_string());
    let next = match list.next_update_unix_s {
        None => "not said".to_owned(),
        Some(next) if next < now_unix_s() => {
            format!(
                "{}   it is too old: run `motemq-certs crl`",
                date_time(next)
            )
        }
        Some(next) => date_time(next),
    };
    let mut text = format!(
        "issuer       {}\nnumber       {number}\nmade         {}\nvalid until  {next}\nrevoked      {}\n",
        list.issuer,
        date_time(list.this_update_unix_s),
        list.revoked.len(),
    );
    for revoked in &list.revoked {
        let entry = inventory.with_serial(&revoked.serial);
        let id = match entry.map(|entry| entry.id.as_str()) {
            None => "not in the inventory",
            Some("") => "unknown id",
            Some(id) => id,
        };
        let reason = revoked.reason.map_or("", |reason| reason.name());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}  {}  {reason:<22}  {id}",
            revoked.serial,
            date_time(revoked.at_unix_s)
        );
    }
    text
}
