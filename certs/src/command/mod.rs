//! The subcommands: each has its arguments, and returns what to tell the user.

pub(crate) mod device;
pub(crate) mod init;
pub(crate) mod server;

use motemq_certs::{CertsError, Entry, Inventory, Issued, Kind};
use std::path::{Path, PathBuf};

/// Enters `issued` into the inventory and writes the files `stem.crt` and `stem.key`; returns what to tell the user.
pub(crate) fn keep(
    dir: &Path,
    stem: &Path,
    id: &str,
    kind: Kind,
    issued: &Issued,
) -> Result<String, CertsError> {
    let certificate = with_suffix(stem, ".crt");
    let private_key = with_suffix(stem, ".key");
    issued.check_new(&certificate, &private_key)?;
    Inventory::open(dir)?.append(&[Entry::issued(id, kind, issued)])?;
    issued.write(&certificate, &private_key)?;
    Ok(format!(
        "certificate  {}\n\
         private key  {}\n\
         serial       {}\n\
         SHA-256      {}\n",
        certificate.display(),
        private_key.display(),
        issued.serial_hex,
        issued.fingerprint_sha256,
    ))
}

/// `stem` may contain dots, which `Path::with_extension` would cut off.
fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
