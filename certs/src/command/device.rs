//! `device`: issues a device's certificate.

use super::{Contents, issue, warn_about};
use motemq_certs::{Authority, CertsError, DEVICE_DAYS, KeyType, Order, SubjectField, Validity};
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Identity of the device: its common name and client id.
    id: String,
    #[command(flatten)]
    profile: Profile,
    /// Something to know about the device, kept in the inventory and not in the certificate; may be repeated.
    #[arg(long = "attr", value_name = "NAME=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
}

/// What device certificates of one run have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct Profile {
    /// Validity in days, or `forever`; it ends with the authority's at the latest.
    #[arg(long, default_value_t = Validity::Days(DEVICE_DAYS))]
    pub(crate) days: Validity,
    /// Kind of key: p256, p384, ed25519 or rsa2048.
    #[arg(long, value_name = "TYPE", default_value_t)]
    pub(crate) key: KeyType,
    /// A field of the certificate's subject, O or OU, that the broker's rules are to see; costs bytes in each handshake.
    #[arg(long, value_name = "FIELD=VALUE", value_parser = pair)]
    subject: Vec<(String, String)>,
    /// Append the intermediate's certificate, for brokers that know only the root.
    #[arg(long)]
    chain: bool,
}

impl Profile {
    /// The order for one device.
    pub(crate) fn order(&self, id: &str) -> Result<Order, CertsError> {
        let mut order = Order::device(id)?.valid(self.days);
        for (field, value) in &self.subject {
            order = order.subject(field.parse::<SubjectField>()?, value)?;
        }
        Ok(order)
    }

    pub(crate) const fn has_chain(&self) -> bool {
        self.chain
    }

    pub(crate) const fn contents(&self) -> Contents {
        if self.chain {
            Contents::Chain
        } else {
            Contents::Leaf
        }
    }
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let Arguments {
        id,
        profile,
        attributes,
    } = arguments;
    let order = profile.order(id)?;
    let order = order.attributes(attributes.iter().cloned().collect())?;
    let authority = Authority::open(dir)?;
    warn_about(profile.key);
    let stem = dir.join("devices").join(id);
    issue(&authority, &order, profile.key, &stem, profile.contents())
}

/// Splits `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give NAME=VALUE, such as site=berlin".to_owned()),
    }
}
