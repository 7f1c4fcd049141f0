//! `claim`: issues a certificate that several devices share until each has its own.

use super::{Contents, issue, warn_about};
use motemq_certs::{Authority, CLAIM_DAYS, CertsError, KeyType, Order, Validity};
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the claim, such as the factory line that may enrol devices with it.
    name: String,
    /// Validity in days, or `forever`; it ends with the authority's at the latest.
    #[arg(long, default_value_t = Validity::Days(CLAIM_DAYS))]
    days: Validity,
    /// Kind of key: p256, p384, ed25519 or rsa2048.
    #[arg(long, value_name = "TYPE", default_value_t)]
    key: KeyType,
    /// Append the intermediate's certificate, for brokers that know only the root.
    #[arg(long)]
    chain: bool,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let order = Order::claim(&arguments.name)?.valid(arguments.days);
    let authority = Authority::open(dir)?;
    warn_about(arguments.key);
    let stem = dir.join("claims").join(&arguments.name);
    let contents = if arguments.chain {
        Contents::Chain
    } else {
        Contents::Leaf
    };
    let text = issue(&authority, &order, arguments.key, &stem, contents)?;
    Ok(
        text + "             with it devices may enrol and do nothing else; revoke it when it leaks\n"
    )
}
