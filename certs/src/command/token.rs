//! `token`: makes one-time tokens, lists them and takes them back.

use super::batch::ids::{counted, from_file};
use motemq_certs::{Authority, CertsError, Inventory, Order, Tokens, date, now_unix_s};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommand>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// List the tokens: id, last day, and whether it was used.
    Ls,
    /// Take back every token of a device.
    Rm {
        /// Identity of the device.
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Make {
    /// Identities of the devices, each of which gets a token.
    ids: Vec<String>,
    /// Until when the tokens may be used, in days from now.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3_652))]
    days: u32,
    /// A CSV file with a column `id`, each of which gets a token.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How many devices, numbered from 1, get a token.
    #[arg(long, requires = "prefix", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: Option<u32>,
    /// What their identities start with.
    #[arg(long, requires = "count")]
    prefix: Option<String>,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    // Tokens without an authority would be in the wrong directory.
    Authority::open(dir)?;
    let mut tokens = Tokens::open(dir)?;
    match &arguments.command {
        None => make(&mut tokens, &arguments.make),
        Some(Subcommand::Ls) => list(&tokens, &Inventory::open(dir)?),
        Some(Subcommand::Rm { id }) => {
            let count = tokens.remove(id, now_unix_s())?;
            Ok(format!("taken back  {count} of {id}\n"))
        }
    }
}

fn make(tokens: &mut Tokens, make: &Make) -> Result<String, CertsError> {
    let mut ids = make.ids.clone();
    if let Some(path) = &make.from {
        let devices = from_file(path, |device| Order::device(&device.id).map(drop))?;
        ids.extend(devices.into_iter().map(|device| device.id));
    }
    if let (Some(count), Some(prefix)) = (make.count, &make.prefix) {
        let devices = counted(prefix, 1, count.into(), None);
        ids.extend(devices.into_iter().map(|device| device.id));
    }
    if ids.is_empty() {
        return Err(CertsError::NoIds);
    }
    let now_s = now_unix_s();
    let not_after = now_s + i64::from(make.days) * DAY_S;
    let mut text = String::from("id,token,expires\n");
    for token in tokens.issue(&ids, not_after, now_s)? {
        let id = field(&token.id);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{id},{},{}", token.text, date(token.not_after));
    }
    Ok(text)
}

fn list(tokens: &Tokens, inventory: &Inventory) -> Result<String, CertsError> {
    let now_s = now_unix_s();
    let mut text = String::from("id,expires,state,serial\n");
    for token in tokens.all() {
        let used_by = Some(format!("token {}", token.sha256));
        let mut of_id = inventory.of_id(&token.id).rev();
        let used = of_id.find(|entry| entry.enrolled_by == used_by);
        let (state, serial) = match used {
            Some(entry) => ("used", entry.serial.as_str()),
            None if token.not_after <= now_s => ("expired", ""),
            None => ("unused", ""),
        };
        let (id, expires) = (field(&token.id), date(token.not_after));
        let _ = writeln!(text, "{id},{expires},{state},{serial}");
    }
    Ok(text)
}

/// As it stands in a CSV file (RFC 4180, section 2).
fn field(text: &str) -> String {
    if text.contains([',', '"']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

const DAY_S: i64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn ids_come_from_arguments_a_file_and_a_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ids.csv");
        fs::write(&path, "site,id\nnorth,meter-1\nsouth,\"a, \"\"b\"\"\"\n").unwrap();
        let mut tokens = Tokens::open(directory.path()).unwrap();
        let wanted = Make {
            ids: vec!["meter-9".to_owned()],
            days: 7,
            from: Some(path),
            count: Some(2),
            prefix: Some("gauge-".to_owned()),
        };
        let made = make(&mut tokens, &wanted).unwrap();
        let starts = [
            "id,token",
            "meter-9,",
            "meter-1,",
            "\"a, \"\"b\"\"\",",
            "gauge-000001,",
            "gauge-000002,",
        ];
        assert_eq!(made.lines().count(), starts.len());
        for (line, start) in made.lines().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }

    #[test]
    fn tokens_are_made_listed_and_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::open(directory.path()).unwrap();
        let wanted = Make {
            ids: vec!["meter-9".to_owned()],
            days: 7,
            from: None,
            count: Some(2),
            prefix: Some("gauge-".to_owned()),
        };
        let made = make(&mut tokens, &wanted).unwrap();
        let inventory = Inventory::open(directory.path()).unwrap();
        tokens.remove("meter-9", 1).unwrap();
        let listed = list(&tokens, &inventory).unwrap();
        assert_eq!(listed.matches(",unused,").count(), 2, "{listed}");
        for line in made.lines().skip(1) {
            assert!(!listed.contains(line.split(',').nth(1).unwrap()));
        }
    }
}
