//! `server`: issues the broker's certificate.

use super::{Contents, issue, warn_about};
use motemq_certs::{Authority, CertsError, KeyType, Order, SERVER_DAYS, Validity};
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// DNS names and IP addresses under which clients reach the broker.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Validity in days, or `forever`; it ends with the authority's at the latest.
    #[arg(long, default_value_t = Validity::Days(SERVER_DAYS))]
    days: Validity,
    /// Kind of key: p256, p384, ed25519 or rsa2048.
    #[arg(long, value_name = "TYPE", default_value_t)]
    key: KeyType,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let order = Order::server(&arguments.names)?.valid(arguments.days);
    let authority = Authority::open(dir)?;
    warn_about(arguments.key);
    let stem = dir.join("server");
    issue(&authority, &order, arguments.key, &stem, Contents::Chain)
}
