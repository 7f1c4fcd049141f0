//! The subcommands: each has its arguments, and returns what to tell the user.

pub(crate) mod batch;
pub(crate) mod claim;
pub(crate) mod crl;
pub(crate) mod device;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod probe;
pub(crate) mod renew;
pub(crate) mod revoke;
pub(crate) mod serve;
pub(crate) mod server;
pub(crate) mod sign_csr;
pub(crate) mod token;
pub(crate) mod trust;
pub(crate) mod verify;

use motemq_certs::{
    Authority, CertsError, Entry, Inventory, KeyType, Kind, Order, date, now_unix_s,
};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Which certificates a file gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// The certificate alone.
    Leaf,
    /// The certificate and the intermediate that issued it, if one did.
    Chain,
}

/// Issues a certificate with a new key, enters it into the inventory and writes the files `stem.crt` and
/// `stem.key`; returns what to tell the user.
pub(crate) fn issue(
    authority: &Authority,
    order: &Order,
    key_type: KeyType,
    stem: &Path,
    contents: Contents,
) -> Result<String, CertsError> {
    let certificate = with_suffix(stem, ".crt");
    let private_key = with_suffix(stem, ".key");
    let issued = authority.issue(order, key_type)?;
    issued.check_new(&certificate, &private_key)?;
    Inventory::open_to_issue(authority.dir())?.append(&[Entry::issued(order, &issued)])?;
    match contents {
        Contents::Leaf => issued.write(&certificate, &private_key)?,
        Contents::Chain => issued.write_chain(&certificate, &private_key)?,
    }
    let authority_ends = authority.not_after_unix_s();
    let is_cut = order.validity().end_unix_s(now_unix_s()) > authority_ends;
    Ok(format!(
        "certificate  {}\n\
         private key  {}\n\
         serial       {}\n\
         SHA-256      {}\n\
         valid until  {}{}\n",
        certificate.display(),
        private_key.display(),
        issued.serial_hex,
        issued.fingerprint_sha256,
        date(issued.not_after_unix_s),
        if is_cut { ", with its authority" } else { "" },
    ))
}

/// Says on standard error what speaks against a key on devices.
pub(crate) fn warn_about(key_type: KeyType) {
    if let Some(warning) = key_type.device_warning() {
        let _ = writeln!(io::stderr(), "motemq-certs: warning: {warning}");
    }
}

/// Reads a kind of certificate.
pub(crate) fn kind() -> impl clap::builder::TypedValueParser<Value = Kind> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(Kind::ALL.map(Kind::name)).map(|name| {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .unwrap_or(Kind::Device)
    })
}

/// `stem` may contain dots, which `Path::with_extension` would cut off.
pub(crate) fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
