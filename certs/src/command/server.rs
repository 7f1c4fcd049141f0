//! `server`: issues the broker's certificate.

use super::keep;
use motemq_certs::{Authority, CertsError, Kind, SERVER_DAYS};
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// DNS names and IP addresses under which clients reach the broker.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Validity in days.
    #[arg(long, default_value_t = SERVER_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_524))]
    days: u32,
}

pub(crate) fn run(dir: &Path, Arguments { names, days }: &Arguments) -> Result<String, CertsError> {
    let issued = Authority::open(dir)?.issue_server_for(names, *days)?;
    let id = names.first().map_or("", String::as_str);
    keep(dir, &dir.join("server"), id, Kind::Server, &issued)
}
